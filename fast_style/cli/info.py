"""``fast-style info``: print the description of a model or of a learned loss network."""

import argparse
from pathlib import Path

from fast_style.cli.arguments import input_path
from fast_style.cli.stdout import hand_out
from fast_style.core.errors import printable

SUMMARY = "print the description that a model file contains"
EXAMPLES = """\
examples:
  {prog} runs/wave/model.safetensors
  # the loss network that comes with fast-style, or one of your own
  {prog} compact
  {prog} runs/compact/loss_network.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model",
        type=input_path,
        metavar="MODEL",
        help="a model.safetensors, a checkpoint, a loss_network.safetensors of fast-style distill, "
        "or compact, the loss network that comes with fast-style",
    )


def run(options: argparse.Namespace) -> int:
    """Print the description; returns the exit code."""
    from fast_style.models.model_files import describe, describe_learned, read_description

    path = options.model
    if path == Path("compact"):
        from fast_style.losses.inputs import COMPACT_FILE  # loads NumPy and the settings

        path = COMPACT_FILE
    for line in describe_learned(path) or describe(read_description(path)):
        hand_out(printable(line))  # a file may contain control characters for the terminal
    return 0
