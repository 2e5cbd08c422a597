"""A run: its folder, its lock, and the way from settings to a `Trainer`.

`open_run` takes the folder and finds the checkpoint to go on from; `build_trainer` makes the
objects. From a notebook::

    config = load_config(Path("configs/wave.yaml"))
    run = open_run(config, root=Path("runs"), fresh=False, say=print)
    build_trainer(config, run, device=torch.device("cuda"), say=print).train()
"""

import hashlib
import json
import math
import os
import platform
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import PIL
import torch
from filelock import FileLock, Timeout
from PIL import Image
from tqdm import tqdm

from fast_style import __version__
from fast_style.core.distributed import ALONE, Group
from fast_style.core.errors import UserError
from fast_style.core.files import remove_stray_temporaries, write_text_atomically
from fast_style.losses.loss_network import LossNetwork, Weights, load_weights
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.models.checkpoint import (
    Checkpoint,
    load_transform_net,
    newest_valid_checkpoint,
    require_same_tensors,
)
from fast_style.networks.transform_net import TransformNet, memory_format_for
from fast_style.pictures.images import image_to_tensor, resize_shorter_side, write_picture
from fast_style.settings.config import (
    MAY_CHANGE_ON_RESUME,
    Config,
    DistillConfig,
    DistillTrainConfig,
    GatysConfig,
    PhotosConfig,
    TrainConfig,
)
from fast_style.settings.layers import deepest_layer
from fast_style.settings.settings import changed_settings, parse, to_dict, to_yaml
from fast_style.training.data import (
    Crops,
    Photos,
    UnreadableList,
    find_photos,
    least_side,
    probe_photos,
    read_photo,
    read_validation_photos,
    resolve_workers,
    too_many_unreadable,
    why_unreadable,
)
from fast_style.training.photo_cache import PhotoCache, open_photo_cache
from fast_style.training.trainer import Trainer, resolve_precision

# Sample pictures are looked at by people, who see little on small crops.
_SMALLEST_SAMPLE = 256
# Where photo caches lie, in the working directory, unless data.cache_folder says otherwise.
_CACHES = Path("photo_cache")
# A strip would become huge when its shorter side is enlarged to style.size.
_LONGEST_STYLE = 20


class Run(NamedTuple):
    """A run folder that this process has to itself, and where to go on in it."""

    folder: Path
    lock: FileLock | None
    """None where rank zero has it."""
    resume_from: Checkpoint | None

    def release(self) -> None:
        """Let others have the folder."""
        if self.lock is not None:
            self.lock.release()

    def abandon(self) -> None:
        """Give the folder back; it vanishes again if nothing was written into it."""
        if self.lock is None:
            return
        self.release()
        if (self.folder / "config.yaml").exists():
            return
        for name in ("lock", "lock.json"):
            (self.folder / name).unlink(missing_ok=True)
        for part in (self.folder / "checkpoints", self.folder / "samples", self.folder):
            with suppress(OSError):  # not empty: somebody's, so it stays
                part.rmdir()


def open_run(
    config: Config | DistillConfig,
    *,
    root: Path,
    fresh: bool,
    say: Callable[[str], None],
    group: Group = ALONE,
) -> Run:
    """The run folder ``root/<name>``, locked, with the newest checkpoint that fits the settings.

    Args:
        config: the settings of this time.
        root: the folder of all runs, ``runs``.
        fresh: take a new folder, ``<name>-2`` and so on, if there is one already.
        say: takes lines for people.
        group: rank zero opens and locks the folder, and the others get what it found.

    Raises:
        UserError: another process trains there, or the settings would change the run.
    """
    own = None
    with group.together():
        if group.is_first:
            own = _open_run(config, root, fresh, say)
    found = group.share(own and own._replace(lock=None))
    assert found is not None
    return own or found


def _open_run(
    config: Config | DistillConfig, root: Path, fresh: bool, say: Callable[[str], None]
) -> Run:
    folder = root / config.name
    number = 2
    while fresh and folder.exists():
        folder = root / f"{config.name}-{number}"
        number += 1
    try:
        for part in (folder, folder / "checkpoints", folder / "samples"):
            part.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{folder}: {_holder(folder)} trains here already; wait for it, or set another name=..."
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); runs lie in the working directory"
        ) from None
    for part in (folder, folder / "checkpoints", folder / "samples"):
        remove_stray_temporaries(part)
    _sign(folder)
    found = newest_valid_checkpoint(folder / "checkpoints", say)
    if found is None:
        return Run(folder, lock, None)
    path, checkpoint = found
    try:
        _require_same_run(path, checkpoint, config, say)
    except UserError:
        lock.release()
        raise
    return Run(folder, lock, checkpoint)


def _sign(folder: Path) -> None:
    """Say who holds the lock, for `_holder` in another process."""
    with suppress(OSError):
        write_text_atomically(
            folder / "lock.json", json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        )


def _holder(folder: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads((folder / "lock.json").read_text())
        return f"process {holder['pid']} on {holder['host']}"
    return "another process"


def _require_same_run(
    path: Path, checkpoint: Checkpoint, config: Config | DistillConfig, say: Callable[[str], None]
) -> None:
    """Show how the settings differ from the checkpoint's, and refuse what would change the run."""
    old = parse(type(config), checkpoint.metadata.get("settings", {}), str(path))
    refused = []
    for key, before, after in changed_settings(old, config):
        say(f"changed since the checkpoint: {key}: {before} -> {after}")
        prolonged = key == "train.steps" and config.train.schedule == "constant"
        is_harmless = key == "name" or key.startswith(MAY_CHANGE_ON_RESUME)  # folders get renamed
        if not is_harmless and not (prolonged and after >= checkpoint.metadata["step"]):
            refused.append(key)
    if not refused:
        return
    change = (
        f"{path.parent.parent}: these settings would change the run that is there: "
        f"{', '.join(refused)}. Set them back"
    )
    anew = "train in a new folder with --resume never (or another name=...)"
    if isinstance(config, DistillConfig):
        raise UserError(f"{change}, or {anew}")
    raise UserError(f"{change}, {anew}, or start from this model's weights with train.init_from")


def build_trainer(
    config: Config,
    run: Run,
    *,
    device: torch.device,
    say: Callable[[str], None],
    command: str = "",
    group: Group = ALONE,
) -> Trainer:
    """Everything that a run needs, in the order in which it can go wrong cheaply.

    Args:
        config: the settings.
        run: from `open_run`.
        device: where to train.
        say: takes lines for people.
        command: the command line, to be written down.
        group: the processes that train together. Nothing is exchanged here, so that rank zero may
            build first.

    Raises:
        UserError: photos, style, weights or memory are not as they should be.
    """
    set_up_torch(config.train, device)
    config = config.model_copy(update={"name": run.folder.name})  # which may be <name>-2
    # A resumed run has its weights already, and the file that it once began with may be gone.
    init_from = None if run.resume_from else config.train.init_from
    net = build_net(config, init_from).to(device).to(memory_format=memory_format_for(device))
    photos = find_photos_of(config.data)
    probe_photos(photos, max_unreadable_share=config.data.max_unreadable_share)
    style = read_style(config)
    largest_crop = config.data.grown_crop_size or config.data.crop_size
    validation = read_validation_photos(
        photos.validation, largest_crop, on_skipped=lambda line: say(f"warning: {line}")
    )
    samples = read_validation_photos(
        photos.validation,
        max(largest_crop, _SMALLEST_SAMPLE),
        count=config.log.samples,
    )
    if config.loss_network.weights == "imagenet":
        say(
            "loss network: VGG's weights are downloaded once, and need a GPU to be fast; "
            "loss_network.weights=compact needs neither"
        )
    weights = load_loss_weights(config)
    say(
        f"{len(photos.training)} photos to train on, {len(validation)} held out; loss network: "
        f"{config.loss_network.architecture}, {weights.label}"
    )
    description = _description(config, photos, style, weights)
    if run.resume_from is not None:
        require_same_inputs(
            run,
            description,
            {
                "style": "style.image",
                "photos": "data.photos",
                "loss_network": "loss_network.weights",
            },
        )
    perceptual_loss = build_perceptual_loss(config, weights, style, device)
    cache = cache_photos(config.data, photos, largest_crop, say)
    step = run.resume_from.metadata["step"] if run.resume_from else 0
    trainer = Trainer(
        net=net,
        perceptual_loss=perceptual_loss,
        crops=Crops(
            photos,
            seed=config.seed,
            size=config.data.crop_size,
            scale=config.data.crop_scale,
            flip=config.data.flip,
            growth=_growth(config),
            cache=cache,
        ),
        validation_photos=validation,
        sample_photos=samples,
        settings=config.train,
        log=config.log,
        run_folder=run.folder,
        description=description,
        unreadable=UnreadableList.open(
            run.folder / "unreadable_photos.jsonl",
            photos=len(photos.training),
            max_share=config.data.max_unreadable_share,
            before_sample=step * config.train.batch_size,
            is_kept=group.is_first,
        ),
        workers=resolve_workers(
            config.data.workers,
            device.type,
            cached=cache is not None,
            num_trainers=group.launch.local_world_size,
        ),
        precision=resolve_precision(config.train.precision, device),
        resume_from=run.resume_from,
        group=group,
    )
    if group.is_first:
        facts = environment(device, command, num_processes=group.launch.world_size)
        _write_run_files(config, run, style, facts)
    if step == 0:
        trainer.run_log.text("settings", to_yaml(config))
        trainer.run_log.text("command", command)
        trainer.run_log.picture("style", 0, style)
    return trainer


def check_inputs(config: Config, say: Callable[[str], None]) -> None:
    """Look at every photo, the style picture and the weights of a run, and train nothing.

    Raises:
        UserError: something is missing, or too many photos are unreadable.
    """
    build_net(config, config.train.init_from)  # says what is wrong with that model
    photos = find_photos_of(config.data)
    everything = [*photos.training, *photos.validation]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(why_unreadable, everything)
        # disable=None: a bar on a terminal only
        reasons = list(tqdm(looks, total=len(everything), unit="photo", disable=None))
    unreadable = [reason for reason in reasons if reason is not None]
    for reason in unreadable:
        say(f"unreadable: {reason}")
    say(
        f"photos: {len(photos.training)} to train on, {len(photos.validation)} held out, "
        f"{len(unreadable)} of them unreadable"
    )
    style = read_style(config)
    say(f"style: {config.style.image}, {style.width} x {style.height} as it is used")
    weights = load_loss_weights(config)
    architecture = config.loss_network.architecture
    say(f"loss network: {architecture}, {weights.label}, {weights.preprocessing} preprocessing")
    training, held_out = reasons[: len(photos.training)], reasons[len(photos.training) :]
    share = config.data.max_unreadable_share
    if (
        None not in training
        or None not in held_out
        or too_many_unreadable(len(unreadable), len(everything), share)
    ):
        raise UserError(
            f"{config.data.photos}: too many photos are unreadable; mend the folder, or raise "
            "data.max_unreadable_share"
        )
    say("everything is there")


def _growth(config: Config) -> tuple[int, int] | None:
    """From which sample on crops have which other size."""
    if config.data.grown_crop_size is None:
        return None
    steps = math.ceil(config.data.grow_after * config.train.steps)
    return steps * config.train.batch_size, config.data.grown_crop_size


def find_photos_of(data: PhotosConfig) -> Photos:
    """Those that the settings name, some of them held out.

    Raises:
        UserError: there is no such folder, or too few photos in it.
    """
    return find_photos(
        data.photos,
        validation_folder=data.validation_photos,
        validation_count=data.validation_count,
    )


def cache_photos(
    data: PhotosConfig, photos: Photos, largest_crop: int, say: Callable[[str], None]
) -> PhotoCache | None:
    """The cache of the training photos, built if it is not there yet; None if none is wanted.

    Raises:
        UserError: it is damaged, cannot be written, or does not fit on the disk.
    """
    if data.cache == "none":
        return None
    return open_photo_cache(
        photos.training,
        folder=photos.folder,
        side=data.cache_side or least_side(largest_crop, data.crop_scale),
        root=data.cache_folder or _CACHES,
        say=say,
    )


def read_style(config: Config) -> Image.Image:
    """The style picture at its training size, RGB.

    Raises:
        UserError: it is missing, unreadable, or no more than a thin strip.
    """
    style = read_photo(config.style.image)
    if max(style.size) > _LONGEST_STYLE * min(style.size):
        raise UserError(
            f"{config.style.image}: {style.width} x {style.height} pixels are a strip; crop the "
            f"style picture to at most {_LONGEST_STYLE} times as long as wide"
        )
    return resize_shorter_side(style, config.style.size)


def load_loss_weights(config: Config | GatysConfig) -> Weights:
    """The loss network's weights, as deep as the loss needs them."""
    network = config.loss_network
    layers = [*config.loss.content_layers, *config.loss.style_layers] or ["relu1_1"]
    return load_weights(
        network.weights,
        network.architecture,
        deepest_layer(layers, network.architecture),
        preprocessing=network.preprocessing,
        padding=network.padding,
        seed=config.seed,
    )


def build_perceptual_loss(
    config: Config | GatysConfig,
    weights: Weights,
    style: Image.Image,
    device: torch.device,
    *,
    blend: Sequence[tuple[Image.Image, float]] = (),
) -> PerceptualLoss:
    """The loss of these settings for this style picture.

    Args:
        config: the settings.
        weights: of the loss network, as deep as the loss needs them.
        style: the style picture, RGB.
        device: where to compute.
        blend: further style pictures, with their weights beside the 1 of `style`.

    Raises:
        UserError: a style picture is blank to the loss network.
    """
    loss_network = (
        LossNetwork(config.loss_network.architecture, weights, pooling=config.loss_network.pooling)
        .to(device)
        .to(memory_format=memory_format_for(device))
    )

    def to_pixels(image: Image.Image) -> torch.Tensor:
        return image_to_tensor(image)[None].to(device).float() / 255  # (1, 3, H, W)

    perceptual_loss = PerceptualLoss(
        loss_network,
        to_pixels(style),
        blend=[(to_pixels(image), weight) for image, weight in blend],
        **config.loss.model_dump(),
    ).to(device)
    pictures = [config.style.image]
    if isinstance(config, GatysConfig):
        pictures += config.style.blend
    for layer in perceptual_loss.style_layers:
        for picture, gram in zip(pictures, perceptual_loss.style_grams(layer), strict=True):
            if torch.isfinite(gram).all() and gram.abs().sum() > 0:
                continue
            raise UserError(
                f"{picture}: the loss network sees nothing in this style picture "
                f"(the Gram matrix of {layer} is zero or not finite); choose another one"
            )
    return perceptual_loss


def build_net(config: Config, init_from: Path | None) -> TransformNet:
    """The network as training begins: seeded weights, or those of a model of the same shape.

    Raises:
        UserError: that model is not there, or of another shape.
    """
    # Every weight is a function of the seed, whatever was drawn before.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = TransformNet(**config.model.model_dump())
    if init_from is not None:
        if not init_from.exists():
            raise UserError(
                f"{init_from}: the model of train.init_from is not there; train it first, or begin "
                "from nothing with train.init_from=null and more train.steps"
            )
        start, _ = load_transform_net(init_from)
        require_same_tensors(start.state_dict(), net.state_dict(), init_from)
        net.load_state_dict(start.state_dict())
    return net


def set_up_torch(settings: TrainConfig | DistillTrainConfig, device: torch.device) -> None:
    """Threads and determinism, as the settings ask for them."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if device.type == "cuda":
        # Convolutions are several times as fast with 10 bits of mantissa. The only products of
        # matrices are Gram matrices, whose differences need all 23.
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = device.type == "cuda" and not settings.deterministic
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(settings.deterministic)


def _description(
    config: Config, photos: Photos, style: Image.Image, weights: Weights
) -> dict[str, Any]:
    """What model files say of themselves."""
    return {
        "name": config.name,
        "architecture": config.model.model_dump(),
        "settings": to_dict(config),
        "style": {
            "file": config.style.image.name,
            "digest": hashlib.sha256(style.tobytes()).hexdigest(),
        },
        "photos": {"count": len(photos.training), "digest": photos.digest},
        "loss_network": {
            "architecture": config.loss_network.architecture,
            "source": weights.source,
            "label": weights.label,
            "digest": weights.digest,
        },
        "license": "the trainer's choice; mind the rights in the style picture",
        "versions": versions(),
    }


def require_same_inputs(
    run: Run, description: Mapping[str, Any], settings: Mapping[str, str]
) -> None:
    """Refuse to go on with other inputs than those the run was begun with.

    Args:
        run: with a checkpoint.
        description: what the files of this time will say of themselves.
        settings: parts of it that have a digest, to the settings that they come from.

    Raises:
        UserError: names the first setting whose digest differs.
    """
    assert run.resume_from is not None
    for name, setting in settings.items():
        if run.resume_from.metadata[name]["digest"] != description[name]["digest"]:
            raise UserError(
                f"{run.folder}: {setting} is not what this run was begun with (its digest "
                "differs). Put it back, or train in a new folder with --resume never"
            )


def versions() -> dict[str, str]:
    """Of everything that may change what training gives."""
    return {
        "fast_style": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
    }


def _write_run_files(config: Config, run: Run, style: Image.Image, facts: str) -> None:
    try:
        write_text_atomically(run.folder / "environment.json", facts)
        write_text_atomically(run.folder / "config.yaml", to_yaml(config))
        write_picture(run.folder / "style.png", style)
    except OSError as error:
        raise UserError(f"{run.folder}: cannot be written ({error.strerror})") from None


def environment(device: torch.device, command: str, *, num_processes: int = 1) -> str:
    """Where and by which command a run was made, as JSON."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    facts = {
        "versions": versions(),
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
        "processes": num_processes,
        "git": _git_commit(),
        "command": command,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    return json.dumps(facts, indent=2)


def _git_commit() -> str | None:
    """The commit of the checkout that this code lies in, if it lies in one."""
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return found.stdout.strip()
    return None
