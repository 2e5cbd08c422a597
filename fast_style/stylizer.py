"""A trained model applied to photos: pictures in, pictures of the same size out.

As a library::

    stylizer = Stylizer("runs/starry_night/model.safetensors")
    stylizer(Image.open("photo.jpg")).save("painting.png")

Photos are not tiled here: one that is too large for the memory is refused with the size that fits.
"""

import ctypes
import os
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, overload

import torch
from PIL import Image
from torch import Tensor

from fast_style.checkpoint import load_transform_net
from fast_style.errors import UserError, printable
from fast_style.fast_transform import FastTransform
from fast_style.images import (
    DEFAULT_MAX_PIXELS,
    Picture,
    fit_longer_side,
    image_to_tensor,
    read_picture,
    tensor_to_image,
    to_picture,
    write_picture,
)
from fast_style.jobs import Job
from fast_style.transform_net import SMALLEST_SIDE, memory_format_for

# Peak memory of one photo in float32, per pixel: a constant, and a part for each channel of
# the first convolution. No less than any row that benchmarks/memory.py measured on a CPU, and up to
# 33 % more than those of the largest photos (docs/performance.md).
_BYTES_PER_PIXEL = 62
_BYTES_PER_PIXEL_AND_WIDTH = 28
# Threads that decode ahead, and as many that encode behind. The few photos and results that wait
# between them and the network are small beside what the network takes for one.
_HELPERS = 2
# Not all of what the system calls available can be had without swapping.
_USABLE_SHARE = 0.9


class Stylizer:
    """A model on a device.

    Args:
        model: a ``model.safetensors`` or a checkpoint.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Attributes:
        description: what the model file says of itself.

    Raises:
        UserError: the file or the device cannot be used.
    """

    def __init__(self, model: Path | str, *, device: str = "auto") -> None:
        self.device = resolve_device(device)
        net, self.description = load_transform_net(Path(model))
        self._memory_format = memory_format_for(self.device)
        net = net.to(self.device).to(memory_format=self._memory_format)
        self._net = FastTransform(net)
        width: int = net.to_rgb.conv.in_channels
        self._bytes_per_pixel = _BYTES_PER_PIXEL + _BYTES_PER_PIXEL_AND_WIDTH * width

    @overload
    def __call__(self, photo: Image.Image) -> Image.Image: ...
    @overload
    def __call__(self, photo: Tensor) -> Tensor: ...
    def __call__(self, photo: Image.Image | Tensor) -> Image.Image | Tensor:
        """The stylized photo, of the same kind and size; tensors come out in float32.

        Args:
            photo: a Pillow image of any mode (RGBA comes out for one with transparency), or a float
                tensor (3, H, W) or (N, 3, H, W) in [0, 1].

        Raises:
            UserError: it is too large for the memory; says how large it may be.
            ValueError: the tensor has another shape or dtype.
        """
        if isinstance(photo, Tensor):
            return self._stylize_tensor(photo)
        result = self.stylize_picture(to_picture(photo))
        if result.alpha is None:
            return result.rgb
        with_alpha = result.rgb.convert("RGBA")
        with_alpha.putalpha(result.alpha)
        return with_alpha

    def stylize_picture(self, picture: Picture) -> Picture:
        """The same for colors and alpha apart; alpha stays as it is."""
        if min(picture.size) == 0:
            raise ValueError("a picture without pixels cannot be stylized")
        with self._within_memory(1, *picture.size):
            pixels = image_to_tensor(picture.rgb).to(self.device).float().div_(255)
            result = tensor_to_image(self._forward(pixels[None])[0])
        return Picture(result, picture.alpha)

    def _stylize_tensor(self, photos: Tensor) -> Tensor:
        is_usable = photos.ndim in (3, 4) and photos.shape[-3] == 3 and min(photos.shape[-2:]) > 0
        if not is_usable or not photos.is_floating_point():
            raise ValueError(
                "photos must be floats of shape (3, H, W) or (N, 3, H, W) in [0, 1], got "
                f"{photos.dtype} {tuple(photos.shape)}"
            )
        batch = photos if photos.ndim == 4 else photos[None]
        num_photos, _, height, width = batch.shape
        with self._within_memory(num_photos, height, width):
            result = self._forward(batch).to(photos.device)
        return result if photos.ndim == 4 else result[0]

    @torch.no_grad()  # not inference_mode: what a library gives back can be worked on
    def _forward(self, batch: Tensor) -> Tensor:
        ready = batch.to(self.device, torch.float32, memory_format=self._memory_format)
        result: Tensor = self._net(ready)
        return result.clamp_(0, 1).contiguous()

    @contextmanager
    def _within_memory(self, num_photos: int, height: int, width: int) -> Iterator[None]:
        """Refuse what is too large: beforehand if that can be known, else when torch fails.

        Beforehand, because the system's out-of-memory killer ends a process without a word.
        """
        available = _available_bytes(self.device)
        needed = num_photos * _num_computed_pixels(height, width) * self._bytes_per_pixel
        if available is not None and needed > _USABLE_SHARE * available:
            _give_back_freed_memory()
            available = _available_bytes(self.device)
        photos = f"{num_photos} photos of " if num_photos > 1 else ""
        line = (
            f"{photos}{width} x {height} pixels are too many for the memory: about "
            f"{needed / 1e9:.1f} GB are needed"
        )
        if available is not None and needed > _USABLE_SHARE * available:
            most_pixels = _USABLE_SHARE * available / self._bytes_per_pixel / num_photos
            most_side = _longest_side_within(most_pixels, height, width)
            remedy = f"--max-side {most_side} fits" if most_side else "not even one pixel fits"
            raise UserError(f"{line}, {available / 1e9:.1f} GB are free; {remedy}", exit_code=1)
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Nobody could say what is free, or something else has taken it: half the pixels.
            smaller_side = max(1, int(0.7 * max(height, width)))
            raise UserError(f"{line}; try --max-side {smaller_side}", exit_code=1) from None


def _num_computed_pixels(height: int, width: int) -> int:
    """How many pixels the network works on for a photo of this size."""
    return max(SMALLEST_SIDE, height) * max(SMALLEST_SIDE, width)


def _longest_side_within(most_pixels: float, height: int, width: int) -> int:
    """The largest longer side that a photo can be shrunk to and needs no more; 0 if there is none.

    A search, since a strip's shorter side stops shrinking before its longer one does.
    """
    longer, shorter = max(height, width), min(height, width)

    def num_pixels(side: int) -> int:
        # Rounded up, so no less than what `fit_longer_side` makes of it.
        return _num_computed_pixels(side, -(-shorter * side // longer))

    return bisect_right(range(1, longer + 1), most_pixels, key=num_pixels)


def resolve_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` means on this machine.

    Raises:
        UserError: there is no such device; says which there are.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    kind, _, index = name.partition(":")
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    there += ["mps"] if _has_mps() else []
    is_there = name in there or (name == "cuda" and "cuda:0" in there)
    if not is_there:
        known = kind in ("cpu", "cuda", "mps") and (not index or index.isdigit())
        problem = "is not on this machine" if known else "is no device"
        raise UserError(f"--device {name}: {problem}; here are: auto, {', '.join(there)}")
    return torch.device(name)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch or Python says that memory was not enough."""
    # torch has a type for it on GPUs; on a CPU it is any RuntimeError, told by its words.
    words = ("allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        part in str(error) for part in words
    )


def _available_bytes(device: torch.device) -> int | None:
    """Memory that this process may still take on a device, or None where nobody says."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    limits = [_available_in_system(), *_available_in_control_groups()]
    return min((limit for limit in limits if limit is not None), default=None)


def _give_back_freed_memory() -> None:
    """Let the system have what this process has freed and keeps for itself.

    The commands have it kept (`cli.allocator`), so the second of two equal photos could seem too
    large. To count it as available would be wrong: it lies in pieces, and photos that grow from 300
    to 700 pixels were seen to take 1.4 times as much as the largest one alone.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is not None and hasattr(library, "malloc_trim"):  # glibc
        library.malloc_trim(0)


def _available_in_system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):
        pass
    try:  # macOS: all of it; better than no limit
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _available_in_control_groups() -> Iterator[int]:
    """What containers and batch systems leave this process, of which the system's figures tell not.

    Of each control group (version 2 or 1) that it is in, its limit without what it holds.
    """
    root = Path("/sys/fs/cgroup")
    try:
        memberships = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, group = membership.split(":", 2)
        if controllers == "":
            base, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = base / group.lstrip("/")
        # Groups outside a container cannot be seen in it: its own one is the root.
        for folder in (own, *own.parents):
            if folder.is_relative_to(base) and folder.is_dir():
                yield from _left_in(folder, limit, usage)


def _left_in(group: Path, limit: str, usage: str) -> Iterator[int]:
    try:
        most = (group / limit).read_text().strip()
        if most == "max":
            return
        used = int((group / usage).read_text())
        statistics = (group / "memory.stat").read_text().split()
        # Cached files count as used, though they make room when memory is wanted.
        cached = int(statistics[statistics.index("inactive_file") + 1])
        yield max(0, int(most) - used + cached)
    except (OSError, ValueError):
        return


# --- Files --------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """How a job ended; `error` is None when the output is there."""

    job: Job
    error: UserError | None


def stylize_files(
    stylizer: Stylizer,
    jobs: Iterable[Job],
    *,
    max_side: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    quality: int = 95,
) -> Generator[Outcome, None, None]:
    """Do the jobs, and tell of them in their order; a photo that fails does not stop the rest.

    While the network works on a photo, the next ones are decoded and the last ones encoded. The
    results are those of one photo after the other. Photos of one size are not put into batches: on
    a CPU with one thread that was 0 to 6 % faster at 128 pixels and nothing at 512.

    Args:
        stylizer: the model. It works in the caller's thread, where glibc's main heap is
            (`cli.allocator`).
        jobs: from `plan_jobs`.
        max_side: shrink photos whose longer side has more pixels.
        max_pixels: refuse photos with more.
        quality: of JPEG and WebP.
    """
    reader = ThreadPoolExecutor(_HELPERS, "read")
    writer = ThreadPoolExecutor(_HELPERS, "write")
    waiting = iter(jobs)
    reading: deque[tuple[Job, Future[Picture]]] = deque()
    writing: deque[Future[Outcome]] = deque()
    try:
        while True:
            for job in islice(waiting, _HELPERS + 1 - len(reading)):
                reading.append((job, reader.submit(_read, job, max_side, max_pixels)))
            if not reading:
                break
            job, picture = reading.popleft()
            result: Picture | Exception
            try:
                result = stylizer.stylize_picture(picture.result())
            except (UserError, OSError, MemoryError) as error:
                result = error
            writing.append(writer.submit(_finish, job, result, quality))
            # No more results wait for the disk than there are threads to write them.
            while writing and (len(writing) > _HELPERS or writing[0].done()):
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()
    finally:
        # After Ctrl-C too: what is being written is finished, and nothing else is begun.
        reader.shutdown(wait=False, cancel_futures=True)
        writer.shutdown(wait=True, cancel_futures=True)


def _read(job: Job, max_side: int | None, max_pixels: int) -> Picture:
    return _fit(read_picture(job.photo, max_pixels=max_pixels), max_side)


def _finish(job: Job, result: Picture | Exception, quality: int) -> Outcome:
    """Write the result, or say what went wrong before."""
    try:
        if isinstance(result, Exception):
            raise result
        job.output.parent.mkdir(parents=True, exist_ok=True)
        write_picture(job.output, result.rgb, alpha=result.alpha, quality=quality)
        return Outcome(job, None)
    except UserError as error:
        line = str(error)
        if not line.startswith((printable(job.photo), printable(job.output))):
            line = f"{printable(job.photo)}: {line}"
    except OSError as error:
        line = f"{printable(job.output)}: cannot be written ({error.strerror or error})"
    except MemoryError:
        line = f"{printable(job.photo)}: not enough memory; make it smaller with --max-side"
    return Outcome(job, UserError(line, exit_code=1))


def _fit(picture: Picture, max_side: int | None) -> Picture:
    if max_side is None:
        return picture
    alpha = picture.alpha
    return Picture(
        fit_longer_side(picture.rgb, max_side),
        fit_longer_side(alpha, max_side) if alpha is not None else None,
    )
