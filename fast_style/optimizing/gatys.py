"""The optimization method of Gatys et al. 2016: change the pixels themselves until the loss is low.

It is slow and needs no training, so it is the reference that says how low the objective of a
trained network could be. `minimize` knows nothing of files; `optimize_picture` is the command.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fast_style.core.errors import UserError
from fast_style.core.files import numbered
from fast_style.losses.build import build_perceptual_loss, load_loss_weights
from fast_style.losses.perceptual import LossTerms, LossValues, PerceptualLoss
from fast_style.pictures.pixels import (
    fit_longer_side,
    image_to_tensor,
    resize_shorter_side,
    tensor_to_image,
)
from fast_style.pictures.reading import read_photo
from fast_style.pictures.sheets import contact_sheet
from fast_style.pictures.writing import write_animation, write_picture
from fast_style.settings.config import INIT_WORDS, Bounds, GatysConfig, Method

STOPPED = "stopped"
"""The reason of a `Minimum` whose watcher ended it."""

# What SciPy is told where it insists on a limit and we want none.
_NO_LIMIT = 2**31 - 1

# torch's L-BFGS forgets updates whose curvature is below 1e-10, an absolute number. A loss of order
# one has curvatures of that size along its first, tiny step; a multiple of it is minimized instead.
_TORCH_LBFGS_SCALE = 1e6


class Iterate(NamedTuple):
    """The picture after some updates, as it is shown to whoever watches.

    `picture` is (1, 3, H, W), float32, and stays as it is: the next update makes a new one.
    """

    iteration: int
    """Accepted updates so far; 0 is the start."""

    evaluations: int
    """Evaluations of the loss and its gradient so far; a line search needs several an update."""

    values: LossValues
    picture: Tensor


class Minimum(NamedTuple):
    """What a minimization came to."""

    best: Iterate
    last: Iterate
    reason: str
    """Why it ended."""

    is_failure: bool
    """Whether the loss became infinite or not a number."""


def minimize(
    objective: Callable[[Tensor], LossTerms],
    start: Tensor,
    *,
    iterations: int,
    method: Method = "lbfgs",
    bounds: Bounds = "box",
    history: int = 10,
    tolerance: float = 0.0,
    restart_every: int | None = None,
    learning_rate: float = 0.02,
    on_iterate: Callable[[Iterate], bool] = lambda iterate: True,
) -> Minimum:
    """Lower the objective by changing pixels (Gatys et al. 2016, section 2).

    `lbfgs` within a box (or without bounds) is SciPy's L-BFGS-B (Byrd et al. 1995), computed in
    float64 around a float32 loss; every update is the end of a line search, so the loss never
    rises. `lbfgs` with ``clip`` is the baseline of Johnson et al. 2016, section 4.1: L-BFGS without
    a line search, whose picture is clipped after each update.

    Args:
        objective: takes a picture (1, 3, H, W), gives its terms.
        start: (1, 3, H, W); brought into [0, 1] first, unless there are no bounds.
        iterations: accepted updates at most.
        method: ``lbfgs`` or ``adam``.
        bounds: ``box`` keeps to [0, 1] inside the method, ``clip`` after each update.
        history: pairs of updates and gradient changes that L-BFGS keeps.
        tolerance: L-BFGS stops when an update lowers the loss by less than this share of it.
        restart_every: evaluations after which SciPy's L-BFGS starts with an empty history.
        learning_rate: Adam's, in units of the pixel range [0, 1].
        on_iterate: sees the start and every update; False ends the minimization.

    Raises:
        StartNotFiniteError: the loss of the start is not finite.
    """
    search = _Search(objective, tolerance if method == "lbfgs" else 0.0, on_iterate)
    picture = start.detach().float().contiguous()
    if bounds != "none":
        picture = picture.clamp(0, 1)
    is_failure = False
    try:
        if method == "adam" or bounds == "clip":
            _descend_with_torch(search, picture, iterations, method, bounds, history, learning_rate)
        else:
            _descend_with_scipy(search, picture, iterations, bounds, history, restart_every)
    except _EndedError as end:
        search.reason = str(end)
    except _NotFiniteError as end:
        search.reason, is_failure = str(end), True
    if search.best is None or search.last is None:
        raise StartNotFiniteError(
            "the loss of the picture to begin with is not finite; the weights of the loss network "
            "or of its terms are too large",
            exit_code=1,
        )
    return Minimum(search.best, search.last, search.reason, is_failure)


class StartNotFiniteError(UserError):
    """There is nothing to lower: the loss of the start is infinite or not a number."""


class _EndedError(Exception):
    """The minimization is over before the method thinks so; the text is the reason."""


class _NotFiniteError(Exception):
    """The loss or its gradient is infinite or not a number."""


class _Search:
    """Evaluates the objective, and keeps count."""

    def __init__(
        self,
        objective: Callable[[Tensor], LossTerms],
        tolerance: float,
        on_iterate: Callable[[Iterate], bool],
    ) -> None:
        self.objective = objective
        self.tolerance = tolerance
        self.on_iterate = on_iterate
        self.evaluations = 0
        self.best: Iterate | None = None
        self.last: Iterate | None = None
        self.reason = "all iterations done"
        self._evaluated: tuple[Tensor, LossValues] | None = None

    def evaluate(self, picture: Tensor) -> tuple[float, Tensor]:
        """The loss of a picture, and its gradient."""
        picture = picture.detach().requires_grad_()
        terms = self.objective(picture)
        (gradient,) = torch.autograd.grad(terms.total, picture)
        self.evaluations += 1
        values = terms.values()
        if not (math.isfinite(values.total) and bool(torch.isfinite(gradient).all())):
            raise _NotFiniteError(f"the loss was not finite at evaluation {self.evaluations}")
        self._evaluated = (picture.detach(), values)
        return values.total, gradient

    def accept(self) -> None:
        """What was evaluated last is the start, or an update."""
        assert self._evaluated is not None
        picture, values = self._evaluated
        previous = self.last
        iteration = 0 if previous is None else previous.iteration + 1
        self.last = Iterate(iteration, self.evaluations, values, picture)
        if self.best is None or values.total < self.best.values.total:
            self.best = self.last
        if not self.on_iterate(self.last):
            raise _EndedError(STOPPED)
        if previous is not None and self.tolerance > 0:
            decrease = previous.values.total - values.total
            if decrease < self.tolerance * previous.values.total:
                raise _EndedError(f"an update lowered the loss by less than {self.tolerance:g}")


def _descend_with_scipy(
    search: _Search,
    start: Tensor,
    iterations: int,
    bounds: Bounds,
    history: int,
    restart_every: int | None,
) -> None:
    try:
        from scipy import optimize  # of the extra `evaluation`: training and stylizing do without
    except ImportError:
        raise UserError(
            "this L-BFGS is SciPy's, which is not installed: pip install 'fast-style[evaluation]'"
        ) from None

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        picture = torch.from_numpy(flat).to(start.device, torch.float32).view_as(start)
        loss, gradient = search.evaluate(picture)
        if search.last is None:
            search.accept()
        return loss, gradient.cpu().double().numpy().ravel()

    def after_update(flat: NDArray[np.float64]) -> None:
        search.accept()  # the line search ends with an evaluation of what it accepts

    flat = start.cpu().double().numpy().ravel()
    box = optimize.Bounds(0.0, 1.0) if bounds == "box" else None
    done = 0
    while done < iterations:
        result = optimize.minimize(
            loss_and_gradient,
            flat,
            jac=True,
            method="L-BFGS-B",
            bounds=box,
            callback=after_update,
            options={
                "maxiter": iterations - done,
                "maxfun": restart_every or _NO_LIMIT,
                "maxcor": history,
                "ftol": 0.0,  # `tolerance` is ours: SciPy's is absolute for losses below one
                "gtol": 0.0,
            },
        )
        flat = result.x
        if result.nit == 0 or (restart_every is None and result.nit < iterations):
            raise _EndedError("no lower loss was found along the gradient")
        done += result.nit


def _descend_with_torch(
    search: _Search,
    start: Tensor,
    iterations: int,
    method: Method,
    bounds: Bounds,
    history: int,
    learning_rate: float,
) -> None:
    picture = start.clone()
    optimizer: torch.optim.Optimizer
    scale = 1.0
    if method == "adam":
        optimizer = torch.optim.Adam([picture], lr=learning_rate)
    else:
        scale = _TORCH_LBFGS_SCALE
        # One update for each call of `step`, which begins with an evaluation.
        optimizer = torch.optim.LBFGS(
            [picture],
            lr=1,
            max_iter=1,
            history_size=history,
            tolerance_grad=0,
            tolerance_change=0,
        )

    def closure() -> float:
        loss, gradient = search.evaluate(picture.clone())
        search.accept()
        picture.grad = gradient * scale
        return loss * scale

    for _ in range(iterations):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        if bounds != "none":
            picture.clamp_(0, 1)
    closure()  # the loss of the last update


# --- From settings to a picture -----------------------------------------------------------------

# A picture is never made smaller than this, however many scales there are.
_SMALLEST_SIDE = 16

# Nor larger than `optimize.size` may say: a panorama of 2000 x 3 would be 341,333 pixels wide.
_LARGEST_SIDE = 8192

# Frames of a film, apart from the start.
_FRAMES = 23
_FRAME_SIDE = 480
_SHEET_COLUMNS = 6

# Of `normal_noise`: around mid-grey, so that hardly any pixel is clipped.
_NOISE_STD = 0.1


class Look(NamedTuple):
    """What whoever watches sees of an optimization after each update."""

    scale: int
    """0 is the coarsest."""

    iterate: Iterate


class Optimized(NamedTuple):
    """A finished picture, or one that was stopped."""

    picture: Image.Image
    style: Image.Image
    """The style picture as it was used, at the last scale."""

    minimum: Minimum
    """Of the last scale that was begun."""

    scale: int
    """Which one that was; 0 is the coarsest."""


def optimize_picture(
    config: GatysConfig,
    photo: Image.Image | None,
    *,
    device: torch.device,
    watch: Callable[[Look], bool] = lambda look: True,
    say: Callable[[str], None] = lambda line: None,
) -> Optimized:
    """Draw a photo in the style of a picture: from coarse to fine, each scale from the one before.

    Args:
        config: the settings.
        photo: the content, RGB; None if the loss has no content term. The result then has the shape
            of the style picture.
        device: where to compute.
        watch: sees every update; False ends the optimization.
        say: takes lines for people.

    Raises:
        UserError: style, start or weights are not as they should be.
    """
    style = read_photo(config.style.image)
    blend = [(read_photo(path), weight) for path, weight in config.style.blend.items()]
    weights = load_loss_weights(config)
    say(f"loss network: {config.loss_network.architecture}, {weights.label}")
    width, height = _size_of(style if photo is None else photo, config)
    settings = config.optimize
    picture = _start(config, width, height, photo, style).to(device)

    def minimize_at(scale: int, loss: PerceptualLoss, targets: dict[str, Tensor]) -> Minimum:
        return minimize(
            lambda pixels: loss.terms(pixels, targets),
            picture,
            iterations=settings.iterations,
            method=settings.method,
            bounds=settings.bounds,
            history=settings.history,
            tolerance=settings.tolerance,
            restart_every=settings.restart_every,
            learning_rate=settings.learning_rate,
            on_iterate=lambda iterate: watch(Look(scale, iterate)),
        )

    minimum: Minimum | None = None
    for scale in range(settings.scales):
        halvings = settings.scales - 1 - scale
        size = _halved(width, halvings), _halved(height, halvings)
        sized_style = _style_at(style, config, halvings)
        loss = build_perceptual_loss(
            config,
            weights,
            sized_style,
            device,
            blend=[(_style_at(image, config, halvings), weight) for image, weight in blend],
        )
        picture = _resized(picture, size)
        content = picture if photo is None else _pixels(photo, size).to(device)
        try:
            minimum = minimize_at(scale, loss, loss.content_targets(content))
        except StartNotFiniteError as error:
            if minimum is None:
                raise
            minimum = minimum._replace(reason=f"at a finer scale, {error}", is_failure=True)
        picture = minimum.best.picture
        if minimum.reason == STOPPED or minimum.is_failure:
            break
    assert minimum is not None
    return Optimized(tensor_to_image(picture[0]), sized_style, minimum, scale)


class Course:
    """The way to a picture, in pictures: files now and then, and frames for a film or a sheet.

    Args:
        iterations: of the whole optimization, all scales together.
        output: where the result will be; pictures in between are called after it.
        write_every: a file after every so many iterations; None: none.
    """

    def __init__(self, iterations: int, output: Path, write_every: int | None) -> None:
        self.iterations = iterations
        self.output = output
        self.write_every = write_every
        self.frames: list[Image.Image] = []

    def see(self, number: int, picture: Tensor) -> None:
        """A picture (1, 3, H, W), after `number` iterations.

        Raises:
            UserError: its file cannot be written.
        """
        is_wanted = self.write_every is not None and number > 0 and number % self.write_every == 0
        is_frame = number * _FRAMES // self.iterations >= len(self.frames)
        if not (is_wanted or is_frame):
            return
        image = tensor_to_image(picture[0])
        if is_wanted:
            write_picture(self._file_after(number), image)
        if is_frame:
            self.frames.append(fit_longer_side(image, _FRAME_SIDE))

    def write(self, path: Path) -> None:
        """The frames as an animation (.gif), or as one sheet (any other format).

        Raises:
            UserError: it cannot be written.
        """
        size = self.frames[-1].size  # those of coarser scales are smaller
        frames = [frame.resize(size, Image.Resampling.LANCZOS) for frame in self.frames]
        if path.suffix.lower() == ".gif":
            write_animation(path, frames)
        else:
            write_picture(path, contact_sheet(frames, _SHEET_COLUMNS))

    def _file_after(self, number: int) -> Path:
        return numbered(self.output, number)


def _size_of(picture: Image.Image, config: GatysConfig) -> tuple[int, int]:
    """Width and height of the result."""
    size = config.optimize.size
    if not isinstance(size, int):
        return size
    _require_no_ribbon(picture, size, "optimize.size")
    width, height = (round(side * size / min(picture.size)) for side in picture.size)
    return width, height


def _require_no_ribbon(picture: Image.Image, size: int, key: str) -> None:
    longer = round(max(picture.size) * size / min(picture.size))
    if longer > _LARGEST_SIDE:
        raise UserError(
            f"{key}: of a picture of {picture.width} x {picture.height} pixels, a shorter side of "
            f"{size} makes the longer one {longer}, more than {_LARGEST_SIDE}; crop it, or give "
            "[width, height]"
        )


def _halved(side: int, times: int) -> int:
    return max(_SMALLEST_SIDE, round(side / 2**times))


def _style_at(style: Image.Image, config: GatysConfig, halvings: int) -> Image.Image:
    """A style picture as large as the loss network shall see it at a scale."""
    size = config.style.size or config.optimize.size
    if isinstance(size, int):
        _require_no_ribbon(style, size, "style.size")
        return resize_shorter_side(style, _halved(size, halvings))
    width, height = (_halved(side, halvings) for side in size)
    return style.resize((width, height), Image.Resampling.LANCZOS)


def _start(
    config: GatysConfig, width: int, height: int, photo: Image.Image | None, style: Image.Image
) -> Tensor:
    """The picture to begin with at the coarsest scale, (1, 3, H, W)."""
    halvings = config.optimize.scales - 1
    size = _halved(width, halvings), _halved(height, halvings)
    init = config.optimize.init
    if init not in INIT_WORDS:
        return _pixels(read_photo(Path(init)), size)
    if init == "style":
        return _pixels(style, size)
    if init == "content":
        if photo is None:
            raise UserError(
                "optimize.init: content needs a photo; begin with uniform_noise, normal_noise, "
                "style or a picture"
            )
        return _pixels(photo, size)
    shape, generator = (1, 3, size[1], size[0]), torch.Generator().manual_seed(config.seed)
    if init == "uniform_noise":
        return torch.rand(shape, generator=generator)
    return 0.5 + _NOISE_STD * torch.randn(shape, generator=generator)


def _pixels(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """(1, 3, H, W), float in [0, 1]."""
    resized = image.resize(size, Image.Resampling.LANCZOS)
    return image_to_tensor(resized)[None].float() / 255


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    width, height = size
    if picture.shape[2:] == (height, width):
        return picture
    larger = F.interpolate(picture, (height, width), mode="bicubic", align_corners=False)
    return larger.clamp(0, 1)
