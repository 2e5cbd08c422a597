"""A model applied to photos, files and folders."""

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from tiny_model import write_tiny_model

from fast_style.core.errors import UserError
from fast_style.pictures.pixels import fit_longer_side, image_to_tensor
from fast_style.pictures.reading import Picture, read_picture, to_picture
from fast_style.stylizing import stylizer as stylizer_module
from fast_style.stylizing.jobs import Job, OutputOptions, plan_jobs
from fast_style.stylizing.stylizer import Stylizer, stylize_files


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def stylizer(model: Path) -> Stylizer:
    return Stylizer(model, device="cpu")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that messages hold short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 4), dtype=np.uint8)
    opaque = Image.fromarray(values[..., :3])
    return Image.fromarray(values) if mode == "RGBA" else opaque.convert(mode)


def photo_at(path: str, *, width: int = 20, height: int = 18) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    noise(width, height).save(path)
    return Path(path)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def message_of(caught: pytest.ExceptionInfo[UserError]) -> list[str]:
    return str(caught.value).splitlines()


def errors_of(outcomes: Iterator[stylizer_module.Outcome]) -> list[str | None]:
    return [str(outcome.error) if outcome.error else None for outcome in outcomes]


# --- Pictures and tensors -----------------------------------------------------------------------


@pytest.mark.parametrize("height", range(1, 41))
def test_a_picture_keeps_its_size_whatever_it_is(stylizer: Stylizer, height: int) -> None:
    for width in range(1, 41):
        assert stylizer(torch.rand(3, height, width)).shape == (3, height, width)
    assert stylizer(noise(41 - height, height)).size == (41 - height, height)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("L", "RGB"),
        ("LA", "RGBA"),
        ("I;16", "RGB"),
        ("P", "RGB"),
        ("1", "RGB"),
        ("CMYK", "RGB"),
    ],
)
def test_any_mode_comes_out_as_rgb_or_rgba(stylizer: Stylizer, mode: str, expected: str) -> None:
    photo = noise(21, 17, mode)
    before = photo.tobytes()
    result = stylizer(photo)
    assert (result.mode, result.size) == (expected, (21, 17))
    assert (photo.mode, photo.tobytes()) == (mode, before)


def test_alpha_stays_exactly_as_it_is(stylizer: Stylizer) -> None:
    photo = noise(21, 17, "RGBA")
    assert stylizer(photo).getchannel("A").tobytes() == photo.getchannel("A").tobytes()


def test_sixteen_bits_are_stylized_like_the_eight_they_round_to(stylizer: Stylizer) -> None:
    eight = np.random.default_rng(1).integers(0, 256, (17, 21), dtype=np.uint8)
    sixteen = Image.fromarray(eight.astype(np.uint16) * 257)
    assert sixteen.mode == "I;16"
    assert stylizer(sixteen).tobytes() == stylizer(Image.fromarray(eight)).tobytes()


def test_picture_and_tensor_give_the_same_result(stylizer: Stylizer) -> None:
    photo = noise(33, 18)
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255
    expected = (stylizer(pixels) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(np.array(stylizer(photo)), expected)


def test_batch_equals_its_photos_one_by_one(stylizer: Stylizer) -> None:
    batch = torch.rand(3, 3, 24, 19, generator=torch.Generator().manual_seed(2))
    together = stylizer(batch)
    assert together.shape == batch.shape
    for photo, result in zip(batch, together, strict=True):
        assert (stylizer(photo) - result).abs().max() <= 1 / 255


def test_same_photo_gives_the_same_bytes(model: Path, stylizer: Stylizer) -> None:
    photo = noise(50, 40)
    assert stylizer(photo).tobytes() == Stylizer(model, device="cpu")(photo).tobytes()


def test_result_depends_on_the_photo_and_the_model(tmp_path: Path, stylizer: Stylizer) -> None:
    photo = noise(32, 32)
    other = Stylizer(write_tiny_model(tmp_path / "m.safetensors", width=2), device="cpu")
    assert stylizer(photo).tobytes() != stylizer(noise(32, 32).rotate(90)).tobytes()
    assert stylizer(photo).tobytes() != other(photo).tobytes()


def test_result_is_within_the_legal_range_for_a_larger_tanh_scale(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m.safetensors", tanh_scale=1000.0)
    result = Stylizer(model, device="cpu")(torch.rand(3, 32, 32))
    assert (result.min(), result.max()) == (0, 1)


@pytest.mark.parametrize(
    "photo",
    [
        torch.zeros(3, 8),
        torch.zeros(1, 8, 8),
        torch.zeros(8, 8, 3),
        torch.zeros(1, 1, 3, 8, 8),
        torch.zeros(3, 0, 8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
    ],
)
def test_other_tensors_are_refused(stylizer: Stylizer, photo: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="photos must be") as caught:
        stylizer(photo)
    assert str(caught.value) == (
        "photos must be floats of shape (3, H, W) or (N, 3, H, W) in [0, 1], got "
        f"{photo.dtype} {tuple(photo.shape)}"
    )


# --- Memory and devices -------------------------------------------------------------------------


def forbid_the_network(*unused: object) -> None:
    raise AssertionError("the network must not run")


def leave(available: float, monkeypatch: pytest.MonkeyPatch, *, disk: float = 1e12) -> None:
    """Pretend that this much memory and disk is free."""
    monkeypatch.setattr(stylizer_module, "_available_bytes", lambda device: available)
    monkeypatch.setattr(stylizer_module, "free_bytes", lambda folder: disk)
    monkeypatch.setenv("TMPDIR", tempfile.gettempdir())


def differing(first: Image.Image, second: Image.Image) -> tuple[int, float]:
    """The largest difference of two pictures, and the share of values that differ."""
    difference = np.abs(np.array(first, dtype=np.int16) - np.array(second, dtype=np.int16))
    return int(difference.max()), float((difference > 0).mean())


def test_batch_too_large_is_refused_with_a_size_that_fits(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(200_000 * stylizer._bytes_per_pixel, monkeypatch)
    monkeypatch.setattr(stylizer._net, "forward", forbid_the_network)
    with pytest.raises(UserError) as caught:
        stylizer(torch.zeros(1, 3, 3000, 4000))
    # 293 bytes per pixel of this network. 0.9 * 200,000 pixels are 489.9 x 367.4 of 4:3.
    assert message_of(caught) == [
        "4000 x 3000 pixels are too many for the memory: about 3.5 GB are needed, 53 MB may be "
        "used; --max-side 489 fits"
    ]
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("photo", [torch.zeros(3, 18, 20), noise(20, 18)])
def test_freed_memory_is_given_back_before_a_photo_is_refused_or_put_into_bands(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch, photo: torch.Tensor | Image.Image
) -> None:
    available = [1]
    monkeypatch.setattr(stylizer_module, "_available_bytes", lambda device: available[0])
    monkeypatch.setattr(
        stylizer_module, "_give_back_freed_memory", lambda: available.__setitem__(0, 10**9)
    )
    monkeypatch.setattr(Stylizer, "_stylize_in_bands", forbid_the_network)
    stylizer(photo)
    assert available == [10**9]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(("available", "is_on_disk"), [(14.5e6, False), (13.1e6, True)])
def test_photo_too_large_as_a_whole_is_done_in_bands(
    stylizer: Stylizer,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    available: float,
    is_on_disk: bool,
) -> None:
    photo = noise(500, 400, mode)
    whole = stylizer(photo)
    # As a whole, it takes 58 MB. In bands, it takes 10.1 MB, the result 0.8 (with alpha 1.6), and
    # what is between sweeps, which may lie on a disk, 0.4.
    size = 2 if mode == "RGBA" else 1
    leave(available - (2 - size) * 0.9e6, monkeypatch)
    bands = stylizer._bands_for(to_picture(photo))
    assert bands is not None
    assert isinstance(bands.storage, Path) == is_on_disk
    monkeypatch.setattr(stylizer._net, "forward", forbid_the_network)
    done = stylizer(photo)
    assert (done.mode, done.size) == (mode, photo.size)
    largest, share = differing(done, whole)
    assert largest <= 1
    assert share < 0.01
    if mode == "RGBA":
        assert done.getchannel("A").tobytes() == photo.getchannel("A").tobytes()


def test_memory_that_is_allowed_counts_like_that_which_is_free(
    model: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(1e12, monkeypatch)
    photo = noise(500, 400)
    picture = to_picture(photo)
    assert stylizer._bands_for(picture) is None
    # With the photo itself: 59.4 MB as a whole, 12.1 MB in bands, 11.7 MB with a disk.
    assert Stylizer(model, device="cpu", memory_bytes=60_000_000)._bands_for(picture) is None
    frugal = Stylizer(model, device="cpu", memory_bytes=13_000_000)
    assert frugal._bands_for(picture) == stylizer_module._Bands(rows=8, storage=frugal.device)
    assert differing(frugal(photo), stylizer(photo))[0] <= 1
    more_frugal = Stylizer(model, device="cpu", memory_bytes=11_900_000)
    bands = more_frugal._bands_for(picture)
    assert bands is not None
    assert bands.storage == Path(tempfile.gettempdir())
    with pytest.raises(UserError, match="too many for the memory"):
        Stylizer(model, device="cpu", memory_bytes=11_500_000)(photo)


@pytest.mark.parametrize(
    ("available", "disk", "may_be_used", "side"),
    [
        # A band takes 17 MB: 19 MB are left for the result, 4 bytes per pixel.
        (40e6, 1e12, "36 MB may be used, and 900.0 GB", 2483),
        # 2 bytes per pixel lie between sweeps.
        (70e6, 20e6, "63 MB may be used, and 18 MB", 3461),
    ],
)
def test_photo_too_large_for_bands_is_refused_with_a_size_that_fits(
    stylizer: Stylizer,
    monkeypatch: pytest.MonkeyPatch,
    available: float,
    disk: float,
    may_be_used: str,
    side: int,
) -> None:
    leave(available, monkeypatch, disk=disk)
    with pytest.raises(UserError) as caught:
        stylizer(Image.new("RGB", (4000, 3000)))
    assert message_of(caught) == [
        "4000 x 3000 pixels are too many for the memory: about 71 MB are needed, and 24 MB more "
        f"there or in {tempfile.gettempdir()}; {may_be_used} in that folder; --max-side {side} fits"
    ]
    assert caught.value.exit_code == 1

    def bands_of(side: int) -> object:
        fitted = fit_longer_side(Image.new("RGB", (4000, 3000)), side)
        return stylizer._bands_for(Picture(fitted, None))

    assert bands_of(side) is not None
    with pytest.raises(UserError):
        bands_of(side + 4)  # a little is left to rounding


def test_progress_is_told_of_bands_alone(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    picture = to_picture(noise(500, 400))
    stylizer.stylize_picture(picture, progress=shares.append)
    assert shares == []
    leave(13e6, monkeypatch)
    stylizer.stylize_picture(picture, progress=shares.append)
    assert len(shares) > 10
    assert shares[-1] == 1


def test_disk_that_fills_up_is_named_with_a_remedy(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*unused: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    leave(12.2e6, monkeypatch)
    monkeypatch.setattr(tempfile, "TemporaryFile", fill)
    with pytest.raises(UserError) as caught:
        stylizer(noise(500, 400))
    assert message_of(caught) == [
        f"{tempfile.gettempdir()}: cannot keep the photo's features, 0 MB (No space left on "
        "device); set TMPDIR to a folder on another disk"
    ]
    assert caught.value.exit_code == 1


def test_huge_temporary_files_go_where_they_are_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/told")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/usual")
    assert stylizer_module._scratch_folder() == Path("/usual")  # which knows TMPDIR
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path == Path("/var/tmp"))
    assert stylizer_module._scratch_folder() == Path("/var/tmp")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert stylizer_module._scratch_folder() == Path("/usual")


@pytest.mark.parametrize("size", [(900, 700), (3000, 40), (1, 5000), (7, 4000), (1000, 1000)])
@pytest.mark.parametrize("most_pixels", [300, 5_000, 20_000.5])
def test_size_that_is_said_to_fit_does_and_hardly_a_larger_one(
    size: tuple[int, int], most_pixels: float
) -> None:
    photo = Image.new("L", size)

    def fits(height: int, width: int) -> bool:
        return stylizer_module._num_computed_pixels(height, width) <= most_pixels

    most_side = stylizer_module._longest_side(photo.height, photo.width, fits)

    def computed(side: int) -> int:
        fitted = fit_longer_side(photo, side)
        return stylizer_module._num_computed_pixels(fitted.height, fitted.width)

    assert computed(most_side) <= most_pixels
    assert computed(round(1.1 * most_side) + 1) > most_pixels  # a little is left to rounding


def test_nothing_fits_into_no_memory(stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stylizer_module, "_available_bytes", lambda device: 0)
    with pytest.raises(UserError) as caught:
        stylizer(torch.zeros(2, 3, 100, 200))
    assert message_of(caught) == [
        "2 photos of 200 x 100 pixels are too many for the memory: about 12 MB are needed, 0 MB "
        "may be used; not even one pixel fits"
    ]


@pytest.mark.parametrize(
    "error",
    [
        # torch 2.15's words on a CPU
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        ),
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("photo", [torch.zeros(3, 100, 200), Image.new("RGB", (200, 100))])
def test_running_out_of_memory_is_an_error_with_a_remedy(
    stylizer: Stylizer,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    photo: torch.Tensor | Image.Image,
) -> None:
    def run_out(*unused: object) -> None:
        raise error

    monkeypatch.setattr(stylizer._net, "forward", run_out)
    with pytest.raises(UserError) as caught:
        stylizer(photo)
    remedy = "" if isinstance(photo, torch.Tensor) else "a lower --memory, or "
    assert message_of(caught) == [
        f"200 x 100 pixels are too many for the memory; try {remedy}--max-side 140"
    ]
    assert caught.value.exit_code == 1


def test_other_errors_of_torch_keep_their_traceback(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*unused: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(stylizer._net, "forward", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        stylizer(torch.zeros(3, 20, 20))


def test_available_memory_is_below_the_limit_of_the_control_group(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")
    left = stylizer_module._left_in(tmp_path, "memory.max", "memory.current")
    assert list(left) == [450]  # cached files make room


@pytest.mark.parametrize("limit", ["max\n", "", None])
def test_control_group_without_a_limit_says_nothing(tmp_path: Path, limit: str | None) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    assert list(stylizer_module._left_in(tmp_path, "memory.max", "memory.current")) == []


# --- What goes where ----------------------------------------------------------------------------


def planned(*inputs: str, **options: object) -> dict[str, str]:
    """Photo to output, as they would be printed."""
    jobs, _ = plan_jobs([Path(path) for path in inputs], OutputOptions(**options))  # type: ignore[arg-type]
    return {str(job.photo): str(job.output) for job in jobs}


def refused(*inputs: str, **options: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        planned(*inputs, **options)
    assert caught.value.exit_code == 2
    return message_of(caught)


def test_folders_keep_their_structure(here: Path) -> None:
    for name in ("in/a.jpg", "in/sub/b.PNG", "c.webp"):
        photo_at(name)
    assert planned("in", "c.webp", output=Path("out")) == {
        "in/a.jpg": "out/a.jpg",
        "in/sub/b.PNG": "out/sub/b.PNG",
        "c.webp": "out/c.webp",
    }
    assert not Path("out").exists()


def test_without_output_results_lie_beside_their_photos(here: Path) -> None:
    photo_at("in/sub/a.jpg")
    photo_at("b.png")
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
    photo_at("a.jpg")
    assert planned("a.jpg", output=Path("out"), format="webp") == {"a.jpg": "out/a.webp"}


def test_output_may_be_a_file_for_one_photo(here: Path) -> None:
    photo_at("a.jpg")
    assert planned("a.jpg", output=Path("new/b.png")) == {"a.jpg": "new/b.png"}


def test_output_file_for_several_photos_is_refused(here: Path) -> None:
    for name in ("in/a.jpg", "in/b.jpg"):
        photo_at(name)
    message = [
        "--output out.jpg: is a file name, but there are several photos; give a folder",
    ]
    assert refused("in", output=Path("out.jpg")) == message
    assert refused("in/a.jpg", "in/b.jpg", output=Path("out.jpg")) == message


def test_output_folder_may_have_a_dot_in_its_name(here: Path) -> None:
    for name in ("in/a.jpg", "in/b.jpg"):
        photo_at(name)
    assert planned("in", output=Path("out.v2"))["in/a.jpg"] == "out.v2/a.jpg"
    Path("v1.jpg").mkdir()
    assert planned("in/a.jpg", output=Path("v1.jpg")) == {"in/a.jpg": "v1.jpg/a.jpg"}


def test_output_of_unknown_format_is_refused_before_any_work(here: Path) -> None:
    photo_at("a.jpg")
    assert refused("a.jpg", output=Path("b.gif")) == [
        "--output b.gif: cannot write the format '.gif'; use one of .bmp, .jpeg, .jpg, .png, "
        ".tif, .tiff, .webp"
    ]


def test_two_photos_for_one_file_are_refused(here: Path) -> None:
    for name in ("in/a.jpg", "in/a.png", "other/a.jpg"):
        photo_at(name)
    assert refused("in", output=Path("out"), format="png") == [
        "out/a.png: would be written twice, for in/a.jpg and in/a.png; leave out --format"
    ]
    assert refused("in/a.jpg", "other", output=Path("out")) == [
        "out/a.jpg: would be written twice, for in/a.jpg and other/a.jpg; do them one by one"
    ]


def test_photo_given_twice_is_done_once(here: Path) -> None:
    photo_at("in/a.jpg")
    inputs = ("in", "in/a.jpg", "./in/../in/a.jpg", str(here / "in" / "a.jpg"))
    assert list(planned(*inputs, output=Path("out")).values()) == ["out/a.jpg"]


def test_existing_output_is_refused_skipped_or_replaced(here: Path) -> None:
    photos = [photo_at("a.jpg"), photo_at("b.jpg")]
    photo_at("out/a.jpg")
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
    photo_at("a.jpg")
    Path("link.jpg").symlink_to("a.jpg")
    message = ["a.jpg: would replace itself; set --suffix or --output"]
    assert refused("a.jpg", overwrite=overwrite) == message
    assert refused("a.jpg", output=Path("."), overwrite=overwrite) == message
    assert refused("a.jpg", output=Path("link.jpg"), overwrite=overwrite) == message


def test_photo_never_replaces_another_one(here: Path) -> None:
    photo_at("a.jpg")
    photo_at("a-x.jpg")
    assert refused("a.jpg", "a-x.jpg", suffix="-x", overwrite=True) == [
        "a-x.jpg: is one of the photos, and would be replaced; set another --suffix"
    ]


def test_results_in_a_folder_inside_the_photos_are_no_photos(here: Path) -> None:
    photo_at("in/a.jpg")
    photo_at("in/out/a.jpg")
    assert planned("in", output=Path("in/out"), overwrite=True) == {"in/a.jpg": "in/out/a.jpg"}


def test_results_beside_their_photos_are_no_photos(here: Path) -> None:
    photo_at("in/a.jpg")
    photo_at("in/a.wave.jpg")
    assert planned("in", suffix=".wave", skip_existing=True) == {}
    assert planned("in", suffix=".wave", overwrite=True) == {"in/a.jpg": "in/a.wave.jpg"}
    assert planned("in", suffix="-x", output=Path("in")) == {
        "in/a.jpg": "in/a-x.jpg",
        "in/a.wave.jpg": "in/a.wave-x.jpg",
    }


def test_photos_may_lie_inside_the_output_folder(here: Path) -> None:
    photo_at("in/a.jpg")
    assert planned("in", output=Path(".")) == {"in/a.jpg": "a.jpg"}


def test_missing_and_empty_inputs_are_refused(here: Path) -> None:
    Path("empty").mkdir()
    long_name = "x" * 300
    assert refused("none.jpg") == ["none.jpg: not found"]
    assert refused(long_name) == [f"{long_name}: not found"]
    assert refused("none.jpg", long_name) == ["none.jpg: not found", f"{long_name}: not found"]
    assert refused("empty") == ["empty: no photos in this folder or below it"]


def test_output_with_too_long_a_name_is_left_to_its_photo_to_fail(here: Path) -> None:
    photo_at("a.jpg")
    name = f"{'x' * 300}.jpg"
    assert planned("a.jpg", output=Path(name)) == {"a.jpg": name}


def test_folders_that_cannot_be_written_are_found_before_any_work(here: Path) -> None:
    photo_at("a.jpg")
    photo_at("b.jpg")
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
    photo_at("a.jpg")
    Path("out").mkdir(mode=0o555)
    assert refused("a.jpg", output=Path("out/sub")) == [
        "out: this folder cannot be written to; choose another --output"
    ]


def test_all_mistakes_are_told_at_once(here: Path) -> None:
    for name in ("a.jpg", "b.jpg", "out/a.jpg", "out/b.jpg"):
        photo_at(name)
    assert len(refused("a.jpg", "b.jpg", output=Path("out"))) == 2


# --- Files --------------------------------------------------------------------------------------


def test_files_are_stylized_as_pictures_are(here: Path, stylizer: Stylizer) -> None:
    photo = noise(30, 20)
    photo.save("a.png")
    assert errors_of(stylize_files(stylizer, [Job(Path("a.png"), Path("new/sub/b.png"))])) == [None]
    with Image.open("new/sub/b.png") as result:
        assert result.tobytes() == stylizer(photo).tobytes()


def test_one_bad_file_does_not_stop_the_rest(here: Path, stylizer: Stylizer) -> None:
    photo_at("a.png")
    Path("b.png").write_bytes(b"no picture")
    photo_at("c.png")
    jobs = [Job(Path(name), Path("out", name)) for name in ("a.png", "b.png", "c.png")]
    outcomes = list(stylize_files(stylizer, jobs))
    assert [outcome.job for outcome in outcomes] == jobs
    assert errors_of(iter(outcomes)) == [
        None,
        "b.png: not a picture of a known format (JPEG, MPO, PNG, WEBP, BMP, GIF, TIFF)",
        None,
    ]
    assert outcomes[1].error is not None
    assert outcomes[1].error.exit_code == 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "c.png"]


def test_a_few_photos_are_decoded_ahead_and_no_more(
    here: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []

    def read(path: Path, *, max_pixels: int) -> Picture:
        begun.append(path)
        return read_picture(path, max_pixels=max_pixels)

    monkeypatch.setattr(stylizer_module, "read_picture", read)
    jobs = [Job(photo_at(f"{number:02}.png"), Path(f"out/{number}.png")) for number in range(20)]
    outcomes = stylize_files(stylizer, jobs)
    next(outcomes)
    # Up to three photos have gone through the network, and three may be in the helpers' hands.
    assert 2 <= len(begun) <= 6
    assert [next(outcomes).job for _ in range(19)] == jobs[1:]
    assert sorted(begun) == [job.photo for job in jobs]


def test_photo_that_takes_most_of_the_memory_is_done_alone(
    here: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def read(path: Path, *, max_pixels: int) -> Picture:
        events.append(f"read {path.stem}")
        return read_picture(path, max_pixels=max_pixels)

    def write(path: Path, *picture: object, **options: object) -> None:
        events.append(f"write {path.stem}")

    monkeypatch.setattr(stylizer_module, "read_picture", read)
    monkeypatch.setattr(stylizer_module, "write_picture", write)
    # Large ones take 419 kB of 900 kB, and 92 kB if they wait; small ones a quarter.
    leave(1e6, monkeypatch)
    large = {"b", "c", "f"}
    jobs = [
        Job(photo_at(f"{name}.png", width=80 if name in large else 20), Path(f"out/{name}.png"))
        for name in "abcdef"
    ]
    assert errors_of(stylize_files(stylizer, jobs)) == [None] * 6
    for name in large:
        place = events.index(f"read {name}")
        assert events[place + 1] == f"write {name}"
        before = {event.split()[-1] for event in events[:place]}
        assert before == set("abcdef"[: "abcdef".index(name)])


def test_small_is_what_takes_half_of_the_memory_with_those_that_wait(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.9 * 0.5 * 1 GB, at 293 + 64 bytes per pixel of this network, are 1.26 megapixels.
    leave(1e9, monkeypatch)
    assert stylizer.is_small(1000, 1260)
    assert not stylizer.is_small(1000, 1275)
    # 64 bytes per pixel of the file, and those of 640 x 640 pixels in the network
    assert stylizer.is_small(2265, 2265, max_side=640)
    assert not stylizer.is_small(2285, 2285, max_side=640)


def test_stopping_finishes_what_is_being_written_and_begins_nothing(
    here: Path, stylizer: Stylizer
) -> None:
    jobs = [Job(photo_at(f"{number:02}.png"), Path(f"out/{number}.png")) for number in range(20)]
    outcomes = stylize_files(stylizer, jobs)
    next(outcomes)
    assert isinstance(outcomes, Generator)
    outcomes.close()  # what an interrupt does, whether it comes in the network or outside
    written = sorted(Path("out").iterdir())
    assert 1 <= len(written) <= 3
    for path in written:
        assert size_of(path) == (20, 18)
    assert not [thread.name for thread in threading.enumerate() if "write" in thread.name]


def test_file_in_place_of_the_output_folder_is_one_photos_error(
    here: Path, stylizer: Stylizer
) -> None:
    photo_at("a.png")
    Path("file").touch()
    jobs = [Job(Path("a.png"), Path("file/a.png")), Job(Path("a.png"), Path("b.png"))]
    assert errors_of(stylize_files(stylizer, jobs)) == [
        "file/a.png: cannot be written (File exists)",
        None,
    ]


def test_photo_too_large_for_the_memory_is_named(
    here: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_at("a.png", width=400, height=300)
    photo_at("b.png")
    leave(10_000 * stylizer._bytes_per_pixel, monkeypatch)
    jobs = [Job(Path(name), Path("out", name)) for name in ("a.png", "b.png")]
    errors = errors_of(stylize_files(stylizer, jobs))
    assert errors == [
        "a.png: 400 x 300 pixels are too many for the memory: about 10 MB are needed, and 0 MB "
        f"more there or in {tempfile.gettempdir()}; 3 MB may be used, and 900.0 GB in that "
        "folder; --max-side 109 fits",
        None,
    ]
    assert errors_of(stylize_files(stylizer, jobs[:1], max_side=109)) == [None]
    assert size_of(Path("out/a.png")) == (109, 82)


def test_max_pixels_refuses_by_the_header(here: Path, stylizer: Stylizer) -> None:
    photo_at("a.png", width=40, height=30)
    job = Job(Path("a.png"), Path("b.png"))
    assert errors_of(stylize_files(stylizer, [job], max_pixels=1199)) == [
        "a.png: 1,200 pixels, more than the limit of 1,199; for a photo that you trust, raise it "
        "with --max-pixels 1200"
    ]


def test_alpha_shrinks_with_its_photo(here: Path, stylizer: Stylizer) -> None:
    noise(40, 20, "RGBA").save("a.png")
    job = Job(Path("a.png"), Path("b.png"))
    assert errors_of(stylize_files(stylizer, [job], max_side=20)) == [None]
    with Image.open("b.png") as result:
        assert (result.mode, result.size) == ("RGBA", (20, 10))


def test_photo_is_upright_in_srgb_and_without_metadata(here: Path, stylizer: Stylizer) -> None:
    photo = noise(30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save("a.png", exif=exif, icc_profile=srgb)
    assert errors_of(stylize_files(stylizer, [Job(Path("a.png"), Path("b.jpg"))])) == [None]
    with Image.open("b.jpg") as result:
        assert result.size == (20, 30)
        assert len(result.getexif()) == 0
        assert "icc_profile" not in result.info
    upright = stylizer(photo.transpose(Image.Transpose.ROTATE_270))
    with Image.open("a.png") as rotated:
        assert stylizer(rotated).tobytes() == upright.tobytes()


def test_profile_of_the_photo_is_applied(here: Path, stylizer: Stylizer) -> None:
    photo = noise(30, 20, "L").convert("RGB")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    results = []
    for name, profile in (("plain", None), ("srgb", srgb), ("unusable", lab)):
        photo.save(f"{name}.png", icc_profile=profile)
        job = Job(Path(f"{name}.png"), Path("out", f"{name}.png"))
        assert errors_of(stylize_files(stylizer, [job])) == [None]
        with Image.open(job.output) as result:
            results.append(np.array(result).astype(int))
    assert abs(results[0] - results[1]).max() <= 2
    assert results[2].shape == results[0].shape


def test_failed_write_leaves_the_old_output(
    here: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_at("a.png")
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"the old one")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    assert errors_of(stylize_files(stylizer, [Job(Path("a.png"), Path("out/a.png"))])) == [
        "out/a.png: cannot be written (No space left on device)"
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
    jobs = [Job(photo, tmp_path / f"{photo.name}.png") for photo in photos]
    outcomes = list(stylize_files(stylizer, jobs, max_side=450))
    errors = {
        outcome.job.photo.name: str(outcome.error).removeprefix(f"{folder}{os.sep}")
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
        if job.output.exists():
            with Image.open(job.output) as result:
                found[job.photo.name] = (result.mode, result.size)
    assert found == AWKWARD


def test_what_a_tensor_gives_can_be_worked_on(stylizer: Stylizer) -> None:
    result = stylizer(torch.rand(3, 16, 18))
    assert result.mul_(255).requires_grad_().sum().requires_grad


def test_picture_without_pixels_is_refused(stylizer: Stylizer) -> None:
    with pytest.raises(ValueError, match=r"^a picture without pixels cannot be stylized$"):
        stylizer(Image.new("RGB", (0, 5)))


# --- Compiled -----------------------------------------------------------------------------------


def keep_graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """torch.compile without the minutes of C++: what is traced runs as it stands, and is listed."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    def trace(function: Callable[..., Any], *, any_size: bool) -> Callable[..., Any]:
        return torch.compile(function, fullgraph=True, dynamic=any_size, backend=keep)

    monkeypatch.setattr(stylizer_module, "compile_whole", trace)
    return graphs


def test_network_is_compiled_once_for_photos_of_all_sizes(
    model: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = keep_graphs(monkeypatch)
    compiled = Stylizer(model, device="cpu", compile=True)
    assert len(graphs) == 1
    assert compiled._whole_bytes(100, 100) > stylizer._whole_bytes(100, 100)
    for width, height in ((130, 101), (96, 160), (128, 128), (20, 1)):
        photo = image_to_tensor(noise(width, height)).float() / 255
        assert torch.allclose(compiled(photo), stylizer(photo), rtol=0, atol=1e-4)
        assert len(graphs) == 1 or height == 1  # torch's convolutions of small pictures are others


@pytest.mark.slow
def test_truly_compiled_network_gives_the_same_pictures(model: Path, stylizer: Stylizer) -> None:
    compiled = Stylizer(model, device="cpu", compile=True)
    for width, height in ((130, 101), (128, 128), (20, 1)):
        photo = image_to_tensor(noise(width, height)).float() / 255
        assert torch.allclose(compiled(photo), stylizer(photo), rtol=0, atol=1e-4)


@pytest.mark.parametrize("wrong", [torch.zeros_like, lambda photos: photos.new_full((), 0.5)])
def test_network_that_is_compiled_wrongly_is_an_error(
    wrong: Callable[[torch.Tensor], torch.Tensor], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_wrongly(function: object, *, any_size: bool) -> Callable[..., torch.Tensor]:
        return lambda photos: wrong(photos).expand_as(photos).clone()

    monkeypatch.setattr(stylizer_module, "compile_whole", compile_wrongly)
    with pytest.raises(UserError) as caught:
        Stylizer(model, device="cpu", compile=True)
    (line,) = message_of(caught)
    assert line.startswith("--compile: the compiled network's picture is ")
    assert line.endswith(
        f"% off the plain one's, so torch {torch.__version__} compiles it wrongly here; do without"
    )
