"""``fast-style try``: photos in the style of any picture, in seconds and without a training."""

import argparse
import shlex
from pathlib import Path

from fast_style.cli.arguments import (
    add_device,
    add_max_pixels,
    natural,
    nonempty_path,
    output_path,
    positive,
    style_picture,
)
from fast_style.cli.arguments import expanded as with_matches
from fast_style.cli.notes import each_once, note_about
from fast_style.cli.outputs import make_writable_folder, put_picture_in_place, require_replaceable
from fast_style.cli.process import say
from fast_style.core.errors import printable
from fast_style.core.words import count
from fast_style.styles.shipped import word_for

SUMMARY = "draw photos in the style of any picture, in seconds and without a training"
EXAMPLES = """\
examples:
  # writes first_look.png
  {prog} painting.jpg photo.jpg
  # a sheet of two photos in three styles, one of them among those that come with fast-style
  {prog} painting.jpg a.jpg b.jpg --style mosaic.jpg the_great_wave -o sheet.png
"""
LESS_MEMORY = "use a smaller --max-side"

_SIDE_ALONE, _SIDE_ON_SHEET = 1024, 384


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "painting",
        type=style_picture,
        metavar="STYLE",
        help="your style picture, or the name of a style that comes with fast-style",
    )
    parser.add_argument(
        "photos", type=nonempty_path, nargs="+", metavar="PHOTO", help="photos to draw"
    )
    parser.add_argument(
        "--style",
        type=style_picture,
        nargs="+",
        action="extend",
        default=[],
        metavar="STYLE",
        help="further style pictures; several styles or photos make a sheet",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=output_path,
        default=Path("first_look.png"),
        metavar="PICTURE",
        help="file for the picture or the sheet (default: first_look.png)",
    )
    parser.add_argument(
        "--max-side",
        type=positive,
        metavar="N",
        help="longer side of the picture in pixels, if the photo is larger (default: "
        f"{_SIDE_ALONE}; on a sheet, {_SIDE_ON_SHEET})",
    )
    parser.add_argument(
        "--iterations",
        type=natural,
        metavar="N",
        help="updates of each picture, which paint the style's strokes: more take longer, and 0 "
        "gives the photo the style's colors and lights alone (default: 12)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    add_device(parser)
    add_max_pixels(parser)


def run(options: argparse.Namespace) -> int:
    """Draw the picture or the sheet; returns the exit code."""
    from fast_style.losses.inputs import require_style_picture
    from fast_style.pictures.reading import require_picture
    from fast_style.pictures.writing import writable_format

    # Before torch, which takes seconds to import.
    styles = each_once([options.painting, *options.style], "used", word_for=word_for)
    photos = each_once(with_matches(options.photos), "drawn")
    for path in styles:
        require_style_picture(path)
    for path in photos:
        require_picture(path)
    require_replaceable(options.output, [*styles, *photos], overwrite=options.overwrite)
    writable_format(options.output)
    make_writable_folder(options.output.parent)
    note_about([*styles, *photos])
    _draw(styles, photos, options)
    return 0


def _draw(styles: list[Path], photos: list[Path], options: argparse.Namespace) -> None:
    """Draw and write the picture of one photo in one style, or else the sheet.

    Raises:
        UserError: a picture cannot be read, or the file cannot be written.
    """
    from tqdm import tqdm

    from fast_style.core.devices import resolve_device
    from fast_style.losses.build import read_style
    from fast_style.optimizing.first_look import (
        ITERATIONS,
        STYLE_SIDE,
        FirstLooks,
        first_look_sheet,
    )
    from fast_style.pictures.reading import Picture, read_picture
    from fast_style.stylizing.folder import shrunk

    device = resolve_device(options.device)
    is_sheet = len(styles) * len(photos) > 1
    side = options.max_side or (_SIDE_ON_SHEET if is_sheet else _SIDE_ALONE)
    paintings = [read_style(path, STYLE_SIDE) for path in styles]
    pictures = [shrunk(read_picture(path), side) for path in photos]
    iterations = ITERATIONS if options.iterations is None else options.iterations
    first_looks = FirstLooks(paintings, device=device, iterations=iterations)
    num_updates = len(photos) * len(styles) * iterations
    with tqdm(total=num_updates, unit="update", disable=None) as bar:

        def watch() -> None:
            bar.update()

        looks = [first_looks.draw(picture, watch) for picture in pictures]
    drawn = looks[0][0]
    if is_sheet:
        named_photos = list(zip(_captions(photos), pictures, strict=True))
        named_styles = list(zip(_captions(styles), paintings, strict=True))
        drawn = Picture(first_look_sheet(named_photos, named_styles, looks), None)
    output = put_picture_in_place(
        options.output, drawn.rgb, alpha=drawn.alpha, overwrite=options.overwrite
    )
    style, photo = word_for(styles[0]), str(photos[0])
    what = f"{photo} in the style of {style}"
    if is_sheet:
        what = f"{count(len(photos), 'photo')} in {count(len(styles), 'style')}"
    say(printable(f"{output}: {what}; this is a first look, without a training"))
    say("a network of its own, trained in minutes, draws any photo at once, and videos steadily:")
    words = ["fast-style", "demo", "--style", _as_word(style), "--photo", _as_word(photo)]
    say(f"  {shlex.join(words)}")


def _as_word(path: str) -> str:
    """A path as a word of a command line that can be pasted."""
    if printable(path) != path:  # such as a line break, which a terminal does not take
        return "YOUR_PICTURE"
    # A name that begins with a hyphen would be taken for an option.
    return f"./{path}" if path.startswith("-") else path


def _captions(paths: list[Path]) -> list[str]:
    """The names of files, with the names of their folders where two are equal."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        return [f"{path.absolute().parent.name}/{path.stem}" for path in paths]
    return names
