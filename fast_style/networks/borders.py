"""Borders of features, for convolutions without padding of their own; with their gradients.

Each function gives what `F.pad` gives. `fast_transform` decides which is used where, and says why.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fast_style.networks.transform_net import Border


def pad_by_library(features: Tensor, padding: int, border: Border) -> Tensor:
    """`F.pad` on all four sides: (N, C, H, W) to (N, C, H + 2p, W + 2p)."""
    return F.pad(features, (padding,) * 4, mode=border)


def pad_by_copying(features: Tensor, padding: int, border: Border) -> Tensor:
    """`pad_by_library` that keeps channels_last on a GPU too, with a copy for each side."""
    padded: Tensor = _PadByCopying.apply(features, padding, border)
    return padded


def pad_by_index(features: Tensor, padding: int, border: Border) -> Tensor:
    """`pad_by_library` as a gather, which a compiler fuses with its neighbors."""
    padded: Tensor = _PadByIndex.apply(features, padding, border)
    return padded


class _PadByCopying(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, padding: int, border: Border) -> Tensor:
        # Sides are copied in reverse order, which other borders allow for a single row only.
        assert padding == 1 or border == "reflect"
        ctx.padding, ctx.border = padding, border
        count, channels, height, width = features.shape
        shape = count, channels, height + 2 * padding, width + 2 * padding
        padded = empty(shape, features, format_of(features))
        _inner(padded, padding).copy_(features)
        for side, source, reversed_dims in _sides(padded, padding, border):
            side.copy_(source.flip(reversed_dims) if reversed_dims else source)
        return padded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        grad = grad.clone()
        for side, source, reversed_dims in reversed(list(_sides(grad, ctx.padding, ctx.border))):
            source += side.flip(reversed_dims) if reversed_dims else side
        return _inner(grad, ctx.padding), None, None


def _inner(padded: Tensor, padding: int) -> Tensor:
    return padded[:, :, padding:-padding, padding:-padding]


def _sides(
    padded: Tensor, padding: int, border: Border
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Views of each side of the border, of the pixels it repeats, and the axes to reverse.

    Top and bottom come first, so that left and right then fill the corners.
    """
    num_skipped = 1 if border == "reflect" else 0  # outermost rows that are not repeated
    for dim in (2, 3):
        end = padded.shape[dim] - padding
        first, last = padding + num_skipped, end - num_skipped - padding  # where the sources begin
        if padding == 1 and first < last:
            # Both sides in one kernel: one this small takes less time than its launch.
            sources = _strided(padded, dim, range(first, last + 1, last - first))
            yield _strided(padded, dim, range(0, end + 1, end)), sources, []
        else:
            yield padded.narrow(dim, 0, padding), padded.narrow(dim, first, padding), [dim]
            yield padded.narrow(dim, end, padding), padded.narrow(dim, last, padding), [dim]


def _strided(features: Tensor, dim: int, places: range) -> Tensor:
    """A view of the rows (dim 2) or columns (dim 3) at these places."""
    wanted = slice(places.start, places.stop, places.step)
    return features[:, :, wanted] if dim == 2 else features[..., wanted]


class _PadByIndex(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, padding: int, border: Border) -> Tensor:
        ctx.padding, ctx.border = padding, border
        is_last = format_of(features) == torch.channels_last
        pixels = features.permute(0, 2, 3, 1) if is_last else features
        for dim in (1, 2) if is_last else (2, 3):
            last = pixels.shape[dim] - 1
            places = torch.arange(-padding, last + 1 + padding, device=features.device)
            if border == "reflect":
                places = last - (last - places.abs()).abs()
            pixels = pixels.index_select(dim, places.clamp(0, last))
        return pixels.permute(0, 3, 1, 2) if is_last else pixels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        for dim in (3, 2):
            grad = _folded_back(grad, ctx.padding, ctx.border, dim)
        return grad, None, None


def _folded_back(grad: Tensor, padding: int, border: Border, dim: int) -> Tensor:
    """The gradient without the border along one axis: each side is added to its sources."""
    num_skipped, size = 1 if border == "reflect" else 0, grad.shape[dim] - 2 * padding
    inner = grad.narrow(dim, padding, size)
    for begin, place in ((0, num_skipped), (padding + size, size - num_skipped - padding)):
        side = grad.narrow(dim, begin, padding).flip(dim)
        around = (place, size - place - padding)
        inner = inner + F.pad(side, around if dim == 3 else (0, 0, *around))
    return inner


# --- Memory formats -----------------------------------------------------------------------------


def format_of(features: Tensor) -> torch.memory_format:
    """The order of the numbers of (N, C, H, W) in memory."""
    is_last = features.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format


def empty(shape: Sequence[int], like: Tensor, memory_format: torch.memory_format) -> Tensor:
    """A tensor of this shape and order, with the type and the device of another one."""
    return torch.empty(
        tuple(shape), dtype=like.dtype, device=like.device, memory_format=memory_format
    )
