"""Optimizations so small that an iteration takes a few milliseconds: random VGG weights."""

from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from PIL import Image
from small_run import draw_photo
from torch import Tensor

from fast_style.losses.build import build_perceptual_loss, load_loss_weights
from fast_style.losses.perceptual import LossTerms, PerceptualLoss
from fast_style.pictures.pixels import image_to_tensor
from fast_style.settings.gatys_config import GatysConfig, load_gatys_config

CPU = torch.device("cpu")

Objective = Callable[[Tensor], LossTerms]


def write_small_optimization(folder: Path) -> Path:
    """Two style pictures and settings, tiny.yaml; gives the folder."""
    draw_photo(100).save(folder / "style.png")
    draw_photo(101, (30, 50)).save(folder / "other.png")
    settings = {
        "style": {"image": "style.png"},
        "loss_network": {"weights": "random"},
        "loss": {"content_layers": {"relu1_2": 1.0}, "style_layers": {"relu1_1": 1.0}},
        "optimize": {"size": 16, "iterations": 2},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return folder


def settings_of(folder: Path, *words: str) -> GatysConfig:
    """The settings of tiny.yaml, with ``key=value`` words laid over them."""
    return load_gatys_config(folder / "tiny.yaml", words)


def loss_of(config: GatysConfig, style: Image.Image) -> PerceptualLoss:
    return build_perceptual_loss(config, load_loss_weights(config), style, CPU)


def pixels_of(image: Image.Image) -> Tensor:
    """(1, 3, H, W), float in [0, 1]."""
    return image_to_tensor(image)[None].float() / 255


def as_terms(total: Tensor) -> LossTerms:
    """Loss terms of which only the total is set."""
    zero = torch.zeros(())
    return LossTerms(total, zero, zero, zero, {})
