"""Grain: faint, smooth noise on a photo, of which a network makes strokes where the photo is plain.

A transform network tells places in a plain sky apart by the photo's own noise alone, so it leaves
the skies of clean photos plain. Where a painter filled them with strokes, this noise helps: the
network paints them along it, without having been trained with it. The networks of Ulyanov et al.
2016 (*Texture Networks*, section 3.1) get noise for the same reason.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor

# Octaves of strokes of several sizes: a Gaussian blur of white noise, less a wider one. These are
# the standard deviations, in pixels. With only one octave, strokes were as even as fish scales.
_OCTAVES = ((2, 4), (4, 8), (8, 16))
# Sides, in pixels, of two patterns without seams, whose sum repeats only where both do: after
# 441 * 512 pixels. Where one of them repeats, the other is far from doing so.
_SIDES = 441, 512  # 3² 7² and 2⁹: both quick to transform

# Whatever the caller's defaults are: the patterns are kept.
_CPU_FLOATS: Any = {"device": "cpu", "dtype": torch.float32}


def grain_pattern(top: int, left: int, height: int, width: int) -> Tensor:
    """A part of an endless picture of noise: (3, height, width), float32, on the CPU.

    Its mean is 0 and its standard deviation 1. It is always the same noise, so two parts agree
    where they overlap.

    Args:
        top: first row, at least 0.
        left: first column, at least 0.
        height: number of rows.
        width: number of columns.
    """
    total = torch.zeros(3, height, width, **_CPU_FLOATS)
    for side in _SIDES:
        rows = torch.arange(top, top + height, device="cpu") % side
        columns = torch.arange(left, left + width, device="cpu") % side
        total += _pattern(side)[:, rows[:, None], columns]
    return total.div_(math.sqrt(len(_SIDES)))


@functools.cache
def _pattern(side: int) -> Tensor:
    """A square of noise that continues at the opposite borders: (3, side, side)."""
    generator = torch.Generator("cpu").manual_seed(side)
    spectrum = torch.fft.rfft2(torch.randn((3, side, side), generator=generator, **_CPU_FLOATS))
    vertical = torch.fft.fftfreq(side, **_CPU_FLOATS)[:, None]
    squares = vertical.square() + torch.fft.rfftfreq(side, **_CPU_FLOATS).square()

    def blur(std: int) -> Tensor:
        return torch.exp(-2 * (math.pi * std) ** 2 * squares)

    octaves = [
        torch.fft.irfft2(spectrum * (blur(std) - blur(wider)), s=(side, side))
        for std, wider in _OCTAVES
    ]
    total = torch.stack([octave / octave.std() for octave in octaves]).sum(dim=0)
    return total / total.std()
