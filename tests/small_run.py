"""A training run so small that a step takes milliseconds: photos drawn here, random VGG weights."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from fast_style.core.errors import Stopped
from fast_style.settings.config import Config, DistillConfig, load_config
from fast_style.training.build import build_trainer
from fast_style.training.run_folder import Run, open_run
from fast_style.training.trainer import Trainer

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


def open_small_run(
    config: Config | DistillConfig,
    root: Path,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = ignore,
) -> Run:
    return open_run(config, root=root, fresh=fresh, say=say)


def make_trainer(
    config: Config, run: Run, *, say: Callable[[str], None] = ignore, command: str = "train.py"
) -> Trainer:
    return build_trainer(config, run, device=torch.device("cpu"), say=say, command=command)


def train_once(config: Config, root: Path, *, stop_at: int | None = None) -> Trainer:
    """Open or resume the run ``root/<name>`` and train, up to a step if one is given."""
    run = open_small_run(config, root)
    try:
        trainer = make_trainer(config, run)
        with suppress(Stopped):
            trainer.train(lambda: 15 if trainer.step == stop_at else None)
        return trainer
    finally:
        run.lock.release()
