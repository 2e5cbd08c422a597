"""Claims about `jobs`: what is stylized, where results go, and what is refused before any work."""

import os
from pathlib import Path

import pytest
from noise_photos import write_noise_photo

from fast_style.core.errors import UserError
from fast_style.stylizing.jobs import OutputOptions, plan_jobs


def planned(*inputs: str, **options: object) -> dict[str, str]:
    """Photo to output, as they would be printed."""
    jobs, _ = plan_jobs([Path(path) for path in inputs], OutputOptions(**options))  # type: ignore[arg-type]
    return {str(job.photo): str(job.output) for job in jobs}


def refused(*inputs: str, **options: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        planned(*inputs, **options)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_folders_keep_their_structure(here: Path) -> None:
    for name in ("in/a.jpg", "in/sub/b.PNG", "c.webp"):
        write_noise_photo(name)
    assert planned("in", "c.webp", output=Path("out")) == {
        "in/a.jpg": "out/a.jpg",
        "in/sub/b.PNG": "out/sub/b.PNG",
        "c.webp": "out/c.webp",
    }
    assert not Path("out").exists()


def test_without_output_results_lie_beside_their_photos(here: Path) -> None:
    write_noise_photo("in/sub/a.jpg")
    write_noise_photo("b.png")
    assert planned("in", "b.png", suffix=".wave") == {
        "in/sub/a.jpg": "in/sub/a.wave.jpg",
        "b.png": "b.wave.png",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.gif", "out/a-x.png"),
        ("a.JPE", "out/a-x.jpg"),
        ("a.tiff", "out/a-x.tiff"),
        ("a.b.jpg", "out/a.b-x.jpg"),
        ("a", "out/a-x.png"),
        ("a.heic", "out/a-x.png"),
    ],
)
def test_what_cannot_be_written_becomes_another_format(
    here: Path, name: str, expected: str
) -> None:
    Path(name).touch()
    assert planned(name, output=Path("out"), suffix="-x") == {name: expected}


def test_format_replaces_the_photos_own(here: Path) -> None:
    write_noise_photo("a.jpg")
    assert planned("a.jpg", output=Path("out"), format="webp") == {"a.jpg": "out/a.webp"}


def test_output_may_be_a_file_for_one_photo(here: Path) -> None:
    write_noise_photo("a.jpg")
    assert planned("a.jpg", output=Path("new/b.png")) == {"a.jpg": "new/b.png"}


def test_output_file_for_several_photos_is_refused(here: Path) -> None:
    for name in ("in/a.jpg", "in/b.jpg"):
        write_noise_photo(name)
    message = [
        "--output out.jpg: is a file name, but there are several photos; give a folder",
    ]
    assert refused("in", output=Path("out.jpg")) == message
    assert refused("in/a.jpg", "in/b.jpg", output=Path("out.jpg")) == message


def test_output_folder_may_have_a_dot_in_its_name(here: Path) -> None:
    for name in ("in/a.jpg", "in/b.jpg"):
        write_noise_photo(name)
    assert planned("in", output=Path("out.v2"))["in/a.jpg"] == "out.v2/a.jpg"
    Path("v1.jpg").mkdir()
    assert planned("in/a.jpg", output=Path("v1.jpg")) == {"in/a.jpg": "v1.jpg/a.jpg"}


def test_output_of_unknown_format_is_refused_before_any_work(here: Path) -> None:
    write_noise_photo("a.jpg")
    assert refused("a.jpg", output=Path("b.gif")) == [
        "--output b.gif: cannot write the format '.gif'; use one of .bmp, .jpeg, .jpg, .png, "
        ".tif, .tiff, .webp"
    ]


def test_two_photos_for_one_file_are_refused(here: Path) -> None:
    for name in ("in/a.jpg", "in/a.png", "other/a.jpg"):
        write_noise_photo(name)
    assert refused("in", output=Path("out"), format="png") == [
        "out/a.png: would be written twice, for in/a.jpg and in/a.png; leave out --format"
    ]
    assert refused("in/a.jpg", "other", output=Path("out")) == [
        "out/a.jpg: would be written twice, for in/a.jpg and other/a.jpg; do them one by one"
    ]


def test_photo_given_twice_is_done_once(here: Path) -> None:
    write_noise_photo("in/a.jpg")
    inputs = ("in", "in/a.jpg", "./in/../in/a.jpg", str(here / "in" / "a.jpg"))
    assert list(planned(*inputs, output=Path("out")).values()) == ["out/a.jpg"]


def test_existing_output_is_refused_skipped_or_replaced(here: Path) -> None:
    photos = [write_noise_photo("a.jpg"), write_noise_photo("b.jpg")]
    write_noise_photo("out/a.jpg")
    output = Path("out")
    assert refused("a.jpg", "b.jpg", output=output) == [
        "out/a.jpg: exists already; allow --overwrite, or leave it with --skip-existing"
    ]
    assert len(planned("a.jpg", "b.jpg", output=output, overwrite=True)) == 2
    jobs, skipped = plan_jobs(photos, OutputOptions(output=output, skip_existing=True))
    assert [str(job.photo) for job in jobs] == ["b.jpg"]
    assert [str(job.photo) for job in skipped] == ["a.jpg"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_photo_never_replaces_itself(here: Path, overwrite: bool) -> None:
    write_noise_photo("a.jpg")
    Path("link.jpg").symlink_to("a.jpg")
    message = ["a.jpg: would replace itself; set --suffix or --output"]
    assert refused("a.jpg", overwrite=overwrite) == message
    assert refused("a.jpg", output=Path("."), overwrite=overwrite) == message
    assert refused("a.jpg", output=Path("link.jpg"), overwrite=overwrite) == message


def test_photo_never_replaces_another_one(here: Path) -> None:
    write_noise_photo("a.jpg")
    write_noise_photo("a-x.jpg")
    assert refused("a.jpg", "a-x.jpg", suffix="-x", overwrite=True) == [
        "a-x.jpg: is one of the photos, and would be replaced; set another --suffix"
    ]


def test_results_in_a_folder_inside_the_photos_are_no_photos(here: Path) -> None:
    write_noise_photo("in/a.jpg")
    write_noise_photo("in/out/a.jpg")
    assert planned("in", output=Path("in/out"), overwrite=True) == {"in/a.jpg": "in/out/a.jpg"}


def test_results_beside_their_photos_are_no_photos(here: Path) -> None:
    write_noise_photo("in/a.jpg")
    write_noise_photo("in/a.wave.jpg")
    assert planned("in", suffix=".wave", skip_existing=True) == {}
    assert planned("in", suffix=".wave", overwrite=True) == {"in/a.jpg": "in/a.wave.jpg"}
    assert planned("in", suffix="-x", output=Path("in")) == {
        "in/a.jpg": "in/a-x.jpg",
        "in/a.wave.jpg": "in/a.wave-x.jpg",
    }


def test_photos_may_lie_inside_the_output_folder(here: Path) -> None:
    write_noise_photo("in/a.jpg")
    assert planned("in", output=Path(".")) == {"in/a.jpg": "a.jpg"}


def test_missing_and_empty_inputs_are_refused(here: Path) -> None:
    Path("empty").mkdir()
    long_name = "x" * 300
    assert refused("none.jpg") == ["none.jpg: not found"]
    assert refused(long_name) == [f"{long_name}: not found"]
    assert refused("none.jpg", long_name) == ["none.jpg: not found", f"{long_name}: not found"]
    assert refused("empty") == ["empty: no photos in this folder or below it"]


def test_output_with_too_long_a_name_is_left_to_its_photo_to_fail(here: Path) -> None:
    write_noise_photo("a.jpg")
    name = f"{'x' * 300}.jpg"
    assert planned("a.jpg", output=Path(name)) == {"a.jpg": name}


def test_folders_that_cannot_be_written_are_found_before_any_work(here: Path) -> None:
    write_noise_photo("a.jpg")
    write_noise_photo("b.jpg")
    Path("file").touch()
    Path("out/a.jpg").mkdir(parents=True)
    assert refused("a.jpg", "b.jpg", output=Path("file/sub")) == [
        "file: is a file, where a folder for results is needed"
    ]
    assert refused("a.jpg", output=Path("file")) == [
        "--output file: cannot write the format ''; use one of .bmp, .jpeg, .jpg, .png, .tif, "
        ".tiff, .webp"
    ]
    assert refused("a.jpg", "b.jpg", output=Path("file")) == [
        "--output file: is a file, not a folder"
    ]
    assert refused("a.jpg", output=Path("out"), overwrite=True) == [
        "out/a.jpg: is a folder, where a file is to be written"
    ]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_folder_without_permission_is_found_before_any_work(here: Path) -> None:
    write_noise_photo("a.jpg")
    Path("out").mkdir(mode=0o555)
    assert refused("a.jpg", output=Path("out/sub")) == [
        "out: this folder cannot be written to; choose another --output"
    ]


def test_all_mistakes_are_told_at_once(here: Path) -> None:
    for name in ("a.jpg", "b.jpg", "out/a.jpg", "out/b.jpg"):
        write_noise_photo(name)
    assert len(refused("a.jpg", "b.jpg", output=Path("out"))) == 2
