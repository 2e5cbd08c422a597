"""What depends on the step alone, and the clock beside it."""

import math
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from fast_style.settings.config import DistillTrainConfig, TrainConfig


class Interval:
    """Time and waiting since the last report, without what reporting itself costs."""

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        """Begin to count at this step."""
        self.start_step = step
        self.start_at = time.perf_counter()
        self.waited_s = 0.0

    def waiting_for(self, photos: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same photos; how long they were waited for is counted."""
        while True:
            start_at = time.perf_counter()
            batch = next(photos, None)
            self.waited_s += time.perf_counter() - start_at
            if batch is None:
                return
            yield batch

    def measure(self, step: int, batch_size: int, device: torch.device) -> dict[str, float]:
        """Speed since then, by TensorBoard's tags."""
        elapsed_s = time.perf_counter() - self.start_at
        return {
            "time/images_per_s": (step - self.start_step) * batch_size / elapsed_s,
            "time/data_wait_share": self.waited_s / elapsed_s,
            "memory/peak_mb": _peak_memory_bytes(device) / 2**20,
        }


def learning_rate_at(step: int, settings: TrainConfig | DistillTrainConfig) -> float:
    """Adam's rate for the step that follows `step` finished ones.

    Linear warm-up, then constant or half a cosine down to zero. A function of the step alone, so
    that resuming needs no state.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0  # it has no getrusage
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kilobytes elsewhere
