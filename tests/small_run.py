"""A training run so small that a step takes milliseconds: photos drawn here, random VGG weights.

What is not about its settings serves small distillations too.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fast_style.core.distributed import ALONE, Group
from fast_style.core.errors import Stopped
from fast_style.distilling.distiller import Distiller
from fast_style.settings.config import Config, DistillConfig, load_config
from fast_style.training import build
from fast_style.training.build import build_trainer
from fast_style.training.run_folder import Run, open_run
from fast_style.training.trainer import Trainer

REPOSITORY = Path(__file__).resolve().parents[1]
PATIENCE_S = 120  # for what takes milliseconds, on a machine that may be busy

LearnerT = TypeVar("LearnerT", Trainer, Distiller)

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "style": {"image": "style.png", "size": 32},
    "data": {"photos": "photos", "validation_count": 3, "crop_size": 16, "workers": 0},
    "model": {"width": 2, "residual_blocks": 1},
    "loss_network": {"weights": "random"},
    "loss": {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_2": 1.0}},
    "train": {"steps": 6, "batch_size": 2, "warmup_steps": 0, "threads": 1},
    "log": {
        "every": 1,
        "shares_every": 3,
        "validate_every": 3,
        "samples_every": 3,
        "samples": 2,
        "checkpoint_every": 2,
    },
}


def draw_photo(number: int, size: tuple[int, int] = (40, 40)) -> Image.Image:
    """A color gradient under noise, another one for each number; size is (width, height)."""
    rng = np.random.default_rng(number)
    width, height = size
    ramp = np.linspace(0, 1, width)[None, :, None] * rng.random(3) * 160
    noise = rng.integers(0, 90, (height, width, 3))
    return Image.fromarray((ramp + noise).clip(0, 255).astype(np.uint8))


def write_photos(folder: Path, count: int = 12) -> Path:
    """Photos of 40 pixels and more, PNG and JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        suffix = "png" if number % 2 else "jpg"
        draw_photo(number, (40 + number, 40)).save(folder / f"photo-{number:02}.{suffix}")
    return folder


def write_small_run(folder: Path, count: int = 12) -> Path:
    """A folder with photos, a style picture, and the YAML file whose path is given back."""
    write_photos(folder / "photos", count)
    draw_photo(100).save(folder / "style.png")
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return path


def settings_of(yaml_file: Path, *words: str) -> Config:
    """The settings of the file, with ``key=value`` words laid over them."""
    return load_config(yaml_file, words)


def ignore(line: str) -> None:
    """Takes a line for people, and nobody reads it."""


def wait_for_next_second() -> None:
    """TensorBoard orders event files by name, in which a start is told to the second.

    Two real processes never start so quickly one after the other.
    """
    time.sleep(1 - time.time() % 1 + 0.01)


@contextmanager
def quick_runs() -> Iterator[None]:
    """Small sample pictures, and no waiting for disks: otherwise most of a small run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "SMALLEST_SAMPLE", 32)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def command_environment() -> dict[str, str]:
    """The environment in which tests start our commands as processes."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


# --- Training -----------------------------------------------------------------------------------


def open_small_run(
    config: Config | DistillConfig,
    root: Path,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = ignore,
    group: Group = ALONE,
) -> Run:
    return open_run(config, root=root, fresh=fresh, say=say, group=group)


def make_trainer(
    config: Config,
    run: Run,
    *,
    say: Callable[[str], None] = print,
    command: str = "train.py",
    group: Group = ALONE,
) -> Trainer:
    return build_trainer(
        config, run, device=torch.device("cpu"), say=say, command=command, group=group
    )


def learn_once(
    config: Any,
    root: Path,
    make: Callable[[Any, Run], LearnerT],
    *,
    stop_at: int | None = None,
    group: Group = ALONE,
) -> LearnerT:
    """Open or resume the run ``root/<name>`` and train, up to a step if one is given."""
    run = open_small_run(config, root, group=group)
    try:
        learner = make(config, run)
        with suppress(Stopped):
            learner.train(lambda: 15 if learner.step == stop_at else None)
        return learner
    finally:
        run.release()


def train_once(config: Config, root: Path, *, stop_at: int | None = None) -> Trainer:
    """`learn_once` for a training run."""
    return learn_once(config, root, make_trainer, stop_at=stop_at)


@contextmanager
def opening(
    root: Path, read: Callable[..., Any], make: Callable[..., LearnerT]
) -> Iterator[Callable[..., LearnerT]]:
    """A function that builds what learns in runs in `root`; logs and locks are closed at the end.

    Args:
        root: the folder of all runs.
        read: gives settings, from ``key=value`` words.
        make: gives what learns, from the settings and the run.
    """
    opened = []

    def open_learner(*words: str, say: Callable[[str], None] = print) -> LearnerT:
        config = read(*words)
        run = open_small_run(config, root, say=say)
        try:
            learner = make(config, run, say=say)
        except BaseException:
            run.release()
            raise
        opened.append((run, learner))
        return learner

    yield open_learner
    for run, learner in opened:
        learner.run_log.close()
        run.release()


# --- What a run has written ---------------------------------------------------------------------


def checkpoints_of(folder: Path) -> list[int]:
    """The steps of the checkpoints in a run folder."""
    return sorted(int(path.stem[5:]) for path in (folder / "checkpoints").iterdir())


def final_state(folder: Path) -> dict[str, bytes]:
    """The bytes of everything that is a function of settings and pictures alone."""
    last = max((folder / "checkpoints").iterdir())
    results = folder.glob("*.safetensors")
    return {path.name: path.read_bytes() for path in (last, *results, folder / "metrics.csv")}


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, by column."""
    header, *rows = (folder / "metrics.csv").read_text().splitlines()
    names = header.split(",")
    return [dict(zip(names, row.split(","), strict=True)) for row in rows]


def steps_with(folder: Path, column: str) -> list[int]:
    """The steps at which metrics.csv has a value in this column."""
    return [int(row["step"]) for row in rows_of(folder) if row[column]]


def events_of(folder: Path) -> EventAccumulator:
    """What TensorBoard shows of a run."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def warnings_of(capsys: pytest.CaptureFixture[str], config: Config, root: Path) -> list[str]:
    """The warnings of a whole run."""
    train_once(config, root)
    lines = capsys.readouterr().out.splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


def fail_writing(patch: pytest.MonkeyPatch, is_full: Callable[[Path], bool]) -> None:
    """Let the disk be full where `is_full` says so of the file to write."""
    original = os.replace

    def replace(temporary: str | Path, path: str | Path) -> None:
        if is_full(Path(path)):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(temporary, path)

    patch.setattr(os, "replace", replace)
