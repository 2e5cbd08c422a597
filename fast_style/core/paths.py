"""Paths that a user named: ``~`` and variables replaced, and addresses of the web refused.

No file is opened here.
"""

import os
import re
from pathlib import Path

from fast_style.core.errors import UserError


def path_named(path: Path | str | os.PathLike[str], argument: str = "") -> Path:
    """The path of a file that a caller of the library named; text is read by `usable_path`.

    Args:
        path: what the caller gave.
        argument: its name, for the message, such as ``root=``.

    Raises:
        UserError: no file can have this path.
    """
    if not isinstance(path, str):
        return Path(path)
    try:
        return usable_path(path)
    except ValueError as error:
        raise UserError(f"{argument}: {error}" if argument else str(error)) from None


def usable_path(text: str) -> Path:
    """A text as a path, ``~`` replaced by the home folder.

    Raises:
        ValueError: no file can have this path.
    """
    if "://" in text:
        raise ValueError(
            f"{text!r} is a URL; download it first (data/README.md has the commands) and give the "
            "path of the file"
        )
    if not text or "\0" in text:
        raise ValueError(f"must be a path, got {text!r}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        text = _in_utf_8(text)
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        if len(path.parts) == 1 and text != "~":  # a file such as ~WRD0001.png, which Office leaves
            return path
        raise ValueError(f"the home folder in {text!r} is unknown; write the whole path") from None


def _in_utf_8(text: str) -> str:
    """The name of the file whose name in UTF-8 is `text`, where the locale lacks its letters."""
    try:
        return os.fsdecode(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"no file can be named {text!r}") from None


def with_variables(text: str, folder: Path) -> str:
    """A path with the values of its variables, unless a file of that very name exists.

    ``$NAME``, ``${NAME}`` and PowerShell's ``$env:NAME`` must be set. ``%NAME%``, as Windows writes
    it, stays as it is if no such variable is set, unless the path begins with it.

    Args:
        text: the path.
        folder: what a relative path is relative to.

    Raises:
        ValueError: the environment has no such variable, or the text has what pasting adds to it.
    """
    if os.path.lexists(folder / text):
        return text
    meant = text.strip("".join(_INVISIBLE | QUOTES))
    if meant != text and meant and os.path.lexists(folder / meant):
        raise ValueError(f"{text!r} {odd_ends(text)}")
    with_slashes = text.replace("\\", "/")
    if os.sep == "/" and with_slashes != text and os.path.lexists(folder / with_slashes):
        raise ValueError(f"{text!r}: write it with / in place of \\, as {with_slashes!r}")

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[3]
        if not _is_set(name):
            raise ValueError(_unset(text, name))
        return os.environ[name]

    replaced = _VARIABLE.sub(value, text)
    # The percent sign that ends one name may begin another: 50%-%DATA%.
    for name in filter(_is_set, _WINDOWS_NAME.findall(replaced)):
        replaced = replaced.replace(f"%{name}%", os.environ[name])
    if unknown := re.match(r"%(\w+)%[/\\]", replaced):
        raise ValueError(_unset(text, unknown[1]))
    return replaced


def odd_ends(text: str) -> str:
    """What pasting has added to both ends of a text, and the remedy; empty if it has not."""
    ends = {text[:1], text[-1:]}
    if found := ends & QUOTES:
        quotes = " and ".join(sorted(found))
        return f"begins or ends with {quotes}, which is no straight quote; write ' or \" or none"
    if found := ends & _INVISIBLE:
        names = ", ".join(f"U+{ord(letter):04X}" for letter in sorted(found))
        return f"begins or ends with an invisible character ({names}); remove it"
    return ""


_VARIABLE = re.compile(r"\$(?:env:(\w+)|(\w+)|\{([^{}]*)\})", re.IGNORECASE)
_WINDOWS_NAME = re.compile(r"%([^%/\\]+)(?=%)")


_ODD_SPACES = (0xA0, *range(0x2000, 0x200C), 0x202F, 0x2060, 0x3000, 0xFEFF)
ODD_SPACES = "".join(map(chr, _ODD_SPACES))
"""Spaces, with a width and without, that web pages and text programs have for ordinary ones."""

# Besides, white space of lines, and marks of the direction of writing, which the "Copy as path" of
# Windows puts in front.
_INVISIBLE = frozenset(f"{ODD_SPACES}\r\n\t\u200e\u200f\u202a\u202b\u202c\u202d\u202e")

QUOTES = frozenset("\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb")
"""Quotes that a text program writes in place of straight ones."""


def _unset(text: str, name: str) -> str:
    return f"{text!r}: the environment has no variable {name}; set it, or write the whole path"


def _is_set(name: str) -> bool:
    try:
        return name in os.environ
    except UnicodeEncodeError:  # no name can have such characters
        return False
