"""A folder of photos as an endless sequence of training crops.

Sample k of a run (which photo, which crop, mirrored or not) is a function of (seed, k) alone: not
of workers, ranks or restarts. So there is no state to save, and resuming at step s is starting at
step s.
"""

import math
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from fast_style.core.errors import UserError
from fast_style.core.files import size_in_words
from fast_style.core.spawning import ScriptlessSpawn, end_with_parent
from fast_style.pictures.folders import Photos
from fast_style.pictures.pixels import center_crop, image_to_tensor
from fast_style.pictures.reading import PictureError, ResultError, read_photo
from fast_style.training.photo_cache import PhotoCache
from fast_style.training.unreadable import Unreadable, require_held_out
from fast_style.training.workers import WorkersLoader, no_more_photos

# What a random stream is for; keeps the streams of one seed apart.
_ORDER, _CROP, _REPLACEMENT = range(3)

# Photos tried in place of an unreadable one. If all of them are unreadable too, the run stops.
_MAX_REPLACEMENTS = 20
# Seconds without a batch after which the storage counts as dead.
_LOADER_TIMEOUT_S = 300
# Batches that each worker prepares ahead.
_PREFETCH = 4
# Where Linux keeps memory that processes share; 64 MB in a container, unless it is given more.
_SHARED_MEMORY = Path("/dev/shm")


class Sample(NamedTuple):
    """One crop, uint8 (3, S, S), or None if no readable photo was found for it.

    Channels last in memory, as in `Batch`: decoded photos and the network have this layout.
    """

    pixels: Tensor | None
    unreadable: list[Unreadable]


class Batch(NamedTuple):
    """Crops, uint8 (N, 3, S, S), and the unreadable photos that were met on the way."""

    photos: Tensor
    unreadable: list[Unreadable]

    @property
    def is_empty(self) -> bool:
        """Whether there are no crops, because no readable photo was found for one of them."""
        return self.photos.numel() == 0


# --- Pixels -------------------------------------------------------------------------------------


def read_validation_photos(
    photos: Sequence[Path],
    size: int,
    *,
    num_photos: int | None = None,
    takes_results: bool = True,
    on_skipped: Callable[[str], None] = lambda line: None,
) -> Tensor:
    """The center squares of the readable photos, uint8 (N, 3, size, size), in the given order.

    Args:
        photos: from `find_photos`.
        size: pixels of a square's side.
        num_photos: how many to take, the first readable ones; None takes all.
        takes_results: whether a result of this software is as good as a photo.
        on_skipped: called with a line about each photo that is not used.

    Raises:
        UserError: none can be used.
    """
    crops: list[Tensor] = []
    problems: list[PictureError] = []
    for path in photos:
        if len(crops) == num_photos:
            break
        try:
            photo = read_photo(path, takes_results=takes_results)
            crops.append(image_to_tensor(center_crop(photo, size)))
        except PictureError as error:
            problems.append(error)
            on_skipped(f"skipping {error}")
    if not crops:
        require_held_out(problems)
    return torch.stack(crops)


class _Square(NamedTuple):
    """A square part of a photo, in pixels of the photo."""

    left: float
    top: float
    side: float
    is_mirrored: bool


def _draw_square(
    width: int,
    height: int,
    *,
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
) -> _Square:
    draw = rng.random(4)
    side = (scale[0] + (scale[1] - scale[0]) * draw[0]) * min(width, height)
    left, top = draw[1] * (width - side), draw[2] * (height - side)
    return _Square(left, top, side, is_mirrored=bool(flip and draw[3] < 0.5))


def random_crop(
    image: Image.Image,
    size: int,
    *,
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
) -> Image.Image:
    """A square of random size and place, resized to (size, size), perhaps mirrored.

    Args:
        image: the photo; smaller ones are enlarged.
        size: pixels of the result's side.
        scale: least and greatest side of the square, as shares of the photo's shorter side.
        flip: mirror with probability 0.5.
        rng: four numbers are drawn from it, whatever the other arguments are.
    """
    square = _draw_square(image.width, image.height, scale=scale, flip=flip, rng=rng)
    # reducing_gap lets Pillow shrink by whole numbers first: faster, and no visible difference.
    crop = image.resize(
        (size, size),
        Image.Resampling.BICUBIC,
        box=(square.left, square.top, square.left + square.side, square.top + square.side),
        reducing_gap=3.0,
    )
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if square.is_mirrored else crop


def random_crop_of_pixels(
    pixels: NDArray[np.uint8],
    size: int,
    *,
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
) -> Tensor:
    """The same square as `random_crop`'s, moved to whole pixels: uint8 (3, size, size).

    torch's filter is Pillow's, in a fraction of the time (vector instructions), but it takes
    only squares of whole pixels.

    Args:
        pixels: the photo, (H, W, 3); only the square is read.
        size: pixels of the result's side.
        scale: see `random_crop`.
        flip: see `random_crop`.
        rng: see `random_crop`.
    """
    height, width, _ = pixels.shape
    square = _draw_square(width, height, scale=scale, flip=flip, rng=rng)
    side = max(1, round(square.side))
    left, top = min(round(square.left), width - side), min(round(square.top), height - side)
    # A copy: torch warns of memory that cannot be written to.
    part = torch.from_numpy(pixels[top : top + side, left : left + side].copy())
    part = part[None].permute(0, 3, 1, 2)  # (1, 3, side, side), channels last
    crop = F.interpolate(part, (size, size), mode="bicubic", antialias=True)[0]
    return crop.flip(-1) if square.is_mirrored else crop


def least_side(size: int, scale: tuple[float, float]) -> int:
    """The shorter side, in pixels, from which on no crop of a photo is enlarged to `size`."""
    return math.ceil(size / scale[0])


# --- The sequence -------------------------------------------------------------------------------


class Crops(Dataset[Sample]):
    """Sample k, for any k from 0: place k mod n of each epoch's own order, cropped at random.

    Args:
        photos: the photos; their training part is used.
        seed: of order and crops.
        size: pixels of a crop's side.
        scale: see `random_crop`.
        flip: see `random_crop`.
        growth: (sample, size): from that sample on, crops have that size; None: they do not grow.
        cache: holds the training photos decoded; None decodes them each time.
    """

    def __init__(
        self,
        photos: Photos,
        *,
        seed: int,
        size: int,
        scale: tuple[float, float],
        flip: bool,
        growth: tuple[int, int] | None = None,
        cache: PhotoCache | None = None,
    ) -> None:
        self.photos = photos
        self.seed = seed
        self.size = size
        self.scale = scale
        self.flip = flip
        self.growth = growth
        self.cache = cache

    def size_of(self, k: int) -> int:
        """Pixels of the side of sample k."""
        if self.growth is None or k < self.growth[0]:
            return self.size
        return self.growth[1]

    def __getitem__(self, k: int) -> Sample:
        unreadable: list[Unreadable] = []
        for attempt in range(_MAX_REPLACEMENTS + 1):
            path = self.photo_of(k, attempt)
            try:
                return Sample(self._crop(path, k), unreadable)
            except PictureError as error:
                name = self.photos.name_of(path)
                is_result = isinstance(error, ResultError)
                unreadable.append(Unreadable(name, str(error), k, is_result))
        return Sample(None, unreadable)

    def _crop(self, path: Path, k: int) -> Tensor:
        size = self.size_of(k)
        rng = np.random.default_rng((self.seed, _CROP, k))
        if self.cache is not None:
            return random_crop_of_pixels(
                self.cache.read(path), size, scale=self.scale, flip=self.flip, rng=rng
            )
        image = read_photo(
            path,
            shorter_side_at_least=least_side(size, self.scale),
            takes_results=self.photos.takes_results,
        )
        crop = random_crop(image, size, scale=self.scale, flip=self.flip, rng=rng)
        return torch.from_numpy(np.array(crop)).permute(2, 0, 1)

    def photo_of(self, k: int, attempt: int = 0) -> Path:
        """The photo of sample k, or its replacement after `attempt` unreadable ones."""
        count = len(self.photos.training)
        if attempt == 0:
            epoch, place = divmod(k, count)
            return self.photos.training[_order(self.seed, epoch, count)[place]]
        rng = np.random.default_rng((self.seed, _REPLACEMENT, k, attempt))
        return self.photos.training[int(rng.integers(count))]


@lru_cache(maxsize=2)  # around an epoch's end two orders are in use
def _order(seed: int, epoch: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


@dataclass(frozen=True)
class StepSampler:
    """For each step, the sample numbers of this rank's part of the global batch."""

    start_step: int
    end_step: int
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        assert self.batch_size % self.world_size == 0, (self.batch_size, self.world_size)

    def __len__(self) -> int:
        return self.end_step - self.start_step

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.world_size
        for step in range(self.start_step, self.end_step):
            first = step * self.batch_size + self.rank * share
            yield list(range(first, first + share))


# --- Loading ------------------------------------------------------------------------------------


def stream_photos(
    crops: Crops,
    sampler: StepSampler,
    on_batch: Callable[[Batch], None],
    *,
    workers: int,
    pin_memory: bool,
) -> Iterator[Tensor]:
    """The photos of every step of the sampler, uint8 (N, 3, S, S); unreadable ones are replaced.

    Args:
        crops: gives sample k for any k.
        sampler: which samples make a step.
        on_batch: called with each batch before its photos are yielded; may raise UserError.
        workers: processes that decode photos.
        pin_memory: for a GPU.

    Raises:
        UserError: no photos arrive any more, or `on_batch` raises it.
    """
    batches = load_batches(crops, sampler, workers=workers, pin_memory=pin_memory)
    for _ in range(len(sampler)):
        batch = _next_batch(batches)
        on_batch(batch)
        yield batch.photos


def _next_batch(batches: Iterator[Batch]) -> Batch:
    try:
        return next(batches)
    except (RuntimeError, OSError, EOFError) as error:
        if (found := no_more_photos(error)) is not None:
            raise found from None
        raise


def load_batches(
    crops: Crops, sampler: StepSampler, *, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Batches for every step of the sampler, decoded ahead by `workers` processes.

    Raises:
        UserError: the processes cannot be started.
    """
    with warnings.catch_warnings():
        # The number of workers is the user's choice, on a machine with few cores too.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: WorkersLoader[Batch] = WorkersLoader(
            crops,  # type: ignore[arg-type] # torch takes the batches' type for the samples'
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory,
            timeout=_LOADER_TIMEOUT_S if workers else 0,
            worker_init_fn=_prepare_worker if workers else None,
            # A forked copy of a process with threads can deadlock (Python warns of it from 3.12
            # on), and the children of a fork server outlive a training process that is killed:
            # torch's watchdog watches the server, which lives as long as its children.
            multiprocessing_context=ScriptlessSpawn() if workers else None,
            persistent_workers=workers > 0,
            prefetch_factor=_PREFETCH if workers else None,
        )
        try:
            return iter(loader)
        except (OSError, RuntimeError) as error:  # RuntimeError: no further thread can be started
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"data workers cannot be started ({reason}); set data.workers=0, or raise the "
                "limit of open files or processes (ulimit -n, -u)",
                exit_code=1,
            ) from None


def collate(samples: Sequence[Sample]) -> Batch:
    """The batch of these samples; an empty one if a sample has no pixels."""
    unreadable = [photo for sample in samples for photo in sample.unreadable]
    pixels = [sample.pixels for sample in samples if sample.pixels is not None]
    # The training process judges an empty batch: a worker's exception would arrive as a traceback.
    if len(pixels) != len(samples):
        return Batch(torch.empty(0), unreadable)
    rows = torch.stack([crop.permute(1, 2, 0) for crop in pixels])  # (N, S, S, 3)
    return Batch(rows.permute(0, 3, 1, 2), unreadable)


def resolve_workers(
    workers: int | str, device_type: str, *, cached: bool = False, num_trainers: int = 1
) -> int:
    """The number of data workers of each training process.

    A worker decodes about a hundred photos a second: far more than a CPU can train on, and a good
    part of what a GPU can. From a cache it cuts ten times as many crops. On a CPU, the training
    process cuts a batch from a cache in a millisecond or two itself; a worker takes seconds to
    start.

    Args:
        workers: the setting, a number or ``auto``.
        device_type: of the device that trains.
        cached: whether photos come from a cache.
        num_trainers: training processes that share this machine's cores.
    """
    if isinstance(workers, int):
        return workers
    if device_type != "cuda":
        return 0 if cached else 1
    return max(1, min(4 if cached else 8, (os.cpu_count() or 1) // num_trainers))


def fit_shared_memory(
    workers: int, *, batch_bytes: int, num_trainers: int = 1, say: Callable[[str], None]
) -> int:
    """The number of data workers, lowered if their batches do not fit into shared memory.

    A worker that finds it full dies, or waits until the storage counts as dead. Without workers,
    the training process decodes photos itself, and shares nothing.

    Args:
        workers: from `resolve_workers`.
        batch_bytes: of the largest batch of one training process.
        num_trainers: training processes that share this machine's memory.
        say: prints a line for the user if there are to be fewer.
    """
    if workers == 0 or sys.platform != "linux":
        return workers
    free = _free_shared_bytes()
    room = free // num_trainers // batch_bytes
    # Besides those prepared ahead, one is trained on, and one is on its way to the GPU.
    fitting = max(0, (room - 2) // _PREFETCH)
    if fitting >= workers:
        return workers
    needed = (workers * _PREFETCH + 2) * batch_bytes * num_trainers
    slower = "" if fitting else ", so the training process decodes photos itself"
    say(
        f"data.workers: {fitting} in place of {workers}{slower}: the batches of {workers} need "
        f"{size_in_words(needed)} of shared memory, and {_SHARED_MEMORY} has {size_in_words(free)} "
        "free; a container gets more by a larger --shm-size"
    )
    return fitting


def _free_shared_bytes() -> int:
    try:
        return shutil.disk_usage(_SHARED_MEMORY).free if os.access(_SHARED_MEMORY, os.W_OK) else 0
    except OSError:  # there is none
        return 0


def _prepare_worker(worker: int) -> None:
    # torch's watchdog compares parents, and takes init for the parent if that was killed before.
    end_with_parent()
    # Ctrl-C and a service manager's SIGTERM reach the whole process group; the training process
    # decides when its workers end.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
