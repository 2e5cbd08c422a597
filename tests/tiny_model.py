"""A model file that is small and whole, for tests that apply or describe one."""

from pathlib import Path
from typing import Any

import torch

from fast_style.models.checkpoint import save_checkpoint
from fast_style.networks.transform_net import TransformNet
from fast_style.settings.config import parse_config
from fast_style.settings.writing import to_dict


def write_tiny_model(
    path: Path,
    *,
    width: int = 1,
    name: str = "tiny",
    label: str = "imagenet weights",
    tanh_scale: float = 127.5,
    seed: int = 1,
) -> Path:
    """Save a network with seeded weights as a finished model; gives `path`."""
    architecture: dict[str, Any] = {
        "width": width,
        "residual_blocks": 1,
        "upsampling": "resize",
        "antialiased": True,
        "tanh_scale": tanh_scale,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TransformNet(**architecture)
    save_checkpoint(
        path,
        {f"model.{key}": tensor for key, tensor in net.state_dict().items()},
        tiny_description(architecture, name=name, label=label),
    )
    return path


def tiny_description(
    architecture: dict[str, Any], *, name: str = "tiny", label: str = "imagenet weights"
) -> dict[str, Any]:
    """What a finished model says of itself."""
    settings = {
        "name": name,
        "style": {"image": "wave.jpg"},
        "data": {"photos": "photos"},
        "model": architecture,
    }
    return {
        "name": name,
        "kind": "model",
        "step": 40_000,
        "architecture": architecture,
        "settings": to_dict(parse_config(settings, "test")),
        "style": {"file": "wave.jpg", "digest": "5" * 64},
        "photos": {"count": 7, "digest": "7" * 64},
        "loss_network": {
            "architecture": "vgg16",
            "source": label.split()[0],
            "label": label,
            "digest": "9" * 64,
        },
        "license": "none",
        "versions": {"fast_style": "0", "torch": "2"},
    }


FIRST_COMPACT = "f62bc3ef4aeed8dde0be05b1dff126805e84a9a13cde4f0c642f949ac62db4a1"
"""The sha256 of the first compact.safetensors, which was learned from VGG-19 up to relu3_4."""


def trained_with_first_compact(description: dict[str, Any]) -> dict[str, Any]:
    """A description as versions wrote it that had the first compact.safetensors."""
    settings = description["settings"]
    loss_network = {"architecture": "vgg19", "weights": "compact"}
    loss = {"style_layers": dict.fromkeys(["relu1_2", "relu2_2", "relu3_3", "relu3_4"], 1.0)}
    return description | {
        "settings": settings
        | {
            "loss_network": settings["loss_network"] | loss_network,
            "loss": settings["loss"] | loss,
        },
        "loss_network": {
            "architecture": "vgg19",
            "source": "compact",
            "label": "COMPACT weights",
            "digest": FIRST_COMPACT,
        },
    }
