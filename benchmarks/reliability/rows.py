"""Shared by these commands: where the tests' helpers lie, and the row in which a property ends.

Small runs, models and damaged files are those of the tests, so their folder joins the path of
modules here; and that of `benchmarks/peer.py`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests")]

_MOST_SHOWN = 20


def environment(**others: str) -> dict[str, str]:
    """The environment of a command of ours: one thread of OpenMP that never spins."""
    ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return {**os.environ, **ours, **others}


def show(what: str, counted: str, expected: str, failures: Sequence[str]) -> bool:
    """Print the row of a property, and what contradicts it; whether it holds.

    Args:
        what: the property, with its numbers and its seed.
        counted: the figures found.
        expected: what they should be.
        failures: a line for each case that contradicts the property.
    """
    print(table_row(what, counted, expected, "no" if failures else "yes"), flush=True)
    for line in failures[:_MOST_SHOWN]:
        print(line, file=sys.stderr)
    if len(failures) > _MOST_SHOWN:
        print(f"and {len(failures) - _MOST_SHOWN} more", file=sys.stderr)
    return not failures


def table_row(*cells: str) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def leave(*holds: bool) -> None:
    """End the command: exit code 0 if all properties hold, else 1."""
    sys.exit(0 if all(holds) else 1)
