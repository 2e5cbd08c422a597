r"""Draw a gallery: photos down the side, styles along the top, each cell a photo in a style.

    python docs/draw_gallery.py photos/*.jpg --styles the_scream udnie --output docs/gallery.jpg \
        --overwrite
    python docs/draw_gallery.py photo.jpg --columns 4 --output gallery.jpg   # all, in rows

With several photos, each has a row, and the style pictures stand above. With one photo, every cell
has its style picture in a corner. Models that do not come with fast-style are named by their files;
their style picture is the style.png beside them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import program

from fast_style.cli.arguments import natural, positive, positive_number
from fast_style.core.errors import UserError
from fast_style.pictures.reading import read_photo
from fast_style.pictures.sheets import contact_sheet
from fast_style.pictures.writing import write_picture
from fast_style.styles.shipped import ShippedStyle, find_style, shipped_styles
from fast_style.stylizing.stylizer import Stylizer

QUALITY = 88
LEAST_CELL, MOST_CELL = 8, 8192
SCALE = 1.5
"""By how much the pictures are larger when they are stylized than on the gallery."""


@program.errors_in_one_line()
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the gallery that the command line asks for."""
    parser = program.parser_of(__doc__)
    parser.add_argument("photos", type=program.existing_file, nargs="+")
    parser.add_argument("--styles", nargs="+", help="names or model files (default: all shipped)")
    parser.add_argument("--columns", type=positive, default=4, help="with one photo (default: 4)")
    parser.add_argument("--width", type=positive, default=600, help="of the gallery (default: 600)")
    parser.add_argument(
        "--ratio", type=positive_number, default=4 / 3, help="of cells (default: 4 / 3)"
    )
    parser.add_argument("--gap", type=natural, default=4, help="between cells (default: 4 pixels)")
    parser.add_argument("--output", "-o", type=Path, required=True)
    program.add_overwrite(parser)
    options = parser.parse_args(arguments)
    program.require_new_picture(options.output, options.photos, overwrite=options.overwrite)
    styles = [_style(name) for name in options.styles or _all_names()]
    write_picture(options.output, gallery(options, styles), quality=QUALITY)


def gallery(options: argparse.Namespace, styles: Sequence[ShippedStyle]) -> Image.Image:
    """The gallery of the photos in the styles.

    Raises:
        UserError: a picture or a model cannot be read.
    """
    several = len(options.photos) > 1
    columns = len(styles) + 1 if several else options.columns
    size = cell_size(options, columns)
    pictures = [ImageOps.fit(read_photo(style.picture), size) for style in styles if style.picture]
    stylizers = [Stylizer(style.model) for style in styles]
    cells = [Image.new("RGB", size, "white"), *pictures] if several else []
    for path in options.photos:
        # Strokes have a size in pixels: stylized at the size of the cell, a photo would drown.
        photo = ImageOps.fit(read_photo(path), tuple(round(SCALE * side) for side in size))
        versions = [stylizer(photo).resize(size) for stylizer in stylizers]
        if not several:
            versions = [_with_inset(*both) for both in zip(versions, pictures, strict=True)]
        cells += [photo.resize(size), *versions]
    return contact_sheet(cells, columns, gap=options.gap)


def cell_size(options: argparse.Namespace, columns: int) -> tuple[int, int]:
    """Width and height of a cell in pixels.

    Raises:
        UserError: it is too small or too large to draw.
    """
    width = (options.width - (columns - 1) * options.gap) // columns
    height = round(width / options.ratio)
    if not (width >= LEAST_CELL and LEAST_CELL <= height <= MOST_CELL):
        raise UserError(
            f"cells would have {width} x {height} pixels, and must have {LEAST_CELL} to "
            f"{MOST_CELL} each way; change --width, --ratio, --gap or the number of columns"
        )
    return width, height


def _with_inset(version: Image.Image, picture: Image.Image) -> Image.Image:
    """The version, with the style picture framed in its lower left corner."""
    inset = ImageOps.expand(ImageOps.scale(picture, 0.3), border=2, fill="white")
    version.paste(inset, (0, version.height - inset.height))
    return version


def _all_names() -> list[str]:
    return [style.name for style in shipped_styles()]


def _style(name: str) -> ShippedStyle:
    """The shipped style of this name, or that of a model file with its style.png."""
    model = Path(name)
    if model.is_file():
        return ShippedStyle(model.parent.name, model, model.with_name("style.png"))
    return find_style(name)


if __name__ == "__main__":
    main()
