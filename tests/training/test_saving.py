"""What a run saves, and disks that do not let it."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_run import (
    checkpoints_of,
    fail_writing,
)

from fast_style.core.errors import UserError
from fast_style.models.checkpoint import (
    load_transform_net,
)
from fast_style.training.reporting import StepResult
from fast_style.training.saving import writing_step
from fast_style.training.trainer import Trainer


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
    folder = tmp_path / "tiny"
    assert str(caught.value) == (
        "step 1: model.to_rgb.conv.bias has numbers that are not finite. Try a lower "
        "train.learning_rate. The last good checkpoint is "
        f"{folder / 'checkpoints' / 'step-00000000.safetensors'}"
    )
    assert checkpoints_of(folder) == [0]
    load_transform_net(folder / "model.safetensors")


def test_disk_that_is_full_for_a_while_costs_a_warning(
    open_trainer: Callable[..., Trainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_writing(monkeypatch, lambda path: path.name == "step-00000004.safetensors")
    open_trainer().train()
    assert checkpoints_of(tmp_path / "tiny") == [2, 6]
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert warning.startswith(
        "warning: step 4: no checkpoint could be written ([Errno 28] No space left on device; "
    )
    assert warning.endswith(
        f"are free). The last good checkpoint is {tmp_path}/tiny/checkpoints/"
        "step-00000002.safetensors; trying again at the next one"
    )


@pytest.mark.slow
@pytest.mark.parametrize("removed", ["tiny/checkpoints", "tiny"])
def test_folder_that_is_removed_while_training_is_made_again(
    open_trainer: Callable[..., Trainer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    removed: str,
) -> None:
    trainer = open_trainer()
    real = trainer.train_step

    def train_step(photos: torch.Tensor) -> StepResult:
        if trainer.step == 5:
            shutil.rmtree(tmp_path / removed)
        return real(photos)

    trainer.train_step = train_step  # type: ignore[method-assign]
    trainer.train()
    assert checkpoints_of(tmp_path / "tiny") == [6]
    warning = f"warning: {tmp_path}/tiny/checkpoints: this folder is gone"
    assert warning in capsys.readouterr().out
    load_transform_net(tmp_path / "tiny" / "model.safetensors")


def test_checkpoint_that_vanishes_at_once_ends_no_training(
    open_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(temporary: str | Path, path: str | Path) -> None:
        real(temporary, path)
        if Path(path).name == "step-00000004.safetensors":
            Path(path).unlink()

    monkeypatch.setattr(os, "replace", replace)
    open_trainer().train()
    assert checkpoints_of(tmp_path / "tiny") == [2, 6]


@pytest.mark.slow
def test_last_checkpoint_that_cannot_be_written_is_an_error(
    open_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_writing(monkeypatch, lambda path: path.name == "step-00000006.safetensors")
    with pytest.raises(UserError) as caught:
        open_trainer().train()
    assert str(caught.value).startswith("step 6: no checkpoint could be written ([Errno 28] ")
    assert str(caught.value).endswith(
        f"The last good checkpoint is {tmp_path}/tiny/checkpoints/step-00000004.safetensors. "
        "Free some room on its disk, and repeat the command"
    )
    assert caught.value.exit_code == 1


@pytest.mark.slow
def test_model_without_a_checkpoint_is_to_be_moved_away_before_training_again(
    open_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_writing(patch, lambda path: path.name.startswith("step-"))
        with pytest.raises(UserError, match="There is no checkpoint yet") as caught:
            open_trainer().train()
    model = tmp_path / "tiny" / "model.safetensors"
    assert f"move {model} away (it is whole), and repeat the command" in str(caught.value)
    with pytest.raises(UserError, match=r"replace model\.safetensors"):
        open_trainer()
    model.rename(tmp_path / "kept.safetensors")
    assert open_trainer().step == 0


def test_checkpoint_is_the_last_file_of_its_step(
    open_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process killed before the checkpoint does the steps again; one killed after it has nothing
    # left to write. The other way round a finished run might lack its model.
    trainer = open_trainer()
    written: list[str] = []

    def note(path: Path) -> bool:
        written.append(path.name)
        return False

    fail_writing(monkeypatch, note)
    trainer.save()
    card = ["latest.png", "README.md"]
    assert written == ["model.safetensors", *card, "step-00000000.safetensors"]


def test_pictures_that_cannot_be_written_are_told_once_and_do_not_stop_the_run(
    open_trainer: Callable[..., Trainer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = open_trainer()
    (tmp_path / "tiny" / "samples").rmdir()
    (tmp_path / "tiny" / "samples").touch()
    trainer.train()
    assert max(checkpoints_of(tmp_path / "tiny")) == 6
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert warning == (
        f"warning: {tmp_path}/tiny/samples/step-00000000.png: cannot be written (Not a directory); "
        "choose another file or folder; training continues, and other samples are tried without a "
        "warning"
    )


def test_model_card_that_cannot_be_written_costs_no_checkpoint(
    open_trainer: Callable[..., Trainer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = open_trainer()
    (tmp_path / "tiny" / "README.md").mkdir()
    trainer.train()
    assert max(checkpoints_of(tmp_path / "tiny")) == 6
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert warning.startswith(f"warning: {tmp_path}/tiny/README.md: cannot be written ")


def test_model_card_describes_the_model(straight: Path) -> None:
    card = (straight / "README.md").read_text()
    assert card.startswith("# tiny\n")
    assert "RANDOM weights" in card
    assert "- trained: 6 of 6 steps, 12 crops of 16 pixels from 9 photos\n" in card


def test_file_that_is_larger_than_a_process_may_write_names_the_limit(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with pytest.raises(UserError) as caught, writing_step(folder, 3, keep=2, warn=print):
        raise OSError(errno.EFBIG, "File too large")
    for part in ("step 3: ", "File too large", "There is no checkpoint yet. ", "ulimit -f"):
        assert part in str(caught.value)
    assert "are free" not in str(caught.value)
