"""Training alone and beside busy programs, by how long OpenMP's waiting threads spin.

    python benchmarks/busy_machine.py                              # half an hour
    python benchmarks/busy_machine.py --spins 300000 5000 --rounds 3

Each spin count (GOMP_SPINCOUNT of libgomp, which torch's packages for Linux bring) is a process of
its own that takes training steps. All take turns, first alone, then beside as many busy loops as
there are threads. 300000 is libgomp's default.

The commands set one of these counts (fast_style/cli/openmp.py); docs/performance.md says why.
Measure on a machine that is otherwise idle.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import peer
import program
from training import build_step, work

from fast_style.cli.arguments import natural, positive, thread_count

DEFAULT = 300_000  # libgomp's, as its manual says
# Ends with its parent, even if that is killed.
LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(1_000_000))"


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the table."""
    options = parse()
    batch_size, size = options.work
    print(peer.machine(threads=options.threads))
    print(
        f"{options.steps} steps of {batch_size} photos of {size} x {size} pixels, {options.rounds} "
        f"rounds, {options.threads} busy loops\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        workers = {
            spins: peer.Worker(
                build_steps, spins, options.steps, Path(folder), batch_size, size, options.threads
            )
            for spins in options.spins
        }
        alone, busy = measure(workers, rounds=options.rounds, num_loops=options.threads)
        for worker in workers.values():
            worker.close()
    print_table(alone, busy, num_images=options.steps * batch_size)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = program.parser_of(__doc__)
    parser.add_argument(
        "--spins",
        type=natural,
        nargs="+",
        default=[DEFAULT, 20_000, 10_000, 5_000, 2_000, 1_000, 0],
        help="turns of the loop of a waiting thread; the first is what others are compared with",
    )
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--steps", type=positive, default=5, help="steps of a measurement (5)")
    parser.add_argument("--threads", type=thread_count, default=2)
    parser.add_argument("--work", type=work, default=(4, 128), metavar="BATCHxPIXELS")
    return parser.parse_args()


def build_steps(
    spins: int, num_steps: int, folder: Path, batch_size: int, size: int, threads: int
) -> Callable[[], object]:
    """In a worker: some training steps with this spin count."""
    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        os.environ.pop(name, None)
    os.environ["GOMP_SPINCOUNT"] = str(spins)  # before torch is loaded
    step = build_step(folder / str(spins), batch_size, size, threads, "cpu", [])
    return lambda: [step() for _ in range(num_steps)]


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Within the block, so many processes compute without a pause."""
    # Sessions of their own: Linux divides its time among sessions first, as among terminals.
    loops = [
        subprocess.Popen([sys.executable, "-c", LOOP], start_new_session=True) for _ in range(count)
    ]
    try:
        time.sleep(0.5)  # until they have started
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(
    workers: dict[int, peer.Worker], *, rounds: int, num_loops: int
) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """Seconds of each spin count in every round, alone and beside the loops."""

    def beside(worker: peer.Worker) -> float:
        with busy_loops(num_loops):
            return worker.measure()

    sides = {
        (spins, is_busy): partial(beside, worker) if is_busy else worker.measure
        for is_busy in (False, True)
        for spins, worker in workers.items()
    }
    seconds = peer.interleave(sides, rounds=rounds)
    alone, busy = (
        {spins: seconds[spins, is_busy] for spins in workers} for is_busy in (False, True)
    )
    return alone, busy


def print_table(
    alone: dict[int, list[float]], busy: dict[int, list[float]], *, num_images: int
) -> None:
    """Print a row for each spin count; ratios are medians of those within a round."""
    first = next(iter(alone))
    print(
        peer.table_head(
            "spins",
            "alone, images/s",
            "busy, images/s",
            f"alone, against {first}",
            f"busy, against {first}",
            f"busy, against half of {first} alone",
        )
    )
    for spins in alone:
        rates = [
            f"{num_images / statistics.median(seconds[spins]):.2f}" for seconds in (alone, busy)
        ]
        halves = [2 * seconds for seconds in alone[first]]
        ratios = [
            peer.ratio_of(alone[first], alone[spins]),
            peer.ratio_of(busy[first], busy[spins]),
            peer.ratio_of(halves, busy[spins]),
        ]
        print(peer.table_row(str(spins), *rates, *map(str, ratios)))


if __name__ == "__main__":
    main()
