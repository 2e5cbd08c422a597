"""``fast-style train``: settings in, a trained model out."""

import argparse
from typing import TYPE_CHECKING

from fast_style.cli.common import (
    add_device,
    add_resume,
    add_settings,
    carry_out,
    read_settings,
    say,
)

if TYPE_CHECKING:
    from fast_style.config import Config


SUMMARY = "train a style from a YAML file"
EXAMPLES = """\
examples:
  # train; the same again continues
  {prog} configs/starry_night.yaml
  # change settings for this run
  {prog} my.yaml train.steps=2000 loss.style_weight=8
  # are photos, style and weights fine?
  {prog} my.yaml --check
  # watch
  tensorboard --logdir runs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    add_settings(parser, instead_of="train")
    add_device(parser)
    add_resume(parser)
    parser.add_argument(
        "--check", action="store_true", help="look at photos, style and weights; train nothing"
    )


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from fast_style.config import Config

    config = read_settings(options, Config, example="configs/quickstart.yaml")
    if config is None:
        return 0
    if options.check:
        from fast_style.runs import check_inputs

        check_inputs(config, say)
        return 0
    return train(config, device=options.device, fresh=options.resume == "never")


def train(config: "Config", *, device: str, fresh: bool) -> int:
    """Train, or go on training; gives the exit code."""
    from fast_style.runs import build_trainer

    return carry_out(
        config,
        build_trainer,
        device=device,
        fresh=fresh,
        result="model.safetensors",
        meaning="model",
        advice="Begin anew with --resume never, or start another run from it with train.init_from",
    )
