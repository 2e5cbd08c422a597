"""Claims about `gatys`: known minima, then the methods against their references."""

import math
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import fmin_l_bfgs_b
from small_run import draw_photo
from torch import Tensor
from torch.nn import functional as F

from fast_style.core.errors import UserError
from fast_style.losses.build import build_perceptual_loss, load_loss_weights
from fast_style.losses.perceptual import LossTerms, PerceptualLoss
from fast_style.optimizing.gatys import (
    STOPPED,
    Course,
    Iterate,
    Look,
    Minimum,
    Optimized,
    minimize,
    optimize_picture,
)
from fast_style.pictures.pixels import image_to_tensor, resize_shorter_side
from fast_style.settings.config import GatysConfig, load_gatys_config, reconstruction
from fast_style.stylizing.jobs import pictures_in_between

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")

Objective = Callable[[Tensor], LossTerms]

# Every way to go: method and bounds.
WAYS = [
    ("lbfgs", "box"),
    ("lbfgs", "clip"),
    ("lbfgs", "none"),
    ("adam", "box"),
    ("adam", "clip"),
    ("adam", "none"),
]
SHAPE = (1, 3, 5, 6)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


def as_terms(total: Tensor) -> LossTerms:
    zero = torch.zeros(())
    return LossTerms(total, zero, zero, zero, {})


def quadratic(optimum: Tensor) -> Objective:
    """A bowl in every pixel by itself, of different steepness: 1 to 10."""
    steepness = 1 + 9 * noise(seed=3)
    return lambda picture: as_terms((steepness * (picture - optimum).square()).sum())


def valley(picture: Tensor) -> LossTerms:
    """Rosenbrock's function of neighbouring pixels: curved, so that no method is done soon."""
    flat = picture.flatten()
    return as_terms((100 * (flat[1:] - flat[:-1].square()).square() + (1 - flat[:-1]) ** 2).sum())


def follow(objective: Objective, start: Tensor, **settings: Any) -> tuple[Minimum, list[Iterate]]:
    """A minimization, and all that it showed."""
    seen: list[Iterate] = []

    def watch(iterate: Iterate) -> bool:
        seen.append(iterate)
        return True

    return minimize(objective, start, on_iterate=watch, **settings), seen


def totals(seen: list[Iterate]) -> list[float]:
    return [iterate.values.total for iterate in seen]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two style pictures, and settings so small that an iteration takes a few milliseconds."""
    folder = tmp_path_factory.mktemp("gatys")
    draw_photo(100).save(folder / "style.png")
    draw_photo(101, (30, 50)).save(folder / "other.png")
    settings = {
        "style": {"image": "style.png"},
        "loss_network": {"weights": "random"},
        "loss": {"content_layers": {"relu1_2": 1.0}, "style_layers": {"relu1_1": 1.0}},
        "optimize": {"size": 16, "iterations": 2},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return folder


PHOTO = draw_photo(1, (40, 32))


def settings_of(folder: Path, *words: str) -> GatysConfig:
    return load_gatys_config(folder / "tiny.yaml", words)


def pixels_of(image: Image.Image) -> Tensor:
    return image_to_tensor(image)[None].float() / 255


def loss_of(config: GatysConfig, style: Image.Image) -> PerceptualLoss:
    return build_perceptual_loss(config, load_loss_weights(config), style, CPU)


@pytest.fixture(scope="module")
def perceptual(folder: Path) -> Objective:
    """A real objective: random VGG-19, content and style and total variation."""
    loss = loss_of(settings_of(folder), draw_photo(100, (24, 24)))
    targets = loss.content_targets(pixels_of(draw_photo(1, (20, 16))))
    return lambda picture: loss.terms(picture, targets)


# --- Known minima -------------------------------------------------------------------------------


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
        "the loss of the picture to begin with is not finite; the weights of the loss network or "
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


# --- From settings to a picture: sizes ----------------------------------------------------------


def draw(
    folder: Path, *words: str, photo: Image.Image | None = PHOTO
) -> tuple[Optimized, list[Look]]:
    """The result, and all that was shown."""
    seen: list[Look] = []

    def watch(look: Look) -> bool:
        seen.append(look)
        return True

    config = settings_of(folder, *words)
    return optimize_picture(config, photo, device=CPU, watch=watch), seen


@pytest.mark.parametrize(
    ("size", "expected"),
    [("16", (20, 16)), ("24", (30, 24)), ("[17, 33]", (17, 33)), ("[48, 16]", (48, 16))],
)
def test_size_is_of_the_shorter_side_or_of_both(
    folder: Path, size: str, expected: tuple[int, int]
) -> None:
    result, seen = draw(folder, f"optimize.size={size}", "optimize.iterations=1")
    assert result.picture.size == expected
    width, height = expected
    assert {look.iterate.picture.shape for look in seen} == {(1, 3, height, width)}


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 16)])
def test_tiny_photo_is_enlarged(folder: Path, size: tuple[int, int]) -> None:
    result, _ = draw(folder, photo=draw_photo(1, size))
    assert min(result.picture.size) == 16


def test_ribbon_is_refused_before_it_fills_the_memory(folder: Path) -> None:
    ribbon = draw_photo(1, (2000, 3))
    with pytest.raises(UserError) as error:
        draw(folder, photo=ribbon)
    assert str(error.value) == (
        "optimize.size: of a picture of 2000 x 3 pixels, a shorter side of 16 makes the longer one "
        "10667, more than 8192; crop it, or give [width, height]"
    )
    result, _ = draw(folder, "optimize.size=[64, 16]", photo=ribbon)
    assert result.picture.size == (64, 16)
    ribbon.save(folder / "ribbon.png")
    with pytest.raises(UserError, match=r"^style\.size: of a picture of 2000 x 3 pixels, "):
        draw(folder, f"style.image={folder / 'ribbon.png'}")


def test_scales_are_halves_and_each_begins_with_the_best_of_the_one_before(folder: Path) -> None:
    # With steps so large the last is not the best, and between noise bicubic values overshoot.
    wild = ("optimize.method=adam", "optimize.learning_rate=0.5", "optimize.init=uniform_noise")
    settings = ("optimize.size=[70, 66]", "optimize.scales=3", "optimize.bounds=none")
    result, seen = draw(folder, *settings, *wild)
    assert result.picture.size == (70, 66)
    assert result.scale == 2
    assert [look.scale for look in seen] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    sizes = [look.iterate.picture.shape[2:] for look in seen[::3]]
    assert sizes == [(16, 18), (33, 35), (66, 70)]
    for before, after in pairwise(range(3)):
        best = min(
            (look.iterate for look in seen if look.scale == before), key=lambda it: it.values.total
        )
        height, width = sizes[after]
        larger = F.interpolate(best.picture, (height, width), mode="bicubic", align_corners=False)
        assert torch.equal(seen[3 * after].iterate.picture, larger.clamp(0, 1))
    assert result.minimum.best is not result.minimum.last


def test_watcher_ends_all_scales_and_what_there_is_comes_back(folder: Path) -> None:
    config = settings_of(folder, "optimize.size=32", "optimize.scales=2")
    result = optimize_picture(
        config, PHOTO, device=CPU, watch=lambda look: look.iterate.iteration < 1
    )
    assert (result.scale, result.minimum.reason) == (0, STOPPED)
    assert result.picture.size == (20, 16)


EXPLODING = (  # the first step, of 10 times the pixel range, leaves what float32 can hold
    "optimize.method=adam",
    "optimize.bounds=none",
    "optimize.learning_rate=10",
    "loss.tv_exponent=10",
    "loss.tv_weight=1e25",
)


def test_failure_ends_all_scales_and_what_there_is_comes_back(folder: Path) -> None:
    result, seen = draw(folder, *EXPLODING, "optimize.size=32", "optimize.scales=2")
    assert result.minimum.is_failure
    assert (result.scale, len(seen)) == (0, 1)
    assert result.picture == PHOTO.resize((20, 16), Image.Resampling.LANCZOS)


def test_picture_of_a_coarser_scale_survives_a_finer_one_that_cannot_begin(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode_from_32_pixels_on(objective: Objective, start: Tensor, **settings: Any) -> Minimum:
        factor = math.inf if start.shape[2] >= 32 else 1.0
        return minimize(
            lambda pixels: as_terms(objective(pixels).total * factor), start, **settings
        )

    monkeypatch.setattr("fast_style.optimizing.gatys.minimize", explode_from_32_pixels_on)
    result, seen = draw(folder, "optimize.size=32", "optimize.scales=2")
    assert result.minimum.is_failure
    assert result.minimum.reason.startswith("at a finer scale, the loss of the picture to begin")
    assert result.minimum.best == seen[-1].iterate
    assert result.picture.size == (20, 16)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), (24, 24)),  # the picture is a square
        (("style.size=20",), (20, 20)),
        (("style.size=[32, 20]",), (32, 20)),
        (("optimize.size=[32, 20]",), (32, 20)),
        (("optimize.size=[32, 20]", "style.size=18"), (18, 18)),
    ],
)
def test_style_has_its_own_size_or_that_of_the_result(
    folder: Path, words: tuple[str, ...], expected: tuple[int, int]
) -> None:
    result, _ = draw(folder, "optimize.size=24", "optimize.iterations=1", *words)
    assert result.style.size == expected


def test_style_is_halved_with_the_scales(folder: Path) -> None:
    words = ("optimize.size=32", "optimize.scales=2", "style.size=48")
    config = settings_of(folder, *words)
    first = optimize_picture(config, PHOTO, device=CPU, watch=lambda look: False)
    assert first.style.size == (24, 24)
    assert draw(folder, *words)[0].style.size == (48, 48)


# --- From settings to a picture: starts, blends, methods ----------------------------------------


def start_of(folder: Path, *words: str) -> Tensor:
    """The picture to begin with."""
    return draw(folder, "optimize.iterations=1", *words)[1][0].iterate.picture


def test_start_is_the_photo_the_style_or_a_picture(folder: Path) -> None:
    def resized(image: Image.Image) -> Tensor:
        return pixels_of(image.resize((20, 16), Image.Resampling.LANCZOS))

    assert torch.equal(start_of(folder), resized(PHOTO))
    assert torch.equal(start_of(folder, "optimize.init=content"), resized(PHOTO))
    assert torch.equal(start_of(folder, "optimize.init=style"), resized(draw_photo(100)))
    draw_photo(7, (33, 21)).save(folder / "start.png")
    given = start_of(folder, f"optimize.init={folder / 'start.png'}")
    assert torch.equal(given, resized(draw_photo(7, (33, 21))))


@pytest.mark.parametrize(
    ("word", "mean", "std"), [("uniform_noise", 0.5, 12**-0.5), ("normal_noise", 0.5, 0.1)]
)
def test_noise_is_of_its_kind_and_follows_the_seed(
    folder: Path, word: str, mean: float, std: float
) -> None:
    words = (f"optimize.init={word}", "optimize.size=48")
    found = start_of(folder, *words)
    assert found.mean().item() == pytest.approx(mean, abs=0.01)
    assert found.std().item() == pytest.approx(std, rel=0.03)
    assert torch.equal(start_of(folder, *words), found)
    assert not torch.equal(start_of(folder, *words, "seed=2"), found)


def test_missing_start_is_named(folder: Path) -> None:
    with pytest.raises(UserError) as error:
        draw(folder, f"optimize.init={folder / 'none.png'}")
    assert str(error.value) == f"{folder / 'none.png'}: not found"


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_blend_is_the_weighted_mean_of_the_styles(folder: Path, weight: float) -> None:
    def first_style_value(*words: str) -> float:
        _, seen = draw(folder, "optimize.iterations=1", *words)
        return seen[0].iterate.values.style

    one = first_style_value()
    other = first_style_value(f"style.image={folder / 'other.png'}")
    assert one != pytest.approx(other, rel=0.1)
    blend = first_style_value(f"style.blend={{{folder / 'other.png'}: {weight}}}")
    assert blend == pytest.approx((one + weight * other) / (1 + weight), rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        "method=adam",
        "bounds=clip",
        "bounds=none",
        "history=1",
        "tolerance=0.9",
        "restart_every=2",
        "iterations=7",
    ],
)
def test_every_setting_changes_the_picture(folder: Path, change: str) -> None:
    words = ("optimize.iterations=8", "optimize.size=20")
    expected, _ = draw(folder, *words)
    assert draw(folder, *words, f"optimize.{change}")[0].picture != expected.picture


def test_learning_rate_of_adam_changes_the_picture(folder: Path) -> None:
    assert draw(folder, "optimize.method=adam")[0].picture != (
        draw(folder, "optimize.method=adam", "optimize.learning_rate=0.05")[0].picture
    )


def test_result_is_the_best_rounded(folder: Path) -> None:
    result, seen = draw(folder, "optimize.method=adam", "optimize.learning_rate=0.5")
    assert result.minimum.best is not result.minimum.last
    best = min((look.iterate for look in seen), key=lambda iterate: iterate.values.total)
    levels = (best.picture[0] * 255).round().to(torch.uint8)
    assert torch.equal(image_to_tensor(result.picture), levels)


def test_huge_weights_are_only_another_unit(folder: Path) -> None:
    words = ("loss.content_weight=0", "loss.tv_weight=0", "optimize.iterations=10")
    for weight in ("1e-4", "1", "1e12"):
        _, seen = draw(folder, *words, f"loss.style_weight={weight}")
        assert seen[-1].iterate.values.style < 0.05 * seen[0].iterate.values.style, weight


def test_total_variation_alone_flattens_the_picture(folder: Path) -> None:
    words = ("loss.content_layers={}", "loss.style_layers={}", "optimize.iterations=60")
    result, _ = draw(folder, *words)
    before = image_to_tensor(PHOTO.resize((20, 16), Image.Resampling.LANCZOS)).float()
    after = image_to_tensor(result.picture).float()
    assert (after.std(dim=(1, 2)) < 0.2 * before.std(dim=(1, 2))).all()
    torch.testing.assert_close(  # its gradient sums to zero: the mean color stays
        after.mean(dim=(1, 2)), before.mean(dim=(1, 2)), rtol=0, atol=1.0
    )


# --- Reconstructions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "content", "style"),
    [
        ("relu3_1", ["relu3_1"], ["relu1_1", "relu2_1", "relu3_1"]),
        ("conv3_1", ["conv3_1"], ["conv1_1", "conv2_1", "conv3_1"]),
        ("block3_conv1", ["relu3_1"], ["relu1_1", "relu2_1", "relu3_1"]),
        ("relu2_2", ["relu2_2"], ["relu1_1", "relu2_2"]),
        ("relu1_1", ["relu1_1"], ["relu1_1"]),
    ],
)
def test_words_of_a_reconstruction_leave_one_side_of_the_loss(
    folder: Path, layer: str, content: list[str], style: list[str]
) -> None:
    config = settings_of(folder, *reconstruction(layer, "content"))
    assert dict(config.loss.content_layers) == dict.fromkeys(content, 1.0)
    assert dict(config.loss.style_layers) == {}
    weights = config.loss.content_weight, config.loss.style_weight, config.loss.tv_weight
    assert weights == (1, 0, 0)
    config = settings_of(folder, *reconstruction(layer, "style"))
    assert dict(config.loss.content_layers) == {}
    assert dict(config.loss.style_layers) == dict.fromkeys(style, 1.0)
    weights = config.loss.content_weight, config.loss.style_weight, config.loss.tv_weight
    assert weights == (0, 1, 0)
    assert config.optimize.init == "uniform_noise"


@pytest.mark.parametrize(
    ("of", "option"), [("content", "--reconstruct"), ("style", "--reconstruct-style")]
)
@pytest.mark.parametrize("layer", ["pool3", "", "relu6_1"])
def test_reconstruction_of_what_is_no_layer_is_refused(layer: str, of: str, option: str) -> None:
    with pytest.raises(UserError) as error:
        reconstruction(layer, of)
    assert str(error.value) == (
        f"{option}: {layer!r} is not a VGG layer; say for example relu3_3, conv3_3 or block3_conv3"
    )


def test_content_is_found_again_from_noise(folder: Path) -> None:
    words = (*reconstruction("conv1_1", "content"), "optimize.iterations=40")
    result, seen = draw(folder, *words)
    assert seen[-1].iterate.values.total < 1e-4 * seen[0].iterate.values.total
    photo = np.asarray(PHOTO.resize((20, 16), Image.Resampling.LANCZOS), float)
    found = np.asarray(result.picture, float)
    assert np.corrcoef(found.ravel(), photo.ravel())[0, 1] > 0.98


def test_style_needs_no_photo_and_has_the_shape_of_the_style_picture(folder: Path) -> None:
    words = (*reconstruction("relu1_2", "style"), f"style.image={folder / 'other.png'}")
    result, seen = draw(folder, *words, "optimize.iterations=30", photo=None)
    assert result.picture.size == resize_shorter_side(draw_photo(101, (30, 50)), 16).size
    assert seen[0].iterate.values.content == 0
    assert seen[-1].iterate.values.style < 0.02 * seen[0].iterate.values.style


def test_start_from_the_content_needs_one(folder: Path) -> None:
    with pytest.raises(UserError) as error:
        draw(folder, *reconstruction("relu1_2", "style"), "optimize.init=content", photo=None)
    assert str(error.value) == (
        "optimize.init: content needs a photo; begin with uniform_noise, normal_noise, style or a "
        "picture"
    )


# --- The course ---------------------------------------------------------------------------------


def course_of(iterations: int, tmp_path: Path, *, every: int | None = None) -> Course:
    """A course that has seen pictures from black to white."""
    course = Course(iterations, tmp_path / "out.png", every)
    for number in range(iterations + 1):
        course.see(number, torch.full((1, 3, 20, 30), number / iterations))
    return course


def grey_of(image: Image.Image) -> int:
    red, green, blue = image.convert("RGB").getpixel((0, 0))
    assert red == green == blue
    return red


@pytest.mark.parametrize(
    ("iterations", "num_frames"), [(1, 2), (5, 6), (23, 24), (24, 24), (500, 24)]
)
def test_course_has_24_frames_from_start_to_end(
    tmp_path: Path, iterations: int, num_frames: int
) -> None:
    course = course_of(iterations, tmp_path)
    greys = [grey_of(frame) for frame in course.frames]
    assert len(greys) == num_frames
    assert (greys[0], greys[-1]) == (0, 255)
    steps = [after - before for before, after in pairwise(greys)]
    assert max(steps) - min(steps) <= 255 / iterations + 2  # a step of the course, and rounding


def test_course_writes_a_file_every_so_often(tmp_path: Path) -> None:
    course_of(10, tmp_path, every=4)
    expected = [tmp_path / "out-00004.png", tmp_path / "out-00008.png"]
    said = pictures_in_between(tmp_path / "out.png", iterations=10, every=4)
    assert sorted(tmp_path.iterdir()) == list(said) == expected
    assert [grey_of(Image.open(path)) for path in expected] == [102, 204]


def test_course_writes_no_files_by_itself(tmp_path: Path) -> None:
    course_of(10, tmp_path)
    said = pictures_in_between(tmp_path / "out.png", iterations=10, every=None)
    assert list(tmp_path.iterdir()) == list(said) == []


def test_film_has_all_frames_and_rests_on_the_last(tmp_path: Path) -> None:
    course_of(100, tmp_path).write(tmp_path / "film.GIF")
    with Image.open(tmp_path / "film.GIF") as film:
        assert film.n_frames == 24
        durations = []
        for number in range(24):
            film.seek(number)
            durations.append(film.info["duration"])
        assert grey_of(film) == 255
    assert durations[-1] > 5 * durations[0]


def test_sheet_of_the_course_has_six_columns(tmp_path: Path) -> None:
    course_of(100, tmp_path).write(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 * 30 + 5 * 8, 4 * 20 + 3 * 8)
        assert sheet.getpixel((0, 0)) == (0, 0, 0)


def test_frames_of_coarser_scales_are_enlarged_and_large_ones_reduced(tmp_path: Path) -> None:
    course = Course(2, tmp_path / "out.png", None)
    for number, (height, width) in enumerate([(150, 250), (300, 500), (600, 1000)]):
        course.see(number, torch.zeros(1, 3, height, width))
    course.write(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.size == (480, 288)


def test_frames_that_were_missed_are_made_up_for(tmp_path: Path) -> None:
    # A tolerance may end a scale early: the numbers of the next one begin where they always do.
    course = Course(100, tmp_path / "out.png", None)
    for number in [0, 1, *range(50, 101)]:
        course.see(number, torch.zeros(1, 3, 16, 16))
    assert len(course.frames) == 24


# --- Real weights -------------------------------------------------------------------------------


def real_config(assets: Path, *words: str) -> GatysConfig:
    given = (
        f"style.image={assets / 'styles/starry_night.jpg'}",
        f"loss_network.weights={assets / 'weights/vgg19_conv3_4.pth'}",
        "loss_network.preprocessing=caffe",
        "optimize.scales=1",
        "optimize.size=64",
    )
    return load_gatys_config(ROOT / "configs" / "optimize" / "gatys.yaml", [*given, *words])


def real_photo(assets: Path) -> Image.Image:
    with Image.open(assets / "photos" / "content" / "chicago.jpg") as photo:
        return photo.convert("RGB").resize((64, 64))


@pytest.mark.real_data
def test_real_objective_falls_and_lbfgs_is_below_adam(assets: Path) -> None:
    best, own = {}, {}
    for method in ("lbfgs", "adam"):
        seen: list[float] = []

        def watch(look: Look, seen: list[float] = seen) -> bool:
            seen.append(look.iterate.values.total)
            return True

        config = real_config(assets, f"optimize.method={method}", "optimize.iterations=100")
        result = optimize_picture(config, real_photo(assets), device=CPU, watch=watch)
        best[method], own[method] = result.minimum.best.values.total, seen[0]
    print(own, best)
    # Seen when this was written: the photo itself 35.5; L-BFGS 0.69, Adam 0.85.
    assert own["lbfgs"] == own["adam"]
    assert best["lbfgs"] < 0.2 * own["lbfgs"]
    assert best["lbfgs"] < best["adam"]


@pytest.mark.real_data
def test_real_reconstruction_of_a_deeper_layer_resembles_the_photo_less(assets: Path) -> None:
    photo = real_photo(assets)
    correlation = {}
    for layer in ("relu2_1", "relu3_4"):
        words = (*reconstruction(layer, "content"), "optimize.iterations=60")
        result = optimize_picture(real_config(assets, *words), photo, device=CPU)
        pair = [np.asarray(image, float).ravel() for image in (photo, result.picture)]
        correlation[layer] = np.corrcoef(*pair)[0, 1]
    print(correlation)
    # Seen when this was written: 0.91 and 0.45.
    assert correlation["relu2_1"] > 0.85
    assert 0.2 < correlation["relu3_4"] < correlation["relu2_1"] - 0.2


@pytest.mark.real_data
def test_real_style_is_found_again_from_noise(assets: Path) -> None:
    seen: list[float] = []

    def watch(look: Look) -> bool:
        seen.append(look.iterate.values.style)
        return True

    words = (*reconstruction("relu3_1", "style"), "optimize.iterations=60")
    optimize_picture(real_config(assets, *words), None, device=CPU, watch=watch)
    print(seen[0], seen[-1])
    # Seen when this was written: 0.26 % of the noise's.
    assert seen[-1] < 0.01 * seen[0]
