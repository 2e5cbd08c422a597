"""Arrange several pictures on one sheet, without labels."""

from collections.abc import Sequence

from PIL import Image


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
