"""Claims about `steadiness`: known answers for stylizers that anyone can understand."""

import math

import pytest
import torch
from small_networks import make_net, make_photos
from torch import Tensor
from torch.nn import functional as F

from fast_style.measures.steadiness import Stylize, noise_gains, shift_errors, steadiness


@pytest.fixture
def photos() -> Tensor:
    """Two photos of smooth noise, within [0.2, 0.8]."""
    return smooth_noise(96, 80)


def smooth_noise(height: int, width: int) -> Tensor:
    small = make_photos(2, 3, 12, 10)
    return 0.2 + 0.6 * F.interpolate(small, (height, width), mode="bilinear")


def test_a_stylizer_that_changes_nothing_is_steady(photos: Tensor) -> None:
    found = steadiness(lambda pixels: pixels, photos)
    assert found.shift.tolist() == found.whole_shift.tolist() == found.zoom.tolist() == [0, 0]
    assert found.noise_gain.tolist() == pytest.approx([1, 1])


def test_a_pattern_of_four_pixels_that_stays_in_place_is_a_shift_error(photos: Tensor) -> None:
    """+-a in columns of 2 pixels: shifted by 1 and 3, half of the columns change by 2a."""

    def with_columns(pixels: Tensor) -> Tensor:
        signs = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(pixels.shape[-1] // 4 + 1)
        return pixels + 0.1 * signs[: pixels.shape[-1]]

    assert shift_errors(with_columns, photos, [1]).tolist() == pytest.approx([0.2 / 2**0.5] * 2)
    assert shift_errors(with_columns, photos, [2]).tolist() == pytest.approx([0.2] * 2)
    whole = (2 * 0.2 / 2**0.5 + 0.2) / 3
    found = steadiness(with_columns, photos)
    assert found.shift.tolist() == pytest.approx([whole] * 2)
    assert found.whole_shift.tolist() == pytest.approx([0, 0], abs=1e-7)
    assert (found.zoom > 0.05).all()


def test_contrast_multiplies_noise(photos: Tensor) -> None:
    def gains(stylize: Stylize) -> list[float]:
        return noise_gains(stylize, photos, stylize(photos)).tolist()

    assert gains(lambda pixels: 3 * pixels - 1) == pytest.approx([3, 3])
    assert gains(lambda pixels: 0 * pixels) == [0, 0]


@pytest.mark.parametrize(("side", "width"), [(160, 16), (64, 7), (16, 1)])
def test_borders_are_left_out(side: int, width: int) -> None:
    def framed(pixels: Tensor) -> Tensor:
        return F.pad(pixels[(..., *[slice(width, -width)] * 2)], (width,) * 4, value=1)

    assert steadiness(framed, smooth_noise(side, side)).shift.tolist() == [0, 0]


def test_photos_do_not_influence_each_other(photos: Tensor) -> None:
    net = make_net()
    together = steadiness(net, photos)
    alone = [steadiness(net, photo[None]) for photo in photos]
    for name in together._fields:
        expected = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), expected, rtol=1e-3, atol=1e-6)


def test_low_pass_filters_make_a_network_steadier(photos: Tensor) -> None:
    """The same weights with the filters and without; a third was seen."""
    noisy = (photos + 0.2 * (make_photos(2, 3, 96, 80, seed=1) - 0.5)).clamp(0, 1)
    aliased, antialiased = (
        shift_errors(make_net(width=8, antialiased=antialiased), noisy).mean()
        for antialiased in (False, True)
    )
    assert antialiased < 0.5 * aliased


def test_small_photos_are_unknown() -> None:
    found = steadiness(make_net(), make_photos(1, 3, 15, 80))
    assert all(math.isnan(value) for value in found)
