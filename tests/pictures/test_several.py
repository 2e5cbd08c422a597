"""Claims about `several`: files that hold several pictures, and files that only seem to."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fast_style.pictures.reading import read_picture
from fast_style.pictures.several import line_about_several, num_pictures

REMEDY = "magick (package imagemagick) writes each to a file of its own"


def frames_of(count: int, size: tuple[int, int] = (24, 16), mode: str = "RGB") -> list[Image.Image]:
    return [Image.new("RGB", size, (90 * number, 50, 0)).convert(mode) for number in range(count)]


def save_all(path: Path, frames: list[Image.Image], **options: Any) -> Path:
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("suffix", ["gif", "png", "apng", "webp", "avif", "tif", "mpo"])
def test_pictures_of_one_size_are_counted(tmp_path: Path, suffix: str, count: int) -> None:
    path = save_all(tmp_path / f"a.{suffix}", frames_of(count))
    assert num_pictures(path) == count
    assert read_picture(path).size == (16, 24)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "jp2", "dib"])
def test_other_files_hold_one(tmp_path: Path, suffix: str) -> None:
    frames_of(1)[0].save(tmp_path / f"a.{suffix}")
    assert num_pictures(tmp_path / f"a.{suffix}") == 1


@pytest.mark.parametrize("suffix", ["tif", "mpo"])
def test_previews_and_thumbnails_are_no_further_pictures(tmp_path: Path, suffix: str) -> None:
    (large,), (small,) = frames_of(1), frames_of(1, (12, 8))
    assert num_pictures(save_all(tmp_path / f"a.{suffix}", [large, small, small])) == 1


@pytest.mark.parametrize(
    ("further", "expected"),
    [((16, 24), 2), ((48, 32), 2), ((23, 15), 2), ((24, 8), 2), ((16, 11), 1), ((12, 8), 1)],
)
def test_pages_of_a_scan_count_in_any_shape(
    tmp_path: Path, further: tuple[int, int], expected: int
) -> None:
    path = save_all(tmp_path / "a.tif", [*frames_of(1), *frames_of(1, further)])
    assert num_pictures(path) == expected
    assert read_picture(path).size == (16, 24)


def test_depth_and_gain_maps_are_no_further_pictures(tmp_path: Path) -> None:
    photo, depth = frames_of(1)[0], frames_of(1, mode="L")[0]
    assert num_pictures(save_all(tmp_path / "depth.mpo", [photo, depth])) == 1
    gain = frames_of(2)[1]
    gain.encoderinfo = {"xmp": b'<rdf:Description hdrgm:Version="1.0"/>'}
    plain = frames_of(2)[1]
    for name, second, expected in (("gain", gain, 1), ("view", plain, 2)):
        assert num_pictures(save_all(tmp_path / f"{name}.mpo", [photo, second])) == expected


@pytest.mark.parametrize(("tag", "expected"), [(1, 1), (4, 1), (2, 2)])
def test_pages_that_say_that_they_are_versions_or_masks_do_not_count(
    tmp_path: Path, tag: int, expected: int
) -> None:
    photo, page = frames_of(2)
    page.encoderinfo = {"tiffinfo": {254: tag}}
    assert num_pictures(save_all(tmp_path / "a.tif", [photo, page])) == expected


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "mpo"])
def test_damage_is_no_traceback(tmp_path: Path, suffix: str) -> None:
    whole = save_all(tmp_path / f"a.{suffix}", frames_of(3)).read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 20)):
        (tmp_path / f"b.{suffix}").write_bytes(whole[:length])
        assert 1 <= num_pictures(tmp_path / f"b.{suffix}") <= 3
    assert num_pictures(tmp_path / "nowhere") == 1


def test_line_names_one_file_or_counts_several() -> None:
    assert line_about_several([("a.png", 1)]) == ""
    assert line_about_several([("a.gif", 1200), ("b.png", 1)]) == (
        f"1 of 1,200 pictures in a.gif is taken; {REMEDY}"
    )
    line = line_about_several([(f"{number}\n.gif", number) for number in range(9)])
    assert line == (
        "of 7 files with several pictures, one of each is taken: 2\\n.gif (2 pictures), "
        f"3\\n.gif (3 pictures), 4\\n.gif (4 pictures), ...; {REMEDY}"
    )
