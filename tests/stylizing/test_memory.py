"""Claims about `memory`: answers known by hand, from the constants that were measured.

A network of width 1 counts 280 + 13 = 293 bytes per pixel on a CPU. Its band of a photo that is 400
pixels high takes 8,013,000 bytes, and 4 * 106 * 400 = 169,600 for each of its rows and 8 more: with
4 rows, the lowest, 10,048,200.
"""

import errno
import math
import os
import tempfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from fast_style.pictures.pixels import fit_longer_side
from fast_style.stylizing import memory
from fast_style.stylizing.copies import copy_sides
from fast_style.stylizing.memory import (
    Bands,
    Budget,
    NetSetup,
    PhotoSize,
    TooLarge,
    Whole,
    bands_bytes,
    leaves_room_for_others,
    measure_budget,
    plan_batch,
    plan_photo,
    scratch_folder,
    sizes_to_paint,
    whole_bytes,
)

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
MPS = torch.device("mps")
SCRATCH = Path("/scratch")
TINY = NetSetup(net_width=1, device=CPU, is_compiled=False)
TINY_ON_CUDA = TINY._replace(device=CUDA)


def budget(
    device: float, *, main: float | None = None, disk: float = 1e12, includes_photo: bool = False
) -> Budget:
    """On a CPU, main memory is the device's."""
    return Budget(device, device if main is None else main, disk, SCRATCH, includes_photo)


# --- Photos as a whole --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photo", "net_setup", "includes_photo", "needed"),
    [
        (PhotoSize(100, 200), TINY, False, 20_000 * 293),
        (PhotoSize(200, 100, has_alpha=True), TINY, False, 20_000 * 293),
        (PhotoSize(100, 200), TINY, True, 20_000 * (293 + 4)),
        (PhotoSize(100, 200, has_alpha=True), TINY, True, 20_000 * (293 + 5)),
        (PhotoSize(100, 200, beside=2.5), TINY, True, 20_000 * (293 + 4) + 50_000),
        (PhotoSize(100, 200), NetSetup(32, CPU, False), False, 20_000 * 696),
        (PhotoSize(100, 200), NetSetup(32, MPS, False), False, 20_000 * 696),
        (PhotoSize(100, 200), NetSetup(40, CPU, True), False, 20_000 * 1120),  # 800 * 1.4
        (PhotoSize(100, 200), NetSetup(40, CUDA, False), False, 20_000 * 960),  # 800 * 1.2
        (PhotoSize(100, 200), NetSetup(40, CUDA, True), False, 20_000 * 1344),  # 800 * 1.4 * 1.2
        (PhotoSize(1, 100), TINY, False, 1600 * 293),  # the network pads sides to 16 pixels
    ],
)
def test_photo_is_whole_where_its_estimate_fits_to_the_byte(
    photo: PhotoSize, net_setup: NetSetup, includes_photo: bool, needed: int
) -> None:
    plenty = budget(needed, includes_photo=includes_photo)
    assert plan_photo(photo, net_setup, plenty) == Whole()
    short = budget(needed - 1, main=1e12, includes_photo=includes_photo)
    assert plan_photo(photo, net_setup, short) != Whole()
    if not includes_photo:
        assert whole_bytes(photo.height, photo.width, net_setup) == needed


def test_batch_takes_as_much_as_its_photos() -> None:
    needed = 3 * 20_000 * 293
    # A tensor is there already, whatever limits the memory.
    for includes_photo in (False, True):
        enough = budget(needed, includes_photo=includes_photo)
        assert plan_batch(3, 100, 200, TINY, enough) == Whole()
        short = budget(needed - 1, includes_photo=includes_photo)
        assert isinstance(plan_batch(3, 100, 200, TINY, short), TooLarge)


# --- Bands --------------------------------------------------------------------------------------


# Of 500 x 400 pixels: the result takes 800,000 bytes, the features between sweeps 400,000.
def test_copies_count_beside_the_photo_and_it_beside_them() -> None:
    photo = PhotoSize(1000, 2000, has_alpha=True)
    assert sizes_to_paint(photo, []) == [photo]
    small, middle, whole = sizes_to_paint(photo, [500, 1000])
    assert small[:3] == (250, 500, False)
    assert middle[:3] == (500, 1000, False)
    copies = 8 * (250 * 500 + 500 * 1000)
    assert small.beside * 250 * 500 == pytest.approx(5 * 2_000_000 + copies)
    assert middle.beside * 500 * 1000 == pytest.approx(5 * 2_000_000 + copies)
    assert whole == photo._replace(beside=4 + copies / 2_000_000)


PHOTO = PhotoSize(400, 500)
TRANSPARENT = PHOTO._replace(has_alpha=True)
BAND = 10_048_200
ROW = 169_600


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        (1_200_000 + BAND + 28 * ROW, Bands(32, CPU)),
        (58_599_999, Bands(32, CPU)),  # higher ones are no faster
        (1_200_000 + BAND + 28 * ROW - 1, Bands(28, CPU)),
        (1_200_000 + BAND, Bands(4, CPU)),
        (1_200_000 + BAND - 1, Bands(4, SCRATCH)),
        (800_000 + BAND, Bands(4, SCRATCH)),
        (800_000 + BAND - 1, None),
        (100_000, None),
    ],
)
def test_bands_on_a_cpu_share_memory_with_features_and_result(
    available: int, expected: Bands | None
) -> None:
    assert bands_bytes(PHOTO, TINY, band_rows=4) == 800_000 + BAND
    plan = plan_photo(PHOTO, TINY, budget(available))
    assert isinstance(plan, TooLarge) if expected is None else plan == expected


@pytest.mark.parametrize(
    ("photo", "includes_photo", "more"),
    [
        (PHOTO, True, 800_000),
        (TRANSPARENT, False, 800_000),  # 8 bytes per pixel of the result
        (TRANSPARENT, True, 800_000 + 1_000_000),
    ],
)
def test_alpha_and_a_limited_photo_take_more(
    photo: PhotoSize, includes_photo: bool, more: int
) -> None:
    needed = 1_200_000 + BAND + more
    enough = budget(needed, includes_photo=includes_photo)
    assert plan_photo(photo, TINY, enough) == Bands(4, CPU)
    short = budget(needed - 1, includes_photo=includes_photo)
    assert plan_photo(photo, TINY, short) == Bands(4, SCRATCH)


def test_features_go_to_a_disk_only_where_it_has_room_for_them() -> None:
    short = 1_200_000 + BAND - 1
    assert plan_photo(PHOTO, TINY, budget(short, disk=400_000)) == Bands(4, SCRATCH)
    assert isinstance(plan_photo(PHOTO, TINY, budget(short, disk=399_999)), TooLarge)


@pytest.mark.parametrize(
    ("device", "main", "expected"),
    [
        # As many rows as memory allows, up to 1 GB: more than the photo has here.
        (400_000 + BAND + 232 * ROW, 1e9, Bands(236, CUDA)),
        (400_000 + BAND, 1e9, Bands(4, CUDA)),
        (400_000 + BAND - 1, 1e9, Bands(4, CPU)),
        (BAND, 1_200_000, Bands(4, CPU)),  # the result and the features
        (BAND, 1_199_999, Bands(4, SCRATCH)),
        (BAND, 800_000, Bands(4, SCRATCH)),
        (BAND, 799_999, None),  # no room for the result
        (BAND - 1, 1e9, None),
    ],
)
def test_bands_on_a_gpu_keep_features_in_the_fastest_place_that_has_room(
    device: int, main: float, expected: Bands | None
) -> None:
    plan = plan_photo(PHOTO, TINY_ON_CUDA, budget(device, main=main))
    assert isinstance(plan, TooLarge) if expected is None else plan == expected


def test_bands_on_a_gpu_grow_to_a_gigabyte() -> None:
    photo = PhotoSize(20_000, 20_000)
    plan = plan_photo(photo, TINY_ON_CUDA, budget(80e9, main=1e12))
    # (1e9 - 8,013,000) / (4 * 106 * 20,000) = 116.98 rows, 8 of them around the band
    assert plan == Bands(108, CUDA)


def test_compiling_does_not_change_bands_which_run_uncompiled() -> None:
    available = budget(1_200_000 + BAND)
    compiled = plan_photo(PHOTO, TINY._replace(is_compiled=True), available)
    assert compiled == plan_photo(PHOTO, TINY, available) == Bands(4, CPU)


# --- Refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "max_side", "message"),
    [
        (
            # A band takes 17 MB: 19 MB are left for the result, 4 bytes per pixel.
            plan_photo(PhotoSize(3000, 4000), TINY, budget(36e6, disk=900e9)),
            2483,
            "4000 x 3000 pixels do not fit in memory: about 71.3 MB are needed there and 36.0 MB "
            "may be used; 24.0 MB more are needed there or in /scratch, where 900.0 GB may be "
            "used; --max-side 2483 fits",
        ),
        (
            # 2 bytes per pixel lie between sweeps.
            plan_photo(PhotoSize(3000, 4000), TINY, budget(63e6, disk=18e6)),
            3461,
            "4000 x 3000 pixels do not fit in memory: about 71.3 MB are needed there and 63.0 MB "
            "may be used; 24.0 MB more are needed there or in /scratch, where 18.0 MB may be used; "
            "--max-side 3461 fits",
        ),
        (
            # Main memory is too small for the result, which is not counted of a whole photo. Of
            # those, 2.84 million pixels fit on the GPU, at 351.6 bytes.
            plan_photo(PhotoSize(3000, 4000), TINY_ON_CUDA, budget(1e9, main=1e6)),
            1946,
            "4000 x 3000 pixels do not fit in memory: about 71.3 MB are needed there and 1.0 MB "
            "may be used; 24.0 MB more are needed there or in /scratch, where 1,000.0 GB may be "
            "used; --max-side 1946 fits",
        ),
        (
            plan_photo(PhotoSize(300, 400), TINY, budget(1000)),
            0,
            "400 x 300 pixels do not fit in memory: about 10.0 MB are needed there and 0.0 MB "
            "may be used; 0.2 MB more are needed there or in /scratch, where 1,000.0 GB may be "
            "used; not even one pixel fits",
        ),
        (
            # 200,000 pixels are 516.4 x 387.3 of 4:3.
            plan_batch(1, 3000, 4000, TINY, budget(200_000 * 293)),
            516,
            "4000 x 3000 pixels do not fit in memory: about 3.5 GB are needed and 58.6 MB may be "
            "used; a longer side of 516 pixels fits",
        ),
        (
            plan_batch(2, 100, 200, TINY, budget(0)),
            0,
            "2 photos of 200 x 100 pixels do not fit in memory: about 11.7 MB are needed and 0.0 "
            "MB may be used; not even one pixel fits",
        ),
    ],
)
def test_refusal_says_what_is_needed_what_may_be_used_and_what_fits(
    plan: Whole | Bands | TooLarge, max_side: int, message: str
) -> None:
    assert plan == TooLarge(max_side, message)


@pytest.mark.slow
@pytest.mark.parametrize(("available", "disk"), [(36e6, 1e12), (63e6, 18e6), (9e6, 1e12)])
@pytest.mark.parametrize("includes_photo", [False, True])
def test_photo_of_the_size_that_fits_does_and_hardly_a_larger_one(
    available: float, disk: float, includes_photo: bool
) -> None:
    photo = Image.new("L", (4000, 3000))
    limits = budget(available, disk=disk, includes_photo=includes_photo)

    def plan(side: int) -> Whole | Bands | TooLarge:
        fitted = fit_longer_side(photo, side)
        return plan_photo(PhotoSize(fitted.height, fitted.width), TINY, limits)

    refused = plan(4000)
    assert isinstance(refused, TooLarge)
    assert not isinstance(plan(refused.max_side), TooLarge)
    assert isinstance(plan(refused.max_side + 4), TooLarge)  # a little is left to rounding


@pytest.mark.parametrize("strokes", [512, 1024, 1536, 3000])
@pytest.mark.parametrize("available", [20e6, 60e6, 100e6, 150e6, 300e6])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_photo_of_the_size_that_fits_does_with_its_copies(
    strokes: int, available: float, has_alpha: bool
) -> None:
    photo = Image.new("L", (12_000, 9000))
    limits = budget(available, disk=900e9, includes_photo=True)

    def plans(side: int) -> list[Whole | Bands | TooLarge]:
        fitted = fit_longer_side(photo, side)
        sizes = sizes_to_paint(
            PhotoSize(fitted.height, fitted.width, has_alpha), copy_sides(side, strokes)
        )
        return [plan_photo(size, TINY, limits, strokes=strokes) for size in sizes]

    refused = plans(12_000)[-1]
    assert isinstance(refused, TooLarge)
    assert not any(isinstance(plan, TooLarge) for plan in plans(refused.max_side))


@pytest.mark.parametrize("size", [(900, 700), (3000, 40), (1, 5000), (7, 4000), (1000, 1000)])
@pytest.mark.parametrize("most_pixels", [300, 5_000, 20_000.5])
def test_tensor_of_the_size_that_fits_does_and_hardly_a_larger_one(
    size: tuple[int, int], most_pixels: float
) -> None:
    photo = Image.new("L", size)
    limits = budget(most_pixels * 293)

    def plan(side: int) -> Whole | TooLarge:
        fitted = fit_longer_side(photo, side)
        return plan_batch(1, fitted.height, fitted.width, TINY, limits)

    refused = plan(max(size))
    assert isinstance(refused, TooLarge)
    assert plan(refused.max_side) == Whole()
    larger = round(1.1 * refused.max_side) + 1  # a little is left to rounding
    assert isinstance(plan(larger), TooLarge)


# --- Photos that wait ---------------------------------------------------------------------------


def test_small_photos_take_half_of_the_memory_with_those_that_wait() -> None:
    def is_small(height: int, width: int, max_side: int | None = None) -> bool:
        return leaves_room_for_others(
            height, width, max_side=max_side, net_setup=TINY, budget=budget(0.9e9)
        )

    # 0.5 * 0.9 GB, at 293 + 64 bytes per pixel of this network, are 1.26 megapixels.
    assert is_small(1000, 1260)
    assert not is_small(1000, 1261)
    # 64 bytes per pixel of the file, and those of 640 x 640 pixels in the network
    assert is_small(2265, 2265, max_side=640)
    assert not is_small(2285, 2285, max_side=640)


def test_photos_wait_in_main_memory_too() -> None:
    for device, main in ((1e9, 1e6), (1e6, 1e9)):
        limits = budget(device, main=main)
        assert not leaves_room_for_others(
            100, 200, max_side=None, net_setup=TINY_ON_CUDA, budget=limits
        )


# --- The budget ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "limit", "expected"),
    [
        (CPU, None, (900, 900)),
        (CPU, 500, (500, 500)),
        (CUDA, None, (4500, 900)),
        (CUDA, 2000, (2000, 900)),  # as much on the GPU and in main memory each
        (MPS, None, (math.inf, 900)),  # nobody says what is free
        (MPS, 2000, (2000, 900)),
    ],
)
def test_budget_is_nine_tenths_of_what_is_free_or_a_lower_limit(
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    limit: int | None,
    expected: tuple[float, float],
) -> None:
    monkeypatch.setattr(
        memory, "available_bytes", lambda place: {CPU: 1000, CUDA: 5000, MPS: None}[place]
    )
    monkeypatch.setattr(memory, "free_bytes", lambda folder: 10_000)
    monkeypatch.setattr(memory, "scratch_folder", lambda: SCRATCH)
    assert measure_budget(device, limit_bytes=limit) == Budget(
        *expected, 9000, SCRATCH, includes_photo=limit is not None
    )


def test_folder_for_temporary_files_is_needed_by_what_does_not_fit_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in [...]")

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(tempfile, "gettempdir", fail)
    setup = NetSetup(32, CPU, is_compiled=False)
    budget = measure_budget(CPU, limit_bytes=100_000_000)
    assert plan_photo(PhotoSize(100, 100), setup, budget) == Whole()
    plan = plan_photo(PhotoSize(5000, 5000), setup, budget)
    assert isinstance(plan, TooLarge)
    assert "set TMPDIR" in plan.message
    assert f"--max-side {plan.max_side} fits" in plan.message


def test_huge_temporary_files_go_to_tmpdir_or_else_to_a_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", "/chosen")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/usual")
    assert scratch_folder() == Path("/usual")  # which knows TMPDIR
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path == Path("/var/tmp"))
    assert scratch_folder() == Path("/var/tmp")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert scratch_folder() == Path("/usual")
