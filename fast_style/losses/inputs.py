"""What work begins with (photos, a style picture, weights), looked at before torch is imported.

Importing torch takes seconds; whoever has mistyped a path is told within half of one. Whether
what is there can be used, only reading tells.
"""

import os
from pathlib import Path

from fast_style.core.errors import UserError
from fast_style.pictures.folders import require_folder
from fast_style.pictures.reading import require_picture
from fast_style.settings.config import NAMED_WEIGHTS, Config, DistillConfig

_WEIGHTS = "loss_network.weights"


def require_inputs(config: Config | DistillConfig) -> None:
    """See that folders of photos, the style picture and the loss network's weights are there.

    Raises:
        UserError: the first one that is not.
    """
    for kind in ("photos", "validation_photos", "paintings", "validation_paintings"):
        folder = getattr(config.data, kind, None)
        if folder is not None:
            require_folder(folder, f"data.{kind}")
    if isinstance(config, Config):
        require_picture(config.style.image)
    if isinstance(config, Config):
        require_weights(config.loss_network.weights)
    else:
        require_weights(config.teacher.weights, "teacher.weights")


def require_weights(source: str, key: str = _WEIGHTS) -> None:
    """See that a loss network's weights are there, where they are a file.

    Args:
        source: a word or a path.
        key: what names it, for the message.

    Raises:
        UserError: they are not.
    """
    if source not in NAMED_WEIGHTS:
        require_weights_file(Path(source), key)


def require_weights_file(path: Path, key: str = _WEIGHTS) -> None:
    """See that a file of a loss network's weights is there.

    Raises:
        UserError: it is not.
    """
    if not os.path.isfile(path):
        raise UserError(
            f"{path}: the loss network's weights are not there; check {key} "
            "(imagenet, imagenet_features, compact, random, or the path of a .pth, .safetensors, "
            ".mat or .h5 file)"
        )
