"""The network before the first step: seeded weights, another model's, or those of the base.

Most of what a network learns is the same for any style, so a style is learned from another one's
network in a fraction of the steps. Some of that one's strokes stay, though: Starry Night leaves
small rings. The base is a network whose strokes hardly show (docs/ablations.md).
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from fast_style.core.errors import UserError, printable
from fast_style.models.checkpoint import load_transform_net
from fast_style.networks.transform_net import TransformNet
from fast_style.settings.config import BASE, Config
from fast_style.styles.shipped import meant, model_of
from fast_style.training.saving import restore_weights

BASE_FILE = Path(__file__).with_name("base.safetensors")

# The settings of `model` that decide the names and shapes of weights.
_WITH_WEIGHTS = ("width", "residual_blocks", "upsampling")


def build_net(
    config: Config, init_from: str | None, say: Callable[[str], None] = lambda line: None
) -> TransformNet:
    """The network before the first step.

    Args:
        config: the settings; its `train.init_from` is not read.
        init_from: a model file, the name of a shipped style, ``base``, or None for seeded weights.
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
    elif init_from is not None:
        path = model_of(init_from) or Path(init_from)
        if not path.exists():
            hint = "" if path.suffix else meant(path.name, BASE)
            raise UserError(
                f"{printable(path)}: the model of train.init_from does not exist{hint or ';'} "
                "train it first, "
                "or start from the base with train.init_from=base, or from random weights with "
                "train.init_from=null and more train.steps"
            )
        start, description = load_transform_net(path)
        _require_same_weights(config, init_from, description["architecture"])
        restore_weights(net, start.state_dict(), path)
    return net


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
    base, description = load_transform_net(BASE_FILE)
    ours, theirs = config.model.model_dump(), description["architecture"]
    differing = [name for name in theirs if ours[name] != theirs[name]]
    if differing:
        values = ", ".join(f"model.{name}={theirs[name]}" for name in differing)
        say(
            f"train.init_from: the base has {values}; this network starts from nothing, and needs "
            "more train.steps"
        )
        return
    restore_weights(net, base.state_dict(), BASE_FILE)
