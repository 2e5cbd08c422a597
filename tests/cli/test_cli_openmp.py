"""How long OpenMP's threads spin: set by commands, and by nothing else."""

import os
import subprocess
import sys

import pytest
from command_line import ROOT

from fast_style.cli import openmp

DECISIONS = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"}

# Loads torch after a command, and prints what the environment then says.
COMMAND_THEN_TORCH = """
import os
from fast_style.cli.main import main
assert main(["init", "none.png"]) == 2
import torch
print({name: os.environ[name] for name in %r if name in os.environ})
""" % sorted(DECISIONS)  # noqa: UP031 - braces


def after_a_command(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in DECISIONS}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND_THEN_TORCH],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_command_sets_it_and_libgomp_reads_it() -> None:
    done = after_a_command(OMP_DISPLAY_ENV="VERBOSE")
    assert done.stdout == "{'GOMP_SPINCOUNT': '20000', 'KMP_BLOCKTIME': '1'}\n"
    if "GOMP_SPINCOUNT" in done.stderr:  # not with another OpenMP
        assert "GOMP_SPINCOUNT = '20000'" in done.stderr


@pytest.mark.parametrize("name", sorted(DECISIONS))
def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in DECISIONS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    openmp.let_waiting_threads_sleep()
    assert dict(os.environ) == before
