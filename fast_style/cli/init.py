"""``fast-style init``: write a starting YAML file for a style picture."""

import argparse
from pathlib import Path

from fast_style.cli.arguments import add_max_pixels, output_path, style_picture
from fast_style.cli.documents import save_document, write_document
from fast_style.cli.notes import note_about
from fast_style.cli.outputs import put_in_place, require_replaceable
from fast_style.cli.process import say
from fast_style.core.errors import printable

SUMMARY = "write a starting YAML file for a style picture"
EXAMPLES = "example:\n  {prog} monet.jpg --output monet.yaml\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "style",
        type=style_picture,
        metavar="STYLE.jpg",
        help="the style picture, or the name of a style that comes with fast-style",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=_file,
        metavar="FILE.yaml",
        help="file to write (default: print it)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_max_pixels(parser)


def _file(text: str) -> Path:
    if text == "-":
        raise argparse.ArgumentTypeError("leave it out to print the file (./- is a file, too)")
    return output_path(text)


def run(options: argparse.Namespace) -> int:
    """Write the YAML file; returns the exit code."""
    from fast_style.losses.inputs import require_style_picture
    from fast_style.pictures.reading import read_picture
    from fast_style.settings.starting_file import starting_file

    require_style_picture(options.style)
    read_picture(options.style)  # raises UserError if it is unreadable
    note_about([options.style])
    if options.output is not None:
        require_replaceable(options.output, [options.style], overwrite=options.overwrite)
    text = starting_file(options.style)
    if options.output is None:
        write_document(text, "name a file with --output")
    else:
        output = put_in_place(
            options.output,
            lambda path, replaces: save_document(path, text, replaces=replaces),
            overwrite=options.overwrite,
        )
        say(f"{printable(output)}: set data.photos in it, and train it")
    return 0
