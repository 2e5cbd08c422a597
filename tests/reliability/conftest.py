"""What the short forms of benchmarks/reliability share."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from small_run import command_environment

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "reliability"

Row = Callable[..., Sequence[str]]


@pytest.fixture
def row() -> Row:
    """A function that runs a command with these words; gives the cells of the row it prints."""

    def run(name: str, *words: str) -> Sequence[str]:
        done = subprocess.run(
            [sys.executable, str(FOLDER / name), *words],
            env=command_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        cells = done.stdout.splitlines()[-1].strip("| ").split(" | ")
        assert cells[-1] == "yes", done.stdout
        return cells

    return run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands and what they share can be imported."""
    monkeypatch.syspath_prepend(str(FOLDER))
