"""The photos of a run, and those that are unreadable."""

from pathlib import Path

import pytest
import torch
from small_run import (
    checkpoints_of,
    final_state,
    make_trainer,
    open_small_run,
    rows_of,
    settings_of,
    train_once,
    warnings_of,
    write_small_run,
)

from fast_style.core.errors import UserError
from fast_style.models.checkpoint import load_checkpoint


@pytest.mark.slow
def test_unreadable_photos_are_named_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml_file = write_small_run(tmp_path, count=20)
    config = settings_of(yaml_file, "data.max_unreadable_share=1", "train.steps=20")
    photos = sorted((tmp_path / "photos").iterdir())
    probe = train_once(config, tmp_path / "intact", stop_at=1)
    broken = probe.photos.crops.photos.training[:12]
    assert len(photos) == 20
    for path in broken:
        path.write_bytes(b"")
    capsys.readouterr()
    lines = warnings_of(capsys, config, tmp_path)
    skipped = [line for line in lines if line.startswith("skipping ")]
    listed = tmp_path / "tiny" / "unreadable_photos.jsonl"
    assert len(skipped) == 10
    assert set(skipped) <= {f"skipping {path}: empty file" for path in broken}
    assert str(listed) in lines[lines.index(skipped[-1]) + 1]  # where the others are
    assert lines[-1] == f"skipped 12 of 17 photos, listed in {listed}"
    assert len(listed.read_text().splitlines()) == 12
    assert rows_of(tmp_path / "tiny")[-1]["data/skipped"] == "12"


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("leaves_mount_point", [False, True])
def test_folder_that_goes_away_costs_no_step_and_is_told(
    yaml_file: Path, straight: Path, tmp_path: Path, leaves_mount_point: bool
) -> None:
    config = settings_of(yaml_file, "log.checkpoint_every=99")
    photos, elsewhere = config.data.photos, tmp_path / "elsewhere"

    def unplug() -> None:
        if trainer.step == 3 and not elsewhere.exists():
            photos.rename(elsewhere)
            if leaves_mount_point:
                photos.mkdir()

    with open_small_run(config, tmp_path) as run:
        trainer = make_trainer(config, run)
        with pytest.raises(UserError) as caught:
            trainer.train(unplug)
    assert str(caught.value).startswith(f"{photos}: the folder of photos is gone")
    assert "the same command resumes" in str(caught.value)
    assert caught.value.exit_code == 1
    assert checkpoints_of(tmp_path / "tiny") == [3]
    if leaves_mount_point:
        photos.rmdir()
    elsewhere.rename(photos)
    train_once(config, tmp_path)
    table = "metrics.csv"
    assert (tmp_path / "tiny" / table).read_bytes() == (straight / table).read_bytes()
    ours, theirs = (
        load_checkpoint(folder / "model.safetensors")[0] for folder in (tmp_path / "tiny", straight)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_validation_photos_are_never_trained_on(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_small_run(settings_of(yaml_file), tmp_path)
    trainer = make_trainer(settings_of(yaml_file), run)
    photos = trainer.photos.crops.photos
    assert len(photos.validation) == 3
    read: list[Path] = []
    original = trainer.photos.crops.photo_of

    def watch(k: int, attempt: int = 0) -> Path:
        read.append(original(k, attempt))
        return read[-1]

    monkeypatch.setattr(trainer.photos.crops, "photo_of", watch)
    trainer.train()
    run.lock.release()
    assert len(read) == 12
    assert not set(read) & set(photos.validation)
