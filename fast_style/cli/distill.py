"""``fast-style distill``: train a small loss network to imitate a large one."""

import argparse

from fast_style.cli.arguments import (
    add_device,
    add_max_pixels,
    add_resume,
    add_settings,
    read_settings,
)
from fast_style.cli.runs import require_inputs_of_new, start_or_resume
from fast_style.core.distributed import ALONE, read_launch
from fast_style.core.errors import UserError

SUMMARY = "train a small loss network to imitate a large one"
EXAMPLES = """\
examples:
  # half an hour on two CPU cores; the same command resumes a stopped run
  {prog} configs/distill.yaml
  # train a style with the result
  fast-style train my.yaml loss_network.weights=runs/compact/loss_network.safetensors
"""
LESS_MEMORY = "set a smaller data.crop_size or train.photos"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_settings(parser)
    add_device(parser)
    add_max_pixels(parser)
    add_resume(parser)


def run(options: argparse.Namespace) -> int:
    """Start or resume the distillation; returns the exit code."""
    from fast_style.settings.config import DistillConfig

    config = read_settings(options, DistillConfig, example="configs/distill.yaml")
    if config is None:
        return 0
    if not read_launch().is_alone:
        raise UserError("distill runs in one process; start it without torchrun")
    require_inputs_of_new(config, fresh=options.resume == "never")
    from fast_style.core.devices import resolve_device
    from fast_style.distilling.build import build_distiller  # imports torch, which takes seconds

    return start_or_resume(
        config,
        build_distiller,
        device=resolve_device(options.device),
        fresh=options.resume == "never",
        result="loss_network.safetensors",
        meaning="loss network",
        advice="",
        group=ALONE,
    )
