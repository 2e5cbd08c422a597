"""Claims about `folder`: files in, files out, in order, and a failure stops no other photo."""

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_pictures import UNKNOWN
from noise_photos import noise_photo, write_noise_photo
from PIL import Image, ImageCms

from fast_style.core.errors import UserError
from fast_style.pictures.reading import Picture, read_picture
from fast_style.stylizing import folder as folder_module
from fast_style.stylizing.folder import Outcome, stylize_files
from fast_style.stylizing.jobs import Job
from fast_style.stylizing.stylizer import Stylizer


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def errors_of(outcomes: Iterable[Outcome]) -> list[str | None]:
    return [str(outcome.error) if outcome.error else None for outcome in outcomes]


def test_files_are_stylized_as_pictures_are(here: Path, stylizer: Stylizer) -> None:
    photo = noise_photo(30, 20)
    photo.save("a.png")
    assert errors_of(stylize_files(stylizer, [Job("a.png", "new/sub/b.png")])) == [None]
    with Image.open("new/sub/b.png") as result:
        assert result.tobytes() == stylizer(photo).tobytes()


def test_one_bad_file_does_not_stop_the_rest(here: Path, stylizer: Stylizer) -> None:
    write_noise_photo("a.png")
    Path("b.png").write_bytes(b"no picture")
    write_noise_photo("c.png")
    jobs = [Job(name, f"out/{name}") for name in ("a.png", "b.png", "c.png")]
    outcomes = list(stylize_files(stylizer, jobs))
    assert [outcome.job for outcome in outcomes] == jobs
    first, error, last = (outcome.error for outcome in outcomes)
    assert (first, last) == (None, None)
    assert error is not None
    assert str(error).startswith("b.png: ")
    assert error.exit_code == 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "c.png"]


def test_result_whose_path_is_too_long_does_not_stop_the_rest(
    here: Path, stylizer: Stylizer
) -> None:
    write_noise_photo("a.png")
    long = "out/" + "d/" * 2100 + "a.png"
    line, last = errors_of(stylize_files(stylizer, [Job("a.png", long), Job("a.png", "out/a.png")]))
    assert line == f"{long}: cannot be written (File name too long); choose another file or folder"
    assert last is None
    assert [path.name for path in Path("out").iterdir()] == ["a.png"]


def test_a_few_photos_are_decoded_ahead_and_no_more(
    here: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []

    def read(path: Path, **options: Any) -> Picture:
        begun.append(path)
        return read_picture(path, **options)

    monkeypatch.setattr(folder_module, "read_picture", read)
    jobs = [
        Job(str(write_noise_photo(f"{number:02}.png")), f"out/{number}.png") for number in range(20)
    ]
    outcomes = stylize_files(stylizer, jobs)
    next(outcomes)
    # Up to three photos have gone through the network, and three may be in the helpers' hands.
    assert 2 <= len(begun) <= 6
    assert [next(outcomes).job for _ in range(19)] == jobs[1:]
    assert sorted(begun) == [Path(job.photo) for job in jobs]


def test_photo_that_takes_most_of_the_memory_is_done_alone(
    here: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def read(path: Path, **options: Any) -> Picture:
        events.append(f"read {path.stem}")
        return read_picture(path, **options)

    def write(path: Path, *picture: object, **options: object) -> None:
        events.append(f"write {path.stem}")

    monkeypatch.setattr(folder_module, "read_picture", read)
    monkeypatch.setattr(folder_module, "write_picture", write)
    # Large ones take 422 kB of 900 kB, and 92 kB if they wait; small ones a quarter.
    stylizer = Stylizer(model, device="cpu", memory_bytes=900_000)
    large = {"b", "c", "f"}
    jobs = [
        Job(
            str(write_noise_photo(f"{name}.png", width=80 if name in large else 20)),
            f"out/{name}.png",
        )
        for name in "abcdef"
    ]
    assert errors_of(stylize_files(stylizer, jobs)) == [None] * 6
    for name in large:
        place = events.index(f"read {name}")
        assert events[place + 1] == f"write {name}"
        before = {event.split()[-1] for event in events[:place]}
        assert before == set("abcdef"[: "abcdef".index(name)])


@pytest.mark.parametrize("width", [20, 80])
def test_photos_alone_and_beside_others_fail_with_the_same_words(
    here: Path, model: Path, width: int
) -> None:
    write_noise_photo("a.png", width=width)
    os.truncate("a.png", os.path.getsize("a.png") - 200)
    stylizer = Stylizer(model, device="cpu", memory_bytes=900_000)
    assert stylizer.is_small(18, width) == (width == 20)
    (line,) = errors_of(stylize_files(stylizer, [Job("a.png", "b.png")]))
    assert line is not None
    assert line.startswith("a.png: damaged picture")


def test_stopping_finishes_what_is_being_written_and_begins_nothing(
    here: Path, stylizer: Stylizer
) -> None:
    jobs = [
        Job(str(write_noise_photo(f"{number:02}.png")), f"out/{number}.png") for number in range(20)
    ]
    outcomes = stylize_files(stylizer, jobs)
    next(outcomes)
    assert isinstance(outcomes, Generator)
    outcomes.close()  # what an interrupt does, whether it comes in the network or outside
    written = sorted(Path("out").iterdir())
    assert 1 <= len(written) <= 3
    for path in written:
        assert size_of(path) == (20, 18)
    assert not [thread.name for thread in threading.enumerate() if "write" in thread.name]


def test_stopping_as_a_thread_starts_leaves_nothing_at_work(
    here: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, write = threading.Thread.start, folder_module.write_picture
    threads: list[threading.Thread] = []

    def write_slowly(*arguments: Any, **keywords: Any) -> None:
        time.sleep(0.2)
        write(*arguments, **keywords)

    def interrupt(thread: threading.Thread) -> None:
        start(thread)
        threads.append(thread)
        if thread.name == "write_1":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    monkeypatch.setattr(folder_module, "write_picture", write_slowly)
    jobs = [Job(str(write_noise_photo(f"{n}.png")), f"out/{n}.png") for n in range(4)]
    with pytest.raises(KeyboardInterrupt):
        list(stylize_files(stylizer, jobs, quality=95))
    assert "write_1" in [thread.name for thread in threads]
    assert not [thread for thread in threads if thread.is_alive() and "write" in thread.name]


def test_photo_too_large_for_the_memory_is_named_with_a_size_that_fits(
    here: Path, model: Path
) -> None:
    write_noise_photo("a.png", width=400, height=300)
    write_noise_photo("b.png")
    stylizer = Stylizer(model, device="cpu", memory_bytes=2_700_000)
    jobs = [Job(name, f"out/{name}") for name in ("a.png", "b.png")]
    first, second = errors_of(stylize_files(stylizer, jobs))
    assert first is not None
    assert first.startswith("a.png: 400 x 300 pixels do not fit in memory")
    assert second is None
    found = re.search(r"--max-side (\d+) fits", first)
    assert found is not None
    side = int(found[1])
    assert errors_of(stylize_files(stylizer, jobs[:1], max_side=side)) == [None]
    assert size_of(Path("out/a.png")) == (side, round(0.75 * side))


# --- Messages -----------------------------------------------------------------------------------


class Failing(Stylizer):
    """Raises an error in place of the network."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def is_small(self, height: int, width: int, *, max_side: int | None = None) -> bool:
        return True

    def stylize_picture(
        self, picture: Picture, *, progress: Callable[[float], None] | None = None
    ) -> Picture:
        raise self.error


@pytest.mark.parametrize(
    ("photo", "output", "error", "message"),
    [
        (
            "broken.png",
            "b.png",
            None,
            f"broken.png: {UNKNOWN}",
        ),
        (
            "large.png",
            "b.png",
            None,
            "large.png: 1,200 pixels, more than the limit of 1,199; use a smaller copy",
        ),
        (
            "a.png",
            "file/b.png",
            None,
            "file/b.png: cannot be written (File exists); choose another file or folder",
        ),
        ("a.png", "b.png", UserError("too hot"), "a.png: too hot"),
        ("a.png", "b.png", UserError("b.png: too hot"), "b.png: too hot"),
        (
            "a.png",
            "b.png",
            OSError(errno.ENOSPC, "No space"),
            "b.png: cannot be written (No space); free some room on its disk",
        ),
        (
            "a.png",
            "b.png",
            OSError(errno.EFBIG, "File too large"),
            "b.png: cannot be written (File too large); raise the limit of the size of files "
            "(ulimit -f)",
        ),
        (
            "a.png",
            "b.png",
            OSError("odd"),
            "b.png: cannot be written (odd); choose another file or folder",
        ),
        (
            "a.png",
            "b.png",
            MemoryError(),
            "a.png: memory ran out; shrink the photo with --max-side",
        ),
    ],
)
def test_failure_is_one_line_that_names_the_photo_or_its_output(
    here: Path,
    stylizer: Stylizer,
    photo: str,
    output: str,
    error: Exception | None,
    message: str,
) -> None:
    write_noise_photo("a.png")
    write_noise_photo("large.png", width=40, height=30)
    Path("broken.png").write_bytes(b"no picture")
    Path("file").touch()
    user = stylizer if error is None else Failing(error)
    jobs = [Job(photo, output), Job("a.png", "ok.png")]
    first, second = stylize_files(user, jobs, max_pixels=1199)
    assert str(first.error) == message
    assert first.error is not None
    assert first.error.exit_code == 1
    assert (second.error is None) == (error is None)


# --- Pictures -----------------------------------------------------------------------------------


def test_alpha_shrinks_with_its_photo(here: Path, stylizer: Stylizer) -> None:
    noise_photo(40, 20, "RGBA").save("a.png")
    job = Job("a.png", "b.png")
    assert errors_of(stylize_files(stylizer, [job], max_side=20)) == [None]
    with Image.open("b.png") as result:
        assert (result.mode, result.size) == ("RGBA", (20, 10))


def test_photo_is_upright_in_srgb_and_without_its_metadata(here: Path, stylizer: Stylizer) -> None:
    photo = noise_photo(30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save("a.png", exif=exif, icc_profile=srgb)
    assert errors_of(stylize_files(stylizer, [Job("a.png", "b.jpg")])) == [None]
    with Image.open("b.jpg") as result:
        assert result.size == (20, 30)
        assert dict(result.getexif()) == {0x0131: "fast-style"}  # Software: the mark of results
        assert "icc_profile" not in result.info
    upright = stylizer(photo.transpose(Image.Transpose.ROTATE_270))
    with Image.open("a.png") as rotated:
        assert stylizer(rotated, upright=True).tobytes() == upright.tobytes()


def test_profile_of_the_photo_is_applied(here: Path, stylizer: Stylizer) -> None:
    photo = noise_photo(30, 20, "L").convert("RGB")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    results = []
    for name, profile in (("plain", None), ("srgb", srgb), ("unusable", lab)):
        photo.save(f"{name}.png", icc_profile=profile)
        job = Job(f"{name}.png", f"out/{name}.png")
        assert errors_of(stylize_files(stylizer, [job])) == [None]
        with Image.open(job.output) as result:
            results.append(np.array(result).astype(int))
    assert abs(results[0] - results[1]).max() <= 2
    assert results[2].shape == results[0].shape


def test_failed_write_leaves_the_old_output(
    here: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise_photo("a.png")
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"the old one")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    assert errors_of(stylize_files(stylizer, [Job("a.png", "out/a.png")])) == [
        "out/a.png: cannot be written (No space left on device); free some room on its disk"
    ]
    assert Path("out/a.png").read_bytes() == b"the old one"
    assert os.listdir("out") == ["a.png"]


# --- Awkward pictures ---------------------------------------------------------------------------

# Mode and (width, height) of what comes out, with sides of at most 450. Upright: the two photos of
# 1800 x 1200 are stored so, and one of them is a portrait.
AWKWARD = {
    "16bit.cropped.tif": ("RGB", (64, 64)),
    "exif_Landscape_3.jpg": ("RGB", (450, 300)),
    "exif_Portrait_6.jpg": ("RGB", (300, 450)),
    "flower.webp": ("RGB", (450, 338)),
    "hopper_bad_exif.jpg": ("RGB", (450, 450)),
    "hopper_bw_500.png": ("RGB", (450, 450)),
    "hopper_gray.jpg": ("RGB", (128, 128)),
    "hopper_orientation_7.jpg": ("RGB", (128, 128)),
    "i_trns.png": ("RGBA", (64, 64)),
    "iss634.gif": ("RGB", (245, 245)),
    "iss634.webp": ("RGBA", (245, 245)),
    "p_trns_single.png": ("RGBA", (64, 64)),
    "pil_sample_cmyk.jpg": ("RGB", (100, 100)),
    "transparent.png": ("RGBA", (200, 150)),
    "uncompressed_la.png": ("RGBA", (128, 128)),
}


@pytest.mark.real_data
def test_every_awkward_picture_is_stylized_or_named(
    assets: Path, tmp_path: Path, stylizer: Stylizer
) -> None:
    folder = assets / "awkward"
    # iss634 is there as .gif and as .webp: whole names keep the results apart.
    photos = sorted(path for path in folder.iterdir() if path.name != "README.md")
    jobs = [Job(str(photo), str(tmp_path / f"{photo.name}.png")) for photo in photos]
    outcomes = list(stylize_files(stylizer, jobs, max_side=450))
    errors = {
        Path(outcome.job.photo).name: str(outcome.error).removeprefix(f"{folder}{os.sep}")
        for outcome in outcomes
        if outcome.error is not None
    }
    assert errors == {
        "truncated_image.png": ("truncated_image.png: damaged picture (image file is truncated)"),
        "truncated_jpeg.jpg": (
            "truncated_jpeg.jpg: damaged picture (image file is truncated (8 bytes not processed))"
        ),
    }
    found = {}
    for job in jobs:
        if Path(job.output).exists():
            with Image.open(job.output) as result:
                found[Path(job.photo).name] = (result.mode, result.size)
    assert found == AWKWARD
