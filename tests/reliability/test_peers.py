"""How benchmarks/reliability/peers.py tells failures apart, and that its files are hostile."""

import importlib
import subprocess
from pathlib import Path

import pytest
import torch
from tiny_model import write_tiny_model

from fast_style.models.checkpoint import CheckpointError, load_transform_net

pytestmark = pytest.mark.usefixtures("command")


def test_failures_are_told_apart() -> None:
    peers = importlib.import_module("peers")

    def failure(code: int, stderr: str) -> str:
        return peers.failure_of(subprocess.CompletedProcess([], code, "", stderr))

    assert failure(2, "error: a.pth: empty\n") == "refused, exit code 2, in 1 line"
    assert failure(2, "error: a\nerror: b\n") == "refused, exit code 2, in 2 lines"
    traceback = "Traceback (most recent call last):\n  File\n_pickle.UnpicklingError: no\n  more\n"
    assert failure(1, traceback) == "traceback of _pickle.UnpicklingError, exit code 1"


def test_every_hostile_file_is_refused_and_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = importlib.import_module("peers")
    monkeypatch.chdir(tmp_path)
    for name, spoil in peers.HOSTILE.items():
        path = write_tiny_model(tmp_path / "model.safetensors")
        load_transform_net(path)
        spoil(path)
        with pytest.raises(CheckpointError):
            load_transform_net(path)
        assert not (tmp_path / "code_was_run").exists(), name


def test_code_in_the_pickle_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = importlib.import_module("peers")
    monkeypatch.chdir(tmp_path)
    peers.code_in_pickle(tmp_path / "a.pth")
    torch.load("a.pth", weights_only=False)
    assert (tmp_path / "code_was_run").is_dir()
