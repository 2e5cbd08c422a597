"""Disks that are full at any call of a run: the previous checkpoint stays, and it is said once.

    python benchmarks/reliability/disk_full.py               # about an hour; POSIX only
    python benchmarks/reliability/disk_full.py --calls 5     # smaller

A run resumes at step 2 of 6, saves at 4 and 6, draws samples at 3 and 6, and meets a photo that is
unreadable. "No space left on device" is the answer to its first call that opens a file for writing,
makes a folder, writes, syncs or renames (writes are cut in halves, see ``tests/system_calls.py``):
first from that call on, then at that call alone. Then the same with the second call, and so on. A
try holds if

* the checkpoint of step 2 or a newer one is whole, and no other is damaged;
* a command that could not write what it is for ends with exit code 1 or 2 and one error; else 0;
* whatever was not written is told, in no line more than once, and never as a traceback;
* no temporary file is left;
* with space again, the same command ends with the weights and moments of an undisturbed run.

The table has the tries by the file that met the full disk first, such as checkpoints or samples.
"""

import os
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import figures
import program
from small_run import final_state, quick_runs, write_small_run
from system_calls import FullDisk, watched

from fast_style.cli.arguments import positive
from fast_style.cli.main import train_main
from fast_style.core.errors import UserError
from fast_style.models.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint

STEPS = 6
RUN = Path("runs", "tiny")
SAID = re.compile(r"(cannot|can not|could not|no checkpoint could|no longer) be written")
KINDS = {
    "checkpoints": re.compile(r"/checkpoints/"),
    "samples": re.compile(r"/samples/"),
    "TensorBoard": re.compile(r"/events\.out\.tfevents"),
    "metrics.csv": re.compile(r"/metrics\.csv$"),
    "unreadable photos": re.compile(r"/unreadable_photos\.jsonl$"),
    "other files of the run": re.compile(""),
}
"""The files of a run by their paths. A file that is written whole is known by its folder alone."""


class Try(NamedTuple):
    """A command on a full disk: its exit code, None after a traceback, and its lines."""

    code: int | None
    out: str
    error: str


@program.errors_in_one_line()
def main() -> int:
    """Fill disks, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__)
    parser.add_argument(
        "--calls", type=positive, metavar="N", help="only N calls, chosen at random"
    )
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder, quick_runs():
        os.chdir(folder)
        return figures.conclude(measure(Path(folder), options.calls))


def measure(folder: Path, calls: int | None) -> Iterator[figures.Figure]:
    """The figures of each kind of file, of disks that stay full and of those that do not."""
    yaml_file = write_small_run(folder)
    (folder / "photos" / "photo-04.jpg").write_bytes(b"no picture")
    commands = Commands(yaml_file)
    figures.require_at_most("--calls", calls, commands.num_calls)
    for num_failing, name in ((None, "full from a call on"), (1, "full at one call")):
        numbers = range(1, commands.num_calls + 1)
        held = defaultdict[str, list[bool]](list)
        for number in numbers if calls is None else random.sample(numbers, calls):
            disk = FullDisk(number, num_failing)
            tried = commands.go_on(disk)
            if disk.failed:  # else TensorBoard's thread has made fewer calls this time
                held[kind_of(disk.failed[0][1])].append(commands.holds(tried, disk, number))
        for kind in KINDS:
            if kind in held:
                yield figures.Figure(f"disk {name}, {kind}", sum(held[kind]), len(held[kind]))


class Commands:
    """The training command in the working directory, from step 2, again and again.

    Args:
        yaml_file: the settings of the run.
    """

    def __init__(self, yaml_file: Path) -> None:
        self.yaml_file = yaml_file
        assert self.run("train.steps=2", "train.schedule=constant").code == 0
        RUN.rename("begun")
        disk = FullDisk(sys.maxsize)
        assert self.go_on(disk).code == 0
        self.num_calls = next(disk.numbers) - 1
        self.expected = self.final_files()

    def go_on(self, disk: FullDisk) -> Try:
        """Resume the run at step 2, on a disk that may be full."""
        if RUN.exists():
            shutil.rmtree(RUN)
        shutil.copytree("begun", RUN)
        with watched(disk):
            return self.run(f"train.steps={STEPS}", "train.schedule=constant")

    def run(self, *words: str) -> Try:
        """The command with settings laid over those of the file."""
        code = None
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as error:
            try:
                code = train_main([str(self.yaml_file), "--device", "cpu", *words])
            except BaseException:
                traceback.print_exc()
        return Try(code, out.getvalue(), error.getvalue())

    def final_files(self) -> dict[str, bytes]:
        """The files of the finished run that no full disk may change."""
        files = final_state(RUN)
        del files["metrics.csv"]  # ends where it could not be written any more
        return files

    def holds(self, tried: Try, disk: FullDisk, number: int) -> bool:
        """Whether a command did what the head of this file says; tells what it did not."""
        what = f"call {number}, {' '.join(disk.failed[0])}"
        for wrong in (self._damage(tried), wrong_words(tried, disk)):
            if wrong:
                return figures.told(f"{what}: {wrong}\n{tried.out}{tried.error}")
        again = self.run(f"train.steps={STEPS}", "train.schedule=constant")
        if again.code != 0 or self.final_files() != self.expected:
            return figures.told(f"{what}: not resumed to the same bytes\n{again.error}")
        return True

    def _damage(self, tried: Try) -> str | None:
        checkpoints = list_checkpoints(RUN / "checkpoints")
        if not checkpoints:
            return "the checkpoint of before is gone"
        try:
            for path in checkpoints:
                load_checkpoint(path)
        except UserError as error:
            return str(error)
        is_final = checkpoint_path(RUN / "checkpoints", STEPS) in checkpoints
        if tried.code not in ((0,) if is_final else (1, 2)):
            return f"exit code {tried.code}, with {checkpoints[0].name} as the newest checkpoint"
        if left := [path.name for path in RUN.rglob(".fast-style-*")]:
            return f"left {left}"
        return None


def wrong_words(tried: Try, disk: FullDisk) -> str | None:
    """What is wrong with the lines of a command that met a full disk."""
    lines = tried.out.splitlines() + tried.error.splitlines()
    if "Traceback" in tried.out + tried.error:
        return "a traceback"
    errors = [line for line in lines if line.startswith("error: ")]
    if len(errors) != bool(tried.code) or tried.error.splitlines() != errors:
        return "not one error"
    if twice := [line for line, count in Counter(lines).items() if count > 1]:
        return f"said twice: {twice[0]}"
    # All of a file is written when its folder cannot be synced.
    unwritten = [path for call, path in disk.failed if call != "fsync" or not Path(path).is_dir()]
    if unwritten and not any(SAID.search(line) for line in lines):
        return "not said"
    for kind in ("samples", "TensorBoard", "metrics.csv"):
        is_met = any(kind_of(path) == kind for path in unwritten)
        if is_met and tried.code == 0 and not any(kind[:6] in line for line in lines):
            return f"nothing said of {kind}"
    return None


def kind_of(path: str) -> str:
    """The kind of file that a path belongs to."""
    absolute = str(Path(path).absolute())
    return next(kind for kind, pattern in KINDS.items() if pattern.search(absolute))


if __name__ == "__main__":
    sys.exit(main())
