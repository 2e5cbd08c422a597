"""The image transform network f_W of Johnson et al. 2016: a photo in, a painting out.

Three convolutions, two of them halving the size, five residual blocks, two stages of up-sampling
and a last convolution to RGB. It differs from the paper (supplement, table 1) in three ways:

- instance norm instead of batch norm (Ulyanov et al. 2016; also the authors' later default);
- reflection padding in every convolution instead of 40 pixels at the start, so that the result
  has the photo's size and residual blocks need no cropping;
- up-sampling by nearest neighbor and a convolution (Odena et al. 2016), unless `upsampling` is
  ``transposed``: then by the paper's strided transposed convolutions;
- if `antialiased`, low-pass filters before each halving and after each doubling of the size (Zhang
  2019, "Making Convolutional Networks Shift-Invariant Again"). Without them, a photo shifted by one
  pixel gives another picture: most of what flickers in a video. The filters have no weights.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fast_style.settings.fields import SMALLEST_SIDE

EPSILON = 1e-5  # added to the variance in instance norm, as in torch and in the authors' code

Border = Literal["reflect", "replicate", "zeros"]
"""What surrounds the features of a convolution, in the words of `F.pad`."""


class ChannelStatistics(NamedTuple):
    """Mean and variance of every channel over all pixels, each (N, C, 1, 1), float32."""

    mean: Tensor
    variance: Tensor


def channel_statistics(features: Tensor) -> ChannelStatistics:
    """Mean and variance of each photo and channel, as instance norm uses them.

    Args:
        features: (N, C, H, W).
    """
    variance, mean = torch.var_mean(_widened(features), dim=(2, 3), correction=0, keepdim=True)
    return ChannelStatistics(mean, variance)


def instance_norm(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    statistics: ChannelStatistics | None = None,
) -> Tensor:
    """Features normalized for each photo and channel separately (Ulyanov et al. 2016).

    Args:
        features: (N, C, H, W), contiguous or channels_last; the result has the same format.
        weight: (C,), the scale after normalizing.
        bias: (C,), the shift after normalizing.
        statistics: those of a larger picture that contains `features`; by default their own.
    """
    mean, variance = channel_statistics(features) if statistics is None else statistics
    # One multiply-add per pixel, with a scale and a shift per photo and channel: (N, C, 1, 1).
    scale = weight.view(1, -1, 1, 1) * torch.rsqrt(variance + EPSILON)
    shift = bias.view(1, -1, 1, 1) - mean * scale
    return torch.addcmul(shift, _widened(features), scale).to(features.dtype)


def _widened(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))


class InstanceNorm(nn.Module):
    """`instance_norm` with its learned scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape, dtype and memory format."""
        return instance_norm(features, self.weight, self.bias)


def low_passed(kernel: Tensor) -> Tensor:
    """The kernel that filters by (1 2 1) / 4 along both axes first: (C', C, k, k) to k + 2.

    Filtering features with a reflected border and then convolving them with `kernel` is convolving
    them once with this one: a symmetric filter keeps the reflection.
    """
    twice_the_mean_of_two = F.pad(kernel, (2,) * 4)
    for _ in range(2):
        twice_the_mean_of_two = F.avg_pool2d(twice_the_mean_of_two, 2, stride=1)
    return twice_the_mean_of_two


class Convolution(nn.Module):
    """Reflection padding, then a convolution: (N, C, H, W) to (N, C', ceil(H/s), ceil(W/s)).

    Zero padding would show as a dark or blotchy frame in the result.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: k, odd.
        stride: s.
        bias: add a learned number to each channel.
        antialiased: filter the features by (1 2 1) / 4 first, which takes away what a stride of 2
            would take for something else.
    """

    border: Border = "reflect"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        bias: bool = False,
        antialiased: bool = False,
    ) -> None:
        super().__init__()
        self.padding = kernel_size // 2 + antialiased
        self.stride = stride
        self.antialiased = antialiased
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H/s), ceil(W/s)); sides exceed `padding`."""
        features = F.pad(features, (self.padding,) * 4, mode=self.border)
        return F.conv2d(features, self.kernel, self.conv.bias, self.stride)

    @property
    def kernel(self) -> Tensor:
        """What is multiplied with the features: the learned kernel, behind the filter if any."""
        return low_passed(self.conv.weight) if self.antialiased else self.conv.weight

    @property
    def layer(self) -> nn.Conv2d:
        """The torch layer that holds the kernel."""
        return self.conv

    def output_side(self, side: int) -> int:
        """The height or width of the result, from that of the features."""
        return -(-side // self.stride)

    def source_rows(self, first: int, stop: int) -> tuple[int, int]:
        """The rows of features, [begin, end), on which rows [first, stop) of the result depend.

        They may lie in the border.
        """
        return first * self.stride - self.padding, (stop - 1) * self.stride + self.padding + 1


class TransposedConvolution(nn.Module):
    """The paper's fractionally strided convolution: (N, C, H, W) to (N, C', 2H, 2W)."""

    border: Border = "zeros"
    padding = 0  # what lies beyond the border adds nothing

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', 2H, 2W)."""
        output: Tensor = self.conv(features)
        return output

    @property
    def layer(self) -> nn.ConvTranspose2d:
        """The torch layer that holds the kernel."""
        return self.conv

    def output_side(self, side: int) -> int:
        """The height or width of the result, from that of the features."""
        return 2 * side

    def source_rows(self, first: int, stop: int) -> tuple[int, int]:
        """Like `Convolution.source_rows`; `first` and `stop` are even."""
        return first // 2, stop // 2 + 1  # the last row is odd: it depends on one more


class ResizeConvolution(nn.Module):
    """Nearest neighbor x2, then a convolution: (N, C, H, W) to (N, C', 2H, 2W).

    Unlike a transposed convolution it covers every pixel equally often. So random weights draw a
    tenth of its checkerboard, and flat features none (Odena et al. 2016, "Deconvolution and
    Checkerboard Artifacts"). Training can still bring one back: three models of 2,100 steps or less
    had 2 to 5 levels of 0..255 in the spectrum of the whole picture (`measures.artifacts` measures
    it in flat areas).

    `border` is that of the features before they are enlarged. The convolution reflects the enlarged
    ones, in which each outermost pixel occurs twice. Reflection skips one of the two and repeats
    the other, so the border of the small features repeats their outermost pixel.

    If `antialiased`, each new pixel is then averaged with the next one on each axis. Old pixel n
    becomes new pixels 2n and 2n + 1, whose center lies half a pixel beside 2n, from where a stride
    of 2 took it. The mean shifts by half a pixel back, and takes away any pattern of every second
    pixel. Together, the two interpolate linearly between old pixels at 2n.
    """

    border: Border = "replicate"
    padding = 1

    def __init__(self, in_channels: int, out_channels: int, *, antialiased: bool = False) -> None:
        super().__init__()
        self.conv = Convolution(in_channels, out_channels, 3)
        self.antialiased = antialiased

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', 2H, 2W)."""
        if not self.antialiased:
            output: Tensor = self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest"))
            return output
        # With a border of one old pixel, there is a next pixel for the last one, too.
        bordered = F.pad(features, (self.padding,) * 4, mode=self.border)
        enlarged = F.interpolate(bordered, scale_factor=2.0, mode="nearest")
        convolved = F.conv2d(enlarged, self.conv.kernel)  # (N, C', 2H + 2, 2W + 2), from -1 on
        return F.avg_pool2d(convolved[:, :, 1:, 1:], 2, stride=1)

    @property
    def layer(self) -> nn.Conv2d:
        """The torch layer that holds the kernel."""
        return self.conv.conv

    def output_side(self, side: int) -> int:
        """The height or width of the result, from that of the features."""
        return 2 * side

    def source_rows(self, first: int, stop: int) -> tuple[int, int]:
        """Like `Convolution.source_rows`; `first` and `stop` are even."""
        return first // 2 - self.padding, stop // 2 + self.padding


AnyConvolution = Convolution | TransposedConvolution | ResizeConvolution


class NormalizedStage(nn.Module):
    """A convolution of any of the three kinds, instance norm, ReLU.

    The convolution has no bias: instance norm would subtract it again.
    """

    def __init__(self, convolution: AnyConvolution, channels: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = InstanceNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the shape of the convolution's result."""
        return F.relu(self.norm(self.convolution(features)))


class ResidualBlock(nn.Module):
    """Convolution, norm, ReLU, convolution, norm, plus the input; no ReLU after the addition.

    Gross and Wilber 2016, as Johnson et al. use it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = NormalizedStage(Convolution(channels, channels, 3), channels)
        self.second = Convolution(channels, channels, 3)
        self.norm = InstanceNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        residual: Tensor = self.norm(self.second(self.first(features)))
        return features + residual


class TransformNet(nn.Module):
    """f_W: photos (N, 3, H, W) in [0, 1] to pictures of the same shape.

    Any height and width from one pixel up. The result lies in 0.5 +- tanh_scale / 255: clamp it
    before writing, or take the scale 127.5, which keeps it within [0, 1].

    Args:
        width: channels of the first convolution; the next two have twice and four times as many.
        residual_blocks: number of residual blocks.
        upsampling: ``resize`` or ``transposed``.
        antialiased: filter before halving the size, and after ``resize`` doubles it.
        tanh_scale: half the output's range in units of 0..255.
    """

    def __init__(
        self,
        *,
        width: int = 32,
        residual_blocks: int = 5,
        upsampling: Literal["resize", "transposed"] = "resize",
        antialiased: bool = True,
        tanh_scale: float = 150.0,
    ) -> None:
        super().__init__()

        def halving(channels: int) -> NormalizedStage:
            convolution = Convolution(channels, 2 * channels, 3, stride=2, antialiased=antialiased)
            return NormalizedStage(convolution, 2 * channels)

        def doubling(channels: int) -> NormalizedStage:
            sizes = channels, channels // 2
            if upsampling == "transposed":
                return NormalizedStage(TransposedConvolution(*sizes), sizes[1])
            return NormalizedStage(ResizeConvolution(*sizes, antialiased=antialiased), sizes[1])

        self.tanh_scale = tanh_scale
        self.down = nn.Sequential(
            NormalizedStage(Convolution(3, width, 9), width), halving(width), halving(2 * width)
        )
        self.residual = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(residual_blocks)))
        self.up = nn.Sequential(doubling(4 * width), doubling(2 * width))
        self.to_rgb = Convolution(width, 3, 9, bias=True)

    def forward(self, photos: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to the same shape, float32 in 0.5 +- tanh_scale / 255."""
        height, width = photos.shape[-2:]
        # Each halving rounds up, so the up-sampled size is the next multiple of 4. The excess is
        # cut off once, at the very end.
        features = self.down(pad_to_smallest_side(photos))  # (N, 4w, ceil(H/4), ceil(W/4))
        features = self.residual(features)
        features = self.up(features)  # (N, w, 4 ceil(H/4), 4 ceil(W/4))
        # These sums decide single levels of 0..255: float32 even under autocast.
        with torch.autocast(features.device.type, enabled=False):
            rgb = self.to_rgb(features.to(self.to_rgb.conv.weight.dtype))[..., :height, :width]
            return to_picture_range(rgb, self.tanh_scale)


def memory_format_for(device: torch.device) -> torch.memory_format:
    """channels_last where convolutions are faster with it: on CPUs and CUDA's tensor cores."""
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


def pad_to_smallest_side(photos: Tensor) -> Tensor:
    """Repeat the last row and column until both sides have `SMALLEST_SIDE` pixels."""
    height, width = photos.shape[-2:]
    missing = max(0, SMALLEST_SIDE - height), max(0, SMALLEST_SIDE - width)
    if not any(missing):
        return photos
    return F.pad(photos, (0, missing[1], 0, missing[0]), mode="replicate")


def to_picture_range(rgb: Tensor, tanh_scale: float) -> Tensor:
    """The scaled tanh, which maps any number into the range 0.5 +- tanh_scale / 255."""
    return 0.5 + tanh_scale / 255 * torch.tanh(rgb)
