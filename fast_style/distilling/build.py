"""From settings to a `Distiller`."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fast_style.core.devices import ordinary_torch, resolve_precision, set_up_torch
from fast_style.core.errors import UserError, printable
from fast_style.core.words import count
from fast_style.distilling.distiller import PICTURES_STREAM, Distiller
from fast_style.distilling.painters import Styles, painting_crop
from fast_style.distilling.students import choose_channels, relu_layers
from fast_style.losses.inputs import TEACHER_KEYS
from fast_style.losses.loss_network import LossNetwork, Weights, load_weights
from fast_style.pictures.folders import INCLUDE_RESULTS, Photos
from fast_style.pictures.reading import PictureError, read_photo
from fast_style.settings.config import DistillConfig, DistillDataConfig
from fast_style.training.build import (
    describe_photos,
    describe_run,
    find_photos_of,
    find_readable_photos,
    import_what_torch_leaves_out,
    open_photo_stream,
    read_held_out,
    tell_of_changed_photos,
    tell_of_several,
)
from fast_style.training.run_folder import Run, environment, require_same_inputs, write_run_files

# Pictures from which channels are chosen; the teacher's energies are measured on the photos.
NUM_FIRST_PHOTOS, NUM_FIRST_PAINTINGS = 24, 12


@ordinary_torch()
def build_distiller(
    config: DistillConfig,
    run: Run,
    *,
    device: torch.device,
    say: Callable[[str], None],
    command: str = "",
) -> Distiller:
    """The distiller of a run. Cheap checks come first, so that mistakes are reported early.

    Args:
        config: the settings.
        run: from `open_run`.
        device: where to train.
        say: called with each line for the user, also while the distiller trains.
        command: the command line, for environment.json.

    Raises:
        UserError: pictures or weights do not fit the settings.
    """
    import_what_torch_leaves_out()
    set_up_torch(device, threads=config.train.threads, deterministic=config.train.deterministic)
    resolve_precision(config.train.precision, device)  # raises UserError
    config = run.settings(config)
    data = config.data
    photos = find_readable_photos(data, say, rules=run.photo_rules)
    paintings = find_photos_of(data, say, rules=run.photo_rules, kind="paintings")
    tell_of_several(paintings, say)
    validation = {
        "photos": read_held_out(photos, data.crop_size, say),
        "paintings": read_held_out(paintings, data.crop_size, say),
    }
    weights = _load_teacher(config)
    teacher = LossNetwork(config.teacher.architecture, weights, pooling=config.teacher.pooling).to(
        device
    )
    say(
        f"{count(len(photos.training), 'photo')} and "
        f"{count(len(paintings.training), 'painting')} to learn on, "
        f"{len(photos.validation)} and {len(paintings.validation)} held out; teacher: "
        f"{config.teacher.architecture}, {weights.label}"
    )
    description = {
        **describe_run(config, photos),
        "paintings": describe_photos(paintings),
        "teacher": {
            "architecture": config.teacher.architecture,
            "source": weights.source,
            "digest": weights.digest,
        },
    }
    require_same_inputs(
        run,
        description,
        {"photos": "data.photos", "paintings": "data.paintings", "teacher": "teacher.weights"},
    )
    tell_of_changed_photos(
        run, description, {"photos": "data.photos", "paintings": "data.paintings"}, say
    )
    styles = _read_styles(paintings, photos, size=data.crop_size, say=say)
    stream = open_photo_stream(
        config, photos, run, batch_size=config.train.num_photos, device=device, say=say
    )
    layers = relu_layers(config.teacher.architecture, config.student.deepest)
    samples = [stream.crops[k] for k in range(NUM_FIRST_PHOTOS)]
    photos_first = [sample.pixels for sample in samples if sample.pixels is not None]
    first = _first_pictures(photos_first, styles, data, config.seed).to(device)
    # Before the distiller opens its log: a folder with these files is a run's, and may begin anew.
    run.require_lock()  # to build has taken a while
    write_run_files(run.folder, config, environment(device, command))
    met = [unreadable for sample in samples for unreadable in sample.unreadable]
    stream.unreadable.report(met, lambda line: say(f"warning: {line}"))
    return Distiller(
        teacher=teacher,
        student=weights._replace(
            convolutions=choose_channels(teacher, first, layers, config.student.widths),
            source="student",
        ),
        energies=_energies(teacher, first[: len(photos_first)], layers),
        photos=stream,
        styles=styles,
        validation=validation,
        settings=config.train,
        log=config.log,
        run_folder=run.folder,
        description=description,
        seed=config.seed,
        resume_from=run.resume_from,
        say=say,
    )


def _load_teacher(config: DistillConfig) -> Weights:
    """The teacher's weights, as deep as the student.

    Raises:
        UserError: the file cannot be used, is itself a student, or has fewer channels than the
            student needs.
    """
    network = config.teacher
    weights = load_weights(
        network.weights,
        network.architecture,
        config.student.deepest,
        preprocessing=network.preprocessing,
        padding=network.padding,
        seed=config.seed,
        keys=TEACHER_KEYS,
    )
    if weights.heads:
        raise UserError(
            f"teacher.weights: {network.weights} was learned from another network; name that "
            "network's weights instead"
        )
    for number, (_, bias) in weights.convolutions.items():
        width = config.student.widths[int(number[0]) - 1]
        if width > len(bias):
            raise UserError(
                f"student.widths: {width} channels cannot be chosen from conv{number} of the "
                f"teacher, which has {len(bias)}; lower the width of block {number[0]}"
            )
    return weights


def _read_styles(
    paintings: Photos, photos: Photos, *, size: int, say: Callable[[str], None]
) -> Styles:
    """The paintings, decoded, without those that are results or cannot be read; and the photos.

    Raises:
        UserError: no painting is left.
    """
    found = []
    for path in paintings.training:
        try:
            found.append(read_photo(path, takes_results=paintings.takes_results))
        except PictureError as error:
            say(f"warning: skipping {error}")
    if not found:
        raise UserError(
            f"{printable(paintings.folder)}: none of its paintings can be used; add paintings, or "
            f"take results of fast-style in with {INCLUDE_RESULTS}"
        )
    return Styles(
        found,
        photos.training,
        size=size,
        takes_results=photos.takes_results,
        warn=lambda line: say(f"warning: {line}"),
    )


def _first_pictures(
    photos: Sequence[Tensor], styles: Styles, data: DistillDataConfig, seed: int
) -> Tensor:
    """The pictures that channels are chosen by: photos, then paintings; (N, 3, S, S) in [0, 1].

    Args:
        photos: uint8 (3, S, S).
        styles: has the paintings.
        data: its crop_size is S.
        seed: of the run.
    """
    rng = np.random.default_rng((seed, PICTURES_STREAM, 2**40))  # a step that no run reaches
    paintings = [
        painting_crop(styles.paintings[k % len(styles.paintings)], data.crop_size, rng)
        for k in range(NUM_FIRST_PAINTINGS)
    ]
    return torch.stack([*(photo.float() / 255 for photo in photos), *paintings])


@torch.no_grad()
def _energies(teacher: LossNetwork, photos: Tensor, layers: list[str]) -> dict[str, float]:
    """Mean square of the teacher's features on photos, at every layer."""
    features = teacher(photos, layers)
    return {layer: float(features[layer].square().mean()) for layer in layers}
