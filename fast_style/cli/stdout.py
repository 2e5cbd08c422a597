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

_lost: WeakKeyDictionary[TextIO, OSError] = WeakKeyDictionary()
"""Why nothing that is printed on these streams arrives any more."""


class UndeliveredError(Exception):
    """What a command was asked for cannot be printed. No `UserError`: it ends all of the work."""


def mute(stream: TextIO, error: OSError) -> None:
    """Send further output to the null device; a failing flush at exit would print an error.

    Args:
        stream: stdout or stderr.
        error: why it cannot be written.
    """
    _lost[stream] = error
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def delivered() -> Iterator[None]:
    """Within the block, what is printed is what the command was asked for.

    Raises:
        BrokenPipeError: nobody reads stdout any more.
        UndeliveredError: stdout cannot be written.
    """
    try:
        if (lost := _lost.get(sys.stdout)) is not None:  # lines about the work met it first
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
