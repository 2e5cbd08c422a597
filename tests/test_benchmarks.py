"""The commands that docs/performance.md names still run; what they measure is not judged here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import write_small_run

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
    # Of so small a photo, the kernel's coarse counters may say less than nothing.
    rows = re.findall(r"^\| 64 x 64 \| (\d) \| -?\d+ MB \| -?\d+ \|$", done.stdout, re.MULTILINE)
    assert rows == ["1", "2"]
    assert "bytes = pixels * (" in done.stdout


def test_loss_networks_benchmark_prints_a_row_for_every_network(tmp_path: Path) -> None:
    config = write_small_run(tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks" / "loss_networks.py"),
            str(config),
            *("--images", "6", "--size", "32", "--judge", "loss_network.weights=random"),
            *("--network", "one loss_network.weights=random"),
            *("--network", "two loss_network.weights=random loss_network.pooling=average"),
            *("--mixture", "two", "one"),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    number = r"\d+\.\d{3}"
    rows = re.findall(
        rf"^\| ([\w :-]+) \| (?:\d+\.\d+)? \| (\d+) \| {number} \| {number} \| {number} \|$",
        done.stdout,
        re.MULTILINE,
    )
    assert rows == [("nothing: the photos", "0"), ("one", "6"), ("two", "6"), ("two-then-one", "6")]
    for name in ("one", "two", "two-then-one"):
        assert (tmp_path / "loss_networks" / f"{name}.png").is_file()
