"""The photos to stylize and the files of their results, planned before any work and without torch.

All mistakes in these names are reported together, within a tenth of a second.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fast_style.core.errors import UserError, printable
from fast_style.pictures.folders import EXTENSIONS, find_pictures
from fast_style.pictures.writing import WRITABLE

# Other names of JPEG. Every other format that cannot be written becomes PNG.
_WRITTEN_AS = {".jpe": ".jpg", ".jfif": ".jpg"}


class Job(NamedTuple):
    """One photo, and the file for its stylized version."""

    photo: Path
    output: Path


@dataclass(frozen=True)
class OutputOptions:
    """How the results are named, and what happens to files that exist.

    Attributes:
        output: a file for a single photo, else a folder; None writes beside each photo.
        suffix: added to a photo's name, before the extension.
        format: an extension without the dot, such as ``png``; None keeps the photo's own.
        overwrite: replace existing results.
        skip_existing: skip photos whose result exists.
    """

    output: Path | None = None
    suffix: str = ""
    format: str | None = None
    overwrite: bool = False
    skip_existing: bool = False


def plan_jobs(inputs: Sequence[Path], options: OutputOptions) -> tuple[list[Job], list[Job]]:
    """The jobs to do, and those that are skipped because their result exists; writes nothing.

    Args:
        inputs: photos, and folders of photos.
        options: where the results go.

    Raises:
        UserError: an input is missing, a folder has no photos, two photos would be written to one
            file, a file would be overwritten, a photo would be replaced, or a folder cannot be
            written to. One line for each of these mistakes.
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
    """A job for every photo, in the order of the inputs; a photo may come twice.

    Raises:
        UserError: a photo or folder is missing or has no photos, or --output does not fit them.
    """
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
    """Whether `output` names the file for a single photo, not a folder.

    Raises:
        UserError: it can be neither.
    """
    is_one_photo = len(inputs) == 1 and not inputs[0].is_dir()
    if os.path.isdir(output) or not (output.suffix or os.path.exists(output)):
        return False
    if is_one_photo:
        if output.suffix.lower() not in WRITABLE:
            raise UserError(
                f"--output {printable(output)}: cannot write the format "
                f"{printable(output.suffix)!r}; use one of {', '.join(WRITABLE)}"
            )
        return True
    if os.path.exists(output):
        raise UserError(
            f"--output {printable(output)}: is a file, but there are several photos; give a folder"
        )
    if output.suffix.lower() in EXTENSIONS:
        raise UserError(
            f"--output {printable(output)}: names a file, but there are several photos; "
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
        # Earlier results beside their photos are left out; without a suffix they look like photos.
        results = {job.output for job in jobs}
        jobs = [job for job in jobs if job.photo not in results]
    if not jobs:
        raise UserError(f"{printable(folder)}: no photos in this folder or below it")
    yield from jobs


def _is_result_in_sub_folder(photo: Path, folder: Path, output: Path | None) -> bool:
    """Whether a photo lies in the output folder, where that is inside the folder of photos."""
    # Earlier results must not be stylized again.
    if output is None:
        return False
    results = output.resolve()
    is_sub_folder = folder.resolve() in results.parents
    return is_sub_folder and photo.resolve().is_relative_to(results)


def _output_of(photo: Path, relative: Path, options: OutputOptions) -> Path:
    """The file for the result; `relative` is the photo's path below the input folder."""
    own = relative.suffix
    if options.format is not None:
        extension = f".{options.format}"
    elif own.lower() in WRITABLE:
        extension = own
    else:
        extension = _WRITTEN_AS.get(own.lower(), ".png")
    folder = photo.parent if options.output is None else options.output / relative.parent
    return folder / f"{relative.stem}{options.suffix}{extension}"


def _without_duplicates(jobs: Iterable[Job]) -> list[Job]:
    """Each photo once per output, however its path is written."""
    return list({(_place(job.photo), _place(job.output)): job for job in jobs}.values())


def _place(path: Path) -> str:
    """One string for all spellings of a path; ignores case where the file system does."""
    place = os.path.normcase(os.path.abspath(path))
    return place.casefold() if sys.platform == "darwin" else place


def _collisions(jobs: Sequence[Job], options: OutputOptions) -> Iterator[str]:
    first: dict[str, Job] = {}
    for job in jobs:
        earlier = first.setdefault(_place(job.output), job)
        if earlier is not job:
            # --format makes the same name of a.jpg and a.png.
            is_due_to_format = options.format and earlier.photo.suffix != job.photo.suffix
            remedy = (
                "leave out --format"
                if is_due_to_format
                else "stylize them in two runs, each with its own --output or --suffix"
            )
            yield (
                f"{printable(job.output)}: both {printable(earlier.photo)} and "
                f"{printable(job.photo)} would be written here; {remedy}"
            )


def _replacements(
    existing: Sequence[Job], jobs: Sequence[Job], options: OutputOptions
) -> Iterator[str]:
    photos = {os.path.realpath(job.photo) for job in jobs}
    for job in existing:
        photo, output = printable(job.photo), printable(job.output)
        if job.output.is_dir():
            yield f"{output}: is a folder, but the result is a file; set another --suffix"
        elif job.output.samefile(job.photo):
            yield f"{photo}: its result would replace it; set --suffix or --output"
        elif options.overwrite and os.path.realpath(job.output) in photos:
            yield f"{output}: a result would replace this photo; set another --suffix or --output"
        elif not (options.overwrite or options.skip_existing):
            yield (
                f"{output}: exists already; replace it with --overwrite "
                "or keep it with --skip-existing"
            )


def _unusable_folders(jobs: Sequence[Job]) -> Iterator[str]:
    for folder in dict.fromkeys(job.output.parent for job in jobs):
        nearest = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        if not nearest.is_dir():
            yield (
                f"{printable(nearest)}: is a file, but the results need a folder of this name; "
                "choose another --output"
            )
        elif not os.access(nearest, os.W_OK | os.X_OK):
            yield (
                f"{printable(nearest)}: no permission to write to this folder; "
                "choose another --output"
            )
