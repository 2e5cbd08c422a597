"""Larger strokes: a network paints small copies of a photo first, then larger ones.

The strokes of a transform network have a size in pixels, whatever the photo's size: that of its
training. On a photo of 4,000 pixels they are a fine texture. So the network paints a copy of a few
hundred pixels. What it changed there is enlarged, and added to a copy up to twice as large. The
network paints that one next, and so on, until it paints the photo itself. Wang et al. 2017
(*Multimodal Transfer*, section 3) go from coarse to fine, too, with a network trained for each
size.

Photos are Pillow images (`IMAGES`) or batches of tensors (`BATCHES`). Copies of images are rounded
to whole numbers, and the network paints on what it painted there, so its two pictures of one photo
differ here and there.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fast_style.stylizing.copies import shrunk_size

if TYPE_CHECKING:
    from torch import Tensor

# Rows of the photo that are changed at a time: the differences of all of a huge one take gigabytes.
_ROWS = 256
# Further rows of the copy, as far as bicubic interpolation looks.
_MARGIN = 3
_BICUBIC = Image.Resampling.BICUBIC

_Photo = TypeVar("_Photo")


class Kind(NamedTuple, Generic[_Photo]):
    """How photos of one type are shrunk and changed."""

    copy_of: Callable[[_Photo, int], _Photo]
    """The photo shrunk to a longer side."""
    brought_over: Callable[[_Photo, _Photo, _Photo], _Photo]
    """The photo with what was changed in a copy: the arguments are the photo, the copy before the
    change and the copy after it."""


def coarse_to_fine(
    photo: _Photo,
    sides: Sequence[int],
    kind: Kind[_Photo],
    paint: Callable[[_Photo, int], _Photo],
) -> _Photo:
    """The photo, painted after smaller copies of it.

    Args:
        photo: of any size.
        sides: from `copies.copy_sides`.
        kind: of photo.
        paint: makes a picture of the same size; its second argument is the number of pictures that
            were painted before.
    """
    copies = [photo]
    for side in reversed(sides):  # each of the next larger one, as a GPU shrinks by so much only
        copies.insert(0, kind.copy_of(copies[0], side))
    copy = copies[0]
    painted = paint(copy, 0)
    for index, larger in enumerate(copies[1:], start=1):
        painted = paint(kind.brought_over(larger, copy, painted), index)
        copy = larger
    return painted


def _image_copy(photo: Image.Image, longer_side: int) -> Image.Image:
    height, width = shrunk_size(photo.height, photo.width, longer_side)
    return photo.resize((width, height), _BICUBIC)


def _brought_over_image(photo: Image.Image, copy: Image.Image, painted: Image.Image) -> Image.Image:
    result = Image.new("RGB", photo.size)
    scale = copy.height / photo.height
    for top in range(0, photo.height, _ROWS):
        bottom = min(photo.height, top + _ROWS)
        first = max(0, int(top * scale) - _MARGIN)
        last = min(copy.height, math.ceil(bottom * scale) + _MARGIN)
        before, after = (
            np.asarray(image.crop((0, first, image.width, last)), np.float32)
            for image in (copy, painted)
        )
        box = 0, top * scale - first, copy.width, min(bottom * scale, copy.height) - first
        change = _enlarged(after - before, (photo.width, bottom - top), box)
        rows = np.asarray(photo.crop((0, top, photo.width, bottom))) + change
        result.paste(Image.fromarray((rows + 0.5).clip(0, 255).astype(np.uint8)), (0, top))
    return result


def _enlarged(
    pixels: NDArray[np.float32], size: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[np.float32]:
    """A part of a picture (H, W, 3) enlarged to `size`, width and height; not cut off anywhere."""
    channels = [
        Image.fromarray(np.ascontiguousarray(pixels[..., channel])).resize(size, _BICUBIC, box=box)
        for channel in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def _batch_copy(photos: "Tensor", longer_side: int) -> "Tensor":
    height, width = photos.shape[-2:]
    shorter, narrower = shrunk_size(height, width, longer_side)
    # One axis after the other, and cut off where it overshoots, as Pillow does it.
    narrow = _resized(photos, (height, narrower)).clamp_(0, 1)
    return _resized(narrow, (shorter, narrower)).clamp_(0, 1)


def _brought_over_batch(photos: "Tensor", copies: "Tensor", painted: "Tensor") -> "Tensor":
    return (photos + _resized(painted - copies, photos.shape[-2:])).clamp_(0, 1)


def _resized(photos: "Tensor", size: Sequence[int]) -> "Tensor":
    from torch import channels_last
    from torch.nn.functional import interpolate

    if photos.shape[-1] == 1:
        # Its rows and channels are told apart only so; torch 2.14 mixes them up otherwise.
        photos = photos.contiguous(memory_format=channels_last)
    # With antialias, torch interpolates as Pillow does, also where it enlarges.
    return interpolate(photos, list(size), mode="bicubic", align_corners=False, antialias=True)


IMAGES = Kind(_image_copy, _brought_over_image)
"""RGB images of Pillow."""
BATCHES = Kind(_batch_copy, _brought_over_batch)
"""Tensors (N, 3, H, W) with values in [0, 1]."""
