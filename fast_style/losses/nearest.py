"""Which shipped style draws most like a painting that no network has been trained on.

Colors are left out of it: the styles' pictures get those of the painting first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from fast_style.losses.loss_network import LossNetwork, load_weights
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.models.checkpoint import load_transform_net
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.transform_net import TransformNet
from fast_style.pictures.colors import Colors, colors_of, map_between, recolored
from fast_style.pictures.pixels import image_to_tensor, tensor_to_image
from fast_style.pictures.sheets import contact_sheet
from fast_style.styles.shipped import ShippedStyle

_SIDE = 128  # of the square of a photo that is drawn: its strokes are those of the whole
# Of the colors that a network gets before it is trained. Without it, a network of black and white
# strokes stretched its faint colors so much that its training began with white blots.
_SOFTENING = 4e-3
_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


def compact_network() -> LossNetwork:
    """The loss network of this package."""
    return LossNetwork("vgg16", load_weights("compact", "vgg16", _LAYERS[-1]))


def usual_loss(
    loss_network: LossNetwork,
    painting: Image.Image,
    *,
    style_weight: float = 1.5,
    halo_weight: float = 0.0,
) -> PerceptualLoss:
    """About the layers and balance of configs/laptop.yaml, with Gram matrices, quick to compare.

    Args:
        loss_network: from `compact_network`.
        painting: mode RGB, in the size of the training.
        style_weight: of the objective.
        halo_weight: likewise. Halos say nothing of strokes, so the nearest style is found without.
    """
    return PerceptualLoss(
        loss_network,
        _pixels(painting),
        content_layers={"relu2_2": 0.5, "relu3_3": 1.0},
        style_layers=dict.fromkeys(_LAYERS, 1.0),
        style_weight=style_weight,
        autocorrelation_weight=50.0,
        halo_weight=halo_weight,
    )


class NearestStyles:
    """Finds the shipped style that is nearest to each of some paintings.

    Args:
        styles: those to choose among, at least one.
        paintings: mode RGB, in the size in which strokes are compared.

    Raises:
        UserError: a model cannot be read.
    """

    def __init__(self, styles: Sequence[ShippedStyle], paintings: Sequence[Image.Image]) -> None:
        nets = {style.name: load_transform_net(style.model)[0] for style in styles}
        self._nets = {name: FastTransform(net) for name, net in nets.items()}
        loss_network = compact_network()
        self._targets = [_Target.of(painting, loss_network) for painting in paintings]

    @torch.no_grad()
    def of(self, photos: Sequence[Image.Image]) -> list[str]:
        """The name of the nearest style for each painting: that whose pictures have the least loss.

        Args:
            photos: to draw, at least one, mode RGB, of any size.
        """
        squares = [ImageOps.fit(photo, (_SIDE, _SIDE)) for photo in photos]
        drawn = {name: _drawn(net, squares) for name, net in self._nets.items()}
        nearest = []
        for target in self._targets:
            totals = {name: target.total(pictures, squares) for name, pictures in drawn.items()}
            nearest.append(min(totals, key=totals.__getitem__))
        return nearest


class _Target(NamedTuple):
    """What pictures are compared with."""

    loss: PerceptualLoss
    colors: Colors

    @classmethod
    def of(cls, painting: Image.Image, loss_network: LossNetwork) -> "_Target":
        return cls(usual_loss(loss_network, painting), colors_of(painting))

    def total(self, pictures: Sequence[Image.Image], photos: Sequence[Image.Image]) -> float:
        """The loss of pictures that have got the painting's colors."""
        return sum(
            float(self.loss(_pixels(recolored(picture, self.colors)), _pixels(photo)).total)
            for picture, photo in zip(pictures, photos, strict=True)
        )


@torch.no_grad()
def give_colors(net: TransformNet, photos: Sequence[Image.Image], painting: Image.Image) -> None:
    """Change the last layer so that the network's pictures have about the colors of the painting.

    Only about, as the layer's result passes through tanh, which is not linear.

    Args:
        net: the network.
        photos: to measure its colors on, at least one, mode RGB.
        painting: mode RGB.
    """
    pictures = _drawn(net, [ImageOps.fit(photo, (_SIDE, _SIDE)) for photo in photos])
    own = colors_of(contact_sheet(pictures, len(pictures), gap=0))
    found = map_between(own, colors_of(painting), softening=_SOFTENING)
    matrix, offset = (torch.from_numpy(part).float() for part in found)
    layer = net.to_rgb.conv
    assert layer.bias is not None
    # A result z becomes the color 0.5 + s tanh(z), about 0.5 + s z.
    scale = net.tanh_scale / 255
    layer.weight.copy_(torch.einsum("ij,jkhw->ikhw", matrix, layer.weight))
    layer.bias.copy_(matrix @ layer.bias + (0.5 * matrix.sum(dim=1) + offset - 0.5) / scale)


def _drawn(net: nn.Module, squares: Sequence[Image.Image]) -> list[Image.Image]:
    return [tensor_to_image(net(_pixels(square))[0]) for square in squares]


def _pixels(image: Image.Image) -> Tensor:
    """(1, 3, H, W), float in [0, 1]."""
    return image_to_tensor(image)[None].float() / 255
