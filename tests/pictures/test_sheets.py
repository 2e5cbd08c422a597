"""Several pictures on one sheet."""

import pytest
from example_pictures import BLUE, LIME, RED, WHITE, gradient, plain
from PIL import Image, ImageFont

from fast_style.pictures.sheets import (
    Captioned,
    captioned_grid,
    contact_sheet,
    fitting,
    side_by_side,
)


def colors_along(image: Image.Image, *places: tuple[int, int]) -> list[tuple[int, ...]]:
    return [image.getpixel(place) for place in places]


def test_pictures_side_by_side_are_as_high_as_the_first():
    row = [plain("red", 30, 20), plain("lime", 10, 40), plain("blue", 6, 4)]
    sheet = side_by_side(row)
    assert sheet.size == (30 + 8 + 5 + 8 + 30, 20)
    corners = [(0, 0), (29, 19), (30, 0), (37, 19), (38, 0), (42, 19), (43, 10), (51, 0), (80, 19)]
    expected = [RED, RED, WHITE, WHITE, LIME, LIME, WHITE, BLUE, BLUE]
    assert colors_along(sheet, *corners) == expected


def test_picture_side_by_side_with_nothing_is_itself():
    assert side_by_side([gradient()]).tobytes() == gradient().tobytes()


def test_gap_is_as_wide_as_told():
    assert side_by_side([plain("red", 5, 5), plain("lime", 5, 5)], gap=3).size == (13, 5)
    assert contact_sheet([plain("red", 5, 5)] * 4, 2, gap=3).size == (13, 13)


def test_ribbon_side_by_side_keeps_a_pixel():
    assert side_by_side([plain("red", 20, 16), plain("lime", 16, 8192)]).size == (29, 16)


def test_contact_sheet_is_read_from_left_to_right():
    sheet = contact_sheet([plain(name, 10, 6) for name in ("red", "lime", "blue")], 2)
    assert sheet.size == (10 + 8 + 10, 6 + 8 + 6)
    places = [(0, 0), (9, 5), (10, 0), (18, 0), (27, 5), (0, 6), (0, 14), (9, 19), (18, 14)]
    expected = [RED, RED, WHITE, LIME, LIME, WHITE, BLUE, BLUE, WHITE]
    assert colors_along(sheet, *places) == expected


@pytest.mark.parametrize(
    ("count", "columns", "size"),
    [(1, 6, (10, 6)), (3, 6, (46, 6)), (6, 6, (100, 6)), (7, 6, (100, 20)), (4, 1, (10, 48))],
)
def test_contact_sheet_is_no_larger_than_it_must_be(count, columns, size):
    assert contact_sheet([plain("red", 10, 6)] * count, columns).size == size


def test_captions_stand_below_their_pictures():
    red, lime = plain("red", 64, 40), plain("lime", 64, 40)
    sheet = captioned_grid([[Captioned(red, ["one", "two"]), Captioned(lime, [])]])
    assert sheet.getpixel((12, 12)) == RED
    assert sheet.getpixel((12 + 64 + 12, 12 + 39)) == LIME
    below = sheet.crop((12, 12 + 40, 12 + 64, sheet.height))
    assert below.convert("L").getextrema()[0] < 100
    beside = sheet.crop((12 + 64 + 12, 12 + 40, sheet.width, sheet.height))
    assert beside.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    ("text", "drawn"),
    [("Gustave Doré, 1863", "Gustave Dore, 1863"), ("浮世絵 wave", "??? wave"), ("plain", "plain")],
)
def test_letters_that_the_font_lacks_are_replaced(text: str, drawn: str) -> None:
    assert fitting(text, ImageFont.load_default(20), 400) == drawn
