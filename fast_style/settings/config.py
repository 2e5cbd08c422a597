"""The files of runs: `Config` of a training run, `DistillConfig` of a distillation.

The third kind of file is in `gatys_config`; sections that several kinds share are in `sections`.
`reading` reads all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field

from fast_style.settings.fields import (
    Counts,
    FollowsSteps,
    Layer,
    OnceMeant,
    PathOr,
    PathOrStyle,
    PhotoFolder,
    RunName,
    Share,
    StylePicture,
)
from fast_style.settings.layers import layers_judged, require_layers
from fast_style.settings.reading import load, parse
from fast_style.settings.sections import (
    DEEPEST_LAYER,
    LossConfig,
    LossNetworkConfig,
    PhotosConfig,
    Precision,
    Schedule,
    fitted_network,
    fitted_warmup_steps,
    loss_mistakes,
    network_mistakes,
    warmup_mistakes,
)
from fast_style.settings.structure import Mistake, Root, Section

# --- A training run -----------------------------------------------------------------------------

Upsampling = Literal["resize", "transposed"]
Optimizer = Literal["muon", "adam"]

BASE, NEAREST = "base", "nearest"
"""The words for weights in this package that training may start from."""

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
"""Settings that may differ when a run is resumed. They change what is logged or how it is computed,
not what is learned. Paths are in this list because folders can be moved: the digests of what they
point to are compared instead."""


class StyleConfig(Section):
    """The style picture."""

    image: StylePicture
    """The style picture; any photo or painting in a format that Pillow reads, or the name of a
    style that comes with fast-style."""

    size: int = Field(256, ge=16, le=8192)
    """Shorter side of the style picture in pixels, as the loss network sees it. Larger: larger
    strokes with finer details. Keep it near data.crop_size."""


class DataConfig(PhotosConfig):
    """The photos to train on."""

    grown_crop_size: int | None = Field(None, ge=16, le=4096)
    """Width and height of a crop in the last part of training, in pixels. Small crops show more
    photos in the same time; large ones, at the end, show more of each photo. Unset: crop_size
    throughout."""

    grow_after: Share = 0.7
    """Share of train.steps after which crops have grown_crop_size. If you raise train.steps to
    prolong a run, they grow later."""


class ModelConfig(Section):
    """The image transform network."""

    width: int = Field(32, ge=1, le=512)
    """Channels of the first convolution; the next two have twice and four times as many."""

    residual_blocks: int = Field(5, ge=0, le=64)
    """Number of residual blocks, which work at a quarter of the picture's size."""

    upsampling: Upsampling = "resize"
    """resize: nearest-neighbor interpolation before a convolution, which reduces checkerboard
    artifacts. transposed: transposed convolutions, as in the paper."""

    antialiased: Annotated[bool, OnceMeant(False)] = True
    """Low-pass filters before each halving of the size and after each doubling by resize, so that
    a shifted photo gives a shifted picture, and videos flicker less. They have no weights. false:
    as in the paper, and as in models of earlier versions."""

    tanh_scale: float = Field(150, ge=1, le=1000)
    """The output is 127.5 + tanh_scale * tanh(x), in units of 0..255. 150, as in the reference
    implementation, reaches black and white without saturating; what is beyond is clamped when a
    picture is written. 127.5 gives exactly the range of pixels."""


TERMS_OF_TRAINING = frozenset({"stability_weight", "stability_noise", "adversarial_weight"})
"""Settings of the loss that are about a network's pictures, and not about one picture."""


class TrainingLossConfig(LossConfig):
    """The loss that training lowers."""

    autocorrelation_weight: Annotated[float, Field(ge=0), OnceMeant(0.0)] = 50.0
    """Weight, beside those of style_layers, of how differently the result and the style picture
    are like themselves at distances of 6 to 16 pixels. Larger: fewer cells, rings and grids, but
    less of the photo. 0: as in the paper and in earlier versions, and the default with the paper's
    normalization, whose style_layers are of another size."""

    halo_weight: Annotated[float, Field(ge=0), OnceMeant(0.0)] = 50.0
    """Weight, beside those of content_layers, of slow changes of color where the photo is flat.
    Larger: fewer glows and patches in skies and on walls, which stay plain. 0: as in the paper and
    in earlier versions, and the default with the paper's normalization."""

    style_weight: Annotated[float, Field(ge=0), OnceMeant(5.0)] = 1.5
    """Weight of the style loss. Change this first: raise it if the style is too weak, lower it if
    the photo is lost. A model trained with 0.25 leaves the photo nearly as it is, 10 is very
    strong (with the default normalization)."""

    stability_weight: Annotated[float, Field(ge=0), OnceMeant(0.0)] = 20.0
    """Weight of the stability term: how much the picture of a shifted, slightly enlarged, noisy
    photo differs from the picture of the photo, shifted and enlarged likewise, as a share of the
    picture's variance. Larger: less flicker in videos and less weave in skies, but weaker strokes.
    0: as in earlier versions. One crop in six is stylized twice for it."""

    stability_noise: Annotated[float, Field(ge=0, le=64), OnceMeant(6.0)] = 3.0
    """Standard deviation of the noise in the photos of the stability term, in levels of 0..255.
    Larger: the noise of videos flickers less. 0: more strokes, also in skies, which follow the
    photo's grain."""

    adversarial_weight: float = Field(0.0, ge=0, le=100)
    """Weight of the opinion of a discriminator, a small network that learns, in the same steps, to
    tell the results' features at the style_layers of the first three blocks from the style
    picture's. 0.1: crisper strokes, and less of a weave. Larger: more style, but less of the photo.
    It learns alone for 60 steps, and after 120 it has its whole weight. 0: as in the paper."""


class TrainConfig(Section):
    """How the network is trained."""

    steps: int = Field(40_000, ge=1, le=100_000_000)
    """Number of optimizer steps in all."""

    batch_size: int = Field(4, ge=1, le=4096)
    """Photos per step, over all processes together."""

    optimizer: Annotated[Optimizer, OnceMeant("adam")] = "muon"
    """muon: learns with half as many steps. It updates kernels between feature maps with orthogonal
    matrices, all other parameters as Adam does. adam: the paper's."""

    learning_rate: float = Field(1e-3, gt=0, le=10)
    """The learning rate after the warm-up, of muon and adam; 1e-3 is the paper's."""

    schedule: Schedule = "cosine"
    """cosine: the learning rate falls to zero at the last step. constant: it stays, and raising
    steps prolongs a finished run."""

    warmup_steps: Annotated[int, Field(ge=0), FollowsSteps()] = 100
    """Steps over which the learning rate rises linearly from zero. Unset, with no more steps than
    the default: a tenth of the steps."""

    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where a GPU computes it natively, else fp32. fp16 (with
    loss scaling) is for CUDA GPUs without bf16. On CUDA, fp32 convolutions round to TF32."""

    compile: bool = False
    """Compile the network and its loss with torch.compile before the first step, which takes
    minutes. Needs a C++ compiler, on a GPU also Triton. If it fails, the run does not start."""

    cuda_graph: bool = True
    """On a GPU, record the kernels of a step as a CUDA graph and replay it: several times as fast
    for a few photos per step. Ignored when several processes train together."""

    deterministic: bool = False
    """Ask torch for deterministic kernels, for bit-exact runs on a GPU (slower)."""

    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of torch. Unset: torch's own choice. A run resumes bit for bit only with the same
    number."""

    init_from: Annotated[str, PathOrStyle((NEAREST, BASE))] | None = None
    """What training starts from. nearest: of the styles that come with fast-style, the network of
    the one whose strokes come nearest to those of style.image, with its colors; a style is learned
    from it in a fraction of the steps. base: a network in this package whose strokes hardly show.
    Both have model.width 16. The name of a style that comes with fast-style, or the path of a model
    file: from that one. Unset: random weights."""


class LogConfig(Section):
    """What is logged and saved, and how often (in steps)."""

    every: int = Field(50, ge=1)
    """Steps between logged losses and speed."""

    shares_every: int = Field(500, ge=1)
    """Steps between logged shares of each loss term in the gradient at the output picture."""

    validate_every: int = Field(500, ge=1)
    """Steps between validations, which log the losses and the faults (blots and weave) of what the
    network makes of the held-out photos."""

    samples_every: int = Field(500, ge=1)
    """Steps between sample pictures, which show held-out photos beside their stylized versions."""

    samples: int = Field(6, ge=1, le=64)
    """Number of photos in a sample picture; the first validation photos are used."""

    judge_weights: Annotated[str, PathOr(("imagenet_features",))] | None = None
    """Weights of VGG-16: imagenet_features, or the path of a file. Every validation then also logs
    the judge's terms (configs/judge.yaml) to TensorBoard, whatever the losses of the training are.
    Unset: they are not logged."""

    checkpoint_every: int = Field(1000, ge=1)
    """Steps between checkpoints; one is also written when a run ends or is stopped."""

    keep_checkpoints: int = Field(3, ge=2, le=1000)
    """How many of the newest checkpoints are kept; at least two, since a failing disk may have
    damaged the newest."""


class Config(Root):
    """All settings of a training run."""

    example = "train.steps=2000"
    to_start_from = "`fast-style init STYLE.jpg --output my.yaml` writes a file to start from"
    place_of_others = (
        "pictures and models are named in it (style.image, data.photos, train.init_from)"
    )
    of_other_files = MappingProxyType(
        {"teacher": "distill", "student": "distill", "optimize": "optimize"}
    )

    name: RunName
    """The run's name; it trains in runs/<name> of the working directory."""

    seed: int = Field(1, ge=0, le=2**63 - 1)
    """Seed of every random choice."""

    style: StyleConfig
    data: DataConfig
    model: ModelConfig = Field(default_factory=ModelConfig)
    loss_network: LossNetworkConfig = Field(default_factory=LossNetworkConfig)
    loss: TrainingLossConfig = Field(default_factory=TrainingLossConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    def fitted(self) -> Self:
        """The settings with defaults that fit what was set, where the usual ones contradict it."""
        return self.model_copy(
            update={
                "loss_network": fitted_network(self.loss_network),
                "loss": _fitted_loss(self.loss),
                "train": _with_fitted_warmup(self.train),
            }
        )

    def mistakes(self) -> Iterator[Mistake]:
        """Combinations of valid settings that cannot work together."""
        yield from loss_mistakes(self.loss_network, self.loss, purpose="learn")
        if self.loss.adversarial_weight and not layers_judged(self.loss.style_layers):
            yield Mistake(
                ("loss", "adversarial_weight"),
                f"{self.loss.adversarial_weight:g} has no effect without a layer of the first "
                "three blocks; name one in loss.style_layers, such as relu3_3, or set 0",
            )
        yield from warmup_mistakes(self.train.steps, self.train.warmup_steps)


# --- The distillation of a loss network ---------------------------------------------------------


# The last layer of each block of VGG-16, which VGG-19 has, too.
_LAST_LAYERS = {1: "relu1_2", 2: "relu2_2", 3: "relu3_3", 4: "relu4_3", 5: "relu5_3"}


class StudentConfig(Section):
    """The small network that learns."""

    widths: Counts = (24, 64, 96, 160)
    """Channels in each of VGG's blocks; VGG itself has 64, 128, 256, 512, 512. Unset: as many
    as `deepest` needs."""

    deepest: Layer = DEEPEST_LAYER
    """The last layer; `widths` has a number for each block up to it. Unset: that of as many
    blocks as `widths` has."""


class DistillDataConfig(PhotosConfig):
    """The pictures to learn on."""

    paintings: PhotoFolder
    """A folder of paintings; searched recursively."""

    validation_paintings: PhotoFolder | None = None
    """A folder of paintings to validate on. Unset: some of `paintings`, at most half, are held out,
    chosen by a hash of their names."""

    crop_size: int = Field(128, ge=32, le=4096)
    """Width and height of a crop, and of a painter's style picture, in pixels."""


class DistillTrainConfig(Section):
    """How the student learns."""

    steps: int = Field(20_000, ge=1, le=100_000_000)
    """Number of optimizer steps in all."""

    num_photos: int = Field(4, ge=1, le=4096, alias="photos")
    """Photos per step. A painter's version of each is added."""

    num_paintings: int = Field(3, ge=0, le=4096, alias="paintings")
    """Crops of paintings per step."""

    num_surfaces: int = Field(1, ge=0, le=4096, alias="surfaces")
    """Plain surfaces, gradients and patches of color per step."""

    num_painters: int = Field(4, ge=0, le=64, alias="painters")
    """Number of painters: transform networks that are trained against the student, one of them at
    each step, in turn. The student also learns from the photos that they stylize. 0: none."""

    learning_rate: float = Field(1e-3, gt=0, le=10)
    """Adam's learning rate after the warm-up."""

    schedule: Schedule = "cosine"
    """cosine: the learning rate falls to zero at the last step. constant: it stays."""

    warmup_steps: Annotated[int, Field(ge=0), FollowsSteps()] = 100
    """Steps over which the learning rate rises linearly from zero. Unset, with no more steps than
    the default: a tenth of the steps."""

    precision: Precision = "auto"
    """Precision of the teacher's features: fp32, bf16 (autocast), or auto: bf16 where a GPU
    computes it natively, else fp32. fp16 is for CUDA GPUs without bf16. The squared error of bf16
    is about a hundred-thousandth of the squared features."""

    deterministic: bool = False
    """Ask torch for deterministic kernels, for bit-exact runs on a GPU (slower)."""

    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of torch. Unset: torch's own choice. A run resumes bit for bit only with the same
    number."""


AnyTrainConfig = TypeVar("AnyTrainConfig", TrainConfig, DistillTrainConfig)


class DistillLogConfig(Section):
    """What is logged and saved, and how often (in steps)."""

    every: int = Field(50, ge=1)
    """Steps between logged errors and speed."""

    validate_every: int = Field(500, ge=1)
    """Steps between validations, which log the errors on the held-out pictures and save what the
    painters paint."""

    checkpoint_every: int = Field(500, ge=1)
    """Steps between checkpoints; one is also written when a run ends or is stopped."""

    keep_checkpoints: int = Field(3, ge=2, le=1000)
    """How many of the newest checkpoints are kept; at least two, since a failing disk may have
    damaged the newest."""


class DistillConfig(Root):
    """All settings of the distillation of a small loss network."""

    example = "student.widths=[8,16,32,64]"
    to_start_from = "configs/distill.yaml is a file to start from"
    place_of_others = "pictures are named in it (data.photos, data.paintings)"
    of_other_files = MappingProxyType({"style": "train", "model": "train"})

    name: RunName
    """The run's name; it trains in runs/<name> of the working directory."""

    seed: int = Field(1, ge=0, le=2**63 - 1)
    """Seed of every random choice."""

    teacher: LossNetworkConfig = Field(default_factory=LossNetworkConfig)
    student: StudentConfig = Field(default_factory=StudentConfig)
    data: DistillDataConfig
    train: DistillTrainConfig = Field(default_factory=DistillTrainConfig)
    log: DistillLogConfig = Field(default_factory=DistillLogConfig)

    def fitted(self) -> Self:
        """The settings with defaults that fit what was set, where the usual ones contradict it."""
        return self.model_copy(
            update={
                "teacher": fitted_network(self.teacher),
                "student": _fitted_student(self.student),
                "train": _with_fitted_warmup(self.train),
            }
        )

    def mistakes(self) -> Iterator[Mistake]:
        """Combinations of valid settings that cannot work together."""
        yield from self._teacher_mistakes()
        yield from self._student_mistakes()
        yield from warmup_mistakes(self.train.steps, self.train.warmup_steps)

    def _teacher_mistakes(self) -> Iterator[Mistake]:
        if self.teacher.weights != "compact":
            yield from network_mistakes("teacher", self.teacher)
            return
        usual = "imagenet_features" if self.teacher.architecture == "vgg16" else "imagenet"
        yield Mistake(
            ("teacher", "weights"),
            f"cannot be compact, which was learned from another network; set it to {usual}, or "
            "to a file",
        )

    def _student_mistakes(self) -> Iterator[Mistake]:
        widths, deepest = self.student.widths, self.student.deepest
        try:
            require_layers([deepest], self.teacher.architecture)
        except ValueError as error:
            yield Mistake(("student", "deepest"), f"{error} (teacher.architecture)")
        if not deepest.startswith("relu"):
            yield Mistake(("student", "deepest"), f"must be a layer after a ReLU, got {deepest}")
        blocks = int(deepest[4])
        if len(widths) != blocks:
            yield Mistake(
                ("student", "widths"),
                f"must have {blocks} numbers, one for each block up to student.deepest "
                f"({deepest}), got {list(widths)}",
            )


# --- Defaults that depend on other settings -----------------------------------------------------


def _with_fitted_warmup(train: AnyTrainConfig) -> AnyTrainConfig:
    """The section with a warm-up that fits the number of steps, if none was set."""
    if "warmup_steps" in train.model_fields_set:
        return train
    fitted = fitted_warmup_steps(train.steps, train.warmup_steps)
    changed = train.model_copy(update={"warmup_steps": fitted})
    changed.model_fields_set.discard("warmup_steps")  # nobody has set it
    return changed


def _fitted_loss(loss: TrainingLossConfig) -> TrainingLossConfig:
    """The loss without terms that the paper does not have beside its own, if they were not set."""
    if loss.normalization == "relative":
        return loss
    not_the_papers = {"autocorrelation_weight", "halo_weight"} - loss.model_fields_set
    return loss.model_copy(update=dict.fromkeys(not_the_papers, 0.0))


def _fitted_student(student: StudentConfig) -> StudentConfig:
    """The student with as many widths as blocks, if only one of `widths` and `deepest` was set."""
    widths, blocks = student.widths, int(student.deepest[4])
    is_set = student.model_fields_set & {"widths", "deepest"}
    if is_set == {"deepest"}:
        more = (widths[-1],) * (blocks - len(widths))
        return student.model_copy(update={"widths": (*widths, *more)[:blocks]})
    if is_set == {"widths"} and len(widths) != blocks and len(widths) in _LAST_LAYERS:
        return student.model_copy(update={"deepest": _LAST_LAYERS[len(widths)]})
    return student


# --- Reading ------------------------------------------------------------------------------------


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Settings of a training run from a YAML file; `reading.load` says how."""
    return load(Config, path, overrides)


def load_distill_config(path: Path | str, overrides: Sequence[str] = ()) -> DistillConfig:
    """Settings of a distillation from a YAML file; `reading.load` says how."""
    return load(DistillConfig, path, overrides)


def parse_config(data: Mapping[str, Any], place: str) -> Config:
    """Settings of a training run from plain data; `reading.parse` says how."""
    return parse(Config, data, place)
