"""The judge: one objective for all models, whatever each was trained with, and a second opinion.

A model is worth as many iterations of L-BFGS as it takes to reach the same objective: of the
method of Johnson et al. 2016, section 4.1, on the losses of ``judge.yaml``. A lower objective alone
does not make a better picture, so a second opinion and measures of faults stand beside it. Here
only numbers and pictures are made; `judge_report` presents them.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from fast_style.core.errors import UserError, printable
from fast_style.evaluating.baselines import (
    BaselineCache,
    Descent,
    digest_of,
    from_uint8,
    to_uint8,
)
from fast_style.evaluating.evaluation import (
    GridRow,
    artifacts_of,
    describe_machine,
    steadiness_of,
)
from fast_style.evaluating.objective import (
    Model,
    Objective,
    full_float32,
    objective_of,
    style_copies,
    unique_name,
)
from fast_style.evaluating.plan import Photo, read_photos
from fast_style.losses.build import read_style
from fast_style.losses.judge import judge_sides, load_judge_settings, load_judge_weights
from fast_style.measures.second_opinion import SecondOpinion, load_squeezenet
from fast_style.pictures.pixels import resize_shorter_side
from fast_style.pictures.reading import read_picture

NO_SECOND_OPINION = "none"

# The report shows L-BFGS after these iterations, and after the last one.
_SHOWN_ITERATIONS = (20, 40)


class _Style(NamedTuple):
    """A style picture and the models that were trained on it."""

    file: str
    picture: Image.Image
    models: list[Model]


class Judge:
    """Models and photos, and what the models' pictures of them are measured with.

    Args:
        models: what to judge, each in its own style.
        photos: files that no model was trained on, from `choose_photos`.
        style: a style picture for all models; None takes the one that each was trained on.
        weights: as for `load_judge_settings`.
        second_opinion: a file of SqueezeNet; None takes torchvision's, ``none`` leaves it out.
        cache: the folder of the L-BFGS results; created if it does not exist.
        device: where to compute.

    Raises:
        UserError: a file is missing or cannot be used, or the folder cannot be written to.
    """

    def __init__(
        self,
        models: Sequence[Model],
        photos: Sequence[Path],
        *,
        style: Path | None,
        weights: str | None,
        second_opinion: str | None,
        cache: Path,
        device: torch.device,
    ) -> None:
        self.models = models
        self.squeezenet = None
        if second_opinion != NO_SECOND_OPINION:
            self.squeezenet = load_squeezenet(Path(second_opinion) if second_opinion else None)
        self.settings = load_judge_settings(weights)
        self.weights = load_judge_weights(self.settings, "--weights")
        style_side, self.size = judge_sides(self.settings)
        self.styles: dict[str, _Style] = {}
        for found in _styles_of(models, style, style_side):
            self.styles[unique_name(Path(found.file).stem, self.styles)] = found
        self.iterations = self.settings.optimize.iterations
        self.photos = read_photos(photos, self.size, device)
        self.cache = cache
        self.device = device

    @property
    def objective_digest(self) -> str:
        """Digest of what pictures are measured with: style pictures, weights, second opinion."""
        pictures = [style.picture.tobytes() for style in self.styles.values()]
        return digest_of(
            {
                "styles": [hashlib.sha256(picture).hexdigest() for picture in pictures],
                "weights": self.weights.digest,
                "second_opinion": self.squeezenet.digest if self.squeezenet is not None else None,
            }
        )

    @property
    def work(self) -> int:
        """The work of `run`: pixels times iterations of L-BFGS."""
        return self.size**2 * self.iterations * len(self.photos) * len(self.styles)

    def run(
        self,
        progress: Callable[[int, str], None],
        say: Callable[[str], None] = lambda line: None,
    ) -> tuple[dict[str, Any], dict[str, list[GridRow]]]:
        """The numbers as plain data, and the rows of a grid for each style, by its name.

        Args:
            progress: called with the work since the last call and a description of the present
                step; may raise `Stopped`.
            say: prints a line for the user before L-BFGS runs.

        Raises:
            Stopped: raised by `progress`.
            UserError: the folder of the L-BFGS results cannot be written to (exit code 1).
        """
        results: list[dict[str, Any]] = []
        grids: dict[str, list[GridRow]] = {}
        with full_float32():
            for name, style in self.styles.items():
                result, grids[name] = self._judge_style(name, style, progress, say)
                results.append(result)
        return {
            "format": 1,
            "iterations": self.iterations,
            "second_opinion": self.squeezenet is not None,
            "models": [
                {"name": model.name, "file": model.path.name, "digest": model.digest}
                for model in self.models
            ],
            "styles": results,
            "machine": describe_machine(self.device),
        }, grids

    def _judge_style(
        self,
        name: str,
        style: _Style,
        progress: Callable[[int, str], None],
        say: Callable[[str], None],
    ) -> tuple[dict[str, Any], list[GridRow]]:
        objective = objective_of(
            self.settings, self.weights, style.picture, style.file, self.device
        )
        cache = BaselineCache(self.cache, objective.loss, objective.digest)
        cache.make_folder("--judge-cache")
        cache.require_files(self.photos, ["clip"])
        opinion = None
        if self.squeezenet is not None:
            opinion = SecondOpinion(self.squeezenet, objective.style)
        measured = _JudgeOfStyle(objective, opinion, style.models, self.iterations)
        rows, grid = [], []
        for index, photo in enumerate(self.photos):
            where = f"{name}, photo {index + 1} of {len(self.photos)}"
            descent = cache.load_or_compute(
                photo, "clip", self.iterations, where=where, progress=progress, say=say
            )
            progress(0, f"{where}, measures")
            row, grid_row = measured.measure_photo(photo, descent)
            rows.append(row)
            grid.append(grid_row)
        result = {
            "name": name,
            "objective": objective.description,
            "objective_digest": objective.digest,
            "photos": rows,
        }
        return result, grid


# --- Style pictures -----------------------------------------------------------------------------


def _styles_of(models: Sequence[Model], style: Path | None, side: int) -> list[_Style]:
    """The style pictures at the judge's size, each with its models, in the order of the models."""
    styles: dict[str, _Style] = {}
    for model in models:
        file, picture = (style.name, read_style(style, side)) if style else _own_style(model, side)
        key = hashlib.sha256(picture.tobytes()).hexdigest()
        styles.setdefault(key, _Style(file, picture, [])).models.append(model)
    return list(styles.values())


def _own_style(model: Model, side: int) -> tuple[str, Image.Image]:
    """The style picture that a model was trained on, from its file or, if it has gone, its copy.

    Raises:
        UserError: neither is there, or the copy is smaller than the judge needs.
    """
    trained_on, trained = model.metadata["style"], model.settings.style
    original = [trained.image] if trained.image.is_file() else []
    for file in (*original, *style_copies(model)):
        picture = read_picture(file).rgb
        as_trained = resize_shorter_side(picture, trained.size)  # a copy has this size already
        digest = hashlib.sha256(as_trained.tobytes()).hexdigest()
        if digest == trained_on["digest"] and min(picture.size) >= side:
            return str(trained_on["file"]), resize_shorter_side(picture, side)
    raise UserError(
        f"{printable(model.path)}: its style picture {printable(str(trained_on['file']))} is not "
        f"where it was trained, and no style.png beside the model has {side} pixels or more; give "
        "the picture with --style PICTURE"
    )


# --- One style ----------------------------------------------------------------------------------


class _JudgeOfStyle(NamedTuple):
    """What the pictures in one style are measured with."""

    objective: Objective
    opinion: SecondOpinion | None
    models: Sequence[Model]
    iterations: int

    def measure_photo(self, photo: Photo, descent: Descent) -> tuple[dict[str, Any], GridRow]:
        """The measures of the photo, of each model's picture and of L-BFGS's, as plain data.

        Also the row of the grid: the photo, the models' pictures, L-BFGS's.
        """
        targets = self.objective.loss.content_targets(photo.pixels)
        row: dict[str, Any] = {
            "name": photo.name,
            "enlarged": photo.is_enlarged,
            "photo": self._measure(photo, photo.pixels, targets)
            | steadiness_of(nn.Identity(), photo),
            "models": {},
            "lbfgs": {},
        }
        shown = [("photo", to_uint8(photo.pixels))]
        for model in self.models:
            with torch.no_grad():
                picture = model.net(photo.pixels).float().clamp(0, 1)
            measures = self._measure(photo, picture, targets)
            measures |= steadiness_of(model.net, photo)
            equals = descent.iterations_to_reach(measures["total"])
            row["models"][model.name] = measures | {"equals": equals}
            shown.append((model.name, to_uint8(picture)))
        for iteration in (*_SHOWN_ITERATIONS, self.iterations):
            number, levels = descent.picture_after(iteration)
            drawn = from_uint8(levels, photo.pixels.device)
            row["lbfgs"][str(number)] = self._measure(photo, drawn, targets)
            shown.append((f"L-BFGS, {number} iterations", levels))
        row["objective_of_lbfgs"] = descent.values[:, 0].tolist()
        return row, GridRow(photo.pixels.shape[-1], photo.name, shown)

    @torch.no_grad()
    def _measure(self, photo: Photo, picture: Tensor, targets: dict[str, Tensor]) -> dict[str, Any]:
        measures: dict[str, Any] = self.objective.loss.terms(picture, targets).values()._asdict()
        if self.opinion is not None:
            measures["second_opinion"] = float(self.opinion(picture))
        return measures | artifacts_of(picture, photo, self.objective.style, self.objective.loss)
