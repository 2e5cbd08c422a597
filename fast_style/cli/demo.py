"""``fast-style demo``: a small model trained and used, without a download."""

import argparse
from pathlib import Path

from fast_style.cli.common import RUNS, add_device, say
from fast_style.cli.train import train

SUMMARY = "train a small model and use it, in minutes, on a CPU"
EXAMPLES = "example:\n  # writes demo/ and runs/quickstart/ here\n  {prog}\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from fast_style.demo import finish_demo, prepare_demo

    prepared = prepare_demo(Path("demo"))
    say(prepared.announcement)
    code = train(prepared.config, device=options.device, fresh=False)
    if code == 0:
        for line in finish_demo(prepared, RUNS, device=options.device):
            say(line)
    return code
