"""kill -9 at random moments of training, and at every system call of a run that saves.

    python benchmarks/reliability/kill.py                         # about half an hour; POSIX only
    python benchmarks/reliability/kill.py --count 3 --calls 5     # smaller

After each kill, all files of the run folder are read: checkpoints, model, pictures and settings are
whole or not there, and the checkpoint of the last save that had returned is there. Then the run is
resumed, and in the end checkpoint, model and metrics.csv have the bytes of a run that was never
killed, and no temporary file is left.

1. Random moments: ``fast-style train`` is killed after a random time, again and again, until it
   finishes before that; then another one begins. The processes are forked from one that has
   imported everything, so that most kills hit training and saving.
2. System calls: a run resumes at step 2 of 6 and saves at 4 and 6. It is killed before its first
   call that opens, writes, syncs, renames, changes or removes a file, before its second, and so on.
   Writes are cut in halves, so that kills leave partly written files (``tests/system_calls.py``).
"""

import json
import math
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import figures
import program
from PIL import Image
from small_run import (
    final_state,
    quick_runs,
    settings_of,
    train_once,
    write_small_run,
)
from system_calls import in_child, killed_at, start_child, watched

from fast_style.cli.arguments import positive
from fast_style.cli.main import train_main
from fast_style.core.errors import UserError
from fast_style.models.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint
from fast_style.training.trainer import Trainer

NAME = "tiny"


@program.errors_in_one_line()
def main() -> int:
    """Kill, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__)
    parser.add_argument("--count", type=positive, default=200, help="of random kills (200)")
    parser.add_argument(
        "--calls", type=positive, metavar="N", help="only N system calls, chosen at random"
    )
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder, quick_runs():
        return figures.conclude(measure(Path(folder), options.count, options.calls))


def measure(folder: Path, count: int, calls: int | None) -> Iterator[figures.Figure]:
    """The figures of both kinds of kills."""
    yaml_file = write_small_run(folder)
    yield from kill_at_random_moments(folder, yaml_file, count)
    yield from kill_at_calls(folder, yaml_file, calls)


# --- Random moments -----------------------------------------------------------------------------


def kill_at_random_moments(folder: Path, yaml_file: Path, count: int) -> Iterator[figures.Figure]:
    """The figures of `count` kills of training commands, and of the runs that they hit."""
    words = ["train.steps=40", "log.checkpoint_every=3", "log.samples_every=10"]
    returned = Returned()

    def command(cwd: Path) -> Callable[[], object]:
        def work() -> None:
            cwd.mkdir(exist_ok=True)
            os.chdir(cwd)
            with returned.noted():
                assert train_main([str(yaml_file), "--device", "cpu", *words]) == 0

        return work

    started_at = time.monotonic()
    assert in_silence(command(folder / "straight")) == 0
    duration_s = time.monotonic() - started_at
    expected = final_state(folder / "straight" / "runs" / NAME)
    num_kills, num_sound, finished = 0, 0, list[bool]()
    while num_kills < count:
        cwd = folder / f"killed-{len(finished)}"
        returned.step = 0
        while True:
            # The last run is left to its end.
            patience_s = random.uniform(0, duration_s) if num_kills < count else math.inf
            code = killed_after(patience_s, command(cwd))
            if code != -signal.SIGKILL:
                break
            num_kills += 1
            num_sound += is_sound(cwd / "runs" / NAME, returned.step, f"kill {num_kills}")
        finished.append(code == 0 and is_final(cwd / "runs" / NAME, expected, cwd.name))
    yield figures.Figure("kill -9 at random moments: nothing lost, all readable", num_sound, count)
    yield figures.Figure("runs so killed: end bit-exact", sum(finished), len(finished))


def killed_after(patience_s: float, work: Callable[[], object]) -> int:
    """The exit code of a process that is killed if it does not end before; minus a signal."""
    child = start_child(silent(work))
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(min(0.005, max(0.0, deadline - time.monotonic())))
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- System calls -------------------------------------------------------------------------------


def kill_at_calls(folder: Path, yaml_file: Path, calls: int | None) -> Iterator[figures.Figure]:
    """The figures of kills at the calls of a run, all of them or so many."""
    config = settings_of(yaml_file, "log.keep_checkpoints=2")
    begun, root, straight = folder / "begun", folder / "called", folder / "undisturbed"
    returned = Returned()

    def train(number: int) -> None:
        with returned.noted(), watched(killed_at(number)):
            train_once(config, root)

    # All that trains is forked, so that a fork never finds torch's threads running.
    assert in_silence(lambda: train_once(config, begun, stop_at=2)) == 0
    assert in_silence(lambda: train_once(config, straight)) == 0
    expected = final_state(straight / NAME)
    shutil.copytree(begun, root)
    num_calls = number_of_calls(lambda: train_once(config, root))
    numbers = range(1, num_calls + 1)
    figures.require_at_most("--calls", calls, num_calls)
    chosen = numbers if calls is None else sorted(random.sample(numbers, calls))
    num_sound = num_final = num_killed = 0
    for number in chosen:
        shutil.rmtree(root)
        shutil.copytree(begun, root)
        returned.step = 2
        what = f"call {number}"
        killed = in_silence(lambda number=number: train(number)) == -signal.SIGKILL
        # TensorBoard's thread may make a few calls more or less.
        num_killed += killed or number > num_calls - 10
        num_sound += is_sound(root / NAME, returned.step, what)
        resumed = in_silence(lambda: train_once(config, root)) == 0
        num_final += resumed and is_final(root / NAME, expected, what)
    name = f"kill -9 at each of {num_calls} system calls of a run" if calls is None else (
        f"kill -9 at {calls} of {num_calls} system calls of a run"
    )  # fmt: skip
    yield figures.Figure(f"{name}: killed there", num_killed, len(chosen))
    yield figures.Figure(f"{name}: nothing lost, all readable", num_sound, len(chosen))
    yield figures.Figure(f"{name}: resumed bit-exact", num_final, len(chosen))


def number_of_calls(work: Callable[[], object]) -> int:
    """How many calls that change files a process makes."""
    with tempfile.NamedTemporaryFile() as file:

        def count() -> None:
            calls = list[str]()
            with watched(lambda name, path: calls.append(name)):
                work()
            Path(file.name).write_text(str(len(calls)))

        assert in_silence(count) == 0
        return int(Path(file.name).read_text())


def silent(work: Callable[[], object]) -> Callable[[], object]:
    """The same work, without its lines on stdout."""

    def silent_work() -> None:
        with redirect_stdout(StringIO()):
            work()

    return silent_work


def in_silence(work: Callable[[], object]) -> int:
    """The exit code of a forked process; see `in_child`."""
    return in_child(silent(work))


# --- Checks -------------------------------------------------------------------------------------


class Returned:
    """The step of the last save that returned, in memory that survives the process."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8)  # shared with forked processes
        self.step = 0

    @property
    def step(self) -> int:
        """The step; 0 before the first save."""
        return int.from_bytes(self.memory[:], "little")

    @step.setter
    def step(self, step: int) -> None:
        self.memory[:] = step.to_bytes(8, "little")

    def noted(self) -> "patch[None]":
        """A context in which every save is noted when it returns."""
        save = Trainer.save

        def save_and_note(trainer: Trainer, *, must_succeed: bool = False) -> None:
            save(trainer, must_succeed=must_succeed)
            self.step = trainer.step

        return patch.object(Trainer, "save", save_and_note)


def is_sound(folder: Path, newest: int, what: str) -> bool:
    """Whether all files of a run folder are whole, with the checkpoint of `newest` (0: none)."""
    for path in folder.rglob("*"):
        if path.name.startswith(".fast-style-"):
            continue
        try:
            if path.suffix == ".safetensors":
                load_checkpoint(path)
            elif path.suffix == ".png":
                Image.open(path).load()
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".yaml":
                settings_of(path)
        except (UserError, OSError, ValueError) as error:
            return figures.told(f"{what}: {path}: {error}")
    if newest and not checkpoint_path(folder / "checkpoints", newest).exists():
        left = [path.name for path in list_checkpoints(folder / "checkpoints")]
        return figures.told(f"{what}: the checkpoint of step {newest} is gone; there are {left}")
    return True


def is_final(folder: Path, expected: dict[str, bytes], what: str) -> bool:
    """Whether a finished run has the expected bytes, and no temporary files."""
    if final_state(folder) != expected:
        return figures.told(f"{what}: ended with other bytes than a run that was never killed")
    if left := [path.name for path in folder.rglob(".fast-style-*")]:
        return figures.told(f"{what}: left {left}")
    return True


if __name__ == "__main__":
    sys.exit(main())
