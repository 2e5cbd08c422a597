"""Claims about `blots`: pictures with a blot, and pictures with what only looks like one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fast_style.measures.blots import MIN_SIDE_FOR_BLOTS, blot_share
from fast_style.pictures.pixels import image_to_tensor
from fast_style.pictures.reading import read_picture

GREY, WHITE, BLACK, YELLOW = (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 0.0)
RED = (0.9, 0.3, 0.3)
SIDE = 128  # a cell has 2 pixels, a window 8


def plain(color: tuple[float, float, float], height: int = SIDE, width: int = SIDE) -> Tensor:
    return torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, height, width).clone()


def with_square(pictures: Tensor, color: tuple[float, float, float], side: int = 32) -> Tensor:
    """The pictures with a square of this color, 32 pixels from the top and the left."""
    pictures = pictures.clone()
    pictures[..., 32 : 32 + side, 32 : 32 + side] = plain(color, side, side)
    return pictures


def strokes(low: float, high: float, height: int = 96, width: int = 128) -> Tensor:
    """A grey style picture whose windows have means from `low` to `high`."""
    ramp = torch.linspace(low, high, width).expand(1, 3, height, width)
    stripes = 1.0 - 2 * (torch.arange(height) // 2 % 2).view(-1, 1)
    return ramp + 0.1 * stripes


STYLE = strokes(0.3, 0.7)


@pytest.mark.parametrize("color", [WHITE, BLACK, YELLOW])
def test_share_of_a_square_that_lies_on_cells_is_its_area(
    color: tuple[float, float, float],
) -> None:
    photo = plain(GREY)
    assert blot_share(with_square(photo, color), photo, STYLE).item() == 1 / 16
    assert blot_share(photo, photo, STYLE).item() == 0


@pytest.mark.parametrize("color", [RED, (0.1, 0.7, 0.3), (0.4, 0.4, 1.0), (0.7, 0.5, 0.0)])
def test_a_patch_that_is_only_more_colorful_is_a_blot(color: tuple[float, float, float]) -> None:
    photo = plain(GREY)
    # Its rim may be flat in luminance, and then counts.
    assert 1 / 16 <= blot_share(with_square(photo, color), photo, STYLE).item() < 1 / 8


def test_a_blot_in_a_picture_that_is_not_square_is_a_share_of_its_area() -> None:
    photo = plain(GREY, SIDE, 2 * SIDE)
    for transposed in (False, True):
        pictures = [with_square(photo, WHITE), photo]
        output, own = [p.transpose(2, 3) for p in pictures] if transposed else pictures
        assert blot_share(output, own, STYLE).item() == 1 / 32


def test_what_the_photo_has_there_is_no_blot() -> None:
    photo = with_square(plain(GREY), (0.85, 0.85, 0.85))
    assert blot_share(with_square(photo, WHITE), photo, STYLE).item() == 0
    assert blot_share(photo, photo, STYLE).item() == 0
    # A photo that is dark there has not: the direction counts.
    photo = with_square(plain(GREY), BLACK)
    assert blot_share(with_square(photo, WHITE), photo, STYLE).item() > 0


def test_what_the_style_picture_has_is_no_blot() -> None:
    photo = plain(GREY)
    output = with_square(photo, WHITE)
    style, speck = STYLE.clone(), STYLE.clone()
    style[..., :24, :24] = 1.0
    assert blot_share(output, photo, style).item() == 0
    speck[..., :6, :6] = 1.0  # fewer than 0.5% of its windows are in this corner
    assert blot_share(output, photo, speck).item() == 1 / 16


def test_what_is_not_flat_is_no_blot() -> None:
    photo = plain(BLACK)
    stripes = 0.9 + 0.1 * (1.0 - 2 * (torch.arange(SIDE) // 2 % 2)).view(-1, 1)
    assert blot_share(stripes.expand_as(photo), photo, STYLE).item() == 0
    assert blot_share(plain((0.9, 0.9, 0.9)), photo, STYLE).item() == 1


def test_a_spot_that_is_smaller_than_a_window_is_no_blot() -> None:
    photo = plain(GREY)
    assert blot_share(with_square(photo, WHITE, side=6), photo, STYLE).item() == 0


def test_colors_that_a_grey_style_lacks_are_no_blots_where_they_are_the_photos() -> None:
    photo = with_square(plain(GREY), RED)
    assert blot_share(photo, photo, STYLE).item() == 0
    assert blot_share(photo, plain(GREY), STYLE).item() > 0


def test_on_white_paper_a_dark_patch_is_a_blot_and_white_is_none() -> None:
    paper = plain(WHITE, 96, 128)
    paper[:, :, 20:22] = 0.3  # a thin line
    photo = plain(GREY)
    assert blot_share(plain(WHITE), photo, paper).item() == 0
    assert blot_share(with_square(plain(WHITE), BLACK), photo, paper).item() == 1 / 16


def test_blots_of_a_batch_are_those_of_its_pictures() -> None:
    photos = torch.cat([plain(GREY), plain(BLACK), plain(WHITE)])
    outputs = with_square(photos, WHITE)
    assert blot_share(outputs, photos, STYLE).tolist() == [1 / 16, 1 / 16, 0]


def test_blots_of_half_precision_are_measured_in_float32() -> None:
    photo = plain(GREY)
    output = with_square(photo, WHITE)
    found = blot_share(output.half(), photo.half(), STYLE.half())
    assert found.dtype == torch.float32
    assert found.item() == 1 / 16


@pytest.mark.parametrize("side", [16, 17, 31, 63, 65, 97, 200, 301])
def test_blots_are_found_at_all_sizes(side: int) -> None:
    photo = plain(GREY, side, side + 5)
    output = photo.clone()
    output[..., : side // 2, : side // 2] = 1.0
    expected = (side // 2) ** 2 / (side * (side + 5))
    assert blot_share(output, photo, STYLE).item() == pytest.approx(expected, rel=0.3)
    assert blot_share(photo, photo, STYLE).item() == 0


def test_blots_of_a_picture_that_is_too_small_are_not_a_number() -> None:
    tiny = torch.zeros(2, 3, MIN_SIDE_FOR_BLOTS - 1, 40)
    assert blot_share(tiny, tiny, STYLE).isnan().tolist() == [True, True]
    photo = plain(GREY)
    assert blot_share(photo, photo, tiny[:1]).isnan().tolist() == [True]


@pytest.mark.real_data
def test_the_blot_on_the_church_is_found_and_lbfgs_has_none(assets: Path) -> None:
    # Photo, style picture, the result of three minutes of training, and that of L-BFGS.
    sheet = read_picture(assets / "evidence" / "failed_turner_church.jpg").rgb
    pixels = image_to_tensor(sheet)[None].float() / 255
    photo, style, trained, optimized = (
        pixels[..., left:right]
        for left, right in ((0, 320), (327, 996), (1001, 1321), (1322, 1642))
    )
    # By eye, the blot covers 2.2% of the picture.
    assert 0.015 < blot_share(trained, photo, style).item() < 0.022  # seen: 0.017
    assert blot_share(optimized, photo, style).item() == 0
    assert blot_share(photo, photo, style).item() == 0
