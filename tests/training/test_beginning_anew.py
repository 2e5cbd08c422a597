"""Runs without a checkpoint, or finished ones: what a training replaces, refuses and repairs."""

import shutil
from pathlib import Path

import pytest
from small_run import draw_photo, open_small_run, settings_of, train_once, write_small_run

from fast_style.core.errors import UserError
from fast_style.models.checkpoint import list_checkpoints
from fast_style.training.running import train

pytestmark = pytest.mark.slow


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return write_small_run(tmp_path)


@pytest.fixture
def finished(yaml_file: Path, tmp_path: Path) -> Path:
    """The folder of a finished run."""
    train_once(settings_of(yaml_file), tmp_path)
    return tmp_path / "tiny"


def refused(yaml_file: Path, root: Path) -> str:
    """The message about a run that is not opened."""
    with pytest.raises(UserError) as caught:
        open_small_run(settings_of(yaml_file), root)
    assert caught.value.exit_code == 2
    return str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a run, by path, but for its lock."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if not path.name.startswith("lock")}


# --- Without a checkpoint ------------------------------------------------------------------------


def test_finished_model_without_checkpoints_is_not_replaced(
    yaml_file: Path, tmp_path: Path, finished: Path
) -> None:
    shutil.rmtree(finished / "checkpoints")
    before = contents(finished)
    message = refused(yaml_file, tmp_path)
    assert message.startswith(f"{finished}: there is no checkpoint")
    assert "replace model.safetensors. " in message
    assert "fresh=True" in message
    assert contents(finished) == before


def test_checkpoint_that_alone_is_left_and_damaged_is_not_replaced(
    yaml_file: Path, tmp_path: Path, finished: Path
) -> None:
    newest, *others = list_checkpoints(finished / "checkpoints")
    for other in others:
        other.unlink()
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    (finished / "model.safetensors").unlink()
    message = refused(yaml_file, tmp_path)
    assert "none of its checkpoints can be used" in message
    assert f"replace {newest.name}. " in message
    assert newest.exists()


def test_folder_that_is_no_run_is_left_alone(yaml_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("README.md", "config.yaml", "model.safetensors"):
        (folder / name).write_text("mine")
    for _ in range(2):  # the first refusal leaves nothing that makes it look like a run
        message = refused(yaml_file, tmp_path)
        assert "replace model.safetensors, README.md, config.yaml. " in message
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "README.md", "config.yaml", "model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["lock", "environment.json"])
@pytest.mark.parametrize("content", ["mine", "", "{}", "[]", '{"versions": {}}'])
def test_file_of_ones_own_makes_no_run_of_a_folder(
    yaml_file: Path, tmp_path: Path, name: str, content: str
) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    own = {name: content, "README.md": "mine"}
    for path, text in own.items():
        (folder / path).write_text(text)
    assert "README.md" in refused(yaml_file, tmp_path)
    left = {path.name: path.read_text() for path in folder.iterdir()}
    assert left == own or (name, content) == ("lock", "")  # an empty lock is ours


def test_run_that_was_killed_right_after_it_had_made_its_folder_begins_anew(
    yaml_file: Path, tmp_path: Path
) -> None:
    for name in ("checkpoints", "samples"):
        (tmp_path / "tiny" / name).mkdir(parents=True)
    (tmp_path / "tiny" / "lock").touch()
    assert train_once(settings_of(yaml_file), tmp_path, stop_at=1).step == 1


def test_model_of_another_name_is_nobodys_result(yaml_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "start.safetensors").write_text("mine")
    with open_small_run(settings_of(yaml_file), tmp_path) as run:
        assert run.start_step == 0


def test_who_is_refused_removes_what_he_made_and_nothing_else(
    yaml_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text("mine")
    refused(yaml_file, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "samples"]


def test_training_cut_short_before_its_first_checkpoint_begins_anew(
    yaml_file: Path, tmp_path: Path, finished: Path
) -> None:
    words = ["name=again", "log.checkpoint_every=2"]
    train_once(settings_of(yaml_file, *words), tmp_path, stop_at=2)
    again = tmp_path / "again"
    shutil.rmtree(again / "checkpoints")  # killed after the model was written
    assert (again / "model.safetensors").exists()
    train_once(settings_of(yaml_file, *words), tmp_path)
    table = "metrics.csv"
    assert (again / table).read_bytes() == (finished / table).read_bytes()


def test_training_that_had_more_than_one_checkpoint_is_not_thrown_away(
    yaml_file: Path, tmp_path: Path
) -> None:
    words = ["log.checkpoint_every=2"]
    train_once(settings_of(yaml_file, *words), tmp_path, stop_at=4)
    shutil.rmtree(tmp_path / "tiny" / "checkpoints")
    model = (tmp_path / "tiny" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"replace model\.safetensors"):
        train_once(settings_of(yaml_file, *words), tmp_path)
    assert (tmp_path / "tiny" / "model.safetensors").read_bytes() == model


def test_training_cut_short_while_its_log_is_opened_begins_anew(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*unused: object, **named: object) -> None:
        raise RuntimeError("a mistake of ours")

    with monkeypatch.context() as patch:
        patch.setattr("fast_style.training.trainer.Reporter", fail)
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            train_once(settings_of(yaml_file), tmp_path)
    assert (tmp_path / "tiny" / "metrics.csv").exists()
    assert train_once(settings_of(yaml_file), tmp_path).step == 6


# --- Finished ------------------------------------------------------------------------------------


def test_finished_run_is_refused_with_another_style_picture(
    yaml_file: Path, tmp_path: Path, finished: Path
) -> None:
    lines = list[str]()
    before = contents(finished)
    style = tmp_path / "style.png"
    draw_photo(101).save(style)
    with pytest.raises(UserError, match=r"the content of style\.image") as caught:
        train(settings_of(yaml_file), root=tmp_path, device="cpu", say=lines.append)
    assert str(caught.value).startswith(f"{finished}: ")
    style.unlink()  # a style picture that has gone is no other one
    train(settings_of(yaml_file), root=tmp_path, device="cpu", say=lines.append)
    assert lines[-1].startswith(f"{finished}: finished at step 6")
    assert contents(finished) == before


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_model_of_a_finished_run_is_written_again(
    yaml_file: Path, tmp_path: Path, finished: Path, damage: str
) -> None:
    model = finished / "model.safetensors"
    before = model.read_bytes()
    if damage == "removed":
        model.unlink()
    else:
        model.write_bytes(before[:-1])
    lines = list[str]()
    assert train(settings_of(yaml_file), root=tmp_path, device="cpu", say=lines.append) == model
    assert any(line.startswith(f"{model}: is missing or damaged") for line in lines)
    assert model.read_bytes() == before
