"""The photos to stylize and the files of their results, planned before any work and without torch.

All mistakes in these names are reported together, within a tenth of a second.
"""

import functools
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fast_style.core.errors import UserError, printable
from fast_style.core.files import identity_of, why_unwritable
from fast_style.pictures.folders import find_inputs
from fast_style.pictures.formats import EXTENSIONS, FORMATS, suffix_of
from fast_style.pictures.scanning import LeftOut, Scan, first_of, keep_silent, prefix_of
from fast_style.pictures.writing import WRITABLE, misnamed

# Every other format that cannot be written becomes PNG.
_READ_AS_JPEG = frozenset(FORMATS["JPEG"] + FORMATS["MPO"])


class ExistingError(UserError):
    """A result that exists is not to be replaced. One that had appeared by then was left as it is.

    Args:
        output: of a job.
    """

    def __init__(self, output: str) -> None:
        super().__init__(
            f"{printable(output)}: exists already; replace it with --overwrite or keep it with "
            "--skip-existing",
            exit_code=1,
        )


class Job(NamedTuple):
    """One photo, and the file for its stylized version; as text, since paths are slow to make."""

    photo: str
    output: str

    @property
    def folder(self) -> str:
        """The folder of the output; empty is the working directory, or the root."""
        return self.output.rpartition(os.sep)[0]


@dataclass(frozen=True)
class OutputOptions:
    """How the results are named, and what happens to files that exist.

    Attributes:
        output: a file for a single photo, else a folder; None writes beside each photo.
        is_folder: whether `output` is a folder, whatever its name.
        suffix: added to a photo's name, before the extension.
        format: an extension without the dot, such as ``png``; None keeps the photo's own.
        overwrite: replace existing results.
        skip_existing: skip photos whose result exists.
    """

    output: Path | None = None
    is_folder: bool = False
    suffix: str = ""
    format: str | None = None
    overwrite: bool = False
    skip_existing: bool = False


class Plan(NamedTuple):
    """What a command stylizes, and what it does not."""

    jobs: list[Job]
    """To do."""
    skipped: list[Job]
    """Not to do, because their result exists."""
    left_out: list[LeftOut]
    """What of the folders is no photo, and why."""
    takes_results: bool
    """Whether results of this software, which are known when they are read, are photos too."""


def plan_jobs(
    inputs: Sequence[Path],
    options: OutputOptions,
    *,
    takes_results: bool = False,
    tell: Callable[[str], None] = keep_silent,
) -> Plan:
    """The jobs to do, and all that is not done; writes nothing.

    Args:
        inputs: photos, and folders of photos.
        options: where the results go.
        takes_results: as in `find_inputs`.
        tell: likewise.

    Raises:
        UserError: an input is missing, a folder has no photos, two photos would be written to one
            file, a file would be overwritten, a photo would be replaced, a name is too long, or a
            folder cannot be written to. One line for each of these mistakes.
    """
    found = find_inputs(inputs, takes_results=takes_results, tell=tell)
    output = options.output
    if output is not None and not options.is_folder and _is_file_name(output, inputs):
        _require_own_format(output, options.format, inputs[0])
        jobs = [Job(os.fspath(inputs[0]), os.fspath(output))]
    else:
        jobs = [
            job
            for path, scan in zip(inputs, found.scans, strict=True)
            for job in _jobs_of(scan, options, is_folder=path.is_dir())
        ]
    place = _Places()
    jobs = list({(place(job.photo), place(job.output)): job for job in jobs}.values())
    jobs, short_names = _told_apart(jobs, options.suffix, place, tell)
    by_folder: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_folder[job.folder].append(job)
    existing = list(_existing(by_folder.values()))
    skipped = set(existing) if options.skip_existing else set()
    remaining = [job for job in jobs if job not in skipped] if skipped else jobs
    mistakes = [
        *_collisions(jobs, place),
        *_replacements(existing, jobs, options),
        *_too_long_names(by_folder.values(), options),
        *_unusable_folders([group[0] for group in by_folder.values() if not skipped >= set(group)]),
    ]
    if mistakes:
        raise UserError("\n".join(mistakes))
    left = {job.output for job in skipped}
    if doubtful := [short_names[job] for job in remaining if short_names.get(job) in left]:
        # A photo that was alone once has left its result under the name that is another's now.
        tell(
            "left as they are, but perhaps made of another photo of the same name, when that was "
            f"alone: {first_of(doubtful)}; remove them, or --overwrite all, if so"
        )
    done = [job for job in existing if job in skipped]
    if empty := [job.output for job in done if _is_empty(job.output)]:
        tell(
            f"left as they are, but empty (0 bytes): {first_of(empty)}; remove them, and the same "
            "command makes them"
        )
    return Plan(remaining, done, found.left_out, found.takes_results)


def _existing(groups: Iterable[Sequence[Job]]) -> Iterator[Job]:
    """The jobs whose output exists, of groups whose outputs have one folder."""
    for group in groups:
        # Of a folder that does not exist, no file is asked for.
        if not group[0].folder or os.path.exists(group[0].folder):
            yield from (job for job in group if os.path.lexists(job.output))


def _is_empty(output: str) -> bool:
    # This software writes whole files: another program, or a lost disk, has left this one.
    return os.path.exists(output) and os.path.getsize(output) == 0


def named_otherwise(output: Path, suffix: str, photo: str | Path) -> str:
    """The --output to advise in place of one: with another suffix, but never the photo itself."""
    other = output.with_suffix(suffix)
    if os.path.exists(other) and os.path.samefile(other, photo):
        return f"--output NAME{suffix}, with a name of its own"
    return f"--output {printable(other)}"


def _require_own_format(output: Path, format: str | None, photo: Path) -> None:
    """Check that the file for a result has the format that was asked for.

    Raises:
        UserError: its suffix names another one.
    """
    own = WRITABLE.get(output.suffix.lower())
    if format is not None and own is not None and own != WRITABLE[f".{format}"]:
        raise UserError(
            f"--output {printable(output)}: names another format than --format {format}; leave "
            f"--format out, or give {named_otherwise(output, f'.{format}', photo)}"
        )


def _is_file_name(output: Path, inputs: Sequence[Path]) -> bool:
    """Whether `output` names the file for a single photo, not a folder.

    Raises:
        UserError: it can be neither.
    """
    is_one_photo = len(inputs) == 1 and not inputs[0].is_dir()
    if os.path.isdir(output) or not (output.suffix or os.path.exists(output)):
        return False
    if is_one_photo:
        is_special = os.path.exists(output) and not os.path.isfile(output)
        if output.suffix.lower() not in WRITABLE and not is_special:  # of a device, that is told
            of_folder = "" if os.path.exists(output) else f", or for a folder {printable(output)}/"
            raise UserError(f"--output {printable(output)}: {misnamed(output.suffix)}{of_folder}")
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


def _jobs_of(scan: Scan, options: OutputOptions, *, is_folder: bool) -> list[Job]:
    """A job for every photo of an input. Earlier results that its outputs show are left out.

    Raises:
        UserError: all photos of a folder are such results.
    """
    prefix = prefix_of(scan.folder)
    # With --output, results of a folder keep their places below it.
    results = prefix if options.output is None else prefix_of(options.output)
    jobs = [Job(prefix + name, results + _name_of_result(name, options)) for name in scan.names]
    if not is_folder:
        return jobs
    # Results beside their photos; without a suffix they look like photos.
    outputs = set()
    if options.suffix:
        outputs = {job.output for job in jobs} | {_longer(job, options.suffix) for job in jobs}
    is_in_output = _folders_in_output(scan.folder, options.output)
    photos = [
        job
        for job in jobs
        if not (job.photo in outputs or is_in_output(job.photo.rpartition(os.sep)[0]))
    ]
    if len(photos) < len(jobs):
        for left_out in set(jobs) - set(photos):
            scan.left_out.add("result", left_out.photo.removeprefix(prefix))
    if not photos:
        summary = scan.left_out.summary("--include-results")
        raise UserError(
            f"{printable(scan.folder)}: no photos in this folder or below it; {summary}"
        )
    return photos


def _folders_in_output(folder: Path, output: Path | None) -> Callable[[str], bool]:
    """Whether a folder is the output folder or below it, where that is inside `folder`."""
    # Earlier results must not be stylized again.
    if output is None or folder.resolve() not in output.resolve().parents:
        return lambda name: False
    results = output.resolve()

    @functools.cache  # a real path costs several accesses to the disk
    def is_in_output(name: str) -> bool:
        return Path(os.path.realpath(name or os.curdir)).is_relative_to(results)

    return is_in_output


def _name_of_result(name: str, options: OutputOptions) -> str:
    stem, own = os.path.splitext(name)
    if options.format is not None:
        extension = f".{options.format}"
    elif own.lower() in WRITABLE:
        extension = own
    else:
        extension = ".jpg" if own.lower() in _READ_AS_JPEG else ".png"
    return f"{stem}{options.suffix}{extension}"


class _Places:
    """Gives one string for all spellings of a path; ignores case where the file system does."""

    def __init__(self) -> None:
        self.folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        """The string."""
        folder, separator, name = path.rpartition(os.sep)
        if folder not in self.folders:
            self.folders[folder] = os.path.join(os.path.abspath(folder + separator), "")
        place = os.path.normcase(self.folders[folder] + name)
        return place.casefold() if sys.platform == "darwin" else place


def _told_apart(
    jobs: Sequence[Job], suffix: str, place: _Places, tell: Callable[[str], None]
) -> tuple[list[Job], dict[Job, str]]:
    """The jobs, with a longer name for each result that would have the name of another one.

    Also the shorter names of these results, which they have where their photos are alone.

    a.gif, a.avif and a.png become a.gif.png, a.avif.png and a.png: who keeps the photo's format
    keeps the name. So it depends on the photos alone, and not on their order.
    """
    num_of = Counter(place(job.output) for job in jobs)
    apart = [
        job._replace(output=_longer(job, suffix))
        if num_of[place(job.output)] > 1 and suffix_of(job.photo) != suffix_of(job.output)
        else job
        for job in jobs
    ]
    short_names = {new: job.output for job, new in zip(jobs, apart, strict=True) if new is not job}
    if short_names:
        tell(
            "several results would have one name; so these keep the format of their photo in it: "
            + first_of([job.output for job in short_names])
        )
    return apart, short_names


def _longer(job: Job, suffix: str) -> str:
    """The output of a job, with the photo's whole name in its own."""
    folder, separator, name = job.output.rpartition(os.sep)
    photo, extension = os.path.basename(job.photo), os.path.splitext(name)[1]
    return f"{folder}{separator}{photo}{suffix}{extension}"


def _collisions(jobs: Sequence[Job], place: _Places) -> Iterator[str]:
    first: dict[str, Job] = {}
    for job in jobs:
        earlier = first.setdefault(place(job.output), job)
        if earlier is not job:
            photos = (earlier.photo, job.photo)
            is_one_folder = len({place(os.path.dirname(photo)) for photo in photos}) == 1
            remedy = (
                "rename one of them"
                if is_one_folder
                else "stylize them in two runs, each with its own --output or --suffix"
            )
            yield (
                f"{printable(job.output)}: both {printable(earlier.photo)} and "
                f"{printable(job.photo)} would be written here; {remedy}"
            )


def _replacements(
    existing: Sequence[Job], jobs: Sequence[Job], options: OutputOptions
) -> Iterator[str]:
    # By identity, since a real path costs several accesses to the disk.
    is_at_risk = options.overwrite and existing
    photos = {identity_of(job.photo) for job in jobs} if is_at_risk else set()
    for job in existing:
        photo, output = printable(job.photo), printable(job.output)
        if not os.path.exists(job.output):
            if not options.overwrite:
                yield f"{output}: is a broken link; remove it, or replace it with --overwrite"
        elif os.path.isdir(job.output):
            yield f"{output}: is a folder, but the result is a file; set another --suffix"
        elif not os.path.isfile(job.output):  # /dev/null, which root could replace
            yield f"{output}: is a device or a pipe; set another --output"
        elif os.path.samefile(job.output, job.photo):
            yield f"{photo}: its result would replace it; set --suffix or --output"
        elif options.overwrite and identity_of(job.output) in photos:
            yield f"{output}: a result would replace this photo; set another --suffix or --output"
        elif not (options.overwrite or options.skip_existing):
            yield str(ExistingError(job.output))


def _too_long_names(groups: Iterable[Sequence[Job]], options: OutputOptions) -> Iterator[str]:
    """A line for each name that the disk cannot have, of groups whose outputs have one folder."""
    for group in groups:
        folder = Path(group[0].output).parent
        most = _most_bytes_of_name(_nearest(folder))
        if any(len(os.fsencode(part)) > most for part in folder.parts):
            yield (
                f"{printable(folder)}: a folder's name may have at most {most} bytes on this disk; "
                "choose another --output"
            )
            continue
        for job in group:
            name = os.fsencode(job.output.rpartition(os.sep)[2])
            if len(name) > most:
                yield (
                    f"{printable(job.output)}: a name may have at most {most} bytes on this disk, "
                    f"and this one has {len(name)}; {_remedy_for_long_name(job, options)}"
                )


def _most_bytes_of_name(folder: Path) -> int:
    if sys.platform == "win32":  # counts letters, and can have them in longer names, too
        return sys.maxsize
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except OSError:
        return 255  # of nearly all disks


def _remedy_for_long_name(job: Job, options: OutputOptions) -> str:
    if job.output == os.fspath(options.output or ""):
        return "choose another --output"
    if not options.suffix:
        return "rename the photo"
    return "set a shorter --suffix" + (", or --output" if options.output is None else "")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def _unusable_folders(jobs: Iterable[Job]) -> Iterator[str]:
    """A line for each folder that cannot be written to, of jobs with a folder each."""
    for job in jobs:
        nearest = _nearest(Path(job.output).parent)
        if not nearest.is_dir():
            found = "a file" if nearest.exists() else "a broken link"
            yield (
                f"{printable(nearest)}: is {found}, but the results need a folder of this name; "
                "choose another --output"
            )
        elif refusal := why_unwritable(nearest):
            yield f"{printable(nearest)}: {refusal}; choose another --output"
