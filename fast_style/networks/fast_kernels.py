"""Faster kernels for single steps of the network, with their gradients.

Each computes what a part of `transform_net` computes, up to rounding. None checks the processor or
the compiler: `fast_transform` decides which kernel is used where, and says why.
"""

from collections.abc import Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fast_style.networks.borders import empty, format_of
from fast_style.networks.transform_net import (
    EPSILON,
    ChannelStatistics,
    InstanceNorm,
    instance_norm,
)

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
        grad = grad.contiguous(memory_format=format_of(features))
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


def smooth_phase_kernels(kernel: Tensor) -> Tensor:
    """`phase_kernels` of an antialiased convolution: (C', C, 3, 3) to (4C', C, 3, 3).

    They include the mean of each new pixel and the next one: along each axis, of an even pixel and
    the odd one behind it, and of an odd pixel and the even one behind it.
    """

    def two_phases(kernel: Tensor, dim: int) -> list[Tensor]:
        first, middle, last = kernel.unbind(dim)
        even = first / 2, (first + last) / 2 + middle, last / 2
        odd = torch.zeros_like(first), first + middle / 2, middle / 2 + last
        return [torch.stack(taps, dim) for taps in (even, odd)]

    return torch.cat([phase for half in two_phases(kernel, 2) for phase in two_phases(half, 3)])


def interleave(phases: Tensor, *, overlap: int = 1) -> Tensor:
    """The enlarged picture with these four phases: (N, 4C', H + overlap, W + overlap) to 2H, 2W.

    With `phase_kernels` this is nearest neighbor x2, reflection and a 3x3 convolution, without the
    large picture. The small picture needs a border that repeats its outermost pixels once. The 2x2
    kernels then have one position more than the small picture has pixels: even new pixels begin at
    the first row and column of the phases, odd ones at the second. With `smooth_phase_kernels`, all
    begin at the first, and the overlap is 0.
    """
    pixels: Tensor = _Interleave.apply(phases, overlap)
    return pixels


class _Interleave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, phases: Tensor, overlap: int) -> Tensor:
        ctx.shape, ctx.format, ctx.overlap = phases.shape, format_of(phases), overlap
        count, channels, height, width = phases.shape
        size = 2 * (height - overlap), 2 * (width - overlap)
        pixels = empty((count, channels // 4, *size), phases, ctx.format)
        for place, phase in _places(pixels, phases, overlap):
            place.copy_(phase)
        return pixels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        phases = empty(ctx.shape, grad, ctx.format).zero_()
        for place, phase in _places(grad, phases, ctx.overlap):
            phase.copy_(place)
        return phases, None


def _places(pixels: Tensor, phases: Tensor, overlap: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each phase, a view of its pixels in the picture and one of their values in `phases`."""
    height, width = pixels.shape[2] // 2, pixels.shape[3] // 2
    for number, phase in enumerate(phases.chunk(4, dim=1)):
        row, column = (place * overlap for place in divmod(number, 2))
        part = phase[:, :, row : row + height, column : column + width]
        yield pixels[:, :, number // 2 :: 2, number % 2 :: 2], part


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
        ctx.shape, ctx.format = rows.shape, format_of(rows)
        ctx.num_channels, ctx.kernel_size = num_channels, kernel_size
        # Not in place: compiled by torch 2.11, that had a gradient of zero.
        return reduce(torch.add, _shifted(rows, num_channels, kernel_size))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows = empty(ctx.shape, grad, ctx.format).zero_()
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
