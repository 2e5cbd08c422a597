"""Locks of folders, on file systems with locks and on those without.

Network disks and FUSE may be mounted without locks, on one host or on all, or with locks that other
hosts do not see. So a folder is held by a file as well, `lock.held`, which is created exclusively.
It names its process, which raises a count in it every few seconds. Who finds such a file watches
it: a count that stands still belongs to a process that has gone. No clocks are compared, and a host
need not be reachable. Where the file system has locks, they spare the watching: a process of this
machine whose lock is free has gone.

In a shared folder, others may have put anything in the place of these files. What is no plain file
is refused, and content that is no record is watched like any other.

filelock's own lease (`SoftFileLease`) replaces a dead holder's file by RENAME_EXCHANGE, which NFS,
SMB and most of FUSE refuse: there, it would never be taken over.
"""

import hashlib
import json
import os
import socket
import stat
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from fast_style.core.errors import UserError, printable, shortened
from fast_style.core.files import identity_of

HELD = "lock.held"
LOCK_FILES = ("lock", HELD)
"""What a lock leaves in its folder, at least if its process is killed."""

# Of a record; machines' names have up to 255 bytes.
_FIELDS = {"token": str, "pid": int, "host": str, "processes": str}
_MOST_BYTES = 4096
_BEAT_S = 5.0
_LOOK_S = 1.0
# A disk that does not answer for a while must not cost a run its lock.
_PATIENCE_S = 30.0


_own_tokens: set[str] = set()
"""Of the locks that this process holds: a file with another token is from one that has ended."""


class Held(Exception):  # noqa: N818 - not an error: the folder is in use
    """The lock is another process's or thread's; `holder` describes it, or is None."""

    def __init__(self, holder: str | None = None) -> None:
        super().__init__(holder)
        self.holder = holder


class FolderLock:
    """The lock of one folder, held until `release`, or until nothing refers to it.

    Args:
        folder: it exists.
        say: called with a line if the folder is taken over, or while it is watched.

    Raises:
        Held: another process or thread has it. Without locks of the file system that both see, this
            takes up to 5 seconds to find out.
        UserError: the place of its files is taken by a link, a folder or the like.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._lock: FileLock | None = None
        if has_locks(folder):
            with suppress(FileNotFoundError):
                _require_plain(folder / "lock")
            # Not of one thread alone: a notebook may release it from another one.
            self._lock = FileLock(folder / "lock", thread_local=False)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                holder = None
                with suppress(OSError, UserError):
                    holder = _name_of(_record_in(folder / HELD))
                raise Held(holder) from None
        try:
            self._held = _HeldFile(folder, say, is_locked=self._lock is not None)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken it over, as this one seemed to have gone."""
        return self._held.is_lost

    def is_of(self, folder: Path) -> bool:
        """Whether this path still leads to the folder that was locked, not renamed nor deleted.

        If only the file that holds it was removed, that is made again.

        Args:
            folder: the path that files are written by, perhaps from another working directory.
        """
        return self._held.is_of(folder, has_locks=self._lock is not None)

    def release(self) -> bool:
        """Release the lock; returns whether it was still held."""
        was_held = self._held.is_held and not self.is_lost
        self._held.release()
        if self._lock is not None:
            self._lock.release()
        return was_held

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def has_locks(folder: Path) -> bool:
    """Whether files in this folder can be locked; nothing is left in it.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows, whose network disks have locks
        return True
    with tempfile.TemporaryFile(dir=folder) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # ENOLCK, EOPNOTSUPP, ENOSYS: nobody else can have locked this file
            return False
    return True


# --- The file that holds a folder ----------------------------------------------------------------


class _HeldFile:
    """The file that holds a folder; `is_locked` if its process has a lock of the file system too.

    Its content changes in place, and only while its token is this one's. So a process that wakes
    up after another one has taken over changes nothing, and knows.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], *, is_locked: bool) -> None:
        # Threads and exit handlers use it, whatever the working directory is by then.
        self._path = folder.absolute() / HELD
        self._record: dict[str, Any] = {
            "token": uuid.uuid4().hex,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "processes": _own_processes(),
            "machine": _own_machine() if is_locked else None,
        }
        _own_tokens.add(self._record["token"])
        try:
            self._acquire(folder, say)
        except BaseException:
            _own_tokens.discard(self._record["token"])
            raise
        self._identity = identity_of(self._path.parent)
        self._lost, stop = threading.Event(), threading.Event()
        thread = threading.Thread(
            target=_beat, args=(self._path, self._record, stop, self._lost), daemon=True
        )
        thread.start()
        # Also at the end of the interpreter.
        self._end = weakref.finalize(self, _end, self._path, self._record, stop, thread)

    @property
    def is_held(self) -> bool:
        return self._end.alive

    @property
    def is_lost(self) -> bool:
        return self._lost.is_set()

    def is_of(self, folder: Path, *, has_locks: bool) -> bool:
        path = folder / HELD
        try:
            found = identity_of(folder)
            is_held = os.path.lexists(path)
            # Without locks, a disk may give its folders new numbers.
            if not has_locks and _record_in(path).get("token") == self._record["token"]:
                return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, UserError):  # the disk may answer next time
            return True
        if found != self._identity:
            return False
        if not is_held:
            with suppress(OSError):
                self._create(path)
        return True

    def release(self) -> None:
        self._end()

    def _acquire(self, folder: Path, say: Callable[[str], None]) -> None:
        while True:
            with suppress(FileExistsError):
                self._create(self._path)
                if self._is_ours():
                    return
            seen = _read(self._path)
            if seen is None:
                continue  # released meanwhile
            heir = self._path.with_name(f"lock.heir-{hashlib.sha256(seen).hexdigest()[:16]}")
            left = _read(heir)
            holder = _parse(seen)
            about = _name_of(holder) or "another process"
            is_gone = True
            if self._has_lock_of(holder):
                reason = ""  # of every run that was killed
            elif holder and _is_there(holder) is False:
                reason = "has ended without releasing it"
            else:
                reason = f"has shown no sign of life for {_PATIENCE_S:.0f} s"
                is_gone = False
            if left is not None or not is_gone:
                watched = _name_of(_parse(left or b"")) if is_gone else about
                line = _waiting_for(folder, watched or "another process")
                last = _watched(self._path, seen, partial(say, line))
                if last is None:
                    continue
                if last != seen:
                    raise Held(_name_of(_parse(last)) or about)
            if self._succeed(seen, heir, left):
                if reason:
                    say(f"{folder}: {about}, which had locked it, {reason}; taking it over")
                return

    def _has_lock_of(self, holder: dict[str, Any]) -> bool:
        """Whether this process has the lock of the file system that the holder had.

        Of a process that still runs, somebody has removed the file that it locked.
        """
        if self._record["machine"] is None or holder.get("machine") != self._record["machine"]:
            return False
        return _is_there(holder) is not True

    def _create(self, path: Path) -> None:
        with path.open("xb") as file:
            try:
                file.write(_encoded(self._record, 0))
                file.flush()
            except OSError:  # a full disk: nothing stays behind
                path.unlink(missing_ok=True)
                raise

    def _is_ours(self) -> bool:
        return bool(_record_in(self._path).get("token") == self._record["token"])

    def _succeed(self, seen: bytes, heir: Path, left: bytes | None) -> bool:
        """Replace a file whose process has gone; returns whether the folder is ours now.

        Of several processes that have watched the same content, one can create its heir. It then
        finds that content still there, or leaves it alone.

        Args:
            seen: the content of the file.
            heir: the path of its heir.
            left: the content of an heir that was there before `seen` was watched.

        Raises:
            Held: another process takes it over right now.
        """
        if left is not None and _read(heir) == left:
            heir.unlink(missing_ok=True)  # its process was killed between two system calls
        try:
            self._create(heir)
        except FileExistsError:
            raise Held from None
        if _read(self._path) != seen:
            heir.unlink(missing_ok=True)
            return False
        try:
            os.replace(heir, self._path)
        except FileNotFoundError:  # taken for one that was left behind
            pass
        except OSError:
            heir.unlink(missing_ok=True)
            raise
        return self._is_ours()


def _name_of(holder: dict[str, Any]) -> str | None:
    return f"process {holder['pid']} on {shortened(printable(holder['host']))}" if holder else None


def _waiting_for(folder: Path, about: str) -> str:
    return (
        f"{folder}: {about} has locked it; watching for {_PATIENCE_S:.0f} s whether it still runs"
    )


def _encoded(record: dict[str, Any], count: int) -> bytes:
    # Never shorter than before, so it can be written over the one before.
    return json.dumps({**record, "count": count}).encode()


def _parse(content: bytes) -> dict[str, Any]:
    """The record in a file's content; an empty one if it is torn, or no record."""
    with suppress(ValueError, RecursionError):
        record = json.loads(content)
        if (
            isinstance(record, dict)
            and all(type(record.get(name)) is kind for name, kind in _FIELDS.items())
            and 0 < record["pid"] < 2**32
        ):
            return record
    return {}


def _record_in(path: Path) -> dict[str, Any]:
    """The record in a file; an empty one if there is no such file, or no record."""
    return _parse(_read(path) or b"")


def _read(path: Path) -> bytes | None:
    """The content of a file; None if there is none.

    Raises:
        UserError: something else is there, which may block a reader, or lead out of the folder.
    """
    try:
        _require_plain(path)
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None


def _require_plain(path: Path) -> None:
    """Check that this is a file, and no link, pipe or folder.

    Raises:
        UserError: it is none.
        FileNotFoundError: nothing is there.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise UserError(
            f"{printable(path)}: not a plain file, as the lock of its folder must be; remove it"
        )


def _watched(path: Path, seen: bytes, on_silence: Callable[[], None]) -> bytes | None:
    """The first content that differs from `seen` (None: the file is gone), or `seen` in the end."""
    begun_at = time.monotonic()
    has_told = False
    while (waited_s := time.monotonic() - begun_at) < _PATIENCE_S:
        if waited_s > 2 * _BEAT_S and not has_told:
            on_silence()
            has_told = True
        time.sleep(_LOOK_S)
        if (content := _read(path)) != seen:
            return content
    return seen


def _beat(path: Path, record: dict[str, Any], stop: threading.Event, lost: threading.Event) -> None:
    """Raise the count every few seconds, until `stop`, or until another process has taken over."""
    count = 0
    while not stop.wait(_BEAT_S):
        count += 1
        with suppress(OSError):  # the disk may answer next time
            if not _has_beaten(path, record, count):
                lost.set()
                return


def _has_beaten(path: Path, record: dict[str, Any], count: int) -> bool:
    """Write the count into this process's file; returns False if the file is another one's."""
    with suppress(UserError):
        _require_plain(path)
        # Read and written as one open file: what replaces it meanwhile stays as it is.
        with path.open("r+b") as file:
            if _parse(file.read(_MOST_BYTES)).get("token") == record["token"]:
                file.seek(0)
                file.write(_encoded(record, count))
                return True
    return False


def _end(
    path: Path, record: dict[str, Any], stop: threading.Event, thread: threading.Thread
) -> None:
    if os.getpid() != record["pid"]:  # a forked child's copy
        return
    _own_tokens.discard(record["token"])
    stop.set()
    thread.join()
    with suppress(OSError, UserError):
        if _record_in(path).get("token") == record["token"]:
            path.unlink()


def _is_there(holder: dict[str, Any]) -> bool | None:
    """Whether a process of its number is there; None if it is not one of this system.

    The number may be another process's by now.
    """
    if os.name != "posix" or holder["processes"] != _own_processes():
        return None
    if holder["pid"] == os.getpid():
        return holder["token"] in _own_tokens
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError):  # no number of a process
        return None
    with suppress(OSError):  # a killed process that its parent has not heard of is there as well
        state = Path(f"/proc/{holder['pid']}/stat").read_bytes().rpartition(b")")[2].split()[:1]
        return state != [b"Z"]
    return True


@cache
def _own_processes() -> str:
    """What the processes that this one can see have in common, and no others.

    A host's name is not enough: containers and cloned machines share it.
    """
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    return f"{socket.gethostname()} {uuid.getnode():x}"


@cache
def _own_machine() -> str:
    """What this machine has in common with itself after a restart."""
    try:
        number = Path("/etc/machine-id").read_text().strip()
    except OSError:
        number = f"{uuid.getnode():x}"
    return f"{socket.gethostname()} {number}"
