"""The transform network once more, executed faster: the same weights, the same pictures.

`transform_net` is the text to learn from. This one computes the same, within 1e-4 of the pixel
range, in other steps:

- instance norm and ReLU are one function, computed in pieces that stay in the processor's cache,
  with a backward pass of its own;
- up-sampling goes in phases. Of the picture that nearest neighbour makes, a 3x3 kernel sees the
  same old pixel several times, so that four 2x2 kernels on the small picture give the four kinds of
  new pixels, with 4/9 of the work;
- the last 9x9 convolution, whose three output channels suit no library, goes row by row: a 1x9
  convolution to 27 channels, then nine shifted additions;
- on a GPU the first one, with its three input channels, goes column by column likewise (on a CPU,
  that took longer), and borders are made in channels_last;
- on a CPU, 3x3 convolutions with many channels take a quarter of the multiplications (`winograd`);
- weight gradients of others are matrix products where oneDNN's own are slow: in channels_last
  without AVX-512.

The paper's transposed up-sampling stays as it is.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fast_style.networks import winograd
from fast_style.networks.transform_net import (
    EPSILON,
    ChannelStatistics,
    Convolution,
    InstanceNorm,
    NormalizedStage,
    ResidualBlock,
    ResizeConvolution,
    TransformNet,
    instance_norm,
    pad_to_smallest_side,
    to_picture_range,
)

# Numbers of a piece that is worked on at once: one megabyte. Of 2^16 to 2^19, all were as fast, and
# three times as fast as whole pictures of 512 pixels, whose intermediate results go through memory.
_PIECE = 1 << 18


class FastTransform(nn.Module):
    """`TransformNet` in the fast execution: the same argument, result and gradients.

    Args:
        net: the network, which goes on owning its parameters under their own names.
    """

    def __init__(self, net: TransformNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, photos: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to the same shape, float32 in 0.5 +- tanh_scale / 255."""
        height, width = photos.shape[-2:]
        return self.uncropped(pad_to_smallest_side(photos))[..., :height, :width]

    def uncropped(self, features: Tensor) -> Tensor:
        """The same for sides of `SMALLEST_SIDE` and more, which it rounds up to multiples of 4."""
        for stage in self.net.down:
            features = normalized_stage(features, stage)
        for block in self.net.residual:
            features = residual_block(features, block)
        for stage in self.net.up:
            features = normalized_stage(features, stage)
        with torch.autocast(features.device.type, enabled=False):
            padded = with_border(features, self.net.to_rgb.padding, mode="reflect")
            rgb = convolve_row_by_row(padded, self.net.to_rgb.conv)
            return to_picture_range(rgb, self.net.tanh_scale)


# --- Stages -------------------------------------------------------------------------------------


def normalized_stage(features: Tensor, stage: nn.Module) -> Tensor:
    """What a `NormalizedStage` does."""
    assert isinstance(stage, NormalizedStage)
    return norm_relu_(convolve(features, stage.convolution), stage.norm)


def residual_block(features: Tensor, block: nn.Module) -> Tensor:
    """What a `ResidualBlock` does."""
    assert isinstance(block, ResidualBlock)
    residual = convolve(normalized_stage(features, block.first), block.second)
    # Added in place: what the norm gives belongs to nobody else.
    return norm_relu_(residual, block.norm, relu=False).add_(features)


def convolve(features: Tensor, convolution: nn.Module) -> Tensor:
    """What any of the three kinds of convolutions does, its border included."""
    if isinstance(convolution, ResizeConvolution):
        padded = with_border(features, 1, mode="replicate")
        return convolve_in_phases(padded, convolution.conv.conv.weight)
    if isinstance(convolution, Convolution):
        padded = with_border(features, convolution.padding, mode="reflect")
        if features.shape[1] == 3 and _is_on_gpu(features):
            return convolve_column_by_column(padded, convolution.conv.weight)
        kernel, stride = convolution.conv.weight, convolution.conv.stride[0]
        return convolve_padded(padded, kernel, stride=stride)
    result: Tensor = convolution(features)
    return result


# --- Borders ------------------------------------------------------------------------------------


def with_border(features: Tensor, padding: int, *, mode: Literal["reflect", "replicate"]) -> Tensor:
    """`F.pad`, which on a GPU gives up channels_last, so that every convolution would copy."""
    if not _is_on_gpu(features) and not torch.compiler.is_compiling():
        return F.pad(features, (padding,) * 4, mode=mode)
    padded: Tensor = _Border.apply(features, padding, mode)
    return padded


class _Border(torch.autograd.Function):
    """(N, C, H, W) with `padding` more pixels on each side: (N, C, H + 2p, W + 2p)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, padding: int, mode: str) -> Tensor:
        # Pixels are shown in reverse order, which is the same for one.
        assert padding == 1 or mode == "reflect"
        ctx.padding, ctx.mode = padding, mode
        if torch.compiler.is_compiling():
            return _gathered(features, padding, mode)
        count, channels, height, width = features.shape
        shape = count, channels, height + 2 * padding, width + 2 * padding
        padded = _empty(shape, features, _format_of(features))
        _inner(padded, padding).copy_(features)
        for border, seen, mirrored in _borders(padded, padding, mode):
            border.copy_(seen.flip(mirrored) if mirrored else seen)
        return padded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, None, None]:
        if torch.compiler.is_compiling():
            for dim in (3, 2):
                pull = _folded_back(pull, ctx.padding, ctx.mode, dim)
            return pull, None, None
        pull = pull.clone()
        for border, seen, mirrored in reversed(list(_borders(pull, ctx.padding, ctx.mode))):
            seen += border.flip(mirrored) if mirrored else border
        return _inner(pull, ctx.padding), None, None


def _inner(padded: Tensor, padding: int) -> Tensor:
    return padded[:, :, padding:-padding, padding:-padding]


def _borders(padded: Tensor, padding: int, mode: str) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Parts of the border, what each one shows, and along which axis in reverse order.

    The upper and the lower one first; the left and the right one then show their corners, too.
    """
    skipped = _num_skipped(mode)
    for dim in (2, 3):
        end = padded.shape[dim] - padding
        first, last = padding + skipped, end - skipped - padding  # where what is shown begins
        if padding == 1 and first < last:
            # Both at once: so small a kernel takes less time than starting it.
            shown = _every(padded, dim, range(first, last + 1, last - first))
            yield _every(padded, dim, range(0, end + 1, end)), shown, []
        else:
            yield padded.narrow(dim, 0, padding), padded.narrow(dim, first, padding), [dim]
            yield padded.narrow(dim, end, padding), padded.narrow(dim, last, padding), [dim]


def _num_skipped(mode: str) -> int:
    """How many of the outermost pixels are not shown once more."""
    return 1 if mode == "reflect" else 0


def _every(features: Tensor, dim: int, places: range) -> Tensor:
    """The rows (dim 2) or columns (dim 3) at these places: a view."""
    wanted = slice(places.start, places.stop, places.step)
    return features[:, :, wanted] if dim == 2 else features[..., wanted]


# A compiler makes one kernel with what comes before and after of each of the following, and many of
# what is done in place.


def _gathered(features: Tensor, padding: int, mode: str) -> Tensor:
    is_last = _format_of(features) == torch.channels_last
    pixels = features.permute(0, 2, 3, 1) if is_last else features
    for dim in (1, 2) if is_last else (2, 3):
        last = pixels.shape[dim] - 1
        places = torch.arange(-padding, last + 1 + padding, device=features.device)
        if mode == "reflect":
            places = last - (last - places.abs()).abs()
        pixels = pixels.index_select(dim, places.clamp(0, last))
    return pixels.permute(0, 3, 1, 2) if is_last else pixels


def _folded_back(pull: Tensor, padding: int, mode: str, dim: int) -> Tensor:
    """The gradient at the pixels without the border along one axis."""
    skipped, size = _num_skipped(mode), pull.shape[dim] - 2 * padding
    inner = pull.narrow(dim, padding, size)
    for begin, place in ((0, skipped), (padding + size, size - skipped - padding)):
        border = pull.narrow(dim, begin, padding).flip(dim)
        around = (place, size - place - padding)
        inner = inner + F.pad(border, around if dim == 3 else (0, 0, *around))
    return inner


# --- Instance norm and ReLU ---------------------------------------------------------------------


def norm_relu_(
    features: Tensor,
    norm: nn.Module,
    *,
    relu: bool = True,
    statistics: ChannelStatistics | None = None,
) -> Tensor:
    """Instance norm with its scale and shift, then ReLU if asked for: (N, C, H, W) to the same.

    Without gradient the result takes the place of `features`.

    Args:
        features: what nobody else needs.
        norm: an `InstanceNorm`.
        relu: whether to apply ReLU.
        statistics: those of a larger picture that `features` is a part of; only without gradient.
    """
    assert isinstance(norm, InstanceNorm)
    if statistics is None and _is_on_gpu(features) and not torch.compiler.is_compiling():
        normalized = _library_norm(features, norm.weight, norm.bias)
        return F.relu_(normalized) if relu else normalized
    if not _is_computed_in_pieces(features):
        normalized = instance_norm(features, norm.weight, norm.bias, statistics=statistics)
        return F.relu_(normalized) if relu else normalized
    if torch.is_grad_enabled():
        assert statistics is None
        result: Tensor = _NormReLU.apply(features, norm.weight, norm.bias, relu)
        return result
    mean, variance = statistics or moments(features)
    scale = norm.weight.view(1, -1, 1, 1) * torch.rsqrt(variance + EPSILON)
    shift = norm.bias.view(1, -1, 1, 1) - mean * scale
    return _scale_shift_relu(features, scale, shift, relu=relu, out=features)


def _library_norm(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # The same for one photo, where only the first keeps channels_last. Both take half precision in
    # and compute in float32.
    if len(features) == 1:
        return F.batch_norm(features, None, None, weight, bias, training=True, eps=EPSILON)
    return F.instance_norm(features, weight=weight, bias=bias, eps=EPSILON)


def _is_computed_in_pieces(features: Tensor) -> bool:
    # GPUs have no cache to speak of, and a compiler fuses the plain formula by itself.
    return (
        features.device.type == "cpu"
        and features.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
    )


def moments(features: Tensor) -> ChannelStatistics:
    """The same as `channel_statistics`, three times as fast on a CPU."""
    num_pixels = features.shape[2] * features.shape[3]
    # torch.var_mean goes through channels_last number by number; sums do not, and are as exact.
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
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, scale, mean, inverse_deviation, *outputs = ctx.saved_tensors
        pull = pull.contiguous(memory_format=_format_of(features))
        inputs = [pull, features, *outputs]

        def through_relu(pull: Tensor, output: list[Tensor]) -> Tensor:
            return torch.ops.aten.threshold_backward(pull, *output, 0) if output else pull

        shift_pull, weight_pull = torch.zeros_like(mean), torch.zeros_like(mean)
        for part, values, *output in _pieces(*inputs):
            part = through_relu(part, output)
            shift_pull += part.sum(dim=(2, 3), keepdim=True)
            weight_pull += (values - mean).mul_(part).sum(dim=(2, 3), keepdim=True)
        weight_pull *= inverse_deviation
        # With x^ = (x - mean) / deviation: dx = scale * (dy - mean of dy - x^ * mean of dy x^).
        num_pixels = features.shape[2] * features.shape[3]
        slope = -scale * weight_pull * inverse_deviation / num_pixels
        offset = -scale * shift_pull / num_pixels - slope * mean
        feature_pull = torch.empty_like(features)
        for target, part, values, *output in _pieces(feature_pull, *inputs):
            torch.addcmul(offset, through_relu(part, output), scale, out=target)
            target.addcmul_(values, slope)
        return feature_pull, weight_pull.sum(dim=(0, 2, 3)), shift_pull.sum(dim=(0, 2, 3)), None


def _scale_shift_relu(
    features: Tensor, scale: Tensor, shift: Tensor, *, relu: bool, out: Tensor
) -> Tensor:
    for part, target in _pieces(features, out):
        torch.addcmul(shift, part, scale, out=target)
        if relu:
            target.relu_()
    return out


def _pieces(*features: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Some rows after the others, of all arguments at once."""
    count, channels, _, width = features[0].shape
    rows = max(1, _PIECE // (count * channels * width))
    return zip(*(torch.split(part, rows, dim=2) for part in features), strict=True)


# --- Convolutions -------------------------------------------------------------------------------


def convolve_in_phases(padded: Tensor, kernel: Tensor) -> Tensor:
    """Nearest neighbour x2, a mirrored border and a 3x3 convolution, without the large picture.

    Args:
        padded: (N, C, H + 2, W + 2), the small picture and one more pixel around it: at the true
            border, the outermost ones once more.
        kernel: (C', C, 3, 3).

    Returns:
        (N, C', 2H, 2W).
    """
    phases = convolve_padded(padded, phase_kernels(kernel))  # (N, 4C', H + 1, W + 1)
    pixels: Tensor = _Interleave.apply(phases)
    return pixels


def phase_kernels(kernel: Tensor) -> Tensor:
    """What the four kinds of new pixels see old ones through: (C', C, 3, 3) to (4C', C, 2, 2).

    Along each axis, an even new pixel sees the old one before its own once and its own twice; an
    odd one its own twice and the next one once.
    """

    def two_phases(kernel: Tensor, dim: int) -> list[Tensor]:
        first, middle, last = kernel.unbind(dim)
        return [torch.stack(pair, dim) for pair in ((first, middle + last), (first + middle, last))]

    return torch.cat([phase for half in two_phases(kernel, 2) for phase in two_phases(half, 3)])


class _Interleave(torch.autograd.Function):
    """Four phases (N, 4C', H + 1, W + 1) to the pixels (N, C', 2H, 2W) that they are of."""

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
    def backward(ctx: Any, pull: Tensor) -> Tensor:
        phases = _empty(ctx.shape, pull, ctx.format).zero_()
        for place, phase in _places(pull, phases):
            phase.copy_(place)
        return phases


def _places(pixels: Tensor, phases: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For each kind of pixel: where they are, and the part of their phase that they are."""
    height, width = pixels.shape[2] // 2, pixels.shape[3] // 2
    for number, phase in enumerate(phases.chunk(4, dim=1)):
        row, column = divmod(number, 2)
        part = phase[:, :, row : row + height, column : column + width]
        yield pixels[:, :, row::2, column::2], part


def convolve_row_by_row(padded: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A K x K convolution to few channels C': (N, C, H + K - 1, W + K - 1) to (N, C', H, W).

    First what each row of the kernel makes of each row of the picture, K C' channels; then the K
    shifted ones are added up.
    """
    kernel, bias = convolution.weight, convolution.bias
    assert bias is not None
    rows = kernel.permute(2, 0, 1, 3).flatten(0, 1)[:, :, None]  # (K C', C, 1, K)
    rows = F.pad(rows, (0,) * 7 + (_missing_channels(len(rows), padded),))
    total: Tensor = _SumOfRows.apply(convolve_padded(padded, rows), len(kernel), kernel.shape[2])
    return total + bias.view(1, -1, 1, 1)


class _SumOfRows(torch.autograd.Function):
    """What row k of the kernel made, k rows below: (N, >= K C', H + K - 1, W) to (N, C', H, W)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, channels: int, size: int) -> Tensor:
        ctx.shape, ctx.format = rows.shape, _format_of(rows)
        ctx.channels, ctx.size = channels, size
        # Not in place: compiled by torch 2.11, that had a gradient of zero.
        return reduce(torch.add, _shifted(rows, channels, size))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, None, None]:
        rows = _empty(ctx.shape, pull, ctx.format).zero_()
        for row in _shifted(rows, ctx.channels, ctx.size):
            row.copy_(pull)
        return rows, None, None


def _shifted(rows: Tensor, channels: int, size: int) -> Iterator[Tensor]:
    height = rows.shape[2] - size + 1
    for shift in range(size):
        yield rows[:, shift * channels : (shift + 1) * channels, shift : shift + height]


def convolve_column_by_column(padded: Tensor, kernel: Tensor) -> Tensor:
    """A K x K convolution of few channels C: (N, C, H + K - 1, W + K - 1) to (N, C', H, W).

    The picture K times side by side, each one pixel further left, makes C K channels, of which the
    columns of the kernel become one.
    """
    size = kernel.shape[3]
    width = padded.shape[3] - size + 1
    pictures = torch.cat([padded[..., shift : shift + width] for shift in range(size)], dim=1)
    columns = kernel.permute(0, 3, 1, 2).flatten(1, 2)[..., None]  # (C', K C, K, 1)
    missing = _missing_channels(pictures.shape[1], padded)
    return convolve_padded(
        F.pad(pictures, (0, 0, 0, 0, 0, missing)), F.pad(columns, (0, 0, 0, 0, 0, missing))
    )


def _missing_channels(channels: int, features: Tensor) -> int:
    # Tensor cores take eight channels at a time.
    return -channels % 8 if _is_on_gpu(features) else 0


def convolve_padded(padded: Tensor, kernel: Tensor, *, stride: int = 1) -> Tensor:
    """A convolution without a border of its own, and without bias."""
    if padded.dtype != kernel.dtype and not torch.is_autocast_enabled(padded.device.type):
        exact: Tensor = _ExactConvolution.apply(padded, kernel, stride)
        return exact
    if stride == 1 and winograd.pays(padded, kernel):
        return winograd.convolve(padded, kernel)
    if _has_slow_weight_gradient(padded, kernel):
        result: Tensor = _Convolution.apply(padded, kernel, stride)
        return result
    return F.conv2d(padded, kernel, stride=stride)


def _has_slow_weight_gradient(padded: Tensor, kernel: Tensor) -> bool:
    # With three channels, those of a photo, matrix products are too thin to be worth it.
    return (
        kernel.requires_grad
        and kernel.shape[1] > 3
        and not torch.compiler.is_compiling()
        and padded.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and padded.is_contiguous(memory_format=torch.channels_last)
        and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    )


class _ExactConvolution(torch.autograd.Function):
    """A convolution of half-precision features in float32, with gradients in half precision.

    They are rounded as those of all other layers are; the picture is not.
    """

    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor, stride: int) -> Tensor:
        ctx.stride = stride
        ctx.save_for_backward(padded, kernel)
        return F.conv2d(padded.to(kernel.dtype), kernel, stride=stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, Tensor, None]:
        padded, kernel = ctx.saved_tensors
        rounded = pull.to(padded.dtype), padded, kernel.to(padded.dtype)
        wanted = ctx.needs_input_grad[0], True
        padded_pull, kernel_pull = _library_gradients(*rounded, ctx.stride, wanted)
        assert kernel_pull is not None
        return padded_pull, kernel_pull.to(kernel.dtype), None


def _library_gradients(
    pull: Tensor, padded: Tensor, kernel: Tensor, stride: int, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Those of a convolution's input and kernel, as far as they are wanted."""
    found = torch.ops.aten.convolution_backward(
        *(pull, padded, kernel, None),
        *((stride, stride), (0, 0), (1, 1), False, (0, 0), 1, (*wanted, False)),
    )
    return found[0], found[1]


class _Convolution(torch.autograd.Function):
    """A convolution whose weight gradient is a matrix product for each place of the kernel.

    On an AVX2 processor they take half the time of oneDNN's in channels_last.
    """

    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor, stride: int) -> Tensor:
        ctx.stride = stride
        ctx.save_for_backward(padded, kernel)
        return F.conv2d(padded, kernel, stride=stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, Tensor, None]:
        padded, kernel = ctx.saved_tensors
        pull = pull.contiguous(memory_format=torch.channels_last)
        padded_pull = None
        if ctx.needs_input_grad[0]:
            padded_pull, _ = _library_gradients(pull, padded, kernel, ctx.stride, (True, False))
        return padded_pull, weight_gradient(padded, pull, kernel.shape, stride=ctx.stride), None


def weight_gradient(padded: Tensor, pull: Tensor, shape: torch.Size, *, stride: int) -> Tensor:
    """The gradient of a convolution's kernel.

    The pixels that one place of the kernel sees, in the order of the output's, are the input from
    some pixel on: a view, when the rows of both are equally long. So the output's gradient gets
    zeros at the end of its rows, and each place of the kernel is one product of two matrices.

    Args:
        padded: the input, (N, C, H, W), channels_last.
        pull: the output's gradient, (N, C', H', W'), channels_last.
        shape: the kernel's, (C', C, k, k).
        stride: of the convolution.
    """
    out_channels, channels, rows, columns = shape
    gradient = pull.new_empty(rows, columns, out_channels, channels)
    for top in range(stride):
        for left in range(stride):
            # What a place of the kernel sees, it sees every `stride` pixels.
            part = padded[:, :, top::stride, left::stride]
            missing = part.shape[2] - pull.shape[2], part.shape[3] - pull.shape[3]
            pulls = _as_matrix(F.pad(pull, (0, missing[1], 0, missing[0])))  # (P, C')
            pixels = _as_matrix(part)  # (P, C)
            for row in range(top, rows, stride):
                for column in range(left, columns, stride):
                    begin = row // stride * part.shape[3] + column // stride
                    torch.mm(
                        pulls[: len(pulls) - begin].T, pixels[begin:], out=gradient[row, column]
                    )
    return gradient.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def _as_matrix(features: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last to (N H W, C)."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def _format_of(features: Tensor) -> torch.memory_format:
    is_last = features.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format


def _empty(shape: Sequence[int], like: Tensor, memory_format: torch.memory_format) -> Tensor:
    return torch.empty(
        tuple(shape), dtype=like.dtype, device=like.device, memory_format=memory_format
    )


def _is_on_gpu(features: Tensor) -> bool:
    return features.device.type == "cuda"
