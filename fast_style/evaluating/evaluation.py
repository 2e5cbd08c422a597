"""Is a model good? Its objective on held-out photos, beside that of the optimization method.

Johnson et al. 2016, figure 5 and table 1: on every photo, the objective that the network reaches in
one forward pass stands against that of L-BFGS after 10, 20, ... iterations, with the same losses.
What L-BFGS reaches is kept in the report's folder, photo by photo (`baselines`). `report` turns
the numbers of this module into pages.
"""

import hashlib
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fast_style import __version__
from fast_style.core.errors import Stopped, UserError, printable
from fast_style.core.files import sha256_of
from fast_style.evaluating.baselines import (
    Baselines,
    Descent,
    Photo,
    Variant,
    digest_of,
    eight_bits,
    minimize_on,
    pixels_of,
)
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.losses.loss_network import imagenet_is_cached
from fast_style.losses.perceptual import LossValues, PerceptualLoss
from fast_style.measures.artifacts import blotches, border_excess, checkerboard, clipped_share
from fast_style.models.checkpoint import load_transform_net
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.transform_net import memory_format_for
from fast_style.optimizing.minimizing import Iterate
from fast_style.pictures.folders import pictures_of
from fast_style.pictures.pixels import center_crop, image_to_tensor, resize_shorter_side
from fast_style.pictures.reading import PictureError, read_photo, read_picture
from fast_style.settings.config import Config, load_config, parse_config
from fast_style.settings.settings import to_dict

_SMALLEST_SIZE, _LARGEST_SIZE = 32, 4096
_MOST_GRID_ROWS = 6

Thing = TypeVar("Thing")

TERMS = LossValues._fields

COMPACT_APPROXIMATES = (
    "which approximate the full VGG-19; to measure under that one, give --weights FILE, or "
    "--weights imagenet, which keeps it in torch's cache (548 MB)"
)
"""What has to be known of an objective that is measured with COMPACT weights."""


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
    digest: str
    net: nn.Module
    metadata: dict[str, Any]
    settings: Config


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
        net = net.to(device).to(memory_format=memory_format_for(device))
        settings = parse_config(metadata["settings"], str(path))
        models.append(Model(name, path, sha256_of(path), FastTransform(net), metadata, settings))
    return models


def load_objective(
    models: Sequence[Model],
    *,
    style: Path | None,
    weights: str | None,
    loss: Path | None,
    device: torch.device,
    say: Callable[[str], None] = lambda line: None,
) -> Objective:
    """The objective that the models were trained for, or another one.

    Args:
        models: to be judged by it.
        style: a style picture; None: that of the first model's run folder.
        weights: of the loss network; None: those that the settings name, but ``imagenet`` where
            the first model's name ``compact`` and torch's cache has the full network.
        loss: a training YAML, for `loss`, `loss_network` and `style.size`; None: the first model's.
        device: where to compute.
        say: is told which network the objective is measured with, and what a model was not
            trained for although somebody wants it so.

    Raises:
        UserError: something is missing, or is not what a model was trained for while nobody said
            that this is meant.
    """
    config = _deciding_settings(models[0], weights, loss)
    picture, file = _style_picture(config, style, models[0])
    try:
        loaded = load_loss_weights(config)
    except UserError as error:
        raise UserError(
            f"{error} (here: --weights FILE, and its preprocessing in a --loss CONFIG.yaml)"
        ) from None
    with _exact_arithmetic():
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
        "loss": to_dict(config)["loss"],
    }
    objective = Objective(perceptual_loss, description, _digest_of_objective(description))
    meant = {
        "style picture": style is not None or loss is not None,
        "loss network": weights is not None or loss is not None,
        "loss": loss is not None,
    }
    measured = f"the objective is measured with {network.architecture}, {printable(loaded.label)}"
    say(f"{measured}, {COMPACT_APPROXIMATES}" if loaded.source == "compact" else measured)
    _compare(models, objective, meant, say)
    return objective


def _deciding_settings(first: Model, weights: str | None, loss: Path | None) -> Config:
    """The settings that decide over the objective."""
    config = load_config(loss) if loss is not None else first.settings
    network = config.loss_network
    if weights is None and loss is None and network.weights == "compact":
        # Compact stands in for the full network; a --loss that names it means just that.
        weights = "imagenet" if imagenet_is_cached(network.architecture) else None
    if weights is None:
        return config
    changed = network.model_copy(update={"weights": weights})
    return config.model_copy(update={"loss_network": changed})


def _compare(
    models: Sequence[Model],
    objective: Objective,
    meant: Mapping[str, bool],
    say: Callable[[str], None],
) -> None:
    """Refuse models that were trained for something else, unless just that is meant."""
    for model in models:
        differing = [what for what, same in _agreement(model, objective).items() if not same]
        if "loss network" in differing and _is_approximation(model, objective):
            differing.remove("loss network")
            say(
                f"{printable(model.path)} was trained with COMPACT weights, which approximate "
                "these; --weights compact measures with them"
            )
        unmeant = " and ".join(what for what in differing if not meant[what])
        if unmeant:
            raise UserError(
                f"{printable(model.path)}: was trained with another {unmeant} than the objective "
                "has; say which one is meant, with --style PICTURE, --weights FILE or --loss "
                "CONFIG.yaml"
            )
        if differing:
            say(
                f"warning: {printable(model.path)} was trained with another "
                f"{' and '.join(differing)}"
            )


def _is_approximation(model: Model, objective: Objective) -> bool:
    """Whether the model's loss network is the compact stand-in for the objective's."""
    theirs, network = model.settings.loss_network, objective.description["loss_network"]
    return (
        theirs.weights == "compact"
        and network["label"] == "imagenet weights"
        and theirs.architecture == network["architecture"]
        and theirs.pooling == network["pooling"]
    )


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


def _style_picture(config: Config, style: Path | None, first: Model) -> tuple[Image.Image, str]:
    """The style picture as the loss network sees it, and the name of its file."""
    if style is not None:
        picture = config.style.model_copy(update={"image": style})
        return read_style(config.model_copy(update={"style": picture})), style.name
    known = first.metadata["style"]
    path = first.path.resolve()
    for folder in (path.parent, path.parent.parent):  # of a model, and of a checkpoint
        file = folder / "style.png"
        if file.is_file():
            image = read_picture(file).rgb
            if hashlib.sha256(image.tobytes()).hexdigest() != known["digest"]:
                raise UserError(
                    f"{printable(file)}: is not the picture that {printable(first.path)} was "
                    "trained with (its digest differs); give the right one with --style PICTURE"
                )
            # Of another size only where --loss says so.
            return resize_shorter_side(image, config.style.size), str(known["file"])
    raise UserError(
        f"{printable(first.path)}: there is no style.png beside it, as in a run folder; give the "
        "style picture with --style PICTURE"
    )


def _agreement(model: Model, objective: Objective) -> dict[str, bool]:
    """What of the objective a model was trained for."""
    theirs, description = model.settings.loss_network, objective.description
    network = description["loss_network"]
    return {
        "style picture": model.metadata["style"]["digest"] == description["style"]["digest"],
        "loss network": model.metadata["loss_network"]["digest"] == network["digest"]
        and theirs.pooling == network["pooling"]
        and (theirs.padding or network["padding"]) == network["padding"],
        "loss": to_dict(model.settings)["loss"] == description["loss"],
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
    files = pictures_of(inputs)
    if counts is not None and len(counts) not in (1, len(sizes)):
        raise UserError(f"--count: give one number, or one for each of the {len(sizes)} --sizes")
    for size in sizes:
        if not _SMALLEST_SIZE <= size <= _LARGEST_SIZE:
            raise UserError(f"--sizes: must be {_SMALLEST_SIZE} to {_LARGEST_SIZE}, got {size}")
    counts = counts or [len(files)]
    counts = counts if len(counts) > 1 else list(counts) * len(sizes)
    photos = {size: spread(files, count) for size, count in zip(sizes, counts, strict=True)}
    return Plan(photos, iterations, list(dict.fromkeys(variants)))


def work_of(plan: Plan) -> int:
    """The whole work of a plan in pixel-iterations, for a progress bar."""
    return sum(
        size * size * plan.iterations * len(files) * len(plan.variants)
        for size, files in plan.photos.items()
    )


def spread(things: Sequence[Thing], count: int) -> list[Thing]:
    """`count` of them, evenly spread over their order; all of them if there are no more."""
    if count >= len(things):
        return list(things)
    return [things[index * len(things) // count] for index in range(count)]


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
            shown = spread(range(1, len(photos) + 1), _MOST_GRID_ROWS)
            rows, faults = [], _Faults(objective.loss)
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
                if number in shown:
                    grid.append(pictures)
                if not progress(0, f"{where}, faults"):
                    raise Stopped
                faults.look_at(photo, models, descents)
            if not progress(0, f"{size} px, timing"):
                raise Stopped
            sizes[str(size)] = {
                "photos": rows,
                "seconds": _measure_seconds(
                    models, objective.loss, photos[0].pixels, plan.variants
                ),
                "artifacts": faults.summary(models, size, device),
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
                "digest": model.digest,
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
    first_variant = next(iter(descents), None)
    for model in models:
        picture = model.net(photo.pixels).float().clamp(0, 1)
        values = loss.terms(picture, targets).values()
        equals = {variant: descent.equals(values.total) for variant, descent in descents.items()}
        row["models"][model.name] = values._asdict() | {"equals": equals}
        pictures.append((model.name, eight_bits(picture)))
        if first_variant is not None:
            equal = equals[first_variant]
            shown, equal_picture = descents[first_variant].picture_after(
                iterations if equal is None else equal
            )
            pictures.append((f"L-BFGS, {shown} iterations", equal_picture))
    if first_variant is not None:
        shown, last = descents[first_variant].picture_after(iterations)
        pictures.append((f"L-BFGS, {shown} iterations", last))
    return row, GridRow(photo.pixels.shape[-1], photo.name, pictures)


@contextmanager
def _exact_arithmetic() -> Iterator[None]:
    """Inside, GPUs multiply float32 as float32, and not with the 10 bits of TF32."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    products = torch.backends.cuda.matmul
    before = convolutions.fp32_precision, products.fp32_precision
    convolutions.fp32_precision = products.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision, products.fp32_precision = before


# --- Times and faults ---------------------------------------------------------------------------

_ROUNDS = 3
# SciPy's first updates cost it more than later ones, and its history is full after ten.
_FIRST_TIMED, _LAST_TIMED = 10, 14


def _measure_seconds(
    models: Sequence[Model], loss: PerceptualLoss, photo: Tensor, variants: Sequence[Variant]
) -> dict[str, Any]:
    """Seconds of a forward pass of each model, and of an evaluation within each L-BFGS.

    The sides take turns, and medians are given, so that what disturbs one disturbs the others.
    """
    passes: dict[str, list[float]] = {model.name: [] for model in models}
    evaluations: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(_ROUNDS):
        for model in models:
            for is_warm in (False, True, True):
                started = _now(photo.device)
                with torch.no_grad():
                    model.net(photo)
                if is_warm:
                    passes[model.name].append(_now(photo.device) - started)
        for variant in variants:
            evaluations[variant].append(_seconds_per_evaluation(loss, photo, variant))
    return {
        "forward_pass": {name: statistics.median(all_of) for name, all_of in passes.items()},
        "evaluation": {name: statistics.median(all_of) for name, all_of in evaluations.items()},
    }


def _seconds_per_evaluation(loss: PerceptualLoss, photo: Tensor, variant: Variant) -> float:
    """Of the objective, its gradient, and the method's own work for an update."""
    looks: list[tuple[float, int]] = []

    def note(iterate: Iterate) -> bool:
        looks.append((_now(photo.device), iterate.evaluations))
        return True

    minimize_on(loss, photo, variant, _LAST_TIMED, note)
    first, last = looks[min(_FIRST_TIMED, len(looks) // 2)], looks[-1]
    return (last[0] - first[0]) / max(1, last[1] - first[1])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


class _Faults:
    """The faults of `artifacts`, photo by photo: of the photos, of the models, of L-BFGS's ends.

    What L-BFGS's pictures show too comes from the objective, and not from a network.
    """

    def __init__(self, loss: PerceptualLoss) -> None:
        self.loss = loss
        self.found: dict[tuple[str, str], dict[str, list[float]]] = {}

    @torch.no_grad()
    def look_at(
        self, photo: Photo, models: Sequence[Model], descents: Mapping[Variant, Descent]
    ) -> None:
        """Add one photo, its stylized versions, and the last pictures of L-BFGS."""
        self._add(("photos", ""), photo.pixels, None)
        for model in models:
            self._add(("models", model.name), model.net(photo.pixels), photo)
        for variant, descent in descents.items():
            end = pixels_of(descent.pictures[-1], photo.pixels.device)
            self._add(("baselines", variant), end, photo)

    @torch.no_grad()
    def summary(self, models: Sequence[Model], size: int, device: torch.device) -> dict[str, Any]:
        """Medians over the photos, but the mean of the clipped share; blotches of the models."""
        told: dict[str, Any] = {"photos": {}, "models": {}, "baselines": {}}
        for (kind, name), faults in self.found.items():
            values: dict[str, float | None] = {}
            for fault, measured in faults.items():
                finite = [value for value in measured if math.isfinite(value)]
                middle = statistics.fmean if fault == "clipped" else statistics.median
                values[fault] = middle(finite) if finite else None
            if kind == "photos":
                told[kind] = values
            else:
                told[kind][name] = values
        for model in models:
            net = model.net
            probes = blotches(
                lambda probe, net=net: net(probe.to(device)),  # type: ignore[misc]
                size=max(64, size // 32 * 32),
            )
            level = float(probes.levels.mean())
            told["models"][model.name]["blotches"] = level if math.isfinite(level) else None
        return told

    def _add(self, key: tuple[str, str], output: Tensor, photo: Photo | None) -> None:
        """Measure a picture as it would be written, and its border against a photo's."""
        picture = (output.float().clamp(0, 1) * 255).round() / 255
        faults = self.found.setdefault(key, {})
        measures = {"checkerboard": checkerboard(picture), "clipped": clipped_share(picture)}
        if photo is not None:  # the photo itself has no content to lose
            measures["border"] = self._border(picture, photo)
        for name, value in measures.items():
            faults.setdefault(name, []).append(float(value))

    def _border(self, picture: Tensor, photo: Photo) -> Tensor:
        loss = self.loss
        return border_excess(
            loss.loss_network,
            picture,
            photo.pixels,
            style_grams={layer: loss.style_grams(layer)[0] for layer in loss.style_layers},
            content_layers=loss.content_layers,
            style_layers=loss.style_layers,
            content_weight=loss.content_weight,
            style_weight=loss.style_weight,
            normalization=loss.normalization,
        )
