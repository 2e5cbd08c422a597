"""The course of a training: a picture at the start, every 20 seconds, and at the end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fast_style.core.errors import Stopped
from fast_style.demo import course
from fast_style.demo.course import ShownTraining
from fast_style.training.trainer import Trainer


class SlowTrainer:
    """Its steps take 8 seconds; at step s, its pictures have the value 10 s."""

    device = torch.device("cpu")

    def __init__(self, num_steps: int, start_step: int = 0) -> None:
        self.step, self.num_steps = start_step, num_steps
        self.lines: list[str] = []
        self.run_log = self
        self.now = 100.0

    def fast_net(self, pixels: Tensor) -> Tensor:
        return torch.full_like(pixels, self.step * 10 / 255)

    def train(self, stop_signal: Callable[[], int | None]) -> None:
        while self.step < self.num_steps:
            self.step += 1
            self.now += 8
            if (number := stop_signal()) is not None:
                raise Stopped(number, self.step)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(f"warning: {line}")


def shown(
    trainer: SlowTrainer, monkeypatch: pytest.MonkeyPatch, sheet: Path, size: tuple[int, int]
) -> ShownTraining:
    monkeypatch.setattr(course.time, "monotonic", lambda: trainer.now)
    return ShownTraining(cast(Trainer, trainer), Image.new("RGB", size, "red"), sheet)


def values_on(sheet: Path, width: int, height: int, columns: int = 4) -> list[int]:
    """The green of every picture on a sheet of pictures of this size; 255 where there is none."""
    with Image.open(sheet) as image:
        levels = np.asarray(image)[..., 1]
    rows = -(-levels.shape[0] // (height + 14 + 12))
    tops = [12 + row * (height + 14 + 12) for row in range(rows)]
    lefts = [12 + column * (width + 12) for column in range(columns)]
    return [
        int(levels[top, left])
        for top in tops
        for left in lefts
        if top < levels.shape[0] and left < levels.shape[1]
    ]


def test_pictures_are_20_seconds_apart_and_the_last_is_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = SlowTrainer(num_steps=7)
    sheet = tmp_path / "course.png"
    shown(trainer, monkeypatch, sheet, (40, 30)).train()
    where = f"the photo as painted now is in {sheet}"
    assert trainer.lines == [
        f"0 s, step 0: {where}",
        f"24 s, step 3: {where}",
        f"48 s, step 6: {where}",
        f"56 s, step 7: {where}",
    ]
    # The photo is red; then the pictures of these steps.
    assert values_on(sheet, 40, 30)[:5] == [0, 0, 30, 60, 70]


def test_sheet_is_there_from_second_0_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = SlowTrainer(num_steps=5)
    sheet = tmp_path / "course.png"
    found = []
    training = shown(trainer, monkeypatch, sheet, (40, 30))
    training.train(lambda: found.append(len(values_on(sheet, 40, 30))))
    assert found == [2, 2, 3, 3, 3]


def test_result_is_not_shown_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = SlowTrainer(num_steps=6)
    shown(trainer, monkeypatch, tmp_path / "course.png", (40, 30)).train()
    assert [line.partition(":")[0] for line in trainer.lines] == [
        "0 s, step 0",
        "24 s, step 3",
        "48 s, step 6",
    ]


def test_resumed_training_begins_with_its_first_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = SlowTrainer(num_steps=6, start_step=5)
    shown(trainer, monkeypatch, tmp_path / "course.png", (40, 30)).train()
    assert trainer.lines[0].startswith("0 s, step 5:")


def test_signal_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = SlowTrainer(num_steps=9)
    with pytest.raises(Stopped) as caught:
        shown(trainer, monkeypatch, tmp_path / "course.png", (40, 30)).train(
            lambda: 15 if trainer.step == 2 else None
        )
    assert (caught.value.signal_number, caught.value.step) == (15, 2)


def test_large_photo_is_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown(SlowTrainer(1), monkeypatch, tmp_path / "course.png", (1000, 100)).train()
    with Image.open(tmp_path / "course.png") as sheet:
        assert sheet.width == 12 + 3 * (320 + 12)


def test_sheet_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = SlowTrainer(num_steps=1)
    shown(trainer, monkeypatch, tmp_path / "none" / "course.png", (40, 30)).train()
    assert trainer.step == 1
    assert [line.split(" cannot")[0] for line in trainer.lines] == [
        f"warning: {tmp_path}/none/course.png:"
    ] * 2


def test_picture_is_that_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = SlowTrainer(num_steps=1)
    seen: list[Any] = []
    monkeypatch.setattr(trainer, "fast_net", lambda pixels: seen.append(pixels) or 1 - pixels)
    sheet = tmp_path / "course.png"
    shown(trainer, monkeypatch, sheet, (40, 30)).train()
    assert seen[0][0, :, 0, 0].tolist() == [1, 0, 0]  # red, in [0, 1]
    assert values_on(sheet, 40, 30)[:3] == [0, 255, 255]  # and cyan
