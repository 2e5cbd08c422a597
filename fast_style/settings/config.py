"""The settings of this project: what its files may say, and the rules between settings.

There are three kinds of file: `Config` describes a training run, `GatysConfig` the optimization of
one picture, `DistillConfig` the making of a small loss network. How they are read, checked and
explained is the business of `settings`.
"""

import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer

from fast_style.core.errors import UserError
from fast_style.settings.layers import LAYER_PATTERN, Architecture, canonical_layer, require_layers
from fast_style.settings.settings import (
    LEAST_SIDE,
    Counts,
    FilePath,
    InWords,
    PathOr,
    PathWeights,
    Root,
    Section,
    Share,
    ShareRange,
    Size,
    commented_yaml,
    json_schema,
    load,
    parse,
)

Normalization = Literal["relative", "paper"]
Upsampling = Literal["resize", "transposed"]
Pooling = Literal["max", "average"]
Padding = Literal["zeros", "reflect"]
Preprocessing = Literal["torchvision", "caffe"]
Cache = Literal["none", "disk"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "constant"]
Method = Literal["lbfgs", "adam"]
Bounds = Literal["box", "clip", "none"]

# Words that `loss_network.weights` and `optimize.init` understand; anything else there is a path.
NAMED_WEIGHTS = ("imagenet", "imagenet_features", "compact", "random")
INIT_WORDS = ("content", "style", "uniform_noise", "normal_noise")

# Settings that may differ when a run is resumed: they change what is watched, or how the same thing
# is computed, and not what is learned.
# Paths are compared by the digest of what they point to, so that folders can be moved.
MAY_CHANGE_ON_RESUME = (
    "log.",
    "train.compile",
    "train.cuda_graph",
    "data.workers",
    "data.cache_folder",
    "data.max_unreadable_share",
    "data.photos",
    "data.validation_photos",
    "style.image",
    "data.paintings",
    "data.validation_paintings",
    "loss_network.weights",
    "teacher.weights",
)


# --- Types of settings --------------------------------------------------------------------------


def _known_layer(name: str) -> str:
    canonical_layer(name)
    return name


def _canonical_layers(weights: Mapping[str, float]) -> Mapping[str, float]:
    layers: dict[str, float] = {}
    for name, weight in weights.items():
        canonical = canonical_layer(name)
        if canonical in layers:
            raise ValueError(f"{canonical} is given twice, once under another name")
        layers[canonical] = weight
    # A frozen pydantic model freezes its fields, not what a dict holds.
    return MappingProxyType(layers)


LayerWeights = Annotated[
    Mapping[Annotated[str, AfterValidator(_known_layer)], Annotated[float, Field(ge=0)]],
    Field(json_schema_extra={"propertyNames": {"pattern": LAYER_PATTERN}}),
    InWords("layer"),
    AfterValidator(_canonical_layers),
    PlainSerializer(dict, return_type=dict),
]
Layer = Annotated[
    str,
    AfterValidator(canonical_layer),
    Field(json_schema_extra={"pattern": LAYER_PATTERN}),
    InWords("layer"),
]
RunName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"),
    InWords("letters, digits, '.', '_' and '-' (at most 100), a letter or digit first"),
]


# --- A training run -----------------------------------------------------------------------------


class StyleConfig(Section):
    """The style picture."""

    image: FilePath
    """The style picture; any format that Pillow reads of photographs and paintings."""

    size: int = Field(256, ge=16, le=8192)
    """Pixels of the style picture's shorter side as the loss network sees it. Larger: larger
    strokes, finer details; it should not be far from data.crop_size."""


class PhotosConfig(Section):
    """Photos, and the crops that are made of them."""

    photos: FilePath
    """A folder of photos, flat or nested; searched recursively."""

    validation_photos: FilePath | None = None
    """A folder of photos to validate on. Unset: photos held out of `photos`, chosen by a hash of
    their names."""

    validation_count: int = Field(16, ge=1, le=10_000)
    """How many photos are held out (or taken from validation_photos)."""

    crop_size: int = Field(256, ge=16, le=4096)
    """Pixels, width and height of a training crop."""

    crop_scale: ShareRange = (0.5, 1.0)
    """A crop's side as a share of the photo's shorter side, drawn uniformly from [least, most],
    before it is resized to crop_size: objects appear at different scales."""

    flip: bool = True
    """Whether every second crop (by chance) is mirrored."""

    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    """Processes that decode photos; auto: 1 on a CPU, up to 8 beside a GPU, with a cache 0 and up
    to 4; 0: none, decode in the training process."""

    cache: Cache = "none"
    """disk: decode all photos once, before training, into a file that later runs share; a crop
    then costs a fraction of the time, and shows the same, moved to whole pixels of the stored
    photo. none: decode a photo whenever it is its turn."""

    cache_side: int | None = Field(None, ge=16, le=32_768)
    """Pixels of the shorter side to which cached photos are shrunk; smaller ones stay so. 4:3
    photos take 4 * cache_side^2 bytes each: 256 pixels 0.26 MB, 512 pixels 1.05 MB. Unset: the
    largest crop size / the least crop_scale, with which no crop is enlarged. Half of that takes a
    quarter of the disk; the smallest crops are then enlarged to twice their size, and blurred."""

    cache_folder: FilePath | None = None
    """Where caches lie, one for each set of photos and cache_side. Unset: photo_cache in the
    working directory."""

    max_unreadable_share: float = Field(0.05, ge=0, le=1)
    """Unreadable photos are skipped and listed; more than this share of all photos (and more than
    ten) stops the run."""


class DataConfig(PhotosConfig):
    """The photos to train on."""

    grown_crop_size: int | None = Field(None, ge=16, le=4096)
    """Pixels of a crop in the last part of training. Small crops first show more photos in the
    same time, large ones at the end more of each. Unset: crop_size throughout."""

    grow_after: Share = 0.7
    """The share of the steps after which crops have grown_crop_size; of train.steps, so that
    prolonging a run puts it off."""


class ModelConfig(Section):
    """The image transform network."""

    width: int = Field(32, ge=1, le=512)
    """Channels of the first convolution; the others have two and four times as many."""

    residual_blocks: int = Field(5, ge=0, le=64)
    """Residual blocks at a quarter of the picture's size."""

    upsampling: Upsampling = "resize"
    """resize: nearest neighbour, then a convolution (less of a checkerboard). transposed: as
    in the paper."""

    tanh_scale: float = Field(150, ge=1, le=1000)
    """The output is 127.5 + tanh_scale * tanh(x) in units of 0..255. The reference
    implementation's 150 reaches black and white without saturating, and is clamped when written;
    127.5 gives exactly the legal range."""


class LossNetworkConfig(Section):
    """The frozen VGG that judges the pictures."""

    architecture: Architecture = "vgg19"
    """Which VGG the layers below are names of."""

    weights: Annotated[str, PathOr(NAMED_WEIGHTS)] = "imagenet"
    """imagenet: torchvision's, downloaded once. imagenet_features: torchvision's VGG-16 of Caffe
    origin, the paper's. compact: the package's own small network, learned from VGG-19, up to
    relu3_4; no download, and a multiple of the speed. random: seeded random numbers, for trying
    things out. Otherwise the path of a file: torchvision's names (.pth, .safetensors),
    MatConvNet's imagenet-vgg-verydeep-19.mat, or Keras's weights (.h5); the last two need the
    extra `weights`."""

    pooling: Pooling = "max"
    """max as VGG was trained; average gives smoother results (Gatys et al. 2015)."""

    padding: Padding | None = None
    """What surrounds a picture in each convolution. Unset: what the weights file says, else
    zeros, as VGG was trained; reflect keeps the frame of zeros from being seen as an edge."""

    preprocessing: Preprocessing | None = None
    """How pixels are presented to the weights: torchvision ([0, 1], mean and standard deviation)
    or caffe (0..255 minus the mean). Needed for a .pth or .safetensors file that is neither known
    by its digest nor says so itself; .mat files with a mean and .h5 files have their own."""


class LossConfig(Section):
    """What a good picture is."""

    normalization: Normalization = "relative"
    """relative: each term is divided by the size of its target, so that weights mean about the
    same for any loss network, picture and size. paper: Johnson et al. 2016, equations 2 to 4."""

    content_layers: LayerWeights = Field({"relu3_3": 1.0})
    """Layers at which the result must resemble the photo, with weights."""

    style_layers: LayerWeights = Field(
        {"relu1_2": 1.0, "relu2_2": 1.0, "relu3_3": 1.0, "relu3_4": 1.0}
    )
    """Layers whose Gram matrices must resemble the style picture's, with weights."""

    content_weight: float = Field(1.0, ge=0)
    """Weight of the content term."""

    style_weight: float = Field(5.0, ge=0)
    """Weight of the style term: the first thing to change when a result is too weak or too wild."""

    tv_weight: float = Field(1.0, ge=0)
    """Weight of the total variation: larger is smoother."""

    tv_exponent: float = Field(2.0, ge=2, le=10)
    """The exponent beta of the total variation, mean of (dx^2 + dy^2)^(beta/2)."""


class TrainConfig(Section):
    """How the network is trained."""

    steps: int = Field(40_000, ge=1, le=100_000_000)
    """Optimizer steps in all."""

    batch_size: int = Field(4, ge=1, le=4096)
    """Photos per step, over all processes together."""

    learning_rate: float = Field(1e-3, gt=0, le=10)
    """Adam's learning rate after the warm-up; 1e-3 is the paper's."""

    schedule: Schedule = "cosine"
    """cosine: the rate falls to zero at the last step. constant: it stays, and a finished run can
    be prolonged by raising steps."""

    warmup_steps: int = Field(100, ge=0)
    """Steps over which the rate rises linearly from zero."""

    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where a GPU computes it natively, else fp32. fp16 (with
    a scaled loss) is for CUDA GPUs without bf16. On CUDA, fp32 rounds to TF32 in convolutions."""

    compile: bool = False
    """Compile the network and its loss with torch.compile before the first step, which takes
    minutes. Needs a C++ compiler, on a GPU Triton too; where it fails, the run does not begin."""

    cuda_graph: bool = True
    """On a GPU, record a step's kernels once and start them all together from then on: several
    times as fast for a few photos. Not done by processes that train together."""

    deterministic: bool = False
    """Ask torch for deterministic kernels, for bit-exact runs on a GPU (slower)."""

    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of torch; unset: torch's own choice. Bit-exact resuming needs the same number."""

    init_from: FilePath | None = None
    """A model file whose weights are the starting point: another style's model saves most of the
    training."""


class LogConfig(Section):
    """What is written down, and how often (in steps)."""

    every: int = Field(50, ge=1)
    """Losses and speed."""

    shares_every: int = Field(500, ge=1)
    """Each term's share of the gradient at the output picture."""

    validate_every: int = Field(500, ge=1)
    """The losses on the held-out photos."""

    samples_every: int = Field(500, ge=1)
    """Pictures of held-out photos beside their stylized versions."""

    samples: int = Field(6, ge=1, le=64)
    """How many photos such a picture shows: the first validation photos."""

    checkpoint_every: int = Field(1000, ge=1)
    """Checkpoints; one is also written when a run ends or is stopped."""

    keep_checkpoints: int = Field(3, ge=2, le=1000)
    """How many of the newest checkpoints are kept. Two at least: the newest may be the one that
    a failing disk spoiled."""


class Config(Root):
    """All settings of a training run."""

    example = "train.steps=2000"
    to_start_from = "`fast-style init STYLE.jpg > my.yaml` writes a file to start from"

    name: RunName
    """The run's name: it trains in runs/<name> of the working directory."""

    seed: int = Field(1, ge=0, le=2**63 - 1)
    """Every random choice derives from it."""

    style: StyleConfig
    data: DataConfig
    model: ModelConfig = Field(default_factory=ModelConfig)
    loss_network: LossNetworkConfig = Field(default_factory=LossNetworkConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    def _mistakes(self) -> Iterator[str]:
        yield from _loss_mistakes(self.loss_network, self.loss, purpose="learn")
        train = self.train
        if train.warmup_steps >= train.steps:
            yield (
                f"train.warmup_steps: must be below train.steps ({train.steps}), "
                f"got {train.warmup_steps}"
            )


# --- The optimization of one picture ------------------------------------------------------------


class GatysStyleConfig(Section):
    """The style picture, or several."""

    image: FilePath
    """The style picture; any format that Pillow reads of photographs and paintings."""

    blend: PathWeights = Field({})
    """Further style pictures, with their weights beside the 1 of `image`. The style term is the
    weighted mean of the distances to all of them."""

    size: Size | None = None
    """Pixels of a style picture's shorter side as the loss network sees it, or [width, height] to
    squash it to. Larger: larger strokes, finer details. Unset: as optimize.size."""


class OptimizeConfig(Section):
    """How the picture is optimized."""

    method: Method = "lbfgs"
    """lbfgs: SciPy's L-BFGS-B, a quasi-Newton method with a line search: no update makes the loss
    larger. adam: first order; needs a fitting learning_rate."""

    iterations: int = Field(500, ge=1, le=1_000_000)
    """Accepted updates, at each scale."""

    size: Size = 512
    """Pixels of the result's shorter side, in the ratio of the photo; or [width, height] to squash
    both pictures to, as some texts on Keras do."""

    scales: int = Field(1, ge=1, le=8)
    """From coarse to fine: the number of sizes, each twice the one before, the last one being
    `size`. A large picture gets large structures only in this way."""

    init: Annotated[str, PathOr(INIT_WORDS)] = "content"
    """The picture to begin with. content: the photo. style: the style picture. uniform_noise,
    normal_noise: noise, another one for each seed. Otherwise the path of a picture."""

    bounds: Bounds = "box"
    """How pixels are kept in [0, 1]. box: by the method itself (the B of L-BFGS-B; Adam clips).
    clip: each update is clipped afterwards, as Johnson et al. 2016 do, with an L-BFGS that has no
    line search. none: only the result is clipped, when it is written."""

    learning_rate: float = Field(0.02, gt=0, le=10)
    """Adam's, in units of the pixel range [0, 1]: a rate of 10 for pixels of 0..255 is 0.039 here.
    Not used by lbfgs."""

    history: int = Field(10, ge=1, le=1000)
    """Pairs of updates and changes of the gradient that L-BFGS remembers. Not used by adam."""

    tolerance: float = Field(0.0, ge=0, lt=1)
    """L-BFGS stops when an update lowers the loss by less than this share of it; 0: never. Not used
    by adam."""

    restart_every: int | None = Field(None, ge=2)
    """L-BFGS forgets its history after this many evaluations of the loss, as it does in the Keras
    examples, which call it again and again with maxfun=20. Unset: never."""


class GatysConfig(Root):
    """All settings of the optimization of one picture, the method of Gatys et al. 2015."""

    example = "optimize.iterations=200"
    to_start_from = "configs/optimize/ has files to start from, such as gatys.yaml"

    seed: int = Field(1, ge=0, le=2**63 - 1)
    """Every random choice derives from it."""

    style: GatysStyleConfig
    loss_network: LossNetworkConfig = Field(default_factory=LossNetworkConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    optimize: OptimizeConfig = Field(default_factory=OptimizeConfig)

    def _mistakes(self) -> Iterator[str]:
        yield from _loss_mistakes(self.loss_network, self.loss, purpose="draw")
        image = os.path.realpath(self.style.image)
        for picture in self.style.blend:
            if os.path.realpath(picture) == image:
                yield f"style.blend: {str(picture)!r} is style.image, which has the weight 1"
        optimize = self.optimize
        if optimize.restart_every is not None and optimize.method == "adam":
            yield "optimize.restart_every: adam has no history to forget; leave it out"
        elif optimize.restart_every is not None and optimize.bounds == "clip":
            yield "optimize.restart_every: goes with optimize.bounds box or none, not with clip"
        side = optimize.size if isinstance(optimize.size, int) else min(optimize.size)
        halvings = optimize.scales - 1
        if side >> halvings < LEAST_SIDE:
            yield (
                f"optimize.scales: must be at most {(side // LEAST_SIDE).bit_length()}, got "
                f"{optimize.scales}: {side} pixels, halved {halvings} times, are "
                f"{side >> halvings}, fewer than {LEAST_SIDE}"
            )


def _loss_mistakes(network: LossNetworkConfig, loss: LossConfig, *, purpose: str) -> Iterator[str]:
    """The mistakes between the sections that both roots have."""
    for key in ("content_layers", "style_layers"):
        for layer in getattr(loss, key):
            try:
                require_layers([layer], network.architecture)
            except ValueError as error:
                yield f"loss.{key}: {error} (loss_network.architecture)"
    yield from _network_mistakes("loss_network", network)
    if loss.content_weight == loss.style_weight == loss.tv_weight == 0:
        yield f"loss.content_weight: all three weights are 0, so there is nothing to {purpose}"


def _network_mistakes(section: str, network: LossNetworkConfig) -> Iterator[str]:
    """The mistakes within a section that describes a VGG."""
    if network.weights == "imagenet_features" and network.architecture != "vgg16":
        yield f"{section}.weights: imagenet_features exists for vgg16 only"
    if network.weights == "compact" and network.architecture != "vgg19":
        yield f"{section}.weights: compact has the layers of vgg19 only"
    if network.weights in NAMED_WEIGHTS and network.preprocessing:
        yield f"{section}.preprocessing: weights {network.weights} have their own; leave it out"


# --- The distillation of a loss network ---------------------------------------------------------


class StudentConfig(Section):
    """The small network that learns."""

    widths: Counts = (16, 32, 64)
    """Channels in each of VGG's blocks; VGG itself has 64, 128, 256, 512, 512."""

    deepest: Layer = "relu3_4"
    """The last layer; its block is the last one that widths names."""


class DistillDataConfig(PhotosConfig):
    """The pictures to learn on."""

    paintings: FilePath
    """A folder of paintings; searched recursively."""

    validation_paintings: FilePath | None = None
    """A folder of paintings to validate on. Unset: held out of `paintings`, chosen by a hash of
    their names; at most half of them."""

    crop_size: int = Field(96, ge=32, le=4096)
    """Pixels, width and height of a crop."""


class DistillTrainConfig(Section):
    """How the student learns."""

    steps: int = Field(20_000, ge=1, le=100_000_000)
    """Optimizer steps in all."""

    photos: int = Field(4, ge=1, le=4096)
    """Photos per step; what a painter makes of them comes in addition."""

    paintings: int = Field(3, ge=0, le=4096)
    """Crops of paintings per step."""

    surfaces: int = Field(1, ge=0, le=4096)
    """Plain surfaces, gradients and patches of color per step."""

    painters: int = Field(4, ge=0, le=64)
    """Transform networks that are trained against the student, in turn, one step each; the student
    learns from what they make of the photos. 0: none."""

    learning_rate: float = Field(1e-3, gt=0, le=10)
    """Adam's learning rate after the warm-up."""

    schedule: Schedule = "cosine"
    """cosine: the rate falls to zero at the last step. constant: it stays."""

    warmup_steps: int = Field(100, ge=0)
    """Steps over which the rate rises linearly from zero."""

    precision: Precision = "auto"
    """Of the teacher's features, which err by a hundred-thousandth of their squares in bf16: fp32,
    bf16 (autocast), or auto: bf16 where a GPU computes it natively, else fp32. fp16 is for CUDA
    GPUs without bf16."""

    deterministic: bool = False
    """Ask torch for deterministic kernels, for bit-exact runs on a GPU (slower)."""

    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of torch; unset: torch's own choice. Bit-exact resuming needs the same number."""


class DistillLogConfig(Section):
    """What is written down, and how often (in steps)."""

    every: int = Field(50, ge=1)
    """Errors and speed."""

    validate_every: int = Field(500, ge=1)
    """Errors on the held-out pictures, and what the painters paint."""

    checkpoint_every: int = Field(500, ge=1)
    """Checkpoints; one is also written when a run ends or is stopped."""

    keep_checkpoints: int = Field(3, ge=2, le=1000)
    """How many of the newest checkpoints are kept."""


class DistillConfig(Root):
    """All settings of the distillation of a small loss network."""

    example = "student.widths=[8,16,32]"
    to_start_from = "configs/distill.yaml is a file to start from"

    name: RunName
    """The run's name: it trains in runs/<name> of the working directory."""

    seed: int = Field(1, ge=0, le=2**63 - 1)
    """Every random choice derives from it."""

    teacher: LossNetworkConfig = Field(default_factory=LossNetworkConfig)
    student: StudentConfig = Field(default_factory=StudentConfig)
    data: DistillDataConfig
    train: DistillTrainConfig = Field(default_factory=DistillTrainConfig)
    log: DistillLogConfig = Field(default_factory=DistillLogConfig)

    def _mistakes(self) -> Iterator[str]:
        yield from _network_mistakes("teacher", self.teacher)
        deepest = self.student.deepest
        try:
            require_layers([deepest], self.teacher.architecture)
        except ValueError as error:
            yield f"student.deepest: {error} (teacher.architecture)"
        if not deepest.startswith("relu"):
            yield f"student.deepest: must be a layer after a ReLU, got {deepest}"
        if len(self.student.widths) != int(deepest[4]):
            yield (
                f"student.widths: must have a number for each block up to that of student.deepest "
                f"({deepest}), got {list(self.student.widths)}"
            )
        train = self.train
        if train.warmup_steps >= train.steps:
            yield (
                f"train.warmup_steps: must be below train.steps ({train.steps}), "
                f"got {train.warmup_steps}"
            )


# The kind of file that each command takes.
ROOTS: dict[str, type[Root]] = {
    "train": Config,
    "optimize": GatysConfig,
    "distill": DistillConfig,
}


# --- Reading ------------------------------------------------------------------------------------


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML file of a training run; everything else is as for `settings.load`."""
    return load(Config, path, overrides)


def load_gatys_config(path: Path, overrides: Sequence[str] = ()) -> GatysConfig:
    """Read the YAML file of an optimization; everything else is as for `settings.load`."""
    return load(GatysConfig, path, overrides)


def load_distill_config(path: Path, overrides: Sequence[str] = ()) -> DistillConfig:
    """Read the YAML file of a distillation; everything else is as for `settings.load`."""
    return load(DistillConfig, path, overrides)


def parse_config(data: Mapping[str, Any], place: str) -> Config:
    """Settings of a training run from plain data; everything else is as for `settings.parse`."""
    return parse(Config, data, place)


# --- A starting file ----------------------------------------------------------------------------

# What people change first, in the order of the file.
_FIRST_SETTINGS = (
    "name",
    "style.image",
    "style.size",
    "data.photos",
    "data.crop_size",
    "data.grown_crop_size",
    "model.width",
    "loss_network.weights",
    "loss.content_layers",
    "loss.content_weight",
    "loss.style_weight",
    "loss.tv_weight",
    "train.steps",
    "train.batch_size",
    "log.samples_every",
    "log.checkpoint_every",
)

# Minutes on a laptop; the same as configs/laptop.yaml.
_FIRST_VALUES = {
    "data.crop_size": 128,
    "data.grown_crop_size": 192,
    "model.width": 16,
    "loss_network.weights": "compact",
    "loss.content_layers": {"relu2_2": 0.5, "relu3_3": 1.0},
    "loss.style_weight": 3.0,
    "train.steps": 2000,
    "log.samples_every": 100,
    "log.checkpoint_every": 250,
}

_STARTING_HEADER = """\
# Settings of one training run: one style picture, one model.
#
#   fast-style train my.yaml                       train; again: continue where it stopped
#   fast-style train my.yaml loss.style_weight=8   train with another value for once
#   fast-style train my.yaml --print-config        check this file and show all settings
#   fast-style train --help-config                 every other setting, its default and meaning
#   tensorboard --logdir runs                      watch
#
# my.yaml stands for this file. Paths in it are relative to its folder.
# The numbers are for a laptop: minutes, and no download. For a GPU, and for the last bit of
# quality: data.crop_size 256, model.width 32, loss_network.weights imagenet (548 MB, once) and
# train.steps 40000, which are the defaults.
"""


def starting_file(style: Path, *, photos: str = "data/photos") -> str:
    """A commented YAML file that trains the style of one picture on a laptop.

    Args:
        style: the style picture. Its absolute path is written, since the text may be saved in any
            folder; the run is named after it.
        photos: what is written for ``data.photos``.
    """
    values = {
        **_FIRST_VALUES,
        "name": name_from(style.stem),
        "style.image": str(style.expanduser().absolute()),
        "data.photos": photos,
    }
    return f"{_STARTING_HEADER}\n{commented_yaml(Config, _FIRST_SETTINGS, values)}"


def reconstruction(layer: str, of: str) -> list[str]:
    """Settings, as ``key=value`` words, that reconstruct a picture from one side of the loss alone.

    Gatys et al. 2016, figure 1: the content that a layer keeps, or the style that all first layers
    of the blocks up to a layer describe, from noise.

    Args:
        layer: such as ``relu4_1`` or ``conv4_1``.
        of: ``content`` or ``style``.

    Raises:
        UserError: it is no layer.
    """
    try:
        layer = canonical_layer(layer)
    except ValueError as error:
        option = "--reconstruct" if of == "content" else "--reconstruct-style"
        raise UserError(f"{option}: {error}") from None
    below = [f"{layer[:4]}{block}_1" for block in range(1, int(layer[4]))]
    layers = {"content": [layer], "style": [*below, layer]}
    words = ["loss.tv_weight=0", "optimize.init=uniform_noise"]
    for side, names in layers.items():
        is_wanted = side == of
        mapping = ", ".join(f"{name}: 1.0" for name in names) if is_wanted else ""
        words += [f"loss.{side}_layers={{{mapping}}}", f"loss.{side}_weight={int(is_wanted)}"]
    return words


def name_from(stem: str) -> str:
    """A legal `Config.name` from any text: accents dropped, the rest of the illegal made '-'."""
    letters = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", letters)[:100].strip("-._")
    return name or "my-style"


if __name__ == "__main__":
    # python -m fast_style.settings.config > configs/schema.json
    # python -m fast_style.settings.config optimize > configs/optimize/schema.json
    # python -m fast_style.settings.config distill > configs/distill.schema.json
    (command,) = sys.argv[1:] or ["train"]
    sys.stdout.write(json_schema(ROOTS[command]))
