"""Functions of the step alone: the learning rate, and whether a report is due."""

import math

import torch

from fast_style.settings.config import DistillTrainConfig, TrainConfig


def learning_rate_at(step: int, settings: TrainConfig | DistillTrainConfig) -> float:
    """The learning rate for the step that follows `step` finished ones.

    Linear warm-up, then constant or half a cosine down to zero. A function of the step alone, so
    that resuming needs no state.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, settings: TrainConfig | DistillTrainConfig
) -> None:
    """Give an optimizer the learning rate of the step that follows `step` finished ones."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(step, settings)


def is_due(step: int, every: int, num_steps: int) -> bool:
    """Whether to report at this step: at every multiple of `every`, and at the last step."""
    return step % every == 0 or step == num_steps
