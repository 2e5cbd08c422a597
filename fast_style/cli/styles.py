"""``fast-style styles``: the styles that come with fast-style, as a list or on one's own photo."""

import argparse
from pathlib import Path

from fast_style.cli.arguments import (
    add_device,
    add_max_pixels,
    add_memory,
    input_path,
    output_path,
    positive,
)
from fast_style.cli.notes import note_about
from fast_style.cli.outputs import make_writable_folder, put_picture_in_place, require_replaceable
from fast_style.cli.painting import add_grain, add_strokes
from fast_style.cli.process import say
from fast_style.cli.stdout import hand_out
from fast_style.core.errors import UserError, printable
from fast_style.styles.shipped import (
    NONE_SHIPPED,
    SHEET_SIDE,
    require_styles,
    shipped_styles,
)

SUMMARY = "list the styles that come with fast-style, or draw them all on a photo"
EXAMPLES = """\
examples:
  {prog}
  # a photo in every style, with their names below
  {prog} --sheet photo.jpg --output sheet.jpg
  # the one that you like
  fast-style stylize --style starry_night photo.jpg
"""
LESS_MEMORY = "use a smaller --max-side"

_SHEET = Path("styles.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--sheet",
        type=input_path,
        metavar="PHOTO",
        help="draw this photo in every style, on one sheet",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=output_path,
        metavar="PICTURE",
        help=f"file for the sheet (default: {_SHEET})",
    )
    parser.add_argument(
        "--max-side",
        type=positive,
        metavar="N",
        help=f"longer side of the photo on the sheet, in pixels (default: {SHEET_SIDE})",
    )
    add_grain(parser)
    add_strokes(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing sheet")
    add_memory(parser)
    add_device(parser)
    add_max_pixels(parser)


def run(options: argparse.Namespace) -> int:
    """Print the list, or draw the sheet; returns the exit code."""
    if options.sheet is None:
        for name in ("output", "max_side", "grain", "strokes", "memory", "overwrite"):
            value = getattr(options, name)
            if value is not None and value is not False:  # a --grain of 0 was given
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option}: works with --sheet only; add --sheet PHOTO")
        _list()
        return 0
    _draw(options, options.output or _SHEET)
    return 0


def _list() -> None:
    """Print name, title, artist and year of every style."""
    from fast_style.models.model_files import read_description

    styles = shipped_styles()
    if not styles:
        hand_out(f"{NONE_SHIPPED}; train one of your own: fast-style demo --style PICTURE")
    width = max((len(style.name) for style in styles), default=0)
    for style in styles:
        card = read_description(style.model).get("card")
        words = [] if card is None else [card[key] for key in ("title", "artist", "year")]
        hand_out(printable(f"{style.name:{width}}  {', '.join(words)}".rstrip()))


def _draw(options: argparse.Namespace, output: Path) -> None:
    """Draw the sheet of a photo.

    Raises:
        UserError: no model is there, the photo cannot be read, or the sheet cannot be written.
    """
    from fast_style.pictures.reading import read_picture, require_picture
    from fast_style.pictures.writing import writable_format

    styles = require_styles("train one of your own: fast-style demo --style PICTURE")
    require_picture(options.sheet)
    require_replaceable(output, [options.sheet], overwrite=options.overwrite)
    writable_format(output)
    make_writable_folder(output.parent)
    note_about([options.sheet])

    from fast_style.stylizing.folder import shrunk
    from fast_style.stylizing.style_sheet import StyleSheet

    photo = shrunk(read_picture(options.sheet), options.max_side or SHEET_SIDE)
    models = [style.model for style in styles]
    sheet = StyleSheet(
        models,
        device=options.device,
        memory_bytes=options.memory,
        grain=options.grain,
        strokes=options.strokes,
    )
    drawn = sheet.stylize_picture(photo).rgb
    output = put_picture_in_place(output, drawn, overwrite=options.overwrite)
    say(f"{printable(output)}: {printable(options.sheet)} in {len(styles)} styles")
