"""Claims about ``fast-style init`` and other texts that users keep as files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, Output, errors, photo_at, run
from PIL import Image

from fast_style.settings.config import load_config


def redirected(file: Path, *arguments: str, encoding: str) -> None:
    """``fast-style ARGUMENTS > file`` on a console with this encoding."""
    with file.open("wb") as stdout:
        subprocess.run(
            [sys.executable, "-m", "fast_style", *arguments],
            stdout=stdout,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Café.png", "日本.png"])
def test_redirected_settings_are_utf_8_whatever_the_console(here: Path, name: str) -> None:
    photo_at(name)
    redirected(here / "y.yaml", "init", name, encoding="cp1252")
    assert load_config("y.yaml").style.image == here / name
    redirected(here / "z.yaml", "train", "y.yaml", "--print-config", encoding="cp1252")
    assert load_config("z.yaml") == load_config("y.yaml")


def test_output_is_what_would_be_printed(here: Path, capsys: Output) -> None:
    photo_at("Café.png")
    assert run("init", "Café.png") == 0
    printed = capsys.readouterr().out
    assert run("init", "Café.png", "--output", "my.yaml") == 0
    assert capsys.readouterr().out == "my.yaml: set data.photos in it, and train it\n"
    assert Path("my.yaml").read_bytes() == printed.encode()


def test_style_picture_of_several_is_noted(here: Path, capsys: Output) -> None:
    frames = [Image.open(photo_at(f"{seed}.png", seed=seed)) for seed in range(2)]
    frames[0].save("a.webp", save_all=True, append_images=frames[1:])
    assert run("init", "a.webp", "-o", "my.yaml") == 0
    assert capsys.readouterr().err.startswith("note: 1 of 2 pictures in a.webp is taken; magick ")


def test_color_profile_of_the_style_picture_that_cannot_be_applied_is_noted(
    here: Path, capsys: Output
) -> None:
    Image.open(photo_at("a.png")).save("b.jpg", icc_profile=b"garbage")
    assert run("init", "b.jpg", "-o", "my.yaml") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: the color profile of 1 file ")
    assert "b.jpg" in line


def test_existing_file_is_replaced_only_if_asked(here: Path, capsys: Output) -> None:
    photo_at("a.png")
    Path("my.yaml").write_text("mine")
    assert run("init", "a.png", "-o", "my.yaml") == 2
    assert errors(capsys) == ["error: my.yaml: exists already; replace it with --overwrite"]
    assert Path("my.yaml").read_text() == "mine"
    assert run("init", "a.png", "-o", "my.yaml", "--overwrite") == 0
    assert load_config("my.yaml").name == "a"


def test_style_picture_is_never_replaced(here: Path, capsys: Output) -> None:
    photo_at("a.png")
    before = Path("a.png").read_bytes()
    assert run("init", "a.png", "-o", "./a.png", "--overwrite") == 2
    assert errors(capsys) == [
        "error: a.png: is an input, and would be replaced; choose another name"
    ]
    assert Path("a.png").read_bytes() == before


def test_picture_named_like_a_home_folder_is_itself(here: Path, capsys: Output) -> None:
    photo_at("~WRD0001.png")
    assert run("init", "~WRD0001.png", "-o", "my.yaml") == 0
    assert load_config("my.yaml").style.image == here / "~WRD0001.png"


def test_folder_is_no_file_to_write_and_one_that_is_missing_is_made(
    here: Path, capsys: Output
) -> None:
    photo_at("a.png")
    Path("folder").mkdir()
    assert run("init", "a.png", "-o", "folder") == 2
    assert errors(capsys) == ["error: folder: is a folder; name a file"]
    assert run("init", "a.png", "-o", "a.png/my.yaml") == 2
    (line,) = errors(capsys)
    assert line.startswith("error: a.png")
    assert run("init", "a.png", "-o", "none/my.yaml") == 0
    assert Path("none/my.yaml").is_file()
