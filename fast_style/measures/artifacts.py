"""How strongly a result shows the faults that people complain about in fast style transfer.

Four of them, each one number: the checkerboard of up-sampling, a border that looks different from
the middle, blotches where the photo is flat, and colors beyond black and white. Each docstring says
what is normal. Whether a style is beautiful, or a loss small, is not measured here, and nothing is
repaired.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_style.losses.perceptual import content_distance, gram_matrix, style_distance

# Two stages of x2 up-sampling repeat their faults every 2 and every 4 pixels.
_PERIOD = 4
# A Hann window smears a sinusoid over its own spectral bin and one on either side; 2 to 6 is near
# enough to be as bright as the peak would be without a pattern. 4 and 10 gave the same on photos.
_NEIGHBORS = range(2, 7)
SMALLEST_SIDE = 16  # with less, the neighbors at a distance of 2 belong to the next peak

# Width of what counts as the border: share of the shorter side, but so many pixels at least.
_BORDER_SHARE = 1 / 16
_SMALLEST_BORDER = 8
# A multiple of the coarsest scale that VGG has, so that its grid of positions stays in place.
_COARSEST_SCALE = 16
_MIRRORED = 2 * _COARSEST_SCALE

_BLOTCH_CELL = 16  # pixels; strokes and textures average out in it, blotches do not
_NOISE_LEVELS = 1.0  # about what a camera has in a bright sky
_PATCH = 8  # pixels, of the patchwork around the probes


class Blotches(NamedTuple):
    """What `blotches` found, and the pictures to show for it.

    levels: (P,), the standard deviation of every probe's blotches in levels of 0..255.
    probes: (P, 3, S, S) in [0, 1], as given to the network.
    results: (P, 3, S, S), as it gave them back, clamped to [0, 1].
    """

    levels: Tensor
    probes: Tensor
    results: Tensor


def checkerboard(pictures: Tensor) -> Tensor:
    """Root mean square of the pattern that repeats every 4 or 2 pixels, in levels of 0..255.

    In the spectrum of a Hann-windowed picture, such a pattern is a peak at multiples of 1/4 cycle
    per pixel, the 15 of them other than 0. Of each peak's power the power is subtracted that the
    picture itself has there: the median of the neighboring bins in its row, or in its column if
    that is larger, for straight edges shine along whole rows and columns. What is left is added
    up over the peaks and averaged over the channels. So a checkerboard of +-a gives a.

    The unit is levels and not peak over background: that ratio reaches 20 on photos without any
    fault, where they are smooth, and grows with the picture's size.

    Normal: below 1, for 256 pixels and more. Measured: 0.1 (median) and 0.75 (largest) on 50
    photos of 320 pixels; 0.2 and 0.6 on their 256 x 256 centers. What is left of them is chance and
    JPEG, whose blocks of 8 repeat at these frequencies too: above the neighbors it has little at
    quality 88. Chance goes with 1 / side: at 128 pixels photos reach 1.1. Above 2 it is a fault, to
    be seen as a grid in skies and faces: transposed convolutions with random weights have 10 to 12.
    Resizing is no guarantee, since its phases still differ where features are not flat: random
    weights 0.5 to 1.1, three networks after training 1.7 to 4.8.

    Args:
        pictures: (N, 3, H, W) in [0, 1]; rows and columns beyond a multiple of 4 are left out.

    Returns:
        (N,), float32; NaN if a side is below `SMALLEST_SIDE`: it could not be told from 0.
    """
    num_pictures, _, height, width = pictures.shape
    if min(height, width) < SMALLEST_SIDE:
        return pictures.new_full((num_pictures,), math.nan, dtype=torch.float32)
    height, width = height // _PERIOD * _PERIOD, width // _PERIOD * _PERIOD
    levels = pictures[..., :height, :width].float() * 255
    window = _hann(height, levels).view(-1, 1) * _hann(width, levels)
    # The window's sum is 1: the peaks' powers add up to the pattern's mean square.
    power = torch.fft.fft2(levels * window).abs().square().mean(dim=1)  # (N, H, W)
    background = torch.maximum(_near_peaks(power, axis=1), _near_peaks(power, axis=2))
    excess = (_at_peaks(power) - background).clamp(min=0)  # (N, 4, 4)
    excess[:, 0, 0] = 0  # the mean color
    return excess.sum(dim=(1, 2)).sqrt()


def border_excess(
    loss_network: Callable[[Tensor, list[str]], dict[str, Tensor]],
    outputs: Tensor,
    photos: Tensor,
    *,
    style_grams: Mapping[str, Tensor],
    content_layers: Mapping[str, float],
    style_layers: Mapping[str, float],
    content_weight: float = 1.0,
    style_weight: float = 5.0,
    normalization: Literal["relative", "paper"] = "relative",
) -> Tensor:
    """The objective in a band along the border, divided by the objective in the middle.

    The band is 1/16 of the shorter side wide, 8 pixels at least; the middle is a centered rectangle
    with the picture's proportions and about as many positions, because a Gram matrix of fewer is
    less certain. Both are objectives as `PerceptualLoss` has them, without total variation, with
    means and Gram matrices over these positions only. Before the loss network sees the pictures,
    they are mirrored at their borders, so that its own padding is not what is measured.

    Normal: about 1, but what the photo has at its border matters as much as the fault: 15 results
    of three good networks had 0.4 to 1.25, median 0.85. A frame of 12 pixels at half the brightness
    raised it 1.3 to 3.3 times. So take the median over many photos, to be worried about from 1.3
    on, and compare networks on the same photos only. To see less, divide by a control without a
    border, a photo stylized with 32 more pixels on every side, which are then cut off: 0.9 to 1.6
    for the same 15, median 1.14.

    Args:
        loss_network: φ; called as ``loss_network(pixels, layers)``, gives a dict of features.
        outputs: (N, 3, H, W) in [0, 1].
        photos: (N, 3, H, W) in [0, 1].
        style_grams: G(s), (C, C), of every style layer.
        content_layers: layer names and their weights; may be empty.
        style_layers: likewise.
        content_weight: weight of the whole term.
        style_weight: likewise.
        normalization: as in `PerceptualLoss`; ``relative`` divides both regions by the same, the
            energy of the whole photo and that of the style picture.

    Returns:
        (N,), float32; NaN if a layer has no position left inside the band: for every picture up to
        16 pixels, and for deep layers up to 23.
    """
    if min(photos.shape[-2:]) <= 2 * _SMALLEST_BORDER:
        return photos.new_full((len(photos),), math.nan, dtype=torch.float32)
    layers = list(dict.fromkeys([*content_layers, *style_layers]))
    found = _mirrored_features(loss_network, outputs, layers)
    targets = _mirrored_features(loss_network, photos, list(content_layers))
    border = torch.zeros(len(outputs), device=outputs.device)
    middle = torch.zeros_like(border)
    for layer, weight in content_layers.items():
        scale = torch.full_like(border, content_weight * weight)  # (N,)
        if normalization == "relative":
            scale = scale / targets[layer].square().mean(dim=(1, 2, 3))
        ours, theirs = (_split(part[layer], photos) for part in (found, targets))
        border += scale * content_distance(ours.border, theirs.border)
        middle += scale * content_distance(ours.middle, theirs.middle)
    for layer, weight in style_layers.items():
        target = style_grams[layer].float()
        scale = torch.full_like(border, style_weight * weight)
        if normalization == "relative":
            scale = scale / target.square().sum()
        ours = _split(found[layer], photos)
        border += scale * style_distance(gram_matrix(ours.border), target)
        middle += scale * style_distance(gram_matrix(ours.middle), target)
    return border / middle


def flat_probes(size: int = 256) -> Tensor:
    """Pictures of one color each, as `blotches` stylizes them: (11, 3, size, size) in [0, 1].

    The colors are the corners of the cube from 0.15 to 0.85 and three greys, 0.25, 0.5 and 0.75.
    The flat part has noise of one level (normal), and a frame, 1/8 of the side wide, holds a
    patchwork of random colors in squares of 8 pixels. Without frame and noise there is nothing to
    see: with reflection padding and instance norm, whatever is exactly flat becomes one same
    color, and mere noise becomes full strokes. With both it is as in a photo with a sky.

    Args:
        size: both sides in pixels, a multiple of 32, 64 or more.
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


def blotches(stylize: Callable[[Tensor], Tensor], *, size: int = 256) -> Blotches:
    """How uneven a network paints what is flat, beyond its strokes.

    Stylizes `flat_probes` one by one, takes the central half of each side, out of reach of most of
    what the frame causes, averages over cells of 16 x 16 pixels, so that strokes do not
    count, and takes the standard deviation over the cells: root mean square over the channels.

    Normal: a mean over the probes of 1.5 to 4 levels at 256 pixels, at most 6 in a single probe.
    Measured: 1.9, 1.9 and 3.1 for three of our styles, worst probes 3 to 5; random weights 0.7, the
    probes themselves 0.06. Clouds all over, as all of these networks paint them on noise without a
    frame, are 12 to 34.

    Args:
        stylize: pictures (1, 3, H, W) in [0, 1] to the same shape.
        size: see `flat_probes`; the cells do not grow with it.
    """
    probes = flat_probes(size)
    with torch.no_grad():
        results = torch.cat([stylize(probe[None]).float().cpu() for probe in probes]).clamp(0, 1)
    inside = slice(size // 4, size - size // 4)
    cells = F.avg_pool2d(results[..., inside, inside] * 255, _BLOTCH_CELL)  # (11, 3, S/32, S/32)
    levels = cells.var(dim=(2, 3), correction=0).mean(dim=1).sqrt()
    return Blotches(levels, probes, results)


def clipped_share(outputs: Tensor) -> Tensor:
    """The share of values that are black or white in their channel, or would be beyond it.

    Where many neighbors are clipped, the drawing is lost. Normal: up to 0.05. Measured: five photos
    0 to 0.035, three of our styles on them 0.003 to 0.02, 0.01 to 0.02 and, ink on white paper,
    0.035 to 0.05.

    Args:
        outputs: (N, 3, H, W), as the network gives them, before they are clamped to [0, 1].

    Returns:
        (N,), float32 in [0, 1]: of the values at or below 0, or at or above 1.
    """
    return ((outputs <= 0) | (outputs >= 1)).float().mean(dim=(1, 2, 3))


def _hann(side: int, like: Tensor) -> Tensor:
    window = torch.hann_window(side, dtype=like.dtype, device=like.device)
    return window / window.sum()


def _at_peaks(power: Tensor) -> Tensor:
    height, width = power.shape[-2:]
    return power[:, :: height // _PERIOD, :: width // _PERIOD]  # (N, 4, 4)


def _near_peaks(power: Tensor, axis: int) -> Tensor:
    distances = [k for k in _NEIGHBORS if k <= power.shape[axis] // _PERIOD - 2]
    shifted = [_at_peaks(power.roll(sign * k, axis)) for k in distances for sign in (-1, 1)]
    return torch.stack(shifted).median(dim=0).values / math.log(2)


class _Regions(NamedTuple):
    """Feature positions as pictures of one row: (N, C, 1, positions) each."""

    border: Tensor
    middle: Tensor


def _mirrored_features(
    loss_network: Callable[[Tensor, list[str]], dict[str, Tensor]],
    pictures: Tensor,
    layers: list[str],
) -> dict[str, Tensor]:
    """Features as if the picture went on beyond its border, float32, cut to the picture."""
    height, width = pictures.shape[-2:]
    # Less for tiny pictures: reflection needs more pixels than it makes.
    room = (min(height, width) - 1) // _COARSEST_SCALE * _COARSEST_SCALE
    margin = min(_MIRRORED, room)
    mirrored = F.pad(pictures.float(), (margin,) * 4, mode="reflect")
    cut = {}
    for layer, features in loss_network(mirrored, layers).items():
        # Pooling rounds down, so the quotient may be somewhat above the power of two.
        scale = 2 ** round(math.log2(mirrored.shape[-2] / features.shape[-2]))
        first = margin // scale
        rows, columns = slice(first, first + height // scale), slice(first, first + width // scale)
        cut[layer] = features[..., rows, columns].float()
    return cut


def _split(features: Tensor, photos: Tensor) -> _Regions:
    height, width = features.shape[-2:]
    shorter = min(photos.shape[-2:])
    border_share = max(_BORDER_SHARE, _SMALLEST_BORDER / shorter)
    band = max(1, round(border_share * min(height, width)))
    is_border = torch.ones(height, width, dtype=torch.bool, device=features.device)
    is_border[band : height - band, band : width - band] = False
    # As many positions as the border has, if there are so many.
    side_share = (int(is_border.sum()) / max(1, is_border.numel())) ** 0.5
    rows = max(0, min(height - 2 * band, round(side_share * height)))
    columns = max(0, min(width - 2 * band, round(side_share * width)))
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = features[..., top : top + rows, left : left + columns].flatten(2)
    return _Regions(features[..., is_border].unsqueeze(2), middle.unsqueeze(2))
