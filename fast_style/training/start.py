"""The network before the first step: seeded weights, another model's, or some of this package.

Most of what a network learns is the same for any style, so a style is learned from another one's
network in a fraction of the steps, and soonest from one with similar strokes (docs/ablations.md).
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from PIL import Image

from fast_style.core.errors import UserError, printable
from fast_style.losses.nearest import NearestStyles, give_colors
from fast_style.models.checkpoint import load_transform_net
from fast_style.models.model_files import read_description
from fast_style.networks.transform_net import TransformNet
from fast_style.pictures.folders import Photos
from fast_style.pictures.pixels import fit_longer_side
from fast_style.pictures.reading import read_photo
from fast_style.settings.config import BASE, NEAREST, Config
from fast_style.styles.shipped import meant, model_of, shipped_styles
from fast_style.training.saving import restore_weights

BASE_FILE = Path(__file__).with_name("base.safetensors")

# The settings of `model` that decide the names and shapes of weights.
_WITH_WEIGHTS = ("width", "residual_blocks", "upsampling")

# What the nearest style is found on.
_MOST_PHOTOS, _LONGEST_SIDE = 8, 512


def build_net(
    config: Config,
    init_from: str | None,
    say: Callable[[str], None] = lambda line: None,
) -> TransformNet:
    """The network before the first step; for ``nearest``, what `start_from_nearest` changes.

    Args:
        config: the settings; its `train.init_from` is not read.
        init_from: a model file, the name of a shipped style, ``base``, ``nearest``, or None for
            seeded weights.
        say: prints a line for the user if the base has another architecture, and is not used.

    Raises:
        UserError: the model of `init_from` does not exist, or has another architecture.
    """
    # A fork, so that the weights depend on the seed alone. torch.manual_seed would seed GPUs, too.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        net = TransformNet(**config.model.model_dump())
    if init_from == BASE:
        _start_from_base(net, config, say)
    elif init_from is not None and init_from != NEAREST:
        path = model_of(init_from) or Path(init_from)
        if not path.exists():
            hint = "" if path.suffix else meant(path.name, NEAREST, BASE)
            raise UserError(
                f"{printable(path)}: the model of train.init_from does not exist{hint or ';'} "
                "train it first, or start from a style that comes with fast-style with "
                f"train.init_from={NEAREST}, or from random weights with train.init_from=null and "
                "more train.steps"
            )
        start, description = load_transform_net(path)
        _require_same_weights(config, init_from, description["architecture"])
        restore_weights(net, start.state_dict(), path)
    return net


def start_from_nearest(
    net: TransformNet,
    config: Config,
    style: Image.Image,
    photos: Photos,
    say: Callable[[str], None],
) -> None:
    """Give a network the weights of the nearest shipped style, and the style picture's colors.

    Args:
        net: with seeded weights, on the CPU.
        config: the settings.
        style: the style picture, in the size of the training.
        photos: those to train on; on some of them the nearest style is found.
        say: prints a line for the user: which style it is, or why none can be used.
    """
    styles = shipped_styles()
    if not styles:
        say("train.init_from: no style comes with this installation; the base takes its place")
        _start_from_base(net, config, say)
        return
    if not _fits(config, styles[0].model, "the styles that come along have", say):
        return
    shown = _some(photos) or [style]
    (name,) = NearestStyles(styles, [style]).of(shown)
    say(f"train.init_from: starts from {name}, whose strokes come nearest to those of the style")
    model = next(one.model for one in styles if one.name == name)
    restore_weights(net, load_transform_net(model)[0].state_dict(), model)
    give_colors(net, shown, style)


def _some(photos: Photos) -> list[Image.Image]:
    """Some photos, spread over all of them; those that cannot be used are told elsewhere."""
    found = []
    files = photos.training
    for path in files[:: max(1, len(files) // _MOST_PHOTOS)][:_MOST_PHOTOS]:
        with suppress(UserError):
            photo = read_photo(path, takes_results=photos.takes_results)
            found.append(fit_longer_side(photo, _LONGEST_SIDE))
    return found


def _require_same_weights(
    config: Config, init_from: str, architecture: Mapping[str, object]
) -> None:
    """Check that the network has weights of the shapes that a model has.

    Raises:
        UserError: it has not; names the settings, and the values that the model has.
    """
    ours = config.model.model_dump()
    differing = [key for key in _WITH_WEIGHTS if ours[key] != architecture[key]]
    if differing:
        found = ", ".join(f"model.{key}={ours[key]}" for key in differing)
        needed = " ".join(f"model.{key}={architecture[key]}" for key in differing)
        raise UserError(
            f"train.init_from: {printable(init_from)} is of another network than {found}; set "
            f"{needed}, or start from random weights with train.init_from=null and more train.steps"
        )


def _start_from_base(net: TransformNet, config: Config, say: Callable[[str], None]) -> None:
    if _fits(config, BASE_FILE, "the base has", say):
        restore_weights(net, load_transform_net(BASE_FILE)[0].state_dict(), BASE_FILE)


def _fits(config: Config, model: Path, what: str, say: Callable[[str], None]) -> bool:
    """Whether a model of this package is of the configured architecture; otherwise says so."""
    ours, theirs = config.model.model_dump(), read_description(model)["architecture"]
    differing = [name for name in theirs if ours[name] != theirs[name]]
    if differing:
        values = ", ".join(f"model.{name}={theirs[name]}" for name in differing)
        say(
            f"train.init_from: {what} {values}; this network starts from nothing, and needs "
            "more train.steps"
        )
    return not differing
