"""A trained model applied to photos: pictures in, pictures of the same size out.

As a library::

    stylizer = Stylizer("runs/starry_night/model.safetensors")
    stylizer(Image.open("photo.jpg")).save("painting.png")

A photo whose features are too large for the memory goes through the network in bands
(`streaming`), with the same result. Only what is too large for that too is refused, with the size
that fits.
"""

import ctypes
import math
import os
import sys
import tempfile
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, overload

import torch
from PIL import Image
from torch import Tensor

from fast_style.core.devices import is_out_of_memory, resolve_device
from fast_style.core.errors import UserError, printable
from fast_style.core.files import free_bytes
from fast_style.models.checkpoint import load_transform_net
from fast_style.networks.compiling import CompileRequest, compile_whole
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.streaming import (
    SHORTEST_BAND,
    Band,
    band_bytes,
    highest_band,
    storage_bytes,
    stylize_in_bands,
)
from fast_style.networks.transform_net import SMALLEST_SIDE, memory_format_for
from fast_style.pictures.pixels import fit_longer_side, image_to_tensor, tensor_to_image
from fast_style.pictures.reading import (
    DEFAULT_MAX_PIXELS,
    Picture,
    read_picture,
    size_in_header,
    to_picture,
)
from fast_style.pictures.writing import write_picture
from fast_style.stylizing.jobs import Job

# Peak memory of one photo in float32, per pixel: a constant, and a part for each channel of
# the first convolution. No less than any row that benchmarks/memory.py measured on a CPU, with
# freed memory kept and without (docs/performance.md).
_BYTES_PER_PIXEL = 280
_BYTES_PER_PIXEL_AND_WIDTH = 13
# An H100 with torch 2.11 took 669 bytes for each of 4096 x 4096 pixels, 737 of 512 x 512.
_MORE_ON_GPU = 1.2
# Compiled by torch 2.14, a CPU took 733 bytes for each of 1024 x 1024 pixels at width 32, and 934
# of 2048 x 1024, where the above says 696.
_MORE_COMPILED = 1.4
# Threads that decode ahead, and as many that encode behind.
_HELPERS = 2
# What photos of one size and their results take while they wait for the network and the disk, per
# pixel of one, with the copies that decoders and encoders make: five or six of them.
_WAITING_BYTES = 64
# Of the memory, for the network with one photo and for those that wait beside it.
_SMALL_SHARE = 0.5
# Not all of what the system calls available can be had without swapping.
_USABLE_SHARE = 0.9
# Pillow keeps four bytes for each RGB pixel; of a photo in memory, the result is what is added.
_PHOTO_BYTES = 4
_RESULT_BYTES = 4
# With alpha, it becomes RGBA and a file in memory besides, when the photo has gone.
_RESULT_BYTES_WITH_ALPHA = 8
# Higher bands gain no speed on a CPU (benchmarks/huge_photo.py); a GPU wants more at a time.
_BAND_ROWS = 32
_BAND_BYTES_ON_GPU = 1_000_000_000
# No special size in any way: of what holds for it by chance, a compiler makes a condition. For
# smaller ones, torch's convolutions are others.
_SIZE_TO_COMPILE = 93, 122
# Between pictures of the same, on GPUs that round to TF32. A grey one, which is nobody's style, is
# off by a third or so.
_MOST_BY_ROUNDING = 0.02
_COMPILING = CompileRequest("--compile", "do without")


class Stylizer:
    """A model on a device.

    Args:
        model: a ``model.safetensors`` or a checkpoint.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        memory_bytes: what a photo, its result and all in between may take; of the GPU's memory
            as much again. None: what is free.
        compile: by torch.compile, for photos of all sizes at once. Takes a minute or two now, or
            some seconds if torch has kept what it made. What goes in bands is not compiled.

    Attributes:
        description: what the model file says of itself.

    Raises:
        UserError: the file or the device cannot be used, or nothing can be compiled.
    """

    def __init__(
        self,
        model: Path | str,
        *,
        device: str = "auto",
        memory_bytes: int | None = None,
        compile: bool = False,
    ) -> None:
        self.device = resolve_device(device)
        net, self.description = load_transform_net(Path(model))
        self._memory_format = memory_format_for(self.device)
        net = net.to(self.device).to(memory_format=self._memory_format)
        self._net = FastTransform(net)
        self._memory_bytes = memory_bytes
        self._net_width: int = net.to_rgb.conv.in_channels
        self._bytes_per_pixel: float = (
            _BYTES_PER_PIXEL + _BYTES_PER_PIXEL_AND_WIDTH * self._net_width
        )
        if compile:
            self._bytes_per_pixel *= _MORE_COMPILED
            self._compile()

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

    def stylize_picture(
        self, picture: Picture, *, progress: Callable[[float], None] | None = None
    ) -> Picture:
        """The same for colors and alpha apart; alpha stays as it is.

        Args:
            picture: of any size.
            progress: gets the share that is done, again and again, of a photo that is so large that
                it is done in bands.
        """
        if min(picture.size) == 0:
            raise ValueError("a picture without pixels cannot be stylized")
        bands = self._bands_for(picture)
        with _telling_of_little_memory(*picture.size, remedy="a lower --memory, or "):
            if bands is None:
                pixels = image_to_tensor(picture.rgb).to(self.device).float().div_(255)
                result = tensor_to_image(self._forward(pixels[None])[0])
            else:
                result = self._stylize_in_bands(picture.rgb, bands, progress)
        return Picture(result, picture.alpha)

    def is_small(self, height: int, width: int, *, max_side: int | None = None) -> bool:
        """Whether some photos of this size may wait in memory while the network works on others.

        Args:
            height: in the file.
            width: in the file.
            max_side: what the longer side is shrunk to.
        """
        shrunk = 1 if max_side is None else min(1, max_side / max(height, width))
        needed = self._whole_bytes(math.ceil(shrunk * height), math.ceil(shrunk * width))
        needed += _WAITING_BYTES * height * width
        space = self._space_now()
        return needed <= _SMALL_SHARE * min(space.device, space.main)

    def _stylize_in_bands(
        self, photo: Image.Image, bands: "_Bands", progress: Callable[[float], None] | None
    ) -> Image.Image:
        result = Image.new("RGB", photo.size)

        def paint(band: Band) -> None:
            result.paste(tensor_to_image(band.pixels), (band.left, band.top))

        shares = stylize_in_bands(
            self._net.net, photo, paint, band_rows=bands.rows, storage=bands.storage
        )
        try:
            with closing(shares):
                for share in shares:
                    if progress is not None:
                        progress(share)
        except OSError as error:
            if not isinstance(bands.storage, Path):
                raise
            needed = storage_bytes(photo.height, photo.width, net_width=self._net_width)
            raise UserError(
                f"{printable(bands.storage)}: cannot keep the photo's features, {_size(needed)} "
                f"({error.strerror or error}); set TMPDIR to a folder on another disk",
                exit_code=1,
            ) from error
        return result

    def _stylize_tensor(self, photos: Tensor) -> Tensor:
        is_usable = photos.ndim in (3, 4) and photos.shape[-3] == 3 and min(photos.shape[-2:]) > 0
        if not is_usable or not photos.is_floating_point():
            raise ValueError(
                "photos must be floats of shape (3, H, W) or (N, 3, H, W) in [0, 1], got "
                f"{photos.dtype} {tuple(photos.shape)}"
            )
        batch = photos if photos.ndim == 4 else photos[None]
        num_photos, _, height, width = batch.shape
        self._refuse_too_large(num_photos, height, width)
        with _telling_of_little_memory(height, width):
            result = self._forward(batch).to(photos.device)
        return result if photos.ndim == 4 else result[0]

    @torch.no_grad()  # not inference_mode: what a library gives back can be worked on
    def _forward(self, batch: Tensor) -> Tensor:
        ready = batch.to(self.device, torch.float32, memory_format=self._memory_format)
        result: Tensor = self._net(ready)
        return result.clamp_(0, 1).contiguous()

    def _compile(self) -> None:
        """Compile what the network does to photos of any size, and see that it does the same."""
        noise = torch.rand((1, 3, *_SIZE_TO_COMPILE), generator=torch.Generator().manual_seed(0))
        plain = self._forward(noise)
        with _COMPILING.mistakes():
            self._net.uncropped = compile_whole(  # type: ignore[method-assign]
                self._net.uncropped, any_size=True
            )
            compiled = self._forward(noise)
            _COMPILING.require_same(compiled, plain, "picture", most=_MOST_BY_ROUNDING)

    # What does not fit is refused beforehand, if that can be known: the system's out-of-memory
    # killer ends a process without a word.

    def _refuse_too_large(self, num_photos: int, height: int, width: int) -> None:
        needed = num_photos * self._whole_bytes(height, width)
        most = self._space(needed).device
        if needed <= most:
            return

        def fits(height: int, width: int) -> bool:
            return num_photos * self._whole_bytes(height, width) <= most

        photos = f"{num_photos} photos of " if num_photos > 1 else ""
        raise UserError(
            f"{photos}{width} x {height} pixels are too many for the memory: about "
            f"{_size(needed)} are needed, {_size(most)} may be used; "
            f"{_advice(_longest_side(height, width, fits))}",
            exit_code=1,
        )

    def _bands_for(self, picture: Picture) -> "_Bands | None":
        """How to go about it in bands; None for a picture that fits as a whole."""
        has_alpha = picture.alpha is not None
        as_a_whole = self._bytes_as_a_whole(*picture.size, has_alpha=has_alpha)
        space = self._space(as_a_whole)
        if as_a_whole <= space.device:
            return None
        bands = self._bands_within(space, *picture.size, has_alpha=has_alpha)
        if bands is not None:
            return bands

        def fits(height: int, width: int) -> bool:
            return (
                self._bytes_as_a_whole(height, width, has_alpha=has_alpha) <= space.device
                or self._bands_within(space, height, width, has_alpha=has_alpha) is not None
            )

        height, width = picture.size
        needed = self._photo_bytes(height, width, has_alpha=has_alpha)
        needed += _result_bytes(height, width, has_alpha=has_alpha)
        needed += band_bytes(height, width, net_width=self._net_width, band_rows=SHORTEST_BAND)
        storage = storage_bytes(height, width, net_width=self._net_width)
        advice = _advice(_longest_side(height, width, fits))
        raise UserError(
            f"{width} x {height} pixels are too many for the memory: about {_size(needed)} "
            f"are needed, and {_size(storage)} more there or in {_scratch_folder()}; "
            f"{_size(min(space.device, space.main))} may be used, and "
            f"{_size(space.disk)} in that folder; {advice}",
            exit_code=1,
        )

    def _whole_bytes(self, height: int, width: int) -> int:
        more = _MORE_ON_GPU if self.device.type == "cuda" else 1
        return int(_num_computed_pixels(height, width) * self._bytes_per_pixel * more)

    def _photo_bytes(self, height: int, width: int, *, has_alpha: bool) -> int:
        """What counts for the photo: it is there already, so nothing of what is free."""
        return 0 if self._memory_bytes is None else (_PHOTO_BYTES + has_alpha) * height * width

    def _bytes_as_a_whole(self, height: int, width: int, *, has_alpha: bool) -> int:
        photo = self._photo_bytes(height, width, has_alpha=has_alpha)
        return photo + self._whole_bytes(height, width)

    def _bands_within(
        self, space: "_Space", height: int, width: int, *, has_alpha: bool
    ) -> "_Bands | None":
        """The highest bands that make sense, and the fastest place for what lies between sweeps."""
        is_gpu = self.device.type != "cpu"
        main = space.main - self._photo_bytes(height, width, has_alpha=has_alpha)
        main -= _result_bytes(height, width, has_alpha=has_alpha)
        device = space.device if is_gpu else main
        storage = storage_bytes(height, width, net_width=self._net_width)
        places: list[tuple[torch.device | Path, float]] = [(self.device, device - storage)]
        if is_gpu and storage <= main:
            places.append((torch.device("cpu"), device))
        if storage <= space.disk:
            places.append((_scratch_folder(), device))
        enough = band_bytes(height, width, net_width=self._net_width, band_rows=_BAND_ROWS)
        if is_gpu:
            enough = max(enough, _BAND_BYTES_ON_GPU)
        for place, left in places:
            most = min(left, enough)
            rows = highest_band(height, width, net_width=self._net_width, most_bytes=most)
            if main >= 0 and rows > 0:
                return _Bands(rows, place)
        return None

    def _space(self, wanted: float) -> "_Space":
        """What there is; if that is less than is wanted, with what was freed given back before."""
        space = self._space_now()
        if space.device >= wanted:
            return space
        _give_back_freed_memory()
        return self._space_now()

    def _space_now(self) -> "_Space":
        most = math.inf if self._memory_bytes is None else self._memory_bytes

        def usable(device: torch.device) -> float:
            available = _available_bytes(device)
            return most if available is None else min(most, _USABLE_SHARE * available)

        return _Space(
            device=usable(self.device),
            main=usable(torch.device("cpu")),
            disk=_USABLE_SHARE * free_bytes(_scratch_folder()),
        )


class _Bands(NamedTuple):
    """Their height, and where the features between sweeps are kept."""

    rows: int
    storage: torch.device | Path


class _Space(NamedTuple):
    """Bytes that a photo may take: where the network runs, in main memory, in temporary files."""

    device: float
    main: float
    disk: float


@contextmanager
def _telling_of_little_memory(height: int, width: int, *, remedy: str = "") -> Iterator[None]:
    """Nobody could say what is free, or something else has taken it: advises half the pixels."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        smaller_side = max(1, int(0.7 * max(height, width)))
        raise UserError(
            f"{width} x {height} pixels are too many for the memory; try {remedy}"
            f"--max-side {smaller_side}",
            exit_code=1,
        ) from None


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _advice(most_side: int) -> str:
    return f"--max-side {most_side} fits" if most_side else "not even one pixel fits"


def _result_bytes(height: int, width: int, *, has_alpha: bool) -> int:
    return height * width * (_RESULT_BYTES_WITH_ALPHA if has_alpha else _RESULT_BYTES)


def _scratch_folder() -> Path:
    """For huge temporary files. Not /tmp, which lies in the memory of many systems, unless told."""
    is_told = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    on_disk = Path("/var/tmp")  # where they belong by the Filesystem Hierarchy Standard 3.0, 5.15
    if not is_told and os.access(on_disk, os.W_OK | os.X_OK):
        return on_disk
    return Path(tempfile.gettempdir())


def _num_computed_pixels(height: int, width: int) -> int:
    """How many pixels the network works on for a photo of this size."""
    return max(SMALLEST_SIDE, height) * max(SMALLEST_SIDE, width)


def _longest_side(height: int, width: int, fits: Callable[[int, int], bool]) -> int:
    """The largest longer side that a photo can be shrunk to so that it fits; 0 if there is none.

    A search, since a strip's shorter side stops shrinking before its longer one does.
    """
    longer = max(height, width)

    def is_too_large(side: int) -> bool:
        # Rounded up, so no less than what `fit_longer_side` makes of it.
        return not fits(-(-height * side // longer), -(-width * side // longer))

    return bisect_left(range(1, longer + 1), True, key=is_too_large)


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
    progress: Callable[[float], None] | None = None,
) -> Generator[Outcome, None, None]:
    """Do the jobs, and tell of them in their order; a photo that fails does not stop the rest.

    While the network works on a photo, the next ones are decoded and the last ones encoded. A photo
    that takes most of the memory is done alone: others begin when it has been written. The results
    are those of one photo after the other. Photos of one size are not put into batches: on a CPU
    with one thread that was 0 to 6 % faster at 128 pixels and nothing at 512.

    Args:
        stylizer: the model. It works in the caller's thread, where glibc's main heap is
            (`cli.allocator`).
        jobs: from `plan_jobs`.
        max_side: shrink photos whose longer side has more pixels.
        max_pixels: refuse photos with more.
        quality: of JPEG and WebP.
        progress: for huge photos, as in `Stylizer.stylize_picture`.
    """
    work = _Work(stylizer, max_side, max_pixels, quality, progress)
    for are_small, some in groupby(jobs, key=work.is_small):
        if are_small:
            yield from work.do_overlapping(some)
        else:
            for job in some:
                yield work.write(job, work.paint(partial(work.read, job)))


@dataclass(frozen=True)
class _Work:
    """What is done with every photo; the attributes are arguments of `stylize_files`."""

    stylizer: Stylizer
    max_side: int | None
    max_pixels: int
    quality: int
    progress: Callable[[float], None] | None

    def is_small(self, job: Job) -> bool:
        """Whether others may be done beside it."""
        size = size_in_header(job.photo)
        # What cannot be read takes no memory.
        return size is None or self.stylizer.is_small(*size, max_side=self.max_side)

    def do_overlapping(self, jobs: Iterator[Job]) -> Generator[Outcome, None, None]:
        """Paint the photos in this thread, and read and write others of them meanwhile."""
        reader = ThreadPoolExecutor(_HELPERS, "read")
        writer = ThreadPoolExecutor(_HELPERS, "write")
        reading: deque[tuple[Job, Future[Picture]]] = deque()
        writing: deque[Future[Outcome]] = deque()
        try:
            while True:
                for job in islice(jobs, _HELPERS + 1 - len(reading)):
                    reading.append((job, reader.submit(self.read, job)))
                if not reading:
                    break
                job, picture = reading.popleft()
                writing.append(writer.submit(self.write, job, self.paint(picture.result)))
                # No more results wait for the disk than there are threads to write them.
                while writing and (len(writing) > _HELPERS or writing[0].done()):
                    yield writing.popleft().result()
            while writing:
                yield writing.popleft().result()
        finally:
            # After Ctrl-C too: what is being written is finished, and nothing else is begun.
            reader.shutdown(wait=False, cancel_futures=True)
            writer.shutdown(wait=True, cancel_futures=True)

    def read(self, job: Job) -> Picture:
        """The photo."""
        picture = read_picture(job.photo, max_pixels=self.max_pixels, limit_option="--max-pixels")
        return _fit(picture, self.max_side)

    def paint(self, read: Callable[[], Picture]) -> Picture | Exception:
        """The stylized version of what `read` gives, or what went wrong."""
        try:
            return self.stylizer.stylize_picture(read(), progress=self.progress)
        except (UserError, OSError, MemoryError) as error:
            return error

    def write(self, job: Job, result: Picture | Exception) -> Outcome:
        """Write the result, or say what went wrong before."""
        try:
            if isinstance(result, Exception):
                raise result
            job.output.parent.mkdir(parents=True, exist_ok=True)
            write_picture(job.output, result.rgb, alpha=result.alpha, quality=self.quality)
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
