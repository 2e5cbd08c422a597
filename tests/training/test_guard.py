"""Runs whose numbers are not finite: they end, and save nothing bad."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import (
    checkpoints_of,
    make_trainer,
    open_small_run,
    settings_of,
)

from fast_style.core.errors import UserError
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.training.trainer import Trainer


def test_exploding_run_names_step_and_term_and_saves_nothing_bad(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PerceptualLoss.forward

    def poisoned(self: PerceptualLoss, output: torch.Tensor, photos: torch.Tensor) -> Any:
        terms = original(self, output, photos)
        if torch.is_grad_enabled() and (calls := len(seen)) == 3:
            terms = terms._replace(style=terms.style * torch.nan, total=terms.total * torch.nan)
            assert calls == 3
        seen.append(torch.is_grad_enabled())
        return terms

    seen: list[bool] = []
    config = settings_of(
        yaml_file, "log.validate_every=99", "log.shares_every=99", "log.samples_every=99"
    )
    run = open_small_run(config, tmp_path)
    trainer = make_trainer(config, run)
    # Step 0's validation of three photos in two chunks comes first; then one call per step.
    monkeypatch.setattr(PerceptualLoss, "forward", poisoned)
    with pytest.raises(UserError) as caught:
        trainer.train()
    run.lock.release()
    folder = tmp_path / "tiny"
    assert str(caught.value) == (
        "step 2: the style term is not a finite number. Try a lower train.learning_rate, "
        "loss.style_weight or loss.adversarial_weight, or train.precision=fp32. There is no "
        "checkpoint yet"
    )
    assert caught.value.exit_code == 1
    assert checkpoints_of(folder) == []
    assert not (folder / "model.safetensors").exists()


def test_absurd_learning_rate_never_writes_weights_that_are_not_finite(
    open_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = open_trainer("train.steps=30", "train.learning_rate=10", "log.every=7")
    for group in trainer.optimizer.param_groups:
        group["eps"] = 0.0
    with torch.no_grad():
        trainer.net.to_rgb.conv.weight.mul_(1e30)
        trainer.net.down[0].convolution.conv.weight[0, 0, 0, 0] = torch.inf
    with pytest.raises(UserError, match=r"^step 1: the content term is not a finite number\. "):
        trainer.train()
    assert checkpoints_of(tmp_path / "tiny") == []
