"""Whether a photo goes through the network as a whole, in bands, or not at all.

`plan_photo` and `plan_batch` are pure: they estimate the memory from sizes and compare it with a
budget. `measure_budget` measures the budget. A photo that does not fit is refused beforehand,
because the system's out-of-memory killer ends a process without a message.

How bands are computed is in `networks.streaming`, which also estimates their memory.
"""

import math
import os
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from fast_style.core.errors import printable
from fast_style.core.files import free_bytes, size_in_words
from fast_style.core.free_memory import available_bytes, limit_remedy
from fast_style.networks.streaming import (
    SHORTEST_BAND,
    band_bytes,
    highest_band,
    storage_bytes,
)
from fast_style.settings.fields import SMALLEST_SIDE
from fast_style.stylizing.copies import copy_sides, shrunk_size

# Peak memory of one photo in float32, per pixel: a constant, and a part for each channel of
# the first convolution. No less than any row that benchmarks/memory.py measured on a CPU, with
# freed memory kept and without (docs/performance.md).
_BYTES_PER_PIXEL = 280
_BYTES_PER_PIXEL_AND_WIDTH = 13
# An H100 with torch 2.11 took 669 bytes for each of 4096 x 4096 pixels, 737 of 512 x 512.
_CUDA_FACTOR = 1.2
# Compiled by torch 2.14, a CPU took 733 bytes for each of 1024 x 1024 pixels at width 32, and 934
# of 2048 x 1024, where the estimate above is 696.
_COMPILED_FACTOR = 1.4
# Pillow keeps four bytes for each RGB pixel, and one for alpha.
_PHOTO_BYTES = 4
_RESULT_BYTES = 4
# With alpha, the result is converted to RGBA and encoded in memory, after the photo was freed.
_RESULT_BYTES_WITH_ALPHA = 8
# Higher bands gain no speed on a CPU (benchmarks/huge_photo.py); a GPU needs more work at a time.
_BAND_ROWS = 32
_BAND_BYTES_ON_GPU = 1_000_000_000
# Memory of the five or six pictures that wait for the network or the disk, with the copies that
# decoders and encoders make: bytes per pixel of one picture.
_WAITING_BYTES = 64
# Largest share of the budget that a small photo and the waiting pictures take together.
_SMALL_SHARE = 0.5
# Some of what the system calls available can be had only by swapping.
_USABLE_SHARE = 0.9


class PhotoSize(NamedTuple):
    """The size of a photo in pixels, and what else is in memory."""

    height: int
    width: int
    has_alpha: bool = False
    """Whether it has an alpha channel."""
    beside: float = 0
    """Bytes of other pictures that the budget does not include, for each pixel of this one."""


class NetSetup(NamedTuple):
    """What an estimate of memory depends on besides the photo.

    Attributes:
        net_width: channels of the first convolution.
        device: where the network runs.
        is_compiled: whether torch.compile made the code for whole photos.
    """

    net_width: int
    device: torch.device
    is_compiled: bool


class Budget(NamedTuple):
    """The numbers of bytes that may be used.

    Attributes:
        device_bytes: on the network's device.
        main_bytes: in main memory; the same memory if the device is the CPU.
        disk_bytes: in `scratch_folder`, for the features between the sweeps of bands.
        scratch_folder: where temporary files go; None if no such folder can be written.
        includes_photo: whether the decoded photo counts against the budget. It does with --memory;
            free memory is measured after the photo was allocated.
    """

    device_bytes: float
    main_bytes: float
    disk_bytes: float
    scratch_folder: Path | None
    includes_photo: bool


@dataclass(frozen=True)
class Whole:
    """The photo fits as a whole."""


class Bands(NamedTuple):
    """The photo fits in bands.

    Attributes:
        rows: the height of a band, as `stylize_in_bands` takes it.
        storage: the device or the folder that keeps the features between sweeps.
    """

    rows: int
    storage: torch.device | Path


class TooLarge(NamedTuple):
    """The photo does not fit.

    Attributes:
        max_side: the largest longer side at which the photo fits, in pixels; 0 if there is none.
        message: for the user: the bytes needed, the bytes available, and the size that fits.
    """

    max_side: int
    message: str


def plan_photo(
    photo: PhotoSize, net_setup: NetSetup, budget: Budget, *, strokes: int = 0
) -> Whole | Bands | TooLarge:
    """The plan for a photo: as a whole if it fits, else in bands, else too large.

    Args:
        photo: to plan for.
        net_setup: of the network.
        budget: the bytes that may be used.
        strokes: the longer side of the smallest copy that is painted before the photo; the size
            that fits has copies, too. 0: there are no copies.
    """
    plan = _plan_if_it_fits(photo, net_setup, budget)
    if plan is not None:
        return plan

    def fits(height: int, width: int) -> bool:
        smaller = photo._replace(height=height, width=width)
        sizes = [smaller]
        if strokes:  # of a smaller photo, copies are a larger share, until it needs none
            sides = copy_sides(max(height, width), strokes)
            sizes = sizes_to_paint(smaller._replace(beside=0), sides)
        return all(_plan_if_it_fits(size, net_setup, budget) is not None for size in sizes)

    height, width = photo.height, photo.width
    needed = _photo_bytes(photo, budget)
    needed += bands_bytes(photo, net_setup, band_rows=SHORTEST_BAND)
    features = storage_bytes(height, width, net_width=net_setup.net_width)
    max_side = _longest_side(height, width, fits)
    memory = size_in_words(min(budget.device_bytes, budget.main_bytes))
    disk = size_in_words(budget.disk_bytes)
    on_disk = "a folder for temporary files, but none can be written (set TMPDIR to one)"
    if budget.scratch_folder is not None:
        on_disk = f"{printable(budget.scratch_folder)}, where {disk} may be used"
    return TooLarge(
        max_side,
        f"{width} x {height} pixels do not fit in memory: about {size_in_words(needed)} are needed "
        f"there and {memory} may be used; {size_in_words(features)} more are needed there or in "
        f"{on_disk}; "
        + (f"--max-side {max_side} fits" if max_side else "not even one pixel fits")
        + limit_remedy(),
    )


def plan_batch(
    num_photos: int, height: int, width: int, net_setup: NetSetup, budget: Budget
) -> Whole | TooLarge:
    """The plan for a tensor of photos on the device: whole or too large, as it has no bands."""

    def needed(height: int, width: int) -> int:
        return num_photos * whole_bytes(height, width, net_setup)

    most = budget.device_bytes
    if needed(height, width) <= most:
        return Whole()
    max_side = _longest_side(height, width, lambda *size: needed(*size) <= most)
    photos = f"{num_photos} photos of " if num_photos > 1 else ""
    return TooLarge(
        max_side,
        f"{photos}{width} x {height} pixels do not fit in memory: about "
        f"{size_in_words(needed(height, width))} are needed and {size_in_words(most)} may be used; "
        + (f"a longer side of {max_side} pixels fits" if max_side else "not even one pixel fits"),
    )


def leaves_room_for_others(
    height: int, width: int, *, max_side: int | None, net_setup: NetSetup, budget: Budget
) -> bool:
    """Whether photos of this size may wait in memory while the network works on one of them.

    Args:
        height: of the photo in its file.
        width: of the photo in its file.
        max_side: the longer side to which it is shrunk before the network; None for never.
        net_setup: of the network.
        budget: the bytes that may be used.
    """
    scale = 1 if max_side is None else min(1, max_side / max(height, width))
    needed = whole_bytes(math.ceil(scale * height), math.ceil(scale * width), net_setup)
    needed += _WAITING_BYTES * height * width
    return needed <= _SMALL_SHARE * min(budget.device_bytes, budget.main_bytes)


def whole_bytes(height: int, width: int, net_setup: NetSetup) -> int:
    """Estimated peak memory of one photo as a whole, on the network's device."""
    num_pixels = max(SMALLEST_SIDE, height) * max(SMALLEST_SIDE, width)  # padded to these
    per_pixel: float = _BYTES_PER_PIXEL + _BYTES_PER_PIXEL_AND_WIDTH * net_setup.net_width
    if net_setup.is_compiled:
        per_pixel *= _COMPILED_FACTOR
    on_cuda = _CUDA_FACTOR if net_setup.device.type == "cuda" else 1
    return int(num_pixels * per_pixel * on_cuda)


def bands_bytes(photo: PhotoSize, net_setup: NetSetup, *, band_rows: int) -> int:
    """Estimated peak memory of a photo in bands: a band and the result, without stored features."""
    height, width = photo.height, photo.width
    band = band_bytes(height, width, net_width=net_setup.net_width, band_rows=band_rows)
    return _result_bytes(photo) + band


def _plan_if_it_fits(photo: PhotoSize, net_setup: NetSetup, budget: Budget) -> Whole | Bands | None:
    needed = _photo_bytes(photo, budget) + whole_bytes(photo.height, photo.width, net_setup)
    return Whole() if needed <= budget.device_bytes else _plan_bands(photo, net_setup, budget)


def _plan_bands(photo: PhotoSize, net_setup: NetSetup, budget: Budget) -> Bands | None:
    """The highest bands that still gain speed; features are kept in the fastest place with room."""
    size, net_width = (photo.height, photo.width), net_setup.net_width
    is_gpu = net_setup.device.type != "cpu"
    main = budget.main_bytes - _photo_bytes(photo, budget) - _result_bytes(photo)
    if main < 0:
        return None
    device = budget.device_bytes if is_gpu else main
    features = storage_bytes(*size, net_width=net_width)
    # Fastest first, with the bytes that are left for a band on the device.
    places: list[tuple[torch.device | Path, float]] = [(net_setup.device, device - features)]
    if is_gpu and features <= main:
        places.append((torch.device("cpu"), device))
    if budget.scratch_folder is not None and features <= budget.disk_bytes:
        places.append((budget.scratch_folder, device))
    enough = band_bytes(*size, net_width=net_width, band_rows=_BAND_ROWS)
    if is_gpu:
        enough = max(enough, _BAND_BYTES_ON_GPU)
    for place, left in places:
        rows = highest_band(*size, net_width=net_width, most_bytes=min(left, enough))
        if rows > 0:
            return Bands(rows, place)
    return None


def _photo_bytes(photo: PhotoSize, budget: Budget) -> int:
    own = _PHOTO_BYTES + photo.has_alpha if budget.includes_photo else 0
    return math.ceil((own + photo.beside) * photo.height * photo.width)


def sizes_to_paint(photo: PhotoSize, sides: Sequence[int]) -> list[PhotoSize]:
    """The sizes of a photo's copies, and its own; each has beside it what the others take.

    Args:
        photo: nothing beside it.
        sides: the longer sides of the copies, from `copies.copy_sides`.
    """
    if not sides:
        return [photo]
    height, width, has_alpha, _ = photo
    num_pixels = height * width
    shares = [(side / max(height, width)) ** 2 for side in sides]  # of the photo's pixels
    copies = (_PHOTO_BYTES + _RESULT_BYTES) * sum(shares) * num_pixels
    photo_bytes = (_PHOTO_BYTES + has_alpha) * num_pixels
    # The network gets a photo of the same size, with what was changed in its copy.
    whole = photo._replace(beside=_PHOTO_BYTES + copies / num_pixels)
    return [
        *(
            PhotoSize(
                *shrunk_size(height, width, side),
                beside=(photo_bytes + copies) / (share * num_pixels),
            )
            for side, share in zip(sides, shares, strict=True)
        ),
        whole,
    ]


def _result_bytes(photo: PhotoSize) -> int:
    per_pixel = _RESULT_BYTES_WITH_ALPHA if photo.has_alpha else _RESULT_BYTES
    return photo.height * photo.width * per_pixel


def _longest_side(height: int, width: int, fits: Callable[[int, int], bool]) -> int:
    """The largest longer side at which a shrunk photo fits, in pixels; 0 if there is none.

    A search, because the network pads short sides: a strip's shorter side stops shrinking first.
    """
    longer = max(height, width)

    def is_too_large(side: int) -> bool:
        # Rounded up, so never smaller than the size that `fit_longer_side` gives.
        return not fits(-(-height * side // longer), -(-width * side // longer))

    return bisect_left(range(1, longer + 1), True, key=is_too_large)


# --- The budget ---------------------------------------------------------------------------------


def measure_budget(device: torch.device, *, limit_bytes: int | None) -> Budget:
    """The bytes that may be used now.

    Args:
        device: where the network runs.
        limit_bytes: what --memory allows, on a GPU and in main memory each; None for all that is
            free.
    """
    limit = math.inf if limit_bytes is None else limit_bytes

    def usable_bytes(place: torch.device) -> float:
        available = available_bytes(place)
        return limit if available is None else min(limit, _USABLE_SHARE * available)

    device_bytes = usable_bytes(device)
    folder = None
    with suppress(FileNotFoundError):  # most photos need none
        folder = scratch_folder()
    return Budget(
        device_bytes=device_bytes,
        main_bytes=device_bytes if device.type == "cpu" else usable_bytes(torch.device("cpu")),
        disk_bytes=0 if folder is None else _USABLE_SHARE * free_bytes(folder),
        scratch_folder=folder,
        includes_photo=limit_bytes is not None,
    )


def scratch_folder() -> Path:
    """The folder for huge temporary files: TMPDIR if it is set, else /var/tmp if it is writable.

    /tmp lies in the memory of many systems. /var/tmp is meant for large files by the Filesystem
    Hierarchy Standard 3.0, section 5.15.

    Raises:
        FileNotFoundError: no folder can be written.
    """
    is_chosen = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    on_disk = Path("/var/tmp")
    if not is_chosen and os.access(on_disk, os.W_OK | os.X_OK):
        return on_disk
    return Path(tempfile.gettempdir())
