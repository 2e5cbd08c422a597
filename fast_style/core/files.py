"""Write files atomically, and small facts about files: digest, kind and free space.

A process may be killed, and a disk may fill up, at any moment. A file written by `atomic_write`
appears under its final name only when its last byte is on the disk.
"""

import codecs
import errno
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LONGEST_HEADER_BYTES = 4 << 20
"""Of a safetensors file that is read.

200 kB are enough for the largest network and its optimizer's state. As JSON that is made for it, a
header takes 24 times its size in memory (measured with empty lists).
"""

_TEMPORARY_PREFIX = ".fast-style-"


@contextmanager
def atomic_write(path: Path, *, replaces: bool = True) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends, and is removed if the block raises.

    It begins as a temporary file in the same folder, so that the final rename is atomic. File and
    folder are fsynced, so that the result survives a power cut.

    Args:
        path: the file.
        replaces: whether a file that has this name by then is replaced.

    Raises:
        FileExistsError: there is a file of this name, which is not to be replaced.
        OSError: the folder is not writable, or the disk is full. `path` is then unchanged.
    """
    # The name is known before the file exists, so that Ctrl-C at any point here leaves no file.
    temporary = path.parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replaces:
            os.replace(temporary, path)
        else:
            _rename_to_new(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync_folder(path.parent)


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename a file to a name that no file has, not even one that appears at this moment.

    Raises:
        FileExistsError: a file has this name.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if isinstance(error, FileExistsError) or os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(temporary, path)  # a disk without hard links: a file that appears now is lost
    else:
        temporary.unlink()


def write_text_atomically(path: Path, text: str, *, replaces: bool = True) -> None:
    """Write `text` as UTF-8 by `atomic_write`."""
    with atomic_write(path, replaces=replaces) as file:
        file.write(text.encode())


def other_names(path: Path) -> Iterator[Path]:
    """Endlessly many names for a file whose own name is taken: picture-2.png, picture-3.png, ..."""
    return (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))


def put_aside(path: Path) -> Path:
    """Rename a file to the first of its `other_names` that is free; returns it."""
    aside = next(name for name in other_names(path) if not os.path.lexists(name))
    path.rename(aside)
    return aside


def make_with_parents(folder: Path) -> None:
    """Make a folder and those above it, unless they exist.

    At any depth: pathlib and os.makedirs call themselves for each level, and fail at 1,000.

    Raises:
        OSError: it cannot be made.
    """
    missing = [folder]
    made = None
    while missing:
        path = missing[-1]
        try:
            path.mkdir(exist_ok=True)
        except FileNotFoundError:
            # No such drive, or a working directory that was removed: there, "." can be "made".
            if path.parent in (path, made):
                raise
            missing.append(path.parent)
        else:
            made = missing.pop()


def why_unwritable(folder: Path) -> str | None:
    """Why this process cannot write to a folder that exists, for messages; None if it can."""
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    is_read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
    return "its disk is read-only" if is_read_only else "no permission to write to this folder"


@contextmanager
def made_folders(*folders: Path) -> Iterator[None]:
    """Make these folders, and remove those that were not there if the block raises an error.

    Raises:
        OSError: one of them cannot be made.
    """
    paths = [path for folder in folders for path in (*reversed(folder.parents), folder)]
    missing = [path for path in dict.fromkeys(paths) if not path.exists()]
    try:
        for folder in folders:
            make_with_parents(folder)
        yield
    except BaseException:
        for path in reversed(missing):
            with suppress(OSError):  # it was not made, or holds somebody's files
                path.rmdir()
        raise


def remove_stray_temporaries(folder: Path) -> None:
    """Remove temporary files of killed processes; nobody may write to `folder` at the same time."""
    for path in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        with suppress(OSError):
            path.unlink()


def sha256_of(path: Path) -> str:
    """The hexadecimal sha256 of a file, which is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pointer_in(start: bytes) -> str | None:
    """What a file is that only points to its content, and the remedy; None for other files.

    Version control of large files leaves such a file where the content was not fetched.
    """
    start = start.removeprefix(codecs.BOM_UTF8)
    # The older address is that of Git LFS before its first version.
    if re.match(rb"version https://(git-lfs|hawser)\.github\.com/", start):
        return "a Git LFS pointer: run git lfs pull"
    # The other form is a link, on a disk without links.
    if re.match(rb"/annex/objects/|(\.\./)*\.git/annex/objects/", start):
        return "a git-annex pointer: run git annex get"
    return None


def what_it_looks_like(start: bytes) -> str:
    """The likely reason why a file is unusable, from its first bytes; part of an error message."""
    if not start:
        return "it is empty"
    if pointer := pointer_in(start):
        return pointer
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page"
    return "damaged, or of another format"


def header_length(start: bytes) -> int:
    """The length of a safetensors file's header in bytes, by the first 8 bytes of the file."""
    return int.from_bytes(start[:8], "little")


def with_sorted_metadata(data: bytes) -> bytes:
    """The bytes of a safetensors file with its metadata sorted by key.

    safetensors writes metadata in random order, but equal contents should give equal files.
    """
    length = header_length(data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns tensors to 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def size_in_words(num_bytes: float) -> str:
    """A number of bytes for messages, such as ``12.3 MB`` or ``1.2 GB``."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


def name_in_utf_8(path: Path) -> str:
    r"""The name of a file as text that UTF-8 can encode, whatever the locale is.

    A byte that is no UTF-8 is written as ``\xff``.
    """
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")


def identity_of(path: str | os.PathLike[str]) -> object:
    """What all names of one file or folder have in common, links followed; can be compared.

    Raises:
        OSError: there is no such file, or it cannot be reached.
    """
    status = os.stat(path)
    # Some file systems have no inodes.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which need not exist yet."""
    existing = next((part for part in (folder, *folder.parents) if part.is_dir()), Path())
    return shutil.disk_usage(existing).free


def _fsync_folder(folder: Path) -> None:
    # Windows cannot open folders, and some network file systems refuse to sync them. The rename has
    # happened nevertheless.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
