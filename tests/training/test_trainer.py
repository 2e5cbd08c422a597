"""The training loop: it learns, it says what it does, and stopping changes nothing."""

import errno
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_run import (
    draw_photo,
    ignore,
    make_trainer,
    open_small_run,
    settings_of,
    train_once,
    wait_for_next_second,
    write_small_run,
)
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fast_style.core.errors import Stopped, UserError
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.models.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_transform_net,
    save_checkpoint,
)
from fast_style.networks import fast_transform
from fast_style.networks.compiling import CompileRequest
from fast_style.networks.fast_transform import FastTransform
from fast_style.settings.config import Config, TrainConfig
from fast_style.training import build as runs_module
from fast_style.training import trainer as trainer_module
from fast_style.training.recording import Recorded
from fast_style.training.schedule import learning_rate_at
from fast_style.training.trainer import Trainer

LOSS_TAGS = ["loss/total", "loss/content", "loss/style", "loss/tv", "loss/style/relu1_2"]
VALIDATION_TAGS = ["validation/total", "validation/content", "validation/style"]
SHARE_TAGS = ["share/content", "share/style", "share/tv"]
OTHER_TAGS = [
    "lr",
    "grad_norm",
    "output/min",
    "output/max",
    "output/clipped",
    "data/skipped",
    "time/images_per_s",
    "time/data_wait_share",
    "memory/peak_mb",
]


@pytest.fixture(scope="module", autouse=True)
def small_samples() -> Iterator[None]:
    """Most of such a small run's time would go into sample pictures of 256 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs_module, "_SMALLEST_SAMPLE", 32)
        patch.setattr(os, "fsync", lambda descriptor: None)  # and a third into these
        yield


@pytest.fixture(scope="module")
def yaml_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_run(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def straight(yaml_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps that nothing interrupted."""
    root = tmp_path_factory.mktemp("straight")
    train_once(settings_of(yaml_file), root)
    return root / "tiny"


@pytest.fixture
def open_trainer(yaml_file: Path, tmp_path: Path) -> Iterator[Callable[..., Trainer]]:
    """Makes trainers of runs in `tmp_path`, and gives their locks back."""
    runs = []

    def make(*words: str, say: Callable[[str], None] = ignore) -> Trainer:
        config = settings_of(yaml_file, *words)
        runs.append(open_small_run(config, tmp_path, say=say))
        return make_trainer(config, runs[-1], say=say)

    yield make
    for run in runs:
        run.lock.release()


def checkpoints_of(folder: Path) -> list[int]:
    return sorted(int(path.stem[5:]) for path in (folder / "checkpoints").iterdir())


def final_state(folder: Path) -> dict[str, bytes]:
    """The bytes of everything that is a function of settings and photos alone."""
    last = max((folder / "checkpoints").iterdir())
    paths = [last, folder / "model.safetensors", folder / "metrics.csv"]
    return {path.name: path.read_bytes() for path in paths}


def rows_of(folder: Path) -> list[dict[str, str]]:
    header, *rows = (folder / "metrics.csv").read_text().splitlines()
    names = header.split(",")
    return [dict(zip(names, row.split(","), strict=True)) for row in rows]


def steps_with(folder: Path, column: str) -> list[int]:
    return [int(row["step"]) for row in rows_of(folder) if row[column]]


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


# --- The learning rate --------------------------------------------------------------------------


def test_cosine_rate_by_hand() -> None:
    settings = TrainConfig(steps=14, warmup_steps=4, learning_rate=0.8)
    rates = [learning_rate_at(step, settings) for step in range(14)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[9] == pytest.approx(0.4)  # half-way down
    assert 0 < rates[13] < 0.02
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_constant_rate_by_hand() -> None:
    settings = TrainConfig(steps=10, warmup_steps=2, learning_rate=0.8, schedule="constant")
    rates = [learning_rate_at(step, settings) for step in range(10)]
    assert rates == pytest.approx([0.4] + [0.8] * 9)


def test_rate_without_warm_up_begins_at_its_height() -> None:
    settings = TrainConfig(steps=10, warmup_steps=0, learning_rate=0.8)
    assert learning_rate_at(0, settings) == 0.8


def test_logged_rate_is_the_one_that_made_the_step(straight: Path) -> None:
    settings = TrainConfig(steps=6, warmup_steps=0)
    expected = [learning_rate_at(step, settings) for step in range(6)]
    assert [float(row["lr"]) for row in rows_of(straight) if row["lr"]] == expected


# --- Learning -----------------------------------------------------------------------------------


def test_objective_falls(yaml_file: Path, tmp_path: Path) -> None:
    words = ["train.steps=60", "train.learning_rate=1e-2", "model.width=4"]
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


def test_first_logged_loss_is_that_of_the_first_batch(
    open_trainer: Callable[..., Trainer], straight: Path
) -> None:
    trainer = open_trainer()
    photos = torch.stack([trainer.crops[k].pixels for k in (0, 1)]).float() / 255  # type: ignore[misc]
    terms = trainer.perceptual_loss(trainer.net(photos), photos)
    trainer.run_log.close()
    assert float(rows_of(straight)[1]["loss/total"]) == pytest.approx(terms.total.item(), rel=1e-5)


@pytest.mark.parametrize(
    "word",
    [
        "seed=4",
        "style.size=24",
        "data.crop_size=20",
        "data.crop_scale=[0.4, 0.5]",
        "data.flip=false",
        "model.upsampling=transposed",
        "model.residual_blocks=0",
        "model.width=3",
        "model.tanh_scale=100",
        "loss.normalization=paper",
        "loss.content_weight=3",
        "loss.style_weight=1",
        "loss.tv_weight=50",
        "loss.tv_exponent=2.5",
        "loss.style_layers={relu1_1: 1}",
        "loss.content_layers={relu1_2: 1}",
        "loss_network.pooling=average",
        "train.steps=7",
        "train.batch_size=3",
        "train.learning_rate=3e-3",
        "train.schedule=constant",
        "train.warmup_steps=2",
        "train.precision=bf16",
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
    "word", ["log.every=2", "log.samples_every=1", "data.workers=1", "log.checkpoint_every=99"]
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


def test_validation_photos_are_never_trained_on(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_small_run(settings_of(yaml_file), tmp_path)
    trainer = make_trainer(settings_of(yaml_file), run)
    photos = trainer.crops.photos
    assert len(photos.validation) == 3
    read: list[Path] = []
    original = trainer.crops.photo_of

    def watch(k: int, attempt: int = 0) -> Path:
        read.append(original(k, attempt))
        return read[-1]

    monkeypatch.setattr(trainer.crops, "photo_of", watch)
    trainer.train()
    run.lock.release()
    assert len(read) == 12
    assert not set(read) & set(photos.validation)


# --- Stopping and going on ----------------------------------------------------------------------


@pytest.mark.parametrize("stop", range(1, 7))
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
    states = zip(stopped.optimizer.state.values(), resumed.optimizer.state.values(), strict=True)
    for before, after in states:
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(before[key], after[key])
            assert before[key].stride() == after[key].stride()


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
    assert str(caught.value) == f"{path}: has no tensor {lost.partition('.')[2]}"


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


# --- Numbers that are not finite ----------------------------------------------------------------


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
        "step 2: the style term is not a finite number. Try a lower train.learning_rate or "
        "loss.style_weight, or train.precision=fp32. There is no checkpoint yet"
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


def test_weights_that_are_not_finite_are_not_saved_though_the_loss_was(
    open_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = open_trainer()
    trainer.save()
    with torch.no_grad():
        trainer.net.to_rgb.conv.bias[0] = torch.nan
    trainer.step = 1
    with pytest.raises(UserError) as caught:
        trainer.save()
    trainer.run_log.close()
    folder = tmp_path / "tiny"
    assert str(caught.value) == (
        "step 1: model.to_rgb.conv.bias has numbers that are not finite. Try a lower "
        "train.learning_rate. The last good checkpoint is "
        f"{folder / 'checkpoints' / 'step-00000000.safetensors'}"
    )
    assert checkpoints_of(folder) == [0]
    load_transform_net(folder / "model.safetensors")


# --- Disks --------------------------------------------------------------------------------------


def fail_checkpoints_of(monkeypatch: pytest.MonkeyPatch, is_full: Callable[[int], bool]) -> None:
    original = trainer_module.save_checkpoint

    def save(path: Path, tensors: Any, metadata: Any) -> None:
        if is_full(metadata["step"]):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, tensors, metadata)

    monkeypatch.setattr(trainer_module, "save_checkpoint", save)


def test_disk_that_is_full_for_a_while_costs_a_warning(
    open_trainer: Callable[..., Trainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_checkpoints_of(monkeypatch, lambda step: step == 4)
    open_trainer().train()
    assert checkpoints_of(tmp_path / "tiny") == [2, 6]
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert warning.startswith(
        "warning: step 4: no checkpoint could be written ([Errno 28] No space left on device; "
    )
    assert warning.endswith(
        f"MB are free). The last good checkpoint is {tmp_path}/tiny/checkpoints/"
        "step-00000002.safetensors; trying again in 2 steps"
    )


def test_checkpoints_folder_removed_while_training_is_an_error_at_the_end(
    open_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = open_trainer()
    (tmp_path / "tiny" / "checkpoints").rmdir()
    with pytest.raises(UserError, match=r"step 6: no checkpoint could be written") as caught:
        trainer.train()
    assert caught.value.exit_code == 1


def test_last_checkpoint_that_cannot_be_written_is_an_error(
    open_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_checkpoints_of(monkeypatch, lambda step: step == 6)
    with pytest.raises(UserError) as caught:
        open_trainer().train()
    assert str(caught.value).startswith("step 6: no checkpoint could be written ([Errno 28] ")
    assert str(caught.value).endswith(
        f"The last good checkpoint is {tmp_path}/tiny/checkpoints/step-00000004.safetensors"
    )
    assert caught.value.exit_code == 1


def test_checkpoint_is_the_last_file_of_its_step(
    open_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process killed before the checkpoint does the steps again; one killed after it has nothing
    # left to write. The other way round a finished run might lack its model.
    trainer = open_trainer()
    written: list[str] = []
    original = trainer_module.save_checkpoint

    def save(path: Path, tensors: Any, metadata: Any) -> None:
        written.append(metadata["kind"])
        original(path, tensors, metadata)

    monkeypatch.setattr(trainer_module, "save_checkpoint", save)
    monkeypatch.setattr(trainer, "_write_model_card", lambda metadata: written.append("card"))
    trainer.save()
    trainer.run_log.close()
    assert written == ["model", "card", "checkpoint"]


def test_pictures_that_cannot_be_written_do_not_stop_the_run(
    open_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = open_trainer()
    (tmp_path / "tiny" / "samples").rmdir()
    (tmp_path / "tiny" / "samples").touch()
    trainer.train()
    assert max(checkpoints_of(tmp_path / "tiny")) == 6


def test_tensorboard_that_fails_does_not_change_the_run(
    open_trainer: Callable[..., Trainer],
    tmp_path: Path,
    straight: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer = open_trainer()

    def fail(*unused: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer.run_log._writer.add_scalar = fail
    trainer.train()
    assert final_state(tmp_path / "tiny") == final_state(straight)
    out = capsys.readouterr().out
    assert out.count("warning: TensorBoard cannot be written any more") == 1


# --- What is written, and when ------------------------------------------------------------------


def test_intervals_do_what_they_say(yaml_file: Path, tmp_path: Path) -> None:
    words = [
        "train.steps=13",
        "log.every=4",
        "log.shares_every=6",
        "log.validate_every=5",
        "log.samples_every=7",
        "log.checkpoint_every=3",
        "log.keep_checkpoints=2",
    ]
    train_once(settings_of(yaml_file, *words), tmp_path)
    folder = tmp_path / "tiny"
    assert steps_with(folder, "loss/total") == [4, 8, 12, 13]
    assert steps_with(folder, "share/tv") == [6, 12, 13]
    assert steps_with(folder, "validation/total") == [0, 5, 10, 13]
    assert checkpoints_of(folder) == [12, 13]
    samples = sorted(path.name for path in (folder / "samples").iterdir())
    assert samples == ["latest.png", *(f"step-{step:08}.png" for step in (0, 7, 13))]


def test_sample_sheet_shows_the_asked_number_of_photos(straight: Path) -> None:
    with Image.open(straight / "samples" / "step-00000003.png") as sheet:
        # Not the 16 pixels of a crop, on which one sees little; 4 pixels of white between
        assert sheet.size == (2 * (32 + 4), 32 + 4 + 32)


def test_samples_are_drawn_once_at_a_step(
    open_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    original = Trainer._draw_samples

    def draw(trainer: Trainer) -> Image.Image:
        drawn.append(trainer.step)
        return original(trainer)

    monkeypatch.setattr(Trainer, "_draw_samples", draw)
    words = ["train.steps=6", "log.samples_every=3", "log.checkpoint_every=2"]
    open_trainer(*words).train()
    # Samples at 0, 3 and 6; the model card's at 2, 4 and 6.
    assert drawn == [0, 2, 3, 4, 6]


def test_samples_are_the_first_readable_validation_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml_file = write_small_run(tmp_path)
    config = settings_of(yaml_file, "log.samples=1")
    held_out = train_once(config, tmp_path, stop_at=1).crops.photos.validation
    held_out[0].write_bytes(b"")
    said: list[str] = []
    run = open_small_run(config, tmp_path)
    trainer = make_trainer(config, run, say=said.append)
    trainer.run_log.close()
    run.lock.release()
    assert trainer.sample_photos.shape == (1, 3, 32, 32)
    assert trainer.validation_photos.shape == (2, 3, 16, 16)
    assert said[0] == f"warning: skipping {held_out[0]}: empty file"


def test_run_folder_has_what_the_design_says(straight: Path) -> None:
    names = {path.name.split(".tfevents")[0] for path in straight.iterdir()}
    assert names == {
        "README.md",
        "checkpoints",
        "config.yaml",
        "environment.json",
        "events.out",
        "lock",
        "lock.json",
        "metrics.csv",
        "model.safetensors",
        "samples",
        "style.png",
    }


def test_tensorboard_shows_one_run_with_all_tags(straight: Path) -> None:
    assert {path.parent for path in straight.rglob("*tfevents*")} == {straight}
    events = events_of(straight)
    tags = events.Tags()
    assert set(tags["scalars"]) == {*LOSS_TAGS, *VALIDATION_TAGS, *SHARE_TAGS, *OTHER_TAGS}
    assert set(tags["images"]) == {"samples/photo_and_result", "style"}
    assert set(tags["tensors"]) == {"settings/text_summary", "command/text_summary"}

    def steps(tag: str) -> list[int]:
        return [event.step for event in events.Scalars(tag)]

    assert steps("loss/total") == [1, 2, 3, 4, 5, 6]
    assert steps("validation/total") == [0, 3, 6]
    assert steps("share/style") == [3, 6]
    samples = [event.step for event in events.Images("samples/photo_and_result")]
    assert samples == [0, 3, 6]
    assert [event.step for event in events.Images("style")] == [0]
    (text,) = events.Tensors("settings/text_summary")
    assert b"style_weight: 5.0" in text.tensor_proto.string_val[0]
    (text,) = events.Tensors("command/text_summary")
    assert b"train.py" in text.tensor_proto.string_val[0]


@pytest.mark.parametrize("stop", [0, 2, 3])
def test_run_killed_and_resumed_shows_no_doubled_points(
    yaml_file: Path, tmp_path: Path, stop: int
) -> None:
    config = settings_of(yaml_file, f"log.checkpoint_every={stop or 99}", "log.validate_every=1")
    run = open_small_run(config, tmp_path)
    trainer = make_trainer(config, run)

    def kill() -> None:
        if trainer.step == 5:
            raise KeyboardInterrupt  # leaves without saving

    with pytest.raises(KeyboardInterrupt):
        trainer.train(kill)  # type: ignore[arg-type]
    run.lock.release()
    wait_for_next_second()
    train_once(config, tmp_path)
    folder = tmp_path / "tiny"
    assert steps_with(folder, "loss/total") == [1, 2, 3, 4, 5, 6]
    events = events_of(folder)
    for tag, first in (("loss/total", 1), ("validation/total", 0)):
        assert [event.step for event in events.Scalars(tag)] == list(range(first, 7))
    samples = [event.step for event in events.Images("samples/photo_and_result")]
    assert samples == [0, 3, 6]
    assert len(events.Images("style")) == 1
    # This one of TensorBoard's readers, which its web page uses, knows how to purge texts.
    reader = plugin_event_accumulator.EventAccumulator(str(folder), purge_orphaned_data=True)
    reader.Reload()
    assert len(reader.Tensors("settings/text_summary")) == 1


def test_table_and_tensorboard_agree(straight: Path) -> None:
    events = events_of(straight)
    for tag in (*LOSS_TAGS, *VALIDATION_TAGS, *SHARE_TAGS):
        tabled = [float(row[tag]) for row in rows_of(straight) if row[tag]]
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(tabled)


def test_logged_total_is_the_weighted_sum_of_the_logged_terms(straight: Path) -> None:
    for row in rows_of(straight)[1:]:
        content, style, tv = (float(row[f"loss/{term}"]) for term in ("content", "style", "tv"))
        assert float(row["loss/total"]) == pytest.approx(content + 5 * style + tv, rel=1e-5)
        if row["share/tv"]:
            assert sum(float(row[tag]) for tag in SHARE_TAGS) == pytest.approx(1)


def test_model_card_describes_the_model(straight: Path) -> None:
    card = (straight / "README.md").read_text()
    assert card.startswith("# tiny\n")
    assert "RANDOM weights" in card
    assert "- trained: 6 of 6 steps, 12 crops of 16 pixels from 9 photos\n" in card


# --- Warnings -----------------------------------------------------------------------------------


def warnings_of(config: Config, root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    train_once(config, root)
    lines = capsys.readouterr().out.splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


def test_term_that_hardly_counts_is_told_with_its_key(
    yaml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_of(yaml_file, "loss.content_weight=1e-5", "loss.tv_weight=0")
    (warning,) = warnings_of(config, tmp_path, capsys)
    assert warning.startswith("the content term has 0.0% of the gradient, so it hardly counts; ")
    assert warning.endswith("raise loss.content_weight (now 1e-05)")


def test_term_that_is_switched_off_is_not_warned_of(
    yaml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_of(yaml_file, "loss.style_weight=0")
    assert warnings_of(config, tmp_path, capsys) == []


def test_clipped_output_is_told_once_with_its_keys(
    open_trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = open_trainer("train.learning_rate=1e-6")
    with torch.no_grad():
        trainer.net.to_rgb.conv.bias.fill_(60.0)
    trainer.train()
    found = [line for line in capsys.readouterr().out.splitlines() if "pure black" in line]
    assert found == [
        "warning: step 1: 100% of the output is pure black or white; try a lower "
        "loss.style_weight, or a lower train.learning_rate"
    ]


def test_unreadable_photos_are_named_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml_file = write_small_run(tmp_path, count=20)
    config = settings_of(yaml_file, "data.max_unreadable_share=1", "train.steps=20")
    photos = sorted((tmp_path / "photos").iterdir())
    probe = train_once(config, tmp_path / "intact", stop_at=1)
    broken = probe.crops.photos.training[:12]
    assert len(photos) == 20
    for path in broken:
        path.write_bytes(b"")
    capsys.readouterr()
    lines = warnings_of(config, tmp_path, capsys)
    skipped = [line for line in lines if line.startswith("skipping ")]
    listed = tmp_path / "tiny" / "unreadable_photos.jsonl"
    assert len(skipped) == 10
    assert set(skipped) <= {f"skipping {path}: empty file" for path in broken}
    assert f"more will only be listed in {listed}" in lines
    assert lines[-1] == f"skipped 12 of 17 photos, listed in {listed}"
    assert len(listed.read_text().splitlines()) == 12
    assert rows_of(tmp_path / "tiny")[-1]["data/skipped"] == "12"


def test_unreadable_photos_are_counted_the_same_after_stopping(tmp_path: Path) -> None:
    yaml_file = write_small_run(tmp_path)
    config = settings_of(yaml_file)
    for path in sorted((tmp_path / "photos").iterdir())[:5]:
        path.write_bytes(b"")
    train_once(config, tmp_path / "straight")
    for stop in (2, 4, None):
        train_once(config, tmp_path / "stopped", stop_at=stop)
    straight, stopped = (tmp_path / name / "tiny" for name in ("straight", "stopped"))
    assert final_state(stopped) == final_state(straight)
    name = "unreadable_photos.jsonl"
    assert (stopped / name).read_text() == (straight / name).read_text()


# --- Starting from another model ----------------------------------------------------------------


def test_init_from_starts_from_those_weights(
    open_trainer: Callable[..., Trainer], straight: Path
) -> None:
    trainer = open_trainer(f"train.init_from={straight / 'model.safetensors'}")
    trainer.run_log.close()
    weights = load_checkpoint(straight / "model.safetensors").part("model")
    assert all(torch.equal(weights[n], t) for n, t in trainer.net.state_dict().items())
    assert trainer.step == 0


def test_init_from_another_architecture_is_refused(
    yaml_file: Path, tmp_path: Path, straight: Path
) -> None:
    model = straight / "model.safetensors"
    config = settings_of(yaml_file, f"train.init_from={model}", "model.width=3")
    run = open_small_run(config, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        make_trainer(config, run)
    run.lock.release()
    assert str(caught.value) == (
        f"{model}: down.0.convolution.conv.weight is torch.float32 (2, 3, 9, 9); the network "
        "needs torch.float32 (3, 3, 9, 9)"
    )


def test_run_goes_on_though_the_model_it_began_with_is_gone(
    yaml_file: Path, tmp_path: Path, straight: Path
) -> None:
    model = tmp_path / "start.safetensors"
    model.write_bytes((straight / "model.safetensors").read_bytes())
    config = settings_of(yaml_file, f"train.init_from={model}")
    train_once(config, tmp_path, stop_at=2)
    model.unlink()
    assert train_once(config, tmp_path).step == 6


# --- Precision ----------------------------------------------------------------------------------


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
            device, init_scale=64.0, growth_interval=2, enabled=enabled
        ),
    )


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


@pytest.mark.usefixtures("half_precision")
def test_run_in_half_precision_goes_on_with_its_scale(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    train_once(config, tmp_path / "straight")
    stopped = train_once(config, tmp_path / "stopped", stop_at=3)
    assert stopped.scaler.get_scale() == 128.0  # after two good steps, and one more
    resumed = train_once(config, tmp_path / "stopped")
    folders = [tmp_path / name / "tiny" for name in ("straight", "stopped")]
    assert final_state(folders[0]) == final_state(folders[1])
    path = folders[1] / "checkpoints" / "step-00000006.safetensors"
    assert load_checkpoint(path).metadata["loss_scale"] == resumed.scaler.state_dict()
    assert "loss_scale" not in load_checkpoint(folders[1] / "model.safetensors").metadata


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
        f"{path}: its loss_scale is none (could not convert string to float: 'much')"
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
    photos = torch.rand(2, 3, 16, 16, device="cuda")
    trainer.train_step(photos)  # the first one makes Adam's state
    with warnings.catch_warnings(action="ignore"):  # of its being a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_step(photos)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.run_log.close()
    run.release()


@pytest.mark.gpu
def test_recorded_run_is_the_same_to_the_bit(yaml_file: Path, tmp_path: Path) -> None:
    weights = []
    for recorded in ("true", "false"):
        config = settings_of(
            yaml_file,
            *("train.deterministic=true", "train.steps=6", "data.grown_crop_size=24"),
            f"train.cuda_graph={recorded}",
        )
        run = open_small_run(config, tmp_path / recorded)
        trainer = runs_module.build_trainer(config, run, device=torch.device("cuda"), say=ignore)
        trainer.train()
        run.release()
        assert isinstance(trainer.take_gradients, Recorded) == (recorded == "true")
        weights.append(trainer.net.state_dict())
    for name, ours in weights[0].items():
        assert torch.equal(ours, weights[1][name]), name


def test_nothing_is_recorded_on_a_cpu(open_trainer: Callable[..., Trainer]) -> None:
    trainer = open_trainer()
    trainer.prepare()
    assert trainer.take_gradients == trainer.compute_gradients


# --- Compiling ----------------------------------------------------------------------------------


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """torch.compile without the minutes of C++: what is traced runs as it stands, and is listed."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> Any:
        graphs.append(graph)
        return graph.forward

    def trace(module: torch.nn.Module) -> Any:
        return torch.compile(module, fullgraph=True, dynamic=False, backend=keep)

    monkeypatch.setattr(trainer_module, "compile_whole", trace)
    return graphs


def test_compiled_run_is_the_plain_one_and_keeps_the_names_of_weights(
    yaml_file: Path,
    tmp_path: Path,
    traced: list[torch.fx.GraphModule],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer_module, "FastTransform", lambda net: net)  # which rounds otherwise
    train_once(settings_of(yaml_file), tmp_path / "plain")
    plain = tmp_path / "plain" / "tiny"
    config = settings_of(yaml_file, "train.compile=true")
    for stop in (2, None):  # the first run, and a resumed one
        trainer = train_once(config, tmp_path, stop_at=stop)
        assert len(traced) == 2  # the network, and the loss: once each
        traced.clear()
    assert trainer.forward_net is not trainer.net
    ours, theirs = (
        load_checkpoint(folder / "checkpoints" / "step-00000006.safetensors").tensors
        for folder in (tmp_path / "tiny", plain)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (tmp_path / "tiny" / "metrics.csv").read_text() == (plain / "metrics.csv").read_text()


@pytest.mark.slow
def test_grown_crops_are_compiled_for_before_the_first_step(
    open_trainer: Callable[..., Trainer], traced: list[torch.fx.GraphModule]
) -> None:
    trainer = open_trainer("train.compile=true", "data.grown_crop_size=24")
    trainer.prepare()
    assert len(traced) == 4
    trainer.train()
    assert len(traced) == 8  # `prepare` again, and nothing in the steps


@pytest.mark.usefixtures("traced")
def test_compiling_may_be_given_up_by_saying_so(yaml_file: Path, tmp_path: Path) -> None:
    train_once(settings_of(yaml_file, "train.compile=true"), tmp_path, stop_at=2)
    said: list[str] = []
    run = open_small_run(settings_of(yaml_file), tmp_path, say=said.append)
    run.release()
    assert said == ["changed since the checkpoint: train.compile: True -> False"]


def test_network_that_cannot_be_compiled_is_an_error_and_trains_nothing(
    open_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(graph: object, inputs: object) -> Any:
        raise RuntimeError("no compiler today")

    monkeypatch.setattr(
        trainer_module, "compile_whole", lambda module: torch.compile(module, backend=fail)
    )
    trainer = open_trainer("train.compile=true")
    with pytest.raises(UserError) as caught:
        trainer.train()
    assert str(caught.value) == (
        "train.compile: torch cannot compile here (backend='fail' raised: RuntimeError: no "
        "compiler today). Install a C++ compiler, on a GPU also Triton, or set train.compile=false"
    )
    assert checkpoints_of(tmp_path / "tiny") == []
    assert steps_with(tmp_path / "tiny", "step") == []


def test_long_run_on_a_gpu_is_told_of_compiling(
    open_trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    line = (
        "train.compile=true makes steps twice as fast on a GPU, after a minute or two of "
        "compiling\n"
    )
    for steps, device, is_told in ((5001, "cuda", True), (5000, "cuda", False), (5001, "cpu", 0)):
        trainer = open_trainer(f"train.steps={steps}", f"name={steps}{device}")
        trainer.device = torch.device(device)
        trainer.prepare()
        assert (line in capsys.readouterr().out) == is_told


def test_network_that_is_compiled_wrongly_is_an_error(
    open_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(torch.nn.Module):
        """The same values, and no gradient."""

        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.net(photos)
            return output.detach() + 0 * output

    def compile_wrongly(module: torch.nn.Module) -> torch.nn.Module:
        return Wrong(module) if isinstance(module, FastTransform) else module

    monkeypatch.setattr(trainer_module, "compile_whole", compile_wrongly)
    with pytest.raises(UserError) as caught:
        open_trainer("train.compile=true").train()
    assert str(caught.value) == (
        "train.compile: the compiled network's gradient is 100% off the plain one's, so torch "
        f"{torch.__version__} compiles it wrongly here; set train.compile=false"
    )


def test_gradients_are_compared_where_there_is_one() -> None:
    request, ones = CompileRequest("train.compile", "set train.compile=false"), torch.ones(4)
    request.require_same(1.1 * ones, ones, "gradient", most=0.5)
    infinite = torch.full((4,), math.inf)
    request.require_same(infinite, infinite, "gradient", most=0.5)
    for wrong in (torch.zeros(4), -ones, torch.full((4,), math.nan)):
        with pytest.raises(
            UserError, match=r"^train\.compile: the compiled network's gradient is "
        ):
            request.require_same(wrong, ones, "gradient", most=0.5)


def test_network_that_would_be_compiled_in_pieces_is_an_error(
    open_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = open_trainer("train.compile=true")
    original = fast_transform.to_picture_range

    def look(rgb: torch.Tensor, tanh_scale: float) -> torch.Tensor:
        torch._dynamo.graph_break()
        return original(rgb, tanh_scale)

    monkeypatch.setattr(fast_transform, "to_picture_range", look)
    with pytest.raises(UserError, match=r"^train\.compile: torch cannot compile here \("):
        trainer.train()


def test_environment_that_forbids_compiling_is_told(
    open_trainer: Callable[..., Trainer],
) -> None:
    import torch._dynamo

    trainer = open_trainer("train.compile=true")
    # Not by monkeypatch: what this module has by default is gone when it is set back.
    with torch._dynamo.config.patch(disable=True), pytest.raises(UserError) as caught:
        trainer.train()
    assert str(caught.value) == (
        "train.compile: TORCH_COMPILE_DISABLE or TORCHDYNAMO_SUPPRESS_ERRORS in the environment "
        "tells torch to go on without compiling; unset it, or set train.compile=false"
    )


@pytest.mark.slow
def test_truly_compiled_run_is_nearly_the_same_and_goes_on_to_the_same_bytes(
    yaml_file: Path, tmp_path: Path
) -> None:
    shallow = ["loss.content_layers={relu1_1: 1}", "loss.style_layers={relu1_1: 1}"]
    words = [*shallow, "model.residual_blocks=0", "train.steps=4"]
    plain = settings_of(yaml_file, *words)
    config = settings_of(yaml_file, *words, "train.compile=true")
    train_once(plain, tmp_path / "plain")
    train_once(config, tmp_path / "straight")
    train_once(config, tmp_path / "stopped", stop_at=2)
    train_once(config, tmp_path / "stopped")
    folders = [tmp_path / name / "tiny" for name in ("straight", "stopped", "plain")]
    assert final_state(folders[0]) == final_state(folders[1])
    losses = [[float(row["loss/total"] or 0) for row in rows_of(folder)] for folder in folders]
    assert losses[0] == pytest.approx(losses[2], rel=1e-3)


# --- The style picture ---------------------------------------------------------------------------


def test_style_picture_is_kept_as_it_was_used(straight: Path) -> None:
    with Image.open(straight / "style.png") as style:
        assert style.size == (32, 32)
        assert draw_photo(100).size == (40, 40)
