"""Makes the small model files that come with fast-style, and measures what their size costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fast_style.models.checkpoint import (
    Checkpoint,
    build_transform_net,
    load_transform_net,
    save_checkpoint,
)
from fast_style.models.model_files import NARROW_FORMAT_VERSION
from fast_style.models.narrow import Bits, narrowed
from fast_style.networks.transform_net import TransformNet
from fast_style.settings.config import parse_config
from fast_style.settings.writing import without_folders

LARGEST_DIFFERENCE = 2
"""By how much of 255 a value of a picture may differ, for weights to be stored in 8 bits."""


class Card(NamedTuple):
    """What a shipped model says of its style picture."""

    title: str
    artist: str
    year: str
    source: str
    """Where the picture is from, such as a museum's page."""


class Shipped(NamedTuple):
    """How a model was stored."""

    bits: Bits
    difference: int
    """The largest difference of its pictures from those of the float32 weights, in values of 0
    to 255."""


def write_shipped(
    path: Path,
    model: Path,
    photos: Sequence[Tensor],
    *,
    name: str,
    card: Card,
    license: str,
    grain: float = 0.0,
) -> Shipped:
    """Write a model with weights in 8 bits if its pictures hardly differ, else in 16.

    Its description says nothing of the folders that it was trained in.

    Args:
        path: the file to write, in a folder that exists.
        model: a model or a checkpoint.
        photos: at least one to measure the difference on, each (3, H, W), float in [0, 1].
        name: of the shipped model.
        card: of its style picture.
        license: the terms under which the model may be used.
        grain: levels of 255, the grain that it asks for on photos.

    Raises:
        CheckpointError: `model` is no usable model.
        OSError: the file cannot be written.
    """
    net, metadata = load_transform_net(model)
    loaded_as = {"format": NARROW_FORMAT_VERSION, "architecture": metadata["architecture"]}
    bits: Bits
    for bits in (8, 16):
        tensors = narrowed(net.state_dict(), bits)
        narrow_net = build_transform_net(Checkpoint(tensors, loaded_as), path)
        difference = _difference(net, narrow_net, photos)
        if difference <= LARGEST_DIFFERENCE:
            break
    settings = without_folders(parse_config(metadata["settings"], str(model)))
    changed = {
        "name": name,
        "kind": "model",
        "card": card._asdict(),
        "license": license,
        "settings": settings | {"name": name},
        **({"grain": grain} if grain else {}),
    }
    kept = {key: value for key, value in metadata.items() if key not in ("format", "fast_style")}
    save_checkpoint(path, tensors, kept | changed, format_version=NARROW_FORMAT_VERSION)
    return Shipped(bits, difference)


@torch.no_grad()
def _difference(net: TransformNet, other: TransformNet, photos: Sequence[Tensor]) -> int:
    """The largest difference of two networks' pictures, in values of 0 to 255."""
    return max(
        int((_values(net, photo) - _values(other, photo)).abs().max().item()) for photo in photos
    )


def _values(net: TransformNet, photo: Tensor) -> Tensor:
    """The picture of a photo as it is written: (1, 3, H, W), whole numbers from 0 to 255."""
    picture: Tensor = net(photo[None])
    return (picture.clamp(0, 1) * 255).round()
