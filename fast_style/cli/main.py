"""The commands: argparse in, calls out. The only place that prints errors or exits.

Each command is a module with a SUMMARY, EXAMPLES, `add_arguments` and `run`. Nothing heavy is
imported before the arguments are understood, so that ``--help`` and a mistyped option are answered
at once.
"""

import argparse
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from fast_style import __version__
from fast_style.cli import demo, distill, evaluate, info, init, optimize, stylize, train
from fast_style.cli.common import Parser, leave, run_command

__all__ = ["leave", "main", "run", "stylize_main", "train_main"]

_COMMANDS = {
    "train": train,
    "stylize": stylize,
    "optimize": optimize,
    "evaluate": evaluate,
    "distill": distill,
    "init": init,
    "info": info,
    "demo": demo,
}


def run() -> NoReturn:
    """The program ``fast-style``: what the command line says, to the end of the process."""
    leave(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """``fast-style COMMAND ...``; gives the exit code."""
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
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return run_command(parser, arguments)


def train_main(arguments: Sequence[str] | None = None) -> int:
    """``train.py CONFIG.yaml ...``."""
    return _single_command("train.py", train, arguments)


def stylize_main(arguments: Sequence[str] | None = None) -> int:
    """``stylize.py --model MODEL PHOTO ...``."""
    return _single_command("stylize.py", stylize, arguments)


def _single_command(prog: str, command: ModuleType, arguments: Sequence[str] | None) -> int:
    parser = Parser(
        prog=prog,
        epilog=command.EXAMPLES.format(prog=f"python {prog}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)
    return run_command(parser, arguments)
