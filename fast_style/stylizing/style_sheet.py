"""A photo in many styles at once, on one captioned sheet."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fast_style.pictures.reading import Picture, over_white
from fast_style.pictures.sheets import Captioned, captioned_grid, in_rows
from fast_style.stylizing.stylizer import Stylizer


class StyleSheet:
    """Draws a photo and its versions in several styles on one sheet, in the place of a `Stylizer`.

    Args:
        models: model files, at least one. A caption has the name of the file, and the artist and
            the year of a shipped model.
        device: ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:1``.
        memory_bytes: most memory that one picture may take; None: nine tenths of what is free.
        grain: as that of `Stylizer`; None: what each model asks for.
        strokes: as that of `Stylizer`.

    Raises:
        UserError: a file or the device cannot be used.
    """

    def __init__(
        self,
        models: Sequence[Path],
        *,
        device: str = "auto",
        memory_bytes: int | None = None,
        grain: float | None = None,
        strokes: int | None = None,
    ) -> None:
        self._captions = [["photo"]]
        self._stylizers = []
        for model in models:
            stylizer = Stylizer(
                model, device=device, memory_bytes=memory_bytes, grain=grain, strokes=strokes
            )
            self._captions.append(_caption(model.stem, stylizer.description))
            self._stylizers.append(stylizer)

    def stylize_picture(
        self, picture: Picture, *, progress: Callable[[float], None] | None = None
    ) -> Picture:
        """The sheet, without alpha.

        Args:
            picture: of the size that it and its versions have on the sheet.
            progress: as that of `Stylizer.stylize_picture`.

        Raises:
            UserError: it does not fit in memory, or the disk is full.
        """
        photo = Picture(over_white(picture), None)
        versions = [one.stylize_picture(photo, progress=progress) for one in self._stylizers]
        cells = [
            Captioned(version.rgb, caption)
            for version, caption in zip([photo, *versions], self._captions, strict=True)
        ]
        columns = math.ceil(math.sqrt(len(cells)))
        return Picture(captioned_grid(in_rows(cells, columns)), None)

    def is_small(self, height: int, width: int, *, max_side: int | None = None) -> bool:
        """As `Stylizer.is_small`, of one picture of the sheet."""
        return self._stylizers[0].is_small(height, width, max_side=max_side)


def _caption(name: str, description: dict[str, Any]) -> list[str]:
    card = description.get("card")
    return [name] if card is None else [name, f"{card['artist']}, {card['year']}"]
