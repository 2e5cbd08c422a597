"""What benchmarks/reliability/rank_killed.py tells processes and steps by.

`tests/core/test_distributed.py` kills one of two processes that torchrun has not started.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.usefixtures("command")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_are_told_by_their_environment() -> None:
    rank_killed = importlib.import_module("rank_killed")
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env={**os.environ, "FAST_STYLE_BENCHMARK": "here"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        process.stdout.readline()  # a process that has just begun has no environment yet
        assert process.pid in rank_killed.pids()
        assert "FAST_STYLE_BENCHMARK=here" in rank_killed.environment_of(process.pid)
        assert "FAST_STYLE_BENCHMARK=here" not in rank_killed.environment_of(os.getpid())
    finally:
        process.communicate(b"\n")
    assert rank_killed.environment_of(process.pid) == []


@pytest.mark.usefixtures("command")
def test_newest_step_is_that_of_the_last_row(tmp_path: Path) -> None:
    rank_killed = importlib.import_module("rank_killed")
    assert rank_killed.newest_step(tmp_path) == 0
    table = tmp_path / "metrics.csv"
    table.write_text("step,loss\n")
    assert rank_killed.newest_step(tmp_path) == 0
    table.write_text("step,loss\n1,2.5\n17,2.25\n")
    assert rank_killed.newest_step(tmp_path) == 17
