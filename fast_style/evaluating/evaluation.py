"""Models measured on held-out photos, beside the optimization method on the same objective.

Johnson et al. 2016, figure 5 and table 1: on every photo, the objective of the network's picture,
made in one forward pass, is compared with that of L-BFGS after 10, 20, ... iterations. Here only
numbers and pictures are made; `summary`, `plots` and `report` present them.
"""

import math
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fast_style import __version__
from fast_style.core.devices import ordinary_torch
from fast_style.evaluating.baselines import BaselineCache, Descent, from_uint8, to_uint8
from fast_style.evaluating.objective import Model, Objective, agreement, full_float32
from fast_style.evaluating.plan import Photo, Plan, Variant, read_photos, spread
from fast_style.evaluating.timing import measure_seconds
from fast_style.losses.perceptual import LossValues, PerceptualLoss
from fast_style.measures.artifacts import (
    blotchiness,
    border_ratio,
    clipped_fraction,
    weave_strengths,
)
from fast_style.measures.blots import blot_share
from fast_style.measures.halos import halos
from fast_style.measures.repeats import repeat_strengths
from fast_style.measures.steadiness import steadiness

TERMS = LossValues._fields

_MOST_GRID_ROWS = 6
_SMALLEST_PROBE = 64  # `blotchiness` needs 64 pixels, and a multiple of 32

Artifacts = dict[str, dict[str, dict[str, float]]]
"""Of one photo: kind (photos, models, baselines), name within the kind, artifact, value."""


class GridRow(NamedTuple):
    """One photo's row of the grid: captions and pictures, uint8 (S, S, 3)."""

    size: int
    name: str
    pictures: list[tuple[str, NDArray[np.uint8]]]


@ordinary_torch()
def evaluate(
    models: Sequence[Model],
    objective: Objective,
    plan: Plan,
    output: Path,
    *,
    device: torch.device,
    progress: Callable[[int, str], None],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], list[GridRow]]:
    """The numbers of the report as plain data, and the rows of its grid.

    The descents of L-BFGS are cached in ``baselines`` in the output folder, so that the same call
    resumes after the last finished one.

    Args:
        models: what to measure.
        objective: what to measure with.
        plan: the photos, and the iterations of L-BFGS.
        output: the report's folder.
        device: where to compute.
        progress: called with the work since the last call, in pixels times iterations (see
            `pixel_iterations`), and a description of the present step; may raise `Stopped`.
        say: prints a line for the user.

    Raises:
        Stopped: raised by `progress`.
        UserError: a photo cannot be read, or the folder cannot be written to.
    """
    cache = BaselineCache(output / "baselines", objective.loss, objective.digest)
    cache.make_folder("--output")
    evaluation = _Evaluation(models, objective, plan, cache, progress, say)
    sizes: dict[str, Any] = {}
    grid: list[GridRow] = []
    with full_float32():
        for size, files in plan.photos.items():
            photos = read_photos(files, size, device)
            sizes[str(size)], rows = evaluation.measure_size(size, photos)
            grid += rows
    results = {
        "format": 1,
        "objective": objective.description,
        "objective_digest": objective.digest,
        "iterations": plan.iterations,
        "variants": list(plan.variants),
        "models": [_describe_model(model, objective) for model in models],
        "sizes": sizes,
        "machine": describe_machine(device),
    }
    return results, grid


def _describe_model(model: Model, objective: Objective) -> dict[str, Any]:
    return {
        "name": model.name,
        "file": model.path.name,
        "digest": model.digest,
        "agrees": agreement(model, objective),
        "label": model.metadata["loss_network"]["label"],
        "architecture": model.metadata["loss_network"]["architecture"],
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What numbers and times were computed with, as plain data."""
    return {
        "device": device.type if device.type != "cuda" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "fast_style": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


@dataclass(frozen=True)
class _Evaluation:
    """The arguments of `evaluate`, shared by its steps."""

    models: Sequence[Model]
    objective: Objective
    plan: Plan
    cache: BaselineCache
    progress: Callable[[int, str], None]
    say: Callable[[str], None]

    def measure_size(
        self, size: int, photos: Sequence[Photo]
    ) -> tuple[dict[str, Any], list[GridRow]]:
        """The results of all photos at one size, and their rows of the grid."""
        loss = self.objective.loss
        self.cache.require_files(photos, self.plan.variants)
        in_grid = spread(range(len(photos)), _MOST_GRID_ROWS)
        rows: list[dict[str, Any]] = []
        artifacts: list[Artifacts] = []
        grid: list[GridRow] = []
        for index, photo in enumerate(photos):
            where = f"{size} px, photo {index + 1} of {len(photos)}"
            descents = {
                variant: self.cache.load_or_compute(
                    photo,
                    variant,
                    self.plan.iterations,
                    where=where,
                    progress=self.progress,
                    say=self.say,
                )
                for variant in self.plan.variants
            }
            pictures = _stylize(self.models, photo)
            rows.append(_measure_terms(loss, photo, pictures, descents))
            if index in in_grid:
                grid.append(_grid_row(photo, pictures, rows[-1], descents, self.plan.iterations))
            self.progress(0, f"{where}, artifacts")
            artifacts.append(
                _measure_artifacts(self.models, self.objective, photo, pictures, descents)
            )
        self.progress(0, f"{size} px, timing")
        first = photos[0].pixels
        seconds = measure_seconds(self.models, loss, first, self.plan.variants)
        summary = _summarize_artifacts(artifacts)
        for model in self.models:
            blotches = _measure_blotches(model.net, size, first.device)
            summary["models"][model.name]["blotches"] = blotches
        return {"photos": rows, "seconds": seconds, "artifacts": summary}, grid


@torch.no_grad()
def _stylize(models: Sequence[Model], photo: Photo) -> dict[str, Tensor]:
    """Each model's picture, (1, 3, S, S), clamped to [0, 1] and not rounded."""
    return {model.name: model.net(photo.pixels).float().clamp(0, 1) for model in models}


@torch.no_grad()
def _measure_terms(
    loss: PerceptualLoss,
    photo: Photo,
    pictures: Mapping[str, Tensor],
    descents: Mapping[Variant, Descent],
) -> dict[str, Any]:
    """The terms of the photo, of the models' pictures and of the descents, as plain data."""
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
    for name, picture in pictures.items():
        values = loss.terms(picture, targets).values()
        equals = {
            variant: descent.iterations_to_reach(values.total)
            for variant, descent in descents.items()
        }
        row["models"][name] = values._asdict() | {"equals": equals}
    return row


def _grid_row(
    photo: Photo,
    pictures: Mapping[str, Tensor],
    row: Mapping[str, Any],
    descents: Mapping[Variant, Descent],
    iterations: int,
) -> GridRow:
    """The photo, each model's picture beside L-BFGS's of equal objective, and L-BFGS's last.

    L-BFGS is shown in the first variant only.
    """
    shown = [("photo", to_uint8(photo.pixels))]
    variant = next(iter(descents), None)

    def show_descent(iteration: int) -> None:
        if variant is not None:
            number, picture = descents[variant].picture_after(iteration)
            shown.append((f"L-BFGS, {number} iterations", picture))

    for name, picture in pictures.items():
        shown.append((name, to_uint8(picture)))
        equal = row["models"][name]["equals"].get(variant)
        show_descent(iterations if equal is None else equal)
    show_descent(iterations)
    return GridRow(photo.pixels.shape[-1], photo.name, shown)


# --- Artifacts ----------------------------------------------------------------------------------


@torch.no_grad()
def _measure_artifacts(
    models: Sequence[Model],
    objective: Objective,
    photo: Photo,
    pictures: Mapping[str, Tensor],
    descents: Mapping[Variant, Descent],
) -> Artifacts:
    """The artifacts of the photo, of the models' pictures, and of L-BFGS's last pictures.

    Artifacts that L-BFGS's pictures share come from the objective, not from a network.
    """
    last = {
        variant: from_uint8(descent.pictures[-1], photo.pixels.device)
        for variant, descent in descents.items()
    }
    return {
        "photos": {
            "": artifacts_of(photo.pixels, photo, objective.style)
            | steadiness_of(nn.Identity(), photo)
        },
        "models": {
            model.name: artifacts_of(pictures[model.name], photo, objective.style, objective.loss)
            | steadiness_of(model.net, photo)
            for model in models
        },
        "baselines": {
            variant: artifacts_of(picture, photo, objective.style, objective.loss)
            for variant, picture in last.items()
        },
    }


def artifacts_of(
    picture: Tensor, photo: Photo, style: Tensor, loss: PerceptualLoss | None = None
) -> dict[str, float]:
    """The artifacts of a picture as it would be saved; with a loss, also `border`."""
    saved = (picture.clamp(0, 1) * 255).round() / 255
    weave = weave_strengths(saved, photo.pixels)
    artifacts = {
        "weave_2": weave.period_2,
        "weave_4": weave.period_4,
        "repeats": repeat_strengths(saved),
        "halos": halos(saved, photo.pixels),
        "blots": blot_share(saved, photo.pixels, style),
        "clipped": clipped_fraction(saved),
    }
    if loss is not None:
        artifacts["border"] = border_ratio(loss, saved, photo.pixels)
    return {name: float(value) for name, value in artifacts.items()}


def steadiness_of(net: nn.Module, photo: Photo) -> dict[str, float]:
    """How much the network's picture changes with small changes of the photo, by measure."""
    found = steadiness(lambda pixels: net(pixels).float().clamp(0, 1), photo.pixels)
    return {name: float(value) for name, value in found._asdict().items()}


def _summarize_artifacts(rows: Sequence[Artifacts]) -> dict[str, Any]:
    """Medians over the photos, but means of blots, halos and the clipped fraction."""
    summary: dict[str, Any] = {
        kind: {
            name: {
                artifact: average(artifact, [row[kind][name][artifact] for row in rows])
                for artifact in artifacts
            }
            for name, artifacts in of_kind.items()
        }
        for kind, of_kind in rows[0].items()
    }
    summary["photos"] = summary["photos"][""]
    return summary


def average(artifact: str, values: Sequence[float]) -> float | None:
    """The median over photos, but the mean of blots, halos and clipped values; None without any."""
    finite = [value for value in values if math.isfinite(value)]
    # Of these most photos may have nothing, and a few much.
    how = statistics.fmean if artifact in ("blots", "halos", "clipped") else statistics.median
    return how(finite) if finite else None


def _measure_blotches(net: nn.Module, size: int, device: torch.device) -> float | None:
    """The mean blotchiness of the network over probes of about this size; None if not finite."""
    probe_size = max(_SMALLEST_PROBE, size // 32 * 32)
    level = float(blotchiness(lambda probe: net(probe.to(device)), size=probe_size).mean())
    return level if math.isfinite(level) else None
