"""From a YAML file and ``key=value`` words to frozen, validated settings. Knows no torch.

There are two kinds of file: `Config` describes a training run, `GatysConfig` the optimization of
one picture. Everything below their classes takes either as its `root`.

Every mistake is answered with its place (file and line), its dotted key, the rule and what was
found; all mistakes of one kind are told at once. Files are not opened here, except the YAML
itself: whether a picture exists is checked by the code that opens it.
"""

import difflib
import functools
import itertools
import json
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    get_args,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from fast_style.errors import UserError, printable, shortened, shown
from fast_style.layers import LAYER_PATTERN, Architecture, canonical_layer, require_layers
from fast_style.strict_yaml import MAX_DEPTH, dotted_key, dump_yaml, read_text, read_yaml

Normalization = Literal["relative", "paper"]
Upsampling = Literal["resize", "transposed"]
Pooling = Literal["max", "average"]
Padding = Literal["zeros", "reflect"]
Preprocessing = Literal["torchvision", "caffe"]
Precision = Literal["auto", "fp32", "bf16"]
Schedule = Literal["cosine", "constant"]
Method = Literal["lbfgs", "adam"]
Bounds = Literal["box", "clip", "none"]

# Words that `loss_network.weights` and `optimize.init` understand; anything else there is a path.
NAMED_WEIGHTS = ("imagenet", "imagenet_features", "random")
INIT_WORDS = ("content", "style", "uniform_noise", "normal_noise")

# Settings that may differ when a run is resumed: they change what is watched, not what is learned.
# Paths are compared by the digest of what they point to, so that folders can be moved.
MAY_CHANGE_ON_RESUME = (
    "log.",
    "data.workers",
    "data.max_unreadable_share",
    "data.photos",
    "data.validation_photos",
    "style.image",
    "loss_network.weights",
)


# --- The settings -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _IsPath:
    """Marks a field whose text is resolved against the folder of the file that says it."""

    def means_path(self, text: str) -> bool:
        """Whether `text` is a path, and not one of the words that stand for something else."""
        return True


@dataclass(frozen=True)
class _IsPathOr(_IsPath):
    """Marks and checks a text that is one of some words, otherwise a path."""

    words: tuple[str, ...]

    def means_path(self, text: str) -> bool:
        return text not in self.words

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"anyOf": [{"enum": list(self.words)}, {"format": "path"}]}

    def _checked(self, text: str) -> str:
        return str(_usable_path(text)) if self.means_path(text) else text


class _HasPathsAsKeys:
    """Marks a mapping whose keys are resolved against the folder of the file that says them."""


def _usable_path(text: str) -> Path:
    if "://" in text:
        raise ValueError(
            f"{text!r} is a URL; download it first (data/README.md has the commands) and give the "
            "path of the file"
        )
    if not text or "\0" in text:
        raise ValueError(f"must be a path, got {text!r}")
    try:
        os.fsencode(text)
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise ValueError(f"no file can be called {text!r}") from None
    except RuntimeError:
        raise ValueError(f"the home folder in {text!r} is not known; write it out") from None


def _to_path(value: object) -> object:
    # pydantic's strict mode takes no text for a Path when it validates Python objects.
    return _usable_path(value) if isinstance(value, str) else value


def _path_as_written(value: object) -> str:
    """A usable path, still as text: so that errors behind it name it as its file does."""
    if not isinstance(value, str | Path):
        raise ValueError(f"must be a path, got {shown(value)}")
    _usable_path(str(value))
    return str(value)


def _to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _least_first(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"must be [least, most], got {list(pair)}")
    return pair


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


def _pictures(weights: Mapping[str, float], info: ValidationInfo) -> Mapping[Path, float]:
    """The paths resolved; `info.context` says where those that a file or a word gave begin."""
    folders: Mapping[str, Path] = info.context or {}
    pictures: dict[Path, float] = {}
    seen = set()
    for name, weight in weights.items():
        path = folders.get(name, Path()) / _usable_path(name)
        if os.path.realpath(path) in seen:
            raise ValueError(f"{name!r} is given twice, once under another name")
        seen.add(os.path.realpath(path))
        pictures[path] = weight
    return MappingProxyType(pictures)


def _side_or_pair(value: object) -> str:
    return "pair" if isinstance(value, tuple) else "side"


FilePath = Annotated[
    Path, BeforeValidator(_to_path), PlainSerializer(str, return_type=str), _IsPath()
]
LayerWeights = Annotated[
    Mapping[Annotated[str, AfterValidator(_known_layer)], Annotated[float, Field(ge=0)]],
    Field(json_schema_extra={"propertyNames": {"pattern": LAYER_PATTERN}}),
    AfterValidator(_canonical_layers),
    PlainSerializer(dict, return_type=dict),
]
PictureWeights = Annotated[
    Mapping[
        Annotated[Path, PlainValidator(_path_as_written, json_schema_input_type=str)],
        Annotated[float, Field(gt=0)],
    ],
    Field(json_schema_extra={"propertyNames": {"format": "path"}}),
    AfterValidator(_pictures),
    PlainSerializer(
        lambda pictures: {str(path): weight for path, weight in pictures.items()}, return_type=dict
    ),
    _HasPathsAsKeys(),
]
Share = Annotated[float, Field(gt=0, le=1)]
_LEAST_SIDE = 16
_Side = Annotated[int, Field(ge=_LEAST_SIDE, le=8192)]
# With a discriminator, pydantic tells the mistakes of the form that was meant, not those of both.
Size = Annotated[
    Annotated[_Side, Tag("side")]
    | Annotated[
        tuple[Annotated[_Side, Field(title="width")], Annotated[_Side, Field(title="height")]],
        PlainSerializer(list, return_type=list),
        Tag("pair"),
    ],
    Discriminator(_side_or_pair),
    BeforeValidator(_to_tuple),
]


class Section(BaseModel):
    """A frozen group of settings that accepts nothing it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )


class Root(Section):
    """All that one file says: sections, and rules between them."""

    example: ClassVar[str]
    """A ``key=value`` word, as an error shows one."""

    to_start_from: ClassVar[str]
    """Where to find a first file, as the error about one that is not there says it."""

    def _mistakes(self) -> Iterator[str]:
        """One line per combination that cannot work, beginning with the key to change."""
        yield from ()

    @model_validator(mode="after")
    def _check_across_sections(self) -> Self:
        mistakes = list(self._mistakes())
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self


AnyRoot = TypeVar("AnyRoot", bound=Root)


class StyleConfig(Section):
    """The style picture."""

    image: FilePath
    """The style picture; any format that Pillow reads of photographs and paintings."""

    size: int = Field(256, ge=16, le=8192)
    """Pixels of the style picture's shorter side as the loss network sees it. Larger: larger
    strokes, finer details; it should not be far from data.crop_size."""


class DataConfig(Section):
    """The photos to train on."""

    photos: FilePath
    """A folder of photos, flat or nested; searched recursively."""

    validation_photos: FilePath | None = None
    """A folder of photos to validate on. Unset: photos held out of `photos`, chosen by a hash of
    their names."""

    validation_count: int = Field(16, ge=1, le=10_000)
    """How many photos are held out (or taken from validation_photos)."""

    crop_size: int = Field(256, ge=16, le=4096)
    """Pixels, width and height of a training crop."""

    crop_scale: Annotated[
        tuple[Share, Share],
        BeforeValidator(_to_tuple),
        AfterValidator(_least_first),
        PlainSerializer(list, return_type=list),
    ] = (0.5, 1.0)
    """A crop's side as a share of the photo's shorter side, drawn uniformly from [least, most],
    before it is resized to crop_size: objects appear at different scales."""

    flip: bool = True
    """Whether every second crop (by chance) is mirrored."""

    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    """Processes that decode photos; auto: 1 on a CPU, up to 8 beside a GPU; 0: none, decode in
    the training process."""

    max_unreadable_share: float = Field(0.05, ge=0, le=1)
    """Unreadable photos are skipped and listed; more than this share of all photos (and more than
    ten) stops the run."""


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

    weights: Annotated[str, _IsPathOr(NAMED_WEIGHTS)] = "imagenet"
    """imagenet: torchvision's, downloaded once. imagenet_features: torchvision's VGG-16 of Caffe
    origin, the paper's. random: seeded random numbers, for trying things out. Otherwise the path
    of a file: torchvision's names (.pth, .safetensors), MatConvNet's imagenet-vgg-verydeep-19.mat,
    or Keras's weights (.h5); the last two need the extra `weights`."""

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

    content_layers: LayerWeights = {"relu3_3": 1.0}
    """Layers at which the result must resemble the photo, with weights."""

    style_layers: LayerWeights = {"relu1_2": 1.0, "relu2_2": 1.0, "relu3_3": 1.0, "relu3_4": 1.0}
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
    """fp32, bf16 (autocast), or auto: bf16 where a GPU computes it natively, else fp32."""

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


_NAME_RULE = "letters, digits, '.', '_' and '-' (at most 100), a letter or digit first"


class Config(Root):
    """All settings of a training run."""

    example = "train.steps=2000"
    to_start_from = "`fast-style init STYLE.jpg > my.yaml` writes a file to start from"

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
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


class GatysStyleConfig(Section):
    """The style picture, or several."""

    image: FilePath
    """The style picture; any format that Pillow reads of photographs and paintings."""

    blend: PictureWeights = {}
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

    init: Annotated[str, _IsPathOr(INIT_WORDS)] = "content"
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
        if side >> halvings < _LEAST_SIDE:
            yield (
                f"optimize.scales: must be at most {(side // _LEAST_SIDE).bit_length()}, got "
                f"{optimize.scales}: {side} pixels, halved {halvings} times, are "
                f"{side >> halvings}, fewer than {_LEAST_SIDE}"
            )


def _loss_mistakes(network: LossNetworkConfig, loss: LossConfig, *, purpose: str) -> Iterator[str]:
    """The mistakes between the sections that both roots have."""
    for key in ("content_layers", "style_layers"):
        for layer in getattr(loss, key):
            try:
                require_layers([layer], network.architecture)
            except ValueError as error:
                yield f"loss.{key}: {error} (loss_network.architecture)"
    if network.weights == "imagenet_features" and network.architecture != "vgg16":
        yield "loss_network.weights: imagenet_features exists for vgg16 only"
    if network.weights in NAMED_WEIGHTS and network.preprocessing:
        yield (
            f"loss_network.preprocessing: weights {network.weights} have their own; leave it out"
        )
    if loss.content_weight == loss.style_weight == loss.tv_weight == 0:
        yield f"loss.content_weight: all three weights are 0, so there is nothing to {purpose}"


# --- Reading ------------------------------------------------------------------------------------


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML file of a training run, with ``key=value`` words laid over it.

    Paths in the file are relative to the file's folder, those in `overrides` to the working
    directory; ``~`` is the home folder. A section with nothing in it means its defaults.

    Raises:
        UserError: one line per mistake, ``file:line: key: rule, what was found``.
    """
    return _load(Config, path, overrides)


def load_gatys_config(path: Path, overrides: Sequence[str] = ()) -> GatysConfig:
    """Read the YAML file of an optimization; everything else is as for `load_config`."""
    return _load(GatysConfig, path, overrides)


def _load(root: type[AnyRoot], path: Path, overrides: Sequence[str]) -> AnyRoot:
    place = printable(str(path))
    document = read_yaml(read_text(path, place, if_missing=root.to_start_from), place)
    settings = _Settings(root, document.data, place, document.lines)
    settings.resolve_paths(settings.data, (), path.absolute().parent)
    for word in overrides:
        settings.override(word)
    return settings.validate()


def parse_config(data: Mapping[str, Any], place: str) -> Config:
    """Settings of a run from plain data, such as a checkpoint's header; errors name `place`.

    Raises:
        UserError: one line per mistake, ``place: key: rule, what was found``.
    """
    if not isinstance(data, Mapping):  # a file's header holds whatever somebody wrote into it
        raise UserError(f"{place}: settings: must be a section of key: value lines")
    return _Settings(Config, dict(data), place, {}).validate()


def config_to_dict(config: Root) -> dict[str, Any]:
    """Plain data: text, numbers, dicts, lists. `parse_config` makes an equal `Config` from it."""
    # Every type serializes itself to plain data: pydantic's mode "json" takes no key that is a path
    # with undecodable bytes.
    return config.model_dump()


def config_to_yaml(config: Root) -> str:
    """The complete settings as a YAML file that loads to an equal object."""
    return dump_yaml(config_to_dict(config))


def changed_settings(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of every setting that differs; None: absent."""
    before, after = flatten(config_to_dict(old)), flatten(config_to_dict(new))
    keys = list(dict.fromkeys([*after, *before]))
    return [
        (key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)
    ]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class _Place(NamedTuple):
    """Where a key stands; tuples sort as a reader meets them, the command line last."""

    order: int
    text: str


_COMMAND_LINE = sys.maxsize


@dataclass
class _Settings(Generic[AnyRoot]):
    """Plain data on its way to a `root`, with the place that every key came from."""

    root: type[AnyRoot]
    data: dict[str, Any]
    source: str
    lines: dict[tuple[str, ...], int]
    words: dict[tuple[str, ...], str] = field(default_factory=dict)
    # Where each path begins that is a key: keys stay as written, so that errors can name them.
    folders: dict[str, Path] = field(default_factory=dict)

    def override(self, word: str) -> None:
        """Lay one ``key=value`` over the data.

        The value is read as YAML, but where text or a path is asked for, it is taken as it stands
        unless it begins with a quote: names of files may hold what YAML gives a meaning.
        """
        place = f"{shortened(repr(word))} on the command line"
        dotted, equals, text = word.partition("=")
        key = tuple(dotted.split("."))
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", dotted) or len(key) > MAX_DEPTH:
            raise UserError(
                f"{place}: settings are given as key=value, for example {self.root.example}"
            )
        if _takes_text(self.root, key) and text not in ("", "~", "null") and text[0] not in "\"'":
            value: Any = text
        else:
            value = read_yaml(text, place, any_value=True).data
        section = self.data
        for length, part in enumerate(key[:-1], start=1):
            if section.get(part) is None:
                section[part] = {}
            section = section[part]
            if not isinstance(section, dict):
                raise UserError(f"{place}: {dotted_key(key[:length])} is a value, not a section")
        section[key[-1]] = value
        for known in (self.lines, self.words):  # what stood there, and inside it, is gone
            for old in [old for old in known if old[: len(key)] == key]:
                del known[old]
        self.words[key] = place
        self.resolve_paths(section, key[:-1], Path.cwd(), only=key[-1])

    def resolve_paths(
        self, section: dict[str, Any], key: tuple[str, ...], base: Path, *, only: str | None = None
    ) -> None:
        """Make the paths in a section absolute, or that of one entry of it."""
        for name, value in section.items():
            if only is not None and name != only:
                continue
            if _has_mark(self.root, key, _HasPathsAsKeys):
                self.folders[name] = base
            elif isinstance(value, dict):
                self.resolve_paths(value, (*key, name), base)
            elif isinstance(value, str):
                section[name] = _resolved(value, base, _marks(self.root, (*key, name)))

    def validate(self) -> AnyRoot:
        for name, value in self.data.items():
            if value is None and _fields_of(self.root, (name,)):
                self.data[name] = {}
        try:
            return self.root.model_validate(self.data, context=self.folders)
        except ValidationError as failure:
            mistakes = {mistake for error in failure.errors() for mistake in self._describe(error)}
        raise UserError("\n".join(f"{place.text}: {rule}" for place, rule in sorted(mistakes)))

    def place(self, key: tuple[str, ...], *, missing: bool = False) -> _Place:
        """Where a key, or the innermost section around it that was written, stands."""
        for length in range(len(key), 0, -1):
            part = key[:length]
            if part in self.words:
                return _Place(_COMMAND_LINE, self.words[part])
            if part in self.lines:
                return _Place(self.lines[part], f"{self.source}:{self.lines[part]}")
            if length == len(key) and not missing:  # a section that only words made
                for inner, word in self.words.items():
                    if inner[:length] == part:
                        return _Place(_COMMAND_LINE, word)
        return _Place(0, self.source)

    def _describe(self, error: Any) -> Iterator[tuple[_Place, str]]:
        """The places and texts of one of pydantic's errors."""
        key, within = _split_location(self.root, error["loc"])
        dotted = dotted_key(key)
        if error["type"] == "value_error":
            for line in str(error["ctx"]["error"]).splitlines():
                named = re.match(r"([a-z_]+(?:\.[a-z_]+)+): ", line)
                if not key and named:  # a cross-field rule, which says itself which key to change
                    yield self.place(tuple(named[1].split("."))), line
                else:
                    yield self.place(key), f"{dotted}{within}: {line}"
        elif error["type"] == "extra_forbidden":
            yield self.place(key), _unknown_key(self.root, key)
        elif error["type"] == "missing" and not within:
            for needed in _required_in(self.root, key):
                meaning = _meaning(_field(self.root, needed))
                yield (
                    self.place(needed, missing=True),
                    f"missing key '{dotted_key(needed)}': {meaning}",
                )
        else:
            yield self.place(key), f"{dotted}{within}: {_rule(self.root, error, key)}"


def _split_location(
    root: type[Root], location: tuple[str | int, ...]
) -> tuple[tuple[str, ...], str]:
    """A key, and the place within its list, from where pydantic says that an error is.

    pydantic goes on behind the key with the branch of a union that failed ("constrained-int") and
    with a mark on the keys of a mapping ("[key]").
    """
    key: list[str] = []
    for part in location:
        info = _field(root, tuple(key))
        if info is not None and not _is_section(info.annotation):
            if isinstance(part, int):
                return tuple(key), f"[{part}]"
            if _takes_mapping(info):
                key.append(part)
                break
            continue
        key.append(str(part))
    return tuple(key), ""


def _rule(root: type[Root], error: Any, key: tuple[str, ...]) -> str:
    """What must hold, and what was found instead, without pydantic's vocabulary."""
    context, found = error.get("ctx", {}), error["input"]
    info = _field(root, key)
    if info is not None and _is_choice(info):
        must = allowed_values(".".join(key), root).replace(" | ", ", ")
        return f"must be one of {must}, got {shown(found)}"
    match error["type"]:
        case "int_type":
            must = "an integer"
            if isinstance(found, float) and found.is_integer():
                must += f" (write {found:.0f})"
            if error["loc"][-1] == "side":  # of a `Size`
                must += " or [width, height]"
        case "float_type":
            must = "a number"
        case "bool_type":
            must = "true or false"
        case "finite_number":
            must = "a finite number"
        case "model_type" | "mapping_type" | "dict_type":
            must = "a section of key: value lines"
        case "tuple_type" | "missing" | "too_long" | "too_short":
            must = "a list of two numbers"
        case "string_type" | "is_instance_of":
            must = "a path" if _has_mark(root, key, _IsPath) else "text"
            if isinstance(found, int | float):
                must += " (put quotes around it)"
        case "greater_than_equal":
            must = f"at least {_number(context['ge'])}"
        case "greater_than":
            must = f"above {_number(context['gt'])}"
        case "less_than_equal":
            must = f"at most {_number(context['le'])}"
        case "less_than":
            must = f"below {_number(context['lt'])}"
        case "string_pattern_mismatch":
            must = _NAME_RULE
        case _:
            return f"{error['msg']}, got {shown(found)}"
    return f"must be {must}, got {shown(found)}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _unknown_key(root: type[Root], key: tuple[str, ...]) -> str:
    siblings = list(_fields_of(root, key[:-1]))
    message = f"unknown key '{dotted_key(key)}'"
    everywhere = {dotted.rpartition(".")[2]: dotted for dotted, _ in iterate_fields(root)}
    if key[-1] in everywhere:
        return f"{message}; did you mean '{everywhere[key[-1]]}'?"
    if close := difflib.get_close_matches(key[-1], siblings, n=1):
        return f"{message}; did you mean '{dotted_key((*key[:-1], close[0]))}'?"
    if elsewhere := difflib.get_close_matches(key[-1], everywhere, n=1):
        return f"{message}; did you mean '{everywhere[elsewhere[0]]}'?"
    return f"{message}; valid keys here: {', '.join(siblings)}"


def _required_in(root: type[Root], key: tuple[str, ...]) -> list[tuple[str, ...]]:
    """A required setting's own key, or those in a section."""
    fields = _fields_of(root, key)
    return [(*key, name) for name, info in fields.items() if info.is_required()] or [key]


def _meaning(info: FieldInfo | None) -> str:
    text = info.description if info is not None and info.description else ""
    return " ".join(text.split()).split(";")[0].rstrip(".")


def _field(root: type[Root], key: tuple[str, ...]) -> FieldInfo | None:
    return _fields_of(root, key[:-1]).get(key[-1]) if key else None


def _fields_of(root: type[Root], section: tuple[str, ...]) -> dict[str, FieldInfo]:
    """The fields of the section with this key; none where there is no such section."""
    model: type[BaseModel] = root
    for part in section:
        info = model.model_fields.get(part)
        annotation: Any = info.annotation if info is not None else None
        if not _is_section(annotation):
            return {}
        model = annotation
    return dict(model.model_fields)


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _takes_mapping(info: FieldInfo) -> bool:
    return getattr(info.annotation, "__origin__", None) is Mapping


def _is_choice(info: FieldInfo) -> bool:
    """Whether words are among the values: a Literal, alone or in a union."""
    members = [info.annotation, *get_args(info.annotation)]
    return any(getattr(member, "__origin__", None) is Literal for member in members)


def _marks(root: type[Root], key: tuple[str, ...]) -> list[object]:
    """What the type of a setting is annotated with."""
    info = _field(root, key)
    if info is None:
        return []
    # `FilePath | None` keeps the marker inside the union's member, a plain `FilePath` on the field.
    inner = [getattr(member, "__metadata__", ()) for member in get_args(info.annotation)]
    return [*info.metadata, *itertools.chain(*inner)]


def _has_mark(root: type[Root], key: tuple[str, ...], mark: type) -> bool:
    return any(isinstance(found, mark) for found in _marks(root, key))


def _takes_text(root: type[Root], key: tuple[str, ...]) -> bool:
    info = _field(root, key)
    return info is not None and (info.annotation is str or _has_mark(root, key, _IsPath))


def _resolved(text: str, base: Path, marks: Sequence[object]) -> str:
    """A text as an absolute path, if the marks of its setting say that it is one."""
    if not any(isinstance(mark, _IsPath) and mark.means_path(text) for mark in marks):
        return text
    try:
        return str(base / _usable_path(text))
    except ValueError:  # told as it was written, with all other mistakes
        return text


# --- Help, schema, and a starting file ----------------------------------------------------------


def iterate_fields(
    model: type[BaseModel] = Config, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of every setting, sections opened."""
    for name, info in model.model_fields.items():
        annotation: Any = info.annotation
        if _is_section(annotation):
            yield from iterate_fields(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def default_of(info: FieldInfo) -> str:
    """A field's default as one would write it in YAML, ``(required)`` or ``(unset)``."""
    if info.is_required():
        return "(required)"
    default = info.get_default(call_default_factory=True)
    if default is None:
        return "(unset)"
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    if isinstance(default, tuple):
        default = list(default)
    return _in_one_line(dict(default) if isinstance(default, Mapping) else default)


def allowed_values(key: str, root: type[Root] = Config) -> str:
    """What a setting may be: ``auto | fp32 | bf16``, ``at least 0``, ``path``."""
    *sections, name = key.split(".")
    schema = _schema(root)
    properties = schema["properties"]
    for section in sections:
        reference = properties[section]["$ref"]
        properties = schema["$defs"][reference.rpartition("/")[2]]["properties"]
    return _allowed(properties[name])


@functools.cache
def _schema(root: type[Root]) -> dict[str, Any]:
    return root.model_json_schema()


def _allowed(schema: Mapping[str, Any]) -> str:
    if union := schema.get("anyOf", schema.get("oneOf")):
        # None is how a setting is unset, not a value to write
        branches = [branch for branch in union if branch.get("type") != "null"]
        return " | ".join(_allowed(branch) for branch in branches)
    if "enum" in schema:
        return " | ".join(schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    match schema.get("type"):
        case "boolean":
            return "true | false"
        case "integer" | "number":
            return _range(schema)
        case "array":
            items = schema["prefixItems"]
            names = [item["title"] for item in items if "title" in item]
            what = f"[{', '.join(names)}]" if names else "two numbers"
            return f"{what}, each {_allowed(items[0])}"
        case "object":
            what = "path" if schema["propertyNames"].get("format") == "path" else "layer"
            return (
                f"{{{what}: weight, ...}}, each weight {_allowed(schema['additionalProperties'])}"
            )
        case _:
            return "path" if schema.get("format") == "path" else _NAME_RULE


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    return ", ".join(
        f"{words} {_number(schema[bound])}" for bound, words in bounds.items() if bound in schema
    )


def help_text(root: type[Root] = Config) -> str:
    """All keys with defaults, allowed values and meanings, for ``--help-config``."""
    lines = ["Every setting as key: default  # allowed values, and what it means."]
    section = ""
    for key, info in iterate_fields(root):
        before, _, _ = key.rpartition(".")
        if before != section:
            annotation: Any = root.model_fields[before].annotation
            lines += ["", f"{before}: {annotation.__doc__}"]
            section = before
        lines += ["", f"{key}: {default_of(info)}  # {allowed_values(key, root)}"]
        lines += _wrapped(info.description, indent="    ")
    return "\n".join(lines)


def json_schema(root: type[Root] = Config) -> str:
    """The JSON Schema of a file of settings, for editors; kept beside the files in ``configs/``."""
    schema = _schema(root)
    return (
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema, indent=2)
        + "\n"
    )


# What people change first, in the order of the file.
_FIRST_SETTINGS = (
    "name",
    "style.image",
    "style.size",
    "data.photos",
    "data.crop_size",
    "loss_network.weights",
    "loss.content_weight",
    "loss.style_weight",
    "loss.tv_weight",
    "train.steps",
    "train.batch_size",
    "log.samples_every",
    "log.checkpoint_every",
)

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
# The loss network `imagenet` is downloaded once (548 MB); `random` needs no download.
"""


def starting_file(style: Path, *, photos: str = "data/photos") -> str:
    """A commented YAML file that trains the style of one picture, every other value a default.

    Args:
        style: the style picture. Its absolute path is written, since the text may be saved in any
            folder; the run is named after it.
        photos: what is written for ``data.photos``.
    """
    values = {
        "name": _name_from(style.stem),
        "style.image": str(style.expanduser().absolute()),
        "data.photos": photos,
    }
    fields = dict(iterate_fields())
    lines = [_STARTING_HEADER]
    section = ""
    for key in _FIRST_SETTINGS:
        before, _, name = key.rpartition(".")
        if before != section:
            lines += ["", f"{before}:"]
            section = before
        indent = "  " if before else ""
        value = _in_one_line(values[key]) if key in values else default_of(fields[key])
        lines += _wrapped(fields[key].description, indent=f"{indent}# ")
        lines += [f"{indent}{name}: {value}"]
    return "\n".join(lines) + "\n"


def _name_from(stem: str) -> str:
    """A legal `Config.name` from any text: accents dropped, the rest of the illegal made '-'."""
    letters = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", letters)[:100].strip("-._")
    return name or "my-style"


def _in_one_line(value: object) -> str:
    return dump_yaml(value, in_one_line=True).removesuffix("...\n").strip("\n")


def _wrapped(text: str | None, *, indent: str) -> list[str]:
    return textwrap.wrap(
        " ".join((text or "").split()), 96, initial_indent=indent, subsequent_indent=indent
    )


if __name__ == "__main__":
    # python -m fast_style.config > configs/schema.json
    # python -m fast_style.config optimize > configs/optimize/schema.json
    sys.stdout.write(json_schema(GatysConfig if sys.argv[1:] == ["optimize"] else Config))
