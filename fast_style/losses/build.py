"""From settings to a perceptual loss: the only place that turns them into one."""

from collections.abc import Sequence

import torch
from PIL import Image

from fast_style.core.errors import UserError
from fast_style.losses.loss_network import LossNetwork, Weights, load_weights
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.networks.transform_net import memory_format_for
from fast_style.pictures.pixels import image_to_tensor, resize_shorter_side
from fast_style.pictures.reading import read_photo
from fast_style.settings.config import (
    Config,
    GatysConfig,
)
from fast_style.settings.layers import deepest_layer

# A strip would become huge when its shorter side is enlarged to style.size.
_LONGEST_STYLE = 20


def read_style(config: Config) -> Image.Image:
    """The style picture at its training size, RGB.

    Raises:
        UserError: it is missing, unreadable, or no more than a thin strip.
    """
    style = read_photo(config.style.image)
    if max(style.size) > _LONGEST_STYLE * min(style.size):
        raise UserError(
            f"{config.style.image}: {style.width} x {style.height} pixels are a strip; crop the "
            f"style picture to at most {_LONGEST_STYLE} times as long as wide"
        )
    return resize_shorter_side(style, config.style.size)


def load_loss_weights(config: Config | GatysConfig) -> Weights:
    """The loss network's weights, as deep as the loss needs them."""
    network = config.loss_network
    layers = [*config.loss.content_layers, *config.loss.style_layers] or ["relu1_1"]
    return load_weights(
        network.weights,
        network.architecture,
        deepest_layer(layers, network.architecture),
        preprocessing=network.preprocessing,
        padding=network.padding,
        seed=config.seed,
    )


def build_perceptual_loss(
    config: Config | GatysConfig,
    weights: Weights,
    style: Image.Image,
    device: torch.device,
    *,
    blend: Sequence[tuple[Image.Image, float]] = (),
) -> PerceptualLoss:
    """The loss of these settings for this style picture.

    Args:
        config: the settings.
        weights: of the loss network, as deep as the loss needs them.
        style: the style picture, RGB.
        device: where to compute.
        blend: further style pictures, with their weights beside the 1 of `style`.

    Raises:
        UserError: a style picture is blank to the loss network.
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
        blend=[(to_pixels(image), weight) for image, weight in blend],
        **config.loss.model_dump(),
    ).to(device)
    pictures = [config.style.image]
    if isinstance(config, GatysConfig):
        pictures += config.style.blend
    for layer in perceptual_loss.style_layers:
        for picture, gram in zip(pictures, perceptual_loss.style_grams(layer), strict=True):
            if torch.isfinite(gram).all() and gram.abs().sum() > 0:
                continue
            raise UserError(
                f"{picture}: the loss network sees nothing in this style picture "
                f"(the Gram matrix of {layer} is zero or not finite); choose another one"
            )
    return perceptual_loss
