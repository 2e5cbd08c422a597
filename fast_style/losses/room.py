"""Whether main memory has room for the features of large pictures, asked before it is taken.

Linux gives out more memory than it has, and ends the process, or another one, when it is used. GPUs
give out what they have, and torch tells the lack.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fast_style.core.files import size_in_words
from fast_style.core.free_memory import available_bytes

# Bytes: less is not asked for, as each step of a training would.
_ALWAYS_THERE = 1 << 30


class Room:
    """Asks for the memory that a loss network needs, once for each size that is larger than before.

    What was needed once was there, and may be kept for the next time.
    """

    def __init__(self) -> None:
        self._most_bytes = _ALWAYS_THERE

    def require(self, pixels: Tensor, layers: Sequence[tuple[int, int]]) -> None:
        """Check that there is room for the features of a batch.

        Args:
            pixels: (N, 3, H, W).
            layers: the convolutions to compute: the number of the block, from 1, and the channels.

        Raises:
            MemoryError: there is less than they need at least.
        """
        if pixels.device.type != "cpu":
            return
        needed = least_bytes(pixels, layers)
        if needed <= self._most_bytes:
            return
        available = available_bytes(pixels.device)
        if available is not None and available < needed:
            raise MemoryError(
                f"{size_in_words(needed)} are needed, and {size_in_words(available)} are available"
            )
        self._most_bytes = needed


def least_bytes(pixels: Tensor, layers: Sequence[tuple[int, int]]) -> int:
    """The main memory that features take at least: half to all of what was measured.

    For gradients, the values of each convolution are kept, and their gradients are as large.
    Otherwise the largest values are there three times: before, within and behind a convolution.

    Args:
        pixels: (N, 3, H, W); it says whether gradients are wanted.
        layers: as in `Room.require`.
    """
    num_batch, _, height, width = pixels.shape
    sizes = [
        4 * num_batch * channels * (height >> block - 1) * (width >> block - 1)
        for block, channels in layers
    ]
    has_gradient = torch.is_grad_enabled() and pixels.requires_grad
    return 2 * sum(sizes) if has_gradient else 3 * max(sizes, default=0)
