"""Claims about `jobs`: what is stylized, where results go, and what is refused before any work."""

import os
from pathlib import Path

import pytest
from noise_photos import write_noise_photo

from fast_style.core.errors import UserError
from fast_style.stylizing.jobs import OutputOptions, plan_jobs


def planned(*inputs: str, **options: object) -> dict[str, str]:
    """Photo to output, as they would be printed."""
    plan = plan_jobs([Path(path) for path in inputs], OutputOptions(**options))  # type: ignore[arg-type]
    return {job.photo: job.output for job in plan.jobs}


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


def test_output_folder_may_have_a_dot_in_its_name(here: Path) -> None:
    for name in ("in/a.jpg", "in/b.jpg"):
        write_noise_photo(name)
    assert planned("in", output=Path("out.v2"))["in/a.jpg"] == "out.v2/a.jpg"
    assert planned("in/a.jpg", output=Path("out.v2"), is_folder=True) == {
        "in/a.jpg": "out.v2/a.jpg"
    }
    Path("v1.jpg").mkdir()
    assert planned("in/a.jpg", output=Path("v1.jpg")) == {"in/a.jpg": "v1.jpg/a.jpg"}


def test_photo_given_twice_is_done_once(here: Path) -> None:
    write_noise_photo("in/a.jpg")
    inputs = ("in", "in/a.jpg", "./in/../in/a.jpg", str(here / "in" / "a.jpg"))
    assert list(planned(*inputs, output=Path("out")).values()) == ["out/a.jpg"]


def test_existing_output_is_refused_skipped_or_replaced(here: Path) -> None:
    photos = [write_noise_photo("a.jpg"), write_noise_photo("b.jpg")]
    write_noise_photo("out/a.jpg")
    output = Path("out")
    (line,) = refused("a.jpg", "b.jpg", output=output)
    assert line.startswith("out/a.jpg: ")
    assert len(planned("a.jpg", "b.jpg", output=output, overwrite=True)) == 2
    plan = plan_jobs(photos, OutputOptions(output=output, skip_existing=True))
    assert [job.photo for job in plan.jobs] == ["b.jpg"]
    assert [job.photo for job in plan.skipped] == ["a.jpg"]


def test_empty_file_in_place_of_a_result_is_told(here: Path) -> None:
    photos = [write_noise_photo("a.jpg"), write_noise_photo("b.jpg")]
    write_noise_photo("out/a.jpg")
    Path("out/b.jpg").touch()
    told: list[str] = []
    options = OutputOptions(output=Path("out"), skip_existing=True)
    plan = plan_jobs(photos, options, tell=told.append)
    assert [job.photo for job in plan.skipped] == ["a.jpg", "b.jpg"]
    (line,) = told
    assert "out/b.jpg" in line
    assert "out/a.jpg" not in line
    assert "remove them" in line


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("output", [None, ".", "link.jpg"])
def test_photo_never_replaces_itself(here: Path, output: str | None, overwrite: bool) -> None:
    write_noise_photo("a.jpg")
    Path("link.jpg").symlink_to("a.jpg")
    folder = None if output is None else Path(output)
    (line,) = refused("a.jpg", output=folder, overwrite=overwrite)
    assert line.startswith("a.jpg: its result would replace it")


def test_results_in_a_folder_inside_the_photos_are_no_photos(here: Path) -> None:
    write_noise_photo("in/a.jpg")
    write_noise_photo("in/out/a.jpg")
    assert planned("in", output=Path("in/out"), overwrite=True) == {"in/a.jpg": "in/out/a.jpg"}


def test_results_beside_their_photos_are_no_photos(here: Path) -> None:
    write_noise_photo("in/a.jpg")
    write_noise_photo("in/a.wave.jpg")
    assert planned("in", suffix=".wave", skip_existing=True) == {}
    assert planned("in", suffix=".wave", overwrite=True) == {"in/a.jpg": "in/a.wave.jpg"}
    # Those of another model, too.
    assert planned("in", suffix=".ink", output=Path("in")) == {"in/a.jpg": "in/a.ink.jpg"}


def test_photos_may_lie_inside_the_output_folder(here: Path) -> None:
    write_noise_photo("in/a.jpg")
    assert planned("in", output=Path(".")) == {"in/a.jpg": "a.jpg"}


@pytest.mark.skipif(os.name == "nt", reason="Windows counts otherwise")
@pytest.mark.parametrize(
    ("photo", "options", "place", "found", "remedy"),
    [
        ("a.jpg", {"output": Path("x" * 300 + ".jpg")}, "x" * 300 + ".jpg", 304, "--output"),
        ("é" * 125 + ".jpg", {"suffix": ".w"}, "é" * 125 + ".w.jpg", 256, "--suffix, or --output"),
        ("b" * 251 + ".gif", {"output": Path("out"), "format": "webp"}, "out/b", 256, "rename"),
        ("a.jpg", {"output": Path("out", "y" * 256)}, "out/y", None, "another --output"),
    ],
)
def test_too_long_a_name_is_found_before_any_work(
    here: Path,
    photo: str,
    options: dict[str, object],
    place: str,
    found: int | None,
    remedy: str,
) -> None:
    Path(photo).touch()
    (message,) = refused(photo, **options)
    assert message.startswith(place)
    assert " 255 bytes" in message
    assert found is None or f"has {found};" in message
    assert remedy in message.rpartition("; ")[2]


@pytest.mark.skipif(os.name == "nt", reason="Windows counts otherwise")
def test_name_of_just_as_many_bytes_as_the_disk_can_have_is_planned(here: Path) -> None:
    photo = "b" * 249 + ".jpg"
    Path(photo).touch()
    assert planned(photo, suffix=".w") == {photo: "b" * 249 + ".w.jpg"}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_folder_without_permission_is_found_before_any_work(here: Path) -> None:
    write_noise_photo("a.jpg")
    Path("out").mkdir(mode=0o555)
    assert refused("a.jpg", output=Path("out/sub")) == [
        "out: no permission to write to this folder; choose another --output"
    ]


def test_all_mistakes_are_reported_at_once(here: Path) -> None:
    for name in ("a.jpg", "b.jpg", "out/a.jpg", "out/b.jpg"):
        write_noise_photo(name)
    assert len(refused("a.jpg", "b.jpg", output=Path("out"))) == 2
    assert refused("none.jpg", "x" * 300) == ["none.jpg: not found", f"{'x' * 300}: not found"]


def test_results_of_one_name_keep_the_format_of_their_photo(here: Path) -> None:
    for name in ("in/a.gif", "in/a.png", "in/a.avif", "in/b.gif", "in/c.jfif", "in/c.jpe"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    expected = {
        "in/a.avif": "out/a.avif.png",
        "in/a.gif": "out/a.gif.png",
        "in/a.png": "out/a.png",
        "in/b.gif": "out/b.png",
        "in/c.jfif": "out/c.jfif.jpg",
        "in/c.jpe": "out/c.jpe.jpg",
    }
    assert planned("in", output=Path("out")) == expected
    assert planned(*reversed(expected), output=Path("out")) == expected
    Path("in/d.jpg").touch()
    assert planned("in", output=Path("out"), format="png")["in/d.jpg"] == "out/d.png"
    Path("in/d.webp").touch()
    as_png = planned("in", output=Path("out"), format="png")
    assert (as_png["in/d.jpg"], as_png["in/d.webp"]) == ("out/d.jpg.png", "out/d.webp.png")


@pytest.mark.parametrize("output", [None, Path("out")])
def test_longer_names_are_told_and_found_again(here: Path, output: Path | None) -> None:
    for name in ("in/a.gif", "in/a.png"):
        write_noise_photo(name)
    options = OutputOptions(suffix="_x", skip_existing=True, output=output)
    told: list[str] = []
    plan = plan_jobs([Path("in")], options, tell=told.append)
    (line,) = told
    assert line.startswith("several results would have one name")
    assert line.endswith("/a.gif_x.png")
    for job in plan.jobs:
        write_noise_photo(job.output)
    again = plan_jobs([Path("in")], options)
    assert again.jobs == []
    assert again.skipped == plan.jobs


def test_result_of_a_photo_that_was_alone_is_told_when_another_takes_its_name(here: Path) -> None:
    write_noise_photo("in/a.gif")
    options = OutputOptions(output=Path("out"), skip_existing=True)
    (job,) = plan_jobs([Path("in")], options).jobs
    assert job.output == "out/a.png"
    write_noise_photo(job.output)
    write_noise_photo("in/a.png")
    told: list[str] = []
    plan = plan_jobs([Path("in")], options, tell=told.append)
    assert [job.output for job in plan.jobs] == ["out/a.gif.png"]
    assert any("perhaps made of another photo" in line and "out/a.png" in line for line in told)


def test_remedy_for_a_collision_is_one_that_helps(here: Path) -> None:
    for name in ("in/a.jpg", "other/a.jpg", "c/a.gif", "c/a.png", "c/a.gif.png"):
        write_noise_photo(name)
    (line,) = refused("in/a.jpg", "other", output=Path("out"), format="png")
    assert "two runs, each with its own --output" in line
    (line,) = refused("c", output=Path("out"))
    assert line == (
        "out/a.gif.png: both c/a.gif and c/a.gif.png would be written here; rename one of them"
    )


# --- Messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (["none.jpg"], {}, "none.jpg: not found"),
        (
            ["empty"],
            {},
            "empty: no photos in this folder or below it (looked for JPEG, MPO, PNG, WEBP, BMP, "
            "DIB, GIF, TIFF, AVIF, JPEG2000)",
        ),
        (
            ["a.jpg"],
            {"output": Path("b.gif")},
            "--output b.gif: cannot write the format '.gif'; use one of .jpg, .jpeg, .png, .webp, "
            ".tif, .tiff, .bmp, or for a folder b.gif/",
        ),
        (
            ["a.jpg"],
            {"output": Path("file")},
            "--output file: a picture's file needs a suffix, which names its format; use one of "
            ".jpg, .jpeg, .png, .webp, .tif, .tiff, .bmp",
        ),
        (
            ["a.jpg"],
            {"output": Path("file"), "format": "png"},
            "--output file: a picture's file needs a suffix, which names its format; use one of "
            ".jpg, .jpeg, .png, .webp, .tif, .tiff, .bmp",
        ),
        (
            ["a.jpg"],
            {"output": Path("b.png"), "format": "jpg"},
            "--output b.png: names another format than --format jpg; leave --format out, or give "
            "--output b.jpg",
        ),
        (
            ["a.jpg"],  # its own name is no advice
            {"output": Path("./a.png"), "format": "jpg"},
            "--output a.png: names another format than --format jpg; leave --format out, or give "
            "--output NAME.jpg, with a name of its own",
        ),
        (
            ["a.jpg"],
            {"output": Path("/dev/null"), "format": "png"},
            "/dev/null: is a device or a pipe; set another --output",
        ),
        (
            ["in"],
            {"output": Path("file")},
            "--output file: is a file, but there are several photos; give a folder",
        ),
        (
            ["in"],
            {"output": Path("out.jpg")},
            "--output out.jpg: names a file, but there are several photos; give a folder",
        ),
        (
            ["a.jpg", "in/a.png"],
            {"output": Path("out.jpg")},
            "--output out.jpg: names a file, but there are several photos; give a folder",
        ),
        (
            ["in/a.jpg", "a.jpg"],
            {"output": Path("out"), "overwrite": True, "suffix": "-y"},
            "out/a-y.jpg: both in/a.jpg and a.jpg would be written here; stylize them in two runs, "
            "each with its own --output or --suffix",
        ),
        (
            ["a.jpg"],
            {"output": Path("out"), "overwrite": True},
            "out/a.jpg: is a folder, but the result is a file; set another --suffix",
        ),
        (
            ["a.jpg"],
            {"output": Path("pipe.png"), "overwrite": True},
            "pipe.png: is a device or a pipe; set another --output",
        ),
        (["a.jpg"], {}, "a.jpg: its result would replace it; set --suffix or --output"),
        (
            ["a.jpg", "a-x.jpg"],
            {"suffix": "-x", "overwrite": True},
            "a-x.jpg: a result would replace this photo; set another --suffix or --output",
        ),
        (
            ["a.jpg"],
            {"suffix": "-x"},
            "a-x.jpg: exists already; replace it with --overwrite or keep it with --skip-existing",
        ),
        (
            ["a.jpg", "in"],
            {"output": Path("gone/sub")},
            "gone: is a broken link, but the results need a folder of this name; choose another "
            "--output",
        ),
        (
            ["in/a.jpg"],
            {"output": Path("gone.jpg"), "skip_existing": True},
            "gone.jpg: is a broken link; remove it, or replace it with --overwrite",
        ),
        (
            ["a.jpg", "in"],
            {"output": Path("file/sub"), "suffix": "-y", "format": None},
            "file: is a file, but the results need a folder of this name; choose another --output",
        ),
    ],
)
def test_message_of_what_is_refused_before_any_work(
    here: Path, inputs: list[str], options: dict[str, object], message: str
) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.png")
    elif "a pipe" in message:
        pytest.skip("this system has no named pipes")
    for name in ("a.jpg", "a-x.jpg", "in/a.jpg", "in/a.png"):
        write_noise_photo(name)
    Path("file").touch()
    for name in ("gone", "gone.jpg"):
        Path(name).symlink_to("nowhere")
    Path("empty").mkdir()
    Path("out/a.jpg").mkdir(parents=True)
    assert message in refused(*inputs, **options)


def test_broken_link_is_replaced_on_request(here: Path) -> None:
    write_noise_photo("a.jpg")
    Path("b.jpg").symlink_to("nowhere")
    assert planned("a.jpg", output=Path("b.jpg"), overwrite=True) == {"a.jpg": "b.jpg"}
