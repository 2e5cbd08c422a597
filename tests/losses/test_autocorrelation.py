"""Autocorrelations of known pictures, and the part of the style term that compares them."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fast_style.losses.autocorrelation import (
    NUM_FAR,
    REACH,
    autocorrelations,
    far_autocorrelations,
    is_far,
)
from fast_style.losses.perceptual import AUTOCORRELATION, PerceptualLoss
from fast_style.networks.compiling import compile_whole


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def waves(period: float, side: int = 96) -> Tensor:
    """A sine along x, as a picture (1, 3, S, S)."""
    line = 0.5 + 0.4 * torch.sin(2 * torch.pi * torch.arange(side) / period)
    return line.expand(1, 3, side, side)


def no_features(pixels: Tensor, layers: list[str]) -> dict[str, Tensor]:
    return {layer: pixels for layer in layers}


def loss_with(style: Tensor, weight: float = 3.0, **settings: object) -> PerceptualLoss:
    given = {"content_layers": {}, "style_layers": {}, "tv_weight": 0.0, "style_weight": 2.0}
    return PerceptualLoss(no_features, style, **given | settings, autocorrelation_weight=weight)


# --- Autocorrelations -----------------------------------------------------------------------------


def test_a_wave_is_like_itself_as_the_cosine_says() -> None:
    found = autocorrelations(waves(8, 64))[0, 0]
    assert found.shape == (2 * REACH + 1, 2 * REACH + 1)
    expected = torch.cos(2 * torch.pi * torch.arange(-REACH, REACH + 1) / 8)
    torch.testing.assert_close(found[REACH], expected, atol=0.03, rtol=0)
    torch.testing.assert_close(found[:, REACH], torch.ones(2 * REACH + 1), atol=0.03, rtol=0)


def test_they_are_those_of_explicit_loops() -> None:
    picture = noise(1, 3, 40, 52)
    found = autocorrelations(picture)
    grey = picture.mean(dim=1)[0]
    kernel = torch.exp(-torch.arange(-9.0, 10).square() / 18)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    padded = F.pad(grey[None, None], (9,) * 4, mode="reflect")
    fine = grey - F.conv2d(padded, kernel[None, None])[0, 0]
    window = fine[:, :40] - fine[:, :40].mean()  # the first of two
    for down, right in ((0, 0), (3, 0), (16, 16), (5, 17)):
        here = window[: 40 - down, : 40 - right]
        there = window[down:, right:]
        expected = (here * there).mean() / window.square().mean()
        at = found[0, 0, REACH + down, REACH + right]
        assert at.item() == pytest.approx(expected.item(), abs=1e-5)
        opposite = found[0, 0, REACH - down, REACH - right]
        assert opposite.item() == pytest.approx(at.item(), abs=1e-6)


def test_windows_overlap_by_half_and_reach_all_borders() -> None:
    assert autocorrelations(noise(2, 3, 160, 128)).shape == (2, 4 * 3, 35, 35)
    assert autocorrelations(noise(1, 3, 64, 95)).shape == (1, 2, 35, 35)
    picture = noise(1, 3, 95, 112).requires_grad_()
    (gradient,) = torch.autograd.grad(far_autocorrelations(picture).square().sum(), picture)
    assert (gradient != 0).all()


def test_far_ones_have_lags_of_6_to_16_pixels() -> None:
    picture = noise(1, 3, 64, 64)
    found, far = far_autocorrelations(picture), is_far(picture.device)
    assert int(far.sum()) == NUM_FAR
    assert torch.equal(found[0], autocorrelations(picture)[0, 0].where(far, 0))
    assert not far[REACH, REACH - 5 : REACH + 6].any()
    assert far[REACH, REACH + 6]
    assert far[1, REACH]
    assert not far[0].any()
    assert not far[1, 1]


def test_a_picture_of_one_color_is_like_nothing_and_has_a_gradient() -> None:
    picture = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    found = far_autocorrelations(picture)
    assert found.abs().max() < 1e-3
    (gradient,) = torch.autograd.grad(found.sum(), picture)
    assert torch.isfinite(gradient).all()


def test_autocast_leaves_them_in_float32() -> None:
    picture = noise(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(autocorrelations(picture), autocorrelations(picture.float()))


# --- The part of the style term -------------------------------------------------------------------


def test_it_is_the_mean_squared_difference_of_the_far_ones() -> None:
    style, output = noise(1, 3, 80, 64), waves(9)
    terms = loss_with(style)(output, output)
    far = is_far(output.device)
    difference = autocorrelations(output).mean(dim=1) - autocorrelations(style).mean(dim=1)
    expected = difference[0][far].square().mean().item()
    assert expected > 0.05
    assert terms.style_by_layer[AUTOCORRELATION].item() == pytest.approx(expected, rel=1e-5)
    assert terms.style.item() == pytest.approx(3 * expected, rel=1e-5)
    assert terms.total.item() == pytest.approx(2 * 3 * expected, rel=1e-5)


def test_the_style_picture_has_none_and_a_grid_has_more_than_noise() -> None:
    style = noise(1, 3, 64, 64)
    loss = loss_with(style)
    assert loss(style, style).style.item() == pytest.approx(0, abs=1e-9)
    grid, other = waves(9), noise(1, 3, 96, 96, seed=2)
    assert loss(grid, grid).style.item() > 20 * loss(other, other).style.item()


def test_pictures_of_a_batch_are_compared_alone() -> None:
    loss = loss_with(noise(1, 3, 64, 64))
    grid, other = waves(9), noise(1, 3, 96, 96, seed=2)
    alone = [loss(picture, picture).style.item() for picture in (grid, other)]
    both = torch.cat([grid, other])
    assert loss(both, both).style.item() == pytest.approx(sum(alone) / 2, rel=1e-4)


def test_of_several_styles_it_is_the_weighted_mean() -> None:
    first, second, output = noise(1, 3, 64, 64), waves(7), waves(9)
    blended = loss_with(first, blend=[(second, 3.0)])(output, output).style.item()
    alone = [loss_with(style)(output, output).style.item() for style in (first, second)]
    assert blended == pytest.approx(alone[0] / 4 + alone[1] * 3 / 4, rel=1e-4)


@pytest.mark.parametrize(("style_side", "output_side"), [(31, 64), (64, 31)])
def test_small_pictures_are_not_compared(style_side: int, output_side: int) -> None:
    loss = loss_with(noise(1, 3, style_side, 64))
    output = waves(9, output_side).clone().requires_grad_()
    style = loss(output, output.detach()).style
    assert style.item() == 0
    (gradient,) = torch.autograd.grad(style, output)
    assert not gradient.any()


def test_without_a_weight_nothing_is_computed() -> None:
    loss = loss_with(noise(1, 3, 64, 64), weight=0.0)
    assert AUTOCORRELATION not in loss.style_parts
    assert AUTOCORRELATION not in loss(waves(9), waves(9)).style_by_layer


def test_lowering_it_takes_a_grid_away() -> None:
    style = noise(1, 3, 64, 64)
    loss = loss_with(style, weight=1.0)
    output = (0.5 * waves(9, 64) + 0.1 * noise(1, 3, 64, 64, seed=3)).requires_grad_()
    before = loss(output, output.detach()).style.item()
    optimizer = torch.optim.Adam([output], lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss(output, output.detach()).style.backward()
        optimizer.step()
    assert loss(output, output.detach()).style.item() < 0.1 * before


@pytest.mark.slow
def test_it_is_compiled_as_one_graph() -> None:
    # torch.compile warns of complex numbers; warnings are errors here.
    loss, output = loss_with(noise(1, 3, 64, 64)), waves(9).clone().requires_grad_()
    compiled = compile_whole(loss)
    (expected,) = torch.autograd.grad(loss(output, output.detach()).total, output)
    (found,) = torch.autograd.grad(compiled(output, output.detach()).total, output)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
