"""Pixels of an image in memory: as a tensor, and at another size.

No files are read or written here. torch is imported only by the functions that make tensors of
images or images of tensors, because it takes seconds to load.
"""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch


def image_to_tensor(image: Image.Image) -> "torch.Tensor":
    """The pixels of an RGB image as (3, H, W), uint8; the tensor owns its memory."""
    import torch

    assert image.mode == "RGB", image.mode
    # Not np.asarray: its array may share the image's memory and be read-only, of which torch warns.
    pixels = torch.from_numpy(np.array(image))  # (H, W, 3)
    return pixels.permute(2, 0, 1).contiguous()  # (3, H, W)


def tensor_to_image(pixels: "torch.Tensor") -> Image.Image:
    """An RGB image with the given pixels, clamped to [0, 1] and rounded to 8 bits.

    Rounded because truncation would darken the picture by half a level on average.

    Args:
        pixels: (3, H, W), float in [0, 1], on any device. NaN gives an arbitrary color: check for
            it before.
    """
    import torch

    assert pixels.ndim == 3, pixels.shape
    assert pixels.shape[0] == 3, pixels.shape
    # In float32, because bfloat16 cannot represent both 254 and 255.
    levels = (pixels.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())  # (H, W, 3)


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """The image enlarged or shrunk to a shorter side of `size` pixels.

    The aspect ratio is kept; the longer side is rounded. Shrinking is antialiased (Lanczos).
    """
    return _resize(image, size, min(image.size))


def fit_longer_side(image: Image.Image, size: int) -> Image.Image:
    """The image shrunk to a longer side of `size` pixels; never enlarged.

    The aspect ratio is kept; the shorter side is rounded and at least 1 pixel.
    """
    return _resize(image, min(size, max(image.size)), max(image.size))


def _resize(image: Image.Image, numerator: int, denominator: int) -> Image.Image:
    assert numerator >= 1, numerator
    if numerator == denominator:
        return image
    # In integers, halves rounded up: the result must not depend on the rounding of floats.
    width, height = (
        max(1, (2 * side * numerator + denominator) // (2 * denominator)) for side in image.size
    )
    return image.resize((width, height), Image.Resampling.LANCZOS)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The largest centered square of the image, resized to (size, size)."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    # In one call: a photo of 1 x 5000 that is resized first and cropped then would need gigabytes.
    return image.resize(
        (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )
