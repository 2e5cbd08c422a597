"""Arrange several pictures on one sheet."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from fast_style.core.errors import printable

INK = (34, 34, 34)
"""The color of captions."""


def side_by_side(pictures: Sequence[Image.Image], *, gap: int = 8) -> Image.Image:
    """The pictures in a row on white, each resized to the height of the first.

    Args:
        pictures: at least one, mode RGB.
        gap: white pixels between neighbors.
    """
    height = pictures[0].height
    row = [
        picture.resize((max(1, round(picture.width * height / picture.height)), height))
        for picture in pictures
    ]
    width = sum(picture.width for picture in row) + gap * (len(row) - 1)
    sheet = Image.new("RGB", (width, height), "white")
    left = 0
    for picture in row:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


def contact_sheet(pictures: Sequence[Image.Image], columns: int, *, gap: int = 8) -> Image.Image:
    """The pictures on white, row by row from left to right.

    Args:
        pictures: at least one, mode RGB, all of one size.
        columns: pictures in a full row.
        gap: white pixels between neighbors.
    """
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(picture, (column * (width + gap), row * (height + gap)))
    return sheet


class Captioned(NamedTuple):
    """A picture, mode RGB, and the lines below it."""

    picture: Image.Image
    lines: Sequence[str]


def in_rows(cells: Sequence[Captioned], columns: int) -> list[Sequence[Captioned]]:
    """The cells in rows of so many, from left to right; the last row may be shorter."""
    return [cells[first : first + columns] for first in range(0, len(cells), columns)]


def captioned_grid(rows: Sequence[Sequence[Captioned]], *, gap: int = 12) -> Image.Image:
    """The pictures on white, each with its lines below it; too long lines are cut off.

    Args:
        rows: from top to bottom, each from left to right; all pictures of one size.
        gap: white pixels between neighbors.
    """
    width, height = rows[0][0].picture.size
    font_size = max(10, width // 16)
    font = ImageFont.load_default(font_size)
    line_height = round(1.4 * font_size)
    num_lines = max(len(cell.lines) for row in rows for cell in row)
    columns = max(len(row) for row in rows)
    whole = height + line_height * num_lines + gap
    sheet = Image.new("RGB", (columns * (width + gap) + gap, len(rows) * whole + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for top, row in zip(range(gap, sheet.height, whole), rows, strict=False):
        for left, cell in zip(range(gap, sheet.width, width + gap), row, strict=False):
            sheet.paste(cell.picture, (left, top))
            for number, line in enumerate(cell.lines):
                place = left, top + height + line_height * number
                draw.text(place, fitting(line, font, width), fill=INK, font=font)
    return sheet


def fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of the text as fits into a line of this width, in pixels.

    Pillow's default font has the letters of ASCII alone: accents are dropped, and any other letter
    becomes a question mark.
    """
    letters = unicodedata.normalize("NFKD", printable(text))
    bare = (letter for letter in letters if not unicodedata.combining(letter))
    text = "".join(letter if letter.isascii() else "?" for letter in bare)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
