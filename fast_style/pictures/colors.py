"""The colors of one picture given to another: their mean, and how they vary together.

The map is linear, and of all such maps the one that moves colors least (Pitié and Kokaram 2007,
"The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer", section 3).
A linear map gives no picture the lights of an etching, most of which is white paper and a little
black: `with_lights` does, by the histogram.
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
# A new lightness is the mean over so many levels on both sides. So no difference of lightness grows
# more than fivefold, and the noise of a flat sky stays small.
_REACH = 25
_LUMA = 0.299, 0.587, 0.114  # of red, green and blue, as in Pillow's mode L (ITU-R 601-2)


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


def with_lights(picture: Image.Image, lights: NDArray[np.float64]) -> Image.Image:
    """The picture with about these shares of dark, gray and light pixels; hues stay.

    The same level is added to the three channels of a pixel, clipped to 0..255.

    Args:
        picture: mode RGB.
        lights: `lights_of` another picture.
    """
    levels = np.arange(256)
    change = _levels_between(lights_of(picture), lights) - levels
    changed = np.empty((picture.height, picture.width, 3), np.uint8)
    for top, rows in _bands(picture):
        lightness = rows.astype(np.float64) @ np.asarray(_LUMA)
        added = np.interp(lightness, levels, change)
        band = (rows + added[..., None]).round().clip(0, 255)
        changed[top : top + len(rows)] = band.astype(np.uint8)
    return Image.fromarray(changed)


def lights_of(picture: Image.Image) -> NDArray[np.float64]:
    """(256,): the share of a picture's pixels at each level of lightness."""
    counts = np.asarray(picture.convert("L").histogram(), np.float64)
    return counts / counts.sum()


def _levels_between(own: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """(256,): what each level becomes, where `own` shares shall become about the `wanted` ones.

    Smoothed, and with the wanted mean; some levels may lie outside of 0..255.
    """
    # Where half of a level's pixels are darker, and half of the wanted ones. Levels without a pixel
    # lie between their neighbors.
    ranks, wanted_ranks = (np.cumsum(shares) - shares / 2 for shares in (own, wanted))
    occupied, wanted_levels = np.flatnonzero(own), np.flatnonzero(wanted)
    matched = np.interp(ranks[occupied], wanted_ranks[wanted_levels], wanted_levels)
    levels = np.arange(-_REACH, 256 + _REACH)
    beyond = levels - levels.clip(occupied[0], occupied[-1])
    found = np.interp(levels, occupied, matched) + beyond
    smooth = np.convolve(found, np.full(2 * _REACH + 1, 1 / (2 * _REACH + 1)), mode="valid")
    return smooth + (wanted @ np.arange(256) - own @ smooth)


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
    for _, rows in _bands(picture):
        yield rows.reshape(-1, 3).astype(np.float64) / 255


def _bands(picture: Image.Image) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Some rows at a time, (n, W, 3), with the number of the first."""
    for top in range(0, picture.height, _ROWS):
        rows = picture.crop((0, top, picture.width, min(picture.height, top + _ROWS)))
        yield top, np.asarray(rows)


def _power(matrix: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    power: NDArray[np.float64] = (vectors * values**exponent) @ vectors.T
    return power
