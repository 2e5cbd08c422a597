"""The log of a run: console, TensorBoard and metrics.csv.

A log never stops a run. If TensorBoard's file or the table cannot be written (a full disk, mostly),
one warning is printed, that output ends, and training continues.
"""

import csv
import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from fast_style.core.errors import encodable
from fast_style.core.files import put_aside, write_text_atomically
from fast_style.pictures.pixels import image_to_tensor, tensor_to_image

_EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d{10})\.")
_BYTES_OF_ROWS = b"0123456789.,+-einfa\r\n\0"
"""Of numbers (also inf and nan) in a table, and what a power cut leaves in their place."""


def print_line(line: str) -> None:
    """Print a line at once, with an escape for each character that stdout's encoding lacks.

    A program without a console (pythonw) has no stdout, and nothing is printed.
    """
    print(encodable(line, getattr(sys.stdout, "encoding", None)), flush=True)


class RunLog:
    """Console progress, TensorBoard event files and metrics.csv of one run folder.

    Args:
        folder: the run folder, which exists.
        columns: the tags of metrics.csv, beside step and images. Only functions of the settings
            belong there, so that a resumed run's table equals an uninterrupted one's; times and
            rates go to TensorBoard.
        start_step: the step that training starts from. An earlier process may have logged later
            steps: their rows are removed from metrics.csv and their points hidden in TensorBoard,
            so that no curve has two values at a step.
        num_steps: the number of the last step; the console shows it beside the current one.
        say: called with each line. On a terminal, a progress bar on stderr takes the place of the
            lines about steps.
        is_silent: write and print nothing, because another process does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        columns: Sequence[str],
        start_step: int,
        num_steps: int,
        say: Callable[[str], None] = print_line,
        is_silent: bool = False,
    ) -> None:
        self._columns = ["step", "images", *columns]
        self._table = folder / "metrics.csv"
        self._broken = {"metrics.csv", "TensorBoard"} if is_silent else set[str]()
        self._say = say
        self._is_talking = not is_silent
        self._guarded("metrics.csv", lambda: self._cut_table_back_to(start_step))
        self._writer: Any = None
        self._tell_of_thread = threading.excepthook
        threading.excepthook = self._thread_ended
        self._guarded("TensorBoard", lambda: self._open_tensorboard(folder, start_step))
        self._bar: tqdm[Any] | None = None
        # A program without a console (pythonw) has no stderr.
        if sys.stderr is not None and sys.stderr.isatty() and not is_silent:
            self._bar = tqdm(
                total=num_steps, initial=start_step, unit="step", dynamic_ncols=True, smoothing=0.05
            )
        self._num_steps = num_steps

    def scalars(
        self, step: int, images: int, values: Mapping[str, float], *, untabled: Mapping[str, float]
    ) -> None:
        """Log numbers of one step; `untabled` ones go to TensorBoard alone.

        Args:
            step: the step, from 1.
            images: photos seen so far.
            values: by tag, such as ``loss/total``; a column without a value is left blank.
            untabled: by tag.
        """

        def add() -> None:
            for tag, value in {**values, **untabled}.items():
                self._writer.add_scalar(tag, value, step)
            self._writer.flush()

        self._guarded("TensorBoard", add)
        row = {"step": step, "images": images, **values}
        self._guarded("metrics.csv", lambda: self._append(row))

    def picture(self, tag: str, step: int, image: Image.Image) -> None:
        """Show a picture in TensorBoard."""
        pixels = image_to_tensor(image)

        def add() -> None:
            self._writer.add_image(tag, pixels, step)
            self._writer.flush()

        self._guarded("TensorBoard", add)

    def text(self, tag: str, text: str) -> None:
        """Show a text in TensorBoard, verbatim but for bytes of file names that are no UTF-8."""
        markdown = "\n".join(f"    {line}" for line in encodable(text, "utf-8").splitlines())
        self._guarded("TensorBoard", lambda: self._writer.add_text(tag, markdown, 0))

    def say(self, line: str) -> None:
        """Say a line; printed, it stands above the progress bar if there is one."""
        self._talk(lambda: self._say_beside_bar(line))

    def warn(self, line: str) -> None:
        """Say a warning."""
        self.say(f"warning: {line}")

    def progress(self, step: int) -> None:
        """Move the progress bar, if there is one, to this step."""
        if self._bar is not None:
            self._talk(lambda: self._move_bar(step))

    def status(self, step: int, *, loss: float, images_per_s: float, seconds_left: float) -> None:
        """Show loss, speed and time left: in the bar on a terminal, as a line elsewhere."""
        if self._bar is not None:
            numbers = f"loss {loss:.4f}, {images_per_s:.1f} images/s"
            self._talk(lambda: self._annotate_bar(numbers))
            return
        left = tqdm.format_interval(seconds_left)
        self.say(
            f"step {step}/{self._num_steps}  loss {loss:.4f}  {images_per_s:.1f} images/s  "
            f"{left} left"
        )

    def close(self) -> None:
        """Close the progress bar, and write TensorBoard's pending points."""
        if self._bar is not None:
            self._talk(self._bar.close)
        if self._writer is not None:
            self._guarded("TensorBoard", self._writer.close)
        if threading.excepthook == self._thread_ended:
            threading.excepthook = self._tell_of_thread

    def _open_tensorboard(self, folder: Path, start_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard joins all files of a folder to one run. purge_step hides the points of an
        # earlier process from that step on.
        purge_step = start_step + 1 if start_step else 0
        with _later_than_events_in(folder):
            self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def _thread_ended(self, how: threading.ExceptHookArgs) -> None:
        """Takes the place of `threading.excepthook`, which prints a traceback.

        TensorBoard writes in a thread. What ends it is raised in `_guarded`, too, and told there.
        """
        is_told = type(how.thread).__module__ == "tensorboard.summary.writer.event_file_writer"
        if not (is_told and isinstance(how.exc_value, OSError)):
            self._tell_of_thread(how)

    def _cut_table_back_to(self, step: int) -> None:
        rows: list[dict[str, str]] = []
        if step > 0 and self._table.exists():
            with self._table.open(newline="", encoding="utf-8", errors="replace") as file:
                rows = [row for row in csv.DictReader(file) if None not in (*row, *row.values())]
        # By name: an older version may have written the table with fewer columns.
        rows = [row for row in rows if row.get("step", "").isdecimal() and int(row["step"]) <= step]
        kept = [[row.get(column, "") for column in self._columns] for row in rows]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self._columns, *kept])
        if self._table.exists() and (why := self._why_to_keep_table(step, text.getvalue())):
            aside = put_aside(self._table)
            self.say(f"metrics.csv {why}; it is kept as {aside.name}")
        write_text_atomically(self._table, text.getvalue())

    def _why_to_keep_table(self, step: int, text: str) -> str | None:
        """Why the present table must not be replaced by `text`, in words; None if it may be."""
        found, begins = self._table.read_bytes(), text.encode()
        if not found.strip():
            return None
        rest = found.removeprefix(begins)
        # A killed process leaves further rows, a power cut perhaps half a row, or zeros.
        if not found.startswith(begins) or rest.translate(None, _BYTES_OF_ROWS):
            return "was changed, or is of an earlier version"
        return "is of a training without a checkpoint" if step == 0 and rest else None

    def _append(self, row: Mapping[str, float]) -> None:
        with self._table.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            if file.tell() == 0:  # somebody has removed it
                writer.writeheader()
            writer.writerow(row)

    def _guarded(self, output: str, write: Callable[[], None]) -> None:
        """Run `write` unless this output has failed before; warn at its first failure."""
        if output in self._broken:
            return
        try:
            write()
        except OSError as error:  # TensorBoard raises its writer thread's errors here, too
            self._broken.add(output)
            self.warn(
                f"{output} cannot be written any more ({error}); training continues without it"
            )

    def _talk(self, speak: Callable[[], object]) -> None:
        """Run `speak` unless the console is gone or silent."""
        if not self._is_talking:
            return
        try:
            speak()
        except OSError:  # `train.py ... | head`, a closed terminal, a log file on a full disk
            self._is_talking = False
            if self._say is not print_line:  # the caller's own output, and stdout may be sound
                return
            with suppress(OSError, ValueError):  # else pending output would fail again at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _say_beside_bar(self, line: str) -> None:
        with tqdm.external_write_mode(file=sys.stdout):
            self._say(line)

    def _move_bar(self, step: int) -> None:
        assert self._bar is not None
        self._bar.update(step - self._bar.n)

    def _annotate_bar(self, numbers: str) -> None:
        assert self._bar is not None
        self._bar.set_postfix_str(numbers)


@contextmanager
def _later_than_events_in(folder: Path) -> Iterator[None]:
    """Within the block, a new event file gets a name that sorts behind those of a folder.

    TensorBoard reads the files in the order of their names, which begin with the second of their
    making. If the clock was set back, or the last file is not a second old, a resumed run's points
    would be read first, and hidden by those of before.
    """
    from tensorboard.summary.writer import event_file_writer

    names = (_EVENT_FILE.match(path.name) for path in folder.iterdir())
    latest = max((int(name[1]) for name in names if name), default=0)
    clock = event_file_writer.time
    later = SimpleNamespace(time=lambda: max(clock.time(), latest + 1))
    event_file_writer.time = later  # the writer can be given no name
    try:
        yield
    finally:
        event_file_writer.time = clock


def photo_and_result_sheet(photos: Tensor, results: Tensor) -> Image.Image:
    """A sheet of photos above their stylized versions, with white gaps.

    Args:
        photos: (N, 3, S, S), float in [0, 1].
        results: the same shape, about [0, 1].
    """
    gap = 4
    rows = [torch.cat(list(rows), dim=2) for rows in (_spaced(photos, gap), _spaced(results, gap))]
    between = torch.ones(3, gap, rows[0].shape[2], device=photos.device)
    return tensor_to_image(torch.cat([rows[0], between, rows[1]], dim=1))


def _spaced(pictures: Tensor, gap: int) -> Tensor:
    # A gap on the right of the last picture, too: leaving it out would need a special case.
    return torch.nn.functional.pad(pictures, (0, gap), value=1.0)
