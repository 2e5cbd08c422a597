"""The photos that a command is given: files and folders of them, and which a run holds out.

What of a folder is a photo, `scanning` decides.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fast_style.core.errors import UserError, printable
from fast_style.pictures.formats import FORMATS
from fast_style.pictures.reading import PictureError, read_picture
from fast_style.pictures.real_paths import RealPaths
from fast_style.pictures.scanning import (
    RULES,
    LeftOut,
    Scan,
    keep_silent,
    names_of_results,
    prefix_of,
    scan_folder,
)

# --- Photos of a command line -------------------------------------------------------------------


class Inputs(NamedTuple):
    """The photos that a command line names, and what was left out."""

    scans: list[Scan]
    """For each input: a folder's photos; or of a file its folder, and its name unless left out."""
    takes_results: bool
    """Whether results of this software, which are known when they are read, are photos too."""

    @property
    def pictures(self) -> list[Path]:
        """All photos in the order of the inputs, each path once."""
        return list(dict.fromkeys(path for scan in self.scans for path in scan.pictures))

    @property
    def left_out(self) -> list[LeftOut]:
        """What was left out, once for each folder."""
        return list({id(scan.left_out): scan.left_out for scan in self.scans}.values())


def find_inputs(
    inputs: Sequence[Path],
    *,
    takes_results: bool = False,
    option: str = "--include-results",
    tell: Callable[[str], None] = keep_silent,
) -> Inputs:
    """The given files, and the photos of the given folders.

    A file that is the only input is always taken. Of several, results of others among them are left
    out: a shell's ``*.jpg`` names them too.

    Args:
        inputs: files and folders.
        takes_results: take results of this software for photos.
        option: what of the command line sets `takes_results`, for messages.
        tell: as in `scan_folder`.

    Raises:
        UserError: an input does not exist, or there is no photo in one of the folders or at all.
        PictureError: as `scan_folder`.
    """
    # os.path: Path.exists and Path.is_dir raise an OSError for some names before Python 3.12
    missing = [path for path in inputs if not os.path.exists(path)]
    if missing:
        raise UserError("\n".join(f"{printable(path)}: not found" for path in missing))
    takes_results = takes_results or (len(inputs) == 1 and not inputs[0].is_dir())
    results = set() if takes_results else _results_among_files(inputs)
    left_out_of = {path.parent: LeftOut(path.parent) for path in inputs}
    scans = [
        scan_folder(path, takes_results=takes_results, tell=tell)
        if path.is_dir()
        else _scan_of_file(path, left_out_of[path.parent], is_result=path in results)
        for path in inputs
    ]
    empty = [
        scan for path, scan in zip(inputs, scans, strict=True) if not scan.names and path.is_dir()
    ]
    if empty:
        raise UserError("\n".join(_no_photos(scan, option) for scan in empty))
    return Inputs(scans, takes_results)


def _results_among_files(inputs: Iterable[Path]) -> set[Path]:
    by_folder = defaultdict(set)
    for path in inputs:
        by_folder[path.parent].add(path.name)
    return {
        folder / name for folder, names in by_folder.items() for name in names_of_results(names)
    }


def _scan_of_file(path: Path, left_out: LeftOut, *, is_result: bool) -> Scan:
    if is_result:
        left_out.add("result", path.name)
    return Scan(path.parent, [] if is_result else [path.name], left_out, {})


def _no_photos(scan: Scan, option: str, remedy: str = "") -> str:
    return (
        f"{printable(scan.folder)}: no photos in this folder or below it (looked for "
        f"{', '.join(FORMATS)}){_summary(scan.left_out, option)}{remedy}"
    )


def _summary(left_out: LeftOut, option: str) -> str:
    """What was left out, behind an error that there are too few; empty if nothing was."""
    summary = left_out.summary(option)
    return summary and f"; {summary}"


def why_unreadable(path: Path, *, takes_results: bool = True) -> PictureError | None:
    """Why a photo cannot be used, or None.

    Args:
        path: the photo.
        takes_results: whether a result of this software can be.
    """
    try:
        read_picture(path, takes_results=takes_results)
    except PictureError as error:
        return error
    return None


# --- Photos of a run ----------------------------------------------------------------------------

INCLUDE_RESULTS = "data.include_results=true"
"""The setting that takes results of this software in, as it is written on a command line."""


class Photos(NamedTuple):
    """The photos of a run: those trained on, and those held out for validation."""

    folder: Path
    training: list[Path]
    validation: list[Path]
    left_out: Sequence[LeftOut] = ()
    """What was left out of the folders."""
    rules: int = RULES
    """Those that the folders were scanned by; see `scanning.RULES`."""
    takes_results: bool = False
    """Whether results of this software, which are known when they are read, are photos too."""

    @property
    def digest(self) -> str:
        """The sha256 of the training photos' names in order: it identifies the data set."""
        names = "\n".join(names_of(self.training, self.folder))
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def sizes_digest(self) -> str:
        """The sha256 of the sizes of the training photos' files: it tells of replaced ones."""
        sizes = "\n".join(_size_of(photo) for photo in self.training)
        return hashlib.sha256(sizes.encode()).hexdigest()

    @property
    def held_out_digest(self) -> str:
        """The sha256 of the names and sizes of the held-out photos' files, in whichever folder."""
        files = "\n".join(f"{photo.name} {_size_of(photo)}" for photo in self.validation)
        return hashlib.sha256(files.encode("utf-8", "surrogateescape")).hexdigest()

    def name_of(self, photo: Path) -> str:
        """The path of a photo relative to the folder, with forward slashes."""
        return names_of([photo], self.folder)[0]


def _size_of(file: Path) -> str:
    try:
        return str(os.stat(file).st_size)
    except OSError:  # it has vanished since the scan, and counts as unreadable
        return "gone"


def find_photos(
    folder: Path,
    *,
    validation_folder: Path | None = None,
    validation_count: int = 16,
    kind: str = "photos",
    rules: int = RULES,
    takes_results: bool = False,
    tell: Callable[[str], None] = keep_silent,
) -> Photos:
    """All photos of a folder, some of them held out for validation.

    The photos held out are those whose names have the smallest sha256. So they stay the same when
    the folder moves, and most of them when photos are added. None of them is trained on, even if
    one of the two folders lies in the other, or has links to photos of the other.

    Args:
        folder: searched recursively.
        validation_folder: the folder to hold out photos of, if not `folder`.
        validation_count: largest number of photos to hold out.
        kind: the settings' name for them, as in ``data.photos``; used in errors.
        rules: as in `scan_folder`.
        takes_results: likewise.
        tell: likewise.

    Raises:
        UserError: a folder does not exist or contains too few photos.
        PictureError: as `scan_folder`.
    """

    def scan(place: Path, key: str) -> Scan:
        require_folder(place, key)
        done = scan_folder(place, rules=rules, takes_results=takes_results, tell=tell)
        if not done.names:
            raise UserError(_no_photos(done, INCLUDE_RESULTS, f"; check {key}"))
        return done

    scans = [scan(folder, f"data.{kind}")]
    found = scans[0].pictures
    if validation_folder is None:
        # At least half remain for training, however small the folder.
        held_out = by_hash(found, folder)[: min(validation_count, len(found) // 2)]
    else:
        scans.append(scan(validation_folder, f"data.validation_{kind}"))
        held_out = by_hash(scans[1].pictures, validation_folder)[:validation_count]
    real_path_of = _real_paths_in(scans)
    untouchable = {real_path_of(path) for path in held_out}
    training = [path for path in found if real_path_of(path) not in untouchable]
    left_out = [done.left_out for done in scans]
    if not held_out:
        raise UserError(
            f"{printable(folder)}: one photo is too few to hold one out for validation; add "
            f"photos, or set data.validation_{kind}{_summary(left_out[0], INCLUDE_RESULTS)}"
        )
    if not training:
        raise UserError(
            f"{printable(folder)}: all photos are held out for validation; add photos, or set "
            f"data.validation_{kind} to another folder{_summary(left_out[0], INCLUDE_RESULTS)}"
        )
    # A run that began by the first rules goes on with all of its photos.
    return Photos(folder, training, held_out, left_out, rules, takes_results or rules == 1)


def require_folder(folder: Path, key: str) -> None:
    """Check that a folder of pictures exists; `find_photos` checks that it contains any.

    Args:
        folder: the value of the setting.
        key: the setting, such as ``data.photos``.

    Raises:
        UserError: it does not exist, or is a file.
    """
    # os.path: Path.exists and Path.is_dir raise an OSError for some names before Python 3.12
    if not os.path.exists(folder):
        raise UserError(f"{printable(folder)}: folder not found; check {key}")
    if not os.path.isdir(folder):
        raise UserError(f"{printable(folder)}: is a file; {key} must be a folder")


def by_hash(photos: Iterable[Path], folder: Path) -> list[Path]:
    """Photos ordered by the sha256 of their names relative to `folder`: arbitrary, but stable."""
    photos = list(photos)
    ranks = [
        hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        for name in names_of(photos, folder)
    ]
    return [photo for _, photo in sorted(zip(ranks, photos, strict=True))]


def names_of(photos: Iterable[Path], folder: Path) -> list[str]:
    """The paths of photos in a folder relative to it, with forward slashes."""
    length = len(prefix_of(folder))
    return [os.fspath(photo)[length:].replace(os.sep, "/") for photo in photos]


def _real_paths_in(scans: Iterable[Scan]) -> Callable[[Path], str]:
    """A function that gives the real path of each photo of the scans."""
    links = {
        prefix_of(scan.folder) + name: real for scan in scans for name, real in scan.links.items()
    }
    real_paths = RealPaths()

    def real_path_of(photo: Path) -> str:
        path = os.fspath(photo)
        return links.get(path) or real_paths.in_real_folder(path)

    return real_path_of
