"""``fast-style init``: print a starting YAML file for a style picture."""

import argparse

from fast_style.cli.arguments import style_picture

SUMMARY = "print a starting YAML file for a style picture"
EXAMPLES = "example:\n  {prog} monet.jpg > monet.yaml\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "style",
        type=style_picture,
        metavar="STYLE.jpg",
        help="the style picture, or the name of a style that comes with fast-style",
    )


def run(options: argparse.Namespace) -> int:
    """Print the YAML file; returns the exit code."""
    from fast_style.losses.inputs import require_style_picture
    from fast_style.pictures.reading import read_picture
    from fast_style.settings.starting_file import starting_file

    require_style_picture(options.style)
    read_picture(options.style)  # raises UserError if it is unreadable
    print(starting_file(options.style), end="")
    return 0
