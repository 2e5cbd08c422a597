"""From settings to a `Trainer`.

`running.train` does all of it in one call. Its parts::

    config = load_config("configs/wave.yaml")
    with open_run(config, root=Path("runs"), fresh=False, say=print) as run:
        build_trainer(config, run, device="cuda", say=print).train()
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fast_style.core.devices import ordinary_torch, resolve_device, resolve_precision, set_up_torch
from fast_style.core.distributed import ALONE, Group
from fast_style.core.files import name_in_utf_8
from fast_style.core.signals import waiting_signals
from fast_style.core.words import count
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.losses.discriminator import SMALLEST_PICTURE
from fast_style.losses.judge import judge_sides, load_judge_settings, load_judge_weights
from fast_style.losses.loss_network import Weights
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.networks.transform_net import memory_format_for
from fast_style.pictures.folders import INCLUDE_RESULTS, Photos, find_photos
from fast_style.pictures.pixels import image_to_tensor
from fast_style.pictures.scanning import RULES, lines_about
from fast_style.pictures.several import MAY_HOLD_SEVERAL, line_about_several, num_pictures
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import NEAREST, Config, DistillConfig
from fast_style.settings.layers import layers_judged
from fast_style.settings.reading import checked
from fast_style.settings.sections import PhotosConfig
from fast_style.settings.writing import to_dict, to_yaml
from fast_style.training.adversary import Adversary
from fast_style.training.data import (
    Crops,
    fit_shared_memory,
    least_side,
    read_validation_photos,
    resolve_workers,
)
from fast_style.training.photo_cache import open_photo_cache
from fast_style.training.photo_stream import PhotoStream, to_pixels
from fast_style.training.run_folder import (
    Run,
    environment,
    require_same_inputs,
    style_digest,
    versions,
    write_run_files,
)
from fast_style.training.start import build_net, start_from_nearest
from fast_style.training.trainer import Trainer
from fast_style.training.unreadable import UnreadableList, probe_photos
from fast_style.training.validation import Validation, ValidationJudge

# Least side of sample pictures, in pixels: smaller ones show too little.
SMALLEST_SAMPLE = 256
# Files that are opened to tell of those that hold several pictures: of more, a disk takes minutes.
_MOST_LOOKED_AT = 5000
# The folder of photo caches, in the working directory, unless data.cache_folder names another.
_CACHES = Path("photo_cache")


@ordinary_torch()
def build_trainer(
    config: Config,
    run: Run,
    *,
    device: str | torch.device,
    say: Callable[[str], None],
    command: str = "",
    group: Group = ALONE,
) -> Trainer:
    """The trainer of a run. Cheap checks come first, so that mistakes are reported early.

    Args:
        config: the settings.
        run: from `open_run`.
        device: where to train; a name such as ``auto`` or ``cpu``, or a torch.device.
        say: called with each line for the user, also while the trainer trains.
        command: the command line, for environment.json and TensorBoard.
        group: the processes that train together. Nothing is exchanged here, so that rank zero may
            build first.

    Raises:
        TypeError: `config` is no settings.
        UserError: a setting is wrong, or photos, style picture, weights or memory do not fit them.
    """
    config = checked(config)
    import_what_torch_leaves_out()
    device = resolve_device(device, argument="device=")
    config = run.settings(config)
    set_up_torch(device, threads=config.train.threads, deterministic=config.train.deterministic)
    precision = resolve_precision(config.train.precision, device)
    # A resumed run has its weights already, and the model of train.init_from may be gone.
    init_from = None if run.resume_from else config.train.init_from
    net = build_net(config, init_from, say)
    photos = find_readable_photos(config.data, say, rules=run.photo_rules)
    style = read_style(config.style.image, config.style.size)
    picture = config.style.image
    if line := line_about_several([(str(picture), num_pictures(picture))]):
        say(line)
    if init_from == NEAREST:
        start_from_nearest(net, config, style, photos, say)
    net = net.to(device).to(memory_format=memory_format_for(device))
    largest_crop = config.data.grown_crop_size or config.data.crop_size
    held_out = read_held_out(photos, largest_crop, say)
    samples = read_validation_photos(
        photos.validation,
        max(largest_crop, SMALLEST_SAMPLE),
        num_photos=config.log.samples,
        takes_results=photos.takes_results,
    )
    weights = _load_weights(config, say)
    say(
        f"{count(len(photos.training), 'photo')} to train on, {len(held_out)} held out; loss "
        f"network: {config.loss_network.architecture}, {weights.label}"
    )
    description = _describe(config, photos, style, weights)
    require_same_inputs(
        run,
        description,
        {"style": "style.image", "photos": "data.photos", "loss_network": "loss_network.weights"},
    )
    tell_of_changed_photos(run, description, {"photos": "data.photos"}, say)
    style_pixels = to_pixels(image_to_tensor(style)[None], device)
    judged = _kept_layers(config, style_pixels, say)
    perceptual_loss = build_perceptual_loss(config, weights, style, device, kept_layers=judged)
    judge = _build_judge(config, photos, device)
    stream = open_photo_stream(
        config,
        photos,
        run,
        batch_size=config.train.batch_size,
        growth=_growth(config),
        device=device,
        say=say,
        group=group,
    )
    # Before the trainer opens its log: a folder with these files is a run's, and may begin anew.
    if group.is_first:
        facts = environment(device, command, num_processes=group.launch.world_size)
        run.require_lock()  # to build has taken a while
        write_run_files(run.folder, config, facts)
        write_picture(run.folder / "style.png", style)
    trainer = Trainer(
        net=net,
        perceptual_loss=perceptual_loss,
        validation=Validation(
            held_out,
            perceptual_loss,
            style_pixels,
            judge=judge,
            batch_size=config.train.batch_size,
            group=group,
        ),
        photos=stream,
        sample_photos=samples,
        settings=config.train,
        stability_weight=config.loss.stability_weight,
        stability_noise=config.loss.stability_noise / 255,
        seed=config.seed,
        adversary=Adversary(
            perceptual_loss,
            style_pixels,
            weight=config.loss.adversarial_weight,
            seed=config.seed,
        )
        if judged
        else None,
        log=config.log,
        run_folder=run.folder,
        description=description,
        precision=precision,
        resume_from=run.resume_from,
        say=say,
        group=group,
    )
    if run.start_step == 0:
        trainer.run_log.text("settings", to_yaml(config))
        trainer.run_log.text("command", command)
        trainer.run_log.picture("style", 0, style)
    return trainer


def _kept_layers(config: Config, style: Tensor, say: Callable[[str], None]) -> list[str]:
    """The layers that the discriminator judges; none if it has no weight.

    Pictures may be too small for it, which is told.
    """
    if config.loss.adversarial_weight == 0:
        return []
    data = config.data
    smallest = min(data.crop_size, data.grown_crop_size or data.crop_size, *style.shape[-2:])
    if smallest >= SMALLEST_PICTURE:
        return layers_judged(config.loss.style_layers)
    say(
        f"loss.adversarial_weight: {config.loss.adversarial_weight:g} is ignored; the "
        f"discriminator needs crops and a style picture of at least {SMALLEST_PICTURE} pixels, and "
        f"the smallest has {smallest} (data.crop_size, data.grown_crop_size, style.size)"
    )
    return []


def _load_weights(config: Config, say: Callable[[str], None]) -> Weights:
    if config.loss_network.weights in ("imagenet", "imagenet_features"):
        say(
            "loss network: VGG's weights are downloaded once, and need a GPU to be fast; "
            "loss_network.weights=compact needs neither"
        )
    return load_loss_weights(config)


def _build_judge(config: Config, photos: Photos, device: torch.device) -> ValidationJudge | None:
    """The judge of `log.judge_weights`, with the photos at its own size; None without weights."""
    if config.log.judge_weights is None:
        return None
    loss, photo_side = build_judge_loss(config, config.log.judge_weights, device)
    return ValidationJudge(
        loss,
        read_validation_photos(photos.validation, photo_side, takes_results=photos.takes_results),
    )


def build_judge_loss(
    config: Config, judge_weights: str, device: torch.device
) -> tuple[PerceptualLoss, int]:
    """The judge's loss, with the style picture at the judge's size; and its photos' side in pixels.

    Args:
        config: the settings.
        judge_weights: the value of `log.judge_weights`.
        device: where to compute.

    Raises:
        UserError: the weights or the style picture cannot be used.
    """
    settings = load_judge_settings(judge_weights)
    weights = load_judge_weights(settings, "log.judge_weights")
    style_side, photo_side = judge_sides(settings)
    style = read_style(config.style.image, style_side)
    # Errors name the run's style picture, not that of the judge's file.
    named = settings.style.model_copy(update={"image": config.style.image})
    settings = settings.model_copy(update={"style": named})
    return build_perceptual_loss(settings, weights, style, device), photo_side


def _growth(config: Config) -> tuple[int, int] | None:
    """The first sample with grown crops, and their size; None if crops do not grow."""
    if config.data.grown_crop_size is None:
        return None
    steps = math.ceil(config.data.grow_after * config.train.steps)
    return steps * config.train.batch_size, config.data.grown_crop_size


def _describe(
    config: Config, photos: Photos, style: Image.Image, weights: Weights
) -> dict[str, Any]:
    """The description that model files contain, without the step."""
    return {
        **describe_run(config, photos),
        "architecture": config.model.model_dump(),
        "style": {
            "file": name_in_utf_8(config.style.image),
            "digest": style_digest(style),
        },
        "loss_network": {
            "architecture": config.loss_network.architecture,
            "source": weights.source,
            "label": weights.label,
            "digest": weights.digest,
        },
        "license": "the trainer's choice; mind the rights in the style picture",
    }


# --- Shared with distilling ---------------------------------------------------------------------


def import_what_torch_leaves_out() -> None:
    """Import what torch imports only when an optimizer and a log are made.

    Building can take minutes, so an interrupt ends it at once, except for these seconds; see
    `waiting_signals`.
    """
    with waiting_signals():
        import torch._dynamo  # which imports sympy
        import torch.utils.tensorboard  # noqa: F401


def find_photos_of(
    data: PhotosConfig, say: Callable[[str], None], *, rules: int = RULES, kind: str = "photos"
) -> Photos:
    """The photos or paintings that the settings name, some held out; says what was left out.

    Args:
        data: the settings.
        say: prints a line for the user.
        rules: of the scan; see `scanning.RULES`.
        kind: ``photos`` or ``paintings``.

    Raises:
        UserError: the folder does not exist, or has too few photos.
    """
    photos = find_photos(
        getattr(data, kind),
        validation_folder=getattr(data, f"validation_{kind}"),
        validation_count=data.validation_count,
        kind=kind,
        rules=rules,
        takes_results=data.include_results,
        tell=say,
    )
    for line in lines_about(photos.left_out, INCLUDE_RESULTS):
        say(line)
    return photos


def find_readable_photos(
    data: PhotosConfig, say: Callable[[str], None], *, rules: int = RULES
) -> Photos:
    """The photos that the settings name, after a few have been read as a test.

    The arguments are those of `find_photos_of`.

    Raises:
        UserError: as `find_photos_of`; or too many of those few are unreadable.
    """
    photos = find_photos_of(data, say, rules=rules)
    probe_photos(photos, max_unreadable_share=data.max_unreadable_share)
    tell_of_several(photos, say)
    return photos


def tell_of_several(photos: Photos, say: Callable[[str], None]) -> None:
    """Say a line if files hold several pictures, of which one is taken: animations, documents."""
    files = [*photos.training, *photos.validation]
    suspects = [file for file in files if file.suffix.lower() in MAY_HOLD_SEVERAL]
    looked_at = suspects[:_MOST_LOOKED_AT]
    if line := line_about_several([(str(file), num_pictures(file)) for file in looked_at]):
        more = len(suspects) - len(looked_at)
        say(f"{line} ({count(more, 'file')} more were not looked at)" if more else line)


def read_held_out(photos: Photos, size: int, say: Callable[[str], None]) -> Tensor:
    """The held-out photos, uint8 (N, 3, size, size); warns of unreadable ones."""
    return read_validation_photos(
        photos.validation,
        size,
        takes_results=photos.takes_results,
        on_skipped=lambda line: say(f"warning: {line}"),
    )


def describe_run(config: Config | DistillConfig, photos: Photos) -> dict[str, Any]:
    """The part of a description that files of training and of distilling share."""
    return {
        "name": config.name,
        "settings": to_dict(config),
        "photos": describe_photos(photos),
        "versions": versions(),
    }


def describe_photos(photos: Photos) -> dict[str, Any]:
    """The part of a description that says which photos a run has, and by which rules."""
    return {
        "count": len(photos.training),
        "digest": photos.digest,
        "sizes": photos.sizes_digest,
        "held_out": photos.held_out_digest,
        "rules": photos.rules,
    }


def tell_of_changed_photos(
    run: Run,
    description: Mapping[str, Any],
    settings: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Say a line if a resumed run's photos have other sizes than before, or others are held out.

    That is no error: an unreadable photo may have been mended. Checkpoints of earlier versions
    tell neither.

    Args:
        run: the run; a new one has nothing to differ from.
        description: of the present photos, as `Trainer` writes it into files.
        settings: by name of a part of the description made by `describe_photos`, its setting.
        say: prints a line for the user.
    """
    if run.resume_from is None:
        return
    for name, setting in settings.items():
        once, now = run.resume_from.metadata[name], description[name]
        if once.get("held_out") not in (None, now["held_out"]):
            folder = setting.replace("data.", "data.validation_")
            say(
                f"warning: the held-out {name} ({folder}, or some of {setting}) have other names "
                "or sizes than when this run was last started or resumed; what was measured on "
                "them before cannot be compared with what follows"
            )
        if once.get("sizes") not in (None, now["sizes"]):
            say(
                f"warning: {setting}: some files have other sizes than when this run was last "
                "started or resumed; it goes on with them as they are now, and ends with another "
                "model than without the change"
            )


def open_photo_stream(
    config: Config | DistillConfig,
    photos: Photos,
    run: Run,
    *,
    batch_size: int,
    growth: tuple[int, int] | None = None,
    device: torch.device,
    say: Callable[[str], None],
    group: Group = ALONE,
) -> PhotoStream:
    """The training photos of a run, from the cache if the settings ask for one.

    Args:
        config: the settings.
        photos: from `find_readable_photos`.
        run: the run, for its list of unreadable photos.
        batch_size: photos of a step, of all processes together.
        growth: (sample, size): from that sample on, crops have that size; None: they do not grow.
        device: where to train.
        say: prints a line for the user.
        group: the processes that train together.

    Raises:
        UserError: the cache is damaged, cannot be written, or does not fit on the disk.
    """
    data = config.data
    cache = None
    largest_crop = growth[1] if growth else data.crop_size
    if data.cache != "none":
        cache = open_photo_cache(
            photos.training,
            folder=photos.folder,
            side=data.cache_side or least_side(largest_crop, data.crop_scale),
            root=data.cache_folder or _CACHES,
            say=say,
            takes_results=photos.takes_results,
        )
    launch = group.launch
    workers = resolve_workers(
        data.workers,
        device.type,
        cached=cache is not None,
        num_trainers=launch.local_world_size,
    )
    return PhotoStream(
        Crops(
            photos,
            seed=config.seed,
            size=data.crop_size,
            scale=data.crop_scale,
            flip=data.flip,
            growth=growth,
            cache=cache,
        ),
        UnreadableList.open(
            run.folder / "unreadable_photos.jsonl",
            num_photos=len(photos.training),
            max_share=data.max_unreadable_share,
            before_sample=run.start_step * batch_size,
            is_kept=group.is_first,
        ),
        batch_size=batch_size,
        device=device,
        workers=fit_shared_memory(
            workers,
            batch_bytes=batch_size // launch.world_size * 3 * largest_crop**2,
            num_trainers=launch.local_world_size,
            say=say,
        ),
        group=group,
    )
