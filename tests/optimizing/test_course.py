"""Claims about `course`: which pictures are recorded, and what becomes of the frames."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

from fast_style.optimizing.course import Course, pictures_in_between


def course_of(iterations: int, tmp_path: Path, *, every: int | None = None) -> Course:
    """A course that has seen pictures from black to white."""
    course = Course(iterations, tmp_path / "out.png", every)
    for number in range(iterations + 1):
        course.record(number, torch.full((1, 3, 20, 30), number / iterations))
    return course


def grey_of(image: Image.Image) -> int:
    red, green, blue = image.convert("RGB").getpixel((0, 0))
    assert red == green == blue
    return red


@pytest.mark.parametrize(
    ("iterations", "num_frames"), [(1, 2), (5, 6), (23, 24), (24, 24), (500, 24)]
)
def test_course_has_24_frames_from_start_to_end(
    tmp_path: Path, iterations: int, num_frames: int
) -> None:
    course = course_of(iterations, tmp_path)
    greys = [grey_of(frame) for frame in course.frames]
    assert len(greys) == num_frames
    assert (greys[0], greys[-1]) == (0, 255)
    steps = [after - before for before, after in pairwise(greys)]
    assert max(steps) - min(steps) <= 255 / iterations + 2  # a step of the course, and rounding


def test_course_writes_a_file_every_so_often(tmp_path: Path) -> None:
    course_of(10, tmp_path, every=4)
    expected = [tmp_path / "out-00004.png", tmp_path / "out-00008.png"]
    said = pictures_in_between(tmp_path / "out.png", iterations=10, every=4)
    assert sorted(tmp_path.iterdir()) == list(said) == expected
    assert [grey_of(Image.open(path)) for path in expected] == [102, 204]


def test_course_writes_no_files_by_itself(tmp_path: Path) -> None:
    course_of(10, tmp_path)
    said = pictures_in_between(tmp_path / "out.png", iterations=10, every=None)
    assert list(tmp_path.iterdir()) == list(said) == []


def test_film_has_all_frames_and_rests_on_the_last(tmp_path: Path) -> None:
    course_of(100, tmp_path).write(tmp_path / "film.GIF")
    with Image.open(tmp_path / "film.GIF") as film:
        assert film.n_frames == 24
        durations = []
        for number in range(24):
            film.seek(number)
            durations.append(film.info["duration"])
        assert grey_of(film) == 255
    assert durations[-1] > 5 * durations[0]


def test_sheet_of_the_course_has_six_columns(tmp_path: Path) -> None:
    course_of(100, tmp_path).write(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 * 30 + 5 * 8, 4 * 20 + 3 * 8)
        assert sheet.getpixel((0, 0)) == (0, 0, 0)


def test_frames_of_coarser_scales_are_enlarged_and_large_ones_reduced(tmp_path: Path) -> None:
    course = Course(2, tmp_path / "out.png", None)
    for number, (height, width) in enumerate([(150, 250), (300, 500), (600, 1000)]):
        course.record(number, torch.zeros(1, 3, height, width))
    course.write(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.size == (480, 288)


def test_frames_that_were_missed_are_made_up_for(tmp_path: Path) -> None:
    # A tolerance may end a scale early: the numbers of the next one begin where they always do.
    course = Course(100, tmp_path / "out.png", None)
    for number in [0, 1, *range(50, 101)]:
        course.record(number, torch.zeros(1, 3, 16, 16))
    assert len(course.frames) == 24
