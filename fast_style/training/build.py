"""A run: its folder, its lock, and the way from settings to a `Trainer`.

`open_run` takes the folder and finds the checkpoint to go on from; `build_trainer` makes the
objects. From a notebook::

    config = load_config(Path("configs/wave.yaml"))
    run = open_run(config, root=Path("runs"), fresh=False, say=print)
    build_trainer(config, run, device=torch.device("cuda"), say=print).train()
"""

import hashlib
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from fast_style.core.devices import resolve_precision, set_up_torch
from fast_style.core.distributed import ALONE, Group
from fast_style.core.errors import UserError
from fast_style.core.files import write_text_atomically
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.losses.loss_network import Weights
from fast_style.models.checkpoint import (
    load_transform_net,
    require_same_tensors,
)
from fast_style.networks.transform_net import TransformNet, memory_format_for
from fast_style.pictures.folders import Photos, find_photos
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import (
    Config,
    PhotosConfig,
)
from fast_style.settings.settings import to_dict, to_yaml
from fast_style.training.data import (
    Crops,
    least_side,
    read_validation_photos,
    resolve_workers,
)
from fast_style.training.photo_cache import PhotoCache, open_photo_cache
from fast_style.training.run_folder import Run, environment, require_same_inputs, versions
from fast_style.training.trainer import Trainer
from fast_style.training.unreadable import (
    UnreadableList,
    probe_photos,
    too_many_unreadable,
    why_unreadable,
)

# Sample pictures are looked at by people, who see little on small crops.
_SMALLEST_SAMPLE = 256
# Where photo caches lie, in the working directory, unless data.cache_folder says otherwise.
_CACHES = Path("photo_cache")


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
    set_up_torch(device, threads=config.train.threads, deterministic=config.train.deterministic)
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
            num_photos=len(photos.training),
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


def _write_run_files(config: Config, run: Run, style: Image.Image, facts: str) -> None:
    try:
        write_text_atomically(run.folder / "environment.json", facts)
        write_text_atomically(run.folder / "config.yaml", to_yaml(config))
        write_picture(run.folder / "style.png", style)
    except OSError as error:
        raise UserError(f"{run.folder}: cannot be written ({error.strerror})") from None
