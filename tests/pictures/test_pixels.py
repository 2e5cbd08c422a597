"""Pixels of an image in memory: as a tensor, and at another size."""

import numpy as np
import pytest
import torch
from example_pictures import corners
from PIL import Image

from fast_style.pictures.pixels import (
    center_crop,
    fit_longer_side,
    image_to_tensor,
    resize_shorter_side,
    tensor_to_image,
)

# --- Tensors -------------------------------------------------------------------------------------


def test_image_and_tensor_hold_the_same_pixels():
    pixels = image_to_tensor(corners())
    assert (pixels.shape, pixels.dtype) == ((3, 2, 3), torch.uint8)
    assert pixels.is_contiguous()
    assert pixels[0].tolist() == [[40, 80, 120], [160, 200, 240]]
    assert tensor_to_image(pixels / 255).tobytes() == corners().tobytes()


def test_tensor_owns_its_memory():
    image = corners()
    pixels = image_to_tensor(image)
    image.putpixel((0, 0), (9, 9, 9))
    assert pixels[0, 0, 0] == 40
    pixels.zero_()
    assert image.getpixel((1, 0)) == (80, 0, 0)


def test_tensor_is_clamped_and_rounded():
    levels = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 1.6 / 255, 254.6 / 255, 2.0])
    image = tensor_to_image(levels.expand(3, 1, 6))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 2, 255, 255]


def test_all_levels_survive_the_way_to_float_and_back():
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    assert torch.equal(image_to_tensor(tensor_to_image(levels / 255)), levels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_taken(dtype):
    pixels = torch.full((3, 2, 2), 0.5, dtype=dtype, requires_grad=True)
    assert tensor_to_image(pixels).getpixel((0, 0)) == (128, 128, 128)


# --- Sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((640, 480), 240, (320, 240)),
        ((480, 640), 240, (240, 320)),
        ((3, 2), 256, (384, 256)),
        ((640, 480), 480, (640, 480)),
        ((5, 2), 1, (3, 1)),  # 2.5 is rounded up
        ((1, 500), 2, (2, 1000)),
        ((1, 1), 7, (7, 7)),
    ],
)
def test_shorter_side_is_resized_with_the_ratio_kept(size, side, expected):
    assert resize_shorter_side(Image.new("RGB", size), side).size == expected


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((640, 480), 320, (320, 240)),
        ((480, 640), 320, (240, 320)),
        ((640, 480), 640, (640, 480)),
        ((640, 480), 9999, (640, 480)),
        ((1000, 1), 10, (10, 1)),
    ],
)
def test_longer_side_is_only_shrunk(size, side, expected):
    assert fit_longer_side(Image.new("RGB", size), side).size == expected


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(fit_longer_side(Image.fromarray(stripes), 16)).astype(int)
    assert np.abs(small[:, 2:-2] - 127).max() <= 12


def test_center_crop_is_the_middle_square():
    image = Image.new("RGB", (50, 20), "red")
    image.paste((0, 0, 255), (15, 0, 35, 20))
    assert center_crop(image, 20).tobytes() == Image.new("RGB", (20, 20), "blue").tobytes()


def test_center_crop_of_a_ribbon_takes_no_memory_for_all_of_it():
    # Resized to a width of 4096 as a whole, it would have 800 gigapixels.
    assert center_crop(Image.new("L", (1, 50_000)), 4096).size == (4096, 4096)
