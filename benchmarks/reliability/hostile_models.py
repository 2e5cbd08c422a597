"""Hostile model files at every door: refused in one line, without running code or filling memory.

    python benchmarks/reliability/hostile_models.py                # about ten minutes; POSIX only
    python benchmarks/reliability/hostile_models.py --count 10     # ten files at each door

The files are those of ``tests/hostile_files.py``: pickles and archives, files of other programs;
forged headers (overlapping tensors, enormous ones, 60 MB of JSON), descriptions (newer format,
other architecture, wrong types) and weights (wrong shapes, not finite), each with a right digest.
The doors are the commands ``info``; ``stylize --model``; ``train`` with ``train.init_from``, with
``loss_network.weights`` as .safetensors and as .pth; and ``train`` of a run whose newest checkpoint
the file is.

A try holds if the command ends with exit code 2 and one line. ``info`` reads no tensors, so it may
print a description. A run may skip the file, say so, and go on from the checkpoint before. In all
cases no code of the file runs, nothing is written beside the run, the process takes less than
`LONGEST_S` of processor time, and its memory grows by less than `LARGEST_GROWTH` and three times
the size of the file.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import figures
import program
from hostile_files import foreign_files, forged_descriptions, forged_headers, forged_weights
from memory import resident_bytes
from small_run import quick_runs, settings_of, train_once, write_small_run
from system_calls import start_child

from fast_style.cli.arguments import positive
from fast_style.cli.main import main as command
from fast_style.models.checkpoint import checkpoint_path

LARGEST_GROWTH = 100e6
"""Bytes."""

LONGEST_S = 5.0
RUN = Path("runs", "tiny")
RUN_DOOR = "checkpoint of a run"
STARTED_AT, NEWEST = 4, 5  # steps


@program.errors_in_one_line()
def main() -> int:
    """Try all files at all doors, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__)
    parser.add_argument("--count", type=positive, help="files at each door, chosen at random (all)")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder, quick_runs():
        os.chdir(folder)
        return figures.conclude(measure(Path(folder), options.count))


def measure(folder: Path, count: int | None) -> Iterator[figures.Figure]:
    """The figure of each door."""
    sentinel = folder / "ran"
    yaml_file = write_small_run(folder)
    config = settings_of(yaml_file)
    begun = outcome_of(lambda: train_once(config, Path("runs"), stop_at=STARTED_AT))
    assert begun.code == 0, begun.error
    Path("runs").rename("begun")
    train = ["train", str(yaml_file), "--device", "cpu"]
    doors: dict[str, Callable[[Path], list[str]]] = {
        "info": lambda path: ["info", str(path)],
        "stylize": lambda path: ["stylize", "--model", str(path), "style.png", "--device", "cpu"],
        "train.init_from": lambda path: [*train, f"train.init_from={path}"],
        "loss_network.weights": lambda path: [*train, f"loss_network.weights={path}"],
        "loss_network.weights, .pth": lambda path: [*train, f"loss_network.weights={path}"],
        RUN_DOOR: lambda path: train,
    }
    files = {
        **foreign_files(sentinel),
        **forged_headers(),
        **forged_descriptions(),
        **forged_weights(),
    }
    figures.require_at_most("--count", count, len(files))
    for door, words in doors.items():
        names = list(files) if count is None else random.sample(list(files), count)
        held = 0
        for name in names:
            if Path("runs").exists():
                shutil.rmtree("runs")
            path = Path("hostile.pth" if door.endswith(".pth") else "hostile.safetensors")
            if door == RUN_DOOR:
                shutil.copytree("begun", "runs")
                path = checkpoint_path(RUN / "checkpoints", NEWEST)
            path.write_bytes(files[name])
            before = {*os.listdir(), "outcome.json", "runs"}
            outcome = outcome_of(partial(command, words(path)))
            wrong = wrong_in(outcome, door, path)
            if written := set(os.listdir()) - before:  # `sentinel` is in this folder, too
                wrong = f"wrote {written}"
            if outcome.growth > LARGEST_GROWTH + 3 * len(files[name]):
                wrong = f"memory grew by {outcome.growth / 1e6:.0f} MB"
            if outcome.seconds > LONGEST_S:
                wrong = f"took {outcome.seconds:.1f} s"
            held += wrong is None or figures.told(f"{name} at {door}: {wrong}\n{outcome.error}")
            path.unlink()
        yield figures.Figure(f"hostile file at {door}: refused", held, len(names))


class Outcome(NamedTuple):
    """What came of a command: exit code, None after a traceback; lines; and what it took."""

    code: int | None
    out: str
    error: str
    growth: int
    """Bytes by which its peak memory was above this process's memory at its start."""
    seconds: float
    """Of processor time."""


def outcome_of(work: Callable[[], object]) -> Outcome:
    """What comes of work, which may give an exit code, in a forked process."""
    noted = Path("outcome.json")

    def note() -> None:
        code: object = None
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as error:
            try:
                code = work()
            except BaseException:
                traceback.print_exc()
            else:
                code = code if isinstance(code, int) else 0
        noted.write_text(json.dumps([code, out.getvalue(), error.getvalue()]))

    noted.unlink(missing_ok=True)
    before = resident_bytes()
    _, status, usage = os.wait4(start_child(note), 0)
    if not noted.exists():
        return Outcome(None, "", f"the process ended with {status}", 0, 0)
    return Outcome(
        *json.loads(noted.read_text()),
        growth=usage.ru_maxrss * 1024 - before,
        seconds=usage.ru_utime + usage.ru_stime,
    )


def wrong_in(outcome: Outcome, door: str, path: Path) -> str | None:
    """What is wrong in how a command ended and what it said."""
    said = outcome.out + outcome.error
    if outcome.code is None:
        return "a traceback"
    if any(not (letter.isprintable() or letter == "\n") for letter in said):
        return "printed a control character"
    if outcome.code == 0 and door == "info":
        return None
    if outcome.code == 0 and door == RUN_DOOR:
        is_skipped = f"skipping {path}: " in said and f"resuming at step {STARTED_AT}" in said
        return None if is_skipped else "not skipped, or not said"
    # Settings that differ from the run's are an error about its folder.
    place = str(RUN) if door == RUN_DOOR else path.name
    if outcome.code != 2 or len(outcome.error.splitlines()) != 1 or place not in outcome.error:
        return f"exit code {outcome.code}, not one line that names the file"
    return None


if __name__ == "__main__":
    sys.exit(main())
