"""Seconds of a model's forward pass, and of one evaluation of the objective within L-BFGS."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fast_style.evaluating.baselines import run_lbfgs
from fast_style.evaluating.objective import Model
from fast_style.evaluating.plan import Variant
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.optimizing.minimizing import Iterate

_ROUNDS = 3
# SciPy's first updates are slower than later ones; its history of ten updates is full by then.
_FIRST_TIMED, _LAST_TIMED = 10, 14


def measure_seconds(
    models: Sequence[Model], loss: PerceptualLoss, photo: Tensor, variants: Sequence[Variant]
) -> dict[str, Any]:
    """Median seconds of each model's forward pass, and of one evaluation in each L-BFGS variant.

    Models and variants take turns, so that a disturbance of the machine slows all of them.

    Args:
        models: each is warmed up by one pass a round.
        loss: the objective.
        photo: (1, 3, S, S) in [0, 1].
        variants: of L-BFGS.

    Returns:
        ``forward_pass`` by model and ``evaluation`` by variant.
    """
    passes: dict[str, list[float]] = {model.name: [] for model in models}
    evaluations: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(_ROUNDS):
        for model in models:
            for is_warm in (False, True, True):
                start = _now(photo.device)
                with torch.no_grad():
                    model.net(photo)
                if is_warm:
                    passes[model.name].append(_now(photo.device) - start)
        for variant in variants:
            evaluations[variant].append(_seconds_per_evaluation(loss, photo, variant))
    return {
        "forward_pass": {name: statistics.median(times) for name, times in passes.items()},
        "evaluation": {name: statistics.median(times) for name, times in evaluations.items()},
    }


def _seconds_per_evaluation(loss: PerceptualLoss, photo: Tensor, variant: Variant) -> float:
    """Seconds of one evaluation: the objective, its gradient, and L-BFGS's share of an update."""
    times: list[tuple[float, int]] = []  # at each iteration, with the evaluations so far

    def note(iterate: Iterate) -> None:
        times.append((_now(photo.device), iterate.evaluations))

    run_lbfgs(loss, photo, variant, _LAST_TIMED, note)
    first, last = times[min(_FIRST_TIMED, len(times) // 2)], times[-1]
    return (last[0] - first[0]) / max(1, last[1] - first[1])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
