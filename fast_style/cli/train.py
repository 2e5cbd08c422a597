"""``fast-style train``: settings in, a trained model out."""

import argparse
from functools import partial
from typing import TYPE_CHECKING

from fast_style.cli.common import (
    add_device,
    add_resume,
    add_settings,
    carry_out,
    read_settings,
    say,
)
from fast_style.distributed import (
    Group,
    Launch,
    joined,
    own_device,
    read_launch,
    require_equal_shares,
)
from fast_style.errors import UserError

if TYPE_CHECKING:
    import torch

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
    launch = read_launch()
    try:
        config = _read(options, launch)
    except UserError as error:
        if launch.local_rank > 0:  # another process of this machine finds, and tells, the same
            raise UserError("", exit_code=error.exit_code) from None
        raise
    if config is None:
        return 0
    if options.check:
        from fast_style.runs import check_inputs

        check_inputs(config, say)
        return 0
    from fast_style.stylizer import resolve_device

    device = own_device(resolve_device(options.device), launch)
    with joined(launch, device) as group:
        return train(config, device=device, fresh=options.resume == "never", group=group)


def _read(options: argparse.Namespace, launch: Launch) -> "Config | None":
    from fast_style.config import Config

    config = read_settings(options, Config, example="configs/quickstart.yaml")
    if config is not None:
        require_equal_shares(config.train.batch_size, launch)
    return config


def train(config: "Config", *, device: "torch.device", fresh: bool, group: Group) -> int:
    """Train, or go on training; gives the exit code."""
    from fast_style.runs import build_trainer

    return carry_out(
        config,
        partial(build_trainer, group=group),
        device=device,
        fresh=fresh,
        result="model.safetensors",
        meaning="model",
        advice="Begin anew with --resume never, or start another run from it with train.init_from",
        group=group,
    )
