"""``fast-style info``: what a model file says of itself."""

import argparse
from pathlib import Path

from fast_style.errors import printable

SUMMARY = "print what a model file says of itself"
EXAMPLES = "example:\n  {prog} runs/wave/model.safetensors\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a model.safetensors or checkpoint"
    )


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from fast_style.checkpoint import describe, load_transform_net

    for line in describe(load_transform_net(options.model)[1]):
        print(printable(line))  # somebody else's file may hold what moves a terminal's cursor
    return 0
