"""The transform network on a photo of any size in little memory: the same picture, band by band.

Independent tiles would change the picture: every instance norm needs the mean and the variance of
its channels over the whole photo. Nothing else depends on the whole. So the photo goes through the
network in sweeps from top to bottom, band by band, and each sweep ends with the statistics with
which the next one normalizes:

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

Only the first convolution and the last up-sampling are computed twice. Where bands meet, source
rows that the next band needs too are kept; only the intermediate results of a kernel are computed
again.

All features between sweeps lie in one `FeatureStore` of 8 * width float32 values per 4 x 4 pixels
(64 bytes per pixel for the usual width of 32). The stream of the residual blocks and its branch, at
a quarter of the size, fill it together; the features at half the size fill it alone. A sweep
overwrites what it reads, some rows behind. Of the photo and the result, only bands become floats.

Deliberately not here: the choice of the band's height and of the store's place, which is made in
`stylizing.memory`.
"""

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fast_style.networks.fast_transform import Execution, choose_execution, convolve_padded
from fast_style.networks.feature_store import FeatureStore, Plane
from fast_style.networks.grain import grain_pattern
from fast_style.networks.transform_net import (
    AnyConvolution,
    ChannelStatistics,
    InstanceNorm,
    NormalizedStage,
    ResidualBlock,
    TransformNet,
    to_picture_range,
)
from fast_style.settings.fields import SMALLEST_SIDE

SHORTEST_BAND = 4
"""Rows of the shortest band: one row at a quarter of the size gives four."""

# Peak memory of a band on a CPU, in float32 values per pixel of its rows and `_MORE_ROWS` around
# it: a constant, and a part for each channel of the first convolution. The weights count twice
# more: transposed for wide photos, and repacked by the convolution library. The rest is a margin.
# The estimate is at least the peak in every row that benchmarks/huge_photo.py measured, with freed
# memory kept and without.
_VALUES_PER_PIXEL = 100
_VALUES_PER_PIXEL_AND_WIDTH = 6
_MORE_ROWS = 8
_BYTES_PER_SQUARE_OF_WIDTH = 13_000
_MORE_BYTES = 8_000_000


class Band(NamedTuple):
    """A finished part of the picture.

    Attributes:
        left: its first column in the picture.
        top: its first row in the picture.
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
    grain: float = 0.0,
) -> Generator[float, None, None]:
    """Stylize `photo` band by band; yields the share of the work that is done after each band.

    Args:
        net: on the device that is to compute, in float32.
        photo: mode RGB.
        write: gets the picture in parts, all of them in the last sweep.
        band_rows: the height of a band, at any scale; a multiple of `SHORTEST_BAND`.
        storage: holds the features between sweeps: a device, or a folder for a temporary file. The
            file has no name where the system allows that, and is removed in any case.
        grain: the standard deviation of the `grain_pattern` that is added to the photo, of 1.

    Raises:
        OSError: the disk is full.
    """
    assert band_rows > 0, band_rows
    assert band_rows % SHORTEST_BAND == 0, band_rows
    # Memory grows with the length of a row, so bands lie across the photo's shorter side.
    is_wide = photo.width > photo.height
    if is_wide:
        net = _transposed(net)

    def write_rows(first: int, rows: Tensor) -> None:
        if is_wide:
            write(Band(first, 0, rows.permute(2, 1, 0)))
        else:
            write(Band(0, first, rows.permute(2, 0, 1)))

    device = net.to_rgb.conv.weight.device
    pixels = _pixels(photo, is_wide=is_wide, device=device, grain=grain)
    shape = _store_shape(*photo.size, net.to_rgb.conv.in_channels)
    num_sweeps = 6 + 2 * len(net.residual)
    num_done = 0
    with closing(FeatureStore(*shape, storage)) as store:
        for share in _sweeps(net, pixels, store, write_rows, sorted(photo.size), band_rows):
            yield (num_done + share) / num_sweeps  # counts all sweeps as equally long
            num_done += share == 1


def band_bytes(height: int, width: int, *, net_width: int, band_rows: int) -> int:
    """Upper estimate of the memory that computing one band takes, in bytes."""
    values_per_pixel = _VALUES_PER_PIXEL + _VALUES_PER_PIXEL_AND_WIDTH * net_width
    row_bytes = 4 * values_per_pixel * max(SMALLEST_SIDE, min(height, width))
    weights = _BYTES_PER_SQUARE_OF_WIDTH * net_width**2
    return _MORE_BYTES + weights + row_bytes * (_MORE_ROWS + band_rows)


def highest_band(height: int, width: int, *, net_width: int, most_bytes: float) -> int:
    """Rows of the highest band within `most_bytes`, at most the whole photo; 0 if none fits."""
    one = band_bytes(height, width, net_width=net_width, band_rows=1)
    two = band_bytes(height, width, net_width=net_width, band_rows=2)
    most_rows = int(1 + (most_bytes - one) // (two - one)) // SHORTEST_BAND * SHORTEST_BAND
    all_rows = -(-max(SMALLEST_SIDE, height, width) // SHORTEST_BAND) * SHORTEST_BAND
    return max(0, min(most_rows, all_rows))


def storage_bytes(height: int, width: int, *, net_width: int) -> int:
    """Size of the features that are stored between sweeps, in bytes."""
    num_lines, length = _store_shape(width, height, net_width)
    return 4 * num_lines * length


def _store_shape(width: int, height: int, net_width: int) -> tuple[int, int]:
    """Lines, and values in each: two are a row of 8w channels at a quarter of the size."""
    quarter_width, quarter_height = (
        -(-max(SMALLEST_SIDE, side) // 4) for side in sorted((width, height))
    )
    return 2 * quarter_height, 4 * net_width * quarter_width


# --- The sweeps ---------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """Features that are computed when they are read: from top to bottom, every row once.

    Attributes:
        height: number of rows.
        width: pixels of a row.
        read: (first, stop) to (stop - first, width, C). Channels come last, as they lie in memory.
    """

    height: int
    width: int
    read: Callable[[int, int], Tensor]


_Sweep = Generator[float, None, ChannelStatistics]
"""Yields the share of one sweep that is done; returns the statistics of its rows."""


def _sweeps(
    net: TransformNet,
    photo: _Rows,
    store: FeatureStore,
    write: Callable[[int, Tensor], None],
    size: Sequence[int],
    band_rows: int,
) -> Iterator[float]:
    """Do all sweeps; yields the share of the current one that is done, 1 at the end of each.

    Args:
        net: in the direction of the sweeps.
        photo: its pixels.
        store: holds the features between sweeps.
        write: gets the first row, and rows of the result: (rows, width, 3).
        size: width and height of the result.
        band_rows: number of rows that are computed at a time.
    """
    features, stream = yield from _sweep_down(net.down, photo, store, band_rows)
    features = yield from _sweep_residual(net.residual, features, stream, band_rows)
    rgb = _convolved((yield from _sweep_up(net.up, features, store, band_rows)), net.to_rgb)
    width, height = size
    end = -(-height // 4) * 4  # the network rounds up to multiples of 4; the excess is cut off
    for start in range(0, end, band_rows):
        stop = min(start + band_rows, end)
        levels = rgb.read(start, stop)[: height - start, :width]
        write(start, to_picture_range(levels, net.tanh_scale))
        yield stop / end


def _sweep_down(
    stages: nn.Sequential, photo: _Rows, store: FeatureStore, band_rows: int
) -> Generator[float, None, tuple[_Rows, Plane]]:
    """The first three sweeps; returns the features at a quarter of the size, and their plane."""
    (conv1, norm1), (conv2, norm2), (conv3, norm3) = (_parts(stage) for stage in stages)
    statistics = yield from _sweep(_convolved(photo, conv1), band_rows)

    # Rows can be read only once, so the first convolution is computed again.
    second = _convolved(_normalized(_convolved(photo, conv1), norm1, statistics), conv2)
    plane = _plane_for(second, conv2, store)
    statistics = yield from _sweep(second, band_rows, plane)

    third = _convolved(_normalized(_stored(plane), norm2, statistics), conv3)
    stream = _plane_for(third, conv3, store, step=2)
    statistics = yield from _sweep(third, band_rows, stream)
    return _normalized(_stored(stream), norm3, statistics), stream


def _sweep_residual(
    blocks: nn.Sequential, features: _Rows, stream: Plane, band_rows: int
) -> Generator[float, None, _Rows]:
    """Two sweeps for each block; returns the features behind the last one."""
    branch = stream._replace(start=1)
    for block in blocks:
        assert isinstance(block, ResidualBlock)
        conv, norm = _parts(block.first)
        first = _convolved(_written(features, stream), conv)
        statistics = yield from _sweep(first, band_rows, branch)
        second = _convolved(_normalized(_stored(branch), norm, statistics), block.second)
        statistics = yield from _sweep(second, band_rows, branch)
        residual = _normalized(_stored(branch), block.norm, statistics, relu=False)
        features = _added(_stored(stream), residual)
    return features


def _sweep_up(
    stages: nn.Sequential, features: _Rows, store: FeatureStore, band_rows: int
) -> Generator[float, None, _Rows]:
    """Two sweeps, one for each up-sampling; returns the features at full size."""
    (up1, norm1), (up2, norm2) = (_parts(stage) for stage in stages)
    first = _convolved(features, up1)
    plane = _plane_for(first, up1, store)
    statistics = yield from _sweep(first, band_rows, plane)

    half = _normalized(_stored(plane), norm1, statistics)
    full_statistics = yield from _sweep(_convolved(half, up2), band_rows)
    # Computed again, because the features at full size would not fit into the store.
    half = _normalized(_stored(plane), norm1, statistics)
    return _normalized(_convolved(half, up2), norm2, full_statistics)


def _sweep(rows: _Rows, band_rows: int, plane: Plane | None = None) -> _Sweep:
    """Compute all rows, `band_rows` at a time, and write them to `plane` if there is one."""
    merged = Moments()
    for first in range(0, rows.height, band_rows):
        stop = min(first + band_rows, rows.height)
        band = rows.read(first, stop)
        merged.add(_as_features(band))
        if plane is not None:
            plane.write(first, band)
        yield stop / rows.height
    return merged.statistics()


class Moments:
    """Mean and variance of channels whose pixels come in parts.

    Parts are merged as by Chan, Golub and LeVeque 1979, in float64. The textbook's E[x^2] - E[x]^2
    loses all digits where the mean is much larger than the deviation.
    """

    def __init__(self) -> None:
        self._num_pixels = 0
        self._mean = torch.zeros((), dtype=torch.float64, device="cpu")
        self._squares = torch.zeros_like(self._mean)  # sum of (x - mean)^2

    def add(self, features: Tensor) -> None:
        """Add the pixels of (1, C, H, W)."""
        num_pixels = features.shape[2] * features.shape[3]
        found = choose_execution(features.device).statistics(features)
        mean, variance = (part.cpu().double() for part in found)  # some GPUs lack float64
        share = num_pixels / (self._num_pixels + num_pixels)
        difference = mean - self._mean
        self._squares = (
            self._squares + variance * num_pixels + difference**2 * (share * self._num_pixels)
        )
        self._mean = self._mean + difference * share
        self._num_pixels += num_pixels

    def statistics(self) -> ChannelStatistics:
        """Mean and variance of all pixels added so far, on the CPU."""
        return ChannelStatistics(self._mean.float(), (self._squares / self._num_pixels).float())


# --- Rows computed from rows --------------------------------------------------------------------


def _parts(stage: nn.Module) -> tuple[AnyConvolution, InstanceNorm]:
    assert isinstance(stage, NormalizedStage)
    return stage.convolution, stage.norm


def _plane_for(
    rows: _Rows, convolution: AnyConvolution, store: FeatureStore, *, step: int = 1
) -> Plane:
    """The plane for the rows of a convolution: in all lines of the store, or in every second."""
    layer = convolution.layer
    return Plane(store, 0, step, rows.height, rows.width, layer.out_channels, layer.weight.device)


def _stored(plane: Plane) -> _Rows:
    return _Rows(plane.height, plane.width, plane.read)


def _as_features(rows: Tensor) -> Tensor:
    return rows.permute(2, 0, 1)[None]  # (1, C, H, W), channels_last


def _as_rows(features: Tensor) -> Tensor:
    return features[0].permute(1, 2, 0)  # (H, W, C)


def _execution_on(device: torch.device) -> Execution:
    """The kernels that compute bands."""
    # Column by column, the first convolution would hold nine copies of the photo's band.
    return choose_execution(device)._replace(first_by_columns=False)


def _pixels(photo: Image.Image, *, is_wide: bool, device: torch.device, grain: float) -> _Rows:
    """The photo's pixels in [0, 1], transposed if it is wide, padded to `SMALLEST_SIDE`.

    Grain is added before the padding.
    """
    width, height = photo.size
    if is_wide:
        width, height = height, width
    padded_height, padded_width = (max(SMALLEST_SIDE, side) for side in (height, width))

    def lines(pixels: Tensor) -> Tensor:
        return pixels.transpose(0, 1) if is_wide else pixels

    def read(first: int, stop: int) -> Tensor:
        begin, end = min(first, height - 1), min(stop, height)
        box = (begin, 0, end, width) if is_wide else (0, begin, width, end)
        pixels = torch.from_numpy(np.array(photo.crop(box))).to(device)
        rows = lines(pixels).contiguous().float().div_(255)
        if grain:
            left, top, right, bottom = box
            pattern = grain_pattern(top, left, bottom - top, right - left).mul_(grain)
            rows += lines(pattern.permute(1, 2, 0).to(device))
        missing = padded_width - width, stop - first - len(rows)
        if not any(missing):
            return rows
        repeated = F.pad(_as_features(rows), (0, missing[0], 0, missing[1]), mode="replicate")
        return _as_rows(repeated)

    return _Rows(padded_height, padded_width, read)


def _normalized(
    rows: _Rows, norm: InstanceNorm, statistics: ChannelStatistics, *, relu: bool = True
) -> _Rows:
    device = norm.weight.device
    on_device = ChannelStatistics(*(part.to(device) for part in statistics))
    norm_relu_ = _execution_on(device).norm_relu_

    def read(first: int, stop: int) -> Tensor:
        features = _as_features(rows.read(first, stop))
        return _as_rows(norm_relu_(features, norm, relu=relu, statistics=on_device))

    return rows._replace(read=read)


def _added(rows: _Rows, residual: _Rows) -> _Rows:
    return rows._replace(
        read=lambda first, stop: residual.read(first, stop).add_(rows.read(first, stop))
    )


def _written(rows: _Rows, plane: Plane) -> _Rows:
    """The same rows, each band of which is also written to a plane when it is read."""

    def read(first: int, stop: int) -> Tensor:
        band = rows.read(first, stop)
        plane.write(first, band)
        return band

    return rows._replace(read=read)


def _convolved(rows: _Rows, convolution: AnyConvolution) -> _Rows:
    """The result of any of the three convolutions; rows of an up-sampling are read in pairs."""
    window = _Window(rows, convolution)
    execution = _execution_on(convolution.layer.weight.device)

    def read(first: int, stop: int) -> Tensor:
        features = _as_features(window.read(first, stop))
        result = convolve_padded(features, convolution, execution)
        # A transposed convolution also computes two rows of the next band or beyond the border.
        return _as_rows(result[..., : stop - first, :])

    height, width = (convolution.output_side(side) for side in (rows.height, rows.width))
    return _Rows(height, width, read)


class _Window:
    """The source rows, with their border, on which a band of a convolution's result depends.

    Rows that the next band needs too are kept, so that every source row is computed once.
    """

    def __init__(self, rows: _Rows, convolution: AnyConvolution) -> None:
        self._rows = rows
        self._convolution = convolution
        self._num_read = 0
        self._kept: Tensor | None = None

    def read(self, first: int, stop: int) -> Tensor:
        """Source rows for rows [first, stop) of the result: (rows, width + 2 * padding, C)."""
        begin, end = self._convolution.source_rows(first, stop)
        last = min(end, self._rows.height)
        left = self._convolution.padding
        right = left + self._rows.width
        layer = self._convolution.layer
        window = layer.weight.new_empty(end - begin, right + left, layer.in_channels)
        if self._kept is not None:
            window[: len(self._kept)] = self._kept
        if last > self._num_read:
            new = window[self._num_read - begin : last - begin]
            new[:, left:right] = self._rows.read(self._num_read, last)
            self._fill_border(new.transpose(0, 1), left, right)
            self._num_read = last
        self._fill_border(window, max(0, -begin), last - begin)
        next_begin, _ = self._convolution.source_rows(stop, stop + 2)
        self._kept = window[next_begin - begin :].clone()
        return window

    def _fill_border(self, lines: Tensor, first: int, stop: int) -> None:
        """Fill the lines before `first` and from `stop` on, from those between."""
        border = self._convolution.border
        if border == "zeros":
            lines[:first] = lines[stop:] = 0
            return
        num_skipped = 1 if border == "reflect" else 0
        for distance in range(1, first + 1):
            lines[first - distance] = lines[first + distance - 1 + num_skipped]
        for distance in range(1, len(lines) - stop + 1):
            lines[stop + distance - 1] = lines[stop - distance - num_skipped]


def _transposed(net: TransformNet) -> TransformNet:
    """A network that turns a transposed photo into the transposed picture."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            swapped = module.weight.detach().transpose(2, 3)
            module.weight.data = swapped.contiguous(memory_format=torch.channels_last)
    return net
