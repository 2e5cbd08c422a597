"""Mistakes that a user can mend, as opposed to bugs of ours, which keep their traceback.

And how things that users wrote are shown in messages: in one line, whatever they are.
"""

import os


class UserError(Exception):
    """Something a user can put right: says where, which rule, what was found, what to do.

    The message holds one line per mistake. Only ``cli`` prints it.

    Args:
        message: the line or lines, without a leading ``error:``.
        exit_code: 2 for what is found before any work began, 1 when work failed.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Work ended early because a signal asked for it; what was finished is kept.

    Args:
        signal_number: the signal, where it is known.
        step: the step after which training stopped, its state saved.
    """

    def __init__(self, signal_number: int = 0, step: int = 0) -> None:
        super().__init__(f"stopped at step {step}")
        self.signal_number = signal_number
        self.step = step


def shown(value: object) -> str:
    """A setting's value as one would write it, within a line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return shortened(repr(list(value) if isinstance(value, tuple) else value))


def shortened(text: str) -> str:
    """At most a hundred characters of it."""
    return text if len(text) <= 100 else text[:97] + "..."


def printable(path: str | os.PathLike[str]) -> str:
    r"""A path or text for messages: control characters and undecodable bytes as ``\n``, ``\xff``.

    One line, safe for a terminal, and accepted by every encoder that knows the letters in it.
    """
    return "".join(
        character if character.isprintable() else _escaped(character)
        for character in os.fspath(path)
    )


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps an undecodable byte of a name (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
