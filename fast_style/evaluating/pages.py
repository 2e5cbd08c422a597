"""What the reports have in common: files that are written whole, Markdown, and numbers in words."""

import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from fast_style.core.errors import printable, unwritten
from fast_style.core.files import atomic_write, make_with_parents, put_aside
from fast_style.core.words import count


def write_file(path: Path, encoded: bytes) -> Path:
    """Write a file whole; returns its path.

    Raises:
        UserError: it cannot be written (exit code 1).
    """
    try:
        with atomic_write(path) as file:
            file.write(encoded)
    except OSError as error:
        raise unwritten(path, error) from error
    return path


def write_page(path: Path, lines: Iterable[str], say: Callable[[str], object]) -> Path:
    """Write a report's page; returns its path.

    A page that somebody has changed since it was written is kept under the first free name.

    Args:
        path: the page.
        lines: of the page, in Markdown.
        say: prints a line that gives the other name.

    Raises:
        UserError: it cannot be written (exit code 1).
    """
    text = "\n".join(lines)
    page = f"{text}\n<!-- fast-style: {_digest(text)} -->\n".encode()
    try:
        if os.path.lexists(path) and not _is_as_written(path.read_bytes()):
            aside = put_aside(path)
            say(
                f"{printable(path)}: was changed, or is of an earlier version; it is kept as "
                f"{printable(aside.name)}"
            )
    except OSError as error:
        raise unwritten(path, error) from error
    return write_file(path, page)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_as_written(page: bytes) -> bool:
    """Whether a page ends with the digest of the text before it."""
    # A checkout on Windows may have changed the line breaks.
    text, _, last = page.decode(errors="replace").replace("\r\n", "\n").rpartition("\n<!-- ")
    return last == f"fast-style: {_digest(text)} -->\n"


def make_folder(folder: Path) -> None:
    """Create a report's folder unless it exists.

    Raises:
        UserError: it cannot be created (exit code 1).
    """
    try:
        make_with_parents(folder)
    except OSError as error:
        raise unwritten(folder, error) from error


def strict_json(data: Any) -> bytes:
    """Standard JSON: numbers that are not finite become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): finite(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [finite(part) for part in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return (json.dumps(finite(data), indent=1, allow_nan=False) + "\n").encode()


def numbers_in(file: Path) -> dict[str, Any]:
    """What a report's file of numbers holds; nothing if it is missing, or is no such file."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def command_of(file: Path) -> str | None:
    """The command of the report that has this file of numbers; None if it has none."""
    return numbers_in(file).get("command")


def without_folders(command: str) -> str:
    """The command with absolute paths cut to their last names, as reports may be published."""
    try:
        words = shlex.split(command)
    except ValueError:  # an open quote, which no shell would run
        return ""

    def last_name(word: str) -> str:
        key, equals, value = word.rpartition("=")
        if PurePosixPath(value).is_absolute() or value.startswith("~"):
            value = PurePosixPath(value).name
        elif PureWindowsPath(value).is_absolute():
            value = PureWindowsPath(value).name
        return key + equals + value

    return shlex.join(last_name(word) for word in words)


def markdown(text: str) -> str:
    """A name or label with its markup escaped, also for use in a table."""
    escaped = re.sub(r"([\\`*\[\]<>|$#~&])", r"\\\1", printable(text))
    # Inside a word an underscore is no markup, and names are full of them.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table and an empty line; the first column to the left, the others to the right."""
    rules = [":--", *["--:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, rules, *rows)] + [""]


def machine_line(machine: Mapping[str, Any]) -> str:
    """A list item: the device, and the versions, from `evaluation.describe_machine`."""
    return (
        f"- machine: {markdown(machine['device'])}, {count(machine['threads'], 'CPU thread')}; "
        f"fast-style {machine['fast_style']}, torch {machine['torch']}, Python {machine['python']}"
    )


def command_lines(results: Mapping[str, Any]) -> list[str]:
    """How to repeat the report, if the results have their `command`; an empty line at the end."""
    if not results.get("command"):
        return [""]
    how = "To repeat it (absolute paths are cut to their names):"
    return ["", how, "", f"    {printable(results['command'])}", ""]
