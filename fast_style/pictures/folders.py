"""Decide which files of a folder are photos, and which photos a run holds out for validation.

Only names and kinds of files are examined here. No picture is opened, so damaged ones are included.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fast_style.core.errors import UserError, printable
from fast_style.pictures.reading import PictureError, explain

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")

EXTENSIONS = frozenset(_SUFFIXES)
"""Suffixes of picture files, in lower case; other files of a folder are ignored."""

# --- Pictures of any folder ---------------------------------------------------------------------


def find_pictures(folder: Path) -> list[Path]:
    """All picture files in a folder and its sub-folders, sorted by the parts of their paths.

    Included are regular files, and links to them, with a suffix of `EXTENSIONS` in any case. Not
    included are hidden files and folders (such as macOS's ``._x.jpg``) and links to folders.

    Raises:
        PictureError: `folder` or one of its sub-folders cannot be listed. (To skip a sub-folder
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
        raise PictureError(f"{printable(folder)}: {explain(error)}") from error


def _has_picture_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _is_regular_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False  # a link to itself


def pictures_of(inputs: Sequence[Path]) -> list[Path]:
    """The given files and the pictures of the given folders, in this order and without repeats.

    Raises:
        UserError: an input does not exist, or there is no picture in any of them.
        PictureError: as `find_pictures`.
    """
    for path in inputs:
        if not os.path.exists(path):  # see `require_folder`
            raise UserError(f"{printable(path)}: not found")
    files: Iterable[Path] = (
        file for path in inputs for file in (find_pictures(path) if path.is_dir() else [path])
    )
    found = list(dict.fromkeys(files))
    if not found:
        problem = "no photos in this folder or below it"
        raise UserError("\n".join(f"{printable(folder)}: {problem}" for folder in inputs))
    return found


# --- Photos of a run ----------------------------------------------------------------------------


class Photos(NamedTuple):
    """The photos of a run: those trained on, and those held out for validation."""

    folder: Path
    training: list[Path]
    validation: list[Path]

    @property
    def digest(self) -> str:
        """The sha256 of the training photos' names in order: it identifies the data set."""
        names = "\n".join(map(self.name_of, self.training))
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    def name_of(self, photo: Path) -> str:
        """The path of a photo relative to the folder, with forward slashes."""
        return _name_of(photo, self.folder)


def find_photos(
    folder: Path,
    *,
    validation_folder: Path | None = None,
    validation_count: int = 16,
    kind: str = "photos",
) -> Photos:
    """All photos of a folder, some of them held out for validation.

    The photos held out are those whose names have the smallest sha256. So they stay the same when
    the folder moves, and most of them when photos are added. None of them is trained on, even if
    one of the two folders lies in the other.

    Args:
        folder: searched recursively.
        validation_folder: the folder to hold out photos of, if not `folder`.
        validation_count: largest number of photos to hold out.
        kind: the settings' name for them, as in ``data.photos``; used in errors.

    Raises:
        UserError: a folder does not exist or contains too few photos.
        PictureError: as `find_pictures`.
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


def require_folder(folder: Path, key: str) -> None:
    """Check that a folder of photos exists; `find_photos` checks that it contains any.

    Args:
        folder: the value of the setting.
        key: the setting, such as ``data.photos``.

    Raises:
        UserError: it does not exist, or is a file.
    """
    # os.path: Path.exists and Path.is_dir raise an OSError for some names before Python 3.12
    if not os.path.exists(folder):
        raise UserError(f"{printable(folder)}: folder of photos not found; check {key}")
    if not os.path.isdir(folder):
        raise UserError(f"{printable(folder)}: is a file; {key} must be a folder of photos")


def by_hash(photos: Iterable[Path], folder: Path) -> list[Path]:
    """Photos ordered by the sha256 of their names relative to `folder`: arbitrary, but stable."""

    def rank(path: Path) -> bytes:
        name = _name_of(path, folder).encode("utf-8", "surrogateescape")
        return hashlib.sha256(name).digest()

    return sorted(photos, key=rank)


def _list_folder(folder: Path, key: str) -> list[Path]:
    require_folder(folder, key)
    found = find_pictures(folder)
    if not found:
        raise UserError(
            f"{printable(folder)}: no photos in this folder or below it (looked for "
            f"{' '.join(_SUFFIXES)}); check {key}"
        )
    return found


def _name_of(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _below_real_folder(photos: Iterable[Path], folder: Path) -> list[Path]:
    # Photos of two folders are compared by the real paths of the folders. That is enough, because
    # links to folders are not followed below them, and it costs no access to the disk per photo.
    real_folder = Path(os.path.realpath(folder))
    return [real_folder / path.relative_to(folder) for path in photos]
