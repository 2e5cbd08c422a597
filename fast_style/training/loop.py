"""The loop over all steps, which training and distilling share, and its clock."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from fast_style.core.distributed import ALONE, Group
from fast_style.core.errors import Stopped, UserError
from fast_style.training.run_log import RunLog
from fast_style.training.workers import no_more_photos

ResultT = TypeVar("ResultT")


class Interval:
    """Time, and waiting for photos, since the last report. The time of reports is left out."""

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        """Set the clock to zero after this step."""
        self.start_step = step
        self.start_at = time.perf_counter()
        self.waited_s = 0.0

    def waiting_for(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield the batches, and count the time until each one arrives as waiting."""
        while True:
            start_at = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - start_at
            if batch is None:
                return
            yield batch

    def measure(self, step: int, batch_size: int, device: torch.device) -> dict[str, float]:
        """Photos per second, share of time spent waiting, peak memory; by TensorBoard's tags."""
        elapsed_s = time.perf_counter() - self.start_at
        return {
            "time/images_per_s": (step - self.start_step) * batch_size / elapsed_s,
            "time/data_wait_share": self.waited_s / elapsed_s,
            "memory/peak_mb": _peak_memory_bytes(device) / 2**20,
        }


class Learner(Protocol[ResultT]):
    """The attributes and methods that the loop calls on a trainer or a distiller."""

    step: int
    """The number of finished steps."""
    run_log: RunLog

    def train_step(self, photos: Tensor) -> ResultT:
        """Take one step on a batch, uint8 (N, 3, S, S), and count it."""

    def report(self, interval: Interval, result: ResultT) -> None:
        """Write what is due at this step, and restart the interval if anything was."""

    def save(self, *, must_succeed: bool) -> None:
        """Write a checkpoint; unless `must_succeed`, a full disk may cost only a warning."""


GONE = 0
"""From a `stop_signal`, in place of a signal: the run's folder is gone, and is made again."""


def take_steps(
    learner: Learner[ResultT],
    batches: Iterator[Tensor],
    *,
    num_steps: int,
    checkpoint_every: int,
    stop_signal: Callable[[], int | None],
    group: Group = ALONE,
    writes_at: Callable[[int], bool] = lambda step: True,
) -> None:
    """Take a step on every batch, with reports and checkpoints, and save at the end.

    Args:
        learner: takes the steps.
        batches: one for each step that is left, uint8 (N, 3, S, S).
        num_steps: the number of the last step.
        checkpoint_every: steps between two checkpoints.
        stop_signal: called after a step; returns the number of a signal that ends training there,
            or None.
        group: the processes that train together, which have to stop at the same step.
        writes_at: whether `learner.report` writes something at a step: with several processes,
            `stop_signal` is called at these steps and before checkpoints alone.

    Raises:
        Stopped: `stop_signal` gave a number; the state is saved.
        UserError: whatever `learner` or `batches` raise; in the second case the state is saved.
    """
    interval = Interval(learner.step)
    if group.is_alone:  # several processes can only save together, and not all may lack photos
        batches = _saving_when_they_fail(batches, learner, stop_signal)
    try:
        for photos in interval.waiting_for(batches):
            result = learner.train_step(photos)
            learner.run_log.progress(learner.step)
            saves = learner.step % checkpoint_every == 0 and learner.step < num_steps
            can_stop = group.is_alone or saves or writes_at(learner.step)
            # Before anything is written: the folder of the run may be gone.
            signal_number = _agreed(stop_signal, group) if can_stop else None
            learner.report(interval, result)
            if signal_number is None and saves:  # the report may have taken long
                signal_number = _agreed(stop_signal, group)
            if signal_number is not None:
                learner.save(must_succeed=True)
                raise Stopped(signal_number, learner.step)
            if saves:
                learner.save(must_succeed=False)
        is_gone = _agreed(stop_signal, group) == GONE
        learner.save(must_succeed=True)
        if is_gone:
            raise Stopped(GONE, learner.step)
    except RuntimeError as error:
        # torch raises the end of a data worker wherever the training is just then. No checkpoint is
        # written, as half of the weights may have taken a step.
        if (found := no_more_photos(error)) is not None:
            raise found from None
        raise


def _saving_when_they_fail(
    batches: Iterator[Tensor], learner: Learner[ResultT], stop_signal: Callable[[], int | None]
) -> Iterator[Tensor]:
    """The batches; if no more can be had (a disk that was unplugged), finished steps are saved."""
    start_step = learner.step
    try:
        yield from batches
    except UserError:
        if learner.step > start_step:
            is_gone = stop_signal() == GONE  # with the photos, perhaps
            learner.save(must_succeed=False)
            if is_gone:
                raise Stopped(GONE, learner.step) from None
        raise


def _agreed(stop_signal: Callable[[], int | None], group: Group) -> int | None:
    """The signal that any process received; all processes get the same answer."""
    numbers = [number for number in group.gather(stop_signal()) if number is not None]
    return numbers[0] if numbers else None


def show_status(
    run_log: RunLog,
    step: int,
    *,
    num_steps: int,
    batch_size: int,
    loss: float,
    images_per_s: float,
) -> None:
    """Show loss, speed, and the time that the remaining steps take at this speed."""
    run_log.status(
        step,
        loss=loss,
        images_per_s=images_per_s,
        seconds_left=(num_steps - step) * batch_size / images_per_s,
    )


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0  # Windows has no getrusage
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS: bytes; elsewhere: kilobytes
