"""Training in half precision, and numbers that are not finite."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import (
    checkpoints_of,
    final_state,
    ignore,
    make_trainer,
    open_small_run,
    rows_of,
    settings_of,
    train_once,
)

from fast_style.core.errors import Stopped, UserError
from fast_style.models.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from fast_style.training import build as runs_module
from fast_style.training.trainer import Trainer

# --- Half precision -------------------------------------------------------------------------------


@pytest.fixture
def half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains in float16 on a CPU, where nobody would, but everything can be tried."""
    monkeypatch.setattr(runs_module, "resolve_precision", lambda precision, device: torch.float16)
    original = torch.amp.GradScaler
    # Such small pictures have large gradients: the usual 65536 is too much.
    monkeypatch.setattr(
        torch.amp,
        "GradScaler",
        lambda device, enabled: original(
            device, init_scale=16.0, growth_interval=2, enabled=enabled
        ),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("half_precision")
def test_half_precision_logs_gradients_without_the_scale_of_the_loss(
    open_trainer: Callable[..., Trainer], tmp_path: Path, straight: Path
) -> None:
    open_trainer().train()
    full, half = (
        float(rows_of(folder)[1]["grad_norm"]) for folder in (straight, tmp_path / "tiny")
    )
    assert half == pytest.approx(full, rel=0.02)
    assert half != full
    assert max(checkpoints_of(tmp_path / "tiny")) == 6


@pytest.mark.usefixtures("half_precision")
def test_step_whose_scaled_gradient_overflows_is_left_out_and_the_run_goes_on(
    yaml_file: Path, tmp_path: Path
) -> None:
    config = settings_of(yaml_file)
    run = open_small_run(config, tmp_path)
    trainer = make_trainer(config, run)
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**127})
    begun = trainer.net.to_rgb.conv.weight.detach().clone()
    with pytest.raises(Stopped):
        trainer.train(lambda: 15 if trainer.step == 1 else None)
    run.release()
    assert torch.equal(trainer.net.to_rgb.conv.weight, begun)
    assert trainer.scaler.get_scale() == 2.0**126
    assert not math.isfinite(float(rows_of(tmp_path / "tiny")[1]["grad_norm"]))
    resumed = train_once(config, tmp_path, stop_at=2)  # with Adam as new, and the halved scale
    assert resumed.scaler.get_scale() == 2.0**125


@pytest.mark.usefixtures("half_precision")
def test_gradient_that_no_scale_makes_finite_stops_the_run(
    open_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = open_trainer()
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 4.0})
    trainer.net.to_rgb.conv.bias.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(UserError) as caught:
        trainer.train()
    assert str(caught.value).startswith("step 3: the gradient is not a finite number. ")  # 4, 2, 1


@pytest.mark.slow
@pytest.mark.usefixtures("half_precision")
def test_run_in_half_precision_goes_on_with_its_scale(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    train_once(config, tmp_path / "straight")
    stopped = train_once(config, tmp_path / "stopped", stop_at=3)
    assert stopped.scaler.get_scale() == 32.0  # after two good steps, and one more
    resumed = train_once(config, tmp_path / "stopped")
    folders = [tmp_path / name / "tiny" for name in ("straight", "stopped")]
    assert final_state(folders[0]) == final_state(folders[1])
    path = folders[1] / "checkpoints" / "step-00000006.safetensors"
    assert load_checkpoint(path).metadata["loss_scale"] == resumed.scaler.state_dict()
    assert "loss_scale" not in load_checkpoint(folders[1] / "model.safetensors").metadata


@pytest.mark.slow
@pytest.mark.usefixtures("half_precision")
@pytest.mark.parametrize(("saved", "is_usable"), [(None, True), ({"scale": "much"}, False)])
def test_checkpoint_without_a_scale_begins_a_new_one_and_a_damaged_one_is_told(
    yaml_file: Path, tmp_path: Path, saved: Any, is_usable: bool
) -> None:
    config = settings_of(yaml_file)
    train_once(config, tmp_path, stop_at=2)
    path = tmp_path / "tiny" / "checkpoints" / "step-00000002.safetensors"
    found = load_checkpoint(path)
    metadata = {name: value for name, value in found.metadata.items() if name != "loss_scale"}
    if saved is not None:
        metadata["loss_scale"] = saved
    save_checkpoint(path, found.tensors, metadata)
    if is_usable:
        assert train_once(config, tmp_path).step == 6
        return
    with pytest.raises(CheckpointError) as caught:
        train_once(config, tmp_path)
    assert str(caught.value) == (
        f"{path}: its loss_scale is damaged (could not convert string to float: 'much')"
    )


def test_checkpoint_without_half_precision_says_nothing_of_a_scale(straight: Path) -> None:
    path = straight / "checkpoints" / "step-00000006.safetensors"
    assert "loss_scale" not in load_checkpoint(path).metadata


@pytest.mark.gpu
def test_half_precision_trains_on_a_gpu(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file, "train.precision=fp16", "train.steps=20")
    run = open_small_run(config, tmp_path)
    trainer = runs_module.build_trainer(config, run, device=torch.device("cuda"), say=ignore)
    trainer.train()
    run.release()
    assert trainer.step == 20
    assert 1 <= trainer.scaler.get_scale() <= 2.0**16


@pytest.mark.gpu
def test_training_step_on_a_gpu_never_waits_for_it(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    run = open_small_run(config, tmp_path)
    trainer = runs_module.build_trainer(config, run, device=torch.device("cuda"), say=ignore)
    photos = torch.zeros(2, 3, 16, 16, device="cuda", dtype=torch.uint8)
    trainer.prepare()
    trainer.train_step(photos)  # the first one makes Adam's state
    with warnings.catch_warnings(action="ignore"):  # of its being a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_step(photos)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.run_log.close()
    run.release()
