"""Seconds are measured of every model and of every variant of L-BFGS."""

from pathlib import Path

import pytest
import torch
from small_evaluation import CPU, objective_of

from fast_style.evaluating.objective import load_models
from fast_style.evaluating.timing import measure_seconds


@pytest.mark.slow
def test_seconds_of_models_and_of_variants_are_positive(run: Path) -> None:
    models = load_models([run / "model.safetensors"] * 2, CPU)
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seconds = measure_seconds(models, objective_of(run).loss, photo, ["box", "clip"])
    assert list(seconds["forward_pass"]) == ["tiny", "tiny-2"]
    assert list(seconds["evaluation"]) == ["box", "clip"]
    assert min(*seconds["forward_pass"].values(), *seconds["evaluation"].values()) > 0
