"""The texts that users keep as files: settings, and the help on them."""

import io
import sys
from pathlib import Path

from fast_style.cli.stdout import delivered
from fast_style.core.errors import UserError, printable
from fast_style.core.files import write_text_atomically


def write_document(text: str) -> None:
    """Write the text of a file to stdout: in UTF-8 if stdout is redirected.

    fast-style reads such a file again, which must not depend on the encoding of a console.

    Raises:
        BrokenPipeError: as `delivered`.
        UndeliveredError: likewise.
    """
    with delivered():
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
        raise UserError(
            f"{printable(path)}: cannot be written ({error.strerror}); choose another --output",
            exit_code=1,
        ) from None
