"""The transform network over a photo of any size, exactly, in little memory.

Tiles that know nothing of each other would change the picture, as every instance norm needs the
mean and the variance of its channels over the whole photo. Yet it needs nothing else of the whole.
So the photo goes through the network in sweeps from top to bottom, band by band, and each sweep
ends with the statistics with which the next one normalizes:

==================  ================  ==============================  =======================
sweep               reads             computes                        writes
==================  ================  ==============================  =======================
1                   photo             conv 1                          nothing
2                   photo             conv 1, norm, conv 2            half size
3                   half size         norm, conv 3                    stream
two per block       stream, branch    norm of the sweep before, conv  branch
up-sampling 1       stream, branch    norm, addition, up-sampling 1   half size
up-sampling 2       half size         norm, up-sampling 2             nothing
last                half size         norm, up-sampling 2, to RGB     the result
==================  ================  ==============================  =======================

Only the first convolution and the last up-sampling are computed twice. Where bands meet, the rows
that the next band needs too are kept; what the fast functions make of them on the way is made anew.

All features between sweeps lie in one store of 8 * width float32 values per 4 x 4 pixels (64 bytes
per pixel for the usual width of 32), in memory or in a file. The stream of the residual blocks and
its branch at a quarter of the size fill it, and so do the features at half the size: a sweep
overwrites what it reads, some rows behind. Of the photo and the result, only bands become floats.

Deliberately not here: the choice of the band's height and of the place of the store (`stylizer`).
"""

import copy
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fast_style.networks.fast_transform import (
    convolve_in_phases,
    convolve_padded,
    convolve_row_by_row,
    moments,
    norm_relu_,
)
from fast_style.networks.transform_net import (
    SMALLEST_SIDE,
    ChannelStatistics,
    Convolution,
    InstanceNorm,
    NormalizedStage,
    ResidualBlock,
    ResizeConvolution,
    TransformNet,
    TransposedConvolution,
    channel_statistics,
    to_picture_range,
)

SHORTEST_BAND = 4
"""Rows of the lowest band: what one row at a quarter of the size becomes."""

# Peak memory of a band on a CPU. Values per pixel of its rows and some around it: a constant, and
# a part for each channel of the first convolution. The weights twice more: turned for wide photos,
# and as the convolution library wants them. And a bit. No less than any row that
# benchmarks/huge_photo.py measured, with freed memory kept and without.
_VALUES_PER_PIXEL = 100
_VALUES_PER_PIXEL_AND_WIDTH = 6
_MORE_ROWS = 8
_BYTES_PER_SQUARE_OF_WIDTH = 13_000
_MORE_BYTES = 8_000_000

_AnyConvolution = Convolution | ResizeConvolution | TransposedConvolution


class Band(NamedTuple):
    """A finished part of the picture.

    Attributes:
        left: its place in the picture.
        top: its place in the picture.
        pixels: (3, h, w), float32 in 0.5 +- tanh_scale / 255.
    """

    left: int
    top: int
    pixels: Tensor


@torch.no_grad()
def stylize_in_bands(
    net: TransformNet,
    photo: Image.Image,
    write: Callable[[Band], None],
    *,
    band_rows: int,
    storage: torch.device | Path,
) -> Generator[float, None, None]:
    """Make `net`'s picture of `photo`; gives the share that is done, again and again.

    Args:
        net: on the device that is to compute, in float32.
        photo: mode RGB.
        write: gets the picture part by part, all of it in the last sweep.
        band_rows: the height of a band, at any scale; a multiple of `SHORTEST_BAND`.
        storage: the device, or the folder on a disk, that holds the features between sweeps. The
            file has no name where the system allows that, and is gone afterwards in any case.

    Raises:
        OSError: the disk is full.
    """
    assert band_rows > 0, band_rows
    assert band_rows % SHORTEST_BAND == 0, band_rows
    # A band is as long as a row: it takes least memory across the shorter side.
    is_wide = photo.width > photo.height
    if is_wide:
        net = _transposed(net)

    def write_rows(first: int, rows: Tensor) -> None:
        if is_wide:
            write(Band(first, 0, rows.permute(2, 1, 0)))
        else:
            write(Band(0, first, rows.permute(2, 0, 1)))

    pixels = _pixels(photo, is_wide=is_wide, device=net.to_rgb.conv.weight.device)
    shape = _store_shape(*photo.size, net.to_rgb.conv.in_channels)
    num_sweeps = 6 + 2 * len(net.residual)
    num_done = 0
    with closing(_Store(*shape, storage)) as store:
        for share in _sweeps(net, pixels, store, write_rows, sorted(photo.size), band_rows):
            yield (num_done + share) / num_sweeps  # as if all sweeps took the same time
            num_done += share == 1


def band_bytes(height: int, width: int, *, net_width: int, band_rows: int) -> int:
    """Bytes that a band takes while it is worked on, at most."""
    values_per_pixel = _VALUES_PER_PIXEL + _VALUES_PER_PIXEL_AND_WIDTH * net_width
    row_bytes = 4 * values_per_pixel * max(SMALLEST_SIDE, min(height, width))
    weights = _BYTES_PER_SQUARE_OF_WIDTH * net_width**2
    return _MORE_BYTES + weights + row_bytes * (_MORE_ROWS + band_rows)


def highest_band(height: int, width: int, *, net_width: int, most_bytes: float) -> int:
    """The most rows of a band that takes no more, of those that there are; 0 if it is none."""
    one = band_bytes(height, width, net_width=net_width, band_rows=1)
    two = band_bytes(height, width, net_width=net_width, band_rows=2)
    most_rows = int(1 + (most_bytes - one) // (two - one)) // SHORTEST_BAND * SHORTEST_BAND
    all_rows = -(-max(SMALLEST_SIDE, height, width) // SHORTEST_BAND) * SHORTEST_BAND
    return max(0, min(most_rows, all_rows))


def storage_bytes(height: int, width: int, *, net_width: int) -> int:
    """Bytes of the features that are kept between sweeps."""
    num_lines, length = _store_shape(width, height, net_width)
    return 4 * num_lines * length


def _store_shape(width: int, height: int, net_width: int) -> tuple[int, int]:
    """Lines, and values in each; two of them are a row at a quarter of the size in 8w channels."""
    quarter_width, quarter_height = (
        -(-max(SMALLEST_SIDE, side) // 4) for side in sorted((width, height))
    )
    return 2 * quarter_height, 4 * net_width * quarter_width


# --- The sweeps ---------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """Features that are made as they are asked for: from top to bottom, every row once.

    Attributes:
        height: of all rows.
        width: of all rows.
        read: (first, stop) to (stop - first, width, C). Channels come last, as they lie in memory.
    """

    height: int
    width: int
    read: Callable[[int, int], Tensor]


def _sweeps(
    net: TransformNet,
    photo: _Rows,
    store: "_Store",
    write: Callable[[int, Tensor], None],
    size: Sequence[int],
    band_rows: int,
) -> Iterator[float]:
    """All of them; gives the share that is done of each.

    Args:
        net: in the direction of the sweeps.
        photo: its pixels.
        store: where the features between sweeps are kept.
        write: gets the first row, and rows of the result: (rows, width, 3).
        size: width and height of the result.
        band_rows: how many rows are made at a time.
    """
    width, height = size
    (conv1, norm1), (conv2, norm2), (conv3, norm3) = (_parts(stage) for stage in net.down)
    (up1, norm4), (up2, norm5) = (_parts(stage) for stage in net.up)

    first = _convolved(photo, conv1)
    statistics = yield from _sweep(first, band_rows)

    # Rows are made once, so what is swept again is made anew.
    second = _convolved(_normalized(_convolved(photo, conv1), norm1, statistics), conv2)
    second_plane = _plane_for(second, conv2, store)
    statistics = yield from _sweep(second, band_rows, second_plane.write)

    third = _convolved(_normalized(second_plane.rows(), norm2, statistics), conv3)
    stream = _plane_for(third, conv3, store, step=2)
    branch = stream._replace(start=1)
    statistics = yield from _sweep(third, band_rows, stream.write)

    features = _normalized(stream.rows(), norm3, statistics)
    for block in net.residual:
        assert isinstance(block, ResidualBlock)
        conv, norm = _parts(block.first)
        convolved = _convolved(_written(features, stream), conv)
        statistics = yield from _sweep(convolved, band_rows, branch.write)
        convolved = _convolved(_normalized(branch.rows(), norm, statistics), block.second)
        statistics = yield from _sweep(convolved, band_rows, branch.write)
        residual = _normalized(branch.rows(), block.norm, statistics, relu=False)
        features = _added(stream.rows(), residual)

    fourth = _convolved(features, up1)
    fourth_plane = _plane_for(fourth, up1, store)
    statistics = yield from _sweep(fourth, band_rows, fourth_plane.write)

    fourth = _normalized(fourth_plane.rows(), norm4, statistics)
    fifth_statistics = yield from _sweep(_convolved(fourth, up2), band_rows)

    fourth = _normalized(fourth_plane.rows(), norm4, statistics)
    fifth = _normalized(_convolved(fourth, up2), norm5, fifth_statistics)
    rgb = _convolved(fifth, net.to_rgb)
    end = -(-height // 4) * 4  # what is too much is cut off here
    for start in range(0, end, band_rows):
        stop = min(start + band_rows, end)
        levels = rgb.read(start, stop)[: height - start, :width]
        write(start, to_picture_range(levels, net.tanh_scale))
        yield stop / end


def _sweep(
    rows: _Rows, step: int, write: Callable[[int, Tensor], None] | None = None
) -> Generator[float, None, ChannelStatistics]:
    """Make all rows, `step` at a time; gives the share that is done, and returns statistics."""
    merged = Moments()
    for first in range(0, rows.height, step):
        stop = min(first + step, rows.height)
        band = rows.read(first, stop)
        merged.add(_as_features(band))
        if write is not None:
            write(first, band)
        yield stop / rows.height
    return merged.statistics()


class Moments:
    """Mean and variance of channels whose pixels come in parts.

    Parts are merged as by Chan, Golub and LeVeque 1979, in float64. The textbook's E[x^2] - E[x]^2
    loses all digits where the mean is large against the deviation.
    """

    def __init__(self) -> None:
        self._num_pixels = 0
        self._mean = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros((), dtype=torch.float64)  # sum of (x - mean)^2

    def add(self, features: Tensor) -> None:
        """Take (N, C, H, W) in."""
        num_pixels = features.shape[2] * features.shape[3]
        # On a CPU, as not every GPU knows float64.
        of_part = (
            moments(features) if features.device.type == "cpu" else channel_statistics(features)
        )
        mean, variance = (part.cpu().double() for part in of_part)
        share = num_pixels / (self._num_pixels + num_pixels)
        difference = mean - self._mean
        self._squares = (
            self._squares + variance * num_pixels + difference**2 * (share * self._num_pixels)
        )
        self._mean = self._mean + difference * share
        self._num_pixels += num_pixels

    def statistics(self) -> ChannelStatistics:
        """Of everything so far, on the CPU."""
        return ChannelStatistics(self._mean.float(), (self._squares / self._num_pixels).float())


# --- Rows made of rows --------------------------------------------------------------------------


def _parts(stage: nn.Module) -> tuple[_AnyConvolution, InstanceNorm]:
    assert isinstance(stage, NormalizedStage)
    assert isinstance(stage.convolution, _AnyConvolution)
    return stage.convolution, stage.norm


def _plane_for(
    rows: _Rows, convolution: _AnyConvolution, store: "_Store", *, step: int = 1
) -> "_Plane":
    """Where the rows of a convolution find place: in all lines, or in every second one."""
    kernel = _kernel(convolution)
    return _Plane(
        store, 0, step, rows.height, rows.width, kernel.out_channels, kernel.weight.device
    )


def _as_features(rows: Tensor) -> Tensor:
    return rows.permute(2, 0, 1)[None]  # (1, C, H, W), channels_last


def _as_rows(features: Tensor) -> Tensor:
    return features[0].permute(1, 2, 0)  # (H, W, C)


def _pixels(photo: Image.Image, *, is_wide: bool, device: torch.device) -> _Rows:
    """The photo's pixels in [0, 1], transposed if it is wide, with sides of 16 pixels or more."""
    width, height = photo.size
    if is_wide:
        width, height = height, width
    padded_height, padded_width = (max(SMALLEST_SIDE, side) for side in (height, width))

    def read(first: int, stop: int) -> Tensor:
        begin, end = min(first, height - 1), min(stop, height)
        box = (begin, 0, end, width) if is_wide else (0, begin, width, end)
        pixels = torch.from_numpy(np.array(photo.crop(box))).to(device)
        if is_wide:
            pixels = pixels.transpose(0, 1)
        rows = pixels.contiguous().float().div_(255)
        missing = padded_width - width, stop - first - len(rows)
        if not any(missing):
            return rows
        repeated = F.pad(_as_features(rows), (0, missing[0], 0, missing[1]), mode="replicate")
        return _as_rows(repeated)

    return _Rows(padded_height, padded_width, read)


def _normalized(
    rows: _Rows, norm: InstanceNorm, statistics: ChannelStatistics, *, relu: bool = True
) -> _Rows:
    on_device = ChannelStatistics(*(part.to(norm.weight.device) for part in statistics))

    def read(first: int, stop: int) -> Tensor:
        features = _as_features(rows.read(first, stop))
        return _as_rows(norm_relu_(features, norm, relu=relu, statistics=on_device))

    return rows._replace(read=read)


def _added(rows: _Rows, residual: _Rows) -> _Rows:
    return rows._replace(
        read=lambda first, stop: residual.read(first, stop).add_(rows.read(first, stop))
    )


def _written(rows: _Rows, plane: "_Plane") -> _Rows:
    """The same rows, which are also written to a plane as they are made."""

    def read(first: int, stop: int) -> Tensor:
        made = rows.read(first, stop)
        plane.write(first, made)
        return made

    return rows._replace(read=read)


def _convolved(rows: _Rows, convolution: _AnyConvolution) -> _Rows:
    """Rows of any of the three convolutions; those of an up-sampling are read in pairs."""
    window = _Window(rows, convolution)

    def read(first: int, stop: int) -> Tensor:
        return _as_rows(_convolve(convolution, _as_features(window.read(first, stop))))

    height, width = (_output_side(convolution, side) for side in (rows.height, rows.width))
    return _Rows(height, width, read)


class _Window:
    """The source rows behind a band of a convolution's output, padded as its `forward` pads.

    What the next band needs too is kept, so that every source row is made once.
    """

    def __init__(self, rows: _Rows, convolution: _AnyConvolution) -> None:
        self._rows = rows
        self._convolution = convolution
        self._padding = _padding(convolution)
        # Reflection leaves the outermost row out. Nearest-neighbor doubling makes two of it, of
        # which one is left out: in terms of the source, the row itself is repeated.
        self._leaves_out = 0 if isinstance(convolution, ResizeConvolution) else 1
        self._num_read = 0
        self._kept: Tensor | None = None

    def read(self, first: int, stop: int) -> Tensor:
        """What the output's rows need: (rows, width + 2 * padding, C)."""
        begin, end = _source_rows(self._convolution, first, stop)
        last = min(end, self._rows.height)
        left, right = self._padding, self._padding + self._rows.width
        kernel = _kernel(self._convolution)
        window = kernel.weight.new_empty(end - begin, right + left, kernel.in_channels)
        if self._kept is not None:
            window[: len(self._kept)] = self._kept
        if last > self._num_read:
            new = window[self._num_read - begin : last - begin]
            new[:, left:right] = self._rows.read(self._num_read, last)
            self._reflect(new.transpose(0, 1), left, right)
            self._num_read = last
        self._reflect(window, max(0, -begin), last - begin)
        next_begin, _ = _source_rows(self._convolution, stop, stop + 2)
        self._kept = window[next_begin - begin :].clone()
        return window

    def _reflect(self, lines: Tensor, first: int, stop: int) -> None:
        """Fill the lines before `first` and from `stop` on with those within."""
        for distance in range(1, first + 1):
            lines[first - distance] = lines[first + distance - 1 + self._leaves_out]
        for distance in range(1, len(lines) - stop + 1):
            source = lines[stop - distance - self._leaves_out]
            # A transposed convolution sees nothing beyond the border.
            is_empty = isinstance(self._convolution, TransposedConvolution)
            lines[stop + distance - 1] = 0 if is_empty else source


# --- Convolutions of padded rows ----------------------------------------------------------------


def _convolve(convolution: _AnyConvolution, window: Tensor) -> Tensor:
    """What `convolution` makes of source rows that are padded already.

    Args:
        convolution: of any of the three kinds.
        window: (1, C, h, w), the rows of `_source_rows`, with `_padding` at both sides. Channels
            lie last in memory, and should do so in the result.
    """
    if isinstance(convolution, ResizeConvolution):
        return convolve_in_phases(window, convolution.conv.conv.weight)
    if isinstance(convolution, TransposedConvolution):
        output: Tensor = convolution.conv(window)
        return output[..., :-2, :]  # without those of the next band, or beyond the border
    if convolution.conv.bias is not None:  # the last one
        return convolve_row_by_row(window, convolution.conv)
    return convolve_padded(window, convolution.conv.weight, stride=convolution.conv.stride[0])


def _kernel(convolution: _AnyConvolution) -> nn.Conv2d | nn.ConvTranspose2d:
    return convolution.conv.conv if isinstance(convolution, ResizeConvolution) else convolution.conv


def _source_rows(convolution: _AnyConvolution, first: int, stop: int) -> tuple[int, int]:
    """The range of source rows behind rows of the output; it may reach beyond the border."""
    padding = _padding(convolution)
    if not isinstance(convolution, Convolution):
        return first // 2 - padding, stop // 2 + 1
    stride = convolution.conv.stride[0]
    return first * stride - padding, (stop - 1) * stride + padding + 1


def _padding(convolution: _AnyConvolution) -> int:
    """Pixels at each side of the source, and rows above it."""
    if isinstance(convolution, Convolution):
        return convolution.padding
    return 1 if isinstance(convolution, ResizeConvolution) else 0


def _output_side(convolution: _AnyConvolution, side: int) -> int:
    if isinstance(convolution, Convolution):
        return -(-side // convolution.conv.stride[0])
    return 2 * side


def _transposed(net: TransformNet) -> TransformNet:
    """A network that makes of a transposed photo the transposed picture."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            swapped = module.weight.detach().transpose(2, 3)
            module.weight.data = swapped.contiguous(memory_format=torch.channels_last)
    return net


# --- The store ----------------------------------------------------------------------------------


class _Store:
    """Lines of float32 values: a tensor, or a file on a disk without a name.

    A file is read and written, not mapped: so what it takes of the memory is the system's cache
    alone, and a full disk is an error instead of a signal.
    """

    def __init__(self, num_lines: int, length: int, place: torch.device | Path) -> None:
        self._length = length
        self._lines: Tensor | None = None
        self._file: BinaryIO | None = None
        if isinstance(place, Path):
            self._file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115
        else:
            self._lines = torch.empty(num_lines, length, device=place)

    def read(self, lines: range, length: int) -> Tensor:
        """The first values of some lines: (lines, length), a copy to work on."""
        if self._lines is not None:
            return self._lines[lines.start : lines.stop : lines.step, :length].clone()
        assert self._file is not None
        values = torch.empty(len(lines), length)
        for line, place in zip(lines, values.numpy(), strict=True):
            self._file.seek(4 * self._length * line)
            self._file.readinto(place)  # type: ignore[attr-defined]
        return values

    def write(self, lines: range, values: Tensor) -> None:
        """Put (lines, length) at the beginning of some lines."""
        if self._lines is not None:
            self._lines[lines.start : lines.stop : lines.step, : values.shape[1]] = values
            return
        assert self._file is not None
        for line, place in zip(lines, values.cpu().contiguous().numpy(), strict=True):
            self._file.seek(4 * self._length * line)
            self._file.write(place)

    def close(self) -> None:
        """Give the memory, or the disk, back."""
        self._lines = None
        if self._file is not None:
            with suppress(OSError):  # of a full disk, which has been told already
                self._file.close()


class _Plane(NamedTuple):
    """Features in a store: every `step`-th line from `start` on is a row."""

    store: _Store
    start: int
    step: int
    height: int
    width: int
    channels: int
    device: torch.device

    def rows(self) -> _Rows:
        """What was written."""
        return _Rows(self.height, self.width, self._read)

    def write(self, first: int, rows: Tensor) -> None:
        """(rows, width, C), from row `first` on."""
        self.store.write(self._lines(first, first + len(rows)), rows.flatten(1))

    def _read(self, first: int, stop: int) -> Tensor:
        values = self.store.read(self._lines(first, stop), self.width * self.channels)
        return values.to(self.device).view(stop - first, self.width, self.channels)

    def _lines(self, first: int, stop: int) -> range:
        return range(self.start + self.step * first, self.start + self.step * stop, self.step)
