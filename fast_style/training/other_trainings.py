"""Other trainings of the same user on this machine, which take turns with this one.

A training holds a locked file in the user's folder for temporary files. The system unlocks it when
the process ends, whatever ends it.
"""

import errno
import os
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fast_style.core.errors import printable
from fast_style.core.folder_lock import has_locks

# For one who starts at the same time, and looks whether this one's file is locked.
_PATIENCE_S = 1.0


@contextmanager
def told_of_others(say: Callable[[str], None]) -> Iterator[None]:
    """Say which other trainings run; within the block, they can see this one.

    Where no file can be written, that is said; where files cannot be locked, nothing. In both cases
    training goes on.
    """
    lock, others = None, list[int]()
    try:
        lock, others = _register()
    except OSError as error:
        say(
            "the file by which other trainings on this machine know of this one cannot be written "
            f"({error.strerror or error}); training goes on"
        )
    if others:
        say(_line_about(others))
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                _remove(lock)


def _register() -> tuple[FileLock | None, list[int]]:
    """This training's locked file, and the numbers of the processes of the others.

    Raises:
        OSError: no file can be written or locked.
    """
    folder = _own_folder()
    if not has_locks(folder):
        return None, []
    own = folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.lock"
    lock = FileLock(own, thread_local=False)
    # First this, then the others: of two that start together, one at least sees the other.
    lock.acquire(timeout=_PATIENCE_S)
    files = sorted(folder.glob("*.lock"))
    return lock, [_process_of(path) for path in files if path != own and _is_held(path)]


def _own_folder() -> Path:
    """The user's folder for these files, which no one else can write to.

    Raises:
        OSError: there is none.
    """
    if not hasattr(os, "getuid"):  # Windows gives every user another folder of temporary files
        folder = Path(tempfile.gettempdir(), "fast-style")
        folder.mkdir(exist_ok=True)
        return folder
    folder = Path(tempfile.gettempdir(), f"fast-style-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, f"{printable(folder)} is another user's")
    return folder


def _is_held(path: Path) -> bool:
    """Whether a training holds this file; one that is left over is removed."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # cannot be opened: another training has just removed it, or it is not ours
        return False
    with suppress(OSError):
        _remove(lock)
    return False


def _remove(lock: FileLock) -> None:
    """Remove a locked file; while it is locked, so that nobody else can lock it, if possible."""
    path = Path(lock.lock_file)
    with suppress(PermissionError):  # Windows keeps open files
        path.unlink(missing_ok=True)
    lock.release()
    path.unlink(missing_ok=True)


def _process_of(path: Path) -> int:
    number = path.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _line_about(others: list[int]) -> str:
    slower = "slower while they share its cores or its GPU"
    if len(others) == 1:
        return f"another training runs on this machine (process {others[0]}); both are {slower}"
    numbers = ", ".join(map(str, others))
    return (
        f"{len(others)} other trainings run on this machine (processes {numbers}); all are {slower}"
    )
