"""The constants of other texts on style transfer as `loss:` settings of this project.

All texts add up the same sums of squares, with different factors in front of them, so their weights
cannot be compared. Each function takes a text's own weights and gives the settings, for
`normalization: paper`, with which `PerceptualLoss` computes that text's objective. The files in
configs/optimize/ hold such numbers. Loads no torch.

φ, of shape (C, H, W), stands for the features of a layer, and G for ψψᵀ / (CHW). A factor that
depends on the picture's size is exact at that size only. If the text does not divide its Gram
matrices, the style picture must also be as large as the result. Features equal the texts' with
weights of Caffe origin, which all texts use: those take pixels in 0..255 minus a mean, as
`LossNetwork` gives them.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from fast_style.settings.layers import CHANNELS_PER_BLOCK, canonical_layer

# The texts' pixels are in units of 0..255, this project's in units of 0..1.
_WHITE = 255


class LossSettings(NamedTuple):
    """The `loss:` section of a YAML: ``_asdict()`` gives it as plain data."""

    normalization: Literal["paper"]
    content_layers: dict[str, float]
    style_layers: dict[str, float]
    content_weight: float
    style_weight: float
    tv_weight: float
    tv_exponent: float


def feature_shape(layer: str, height: int, width: int) -> tuple[int, int, int]:
    """(C, H, W) of a VGG layer's features for a picture of height x width pixels.

    Every pool halves the sides and drops what is left over, as in torch and Keras (300, 150, 75,
    37, 18). TensorFlow's padding 'SAME' rounds up instead (38, 19): its networks see one more row
    or column at the lower or right edge of a picture whose sides are no multiple of 16.
    """
    block = int(canonical_layer(layer)[4])
    halvings = 2 ** (block - 1)
    return CHANNELS_PER_BLOCK[block - 1], height // halvings, width // halvings


def convert_gatys(
    content_layers: Mapping[str, float],
    style_layers: Mapping[str, float],
    *,
    height: int,
    width: int,
    content_weight: float,
    style_weight: float,
    content_factor: float = 0.5,
) -> LossSettings:
    """Gatys, Ecker, Bethge 2015 (arXiv:1508.06576), equations 1, 4, 5 and 7.

    α Σ_l w_l 1/2 Σ (F - P)² + β Σ_l w_l E_l with E_l = 1/(4 N² M²) Σ (G - A)², Gram matrices not
    divided, N channels and M positions. So a content layer weighs NM / 2, a style layer 1/4.

    Args:
        content_layers: w_l of each layer, by this project's names or Keras's.
        style_layers: likewise; the paper's are 1 / their number.
        height: pixels of the result.
        width: likewise.
        content_weight: α.
        style_weight: β.
        content_factor: of the content sum; 1 in texts that leave out the paper's 1/2, such as
            TensorFlow's notebook (tensorflow/models, research/nst_blogpost).
    """
    return LossSettings(
        normalization="paper",
        content_layers={
            canonical_layer(layer): weight * content_factor * _size(layer, height, width)
            for layer, weight in content_layers.items()
        },
        style_layers={canonical_layer(layer): weight / 4 for layer, weight in style_layers.items()},
        content_weight=content_weight,
        style_weight=style_weight,
        tv_weight=0.0,
        tv_exponent=2.0,
    )


def convert_keras(
    content_layer: str,
    style_layers: Sequence[str],
    *,
    height: int,
    width: int,
    content_weight: float,
    style_weight: float,
    tv_weight: float,
    tv_power: float = 1.25,
) -> LossSettings:
    """The Keras example (keras-team/keras, examples/neural_style_transfer.py) and its relatives.

    Content Σ (F - P)². Style, for each of L layers, style_weight / L times
    Σ (G - A)² / (4 * 3² * size²), Gram matrices not divided; its 3 is a number of color channels
    and its size the picture's height * width, at every layer. Total variation
    Σ ((vertical difference)² + (horizontal difference)²)^1.25 over three channels of 0..255.

    So the content layer weighs CHW, a style layer (CHW)² / (36 size²) / L, and the total variation
    3 (height - 1) (width - 1) 255^2.5.

    Args:
        content_layer: by this project's name or Keras's.
        style_layers: likewise.
        height: pixels of the result.
        width: likewise.
        content_weight: the example's.
        style_weight: likewise, for all layers together.
        tv_weight: likewise.
        tv_power: the example's exponent, half of the setting `tv_exponent`.
    """
    picture_size = height * width
    return LossSettings(
        normalization="paper",
        content_layers={canonical_layer(content_layer): float(_size(content_layer, height, width))},
        style_layers={
            canonical_layer(layer): _size(layer, height, width) ** 2
            / (4 * 3**2 * picture_size**2)
            / len(style_layers)
            for layer in style_layers
        },
        content_weight=content_weight,
        style_weight=style_weight,
        tv_weight=tv_weight * 3 * (height - 1) * (width - 1) * _WHITE ** (2 * tv_power),
        tv_exponent=2 * tv_power,
    )


def convert_tensorflow(
    content_layers: Mapping[str, float],
    style_layers: Mapping[str, float],
    *,
    content_weight: float,
    style_weight: float,
    tv_weight: float,
) -> LossSettings:
    """The means of anishathalye/neural-style and of the projects that follow it, for any size.

    These are TONYCHANBB/Chinese_painting-style and the training codes
    lengstrom/fast-style-transfer and hwalsuklee/tensorflow-fast-style-transfer. Content
    2 l2_loss(F - P) / size, where TensorFlow's l2_loss is half a sum of squares: the mean that
    content is here, too. Style: Gram matrices / (CHW), and 2 l2_loss(G - A) / C², a mean where
    Johnson et al. (equation 4) and this project have the sum. So a style layer weighs 1 / C².

    Total variation: mean of squared vertical differences plus mean of squared horizontal ones in
    units of 0..255, so it weighs 255². The only difference: here, the last column's vertical
    differences and the last row's horizontal ones are left out.

    Args:
        content_layers: relative weights, by this project's names or Keras's.
        style_layers: likewise. anishathalye's add up to 1, lengstrom's are 1 each.
        content_weight: the text's.
        style_weight: likewise.
        tv_weight: likewise.
    """
    return LossSettings(
        normalization="paper",
        content_layers={canonical_layer(layer): w for layer, w in content_layers.items()},
        style_layers={
            canonical_layer(layer): w / feature_shape(layer, 1, 1)[0] ** 2
            for layer, w in style_layers.items()
        },
        content_weight=content_weight,
        style_weight=style_weight,
        tv_weight=tv_weight * _WHITE**2,
        tv_exponent=2.0,
    )


def _size(layer: str, height: int, width: int) -> int:
    """CHW."""
    channels, rows, columns = feature_shape(layer, height, width)
    return channels * rows * columns
