"""Errors that a user can correct, and how user input is quoted in their messages.

Bugs in this package are other exceptions, and keep their traceback.
"""

import errno
import os


class UserError(Exception):
    """A mistake that the user can correct. The message names place, rule, value and remedy.

    Only ``cli`` prints it.

    Args:
        message: one line per mistake, without a leading ``error:``.
        exit_code: 2 if found before any work began, 1 if work failed.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """Work ended early because of a signal; finished work is kept.

    Args:
        signal_number: the signal; 0 if unknown.
        step: the last step of training that was completed and saved.
    """

    def __init__(self, signal_number: int = 0, step: int = 0) -> None:
        super().__init__(f"stopped at step {step}")
        self.signal_number = signal_number
        self.step = step


def shown(value: object) -> str:
    """A setting's value for a message, in at most 100 characters; None is ``nothing``."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return shortened(repr(list(value) if isinstance(value, tuple) else value))


def shortened(text: str) -> str:
    """The text, cut to 100 characters."""
    return text if len(text) <= 100 else text[:97] + "..."


def capitalized(text: str) -> str:
    """The text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def remedy_for(error: OSError, otherwise: str) -> str:
    """What to do about a failed write: more room if the disk or a limit is full, or `otherwise`."""
    if error.errno == errno.EFBIG:
        return "raise the limit of the size of files (ulimit -f)"
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "free some room on its disk" if is_full else otherwise


def unwritten(
    path: str | os.PathLike[str],
    error: OSError,
    otherwise: str = "choose another file or folder",
    *,
    exit_code: int = 1,
) -> UserError:
    """The error that a file or folder cannot be written, with the system's reason and a remedy.

    Args:
        path: the file or folder.
        error: of the system.
        otherwise: the remedy unless the disk or a limit is full.
        exit_code: as that of UserError.
    """
    reason = error.strerror or str(error)
    return UserError(
        f"{printable(path)}: cannot be written ({reason}); {remedy_for(error, otherwise)}",
        exit_code=exit_code,
    )


def printable(path: str | os.PathLike[str]) -> str:
    r"""The text in one line, with control characters and undecodable bytes as ``\n``, ``\xff``.

    It cannot move a terminal's cursor, and any encoding that has its letters can write it.
    """
    return "".join(
        character if character.isprintable() else _escaped(character)
        for character in os.fspath(path)
    )


def encodable(text: str, encoding: str | None) -> str:
    """The text with an escape for each character that the encoding (None: UTF-8) lacks."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's code for an undecodable byte of a name (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
