"""The frozen loss network φ (Johnson et al. 2016, section 3.2): a VGG without unneeded deep layers.

It takes pixels in [0, 1] and applies the preprocessing of its weights itself; nothing else does.
Weights come from torchvision, a file, or a seeded random generator. If the chosen source fails,
that is an error: loading does not fall back on another source.
"""

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fast_style.core.errors import UserError, printable
from fast_style.core.files import sha256_of
from fast_style.losses.downloads import cached_file
from fast_style.losses.inputs import (
    COMPACT_FILE,
    LOSS_NETWORK_KEYS,
    NetworkKeys,
    require_weights_file,
)
from fast_style.losses.room import Room
from fast_style.losses.weight_files import WeightsFile, read_weights_file
from fast_style.networks import winograd
from fast_style.settings.layers import (
    CHANNELS_PER_BLOCK,
    Architecture,
    convolution_of,
    layer_names,
)
from fast_style.settings.sections import DEEPEST_LAYER, Padding, Preprocessing

# (mean, standard deviation) that preprocessing subtracts from RGB in [0, 1], and divides it by.
_NORMALIZATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.vgg19.html
    "torchvision": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # Simonyan and Zisserman's Caffe models take 0..255 minus the mean of ILSVRC-2014's training
    # pictures: x * 255 - m = (x - m / 255) / (1 / 255).
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3),
}


class _KnownFile(NamedTuple):
    """What a published weights file needs and does not say."""

    preprocessing: Preprocessing
    is_bgr: bool


# Keys: the first 8 hex digits of the sha256, which the publishers put into the file names.
_KNOWN_FILES = {
    "397923af": _KnownFile("torchvision", is_bgr=False),  # torchvision vgg16
    "dcbb9e9d": _KnownFile("torchvision", is_bgr=False),  # torchvision vgg19
    "88682ab5": _KnownFile("caffe", is_bgr=False),  # torchvision vgg16_features
    "00b39a1b": _KnownFile("caffe", is_bgr=True),  # jcjohnson's vgg16
    "d01eb7cb": _KnownFile("caffe", is_bgr=True),  # jcjohnson's vgg19
}

_NAMED = ("imagenet", "imagenet_features", "compact")
_OF_VGG16 = ("imagenet_features", "compact")

FULL_NETWORKS = {"vgg16": "imagenet_features", "vgg19": "imagenet"}
"""The published weights nearest to those that ``compact`` was learned from, by its architecture:
VGG-16 today, VGG-19 in models that earlier versions trained."""


class Weights(NamedTuple):
    """The convolutions of a loss network, and how to use them.

    Attributes:
        convolutions: ``3_4`` to the kernel (out, in, 3, 3), input RGB, and the bias (out,).
        preprocessing: how pixels are normalized.
        padding: what surrounds pictures and features, ``zeros`` or ``reflect``.
        source: a name such as ``imagenet``, or the file's name.
        digest: the sha256 of the file, in hex; of random weights, of their recipe.
        mean: RGB in 0..255, subtracted instead of the usual mean of `preprocessing`; None for the
            usual one.
        heads: ``relu3_3`` to a matrix (C, C). The layer's output is multiplied by it; the next
            layer takes the features without it. See `distilling.students`.
    """

    convolutions: dict[str, tuple[Tensor, Tensor]]
    preprocessing: Preprocessing
    padding: Padding
    source: str
    digest: str
    mean: tuple[float, float, float] | None = None
    heads: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def label(self) -> str:
        """The name for people, in capitals for weights that must not be taken for a real VGG's."""
        name = self.source.upper() if self.source in ("random", "compact") else self.source
        return f"{name} weights"


class UnfitWeightsError(UserError):
    """Weights do not fit the settings, which are as likely to be wrong.

    Args:
        problem: what does not fit, without a remedy.
        remedy: for who can change the settings; a clause, or sentences.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}{'.' if remedy[0].isupper() else ';'} {remedy}")
        self.problem = problem


class MissingLayerError(UnfitWeightsError):
    """Weights do not reach the deepest layer that a loss names."""


class LossNetwork(nn.Module):
    """Features of pictures at named layers. Nothing in it is trained.

    Args:
        architecture: ``vgg16`` or ``vgg19``.
        weights: its convolutions; the network ends with the last of them.
        pooling: ``max``, or ``average`` as Gatys et al. 2016 (section 2) prefer for synthesis.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: Architecture,
        weights: Weights,
        *,
        pooling: Literal["max", "average"] = "max",
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.weights = weights
        self.pooling = pooling
        self.padding_mode = "reflect" if weights.padding == "reflect" else "constant"
        self._room = Room()
        self.pool = F.max_pool2d if pooling == "max" else F.avg_pool2d
        self.names = [
            name
            for name in layer_names(architecture)
            if convolution_of(name) in weights.convolutions
        ]
        for number, (kernel, bias) in weights.convolutions.items():
            self.register_buffer(f"kernel_{number}", kernel.float())
            self.register_buffer(f"bias_{number}", bias.float())
        for name, head in weights.heads.items():
            self.register_buffer(f"head_{name}", head.float())
        mean, std = _NORMALIZATION[weights.preprocessing]
        if weights.mean is not None:
            mean = tuple(value / 255 for value in weights.mean)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """The outputs of `layers`, each (N, C, H / 2^(block - 1), W / 2^(block - 1)), rounded down.

        Layers behind the deepest of them are not computed.

        Args:
            pixels: (N, 3, H, W), float in [0, 1].
            layers: names such as ``relu3_3``.

        Raises:
            MemoryError: there is not enough main memory for pictures of this size.
        """
        wanted = set(layers)
        self._require_room(pixels, wanted)
        found: dict[str, Tensor] = {}
        features = (pixels - self.mean) / self.std
        for previous, name in zip([None, *self.names], self.names, strict=False):
            if len(found) == len(wanted):
                break
            if name.startswith("relu"):
                # In place unless the values before the ReLU are wanted: the backward pass needs
                # only those after it.
                features = F.relu(features, inplace=previous not in wanted)
            else:
                if previous is not None and previous[4] != name[4]:
                    features = self.pool(features, 2)  # a new block begins
                features = self._convolve(features, convolution_of(name))
            if name in wanted:
                found[name] = self._through_head(features, name)
        return found

    def _require_room(self, pixels: Tensor, wanted: Collection[str]) -> None:
        """Check that there is memory for the features up to the deepest of the wanted layers.

        Raises:
            MemoryError: there is less than they need at least.
        """
        deepest = max((self.names.index(name) for name in wanted if name in self.names), default=-1)
        numbers = map(convolution_of, self.names[: deepest + 1])
        convolutions = self.weights.convolutions
        self._room.require(
            pixels,
            [(int(number[0]), len(convolutions[number][0])) for number in dict.fromkeys(numbers)],
        )

    def with_weights(self, weights: Weights) -> "LossNetwork":
        """The same network with other weights, on the same device."""
        other = LossNetwork(self.architecture, weights, pooling=self.pooling)
        return other.to(self.mean.device)

    def _through_head(self, features: Tensor, name: str) -> Tensor:
        if name not in self.weights.heads:
            return features
        return F.conv2d(features, self.get_buffer(f"head_{name}")[:, :, None, None])

    def _convolve(self, features: Tensor, number: str) -> Tensor:
        kernel, bias = self.get_buffer(f"kernel_{number}"), self.get_buffer(f"bias_{number}")
        padding = 1
        if self.padding_mode == "reflect":
            features, padding = _reflected(features), 0
        use_winograd = winograd.is_faster(features, kernel, padding=padding)
        convolve = winograd.convolve if use_winograd else F.conv2d
        return convolve(features, kernel, bias, padding=padding)


def _reflected(features: Tensor) -> Tensor:
    """Features (N, C, H, W) with a frame of 1: (N, C, H + 2, W + 2).

    The reflection of a single row or column is that row or column; torch refuses it. The smallest
    pictures have such features in the deep blocks.
    """
    height, width = features.shape[-2:]
    if min(height, width) > 1:
        return F.pad(features, (1, 1, 1, 1), mode="reflect")
    wider = F.pad(features, (1, 1, 0, 0), mode="reflect" if width > 1 else "replicate")
    return F.pad(wider, (0, 0, 1, 1), mode="reflect" if height > 1 else "replicate")


def load_weights(
    source: str,
    architecture: Architecture,
    deepest: str,
    *,
    preprocessing: Preprocessing | None = None,
    padding: Padding | None = None,
    seed: int = 1,
    keys: NetworkKeys = LOSS_NETWORK_KEYS,
) -> Weights:
    """The convolutions up to the layer `deepest`.

    Args:
        source: ``imagenet``, ``imagenet_features``, ``compact``, ``random``, or the path of a file.
        architecture: ``vgg16`` or ``vgg19``.
        deepest: the last layer that is needed; deeper ones are not read.
        preprocessing: the pixel values that the weights expect; None for published files and for
            files that state it.
        padding: what surrounds pictures; None for what the file states, or else zeros.
        seed: of ``random``.
        keys: what these settings are called, for messages.

    Raises:
        UserError: the weights are missing or do not fit; the message has a remedy.
    """
    if source == "random":
        return _random_weights(architecture, deepest, seed, padding or "zeros")
    if source in _OF_VGG16 and architecture != "vgg16":
        raise UserError(
            f"{keys.weights}: {source} are weights of vgg16, and {keys.architecture} is "
            f"{architecture}; set it to vgg16, or name other weights"
        )
    if source in ("imagenet", "imagenet_features"):
        path = _torchvision_file(source, architecture, _other_weights(keys, architecture, deepest))
    elif source == "compact":
        path = COMPACT_FILE
    else:
        path = Path(source)
        require_weights_file(path, keys.weights, keys.words)
    return _read_weights(path, source, architecture, deepest, preprocessing, padding, keys)


def _other_weights(keys: NetworkKeys, architecture: Architecture, deepest: str) -> str:
    """What to do where torchvision's weights cannot be had."""
    a_file = f"name a file of yours with {keys.with_weights('FILE')}"
    names = layer_names("vgg16")
    is_deep = architecture != "vgg16" or names.index(deepest) > names.index(DEEPEST_LAYER)
    if is_deep or "compact" not in keys.words:
        return a_file
    compact = keys.with_weights("compact")
    return f"{a_file}, or use the small network that comes with fast-style, {compact}"


def _convolutions_up_to(deepest: str, architecture: Architecture) -> list[str]:
    names = layer_names(architecture)
    return [
        convolution_of(name)
        for name in names[: names.index(deepest) + 1]
        if name.startswith("conv")
    ]


def _random_weights(
    architecture: Architecture, deepest: str, seed: int, padding: Padding
) -> Weights:
    """Untrained convolutions, which transfer style too, if less well (He, Wang, Hopcroft 2016).

    Kernels are normal with variance 2 / fan-in (He et al. 2015, equation 10), which keeps the size
    of the activations from layer to layer. The means of the kernels are not removed: without them
    the network does not see colors, and the demo's cat drowned in white blobs.
    """
    generator = torch.Generator().manual_seed(seed)
    convolutions = {}
    channels = 3
    for number in _convolutions_up_to(deepest, architecture):
        out_channels = CHANNELS_PER_BLOCK[int(number[0]) - 1]
        kernel = torch.randn(out_channels, channels, 3, 3, generator=generator)
        kernel *= (2 / (9 * channels)) ** 0.5
        convolutions[number] = (kernel, torch.zeros(out_channels))
        channels = out_channels
    # The digest is of the recipe, not of the numbers, which some processors round differently.
    recipe = f"random {architecture} to {deepest}, seed {seed}"
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    return Weights(convolutions, "torchvision", padding, "random", digest)


def full_network_is_cached(architecture: Architecture) -> bool:
    """Whether `FULL_NETWORKS`' weights lie in torch's cache folder, judged by the file's name.

    Needs no torchvision; loading checks the digest.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if FULL_NETWORKS[architecture] == "imagenet_features":
        name, preprocessing = "vgg16_features-amdegroot", "caffe"
    else:
        name, preprocessing = architecture, "torchvision"
    return any(
        # jcjohnson's weights have such names, too. os.access: False for an unreadable folder.
        known.preprocessing == preprocessing and os.access(folder / f"{name}-{digest}.pth", os.R_OK)
        for digest, known in _KNOWN_FILES.items()
    )


def _torchvision_file(source: str, architecture: Architecture, otherwise: str) -> Path:
    """Torchvision's file of VGG weights, downloaded unless it lies in torch's cache.

    Raises:
        UserError: as `cached_file`.
    """
    if source == "imagenet_features":
        entry = ("VGG16_Weights", "IMAGENET1K_FEATURES")
    elif architecture == "vgg16":
        entry = ("VGG16_Weights", "IMAGENET1K_V1")
    else:
        entry = ("VGG19_Weights", "IMAGENET1K_V1")
    return cached_file(*entry, purpose="the loss network's weights", otherwise=otherwise)


def _read_weights(
    path: Path,
    source: str,
    architecture: Architecture,
    deepest: str,
    preprocessing: Preprocessing | None,
    padding: Padding | None,
    keys: NetworkKeys,
) -> Weights:
    file = read_weights_file(path, architecture, _convolutions_up_to(deepest, architecture))
    digest = sha256_of(path)
    known = _KNOWN_FILES.get(digest[:8])
    own = known.preprocessing if known else file.preprocessing
    if preprocessing and own and preprocessing != own:
        raise UnfitWeightsError(
            f"{printable(path)}: {keys.preprocessing} is {preprocessing}, but these weights need "
            f"{own}",
            "remove this setting",
        )
    preprocessing = preprocessing or _checked(own, _NORMALIZATION, path, "preprocessing")
    if preprocessing is None:
        raise UserError(
            f"{printable(path)}: this file does not state which pixel values its weights "
            f"expect; set {keys.preprocessing} to caffe (0..255 minus the mean) or torchvision "
            "([0, 1], mean and standard deviation). The wrong one raises no error and spoils the "
            "pictures"
        )
    padding = padding or _checked(file.padding, ("zeros", "reflect"), path, "padding")
    convolutions = _pick_convolutions(file, path, architecture, deepest, keys)
    if file.is_bgr or (known and known.is_bgr):
        kernel, bias = convolutions["1_1"]
        convolutions["1_1"] = (kernel.flip(1), bias)
    name = source if source in _NAMED else path.name
    heads = _pick_heads(file, path, architecture, convolutions)
    padding = padding or "zeros"
    return Weights(convolutions, preprocessing, padding, name, digest, file.mean, heads)


def _checked(word: str | None, allowed: Collection[str], path: Path, key: str) -> Any:
    """`word`, which a file's metadata has for `key`, if it is None or allowed."""
    if word is not None and word not in allowed:
        raise UserError(
            f"{printable(path)}: its metadata has {key} {word!r}; it must be one of "
            f"{', '.join(allowed)}"
        )
    return word


def _pick_convolutions(
    file: WeightsFile, path: Path, architecture: Architecture, deepest: str, keys: NetworkKeys
) -> dict[str, tuple[Tensor, Tensor]]:
    """The needed convolutions by number.

    Raises:
        UserError: one is missing, its shape, type or numbers cannot be used, or the file is of
            another architecture.
    """
    if architecture == "vgg16" and "3_4" in file.convolutions:
        raise UnfitWeightsError(
            f"{printable(path)}: has a conv3_4, so it is a vgg19",
            f"set {keys.architecture} to vgg19",
        )
    convolutions: dict[str, tuple[Tensor, Tensor]] = {}
    channels = 3
    for number in _convolutions_up_to(deepest, architecture):
        place = file.places.get(number)
        name = f"conv{number} ({place})" if place else f"conv{number}"
        if number not in file.convolutions:
            extent = f"up to conv{[*convolutions][-1]}" if convolutions else "none of them"
            raise MissingLayerError(
                f"{printable(path)}: has no {name} of {architecture}, which the layer {deepest} "
                f"needs; it has {extent}",
                _remedy_for_missing(number, architecture, keys),
            )
        kernel, bias = file.convolutions[number]
        if kernel.shape[1:] != (channels, 3, 3) or bias.shape != kernel.shape[:1]:
            raise UnfitWeightsError(
                f"{printable(path)}: {name} has the shape {tuple(kernel.shape)}, bias "
                f"{tuple(bias.shape)}; (channels, {channels}, 3, 3) and (channels,) are needed",
                f"Is it a {architecture}? See {keys.architecture}",
            )
        if not (kernel.is_floating_point() and bias.is_floating_point()):
            raise UserError(
                f"{printable(path)}: {name} holds {kernel.dtype}, bias {bias.dtype}; "
                "floating-point numbers "
                "are needed"
            )
        convolutions[number] = (_own_copy(kernel, path, name), _own_copy(bias, path, name))
        channels = kernel.shape[0]
    return convolutions


def _remedy_for_missing(number: str, architecture: Architecture, keys: NetworkKeys) -> str:
    # The convolutions at which state dicts of the two architectures differ first.
    other = {("vgg16", "4_1"): "vgg19", ("vgg19", "3_4"): "vgg16"}.get((architecture, number))
    remedy = f"{keys.shallower}, or other weights"
    if other is None:
        return remedy.capitalize()
    return f"If it is a {other}, set {keys.architecture} to {other}; otherwise {remedy}"


def _pick_heads(
    file: WeightsFile,
    path: Path,
    architecture: Architecture,
    convolutions: Mapping[str, tuple[Tensor, Tensor]],
) -> dict[str, Tensor]:
    """The heads of the layers that are computed.

    Raises:
        UserError: the shape, type or numbers of one cannot be used.
    """
    heads = {}
    for name in layer_names(architecture):
        if name not in file.heads or convolution_of(name) not in convolutions:
            continue
        channels = len(convolutions[convolution_of(name)][1])
        if file.heads[name].shape != (channels, channels):
            raise UserError(
                f"{printable(path)}: heads.{name} has the shape {tuple(file.heads[name].shape)}; "
                f"{(channels, channels)} is needed"
            )
        if not file.heads[name].is_floating_point():
            raise UserError(
                f"{printable(path)}: heads.{name} holds {file.heads[name].dtype}; "
                "floating-point numbers are "
                "needed"
            )
        heads[name] = _own_copy(file.heads[name], path, f"heads.{name}")
    return heads


def _own_copy(part: Tensor, path: Path, name: str) -> Tensor:
    """A copy in float32, since the file may be mapped into memory.

    Raises:
        UserError: a number is not finite.
    """
    copy = part.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not torch.isfinite(copy).all():
        raise UserError(f"{printable(path)}: {name} has numbers that are not finite")
    return copy
