"""The commands that docs/performance.md names still run; what they measure is not judged here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_benchmark_prints_a_row_for_every_size_and_width() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/memory.py", "--sides", "64", "--widths", "1", "2"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| 64 x 64 \| (\d) \| \d+ MB \| -?\d+ \|$", done.stdout, re.MULTILINE)
    assert rows == ["1", "2"]
    assert "bytes = pixels * (" in done.stdout
