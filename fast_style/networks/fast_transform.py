"""The transform network executed faster: the same weights, the same pictures.

`transform_net` defines the network and is easier to read. The result here differs from its result
by less than 1e-4 of the pixel range. On every device:

- up-sampling goes in phases. A 3x3 kernel on the picture that nearest neighbor makes sees the same
  old pixel several times. So four 2x2 kernels on the small picture give the four kinds of new
  pixels, with 4/9 of the work;
- the last 9x9 convolution goes row by row, a 1x9 convolution to 27 channels and then nine shifted
  additions, because libraries are slow for only three output channels.

The other kernels depend on the processor and on the compiler. `Execution` lists the steps for which
there is a choice, and only `choose_execution` chooses.

The paper's transposed up-sampling is not changed.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fast_style.networks import borders, winograd
from fast_style.networks import fast_kernels as kernels
from fast_style.networks.transform_net import (
    AnyConvolution,
    Border,
    ChannelStatistics,
    Convolution,
    InstanceNorm,
    NormalizedStage,
    ResidualBlock,
    ResizeConvolution,
    TransformNet,
    TransposedConvolution,
    channel_statistics,
    pad_to_smallest_side,
    to_picture_range,
)

# --- The choice of kernels ----------------------------------------------------------------------


class NormReLU(Protocol):
    """Instance norm with its scale and shift, then ReLU if asked for.

    Features (N, C, H, W) to the same shape. Where no gradient is recorded, the result may overwrite
    them, and `statistics` may be those of a larger picture that contains them.
    """

    def __call__(  # noqa: D102 -- described in the class
        self,
        features: Tensor,
        norm: InstanceNorm,
        *,
        relu: bool = True,
        statistics: ChannelStatistics | None = None,
    ) -> Tensor: ...


class Execution(NamedTuple):
    """Which kernel computes each step.

    Attributes:
        pad: (features, padding, border) to features with that border.
        norm_relu_: instance norm and ReLU.
        statistics: mean and variance of each channel.
        convolve: (padded, kernel, stride) to the convolution without border and bias.
        first_by_columns: whether the first convolution, of three channels, goes column by column.
        channel_multiple: channels of zeros are added to intermediate results until their number is
            divisible by this.
    """

    pad: Callable[[Tensor, int, Border], Tensor]
    norm_relu_: NormReLU
    statistics: Callable[[Tensor], ChannelStatistics]
    convolve: Callable[[Tensor, Tensor, int], Tensor]
    first_by_columns: bool = False
    channel_multiple: int = 1


def _norm_relu_on_cpu_(
    features: Tensor,
    norm: InstanceNorm,
    *,
    relu: bool = True,
    statistics: ChannelStatistics | None = None,
) -> Tensor:
    # Autocast gives half precision, whose sums need float32.
    is_half = features.dtype not in (torch.float32, torch.float64)
    norm_relu = kernels.norm_relu_by_formula if is_half else kernels.norm_relu_in_pieces_
    return norm_relu(features, norm, relu=relu, statistics=statistics)


def _norm_relu_on_gpu_(
    features: Tensor,
    norm: InstanceNorm,
    *,
    relu: bool = True,
    statistics: ChannelStatistics | None = None,
) -> Tensor:
    if statistics is not None:
        return kernels.norm_relu_by_formula(features, norm, relu=relu, statistics=statistics)
    return kernels.norm_relu_by_library(features, norm, relu=relu)


def _convolve_on_cpu(padded: Tensor, kernel: Tensor, stride: int) -> Tensor:
    if stride == 1 and winograd.is_faster(padded, kernel):
        return winograd.convolve(padded, kernel)
    return kernels.convolve_by_library(padded, kernel, stride)


def _convolve_without_avx512(padded: Tensor, kernel: Tensor, stride: int) -> Tensor:
    if stride == 1 and winograd.is_faster(padded, kernel):
        return winograd.convolve(padded, kernel)
    has_slow_weight_gradient = (
        kernel.requires_grad
        and kernel.shape[1] > 3  # a photo's three channels make matrices too thin to pay
        and not torch.is_autocast_enabled("cpu")
        and padded.is_contiguous(memory_format=torch.channels_last)
    )
    if has_slow_weight_gradient:
        return kernels.convolve_with_matrix_gradient(padded, kernel, stride)
    return kernels.convolve_by_library(padded, kernel, stride)


# Plain formulas, which a compiler fuses.
COMPILED = Execution(
    pad=borders.pad_by_index,
    norm_relu_=kernels.norm_relu_by_formula,
    statistics=channel_statistics,
    convolve=kernels.convolve_by_library,
)
# Tensor cores take eight channels at a time. On a CPU, columns took longer.
COMPILED_FOR_GPU = COMPILED._replace(first_by_columns=True, channel_multiple=8)
# A GPU's cache is too small for pieces to help. F.pad gives up channels_last there, so that every
# convolution would copy its input.
ON_GPU = COMPILED_FOR_GPU._replace(pad=borders.pad_by_copying, norm_relu_=_norm_relu_on_gpu_)
ON_CPU = Execution(
    pad=borders.pad_by_library,
    norm_relu_=_norm_relu_on_cpu_,
    statistics=kernels.moments,
    convolve=_convolve_on_cpu,
)
# Without AVX-512, oneDNN's own weight gradients are slow in channels_last.
ON_CPU_WITHOUT_AVX512 = ON_CPU._replace(convolve=_convolve_without_avx512)
# Other devices, such as Apple's GPUs, on which no kernel was measured.
ELSEWHERE = COMPILED._replace(pad=borders.pad_by_library)


def choose_execution(device: torch.device) -> Execution:
    """The fastest kernels for a device; while torch compiles, those that it fuses best."""
    is_gpu = device.type == "cuda"
    if torch.compiler.is_compiling():  # asked first: the compiler would trace the rest
        return COMPILED_FOR_GPU if is_gpu else COMPILED
    if is_gpu:
        return ON_GPU
    if device.type != "cpu":
        return ELSEWHERE
    has_avx512 = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    return ON_CPU if has_avx512 else ON_CPU_WITHOUT_AVX512


# --- The network --------------------------------------------------------------------------------


class FastTransform(nn.Module):
    """`TransformNet` in the fast execution: the same argument, result and gradients.

    Args:
        net: the network, which keeps its parameters under their own names.
    """

    def __init__(self, net: TransformNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, photos: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to the same shape, float32 in 0.5 +- tanh_scale / 255."""
        height, width = photos.shape[-2:]
        return self.uncropped(pad_to_smallest_side(photos))[..., :height, :width]

    def uncropped(self, features: Tensor) -> Tensor:
        """`forward` for sides of at least `SMALLEST_SIDE`, rounded up to multiples of 4."""
        execution = choose_execution(features.device)
        for stage in self.net.down:
            features = normalized_stage(features, stage, execution)
        for block in self.net.residual:
            features = residual_block(features, block, execution)
        for stage in self.net.up:
            features = normalized_stage(features, stage, execution)
        with torch.autocast(features.device.type, enabled=False):
            rgb = convolve(features, self.net.to_rgb, execution)
            return to_picture_range(rgb, self.net.tanh_scale)


def normalized_stage(features: Tensor, stage: nn.Module, execution: Execution) -> Tensor:
    """The result of a `NormalizedStage`."""
    assert isinstance(stage, NormalizedStage)
    convolved = convolve(features, stage.convolution, execution)
    return execution.norm_relu_(convolved, stage.norm)


def residual_block(features: Tensor, block: nn.Module, execution: Execution) -> Tensor:
    """The result of a `ResidualBlock`."""
    assert isinstance(block, ResidualBlock)
    first = normalized_stage(features, block.first, execution)
    residual = convolve(first, block.second, execution)
    # Added in place: nothing else refers to the result of the norm.
    return execution.norm_relu_(residual, block.norm, relu=False).add_(features)


def convolve(features: Tensor, convolution: AnyConvolution, execution: Execution) -> Tensor:
    """The result of any of the three kinds of convolution, its border included."""
    if convolution.padding:
        features = execution.pad(features, convolution.padding, convolution.border)
    return convolve_padded(features, convolution, execution)


def convolve_padded(padded: Tensor, convolution: AnyConvolution, execution: Execution) -> Tensor:
    """`convolve` of features that include their border of p pixels: (N, C, H + 2p, W + 2p)."""
    if isinstance(convolution, TransposedConvolution):
        result: Tensor = convolution.conv(padded)
        return result
    if isinstance(convolution, ResizeConvolution):
        if convolution.antialiased:
            phases = kernels.smooth_phase_kernels(convolution.layer.weight)
            return kernels.interleave(execution.convolve(padded, phases, 1), overlap=0)
        phases = kernels.phase_kernels(convolution.layer.weight)
        return kernels.interleave(execution.convolve(padded, phases, 1))
    if convolution.conv.bias is not None:  # the last one, to RGB
        return _convolve_by_rows(padded, convolution, execution)
    is_first = convolution.conv.in_channels == 3 and convolution.stride == 1
    if execution.first_by_columns and is_first:
        return _convolve_by_columns(padded, convolution, execution)
    return execution.convolve(padded, convolution.kernel, convolution.stride)


def _convolve_by_rows(padded: Tensor, convolution: Convolution, execution: Execution) -> Tensor:
    kernel, bias = convolution.conv.weight, convolution.conv.bias
    assert bias is not None
    rows = kernels.row_kernels(kernel, multiple=execution.channel_multiple)
    # After autocast, features are in half precision, and the weights of the last layer are not.
    is_half = padded.dtype != rows.dtype
    by_row = kernels.convolve_exactly if is_half else execution.convolve
    total = kernels.sum_rows(
        by_row(padded, rows, 1), num_channels=len(kernel), kernel_size=kernel.shape[2]
    )
    return total + bias.view(1, -1, 1, 1)


def _convolve_by_columns(padded: Tensor, convolution: Convolution, execution: Execution) -> Tensor:
    kernel, multiple = convolution.conv.weight, execution.channel_multiple
    pictures = kernels.side_by_side(padded, kernel.shape[3], multiple=multiple)
    columns = kernels.column_kernels(kernel, multiple=multiple)
    return execution.convolve(pictures, columns, 1)
