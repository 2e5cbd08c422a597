"""Runs that are stopped at every step and resumed, against the same run without a stop.

    python benchmarks/reliability/resume.py                                    # about half an hour
    python benchmarks/reliability/resume.py --steps 4 --workers 0 --no-ranks

A try stops a run at one step, resumes it, and holds if nothing tells it from the run that was not
stopped:

* the bytes of the last checkpoint (weights, the optimizer's moments, step, settings), of the model,
  of metrics.csv (losses and learning rates, so the schedule), and of the list of unreadable
  photos, one of which is among the photos;
* the pixels of all batches in their order;
* the lines of the log without their speeds, and TensorBoard's curves.

torch's own random numbers are disturbed before each half. Ranks are processes of gloo on this
machine.
"""

import argparse
import hashlib
import json
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import figures
import program
import torch
from small_run import (
    events_of,
    final_state,
    learn_once,
    make_trainer,
    quick_runs,
    settings_of,
    write_small_run,
)
from torch import Tensor
from two_processes import start_two

from fast_style.cli.arguments import natural, positive
from fast_style.core.distributed import ALONE, Group, joined, read_launch
from fast_style.core.errors import UserError
from fast_style.settings.config import Config
from fast_style.training.run_folder import Run
from fast_style.training.trainer import Trainer


class Course(NamedTuple):
    """What can be seen of a run, in one part or in two; files and curves are of its end."""

    batches: list[str]
    lines: list[str]
    files: dict[str, bytes]
    curves: dict[str, list[tuple[int, str]]]


@program.errors_in_one_line()
def main() -> int:
    """Stop and resume, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__)
    parser.add_argument("--steps", type=positive, default=40, help="of the run (40)")
    parser.add_argument(
        "--workers", type=natural, nargs="*", default=[0, 1, 2], help="of one process (0 1 2)"
    )
    parser.add_argument(
        "--ranks", action=argparse.BooleanOptionalAction, default=True, help="also two ranks (yes)"
    )
    parser.add_argument("--rank-in", type=Path, help="(of a rank itself)")
    options = parser.parse_args()
    if not options.workers and not options.ranks:
        raise UserError(
            "--workers without a number, and --no-ranks: leave nothing to resume; give one number, "
            "or leave out --no-ranks"
        )
    random.seed(options.seed)
    if options.rank_in is not None:
        return be_a_rank(options.rank_in, options.steps)
    return figures.conclude(measure(options.steps, options.workers, with_ranks=options.ranks))


def measure(steps: int, workers: list[int], *, with_ranks: bool) -> Iterator[figures.Figure]:
    """The figures of each number of workers, and of two ranks."""
    for number in workers:
        with tempfile.TemporaryDirectory() as folder:
            held = stop_everywhere(Path(folder), steps, number, ALONE)
            yield figures.Figure(f"resumed bit-exact, {number} workers", held, steps)
    if with_ranks:
        with tempfile.TemporaryDirectory() as folder:
            words = [__file__, "--rank-in", folder, "--steps", str(steps)]
            write_photos_and_settings(Path(folder))
            ranks = start_two(words, Path(folder))
            said = [rank.communicate() for rank in ranks]
            for rank, (_, errors) in zip(ranks, said, strict=True):
                if rank.returncode != 0:
                    raise program.failure(words, rank.returncode, errors)
            sys.stderr.write(said[0][1])
            held = json.loads(Path(folder, "held.json").read_text())
            yield figures.Figure("resumed bit-exact, 2 ranks", held, steps)


def be_a_rank(folder: Path, steps: int) -> int:
    """One of two processes that train together; rank zero writes down how often it held."""
    from fast_style.cli.main import leave

    launch = read_launch()
    with joined(launch, torch.device("cpu"), advice="Start again") as group:
        held = stop_everywhere(folder, steps, 0, group)
        if group.is_first:
            (folder / "held.json").write_text(json.dumps(held))
    leave(0)


def write_photos_and_settings(folder: Path) -> Path:
    """The settings of a small run, one of whose photos is broken."""
    path = folder / "tiny.yaml"
    if not path.exists():
        write_small_run(folder)
        # Found by trying: one that is trained on, and not held out.
        (folder / "photos" / "photo-04.jpg").write_bytes(b"no picture")
    return path


def stop_everywhere(folder: Path, steps: int, workers: int, group: Group) -> int:
    """How many of the runs that were stopped at steps 1, 2, ... equal the one that was not."""
    config = settings_of(
        write_photos_and_settings(folder),
        *(f"train.steps={steps}", f"train.warmup_steps={steps // 4}"),
        f"data.workers={workers}",
        *("log.checkpoint_every=15", "log.validate_every=10", "log.samples_every=10"),
    )
    with quick_runs():
        straight = course_of(config, folder / "straight", None, group)
        return sum(
            holds(straight, course_of(config, folder / f"stopped-{step}", step, group), step, group)
            for step in range(1, steps + 1)
        )


def course_of(config: Config, root: Path, stop_at: int | None, group: Group) -> Course:
    """Train to the end, and stop once in between if a step is given."""
    batches: list[str] = []
    lines = StringIO()

    def make(config: Config, run: Run) -> Trainer:
        trainer = group.rank_zero_first(lambda: make_trainer(config, run, group=group))
        train_step = trainer.train_step

        def noted_step(photos: Tensor) -> Any:
            batches.append(hashlib.sha256(photos.contiguous().numpy().tobytes()).hexdigest())
            return train_step(photos)

        trainer.train_step = noted_step  # type: ignore[method-assign]
        return trainer

    for part in (stop_at, None) if stop_at else (None,):
        torch.manual_seed(random.getrandbits(32))
        with redirect_stdout(lines):
            learn_once(config, root, make, stop_at=part, group=group)
    folder = root / config.name
    if not group.is_first:
        return Course(batches, [], {}, {})
    files = final_state(folder)
    listed = folder / "unreadable_photos.jsonl"
    if listed.exists():  # a very short run does not meet the photo
        files[listed.name] = listed.read_bytes()
    return Course(batches, without_speeds(lines.getvalue()), files, curves_of(folder))


def without_speeds(said: str) -> list[str]:
    """The lines of a log about steps, up to the loss."""
    return re.findall(r"^step \d+/\d+  loss \S+", said, re.MULTILINE)


def curves_of(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """TensorBoard's curves without those of time and memory, their values as text.

    A measure that small crops do not have is not a number, which equals nothing.
    """
    events = events_of(folder)
    tags = events.Tags()["scalars"]
    return {
        tag: [(point.step, repr(point.value)) for point in events.Scalars(tag)]
        for tag in tags
        if not tag.startswith(("time/", "memory/"))
    }


def holds(straight: Course, stopped: Course, step: int, group: Group) -> bool:
    """Whether no process can tell the two apart; says what differs."""
    differing = [
        part for part in Course._fields if getattr(straight, part) != getattr(stopped, part)
    ]
    found = [part for parts in group.gather(differing) for part in parts]
    if not straight.batches or found:
        return figures.told(f"stopped at step {step}: {', '.join(found)} differ")
    return True


if __name__ == "__main__":
    sys.exit(main())
