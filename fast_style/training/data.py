"""A folder of photos as an endless sequence of training crops.

Sample k of a run (which photo, which crop, mirrored or not) is a function of (seed, k) alone: not
of workers, ranks or restarts. So there is no state to save, and resuming at step s is starting at
step s.
"""

import json
import math
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from fast_style.core.errors import UserError, printable
from fast_style.core.files import write_text_atomically
from fast_style.pictures.folders import Photos, by_hash
from fast_style.pictures.pixels import center_crop, image_to_tensor
from fast_style.pictures.reading import PictureError, read_photo, read_picture
from fast_style.training.photo_cache import PhotoCache

# What a random stream is for; keeps the streams of one seed apart.
_ORDER, _CROP, _REPLACEMENT = range(3)

# A sample whose photo is unreadable gets another one; after this many unreadable ones in a row the
# folder is beyond help.
_MAX_REPLACEMENTS = 20
# Some photos are always bad; a run stops only when there are more than this.
_TOLERATED_UNREADABLE = 10
# How many photos are tried before a run begins, so that a hopeless folder is found at once.
_PROBED_PHOTOS = 64
# Seconds without a batch before the storage is taken for dead.
_LOADER_TIMEOUT_S = 300
# So many unreadable photos are named on the console; all of them are in the list.
_NAMED_UNREADABLE = 10


class Unreadable(NamedTuple):
    """A photo (its name within the folder) that could not be used, and the sample that met it."""

    photo: str
    reason: str
    sample: int


class Sample(NamedTuple):
    """One crop, uint8 (3, S, S), or None when no readable photo was found for it.

    Channels last, as `Batch` has them: so pixels are in files, and so the network wants them.
    """

    pixels: Tensor | None
    unreadable: list[Unreadable]


class Batch(NamedTuple):
    """Crops, uint8 (N, 3, S, S), and the unreadable photos that were met on the way."""

    photos: Tensor
    unreadable: list[Unreadable]


# --- Finding photos -----------------------------------------------------------------------------


def probe_photos(photos: Photos, *, max_unreadable_share: float) -> None:
    """Try some photos before anything slow begins.

    Raises:
        UserError: none of them can be read, or too few.
    """
    probed = by_hash(photos.training, photos.folder)[:_PROBED_PHOTOS]
    reasons = [reason for path in probed if (reason := why_unreadable(path)) is not None]
    if len(reasons) == len(probed) or too_many_unreadable(
        len(reasons), len(probed), max_unreadable_share
    ):
        raise UserError(
            f"{printable(photos.folder)}: {len(reasons)} of {len(probed)} photos tried cannot be "
            f"read, the first one: {reasons[0]}. Mend the folder, or raise "
            "data.max_unreadable_share"
        )


def why_unreadable(path: Path) -> str | None:
    """What is wrong with a photo, or None."""
    try:
        read_picture(path)
    except PictureError as error:
        return str(error)
    return None


def too_many_unreadable(count: int, of: int, max_share: float) -> bool:
    """Whether a folder is too damaged to train on: more than a few, and more than the share."""
    return count > _TOLERATED_UNREADABLE and count > max_share * of


# --- Pixels -------------------------------------------------------------------------------------


def read_validation_photos(
    photos: Sequence[Path],
    size: int,
    *,
    count: int | None = None,
    on_skipped: Callable[[str], None] = lambda line: None,
) -> Tensor:
    """The middle squares of the readable ones, uint8 (N, 3, size, size), in the given order.

    Args:
        photos: from `find_photos`.
        size: pixels.
        count: take only so many, the first readable ones.
        on_skipped: called with a line about each unreadable one.

    Raises:
        UserError: none is readable.
    """
    crops: list[Tensor] = []
    reasons: list[str] = []
    for path in photos:
        if len(crops) == count:
            break
        try:
            crops.append(image_to_tensor(center_crop(read_photo(path), size)))
        except PictureError as error:
            reasons.append(str(error))
            on_skipped(f"skipping {error}")
    if not crops:
        raise UserError(
            f"none of the {len(photos)} validation photos can be read, the first one: {reasons[0]}"
        )
    return torch.stack(crops)


class _Square(NamedTuple):
    """A part of a photo, in its pixels, and whether it is mirrored."""

    left: float
    top: float
    side: float
    mirrored: bool


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
    return _Square(left, top, side, mirrored=bool(flip and draw[3] < 0.5))


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
        size: pixels of the result.
        scale: least and most of the square's side as a share of the photo's shorter side.
        flip: whether to mirror by chance.
        rng: gives always four numbers, whatever they are used for.
    """
    left, top, side, mirrored = _draw_square(
        image.width, image.height, scale=scale, flip=flip, rng=rng
    )
    # reducing_gap lets Pillow shrink by whole numbers first: faster, and no visible difference.
    crop = image.resize(
        (size, size),
        Image.Resampling.BICUBIC,
        box=(left, top, left + side, top + side),
        reducing_gap=3.0,
    )
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop


def random_crop_of_pixels(
    pixels: NDArray[np.uint8],
    size: int,
    *,
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
) -> Tensor:
    """The same square as `random_crop`'s, moved to whole pixels; uint8 (3, size, size).

    torch's filter is Pillow's, in a fraction of the time (vector instructions), but it knows no
    squares that begin within a pixel.

    Args:
        pixels: the photo, (H, W, 3); only the square is read of it.
        size: as for `random_crop`, and so are the others.
        scale: likewise.
        flip: likewise.
        rng: likewise.
    """
    height, width, _ = pixels.shape
    square = _draw_square(width, height, scale=scale, flip=flip, rng=rng)
    side = max(1, round(square.side))
    left, top = min(round(square.left), width - side), min(round(square.top), height - side)
    # A copy: torch warns of memory that cannot be written to.
    part = torch.from_numpy(pixels[top : top + side, left : left + side].copy())
    part = part[None].permute(0, 3, 1, 2)  # (1, 3, side, side), channels last
    crop = F.interpolate(part, (size, size), mode="bicubic", antialias=True)[0]
    return crop.flip(-1) if square.mirrored else crop


def least_side(size: int, scale: tuple[float, float]) -> int:
    """Pixels of a photo's shorter side with which no crop of this size has to be enlarged."""
    return math.ceil(size / scale[0])


# --- The sequence -------------------------------------------------------------------------------


class Crops(Dataset[Sample]):
    """Sample k, for any k from 0: place k mod n of each epoch's own order, cropped at random.

    Args:
        photos: which they are.
        seed: of order and crops.
        size: pixels of a crop's side.
        scale: see `random_crop`.
        flip: likewise.
        growth: (sample, size) from which sample on crops have another size.
        cache: of the training photos, to crop from instead of decoding them.
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
                unreadable.append(Unreadable(name, str(error), k))
        return Sample(None, unreadable)

    def _crop(self, path: Path, k: int) -> Tensor:
        size = self.size_of(k)
        rng = np.random.default_rng((self.seed, _CROP, k))
        if self.cache is not None:
            return random_crop_of_pixels(
                self.cache.read(path), size, scale=self.scale, flip=self.flip, rng=rng
            )
        image = read_photo(path, shorter_side_at_least=least_side(size, self.scale))
        crop = random_crop(image, size, scale=self.scale, flip=self.flip, rng=rng)
        return torch.from_numpy(np.array(crop)).permute(2, 0, 1)

    def photo_of(self, k: int, attempt: int = 0) -> Path:
        """The photo of sample k, or the one to take instead after `attempt` unreadable ones."""
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
    """For each step the sample numbers of this rank's part of the global batch."""

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


def load_batches(
    crops: Crops, sampler: StepSampler, *, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Batches for every step of the sampler, decoded ahead by `workers` processes."""
    with warnings.catch_warnings():
        # The number of workers is the user's choice, on a machine with few cores too.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[Batch] = DataLoader(
            crops,  # type: ignore[arg-type] # torch takes the batches' type for the samples'
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory,
            timeout=_LOADER_TIMEOUT_S if workers else 0,
            worker_init_fn=_ignore_signals if workers else None,
            # A forked copy of a process with threads can deadlock (Python warns of it from 3.12
            # on), and the children of a fork server outlive a training process that is killed:
            # torch's watchdog looks at the server, and the server lives as long as its children.
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
        )
        return iter(loader)


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of samples; without any photo in it when no readable one was found for some."""
    unreadable = [photo for sample in samples for photo in sample.unreadable]
    pixels = [sample.pixels for sample in samples if sample.pixels is not None]
    # The trainer judges the unreadable ones; a worker's exception would arrive as a traceback.
    if len(pixels) != len(samples):
        return Batch(torch.empty(0), unreadable)
    rows = torch.stack([crop.permute(1, 2, 0) for crop in pixels])  # (N, S, S, 3)
    return Batch(rows.permute(0, 3, 1, 2), unreadable)


def resolve_workers(
    workers: int | str, device_type: str, *, cached: bool = False, num_trainers: int = 1
) -> int:
    """The number of processes that ``auto`` means, for each training process.

    One decodes about a hundred photos a second, which is far more than a CPU can train on, and a
    good part of what a GPU can. From a cache it cuts ten times as many: on a CPU, the training
    process itself needs a millisecond or two for a batch, and another one seconds to start.

    Args:
        workers: the setting.
        device_type: on what is trained.
        cached: whether photos come from a cache.
        num_trainers: processes that train on this machine, and share its cores.
    """
    if isinstance(workers, int):
        return workers
    if device_type != "cuda":
        return 0 if cached else 1
    return max(1, min(4 if cached else 8, (os.cpu_count() or 1) // num_trainers))


def _ignore_signals(worker: int) -> None:
    # Ctrl-C and a service manager's SIGTERM reach the whole process group; it is the training
    # process that decides when its workers end.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


# --- What could not be read ---------------------------------------------------------------------


@dataclass
class UnreadableList:
    """The unreadable photos of a run, each once, kept in a file of one JSON object per line.

    Sample numbers are kept too, so that a resumed run can forget what the lost steps had met, and
    meet it again.
    """

    path: Path
    photos: int
    max_share: float
    entries: dict[str, Unreadable] = field(default_factory=dict)
    is_kept: bool = True
    """Whether this process writes the file."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        photos: int,
        max_share: float,
        before_sample: int,
        is_kept: bool = True,
    ) -> "UnreadableList":
        """The list of a run folder, cut back to what samples below `before_sample` met."""
        found = cls(path, photos, max_share, is_kept=is_kept)
        if not is_kept:
            return found
        if path.exists():
            for line in path.read_bytes().splitlines():
                # A process killed while it wrote may have left half a line; that photo will be
                # met again.
                with suppress(ValueError, TypeError):
                    entry = Unreadable(**json.loads(line))
                    if entry.sample < before_sample:
                        found.entries[entry.photo] = entry
            write_text_atomically(path, "".join(map(_json_line, found.entries.values())))
        return found

    def add(self, batch: Batch) -> list[Unreadable]:
        """Take in what a batch met; gives the new ones.

        Raises:
            UserError: there are too many now.
        """
        new = []
        for entry in batch.unreadable:
            if entry.photo not in self.entries:
                self.entries[entry.photo] = entry
                new.append(entry)
        if new:
            self._append(new)
        is_short = batch.photos.numel() == 0
        if is_short or too_many_unreadable(len(self.entries), self.photos, self.max_share):
            raise UserError(
                f"{len(self.entries)} of {self.photos} photos cannot be read, the first one: "
                f"{next(iter(self.entries.values())).reason}. They are listed in "
                f"{printable(self.path)}; mend the folder, or raise data.max_unreadable_share",
                exit_code=1,
            )
        return new

    def tell(self, batch: Batch, warn: Callable[[str], None]) -> None:
        """Take in what a batch met, and name the new ones as long as they are few.

        Raises:
            UserError: there are too many now.
        """
        num_known = len(self.entries)
        new = self.add(batch)
        for photo in new[: max(0, _NAMED_UNREADABLE - num_known)]:
            warn(f"skipping {photo.reason}")
        if num_known < _NAMED_UNREADABLE <= num_known + len(new):
            warn(f"more will only be listed in {printable(self.path)}")

    def _append(self, new: Iterable[Unreadable]) -> None:
        if not self.is_kept:
            return
        # On a full disk the list stays short; the photos are counted and named all the same.
        with suppress(OSError), self.path.open("a", encoding="ascii") as file:
            file.writelines(map(_json_line, new))


def _json_line(entry: Unreadable) -> str:
    return json.dumps(entry._asdict()) + "\n"


# --- Both together ------------------------------------------------------------------------------


def stream_photos(
    crops: Crops,
    sampler: StepSampler,
    look_at: Callable[[Batch], None],
    *,
    workers: int,
    pin_memory: bool,
) -> Iterator[Tensor]:
    """The photos of every step of the sampler, uint8 (N, 3, S, S); unreadable ones are replaced.

    Args:
        crops: gives sample k for any k.
        sampler: which samples make a step.
        look_at: gets each batch first, with its unreadable photos, and raises if they are too many.
        workers: processes that decode photos.
        pin_memory: for a GPU.

    Raises:
        UserError: no photos arrive any more; also what `look_at` raises.
    """
    batches = load_batches(crops, sampler, workers=workers, pin_memory=pin_memory)
    for _ in range(len(sampler)):
        batch = _next_batch(batches)
        look_at(batch)
        yield batch.photos


def _next_batch(batches: Iterator[Batch]) -> Batch:
    try:
        return next(batches)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader"):
            raise
        # A worker killed from outside (memory, mostly), or a storage that does not answer.
        reason = str(error).splitlines()[0]
        raise UserError(
            f"no photos arrive any more: {reason} Try data.workers=0, or give the container a "
            "larger --shm-size. The same command goes on from the last checkpoint",
            exit_code=1,
        ) from None
