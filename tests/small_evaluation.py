"""What tests of evaluations share: objectives of small runs, and results made by hand."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from small_distillation import random_convolutions

from fast_style.evaluating.evaluation import GridRow
from fast_style.evaluating.objective import Objective, load_models, load_objective
from fast_style.models.checkpoint import load_checkpoint, save_checkpoint
from fast_style.settings.layers import torchvision_index

CPU = torch.device("cpu")
ITERATIONS = 12
JUDGE_SIZE, JUDGE_ITERATIONS = 32, 6
VARIANTS = ("box", "clip")

WITH_COMPACT = (
    "the objective is measured with vgg16, COMPACT weights, which approximate the full VGG-16; to "
    "measure with that one, give --weights FILE, or --weights imagenet_features, which keeps it in "
    "torch's cache (528 MB)"
)
WITH_FULL = "the objective is measured with vgg16, imagenet_features weights"
"""The first line that is said, for either network."""


def measure_with(models: list[Path], **given: Any) -> tuple[Objective, list[str]]:
    """The objective of these models with the options given, and what was said about it."""
    said: list[str] = []
    options = {"style": None, "weights": None, "loss": None} | given
    objective = load_objective(load_models(models, CPU), device=CPU, say=said.append, **options)
    return objective, said


def objective_of(run: Path, **given: Any) -> Objective:
    return measure_with([run / "model.safetensors"], **given)[0]


def retrained(run: Path, folder: Path, digest: str = "", **network: str) -> Path:
    """A copy of a run as if trained with other `loss_network` settings; its model file."""

    def change(metadata: dict[str, Any]) -> dict[str, Any]:
        metadata["settings"]["loss_network"] |= network
        if digest:
            metadata["loss_network"]["digest"] = digest
        return metadata

    return redescribed(run, folder, change)


def redescribed(
    run: Path, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> Path:
    """A copy of a run's model and style picture, with another description; the model file."""
    folder.mkdir()
    shutil.copy(run / "style.png", folder)
    tensors, metadata = load_checkpoint(run / "model.safetensors")
    save_checkpoint(folder / "model.safetensors", tensors, change(metadata))
    return folder / "model.safetensors"


def write_narrow_vgg16(folder: Path) -> Path:
    """A VGG-16 of few channels up to relu4_3, in a file that does not state its preprocessing."""
    channels = {"1_1": 4, "1_2": 4, "2_1": 6, "2_2": 6, "3_1": 6, "3_2": 6, "3_3": 6}
    channels |= {"4_1": 8, "4_2": 8, "4_3": 8}
    tensors = {}
    for number, (kernel, bias) in random_convolutions(channels).items():
        index = torchvision_index(f"conv{number}", "vgg16")
        tensors |= {f"features.{index}.weight": kernel, f"features.{index}.bias": bias}
    path = folder / "vgg16.safetensors"
    save_file(tensors, path)
    return path


# --- Results by hand ----------------------------------------------------------------------------


def terms(total: float) -> dict[str, float]:
    return {"total": total, "content": total / 2, "style": total / 10, "tv": 0.0}


def curve(totals: list[float]) -> dict[str, list[float]]:
    """A descent with two evaluations at the start and two for each iteration."""
    columns = {term: [terms(total)[term] for total in totals] for term in terms(0)}
    return columns | {"evaluations": [2 * index + 2 for index in range(len(totals))]}


def falling(start: float, count: int = ITERATIONS + 1) -> list[float]:
    """20, 10, 6.7, 5, 4, ... for 20."""
    return [start / (1 + index) for index in range(count)]


def photo(total: float, equals: int | None, start: float = 20.0) -> dict[str, Any]:
    return {
        "name": f"photo{total:g}.jpg",
        "enlarged": False,
        "photo": terms(start),
        "models": {"night": terms(total) | {"equals": dict.fromkeys(VARIANTS, equals)}},
        "baselines": {variant: curve(falling(start)) for variant in VARIANTS},
    }


def results_of(photos: list[dict[str, Any]], **others: Any) -> dict[str, Any]:
    names = list(photos[0]["models"])
    of_size = {
        "photos": photos,
        "seconds": {
            "forward_pass": dict.fromkeys(names, 0.5),
            "evaluation": dict.fromkeys(VARIANTS, 2.0),
        },
        "artifacts": {
            "photos": {
                "weave_2": 0.0,
                "weave_4": 0.125,
                "repeats": 0.0625,
                "halos": 0.00098,
                "blots": 0.0,
                "clipped": 0.01,
                "shift": 0.0,
                "whole_shift": 0.0,
                "zoom": 0.0,
                "noise_gain": 1.0,
            },
            "models": {
                name: {
                    "weave_2": 0.75,
                    "weave_4": 0.25,
                    "repeats": 0.21,
                    "halos": 0.00328,
                    "blots": 0.0042,
                    "border": math.nan,
                    "clipped": 0.031,
                    "shift": 0.0526,
                    "whole_shift": 0.0044,
                    "zoom": 0.1,
                    "noise_gain": 1.25,
                    "blotches": 2.5,
                }
                for name in names
            },
            "baselines": {
                "box": {
                    "weave_2": 0.0,
                    "weave_4": 0.375,
                    "repeats": 0.08,
                    "halos": 0.00125,
                    "blots": 0.0001,
                    "border": 1.125,
                    "clipped": 0.25,
                },
            },
        },
    }
    network = {"architecture": "vgg16", "label": "imagenet_features weights", "digest": "b" * 64}
    network |= {"preprocessing": "caffe", "padding": "zeros", "pooling": "max"}
    loss: dict[str, Any] = {"normalization": "relative", "content_layers": {"relu3_3": 1.0}}
    loss |= {"style_layers": {"relu1_2": 0.5}, "content_weight": 1.0, "style_weight": 5.0}
    return {
        "format": 1,
        "objective": {
            "style": {"file": "stars.jpg", "width": 320, "height": 256, "digest": "a" * 64},
            "loss_network": network,
            "loss": loss | {"tv_weight": 1.0, "tv_exponent": 2.0},
        },
        "objective_digest": "c" * 64,
        "iterations": ITERATIONS,
        "variants": list(photos[0]["baselines"]),
        "models": [
            {
                "name": name,
                "file": "model.safetensors",
                "digest": "d" * 64,
                "agrees": {"style picture": True, "loss network": True, "loss": True},
                "label": "imagenet_features weights",
                "architecture": "vgg16",
            }
            for name in names
        ],
        "sizes": {"32": of_size},
        "machine": {
            "device": "cpu",
            "threads": 2,
            "fast_style": "0.1",
            "python": "3.12",
            "torch": "2.11",
        },
    } | others


def three_photos() -> dict[str, Any]:
    return results_of([photo(4.0, 4), photo(1.0, None), photo(7.0, 2)])


def renamed(results: dict[str, Any], name: str) -> dict[str, Any]:
    text = json.dumps(results).replace('"night"', json.dumps(name))
    return json.loads(text)


def grid_of(results: dict[str, Any], size: int = 32) -> list[GridRow]:
    levels = np.full((size, size, 3), 128, np.uint8)
    captions = ["photo", "night", "L-BFGS, 4 iterations", "L-BFGS, 12 iterations"]
    return [
        GridRow(size, row["name"], [(caption, levels) for caption in captions])
        for row in results["sizes"]["32"]["photos"]
    ]
