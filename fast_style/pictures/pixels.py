"""Pixels of an image that is in memory: as a tensor, and at another size."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch  # it takes seconds; finding and reading pictures needs none of it


def image_to_tensor(image: Image.Image) -> "torch.Tensor":
    """The pixels of an RGB image: (3, H, W), uint8, in memory of their own."""
    import torch

    assert image.mode == "RGB", image.mode
    # Not np.asarray: it may share the image's memory, and torch warns of read-only arrays.
    pixels = torch.from_numpy(np.array(image))  # (H, W, 3)
    return pixels.permute(2, 0, 1).contiguous()  # (3, H, W)


def tensor_to_image(pixels: "torch.Tensor") -> Image.Image:
    """An RGB image of pixels (3, H, W), float in [0, 1], on any device; clamped, then rounded.

    Truncation instead would darken a picture by half a level. Whether the pixels are finite is for
    the caller to know: NaN becomes an arbitrary color.
    """
    import torch

    assert pixels.ndim == 3, pixels.shape
    assert pixels.shape[0] == 3, pixels.shape
    # float32 first: bfloat16 cannot tell 254 from 255.
    levels = (pixels.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())  # (H, W, 3)


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """The image with a shorter side of `size` pixels, larger or smaller than it was.

    The ratio of the sides is kept: the longer one is rounded. Down-sizing is antialiased.
    """
    return _resize(image, size, min(image.size))


def fit_longer_side(image: Image.Image, size: int) -> Image.Image:
    """The image with a longer side of at most `size` pixels; never enlarged.

    The ratio of the sides is kept: the shorter one is rounded, and at least 1.
    """
    return _resize(image, min(size, max(image.size)), max(image.size))


def _resize(image: Image.Image, numerator: int, denominator: int) -> Image.Image:
    assert numerator >= 1, numerator
    if numerator == denominator:
        return image
    # In integers, with halves rounded up: 0.5 is not left to the rounding of floats.
    width, height = (
        max(1, (2 * side * numerator + denominator) // (2 * denominator)) for side in image.size
    )
    return image.resize((width, height), Image.Resampling.LANCZOS)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle square of the photo, (size, size)."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    # Cut and resized at once: resized as a whole, a photo of 1 x 5000 would need gigabytes.
    return image.resize(
        (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )
