"""Long work takes no more memory, descriptors or threads than short work.

    python benchmarks/reliability/endurance.py                        # an hour on a busy machine
    python benchmarks/reliability/endurance.py --steps 500 --files 100 --calls 500

* Training steps of a tiny network, with its log, samples, validation and checkpoints.
* Photo files stylized one after the other, as `fast-style stylize FOLDER` does it.
* Photos through one `Stylizer` that four threads share; each result has the bytes of one thread's.

Each is a process of its own. It looks at itself (Linux, /proc) a hundred times. The first fifth is
left out, as caches fill then. The slope of memory is fitted to the rest by least squares; the
numbers of descriptors and threads at the end are compared with the largest at its beginning. Less
than 2 MB in all are no growth: so much is left of a start even after several hundred steps, and
the full numbers of steps, files and calls allow less than 1 MB per 1,000 all the same.
"""

import hashlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import figures
import program

from fast_style.cli.arguments import positive

MOST_MB_PER_1000 = 1.0
NUM_THREADS = 4
_NO_GROWTH_MB = 2.0
_NUM_LOOKS = 100
_WARM_UP = 0.2
_NUM_PHOTOS = 20
_CONSTANT = "descriptors", "threads"


class Look(NamedTuple):
    """What a process holds after so much work."""

    work: int
    num_bytes: int
    num_descriptors: int
    num_threads: int


@program.errors_in_one_line()
def main() -> int:
    """Work, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__, is_random=False)
    parser.add_argument("--steps", type=positive, default=5000, help="of training (5,000)")
    parser.add_argument("--files", type=positive, default=2000, help="photo files (2,000)")
    parser.add_argument("--calls", type=positive, default=20_000, help="of a Stylizer (20,000)")
    parser.add_argument("--only", nargs="+", choices=["steps", "files", "calls"])
    options = parser.parse_args()
    works = {
        "steps": (f"{options.steps:,} training steps", train, options.steps),
        "files": (f"{options.files:,} stylized pictures", stylize_files, options.files),
        "calls": (f"{options.calls:,} calls in {NUM_THREADS} threads", call, options.calls),
    }
    return figures.conclude(measure(*works[name]) for name in options.only or works)


def measure(what: str, work: Callable[[Path, int], list[Look]], amount: int) -> figures.Figure:
    """The figure of work that is done in a process of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        looks = pool.apply(work, (Path(folder), amount))
    steady = looks[int(_WARM_UP * len(looks)) :]
    early = beginning_of(steady)
    seen = [f"{mb_per_1000(steady):+.2f} MB per 1,000 ({looks[-1].num_bytes / 1e6:.0f} MB)"]
    for name in _CONSTANT:
        seen.append(f"{name} {early[name]}, then {getattr(steady[-1], f'num_{name}')}")
    if work is call:
        seen.append("same pictures")  # it would have raised otherwise
    num_tries = 1 + len(_CONSTANT)
    num_wrong = sum(not figures.told(line) for line in mistakes(what, steady))
    return figures.Figure(
        f"{what}: memory grows by less than {MOST_MB_PER_1000:.0f} MB per 1,000, descriptors and "
        "threads not",
        num_tries - num_wrong,
        num_tries,
        "; ".join(seen),
    )


def mistakes(what: str, looks: list[Look]) -> list[str]:
    """A line for each thing of which a process holds more and more, behind its first fifth."""
    slope = mb_per_1000(looks)
    growth = slope * (looks[-1].work - looks[0].work) / 1000
    lines = []
    if slope >= MOST_MB_PER_1000 and growth >= _NO_GROWTH_MB:
        lines.append(f"{what}: memory grows by {slope:.2f} MB per 1,000")
    for name, before in beginning_of(looks).items():
        after = getattr(looks[-1], f"num_{name}")
        if after > before:
            lines.append(f"{what}: {name} grow from {before} to {after}")
    return lines


def beginning_of(looks: list[Look]) -> dict[str, int]:
    """The most descriptors and threads in the first quarter."""
    first = looks[: max(1, len(looks) // 4)]
    return {name: max(getattr(look, f"num_{name}") for look in first) for name in _CONSTANT}


def mb_per_1000(looks: list[Look]) -> float:
    """The slope of memory by least squares, in MB per 1,000 pieces of work."""
    works = [look.work for look in looks]
    mean_work = sum(works) / len(works)
    mean_bytes = sum(look.num_bytes for look in looks) / len(looks)
    covariance = sum((look.work - mean_work) * (look.num_bytes - mean_bytes) for look in looks)
    return covariance / sum((work - mean_work) ** 2 for work in works) / 1e3


def look(work: int) -> Look:
    """What this process holds now (Linux)."""
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    num_descriptors, num_threads = (
        len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task")
    )
    return Look(work, resident_pages * os.sysconf("SC_PAGESIZE"), num_descriptors, num_threads)


def is_due(work: int, amount: int) -> bool:
    """Whether the process looks at itself after so much work."""
    return work % max(1, amount // _NUM_LOOKS) == 0


def train(folder: Path, num_steps: int) -> list[Look]:
    """Train that many steps of the tests' tiny run."""
    import torch
    from small_run import make_trainer, open_small_run, quick_runs, settings_of, write_small_run

    torch.set_num_threads(1)
    words = [f"train.steps={num_steps}", "log.checkpoint_every=100", "log.every=10"]
    words += [f"log.{name}_every=100" for name in ("shares", "validate", "samples")]
    config = settings_of(write_small_run(folder), *words)
    run = open_small_run(config, folder / "runs")
    looks = []
    with quick_runs():
        trainer = make_trainer(config, run)

        def look_after_step() -> None:
            if trainer.step > 0 and is_due(trainer.step, num_steps):
                looks.append(look(trainer.step))

        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            trainer.train(look_after_step)
    run.release()
    return looks


def stylize_files(folder: Path, num_files: int) -> list[Look]:
    """Stylize that many files."""
    from fast_style.stylizing.folder import stylize_files
    from fast_style.stylizing.jobs import Job

    photos = write_photos(folder)

    def jobs() -> Iterator[Job]:
        for number in range(num_files):
            photo = photos[number % len(photos)]
            yield Job(photo=str(photo), output=str(folder / f"result-{number % 50}.png"))

    looks = []
    outcomes = stylize_files(stylizer_in(folder), jobs())
    for number, outcome in enumerate(outcomes, start=1):
        if outcome.error is not None:
            raise outcome.error
        if is_due(number, num_files):
            looks.append(look(number))
    return looks


def call(folder: Path, num_calls: int) -> list[Look]:
    """Call one `Stylizer` that often in four threads; each result must be that of one thread.

    Raises:
        RuntimeError: a picture differs.
    """
    stylizer = stylizer_in(folder)
    photos = write_photos(folder)

    def digest(number: int) -> bytes:
        return hashlib.sha256(stylizer(photos[number % len(photos)]).tobytes()).digest()

    alone = [digest(number) for number in range(len(photos))]
    looks = []
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for number, found in enumerate(threads.map(digest, range(num_calls)), start=1):
            if found != alone[(number - 1) % len(photos)]:
                raise RuntimeError(f"call {number}: another picture than in one thread")
            if is_due(number, num_calls):
                looks.append(look(number))
    return looks


def write_photos(folder: Path) -> list[Path]:
    """Photos of 20 sizes and of several formats; gives their paths."""
    from noise_photos import write_noise_photo

    suffixes = ("png", "jpg", "webp", "gif", "tif")
    return [
        write_noise_photo(
            str(folder / f"{number}.{suffixes[number % len(suffixes)]}"),
            width=32 + number,
            height=48 - number,
        )
        for number in range(_NUM_PHOTOS)
    ]


def stylizer_in(folder: Path):
    """A `Stylizer` of a tiny model, in one thread of torch's."""
    import torch
    from tiny_model import write_tiny_model

    from fast_style.stylizing.stylizer import Stylizer

    torch.set_num_threads(1)
    return Stylizer(write_tiny_model(folder / "model.safetensors"), device="cpu")


if __name__ == "__main__":
    sys.exit(main())
