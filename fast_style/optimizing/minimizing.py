"""Minimization of any objective over the pixels of a picture, by L-BFGS or Adam.

Used to optimize one picture, and for the baselines of an evaluation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fast_style.core.errors import UserError
from fast_style.core.free_memory import require_room
from fast_style.losses.perceptual import LossTerms, LossValues
from fast_style.settings.gatys_config import Bounds, Method

STOPPED = "stopped"
"""The reason of a `Minimum` whose watcher ended the minimization."""

SAFE_FIRST_STEP = 0.01
"""A `first_step` along which the curvature of a perceptual loss is measured well.

With torch's, two of twenty pictures of first looks diverged, and four of six previews of a hawk in
a flat sky; with this one, none of forty.
"""

# SciPy requires a limit of evaluations; this one is never reached.
_NO_LIMIT = 2**31 - 1

# Bytes: the buffer of OpenBLAS, and as much again for what is allocated meanwhile.
_ROOM_FOR_SCIPY = 64 << 20

# torch's L-BFGS drops updates whose curvature is below 1e-10, an absolute number. A loss near one
# has curvatures of that size along its first, tiny step, so this multiple of it is minimized.
_TORCH_LBFGS_SCALE = 1e6


class Iterate(NamedTuple):
    """The picture after some updates.

    `picture` is (1, 3, H, W), float32. It is never changed in place: the next update makes a new
    one.
    """

    iteration: int
    """Accepted updates so far; 0 is the start."""

    evaluations: int
    """Evaluations of the loss and its gradient so far; an update may need several."""

    values: LossValues
    picture: Tensor


class Minimum(NamedTuple):
    """The result of a minimization."""

    best: Iterate
    """The iterate with the lowest loss."""

    last: Iterate
    reason: str
    """Why the minimization ended."""

    is_failure: bool
    """Whether the loss became infinite or not a number."""


class StartNotFiniteError(UserError):
    """The loss of the starting picture is infinite or not a number."""


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
    first_step: float | None = None,
    on_iterate: Callable[[Iterate], bool] = lambda iterate: True,
) -> Minimum:
    """The picture with the lowest loss that was found (Gatys et al. 2016, section 2).

    `lbfgs` within a box (or without bounds) is SciPy's L-BFGS-B (Byrd et al. 1995), computed in
    float64 around a float32 loss. Every update is the end of a line search, so the loss never
    rises. `lbfgs` with ``clip`` is the baseline of Johnson et al. 2016, section 4.1: L-BFGS without
    a line search, its picture clipped after each update. `adam` is Kingma and Ba 2015, algorithm 1.

    Args:
        objective: gives the loss terms of a picture (1, 3, H, W).
        start: (1, 3, H, W); clipped to [0, 1] first, unless `bounds` is ``none``.
        iterations: accepted updates at most.
        method: ``lbfgs`` or ``adam``.
        bounds: ``box`` keeps pixels in [0, 1] inside the method, ``clip`` after each update;
            ``none`` does not limit them. Adam has no box: for it, ``box`` is ``clip``.
        history: pairs of updates and gradient changes that L-BFGS keeps.
        tolerance: L-BFGS ends when an update lowers the loss by less than this share.
        restart_every: evaluations after which SciPy's L-BFGS starts with an empty history.
        learning_rate: Adam's, in units of the pixel range [0, 1].
        first_step: for ``lbfgs`` with ``clip``: the mean change of a value by the first update, in
            the same units. None: torch's, and the paper's, which is tiny. The curvature that is
            measured along a tiny step is now and then so wrong that the second one diverges.
        on_iterate: called with the start and after every update; False ends the minimization.

    Raises:
        StartNotFiniteError: the loss of the start is not finite.
        UserError: SciPy is needed and not installed.
    """
    search = _Search(objective, tolerance if method == "lbfgs" else 0.0, on_iterate)
    picture = start.detach().float().contiguous()
    if bounds != "none":
        picture = picture.clamp(0, 1)
    is_failure = False
    try:
        if method == "adam" or bounds == "clip":
            _descend_with_torch(
                search, picture, iterations, method, bounds, history, learning_rate, first_step
            )
        else:
            _descend_with_scipy(search, picture, iterations, bounds, history, restart_every)
    except _EndedError as end:
        search.reason = str(end)
    except _NotFiniteError as end:
        search.reason, is_failure = str(end), True
    if search.best is None or search.last is None:
        raise StartNotFiniteError(
            "the loss of the starting picture is not finite; the weights of the loss network or of "
            "its terms are too large",
            exit_code=1,
        )
    return Minimum(search.best, search.last, search.reason, is_failure)


class _EndedError(Exception):
    """Ends a method before its last iteration; the text is the reason."""


class _NotFiniteError(Exception):
    """The loss or its gradient is infinite or not a number; the text says when."""


class _Search:
    """Evaluates the objective, counts, and keeps the best and the last iterate."""

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
        """The loss of a picture, and its gradient.

        Raises:
            _NotFiniteError: one of them is not finite.
        """
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
        """Take the picture evaluated last as the start, or as the next iterate.

        Raises:
            _EndedError: the watcher or the tolerance ends the minimization.
        """
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
        from scipy import linalg, optimize  # of the extra `evaluation`
    except ModuleNotFoundError:
        raise UserError(
            "this L-BFGS is SciPy's, which is not installed: pip install 'fast-style[evaluation]'"
        ) from None
    # SciPy's OpenBLAS allocates its buffer of 32 MB at the first call, and tries again for ever
    # where there is no room, out of the reach of signals.
    require_room(_ROOM_FOR_SCIPY)
    linalg.cholesky([[1.0]])

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        picture = torch.from_numpy(flat).to(start.device, torch.float32).view_as(start)
        loss, gradient = search.evaluate(picture)
        if search.last is None:
            search.accept()
        return loss, gradient.cpu().double().numpy().ravel()

    def after_update(flat: NDArray[np.float64]) -> None:
        search.accept()  # a line search ends with an evaluation of the picture that it accepts

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
    first_step: float | None,
) -> None:
    picture = start.clone()
    optimizer: torch.optim.Optimizer
    scale = 1.0
    if method == "adam":
        optimizer = torch.optim.Adam([picture], lr=learning_rate)
    else:
        scale = _TORCH_LBFGS_SCALE
        # max_iter=1: one update for each call of `step`, which begins with an evaluation.
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

    for iteration in range(iterations):
        if method == "lbfgs" and first_step is not None:
            # The first update is lr times the gradient, divided by the sum of its absolute values.
            is_first = iteration == 0
            optimizer.param_groups[0]["lr"] = first_step * picture.numel() if is_first else 1
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        if bounds != "none":
            picture.clamp_(0, 1)
    closure()  # evaluates the last update
