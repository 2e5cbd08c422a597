"""Damaged checkpoints: a changed byte, a cut, a page of zeros; and a run that resumes behind them.

    python benchmarks/reliability/corruption.py                          # about five minutes
    python benchmarks/reliability/corruption.py --flips 50 --resumes 2 --width 1    # smaller

The checkpoint is that of a network of half the default width, as laptops train it, with the
optimizer's moments, after one step. A try holds if `load_checkpoint`, by which training resumes,
refuses the file with one line. Flipped bytes get another value, at random places without
repetition; cuts are at every KB; zeros fill one of the file's pages of 4 KB, as after a power cut.
Undamaged again, the file must load.

Then whole runs: the newest of three checkpoints gets one of these damages at random; the run must
resume from the next one and name the one it skips.
"""

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import figures
import program
import torch
from small_run import open_small_run, quick_runs, settings_of, train_once, write_small_run
from tiny_model import tiny_description

from fast_style.cli.arguments import positive
from fast_style.models.checkpoint import (
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from fast_style.models.model_files import CheckpointError
from fast_style.networks.transform_net import TransformNet
from fast_style.settings.config import ModelConfig, TrainConfig
from fast_style.training.optimizer import build_optimizer
from fast_style.training.saving import training_tensors

KB = 1024
PAGE = 4 * KB


@program.errors_in_one_line()
def main() -> int:
    """Damage, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__)
    parser.add_argument("--flips", type=positive, default=10_000, help="flipped bytes (10,000)")
    parser.add_argument("--resumes", type=positive, default=100, help="runs that resume (100)")
    parser.add_argument("--width", type=program.net_width, default=16, help="of the network (16)")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder, quick_runs():
        return figures.conclude(
            measure(Path(folder), options.flips, options.resumes, width=options.width)
        )


def measure(
    folder: Path, num_flips: int, num_resumes: int, *, width: int
) -> Iterator[figures.Figure]:
    """The figures of each kind of damage, and of resuming."""
    path = write_checkpoint(folder / "checkpoint", width=width)
    data = path.read_bytes()
    figures.require_at_most("--flips", num_flips, len(data))
    places = random.sample(range(len(data)), num_flips)
    held = sum(is_refused_with(path, data, place, flipped(data[place])) for place in places)
    yield figures.Figure(f"a flipped byte of {len(data) / 1e6:.1f} MB: refused", held, num_flips)
    pages = [place for place in range(0, len(data), PAGE) if any(data[place : place + PAGE])]
    held = sum(
        is_refused_with(path, data, place, bytes(len(data[place : place + PAGE])))
        for place in pages
    )
    yield figures.Figure("a page of 4 KB of zeros: refused", held, len(pages))
    load_checkpoint(path)
    lengths = range((len(data) - 1) // KB * KB, -1, -KB)
    held = sum(is_refused_at(path, length) for length in lengths)
    yield figures.Figure("truncated at every KB: refused", held, len(lengths))
    held = sum(resume_behind_damage(folder, num_resumes))
    yield figures.Figure("resumed from the next whole one, and said so", held, num_resumes)


def write_checkpoint(path: Path, *, width: int) -> Path:
    """A training state as training writes it."""
    architecture = ModelConfig(width=width).model_dump()
    net = TransformNet(**architecture)
    optimizer = build_optimizer(net, TrainConfig(), torch.device("cpu"))
    net(torch.rand(1, 3, 32, 32)).mean().backward()
    optimizer.step()
    description = {**tiny_description(architecture), "kind": "checkpoint"}
    save_checkpoint(path, training_tensors(net, optimizer), description)
    return path


# --- Damage -------------------------------------------------------------------------------------


def flipped(byte: int) -> bytes:
    """Another byte."""
    return bytes([byte ^ random.randrange(1, 256)])


def is_refused_with(path: Path, data: bytes, place: int, change: bytes) -> bool:
    """Whether a file of these data is refused with a change at a place; it is taken back."""
    overwrite(path, place, change)
    held = is_refused(path, f"{len(change)} bytes changed at {place}")
    overwrite(path, place, data[place : place + len(change)])
    return held


def is_refused_at(path: Path, length: int) -> bool:
    """Whether a file is refused after it was cut to a length."""
    os.truncate(path, length)
    return is_refused(path, f"cut to {length} bytes")


def is_refused(path: Path, what: str) -> bool:
    """Whether a damaged file is refused in one line."""
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        return len(str(error).splitlines()) == 1 or figures.told(f"{what}: {error}")
    return figures.told(f"{what}: loaded")


def overwrite(path: Path, place: int, data: bytes) -> None:
    """Change a part of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


# --- Runs ---------------------------------------------------------------------------------------


def resume_behind_damage(folder: Path, count: int) -> Iterator[bool]:
    """Whether the run resumes from the next checkpoint, for each damage of the newest."""
    config = settings_of(write_small_run(folder))
    with redirect_stdout(StringIO()):
        train_once(config, folder)
    newest, second, _ = list_checkpoints(folder / config.name / "checkpoints")
    data = newest.read_bytes()
    for number in range(count):
        place = random.randrange(len(data))
        newest.write_bytes(
            random.choice(
                [
                    data[:place],
                    data[:place] + flipped(data[place]) + data[place + 1 :],
                    data[:place] + bytes(PAGE) + data[place + PAGE :],
                ]
            )
        )
        said: list[str] = []
        with open_small_run(config, folder, say=said.append) as run:
            resumed_at = checkpoint_path(second.parent, run.start_step)
        is_said = len(said) == 1 and said[0].startswith(f"skipping {newest}: ")
        yield (resumed_at == second and is_said) or figures.told(
            f"damage {number}: resumed from {resumed_at.name}, said {said}"
        )


if __name__ == "__main__":
    sys.exit(main())
