"""Builds a perceptual loss from settings; no other module does."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from fast_style.core.devices import ordinary_torch
from fast_style.core.errors import UserError, printable
from fast_style.losses.inputs import LOSS_NETWORK_KEYS, NetworkKeys, require_style_picture
from fast_style.losses.loss_network import LossNetwork, Weights, load_weights
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.networks.transform_net import memory_format_for
from fast_style.pictures.pixels import image_to_tensor, resize_shorter_side
from fast_style.pictures.reading import read_photo
from fast_style.settings.config import TERMS_OF_TRAINING, Config
from fast_style.settings.gatys_config import GatysConfig
from fast_style.settings.layers import deepest_layer

# Longest allowed ratio of a style picture's sides: a longer strip would become huge when its
# shorter side is enlarged to style.size.
_LONGEST_STYLE = 20


class BlendedStyle(NamedTuple):
    """A further style picture, RGB, and its weight beside the 1 of ``style.image``."""

    path: Path
    picture: Image.Image
    weight: float


def read_style(path: Path, size: int) -> Image.Image:
    """A style picture with this shorter side in pixels, RGB.

    Raises:
        UserError: it is missing, unreadable, or a strip.
    """
    require_style_picture(path)  # names the styles that may be meant
    style = read_photo(path)
    require_no_strip(style, path)
    return resize_shorter_side(style, size)


def require_no_strip(style: Image.Image, path: Path) -> None:
    """Check that a style picture, from the file `path`, is not much longer than wide.

    Raises:
        UserError: it is a strip.
    """
    if max(style.size) > _LONGEST_STYLE * min(style.size):
        raise UserError(
            f"{printable(path)}: {style.width} x {style.height} pixels are a strip; crop the "
            f"style picture to at most {_LONGEST_STYLE} times as long as wide"
        )


def load_loss_weights(
    config: Config | GatysConfig, keys: NetworkKeys = LOSS_NETWORK_KEYS
) -> Weights:
    """The loss network's weights, up to the deepest layer that the loss names.

    Args:
        config: the settings.
        keys: what the settings of the loss network are called, for messages.

    Raises:
        UserError: the weights are missing, or do not fit the architecture or the loss.
    """
    network = config.loss_network
    layers = [*config.loss.content_layers, *config.loss.style_layers] or ["relu1_1"]
    return load_weights(
        network.weights,
        network.architecture,
        deepest_layer(layers, network.architecture),
        preprocessing=network.preprocessing,
        padding=network.padding,
        seed=config.seed,
        keys=keys,
    )


@ordinary_torch()
def build_perceptual_loss(
    config: Config | GatysConfig,
    weights: Weights,
    style: Image.Image,
    device: torch.device,
    *,
    blend: Sequence[BlendedStyle] = (),
    kept_layers: Sequence[str] = (),
) -> PerceptualLoss:
    """The perceptual loss that the settings describe, for the given style pictures.

    Args:
        config: the settings.
        weights: of the loss network, from `load_loss_weights`.
        style: the picture of ``style.image``, RGB.
        device: where to compute.
        blend: further style pictures.
        kept_layers: as those of `PerceptualLoss`.

    Raises:
        UserError: a style picture has a Gram matrix that is zero or not finite.
    """
    loss_network = (
        LossNetwork(config.loss_network.architecture, weights, pooling=config.loss_network.pooling)
        .to(device)
        .to(memory_format=memory_format_for(device))
    )

    def to_pixels(image: Image.Image) -> torch.Tensor:
        return image_to_tensor(image)[None].to(device).float() / 255  # (1, 3, H, W)

    perceptual_loss = PerceptualLoss(
        loss_network,
        to_pixels(style),
        blend=[(to_pixels(further.picture), further.weight) for further in blend],
        kept_layers=kept_layers,
        **config.loss.model_dump(exclude=set(TERMS_OF_TRAINING)),
    ).to(device)
    _require_styles_seen(
        perceptual_loss, [config.style.image, *(further.path for further in blend)]
    )
    return perceptual_loss


def _require_styles_seen(perceptual_loss: PerceptualLoss, paths: Sequence[Path]) -> None:
    """Check that the Gram matrices of all style pictures, in the order of `paths`, are usable."""
    for layer in perceptual_loss.style_layers:
        for path, gram in zip(paths, perceptual_loss.style_grams(layer), strict=True):
            if not torch.isfinite(gram).all() or gram.abs().sum() == 0:
                raise UserError(
                    f"{printable(path)}: the loss network sees nothing in this style picture "
                    f"(the Gram matrix of {layer} is zero or not finite); choose another one"
                )
