"""Larger strokes: a network paints small copies of a photo first, then larger ones.

The strokes of a transform network have a size in pixels, whatever the photo's size: that of its
training. On a photo of 4,000 pixels they are a fine texture. So the network paints a copy of a few
hundred pixels. What it changed there is enlarged, and added to a copy up to twice as large. The
network paints that one next, and so on, until it paints the photo itself. Wang et al. 2017
(*Multimodal Transfer*, section 3) go from coarse to fine, too, with a network trained for each
size.

Photos are Pillow images (`IMAGES`) or batches of tensors (`BATCHES`); both give the same picture up
to rounding.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    copies = [*(kind.copy_of(photo, side) for side in sides), photo]
    copy = copies[0]
    painted = paint(copy, 0)
    for index, larger in enumerate(copies[1:], start=1):
        painted = paint(kind.brought_over(larger, copy, painted), index)
        copy = larger
    return painted


def _image_copy(photo: Image.Image, longer_side: int) -> Image.Image:
    height, width = _shrunk_size(photo.height, photo.width, longer_side)
    return photo.resize((width, height), _BICUBIC)


def _brought_over_image(photo: Image.Image, copy: Image.Image, painted: Image.Image) -> Image.Image:
    result = Image.new("RGB", photo.size)
    for top in range(0, photo.height, _ROWS):
        bottom = min(photo.height, top + _ROWS)
        strip = photo.crop((0, top, photo.width, bottom))
        rows = np.asarray(strip, np.int16) + _enlarged_rows(painted, photo.size, top, bottom)
        rows -= _enlarged_rows(copy, photo.size, top, bottom)
        result.paste(Image.fromarray(rows.clip(0, 255).astype(np.uint8)), (0, top))
    return result


def _enlarged_rows(
    image: Image.Image, size: tuple[int, int], top: int, bottom: int
) -> NDArray[np.int16]:
    """Some rows of an image enlarged to `size`: (bottom - top, width, 3)."""
    width, height = size
    scale = image.height / height
    first = max(0, int(top * scale) - _MARGIN)
    last = min(image.height, math.ceil(bottom * scale) + _MARGIN)
    # Along the rows first, whatever their number: Pillow's own order depends on it, and so does its
    # rounding.
    wide = image.crop((0, first, image.width, last)).resize((width, last - first), _BICUBIC)
    box = 0, top * scale - first, width, min(bottom * scale - first, last - first)
    return np.asarray(wide.resize((width, bottom - top), _BICUBIC, box=box), np.int16)


def _batch_copy(photos: "Tensor", longer_side: int) -> "Tensor":
    height, width = photos.shape[-2:]
    return _resized(photos, _shrunk_size(height, width, longer_side))


def _brought_over_batch(photos: "Tensor", copies: "Tensor", painted: "Tensor") -> "Tensor":
    return (photos + _resized(painted - copies, photos.shape[-2:])).clamp_(0, 1)


def _resized(photos: "Tensor", size: Sequence[int]) -> "Tensor":
    from torch.nn.functional import interpolate

    # With antialias, torch interpolates as Pillow does, also where it enlarges.
    return interpolate(photos, list(size), mode="bicubic", align_corners=False, antialias=True)


def _shrunk_size(height: int, width: int, longer_side: int) -> tuple[int, int]:
    scale = longer_side / max(height, width)
    return max(1, round(scale * height)), max(1, round(scale * width))


IMAGES = Kind(_image_copy, _brought_over_image)
"""RGB images of Pillow."""
BATCHES = Kind(_batch_copy, _brought_over_batch)
"""Tensors (N, 3, H, W) with values in [0, 1]."""
