"""Files of settings for tests: the least that each kind must say, and all defaults spelled out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from fast_style.core.errors import UserError
from fast_style.settings.fields import InWords, PathOr
from fast_style.settings.reading import AnyRoot, load
from fast_style.settings.structure import Mistake, Root, Section

LEAST = """\
name: a
style: {image: s.jpg}
data: {photos: p}
"""

ALL_DEFAULTS = """\
seed: 1
style: {image: s.jpg, size: 256}
data:
  photos: p
  validation_photos: null
  validation_count: 16
  crop_size: 256
  crop_scale: [0.5, 1]
  flip: true
  workers: auto
  cache: none
  cache_side: null
  cache_folder: null
  include_results: false
  max_unreadable_share: 0.05
  grown_crop_size: null
  grow_after: 0.7
model: {width: 32, residual_blocks: 5, upsampling: resize, antialiased: true, tanh_scale: 150.0}
loss_network:
  {architecture: vgg16, weights: imagenet_features, pooling: max, padding: null,
   preprocessing: null}
loss:
  normalization: relative
  content_layers: {relu3_3: 1.0}
  style_layers: {relu1_2: 1.0, block2_conv2: 1, relu3_3: 1.0, relu4_3: 1.0}
  content_weight: 1.0
  style_weight: 1.5
  tv_weight: 1e0
  tv_exponent: 2
  stability_weight: 20
  stability_noise: 3
  adversarial_weight: 0
  style_distance: gram
  autocorrelation_weight: 50
  halo_weight: 50
train:
  {steps: 40000, batch_size: 4, optimizer: muon, learning_rate: 0.001, schedule: cosine,
   warmup_steps: 100, precision: auto, compile: false, cuda_graph: true, deterministic: false,
   threads: null, init_from: null}
log:
  {every: 50, shares_every: 500, validate_every: 500, samples_every: 500, samples: 6,
   judge_weights: null, checkpoint_every: 1000, keep_checkpoints: 3}
name: a
"""

GATYS_LEAST = "style: {image: s.jpg}\n"

ALL_GATYS_DEFAULTS = """\
seed: 1
style: {image: s.jpg, blend: [], size: null}
loss_network:
  {architecture: vgg16, weights: imagenet_features, pooling: max, padding: null,
   preprocessing: null}
loss:
  normalization: relative
  content_layers: {relu3_3: 1.0}
  style_layers: {relu1_2: 1.0, relu2_2: 1, relu3_3: 1.0, block4_conv3: 1.0}
  style_distance: gram
  autocorrelation_weight: 0
  halo_weight: 0
  content_weight: 1.0
  style_weight: 5
  tv_weight: 1e0
  tv_exponent: 2
optimize:
  {method: lbfgs, iterations: 500, size: 512, scales: 1, init: content, bounds: box,
   learning_rate: 0.02, history: 10, tolerance: 0, restart_every: null}
"""

DISTILL_LEAST = """\
name: a
data: {photos: p, paintings: q}
"""

ALL_DISTILL_DEFAULTS = """\
seed: 1
teacher:
  {architecture: vgg16, weights: imagenet_features, pooling: max, padding: null,
   preprocessing: null}
student: {widths: [24, 64, 96, 160], deepest: relu4_3}
data:
  photos: p
  validation_photos: null
  validation_count: 16
  crop_size: 128
  crop_scale: [0.5, 1]
  flip: true
  workers: auto
  cache: none
  cache_side: null
  cache_folder: null
  include_results: false
  max_unreadable_share: 0.05
  paintings: q
  validation_paintings: null
train:
  {steps: 20000, photos: 4, paintings: 3, surfaces: 1, painters: 4, learning_rate: 0.001,
   schedule: cosine, warmup_steps: 100, precision: auto, deterministic: false, threads: null}
log: {every: 50, validate_every: 500, checkpoint_every: 500, keep_checkpoints: 3}
name: a
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(root: type[AnyRoot], folder: Path, text: str | bytes, *overrides: str) -> AnyRoot:
    """The settings that a file in a folder gives."""
    return load(root, write(folder, text), overrides)


def complaint(root: type[AnyRoot], folder: Path, text: str | bytes, *overrides: str) -> str:
    """The message about a file, with its path written as FILE."""
    with pytest.raises(UserError) as caught:
        read(root, folder, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(folder / "x.yaml"), "FILE")


class Pen(Section):
    """What to write with."""

    color: Annotated[str, Field(pattern=r"^[a-z]+$"), InWords("small letters")] = "blue"
    """The ink; a word."""

    width: float = Field(0.5, gt=0)
    """Millimeters."""


class Letter(Root):
    """A kind of file that no command takes."""

    example = "pen.width=1"
    to_start_from = "the drawer has some"

    text: str
    """What it says."""

    paper: Annotated[str, PathOr(("white", "lined"))] = "white"
    """What to write on, or a picture of it."""

    num_copies: int = Field(1, ge=1, alias="copies")
    """How many are written."""

    pen: Pen = Field(default_factory=Pen)

    def mistakes(self) -> Iterator[Mistake]:
        """Combinations of valid settings that cannot work together."""
        if self.paper == "lined" and self.pen.width > 1:
            message = f"must be at most 1 on lined paper, got {self.pen.width}"
            yield Mistake(("pen", "width"), message)


LETTER = "text: hello\n"
