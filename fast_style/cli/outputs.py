"""Checks of the files that a command will write, before any work."""

import os
from collections.abc import Iterable
from pathlib import Path

from fast_style.core.errors import UserError, printable


def require_replaceable(path: Path, sources: Iterable[Path], *, overwrite: bool) -> None:
    """Check that a file does not exist; with --overwrite it may, unless it is an input.

    A folder is never replaced.

    Args:
        path: the file to write.
        sources: the inputs, which exist.
        overwrite: whether the command has --overwrite.

    Raises:
        UserError: it exists, or its folder cannot be looked into.
    """
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise UserError(
            f"{printable(path)}: cannot be written ({error.strerror}); choose another name"
        ) from None
    if is_folder:
        raise UserError(f"{printable(path)}: is a folder; name a file")
    if exists and any(path.samefile(source) for source in sources):
        raise UserError(
            f"{printable(path)}: is an input, and would be replaced; choose another name"
        )
    if path.is_symlink() and not exists and not overwrite:
        raise UserError(
            f"{printable(path)}: is a broken link; remove it, or replace it with --overwrite"
        )
    if exists and not overwrite:
        raise UserError(f"{printable(path)}: exists already; replace it with --overwrite")


def make_writable_folder(folder: Path) -> None:
    """Make a folder if there is none.

    Raises:
        UserError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{printable(folder)}: cannot create this folder ({error.strerror}); choose another"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"{printable(folder)}: no permission to write to this folder; choose another"
        )
