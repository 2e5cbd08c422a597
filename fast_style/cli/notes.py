"""Notes of a command to the user: what it does otherwise than might be expected, on stderr."""

import sys
from collections.abc import Iterable
from pathlib import Path


def note(line: str) -> None:
    """Print a note."""
    print(f"note: {line}", file=sys.stderr)


def note_several(pictures: Iterable[Path]) -> None:
    """Print which of the pictures that a command line names hold further ones, if any does."""
    from fast_style.pictures.several import line_about_several, num_pictures

    line = line_about_several([(str(path), num_pictures(path)) for path in pictures])
    if line:
        note(line)
