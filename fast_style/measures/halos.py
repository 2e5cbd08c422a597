"""A measure of halos: glows and patches in flat regions of a photo, as around a bird in the sky.

Networks paint them when the style has more lights and darks than the photo. L-BFGS on the same
losses does not: it fills the sky with strokes.
"""

import math

import torch
from torch import Tensor

from fast_style.losses.halo import SMALLEST_SIDE, halo_strengths, halo_targets


@torch.no_grad()
def halos(pictures: Tensor, photos: Tensor) -> Tensor:
    """How much more pictures change slowly than their photos, where these are flat: (N,), float32.

    `halo_strengths`, which `loss.halo_weight` lowers. 0 for the photos themselves.

    Normal: a mean over the photos below 0.001; above 0.003, look at the pictures. Measured at 230
    pixels on eight photos, means: 0.0017 to 0.0063 for 20 networks that were trained without the
    term, of which a hawk in a flat sky, mostly with a glow around it, has 0.0004 to 0.034; 0.0004
    to 0.0007 for three trained with it. L-BFGS on losses without it has 0.00003 on the hawk.

    Args:
        pictures: (N, 3, H, W) in [0, 1].
        photos: likewise.

    Returns:
        NaN if a side is below 32.
    """
    if min(pictures.shape[-2:]) < SMALLEST_SIDE:
        return pictures.new_full((len(pictures),), math.nan, dtype=torch.float32)
    return halo_strengths(pictures, halo_targets(photos))
