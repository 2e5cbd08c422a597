"""Shared by the commands here: the table of counted figures, and the way to the tests' helpers.

Importing this module lets a command import the helpers of ``tests/``: a small run of a few
milliseconds a step, damaged and hostile files, a disk that is full at any call. They need the
packages of ``make setup``.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]


class Figure(NamedTuple):
    """How often a property held, of how many tries.

    Attributes:
        name: the property.
        held: how often.
        tries: None where it cannot be tried here.
        remark: what else was seen, or why it cannot be tried.
    """

    name: str
    held: int
    tries: int | None
    remark: str = ""


def parser_of(doc: str | None, *, is_random: bool = True) -> argparse.ArgumentParser:
    """A parser, with ``--seed`` if anything is random; `doc` is the docstring of the command."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    if is_random:
        parser.add_argument("--seed", type=int, default=1, help="of what is random (1)")
    return parser


def told(what: str) -> bool:
    """Say on stderr what went wrong in one try; gives False."""
    print(f"failed: {what}", file=sys.stderr, flush=True)
    return False


def conclude(figures: Iterable[Figure]) -> int:
    """Print the machine, and each figure when it is counted; returns 1 if a property failed.

    A property that was never tried has failed, unless it cannot be tried here.
    """
    import peer

    print(peer.machine())
    print(f"\n{peer.table_head('property', 'held', 'remark')}", flush=True)
    exit_code = 0
    for name, held, tries, remark in figures:
        counted = "not tried" if tries is None else f"{held:,} of {tries:,}"
        print(peer.table_row(name, counted, remark), flush=True)
        if tries is not None and not held == tries > 0:
            exit_code = 1
    return exit_code
