"""A first look: colors, updates, and sizes."""

import numpy as np
import pytest
import torch
from PIL import Image

from fast_style.losses.nearest import compact_network, usual_loss
from fast_style.optimizing.first_look import FirstLooks, _smaller, first_look_sheet
from fast_style.pictures.colors import colors_of, lights_of, recolored, with_lights
from fast_style.pictures.pixels import image_to_tensor
from fast_style.pictures.reading import Picture

CPU = torch.device("cpu")


def noise(size: tuple[int, int], seed: int, least: int = 0, most: int = 256) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(least, most, (size[1], size[0], 3), dtype=np.uint8))


def to_pixels(image: Image.Image) -> torch.Tensor:
    return image_to_tensor(image)[None].float() / 255


def drawn(photo: Image.Image, painting: Image.Image, iterations: int) -> Image.Image:
    (look,) = FirstLooks([painting], device=CPU, iterations=iterations).draw(Picture(photo, None))
    return look.rgb


def test_without_updates_the_photo_has_the_colors_and_lights_of_the_painting() -> None:
    photo, painting = noise((60, 50), 1), noise((256, 256), 2, 60, 190)
    colored = recolored(photo, colors_of(painting))
    expected = with_lights(colored, lights_of(painting))
    assert np.array_equal(drawn(photo, painting, 0), expected)


def test_updates_lower_the_loss_of_the_picture() -> None:
    photo, painting = noise((64, 48), 1), noise((256, 256), 2, 60, 190)
    loss = usual_loss(compact_network(), painting, style_weight=5.0, halo_weight=50.0)
    totals = []
    for iterations in (0, 2, 6):
        picture = drawn(photo, painting, iterations)
        totals.append(float(loss(to_pixels(picture), to_pixels(photo)).total))
    assert totals[1] < 0.9 * totals[0]
    assert totals[2] < 0.9 * totals[1]


def test_large_photo_keeps_its_details_and_gains_the_changes_of_a_smaller_copy() -> None:
    photo = noise((192, 128), 1).resize((768, 512), Image.Resampling.BICUBIC)
    painting = noise((256, 256), 2, 60, 190)
    before, after = (np.asarray(drawn(photo, painting, n), np.float32) for n in (0, 2))
    change = after - before
    assert change.std() > 2
    # Enlarged twofold, so that neighbors change alike.
    assert np.abs(np.diff(change, axis=1)).mean() < 0.6 * change.std()


def test_watcher_sees_every_update() -> None:
    seen: list[None] = []
    looks = FirstLooks([noise((256, 256), s) for s in (2, 3)], device=CPU, iterations=3)
    looks.draw(Picture(noise((40, 40), 1), None), lambda: seen.append(None))
    assert len(seen) == 2 * 3


@pytest.mark.parametrize(
    ("size", "smaller"),
    [
        ((768, 512), (384, 256)),
        ((100, 60), (100, 60)),
        ((1, 1), (32, 32)),
        ((1024, 4), (1024, 32)),
        ((3, 900), (32, 1024)),
    ],
)
def test_copy_that_is_painted_is_neither_large_nor_too_thin(
    size: tuple[int, int], smaller: tuple[int, int]
) -> None:
    assert _smaller(size) == smaller


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (700, 2)])
def test_photo_of_any_size_keeps_its_size_and_alpha(size: tuple[int, int]) -> None:
    alpha = Image.new("L", size, 128)
    looks = FirstLooks([noise((256, 300), 5)], device=CPU, iterations=1)
    (look,) = looks.draw(Picture(noise(size, 6), alpha))
    assert look.rgb.size == size
    assert look.alpha is alpha


def test_sheet_has_a_row_for_each_photo_and_a_column_for_each_painting() -> None:
    photos = [(name, Picture(noise((40, 40), seed), None)) for seed, name in enumerate("ab")]
    paintings = [(name, noise((256, 256), seed)) for seed, name in enumerate("pqr", start=7)]
    looks = FirstLooks([painting for _, painting in paintings], device=CPU, iterations=0)
    pictures = [looks.draw(photo) for _, photo in photos]
    sheet = np.asarray(first_look_sheet(photos, paintings, pictures))
    cell = 40 + 14 + 12  # a picture, its caption and the gap
    assert sheet.shape == (12 + 3 * cell, 12 + 4 * 52, 3)
    for row, of_photo in enumerate(pictures, start=1):
        for column, look in enumerate(of_photo, start=1):
            top, left = 12 + row * cell, 12 + column * 52
            assert np.array_equal(sheet[top : top + 40, left : left + 40], look.rgb)
    assert np.array_equal(sheet[12 + cell :][:40, 12:52], photos[0][1].rgb)
