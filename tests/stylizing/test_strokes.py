"""Claims about larger strokes: which copies of a photo are painted, and what becomes of them."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from noise_photos import noise_photo
from PIL import Image
from torch import Tensor

from fast_style.pictures.pixels import image_to_tensor
from fast_style.stylizing import strokes
from fast_style.stylizing.copies import copy_sides, require_strokes
from fast_style.stylizing.strokes import BATCHES, IMAGES, coarse_to_fine


@pytest.mark.parametrize(
    ("longer_side", "side", "expected"),
    [
        (767, 512, []),
        (768, 512, [512]),
        (1024, 512, [512]),
        (1100, 512, [512, 750]),
        (2048, 512, [512, 1024]),
        (4000, 500, [500, 1000, 2000]),
        (100_000, 0, []),
        (100_000, 10**400, []),
    ],
)
def test_copies_grow_to_at_most_twice_the_size(
    longer_side: int, side: int, expected: list[int]
) -> None:
    assert copy_sides(longer_side, side) == expected


def test_no_step_is_larger_than_twice() -> None:
    for longer_side in range(96, 3000):
        sides = [*copy_sides(longer_side, 64), longer_side]
        assert sides[0] == 64
        for side, larger in itertools.pairwise(sides):
            assert side < larger <= 2 * side + 1  # by rounding


@pytest.mark.parametrize(("side", "expected"), [(0, 0), (64, 64), (np.int64(512), 512)])
def test_strokes_are_a_whole_number(side: Any, expected: int) -> None:
    assert require_strokes(side) == expected


@pytest.mark.parametrize(
    ("side", "error"),
    [(63, ValueError), (-1, ValueError), (512.0, TypeError), ("512", TypeError), (True, TypeError)],
)
def test_other_strokes_are_refused(side: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="strokes must be"):
        require_strokes(side)


@pytest.mark.parametrize("size", [(1, 300), (2, 300), (3, 300), (300, 1), (300, 2)])
def test_copies_of_thin_tensors_are_those_of_images(size: tuple[int, int]) -> None:
    image = noise_photo(*size)
    pixels = image_to_tensor(image)[None] / 255
    copy, expected = BATCHES.copy_of(pixels, 150), IMAGES.copy_of(image, 150)
    assert copy.shape == (1, 3, expected.height, expected.width)
    # Pillow rounds between the two axes.
    assert (copy * 255 - image_to_tensor(expected)).abs().max() <= 3


def test_without_copies_the_photo_is_painted_once() -> None:
    photo = noise_photo(30, 20)
    seen: list[Image.Image] = []

    def paint(image: Image.Image, index: int) -> Image.Image:
        assert index == len(seen)
        seen.append(image)
        return image

    assert coarse_to_fine(photo, [], IMAGES, paint) is photo
    assert seen == [photo]


def test_each_copy_is_painted_with_what_was_changed_before() -> None:
    photo = Image.new("RGB", (200, 100), (100, 120, 140))
    seen: list[tuple[tuple[int, int], Any]] = []

    def brighten(image: Image.Image, index: int) -> Image.Image:
        assert index == len(seen)
        seen.append((image.size, image.getpixel((7, 9))))
        return image.point(lambda value: value + 10)

    painted = coarse_to_fine(photo, [50, 100], IMAGES, brighten)
    assert seen == [
        ((50, 25), (100, 120, 140)),
        ((100, 50), (110, 130, 150)),
        ((200, 100), (120, 140, 160)),
    ]
    assert painted.getcolors() == [(200 * 100, (130, 150, 170))]


@pytest.mark.parametrize("size", [(301, 600), (1, 700), (97, 2)])
def test_copies_that_are_left_as_they_are_leave_the_photo_as_it_is(size: tuple[int, int]) -> None:
    photo = noise_photo(*size)
    copy = IMAGES.copy_of(photo, 64)
    assert max(copy.size) == 64
    assert IMAGES.brought_over(photo, copy, copy).tobytes() == photo.tobytes()
    pixels = image_to_tensor(photo)[None] / 255
    shrunk = BATCHES.copy_of(pixels, 64)
    assert max(shrunk.shape) == 64
    assert torch.equal(BATCHES.brought_over(pixels, shrunk, shrunk), pixels)


def test_detail_of_the_photo_stays_in_what_is_brought_over() -> None:
    """A copy that becomes all gray takes away only what the copy can show."""
    rows = np.zeros((128, 128, 3), np.uint8)
    rows[::2] = 200  # stripes too fine for a copy of half the size, which is gray already
    photo = Image.fromarray(rows)
    copy = IMAGES.copy_of(photo, 64)
    gray = Image.new("RGB", copy.size, (100, 100, 100))
    result = np.array(IMAGES.brought_over(photo, copy, gray))[8:-8]
    assert result.astype(int).max() - result.min() > 150


def test_rows_of_a_large_photo_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    photo, painted = noise_photo(90, 333), noise_photo(27, 100)
    copy = IMAGES.copy_of(photo, 100)
    assert copy.size == painted.size
    whole = np.array(IMAGES.brought_over(photo, copy, painted), np.int16)
    monkeypatch.setattr(strokes, "_ROWS", 50)
    in_parts = np.array(IMAGES.brought_over(photo, copy, painted), np.int16)
    assert np.abs(in_parts - whole).max() <= 1
    assert (in_parts != whole).mean() < 0.001


def test_images_and_batches_are_changed_alike() -> None:
    smooth = noise_photo(12, 10).resize((240, 200), Image.Resampling.BICUBIC)
    pixels = image_to_tensor(smooth)[None] / 255

    def darker(image: Image.Image, index: int) -> Image.Image:
        return image.point(lambda value: value * 0.7)

    def darker_batch(photos: Tensor, index: int) -> Tensor:
        return photos * 0.7

    image = coarse_to_fine(smooth, [64, 120], IMAGES, darker)
    batch = coarse_to_fine(pixels, [64, 120], BATCHES, darker_batch)
    difference = (image_to_tensor(image) / 255 - batch[0]).abs() * 255
    assert difference.max() < 4
    assert difference.mean() < 1


def test_hard_edges_are_shrunk_and_changed_alike_in_images_and_batches() -> None:
    checks = Image.fromarray((np.indices((9, 12)).sum(0) % 2 * 255).astype(np.uint8))
    photo = checks.resize((144, 108), Image.Resampling.NEAREST).convert("RGB")
    pixels = image_to_tensor(photo)[None] / 255
    copy = IMAGES.copy_of(photo, 64)
    copies = BATCHES.copy_of(pixels, 64)
    assert (image_to_tensor(copy) / 255 - copies[0]).abs().max() * 255 < 1
    painted = noise_photo(*copy.size)
    as_batch = [image_to_tensor(image)[None] / 255 for image in (copy, painted)]
    changed = image_to_tensor(IMAGES.brought_over(photo, copy, painted)) / 255
    expected = BATCHES.brought_over(pixels, *as_batch)[0]
    assert (changed - expected).abs().max() * 255 < 0.51
