"""Paths that a user named: ``~`` and variables replaced, and addresses of the web refused.

No file is opened here.
"""

import os
import re
from pathlib import Path

from fast_style.core.errors import UserError


def path_named(path: Path | str | os.PathLike[str]) -> Path:
    """The path of a file that a caller of the library named; text is read by `usable_path`.

    Raises:
        UserError: no file can have this path.
    """
    if not isinstance(path, str):
        return Path(path)
    try:
        return usable_path(path)
    except ValueError as error:
        raise UserError(str(error)) from None


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

    ``$NAME`` and ``${NAME}`` must be set. ``%NAME%``, as Windows writes it, stays as it is if no
    such variable is set.

    Args:
        text: the path.
        folder: what a relative path is relative to.

    Raises:
        ValueError: the environment has no such variable.
    """
    if os.path.lexists(folder / text):
        return text

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not _is_set(name):
            raise ValueError(
                f"{text!r}: the environment has no variable {name}; set it, or write the whole path"
            )
        return os.environ[name]

    replaced = _VARIABLE.sub(value, text)
    # The percent sign that ends one name may begin another: 50%-%DATA%.
    for name in filter(_is_set, _WINDOWS_NAME.findall(replaced)):
        replaced = replaced.replace(f"%{name}%", os.environ[name])
    return replaced


_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^{}]*)\})")
_WINDOWS_NAME = re.compile(r"%([^%/\\]+)(?=%)")


def _is_set(name: str) -> bool:
    try:
        return name in os.environ
    except UnicodeEncodeError:  # no name can have such characters
        return False
