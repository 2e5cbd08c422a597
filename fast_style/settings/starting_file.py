"""The YAML file that ``fast-style init`` prints; `configs/laptop.yaml` is one, too."""

import re
import unicodedata
from pathlib import Path

from fast_style.settings.config import Config
from fast_style.settings.help import commented_yaml
from fast_style.styles.shipped import word_for

# The settings that people change first, in the order of the file.
_FIRST_SETTINGS = (
    "name",
    "style.image",
    "style.size",
    "data.photos",
    "data.crop_size",
    "model.width",
    "loss_network.weights",
    "loss.content_layers",
    "loss.content_weight",
    "loss.style_distance",
    "loss.style_weight",
    "loss.tv_weight",
    "loss.stability_weight",
    "loss.autocorrelation_weight",
    "loss.halo_weight",
    "loss.adversarial_weight",
    "train.init_from",
    "train.steps",
    "train.batch_size",
    "log.samples_every",
    "log.checkpoint_every",
)

# For eight minutes on two CPU cores; docs/ablations.md says why.
_FIRST_VALUES = {
    "data.crop_size": 160,
    "model.width": 16,
    "loss_network.weights": "compact",
    # In short trainings, relu3_3 alone lost trees and faces. Without relu1_2, a red parrot before
    # green leaves of the same lightness was gone.
    "loss.content_layers": {"relu1_2": 0.5, "relu2_2": 0.5, "relu3_3": 1.0},
    # At the same likeness to the style, these leave more of the photo than Gram matrices.
    "loss.style_distance": "sliced",
    "loss.style_weight": 2.5,
    # Whole distributions bring the style's rarer colors, which gather beside things in flat skies.
    "loss.halo_weight": 150.0,
    # 900 steps with it came nearer to the style than 2,700 without (Monet, docs/ablations.md).
    "loss.adversarial_weight": 0.1,
    "train.init_from": "nearest",
    "train.steps": 900,
    "train.batch_size": 2,
    "log.samples_every": 100,
    "log.checkpoint_every": 100,
}

_HEADER = """\
# Settings of one training run: one style picture, one model.
#
#   fast-style train my.yaml                       train; run it again to resume
#   fast-style train my.yaml loss.style_weight=8   train with another value this once
#   fast-style train my.yaml --print-config        check this file and show all settings
#   fast-style train --help-config                 every other setting, its default and meaning
#   tensorboard --logdir runs                      watch the training
#
# my.yaml stands for this file. Paths in it are relative to its folder.
# These numbers are for a laptop: eight minutes on two cores, and no download. Three times as many
# train.steps, in a run of another name, bring more of the style's strokes. For a GPU and the best
# quality, use the defaults: data.crop_size 256, model.width 32, loss_network.weights
# imagenet_features (528 MB, downloaded once) and train.steps 40000. To continue from this run's
# model instead, take configs/coco_vgg16.yaml with model.width=16 and
# train.init_from=runs/NAME/model.safetensors.
"""


def starting_file(style: Path) -> str:
    """A commented YAML file that trains the style of one picture on a laptop.

    Args:
        style: the style picture. Its absolute path is written, since the file may be saved in any
            folder, or the name of the style that it ships with; the run is named after it.
    """
    word = word_for(style)
    image = str(style.absolute()) if word == str(style) else word
    return _starting_file(name_from(style.stem), image=image, photos="data/photos")


def laptop_file() -> str:
    """The text of ``configs/laptop.yaml``: a starting file for the pictures of ``data/``."""
    return _starting_file(
        "laptop", image="../data/styles/starry_night.jpg", photos="../data/train2017"
    )


def _starting_file(name: str, *, image: str, photos: str) -> str:
    values = _FIRST_VALUES | {"name": name, "style.image": image, "data.photos": photos}
    return f"{_HEADER}\n{commented_yaml(Config, _FIRST_SETTINGS, values)}"


def name_from(stem: str) -> str:
    """A valid `Config.name` from any text: accents are dropped, other characters become '-'."""
    letters = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", letters)[:100].strip("-._")
    return name or "my-style"
