"""A measure of blots: flat patches of colors that neither the style picture nor the photo has.

A transform network that was trained too briefly paints them where the photo is dark or flat.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Luminance, red against green, and yellow against blue: the axes on which colors are compared.
_AXES = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))
# Cells of the shorter side, and of the side of a window. 48 or 80 find the same blots as 64.
_NUM_CELLS = 64
_WINDOW_CELLS = 4
# Pixels. A cell has at least one, so below 64 pixels a window is a larger share of the side.
MIN_SIDE_FOR_BLOTS = 16

# The style's range leaves out this share of its windows at either end. Without, two thirds of the
# green clouds of one network are missed; with 0.02, bright areas of another, which are no blots,
# count eight times as much.
_RARE_SHARE = 0.005
# How far a blot lies outside the style's range. With 0.03, those bright areas count six times as
# much; with 0.08, two thirds of the green clouds are missed.
_BEYOND_STYLE = 0.05
# How much farther out than the photo it lies. With 0.1, the bright areas count four times as much;
# with 0.25, two thirds of the green clouds are missed.
_BEYOND_PHOTO = 0.2
# The largest standard deviation of luminance in a flat window; those in blots have 0.01 to 0.04.
_FLAT_STD = 0.05


def blot_share(outputs: Tensor, photos: Tensor, style: Tensor) -> Tensor:
    """The share of each picture that blots cover: (N,), float32 in [0, 1].

    A blot is a flat patch that is lighter, darker or more colorful than the style picture ever is,
    and than the photo is there. Colors are compared on three axes: luminance, (R - G) / 2 and
    (R + G) / 4 - B / 2. They are means over windows of 1/16 of the shorter side, at least 4 pixels,
    at distances of a quarter window. The range of the style is that of its own windows on each
    axis, from the 0.5th to the 99.5th percentile. A window belongs to a blot if on some axis it
    lies more than 0.05 outside this range, and more than 0.2 farther out than the photo's window;
    and if the standard deviation of its luminance is below 0.05.

    The rim of a blot is not flat, so about three quarters of its area are found, and nothing of a
    blot that is smaller than a window. A white or a black area is no blot where the photo is
    nearly as white or black.

    Normal: a mean over the photos below 0.001; above 0.003, look at the pictures. Measured on 50
    photos of 256 pixels: 0, 0.0001 and 0.0008 (means) for three trained networks; 0.0035 for one
    that paints green clouds, found on 19 of them. A network after three minutes of training paints
    a bright yellow blot on the dark wall of a church: 0.017, at 48 to 320 pixels; the picture of
    L-BFGS has 0. So have photos that are compared with themselves, and 27 of 32 other pictures of
    L-BFGS. The other five have up to 0.014, but one 0.1: bright sand, in the style of a pencil
    drawing on grey paper.

    Args:
        outputs: (N, 3, H, W) in [0, 1].
        photos: (N, 3, H, W) in [0, 1].
        style: (1, 3, h, w) in [0, 1], the style picture as the loss network sees it.

    Returns:
        NaN if a side is below `MIN_SIDE_FOR_BLOTS`.
    """
    if min(*outputs.shape[-2:], *style.shape[-2:]) < MIN_SIDE_FOR_BLOTS:
        return outputs.new_full((len(outputs),), math.nan, dtype=torch.float32)
    colors_of_style = _windows_of(style).colors[0].flatten(1)  # (3, windows)
    lowest, highest = (
        torch.quantile(colors_of_style, share, dim=1).view(1, 3, 1, 1)
        for share in (_RARE_SHARE, 1 - _RARE_SHARE)
    )
    colors, luminance_std = _windows_of(outputs)
    of_photo = _windows_of(photos).colors
    is_above = (colors > highest + _BEYOND_STYLE) & (colors > of_photo + _BEYOND_PHOTO)
    is_below = (colors < lowest - _BEYOND_STYLE) & (colors < of_photo - _BEYOND_PHOTO)
    is_blot = (is_above | is_below).any(dim=1) & (luminance_std < _FLAT_STD)  # (N, h, w)
    # From windows to the cells that they cover.
    padded = F.pad(is_blot.float(), (_WINDOW_CELLS - 1,) * 4)
    return F.max_pool2d(padded, _WINDOW_CELLS, stride=1).mean(dim=(1, 2))


class _Windows(NamedTuple):
    """The windows of pictures: mean colors (N, 3, h, w), and contrast (N, h, w)."""

    colors: Tensor
    luminance_std: Tensor


def _windows_of(pictures: Tensor) -> _Windows:
    """The windows of pictures (N, 3, H, W) in [0, 1], in float32.

    Pixels are averaged over cells, and cells over windows: windows overlap, and would read each
    pixel sixteen times.
    """
    cell = max(1, round(min(pictures.shape[-2:]) / _NUM_CELLS))
    pictures = pictures.float()
    # Sums and not matrix products: on a GPU, those may have TF32's 10 bits, too few for a variance.
    axes = torch.tensor(_AXES, device=pictures.device).view(3, 3, 1, 1)
    luminance = (axes[0] * pictures).sum(dim=1, keepdim=True)
    cells = F.avg_pool2d(torch.cat([pictures, luminance.square()], dim=1), cell)
    means = F.avg_pool2d(cells, _WINDOW_CELLS, stride=1)  # (N, 4, h, w)
    colors = (axes * means[:, None, :3]).sum(dim=2)
    variance = means[:, 3] - colors[:, 0].square()
    return _Windows(colors, variance.clamp(min=0).sqrt())
