"""Which photos a command line names. (Those held out: tests/pictures/test_held_out_photos.py.)"""

import os
from pathlib import Path

import pytest
from example_pictures import UNKNOWN, gradient

from fast_style.core.errors import UserError, printable
from fast_style.pictures.folders import find_inputs, require_folder
from fast_style.pictures.reading import PictureError, read_picture
from fast_style.pictures.scanning import scan_folder
from fast_style.pictures.writing import write_picture


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_names_that_are_not_utf8_are_found_and_read(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.png"))
    try:
        write_picture(path, gradient())
    except UserError:
        pytest.skip("this file system wants UTF-8")
    assert scan_folder(tmp_path).pictures == [path]
    assert read_picture(path).size == (48, 64)
    path.write_bytes(b"no picture")
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value) == f"{tmp_path}/\\xff\\n.png: {UNKNOWN}"


def test_files_and_pictures_of_folders_are_listed_once_in_the_given_order(tmp_path):
    for name in ("folder/b.jpg", "folder/a.jpg", "folder/notes.txt", "z.psd"):
        touch(tmp_path / name)
    a, b, other = (tmp_path / name for name in ("folder/a.jpg", "folder/b.jpg", "z.psd"))
    inputs = find_inputs([other, b, tmp_path / "folder"])
    assert inputs.pictures == [other, b, a]
    assert [left_out.summary("") for left_out in inputs.left_out] == [
        "",
        "",
        "1 file left out: .txt (1)",
    ]


def test_a_file_that_alone_is_named_is_taken_whatever_it_is(tmp_path):
    touch(tmp_path / "a.jpg")
    touch(tmp_path / "a.wave.jpg")
    inputs = find_inputs([tmp_path / "a.wave.jpg"])
    assert inputs.pictures == [tmp_path / "a.wave.jpg"]
    assert inputs.takes_results
    assert not find_inputs([tmp_path]).takes_results


def test_results_that_a_shell_named_with_their_photos_are_left_out(tmp_path):
    names = ("a.jpg", "a.ink.jpg", "a.wave.jpg", "b.jpg", "c.wave.jpg")
    files = [tmp_path / name for name in names]
    for path in files:
        touch(path)
    inputs = find_inputs(files)
    assert [path.name for path in inputs.pictures] == ["a.jpg", "b.jpg", "c.wave.jpg"]
    (line,) = (left_out.summary("--x") for left_out in inputs.left_out)
    assert line == "2 results of fast-style left out: a.ink.jpg, a.wave.jpg (--x takes them in)"
    assert find_inputs(files, takes_results=True).pictures == files


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none", "not found"),
        (
            "empty",
            "no photos in this folder or below it (looked for JPEG, MPO, PNG, WEBP, BMP, DIB, GIF, "
            "TIFF, AVIF, JPEG2000)",
        ),
        (
            "notes",
            "no photos in this folder or below it (looked for JPEG, MPO, PNG, WEBP, BMP, DIB, GIF, "
            "TIFF, AVIF, JPEG2000); 1 file left out: .jxl (1); convert .jxl with djxl (package "
            "libjxl-tools)",
        ),
    ],
)
def test_input_without_pictures_is_named(tmp_path, name, problem):
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "notes" / "a.jxl")
    touch(tmp_path / "a.jpg")
    with pytest.raises(UserError) as caught:
        find_inputs([tmp_path / "a.jpg", tmp_path / name])
    assert str(caught.value) == f"{tmp_path / name}: {problem}"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none", "folder not found; check data.photos"),
        ("a\n.jpg", "is a file; data.photos must be a folder"),
    ],
)
def test_what_is_no_folder_of_photos_is_named_with_its_setting(tmp_path, name, problem):
    touch(tmp_path / "a\n.jpg")
    with pytest.raises(UserError) as caught:
        require_folder(tmp_path / name, "data.photos")
    assert str(caught.value) == f"{printable(tmp_path / name)}: {problem}"
