"""Weights in 8 or 16 bits, as models are stored that come with fast-style, and in 32 again.

In 8 bits, each output channel of a convolution kernel has a scale of its own: weight = scale *
integer. Loading widens all weights to float32, so that the network that runs is an ordinary one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fast_style.core.errors import printable
from fast_style.models.model_files import CheckpointError

Bits = Literal[8, 16]

# Kernels with fewer weights have 16 bits also in a file of 8. They are those of the first and the
# last convolutions, 4 % of the weights at half width, and they are what a picture notices: with
# them in 8 bits, the largest differences on six photos were 4 and 7 of 255, else 2 and 2.
_FEWEST_IN_8_BITS = 1 << 14


def narrowed(weights: Mapping[str, Tensor], bits: Bits) -> dict[str, Tensor]:
    """The tensors of a file with these weights: ``model.*``, and ``scale.*`` of those in 8 bits.

    Args:
        weights: of a network, float32.
        bits: 8: large convolution kernels as int8 with a float32 scale for each output channel, all
            else as float16. 16: all as float16.
    """
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if bits == 8 and weight.ndim == 4 and weight.numel() >= _FEWEST_IN_8_BITS:
            scale = weight.abs().amax(dim=(1, 2, 3)) / 127
            # A channel of zeros has the scale 0, and the integers 0.
            divisor = scale.clamp_min(torch.finfo(scale.dtype).tiny)
            integers = (weight / divisor[:, None, None, None]).round()
            stored[f"model.{name}"] = integers.to(torch.int8)
            stored[f"scale.{name}"] = scale
        else:
            stored[f"model.{name}"] = weight.half()
    return stored


def widened(
    weights: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    path: Path,
) -> dict[str, Tensor]:
    """The weights of a file in float32; those that do not fit the network stay as they are stored.

    So nothing is allocated for a tensor that is refused afterwards.

    Args:
        weights: the tensors ``model.*`` of the file, without the prefix.
        scales: the tensors ``scale.*``, without the prefix.
        expected: the network's own, for their shapes.
        path: the file, for messages.

    Raises:
        CheckpointError: scales are missing, of another shape or type, or scale nothing.
    """
    for name in scales:
        if name not in weights or weights[name].dtype != torch.int8:
            raise CheckpointError(
                f"{printable(path)}: has scales of {name}, but no weights in 8 bits"
            )
    wide = {}
    for name, weight in weights.items():
        fits = name in expected and weight.shape == expected[name].shape
        if fits and weight.dtype == torch.int8:
            _require_scale(name, weight, scales.get(name), path)
            wide[name] = weight.float() * scales[name].view(-1, *[1] * (weight.ndim - 1))
        elif fits and weight.dtype == torch.float16:
            wide[name] = weight.float()
        else:
            wide[name] = weight
    return wide


def _require_scale(name: str, weight: Tensor, scale: Tensor | None, path: Path) -> None:
    shape = tuple(weight.shape[:1])
    if scale is None:
        raise CheckpointError(
            f"{printable(path)}: has no scales of {name}, whose weights are in 8 bits"
        )
    if scale.dtype != torch.float32 or tuple(scale.shape) != shape:
        raise CheckpointError(
            f"{printable(path)}: the scales of {name} are {scale.dtype} {tuple(scale.shape)}; "
            "they must be "
            f"torch.float32 {shape}"
        )
