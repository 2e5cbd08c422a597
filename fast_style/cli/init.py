"""``fast-style init``: a style picture in, a starting YAML file out."""

import argparse
from pathlib import Path

SUMMARY = "print a starting YAML file for a style picture"
EXAMPLES = "example:\n  {prog} monet.jpg > monet.yaml\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    parser.add_argument("style", type=Path, metavar="STYLE.jpg", help="the style picture")


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from fast_style.pictures.reading import read_picture
    from fast_style.settings.starting_file import starting_file

    read_picture(options.style)  # says what is wrong with it, if anything is
    print(starting_file(options.style), end="")
    return 0
