"""Storage of features between the sweeps of `streaming`: in memory, or in a file on a disk."""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor


class FeatureStore:
    """Lines of float32 values: a tensor, or a file without a name.

    The file is read and written, not mapped. So it occupies no memory except the system's cache,
    and a full disk raises an error instead of a signal.

    Args:
        num_lines: number of lines.
        length: values in each line.
        place: the device of the tensor, or the folder of the file.
    """

    def __init__(self, num_lines: int, length: int, place: torch.device | Path) -> None:
        self._length = length
        self._lines: Tensor | None = None
        self._file: BinaryIO | None = None
        if isinstance(place, Path):
            self._file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115
        else:
            self._lines = torch.empty(num_lines, length, dtype=torch.float32, device=place)

    def read(self, lines: range, length: int) -> Tensor:
        """The first `length` values of each line: (lines, length), a copy."""
        if self._lines is not None:
            return self._lines[lines.start : lines.stop : lines.step, :length].clone()
        assert self._file is not None
        values = torch.empty(len(lines), length, dtype=torch.float32, device="cpu")
        for line, place in zip(lines, values.numpy(), strict=True):
            self._file.seek(4 * self._length * line)
            self._file.readinto(place)  # type: ignore[attr-defined]
        return values

    def write(self, lines: range, values: Tensor) -> None:
        """Write (lines, length) values, each row to the beginning of a line.

        Raises:
            OSError: the disk is full.
        """
        if self._lines is not None:
            self._lines[lines.start : lines.stop : lines.step, : values.shape[1]] = values
            return
        assert self._file is not None
        for line, place in zip(lines, values.cpu().contiguous().numpy(), strict=True):
            self._file.seek(4 * self._length * line)
            self._file.write(place)

    def close(self) -> None:
        """Free the memory or the disk."""
        self._lines = None
        if self._file is not None:
            with suppress(OSError):  # closing flushes; a full disk was reported before
                self._file.close()


class Plane(NamedTuple):
    """Features in a store, one row in every `step`-th line from `start` on.

    Attributes:
        store: holds the lines.
        start: the first line.
        step: lines from one row to the next.
        height: number of rows.
        width: pixels of a row.
        channels: values of a pixel.
        device: of the rows that are read.
    """

    store: FeatureStore
    start: int
    step: int
    height: int
    width: int
    channels: int
    device: torch.device

    def write(self, first: int, rows: Tensor) -> None:
        """Store (rows, width, channels) from row `first` on."""
        self.store.write(self._lines(first, first + len(rows)), rows.flatten(1))

    def read(self, first: int, stop: int) -> Tensor:
        """Rows that were written before: (stop - first, width, channels), a copy."""
        values = self.store.read(self._lines(first, stop), self.width * self.channels)
        return values.to(self.device).view(stop - first, self.width, self.channels)

    def _lines(self, first: int, stop: int) -> range:
        return range(self.start + self.step * first, self.start + self.step * stop, self.step)
