"""Halos in known pictures, and the part of the content term that forbids them."""

import math

import pytest
import torch
from torch import Tensor

from fast_style.losses.halo import halo_strengths, halo_targets
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.networks.compiling import compile_whole

SIDE = 128


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def bird(sky: float = 0.7) -> Tensor:
    """A dark square in a flat sky: (1, 3, 128, 128)."""
    photo = torch.full((1, 3, SIDE, SIDE), sky)
    photo[..., 56:72, 56:72] = 0.1
    return photo


def glow(radius: float) -> Tensor:
    """Light that falls off from the middle: (1, 1, 128, 128)."""
    place = torch.arange(SIDE) - (SIDE - 1) / 2
    return torch.exp(-(place[:, None].square() + place.square()) / (2 * radius**2))[None, None]


def strength(picture: Tensor, photo: Tensor) -> float:
    return halo_strengths(picture, halo_targets(photo)).item()


def no_features(pixels: Tensor, layers: list[str]) -> dict[str, Tensor]:
    return {layer: pixels for layer in layers}


def loss_with(weight: float, **settings: object) -> PerceptualLoss:
    given = {"content_layers": {}, "style_layers": {}, "tv_weight": 0.0, "content_weight": 2.0}
    return PerceptualLoss(no_features, noise(1, 3, 64, 64), **given | settings, halo_weight=weight)


# --- How strong they are --------------------------------------------------------------------------


def test_a_glow_around_a_bird_is_a_halo_and_the_bird_alone_is_none() -> None:
    photo = bird()
    assert strength(photo, photo) == 0
    with_glow = photo - 0.4 * glow(25)
    assert strength(with_glow, photo) > 0.01


def test_it_is_what_its_definition_says() -> None:
    # A ramp in a photo of one color: flatness 1; the steepness is the same at all inner pixels.
    photo = torch.full((1, 3, SIDE, SIDE), 0.5)
    line = torch.linspace(0.2, 0.8, SIDE)
    ramp = line.expand(1, 3, SIDE, SIDE)
    steepness = math.sqrt(3) * 0.6 / (SIDE - 1) * 6 / line.std(correction=0).item()
    inner = halo_targets(ramp)[0, 1, 10:-10, 10:-10]
    torch.testing.assert_close(inner, torch.full_like(inner, steepness), rtol=1e-3, atol=0)
    flatness = halo_targets(photo)[0, 0]
    torch.testing.assert_close(flatness, torch.ones_like(flatness))
    # Of the photo, a root of 1e-6 is left; near the border, the reflected ramp is less steep.
    expected = (steepness - 1e-3) ** 2
    assert strength(ramp, photo) == pytest.approx(expected, rel=0.15)


def test_flatness_falls_with_the_variance_of_details() -> None:
    generator = torch.Generator().manual_seed(1)
    # In cells of four pixels, half as strong: 0.03, less what the blur leaves.
    photo = 0.5 + 0.06 * torch.randn(1, 3, 400, 400, generator=generator)
    flatness = halo_targets(photo)[:, 0]
    assert flatness.mean().item() == pytest.approx(math.exp(-1), rel=0.1)
    assert halo_targets(noise(1, 3, 96, 96))[:, 0].max() < 1e-6


def test_slopes_that_the_photo_has_are_no_halos() -> None:
    ramp = torch.linspace(0.2, 0.8, SIDE).expand(1, 3, SIDE, SIDE)
    assert strength(1 - ramp, ramp) == pytest.approx(0, abs=1e-9)
    assert strength(0.5 + 0.1 * (ramp - 0.5), ramp) == pytest.approx(0, abs=1e-9)


def test_strokes_in_a_flat_photo_are_no_halos() -> None:
    photo = torch.full((1, 3, SIDE, SIDE), 0.5)
    # Waves of 6 pixels, which go on at the borders when these reflect.
    strokes = photo + 0.3 * torch.cos(torch.pi * torch.arange(SIDE) * 42 / (SIDE - 1))
    assert strength(strokes, photo) < 1e-3
    assert strength(photo + 0.3 * glow(25), photo) > 0.01


def test_paleness_does_not_lower_it() -> None:
    photo, picture = bird(), bird() - 0.4 * glow(25)
    pale = 0.5 + 0.5 * (picture - 0.5)
    assert strength(pale, photo) == pytest.approx(strength(picture, photo), rel=0.02)


def test_pictures_of_a_batch_are_looked_at_alone() -> None:
    photos = torch.cat([bird(), bird(0.4)])
    pictures = photos - 0.3 * glow(20)
    both = halo_strengths(pictures, halo_targets(photos))
    assert both.shape == (2,)
    for index, one in enumerate(both):
        alone = strength(pictures[index : index + 1], photos[index : index + 1])
        assert one.item() == pytest.approx(alone, rel=1e-5)


def test_a_picture_of_one_color_has_none_and_a_gradient() -> None:
    picture = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    found = halo_strengths(picture, halo_targets(noise(1, 3, 64, 64)))
    assert found.item() == 0
    (gradient,) = torch.autograd.grad(found.sum(), picture)
    assert torch.isfinite(gradient).all()


def test_autocast_leaves_them_in_float32() -> None:
    photo, picture = bird(), bird() - 0.3 * glow(20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = halo_strengths(picture, halo_targets(photo))
    assert found.dtype == torch.float32
    assert found.item() == strength(picture, photo)


# --- The part of the content term -----------------------------------------------------------------


def test_it_is_the_mean_over_the_batch_with_its_weight() -> None:
    photos = torch.cat([bird(), bird(0.4)])
    pictures = photos - 0.3 * glow(20)
    expected = halo_strengths(pictures, halo_targets(photos)).mean().item()
    assert expected > 1e-3
    terms = loss_with(7.0)(pictures, photos)
    assert terms.content.item() == pytest.approx(7 * expected, rel=1e-5)
    assert terms.total.item() == pytest.approx(2 * 7 * expected, rel=1e-5)


def test_it_stands_beside_the_layers() -> None:
    photo, picture = bird(), bird() - 0.3 * glow(20)
    layers = {"content_layers": {"relu1_1": 1.0}}
    with_it = loss_with(7.0, **layers)(picture, photo).content.item()
    without = loss_with(0.0, **layers)(picture, photo).content.item()
    assert with_it - without == pytest.approx(7 * strength(picture, photo), rel=1e-3)


def test_without_a_weight_and_in_tiny_pictures_there_is_none() -> None:
    photo, picture = bird(), bird() - 0.3 * glow(20)
    assert loss_with(0.0)(picture, photo).content.item() == 0
    tiny = (slice(None), slice(None), slice(40, 71), slice(0, 64))
    assert loss_with(7.0)(picture[tiny], photo[tiny]).content.item() == 0


def test_it_is_lowered_by_its_gradient() -> None:
    photo = bird()
    picture = (photo - 0.3 * glow(20)).requires_grad_()
    loss = loss_with(7.0)
    before = loss(picture, photo).total
    (gradient,) = torch.autograd.grad(before, picture)
    after = loss(picture - 1e-3 * gradient / gradient.abs().max(), photo).total
    assert after < before


@pytest.mark.slow
def test_it_is_compiled_as_one_graph() -> None:
    photo, picture = bird(), bird() - 0.3 * glow(20)
    loss = loss_with(7.0)
    compiled = compile_whole(loss)(picture, photo).content
    torch.testing.assert_close(compiled, loss(picture, photo).content, rtol=1e-4, atol=0)
