"""``stylize`` with several processes, as torchrun starts them, and with torch's own settings."""

from pathlib import Path

import pytest
from PIL import Image
from tiny_model import write_tiny_model
from two_processes import start_two

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
