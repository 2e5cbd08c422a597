"""Run folders: locked, resumed, refused, numbered."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_distillation import random_convolutions
from small_run import (
    PATIENCE_S,
    command_environment,
    draw_photo,
    make_trainer,
    open_small_run,
    settings_of,
    train_once,
    write_small_run,
)
from tiny_model import trained_with_first_compact

from fast_style.core import folder_lock
from fast_style.core.errors import UserError
from fast_style.losses.weight_files import write_weights_file
from fast_style.models.checkpoint import load_checkpoint, save_checkpoint
from fast_style.pictures.folders import find_photos
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import load_config
from fast_style.training import run_folder, run_lock
from fast_style.training.run_folder import Run, open_run
from fast_style.training.run_lock import RunLock


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return write_small_run(tmp_path)


def message_of_opening(yaml_file: Path, root: Path, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        open_small_run(settings_of(yaml_file, *words), root)
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- The lock -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_second_process_is_refused_and_told_which_one_trains(
    yaml_file: Path, tmp_path: Path
) -> None:
    run = open_small_run(settings_of(yaml_file), tmp_path)
    script = (
        "import sys; from pathlib import Path; from fast_style.cli.main import train_main; "
        "raise SystemExit(train_main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, yaml_file],
        capture_output=True,
        text=True,
        cwd=run_root(tmp_path),
        env=command_environment(),
        timeout=PATIENCE_S,
    )
    run.lock.release()
    assert done.stderr.startswith(f"error: runs/tiny: process {os.getpid()} on ")
    assert done.returncode == 2


def run_root(tmp_path: Path) -> Path:
    """A working directory whose folder ``runs`` is tmp_path."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "runs").symlink_to(tmp_path)
    return folder


def test_lock_is_free_again_after_the_run(yaml_file: Path, tmp_path: Path) -> None:
    for _ in range(2):
        open_small_run(settings_of(yaml_file), tmp_path).lock.release()


def test_folder_is_kept_only_if_something_was_written(yaml_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with pytest.raises(KeyboardInterrupt), open_small_run(settings_of(yaml_file), root):
        raise KeyboardInterrupt
    assert not root.exists()
    with open_small_run(settings_of(yaml_file), root) as run:
        (run.folder / "samples" / "mine.png").touch()
    assert [path.name for path in (root / "tiny").iterdir()] == ["samples"]
    train_once(settings_of(yaml_file), root, stop_at=1)
    (root / "tiny" / "config.yaml").unlink()
    with open_small_run(settings_of(yaml_file), root) as run:
        assert run.start_step == 1
    assert (root / "tiny" / "model.safetensors").is_file()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_run_trains_where_the_file_system_has_no_locks(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*unused: object) -> None:
        raise OSError(number, os.strerror(number))

    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", fail)
    monkeypatch.setattr(folder_lock, "_BEAT_S", 0.05)
    monkeypatch.setattr(folder_lock, "_LOOK_S", 0.05)
    with open_small_run(settings_of(yaml_file), tmp_path / "runs") as run:
        assert (run.folder / "lock.held").exists()
        monkeypatch.setattr(run_lock, "_held", {})  # as another process sees it
        message = message_of_opening(yaml_file, tmp_path / "runs")
        assert message.startswith(f"{tmp_path}/runs/tiny: process {os.getpid()} on ")
        assert message.endswith(" trains here already; wait for it, or set another name=...")
    assert not (tmp_path / "runs").exists()
    train_once(settings_of(yaml_file), tmp_path / "runs", stop_at=1)
    assert list((tmp_path / "runs" / "tiny").glob("lock*")) == []


@pytest.mark.parametrize("has_root", [True, False])
def test_folder_that_cannot_be_locked_leaves_nothing(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_root: bool
) -> None:
    def fail(*unused: object, **settings: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    root = tmp_path / "far" / "runs"
    if has_root:
        root.mkdir(parents=True)
    monkeypatch.setattr(folder_lock.tempfile, "TemporaryFile", fail)
    message = message_of_opening(yaml_file, root)
    assert message.startswith(f"{root}/tiny: cannot be written (Input/output error); ")
    assert list(tmp_path.glob("far/**")) == ([root.parent, root] if has_root else [])


def test_run_that_another_process_took_over_stops(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_small_run(settings_of(yaml_file), tmp_path) as run:
        run.require_lock()
        monkeypatch.setattr(RunLock, "is_lost", property(lambda lock: True))
        with pytest.raises(UserError, match="another process has taken this run over") as caught:
            run.require_lock()
        assert caught.value.exit_code == 1


def test_file_in_place_of_a_folder_is_told(yaml_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.touch()
    message = message_of_opening(yaml_file, root)
    assert message.startswith(f"{root}: is a file")
    assert message.endswith("or train elsewhere")
    root.unlink()
    root.mkdir()
    (root / "tiny").symlink_to(tmp_path / "gone")
    message = message_of_opening(yaml_file, root)
    assert message.startswith(f"{root}/tiny: is a file")
    assert message.endswith("name=...")
    assert (root / "tiny").is_symlink()
    with open_small_run(settings_of(yaml_file), root, fresh=True) as run:
        assert run.folder == root / "tiny-2"
    (root / "tiny").unlink()
    (root / "tiny").mkdir()
    (root / "tiny" / "samples").touch()
    message = message_of_opening(yaml_file, root)
    assert message.startswith(f"{root}/tiny/samples: is a file")


def test_folder_that_cannot_be_written_names_what_the_caller_can_set(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*unused: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(run_folder, "lock_run", fail)
    config = settings_of(yaml_file)
    for anew, remedy in (("fresh=True", "set root="), ("--resume never", "working directory")):
        with pytest.raises(UserError, match=remedy):
            open_run(config, root=tmp_path, fresh=False, say=str, anew=anew)


def test_lock_file_of_another_user_is_named(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny" / "lock"
    file.parent.mkdir()

    def fail(*unused: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(run_folder, "lock_run", fail)
    message = message_of_opening(yaml_file, tmp_path)
    assert message.startswith(f"{file}: cannot be written (Permission denied); ask its owner")
    assert "name=" in message


def test_who_finds_the_folder_locked_removes_nothing(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_another_was_quicker(folder: Path, *unused: object) -> None:
        for name in ("checkpoints", "samples"):
            (folder / name).mkdir()
        (folder / "lock").touch()
        raise UserError("trains here already")

    monkeypatch.setattr(run_folder, "lock_run", lock_another_was_quicker)
    message_of_opening(yaml_file, tmp_path)
    present = sorted(path.name for path in (tmp_path / "tiny").iterdir())
    assert present == ["checkpoints", "lock", "samples"]


def test_stray_temporary_files_of_a_killed_process_are_removed(
    yaml_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / ".fast-style-abc").touch()
    (folder / "notes.txt").touch()
    open_small_run(settings_of(yaml_file), tmp_path).lock.release()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


# --- Resuming -------------------------------------------------------------------------------------


def test_same_settings_go_on_and_say_nothing(yaml_file: Path, tmp_path: Path) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=3)
    said: list[str] = []
    run = open_small_run(settings_of(yaml_file), tmp_path, say=said.append)
    run.lock.release()
    assert run.resume_from is not None
    assert run.resume_from.metadata["step"] == 3
    assert said == []


def test_harmless_changes_are_shown_and_allowed(yaml_file: Path, tmp_path: Path) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=3)
    said: list[str] = []
    words = ["log.every=2", "data.workers=1", "data.max_unreadable_share=0.5"]
    run = open_small_run(settings_of(yaml_file, *words), tmp_path, say=said.append)
    run.lock.release()
    assert run.resume_from is not None
    assert said == [
        "changed since the checkpoint: data.workers: 0 -> 1",
        "changed since the checkpoint: data.max_unreadable_share: 0.05 -> 0.5",
        "changed since the checkpoint: log.every: 1 -> 2",
    ]


def test_changes_of_what_is_learned_are_refused(yaml_file: Path, tmp_path: Path) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=3)
    words = ["loss.style_weight=7", "train.batch_size=3", "log.every=2"]
    assert message_of_opening(yaml_file, tmp_path, *words) == (
        f"{tmp_path}/tiny: these settings differ from the checkpoint's and would change the "
        "result: loss.style_weight, train.batch_size. Set them back, as they are in "
        f"{tmp_path}/tiny/config.yaml, train in a new folder with "
        "fresh=True (or another name=...), or start from this model's weights with "
        "train.init_from"
    )
    kept = load_config(tmp_path / "tiny" / "config.yaml")
    with open_small_run(kept, tmp_path) as run:
        assert run.start_step == 3


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings, and a run of them that has taken one step."""
    folder = tmp_path_factory.mktemp("begun")
    train_once(settings_of(write_small_run(folder)), folder, stop_at=1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "word",
    [
        "seed=9",
        "style.size=64",
        "data.crop_size=20",
        "data.flip=false",
        "model.width=3",
        "loss_network.pooling=average",
        "loss.style_layers={relu1_2: 2}",
        "train.learning_rate=3e-3",
        "train.precision=bf16",
    ],
)
def test_each_learning_setting_is_refused(begun: Path, word: str) -> None:
    told = message_of_opening(begun / "tiny.yaml", begun, word)
    assert f"would change the result: {word.partition('=')[0]}" in told


@pytest.mark.slow
def test_cosine_run_cannot_be_prolonged_and_constant_one_not_be_shortened(
    yaml_file: Path, tmp_path: Path
) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=3)
    for words in (["train.steps=8"], ["train.steps=8", "train.schedule=constant"]):
        assert message_of_opening(yaml_file, tmp_path, *words) == (
            f"{tmp_path}/tiny: train.steps: this run began with the schedule cosine, which ends at "
            "step 6; only a run that begins with train.schedule=constant can be prolonged. Set "
            "train.steps and train.schedule back, or train further from this model in another "
            f"run, as with name=tiny-more train.init_from={tmp_path}/tiny/model.safetensors"
        )
    assert "would change the result: train.steps. " in message_of_opening(
        yaml_file, tmp_path, "train.steps=5"
    )
    constant = ["train.schedule=constant", "name=constant"]
    train_once(settings_of(yaml_file, *constant), tmp_path, stop_at=3)
    told = message_of_opening(yaml_file, tmp_path, *constant, "train.steps=2")
    assert "would change the result: train.steps. " in told
    run = open_small_run(settings_of(yaml_file, *constant, "train.steps=3"), tmp_path)
    run.lock.release()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: draw_photo(101).save(folder / "style.png"),
            "the content of style.image is not what this run was started with (its digest "
            "differs). Restore it",
        ),
        (
            lambda folder: draw_photo(102).save(folder / "photos" / "one more.png"),
            "the names of the files in data.photos are not those this run was started with "
            "(9 to train on then, and 10 now). Restore them",
        ),
        (
            lambda folder: (folder / "photos" / "photo-03.png").rename(folder / "photos" / "x.png"),
            "the names of the files in data.photos are not those this run was started with "
            "(as many files, but the digest of their names differs). Restore them",
        ),
    ],
)
def test_other_contents_are_refused_by_digest(
    yaml_file: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=1)
    change(tmp_path)
    run = open_small_run(settings_of(yaml_file), tmp_path)
    with pytest.raises(UserError) as caught:
        make_trainer(settings_of(yaml_file), run)
    run.lock.release()
    assert str(caught.value) == (
        f"{tmp_path}/tiny: {message}, or train in a new folder with fresh=True (or another "
        "name=...)"
    )


@pytest.mark.slow
def test_photos_and_style_may_move(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    train_once(config, tmp_path / "straight")
    train_once(config, tmp_path / "moved", stop_at=3)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    (tmp_path / "style.png").rename(tmp_path / "renamed.png")
    words = [f"data.photos={tmp_path}/elsewhere", f"style.image={tmp_path}/renamed.png"]
    train_once(settings_of(yaml_file, *words), tmp_path / "moved")
    tables = [tmp_path / name / "tiny" / "metrics.csv" for name in ("straight", "moved")]
    assert tables[0].read_bytes() == tables[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "value"), [("photos", None), ("settings", []), ("photos", {"rules": "x"})]
)
def test_checkpoint_that_cannot_be_compared_is_an_error_that_names_it(
    yaml_file: Path, tmp_path: Path, name: str, value: object
) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=2)
    path = tmp_path / "tiny/checkpoints/step-00000002.safetensors"
    found = load_checkpoint(path)
    save_checkpoint(path, found.tensors, {**found.metadata, name: value})
    assert message_of_opening(yaml_file, tmp_path) == (
        f"{path}: does not say which settings and photos it was trained with; remove it, and the "
        "run resumes from an earlier checkpoint"
    )


def test_checkpoint_without_a_step_is_skipped(yaml_file: Path, tmp_path: Path) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=2)
    found = load_checkpoint(tmp_path / "tiny/checkpoints/step-00000002.safetensors")
    forged = tmp_path / "tiny/checkpoints/step-00000003.safetensors"
    save_checkpoint(forged, found.tensors, {**found.metadata, "step": -3})
    said: list[str] = []
    with open_small_run(settings_of(yaml_file), tmp_path, say=said.append) as run:
        assert run.start_step == 2
    assert said == [
        f"skipping {forged}: its description is incomplete or wrong (step must be a number of "
        "steps, got -3)"
    ]


@pytest.mark.slow
def test_damaged_newest_checkpoint_costs_an_interval_only(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    train_once(config, tmp_path / "straight")
    train_once(config, tmp_path / "damaged", stop_at=5)
    folders = [tmp_path / name / "tiny" for name in ("straight", "damaged")]
    damaged = folders[1] / "checkpoints" / "step-00000005.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    said: list[str] = []
    run = open_small_run(config, tmp_path / "damaged", say=said.append)
    assert run.resume_from is not None
    assert run.resume_from.metadata["step"] == 4
    assert said == [
        f"skipping {damaged}: is damaged: its contents do not match the digest it was written "
        "with; use another copy"
    ]
    make_trainer(config, run).train()
    run.lock.release()
    first, second = (
        (folder / "checkpoints" / "step-00000006.safetensors").read_bytes() for folder in folders
    )
    assert first == second


# --- Runs from before the network was antialiased -----------------------------------------------


@pytest.fixture
def aliased_folder(yaml_file: Path, tmp_path: Path) -> Path:
    """A run that took one step of three, and whose files do not name model.antialiased."""
    config = settings_of(yaml_file, "model.antialiased=false", "train.steps=3")
    train_once(config, tmp_path / "straight")
    train_once(config, tmp_path, stop_at=1)
    (checkpoint,) = (tmp_path / "tiny" / "checkpoints").iterdir()
    tensors, description = load_checkpoint(checkpoint)
    for section in (description["architecture"], description["settings"]["model"]):
        assert section.pop("antialiased") is False
    save_checkpoint(checkpoint, tensors, description)
    return tmp_path


def test_run_without_the_setting_goes_on_with_the_network_it_has(
    yaml_file: Path, aliased_folder: Path
) -> None:
    train_once(settings_of(yaml_file, "train.steps=3"), aliased_folder)
    models = [
        folder / "tiny" / "model.safetensors"
        for folder in (aliased_folder, aliased_folder / "straight")
    ]
    assert models[0].read_bytes() == models[1].read_bytes()
    assert load_config(aliased_folder / "tiny" / "config.yaml").model.antialiased is False


def test_run_without_the_setting_does_not_take_another_network(
    yaml_file: Path, aliased_folder: Path
) -> None:
    words = ["model.antialiased=true", "train.steps=3"]
    told = message_of_opening(yaml_file, aliased_folder, *words)
    assert "would change the result: model.antialiased. Set them back" in told


# --- Runs from before there was another optimizer than Adam --------------------------------------


@pytest.mark.slow
def test_run_that_names_no_optimizer_goes_on_with_adam(yaml_file: Path, tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    train_once(settings_of(yaml_file, "train.optimizer=adam"), straight)
    train_once(settings_of(yaml_file, "train.optimizer=adam"), tmp_path, stop_at=2)
    (checkpoint,) = (tmp_path / "tiny" / "checkpoints").iterdir()
    tensors, description = load_checkpoint(checkpoint)
    assert description["settings"]["train"].pop("optimizer") == "adam"
    save_checkpoint(checkpoint, tensors, description)
    told = message_of_opening(yaml_file, tmp_path, "train.optimizer=muon")
    assert "would change the result: train.optimizer. Set them back" in told
    train_once(settings_of(yaml_file), tmp_path)  # which names none either
    models = [folder / "tiny" / "model.safetensors" for folder in (tmp_path, straight)]
    assert models[0].read_bytes() == models[1].read_bytes()


# --- Runs with the compact weights that were learned from VGG-19 ---------------------------------

OLD_LAYERS = "{relu1_2: 1.0, relu2_2: 1.0, relu3_3: 1.0, relu3_4: 1.0}"


@pytest.fixture
def old_file(yaml_file: Path, tmp_path: Path) -> Path:
    """The settings of a run that took one step with those weights; here they are random numbers.

    The run folder is ``tiny``, its weights are ``first.safetensors``.
    """
    channels = {f"{block}_{number}": 4 for block in (1, 2) for number in (1, 2)}
    channels |= {f"3_{number}": 4 for number in (1, 2, 3, 4)}
    said = {"preprocessing": "caffe", "padding": "reflect"}
    weights = tmp_path / "first.safetensors"
    write_weights_file(weights, "vgg19", random_convolutions(channels), {}, said)
    config = settings_of(
        yaml_file,
        f"loss_network.weights={weights}",
        "loss_network.architecture=vgg19",
        f"loss.style_layers={OLD_LAYERS}",
    )
    train_once(config, tmp_path / "straight")
    train_once(config, tmp_path, stop_at=1)
    (checkpoint,) = (tmp_path / "tiny" / "checkpoints").iterdir()
    tensors, description = load_checkpoint(checkpoint)
    old = trained_with_first_compact(description)
    assert description["settings"]["loss"] == old["settings"]["loss"]
    save_checkpoint(checkpoint, tensors, old | {"loss_network": description["loss_network"]})
    settings = tmp_path / "tiny" / "config.yaml"
    settings.write_text(settings.read_text().replace(str(weights), "compact"))
    return settings


@pytest.mark.slow
def test_settings_with_the_first_compact_network_are_told_by_their_lines(old_file: Path) -> None:
    lines = {line.strip(): n for n, line in enumerate(old_file.read_text().splitlines(), start=1)}
    with pytest.raises(UserError) as caught:
        load_config(old_file)
    assert str(caught.value) == (
        f"{old_file}:{lines['architecture: vgg19']}: loss_network.architecture: must be vgg16 for "
        "the weights compact, got vgg19; they are learned from VGG-16 up to relu4_3, and no longer "
        "from VGG-19\n"
        f"{old_file}:{lines['style_layers:']}: loss.style_layers: vgg16 has no relu3_4; the last "
        "of its block 3 is relu3_3 (loss_network.architecture); write relu4_3 instead"
    )


@pytest.mark.slow
def test_run_with_the_first_compact_network_is_refused_with_the_ways_out(
    old_file: Path, yaml_file: Path, tmp_path: Path
) -> None:
    folder = old_file.parent
    compact = "loss_network.weights=compact"
    assert message_of_opening(yaml_file, tmp_path, compact) == (
        f"{folder}: was trained with compact weights of vgg19 (loss_network), which fast-style no "
        "longer has: compact is learned from VGG-16 now. Train in a new folder with fresh=True "
        f"(or another name=...), from this run's model with train.init_from={folder}/"
        "model.safetensors. It can be resumed only with those weights, of an earlier version: "
        f"train {folder}/config.yaml loss_network.weights=FILE"
    )
    begun = f"train.init_from={folder / 'model.safetensors'}"
    train_once(settings_of(yaml_file, compact, begun, "name=anew", "train.steps=1"), tmp_path)


@pytest.mark.slow
def test_run_with_the_first_compact_network_is_resumed_exactly_with_its_weights(
    old_file: Path, tmp_path: Path
) -> None:
    weights = f"loss_network.weights={tmp_path / 'first.safetensors'}"
    train_once(load_config(old_file, [weights]), tmp_path)
    tables = [folder / "tiny" / "metrics.csv" for folder in (tmp_path, tmp_path / "straight")]
    assert tables[0].read_bytes() == tables[1].read_bytes()


@pytest.mark.slow
def test_other_changes_of_a_run_with_the_first_compact_network_are_told_as_usual(
    old_file: Path, tmp_path: Path
) -> None:
    words = [f"loss_network.weights={tmp_path / 'first.safetensors'}", "loss.style_weight=7"]
    told = message_of_opening(old_file, tmp_path, *words)
    assert "would change the result: loss.style_weight. Set them back" in told


# --- Folders --------------------------------------------------------------------------------------


def test_fresh_runs_are_numbered_and_can_be_gone_on_with(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    train_once(config, tmp_path, stop_at=1)
    for number in (2, 3):
        run = open_small_run(config, tmp_path, fresh=True)
        assert run.folder == tmp_path / f"tiny-{number}"
        make_trainer(config, run).train()
        run.lock.release()
    metadata = load_checkpoint(tmp_path / "tiny-2" / "model.safetensors").metadata
    assert metadata["name"] == metadata["settings"]["name"] == "tiny-2"
    kept = load_config(tmp_path / "tiny-2" / "config.yaml")
    said: list[str] = []
    run = open_small_run(kept, tmp_path, say=said.append)
    run.lock.release()
    assert run.folder == tmp_path / "tiny-2"
    assert run.resume_from is not None
    assert said == []


def test_renamed_run_goes_on_under_its_new_name(yaml_file: Path, tmp_path: Path) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=2)
    (tmp_path / "tiny").rename(tmp_path / "better")
    said: list[str] = []
    run = open_small_run(settings_of(yaml_file, "name=better"), tmp_path, say=said.append)
    run.lock.release()
    assert run.resume_from is not None
    assert said == ["changed since the checkpoint: name: tiny -> better"]


def test_folders_made_for_a_run_that_did_not_begin_are_removed(
    yaml_file: Path, tmp_path: Path
) -> None:
    config = settings_of(yaml_file)
    with open_small_run(config, tmp_path / "new" / "runs"):
        assert (tmp_path / "new" / "runs" / "tiny" / "checkpoints").is_dir()
    assert not (tmp_path / "new").exists()
    with open_small_run(config, tmp_path / "new" / "runs"):
        (tmp_path / "new" / "notes.txt").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["notes.txt"]


# --- The rules by which folders of photos are searched -------------------------------------------


def add_what_the_first_rules_take(folder: Path) -> None:
    """Photos that a run which began by the first rules has, and a new one has not."""
    (folder / "thumbs").mkdir()
    draw_photo(201).save(folder / "thumbs" / "t.png")
    draw_photo(202).save(folder / "photo-00.wave.png")
    write_picture(folder / "made.png", draw_photo(203))


@pytest.mark.slow
def test_run_that_has_begun_keeps_its_rules_and_its_photos(yaml_file: Path, tmp_path: Path) -> None:
    add_what_the_first_rules_take(tmp_path / "photos")
    config = settings_of(yaml_file, "train.steps=3")
    with pytest.MonkeyPatch.context() as patch:  # as earlier versions were
        patch.setattr(Run, "photo_rules", 1)
        train_once(config, tmp_path / "straight")
        train_once(config, tmp_path, stop_at=1)
    (checkpoint,) = (tmp_path / "tiny" / "checkpoints").iterdir()
    tensors, description = load_checkpoint(checkpoint)
    assert description["photos"].pop("rules") == 1
    assert description["photos"]["count"] == 12
    del description["settings"]["data"]["include_results"]
    save_checkpoint(checkpoint, tensors, description)
    # What appears later is no photo by the new rules, but would be one by the first.
    train_once(config, tmp_path)
    models = [folder / "tiny" / "model.safetensors" for folder in (tmp_path, tmp_path / "straight")]
    assert load_checkpoint(models[0]).metadata["photos"]["rules"] == 1
    assert load_checkpoint(models[0]).part("model").keys()
    for name, tensor in load_checkpoint(models[1]).tensors.items():
        assert torch.equal(tensor, load_checkpoint(models[0]).tensors[name])


def test_photos_that_changed_between_stop_and_resume_are_told(
    yaml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_of(yaml_file, "train.steps=3")
    train_once(config, tmp_path, stop_at=1)
    train_once(config, tmp_path, stop_at=2)
    assert "sizes" not in capsys.readouterr().out
    photo, *_ = sorted((tmp_path / "photos").glob("*.png"))
    draw_photo(204, (80, 80)).save(photo)
    train_once(config, tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "sizes" in line]
    assert line.startswith("warning: data.photos: ")


def test_swapped_photos_are_told_and_held_out_ones_apart_from_them(
    yaml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_of(yaml_file, "train.steps=4")
    photos = find_photos(config.data.photos, validation_count=config.data.validation_count)
    first, second = photos.training[:2]
    draw_photo(204, (80, 80)).save(first, format="PNG")
    train_once(config, tmp_path, stop_at=1)
    draw_photo(205, (70, 70)).save(photos.validation[0], format="PNG")
    train_once(config, tmp_path, stop_at=2)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "sizes" in line]
    assert line.startswith("warning: the held-out photos (data.validation_photos, ")
    contents = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(contents)
    train_once(config, tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "sizes" in line]
    assert line.startswith("warning: data.photos: some files have other sizes")


def test_checkpoint_with_odd_sizes_of_photos_is_resumed(
    yaml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_of(yaml_file, "train.steps=2")
    train_once(config, tmp_path, stop_at=1)
    (checkpoint,) = (tmp_path / "tiny" / "checkpoints").iterdir()
    tensors, description = load_checkpoint(checkpoint)
    description["photos"]["sizes"] = [1, {"a": None}]
    save_checkpoint(checkpoint, tensors, description)
    train_once(config, tmp_path)
    assert "some files have other sizes" in capsys.readouterr().out


@pytest.mark.slow
def test_run_that_began_by_the_second_rules_keeps_its_photos(
    yaml_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos" / "Recycle Bin").mkdir()
    draw_photo(201).save(tmp_path / "photos" / "Recycle Bin" / "t.png")
    config = settings_of(yaml_file, "train.steps=3")
    with pytest.MonkeyPatch.context() as patch:  # as earlier versions were
        patch.setattr(Run, "photo_rules", 2)
        train_once(config, tmp_path, stop_at=1)
    train_once(config, tmp_path)  # refused if the photos were others
    assert load_checkpoint(tmp_path / "tiny" / "model.safetensors").metadata["photos"] == {
        **load_checkpoint(min((tmp_path / "tiny" / "checkpoints").iterdir())).metadata["photos"],
        "count": 10,
        "rules": 2,
    }
    train_once(settings_of(yaml_file, "name=new"), tmp_path, stop_at=1)
    (new,) = (tmp_path / "new" / "checkpoints").iterdir()
    assert load_checkpoint(new).metadata["photos"]["count"] == 9


def test_run_that_began_by_the_third_rules_keeps_its_links(yaml_file: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "link.png").symlink_to("photo-01.png")
    config = settings_of(yaml_file, "train.steps=3")
    with pytest.MonkeyPatch.context() as patch:  # as earlier versions were
        patch.setattr(Run, "photo_rules", 3)
        train_once(config, tmp_path, stop_at=1)
    train_once(config, tmp_path)  # refused if the photos were others
    begun, new = ({"count": 10, "rules": 3}, {"count": 9, "rules": 5})
    photos = load_checkpoint(tmp_path / "tiny" / "model.safetensors").metadata["photos"]
    assert photos == photos | begun
    train_once(settings_of(yaml_file, "name=new"), tmp_path, stop_at=1)
    (checkpoint,) = (tmp_path / "new" / "checkpoints").iterdir()
    photos = load_checkpoint(checkpoint).metadata["photos"]
    assert photos == photos | new


def test_new_run_leaves_out_and_says_so(yaml_file: Path, tmp_path: Path) -> None:
    add_what_the_first_rules_take(tmp_path / "photos")
    said: list[str] = []
    run = open_small_run(settings_of(yaml_file), tmp_path)
    trainer = make_trainer(settings_of(yaml_file), run, say=said.append)
    trainer.run_log.close()
    run.release()
    assert said[0] == (
        f"{tmp_path}/photos: 1 result of fast-style left out: photo-00.wave.png "
        "(data.include_results=true takes them in); 1 folder of thumbnails, trash or a system left "
        "out: thumbs"
    )
    assert trainer.description["photos"]["rules"] == 5


def test_results_made_during_a_run_do_not_change_its_photos(
    yaml_file: Path, tmp_path: Path
) -> None:
    config = settings_of(yaml_file, f"data.photos={tmp_path}")
    train_once(config, tmp_path / "runs", stop_at=2)
    write_picture(tmp_path / "photos" / "photo-00.tiny.jpg", draw_photo(9))
    said: list[str] = []
    run = open_small_run(config, tmp_path / "runs")
    make_trainer(config, run, say=said.append).run_log.close()
    run.release()
    assert "runs/tiny/" in said[0]
    assert "photos/photo-00.tiny.jpg" in said[0]
