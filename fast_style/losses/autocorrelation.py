"""Autocorrelations of pictures: how much a picture is like itself, shifted.

They are defined for the luminance, here the mean of the channels, without what varies slowly, in
windows of 64 pixels. A pattern that returns at equal distances is a peak; `PerceptualLoss` compares
a result with the style picture, and `measures.repeats` looks for peaks.
"""

import math

import torch
from torch import Tensor

from fast_style.losses.blur import blurred

REACH = 17
"""Pixels, the largest lag: one more than is compared, so that a peak there has a neighbor."""

_FARTHEST = 16
_NEAREST = 6  # at smaller lags, strokes are like themselves, as they should be
# Pixels. A window holds a pattern at least four times. In larger ones, a pattern that changes its
# direction, as along a face, would be lost.
_WINDOW = 64
NUM_FAR = sum(
    _NEAREST <= math.hypot(down, right) <= _FARTHEST
    for down in range(-REACH, REACH + 1)
    for right in range(-REACH, REACH + 1)
)
"""How many lags are of 6 to 16 pixels."""

SMALLEST_WINDOW = 32
"""Pixels, the shorter side of the smallest picture that can be measured."""

# Light and shade, and wide edges, would hide a pattern: a blur with this standard deviation, in
# pixels, leaves them.
_SMOOTH = 3
_LEAST_VARIANCE = (1 / 255) ** 2


def autocorrelations(pictures: Tensor) -> Tensor:
    """At lags of up to 17 pixels along both axes, of each window: (N, n, 35, 35), float32.

    Windows are squares of 64 pixels, or of the shorter side if that is less, and overlap by half,
    or by more at the right and the lower border. The entry in the middle is lag 0, where the value
    is 1, or 0 in a window of one color. At each lag, products are averaged over the pixels that
    have a partner in the window, and divided by the window's variance.

    Args:
        pictures: (N, 3, H, W), about [0, 1]; sides of at least `SMALLEST_WINDOW`.
    """
    with torch.autocast(pictures.device.type, enabled=False):
        grey = pictures.float().mean(dim=1, keepdim=True)
        side = min(_WINDOW, *grey.shape[-2:])
        windows = _parts((grey - blurred(grey, _SMOOTH))[:, 0], 1, side)
        windows = _parts(windows, 2, side).flatten(1, 2)  # (N, n, S, S)
        windows = windows - windows.mean(dim=(2, 3), keepdim=True)
        lag = torch.arange(-REACH, REACH + 1, device=grey.device)
        partners = side - lag.abs()  # of a line's pixels, so many have a partner
        products = _correlated(windows) / (partners[:, None] * partners)
        variance = products[..., REACH, REACH].clamp(min=_LEAST_VARIANCE)
        return products / variance[..., None, None]


def far_autocorrelations(pictures: Tensor) -> Tensor:
    """The mean of all windows at lags of 6 to 16 pixels, and 0 at others: (N, 35, 35).

    Args:
        pictures: as of `autocorrelations`.
    """
    return autocorrelations(pictures).mean(dim=1) * is_far(pictures.device)


def autocorrelation_distance(found: Tensor, target: Tensor) -> Tensor:
    """The mean squared difference of `far_autocorrelations` over lags of 6 to 16 pixels: (N,).

    Args:
        found: (N, 35, 35).
        target: (35, 35).
    """
    return (found - target).square().sum(dim=(1, 2)) / NUM_FAR


def is_far(device: torch.device) -> Tensor:
    """Which lags of `autocorrelations` are between 6 and 16 pixels long: (35, 35), bool."""
    lag = torch.arange(-REACH, REACH + 1, device=device)
    length = (lag[:, None].square() + lag.square()).sqrt()
    return (length >= _NEAREST) & (length <= _FARTHEST)


def _parts(pictures: Tensor, dim: int, side: int) -> Tensor:
    """All parts of this side along a dimension, which overlap by half; the last ends with it."""
    parts = pictures.unfold(dim, side, side // 2)
    if (pictures.shape[dim] - side) % (side // 2) == 0:
        return parts
    last = pictures.narrow(dim, pictures.shape[dim] - side, side).unfold(dim, side, side)
    return torch.cat([parts, last], dim=dim)


def _correlated(windows: Tensor) -> Tensor:
    """Sums of products of the pixels at each lag: (..., S, S) to (..., 35, 35).

    By the Wiener-Khinchin theorem, the transform of the power spectrum. Both transforms are
    products with real matrices, since torch.compile has no complex numbers.
    """
    side = windows.shape[-1]
    size = side + REACH  # so that no lag up to the largest wraps around

    def waves(places: Tensor, frequencies: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (frequencies, places)."""
        cycles = torch.arange(frequencies, device=windows.device)[:, None] * places
        angles = (cycles % size) * (2 * torch.pi / size)
        return angles.cos(), angles.sin()

    pixels = torch.arange(side, device=windows.device)
    # The spectrum of real numbers is symmetric: along one axis, half of it is enough.
    (down_cos, down_sin), (right_cos, right_sin) = waves(pixels, size), waves(pixels, size // 2 + 1)
    even, odd = down_cos @ windows, down_sin @ windows
    real = even @ right_cos.T - odd @ right_sin.T
    imaginary = even @ right_sin.T + odd @ right_cos.T
    counts = torch.full((size // 2 + 1,), 2.0, device=windows.device)
    counts[0] = 1
    if size % 2 == 0:
        counts[-1] = 1
    power = (real.square() + imaginary.square()) * counts / size**2
    lags = torch.arange(-REACH, REACH + 1, device=windows.device)
    (down_cos, down_sin), (right_cos, right_sin) = waves(lags, size), waves(lags, size // 2 + 1)
    return down_cos.T @ power @ right_cos - down_sin.T @ power @ right_sin
