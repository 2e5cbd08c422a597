"""The texts that users keep as files: settings, and the help on them."""

import io
import sys
from pathlib import Path

from fast_style.cli.stdout import PRINT_INTO_FILE, delivered
from fast_style.core.errors import unwritten
from fast_style.core.files import write_text_atomically


def write_document(text: str, instead: str = PRINT_INTO_FILE) -> None:
    """Write the text of a file to stdout: in UTF-8 if stdout is redirected.

    fast-style reads such a file again, which must not depend on the encoding of a console.

    Args:
        text: of the file.
        instead: as that of `delivered`.

    Raises:
        BrokenPipeError: as `delivered`.
        UndeliveredError: likewise.
    """
    with delivered(instead):
        if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode())
        else:
            print(text, end="")


def save_document(path: Path, text: str, *, replaces: bool) -> None:
    """Write a text file in UTF-8.

    Raises:
        FileExistsError: there is a file of this name, and `replaces` is false.
        UserError: it cannot be written.
    """
    try:
        write_text_atomically(path, text, replaces=replaces)
    except FileExistsError:
        raise
    except OSError as error:
        raise unwritten(path, error, "choose another --output") from None
