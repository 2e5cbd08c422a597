"""The course of a training on one sheet: what the network makes of a photo, from second 0 on."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from fast_style.core.errors import UserError, printable
from fast_style.pictures.pixels import fit_longer_side, image_to_tensor, tensor_to_image
from fast_style.pictures.sheets import Captioned, captioned_grid, in_rows
from fast_style.pictures.writing import write_picture
from fast_style.training.photo_stream import to_pixels
from fast_style.training.trainer import Trainer

EVERY_S = 20.0
"""Seconds between two pictures."""

_SIDE = 320
_COLUMNS = 4


class ShownTraining:
    """A training that shows a photo as the network paints it, at its start and end and in between.

    It has the `train` of a `Trainer`. The sheet is written again with each picture, the newest
    last. A sheet that cannot be written is a warning.

    Args:
        trainer: what is trained, in a single process.
        photo: mode RGB, of any size.
        sheet: the file of the sheet, in a folder that exists.
    """

    def __init__(self, trainer: Trainer, photo: Image.Image, sheet: Path) -> None:
        self.trainer = trainer
        self.sheet = sheet
        self._photo = fit_longer_side(photo, _SIDE)
        self._cells = [Captioned(self._photo, ["photo"])]
        self._shown_step = -1

    def train(self, stop_signal: Callable[[], int | None] = lambda: None) -> None:
        """Train to the last step; raises what `Trainer.train` raises.

        Args:
            stop_signal: as that of `Trainer.train`.
        """
        start_at = time.monotonic()
        self._show(0)
        due_s = EVERY_S

        def watch() -> int | None:  # called after every step
            nonlocal due_s
            elapsed_s = time.monotonic() - start_at
            if elapsed_s >= due_s:
                self._show(elapsed_s)
                due_s = elapsed_s + EVERY_S
            return stop_signal()

        self.trainer.train(watch)
        if self._shown_step != self.trainer.step:
            self._show(time.monotonic() - start_at)

    def _show(self, elapsed_s: float) -> None:
        """Add a picture to the sheet, and say so."""
        self._shown_step = self.trainer.step
        caption = f"{elapsed_s:.0f} s, step {self._shown_step}"
        self._cells.append(Captioned(self._paint(), [caption]))
        try:
            write_picture(self.sheet, captioned_grid(in_rows(self._cells, _COLUMNS)))
        except UserError as error:
            self.trainer.run_log.warn(str(error))
        else:
            self.trainer.run_log.say(
                f"{caption}: the photo as painted now is in {printable(self.sheet)}"
            )

    @torch.no_grad()
    def _paint(self) -> Image.Image:
        pixels = to_pixels(image_to_tensor(self._photo)[None], self.trainer.device)
        return tensor_to_image(self.trainer.fast_net(pixels)[0])
