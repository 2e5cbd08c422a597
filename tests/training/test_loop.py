"""The loop that training and distilling share: what happens when, and what the clock counts."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fast_style.core.errors import Stopped, UserError
from fast_style.training.loop import Interval, take_steps


class Diary:
    """A learner that learns nothing, and writes down what it is asked for."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self.entries: list[Any] = []
        self.run_log: Any = self  # whose `progress` is the only method that the loop calls

    def train_step(self, photos: Tensor) -> float:
        self.step += 1
        return float(photos)

    def progress(self, step: int) -> None:
        self.entries.append(f"progress {step}")

    def report(self, interval: Interval, result: float) -> None:
        self.entries.append(f"report {result:g}")

    def save(self, *, must_succeed: bool) -> None:
        self.entries.append(f"save {self.step}" + (" for certain" if must_succeed else ""))


def batches(*numbers: int) -> Iterator[Tensor]:
    return (torch.tensor(float(number)) for number in numbers)


def test_every_step_is_reported_and_checkpoints_come_at_their_interval() -> None:
    diary = Diary(step=1)
    take_steps(
        diary, batches(20, 30, 40), num_steps=4, checkpoint_every=2, stop_signal=lambda: None
    )
    assert diary.entries == [
        *("progress 2", "report 20", "save 2"),
        *("progress 3", "report 30"),
        *("progress 4", "report 40", "save 4 for certain"),  # once, though it is at the interval
    ]


def test_signal_saves_after_the_report_and_ends_the_loop() -> None:
    diary = Diary()
    with pytest.raises(Stopped) as caught:
        take_steps(
            diary,
            batches(10, 20, 30),
            num_steps=3,
            checkpoint_every=9,
            stop_signal=lambda: 15 if diary.step == 2 else None,
        )
    assert (caught.value.step, caught.value.signal_number) == (2, 15)
    assert diary.entries[-2:] == ["report 20", "save 2 for certain"]


@pytest.mark.parametrize(("numbers", "saved"), [((10, 20), ["save 3"]), ((), [])])
def test_finished_steps_are_saved_when_photos_fail(
    numbers: tuple[int, ...], saved: list[str]
) -> None:
    def failing() -> Iterator[Tensor]:
        yield from batches(*numbers)
        raise UserError("no photos")

    diary = Diary(step=1)
    with pytest.raises(UserError, match="no photos"):
        take_steps(diary, failing(), num_steps=9, checkpoint_every=9, stop_signal=lambda: None)
    assert [entry for entry in diary.entries if "save" in entry] == saved


def test_end_of_a_worker_in_the_middle_of_a_step_is_told_and_nothing_is_saved() -> None:
    """torch raises it in the handler of a signal, so anywhere."""

    class Killed(Diary):
        def train_step(self, photos: Tensor) -> float:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    killed = Killed()
    with pytest.raises(UserError, match=r"pid 7.*data\.workers=0.*resumes") as caught:
        take_steps(killed, batches(10), num_steps=9, checkpoint_every=1, stop_signal=lambda: None)
    assert caught.value.exit_code == 1
    assert killed.entries == []


def test_other_errors_of_a_step_stay_what_they_are() -> None:
    class Broken(Diary):
        def train_step(self, photos: Tensor) -> float:
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        take_steps(Broken(), batches(10), num_steps=9, checkpoint_every=1, stop_signal=lambda: None)


def test_clock_counts_photos_and_waiting_since_the_last_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def arrive(*seconds: float) -> Iterator[Tensor]:
        nonlocal now
        for wait in seconds:
            now += wait
            yield torch.zeros(1)

    interval = Interval(step=6)
    for _ in interval.waiting_for(arrive(1.0, 2.0)):
        now += 3.0  # a step
    found = interval.measure(8, 4, torch.device("cpu"))
    assert found["time/images_per_s"] == pytest.approx(2 * 4 / 9)
    assert found["time/data_wait_share"] == pytest.approx(3 / 9)
    assert found["memory/peak_mb"] > 1
    now += 50.0  # a report
    interval.restart(8)
    now += 2.0
    found = interval.measure(9, 4, torch.device("cpu"))
    assert found["time/images_per_s"] == pytest.approx(4 / 2)
    assert found["time/data_wait_share"] == 0
