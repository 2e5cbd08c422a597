"""Claims about `minimizing`: known minima, then the methods against their references."""

import math
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b
from small_optimization import (
    Objective,
    as_terms,
    loss_of,
    pixels_of,
    settings_of,
    write_small_optimization,
)
from small_run import draw_photo
from torch import Tensor

from fast_style.core.errors import UserError
from fast_style.losses.perceptual import LossTerms
from fast_style.optimizing.minimizing import STOPPED, Iterate, Minimum, minimize

# All combinations of method and bounds.
WAYS = [(method, bounds) for method in ("lbfgs", "adam") for bounds in ("box", "clip", "none")]
SHAPE = (1, 3, 5, 6)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


def quadratic(optimum: Tensor) -> Objective:
    """A bowl in every pixel by itself, of different steepness: 1 to 10."""
    steepness = 1 + 9 * noise(seed=3)
    return lambda picture: as_terms((steepness * (picture - optimum).square()).sum())


def valley(picture: Tensor) -> LossTerms:
    """Rosenbrock's function of neighbouring pixels: curved, so that no method is done soon."""
    flat = picture.flatten()
    return as_terms((100 * (flat[1:] - flat[:-1].square()).square() + (1 - flat[:-1]) ** 2).sum())


def follow(objective: Objective, start: Tensor, **settings: Any) -> tuple[Minimum, list[Iterate]]:
    """A minimization, and all that its watcher saw."""
    seen: list[Iterate] = []

    def watch(iterate: Iterate) -> bool:
        seen.append(iterate)
        return True

    return minimize(objective, start, on_iterate=watch, **settings), seen


def totals(seen: list[Iterate]) -> list[float]:
    return [iterate.values.total for iterate in seen]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_optimization(tmp_path_factory.mktemp("minimizing"))


@pytest.fixture(scope="module")
def perceptual(folder: Path) -> Objective:
    """A real objective: random VGG-19, content and style and total variation."""
    loss = loss_of(settings_of(folder), draw_photo(100, (24, 24)))
    targets = loss.content_targets(pixels_of(draw_photo(1, (20, 16))))
    return lambda picture: loss.terms(picture, targets)


# --- Known minima -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("method", "bounds"), WAYS)
def test_optimum_inside_the_box_is_found(method: str, bounds: str) -> None:
    optimum = 0.2 + 0.6 * noise(seed=1)
    settings = {"iterations": 200, "learning_rate": 0.05, "method": method, "bounds": bounds}
    minimum = minimize(quadratic(optimum), noise(), **settings)
    torch.testing.assert_close(minimum.best.picture, optimum, rtol=0, atol=1e-3)


# L-BFGS with clipping takes the steps that it wanted for those it made: it goes astray at the edge.
@pytest.mark.parametrize(("method", "bounds"), [way for way in WAYS if way != ("lbfgs", "clip")])
def test_optimum_outside_is_reached_without_bounds_and_else_its_clamp(
    method: str, bounds: str
) -> None:
    # Each pixel's bowl is by itself, so within the box the nearest point is best.
    optimum = 3 * noise(seed=1) - 1
    assert optimum.min() < -0.5
    assert optimum.max() > 1.5
    settings = {"iterations": 200, "learning_rate": 0.05, "method": method, "bounds": bounds}
    minimum = minimize(quadratic(optimum), noise(), **settings)
    expected = optimum if bounds == "none" else optimum.clamp(0, 1)
    torch.testing.assert_close(minimum.best.picture, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("method", "bounds"), WAYS)
def test_picture_that_is_its_own_content_and_style_stays(
    folder: Path, method: str, bounds: str
) -> None:
    photo = draw_photo(1, (20, 16))
    loss, picture = loss_of(settings_of(folder, "loss.tv_weight=0"), photo), pixels_of(photo)
    targets = loss.content_targets(picture)
    minimum = minimize(
        lambda pixels: loss.terms(pixels, targets),
        picture,
        iterations=3,
        method=method,
        bounds=bounds,
    )
    assert minimum.best.values.total == 0
    assert minimum.best.iteration == 0
    assert torch.equal(minimum.last.picture, picture)


def test_minimum_is_known_when_nothing_lowers_it() -> None:
    optimum = noise(seed=1)
    minimum = minimize(quadratic(optimum), optimum, iterations=50)
    assert minimum.reason == "no lower loss was found along the gradient"
    assert (minimum.last.iteration, minimum.last.evaluations) == (0, 1)
    assert not minimum.is_failure


# --- What is seen on the way --------------------------------------------------------------------


@pytest.mark.parametrize(("method", "bounds"), WAYS)
def test_iterates_come_in_order_and_tell_the_truth(method: str, bounds: str) -> None:
    minimum, seen = follow(valley, noise(), iterations=9, method=method, bounds=bounds)
    assert [iterate.iteration for iterate in seen] == list(range(10))
    evaluations = [iterate.evaluations for iterate in seen]
    assert evaluations[0] == 1
    assert all(before < after for before, after in pairwise(evaluations))
    for iterate in seen:  # pictures that were changed in place later would not fit their values
        assert valley(iterate.picture).values() == iterate.values
    assert seen[-1] is minimum.last
    assert minimum.reason == "all iterations done"


@pytest.mark.parametrize(("method", "bounds"), [way for way in WAYS if way[1] != "none"])
def test_every_iterate_keeps_to_the_bounds(method: str, bounds: str) -> None:
    optimum = 3 * noise(seed=1) - 1
    _, seen = follow(
        quadratic(optimum), 2 * noise() - 0.5, iterations=8, method=method, bounds=bounds
    )
    assert min(iterate.picture.min().item() for iterate in seen) == 0
    assert max(iterate.picture.max().item() for iterate in seen) == 1


@pytest.mark.parametrize("method", ["lbfgs", "adam"])
def test_without_bounds_the_start_is_not_clipped(method: str) -> None:
    start = 3 * noise() - 1
    _, seen = follow(quadratic(noise(seed=1)), start, iterations=1, method=method, bounds="none")
    assert torch.equal(seen[0].picture, start)


@pytest.mark.slow
@pytest.mark.parametrize("bounds", ["box", "none"])
def test_line_search_never_lets_the_loss_rise(perceptual: Objective, bounds: str) -> None:
    _, seen = follow(perceptual, noise(1, 3, 16, 20), iterations=25, bounds=bounds)
    assert all(before >= after for before, after in pairwise(totals(seen)))
    assert totals(seen)[-1] < 0.1 * totals(seen)[0]


def test_best_is_the_lowest_that_was_seen() -> None:
    # Adam with such steps swings through the optimum, and ends on its way out.
    settings = {"method": "adam", "bounds": "none", "learning_rate": 0.1}
    minimum, seen = follow(quadratic(noise(seed=1)), noise(), iterations=10, **settings)
    assert minimum.last.values.total > minimum.best.values.total
    assert minimum.best is seen[int(np.argmin(totals(seen)))]


@pytest.mark.parametrize(("method", "bounds"), WAYS)
@pytest.mark.parametrize("at", [0, 3])
def test_watcher_ends_it_at_once_and_the_best_is_kept(method: str, bounds: str, at: int) -> None:
    evaluated: list[float] = []

    def objective(picture: Tensor) -> LossTerms:
        terms = valley(picture)
        evaluated.append(terms.total.item())
        return terms

    minimum = minimize(
        objective,
        noise(),
        iterations=20,
        method=method,
        bounds=bounds,
        on_iterate=lambda iterate: iterate.iteration < at,
    )
    assert minimum.reason == STOPPED
    assert minimum.last.iteration == at
    assert minimum.last.evaluations == len(evaluated)
    assert minimum.best.values.total == min(evaluated)
    assert not minimum.is_failure


@pytest.mark.parametrize(("method", "bounds"), WAYS)
def test_same_start_gives_the_same_picture_and_is_left_alone(
    perceptual: Objective, method: str, bounds: str
) -> None:
    start = 1.5 * noise(1, 3, 16, 20) - 0.2
    before = start.clone()
    settings = {"iterations": 4, "method": method, "bounds": bounds}
    once, again = (minimize(perceptual, start, **settings) for _ in range(2))
    assert torch.equal(once.last.picture, again.last.picture)
    assert once.last.values == again.last.values
    assert torch.equal(start, before)
    assert not start.requires_grad


@pytest.mark.parametrize(("method", "bounds"), WAYS)
def test_start_may_have_any_precision_and_memory_format(method: str, bounds: str) -> None:
    settings = {"iterations": 3, "method": method, "bounds": bounds}
    expected = minimize(valley, noise(), **settings).last.picture
    other = noise().double().contiguous(memory_format=torch.channels_last).requires_grad_()
    found = minimize(valley, other, **settings).last.picture
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


# --- The methods against their references -------------------------------------------------------


def in_numpy(objective: Objective, shape: torch.Size) -> Callable[..., Any]:
    """Loss and gradient as SciPy wants them: float64 around float32."""

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        picture = torch.tensor(flat, dtype=torch.float32).reshape(shape).requires_grad_()
        total = objective(picture).total
        total.backward()
        assert picture.grad is not None
        return total.item(), picture.grad.numpy().ravel().astype(np.float64)

    return loss_and_gradient


EXACT = {"factr": 0.0, "pgtol": 0.0}


@pytest.mark.parametrize("history", [2, 10])
@pytest.mark.parametrize("bounds", ["box", "none"])
def test_lbfgs_is_scipys(perceptual: Objective, bounds: str, history: int) -> None:
    start = noise(1, 3, 16, 20)
    x, _, info = fmin_l_bfgs_b(
        in_numpy(perceptual, start.shape),
        start.double().numpy().ravel(),
        bounds=[(0, 1)] * start.numel() if bounds == "box" else None,
        m=history,
        maxiter=12,
        **EXACT,
    )
    minimum = minimize(perceptual, start, iterations=12, bounds=bounds, history=history)
    assert minimum.last.picture.numpy().ravel().tolist() == x.astype(np.float32).tolist()
    assert minimum.last.evaluations == info["funcalls"]


@pytest.mark.parametrize("bounds", ["box", "none"])
def test_restarts_are_repeated_calls_of_scipys_lbfgs(bounds: str) -> None:
    # As the Keras examples do: again and again, from where the call before has ended.
    start = noise()
    x, done, evaluations = start.double().numpy().ravel(), 0, 0
    for _ in range(4):
        x, _, info = fmin_l_bfgs_b(
            in_numpy(valley, start.shape),
            x,
            bounds=[(0, 1)] * start.numel() if bounds == "box" else None,
            maxfun=6,
            **EXACT,
        )
        done, evaluations = done + info["nit"], evaluations + info["funcalls"]
    settings = {"iterations": done, "bounds": bounds}
    minimum = minimize(valley, start, restart_every=6, **settings)
    assert minimum.last.picture.numpy().ravel().tolist() == x.astype(np.float32).tolist()
    assert (minimum.last.iteration, minimum.last.evaluations) == (done, evaluations)
    assert not torch.equal(minimize(valley, start, **settings).last.picture, minimum.last.picture)


@pytest.mark.parametrize("iterations", [1, 7, 8, 9, 10])
def test_restarts_keep_to_the_number_of_iterations(iterations: int) -> None:
    minimum = minimize(valley, noise(), iterations=iterations, restart_every=6)
    assert minimum.last.iteration == iterations
    assert minimum.reason == "all iterations done"


@pytest.mark.parametrize("history", [2, 10])
def test_clip_is_torchs_lbfgs_with_clipping(history: int) -> None:
    start = noise()
    picture = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [picture], max_iter=1, history_size=history, tolerance_grad=0, tolerance_change=0
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = valley(picture).total
        loss.backward()
        assert picture.grad is not None
        picture.grad *= 1e6  # else torch takes the curvature of small losses for none
        return loss * 1e6

    for _ in range(8):
        optimizer.step(closure)
        with torch.no_grad():
            picture.clamp_(0, 1)
    minimum = minimize(valley, start, iterations=8, bounds="clip", history=history)
    assert torch.equal(minimum.last.picture, picture.detach())


@pytest.mark.slow
@pytest.mark.parametrize("bounds", ["clip", "box"])
def test_lbfgs_works_for_losses_of_any_size(perceptual: Objective, bounds: str) -> None:
    def tiny(picture: Tensor) -> LossTerms:
        return as_terms(1e-4 * perceptual(picture).total)

    start = noise(1, 3, 16, 20)
    whole = minimize(perceptual, start, iterations=25, bounds=bounds).best.values.total
    small = minimize(tiny, start, iterations=25, bounds=bounds).best.values.total
    assert whole < 0.1 * perceptual(start).total.item()
    assert small < 0.1 * tiny(start).total.item()


def test_first_step_of_adam_is_the_learning_rate_against_the_gradient() -> None:
    start = 0.3 + 0.4 * noise()
    leaf = start.clone().requires_grad_()
    valley(leaf).total.backward()
    assert leaf.grad is not None
    minimum = minimize(valley, start, iterations=1, method="adam", learning_rate=0.03)
    expected = start - 0.03 * leaf.grad.sign()
    torch.testing.assert_close(minimum.last.picture, expected, rtol=0, atol=1e-6)


def test_first_step_of_clipped_lbfgs_is_as_long_as_asked_for(perceptual: Objective) -> None:
    start = 0.2 + 0.6 * noise(1, 3, 16, 20)  # far from the bounds
    settings = {"iterations": 1, "method": "lbfgs", "bounds": "clip"}
    _, tiny = follow(perceptual, start, **settings)
    _, seen = follow(perceptual, start, first_step=0.01, **settings)
    gradient = torch.autograd.grad(perceptual(start.requires_grad_()).total, start)[0]
    first = seen[1].picture - seen[0].picture
    torch.testing.assert_close(first, -0.01 * gradient / gradient.abs().mean())
    assert totals(seen)[1] < totals(tiny)[1]


def test_adam_is_the_formula_of_its_paper() -> None:
    # Kingma and Ba 2015, algorithm 1, with their constants.
    start = noise()
    x = start.double().numpy().ravel()
    gradient_of = in_numpy(valley, start.shape)
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t in range(1, 6):
        _, gradient = gradient_of(x)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        x = x - 0.02 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    minimum = minimize(valley, start, iterations=5, method="adam", bounds="none")
    np.testing.assert_allclose(minimum.last.picture.numpy().ravel(), x, atol=1e-5)


def test_lbfgs_is_below_adam_after_as_many_iterations(perceptual: Objective) -> None:
    start = noise(1, 3, 16, 20)
    lbfgs, adam = (
        minimize(perceptual, start, iterations=25, method=method).best.values.total
        for method in ("lbfgs", "adam")
    )
    assert lbfgs < adam


# --- Ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", ["box", "none"])
def test_tolerance_ends_it_at_the_first_small_update(bounds: str) -> None:
    minimum, seen = follow(valley, noise(), iterations=300, bounds=bounds, tolerance=0.05)
    shares = [(before - after) / before for before, after in pairwise(totals(seen))]
    assert all(share >= 0.05 for share in shares[:-1])
    assert shares[-1] < 0.05
    assert len(shares) > 1
    assert minimum.reason == "an update lowered the loss by less than 0.05"
    assert not minimum.is_failure


def test_adam_knows_no_tolerance() -> None:
    settings = {"method": "adam", "learning_rate": 0.5}  # which lets the loss rise
    minimum = minimize(valley, noise(), iterations=12, tolerance=0.5, **settings)
    assert minimum.last.iteration == 12


@pytest.mark.parametrize(("method", "bounds"), WAYS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_start_whose_loss_is_not_finite_is_refused(method: str, bounds: str, value: float) -> None:
    with pytest.raises(UserError) as error:
        minimize(
            lambda picture: as_terms(picture.sum() * value),
            noise(),
            iterations=3,
            method=method,
            bounds=bounds,
        )
    assert str(error.value) == (
        "the loss of the starting picture is not finite; the weights of the loss network or "
        "of its terms are too large"
    )
    assert error.value.exit_code == 1


@pytest.mark.parametrize(("method", "bounds"), WAYS)
@pytest.mark.parametrize("spoiled", ["loss", "gradient"])
def test_loss_that_stops_being_finite_keeps_the_best(
    method: str, bounds: str, spoiled: str
) -> None:
    calls = 0

    def objective(picture: Tensor) -> LossTerms:
        nonlocal calls
        calls += 1
        total = valley(picture).total
        if calls == 4:
            # The root of zero is zero; its slope times zero is not a number.
            total = total + ((picture * 0).sqrt().sum() if spoiled == "gradient" else math.inf)
        return as_terms(total)

    settings = {"iterations": 20, "method": method, "bounds": bounds}
    minimum, seen = follow(objective, noise(), **settings)
    assert minimum.is_failure
    assert minimum.reason == "the loss was not finite at evaluation 4"
    assert calls == 4
    assert minimum.best.values.total == min(totals(seen))


def test_without_scipy_its_lbfgs_is_refused_and_the_others_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    for bounds in ("box", "none"):
        with pytest.raises(UserError) as error:
            minimize(valley, noise(), iterations=1, bounds=bounds)
        assert str(error.value) == (
            "this L-BFGS is SciPy's, which is not installed: pip install 'fast-style[evaluation]'"
        )
    assert minimize(valley, noise(), iterations=1, bounds="clip").last.iteration == 1
    assert minimize(valley, noise(), iterations=1, method="adam").last.iteration == 1
