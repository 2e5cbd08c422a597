"""Shared by the commands here: the table of counted figures, and the tests' small runs.

Importing this module lets a command import the helpers of ``tests/``: a small run of a few
milliseconds a step, and a disk that is full at any call. They need the packages of ``make setup``.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]


class Figure(NamedTuple):
    """How often a property held, of how many tries."""

    name: str
    held: int
    tries: int


def parser_of(doc: str | None, *, seed: int = 1) -> argparse.ArgumentParser:
    """A parser with the option ``--seed``; `doc` is the docstring of the command."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=seed, help=f"of what is random ({seed})")
    return parser


def told(what: str) -> bool:
    """Say on stderr what went wrong in one try; gives False."""
    print(f"failed: {what}", file=sys.stderr, flush=True)
    return False


def conclude(figures: Iterable[Figure]) -> int:
    """Print the machine, and each figure when it is counted; returns 1 if a property failed.

    A property that was never tried has failed.
    """
    import peer

    print(peer.machine())
    print("\n| property | held |\n| --- | --- |", flush=True)
    exit_code = 0
    for figure in figures:
        print(f"| {figure.name} | {figure.held:,} of {figure.tries:,} |", flush=True)
        if not figure.held == figure.tries > 0:
            exit_code = 1
    return exit_code
