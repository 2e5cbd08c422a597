"""The course of an optimization in pictures: numbered files, and an animation or a sheet.

Loads no torch until a picture is converted, so that file names can be checked before.
"""

import glob
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from fast_style.pictures.pixels import fit_longer_side, tensor_to_image
from fast_style.pictures.sheets import contact_sheet
from fast_style.pictures.writing import write_animation, write_picture

if TYPE_CHECKING:
    from torch import Tensor

# Frames of the animation, besides the start.
_NUM_FRAMES = 23
_FRAME_SIDE = 480
_SHEET_COLUMNS = 6


def pictures_in_between(output: Path, *, iterations: int, every: int | None) -> Iterator[Path]:
    """The numbered files that a `Course` writes before `output`; none if `every` is None."""
    if every is not None:
        yield from (_numbered(output, number) for number in range(every, iterations + 1, every))


class Course:
    """Records an optimization in pictures: a file every `write_every` iterations, and frames.

    Args:
        iterations: of the whole optimization, all scales together.
        output: the file of the result; the numbered files are named after it, as out-00050.png.
        write_every: iterations between two files; None writes none.
        replaces: whether existing files are replaced.
    """

    def __init__(
        self, iterations: int, output: Path, write_every: int | None, *, replaces: bool = True
    ) -> None:
        self.iterations = iterations
        self.output = output
        self.write_every = write_every
        self.replaces = replaces
        self.frames: list[Image.Image] = []
        self._last = -1

    def record(self, number: int, picture: "Tensor") -> None:
        """Record the picture (1, 3, H, W), float in [0, 1], after `number` iterations.

        Of two with the same number, the second is passed over: a finer scale starts with the result
        of the coarser one, enlarged.

        Raises:
            FileExistsError: its file exists, and is not to be replaced.
            UserError: its file cannot be written.
        """
        if number <= self._last:
            return
        self._last = number
        is_written = self.write_every is not None and number > 0 and number % self.write_every == 0
        is_frame = number * _NUM_FRAMES // self.iterations >= len(self.frames)
        if not (is_written or is_frame):
            return
        image = tensor_to_image(picture[0])
        if is_frame:
            self.frames.append(fit_longer_side(image, _FRAME_SIDE))
        if is_written:
            write_picture(_numbered(self.output, number), image, replaces=self.replaces)

    def write(self, path: Path, *, replaces: bool = True) -> None:
        """Write the frames as an animation (.gif), or as one sheet (any other format).

        Raises:
            FileExistsError: the file exists, and is not to be replaced.
            UserError: the file cannot be written.
        """
        size = self.frames[-1].size  # frames of coarser scales are smaller
        frames = [frame.resize(size, Image.Resampling.LANCZOS) for frame in self.frames]
        if path.suffix.lower() == ".gif":
            write_animation(path, frames, replaces=replaces)
        else:
            write_picture(path, contact_sheet(frames, _SHEET_COLUMNS), replaces=replaces)


def earlier_pictures(output: Path, written: Collection[Path]) -> list[Path]:
    """The numbered files beside `output` that are not among those to be written."""
    pattern = f"{glob.escape(output.stem)}-{'[0-9]' * 5}{glob.escape(output.suffix)}"
    return sorted(path for path in output.parent.glob(pattern) if path not in written)


def _numbered(output: Path, number: int) -> Path:
    return output.with_name(f"{output.stem}-{number:05d}{output.suffix}")
