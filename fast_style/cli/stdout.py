"""The stdout of a command: what the command was asked for must arrive there, or be an error.

Lines about work in progress may get lost (`process.say`): they never stop the work.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO
from weakref import WeakKeyDictionary

PRINT_INTO_FILE = "print into a file with > FILE"

_lost: WeakKeyDictionary[TextIO, Exception] = WeakKeyDictionary()
"""Why nothing that is printed on these streams arrives any more."""


class UndeliveredError(Exception):
    """What a command was asked for cannot be printed. No `UserError`: it ends all of the work."""


def replace_closed() -> None:
    """Put the null device in the place of a stdout or stderr that is closed, as by >&- and 2>&-."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w")  # noqa: SIM115 -- until the process ends
            setattr(sys, name, stream)
            if name == "stdout":
                _lost[stream] = UndeliveredError("stdout is closed, so nothing can be printed")


def mute(stream: TextIO, error: OSError) -> None:
    """Send further output to the null device; a failing flush at exit would print an error.

    Args:
        stream: stdout or stderr.
        error: why it cannot be written.
    """
    _lost[stream] = error
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def delivered(instead: str = PRINT_INTO_FILE) -> Iterator[None]:
    """Within the block, what is printed is what the command was asked for.

    Args:
        instead: what else can be done where stdout is closed.

    Raises:
        BrokenPipeError: nobody reads stdout any more.
        UndeliveredError: stdout is closed, or cannot be written.
    """
    lost = _lost.get(sys.stdout)
    if isinstance(lost, UndeliveredError):
        raise UndeliveredError(f"{lost}; {instead}")
    try:
        if lost is not None:  # lines about the work met it first
            raise lost
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        mute(sys.stdout, error)
        is_full = error.errno == errno.ENOSPC
        reason = "the disk is full" if is_full else error.strerror or str(error)
        raise UndeliveredError(f"the output cannot be written ({reason})") from None


def hand_out(line: str) -> None:
    """Print a line that the command was asked for.

    Raises:
        BrokenPipeError: as `delivered`.
        UndeliveredError: likewise.
    """
    with delivered():
        print(line)
