"""Numbered cases in worker processes: one that hangs or crashes is counted, and the rest go on."""

import argparse
import multiprocessing
import os
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

import figures

from fast_style.cli.arguments import positive

MOST_S = 2
MOST_BYTES = 500_000_000
_HANGS_AFTER_S = 10
_MOST_TOLD = 20

Check = Callable[[int], str]
"""Takes the number of a case. Returns how it ended in a word; any exception is a failure."""


@dataclass
class Tally:
    """What came of all cases.

    Attributes:
        num_cases: their number.
        kinds: how often each word was returned.
        raised: the traceback of each exception, by the number of the case.
        crashed: how the process died, by the number of the case.
        slow: how long it took, by the number of each case of more than `MOST_S` seconds.
        slowest_s: seconds of the slowest case that ended.
        most_bytes: the largest resident memory of a process, Python and its modules included.
    """

    num_cases: int
    kinds: Counter[str] = field(default_factory=Counter)
    raised: dict[int, str] = field(default_factory=dict)
    crashed: dict[int, str] = field(default_factory=dict)
    slow: dict[int, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    most_bytes: int = 0

    def counted(self, name: str) -> Iterator[figures.Figure]:
        """The figures of the cases and of their memory; tells what failed first."""
        failures = [*self.raised.items(), *self.crashed.items(), *self.slow.items()]
        for case, what in failures[:_MOST_TOLD]:
            figures.told(f"case {case}: {what}")
        if len(failures) > _MOST_TOLD:
            figures.told(f"{len(failures) - _MOST_TOLD} more")
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.kinds.items()))
        yield figures.Figure(
            f"{name}, in {MOST_S} s",
            self.num_cases - len(dict(failures)),
            self.num_cases,
            f"{kinds}; {len(self.raised)} tracebacks, {len(self.crashed)} crashes, "
            f"{len(self.slow)} over {MOST_S} s (slowest {self.slowest_s:.2f} s)",
        )
        yield figures.Figure(
            f"the same: under {MOST_BYTES / 1e6:.0f} MB of memory",
            int(self.most_bytes < MOST_BYTES),
            1,
            f"{self.most_bytes / 1e6:.0f} MB",
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command with cases has, besides ``--seed``."""
    parser.add_argument("--count", type=positive, default=100_000, help="number of cases (100,000)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes")


def run_cases(
    build: Callable[..., Check], *arguments: object, count: int, num_workers: int
) -> Tally:
    """What came of the cases 0 to `count` - 1.

    Args:
        build: called in each process; importable, since processes are spawned.
        arguments: of `build`.
        count: of cases.
        num_workers: of processes; each takes every `num_workers`-th case.
    """
    tally = Tally(count)
    workers = [
        _Worker(build, arguments, range(first, count, num_workers)) for first in range(num_workers)
    ]
    while workers := [worker for worker in workers if worker.cases]:
        wait([worker.connection for worker in workers], timeout=1)
        for worker in workers:
            worker.collect(tally)
    return tally


class _Worker:
    """A process with its share of the cases; it is replaced when a case takes it down."""

    def __init__(
        self, build: Callable[..., Check], arguments: tuple[object, ...], cases: range
    ) -> None:
        self.build, self.arguments, self.cases = build, arguments, cases
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.build, self.arguments, self.cases), daemon=True
        )
        self.process.start()
        theirs.close()
        self.connection.recv()  # it is built
        self.begun_at = time.monotonic()

    def collect(self, tally: Tally) -> None:
        """Take the result of the current case if it ended; replace a process that died or hangs."""
        case = self.cases[0]
        if not self.connection.poll():
            if time.monotonic() - self.begun_at > _HANGS_AFTER_S:
                tally.slow[case] = f"given up after {_HANGS_AFTER_S} s"
                self._replace()
            return
        try:
            kind, error, seconds, num_bytes = self.connection.recv()
        except EOFError:
            self.process.join()
            tally.crashed[case] = f"the process died ({self.process.exitcode})"
            self._replace()
            return
        if error:
            tally.raised[case] = error
        else:
            tally.kinds[kind] += 1
        if seconds > MOST_S:
            tally.slow[case] = f"{seconds:.1f} s"
        tally.slowest_s = max(tally.slowest_s, seconds)
        tally.most_bytes = max(tally.most_bytes, num_bytes)
        self.cases, self.begun_at = self.cases[1:], time.monotonic()

    def _replace(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()
        self.cases = self.cases[1:]
        if self.cases:
            self._start()


def _serve(
    connection: Connection, build: Callable[..., Check], arguments: tuple[object, ...], cases: range
) -> None:
    check = build(*arguments)
    # libtiff tells stderr what it finds in damaged files, thousands of lines.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    connection.send(None)
    for case in cases:
        kind = error = ""
        begun_at = time.perf_counter()
        try:
            kind = check(case)
        except Exception:
            error = traceback.format_exc(chain=False)
        connection.send((kind, error, time.perf_counter() - begun_at, most_memory()))


def most_memory() -> int:
    """The largest resident memory that this process has had, in bytes (Linux)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
