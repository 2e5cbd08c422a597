"""Files that are either wholly there or not there at all, and their digests.

A process may be killed, and a disk may fill up, at any moment. Whatever is written through
`atomic_write` appears under its final name only when its last byte is on the disk.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY_PREFIX = ".fast-style-"


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends, and vanishes when it raises.

    The temporary file lies in the same folder, so that the final rename is atomic; file and
    folder are fsynced, so that it survives a power cut too.

    Raises:
        OSError: the folder is not writable, or the disk is full. `path` is then untouched.
    """
    descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY_PREFIX, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _give_ordinary_permissions(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync_folder(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` as UTF-8, wholly or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())


def remove_stray_temporaries(folder: Path) -> None:
    """Remove what a killed `atomic_write` left in `folder`; call only while nobody writes there."""
    for path in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        with suppress(OSError):
            path.unlink()


def sha256_of(path: Path) -> str:
    """The hex digest of a whole file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def what_it_looks_like(start: bytes) -> str:
    """What a file that cannot be used seems to be, judged by its first bytes."""
    if not start:
        return "it is empty"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page"
    return "damaged, or of another format"


def with_sorted_metadata(data: bytes) -> bytes:
    """The bytes of a safetensors file, its metadata in the order of their keys.

    safetensors writes them in an order that chance decides; equal contents are to be equal files.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def free_bytes(folder: Path) -> int:
    """Free space of the disk that holds `folder`, or would hold it if it were there."""
    there = next((part for part in (folder, *folder.parents) if part.is_dir()), Path())
    return shutil.disk_usage(there).free


def _give_ordinary_permissions(path: Path) -> None:
    # mkstemp makes files that only their owner can read; other people should be able to use a
    # model that lies in a shared folder, as they could had it been written in place.
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _fsync_folder(folder: Path) -> None:
    # Windows cannot open folders, and some network file systems refuse to sync them: the rename
    # has happened either way.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def numbered(output: Path, number: int) -> Path:
    """The file of a picture on the way to `output`."""
    return output.with_name(f"{output.stem}-{number:05d}{output.suffix}")
