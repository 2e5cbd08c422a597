"""Pictures written to files, read back."""

import os
from pathlib import Path

import numpy as np
import pytest
from example_pictures import BLUE, LIME, RED, gradient, plain, swapped_profile
from PIL import Image

from fast_style.core.errors import UserError
from fast_style.pictures.reading import ResultError, read_picture
from fast_style.pictures.writing import (
    WRITABLE,
    keeps_alpha,
    writable_format,
    write_animation,
    write_picture,
)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif", "a.tiff"])
def test_lossless_formats_give_back_the_same_pixels(tmp_path, name):
    write_picture(tmp_path / name, gradient())
    picture = read_picture(tmp_path / name)
    assert picture.rgb.tobytes() == gradient().tobytes()
    assert picture.alpha is None


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.webp"])
def test_lossy_formats_come_close(tmp_path, name):
    write_picture(tmp_path / name, gradient())
    found = read_picture(tmp_path / name).rgb
    assert np.abs(np.subtract(found, gradient(), dtype=np.int16)).mean() < 2


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_alpha_is_written_where_the_format_has_it(tmp_path, name):
    alpha = gradient().getchannel(1)
    write_picture(tmp_path / name, gradient(), alpha=alpha)
    found = read_picture(tmp_path / name).alpha
    assert found is not None
    assert found.tobytes() == alpha.tobytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp"])
def test_formats_without_alpha_get_white_paper(tmp_path, name):
    write_picture(tmp_path / name, Image.new("RGB", (8, 8)), alpha=Image.new("L", (8, 8), 51))
    picture = read_picture(tmp_path / name)
    assert picture.alpha is None
    assert np.abs(np.subtract(picture.rgb.getpixel((3, 3)), 204)).max() <= 1


@pytest.mark.parametrize(("quality", "sampling"), [(95, 1), (90, 1), (89, 2), (50, 2)])
def test_jpeg_keeps_full_color_resolution_from_quality_90(tmp_path, quality, sampling):
    write_picture(tmp_path / "a.jpg", gradient(), quality=quality)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.layer[0][1:3] == (sampling, sampling)


@pytest.mark.parametrize("format", ["png", "PNG"])
def test_format_may_be_named(tmp_path, format):
    write_picture(tmp_path / "a.out", gradient(), format=format)
    with Image.open(tmp_path / "a.out") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_bare_picture_is_written_without_a_copy_of_it(tmp_path, monkeypatch, suffix):
    def forbid_copies(image: Image.Image) -> Image.Image:
        raise AssertionError("a huge picture may not fit into the memory twice")

    picture = gradient()
    monkeypatch.setattr(Image.Image, "copy", forbid_copies)
    write_picture(tmp_path / f"a{suffix}", picture)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_no_metadata_is_written_but_the_mark(tmp_path, suffix):
    image = gradient()
    image.info = {"icc_profile": swapped_profile(), "comment": b"secret", "dpi": (7, 7)}
    image.info["exif"] = b"Exif\0\0secret"
    write_picture(tmp_path / f"a{suffix}", image)
    with Image.open(tmp_path / f"a{suffix}") as found:
        assert not {"icc_profile", "comment", "transparency"} & set(found.info)
        exif = dict(found.getexif())
        assert exif[0x0131] == "fast-style"
        if suffix != ".tif":  # there, the structure of the file is in these tags
            assert len(exif) == 1
    assert b"secret" not in (tmp_path / f"a{suffix}").read_bytes()
    assert image.info["comment"] == b"secret"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.gif", "cannot write the format '.gif'"),
        ("a.psd", "cannot write the format '.psd'"),
        ("a", "a picture's file needs a suffix, which names its format"),
    ],
)
def test_unknown_format_names_the_known_ones(tmp_path, name, found):
    with pytest.raises(UserError) as caught:
        write_picture(tmp_path / name, gradient())
    assert str(caught.value) == (
        f"{tmp_path / name}: {found}; use one of .jpg, .jpeg, .png, .webp, .tif, .tiff, .bmp"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "side"), [("a.webp", 16_383), ("a.jpg", 65_500)])
def test_sides_that_a_format_cannot_hold_are_refused(tmp_path, name, side):
    write_picture(tmp_path / name, Image.new("RGB", (side, 1)))
    with pytest.raises(UserError) as caught:
        write_picture(tmp_path / name, Image.new("RGB", (side + 1, 1)))
    kind = {"a.webp": "WEBP", "a.jpg": "JPEG"}[name]
    assert str(caught.value) == (
        f"{tmp_path / name}: {side + 1} x 1 pixels are too many for {kind}, "
        f"which allows {side} a side; write a .png"
    )


def test_missing_folder_is_named(tmp_path):
    for path, write in (
        (tmp_path / "nowhere" / "a.png", lambda path: write_picture(path, gradient())),
        (tmp_path / "nowhere" / "a.gif", lambda path: write_animation(path, [gradient()])),
    ):
        with pytest.raises(UserError) as caught:
            write(path)
        assert str(caught.value) == (
            f"{path}: cannot be written (No such file or directory); choose another file or folder"
        )
        assert caught.value.exit_code == 1


def test_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError) as caught:
        write_picture(path, gradient())
    assert str(path) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert caught.value.exit_code == 1
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_same_picture_gives_the_same_bytes(tmp_path):
    write_picture(tmp_path / "a.png", gradient())
    write_picture(tmp_path / "b.png", gradient())
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def frames_of(path: Path) -> list[tuple[tuple[int, ...], int]]:
    """The first pixel of each frame, and for how many milliseconds it is shown."""
    with Image.open(path) as film:
        assert film.format == "GIF"
        found = []
        for number in range(film.n_frames):
            film.seek(number)
            found.append((film.convert("RGB").getpixel((0, 0)), film.info["duration"]))
        return found


def test_animation_shows_its_frames_in_turn_for_ever_and_rests_on_the_last(tmp_path):
    path = tmp_path / "a.gif"
    write_animation(path, [plain(name, 10, 6) for name in ("red", "lime", "blue")], frame_ms=50)
    assert frames_of(path) == [(RED, 50), (LIME, 50), (BLUE, 500)]
    with Image.open(path) as film:
        assert film.size == (10, 6)
        assert film.info["loop"] == 0  # for ever


def test_animation_of_one_frame_is_a_picture(tmp_path):
    write_animation(tmp_path / "a.gif", [plain("red", 10, 6)])
    assert [color for color, _ in frames_of(tmp_path / "a.gif")] == [RED]


def test_animation_comes_close_to_its_frames(tmp_path):
    write_animation(tmp_path / "a.gif", [gradient(), gradient().transpose(0)])
    with Image.open(tmp_path / "a.gif") as film:
        found = film.convert("RGB")
    assert np.abs(np.subtract(found, gradient(), dtype=np.int16)).mean() < 10  # of 256 colors


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("a.jpg", None, "JPEG"),
        ("a.b.JPEG", None, "JPEG"),
        ("a.tif", None, "TIFF"),
        ("a.out", "png", "PNG"),
        ("a.png", "webp", "WEBP"),
    ],
)
def test_writable_format_is_told_by_the_suffix_or_by_name(name, format, expected):
    assert writable_format(Path(name), format) == expected


@pytest.mark.parametrize(("name", "format"), [("a.gif", None), ("a.png", "gif"), (".png", None)])
def test_format_that_cannot_be_written_is_refused_without_a_picture(name, format):
    with pytest.raises(UserError, match=r"use one of \.jpg"):
        writable_format(Path(name), format)


@pytest.mark.parametrize("suffix", WRITABLE)
def test_formats_that_keep_alpha_are_those_in_which_it_is_found(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_picture(path, gradient(), alpha=Image.new("L", (64, 48), 99))
    assert keeps_alpha(path) == (read_picture(path).alpha is not None)


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("alpha", [None, Image.new("L", (64, 48), 99)])
def test_results_are_marked_in_every_format(tmp_path, suffix, alpha):
    path = tmp_path / f"a{suffix}"
    write_picture(path, gradient(), alpha=alpha)
    picture = read_picture(path)
    assert picture.is_result
    with pytest.raises(ResultError) as caught:
        read_picture(path, takes_results=False)
    assert str(caught.value) == f"{path}: a result of fast-style, not a photo"
    kind = {"jpg": "jpeg", "tif": "tiff"}.get(suffix[1:], suffix[1:])
    picture.rgb.save(path, kind)  # by another program
    assert not read_picture(path, takes_results=False).is_result


def test_animations_are_marked(tmp_path):
    write_animation(tmp_path / "a.gif", [gradient(), gradient().transpose(0)])
    assert read_picture(tmp_path / "a.gif").is_result


def test_mark_does_not_change_a_bitmaps_pixels(tmp_path):
    write_picture(tmp_path / "a.bmp", gradient())
    gradient().save(tmp_path / "b.bmp")
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("a.bmp", "b.bmp"))
    assert [place for place in range(len(ours)) if ours[place] != theirs[place]] == [6, 7, 8, 9]
