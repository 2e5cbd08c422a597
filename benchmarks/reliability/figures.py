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

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import program

from fast_style.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


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
    parser = program.parser_of(doc)
    if is_random:
        parser.add_argument("--seed", type=int, default=1, help="of what is random (1)")
    return parser


def require_at_most(option: str, number: int | None, most: int) -> None:
    """Check that no more is asked for than there is.

    Raises:
        UserError: there is less.
    """
    if number is not None and number > most:
        raise UserError(f"{option} {number}: must be at most {most}, as many as there are")


def told(what: str) -> bool:
    """Say on stderr what went wrong in one try; gives False."""
    print(f"failed: {what}", file=sys.stderr, flush=True)
    return False


def conclude(figures: Iterable[Figure]) -> int:
    """Print the machine, and each figure when it is counted; returns 1 if a property failed.

    A property that was never tried has failed, unless it cannot be tried here. So has a table
    without any.
    """
    import peer

    print(peer.machine())
    print(f"\n{peer.table_head('property', 'held', 'remark')}", flush=True)
    num_failed = num_figures = 0
    for name, held, tries, remark in figures:
        counted = "not tried" if tries is None else f"{held:,} of {tries:,}"
        print(peer.table_row(name, counted, remark), flush=True)
        num_figures += 1
        num_failed += tries is not None and not held == tries > 0
    return 0 if num_figures > num_failed == 0 else 1
