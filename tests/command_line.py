"""Run the commands, in this process or in one of their own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fast_style.cli.main import main

ROOT = Path(__file__).resolve().parents[1]


Output = pytest.CaptureFixture[str]


def photo_at(path: str, seed: int = 0) -> Path:
    """Writes noise of 48 x 40 pixels."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return Path(path)


def run(*arguments: str) -> int:
    """The exit code of ``fast-style ARGUMENTS``, whether it is returned or raised."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def run_in_process(
    *arguments: str, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``python -m fast_style ARGUMENTS``, with additions to the environment."""
    return subprocess.run(
        [sys.executable, "-m", "fast_style", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def errors(capsys: Output) -> list[str]:
    """The lines on stderr; stdout must be empty."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()
