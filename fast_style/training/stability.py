"""The consistency term of training: the picture of a changed photo must be the changed picture.

Without it, a network paints patterns that stay in place when the photo moves: they fill flat areas
with a weave, and flicker in videos. For one crop in six, a copy is shifted by a few pixels,
slightly enlarged and noisy; the term is the mean squared difference between its picture and the
picture of the crop, shifted and enlarged likewise, as a share of the picture's variance. No video
or optical flow is needed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fast_style.networks.transform_net import memory_format_for

EVERY = 6
"""Of so many crops, one has a changed copy."""

# Distinguishes the random numbers of changes from others of the same seed.
_CHANGE = 3
# The largest shift in pixels; the strides' product, 4, would shift all features by whole pixels.
_LARGEST_SHIFT = 3
# A larger zoom would ask for strokes that grow with the photo.
_ZOOM_SHARE, _LARGEST_ZOOM = 1 / 3, 1.02
_LEAST_VARIANCE = (1 / 255) ** 2  # of a picture in a single color
# Pixels at the borders, whose surroundings differ: so many, or less of small crops.
_MARGIN = 16
_LARGEST_MARGIN_SHARE = 1 / 8


class Changes(NamedTuple):
    """How the copies of k crops of a batch are changed; on the device.

    Shift and zoom are linear in the pixels: each axis is multiplied by a matrix, which unlike
    `F.grid_sample` has a deterministic gradient on a GPU.
    """

    which: Tensor
    """(k,), the indices of the crops in the batch."""

    rows: Tensor
    """(k, S, S): row i of the result is the sum of the rows of a picture with these weights."""

    columns: Tensor
    """(k, S, S), likewise."""

    noise: Tensor
    """(k, 3, S, S), added to the photos."""

    def moved(self, pictures: Tensor) -> Tensor:
        """The k pictures of `which`, shifted and enlarged: (N, 3, S, S) to (k, 3, S, S)."""
        chosen = pictures.index_select(0, self.which)
        return self.rows[:, None] @ chosen @ self.columns[:, None].transpose(2, 3)

    def copies(self, photos: Tensor) -> Tensor:
        """The changed copies of the k photos: (N, 3, S, S) to (k, 3, S, S)."""
        copies = self.moved(photos) + self.noise
        return copies.contiguous(memory_format=memory_format_for(photos.device))

    def instability(self, stylized: Tensor, of_copies: Tensor) -> Tensor:
        """How much the pictures of the copies differ from the moved pictures: ().

        For each, the mean squared difference divided by the variance; the mean of these. If it were
        not divided, paleness would lower the term, and a training that begins with random weights
        could end in a single color.

        Args:
            stylized: the pictures of all crops, (N, 3, S, S).
            of_copies: those of the copies, (k, 3, S, S).
        """
        side = stylized.shape[-1]
        margin = min(_MARGIN, int(side * _LARGEST_MARGIN_SHARE))
        inside = slice(margin, side - margin)
        moved = self.moved(stylized)[..., inside, inside]
        difference = moved - of_copies[..., inside, inside]
        variance = moved.var(dim=(2, 3), correction=0).mean(dim=1)  # (k,)
        return (difference.square().mean(dim=(1, 2, 3)) / (variance + _LEAST_VARIANCE)).mean()

    def weight_in(self, num_photos: int) -> float:
        """What `instability` counts in a batch: 1 on average over the steps, whatever the batch."""
        return EVERY * len(self.which) / num_photos


def copied_in(samples: Sequence[int]) -> list[int]:
    """The indices in a batch of the samples that have a changed copy: the last one of each six."""
    return [index for index, sample in enumerate(samples) if sample % EVERY == EVERY - 1]


def draw_changes(
    seed: int, samples: Sequence[int], side: int, device: torch.device, *, noise: float
) -> Changes | None:
    """The changes of a batch, which depend on the seed and the samples alone; None without any.

    Args:
        seed: of the run.
        samples: the numbers of the batch's samples.
        side: S, pixels of a crop's side.
        device: where to train.
        noise: standard deviation of the copies' noise, for pixels in [0, 1].
    """
    which = copied_in(samples)
    if not which:
        return None
    seeds = [(seed, _CHANGE, samples[index]) for index in which]
    drawn = [_draw(np.random.default_rng(words), side, noise) for words in seeds]
    matrices = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*drawn, strict=True))
    return Changes(torch.tensor(which, device=device), *matrices)


def _draw(
    rng: np.random.Generator, side: int, deviation: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Rows, columns and noise of one copy."""
    zoom = 1.0
    if rng.random() < _ZOOM_SHARE:
        zoom = rng.uniform(1.0, _LARGEST_ZOOM)
    down, right = rng.integers(-_LARGEST_SHIFT, _LARGEST_SHIFT, size=2, endpoint=True)
    noise = rng.standard_normal((3, side, side), dtype=np.float32) * np.float32(deviation)
    return _interpolation(side, int(down), zoom), _interpolation(side, int(right), zoom), noise


def _interpolation(side: int, shift: int, zoom: float) -> NDArray[np.float32]:
    """Weights (S, S) that make pixel i of a line the one at (i - c) / zoom + c + shift.

    c is the middle of the line. Between pixels, it is interpolated linearly; beyond the border, the
    outermost pixel is repeated.
    """
    middle = (side - 1) / 2
    places = (np.arange(side) - middle) / zoom + middle + shift
    places = places.clip(0, side - 1)
    lower = np.minimum(np.floor(places).astype(int), side - 2)
    upper_weight = places - lower
    weights = np.zeros((side, side), np.float32)
    weights[np.arange(side), lower] = 1 - upper_weight
    weights[np.arange(side), lower + 1] = upper_weight
    return weights
