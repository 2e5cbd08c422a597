"""Which files of folders are pictures. (Those held out: tests/pictures/test_held_out_photos.py.)"""

import os
from pathlib import Path

import pytest
from example_pictures import UNKNOWN, gradient, must_not_block

from fast_style.core.errors import UserError, printable
from fast_style.pictures.folders import EXTENSIONS, find_pictures, pictures_of, require_folder
from fast_style.pictures.reading import PictureError, read_picture
from fast_style.pictures.writing import WRITABLE, write_picture


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_pictures_are_found_recursively_in_order_of_names(tmp_path):
    names = ["b.jpg", "a/z.JPEG", "a/b/c.Png", "a.jpg", "B.TIFF", "é.webp", "-x.bmp", "a b.gif"]
    for name in [*names, "notes.txt", "jpg", "a.jpg.part", "x.psd"]:
        touch(tmp_path / name)
    found = [str(path.relative_to(tmp_path)) for path in find_pictures(tmp_path)]
    assert found == [
        "-x.bmp",
        "B.TIFF",
        "a/b/c.Png",
        "a/z.JPEG",
        "a b.gif",
        "a.jpg",
        "b.jpg",
        "é.webp",
    ]


def test_order_does_not_depend_on_the_order_of_creation(tmp_path):
    names = [f"{letter}/{number}.png" for letter in "cab" for number in (10, 9, 1)]
    for root, order in ((tmp_path / "1", names), (tmp_path / "2", sorted(names))):
        for name in order:
            touch(root / name)
    first, second = (
        [path.relative_to(root) for path in find_pictures(root)]
        for root in (tmp_path / "1", tmp_path / "2")
    )
    assert first == second


def test_hidden_files_and_folders_are_left_out(tmp_path):
    for name in (".x.jpg", "._a.jpg", ".git/a.jpg", "__MACOSX/._a.jpg", "a.jpg", ".jpg"):
        touch(tmp_path / name)
    assert find_pictures(tmp_path) == [tmp_path / "a.jpg"]


def test_folder_that_was_asked_for_may_be_hidden_or_a_link(tmp_path):
    touch(tmp_path / ".hidden" / "a.jpg")
    (tmp_path / "link").symlink_to(".hidden")
    assert find_pictures(tmp_path / ".hidden") == [tmp_path / ".hidden" / "a.jpg"]
    assert find_pictures(tmp_path / "link") == [tmp_path / "link" / "a.jpg"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path):
    touch(tmp_path / "elsewhere" / "real.jpg")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "file.jpg").symlink_to(tmp_path / "elsewhere" / "real.jpg")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "folder.jpg").symlink_to(tmp_path / "elsewhere")
    (folder / "self").symlink_to(folder)
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    assert find_pictures(folder) == [folder / "file.jpg"]


def test_only_regular_files_are_found_and_none_is_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    touch(tmp_path / "folder.jpg" / "a.jpg")
    with must_not_block():
        assert find_pictures(tmp_path) == [tmp_path / "folder.jpg" / "a.jpg"]


def test_names_that_are_not_utf8_are_found_and_read(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.png"))
    try:
        write_picture(path, gradient())
    except UserError:
        pytest.skip("this file system wants UTF-8")
    assert find_pictures(tmp_path) == [path]
    assert read_picture(path).size == (48, 64)
    path.write_bytes(b"no picture")
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value) == f"{tmp_path}/\\xff\\n.png: {UNKNOWN}"


def test_folders_that_cannot_be_listed_are_named(tmp_path):
    touch(tmp_path / "a.jpg")
    for name, problem in [("a.jpg", "not a folder"), ("nowhere", "not found")]:
        with pytest.raises(PictureError) as caught:
            find_pictures(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {problem}"


def test_unreadable_folder_inside_stops_the_search(tmp_path, monkeypatch):
    touch(tmp_path / "a" / "b" / "x.jpg")
    scandir = os.scandir

    # Root may list everything, so the refusal of the system is imitated.
    def refuse_b(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_b)
    with pytest.raises(PictureError, match="/a/b: permission denied"):
        find_pictures(tmp_path)


def test_files_and_pictures_of_folders_are_listed_once_in_the_given_order(tmp_path):
    for name in ("folder/b.jpg", "folder/a.jpg", "folder/notes.txt", "z.psd"):
        touch(tmp_path / name)
    a, b, other = (tmp_path / name for name in ("folder/a.jpg", "folder/b.jpg", "z.psd"))
    assert pictures_of([other, b, tmp_path / "folder"]) == [other, b, a]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("none", "not found"), ("empty", "no photos in this folder or below it")],
)
def test_input_without_pictures_is_named(tmp_path, name, problem):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        pictures_of([tmp_path / name])
    assert str(caught.value) == f"{tmp_path / name}: {problem}"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none", "folder of photos not found; check data.photos"),
        ("a\n.jpg", "is a file; data.photos must be a folder of photos"),
    ],
)
def test_what_is_no_folder_of_photos_is_named_with_its_setting(tmp_path, name, problem):
    touch(tmp_path / "a\n.jpg")
    with pytest.raises(UserError) as caught:
        require_folder(tmp_path / name, "data.photos")
    assert str(caught.value) == f"{printable(tmp_path / name)}: {problem}"


def test_module_lists_every_suffix_that_it_writes():
    assert set(WRITABLE) < EXTENSIONS


@pytest.mark.real_data
def test_every_awkward_file_is_found(assets):
    assert len(find_pictures(assets / "awkward")) == 17
