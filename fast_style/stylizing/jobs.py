"""What there is to stylize, and where the results go: settled before any work, and without torch.

Whatever can be wrong with the names of photos and results is told within a tenth of a second, all
of it at once.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fast_style.core.errors import UserError, printable
from fast_style.pictures.folders import EXTENSIONS, find_pictures

_WRITABLE = EXTENSIONS - {".gif"}  # whose palette of 256 colors would spoil the result
# Other names of JPEG. What else cannot be written as what it is, becomes a PNG.
_WRITTEN_AS = {".jpe": ".jpg", ".jfif": ".jpg"}


class Job(NamedTuple):
    """One photo and where its stylized version goes."""

    photo: Path
    output: Path


@dataclass(frozen=True)
class OutputOptions:
    """Where results go and what they look like.

    Attributes:
        output: a file for one photo, else a folder; None for beside each photo.
        suffix: put behind a photo's name, before the extension.
        format: an extension without the dot, such as ``png``; None for the photo's own.
        overwrite: replace what is there.
        skip_existing: leave out photos whose output is there.
    """

    output: Path | None = None
    suffix: str = ""
    format: str | None = None
    overwrite: bool = False
    skip_existing: bool = False


def plan_jobs(inputs: Sequence[Path], options: OutputOptions) -> tuple[list[Job], list[Job]]:
    """What there is to do, and what is skipped because it is there; nothing is written yet.

    Raises:
        UserError: an input is missing, a folder has no photos, two photos would be written to one
            file, a file would be overwritten, a photo would be replaced, or a folder cannot be
            written to. All such mistakes at once, one per line.
    """
    jobs = _without_duplicates(_jobs(inputs, options))
    existing = [job for job in jobs if os.path.exists(job.output)]
    skipped = set(existing) if options.skip_existing else set()
    remaining = [job for job in jobs if job not in skipped]
    mistakes = [
        *_collisions(jobs, options),
        *_replacements(existing, jobs, options),
        *_unusable_folders(remaining),
    ]
    if mistakes:
        raise UserError("\n".join(mistakes))
    return remaining, [job for job in jobs if job in skipped]


def _jobs(inputs: Sequence[Path], options: OutputOptions) -> Iterator[Job]:
    # os.path: Path.exists and Path.is_dir raise an OSError for some names before Python 3.12
    missing = [path for path in inputs if not os.path.exists(path)]
    if missing:
        raise UserError("\n".join(f"{printable(path)}: not found" for path in missing))
    if options.output is not None and _is_file_name(options.output, inputs):
        yield Job(inputs[0], options.output)
        return
    for path in inputs:
        if path.is_dir():
            yield from _jobs_in_folder(path, options)
        else:
            yield Job(path, _output_of(path, Path(path.name), options))


def _is_file_name(output: Path, inputs: Sequence[Path]) -> bool:
    """Whether `output` is the file of the one photo that there is; otherwise it is a folder."""
    is_one_photo = len(inputs) == 1 and not inputs[0].is_dir()
    if os.path.isdir(output) or not (output.suffix or os.path.exists(output)):
        return False
    if is_one_photo:
        if output.suffix.lower() not in _WRITABLE:
            raise UserError(
                f"--output {printable(output)}: cannot write the format "
                f"{printable(output.suffix)!r}; use one of {', '.join(sorted(_WRITABLE))}"
            )
        return True
    if os.path.exists(output):
        raise UserError(f"--output {printable(output)}: is a file, not a folder")
    if output.suffix.lower() in EXTENSIONS:
        raise UserError(
            f"--output {printable(output)}: is a file name, but there are several photos; "
            "give a folder"
        )
    return False  # a folder with a dot in its name


def _jobs_in_folder(folder: Path, options: OutputOptions) -> Iterator[Job]:
    jobs = [
        Job(photo, _output_of(photo, photo.relative_to(folder), options))
        for photo in find_pictures(folder)
        if not _is_result_in_sub_folder(photo, folder, options.output)
    ]
    if options.suffix:
        # Results that lie beside their photos; with no suffix, a photo and a result look the same.
        results = {job.output for job in jobs}
        jobs = [job for job in jobs if job.photo not in results]
    if not jobs:
        raise UserError(f"{printable(folder)}: no photos in this folder or below it")
    yield from jobs


def _is_result_in_sub_folder(photo: Path, folder: Path, output: Path | None) -> bool:
    # Results of the last time must not become photos of this time.
    if output is None:
        return False
    results = output.resolve()
    is_sub_folder = folder.resolve() in results.parents
    return is_sub_folder and photo.resolve().is_relative_to(results)


def _output_of(photo: Path, relative: Path, options: OutputOptions) -> Path:
    own = relative.suffix
    if options.format is not None:
        extension = f".{options.format}"
    elif own.lower() in _WRITABLE:
        extension = own
    else:
        extension = _WRITTEN_AS.get(own.lower(), ".png")
    folder = photo.parent if options.output is None else options.output / relative.parent
    return folder / f"{relative.stem}{options.suffix}{extension}"


def _without_duplicates(jobs: Iterable[Job]) -> list[Job]:
    """Each photo once per output, however its path is written."""
    return list({(_place(job.photo), _place(job.output)): job for job in jobs}.values())


def _place(path: Path) -> str:
    """The same for all spellings of a path, on file systems that ignore case too."""
    place = os.path.normcase(os.path.abspath(path))
    return place.casefold() if sys.platform == "darwin" else place


def _collisions(jobs: Sequence[Job], options: OutputOptions) -> Iterator[str]:
    remedy = "leave out --format" if options.format else "do them one by one"
    first: dict[str, Job] = {}
    for job in jobs:
        earlier = first.setdefault(_place(job.output), job)
        if earlier is not job:
            yield (
                f"{printable(job.output)}: would be written twice, for "
                f"{printable(earlier.photo)} and {printable(job.photo)}; {remedy}"
            )


def _replacements(
    existing: Sequence[Job], jobs: Sequence[Job], options: OutputOptions
) -> Iterator[str]:
    photos = {os.path.realpath(job.photo) for job in jobs}
    for job in existing:
        output = printable(job.output)
        if job.output.is_dir():
            yield f"{output}: is a folder, where a file is to be written"
        elif job.output.samefile(job.photo):
            yield f"{printable(job.photo)}: would replace itself; set --suffix or --output"
        elif options.overwrite and os.path.realpath(job.output) in photos:
            yield f"{output}: is one of the photos, and would be replaced; set another --suffix"
        elif not (options.overwrite or options.skip_existing):
            yield f"{output}: exists already; allow --overwrite, or leave it with --skip-existing"


def _unusable_folders(jobs: Sequence[Job]) -> Iterator[str]:
    for folder in dict.fromkeys(job.output.parent for job in jobs):
        there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        if not there.is_dir():
            yield f"{printable(there)}: is a file, where a folder for results is needed"
        elif not os.access(there, os.W_OK | os.X_OK):
            yield f"{printable(there)}: this folder cannot be written to; choose another --output"
