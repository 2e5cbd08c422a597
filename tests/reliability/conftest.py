"""What the short forms of benchmarks/reliability share."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_run import command_environment

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FOLDER = BENCHMARKS / "reliability"


@pytest.fixture
def figures_of() -> Callable[..., dict[str, tuple[str, str]]]:
    """A function that runs a command with these words; gives its table, all of which held.

    The counts and the remark of each property, by its name.
    """

    def run(name: str, *words: str) -> dict[str, tuple[str, str]]:
        done = subprocess.run(
            [sys.executable, str(FOLDER / name), *words],
            env=command_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        rows = re.findall(
            r"^\| (.+?) \| ([\d,]+) of ([\d,]+) \| (.*) \|$", done.stdout, re.MULTILINE
        )
        assert all(held == tries for _, held, tries, _ in rows)
        return {name: (f"{held} of {tries}", remark) for name, held, tries, remark in rows}

    return run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands and what they share can be imported."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # `figures` adds it when first imported
    monkeypatch.syspath_prepend(str(FOLDER))
