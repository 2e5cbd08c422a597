"""What a training is likely to make of its style weight and style size, seen before it begins.

The losses of the training, at the size of its crops, are lowered by L-BFGS on the photo's pixels
from coarse to fine, once for each pair of values. A network that is trained for minutes has the
same differences between choices, and is worse by both terms (docs/ablations.md). 40 iterations end
about where 60 of Adam do: 18 previews 9 % lower to 15 % higher, the median 1 %.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fast_style.core.devices import ordinary_torch
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.losses.perceptual import LossTerms, LossValues, PerceptualLoss
from fast_style.optimizing.minimizing import SAFE_FIRST_STEP, Iterate, minimize
from fast_style.pictures.pixels import center_crop, image_to_tensor, tensor_to_image
from fast_style.pictures.sheets import Captioned, captioned_grid, in_rows
from fast_style.settings.config import Config
from fast_style.settings.fields import SMALLEST_SIDE

# Sizes of the picture, as shares of the crop's side. Iterations are divided between them.
_SCALES = (0.5, 1.0)


class Choice(NamedTuple):
    """Values of two settings."""

    style_weight: float
    style_size: int

    def words(self) -> str:
        """The settings as words of a command line."""
        return f"style.size={self.style_size} loss.style_weight={self.style_weight:g}"


class Preview(NamedTuple):
    """The picture of a choice, with its terms and their shares of the gradient."""

    choice: Choice
    picture: Image.Image
    values: LossValues
    shares: dict[str, float]


def side_of(config: Config) -> int:
    """The side of the pictures: that of the training's largest crops, in pixels."""
    return max(config.data.crop_size, config.data.grown_crop_size or 0)


def choices_near(config: Config) -> tuple[list[float], list[int]]:
    """Three style weights and three style sizes, the ones of the settings in the middle."""
    weight, size = config.loss.style_weight, config.style.size
    return [weight / 2.5, weight, weight * 2.5], [max(16, size * 2 // 3), size, size * 3 // 2]


def read_styles(config: Config, style_sizes: Sequence[int]) -> dict[int, Image.Image]:
    """The style picture by its shorter side, in all sizes that previews and their sheet need.

    Raises:
        UserError: it cannot be read.
    """
    sides = {side for size in style_sizes for side in _scaled(size)}
    return {side: read_style(config.style.image, side) for side in sides | {side_of(config)}}


def _scaled(side: int) -> list[int]:
    """A side at all scales, never below what crops and styles may have: VGG has four poolings."""
    return [max(SMALLEST_SIDE, round(side * scale)) for scale in _SCALES]


def draw_previews(
    config: Config,
    photo: Image.Image,
    styles: Mapping[int, Image.Image],
    *,
    style_weights: Sequence[float],
    style_sizes: Sequence[int],
    iterations: int,
    device: torch.device,
    watch: Callable[[], bool] = lambda: True,
) -> Iterator[Preview]:
    """The preview of every choice of one photo, sizes outermost.

    Args:
        config: the settings of the training, which give all other values.
        photo: RGB; its centered square is drawn.
        styles: from `read_styles`.
        style_weights: values of ``loss.style_weight``.
        style_sizes: values of ``style.size``.
        iterations: of L-BFGS, over all scales.
        device: where to compute.
        watch: called after every iteration; False ends the generator without the present preview.

    Raises:
        UserError: the weights cannot be used.
    """
    weights = load_loss_weights(config)
    contents = [_pixels(center_crop(photo, side)).to(device) for side in _scaled(side_of(config))]
    for size in style_sizes:
        losses = [
            build_perceptual_loss(config, weights, styles[side], device) for side in _scaled(size)
        ]
        for weight in style_weights:
            for loss in losses:
                loss.style_weight = weight
            last = _descend(losses, contents, iterations // len(_SCALES), watch)
            if last is None:
                return
            shares = losses[-1].gradient_shares(last.picture, contents[-1])
            yield Preview(
                Choice(weight, size), tensor_to_image(last.picture[0]), last.values, shares
            )


@ordinary_torch()
def _descend(
    losses: Sequence[PerceptualLoss],
    contents: Sequence[Tensor],
    iterations: int,
    watch: Callable[[], bool],
) -> Iterate | None:
    """The last picture, from the photo through all scales; None if `watch` ended it."""
    picture = contents[0]
    is_ended = False

    def on_iterate(iterate: Iterate) -> bool:
        nonlocal is_ended
        is_ended = iterate.iteration > 0 and not watch()
        return not is_ended

    for loss, content in zip(losses, contents, strict=True):
        targets = loss.content_targets(content)
        start = F.interpolate(picture, content.shape[-2:], mode="bicubic").clamp(0, 1)
        found = minimize(
            partial(_terms, loss, targets),
            start,
            iterations=iterations,
            bounds="clip",
            first_step=SAFE_FIRST_STEP,
            on_iterate=on_iterate,
        )
        if is_ended:
            return None
        picture = found.best.picture
    return found.best


def _terms(loss: PerceptualLoss, targets: dict[str, Tensor], pixels: Tensor) -> LossTerms:
    return loss.terms(pixels, targets)


def preview_sheet(
    config: Config,
    photo: Image.Image,
    styles: Mapping[int, Image.Image],
    previews: Sequence[Preview],
    *,
    num_columns: int,
) -> Image.Image:
    """One sheet: the photo and the style picture, and below them a row for each style size."""
    side = side_of(config)
    top = [
        Captioned(center_crop(photo, side), ["the photo"]),
        Captioned(center_crop(styles[side], side), ["the style picture"]),
    ]
    cells = [Captioned(preview.picture, _caption(preview)) for preview in previews]
    return captioned_grid([top, *in_rows(cells, num_columns)])


def _caption(preview: Preview) -> list[str]:
    """Lines that fit below a picture of 160 pixels."""
    choice, values, shares = preview.choice, preview.values, preview.shares
    return [
        f"style.size {choice.style_size}, style_weight {choice.style_weight:g}",
        f"content {values.content:.2f}, {shares['content']:.0%} of gradient",
        f"style {values.style:.3f}, {shares['style']:.0%} of gradient",
    ]


def _pixels(image: Image.Image) -> Tensor:
    return image_to_tensor(image)[None].float() / 255  # (1, 3, S, S)
