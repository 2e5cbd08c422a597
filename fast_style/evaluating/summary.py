"""Means, quartiles and speed-ups of an evaluation's results: arithmetic, and no measurement."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fast_style.evaluating.baselines import MILESTONES
from fast_style.evaluating.evaluation import TERMS

# Johnson et al. 2016, table 1, time L-BFGS after these iterations.
_TIMED = (100, 300, 500)


def summarize(results: Mapping[str, Any]) -> dict[str, Any]:
    """Summaries over the photos, as plain data: one entry of ``sizes`` for each size.

    num_photos, num_enlarged: how many photos; how many of them had to be scaled up.
    photo, models, baselines: mean and standard deviation (n - 1; None for a single photo) of each
        term; for baselines at every milestone of iterations.
    ended_early: photos on which L-BFGS converged before its last iteration.
    equals: iterations after which L-BFGS's objective is at most the model's; median and quartiles
        are nearest ranks. None stands for more than all iterations, 0 for a model that is no
        better than L-BFGS's start.
    seconds: of forward passes, of an evaluation, and of L-BFGS up to every milestone.
    speed_ups: the time of L-BFGS divided by that of a forward pass, for 100, 300 and 500 iterations
        and until L-BFGS reaches the model's objective.

    Args:
        results: of `evaluation.evaluate`; not changed.
    """
    return {
        "sizes": {
            size: _summarize_size(of_size, results["iterations"])
            for size, of_size in results["sizes"].items()
        }
    }


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest value that is no less than this share of the values: always one of them."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _summarize_size(of_size: Mapping[str, Any], iterations: int) -> dict[str, Any]:
    photos, seconds = of_size["photos"], of_size["seconds"]
    names, variants = list(photos[0]["models"]), list(photos[0]["baselines"])
    milestones = [milestone for milestone in MILESTONES if milestone < iterations] + [iterations]
    lbfgs_seconds = {
        variant: {
            str(milestone): seconds["evaluation"][variant]
            * _num_evaluations(photos, variant, milestone)
            for milestone in milestones
        }
        for variant in variants
    }
    return {
        "num_photos": len(photos),
        "num_enlarged": sum(bool(photo["enlarged"]) for photo in photos),
        "photo": _statistics([photo["photo"] for photo in photos]),
        "models": {
            name: _statistics([photo["models"][name] for photo in photos]) for name in names
        },
        "baselines": {
            variant: {
                str(milestone): _statistics(
                    [_terms_after(photo, variant, milestone) for photo in photos]
                )
                for milestone in milestones
            }
            for variant in variants
        },
        "ended_early": {
            variant: sum(
                len(photo["baselines"][variant]["total"]) <= iterations for photo in photos
            )
            for variant in variants
        },
        "equals": {
            name: {
                variant: _quartiles([photo["models"][name]["equals"][variant] for photo in photos])
                for variant in variants
            }
            for name in names
        },
        "seconds": seconds | {"lbfgs": lbfgs_seconds},
        "speed_ups": {
            name: {
                variant: _speed_ups(photos, name, variant, seconds, lbfgs_seconds[variant])
                for variant in variants
            }
            for name in names
        },
    }


def _terms_after(photo: Mapping[str, Any], variant: str, iteration: int) -> dict[str, float]:
    """The terms after this iteration, or after the last one if L-BFGS converged before."""
    curves = photo["baselines"][variant]
    return {term: curves[term][min(iteration, len(curves[term]) - 1)] for term in TERMS}


def _statistics(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """The mean and the standard deviation of each term; None where a value is not finite."""
    summary: dict[str, dict[str, float | None]] = {}
    for term in TERMS:
        values = [float(row[term]) for row in rows]
        is_finite = all(math.isfinite(value) for value in values)
        summary[term] = {
            "mean": statistics.fmean(values) if is_finite else None,
            "std": statistics.stdev(values) if is_finite and len(values) > 1 else None,
        }
    return summary


def _quartiles(equals: Sequence[int | None]) -> dict[str, int | None]:
    numbers = [math.inf if iteration is None else iteration for iteration in equals]

    def rank(share: float) -> int | None:
        value = nearest_rank(numbers, share)
        return None if math.isinf(value) else int(value)

    return {
        "median": rank(0.5),
        "lower": rank(0.25),
        "upper": rank(0.75),
        "num_never": sum(iteration is None for iteration in equals),
        "num_at_start": sum(iteration == 0 for iteration in equals),
    }


def _num_evaluations(photos: Sequence[Mapping[str, Any]], variant: str, iteration: int) -> float:
    """The median over the photos of the evaluations up to this iteration."""
    curves = [photo["baselines"][variant]["evaluations"] for photo in photos]
    return statistics.median(curve[min(iteration, len(curve) - 1)] for curve in curves)


def _speed_ups(
    photos: Sequence[Mapping[str, Any]],
    name: str,
    variant: str,
    seconds: Mapping[str, Any],
    lbfgs_seconds: Mapping[str, float],
) -> dict[str, Any]:
    forward_pass = seconds["forward_pass"][name]
    # Evaluations until the objectives are equal; where L-BFGS did not get there, at most infinity.
    at_least, at_most = [], []
    for photo in photos:
        evaluations = photo["baselines"][variant]["evaluations"]
        equal = photo["models"][name]["equals"][variant]
        if equal is None:
            at_least.append(evaluations[-1])
            at_most.append(math.inf)
        else:
            at_least.append(evaluations[equal] if equal > 0 else 0)  # the start costs nothing
            at_most.append(at_least[-1])
    median = nearest_rank(at_least, 0.5)
    timed = [str(iterations) for iterations in _TIMED if str(iterations) in lbfgs_seconds]
    return {iterations: lbfgs_seconds[iterations] / forward_pass for iterations in timed} | {
        "equal": {
            "factor": median * seconds["evaluation"][variant] / forward_pass,
            "is_lower_bound": nearest_rank(at_most, 0.5) > median,
        }
    }
