"""Halos: glows and patches in flat regions of a photo, as around a bird in the sky.

A steady network can tell places in a flat sky apart by their distance to the next edge alone. To
have the style's lights and darks there, it paints rings of colors around things: the style term
falls, and the picture looks as if it had stains. `PerceptualLoss` forbids them as a part of the
content term: where the photo is flat, so shall the picture be, apart from strokes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_style.losses.blur import blurred

SMALLEST_SIDE = 32
"""Pixels, the shorter side of the smallest picture in which halos are looked for."""

# Pixels of a cell's side. Halos are much larger, and a quarter of the pixels cost a quarter.
_CELL = 2
# Cells, the standard deviation of the blur that leaves halos and takes strokes away.
_SLOW = 3
# A region is flat if the photo differs little from what changes slowly in it: cells, the standard
# deviation of the region; and the standard deviation of [0, 1] at which its flatness is 1 / e.
_NEAR = 4
_FLAT_STD = 0.03
_LEAST_VARIANCE = 1e-3  # of a picture that is hardly more than one color
_LEAST_SQUARE = 1e-6  # so that the root has a gradient where a picture is in one color


def halo_targets(photos: Tensor) -> Tensor:
    """The flatness and the `_steepness` of photos, for `halo_strengths`: (N, 2, h, w), in cells.

    Args:
        photos: (N, 3, H, W) in [0, 1]; sides of at least `SMALLEST_SIDE`.
    """
    with torch.autocast(photos.device.type, enabled=False):
        photos = photos.float()
        cells = F.avg_pool2d(photos, _CELL)
        slow = blurred(cells, _SLOW)
        detail = (cells - slow).square().mean(dim=1, keepdim=True)
        flatness = torch.exp(-blurred(detail, _NEAR) / _FLAT_STD**2)[..., 1:-1, 1:-1]
        return torch.cat([flatness, _steepness(photos, slow)], dim=1)


def halo_strengths(pictures: Tensor, targets: Tensor) -> Tensor:
    """How much more pictures change slowly than their photos, where these are flat: (N,), float32.

    The mean, over cells of 2 by 2 pixels, of flatness times the square of how much steeper the
    picture is than the photo. Flatness is exp(-v / 0.03²), where v is the mean square, within about
    16 pixels, of what a blur takes from the photo: it is 1 in a sky and 0 beside an edge. Steepness
    is the gradient after a blur with a standard deviation of 6 pixels, times these 6 pixels,
    divided by the standard deviation of the whole picture or photo; so paleness does not lower it.

    `measures.halos` has what is normal. Photos themselves have 0.

    Args:
        pictures: (N, 3, H, W), about [0, 1].
        targets: the `halo_targets` of their photos.
    """
    with torch.autocast(pictures.device.type, enabled=False):
        pictures = pictures.float()
        flatness, of_photo = targets[:, :1], targets[:, 1:]
        excess = _steepness(pictures, blurred(F.avg_pool2d(pictures, _CELL), _SLOW)) - of_photo
        return (flatness * excess.clamp(min=0).square()).mean(dim=(1, 2, 3))


def _steepness(pictures: Tensor, slow: Tensor) -> Tensor:
    """The gradient of blurred cells as a share of the pictures' contrast: (N, 1, h, w)."""
    right = (slow[..., 1:-1, 2:] - slow[..., 1:-1, :-2]) / 2
    down = (slow[..., 2:, 1:-1] - slow[..., :-2, 1:-1]) / 2
    square = (right.square() + down.square()).sum(dim=1, keepdim=True)
    variance = pictures.var(dim=(2, 3), correction=0).mean(dim=1).clamp(min=_LEAST_VARIANCE)
    return (square * _SLOW**2 / variance[:, None, None, None] + _LEAST_SQUARE).sqrt()
