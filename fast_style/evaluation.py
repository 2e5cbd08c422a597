"""Is a model good? Its objective on held-out photos, beside that of the optimisation method.

Johnson et al. 2016, figure 5 and table 1: on every photo, the objective that the network reaches in
one forward pass stands against that of L-BFGS after 10, 20, ... iterations, with the same losses.
What L-BFGS reaches is kept in the report's folder, photo by photo (`baselines`). `report` turns
the numbers of this module into pages.
"""

import hashlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fast_style import __version__
from fast_style.artifacts import blotches, border_excess, checkerboard, clipped_share
from fast_style.baselines import (
    Baselines,
    Descent,
    Photo,
    Stopped,
    Variant,
    digest_of,
    eight_bits,
    pixels_of,
)
from fast_style.checkpoint import load_transform_net
from fast_style.config import Config, config_to_dict, load_config, parse_config
from fast_style.data import center_crop, read_photo
from fast_style.errors import UserError, printable
from fast_style.files import sha256_of
from fast_style.gatys import Iterate, Minimum, minimize
from fast_style.images import PictureError, find_pictures, image_to_tensor, read_picture
from fast_style.losses import LossValues, PerceptualLoss
from fast_style.runs import build_perceptual_loss, load_loss_weights, read_style

_SMALLEST_SIZE, _LARGEST_SIZE = 32, 4096

TERMS = LossValues._fields


class Objective(NamedTuple):
    """What pictures are judged by."""

    loss: PerceptualLoss
    description: dict[str, Any]
    """Plain data: the style picture, the loss network, the weights of the terms."""

    digest: str
    """Of the description: equal digests, equal objectives."""


class Model(NamedTuple):
    """A model to be judged."""

    name: str
    path: Path
    net: nn.Module
    metadata: dict[str, Any]


# --- What is judged, and by what ----------------------------------------------------------------


def load_models(paths: Sequence[Path], device: torch.device) -> list[Model]:
    """The models, with names that tell them apart.

    Raises:
        UserError: a file is not there or no model.
    """
    models: list[Model] = []
    for path in paths:
        net, metadata = load_transform_net(path)
        name, number = str(metadata["name"]), 2
        while any(name == model.name for model in models):
            name, number = f"{metadata['name']}-{number}", number + 1
        models.append(Model(name, path, net.to(device).eval(), metadata))
    return models


def load_objective(
    models: Sequence[Model],
    *,
    style: Path | None,
    weights: str | None,
    loss: Path | None,
    device: torch.device,
) -> Objective:
    """The objective that the models were trained for, or another one.

    Args:
        models: to be judged by it.
        style: a style picture; None: that of the first model's run folder.
        weights: of the loss network; None: those that the settings name.
        loss: a training YAML, for `loss`, `loss_network` and `style.size`; None: the first model's.
        device: where to compute.

    Raises:
        UserError: something is missing, or is not what a model was trained for while nobody said
            that this is meant.
    """
    first = models[0]
    config = load_config(loss) if loss is not None else _settings_of(first)
    if weights is not None:
        changed = config.loss_network.model_copy(update={"weights": weights})
        config = config.model_copy(update={"loss_network": changed})
    picture, file = _style_picture(config, style, first)
    loaded = load_loss_weights(config)
    perceptual_loss = build_perceptual_loss(config, loaded, picture, device)
    network = config.loss_network
    description = {
        "style": {
            "file": file,
            "width": picture.width,
            "height": picture.height,
            "digest": hashlib.sha256(picture.tobytes()).hexdigest(),
        },
        "loss_network": {
            "architecture": network.architecture,
            "label": loaded.label,
            "digest": loaded.digest,
            "preprocessing": loaded.preprocessing,
            "padding": loaded.padding,
            "pooling": network.pooling,
        },
        "loss": config_to_dict(config)["loss"],
    }
    objective = Objective(perceptual_loss, description, _digest_of_objective(description))
    if style is None and weights is None and loss is None:
        for model in models:
            differing = [what for what, same in _agreement(model, objective).items() if not same]
            if differing:
                raise UserError(
                    f"{printable(model.path)}: was trained with another {' and '.join(differing)} "
                    f"than {printable(first.path)}; say which objective is meant, with --style "
                    "PICTURE, --weights FILE or --loss CONFIG.yaml"
                )
    return objective


def _digest_of_objective(description: Mapping[str, Any]) -> str:
    """Of what decides over the numbers; names of files may change."""
    network = dict(description["loss_network"])
    del network["label"]
    return digest_of(
        {
            "style": description["style"]["digest"],
            "loss_network": network,
            "loss": description["loss"],
        }
    )


def _settings_of(model: Model) -> Config:
    """The complete settings of a model's run."""
    for folder in (model.path.parent, model.path.parent.parent):
        if (folder / "config.yaml").is_file() and (folder / "style.png").is_file():
            return load_config(folder / "config.yaml")
    return parse_config(model.metadata["settings"], str(model.path))


def _style_picture(config: Config, style: Path | None, first: Model) -> tuple[Image.Image, str]:
    """The style picture as the loss network sees it, and the name of its file."""
    if style is not None:
        picture = config.style.model_copy(update={"image": style})
        return read_style(config.model_copy(update={"style": picture})), style.name
    known = first.metadata["style"]
    for folder in (first.path.parent, first.path.parent.parent):
        file = folder / "style.png"
        if file.is_file():
            image = read_picture(file).rgb
            if hashlib.sha256(image.tobytes()).hexdigest() != known["digest"]:
                raise UserError(
                    f"{printable(file)}: is not the picture that {printable(first.path)} was "
                    "trained with (its digest differs); give the right one with --style PICTURE"
                )
            return image, str(known["file"])
    raise UserError(
        f"{printable(first.path)}: there is no style.png beside it, as in a run folder; give the "
        "style picture with --style PICTURE"
    )


def _agreement(model: Model, objective: Objective) -> dict[str, bool]:
    """What of the objective a model was trained for."""
    settings, description = model.metadata["settings"], objective.description
    network = description["loss_network"]
    return {
        "style picture": model.metadata["style"]["digest"] == description["style"]["digest"],
        "loss network": model.metadata["loss_network"]["digest"] == network["digest"]
        and settings["loss_network"]["pooling"] == network["pooling"]
        and (settings["loss_network"]["padding"] or network["padding"]) == network["padding"],
        "loss": settings["loss"] == description["loss"],
    }


class Plan(NamedTuple):
    """How much is evaluated."""

    photos: dict[int, list[Path]]
    """The photos at each size."""

    iterations: int
    variants: Sequence[Variant]


def make_plan(
    inputs: Sequence[Path],
    *,
    sizes: Sequence[int],
    counts: Sequence[int] | None,
    iterations: int,
    variants: Sequence[Variant],
) -> Plan:
    """Which photos are evaluated at which size.

    Args:
        inputs: photos, and folders of photos.
        sizes: pixels of the squares.
        counts: how many photos, evenly spread: one number, or one for each size; None: all.
        iterations: of L-BFGS.
        variants: of L-BFGS.

    Raises:
        UserError: there are no photos, or the numbers do not fit each other.
    """
    for path in inputs:
        if not path.exists():
            raise UserError(f"{printable(path)}: not found")
    files = [file for path in inputs for file in (find_pictures(path) if path.is_dir() else [path])]
    files = list(dict.fromkeys(files))
    if not files:
        raise UserError(f"{printable(inputs[0])}: there are no photos in this folder")
    if counts is not None and len(counts) not in (1, len(sizes)):
        raise UserError(f"--count: give one number, or one for each of the {len(sizes)} --sizes")
    for size in sizes:
        if not _SMALLEST_SIZE <= size <= _LARGEST_SIZE:
            raise UserError(f"--sizes: must be {_SMALLEST_SIZE} to {_LARGEST_SIZE}, got {size}")
    counts = counts or [len(files)]
    counts = counts if len(counts) > 1 else list(counts) * len(sizes)
    photos = {size: _spread(files, count) for size, count in zip(sizes, counts, strict=True)}
    return Plan(photos, iterations, variants)


def work_of(plan: Plan) -> int:
    """The whole work of a plan in pixel-iterations, for a progress bar."""
    return sum(
        size * size * plan.iterations * len(files) * len(plan.variants)
        for size, files in plan.photos.items()
    )


def _spread(files: Sequence[Path], count: int) -> list[Path]:
    """`count` of the files, evenly spread over their order; all of them if there are no more."""
    if count >= len(files):
        return list(files)
    return [files[index * len(files) // count] for index in range(count)]


def read_photos(
    files: Sequence[Path], size: int, device: torch.device, say: Callable[[str], None]
) -> list[Photo]:
    """The middle squares of the readable ones, resized to `size`.

    Raises:
        UserError: none can be read.
    """
    photos = []
    for file in files:
        try:
            image = read_photo(file)
        except PictureError as error:
            say(f"skipping {error}")
            continue
        pixels = image_to_tensor(center_crop(image, size))[None].to(device).float() / 255
        photos.append(Photo(file.name, pixels, min(image.size) < size))
    if not photos:
        raise UserError(f"none of the {len(files)} photos can be read", exit_code=1)
    return photos


# --- All together -------------------------------------------------------------------------------


def evaluate(
    models: Sequence[Model],
    objective: Objective,
    plan: Plan,
    output: Path,
    *,
    device: torch.device,
    progress: Callable[[int, str], bool],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], list["GridRow"]]:
    """All numbers of the report, and the pictures of its grids.

    Args:
        models: to be judged.
        objective: by which.
        plan: on what.
        output: the report's folder; descents are kept in ``baselines`` in it.
        device: where to compute.
        progress: told the work done since the last time, in pixel-iterations (see `work_of`), and
            what is being done; False stops.
        say: takes lines for people.

    Raises:
        Stopped: `progress` said so. The same call goes on with the next photo.
        UserError: photos cannot be read, or the folder cannot be written.
    """
    with _exact_arithmetic():
        baselines = Baselines(output / "baselines", objective.loss, objective.digest)
        baselines.make_folder()
        sizes: dict[str, Any] = {}
        grid: list[GridRow] = []
        for size, files in plan.photos.items():
            photos = read_photos(files, size, device, say)
            rows = []
            ends: dict[Variant, list[Tensor]] = {variant: [] for variant in plan.variants}
            for number, photo in enumerate(photos, start=1):
                where = f"{size} px, photo {number} of {len(photos)}"
                descents = {
                    variant: _descent(
                        baselines, photo, variant, plan.iterations, where, progress, say
                    )
                    for variant in plan.variants
                }
                row, pictures = _judge(models, objective.loss, photo, descents, plan.iterations)
                rows.append(row)
                grid.append(pictures)
                for variant, descent in descents.items():
                    ends[variant].append(pixels_of(descent.pictures[-1], device))
            progress(0, f"{size} px, timing")
            sizes[str(size)] = {
                "photos": rows,
                "seconds": _measure_seconds(models, objective.loss, photos[0].pixels),
                "artifacts": _artifacts(models, objective, photos, ends),
            }
    results = {
        "format": 1,
        "objective": objective.description,
        "objective_digest": objective.digest,
        "iterations": plan.iterations,
        "variants": list(plan.variants),
        "models": [
            {
                "name": model.name,
                "file": model.path.name,
                "digest": sha256_of(model.path),
                "agrees": _agreement(model, objective),
                "label": model.metadata["loss_network"]["label"],
            }
            for model in models
        ],
        "sizes": sizes,
        "machine": {
            "device": device.type if device.type != "cuda" else torch.cuda.get_device_name(device),
            "threads": torch.get_num_threads(),
            "fast_style": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
    }
    return results, grid


class GridRow(NamedTuple):
    """Pictures of one photo, uint8 (S, S, 3) each, with what stands above them."""

    size: int
    name: str
    pictures: list[tuple[str, NDArray[np.uint8]]]


def _descent(
    baselines: Baselines,
    photo: Photo,
    variant: Variant,
    iterations: int,
    where: str,
    progress: Callable[[int, str], bool],
    say: Callable[[str], None],
) -> Descent:
    """A photo's descent, kept or computed, with its progress shown."""
    area = photo.pixels.shape[-1] ** 2
    found = baselines.find(photo, variant, iterations)
    if found is not None:
        if not progress(area * iterations, where):
            raise Stopped
        return found
    say(f"{where} ({printable(photo.name)}): {iterations} iterations of {variant} L-BFGS")
    told = 0

    def on_iterate(iterate: Iterate) -> bool:
        nonlocal told
        done, told = iterate.iteration - told, iterate.iteration
        return progress(area * done, f"{where}, {variant} L-BFGS, iteration {iterate.iteration}")

    descent = baselines.compute(photo, variant, iterations, on_iterate)
    progress(area * (iterations - told), where)  # what it did not need
    return descent


@torch.no_grad()
def _judge(
    models: Sequence[Model],
    loss: PerceptualLoss,
    photo: Photo,
    descents: Mapping[Variant, Descent],
    iterations: int,
) -> tuple[dict[str, Any], GridRow]:
    """One photo: the terms of every model's picture, and what they equal."""
    targets = loss.content_targets(photo.pixels)
    row: dict[str, Any] = {
        "name": photo.name,
        "enlarged": photo.is_enlarged,
        "photo": loss.terms(photo.pixels, targets).values()._asdict(),
        "models": {},
        "baselines": {
            variant: dict(zip(TERMS, descent.values.T.tolist(), strict=True))
            | {"evaluations": descent.evaluations.tolist()}
            for variant, descent in descents.items()
        },
    }
    pictures = [("photo", eight_bits(photo.pixels))]
    for model in models:
        picture = model.net(photo.pixels).float().clamp(0, 1)
        values = loss.terms(picture, targets).values()
        equals = {variant: descent.equals(values.total) for variant, descent in descents.items()}
        row["models"][model.name] = values._asdict() | {"equals": equals}
        pictures.append((model.name, eight_bits(picture)))
        for variant, descent in list(descents.items())[:1]:
            equal = equals[variant]
            shown, equal_picture = descent.picture_after(iterations if equal is None else equal)
            pictures.append((f"L-BFGS, {shown} iterations", equal_picture))
    for descent in list(descents.values())[:1]:
        shown, last = descent.picture_after(iterations)
        pictures.append((f"L-BFGS, {shown} iterations", last))
    return row, GridRow(photo.pixels.shape[-1], photo.name, pictures)


@contextmanager
def _exact_arithmetic() -> Iterator[None]:
    """Inside, GPUs multiply float32 as float32, and not with the 10 bits of TF32."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


# --- Times and faults ---------------------------------------------------------------------------

_ROUNDS = 5
_EVALUATIONS_PER_ROUND = 4


def _measure_seconds(
    models: Sequence[Model], loss: PerceptualLoss, photo: Tensor
) -> dict[str, Any]:
    """Seconds of one forward pass of each model, and of one evaluation within L-BFGS-B.

    The sides take turns, and medians are given, so that what disturbs one disturbs the others.
    """
    targets = loss.content_targets(photo)
    passes: dict[str, list[float]] = {model.name: [] for model in models}
    evaluations: list[float] = []
    for number in range(_ROUNDS + 1):
        for model in models:
            with torch.no_grad():
                started = _now(photo.device)
                model.net(photo)
                seconds = _now(photo.device) - started
            if number > 0:  # the first round warms up
                passes[model.name].append(seconds)
        started = _now(photo.device)
        minimum: Minimum = minimize(
            lambda picture: loss.terms(picture, targets), photo, iterations=_EVALUATIONS_PER_ROUND
        )
        if number > 0:
            evaluations.append((_now(photo.device) - started) / minimum.last.evaluations)
    return {
        "forward_pass": {name: statistics.median(all_of) for name, all_of in passes.items()},
        "evaluation": statistics.median(evaluations),
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def _artifacts(
    models: Sequence[Model],
    objective: Objective,
    photos: Sequence[Photo],
    ends: Mapping[Variant, Sequence[Tensor]],
) -> dict[str, Any]:
    """The faults of `artifacts`: of the photos themselves, of the models, and of L-BFGS's ends.

    Medians over the photos, but the mean of the clipped share, and of blotches over the probes.
    What L-BFGS's pictures show too comes from the objective, and not from a network.
    """
    loss = objective.loss

    def border(output: Tensor, photo: Photo) -> Tensor:
        return border_excess(
            loss.loss_network,
            output,
            photo.pixels,
            style_grams={layer: loss.style_grams(layer)[0] for layer in loss.style_layers},
            content_layers=loss.content_layers,
            style_layers=loss.style_layers,
            content_weight=loss.content_weight,
            style_weight=loss.style_weight,
            normalization=loss.normalization,
        )

    def faults_of(outputs: Sequence[Tensor], *, are_photos: bool = False) -> dict[str, Any]:
        pictures = [output.clamp(0, 1) for output in outputs]
        faults = {
            "checkerboard": torch.cat([checkerboard(picture) for picture in pictures]).median(),
            "clipped": torch.cat([clipped_share(output) for output in outputs]).mean(),
        }
        if not are_photos:  # they have no content to lose
            borders = [border(*pair) for pair in zip(pictures, photos, strict=True)]
            faults["border"] = torch.cat(borders).median()
        return {name: _finite(value) for name, value in faults.items()}

    def blotches_of(net: nn.Module) -> float | None:
        size, device = photos[0].pixels.shape[-1], photos[0].pixels.device
        probes = blotches(lambda probe: net(probe.to(device)), size=max(64, size // 32 * 32))
        return _finite(probes.levels.mean())

    return {
        "photos": faults_of([photo.pixels for photo in photos], are_photos=True),
        "models": {
            model.name: faults_of([model.net(photo.pixels).float() for photo in photos])
            | {"blotches": blotches_of(model.net)}
            for model in models
        },
        "baselines": {variant: faults_of(pictures) for variant, pictures in ends.items()},
    }


def _finite(value: Tensor) -> float | None:
    """A number that JSON knows."""
    return float(value) if bool(torch.isfinite(value)) else None
