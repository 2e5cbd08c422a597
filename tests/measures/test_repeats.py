"""Repeats: known patterns, and pictures without any."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fast_style.measures.repeats import repeat_strengths


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def grey(luminance: Tensor) -> Tensor:
    """(H, W) as a picture (1, 3, H, W)."""
    return luminance.expand(1, 3, -1, -1)


def dots(distance: int, height: int = 128, width: int = 160) -> Tensor:
    """Dots of 3 x 3 pixels at equal distances."""
    spots = torch.zeros(height, width)
    spots[distance // 2 :: distance, distance // 2 :: distance] = 1
    return grey(F.max_pool2d(spots[None], 3, stride=1, padding=1)[0])


def stripes(distances: Tensor, width: int = 160) -> Tensor:
    """Vertical stripes of 3 pixels at these distances from each other."""
    places = distances.cumsum(0)
    line = torch.zeros(width)
    for offset in range(3):
        line[(places + offset)[places + offset < width]] = 1
    return grey(line.expand(128, width))


@pytest.mark.parametrize("distance", [7, 9, 12, 15])
def test_copies_at_equal_distances_are_repeats(distance: int) -> None:
    assert repeat_strengths(dots(distance)).item() > 0.9
    assert repeat_strengths(stripes(torch.full((30,), distance))).item() > 0.9


def test_copies_at_larger_distances_are_no_repeats() -> None:
    assert repeat_strengths(dots(40, 256, 256)).item() < 0.1


def test_fields_and_noise_do_not_repeat() -> None:
    assert repeat_strengths(torch.full((1, 3, 128, 128), 0.3)).item() < 1e-9
    ramp = torch.linspace(0, 1, 160).expand(1, 3, 128, 160)
    assert repeat_strengths(ramp).item() < 0.05
    assert repeat_strengths(noise(1, 3, 256, 256)).item() < 0.1
    blurred = F.avg_pool2d(noise(1, 3, 256, 256), 5, stride=1)
    assert repeat_strengths(blurred).item() < 0.25


def test_stripes_at_unequal_distances_repeat_less() -> None:
    distances = torch.randint(5, 18, (30,), generator=torch.Generator().manual_seed(2))
    assert repeat_strengths(stripes(distances)).item() < 0.5


def test_light_and_contrast_do_not_hide_a_pattern() -> None:
    light = torch.linspace(0.1, 0.8, 160)
    assert repeat_strengths(light + 0.1 * dots(9)).item() > 0.85
    found = [repeat_strengths(0.5 + contrast * dots(9)).item() for contrast in (0.4, 0.04)]
    assert found[0] == pytest.approx(found[1], abs=0.02)


def test_a_pattern_in_a_small_part_counts_nothing() -> None:
    picture = noise(1, 3, 256, 256)
    picture[..., :64, :64] = dots(9, 64, 64)
    assert repeat_strengths(picture).item() < 0.1


def test_pictures_of_a_batch_are_measured_alone() -> None:
    pictures = torch.cat([dots(9), noise(1, 3, 128, 160)])
    together = repeat_strengths(pictures).tolist()
    assert together == pytest.approx([repeat_strengths(p[None]).item() for p in pictures])
    assert together[0] > 0.9 > 0.2 > together[1]


def test_small_pictures_have_smaller_windows_or_none() -> None:
    assert repeat_strengths(dots(9, 48, 70)).item() > 0.8
    assert repeat_strengths(dots(9, 32, 32)).item() > 0.8
    assert math.isnan(repeat_strengths(dots(9, 31, 200)).item())


def test_numbers_that_are_not_finite_are_not_perfect() -> None:
    pictures = torch.cat([dots(9), dots(9)])
    pictures[1, 0, 5, 5] = math.nan
    found = repeat_strengths(pictures).tolist()
    assert found[0] > 0.9
    assert math.isnan(found[1])


def test_a_pattern_beyond_the_last_whole_window_is_seen() -> None:
    picture = noise(1, 3, 95, 95)
    picture[..., 31:, 31:] = dots(9, 64, 64)
    assert repeat_strengths(picture).item() > 0.2
