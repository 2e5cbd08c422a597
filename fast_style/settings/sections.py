"""The sections that several kinds of file have in common, and the rules between them."""

from collections.abc import Collection, Iterator
from typing import Annotated, Literal

from pydantic import Field

from fast_style.settings.fields import (
    FilePath,
    LayerWeights,
    OnceMeant,
    PathOr,
    PhotoFolder,
    ShareRange,
)
from fast_style.settings.layers import Architecture, layer_names, require_layers
from fast_style.settings.structure import Mistake, Section

Cache = Literal["none", "disk"]
Normalization = Literal["relative", "paper"]
Padding = Literal["zeros", "reflect"]
Pooling = Literal["max", "average"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Preprocessing = Literal["torchvision", "caffe"]
Schedule = Literal["cosine", "constant"]
StyleDistance = Literal["gram", "sliced"]

NAMED_WEIGHTS = ("imagenet", "imagenet_features", "compact", "random")
"""What a loss network's `weights` may be instead of the path of a file."""

DEEPEST_LAYER = "relu4_3"
"""The deepest layer of the usual loss, and so of the ``compact`` network."""


class PhotosConfig(Section):
    """Photos, and how crops are cut from them."""

    photos: PhotoFolder
    """A folder of photos, flat or nested; searched recursively."""

    validation_photos: PhotoFolder | None = None
    """A folder of photos to validate on. Unset: some of `photos` are held out, chosen by a hash of
    their names."""

    validation_count: int = Field(16, ge=1, le=10_000)
    """Number of photos to validate on."""

    crop_size: int = Field(256, ge=16, le=4096)
    """Width and height of a training crop, in pixels."""

    crop_scale: ShareRange = (0.5, 1.0)
    """Side of a crop as a share of the photo's shorter side, drawn uniformly from [least, most].
    The crop is then resized to crop_size, so that objects appear at different scales."""

    flip: bool = True
    """Mirror each crop with probability 0.5."""

    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    """Number of processes that decode photos. auto: 1 on a CPU, up to 8 on a GPU; with a cache, 0
    on a CPU and up to 4 on a GPU. 0: the training process decodes them itself."""

    cache: Cache = "none"
    """disk: decode all photos once, before training, into a file that later runs share. A crop then
    takes a fraction of the time; it has the same content, aligned to whole pixels of the stored
    photo. none: decode a photo each time it is needed."""

    cache_side: int | None = Field(None, ge=16, le=32_768)
    """Shorter side of a cached photo in pixels; larger photos are shrunk to it, smaller ones are
    kept. A 4:3 photo takes 4 * cache_side^2 bytes: 0.26 MB for 256 pixels, 1.05 MB for 512. Unset:
    the largest crop size / the least crop_scale, so that no crop is enlarged. Half of that needs a
    quarter of the disk, but enlarges the smallest crops to twice their size, which blurs them."""

    cache_folder: FilePath | None = None
    """The folder of the caches, which holds one for each set of photos and cache_side. Unset:
    photo_cache in the working directory."""

    include_results: bool = False
    """Take pictures that fast-style made for photos. Otherwise those among the photos are left out:
    they are known by their names (photo.wave.jpg beside photo.jpg) and by a mark in their files."""

    max_unreadable_share: float = Field(0.05, ge=0, le=1)
    """Unreadable photos are skipped and listed. The run stops when they are more than ten and more
    than this share of all photos."""


class LossNetworkConfig(Section):
    """The fixed VGG network whose features the losses compare."""

    architecture: Architecture = "vgg16"
    """The VGG network whose layers the losses name."""

    weights: Annotated[str, PathOr(NAMED_WEIGHTS)] = "imagenet_features"
    """imagenet_features: torchvision's VGG-16 converted from Caffe, which the paper uses;
    downloaded once. imagenet: torchvision's own VGG-16 or VGG-19, downloaded once. compact: the
    small network in this package, distilled from VGG-16 up to relu4_3; several times as fast, and
    no download. random: random numbers from the seed, for trying things out. Otherwise the path of
    a file: with torchvision's names (.pth, .safetensors), MatConvNet's (.mat) or Keras's (.h5); the
    last two need the extra `weights`."""

    pooling: Pooling = "max"
    """max: as VGG was trained. average: smoother results (Gatys et al. 2015)."""

    padding: Padding | None = None
    """How each convolution pads its input. zeros: as VGG was trained. reflect: no frame of zeros,
    which the network would see as an edge. Unset: what the weights file says, else zeros."""

    preprocessing: Preprocessing | None = None
    """The pixel values that the weights expect. torchvision: [0, 1], normalized by mean and
    standard deviation. caffe: 0..255 minus the mean. Required for a .pth or .safetensors file that
    is not recognized by its digest and does not state it; leave it unset for .h5 files and for .mat
    files with a mean, which have their own."""


class LossConfig(Section):
    """The loss that training or optimization lowers."""

    normalization: Normalization = "relative"
    """relative: each term is divided by the size of its target, so that a weight has about the same
    effect for any loss network, picture and size. paper: Johnson et al. 2016, equations 2 to 4."""

    content_layers: LayerWeights = Field({"relu3_3": 1.0})
    """Layers at which the result must resemble the photo, with their weights."""

    style_layers: LayerWeights = Field(
        {"relu1_2": 1.0, "relu2_2": 1.0, "relu3_3": 1.0, DEEPEST_LAYER: 1.0}
    )
    """Layers at which the result must resemble the style picture, with their weights; in what,
    style_distance says."""

    style_distance: Annotated[StyleDistance, OnceMeant("gram")] = "gram"
    """What is compared at style_layers. gram: Gram matrices, as in the paper. sliced: the whole
    distributions of features (the sliced Wasserstein distance, Heitz et al. 2021), which brings
    more of the style's colors and contrasts."""

    autocorrelation_weight: float = Field(0.0, ge=0)
    """Weight, beside those of style_layers, of how differently the result and the style picture
    are like themselves at distances of 6 to 16 pixels. Larger: fewer cells, rings and grids, but
    less of the photo. 0: as in the paper."""

    halo_weight: float = Field(0.0, ge=0)
    """Weight, beside those of content_layers, of slow changes of color where the photo is flat.
    Larger: fewer glows and patches in skies and on walls, which stay plain. 0: as in the paper."""

    content_weight: float = Field(1.0, ge=0)
    """Weight of the content loss."""

    style_weight: float = Field(5.0, ge=0)
    """Weight of the style loss. Change this first: raise it if the style is too weak, lower it if
    the photo is lost. A model trained with 0.25 leaves the photo nearly as it is, 15 is very
    strong (with the default normalization)."""

    tv_weight: float = Field(1.0, ge=0)
    """Weight of the total variation loss. Larger: smoother."""

    tv_exponent: float = Field(2.0, ge=2, le=10)
    """The exponent beta of the total variation, mean of (dx^2 + dy^2)^(beta/2)."""


def loss_mistakes(
    network: LossNetworkConfig, loss: LossConfig, *, purpose: str
) -> Iterator[Mistake]:
    """Contradictions between a loss and its network; `purpose` is ``learn`` or ``draw``."""
    # What is told about the layers is to hold once the architecture is corrected, too.
    architecture = "vgg16" if network.weights == "compact" else network.architecture
    for name in ("content_layers", "style_layers"):
        layers = getattr(loss, name)
        for layer in layers:
            try:
                require_layers([layer], architecture)
            except ValueError as error:
                remedy = _remedy_for_layer(layer, layers, network)
                yield Mistake(("loss", name), f"{error} (loss_network.architecture){remedy}")
    yield from network_mistakes("loss_network", network)
    is_blank = not (loss.style_layers or loss.autocorrelation_weight)
    if purpose == "learn" and is_blank and loss.style_weight > 0:
        yield Mistake(
            ("loss", "style_layers"),
            "without a layer, and with loss.autocorrelation_weight 0, no style is learned; name a "
            "layer, or set loss.style_weight to 0 if that is meant",
        )
    if loss.content_weight == loss.style_weight == loss.tv_weight == 0:
        yield Mistake(
            ("loss", "content_weight"),
            f"content_weight, style_weight and tv_weight are all 0, which leaves nothing to "
            f"{purpose}; raise one of them",
        )


def _remedy_for_layer(layer: str, layers: Collection[str], network: LossNetworkConfig) -> str:
    """What to do about one of the `layers` that VGG-16 lacks; nothing if VGG-19 lacks it, too."""
    if layer not in layer_names("vgg19"):
        return ""
    last_of_block = f"{layer[:6]}3"
    others = [name for name in dict.fromkeys([last_of_block, DEEPEST_LAYER]) if name not in layers]
    remedy = f"; write {' or '.join(others)} instead" if others else "; leave it out"
    if network.weights == "compact":
        return remedy
    remedy += ", or set loss_network.architecture to vgg19"
    if network.weights == "imagenet_features":
        remedy += " and loss_network.weights to imagenet"
    return remedy


def network_mistakes(section: str, network: LossNetworkConfig) -> Iterator[Mistake]:
    """Contradictions within a section that describes a VGG network."""
    weights = network.weights
    reasons = {
        "imagenet_features": f"for vgg19, set {section}.weights to imagenet",
        "compact": f"they are learned from VGG-16 up to {DEEPEST_LAYER}, and no longer from VGG-19",
    }
    if weights in reasons and network.architecture != "vgg16":
        yield Mistake(
            (section, "architecture"),
            f"must be vgg16 for the weights {weights}, got {network.architecture}; "
            f"{reasons[weights]}",
        )
    if weights in NAMED_WEIGHTS and network.preprocessing:
        yield Mistake(
            (section, "preprocessing"),
            f"cannot be set for the weights {weights}, which have their own; leave it out",
        )


def is_first_compact(network: LossNetworkConfig) -> bool:
    """Whether the weights are ``compact`` as earlier versions had it, learned from VGG-19.

    This version does not have that network; only files that earlier versions wrote can name it.
    """
    return network.weights == "compact" and network.architecture == "vgg19"


def fitted_network(network: LossNetworkConfig) -> LossNetworkConfig:
    """The network with weights of its architecture, if none were set."""
    if network.architecture == "vgg16" or "weights" in network.model_fields_set:
        return network
    return network.model_copy(update={"weights": "imagenet"})


def fitted_warmup_steps(steps: int, warmup_steps: int) -> int:
    """A warm-up, which was not set, that ends before the last step."""
    return warmup_steps if warmup_steps < steps else steps // 10


def warmup_mistakes(steps: int, warmup_steps: int) -> Iterator[Mistake]:
    """A warm-up that does not end before the last step."""
    if warmup_steps >= steps:
        yield Mistake(
            ("train", "warmup_steps"), f"must be below train.steps ({steps}), got {warmup_steps}"
        )
