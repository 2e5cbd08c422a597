"""The trainer: it learns, and stopping changes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from other_defaults import OTHER_DEFAULTS, other_defaults
from small_run import (
    checkpoints_of,
    final_state,
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
from fast_style.training.trainer import Trainer

# --- Learning -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_objective_falls(yaml_file: Path, tmp_path: Path) -> None:
    # Without the stability term, which is not part of the objective that is logged.
    words = ["train.steps=60", "train.learning_rate=1e-2", "model.width=4"]
    words += ["loss.stability_weight=0", "loss.style_weight=5"]
    quiet = ["log.checkpoint_every=99", "log.every=99", "log.validate_every=99"]
    train_once(settings_of(yaml_file, *words, *quiet), tmp_path)
    values = [
        float(row["validation/total"])
        for row in rows_of(tmp_path / "tiny")
        if row["validation/total"]
    ]
    assert len(values) == 2
    assert values[1] < 0.75 * values[0]  # seen: 3.99, 2.57
    assert min(values) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_DEFAULTS)
def test_what_the_caller_has_set_in_torch_changes_nothing(
    yaml_file: Path, straight: Path, tmp_path: Path, name: str
) -> None:
    with other_defaults(name):
        train_once(settings_of(yaml_file), tmp_path)
    assert final_state(tmp_path / "tiny") == final_state(straight)


def test_first_logged_loss_is_that_of_the_first_batch(
    open_trainer: Callable[..., Trainer], straight: Path
) -> None:
    trainer = open_trainer()
    photos = torch.stack([trainer.photos.crops[k].pixels for k in (0, 1)]).float() / 255  # type: ignore[misc]
    terms = trainer.perceptual_loss(trainer.net(photos), photos)
    trainer.run_log.close()
    assert float(rows_of(straight)[1]["loss/total"]) == pytest.approx(terms.total.item(), rel=1e-5)


@pytest.mark.parametrize(
    "word",
    [
        "data.crop_scale=[0.4, 0.5]",
        "model.upsampling=transposed",
        "model.tanh_scale=100",
        "loss.normalization=paper",
        "loss.tv_weight=50",
        "loss_network.pooling=average",
        "train.batch_size=3",
        "train.schedule=constant",
        *(
            pytest.param(word, marks=pytest.mark.slow)
            for word in (
                "seed=4",
                "style.size=24",
                "data.crop_size=20",
                "data.flip=false",
                "model.residual_blocks=0",
                "model.width=3",
                "loss.content_weight=3",
                "loss.style_weight=1",
                "loss.tv_exponent=2.5",
                "loss.style_layers={relu1_1: 1}",
                "loss.content_layers={relu1_2: 1}",
                "train.steps=7",
                "train.learning_rate=3e-3",
                "train.warmup_steps=2",
                "train.precision=bf16",
            )
        ),
    ],
)
def test_setting_changes_the_model(
    open_trainer: Callable[..., Trainer], straight: Path, word: str
) -> None:
    trainer = open_trainer(word)
    with pytest.raises(Stopped):
        trainer.train(lambda: 15 if trainer.step == 2 else None)
    plain = load_checkpoint(straight / "checkpoints" / "step-00000002.safetensors").part("model")
    changed = trainer.net.state_dict()
    assert plain.keys() != changed.keys() or not all(
        plain[name].shape == changed[name].shape and torch.equal(plain[name], changed[name])
        for name in plain
    )


@pytest.mark.parametrize(
    "word",
    [
        "log.every=2",
        "log.samples_every=1",
        "log.checkpoint_every=99",
        pytest.param("data.workers=1", marks=pytest.mark.slow),  # test_data has its batches
    ],
)
def test_watching_changes_nothing(
    yaml_file: Path, tmp_path: Path, straight: Path, word: str
) -> None:
    train_once(settings_of(yaml_file, word), tmp_path)
    theirs, ours = (
        load_checkpoint(folder / "model.safetensors").tensors
        for folder in (straight, tmp_path / "tiny")
    )
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


# --- Stopping and resuming ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stop", [3, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 2, 4, 5, 6))]
)
def test_resumed_run_equals_the_straight_one_byte_for_byte(
    yaml_file: Path, tmp_path: Path, straight: Path, stop: int
) -> None:
    config = settings_of(yaml_file)
    stopped = train_once(config, tmp_path, stop_at=stop)
    assert stopped.step == stop
    assert max(checkpoints_of(tmp_path / "tiny")) == stop
    train_once(config, tmp_path)
    assert final_state(tmp_path / "tiny") == final_state(straight)


def test_stopping_after_every_step_changes_nothing(
    yaml_file: Path, tmp_path: Path, straight: Path
) -> None:
    for stop in range(1, 7):
        train_once(settings_of(yaml_file), tmp_path, stop_at=stop)
    assert final_state(tmp_path / "tiny") == final_state(straight)


def test_stop_signal_saves_and_tells_the_step_and_the_signal(
    open_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = open_trainer()
    with pytest.raises(Stopped) as caught:
        trainer.train(lambda: 15 if trainer.step == 3 else None)
    assert (caught.value.step, caught.value.signal_number) == (3, 15)
    found = load_checkpoint(tmp_path / "tiny" / "checkpoints" / "step-00000003.safetensors")
    assert found.metadata["step"] == 3
    assert all(
        torch.equal(found.tensors[f"model.{name}"], tensor)
        for name, tensor in trainer.net.state_dict().items()
    )


def test_moments_are_restored_in_each_parameters_memory_format(
    yaml_file: Path, tmp_path: Path
) -> None:
    config = settings_of(yaml_file)
    stopped = train_once(config, tmp_path, stop_at=2)
    run = open_small_run(config, tmp_path)
    resumed = make_trainer(config, run)
    resumed.run_log.close()
    run.lock.release()
    for before, after in zip(stopped.net.parameters(), resumed.net.parameters(), strict=True):
        ours, theirs = resumed.optimizer.state[after], stopped.optimizer.state[before]
        assert set(ours) == set(theirs)
        for key in ours:
            assert torch.equal(ours[key], theirs[key])
            assert ours[key].stride() == theirs[key].stride()


@pytest.mark.parametrize("lost", ["optimizer.step.to_rgb.conv.bias", "model.to_rgb.conv.bias"])
def test_checkpoint_without_all_its_tensors_is_refused(
    yaml_file: Path, tmp_path: Path, lost: str
) -> None:
    config = settings_of(yaml_file)
    train_once(config, tmp_path, stop_at=2)
    path = tmp_path / "tiny" / "checkpoints" / "step-00000002.safetensors"
    found = load_checkpoint(path)
    del found.tensors[lost]
    save_checkpoint(path, found.tensors, found.metadata)
    run = open_small_run(config, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        make_trainer(config, run)
    run.lock.release()
    assert str(caught.value).startswith(f"{path}: ")
    assert lost.partition(".")[2] in str(caught.value)


@pytest.mark.slow
def test_constant_schedule_can_be_prolonged(yaml_file: Path, tmp_path: Path) -> None:
    short = ["train.schedule=constant", "train.steps=3"]
    long = ["train.schedule=constant", "train.steps=6"]
    train_once(settings_of(yaml_file, *long, "name=straight"), tmp_path)
    train_once(settings_of(yaml_file, *short), tmp_path)
    train_once(settings_of(yaml_file, *long), tmp_path)
    straight, prolonged = (
        load_checkpoint(tmp_path / name / "model.safetensors").tensors
        for name in ("straight", "tiny")
    )
    assert all(torch.equal(straight[name], prolonged[name]) for name in straight)


@pytest.mark.slow
def test_prolonged_run_keeps_the_warm_up_that_its_steps_gave_it(
    yaml_file: Path, tmp_path: Path
) -> None:
    data = yaml.safe_load(yaml_file.read_text())
    del data["train"]["warmup_steps"]
    yaml_file.write_text(yaml.safe_dump(data))
    constant = "train.schedule=constant"
    train_once(settings_of(yaml_file, constant, "train.steps=20"), tmp_path)  # 2 steps of warm-up
    train_once(settings_of(yaml_file, constant, "train.steps=31"), tmp_path)  # anew it would be 3
    metadata = load_checkpoint(tmp_path / "tiny" / "model.safetensors").metadata
    assert (metadata["step"], metadata["settings"]["train"]["warmup_steps"]) == (31, 2)
    with pytest.raises(UserError, match=r"train\.warmup_steps\. Set"):
        open_small_run(
            settings_of(yaml_file, constant, "train.steps=31", "train.warmup_steps=3"), tmp_path
        )
