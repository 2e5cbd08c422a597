"""Photo files stylized one after the other, with reading and writing in threads beside the network.

Read from the top: `stylize_files` takes each job through `_Steps.read`, `paint` and `write`.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, Protocol

from fast_style.core.errors import UserError, printable, unwritten
from fast_style.core.files import make_with_parents
from fast_style.core.free_memory import limit_remedy
from fast_style.core.signals import waiting_signals
from fast_style.pictures.pixels import fit_longer_side
from fast_style.pictures.profiles import has_unusable_profile
from fast_style.pictures.reading import Picture, ResultError, read_picture, size_in_header
from fast_style.pictures.several import num_pictures
from fast_style.pictures.writing import keeps_alpha, write_picture
from fast_style.stylizing.jobs import ExistingError, Job

# Threads that decode ahead, and as many that encode behind.
_NUM_HELPERS = 2


class Painter(Protocol):
    """What makes a picture of a photo: a `Stylizer`, or a `StyleSheet`."""

    def stylize_picture(
        self, picture: Picture, *, progress: Callable[[float], None] | None = None
    ) -> Picture:
        """The picture of a photo."""

    def is_small(self, height: int, width: int, *, max_side: int | None = None) -> bool:
        """Whether photos of this size may wait in memory while one of them is painted."""


class Outcome(NamedTuple):
    """How a job ended; `error` is None when the output was written."""

    job: Job
    error: UserError | None
    loses_alpha: bool = False
    """Whether the photo is transparent somewhere, and the output's format cannot store that."""
    num_pictures: int = 1
    """Of the photo's file, of which one was stylized; see `several.num_pictures`."""
    ignores_profile: bool = False
    """Whether the photo's color profile cannot be applied; see `profiles`."""


def stylize_files(
    painter: Painter,
    jobs: Iterable[Job],
    *,
    max_side: int | None = None,
    max_pixels: int | None = None,
    quality: int = 95,
    takes_results: bool = True,
    overwrite: bool = True,
    progress: Callable[[float], None] | None = None,
) -> Generator[Outcome, None, None]:
    """Stylize photos, and yield how each ended, in the order of the jobs; a failure stops no other.

    While the network works on a photo, the next ones are decoded and the last ones encoded. A photo
    that takes most of the memory is done alone: the next one is read after its result was written.
    The results do not depend on this overlap. Photos of one size are not batched: on a CPU with one
    thread that was 0 to 6 % faster at 128 pixels and no faster at 512.

    Args:
        painter: the model, or a sheet of several. It runs in the caller's thread, which uses
            glibc's main heap; that is the one that `cli.allocator` sets up.
        jobs: from `plan_jobs`.
        max_side: shrink photos whose longer side has more pixels.
        max_pixels: refuse photos with more pixels; see `read_picture`.
        quality: of JPEG and WebP results, 1 to 100.
        takes_results: whether a result of this software is stylized; otherwise its job ends with a
            `ResultError`.
        overwrite: whether a result that exists is replaced; otherwise its job ends with an
            `ExistingError`. `plan_jobs` has looked for those that existed then.
        progress: called during photos in bands; see `Stylizer.stylize_picture`.
    """
    steps = _Steps(painter, max_side, max_pixels, quality, takes_results, overwrite, progress)
    for are_small, group in groupby(jobs, key=steps.is_small):
        if are_small:
            yield from _overlap(steps, group)
        else:
            for job in group:
                yield steps.write(job, steps.paint(steps.read(job)))


def _overlap(steps: "_Steps", jobs: Iterator[Job]) -> Generator[Outcome, None, None]:
    """Paint photos in this thread, while others are read and written in helper threads."""
    reader = ThreadPoolExecutor(_NUM_HELPERS, "read")
    writer = ThreadPoolExecutor(_NUM_HELPERS, "write")
    reading: deque[tuple[Job, Future[Picture | Exception]]] = deque()
    writing: deque[Future[Outcome]] = deque()
    try:
        while True:
            for job in islice(jobs, _NUM_HELPERS + 1 - len(reading)):
                with waiting_signals():
                    reading.append((job, reader.submit(steps.read, job)))
            if not reading:
                break
            job, picture = reading.popleft()
            result = steps.paint(picture.result())
            with waiting_signals():
                writing.append(writer.submit(steps.write, job, result))
            # No more results wait for the disk than there are threads to write them.
            while writing and (len(writing) > _NUM_HELPERS or writing[0].done()):
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()
    finally:
        # After Ctrl-C too: files that are being written are finished, and no other is begun.
        reader.shutdown(wait=False, cancel_futures=True)
        writer.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Steps:
    """The steps of one photo: read, paint, write. An error is passed on in place of the picture.

    The attributes are arguments of `stylize_files`.
    """

    painter: Painter
    max_side: int | None
    max_pixels: int | None
    quality: int
    takes_results: bool
    overwrite: bool
    progress: Callable[[float], None] | None

    def is_small(self, job: Job) -> bool:
        """Whether other photos may be read and written while this one is painted."""
        size = size_in_header(Path(job.photo))
        # No size: the file cannot be read, and so takes no memory.
        return size is None or self.painter.is_small(*size, max_side=self.max_side)

    def read(self, job: Job) -> Picture | Exception:
        """The photo, shrunk to `max_side`."""
        try:
            picture = read_picture(
                Path(job.photo), max_pixels=self.max_pixels, takes_results=self.takes_results
            )
            return picture if self.max_side is None else shrunk(picture, self.max_side)
        except (UserError, OSError, MemoryError) as error:
            return error

    def paint(self, photo: Picture | Exception) -> Picture | Exception:
        """The stylized photo."""
        if isinstance(photo, Exception):
            return photo
        try:
            return self.painter.stylize_picture(photo, progress=self.progress)
        except (UserError, OSError, MemoryError) as error:
            return error

    def write(self, job: Job, result: Picture | Exception) -> Outcome:
        """Write the result, and its folder if there is none; returns how the job ended."""
        if isinstance(result, Exception):
            return _failure(job, result)
        try:
            output = Path(job.output)
            make_with_parents(output.parent)
        except OSError as error:
            return _failure(job, error)
        try:
            write_picture(
                output,
                result.rgb,
                alpha=result.alpha,
                quality=self.quality,
                replaces=self.overwrite,
            )
        except FileExistsError:
            return Outcome(job, ExistingError(job.output))
        except (UserError, OSError, MemoryError) as error:
            return _failure(job, error)
        loses_alpha = _is_transparent(result) and not keeps_alpha(output)
        photo = Path(job.photo)
        return Outcome(job, None, loses_alpha, num_pictures(photo), has_unusable_profile(photo))


def _is_transparent(picture: Picture) -> bool:
    return picture.alpha is not None and picture.alpha.getextrema()[0] != 255


def shrunk(picture: Picture, max_side: int) -> Picture:
    """The picture with a longer side of `max_side` pixels at most."""
    alpha = picture.alpha
    return Picture(
        fit_longer_side(picture.rgb, max_side),
        fit_longer_side(alpha, max_side) if alpha is not None else None,
    )


def _failure(job: Job, error: Exception) -> Outcome:
    """The outcome of a job that failed, in one line that names the photo or its output."""
    if isinstance(error, ResultError):
        return Outcome(job, error)
    photo, output = printable(job.photo), printable(job.output)
    if isinstance(error, UserError):
        line = str(error)
        if not line.startswith((photo, output)):
            line = f"{photo}: {line}"
    elif isinstance(error, OSError):
        return Outcome(job, unwritten(job.output, error))
    else:
        line = f"{photo}: memory ran out; shrink the photo with --max-side{limit_remedy()}"
    return Outcome(job, UserError(line, exit_code=1))
