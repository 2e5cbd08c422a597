"""The lock of a run folder, so that no two trainings write into it."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

from fast_style.core.errors import UserError, printable
from fast_style.core.folder_lock import HELD, FolderLock, Held

FRESH = "fresh=True"
"""What Python says for a new folder; commands say ``--resume never``, and demo has no words."""


def in_another_folder(anew: str) -> str:
    """The remedy of training in another folder, from what the caller says for a new one."""
    if not anew:
        return "rename this folder, or change (cd) to another one, to train anew"
    return f"train in a new folder with {anew} (or another name=...)"


def with_another_name(anew: str) -> str:
    """The remedy of another name, where a new folder would not help."""
    return "set another name=..." if anew else "change (cd) to another folder"


class RunLock(FolderLock):
    """The lock of one run folder; see `FolderLock`."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._thread = threading.current_thread()
        super().__init__(folder, say)

    @property
    def is_left_behind(self) -> bool:
        """Whether nothing trains under it, although it is held.

        So it is if the thread that opened the run has ended, or if it is this thread, which is
        asking and not training: a cell of a notebook ended with an error, or was interrupted. Of
        another thread that lives, nobody can say whether it is about to train.
        """
        return not self._thread.is_alive() or self._thread is threading.current_thread()

    def require_held(self, folder: Path) -> None:
        """Check that this lock still holds its folder.

        Raises:
            UserError: the folder was renamed or deleted, or another process has taken the run over,
                because this one seemed to have ended.
        """
        if not self.is_of(folder):
            raise UserError(
                f"{printable(folder)}: this folder was renamed or deleted meanwhile; repeat the "
                "command",
                exit_code=1,
            )
        if not self.is_lost:
            return
        raise UserError(
            f"{printable(folder)}: another process has taken this run over, because this one gave "
            "no sign of life (a machine that was suspended, or a disk that did not answer). It "
            "trains on from the last checkpoint; this process stops",
            exit_code=1,
        )


# The locks of this process, by its number (a forked child holds none of them) and the folder. Locks
# belong to a process, and so does this table; without it, a process would wait for itself.
_held: "WeakValueDictionary[tuple[int, str], RunLock]" = WeakValueDictionary()


def lock_run(folder: Path, say: Callable[[str], None], anew: str = FRESH) -> RunLock:
    """The lock of a run folder, now held by this thread.

    A lock that this process has left behind (see `RunLock.is_left_behind`) is taken over.

    Args:
        folder: the run folder, which exists.
        say: called with a line if a lock is taken over, or while it is watched.
        anew: what the caller says for a new folder, for messages.

    Raises:
        UserError: another process trains there, or another thread has the run open.
        OSError: the folder cannot be written.
    """
    key = os.getpid(), os.path.realpath(folder)
    own = _held.get(key)
    if own is not None and own.is_left_behind:
        if own.release():
            say(f"{folder}: was left open by an earlier call in this process; going on with it")
        own = None
    try:
        lock = RunLock(folder, say)
    except Held as error:
        if own is not None:
            raise UserError(
                f"{folder}: another thread of this process has opened this run, and not closed it; "
                "wait until it has trained, close the run there (run.release()), or "
                f"{with_another_name(anew)}"
            ) from None
        holder = error.holder or "another process"
        raise UserError(
            f"{folder}: {holder} trains here already; wait for it, or {with_another_name(anew)}"
        ) from None
    _held[key] = lock
    return lock


def require_unlocked(folder: Path, say: Callable[[str], None], anew: str) -> None:
    """Check that nobody else trains in a run folder, which need not exist.

    Args:
        folder: the run folder.
        say: as in `lock_run`.
        anew: as in `lock_run`.

    Raises:
        UserError: as `lock_run`.
    """
    if os.path.lexists(folder / HELD):
        with suppress(OSError):  # it will be said when the run is opened
            lock_run(folder, say, anew).release()


def remove_lock(folder: Path) -> None:
    """Remove the file of a released lock, unless it has content: then it is somebody's own."""
    path = folder / "lock"
    with suppress(OSError):  # gone, or on Windows already another process's
        if path.stat().st_size == 0:
            path.unlink()
