"""A first look: which shipped style draws a photo, and in which colors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_styles import ship

from fast_style.pictures.colors import colors_of, recolored
from fast_style.pictures.reading import Picture
from fast_style.styles import shipped
from fast_style.stylizing.first_look import FirstLooks, first_look_sheet
from fast_style.stylizing.stylizer import Stylizer

CPU = torch.device("cpu")
NAMES = ("great_wave", "starry_night")


@pytest.fixture
def styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[shipped.ShippedStyle]:
    ship(monkeypatch, tmp_path / "ships", *NAMES)
    return shipped.shipped_styles()


def noise(size: tuple[int, int], seed: int, least: int = 0, most: int = 256) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(least, most, (size[1], size[0], 3), dtype=np.uint8))


def test_picture_is_that_of_a_style_in_the_colors_of_the_painting(
    styles: list[shipped.ShippedStyle],
) -> None:
    photo, painting = noise((60, 50), 1), noise((256, 256), 2, 60, 190)
    (look,) = FirstLooks([painting], styles, device=CPU).draw(Picture(photo, None))
    model = shipped.find_style(look.strokes_of).model
    expected = recolored(Stylizer(model, device="cpu")(photo), colors_of(painting))
    assert np.array_equal(look.picture.rgb, expected)
    assert look.picture.alpha is None


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (700, 2)])
def test_photo_of_any_size_keeps_its_size_and_alpha(
    size: tuple[int, int], styles: list[shipped.ShippedStyle]
) -> None:
    alpha = Image.new("L", size, 128)
    looks = FirstLooks([noise((256, 300), 5)], styles[:1], device=CPU)
    (look,) = looks.draw(Picture(noise(size, 6), alpha))
    assert look.picture.rgb.size == size
    assert look.picture.alpha is alpha


def test_sheet_has_a_row_for_each_photo_and_a_column_for_each_painting(
    styles: list[shipped.ShippedStyle],
) -> None:
    photos = [(name, Picture(noise((40, 40), seed), None)) for seed, name in enumerate("ab")]
    paintings = [(name, noise((256, 256), seed)) for seed, name in enumerate("pqr", start=7)]
    looks = FirstLooks([painting for _, painting in paintings], styles, device=CPU)
    drawn = [looks.draw(photo) for _, photo in photos]
    sheet = np.asarray(first_look_sheet(photos, paintings, drawn))
    cell = 40 + 14 + 12  # a picture, its caption and the gap
    assert sheet.shape == (12 + 3 * cell, 12 + 4 * 52, 3)
    for row, looks_of_photo in enumerate(drawn, start=1):
        for column, look in enumerate(looks_of_photo, start=1):
            top, left = 12 + row * cell, 12 + column * 52
            assert np.array_equal(sheet[top : top + 40, left : left + 40], look.picture.rgb)
    assert np.array_equal(sheet[12 + cell :][:40, 12:52], photos[0][1].rgb)
