"""The sliced Wasserstein distance: how differently the features of two pictures are distributed.

Heitz et al. 2021, *A Sliced Wasserstein Loss for Neural Texture Synthesis*, section 4. A Gram
matrix holds the mean products of channels alone: pictures with equal ones can have other colors and
contrasts.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

NUM_DIRECTIONS = 64
"""The directions along which distributions are compared."""

_MOST_POSITIONS = 6400


def directions_of(num_channels: int) -> Tensor:
    """Random unit vectors (`NUM_DIRECTIONS`, C) in the space of C channels; the same every time."""
    generator = torch.Generator().manual_seed(1)
    return F.normalize(torch.randn(NUM_DIRECTIONS, num_channels, generator=generator), dim=1)


def sorted_projections(features: Tensor, directions: Tensor) -> Tensor:
    """Features (N, C, H, W) along K directions, sorted over positions: (N, K, HW), float32.

    Heitz et al. 2021, equation 5.

    Args:
        features: φ, (N, C, H, W).
        directions: (K, C), of length 1.
    """
    return (directions @ features.float().flatten(2)).sort(dim=2).values


def thinned(features: Tensor) -> Tensor:
    """Every other row and column of features (N, C, H, W), until 6,400 positions or fewer are left.

    To sort the projections of all of them takes long on a CPU.
    """
    while features.shape[2] * features.shape[3] > _MOST_POSITIONS:
        features = features[:, :, ::2, ::2]
    return features


def sliced_distance(projections: Tensor, target: Tensor) -> Tensor:
    """The squared sliced Wasserstein distance of each picture: (N,).

    Along one direction, the distance of two distributions is that of their sorted values; with
    another number of positions, that of their quantiles.

    Args:
        projections: from `sorted_projections`, (N, K, P).
        target: likewise, (1, K, P').
    """
    if target.shape[2] != projections.shape[2]:
        target = F.interpolate(target, projections.shape[2], mode="linear", align_corners=True)
    return (projections - target).square().mean(dim=(1, 2))
