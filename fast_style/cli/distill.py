"""``fast-style distill``: a large loss network in, a small one out."""

import argparse

from fast_style.cli.common import add_device, add_resume, add_settings, carry_out
from fast_style.errors import UserError

SUMMARY = "learn a small loss network from a large one"
EXAMPLES = """\
examples:
  # hours on a CPU; the same again continues
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
    from fast_style.config import DistillConfig, load_distill_config
    from fast_style.settings import help_text, to_yaml

    if options.help_config:
        print(help_text(DistillConfig))
        return 0
    if options.config is None:
        raise UserError("give a YAML file, such as configs/distill.yaml, or see --help")
    config = load_distill_config(options.config, options.words)
    if options.print_config:
        print(to_yaml(config), end="")
        return 0
    from fast_style.distillation import build_distiller

    return carry_out(
        config,
        build_distiller,
        device=options.device,
        fresh=options.resume == "never",
        result="loss_network.safetensors",
        meaning="loss network",
        advice="Begin anew with --resume never",
    )
