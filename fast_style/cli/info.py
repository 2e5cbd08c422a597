"""``fast-style info``: what a model file, or a learned loss network, says of itself."""

import argparse
from pathlib import Path

from fast_style.core.errors import printable

SUMMARY = "print what a model file says of itself"
EXAMPLES = """\
examples:
  {prog} runs/wave/model.safetensors
  # the loss network that comes with fast-style, or one of yours
  {prog} compact
  {prog} runs/compact/loss_network.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a model.safetensors, a checkpoint, a loss_network.safetensors of fast-style distill, "
        "or compact",
    )


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from fast_style.losses.inputs import COMPACT_FILE
    from fast_style.models.model_files import describe, describe_learned, read_description

    path = COMPACT_FILE if options.model == Path("compact") else options.model
    for line in describe_learned(path) or describe(read_description(path)):
        print(printable(line))  # somebody else's file may hold what moves a terminal's cursor
    return 0
