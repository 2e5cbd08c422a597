"""Faster kernels for single steps of the network, with their gradients.

Each computes what a part of `transform_net` computes, up to rounding. None checks the processor or
the compiler: `fast_transform` decides which kernel is used where, and says why.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fast_style.networks.transform_net import (
    EPSILON,
    Border,
    ChannelStatistics,
    InstanceNorm,
    instance_norm,
)

# --- Borders ------------------------------------------------------------------------------------


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
        padded = _empty(shape, features, _format_of(features))
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
        is_last = _format_of(features) == torch.channels_last
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


# --- Instance norm and ReLU ---------------------------------------------------------------------

# One megabyte of float32. Pieces of 2^16 to 2^19 numbers were equally fast, and three times as fast
# as whole pictures of 512 pixels, whose intermediate results go through memory.
NUMBERS_PER_PIECE = 1 << 18
"""How many numbers are processed at once, so that they stay in a CPU's cache."""


def norm_relu_by_formula(
    features: Tensor,
    norm: InstanceNorm,
    *,
    relu: bool = True,
    statistics: ChannelStatistics | None = None,
) -> Tensor:
    """`instance_norm`, then ReLU if asked for: the plain formula, for any dtype and device."""
    normalized = instance_norm(features, norm.weight, norm.bias, statistics=statistics)
    return F.relu_(normalized) if relu else normalized


def norm_relu_by_library(features: Tensor, norm: InstanceNorm, *, relu: bool = True) -> Tensor:
    """`norm_relu_by_formula` by torch's kernels, which compute half precision in float32."""
    if len(features) == 1:
        # Batch norm of one photo is instance norm. It keeps channels_last, and `F.instance_norm`
        # does not.
        normalized = F.batch_norm(
            features, None, None, norm.weight, norm.bias, training=True, eps=EPSILON
        )
    else:
        normalized = F.instance_norm(features, weight=norm.weight, bias=norm.bias, eps=EPSILON)
    return F.relu_(normalized) if relu else normalized


def norm_relu_in_pieces_(
    features: Tensor,
    norm: InstanceNorm,
    *,
    relu: bool = True,
    statistics: ChannelStatistics | None = None,
) -> Tensor:
    """`norm_relu_by_formula` in two passes over pieces that stay in a CPU's cache.

    Features are float32 or float64, and overwritten where no gradient is recorded.
    """
    if torch.is_grad_enabled():
        assert statistics is None
        result: Tensor = _NormReLU.apply(features, norm.weight, norm.bias, relu)
        return result
    mean, variance = statistics or moments(features)
    scale = norm.weight.view(1, -1, 1, 1) * torch.rsqrt(variance + EPSILON)
    shift = norm.bias.view(1, -1, 1, 1) - mean * scale
    return _scale_shift_relu(features, scale, shift, relu=relu, out=features)


def moments(features: Tensor) -> ChannelStatistics:
    """`channel_statistics` three times as fast on a CPU: of (N, C, H, W), float32 or float64."""
    num_pixels = features.shape[2] * features.shape[3]
    # torch.var_mean is slow in channels_last: it reads single numbers. Sums are as exact.
    mean = features.sum(dim=(2, 3), keepdim=True) / num_pixels
    squares = torch.zeros_like(mean)
    for (part,) in _pieces(features):
        squares += (part - mean).square_().sum(dim=(2, 3), keepdim=True)
    return ChannelStatistics(mean, squares / num_pixels)


class _NormReLU(torch.autograd.Function):
    """Norm and ReLU with their gradient, in two passes over the features each."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        mean, variance = moments(features)
        inverse_deviation = torch.rsqrt(variance + EPSILON)
        scale = weight.view(1, -1, 1, 1) * inverse_deviation
        shift = bias.view(1, -1, 1, 1) - mean * scale
        output = torch.empty_like(features)
        _scale_shift_relu(features, scale, shift, relu=relu, out=output)
        outputs = [output] if relu else []
        ctx.save_for_backward(features, scale, mean, inverse_deviation, *outputs)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, scale, mean, inverse_deviation, *outputs = ctx.saved_tensors
        grad = grad.contiguous(memory_format=_format_of(features))
        inputs = [grad, features, *outputs]

        def through_relu(grad: Tensor, output: list[Tensor]) -> Tensor:
            return torch.ops.aten.threshold_backward(grad, *output, 0) if output else grad

        shift_grad, weight_grad = torch.zeros_like(mean), torch.zeros_like(mean)
        for part, values, *output in _pieces(*inputs):
            part = through_relu(part, output)
            shift_grad += part.sum(dim=(2, 3), keepdim=True)
            weight_grad += (values - mean).mul_(part).sum(dim=(2, 3), keepdim=True)
        weight_grad *= inverse_deviation
        # With x^ = (x - mean) / deviation: dx = scale * (dy - mean of dy - x^ * mean of dy x^).
        num_pixels = features.shape[2] * features.shape[3]
        slope = -scale * weight_grad * inverse_deviation / num_pixels
        offset = -scale * shift_grad / num_pixels - slope * mean
        feature_grad = torch.empty_like(features)
        for target, part, values, *output in _pieces(feature_grad, *inputs):
            torch.addcmul(offset, through_relu(part, output), scale, out=target)
            target.addcmul_(values, slope)
        return feature_grad, weight_grad.sum(dim=(0, 2, 3)), shift_grad.sum(dim=(0, 2, 3)), None


def _scale_shift_relu(
    features: Tensor, scale: Tensor, shift: Tensor, *, relu: bool, out: Tensor
) -> Tensor:
    for part, target in _pieces(features, out):
        torch.addcmul(shift, part, scale, out=target)
        if relu:
            target.relu_()
    return out


def _pieces(*features: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of all arguments, from top to bottom, `NUMBERS_PER_PIECE` of each at a time."""
    count, channels, _, width = features[0].shape
    num_rows = max(1, NUMBERS_PER_PIECE // (count * channels * width))
    return zip(*(torch.split(part, num_rows, dim=2) for part in features), strict=True)


# --- Up-sampling in phases ----------------------------------------------------------------------


def phase_kernels(kernel: Tensor) -> Tensor:
    """2x2 kernels on the old pixels, for four kinds of new ones: (C', C, 3, 3) to (4C', C, 2, 2).

    Along each axis, an even new pixel sees the old pixel before its own once and its own twice; an
    odd one sees its own twice and the next one once.
    """

    def two_phases(kernel: Tensor, dim: int) -> list[Tensor]:
        first, middle, last = kernel.unbind(dim)
        return [torch.stack(pair, dim) for pair in ((first, middle + last), (first + middle, last))]

    return torch.cat([phase for half in two_phases(kernel, 2) for phase in two_phases(half, 3)])


def interleave(phases: Tensor) -> Tensor:
    """The enlarged picture with these four phases: (N, 4C', H + 1, W + 1) to (N, C', 2H, 2W).

    With `phase_kernels` this is nearest neighbor x2, reflection and a 3x3 convolution, without the
    large picture. The small picture needs a border that repeats its outermost pixels once.
    """
    pixels: Tensor = _Interleave.apply(phases)
    return pixels


class _Interleave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, phases: Tensor) -> Tensor:
        ctx.shape, ctx.format = phases.shape, _format_of(phases)
        count, channels, height, width = phases.shape
        pixels = _empty(
            (count, channels // 4, 2 * (height - 1), 2 * (width - 1)), phases, ctx.format
        )
        for place, phase in _places(pixels, phases):
            place.copy_(phase)
        return pixels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        phases = _empty(ctx.shape, grad, ctx.format).zero_()
        for place, phase in _places(grad, phases):
            phase.copy_(place)
        return phases


def _places(pixels: Tensor, phases: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For each phase, a view of its pixels in the picture and one of their values in `phases`."""
    height, width = pixels.shape[2] // 2, pixels.shape[3] // 2
    for number, phase in enumerate(phases.chunk(4, dim=1)):
        row, column = divmod(number, 2)
        part = phase[:, :, row : row + height, column : column + width]
        yield pixels[:, :, row::2, column::2], part


# --- Convolutions to or from few channels -------------------------------------------------------


def row_kernels(kernel: Tensor, *, multiple: int = 1) -> Tensor:
    """The rows of a kernel as kernels of their own: (C', C, K, K) to (K C' or more, C, 1, K).

    Zeros are added until their number is divisible by `multiple`.
    """
    rows = kernel.permute(2, 0, 1, 3).flatten(0, 1)[:, :, None]
    return F.pad(rows, (0,) * 7 + (-len(rows) % multiple,))


def sum_rows(rows: Tensor, *, num_channels: int, kernel_size: int) -> Tensor:
    """A K x K convolution to C' channels, from the one with its `row_kernels`.

    (N, K C' or more, H + K - 1, W) to (N, C', H, W): row k of a kernel sees k rows further down.
    """
    total: Tensor = _SumRows.apply(rows, num_channels, kernel_size)
    return total


class _SumRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, num_channels: int, kernel_size: int) -> Tensor:
        ctx.shape, ctx.format = rows.shape, _format_of(rows)
        ctx.num_channels, ctx.kernel_size = num_channels, kernel_size
        # Not in place: compiled by torch 2.11, that had a gradient of zero.
        return reduce(torch.add, _shifted(rows, num_channels, kernel_size))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows = _empty(ctx.shape, grad, ctx.format).zero_()
        for row in _shifted(rows, ctx.num_channels, ctx.kernel_size):
            row.copy_(grad)
        return rows, None, None


def _shifted(rows: Tensor, num_channels: int, kernel_size: int) -> Iterator[Tensor]:
    height = rows.shape[2] - kernel_size + 1
    for shift in range(kernel_size):
        channels = slice(shift * num_channels, (shift + 1) * num_channels)
        yield rows[:, channels, shift : shift + height]


def column_kernels(kernel: Tensor, *, multiple: int = 1) -> Tensor:
    """A kernel of few channels C for `side_by_side`: (C', C, K, K) to (C', K C or more, K, 1)."""
    columns = kernel.permute(0, 3, 1, 2).flatten(1, 2)[..., None]
    return F.pad(columns, (0, 0, 0, 0, 0, -columns.shape[1] % multiple))


def side_by_side(padded: Tensor, kernel_size: int, *, multiple: int = 1) -> Tensor:
    """K copies of a picture, each one pixel further left, as channels, for `column_kernels`.

    Args:
        padded: (N, C, H, W + K - 1).
        kernel_size: K.
        multiple: channels of zeros are added until their number is divisible by this.

    Returns:
        (N, K C or more, H, W).
    """
    width = padded.shape[3] - kernel_size + 1
    pictures = torch.cat(
        [padded[..., shift : shift + width] for shift in range(kernel_size)], dim=1
    )
    return F.pad(pictures, (0, 0, 0, 0, 0, -pictures.shape[1] % multiple))


# --- Convolutions with gradients of their own ---------------------------------------------------


def convolve_by_library(padded: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """`F.conv2d` without padding and without bias."""
    return F.conv2d(padded, kernel, stride=stride)


def convolve_exactly(padded: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """A float32 convolution of half-precision features, with gradients in half precision.

    The result is not rounded. The gradients are, as in all other layers.
    """
    result: Tensor = _ExactConvolution.apply(padded, kernel, stride)
    return result


class _ExactConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor, stride: int) -> Tensor:
        ctx.stride = stride
        ctx.save_for_backward(padded, kernel)
        return F.conv2d(padded.to(kernel.dtype), kernel, stride=stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        padded, kernel = ctx.saved_tensors
        rounded = grad.to(padded.dtype), padded, kernel.to(padded.dtype)
        wanted = ctx.needs_input_grad[0], True
        padded_grad, kernel_grad = _library_gradients(*rounded, ctx.stride, wanted)
        assert kernel_grad is not None
        return padded_grad, kernel_grad.to(kernel.dtype), None


def _library_gradients(
    grad: Tensor, padded: Tensor, kernel: Tensor, stride: int, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a convolution's input and kernel; None for one that is not wanted."""
    found = torch.ops.aten.convolution_backward(
        *(grad, padded, kernel, None),
        *((stride, stride), (0, 0), (1, 1), False, (0, 0), 1, (*wanted, False)),
    )
    return found[0], found[1]


def convolve_with_matrix_gradient(padded: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """`convolve_by_library` whose weight gradient is a matrix product for each place of the kernel.

    On an AVX2 processor, that takes half the time of oneDNN's weight gradient in channels_last.
    """
    result: Tensor = _MatrixGradientConvolution.apply(padded, kernel, stride)
    return result


class _MatrixGradientConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor, stride: int) -> Tensor:
        ctx.stride = stride
        ctx.save_for_backward(padded, kernel)
        return F.conv2d(padded, kernel, stride=stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        padded, kernel = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        padded_grad = None
        if ctx.needs_input_grad[0]:
            padded_grad, _ = _library_gradients(grad, padded, kernel, ctx.stride, (True, False))
        return padded_grad, weight_gradient(padded, grad, kernel.shape, stride=ctx.stride), None


def weight_gradient(padded: Tensor, grad: Tensor, shape: torch.Size, *, stride: int) -> Tensor:
    """The gradient of a convolution's kernel.

    One place of the kernel sees one input pixel for each output pixel. Where the rows of both are
    equally long, these inputs are the input itself from some pixel on: a view. So the output's
    gradient gets zeros at the end of its rows, and each place is a product of two matrices.

    Args:
        padded: the input, (N, C, H, W), channels_last.
        grad: the output's gradient, (N, C', H', W'), channels_last.
        shape: the kernel's, (C', C, k, k).
        stride: of the convolution.
    """
    out_channels, channels, rows, columns = shape
    gradient = grad.new_empty(rows, columns, out_channels, channels)
    for top in range(stride):
        for left in range(stride):
            # One place of the kernel sees every `stride`-th pixel.
            part = padded[:, :, top::stride, left::stride]
            missing = part.shape[2] - grad.shape[2], part.shape[3] - grad.shape[3]
            grads = _as_matrix(F.pad(grad, (0, missing[1], 0, missing[0])))  # (P, C')
            pixels = _as_matrix(part)  # (P, C)
            for row in range(top, rows, stride):
                for column in range(left, columns, stride):
                    begin = row // stride * part.shape[3] + column // stride
                    torch.mm(
                        grads[: len(grads) - begin].T, pixels[begin:], out=gradient[row, column]
                    )
    return gradient.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def _as_matrix(features: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last to (N H W, C)."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


# --- Memory formats -----------------------------------------------------------------------------


def _format_of(features: Tensor) -> torch.memory_format:
    is_last = features.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format


def _empty(shape: Sequence[int], like: Tensor, memory_format: torch.memory_format) -> Tensor:
    return torch.empty(
        tuple(shape), dtype=like.dtype, device=like.device, memory_format=memory_format
    )
