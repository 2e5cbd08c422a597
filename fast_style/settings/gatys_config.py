"""The file of an optimization, `GatysConfig`: one picture, by the method of Gatys et al. 2015."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from fast_style.core.errors import UserError
from fast_style.settings.config import Config
from fast_style.settings.fields import (
    SMALLEST_SIDE,
    InWords,
    OldForm,
    PathOr,
    Size,
    StylePicture,
    to_tuple,
)
from fast_style.settings.layers import canonical_layer
from fast_style.settings.reading import load
from fast_style.settings.sections import (
    LossConfig,
    LossNetworkConfig,
    fitted_network,
    loss_mistakes,
)
from fast_style.settings.structure import Mistake, Root, Section

Method = Literal["lbfgs", "adam"]
Bounds = Literal["box", "clip", "none"]

INIT_WORDS = ("content", "style", "uniform_noise", "normal_noise")
"""What `optimize.init` may be instead of the path of a picture."""


class BlendedStyleConfig(Section):
    """A further style picture, and its weight."""

    image: StylePicture
    """The style picture; any photo or painting in a format that Pillow reads, or the name of a
    style that comes with fast-style."""

    weight: float = Field(gt=0)
    """The weight of this picture in the style loss; the first style picture has the weight 1."""


def _blend_from_mapping(blend: Any) -> Any:
    """A list of pictures, from the mapping of paths to weights that earlier versions wrote."""
    if not isinstance(blend, Mapping):
        return blend
    return [{"image": image, "weight": weight} for image, weight in blend.items()]


Blend = Annotated[
    tuple[BlendedStyleConfig, ...],
    InWords("a list of {image: path, weight: above 0}"),
    BeforeValidator(to_tuple),
    OldForm(_blend_from_mapping),
]


class GatysStyleConfig(Section):
    """The style picture, or several."""

    image: StylePicture
    """The style picture; any photo or painting in a format that Pillow reads, or the name of a
    style that comes with fast-style."""

    blend: Blend = ()
    """Further style pictures, for example [{image: other.jpg, weight: 0.5}]. The style loss is the
    weighted mean of the losses of all style pictures, where `image` has the weight 1."""

    size: Size | None = None
    """Shorter side of a style picture in pixels, as the loss network sees it, or [width, height] to
    stretch it to. Larger: larger strokes with finer details. Unset: as optimize.size."""


class OptimizeConfig(Section):
    """How the picture is optimized."""

    method: Method = "lbfgs"
    """lbfgs: SciPy's L-BFGS-B, a quasi-Newton method whose line search never raises the loss. adam:
    a first-order method, which depends on a suitable learning_rate."""

    iterations: int = Field(500, ge=1, le=1_000_000)
    """Number of accepted updates at each scale."""

    size: Size = 512
    """Shorter side of the result in pixels, with the photo's aspect ratio; or [width, height] to
    stretch both pictures to, as some Keras examples do."""

    scales: int = Field(1, ge=1, le=8)
    """Number of sizes, from coarse to fine. Each is twice the one before, and the last one is
    `size`. A large picture gets large structures only with several scales."""

    init: Annotated[str, PathOr(INIT_WORDS)] = "content"
    """The picture to start from. content: the photo. style: the style picture. uniform_noise,
    normal_noise: noise from the seed. Otherwise the path of a picture."""

    bounds: Bounds = "box"
    """How pixels are kept in [0, 1]. box: by the method itself (the B of L-BFGS-B; Adam clips).
    clip: each update is clipped afterwards, as in Johnson et al. 2016, whose L-BFGS has no line
    search. none: only the finished picture is clipped, when it is written."""

    learning_rate: float = Field(0.02, gt=0, le=10)
    """Adam's learning rate, for pixels in [0, 1]; a rate of 10 for pixels in 0..255 is 0.039 here.
    lbfgs ignores it."""

    history: int = Field(10, ge=1, le=1000)
    """Number of past updates, with their changes of the gradient, that L-BFGS keeps. adam ignores
    it."""

    tolerance: float = Field(0.0, ge=0, lt=1)
    """L-BFGS stops when an update lowers the loss by less than this share of it. 0: never. adam
    ignores it."""

    restart_every: int | None = Field(None, ge=2)
    """Number of loss evaluations after which L-BFGS clears its history, as in the Keras examples,
    which call it repeatedly with maxfun=20. Unset: never."""


class GatysConfig(Root):
    """All settings of the optimization of one picture, the method of Gatys et al. 2015."""

    example = "optimize.iterations=200"
    to_start_from = "configs/optimize/ has files to start from, such as gatys.yaml"
    place_of_others = "the photo belongs behind --content"
    also_read = Config  # the losses of a training, as the picture that they ask for

    seed: int = Field(1, ge=0, le=2**63 - 1)
    """Seed of every random choice."""

    style: GatysStyleConfig
    loss_network: LossNetworkConfig = Field(default_factory=LossNetworkConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    optimize: OptimizeConfig = Field(default_factory=OptimizeConfig)

    def fitted(self) -> Self:
        """The settings with defaults that fit what was set, where the usual ones contradict it."""
        return self.model_copy(update={"loss_network": fitted_network(self.loss_network)})

    def mistakes(self) -> Iterator[Mistake]:
        """Combinations of valid settings that cannot work together."""
        yield from loss_mistakes(self.loss_network, self.loss, purpose="draw")
        yield from _blend_mistakes(self.style)
        yield from _restart_mistakes(self.optimize)
        yield from _scale_mistakes(self.optimize)


def _blend_mistakes(style: GatysStyleConfig) -> Iterator[Mistake]:
    """Style pictures that are listed more than once."""
    seen = {os.path.realpath(style.image): "style.image, which has the weight 1"}
    for index, further in enumerate(style.blend):
        path = os.path.realpath(further.image)
        if path in seen:
            yield Mistake(
                ("style", "blend", index, "image"),
                f"{str(further.image)!r} is also {seen[path]}; give each style picture once",
            )
        else:
            seen[path] = f"style.blend[{index}].image"


def _restart_mistakes(optimize: OptimizeConfig) -> Iterator[Mistake]:
    key = ("optimize", "restart_every")
    if optimize.restart_every is None:
        return
    if optimize.method == "adam":
        yield Mistake(key, "adam has no history to clear; leave it out")
    elif optimize.bounds == "clip":
        yield Mistake(key, "needs optimize.bounds box or none, got clip")


def _scale_mistakes(optimize: OptimizeConfig) -> Iterator[Mistake]:
    """A number of scales at which the coarsest picture would be too small."""
    side = optimize.size if isinstance(optimize.size, int) else min(optimize.size)
    coarsest = side >> (optimize.scales - 1)
    if coarsest < SMALLEST_SIDE:
        yield Mistake(
            ("optimize", "scales"),
            f"must be at most {(side // SMALLEST_SIDE).bit_length()}, got {optimize.scales}: the "
            f"coarsest picture would have {coarsest} pixels of {side}, fewer than {SMALLEST_SIDE}",
        )


def load_gatys_config(path: Path | str, overrides: Sequence[str] = ()) -> GatysConfig:
    """Settings of an optimization from a YAML file; `reading.load` says how."""
    return load(GatysConfig, path, overrides)


def reconstruction(layer: str, of: str) -> list[str]:
    """Settings, as ``key=value`` words, that reconstruct a picture from one loss term alone.

    Gatys et al. 2016, figure 1: from noise, the content that a layer keeps, or the style that the
    first layers of all blocks up to a layer describe.

    Args:
        layer: such as ``relu4_1`` or ``conv4_1``.
        of: ``content`` or ``style``.

    Raises:
        UserError: VGG has no such layer.
    """
    try:
        layer = canonical_layer(layer)
    except ValueError as error:
        option = "--reconstruct" if of == "content" else "--reconstruct-style"
        raise UserError(f"{option}: {error}") from None
    below = [f"{layer[:4]}{block}_1" for block in range(1, int(layer[4]))]
    layers = {"content": [layer], "style": [*below, layer]}
    absent = ("tv_weight", "autocorrelation_weight", "halo_weight")
    words = [*(f"loss.{weight}=0" for weight in absent), "optimize.init=uniform_noise"]
    for side, names in layers.items():
        is_wanted = side == of
        mapping = ", ".join(f"{name}: 1.0" for name in names) if is_wanted else ""
        words += [f"loss.{side}_layers={{{mapping}}}", f"loss.{side}_weight={int(is_wanted)}"]
    return words
