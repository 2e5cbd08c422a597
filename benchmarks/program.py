"""Shared by the developers' programs of benchmarks/ and docs/: command lines, errors and outputs.

A mistake of usage, a file that is missing and a child process that fails are each told in one line,
``error: ...``, with exit code 1. A bug keeps its traceback.

This module imports no torch: some programs must not, since their children are measured.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fast_style.cli.arguments import Parser, positive
from fast_style.cli.outputs import require_replaceable
from fast_style.core.errors import UserError, printable, shortened


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Within the block, or the function that this decorates, errors end the process in a line.

    Raises:
        SystemExit: with the line, in place of `UserError`, `OSError`, `MemoryError` and
            `CalledProcessError`.
    """
    try:
        yield
    except UserError as error:
        sys.exit("\n".join(f"error: {printable(line)}" for line in str(error).splitlines()))
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {failure(error.cmd, error.returncode, error.stderr)}")
    except MemoryError:
        sys.exit("error: not enough memory for these sizes; choose smaller ones")
    except OSError as error:
        place = f"{printable(error.filename)}: " if isinstance(error.filename, str) else ""
        sys.exit(f"error: {place}{error.strerror or error}")


# --- Child processes ----------------------------------------------------------------------------


def failure(command: Sequence[str], exit_code: int, said: str | None) -> UserError:
    """The error that a command failed, with the last line of what it said on stderr.

    Args:
        command: the words of it.
        exit_code: minus a signal if that has ended it.
        said: None if it went to the terminal.
    """
    # Which Python it is, and in which folder, is the same for all.
    words = shlex.join(command[1:] if command[0] == sys.executable else command)
    lines = [line.strip() for line in (said or "").splitlines() if line.strip()]
    otherwise = "the lines above say why" if said is None else "it said nothing"
    reason = printable(lines[-1].removeprefix("error: ")) if lines else otherwise
    return UserError(
        f"{shortened(printable(words))}: ended with exit code {exit_code}: {reason}", exit_code=1
    )


def output_of(command: Sequence[str]) -> str:
    """What a command prints on stdout.

    Raises:
        UserError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise failure(command, done.returncode, done.stderr)
    sys.stderr.write(done.stderr)  # warnings
    return done.stdout


# --- Command lines ------------------------------------------------------------------------------


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose errors are lines; `doc` is the docstring of the program."""
    return Parser(description=(doc or "").partition("\n")[0])


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, cpu or cuda."""
    parser.add_argument("--device", type=_device, default="cpu", help="cpu or cuda (cpu)")


def _device(text: str) -> str:
    if text not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu or cuda, got {shortened(text)!r}")
    if text == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise argparse.ArgumentTypeError("torch finds no CUDA GPU here; choose cpu")
    return text


def net_width(text: str) -> int:
    """A width that the transform network can have (``model.width``)."""
    from pydantic import ValidationError

    from fast_style.settings.config import ModelConfig

    width = positive(text)
    try:
        return ModelConfig(width=width).width
    except ValidationError as error:
        limit = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise argparse.ArgumentTypeError(f"must be {limit}, got {shortened(text)!r}") from None


def existing_file(text: str) -> Path:
    """The path of a file that is there."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"must be a file that is there, got {shortened(text)!r}")
    return Path(text)


def existing_folder(text: str) -> Path:
    """The path of a folder that is there."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder that is there, got {shortened(text)!r}")
    return Path(text)


def file_or(*words: str) -> Callable[[str], str]:
    """Parses one of these words, or the path of a file that is there."""

    def parse(text: str) -> str:
        return text if text in words else str(existing_file(text))

    return parse


def numbers_like(example: str) -> Callable[[str], tuple[int, ...]]:
    """Parses words such as ``4x256``: as many whole numbers from 1 as the example has."""

    def parse(text: str) -> tuple[int, ...]:
        words = text.split("x")
        if len(words) != len(example.split("x")):
            raise argparse.ArgumentTypeError(
                f"must be numbers as in {example}, got {shortened(text)!r}"
            )
        return tuple(map(positive, words))

    return parse


def require_names(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Check that an option names what there is.

    Raises:
        UserError: it does not; the message lists all names.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise UserError(
                f"{option} {shortened(printable(name))}: must be one of "
                f"{', '.join(map(repr, known))}"
            )


def require_different(option: str, paths: Iterable[Path], names: Iterable[str]) -> None:
    """Check that no two files get outputs of the same name.

    Raises:
        UserError: two do.
    """
    by_name: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        if name in by_name:
            raise UserError(
                f"{option} {printable(by_name[name])} and {printable(path)}: their outputs would "
                f"both be called {printable(name)}; rename one, or give one alone"
            )
        by_name[name] = path


# --- Outputs ------------------------------------------------------------------------------------


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def require_new_picture(
    path: Path, sources: Iterable[Path], *, overwrite: bool, suffixes: Sequence[str] = ()
) -> None:
    """Check before the work that a picture can be written, and replaces nothing by accident.

    Args:
        path: the file that the user named.
        sources: the inputs, which exist and are never replaced.
        overwrite: whether the program has ``--overwrite``.
        suffixes: those that the file may have; none for all that `write_picture` knows.

    Raises:
        UserError: its suffix or its folder is wrong, or it exists.
    """
    from fast_style.pictures.writing import writable_format

    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{printable(path)}: its name must end in {' or '.join(suffixes)}")
    writable_format(path)
    if not path.parent.is_dir():
        raise UserError(
            f"{printable(path)}: there is no folder {printable(path.parent)}; make it, or name "
            "another file"
        )
    require_replaceable(path, sources, overwrite=overwrite)


def require_new_folder(folder: Path, *, overwrite: bool) -> None:
    """Check before the work that a folder of pictures is not there yet, or is empty.

    Raises:
        UserError: it has files and ``--overwrite`` is not given, or it is no folder.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{printable(place)}: is no folder; name another")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{printable(folder)}: is there and not empty; name another folder, or replace the "
            "files of the same names with --overwrite"
        )
