"""Signals wait while torch is imported."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fast_style.cli import imports

ROOT = Path(__file__).resolve().parents[2]

# A module of this name in whose import a user presses Ctrl-C.
TORCH = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
for _ in range(1000): pass
print("whole", __spec__.loader is __loader__, type(__loader__).__name__)
"""
PROGRAM = """
from fast_style.cli.imports import let_signals_wait_for_torch
let_signals_wait_for_torch()
let_signals_wait_for_torch()
try:
    import torch
except KeyboardInterrupt:
    print("interrupted")
print(sum(type(finder).__name__ == "_Finder" for finder in sys.meta_path))
"""


def printed(program: str, folder: Path) -> list[str]:
    paths = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n"
    words = [sys.executable, "-c", paths + program]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")
def test_interrupt_is_raised_after_the_import_of_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(TORCH)
    lines = printed(PROGRAM, tmp_path)
    assert lines == ["whole True SourceFileLoader", "interrupted", "1"]


def test_torch_that_cannot_be_imported_is_told_with_the_variables_it_may_refuse(
    tmp_path: Path,
) -> None:
    (tmp_path / "torch.py").write_text("raise ValueError('junk is no log\\n- of torch')")
    program = PROGRAM.replace("KeyboardInterrupt", "Exception as error").replace(
        '"interrupted"', "error"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_LOGS", "junk")
        message, _ = printed(program, tmp_path)
    assert message.startswith("torch cannot be imported (ValueError: junk is no log); unset ")
    assert "TORCH_LOGS" in message


def test_torch_that_is_missing_is_missed_as_usual() -> None:
    finder = imports._Finder()
    assert finder.find_spec("torch", []) is None
    assert finder.find_spec("json", None) is None


def test_nothing_is_changed_where_torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = list(sys.meta_path)
    imports.let_signals_wait_for_torch()
    assert sys.meta_path == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
