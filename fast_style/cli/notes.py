"""Notes of a command to the user: what it does otherwise than might be expected, on stderr."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from fast_style.core.errors import printable


def note(line: str) -> None:
    """Print a note."""
    print(f"note: {line}", file=sys.stderr)


def each_once(
    paths: Iterable[Path], done: str, *, word_for: Callable[[Path], str] = str
) -> list[Path]:
    """The paths, each file once; prints which were given twice.

    Args:
        paths: of files.
        done: what the command does with them, such as ``measured``.
        word_for: what a user writes for one of them.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if found.setdefault(os.path.realpath(path), path) is not path:
            note(f"{printable(word_for(path))}: given twice; it is {done} once")
    return list(found.values())


def note_about(pictures: Iterable[Path]) -> None:
    """Print of the pictures that a command line names which hold further ones, or ignored profiles.

    Nothing is printed if none does.
    """
    from fast_style.pictures.profiles import has_unusable_profile, line_about_profiles
    from fast_style.pictures.several import line_about_several, num_pictures

    files = list(dict.fromkeys(pictures))
    for line in (
        line_about_several([(str(path), num_pictures(path)) for path in files]),
        line_about_profiles(str(path) for path in files if has_unusable_profile(path)),
    ):
        if line:
            note(line)
