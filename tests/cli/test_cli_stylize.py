"""``stylize`` with several processes, as torchrun starts them, and with torch's own settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_model import write_tiny_model
from two_processes import REPOSITORY, start_two

NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a model and three photos, of which the second is broken."""
    write_tiny_model(tmp_path / "model.safetensors")
    (tmp_path / "photos").mkdir()
    for name in NAMES:
        Image.effect_noise((40, 30), 64).convert("RGB").save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "b.png").write_bytes(b"no picture")
    return tmp_path


def stylize_in_two(here: Path, *words: str) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of both processes."""
    arguments = ["-m", "fast_style", "stylize", "-m", "model.safetensors", "photos", *words]
    processes = start_two(arguments, here)
    outputs = [process.communicate(timeout=120) for process in processes]
    return [
        (process.returncode, *output) for process, output in zip(processes, outputs, strict=True)
    ]


def test_two_processes_share_the_photos_and_tell_of_all(here: Path) -> None:
    first, second = stylize_in_two(here, "-o", "out")
    assert first == (1, "out/a.png\nout/c.png\n2 done, 0 skipped, 1 failed\n", "")
    assert second == (
        1,
        "",
        "error: photos/b.png: not a picture of a known format (JPEG, MPO, PNG, WEBP, BMP, GIF, "
        "TIFF)\n",
    )
    assert sorted(path.name for path in (here / "out").iterdir()) == ["a.png", "c.png"]


def test_two_processes_refuse_the_same_before_any_work(here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "c.png").touch()
    ended = stylize_in_two(here, "-o", "out")
    line = "out/c.png: exists already; allow --overwrite, or leave it with --skip-existing"
    assert ended == [(2, "", f"error: {line}\n"), (2, "", f"error: process 1: {line}\n")]
    assert [path.name for path in (here / "out").iterdir()] == ["c.png"]


def test_compiling_that_the_environment_forbids_is_told(here: Path) -> None:
    words = ["-m", "model.safetensors", "photos/a.png", "--device", "cpu", "--compile"]
    ended = subprocess.run(
        [sys.executable, "-m", "fast_style", "stylize", *words],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TORCH_COMPILE_DISABLE": "1"},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        "note: compiling takes a minute or two the first time; on a CPU it is slower compiled",
        "error: --compile: TORCH_COMPILE_DISABLE or TORCHDYNAMO_SUPPRESS_ERRORS in the environment "
        "tells torch to go on without compiling; unset it, or do without",
    ]
