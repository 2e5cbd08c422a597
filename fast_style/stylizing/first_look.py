"""A first look at photos in the style of any picture, without a training.

Each photo is drawn by that one of the shipped styles whose strokes come nearest to the style
picture, and gets the style picture's colors. A network of its own is better: it learns the strokes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageOps

from fast_style.losses.nearest import NearestStyles
from fast_style.pictures.colors import colors_of, recolored
from fast_style.pictures.reading import Picture, over_white
from fast_style.pictures.sheets import Captioned, captioned_grid
from fast_style.styles.shipped import ShippedStyle
from fast_style.stylizing.stylizer import Stylizer

STYLE_SIDE = 256
"""Pixels of the shorter side of a painting, as most shipped styles were learned."""


class FirstLook(NamedTuple):
    """A photo in the style of a picture."""

    picture: Picture
    """Of the photo's size; its alpha is the photo's."""

    strokes_of: str
    """The name of the shipped style that has drawn it."""


class FirstLooks:
    """Draws photos in the styles of paintings, with the strokes of shipped styles.

    Args:
        paintings: mode RGB, with a shorter side of `STYLE_SIDE` pixels.
        styles: those to choose among, at least one.
        device: where to draw.
        memory_bytes: most memory that one picture may take; None: nine tenths of what is free.

    Raises:
        UserError: a model cannot be used.
    """

    def __init__(
        self,
        paintings: Sequence[Image.Image],
        styles: Sequence[ShippedStyle],
        *,
        device: torch.device,
        memory_bytes: int | None = None,
    ) -> None:
        self._models = {style.name: style.model for style in styles}
        self._device, self._memory_bytes = device, memory_bytes
        self._stylizers: dict[str, Stylizer] = {}  # few styles are the nearest ones
        self._nearest = NearestStyles(styles, paintings)
        self._colors = [colors_of(painting) for painting in paintings]

    def draw(self, photo: Picture) -> list[FirstLook]:
        """The photo in the style of each painting, in their order.

        Raises:
            UserError: it does not fit in memory.
        """
        looks = []
        for name, colors in zip(self._nearest.of([over_white(photo)]), self._colors, strict=True):
            picture = self._stylizer(name).stylize_picture(photo)
            in_colors = Picture(recolored(picture.rgb, colors), picture.alpha)
            looks.append(FirstLook(in_colors, name))
        return looks

    def _stylizer(self, name: str) -> Stylizer:
        if name not in self._stylizers:
            self._stylizers[name] = Stylizer(
                self._models[name], device=self._device, memory_bytes=self._memory_bytes
            )
        return self._stylizers[name]


def first_look_sheet(
    photos: Sequence[tuple[str, Picture]],
    paintings: Sequence[tuple[str, Image.Image]],
    looks: Sequence[Sequence[FirstLook]],
) -> Image.Image:
    """Photos below one another, each in all styles; above them, the style pictures.

    Args:
        photos: each with its caption.
        paintings: likewise.
        looks: those of each photo, in the order of the paintings.
    """
    side = max(max(photo.rgb.size) for _, photo in photos)

    def cell(image: Image.Image, caption: str) -> Captioned:
        return Captioned(ImageOps.pad(image, (side, side), color="white"), [caption])

    corner = cell(Image.new("RGB", (side, side), "white"), "")
    rows = [[corner, *(cell(painting, name) for name, painting in paintings)]]
    for (name, photo), of_photo in zip(photos, looks, strict=True):
        row = [cell(over_white(look.picture), f"strokes: {look.strokes_of}") for look in of_photo]
        rows.append([cell(over_white(photo), name), *row])
    return captioned_grid(rows)
