"""The colors of one picture given to another: their mean, and how they vary together.

The map is linear, and of all such maps the one that moves colors least (Pitié and Kokaram 2007,
"The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer", section 3).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Added to the variance of each channel. A gray picture has no colors that could be stretched to
# those of a painting: its noise would be.
_LEAST_VARIANCE = 5e-4
_ROWS = 256  # at a time, so that no picture of 100 megapixels is copied as floats


class Colors(NamedTuple):
    """How the colors of a picture are distributed; RGB in [0, 1]."""

    mean: NDArray[np.float64]
    """(3,)."""

    covariance: NDArray[np.float64]
    """(3, 3), positive definite, as `_LEAST_VARIANCE` is in it."""


def colors_of(picture: Image.Image) -> Colors:
    """The colors of a picture of mode RGB."""
    count = picture.width * picture.height
    total, products = np.zeros(3), np.zeros((3, 3))
    for colors in _in_parts(picture):
        total += colors.sum(axis=0)
    for colors in _in_parts(picture):
        centered = colors - total / count
        products += centered.T @ centered
    return Colors(total / count, products / count + _LEAST_VARIANCE * np.eye(3))


def recolored(picture: Image.Image, colors: Colors) -> Image.Image:
    """The picture with these colors, clipped to 0..255.

    Args:
        picture: mode RGB.
        colors: those of another picture.
    """
    matrix, offset = map_between(colors_of(picture), colors)
    rows = np.column_stack([matrix, 255 * offset])
    return picture.convert("RGB", tuple(rows.ravel().tolist()))


def map_between(
    own: Colors, wanted: Colors, *, softening: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """M (3, 3) and o (3,): color c of a picture with `own` colors becomes M c + o in [0, 1].

    Args:
        own: those of the picture.
        wanted: those that it gets.
        softening: a variance that is added to both, so that faint colors are stretched less.
    """
    before, after = (colors.covariance + softening * np.eye(3) for colors in (own, wanted))
    root, inverse = _power(before, 0.5), _power(before, -0.5)
    # The symmetric positive definite M with M `before` M = `after`.
    matrix = inverse @ _power(root @ after @ root, 0.5) @ inverse
    return matrix, wanted.mean - matrix @ own.mean


def _in_parts(picture: Image.Image) -> Iterator[NDArray[np.float64]]:
    """The colors in [0, 1] of some rows at a time, (n, 3)."""
    for top in range(0, picture.height, _ROWS):
        rows = picture.crop((0, top, picture.width, min(picture.height, top + _ROWS)))
        yield np.asarray(rows, np.float64).reshape(-1, 3) / 255


def _power(matrix: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    power: NDArray[np.float64] = (vectors * values**exponent) @ vectors.T
    return power
