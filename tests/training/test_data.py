"""Photos in, crops out: the same ones whatever happens around them."""

import errno
import gc
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import draw_photo, ignore, write_photos

from fast_style.core.errors import UserError
from fast_style.core.spawning import ScriptlessSpawn
from fast_style.pictures.folders import Photos, find_photos
from fast_style.pictures.reading import read_photo
from fast_style.pictures.writing import write_picture
from fast_style.training import data
from fast_style.training.data import Batch, Crops, StepSampler
from fast_style.training.unreadable import Unreadable, UnreadableList

FULL = (1.0, 1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def crops_of(
    folder: Path,
    *,
    seed: int = 1,
    size: int = 16,
    scale: tuple[float, float] = (0.5, 1.0),
    flip: bool = True,
) -> Crops:
    photos = find_photos(folder, validation_count=3)
    return Crops(photos, seed=seed, size=size, scale=scale, flip=flip)


def batches(crops: Crops, sampler: StepSampler, workers: int = 0) -> list[Batch]:
    return list(data.load_batches(crops, sampler, workers=workers, pin_memory=False))


def pixels_of(crops: Crops, sampler: StepSampler, workers: int = 0) -> torch.Tensor:
    return torch.stack([batch.photos for batch in batches(crops, sampler, workers)])


def only(folder: Path, *paths: Path) -> Photos:
    return Photos(folder, list(paths), [])


# --- The order ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_batches_do_not_depend_on_workers_and_are_channels_last(folder: Path) -> None:
    for number in (1, 3, 5, 7):
        (folder / f"photo-{number:02}.png").write_bytes(b"no picture")
    sampler = StepSampler(0, 8, 3)
    alone, helped = (batches(crops_of(folder), sampler, workers) for workers in (0, 2))
    for ours, theirs in zip(alone, helped, strict=True):
        assert torch.equal(ours.photos, theirs.photos)
        assert ours.unreadable == theirs.unreadable
        for batch in (ours, theirs):
            assert batch.photos.shape == (3, 3, 16, 16)
            assert batch.photos.is_contiguous(memory_format=torch.channels_last)
    assert any(batch.unreadable for batch in alone)


def test_workers_that_cannot_start_are_an_error_that_names_the_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(process: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")  # of multiprocessing's resource tracker

    monkeypatch.setattr(ScriptlessSpawn.Process, "start", fail)
    with pytest.raises(UserError, match=r"Broken pipe.*data\.workers=0") as caught:
        batches(crops_of(folder), StepSampler(0, 8, 3), workers=2)
    assert caught.value.exit_code == 1
    gc.collect()  # what torch has half made must end without a traceback


@pytest.mark.parametrize("start", [1, 5, 7])
def test_starting_at_a_step_gives_what_the_whole_run_gives_there(folder: Path, start: int) -> None:
    whole = pixels_of(crops_of(folder), StepSampler(0, 8, 2))
    assert torch.equal(pixels_of(crops_of(folder), StepSampler(start, 8, 2)), whole[start:])


def test_two_ranks_together_see_what_one_rank_sees() -> None:
    alone = list(StepSampler(5, 9, 4))
    ranks = [list(StepSampler(5, 9, 4, rank, 2)) for rank in (0, 1)]
    assert alone[0] == [20, 21, 22, 23]
    assert ranks[1][0] == [22, 23]
    assert [first + second for first, second in zip(*ranks, strict=True)] == alone


def test_sampler_knows_its_length() -> None:
    assert len(StepSampler(3, 10, 4)) == len(list(StepSampler(3, 10, 4))) == 7


def test_every_epoch_shows_every_photo_once_in_a_new_order(folder: Path) -> None:
    crops = crops_of(folder)
    count = len(crops.photos.training)
    epochs = [
        [crops.photo_of(epoch * count + place) for place in range(count)] for epoch in range(5)
    ]
    assert count == 9
    for epoch in epochs:
        assert sorted(epoch) == crops.photos.training
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_another_seed_gives_another_order_and_other_crops(folder: Path) -> None:
    first, second = crops_of(folder, seed=1), crops_of(folder, seed=2)
    assert [first.photo_of(k) for k in range(9)] != [second.photo_of(k) for k in range(9)]
    one = only(folder, folder / "photo-01.png")
    crops = [Crops(one, seed=seed, size=16, scale=(0.5, 1.0), flip=False) for seed in (1, 2)]
    assert not torch.equal(crops[0][0].pixels, crops[1][0].pixels)  # type: ignore[arg-type]


def test_largest_seed_works(folder: Path) -> None:
    assert crops_of(folder, seed=2**63 - 1)[0].pixels is not None


def test_all_photos_are_used_equally_often(folder: Path) -> None:
    crops = crops_of(folder)
    used = Counter(crops.photo_of(k) for k in range(90))
    assert set(used.values()) == {10}


# --- Crops --------------------------------------------------------------------------------------


def pixels_to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


class Drawn(np.random.Generator):
    """A generator whose numbers were written by hand."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = numbers

    def random(self, *unused: object, **also_unused: object) -> np.ndarray:  # type: ignore[override]
        return np.array(self.numbers)


@pytest.mark.parametrize(
    ("numbers", "scale", "left", "top", "side"),
    [
        # side = (least + (most - least) * n0) * shorter; left = n1 * rest; top = n2 * rest
        ((0.0, 0.0, 0.0, 0.9), (0.5, 1.0), 0, 0, 10),
        ((1.0, 0.5, 0.0, 0.9), (0.5, 1.0), 10, 0, 20),
        ((0.0, 1.0, 1.0, 0.9), (0.5, 0.5), 30, 10, 10),
        ((0.4, 0.2, 0.5, 0.9), (0.5, 1.0), 5.2, 3, 14),
    ],
)
def test_crop_lies_where_its_four_numbers_put_it(
    numbers: tuple[float, ...],
    scale: tuple[float, float],
    left: float,
    top: float,
    side: float,
) -> None:
    # Red is the column and green the row, so that a crop says where it comes from.
    columns, rows = np.meshgrid(np.arange(40), np.arange(20))
    image = pixels_to_image(np.stack([columns * 4, rows * 4, columns * 0], axis=-1))
    crop = data.random_crop(image, 10, scale=scale, flip=True, rng=Drawn(*numbers))
    # Pixel i of the crop has its middle at left + (i + 0.5) * side / 10.
    middles = np.arange(10) * side / 10 + (side / 10 - 1) / 2
    found = np.asarray(crop, dtype=float)
    inner = slice(2, -2)  # interpolation bends a ramp at the edges
    assert np.abs(found[5, inner, 0] - 4 * (left + middles)[inner]).max() <= 1
    assert np.abs(found[inner, 5, 1] - 4 * (top + middles)[inner]).max() <= 1


@pytest.mark.parametrize(("number", "is_mirrored"), [(0.49, True), (0.51, False)])
def test_fourth_number_decides_about_mirroring(number: float, is_mirrored: bool) -> None:
    image = draw_photo(1, (16, 16))
    crop = data.random_crop(image, 16, scale=FULL, flip=True, rng=Drawn(0, 0, 0, number))
    expected = np.asarray(image)[:, ::-1] if is_mirrored else np.asarray(image)
    assert np.array_equal(np.asarray(crop), expected)


def test_flip_false_never_mirrors_and_changes_nothing_else(folder: Path) -> None:
    mirrored = 0
    plain, flipped = crops_of(folder, flip=False), crops_of(folder, flip=True)
    for k in range(20):
        without, with_flip = plain[k].pixels, flipped[k].pixels
        assert without is not None
        assert with_flip is not None
        if not torch.equal(without, with_flip):
            assert torch.equal(without.flip(-1), with_flip)
            mirrored += 1
    assert 4 <= mirrored <= 16


def test_crops_grow_from_a_sample_on_and_show_the_same(folder: Path) -> None:
    small, large, growing = crops_of(folder), crops_of(folder, size=48), crops_of(folder)
    growing.growth = (5, 48)
    for k in range(10):
        expected = (large if k >= 5 else small)[k].pixels
        found = growing[k].pixels
        assert found is not None
        assert expected is not None
        assert torch.equal(found, expected)


def test_smaller_crop_scale_shows_less_of_the_photo(folder: Path) -> None:
    columns = np.broadcast_to(np.arange(160)[None, :, None], (160, 160, 3))
    pixels_to_image(columns).save(folder / "ramp.png")
    photos = only(folder, folder / "ramp.png")

    def ranges(scale: tuple[float, float]) -> list[int]:
        crops = Crops(photos, seed=1, size=16, scale=scale, flip=False)
        found = [crops[k].pixels for k in range(10)]
        return [int(crop.max()) - int(crop.min()) for crop in found if crop is not None]

    assert min(ranges(FULL)) > 140
    assert max(ranges((0.1, 0.2))) < 40


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 7), (7, 1), (15, 16), (1, 5000), (5000, 1), (3, 65_535)]
)
def test_tiny_and_thin_photos_give_crops_of_the_full_size(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "odd.png"
    Image.new("RGB", size, (10, 200, 30)).save(path)
    crops = Crops(only(tmp_path, path), seed=1, size=32, scale=(0.5, 1.0), flip=True)
    for k in range(20):
        pixels = crops[k].pixels
        assert pixels is not None
        assert pixels.shape == (3, 32, 32)
        assert pixels.reshape(3, -1).unique(dim=1).tolist() == [[10], [200], [30]]
    # The whole thin photo resized to 256 pixels would be 5000 * 256 * 256 pixels.
    assert data.read_validation_photos([path], 256).shape == (1, 3, 256, 256)


# --- Photos that cannot be read -----------------------------------------------------------------


def test_unreadable_photo_is_replaced_by_the_same_one_every_time(folder: Path) -> None:
    broken = folder / "photo-01.png"
    broken.write_bytes(b"")
    crops = Crops(find_photos(folder, validation_count=1), seed=1, size=16, scale=FULL, flip=False)
    assert broken in crops.photos.training
    met = [k for k in range(30) if crops[k].unreadable]
    assert {crops.photo_of(k) for k in met} == {broken}
    for k in met:
        first, again = crops[k], crops[k]
        assert first.unreadable[0] == Unreadable("photo-01.png", f"{broken}: empty file", k)
        assert first.pixels is not None
        assert torch.equal(first.pixels, again.pixels)  # type: ignore[arg-type]


def test_photo_that_vanishes_during_the_run_is_skipped(folder: Path) -> None:
    crops = crops_of(folder)
    gone = crops.photo_of(0)
    gone.unlink()
    assert crops[0].unreadable[0] == Unreadable(gone.name, f"{gone}: not found", 0)
    assert crops[0].pixels is not None


def test_sample_without_any_readable_photo_has_no_pixels(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"<html>")
    sample = crops_of(folder)[0]
    assert sample.pixels is None
    assert len(sample.unreadable) == 21


def streamed(
    crops: Crops, sampler: StepSampler, path: Path, warn: Callable[[str], None]
) -> Iterator[torch.Tensor]:
    count = len(crops.photos.training)
    listed = UnreadableList.open(path, num_photos=count, max_share=1.0, before_sample=0)

    def on_batch(batch: Batch) -> None:
        listed.report(batch.unreadable, warn, is_fatal=batch.is_empty)

    return data.stream_photos(crops, sampler, on_batch, workers=0, pin_memory=False)


def test_streamed_photos_are_those_of_the_batches(folder: Path, tmp_path: Path) -> None:
    crops, sampler = crops_of(folder), StepSampler(2, 6, 3)
    said: list[str] = []
    found = list(streamed(crops, sampler, tmp_path / "list.jsonl", said.append))
    assert torch.equal(torch.stack(found), pixels_of(crops, sampler))
    assert torch.stack(found).shape == (4, 3, 3, 16, 16)
    assert said == []


def test_ten_unreadable_photos_of_a_stream_are_named(tmp_path: Path) -> None:
    crops = crops_of(write_photos(tmp_path / "photos", 20))
    broken = crops.photos.training[:12]
    for path in broken:
        path.write_bytes(b"")
    said: list[str] = []
    listed = tmp_path / "list.jsonl"
    # Within the first epoch each photo comes up once, and some of them again as a replacement.
    assert len(list(streamed(crops, StepSampler(0, 17, 1), listed, said.append))) == 17
    assert len(listed.read_text().splitlines()) == 12
    assert set(said[:10]) < {f"skipping {path}: empty file" for path in broken}
    assert said[10:] == [f"more will only be listed in {listed}"]


def test_stream_that_ends_early_says_what_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*unused: object, **options: object) -> Iterator[Batch]:
        yield Batch(torch.zeros(1), [])
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.\nMore of it.")

    monkeypatch.setattr(data, "load_batches", killed)
    photos = streamed(crops_of(folder), StepSampler(0, 3, 1), tmp_path / "list.jsonl", print)
    assert next(photos).numel() == 1
    with pytest.raises(UserError) as caught:
        next(photos)
    message = str(caught.value)
    assert "DataLoader worker (pid 7) is killed by signal: Killed." in message
    assert "More of it" not in message
    for remedy in ("data.workers=0", "--shm-size", "resumes from the last checkpoint"):
        assert remedy in message
    assert caught.value.exit_code == 1


# --- Validation photos and workers --------------------------------------------------------------


def test_unreadable_validation_photos_are_told_and_left_out(folder: Path) -> None:
    paths = sorted(folder.iterdir())[:4]
    paths[0].write_bytes(b"")
    said: list[str] = []
    crops = data.read_validation_photos(paths, 16, num_photos=2, on_skipped=said.append)
    assert crops.shape == (2, 3, 16, 16)
    assert crops.dtype == torch.uint8
    assert said == [f"skipping {paths[0]}: empty file"]


def test_validation_photos_of_which_none_can_be_used_are_told(folder: Path, tmp_path: Path) -> None:
    paths = sorted(folder.iterdir())[:2]
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(UserError) as caught:
        data.read_validation_photos(paths, 16)
    assert str(caught.value) == (
        f"none of the 2 validation photos can be read, the first one: {paths[0]}: empty file. "
        "Replace or remove them"
    )
    made = tmp_path / "made.png"
    write_picture(made, draw_photo(1))
    with pytest.raises(UserError) as caught:
        data.read_validation_photos([made, paths[0]], 16, takes_results=False)
    assert str(caught.value) == (
        f"none of the 2 validation photos can be used, the first one: {made}: a result of "
        "fast-style, not a photo. Add photos, or take results in with data.include_results=true"
    )


@pytest.mark.parametrize(
    ("workers", "device", "number"), [(0, "cuda", 0), (3, "cpu", 3), ("auto", "cpu", 1)]
)
def test_workers_are_what_the_setting_says(workers: int | str, device: str, number: int) -> None:
    assert data.resolve_workers(workers, device) == number


def test_gpu_gets_up_to_eight_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert data.resolve_workers("auto", "cuda") == 8


def test_training_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    found = [data.resolve_workers("auto", "cuda", num_trainers=count) for count in (1, 4, 32)]
    assert found == [8, 4, 1]
    assert data.resolve_workers(3, "cuda", num_trainers=4) == 3


def test_with_a_cache_fewer_workers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    found = [
        data.resolve_workers(workers, device, cached=True)
        for workers, device in (("auto", "cuda"), ("auto", "cpu"), (3, "cpu"))
    ]
    assert found == [4, 0, 3]


def test_result_among_the_photos_is_replaced_and_listed_as_such(folder: Path) -> None:
    photos = find_photos(folder, validation_count=1)
    made = photos.training[0]
    write_picture(made, read_photo(made))
    crops = Crops(photos, seed=1, size=16, scale=FULL, flip=False)
    met = [crops[k].unreadable for k in range(30) if crops.photo_of(k) == made]
    assert met
    reason = f"{made}: a result of fast-style, not a photo"
    for unreadable in met:
        assert unreadable[0]._replace(sample=0) == Unreadable(made.name, reason, 0, is_result=True)
    taken = Crops(photos._replace(takes_results=True), seed=1, size=16, scale=FULL, flip=False)
    assert not any(taken[k].unreadable for k in range(30))


# --- Shared memory ------------------------------------------------------------------------------

MB = 1_000_000


@pytest.fixture
def shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Sets the free bytes of shared memory."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(data, "_SHARED_MEMORY", tmp_path)

    def set_free(num_bytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=num_bytes))

    return set_free


@pytest.mark.parametrize(
    ("workers", "free_mb", "num_trainers", "fitting"),
    [
        (2, 10, 1, 2),  # 2 x 4 ahead, one trained on, one on its way
        (2, 9, 1, 1),
        (2, 6, 1, 1),
        (2, 5, 1, 0),
        (2, 0, 1, 0),
        (256, 64, 1, 15),
        (2, 20, 2, 2),
        (2, 19, 2, 1),
        (0, 0, 1, 0),
    ],
)
def test_as_many_workers_as_shared_memory_holds_batches_of(
    shared_memory: Callable[[int], None],
    workers: int,
    free_mb: int,
    num_trainers: int,
    fitting: int,
) -> None:
    shared_memory(free_mb * MB)
    said: list[str] = []
    found = data.fit_shared_memory(
        workers, batch_bytes=MB, num_trainers=num_trainers, say=said.append
    )
    assert found == fitting
    assert len(said) == (fitting < workers)


def test_fewer_workers_are_told_with_what_they_need(
    shared_memory: Callable[[int], None], tmp_path: Path
) -> None:
    said: list[str] = []
    shared_memory(64 * MB)
    assert data.fit_shared_memory(8, batch_bytes=6 * MB, say=said.append) == 2
    shared_memory(0)
    assert data.fit_shared_memory(1, batch_bytes=MB, say=said.append) == 0
    assert said == [
        "data.workers: 2 in place of 8: the batches of 8 need 204.0 MB of shared memory, and "
        f"{tmp_path} has 64.0 MB free; a container gets more by a larger --shm-size",
        "data.workers: 0 in place of 1, so the training process decodes photos itself: the "
        f"batches of 1 need 6.0 MB of shared memory, and {tmp_path} has 0.0 MB free; a container "
        "gets more by a larger --shm-size",
    ]


def test_missing_shared_memory_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(data, "_SHARED_MEMORY", tmp_path / "none")
    assert data.fit_shared_memory(3, batch_bytes=1, say=ignore) == 0


def test_other_systems_have_no_such_limit(
    monkeypatch: pytest.MonkeyPatch, shared_memory: Callable[[int], None]
) -> None:
    shared_memory(0)
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        assert data.fit_shared_memory(3, batch_bytes=MB, say=ignore) == 3
