"""Which photos are evaluated, and how they are read."""

from pathlib import Path

import pytest
from small_evaluation import CPU
from small_run import draw_photo, write_photos

from fast_style.core.errors import UserError
from fast_style.evaluating.plan import choose_photos, make_plan, pixel_iterations, read_photos
from fast_style.pictures.writing import write_picture


def test_photos_are_spread_evenly(held_out: Path, tmp_path: Path) -> None:
    files = sorted(write_photos(tmp_path / "many", 10).iterdir())
    plan = make_plan(files, sizes=[64, 96], counts=[4, 2], iterations=1, variants=["box"])
    numbers = {size: [path.stem[-2:] for path in files] for size, files in plan.photos.items()}
    assert numbers == {64: ["00", "02", "05", "07"], 96: ["00", "05"]}
    assert (
        len(make_plan(files, sizes=[64], counts=[99], iterations=1, variants=[]).photos[64]) == 10
    )


def test_work_is_counted_in_pixels_times_iterations(held_out: Path) -> None:
    files = sorted(held_out.iterdir())
    plan = make_plan(files, sizes=[32], counts=None, iterations=4, variants=["box", "clip"])
    assert pixel_iterations(plan) == 32 * 32 * 4 * 3 * 2


@pytest.mark.parametrize(
    ("sizes", "counts", "message"),
    [
        (
            [64, 96, 128],
            [1, 2],
            "--count: got 2 numbers for 3 --sizes; give one number, or one for each size",
        ),
        ([8], None, "--sizes: must be 32 to 4096 pixels, got 8"),
    ],
)
def test_plan_messages(
    held_out: Path, sizes: list[int], counts: list[int] | None, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(
            sorted(held_out.iterdir()), sizes=sizes, counts=counts, iterations=1, variants=["box"]
        )
    assert str(caught.value) == message


def test_unreadable_photos_are_replaced_and_named(tmp_path: Path) -> None:
    files = sorted(write_photos(tmp_path, 4).iterdir())
    files[0].write_bytes(b"no picture")
    files[2].write_bytes(b"")
    said: list[str] = []
    assert choose_photos(files, [2, 9], say=said.append) == [[files[1], files[3]]] * 2
    assert said[0].startswith(f"skipping {files[0]}: not a picture")
    assert said[1:] == [f"skipping {files[2]}: empty file"]
    with pytest.raises(UserError) as caught:
        choose_photos([files[0], files[2]], [1])
    assert str(caught.value) == "--photos: none of the 2 photos can be read (reasons above)"
    assert caught.value.exit_code == 1


def test_only_photos_that_are_chosen_are_read(tmp_path: Path) -> None:
    files = sorted(write_photos(tmp_path, 4).iterdir())
    files[1].write_bytes(b"no picture")
    said: list[str] = []
    assert choose_photos(files, [2, 1], say=said.append) == [[files[0], files[2]], [files[0]]]
    assert said == []


def test_chosen_photos_of_several_pictures_are_told_once(tmp_path: Path) -> None:
    frames = [draw_photo(number) for number in range(3)]
    files = [tmp_path / "a.gif", tmp_path / "b.gif", tmp_path / "c.gif"]
    for file in files:
        frames[0].save(file, save_all=True, append_images=frames[1:])
    said: list[str] = []
    assert choose_photos(files, [1, 1], say=said.append) == [[files[0]]] * 2
    (line,) = said
    assert line.startswith(f"1 of 3 pictures in {files[0]} is taken; magick ")


def test_enlarged_photos_are_known(held_out: Path) -> None:
    file = sorted(held_out.iterdir())[0]  # 40 x 40
    assert [read_photos([file], size, CPU)[0].is_enlarged for size in (32, 40, 41)] == [
        False,
        False,
        True,
    ]


def test_photos_are_chosen_among_those_that_are_no_results(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    files = sorted(photos.iterdir())
    for name in ("a.jpg", "b.png", "q.jpg", "z.png"):
        write_picture(photos / name, draw_photo(1))
    everything = sorted(photos.iterdir())
    assert everything[2:4] == files
    said: list[str] = []
    plan = make_plan(
        everything,
        sizes=[32, 64],
        counts=[2, 1],
        iterations=1,
        variants=["box"],
        takes_results=False,
        say=said.append,
    )
    assert set(plan.photos[32]) == set(files)
    assert plan.photos[64][0] in files
    # z.png is not read, since the photos before it suffice.
    assert said == [
        f"3 results of fast-style left out: {photos}/a.jpg, {photos}/b.png, {photos}/q.jpg "
        "(--include-results takes them in)"
    ]
    assert choose_photos(everything, [6], takes_results=True) == [everything]


def test_nothing_but_results_is_told_with_the_option(tmp_path: Path) -> None:
    write_picture(tmp_path / "made.png", draw_photo(1))
    (tmp_path / "z.jpg").write_bytes(b"")
    files = sorted(tmp_path.iterdir())
    left_out = f"1 result of fast-style left out: {files[0]} (--include-results takes them in)"
    for given, message, code in (
        (files[:1], f"--photos: no photos; {left_out}", 2),
        (files, f"--photos: none of the 2 photos can be used (reasons above); {left_out}", 1),
    ):
        with pytest.raises(UserError) as caught:
            choose_photos(given, [1], takes_results=False)
        assert (str(caught.value), caught.value.exit_code) == (message, code)
