"""Which files of a folder are pictures, and which photos of a run are held out."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fast_style.core.errors import UserError, printable
from fast_style.pictures.reading import PictureError, in_plain_words

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""Suffixes, in lower case, of the files that `find_pictures` takes for pictures."""


def find_pictures(folder: Path) -> list[Path]:
    """All picture files in a folder and its sub-folders, in an order that only names decide.

    Taken are regular files, and links to them, with a suffix of `EXTENSIONS` in either case. Left
    out are hidden files and folders (macOS's ``._x.jpg`` among them) and links to folders.

    Raises:
        PictureError: `folder`, or a folder in it, cannot be listed. (Leaving such a folder out
            would silently train on, or stylize, only a part.)
    """
    found: list[Path] = []
    unvisited = [folder]
    while unvisited:
        for entry in _visible_entries(unvisited.pop()):
            if entry.is_dir(follow_symlinks=False):
                unvisited.append(Path(entry.path))
            elif _has_picture_suffix(entry.name) and _is_regular_file(entry):
                found.append(Path(entry.path))
    return sorted(found, key=lambda path: path.parts)


def _visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except NotADirectoryError:
        raise PictureError(f"{printable(folder)}: not a folder") from None
    except OSError as error:
        raise PictureError(f"{printable(folder)}: {in_plain_words(error)}") from error


def _has_picture_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _is_regular_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False  # a link that leads to itself


def require_folder(folder: Path, key: str) -> None:
    """See that a folder of photos is there; `key` is the setting that names it.

    Raises:
        UserError: it is not, or is a file.
    """
    # os.path: Path.exists and Path.is_dir raise an OSError for some names before Python 3.12
    if not os.path.exists(folder):
        raise UserError(f"{printable(folder)}: this folder of photos is not there; check {key}")
    if not os.path.isdir(folder):
        raise UserError(f"{printable(folder)}: is a file; {key} must be a folder of photos")


def pictures_of(inputs: Sequence[Path]) -> list[Path]:
    """The pictures that these files and folders are, each once.

    Raises:
        UserError: one is not there, or there are no pictures.
    """
    for path in inputs:
        if not os.path.exists(path):
            raise UserError(f"{printable(path)}: not found")
    files: Iterable[Path] = (
        file for path in inputs for file in (find_pictures(path) if path.is_dir() else [path])
    )
    found = list(dict.fromkeys(files))
    if not found:
        raise UserError(f"{printable(inputs[0])}: there are no photos in this folder")
    return found


class Photos(NamedTuple):
    """The photos of a run, split into those trained on and those held out."""

    folder: Path
    training: list[Path]
    validation: list[Path]

    @property
    def digest(self) -> str:
        """Of the training photos' names, in order; a changed data set changes it."""
        names = "\n".join(map(self.name_of, self.training))
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    def name_of(self, photo: Path) -> str:
        """A photo's path within the folder, with forward slashes."""
        return _name_of(photo, self.folder)


def find_photos(
    folder: Path,
    *,
    validation_folder: Path | None = None,
    validation_count: int = 16,
    kind: str = "photos",
) -> Photos:
    """All photos of a folder, some of them held out for validation.

    Held out are those whose names have the smallest sha256: the same ones wherever the folder
    lies, and mostly the same when photos are added. None of them is trained on, even where one of
    the two folders lies in the other.

    Args:
        folder: searched recursively.
        validation_folder: where those held out come from, if not from `folder`.
        validation_count: how many are held out, at most.
        kind: what their setting under ``data`` is called, for errors.

    Raises:
        UserError: there is no such folder, or too few photos in it.
    """
    found = _list_folder(folder, f"data.{kind}")
    if validation_folder is None:
        # At least half remain for training, however small the folder.
        held_out = by_hash(found, folder)[: min(validation_count, len(found) // 2)]
    else:
        candidates = _list_folder(validation_folder, f"data.validation_{kind}")
        held_out = by_hash(candidates, validation_folder)[:validation_count]
    untouchable = set(_below_real_folder(held_out, validation_folder or folder))
    real_paths = _below_real_folder(found, folder)
    training = [
        path for path, real in zip(found, real_paths, strict=True) if real not in untouchable
    ]
    if not held_out:
        raise UserError(
            f"{printable(folder)}: one photo is too few to hold one out for validation; add "
            f"photos, or set data.validation_{kind}"
        )
    if not training:
        raise UserError(
            f"{printable(folder)}: all photos are held out for validation; add photos, or set "
            f"data.validation_{kind} to another folder"
        )
    return Photos(folder, training, held_out)


def _list_folder(folder: Path, key: str) -> list[Path]:
    require_folder(folder, key)
    found = find_pictures(folder)
    if not found:
        raise UserError(
            f"{printable(folder)}: no photos in this folder or below it (looked for .jpg .jpeg "
            f".png .webp .bmp .tif .tiff .gif); check {key}"
        )
    return found


def by_hash(photos: Iterable[Path], folder: Path) -> list[Path]:
    """Photos in the order of their names' sha256: arbitrary, and the same wherever they lie."""

    def rank(path: Path) -> bytes:
        name = _name_of(path, folder).encode("utf-8", "surrogateescape")
        return hashlib.sha256(name).digest()

    return sorted(photos, key=rank)


def _name_of(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _below_real_folder(photos: Iterable[Path], folder: Path) -> list[Path]:
    # Links to folders are not followed below it, so resolving the folder alone is enough to
    # compare files of two folders, and a hundred thousand files cost no look at the disk.
    real_folder = Path(os.path.realpath(folder))
    return [real_folder / path.relative_to(folder) for path in photos]
