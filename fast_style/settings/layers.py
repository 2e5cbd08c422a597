"""Names of VGG layers, their aliases and their order. Imports no torch, since settings must not.

A layer is called ``relu2_2`` (after the ReLU) or ``conv2_2`` (before it), as in Gatys et al. and
Johnson et al. Keras's ``block2_conv2`` is accepted for ``relu2_2``: Keras's convolutions include
their ReLU.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

Architecture = Literal["vgg16", "vgg19"]

# Convolutions in each of the five blocks, and their channels: Simonyan and Zisserman 2015,
# table 1, columns D and E.
CONVOLUTIONS_PER_BLOCK: dict[str, tuple[int, ...]] = {
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
CHANNELS_PER_BLOCK = (64, 128, 256, 512, 512)

# Every accepted name, for editors that check a YAML file against the JSON Schema.
LAYER_PATTERN = r"^((relu|conv)[1-5]_[1-4]|block[1-5]_conv[1-4])$"

_NAME = re.compile(r"(relu|conv)[1-5]_[1-4]")
_KERAS_NAME = re.compile(r"block([1-5])_conv([1-4])")


def layer_names(architecture: Architecture) -> list[str]:
    """All layers of a network, in the order of computation."""
    return [
        f"{kind}{block}_{number}"
        for block, convolutions in enumerate(CONVOLUTIONS_PER_BLOCK[architecture], start=1)
        for number in range(1, convolutions + 1)
        for kind in ("conv", "relu")
    ]


def canonical_layer(name: str) -> str:
    """The name that this project uses: ``relu4_3`` for ``block4_conv3``; our own names stay.

    Raises:
        ValueError: neither VGG-16 nor VGG-19 has such a layer.
    """
    if match := _KERAS_NAME.fullmatch(name):
        return f"relu{match[1]}_{match[2]}"
    if _NAME.fullmatch(name):
        return name
    raise ValueError(
        f"{name!r} is not a VGG layer; say for example relu3_3, conv3_3 or block3_conv3"
    )


def is_same_layer(one: object, other: object) -> bool:
    """Whether two keys, of which either may be no layer, name one layer."""
    try:
        return canonical_layer(str(one)) == canonical_layer(str(other))
    except ValueError:
        return one == other


def require_layers(names: Iterable[str], architecture: Architecture) -> None:
    """Check that a network has all these layers, given by their canonical names.

    Raises:
        ValueError: the network lacks a layer; the message names the first one.
    """
    known = layer_names(architecture)
    for name in names:
        if name not in known:
            kind, block = name[:4], name[4]
            last = f"{kind}{block}_{CONVOLUTIONS_PER_BLOCK[architecture][int(block) - 1]}"
            raise ValueError(
                f"{architecture} has no {name}; the last of its block {block} is {last}"
            )


def deepest_layer(names: Iterable[str], architecture: Architecture) -> str:
    """The layer among `names` that is computed last."""
    return max(names, key=layer_names(architecture).index)


def convolution_of(name: str) -> str:
    """``3_4`` for ``relu3_4`` and ``conv3_4``."""
    return name[4:]


def torchvision_index(name: str, architecture: Architecture) -> int:
    """The index of a layer in torchvision's ``vgg(...).features``, which also holds the pools.

    Example: the 7th convolution of a network, in block 3, follows 6 convolutions with their ReLUs
    and 2 pools, so its index is 6 * 2 + 2 = 14.
    """
    block = int(name[4])
    return layer_names(architecture).index(name) + block - 1


def layers_judged(style_layers: Mapping[str, float]) -> list[str]:
    """The style layers whose features a discriminator judges: those of the first three blocks.

    Behind them, crops have too few places. Layers of weight 0 are not judged.
    """
    return [
        layer
        for layer, weight in style_layers.items()
        if weight > 0 and re.fullmatch(r"(relu|conv)[123]_\d", layer)
    ]
