"""The files that a command writes: checked before any work, and put in place after it."""

import itertools
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.cli.notes import note
from fast_style.core.errors import UserError, printable, remedy_for, unwritten
from fast_style.core.files import make_with_parents, other_names, why_unwritable

if TYPE_CHECKING:
    from PIL import Image


def require_replaceable(path: Path, sources: Iterable[Path], *, overwrite: bool) -> None:
    """Check that a file does not exist; with --overwrite it may, unless it is an input.

    A folder, a device or a pipe is never replaced.

    Args:
        path: the file to write.
        sources: the inputs, which exist.
        overwrite: whether the command has --overwrite.

    Raises:
        UserError: it exists, or its folder cannot be looked into.
    """
    try:
        exists, is_folder, is_file = path.exists(), path.is_dir(), path.is_file()
    except OSError as error:
        raise unwritten(path, error, "choose another name", exit_code=2) from None
    if is_folder:
        raise UserError(f"{printable(path)}: is a folder; name a file")
    if exists and not is_file:  # /dev/null, which root could replace
        raise UserError(f"{printable(path)}: is a device or a pipe; name a file")
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


def put_in_place(
    path: Path,
    write: Callable[[Path, bool], object],
    *,
    overwrite: bool,
    tell: Callable[[str], object] = note,
    elsewhere: bool = False,
) -> Path:
    """Write a file that `require_replaceable` allowed before the work; returns its path.

    A file that is not to be replaced, as one that has appeared there since then, is kept, and so is
    the work: it gets the first free name of ``picture-2.png``, ``picture-3.png`` and so on.

    Args:
        path: the file to write.
        write: writes the file of a name; the second argument is whether it may replace one that
            exists. Otherwise it raises FileExistsError.
        overwrite: whether the file may be replaced.
        tell: prints a line that gives the other name.
        elsewhere: whether what cannot be written there goes into the folder of temporary files.

    Raises:
        UserError: it cannot be written; the message names the copy in the folder of temporary
            files, if there is one.
    """
    try:
        make_writable_folder(path.parent)  # it may have been removed meanwhile
        written = _with_free_name(path, write, overwrite)
    except UserError as error:
        if not elsewhere:
            raise
        try:
            copy = _with_free_name(Path(tempfile.gettempdir(), path.name), write, overwrite=False)
        except (UserError, OSError):  # there may be no folder of temporary files
            raise UserError(
                f"{error}; the folder of temporary files, too, took no copy: set the environment "
                "variable TMPDIR to a folder on another disk",
                exit_code=error.exit_code,
            ) from None
        raise UserError(
            f"{error}; the result is {printable(copy)}", exit_code=error.exit_code
        ) from None
    if written != path:
        tell(f"{printable(path)}: this file is kept; the result is {printable(written)}")
    return written


def _with_free_name(path: Path, write: Callable[[Path, bool], object], overwrite: bool) -> Path:
    for candidate in itertools.chain([path], other_names(path)):
        with suppress(FileExistsError):
            write(candidate, overwrite)
            return candidate
    raise AssertionError("there are endlessly many names")


def put_picture_in_place(
    path: Path,
    picture: "Image.Image",
    *,
    alpha: "Image.Image | None" = None,
    overwrite: bool,
    tell: Callable[[str], object] = note,
) -> Path:
    """Write a picture by `put_in_place`, elsewhere if need be; returns its path.

    A sheet of many pictures that is too large for the format becomes a PNG: the work is done.
    `alpha` is as that of `write_picture`.

    Raises:
        UserError: it cannot be written.
    """
    from fast_style.pictures.writing import require_fitting, write_picture

    try:
        require_fitting(path, picture.size)
    except UserError as error:
        path, overwrite = path.with_suffix(".png"), False
        tell(f"{error}: the result becomes {printable(path)}")

    def write(path: Path, replaces: bool) -> None:
        write_picture(path, picture, alpha=alpha, replaces=replaces)

    return put_in_place(path, write, overwrite=overwrite, tell=tell, elsewhere=True)


def make_writable_folder(folder: Path) -> None:
    """Make a folder if there is none.

    Raises:
        UserError: it cannot be made, or not be written to.
    """
    try:
        make_with_parents(folder)
    except OSError as error:
        raise UserError(
            f"{printable(folder)}: cannot create this folder ({error.strerror}); "
            f"{remedy_for(error, 'choose another')}"
        ) from None
    if refusal := why_unwritable(folder):
        raise UserError(f"{printable(folder)}: {refusal}; choose another")
