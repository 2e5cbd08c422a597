"""The command lines of ``fast-style``, ``train.py`` and ``stylize.py``.

A command is a module with SUMMARY, EXAMPLES, `add_arguments` and `run`; the work itself is done by
the packages above. A module imports torch and other slow packages inside `run`, so that ``--help``
and mistakes on the command line are answered at once. Only this package prints errors and ends the
process.
"""

import argparse
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from fast_style import __version__
from fast_style.cli import (
    demo,
    distill,
    evaluate,
    first_look,
    info,
    init,
    optimize,
    preview,
    styles,
    stylize,
    train,
)
from fast_style.cli.arguments import Parser
from fast_style.cli.process import leave, run_command, run_to_the_end

__all__ = ["leave", "main", "run", "run_to_the_end", "stylize_main", "train_main"]

_COMMANDS = {
    "train": train,
    "styles": styles,
    "stylize": stylize,
    "try": first_look,
    "preview": preview,
    "optimize": optimize,
    "evaluate": evaluate,
    "distill": distill,
    "init": init,
    "info": info,
    "demo": demo,
}


def run() -> NoReturn:
    """What ``fast-style`` calls in environments that were made before `fast_style.__main__.run`."""
    run_to_the_end(main)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``fast-style COMMAND ...``; returns the exit code."""
    parser = Parser(
        prog="fast-style", description="Train a neural style of your own, and apply it to photos."
    )
    parser.add_argument("--version", action="version", version=f"fast-style {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in _COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=f"{command.SUMMARY[0].upper()}{command.SUMMARY[1:]}.",
            epilog=command.EXAMPLES.format(prog=f"fast-style {name}"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_command(subparser, command)
    return run_command(parser, arguments)


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Run ``train.py CONFIG.yaml ...``; returns the exit code."""
    return _single_command("train.py", train, arguments)


def stylize_main(arguments: Sequence[str] | None = None) -> int:
    """Run ``stylize.py PHOTO ...``; returns the exit code."""
    return _single_command("stylize.py", stylize, arguments)


def _single_command(prog: str, command: ModuleType, arguments: Sequence[str] | None) -> int:
    parser = Parser(
        prog=prog,
        epilog=command.EXAMPLES.format(prog=f"python {prog}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_command(parser, command)
    return run_command(parser, arguments)


def _add_command(parser: argparse.ArgumentParser, command: ModuleType) -> None:
    command.add_arguments(parser)
    parser.set_defaults(command=command, parser=parser)
