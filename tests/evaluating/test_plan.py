"""Which photos are evaluated, and how they are read."""

from pathlib import Path

import pytest
from small_evaluation import CPU
from small_run import draw_photo, ignore, write_photos

from fast_style.core.errors import UserError
from fast_style.evaluating.plan import make_plan, pixel_iterations, read_photos
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


def test_unreadable_photos_are_skipped_and_named(held_out: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    said: list[str] = []
    photos = read_photos([broken, *sorted(held_out.iterdir())], 32, CPU, said.append)
    assert [photo.name for photo in photos] == [path.name for path in sorted(held_out.iterdir())]
    assert len(said) == 1
    assert said[0].startswith(f"skipping {broken}: ")
    with pytest.raises(UserError) as caught:
        read_photos([broken], 32, CPU, ignore)
    assert str(caught.value) == "--photos: none of the 1 photos can be read (reasons above)"
    assert caught.value.exit_code == 1


def test_enlarged_photos_are_known(held_out: Path) -> None:
    file = sorted(held_out.iterdir())[0]  # 40 x 40
    assert [read_photos([file], size, CPU, ignore)[0].is_enlarged for size in (32, 40, 41)] == [
        False,
        False,
        True,
    ]


def test_results_are_skipped_unless_they_are_asked_for(held_out: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "made.png", draw_photo(1))
    files = [tmp_path / "made.png", *sorted(held_out.iterdir())]
    said: list[str] = []
    photos = read_photos(files, 32, CPU, said.append, takes_results=False)
    assert len(photos) == len(files) - 1
    assert said == [
        f"skipping {tmp_path}/made.png: a result of fast-style, not a photo "
        "(--include-results takes it in)"
    ]
    assert len(read_photos(files, 32, CPU, ignore, takes_results=True)) == len(files)
