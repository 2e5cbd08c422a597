"""Freed memory is kept by commands, and by nothing else."""

import os
import platform
import subprocess
import sys

import pytest
from command_line import ROOT, Output, errors, run

# A tensor of 80 MB is made and freed: in a process without commands, after a command that is told
# not to keep memory, and after an ordinary one. Prints whether the process holds the 80 MB with the
# tensor, without it, and after the stylizer has returned freed memory.
TENSOR_COMES_AND_GOES = """
import os, resource, torch
from pathlib import Path
from fast_style.cli.main import main
from fast_style.core.free_memory import return_freed_memory
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
for word in (None, "system", ""):
    if word is not None:
        os.environ["FAST_STYLE_MALLOC"] = word
        assert main(["init", "none.png"]) == 2
    before = held()
    tensor = torch.ones(20_000_000)
    levels = [held()]
    del tensor
    levels.append(held())
    return_freed_memory()
    levels.append(held())
    print(*(round((level - before) / 80e6) for level in levels))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_commands_keep_freed_memory_until_it_is_wanted() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TENSOR_COMES_AND_GOES],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["1 0 0", "1 0 0", "1 1 0"]


def test_word_that_the_allocator_does_not_know_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("FAST_STYLE_MALLOC", "jemalloc")
    assert run("info", "compact") == 2
    assert errors(capsys) == [
        "error: FAST_STYLE_MALLOC in the environment: must be 'system' (return freed memory at "
        "once) or not set, got 'jemalloc'"
    ]
