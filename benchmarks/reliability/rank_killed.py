"""Two processes train together, one is killed: all are gone soon, and the same command resumes.

    python benchmarks/reliability/rank_killed.py
    python benchmarks/reliability/rank_killed.py --kills 2 --seed 7

``torchrun --nproc-per-node 2 train.py`` trains a tiny run on the CPU, each process with a data
worker. One of the two is killed (SIGKILL) at a random step. Then torchrun must end with an error,
and every process that it started must be gone: they are told from others by a word in their
environment (Linux, /proc). The same command resumes, to be killed again. After the last kill it
finishes: model, last checkpoint and metrics.csv must be those of a run that nobody killed.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import figures
import program
import yaml
from small_run import command_environment, final_state, write_small_run

from fast_style.cli.arguments import positive
from fast_style.core.errors import UserError

MOST_S = 35
_PATIENCE_S = 300  # for what takes seconds, on a machine that may be busy
_MOST_STEPS = 9  # between two kills; a checkpoint is written every 4
_MARK = "FAST_STYLE_BENCHMARK"


@program.errors_in_one_line()
def main() -> int:
    """Kill, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__)
    parser.add_argument("--kills", type=positive, default=20, help="how often (20)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return figures.conclude(measure(Path(folder), options.kills, options.seed))


def measure(folder: Path, num_kills: int, seed: int) -> Iterator[figures.Figure]:
    """The figures of the processes that were left, and of the end of the run."""
    chance = random.Random(seed)
    # Twice as many as are asked for: a fast machine is some steps further when it is killed.
    yaml_file = write_run(folder, num_steps=2 * (num_kills + 1) * _MOST_STEPS)
    (folder / "straight").mkdir()
    (folder / "killed").mkdir()
    straight = Job(yaml_file, folder / "straight").finish()
    slowest_s, held = 0.0, 0
    for number in range(1, num_kills + 1):
        kill = Job(yaml_file, folder / "killed").kill_one(chance)
        slowest_s = max(slowest_s, kill.seconds)
        held += not kill.mistake or figures.told(
            f"kill {number}, of rank {kill.rank} at step {kill.step}: {kill.mistake}"
        )
    yield figures.Figure(
        f"one of two ranks killed at random steps: all processes gone in {MOST_S} s",
        held,
        num_kills,
        f"slowest {slowest_s:.1f} s",
    )
    is_same = Job(yaml_file, folder / "killed").finish() == straight or figures.told(
        "the run that was killed ended with other bytes than the one that was not"
    )
    yield figures.Figure("the run so killed: ends bit-exact", int(is_same), 1)


def write_run(folder: Path, num_steps: int) -> Path:
    """The tests' tiny run with a data worker, and little in its log; gives the YAML file."""
    path = write_small_run(folder)
    settings = yaml.safe_load(path.read_text())
    settings["data"]["workers"] = 1
    settings["train"]["steps"] = num_steps
    rare = dict.fromkeys(("shares_every", "validate_every", "samples_every"), 10 * num_steps)
    settings["log"] |= {**rare, "checkpoint_every": 4}
    path.write_text(yaml.safe_dump(settings))
    return path


class Kill(NamedTuple):
    """Which process was killed after which step, how long the others lived, and what was wrong."""

    rank: int
    step: int
    seconds: float
    mistake: str


class Job:
    """torchrun with two processes that train; or resume, if there is something to resume."""

    def __init__(self, yaml_file: Path, folder: Path) -> None:
        self.run_folder = folder / "runs" / "tiny"
        self.mark = f"{_MARK}={uuid.uuid4()}"
        self.words = [sys.executable, "-m", "torch.distributed.run"]
        self.words += ["--standalone", "--nproc-per-node", "2"]
        self.words += [str(figures.ROOT / "train.py"), str(yaml_file), "--device", "cpu"]
        self.begun_at_step = newest_step(self.run_folder)
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            self.words,
            cwd=folder,
            env={**command_environment(), _MARK: self.mark.partition("=")[2]},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def finish(self) -> dict[str, bytes]:
        """The bytes of model, checkpoint and metrics when the run has finished.

        Raises:
            UserError: it fails.
        """
        try:
            self.process.wait(_PATIENCE_S)
        finally:
            self._clear()
        if self.process.returncode != 0:
            raise self._failure()
        return final_state(self.run_folder)

    def kill_one(self, chance: random.Random) -> Kill:
        """Kill one of the two a few steps from here, and wait until all are gone."""
        rank, target = chance.randrange(2), self.begun_at_step + chance.randint(1, _MOST_STEPS)
        try:
            self._wait_for(target)
            victim = self._process_of(rank)
            step = newest_step(self.run_folder)
            os.kill(victim, signal.SIGKILL)
            killed_at = time.monotonic()
            while (left := self._members()) and time.monotonic() - killed_at < MOST_S:
                self.process.poll()  # or torchrun itself would stay as a zombie
                time.sleep(0.05)
            seconds = time.monotonic() - killed_at
            if left:
                mistake = f"{len(left)} processes are left after {seconds:.0f} s"
            elif self.process.wait() == 0:
                mistake = "torchrun's exit code is 0"
            else:
                mistake = ""
            return Kill(rank, step, seconds, mistake)
        finally:
            self._clear()

    def _wait_for(self, step: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while newest_step(self.run_folder) < step:
            if self.process.poll() is not None:
                raise self._failure()
            if time.monotonic() > deadline:
                raise UserError(f"the run does not get to step {step} in {_PATIENCE_S} s")
            time.sleep(0.01)

    def _members(self) -> list[int]:
        """The processes of this job that are alive."""
        return [pid for pid in pids() if self.mark in environment_of(pid)]

    def _process_of(self, rank: int) -> int:
        # Data workers have the environment of their parents, which are older.
        return min(pid for pid in self._members() if f"RANK={rank}" in environment_of(pid))

    def _failure(self) -> UserError:
        self.log.seek(0)
        return program.failure(self.words, self.process.poll(), self.log.read())

    def _clear(self) -> None:
        for pid in self._members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


def pids() -> list[int]:
    """All processes of this machine (Linux)."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def environment_of(pid: int) -> list[str]:
    """The NAME=value words that a process was started with; none if it is gone or another user's.

    A process that has ended and waits to be collected has none either.
    """
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return []


def newest_step(run_folder: Path) -> int:
    """The last step in metrics.csv; 0 if there is none."""
    try:
        return int((run_folder / "metrics.csv").read_text().splitlines()[-1].split(",")[0])
    except (OSError, ValueError, IndexError):
        return 0


if __name__ == "__main__":
    sys.exit(main())
