"""3x3 convolutions on a CPU with a quarter of the multiplications (Winograd 1980).

A 3x3 kernel makes a tile of 4x4 pixels from one of 6x6. Read as polynomials, kernel and tile are
evaluated at six points along each axis, multiplied point by point, and interpolated: F(4x4, 3x3)
of Lavin and Gray 2016, section 4. That takes 36 multiplications for a tile instead of 9 * 16 = 144.
For many channels they are 36 matrix products, beside which the transforms take little time.

With the textbook's points 0, 1, -1, 2, -2, results lose a decimal digit. With 0, 3/4, -3/4, 3/2,
-3/2, rounding errors are hardly larger than those of torch's own convolution in float32.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_KERNEL = 3
_STEP = 4  # pixels of the result per tile along each axis
_TILE = _STEP + _KERNEL - 1  # pixels of the source per tile along each axis
_POINTS = tuple(Fraction(quarters, 4) for quarters in (0, 3, -3, 6, -6))  # and infinity

# On two AVX2 cores, 96 channels took between 0.8 and 1.2 times as long as torch's convolution, and
# 128 always less. Kernels are transformed once per batch, which takes less time than is saved from
# 128 tiles of 128 channels on, or 32 tiles of 512 (benchmarks/convolutions.py).
_FEWEST_CHANNELS = 128
_FEWEST_TILES_TIMES_CHANNELS = 128 * 128
# About how many tiles are computed at once. Fewer make matrices too thin; more, of 18 kB each with
# 128 channels, do not stay in the processor's cache.
_TILES_AT_ONCE = 192


def is_faster(pixels: Tensor, kernel: Tensor, *, padding: int = 0) -> bool:
    """Whether `convolve` can replace torch's convolution with stride 1 and takes less time."""
    if torch.compiler.is_compiling():  # asked first: the compiler would guard on the sizes
        return False
    height, width = (side + 2 * padding - _KERNEL + 1 for side in pixels.shape[2:])
    fewest_channels = min(kernel.shape[:2])
    return (
        pixels.device.type == "cpu"
        and pixels.dtype == kernel.dtype
        and pixels.dtype in (torch.float32, torch.float64)
        and kernel.shape[2:] == (_KERNEL, _KERNEL)
        and fewest_channels >= _FEWEST_CHANNELS
        and len(pixels) * height * width * fewest_channels
        >= _FEWEST_TILES_TIMES_CHANNELS * _STEP**2
        and pixels.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
    )


def convolve(
    pixels: Tensor, kernel: Tensor, bias: Tensor | None = None, *, padding: int = 0
) -> Tensor:
    """A 3x3 convolution with stride 1, differentiable in its pixels, its kernel and its bias.

    Args:
        pixels: (N, C, H, W).
        kernel: (C', C, 3, 3).
        bias: (C',).
        padding: width of the border of zeros around the pixels.

    Returns:
        (N, C', H + 2 * padding - 2, W + 2 * padding - 2), channels_last.
    """
    result: Tensor = _Convolution.apply(pixels, kernel, bias, padding)
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pixels: Tensor, kernel: Tensor, bias: Tensor | None, padding: int
    ) -> Tensor:
        ctx.padding = padding
        ctx.save_for_backward(pixels, kernel)
        matrices = _transforms(_POINTS, pixels.dtype)
        kernels = _transformed_kernels(matrices.kernels, kernel)
        sides = (side + 2 * padding - _KERNEL + 1 for side in pixels.shape[2:])
        result = torch.empty(
            (len(pixels), len(kernel), *sides),
            dtype=pixels.dtype,
            memory_format=torch.channels_last,
        )
        first, level = _first_pixels(pixels, kernel, bias, padding)
        pieces = _pieces(pixels, result, padding)
        memory = _Memory(pieces[0].max_numbers(kernel), pixels)
        for piece in pieces:
            source = piece.source_of(pixels, minus=first)
            tiles = _transformed_tiles(matrices.tiles, source, memory)
            products = memory.product(tiles, kernels.mT)
            piece.put(_on_both_axes(matrices.results.T, products, memory), result, plus=level)
        return result

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        pixels, kernel = ctx.saved_tensors
        pixels_wanted, kernel_wanted, bias_wanted, _ = ctx.needs_input_grad
        matrices = _transforms(_POINTS, pixels.dtype)
        kernels = _transformed_kernels(matrices.kernels, kernel)
        grad = grad.contiguous(memory_format=torch.channels_last)
        pixels_grad = torch.zeros_like(pixels) if pixels_wanted else None
        kernels_grad = torch.zeros_like(kernels) if kernel_wanted else None
        pieces = _pieces(pixels, grad, ctx.padding)
        memory, more_memory = (_Memory(pieces[0].max_numbers(kernel), pixels) for _ in range(2))
        for piece in pieces:
            result_grad = memory.copy(piece.result_of(grad)).view(_STEP**2, -1, len(kernel))
            products_grad = _on_both_axes(matrices.results, result_grad, memory)
            if kernels_grad is not None:
                tiles = _transformed_tiles(matrices.tiles, piece.source_of(pixels), more_memory)
                kernels_grad.baddbmm_(products_grad.mT, tiles)
            if pixels_grad is not None:
                tiles_grad = memory.product(products_grad, kernels)
                source_grad = _grad_of_tiles(matrices.tiles, tiles_grad, piece.tiles, memory)
                piece.add_source(source_grad, pixels_grad)
        kernel_grad = None
        if kernels_grad is not None:
            kernel_grad = _grad_of_kernels(matrices.kernels, kernels_grad)
        bias_grad = grad.sum(dim=(0, 2, 3)) if bias_wanted else None
        return pixels_grad, kernel_grad, bias_grad, None


def _first_pixels(
    pixels: Tensor, kernel: Tensor, bias: Tensor | None, padding: int
) -> tuple[Tensor | None, Tensor]:
    """The first pixel, (N, C, 1, 1), to subtract from all, and its share of the result, (N, C').

    Rounding differs between the pixels of a tile. In a photo of one color, instance norms would
    magnify that to a pattern. With the first pixel subtracted, all are zero and nothing is rounded.
    With a border of zeros, no features are of one color, so nothing is subtracted.
    """
    level = kernel.new_zeros(len(kernel)) if bias is None else bias
    if padding:
        return None, level.expand(len(pixels), -1)
    first = pixels[:, :, :1, :1]
    return first, level + first.flatten(1) @ kernel.sum(dim=(2, 3)).T


# --- Transforms ---------------------------------------------------------------------------------


class _Transforms(NamedTuple):
    """Matrices of one axis; their rows are the six points. Columns go before rows in all tiles."""

    tiles: Tensor  # (6, 6): from pixels of the source to points
    kernels: Tensor  # (6, 3): from a kernel to points
    results: Tensor  # (6, 4): its transpose leads from points to pixels of the result


@cache
def _transforms(points: tuple[Fraction, ...], dtype: torch.dtype) -> _Transforms:
    matrices = (
        [[float(number) for number in row] for row in matrix] for matrix in _matrices(points)
    )
    return _Transforms(*(torch.tensor(matrix, dtype=dtype) for matrix in matrices))


def _matrices(points: Sequence[Fraction]) -> tuple[list[list[Fraction]], ...]:
    """B', G and A of Lavin and Gray's section 4.1, for any five points (Toom and Cook)."""
    tiles, kernels, results = [], [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = prod(point - other for other in others)
        tiles.append([*_polynomial(others), Fraction(0)])
        kernels.append([point**power / scale for power in range(_KERNEL)])
        results.append([point**power for power in range(_STEP)])
    # The value at infinity is the highest coefficient.
    tiles.append(_polynomial(points))
    kernels.append([Fraction(power == _KERNEL - 1) for power in range(_KERNEL)])
    results.append([Fraction(power == _STEP - 1) for power in range(_STEP)])
    return tiles, kernels, results


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the product of all (x - root), the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        higher, lower = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [high - root * low for high, low in zip(higher, lower, strict=True)]
    return coefficients


class _Memory:
    """Two blocks, used in turn: each result overwrites the input of the step before.

    Fresh blocks push each other out of the processor's cache, and took a fifth longer.
    """

    def __init__(self, max_numbers: int, like: Tensor) -> None:
        self._blocks = [like.new_empty(max_numbers) for _ in range(2)]

    def _take(self, shape: Sequence[int]) -> Tensor:
        self._blocks.reverse()
        return self._blocks[0][: prod(shape)].view(*shape)

    def copy(self, features: Tensor) -> Tensor:
        return self._take(features.shape).copy_(features)

    def zeros(self, *shape: int) -> Tensor:
        return self._take(shape).zero_()

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """The product of two matrices, or of two equally large batches of matrices."""
        shape = *left.shape[:-1], right.shape[-1]
        return torch.matmul(left, right, out=self._take(shape))


def _on_one_axis(matrix: Tensor, tiles: Tensor, memory: _Memory) -> Tensor:
    """(Q, P) times (P, ...) to (Q, ...)."""
    product = memory.product(matrix, tiles.view(len(tiles), -1))
    return product.view(len(matrix), *tiles.shape[1:])


def _on_both_axes(matrix: Tensor, tiles: Tensor, memory: _Memory) -> Tensor:
    """(q, p) times (p * p, T, C) to (q * q, T, C)."""
    new, old = matrix.shape
    half = _on_one_axis(matrix, tiles.view(old, old, -1), memory)
    return memory.product(matrix.expand(new, new, old), half).view(new * new, *tiles.shape[1:])


def _transformed_kernels(matrix: Tensor, kernel: Tensor) -> Tensor:
    """(C', C, 3, 3) to (36, C', C)."""
    flat = kernel.permute(3, 2, 0, 1).reshape(_KERNEL**2, *kernel.shape[:2])
    return _on_both_axes(matrix, flat, _Memory(_TILE**2 * flat[0].numel(), kernel))


def _grad_of_kernels(matrix: Tensor, grad: Tensor) -> Tensor:
    """The gradient of `_transformed_kernels`: (36, C', C) to (C', C, 3, 3)."""
    flat = _on_both_axes(matrix.T, grad, _Memory(grad.numel(), grad))
    return flat.view(_KERNEL, _KERNEL, *grad.shape[1:]).permute(2, 3, 1, 0)


def _transformed_tiles(matrix: Tensor, pixels: Tensor, memory: _Memory) -> Tensor:
    """(N, C, 4h + 2, 4w + 2), in which tiles overlap, to (36, N h w, C)."""
    rows = memory.copy(pixels.unfold(2, _TILE, _STEP).permute(4, 0, 2, 3, 1))
    rows = _on_one_axis(matrix, rows, memory)  # (6, N, h, 4w + 2, C)
    columns = memory.copy(rows.unfold(3, _TILE, _STEP).movedim(5, 0))
    columns = _on_one_axis(matrix, columns, memory)  # (6, 6, N, h, w, C)
    return columns.view(_TILE**2, -1, pixels.shape[1])


def _grad_of_tiles(matrix: Tensor, grad: Tensor, shape: Sequence[int], memory: _Memory) -> Tensor:
    """The gradient of `_transformed_tiles`: (36, N h w, C) to (N, C, 4h + 4, 4w + 4).

    The last two rows and columns belong to no tile. `shape` is N, h, w.
    """
    count, rows, columns = shape
    grad = grad.view(_TILE, _TILE * count * rows, columns, -1)
    grad = _overlapped(_on_one_axis(matrix.T, grad, memory), memory)
    grad = grad.view(_TILE, count, rows, -1)
    grad = _overlapped(_on_one_axis(matrix.T, grad, memory), memory)
    return grad.view(count, (rows + 1) * _STEP, (columns + 1) * _STEP, -1).permute(0, 3, 1, 2)


def _overlapped(tiles: Tensor, memory: _Memory) -> Tensor:
    """Tiles along an axis, added up where they overlap: (6, A, t, B) to (A, 4t + 4, B)."""
    _, outer, count, inner = tiles.shape
    total = memory.zeros(outer, count + 1, _STEP, inner)
    total[:, :-1] = tiles[:_STEP].permute(1, 2, 0, 3)
    total[:, 1:, : _TILE - _STEP] += tiles[_STEP:].permute(1, 2, 0, 3)
    return total.flatten(1, 2)


# --- Tiles --------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """Some rows of the result and the pixels behind them, filled up with zeros to whole tiles.

    Attributes:
        result_rows: the rows of the result.
        excess: zeros to the right of them and below.
        source_rows: the rows of the pixels.
        border: zeros to the left of them, to the right, above and below.
        tiles: N, and the number of rows and columns of tiles.
    """

    result_rows: slice
    excess: tuple[int, int]
    source_rows: slice
    border: tuple[int, int, int, int]
    tiles: tuple[int, int, int]

    def max_numbers(self, kernel: Tensor) -> int:
        """Size of the largest intermediate result, in numbers."""
        count, rows, columns = self.tiles
        return _TILE**2 * count * (rows + 1) * (columns + 1) * max(kernel.shape[:2])

    def source_of(self, pixels: Tensor, *, minus: Tensor | None = None) -> Tensor:
        """(N, C, H, W), less (N, C, 1, 1), to (N, C, 4h + 2, 4w + 2)."""
        part = pixels[:, :, self.source_rows]
        part = part if minus is None else part - minus
        return F.pad(part, self.border) if any(self.border) else part

    def result_of(self, result: Tensor) -> Tensor:
        """(N, C', H', W') to tiles, (4, 4, N, h, w, C')."""
        return _tiled(self._whole_of(result))

    def put(self, computed: Tensor, result: Tensor, *, plus: Tensor) -> None:
        """Write tiles, (16, N h w, C'), plus (N, C'), to (N, C', H', W')."""
        whole = self._whole_of(result)
        tiles = _tiled(whole)
        torch.add(computed.view(tiles.shape), plus[:, None, None], out=tiles)
        if any(self.excess):
            part = result[:, :, self.result_rows]
            part.copy_(whole[:, :, : part.shape[2], : part.shape[3]])

    def _whole_of(self, result: Tensor) -> Tensor:
        """The rows of the result in whole tiles: a view, or a copy where tiles reach beyond it."""
        part = result[:, :, self.result_rows]
        right, bottom = self.excess
        return F.pad(part, (0, right, 0, bottom)) if any(self.excess) else part

    def add_source(self, grad: Tensor, pixels: Tensor) -> None:
        """Add the gradient of `source_of`, or a larger one, to (N, C, H, W)."""
        part = pixels[:, :, self.source_rows]
        left, _, top, _ = self.border
        part += grad[:, :, top : top + part.shape[2], left : left + part.shape[3]]


def _pieces(pixels: Tensor, result: Tensor, padding: int) -> list[_Piece]:
    """The result in pieces from top to bottom. None is larger than the first."""
    height, (out_height, out_width) = pixels.shape[2], result.shape[2:]
    columns = -(-out_width // _STEP)
    step = _STEP * max(1, _TILES_AT_ONCE // (len(pixels) * columns))
    right = columns * _STEP - out_width
    pieces = []
    for first in range(0, out_height, step):
        stop = min(first + step, out_height)
        below = -(stop - first) % _STEP
        begin, end = first - padding, stop + below - padding + _KERNEL - 1
        piece = _Piece(
            result_rows=slice(first, stop),
            excess=(right, below),
            source_rows=slice(max(0, begin), min(end, height)),
            border=(padding, padding + right, max(0, -begin), max(0, end - height)),
            tiles=(len(pixels), (stop + below - first) // _STEP, columns),
        )
        pieces.append(piece)
    return pieces


def _tiled(pixels: Tensor) -> Tensor:
    """A view: (N, C, 4h, 4w) to (4, 4, N, h, w, C), columns first."""
    count, channels, height, width = pixels.shape
    tiles = pixels.view(count, channels, height // _STEP, _STEP, width // _STEP, _STEP)
    return tiles.permute(5, 3, 0, 2, 4, 1)
