"""Decoded once, and the same as if decoded every time."""

import csv
import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from small_run import draw_photo, ignore, settings_of, train_once, write_photos, write_small_run

from fast_style.core.errors import UserError
from fast_style.pictures import reading
from fast_style.pictures.folders import Photos
from fast_style.pictures.pixels import resize_shorter_side
from fast_style.pictures.reading import PictureError, ResultError, over_white, read_picture
from fast_style.pictures.writing import write_picture
from fast_style.training import build as runs
from fast_style.training import photo_cache
from fast_style.training.build import build_trainer
from fast_style.training.data import Crops, StepSampler, load_batches
from fast_style.training.photo_cache import PhotoCache, open_photo_cache
from fast_style.training.run_folder import open_run
from fast_style.training.trainer import Trainer

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ("complete.json", "index.jsonl", "pixels.bin")


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """Twelve of 40 to 51 x 40 pixels, three of them damaged."""
    folder = write_photos(tmp_path / "photos")
    for number in (1, 4, 11):
        (folder / sorted(os.listdir(folder))[number]).write_bytes(b"no picture")
    return Photos(folder, sorted(folder.iterdir()), [])


def cached(
    photos: Photos, root: Path, *, side: int = 24, say: Callable[[str], None] = ignore
) -> PhotoCache:
    return open_photo_cache(photos.training, folder=photos.folder, side=side, root=root, say=say)


def contents(cache: PhotoCache) -> list[bytes]:
    return [(cache.folder / name).read_bytes() for name in FILES]


def message_of(photos: Photos, root: Path, *, exit_code: int) -> str:
    with pytest.raises(UserError) as caught:
        cached(photos, root)
    assert caught.value.exit_code == exit_code
    return str(caught.value)


def smooth_photo(number: int, size: tuple[int, int]) -> Image.Image:
    """Large shapes, of which resampling leaves the places and the colors; another per number."""
    return draw_photo(number, (5, 4)).resize(size, Image.Resampling.BICUBIC)


# --- Pixels -------------------------------------------------------------------------------------


def test_small_photo_is_stored_as_it_is_decoded(photos: Photos, tmp_path: Path) -> None:
    cache = cached(photos, tmp_path / "caches", side=40)
    for path in (photos.training[0], photos.training[3]):
        assert np.array_equal(cache.read(path), np.asarray(read_picture(path).rgb))


def test_large_photo_is_shrunk_to_the_side(photos: Photos, tmp_path: Path) -> None:
    path = photos.training[3]
    expected = np.asarray(resize_shorter_side(read_picture(path).rgb, 24))
    assert expected.shape == (24, 26, 3)
    assert np.array_equal(cached(photos, tmp_path / "caches").read(path), expected)


def test_transparent_orientated_and_grey_photos_are_stored_as_training_sees_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGBA", (8, 4), (9, 9, 9, 0)).save(folder / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    draw_photo(1, (30, 20)).save(folder / "turned.jpg", exif=exif)
    draw_photo(2, (8, 4)).convert("L").save(folder / "grey.png")
    photos = Photos(folder, sorted(folder.iterdir()), [])
    cache = cached(photos, tmp_path / "caches")
    for path in photos.training:
        assert np.array_equal(cache.read(path), np.asarray(over_white(read_picture(path))))
    assert cache.read(folder / "turned.jpg").shape == (30, 20, 3)
    assert cache.read(folder / "clear.png").min() == 255


def test_unreadable_photo_is_told_as_the_decoder_tells_it(photos: Photos, tmp_path: Path) -> None:
    cache = cached(photos, tmp_path / "caches")
    path = photos.training[4]
    with pytest.raises(PictureError) as decoded:
        read_picture(path)
    with pytest.raises(PictureError) as stored:
        cache.read(path)
    assert str(stored.value) == str(decoded.value)


def test_moved_photos_share_the_cache_and_are_told_at_their_new_place(
    photos: Photos, tmp_path: Path
) -> None:
    before = cached(photos, tmp_path / "caches")
    moved = photos.folder.rename(tmp_path / "moved")
    after = cached(Photos(moved, sorted(moved.iterdir()), []), tmp_path / "caches")
    assert after.folder == before.folder
    path = sorted(moved.iterdir())[1]
    with pytest.raises(PictureError, match=f"^{path}: not a picture"):
        after.read(path)


def no_permission(path: Path) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def too_many_files(path: Path) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def no_memory(path: Path) -> None:
    raise MemoryError


def no_memory_in_a_decoder(path: Path) -> None:
    raise OSError("out of memory error when reading image file")  # Pillow's code -9


@pytest.mark.parametrize(
    "refuse", [no_permission, too_many_files, no_memory, no_memory_in_a_decoder, None]
)
def test_refusal_that_is_not_in_the_bytes_is_tried_again_at_each_opening(
    photos: Photos,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refuse: Callable[[Path], None] | None,
) -> None:
    path = photos.training[3]
    expected = cached(photos, tmp_path / "never refused").read(path)
    opened = reading._open_regular_file

    def open_or_refuse(file: Path) -> object:
        if refuse is not None and file == path:
            refuse(file)
        return opened(file)

    with monkeypatch.context() as patch:
        patch.setattr(reading, "_open_regular_file", open_or_refuse)
        if refuse is None:
            patch.setenv(reading.MAX_PIXELS_VARIABLE, "100")
        cache = cached(photos, tmp_path / "caches")
        with pytest.raises(PictureError):
            cache.read(path)
        before = contents(cache)
        assert contents(cached(photos, tmp_path / "caches")) == before
    lines: list[str] = []
    cache = cached(photos, tmp_path / "caches", say=lines.append)
    assert np.array_equal(cache.read(path), expected)
    with pytest.raises(PictureError, match="not a picture"):
        cache.read(photos.training[1])
    assert contents(cache) == before  # as caches of earlier versions are left
    (line,) = lines
    assert f"can be read now: {1 if refuse else 9}." in line
    assert f"remove {cache.folder}" in line
    with pytest.raises(PictureError, match="not found"):  # it goes while the cache is open
        (path.unlink(), cache.read(path))


def test_folder_without_any_readable_photo_can_be_cached(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "a.png"
    path.write_bytes(b"")
    cache = cached(Photos(path.parent, [path], []), tmp_path / "caches")
    with pytest.raises(PictureError, match="empty file"):
        cache.read(path)


# --- Crops --------------------------------------------------------------------------------------


def crops_of(photos: Photos, cache: PhotoCache | None, **settings: object) -> Crops:
    known = {"seed": 1, "size": 32, "scale": (0.5, 1.0), "flip": True}
    return Crops(photos, cache=cache, **known | settings)  # type: ignore[arg-type]


@pytest.fixture
def smooth(tmp_path: Path) -> Photos:
    folder = tmp_path / "smooth"
    folder.mkdir()
    for number in range(6):
        smooth_photo(number, (320 + 20 * number, 240)).save(folder / f"{number}.png")
    return Photos(folder, sorted(folder.iterdir()), [])


def difference(first: torch.Tensor | None, second: torch.Tensor | None) -> float:
    assert first is not None
    assert second is not None
    return float((first.float() - second.float()).abs().mean())


@pytest.mark.parametrize("side", [240, 64], ids=["unshrunk", "as small as nothing is lost"])
def test_crops_show_the_same_squares_with_a_cache(
    smooth: Photos, tmp_path: Path, side: int
) -> None:
    decoded = crops_of(smooth, None)
    stored = crops_of(smooth, cached(smooth, tmp_path / "caches", side=side))
    expected = [decoded[k].pixels for k in range(12)]
    for k in range(12):
        found = stored[k].pixels
        assert difference(found, expected[k]) < 2.5
        others = [*expected[:k], *expected[k + 1 :], expected[k].flip(-1)]  # type: ignore[union-attr]
        assert min(difference(found, other) for other in others) > 5


def test_square_of_whole_pixels_is_cut_without_any_change(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(8):
        draw_photo(number, (32, 32)).save(folder / f"{number}.png")
    photos = Photos(folder, sorted(folder.iterdir()), [])
    decoded = crops_of(photos, None, scale=(1.0, 1.0))
    stored = crops_of(photos, cached(photos, tmp_path / "caches", side=32), scale=(1.0, 1.0))
    for k in range(8):
        assert torch.equal(stored[k].pixels, decoded[k].pixels)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (15, 16), (1, 5000), (5000, 1)])
def test_tiny_and_thin_cached_photos_give_crops_of_the_full_size(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "odd.png"
    Image.new("RGB", size, (10, 200, 30)).save(path)
    photos = Photos(path.parent, [path], [])
    crops = crops_of(photos, cached(photos, tmp_path / "caches"), scale=(0.1, 1.0))
    for k in range(20):
        pixels = crops[k].pixels
        assert pixels is not None
        assert pixels.shape == (3, 32, 32)
        assert pixels.reshape(3, -1).unique(dim=1).tolist() == [[10], [200], [30]]


def test_unreadable_photos_are_reported_and_replaced_as_without_a_cache(
    photos: Photos, tmp_path: Path
) -> None:
    decoded, stored = crops_of(photos, None), crops_of(photos, cached(photos, tmp_path / "caches"))
    found = [stored[k].unreadable for k in range(24)]
    assert found == [decoded[k].unreadable for k in range(24)]
    assert len(found[0]) + sum(map(len, found)) > 6
    for k in range(24):
        assert difference(stored[k].pixels, decoded[k].pixels) < 20  # noise, which shrinking blurs


def test_nothing_is_decoded_from_a_cache(photos: Photos, tmp_path: Path) -> None:
    crops = crops_of(photos, cached(photos, tmp_path / "caches"))
    expected = [crops[k] for k in range(12)]
    shutil.rmtree(photos.folder)
    for k in range(12):
        assert torch.equal(crops[k].pixels, expected[k].pixels)  # type: ignore[arg-type]


def cut_short(home: Path) -> str:
    os.truncate(home / "pixels.bin", 1000)
    return "has become shorter"


def take_away(home: Path) -> str:
    shutil.rmtree(home)
    return "No such file or directory"


@pytest.mark.parametrize("lose", [cut_short, take_away])
def test_cache_that_is_lost_meanwhile_is_told_once_and_photos_are_decoded(
    photos: Photos,
    tmp_path: Path,
    lose: Callable[[Path], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A mapped file would end the process here (SIGBUS).
    cache = cached(photos, tmp_path / "caches")
    crops = crops_of(photos, cache)
    expected = [crops[k] for k in range(12)]
    why = lose(cache.folder)
    for k in range(12):
        assert torch.equal(crops[k].pixels, expected[k].pixels)  # type: ignore[arg-type]
        assert crops[k].unreadable == expected[k].unreadable
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert str(cache.folder) in line
    assert why in line
    assert "remove the folder" in line


@pytest.mark.slow
def test_workers_read_the_file_themselves(photos: Photos, tmp_path: Path) -> None:
    crops = crops_of(photos, cached(photos, tmp_path / "caches"))
    sampler = StepSampler(0, 6, 2)
    alone, helped = (
        list(load_batches(crops, sampler, workers=workers, pin_memory=False)) for workers in (0, 1)
    )
    for ours, theirs in zip(alone, helped, strict=True):
        assert torch.equal(ours.photos, theirs.photos)
        assert ours.unreadable == theirs.unreadable


def test_pickled_cache_holds_no_pixels(photos: Photos, tmp_path: Path) -> None:
    cache = cached(photos, tmp_path / "caches", side=40)
    size = (cache.folder / "pixels.bin").stat().st_size
    assert cache.read(photos.training[0]).size > 0
    assert len(pickle.dumps(cache)) < size / 10


# --- Building -----------------------------------------------------------------------------------


def test_second_run_finds_the_cache_and_says_nothing(photos: Photos, tmp_path: Path) -> None:
    lines: list[str] = []
    first = cached(photos, tmp_path / "caches", say=lines.append)
    number_said = len(lines)
    second = cached(photos, tmp_path / "caches", say=lines.append)
    assert second.folder == first.folder
    assert len(lines) == number_said == 2
    assert lines[0] == (
        "photo cache: 12 photos with a shorter side of at most 24 pixels, about 0.0 MB, in "
        f"{first.folder}"
    )
    assert lines[1].startswith("photo cache: built in ")


def test_cache_says_what_it_was_made_from(photos: Photos, tmp_path: Path) -> None:
    about = json.loads((cached(photos, tmp_path / "caches").folder / "about.json").read_text())
    assert about == {"photos": str(photos.folder), "count": 12, "side": 24}


def touch_one(photos: Photos) -> None:
    os.utime(photos.training[0], (1, 1))


def grow_one(photos: Photos) -> None:
    status = photos.training[0].stat()
    with photos.training[0].open("ab") as file:
        file.write(b"more")
    os.utime(photos.training[0], ns=(status.st_atime_ns, status.st_mtime_ns))


def rename_one(photos: Photos) -> None:
    photos.training[0] = photos.training[0].rename(photos.folder / "a.jpg")


def leave_one_out(photos: Photos) -> None:
    photos.training.pop()


@pytest.mark.parametrize("change", [touch_one, grow_one, rename_one, leave_one_out])
def test_changed_photos_get_another_cache_and_the_old_one_is_told(
    photos: Photos, tmp_path: Path, change: Callable[[Photos], None]
) -> None:
    before = cached(photos, tmp_path / "caches")
    change(photos)
    lines: list[str] = []
    after = cached(photos, tmp_path / "caches", say=lines.append)
    assert after.folder != before.folder
    assert before.folder.is_dir()
    assert lines[1] == (
        "photo cache: other caches in the same folder: 1 (0.0 MB); about.json in each names its "
        "photos. Remove the caches that no run needs"
    )


def test_another_side_gets_another_cache(photos: Photos, tmp_path: Path) -> None:
    folders = [cached(photos, tmp_path / "caches", side=side).folder for side in (24, 25)]
    assert folders[0] != folders[1]


def begin_again(cache: PhotoCache) -> None:
    (cache.folder / "complete.json").unlink()


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 40))]
)
def test_build_killed_at_any_byte_goes_on_to_the_same_bytes(
    photos: Photos, tmp_path: Path, seed: int
) -> None:
    cache = cached(photos, tmp_path / "caches")
    whole = contents(cache)
    begin_again(cache)
    rng = np.random.default_rng(seed)
    for name in ("index.jsonl", "pixels.bin"):
        path = cache.folder / name
        os.truncate(path, int(rng.integers(path.stat().st_size + 1)))
        if seed % 3 == 0:  # a power cut may leave blocks of zeros
            path.write_bytes(path.read_bytes() + bytes(700))
    assert contents(cached(photos, tmp_path / "caches")) == whole


def test_unfinished_build_decodes_only_what_is_missing(photos: Photos, tmp_path: Path) -> None:
    cache = cached(photos, tmp_path / "caches")
    whole = contents(cache)
    begin_again(cache)
    index = cache.folder / "index.jsonl"
    index.write_bytes(b"".join(index.read_bytes().splitlines(keepends=True)[:8]))
    for path in photos.training[:8]:  # destroyed, with the size and the time that identify them
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    lines: list[str] = []
    assert contents(cached(photos, tmp_path / "caches", say=lines.append)) == whole
    assert lines[0].endswith("; 8 of them are stored already")


BUILD = """
import sys
from pathlib import Path
from fast_style.training import photo_cache
photo_cache._COMMIT_BYTES = 5000
folder = Path(sys.argv[1])
print("ready", flush=True)
photo_cache.open_photo_cache(
    sorted(folder.iterdir()), folder=folder, side=100, root=Path(sys.argv[2]), say=print
)
"""


def start_building(folder: Path, root: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder), str(root)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_build_that_is_really_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", 300)
    photos = Photos(folder, sorted(folder.iterdir()), [])
    whole = contents(cached(photos, tmp_path / "whole", side=100))
    for delay_s in (0.01, 0.05, 0.1):
        process = start_building(folder, tmp_path / "killed")
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert contents(cached(photos, tmp_path / "killed", side=100)) == whole


def test_two_processes_build_one_cache(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", 60)
    photos = Photos(folder, sorted(folder.iterdir()), [])
    whole = contents(cached(photos, tmp_path / "whole", side=100))
    process = start_building(folder, tmp_path / "shared")
    ours = cached(photos, tmp_path / "shared", side=100)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert contents(ours) == whole


def test_second_process_says_that_it_waits(photos: Photos, tmp_path: Path) -> None:
    cache = cached(photos, tmp_path / "caches")
    begin_again(cache)
    lock = FileLock(cache.folder / "lock")
    lock.acquire()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        lock.release()

    cached(photos, tmp_path / "caches", say=say)
    assert lines[0] == (
        f"waiting for the photo cache {cache.folder}, which another process is building"
    )


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_cache_is_built_where_the_file_system_has_no_locks(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*unused: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", fail)
    cache = cached(photos, tmp_path / "caches")
    assert list(cache.folder.glob("lock*")) == []
    assert cache.read(photos.training[0]).dtype == np.uint8


def test_cache_that_cannot_be_locked_leaves_nothing(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*unused: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(photo_cache, "FolderLock", fail)
    with pytest.raises(
        UserError, match=r"cannot be written \(Input/output error\); set data\.cach"
    ):
        cached(photos, tmp_path / "far" / "caches")
    assert not (tmp_path / "far").exists()


# --- Disks --------------------------------------------------------------------------------------


def test_too_small_a_disk_is_told_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "large.png"
    Image.new("RGB", (1000, 800)).save(path)
    monkeypatch.setattr(photo_cache, "free_bytes", lambda folder: 1_234_567)
    photos = Photos(path.parent, [path] * 1000, [])
    with pytest.raises(UserError) as caught:
        cached(photos, tmp_path / "caches", side=800)
    (home,) = (tmp_path / "caches").iterdir()
    assert str(caught.value) == (
        f"{home}: the photo cache needs about 2.4 GB more, and 1.2 MB are free on this disk. Make "
        "room, lower data.cache_side (800 pixels), set data.cache_folder to another disk, or "
        "data.cache=none"
    )
    assert caught.value.exit_code == 2
    assert (home / "pixels.bin").stat().st_size == 0


@pytest.mark.parametrize("at_call", [1, 2, 3])
def test_disk_that_fills_up_is_told_and_the_build_goes_on_later(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_call: int
) -> None:
    whole = contents(cached(photos, tmp_path / "whole"))
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > at_call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(photo_cache, "_COMMIT_BYTES", 5000)
        message = message_of(photos, tmp_path / "caches", exit_code=1)
    (home,) = (tmp_path / "caches").iterdir()
    assert message == (
        f"{home}: the photo cache cannot be written (No space left on device). Make room, and the "
        "same command resumes the build; or set data.cache_folder to another disk, or "
        "data.cache=none"
    )
    assert contents(cached(photos, tmp_path / "caches")) == whole


def test_unwritable_place_is_told(photos: Photos, tmp_path: Path) -> None:
    (tmp_path / "caches").write_text("a file")
    message = message_of(photos, tmp_path / "caches", exit_code=2)
    place, rule = message.split(": ", 1)
    assert Path(place).parent == tmp_path / "caches"
    assert rule == (
        "the photo cache cannot be written (Not a directory); set data.cache_folder to another "
        "folder, or data.cache=none"
    )


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_told(photos: Photos, tmp_path: Path) -> None:
    (tmp_path / "caches").mkdir(mode=0o500)
    message = message_of(photos, tmp_path / "caches", exit_code=2)
    assert "the photo cache cannot be written (Permission denied);" in message


# --- Damage -------------------------------------------------------------------------------------


def cut_pixels(home: Path) -> str:
    size = (home / "pixels.bin").stat().st_size
    os.truncate(home / "pixels.bin", size - 1)
    return f"pixels.bin has {size - 1} bytes instead of {size}"


def zero_pixels(home: Path) -> str:
    (home / "pixels.bin").write_bytes(bytes((home / "pixels.bin").stat().st_size))
    return "its pixels differ from their checksums"


def remove_pixels(home: Path) -> str:
    (home / "pixels.bin").unlink()
    return "pixels.bin cannot be read (No such file or directory)"


def put_a_folder(home: Path) -> str:
    (home / "pixels.bin").unlink()
    (home / "pixels.bin").mkdir()
    return "pixels.bin cannot be read (Is a directory)"


def change_index(home: Path) -> str:
    index = home / "index.jsonl"
    index.write_bytes(index.read_bytes().replace(b'"width": 24', b'"width": 42', 1))
    return "index.jsonl has changed since it was written"


def tear_seal(home: Path) -> str:
    os.truncate(home / "complete.json", 20)
    return "complete.json has changed since it was written"


def write_a_list(home: Path) -> str:
    (home / "complete.json").write_text("[]")
    return "index.jsonl has changed since it was written"


@pytest.mark.parametrize(
    "damage",
    [cut_pixels, zero_pixels, remove_pixels, put_a_folder, change_index, tear_seal, write_a_list],
)
def test_damage_is_told_and_nothing_is_removed(
    photos: Photos, tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    home = cached(photos, tmp_path / "caches").folder
    what = damage(home)
    left = sorted(os.listdir(home))
    assert message_of(photos, tmp_path / "caches", exit_code=2) == (
        f"{home}: this photo cache is damaged: {what}. Remove the folder, and the same command "
        "builds it again"
    )
    assert sorted(os.listdir(home)) == left


# --- Runs ---------------------------------------------------------------------------------------


@pytest.fixture
def yaml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "SMALLEST_SAMPLE", 32)
    path = write_small_run(tmp_path)
    for photo in sorted((tmp_path / "photos").iterdir()):
        smooth_photo(int(photo.stem[-2:]), (120, 96)).save(photo)
    return path


def losses_of(trainer: Trainer) -> np.ndarray:
    with (trainer.run_folder / "metrics.csv").open(newline="") as file:
        totals = [row["loss/total"] for row in csv.DictReader(file)]
    return np.array([float(total) for total in totals if total])


@pytest.mark.slow
def test_losses_with_a_cache_are_close_to_those_without(yaml_file: Path, tmp_path: Path) -> None:
    # Without the stability term, whose weight is large for these untrained networks.
    plain = "loss.stability_weight=0"
    decoded = train_once(settings_of(yaml_file, plain), tmp_path / "runs")
    words = [plain, "data.cache=disk", "name=cached"]
    stored = train_once(settings_of(yaml_file, *words), tmp_path / "runs")
    assert stored.photos.crops.cache is not None
    assert stored.photos.crops.cache.folder.parent == tmp_path / "photo_cache"
    assert losses_of(stored).shape == (6,)
    assert not np.array_equal(losses_of(stored), losses_of(decoded))
    # Crops of 16 pixels, on which half a pixel is much; other crops (flip: false) differ by 8 %.
    assert losses_of(stored).mean() == pytest.approx(losses_of(decoded).mean(), rel=0.04)


@pytest.mark.slow
def test_resumed_run_with_a_cache_equals_an_uninterrupted_one(
    yaml_file: Path, tmp_path: Path
) -> None:
    config = settings_of(yaml_file, "data.cache=disk")
    whole = train_once(config, tmp_path / "whole")
    train_once(config, tmp_path / "runs", stop_at=3)
    resumed = train_once(config, tmp_path / "runs")
    for name, expected in whole.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], expected)


@pytest.mark.slow
def test_cache_may_move_but_not_come_or_go_on_resume(yaml_file: Path, tmp_path: Path) -> None:
    train_once(settings_of(yaml_file, "data.cache=disk"), tmp_path / "runs", stop_at=3)
    moved = settings_of(yaml_file, "data.cache=disk", "data.cache_folder=elsewhere")
    train_once(moved, tmp_path / "runs", stop_at=4)
    assert (tmp_path / "elsewhere").is_dir()
    for words in (("data.cache=none",), ("data.cache=disk", "data.cache_side=20")):
        with pytest.raises(UserError, match=f"would change the result: {words[-1][:10]}"):
            open_run(
                settings_of(yaml_file, *words), root=tmp_path / "runs", fresh=False, say=ignore
            )


@pytest.mark.parametrize(
    ("words", "side"),
    [
        ((), 32),  # 16 / 0.5
        (("data.grown_crop_size=24",), 48),
        (("data.crop_scale=[0.8,1]",), 20),
        (("data.cache_side=17",), 17),
        (("data.cache_side=200",), 96),
    ],
)
def test_stored_side_is_the_least_with_which_no_crop_is_enlarged_or_the_one_asked_for(
    yaml_file: Path, tmp_path: Path, words: tuple[str, ...], side: int
) -> None:
    config = settings_of(yaml_file, "data.cache=disk", *words)
    run = open_run(config, root=tmp_path / "runs", fresh=False, say=ignore)
    trainer = build_trainer(config, run, device=torch.device("cpu"), say=ignore)
    run.lock.release()
    assert trainer.photos.crops.cache is not None
    assert trainer.photos.crops.cache.read(trainer.photos.crops.photo_of(0)).shape[0] == side


def test_training_needs_no_process_beside_it_with_a_cache(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file, "data.workers=auto", "data.cache=disk")
    assert train_once(config, tmp_path / "runs").photos.workers == 0
    assert multiprocessing.active_children() == []


def test_results_are_stored_and_given_back_only_where_they_are_taken(
    photos: Photos, tmp_path: Path
) -> None:
    made = photos.training[0]
    write_picture(made, draw_photo(7))
    cache = cached(photos, tmp_path)
    assert cache.read(made).shape == (24, 24, 3)
    strict = open_photo_cache(
        photos.training,
        folder=photos.folder,
        side=24,
        root=tmp_path,
        say=ignore,
        takes_results=False,
    )
    assert strict.folder == cache.folder
    with pytest.raises(ResultError) as caught:
        strict.read(made)
    assert str(caught.value) == f"{made}: a result of fast-style, not a photo"
    lines = [json.loads(line) for line in (cache.folder / "index.jsonl").read_text().splitlines()]
    # Other lines are as earlier versions wrote them.
    assert [line.get("is_result") for line in lines] == [True] + [None] * 11


def test_program_without_a_console_builds_the_cache(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    assert cached(photos, tmp_path / "cache").folder.is_dir()
