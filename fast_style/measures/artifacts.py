"""Measures of the artifacts that people complain about in fast style transfer, one number each.

They are the weave of up-sampling (the checkerboard artifacts of Odena et al. 2016), a border that
differs from the middle, blotches where the photo is flat, and clipped colors; `blots` has one more.
Each docstring says what is normal.
Neither beauty nor the loss is measured here, and nothing is repaired.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_style.losses.perceptual import (
    PerceptualLoss,
    content_distance,
    gram_matrix,
    style_distance,
)

# Two stages of x2 up-sampling leave patterns of period 2 and 4 pixels.
_PERIOD = 4
# Patterns are measured in windows of so many pixels. With 64, a photo has fewer flat windows, and
# of a pattern of 3 levels in its flat fifth 1.4 were found instead of 2.2.
_WEAVE_WINDOW = 32
# People see a pattern where the photo is flat: in this share of the windows, those of the least
# contrast.
_FLAT_SHARE = 1 / 5
# The background of a spectral peak is estimated from bins at these distances: a Hann window smears
# a sinusoid over one bin on either side, and 6 bins away a photo's power is still about the same.
# Largest distances of 4 and 10 gave the same on photos.
_BACKGROUND_DISTANCES = range(2, 7)
# Between two peaks, side / 4 bins apart, there must be a bin at distance 2 from both.
MIN_SIDE_TO_SEPARATE_PEAKS = _PERIOD * 2 * _BACKGROUND_DISTANCES.start

# Width of the border: this share of the shorter side, at least so many pixels.
_BORDER_SHARE = 1 / 16
_SMALLEST_BORDER = 8
# The factor between pixels and VGG's coarsest features. Mirroring a multiple of it leaves the
# positions of the features in place.
_COARSEST_SCALE = 16
_MIRRORED = 2 * _COARSEST_SCALE

_BLOTCH_CELL = 16  # pixels: strokes and textures average out in such a cell, blotches do not
_NOISE_LEVELS = 1.0  # of 255: about a camera's noise in a bright sky
_PATCH = 8  # pixels: side of a square of the frame around the probes


class Weave(NamedTuple):
    """Patterns that up-sampling leaves, in levels of 0..255: (N,), float32, for each period."""

    period_2: Tensor
    period_4: Tensor


def weave_strengths(pictures: Tensor, photos: Tensor) -> Weave:
    """Root mean squares of what repeats every 2 and every 4 pixels where the photo is flat.

    They are measured in windows of 32 x 32 pixels, the fifth of all in which the photo has the
    least contrast. In the spectrum of such a window, multiplied by a Hann window, the patterns are
    peaks at multiples of 1/4 cycle per pixel, the 15 of them other than 0. From each peak's power,
    the power of the picture's own content at this frequency is subtracted: the median of the
    neighboring bins in its row, or in its column if that is larger, because straight edges fill
    whole rows and columns. Of each peak, the median over the windows is taken, so an edge in some
    windows counts nothing. The rest is averaged over the channels and summed: the three peaks at
    multiples of 1/2 are of period 2, the other twelve of period 4. So a checkerboard of +-a gives
    a.

    The spectrum of the whole picture hides a pattern that is only in flat areas, and one that
    changes its sign from place to place. At 256 pixels, of +-3 levels in the flat fifth of 50
    photos it shows 0.4 to 0.5, and these windows 2.2; of +-3 levels with a random sign in every
    square of 32 pixels at most 0.4, and these windows 2.6 to 2.9. A pattern only where the photo is
    rough is hardly seen here (0.7 of 3); strokes hide it from people, too. The unit is levels and
    not peak over background: that ratio reaches 20 on smooth photos without any artifact.

    Normal: a mean over the photos below 0.5; above 1, a grid is visible in skies and faces.
    Measured: period 2: 0 on all of 50 photos of 256 pixels, and 0 to 0.1 on what four trained
    networks make of them. Period 4: 0.12 on the photos (mean; 0.8 at most), 1.3 to 3.0 on what the
    four networks make of them, at most 0.6 on 32 pictures of L-BFGS. Random weights have 8 to 16 of
    either period with transposed convolutions, below 0.1 with resizing. A single photo of 96 to 192
    pixels may have 1 to 5 by chance or from fine texture; the means are 0.1 to 0.2 from 128 pixels
    on, and 0.6 at 64 and 96, where there are few windows.

    Args:
        pictures: (N, 3, H, W) in [0, 1].
        photos: (N, 3, H, W), the photos that they show.

    Returns:
        NaN if a side is below `MIN_SIDE_TO_SEPARATE_PEAKS`. Below 32 pixels, a window is as large
        as the shorter side.
    """
    side = min(_WEAVE_WINDOW, min(pictures.shape[-2:]) // _PERIOD * _PERIOD)
    if side < MIN_SIDE_TO_SEPARATE_PEAKS:
        unknown = pictures.new_full((len(pictures),), math.nan, dtype=torch.float32)
        return Weave(unknown, unknown)
    windows = _flat_windows(pictures.float() * 255, photos.float(), side)  # (N, n, 3, S, S)
    hann = _hann_window(side, windows)
    # The Hann window sums to 1, so the powers of the peaks sum to the pattern's mean square.
    spectra = torch.fft.fft2(windows * hann.view(-1, 1) * hann)
    power = (spectra.real.square() + spectra.imag.square()).mean(dim=2).flatten(0, 1)  # (N n, S, S)
    background = torch.maximum(_background(power, axis=1), _background(power, axis=2))
    excess = (_peaks(power) - background).view(len(pictures), -1, _PERIOD, _PERIOD)
    excess = _median(excess, dim=1).clamp(min=0)  # (N, 4, 4)
    excess[:, 0, 0] = 0  # frequency 0 is the mean color
    period_2 = excess[:, ::2, ::2].sum(dim=(1, 2))
    excess[:, ::2, ::2] = 0
    return Weave(period_2.sqrt(), excess.sum(dim=(1, 2)).sqrt())


def border_ratio(loss: PerceptualLoss, outputs: Tensor, photos: Tensor) -> Tensor:
    """The objective in a band along the border, divided by the objective in the middle.

    The band is 1/16 of the shorter side wide, at least 8 pixels. The middle is a centered rectangle
    with the picture's proportions and about as many positions as the band, because a Gram matrix of
    fewer positions is less certain. Both objectives are content plus style, without total
    variation, with means and Gram matrices over these positions only. Pictures are mirrored at
    their borders before the loss network sees them, so its own padding is not measured.
    ``relative`` normalization divides both regions by the energy of the whole photo and that of
    the style picture.

    Normal: about 1, but the photo's content at its border matters as much as the artifact: 15
    results of three good networks had 0.4 to 1.25, median 0.85. A frame of 12 pixels at half the
    brightness raised it 1.3 to 3.3 times. So take the median over many photos, worry above 1.3, and
    compare networks on the same photos only. A more sensitive comparison is with a picture without
    a border, a photo stylized with 32 more pixels on every side, which are then cut off: 0.9 to 1.6
    times its ratio for the same 15 results, median 1.14.

    Args:
        loss: the objective; of several style pictures, only the first is used.
        outputs: (N, 3, H, W) in [0, 1].
        photos: (N, 3, H, W) in [0, 1].

    Returns:
        (N,), float32; NaN if a layer has no position left inside the band, which holds for every
        picture up to 16 pixels, and for deep layers up to 23.
    """
    if min(photos.shape[-2:]) <= 2 * _SMALLEST_BORDER:
        return photos.new_full((len(photos),), math.nan, dtype=torch.float32)
    is_relative = loss.normalization == "relative"
    layers = list(dict.fromkeys([*loss.content_layers, *loss.style_layers]))
    features = _mirrored_features(loss, outputs, layers)
    targets = _mirrored_features(loss, photos, list(loss.content_layers))
    border = torch.zeros(len(outputs), device=outputs.device)
    middle = torch.zeros_like(border)
    for layer, weight in loss.content_layers.items():
        scale = torch.full_like(border, loss.content_weight * weight)  # (N,)
        if is_relative:
            scale = scale / targets[layer].square().mean(dim=(1, 2, 3))
        output, target = _split(features[layer], photos), _split(targets[layer], photos)
        border += scale * content_distance(output.border, target.border)
        middle += scale * content_distance(output.middle, target.middle)
    for layer, weight in loss.style_layers.items():
        gram = loss.style_grams(layer)[0].float()  # (C, C)
        scale = torch.full_like(border, loss.style_weight * weight)
        if is_relative:
            scale = scale / gram.square().sum()
        output = _split(features[layer], photos)
        border += scale * style_distance(gram_matrix(output.border), gram)
        middle += scale * style_distance(gram_matrix(output.middle), gram)
    return border / middle


def flat_probes(size: int = 256) -> Tensor:
    """Pictures of one color each for `blotchiness`: (11, 3, size, size) in [0, 1].

    The colors are the corners of the cube from 0.15 to 0.85 and three greys, 0.25, 0.5 and 0.75.
    The flat part has Gaussian noise of one level. A frame, 1/8 of the side wide, holds squares of 8
    pixels in random colors. Both are needed to imitate a sky in a photo: with reflection padding
    and instance norm, an exactly flat picture becomes one color, and noise alone becomes full
    strokes.

    Args:
        size: both sides in pixels, a multiple of 32, at least 64.
    """
    assert size % 32 == 0, size
    assert size >= 64, size
    generator = torch.Generator().manual_seed(0)
    corners = [(r, g, b) for r in (0.15, 0.85) for g in (0.15, 0.85) for b in (0.15, 0.85)]
    colors = torch.tensor([*corners, *((grey,) * 3 for grey in (0.25, 0.5, 0.75))])
    noise = torch.randn(3, size, size, generator=generator) * (_NOISE_LEVELS / 255)
    patches = torch.rand(1, 3, size // _PATCH, size // _PATCH, generator=generator)
    probes = F.interpolate(patches, scale_factor=float(_PATCH)).repeat(len(colors), 1, 1, 1)
    inside = slice(size // 8, size - size // 8)
    flat = colors.view(-1, 3, 1, 1) + noise  # (11, 3, S, S)
    probes[..., inside, inside] = flat[..., inside, inside]
    return probes


def blotchiness(stylize: Callable[[Tensor], Tensor], *, size: int = 256) -> Tensor:
    """How unevenly a network paints each of `flat_probes`, in levels of 0..255: (11,).

    Stylizes the probes one by one, takes the central half of each side, mostly beyond the frame's
    influence, averages over cells of 16 x 16 pixels, so that strokes do not count, and takes the
    standard deviation over the cells: root mean square over the channels.

    Normal: a mean over the probes of 1.5 to 4 levels at 256 pixels, at most 6 in a single probe.
    Measured: 1.9, 1.9 and 3.1 for three of our styles, worst probes 3 to 5; random weights 0.7, the
    probes themselves 0.06. Clouds everywhere, as all of these networks paint them on noise without
    a frame, are 12 to 34.

    Args:
        stylize: a picture (1, 3, H, W) in [0, 1] to the same shape; its result is clamped.
        size: see `flat_probes`; the cells have 16 pixels at every size.
    """
    with torch.no_grad():
        results = torch.cat([stylize(probe[None]).float().cpu() for probe in flat_probes(size)])
    inside = slice(size // 4, size - size // 4)
    cells = F.avg_pool2d(
        results.clamp(0, 1)[..., inside, inside] * 255, _BLOTCH_CELL
    )  # (11, 3, S/32, S/32)
    return cells.var(dim=(2, 3), correction=0).mean(dim=1).sqrt()


def clipped_fraction(outputs: Tensor) -> Tensor:
    """The fraction of channel values at or below 0, or at or above 1: (N,), float32 in [0, 1].

    Where many neighbors are clipped, details are lost. Normal: up to 0.05. Measured: five photos 0
    to 0.035, three of our styles on them 0.003 to 0.02, 0.01 to 0.02 and, ink on white paper, 0.035
    to 0.05.

    Args:
        outputs: (N, 3, H, W), clamped to [0, 1] or not.
    """
    return ((outputs <= 0) | (outputs >= 1)).float().mean(dim=(1, 2, 3))


def _hann_window(side: int, like: Tensor) -> Tensor:
    """A Hann window whose sum is 1, with the dtype and the device of `like`: (side,)."""
    window = torch.hann_window(side, dtype=like.dtype, device=like.device)
    return window / window.sum()


def _flat_windows(pictures: Tensor, photos: Tensor, side: int) -> Tensor:
    """The windows of the pictures in which the photos have the least contrast: (N, n, 3, S, S).

    Args:
        pictures: (N, 3, H, W).
        photos: (N, 3, H, W).
        side: S; the windows overlap by half of it.
    """
    stride = side // 2
    means, squares = (
        F.avg_pool2d(F.avg_pool2d(part, stride), 2, stride=1) for part in (photos, photos.square())
    )
    contrast = (squares - means.square()).mean(dim=1)  # (N, rows, columns)
    num_flat = max(1, round(_FLAT_SHARE * contrast[0].numel()))
    flattest = contrast.flatten(1).topk(num_flat, largest=False).indices  # (N, n)
    rows, columns = flattest // contrast.shape[2], flattest % contrast.shape[2]
    windows = pictures.unfold(2, side, stride).unfold(3, side, stride)  # a view
    return windows[torch.arange(len(pictures)).view(-1, 1), :, rows, columns]


def _median(values: Tensor, dim: int) -> Tensor:
    """The median, of an even number the lower one.

    `Tensor.median` has no deterministic form on a GPU, which `train.deterministic` asks for.
    """
    return values.sort(dim=dim).values.select(dim, (values.shape[dim] - 1) // 2)


def _peaks(power: Tensor) -> Tensor:
    """The power at multiples of 1/4 cycle per pixel: (N, H, W) to (N, 4, 4)."""
    height, width = power.shape[-2:]
    return power[:, :: height // _PERIOD, :: width // _PERIOD]


def _background(power: Tensor, axis: int) -> Tensor:
    """The expected power at the peaks without a pattern: (N, 4, 4).

    The power of noise is distributed exponentially, with a mean of median / log(2).
    """
    farthest = power.shape[axis] // _PERIOD - _BACKGROUND_DISTANCES.start  # else the next peak's
    distances = [distance for distance in _BACKGROUND_DISTANCES if distance <= farthest]
    neighbors = [
        _peaks(power.roll(sign * distance, axis)) for distance in distances for sign in (-1, 1)
    ]
    return _median(torch.stack(neighbors), dim=0) / math.log(2)


class _Regions(NamedTuple):
    """Features at the positions of a region, as pictures of one row: (N, C, 1, positions)."""

    border: Tensor
    middle: Tensor


def _mirrored_features(
    loss: PerceptualLoss, pictures: Tensor, layers: list[str]
) -> dict[str, Tensor]:
    """Features of pictures that continue mirrored beyond their border, float32, cut to the picture.

    Args:
        loss: has the loss network.
        pictures: (N, 3, H, W) in [0, 1].
        layers: names of the layers.
    """
    height, width = pictures.shape[-2:]
    # Reflection needs more pixels than it adds, so a tiny picture gets a smaller margin.
    largest = (min(height, width) - 1) // _COARSEST_SCALE * _COARSEST_SCALE
    margin = min(_MIRRORED, largest)
    mirrored = F.pad(pictures.float(), (margin,) * 4, mode="reflect")
    cut = {}
    for layer, features in loss.loss_network(mirrored, layers).items():
        # Pooling rounds down, so the quotient may be slightly above the power of two.
        scale = 2 ** round(math.log2(mirrored.shape[-2] / features.shape[-2]))
        first = margin // scale
        rows, columns = slice(first, first + height // scale), slice(first, first + width // scale)
        cut[layer] = features[..., rows, columns].float()
    return cut


def _split(features: Tensor, photos: Tensor) -> _Regions:
    """The features (N, C, h, w) of `photos` in the band along the border, and in the middle."""
    height, width = features.shape[-2:]
    border_share = max(_BORDER_SHARE, _SMALLEST_BORDER / min(photos.shape[-2:]))
    band = max(1, round(border_share * min(height, width)))
    is_border = torch.ones(height, width, dtype=torch.bool, device=features.device)
    is_border[band : height - band, band : width - band] = False
    # As many positions as the border has, or all that the middle has.
    side_share = (int(is_border.sum()) / max(1, is_border.numel())) ** 0.5
    rows = max(0, min(height - 2 * band, round(side_share * height)))
    columns = max(0, min(width - 2 * band, round(side_share * width)))
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = features[..., top : top + rows, left : left + columns].flatten(2)
    return _Regions(features[..., is_border].unsqueeze(2), middle.unsqueeze(2))
