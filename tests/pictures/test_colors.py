"""The colors of one picture given to another."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fast_style.pictures import colors
from fast_style.pictures.colors import (
    colors_of,
    lights_of,
    map_between,
    recolored,
    with_lights,
)

LEAST = colors._LEAST_VARIANCE


def picture(pixels: NDArray[np.float64]) -> Image.Image:
    """Of (H, W, 3) in 0..255."""
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def noise(mean: Sequence[float], deviation: Sequence[float], seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return picture(rng.normal(mean, deviation, (300, 64, 3)))


def test_colors_of_two_colors_are_known() -> None:
    half = Image.new("RGB", (4, 600), (255, 51, 0))  # more rows than are read at a time
    half.paste((0, 51, 0), (0, 0, 4, 300))
    found = colors_of(half)
    assert found.mean == pytest.approx([0.5, 0.2, 0])
    expected = np.diag([0.25, 0, 0]) + LEAST * np.eye(3)
    assert found.covariance == pytest.approx(expected)


def test_contrast_of_each_channel_becomes_the_wanted_one() -> None:
    wanted = colors_of(noise([100, 140, 90], [10, 20, 40], seed=1))
    found = colors_of(recolored(noise([120, 120, 120], [30, 30, 30]), wanted))
    assert found.mean == pytest.approx(wanted.mean, abs=0.002)
    assert found.covariance == pytest.approx(wanted.covariance, abs=1e-3)


def test_channels_that_vary_together_do_so_afterwards() -> None:
    gray = np.random.default_rng(2).normal(128, 30, (200, 64, 1))
    wanted = colors_of(picture(gray * [1, 0.8, 0.4] + [0, 10, 40]))
    found = colors_of(recolored(noise([120, 120, 120], [25, 25, 25]), wanted))
    assert found.covariance == pytest.approx(wanted.covariance, abs=1e-3)


def test_picture_with_these_colors_already_is_kept() -> None:
    photo = noise([90, 120, 150], [20, 30, 10])
    assert np.array_equal(recolored(photo, colors_of(photo)), photo)


def test_gray_picture_becomes_the_mean_color_in_any_size() -> None:
    wanted = colors_of(noise([100, 140, 90], [10, 20, 40]))
    mean = tuple((255 * wanted.mean).round().astype(int).tolist())
    for size in ((1, 1), (7, 300)):
        result = recolored(Image.new("RGB", size, (77, 77, 77)), wanted)
        assert result.size == size
        assert result.getcolors() == [(size[0] * size[1], mean)]


def test_faint_noise_of_a_gray_picture_is_not_made_glaring() -> None:
    wanted = colors_of(noise([128, 128, 128], [60, 60, 60]))
    faint = recolored(noise([128, 128, 128], [1, 1, 1]), wanted)
    assert np.asarray(faint).std() < 12  # 60, if nothing were added to its variance


def test_softening_stretches_faint_colors_less() -> None:
    faint, strong = colors_of(noise([128] * 3, [5] * 3)), colors_of(noise([99] * 3, [50] * 3))
    whole, soft = map_between(faint, strong), map_between(faint, strong, softening=4e-3)
    assert whole[0].trace() / 3 == pytest.approx(6.6, abs=0.2)
    assert soft[0].trace() / 3 == pytest.approx(3.0, abs=0.1)
    for matrix, offset in (whole, soft):
        assert matrix @ faint.mean + offset == pytest.approx(strong.mean)


def two_grays(dark: int, light: int) -> Image.Image:
    """A quarter dark; more rows than are read at a time."""
    image = Image.new("RGB", (4, 400), (light,) * 3)
    image.paste((dark,) * 3, (0, 0, 4, 100))
    return image


def test_lights_are_shares_of_levels() -> None:
    lights = lights_of(two_grays(10, 200))
    assert lights.shape == (256,)
    assert lights[[10, 200]] == pytest.approx([0.25, 0.75])
    assert lights.sum() == pytest.approx(1)


def test_two_grays_become_the_wanted_ones() -> None:
    result = with_lights(two_grays(90, 160), lights_of(two_grays(30, 220)))
    dark, light = result.getpixel((0, 0)), result.getpixel((0, 399))
    assert dark == pytest.approx((30,) * 3, abs=20)
    assert light == pytest.approx((220,) * 3, abs=20)
    assert np.asarray(result).mean() == pytest.approx(0.25 * 30 + 0.75 * 220, abs=1)


def test_picture_with_these_lights_already_is_kept() -> None:
    photo = noise([90, 120, 150], [20, 30, 10])
    assert np.array_equal(with_lights(photo, lights_of(photo)), photo)


def test_photo_gets_the_paper_and_the_ink_of_an_etching() -> None:
    rng = np.random.default_rng(3)
    ink = rng.random((300, 64, 1)) < 0.15
    etching = picture(np.where(ink, 20, 240) + rng.normal(0, 4, (300, 64, 3)))
    drawn = with_lights(noise([128] * 3, [40] * 3), lights_of(etching)).convert("L")
    levels = np.asarray(drawn)
    assert 0.1 < (levels < 128).mean() < 0.2
    assert (levels > 200).mean() > 0.6


def test_hues_stay() -> None:
    photo = noise([90, 120, 150], [9, 9, 9])
    result = with_lights(photo, lights_of(noise([128] * 3, [20] * 3)))
    red, _, blue = np.moveaxis(np.asarray(result, np.int64), 2, 0)
    red_before, _, blue_before = np.moveaxis(np.asarray(photo, np.int64), 2, 0)
    assert np.abs((blue - red) - (blue_before - red_before)).max() <= 1
    assert np.asarray(result.convert("L")).mean() == pytest.approx(128, abs=1)


def test_noise_of_a_flat_sky_is_not_made_glaring() -> None:
    flat = noise([128] * 3, [1] * 3)
    result = with_lights(flat, lights_of(noise([128] * 3, [60] * 3)))
    assert np.asarray(result.convert("L"), np.float64).std() < 5
    assert with_lights(Image.new("RGB", (1, 1), (7, 7, 7)), lights_of(flat)).getpixel((0, 0)) == (
        pytest.approx((128,) * 3, abs=1)
    )
