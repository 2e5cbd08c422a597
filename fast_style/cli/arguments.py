"""The parser of the commands, arguments that several commands take, and settings read from them.

Checks only what the command line itself says; whether files and devices exist is checked later.
"""

import argparse
import glob
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fast_style.cli.documents import write_document
from fast_style.cli.notes import note
from fast_style.cli.stdout import delivered
from fast_style.core.errors import UserError, printable, shortened
from fast_style.core.paths import QUOTES, usable_path, with_variables
from fast_style.styles.shipped import word_for

if TYPE_CHECKING:
    from fast_style.settings.reading import AnyRoot


class _LastHolds(argparse.Action):
    """Keeps an option's value, and tells where the option is given again with another one.

    The last one holds, so that a script can end in ``"$@"``.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        given = namespace.__dict__.setdefault("given", {})
        if option_string and given.setdefault(self.dest, values) != values:
            before, after = (self._as_words(value) for value in (given[self.dest], values))
            note(f"{option_string} {before} gives way to {option_string} {after} after it")
        given[self.dest] = values
        setattr(namespace, self.dest, values)

    def _as_words(self, values: object) -> str:
        """The values of the option, as they may stand in a line."""
        if self.type is style_picture and isinstance(values, Path):
            values = word_for(values)
        words = values if isinstance(values, list) else [values]
        texts = [
            f"{word:g}" if isinstance(word, float) else str(getattr(word, "path", word))
            for word in words
        ]
        return shortened(printable(" ".join(texts)))


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises its errors as one line each."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for name in (None, "store"):
            self.register("action", name, _LastHolds)

    def error(self, message: str) -> NoReturn:
        """Raise UserError, with the command whose help says more."""
        raise UserError(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: object = None) -> None:
        """Print the help or the version; argparse would pass over what cannot be written."""
        with delivered():
            print(message, end="")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line; ``options.parser`` is the parser of the command itself.

    Unlike argparse, it accepts positional ``words`` after options: ``a.yaml --device cpu seed=1``.

    Raises:
        UserError: the command line cannot be parsed.
    """
    words = sys.argv[1:] if arguments is None else arguments
    _refuse_typography(words)
    try:
        return _parse(parser, words)
    except UserError as error:
        # A shell expands *.jpg to names that look like options.
        files = [word for word in words if word.startswith("-") and os.path.lexists(word)]
        if not files:
            raise
        name = printable(files[0])
        raise UserError(
            f"{error}; if the file {name} is meant, write ./{name} (and ./*.jpg for *.jpg)"
        ) from None


_MOST_DIGITS = 15  # of a whole number: far more than any option needs
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"
_TYPOGRAPHY = {
    **dict.fromkeys(_DASHES, "which is no hyphen; write options with -"),
    **dict.fromkeys(QUOTES, "which is no straight quote; write ' or \" or none"),
}
"""Characters that a text program writes in place of those of a command line, with the remedy."""


def _refuse_typography(words: Sequence[str]) -> None:
    """Check that no word was pasted from a text program that changed its first character.

    Raises:
        UserError: the first such word, unless a file has this name.
    """
    for word in words:
        if word[:1] in _TYPOGRAPHY and not os.path.lexists(word):
            raise UserError(f"{printable(word)}: begins with {word[0]}, {_TYPOGRAPHY[word[0]]}")


def _parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    options, rest = parser.parse_known_args(words)
    has_settings = hasattr(options, "print_config")
    # argparse fills a list once; words after the next option are left over.
    if rest and hasattr(options, "words") and not any(word.startswith("-") for word in rest):
        options.words += rest
    elif rest:
        setting = next((word for word in rest if re.match(r"--\w+(\.\w+)*=", word)), "")
        hint = f"; settings have no --: {setting[2:]}" if setting and has_settings else ""
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    return options


# --- Arguments of several commands --------------------------------------------------------------


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        help="auto, cpu, mps, cuda, or one GPU of several, such as cuda:1 (default: auto)",
    )


def add_include_results(parser: argparse.ArgumentParser) -> None:
    """Add ``--include-results``."""
    parser.add_argument(
        "--include-results",
        action="store_true",
        help="take pictures that fast-style made for photos; otherwise those among the photos are "
        "left out, unless one alone is named",
    )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add ``--max-pixels``, which `process.run_command` applies."""
    parser.add_argument(
        "--max-pixels",
        type=positive,
        metavar="N",
        help="refuse pictures of more than N pixels (default: 178956970)",
    )


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Add ``--memory`` of commands that apply a model."""
    parser.add_argument(
        "--memory",
        type=num_bytes,
        metavar="SIZE",
        help="most memory that one photo may take, such as 2G (default: nine tenths of the free "
        "memory); photos that need more are stylized in bands, with the same result up to rounding",
    )


def add_settings(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add a YAML file, ``key=value`` words, ``--print-config`` and ``--help-config``.

    Args:
        parser: the parser of the command.
        several: whether the words may name further YAML files.
    """
    parser.add_argument(
        "config",
        nargs="?",
        type=nonempty_path if several else input_path,
        metavar="CONFIG.yaml",
        help="file with the settings",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="MORE.yaml key=value" if several else "key=value",
        help="further files, and settings that replace those of every file"
        if several
        else "settings that replace those of the file",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the complete settings, and do nothing else",
    )
    parser.add_argument(
        "--help-config",
        action="store_true",
        help="print all settings with their defaults and meanings, and do nothing else",
    )


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add ``--resume``."""
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: resume the run of this name if it is unfinished; never: train in a new folder "
        "(default: auto)",
    )


# --- Settings -----------------------------------------------------------------------------------


def read_settings(
    options: argparse.Namespace, root: "type[AnyRoot]", *, example: str, first: Sequence[str] = ()
) -> "AnyRoot | None":
    """The settings of the command line; None if the user asked only to print settings.

    Args:
        options: the command line, with the arguments of `add_settings`.
        root: the class of the settings.
        example: a YAML file to suggest if none is given.
        first: ``key=value`` words that are applied before those of the command line.

    Raises:
        UserError: the file or a setting is missing or wrong; all mistakes, one per line.
    """
    found = _settings_of([options.config], [*first, *options.words], options, root, example)
    return found[0] if found else None


def read_several_settings(
    options: argparse.Namespace, root: "type[AnyRoot]", *, example: str
) -> "list[AnyRoot]":
    """The settings of each YAML file on the command line; empty if the user asked only to print.

    All files are read before any work begins.

    Raises:
        UserError: as `read_settings`; or two runs have the same name.
    """
    words: list[str] = options.words
    more = [word for word in words if is_yaml_file(word)]
    settings = [word for word in words if not is_yaml_file(word)]
    # No file at all is an error of its own.
    files = [] if options.config is None else expanded([options.config, *map(usual_path, more)])
    if len(files) > 1 and any(word.startswith("name=") for word in settings):
        raise UserError(
            f"name= on the command line would give {len(files)} runs the same folder; set a name "
            "in each file"
        )
    found = _settings_of(files or [None], settings, options, root, example)
    names: dict[str, Path] = {}
    for file, config in zip(files, found, strict=False):
        name = config.model_dump()["name"]
        if name in names:
            raise UserError(
                f"{file}: name: {name} is also the name in {names[name]}; give each run its own, "
                "because it names the run's folder"
            )
        names[name] = file
    return found


def is_yaml_file(word: str) -> bool:
    """Whether a word names a YAML file."""
    return word.lower().endswith((".yaml", ".yml")) and not is_setting(word)


def is_setting(word: str) -> bool:
    """Whether a word has the form ``key=value``."""
    return re.match(r"[A-Za-z_][\w.]*=", word) is not None


def _settings_of(
    files: Sequence[Path | None],
    words: Sequence[str],
    options: argparse.Namespace,
    root: "type[AnyRoot]",
    example: str,
) -> "list[AnyRoot]":
    from fast_style.settings.help import help_text
    from fast_style.settings.reading import load
    from fast_style.settings.writing import to_yaml

    if options.help_config:
        write_document(f"{help_text(root)}\n")
        return []
    _note_settings_given_twice(options.words)
    found = []
    mistakes: dict[str, None] = {}  # a wrong word is wrong for every file, but reported once
    for file in files:
        if file is None:
            raise UserError(f"CONFIG.yaml is missing; give a YAML file, such as {example}")
        try:
            found.append(load(root, file, words))
        except UserError as error:
            mistakes |= dict.fromkeys(str(error).splitlines())
    if mistakes:
        raise UserError("\n".join(mistakes))
    if options.print_config:
        write_document("---\n".join(map(to_yaml, found)))
        return []
    return found


def _note_settings_given_twice(words: Sequence[str]) -> None:
    """Print which settings a command line gives again, with another value.

    The last one holds, so that a script can end in ``"$@"``.
    """
    last: dict[str, str] = {}
    # Blanks around a value mean nothing in YAML.
    for word in (word.strip() for word in words if is_setting(word)):
        key = word.partition("=")[0]
        # A word for a whole mapping, such as the content layers, replaces those for its keys.
        for replaced in [old for old in last if old == key or old.startswith(f"{key}.")]:
            if (before := last.pop(replaced)) != word:
                note(f"{shortened(repr(before))} gives way to {shortened(repr(word))} after it")
        last[key] = word


# --- Types of arguments -------------------------------------------------------------------------


def nonempty_path(text: str) -> Path:
    """A path that is not empty; see `usual_path`."""
    if not text:  # an unset shell variable; Path("") would be the working directory
        raise argparse.ArgumentTypeError("must not be empty")
    return usual_path(text)


def output_path(text: str) -> Path:
    """The path of a file or folder to write; see `nonempty_path`."""
    if text == "-":
        raise argparse.ArgumentTypeError(
            "must name a file or folder, got '-': nothing is written to stdout (./- is a file or "
            "folder of this name)"
        )
    if "://" in text:
        raise argparse.ArgumentTypeError(f"is a URL, got {text!r}; give a path on this machine")
    return nonempty_path(text)


def input_path(text: str) -> Path:
    """The path of one file to read; a pattern stands for the only file that matches it.

    Raises:
        UserError: no file matches the pattern, or several do.
    """
    matches = expanded([nonempty_path(text)])
    if len(matches) > 1:
        raise UserError(f"{printable(text)}: {len(matches)} files match this pattern; name one")
    return matches[0]


def word_or_file(*words: str) -> Callable[[str], str]:
    """Parses one of these words, or the path of a file as `input_path` reads it."""

    def parse(text: str) -> str:
        return text if text in words else str(input_path(text))

    return parse


def style_picture(text: str) -> Path:
    """The path of a style picture, or of the picture of a style that comes with fast-style."""
    from fast_style.styles import shipped

    return shipped.style_picture(text, input_path(text))


def usual_path(text: str) -> Path:
    """A path, with ``~`` and variables replaced as in a YAML file: not all shells do that.

    Raises:
        UserError: it is a URL, the environment has no such variable, or the home folder is unknown.
    """
    try:
        return usable_path(with_variables(text, Path()))
    except ValueError as error:
        raise UserError(str(error)) from None


def expanded(paths: Iterable[Path]) -> list[Path]:
    """The paths, with the matches of a pattern such as ``*.jpg`` in its place.

    Shells expand patterns, but those of Windows do not. A file of that very name comes first.

    Raises:
        UserError: nothing matches a pattern.
    """
    found: list[Path] = []
    for path in paths:
        if os.path.lexists(path) or not glob.has_magic(str(path)):
            found.append(path)
            continue
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise UserError(f"{printable(path)}: no file matches this pattern")
        found += map(Path, matches)
    return found


def device_name(text: str) -> str:
    """A device of a form that torch knows; whether this machine has it is checked later."""
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,4})?", text, re.ASCII) is None:
        raise argparse.ArgumentTypeError(
            f"must be auto, cpu, cuda, cuda:1 (any number) or mps, got {shortened(text)!r}"
        )
    return text


def positive(text: str, least: int = 1) -> int:
    """A whole number of at least 1, or of another least one."""
    if not text.isdecimal() or int(text[:_MOST_DIGITS]) < least:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {least}, got {shortened(text)!r}"
        )
    if len(text) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(
            f"must have at most {_MOST_DIGITS} digits, got {shortened(text)!r}"
        )
    return int(text)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return positive(text, least=0)


def positive_number(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {shortened(text)!r}")
    return number


def percent(text: str) -> int:
    """A whole number from 1 to 100."""
    number = positive(text)
    if number > 100:
        raise argparse.ArgumentTypeError(f"must be 1 to 100, got {text!r}")
    return number


def thread_count(text: str) -> int:
    """A whole number from 1 to 1024, the range of ``train.threads``."""
    number = positive(text)
    if number > 1024:
        raise argparse.ArgumentTypeError(f"must be 1 to 1024, got {shortened(text)!r}")
    return number


def num_bytes(text: str) -> int:
    """Bytes of a size such as ``500M`` or ``1.5G``; M is 10^6 and G is 10^9."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([MG])", text, re.ASCII)
    size = int(float(found[1]) * (1e6 if found[2] == "M" else 1e9)) if found else 0
    if size < 1:
        raise argparse.ArgumentTypeError(
            f"must be a size such as 500M or 2G, got {shortened(text)!r}"
        )
    return size
