"""Which smaller copies of a photo are painted before it, for larger strokes (see `strokes`)."""

import math
from numbers import Integral
from typing import cast

from fast_style.core.errors import shown

DEFAULT_STROKES = 1536
"""Longer side of the smallest copy, in pixels."""
LEAST_STROKES = 64
"""Smaller copies show hardly anything of a photo."""

LEAST_RATIO = 1.5
"""A smaller photo has no copies: on one of nearly its size, the same strokes would be painted
twice."""


def require_strokes(side: object) -> int:
    """The longer side of the smallest copy, after checking it: 0, or at least `LEAST_STROKES`.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is another number.
    """
    if isinstance(side, bool) or not isinstance(side, Integral):
        raise TypeError(f"strokes must be a whole number, got {shown(side)}")
    pixels = int(cast("int", side))
    if pixels != 0 and pixels < LEAST_STROKES:
        raise ValueError(f"strokes must be 0, or at least {LEAST_STROKES}, got {shown(side)}")
    return pixels


def copy_sides(longer_side: int, strokes: int) -> list[int]:
    """The longer sides of the copies that are painted before the photo, the smallest first.

    Each is at most twice as long as the one before, and the photo as the last, up to a pixel.

    Args:
        longer_side: of the photo, in pixels.
        strokes: the longer side of the smallest copy, in pixels; 0: no copies.
    """
    # By division: the product of a huge number and a float is an error.
    if not strokes or longer_side / strokes < LEAST_RATIO:
        return []
    ratio = longer_side / strokes
    num_copies = math.ceil(math.log2(ratio))
    return [round(strokes * ratio ** (index / num_copies)) for index in range(num_copies)]


def shrunk_size(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """Height and width of a copy with that longer side; at least 1."""
    scale = longer_side / max(height, width)
    return max(1, round(scale * height)), max(1, round(scale * width))
