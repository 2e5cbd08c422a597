"""Measures of how much pictures change when photos hardly do: of what flickers in a video.

No video is needed. A camera's pan shifts the photo, a dolly zooms it, and its sensor adds noise; a
steady network does to its picture what was done to the photo. Measures along optical flow, which
need a video, include the errors of the flow.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_SHIFTS = (1, 2, 3)
_STRIDE = 4  # the product of the network's strides: a shift by 4 pixels shifts all its features
_ZOOM = 1.1
_NOISE = 2 / 255  # standard deviation: about a camera's noise
# Pixels at the borders, whose surroundings differ, are left out: 16, or less of small pictures.
_MARGIN = 16
_LARGEST_MARGIN_SHARE = 1 / 8
_SMALLEST_SIDE = 16

Stylize = Callable[[Tensor], Tensor]
"""Photos (N, 3, H, W) in [0, 1] to pictures of the same shape, clamped to [0, 1]."""


class Steadiness(NamedTuple):
    """How much the picture of each photo changes: (N,), float32.

    Differences are root mean squares of pixels in [0, 1], without the 16 outermost ones, or without
    an eighth of the shorter side if that is less.
    """

    shift: Tensor
    """Of the pictures of the photo shifted by 1, 2 and 3 pixels along both axes: the mean of their
    differences, shifted back, to the picture. 0 for the photos themselves."""

    whole_shift: Tensor
    """The same for 4 pixels, the product of the network's strides. Only the norms' statistics
    change: the floor of `shift`."""

    zoom: Tensor
    """Of the enlarged photo's picture, 1.1 times, to the enlarged picture. 0 for the photos."""

    noise_gain: Tensor
    """Of the photo with noise of standard deviation 2/255, divided by the noise. 1 for photos."""


@torch.no_grad()
def steadiness(stylize: Stylize, photos: Tensor) -> Steadiness:
    """How steady a network's pictures of these photos are; it makes nine pictures of each.

    Measured at 256 pixels on networks of half width without antialiasing, trained for minutes:
    shift 0.05 to 0.12, whole shift 0.005, zoom 0.1, noise gain 1.0 to 2.9.

    Args:
        stylize: the network.
        photos: (N, 3, H, W) in [0, 1].

    Returns:
        NaN if a side is below 16.
    """
    pictures = stylize(photos)
    return Steadiness(
        shift_errors(stylize, photos),
        shift_errors(stylize, photos, [_STRIDE]),
        _zoom_errors(stylize, photos, pictures),
        noise_gains(stylize, photos, pictures),
    )


@torch.no_grad()
def shift_errors(stylize: Stylize, photos: Tensor, shifts: Sequence[int] = _SHIFTS) -> Tensor:
    """`Steadiness.shift` for these shifts in pixels, each up to 4: (N,)."""
    if _is_too_small(photos):
        return _unknown(photos)
    picture = stylize(_window(photos, 0, less=_STRIDE))
    errors = []
    for shift in shifts:
        shifted = stylize(_window(photos, shift, less=_STRIDE))
        there, here = _window(picture, shift, less=_STRIDE), _window(shifted, 0, less=_STRIDE)
        errors.append(_difference(there, here))
    return torch.stack(errors).mean(dim=0)


@torch.no_grad()
def noise_gains(stylize: Stylize, photos: Tensor, pictures: Tensor) -> Tensor:
    """`Steadiness.noise_gain`: (N,). The noise is the same for every photo, and at every call.

    Args:
        stylize: the network.
        photos: (N, 3, H, W) in [0, 1].
        pictures: ``stylize(photos)``, which the caller has.
    """
    if _is_too_small(photos):
        return _unknown(photos)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(photos[:1].shape, generator=generator).to(photos) * _NOISE
    change = _difference(stylize(photos + noise), pictures)
    return change / _difference(noise, torch.zeros_like(noise))


def _zoom_errors(stylize: Stylize, photos: Tensor, pictures: Tensor) -> Tensor:
    if _is_too_small(photos):
        return _unknown(photos)
    return _difference(stylize(_enlarged(photos)), _enlarged(pictures))


def _is_too_small(photos: Tensor) -> bool:
    return min(photos.shape[-2:]) < _SMALLEST_SIDE


def _unknown(photos: Tensor) -> Tensor:
    return photos.new_full((len(photos),), math.nan, dtype=torch.float32)


def _window(pictures: Tensor, offset: int, *, less: int) -> Tensor:
    """The part of the pictures that begins `offset` pixels from their corner, smaller by `less`."""
    height, width = (side - less for side in pictures.shape[-2:])
    return pictures[..., offset : offset + height, offset : offset + width].contiguous()


def _enlarged(pictures: Tensor) -> Tensor:
    return F.interpolate(pictures, scale_factor=_ZOOM, mode="bicubic").clamp(0, 1)


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """The root mean square difference of pictures, without their borders: (N,)."""
    margin = min(_MARGIN, int(min(one.shape[-2:]) * _LARGEST_MARGIN_SHARE))
    inside = slice(margin, -margin)
    return (one - other)[..., inside, inside].float().square().mean(dim=(1, 2, 3)).sqrt()
