"""Checks that photos, style picture and weights exist, without loading torch.

Loading torch takes seconds; a mistyped path is reported before that. Whether the contents of a file
can be used is checked by the code that reads it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fast_style.core.errors import UserError, printable
from fast_style.pictures.folders import require_folder
from fast_style.pictures.reading import PictureError, require_picture
from fast_style.settings.config import Config, DistillConfig
from fast_style.settings.sections import NAMED_WEIGHTS
from fast_style.styles.shipped import picture_hint

COMPACT_FILE = Path(__file__).with_name("compact.safetensors")
"""The loss network that comes with the package, learned from VGG-16 by configs/distill.yaml;
docs/embedded_loss_network.md says how close it comes."""

JUDGE_WORDS = ("imagenet_features",)
"""The named weights that the judge takes: those of Caffe origin."""


class NetworkKeys(NamedTuple):
    """What the settings of a loss network are called where they are set, for messages."""

    weights: str
    """A key, or the option of a command."""

    architecture: str
    preprocessing: str

    shallower: str
    """How to need fewer layers of the network, a clause."""

    words: tuple[str, ...] = NAMED_WEIGHTS
    """What `weights` may be instead of the path of a file."""

    def with_weights(self, value: str) -> str:
        """What is written to set the weights: ``teacher.weights=FILE`` or ``--weights FILE``."""
        return f"{self.weights}{' ' if self.weights.startswith('--') else '='}{value}"


LOSS_NETWORK_KEYS = NetworkKeys(
    "loss_network.weights",
    "loss_network.architecture",
    "loss_network.preprocessing",
    "choose shallower layers in loss.content_layers and loss.style_layers",
)
"""Those of a training, of `preview` and of `optimize`."""

TEACHER_KEYS = NetworkKeys(
    "teacher.weights",
    "teacher.architecture",
    "teacher.preprocessing",
    "choose a shallower layer in student.deepest",
    tuple(word for word in NAMED_WEIGHTS if word != "compact"),  # which was learned itself
)
"""Those of a distillation."""


def require_inputs(config: Config | DistillConfig) -> None:
    """Check that the folders of photos, the style picture and the loss network's weights exist.

    Raises:
        UserError: one does not exist; names the first.
    """
    for kind in ("photos", "validation_photos", "paintings", "validation_paintings"):
        folder = getattr(config.data, kind, None)
        if folder is not None:
            require_folder(folder, f"data.{kind}")
    if isinstance(config, Config):
        require_style_picture(config.style.image, "style.image")
        require_weights(config.loss_network.weights)
        if config.log.judge_weights is not None:
            require_weights(config.log.judge_weights, "log.judge_weights", JUDGE_WORDS)
    else:
        require_weights(config.teacher.weights, TEACHER_KEYS.weights, TEACHER_KEYS.words)


def require_style_picture(path: Path, key: str | None = None) -> None:
    """Check that a style picture has the header of a picture.

    Args:
        path: the picture.
        key: the setting that names it, if one does, for the message.

    Raises:
        PictureError: as `require_picture`; for a missing file, with styles that may be meant.
    """
    try:
        require_picture(path)
    except PictureError as error:
        if os.path.exists(path):
            raise
        hint = picture_hint(path)
        if key is not None and not hint:
            hint = f"; check {key} (a picture, or the name of one of fast-style styles)"
        raise PictureError(f"{error}{hint}") from None


def require_weights(
    source: str,
    key: str = LOSS_NETWORK_KEYS.weights,
    words: Sequence[str] = LOSS_NETWORK_KEYS.words,
) -> None:
    """Check that a loss network's weights exist, if `source` is the path of a file.

    Args:
        source: a path, or a name such as ``imagenet``.
        key: the setting that holds `source`, for the message.
        words: the names that it may hold, for the message.

    Raises:
        UserError: there is no such file.
    """
    if source not in NAMED_WEIGHTS:
        require_weights_file(Path(source), key, words)


def require_weights_file(path: Path, key: str, words: Sequence[str]) -> None:
    """Check that a file of a loss network's weights exists; the arguments as `require_weights`.

    Raises:
        UserError: there is no such file.
    """
    if not os.path.isfile(path):
        found = "are no regular file" if os.path.exists(path) else "not found"
        raise UserError(
            f"{printable(path)}: loss network weights {found}; check {key} "
            f"({', '.join(words)}, or the path of a .pth, .safetensors, .mat or .h5 file)"
        )
