"""The calls by which Python changes files, watched one by one: to be killed there, or to fail.

Watched are the calls of `os` that make, name, sync, close and remove files and folders, and every
single write. A long write takes half of what it is given, as a kernel may do, so that there are
moments at which a file is partly written. What other code than Python's writes is not seen; nothing
of ours lies in such files.
"""

import errno
import io
import itertools
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_CALLS = ("open", "close", "fsync", "replace", "rename", "unlink", "remove", "chmod", "mkdir",
          "rmdir")  # fmt: skip

_WRITTEN_AT_ONCE = 64  # bytes; a row of a table is more

FILLS_DISK = frozenset({"open", "mkdir", "write", "fsync", "replace", "rename"})
"""The calls that a kernel may refuse because the disk is full."""

Watch = Callable[[str, str], None]
"""Told a call's name and path before the call, which raises whatever this raises."""


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Within the block, `watch` is told each call that changes files, of all threads."""
    opened: dict[int, str] = {}
    plain_open = io.open

    class WatchedFile(io.FileIO):
        def __init__(self, file: Any, mode: str, closefd: bool, opener: Any) -> None:
            super().__init__(file, mode, closefd, opener)
            self.path = opened.get(file, "") if isinstance(file, int) else os.fsdecode(file)

        def write(self, data: Any) -> int:
            watch("write", self.path)
            return super().write(memoryview(data)[: max(_WRITTEN_AT_ONCE, len(data) // 2)])

    def open_watched(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if not set(mode) & set("wxa+"):
            return plain_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not isinstance(file, int):
            watch("open", os.fsdecode(file))
        raw = WatchedFile(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline)

    def wrapped(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            changes = name != "open" or bool(args[1] & (os.O_WRONLY | os.O_RDWR))
            path = opened.get(args[0], "") if isinstance(args[0], int) else os.fsdecode(args[0])
            if changes:
                watch(name, path)
            result = original(*args, **kwargs)
            if name == "open":
                opened[result] = path  # the number is another file's after this one is closed
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, wrapped(name))
        patch.setattr(io, "open", open_watched)
        patch.setattr("builtins.open", open_watched)
        yield


def killed_at(number: int) -> Watch:
    """Kills this process before its call of that number, from 1."""
    numbers = itertools.count(1)

    def watch(name: str, path: str) -> None:
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


class FullDisk:
    """A disk that is full from one call on, and may have space again after some.

    Args:
        first: the number, from 1 and among those of `FILLS_DISK`, of the call that fails first.
        num_failing: calls that fail; None for all that follow.
    """

    def __init__(self, first: int, num_failing: int | None = None) -> None:
        self.numbers = itertools.count(1)
        self.first = first
        self.num_failing = num_failing
        self.failed: list[tuple[str, str]] = []
        """Name and path of the calls that failed."""

    def __call__(self, name: str, path: str) -> None:
        """Raise OSError if the disk is full at this call."""
        if name not in FILLS_DISK or (name in ("open", "mkdir") and os.path.exists(path)):
            return  # what is there takes no more space
        after = next(self.numbers) - self.first
        if after >= 0 and (self.num_failing is None or after < self.num_failing):
            self.failed.append((name, path))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def start_child(work: Callable[[], object]) -> int:
    """The number of a forked process that does `work`, and exits with 0, or with 1 if it raised."""
    with warnings.catch_warnings():
        # Python 3.12 warns of threads at a fork; tests of ours run none that hold a lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return child


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a forked process that does `work`: 0, 1 if it raised, or minus a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(start_child(work), 0)[1])
