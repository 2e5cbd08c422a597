"""``fast-style distill``: a large loss network in, a small one out."""

import argparse

from fast_style.cli.common import (
    add_device,
    add_resume,
    add_settings,
    carry_out,
    read_settings,
    require_inputs_of_new,
)
from fast_style.core.distributed import ALONE, read_launch
from fast_style.core.errors import UserError

SUMMARY = "learn a small loss network from a large one"
EXAMPLES = """\
examples:
  # about an hour on two CPU cores; the same again continues
  {prog} configs/distill.yaml
  # train a style with the result
  fast-style train my.yaml loss_network.weights=runs/compact/loss_network.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    add_settings(parser, instead_of="learn")
    add_device(parser)
    add_resume(parser)


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from fast_style.settings.config import DistillConfig

    config = read_settings(options, DistillConfig, example="configs/distill.yaml")
    if config is None:
        return 0
    if not read_launch().is_alone:
        raise UserError("distill works in one process; start it without torchrun")
    require_inputs_of_new(config, fresh=options.resume == "never")
    from fast_style.core.devices import resolve_device
    from fast_style.distilling.distillation import build_distiller  # takes seconds, and torch

    return carry_out(
        config,
        build_distiller,
        device=resolve_device(options.device),
        fresh=options.resume == "never",
        result="loss_network.safetensors",
        meaning="loss network",
        advice="Begin anew with --resume never",
        group=ALONE,
    )
