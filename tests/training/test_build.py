"""Whole runs: locked, resumed, refused, stopped and killed."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from small_run import (
    SETTINGS,
    draw_photo,
    make_trainer,
    open_small_run,
    settings_of,
    train_once,
    write_photos,
    write_small_run,
)

from fast_style.cli.main import train_main
from fast_style.core.errors import UserError
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.models.checkpoint import load_checkpoint
from fast_style.models.model_files import describe
from fast_style.settings.config import load_config
from fast_style.training import build as runs_module

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 120  # a step takes milliseconds; a busy machine may take its time all the same

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture(autouse=True)
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "_SMALLEST_SAMPLE", 32)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a third of such a small run's time


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return write_small_run(tmp_path)


def message_of_opening(yaml_file: Path, root: Path, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        open_small_run(settings_of(yaml_file, *words), root)
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- The lock -----------------------------------------------------------------------------------


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
        env=environment(),
        timeout=PATIENCE_S,
    )
    run.lock.release()
    assert done.stderr == (
        f"error: runs/tiny: process {os.getpid()} on {socket.gethostname()} trains here already; "
        "wait for it, or set another name=...\n"
    )
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


def test_file_in_place_of_the_runs_folder_is_told(yaml_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.touch()
    assert message_of_opening(yaml_file, root) == (
        f"{root}/tiny: cannot be written (Not a directory); runs lie in the working directory"
    )


def test_stray_temporary_files_of_a_killed_process_are_removed(
    yaml_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / ".fast-style-abc").touch()
    (folder / "notes.txt").touch()
    open_small_run(settings_of(yaml_file), tmp_path).lock.release()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


# --- Going on -----------------------------------------------------------------------------------


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
        f"{tmp_path}/tiny: these settings would change the run that is there: loss.style_weight, "
        "train.batch_size. Set them back, train in a new folder with --resume never (or another "
        "name=...), or start from this model's weights with train.init_from"
    )


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
def test_each_learning_setting_is_refused(yaml_file: Path, tmp_path: Path, word: str) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=1)
    assert "would change the run that is there: " in message_of_opening(yaml_file, tmp_path, word)


def test_cosine_run_cannot_be_prolonged_and_constant_one_not_be_shortened(
    yaml_file: Path, tmp_path: Path
) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=3)
    assert "there: train.steps. " in message_of_opening(yaml_file, tmp_path, "train.steps=8")
    constant = ["train.schedule=constant", "name=constant"]
    train_once(settings_of(yaml_file, *constant), tmp_path, stop_at=3)
    told = message_of_opening(yaml_file, tmp_path, *constant, "train.steps=2")
    assert "there: train.steps. " in told
    run = open_small_run(settings_of(yaml_file, *constant, "train.steps=3"), tmp_path)
    run.lock.release()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("style.image", "style.image is not what this run was begun with"),
        ("data.photos", "data.photos is not what this run was begun with"),
    ],
)
def test_other_contents_are_refused_by_digest(
    yaml_file: Path, tmp_path: Path, key: str, message: str
) -> None:
    train_once(settings_of(yaml_file), tmp_path, stop_at=1)
    if key == "style.image":
        draw_photo(101).save(tmp_path / "style.png")
    else:
        draw_photo(102).save(tmp_path / "photos" / "one more.png")
    run = open_small_run(settings_of(yaml_file), tmp_path)
    with pytest.raises(UserError) as caught:
        make_trainer(settings_of(yaml_file), run)
    run.lock.release()
    assert str(caught.value) == (
        f"{tmp_path}/tiny: {message} (its digest differs). Put it back, or train in a new folder "
        "with --resume never"
    )


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


# --- Folders ------------------------------------------------------------------------------------


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


# --- The command --------------------------------------------------------------------------------


def test_command_trains_and_says_so_and_again_says_it_is_finished(
    yaml_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(yaml_file), "--device", "cpu"]
    assert train_main(arguments) == 0
    assert capsys.readouterr().out.endswith("finished: runs/tiny/model.safetensors\n")
    before = (tmp_path / "runs/tiny/metrics.csv").read_bytes()
    assert train_main(arguments) == 0
    assert capsys.readouterr().out == (
        "runs/tiny: finished at step 6; the model is runs/tiny/model.safetensors. Begin anew with "
        "--resume never, or start another run from it with train.init_from\n"
    )
    assert (tmp_path / "runs/tiny/metrics.csv").read_bytes() == before
    assert not (tmp_path / "runs/tiny-2").exists()
    assert train_main([*arguments, "--resume", "never"]) == 0
    assert (tmp_path / "runs/tiny-2/model.safetensors").read_bytes()


def test_missing_style_is_one_line_and_exit_code_two(
    yaml_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "style.png").unlink()
    assert train_main([str(yaml_file), "--device", "cpu"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/style.png: not found\n"


def test_blank_style_is_told(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    run = open_small_run(config, tmp_path)
    weights = load_loss_weights(config)
    dead = {
        number: (kernel * 0, bias * 0) for number, (kernel, bias) in weights.convolutions.items()
    }
    with pytest.raises(UserError, match=r"the loss network sees nothing in this style picture"):
        build_perceptual_loss(
            config,
            weights._replace(convolutions=dead),
            read_style(config),
            torch.device("cpu"),
        )
    run.lock.release()


def test_full_network_is_announced_with_what_needs_no_download(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: object) -> None:
        raise UserError("no weights here")

    monkeypatch.setattr(runs_module, "load_loss_weights", refuse)
    for weights, expected in (("imagenet", 1), ("random", 0), ("compact", 0)):
        said: list[str] = []
        config = settings_of(yaml_file, f"name={weights}", f"loss_network.weights={weights}")
        run = open_small_run(config, tmp_path)
        with pytest.raises(UserError, match="no weights here"):
            make_trainer(config, run, say=said.append)
        run.lock.release()
        found = [line for line in said if "loss_network.weights=compact needs neither" in line]
        assert len(found) == expected


def test_crops_grow_after_their_share_of_the_steps(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file, "data.grown_crop_size=24", "data.grow_after=0.6")
    run = open_small_run(config, tmp_path / "runs")
    trainer = make_trainer(config, run)
    sides = [photos.shape[-1] for photos in trainer._photos()]
    trainer.run_log.close()
    run.lock.release()
    assert sides == [16, 16, 16, 16, 24, 24]  # 0.6 of 6 is 3.6
    assert trainer.validation_photos.shape[-1] == 24
    card = "\n".join(describe({**trainer.description, "step": 6}))
    assert "12 crops of 16, later 24, pixels from 9 photos" in card


def test_run_is_built_without_touching_the_global_random_numbers(
    yaml_file: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run = open_small_run(settings_of(yaml_file), tmp_path)
    make_trainer(settings_of(yaml_file), run).run_log.close()
    run.lock.release()
    assert torch.equal(torch.rand(3), expected)


# --- Processes that are stopped and killed ------------------------------------------------------

LONG = {
    "data": {**SETTINGS["data"], "workers": 2},
    "train": {**SETTINGS["train"], "steps": 400},
    "log": {
        "every": 3,
        "shares_every": 1000,
        "validate_every": 1000,
        "samples_every": 1000,
        "samples": 1,
        "checkpoint_every": 4,
        "keep_checkpoints": 5,
    },
}


def write_long_run(folder: Path, steps: int, workers: int) -> Path:
    write_photos(folder / "photos")
    draw_photo(100).save(folder / "style.png")
    path = folder / "tiny.yaml"
    settings = {**SETTINGS, **LONG}
    settings["train"] = {**settings["train"], "steps": steps}
    settings["data"] = {**settings["data"], "workers": workers}
    path.write_text(yaml.safe_dump(settings))
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def training(yaml_file: Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """``python train.py tiny.yaml`` in a session of its own; nothing of it is left behind."""
    cwd.mkdir(exist_ok=True)
    # A command inherits what is ignored: under nohup, SIGHUP.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [sys.executable, REPOSITORY / "train.py", yaml_file, "--device", "cpu"],
            cwd=cwd,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def newest_row(cwd: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((cwd / "runs/tiny/metrics.csv").read_text().splitlines()[-1].split(",")[0])
    return -1


def wait_for_row(process: subprocess.Popen[str], cwd: Path, step: int) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while (row := newest_row(cwd)) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run does not get there"
        time.sleep(0.005)
    return row


def finish(yaml_file: Path, cwd: Path) -> str:
    with training(yaml_file, cwd) as process:
        output, _ = process.communicate(timeout=2 * PATIENCE_S)
        assert process.returncode == 0, output
        return output


def members_of_session(leader: int) -> list[int]:
    """Processes of a session that are alive (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name_and_rest = (entry / "stat").read_text().rpartition(")")
            state, _, _, session = name_and_rest[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(entry.name))
    return found


def assert_session_ends(leader: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while members := members_of_session(leader):
        assert time.monotonic() < deadline, f"left behind: {members}"
        time.sleep(0.05)


def final_bytes(cwd: Path) -> list[bytes]:
    folder = cwd / "runs/tiny"
    last = max((folder / "checkpoints").iterdir())
    return [path.read_bytes() for path in (last, folder / "model.safetensors")] + [
        (folder / "metrics.csv").read_bytes()
    ]


@pytest.mark.slow
@posix_only
def test_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    steps = 45
    yaml_file = write_long_run(tmp_path, steps, workers=1)
    config = settings_of(yaml_file, "data.workers=0")
    train_once(config, tmp_path / "straight" / "runs")
    cwd = tmp_path / "killed"
    with training(yaml_file, cwd) as process:
        wait_for_row(process, cwd, 9)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)
    assert newest_row(cwd) < steps
    output = finish(yaml_file, cwd)
    assert re.search(r"^resuming at step \d+ in runs/tiny", output, re.MULTILINE)
    # The worker number is a setting that is stored: equal weights, moments and table.
    ours, theirs = (
        load_checkpoint(tmp_path / name / f"runs/tiny/checkpoints/step-{steps:08}.safetensors")
        for name in ("killed", "straight")
    )
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in theirs.tensors)
    assert final_bytes(cwd)[2] == final_bytes(tmp_path / "straight")[2]


@posix_only
def test_sigterm_saves_and_leaves_with_its_exit_code(tmp_path: Path) -> None:
    yaml_file = write_long_run(tmp_path, 4000, workers=0)
    cwd = tmp_path / "stopped"
    with training(yaml_file, cwd) as process:
        wait_for_row(process, cwd, 3)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143
    stopped = re.search(r"stopped at step (\d+); the same command resumes from there$", output)
    assert stopped is not None, output
    assert "stopping after this step; a second signal stops at once\n" in output
    path = max((cwd / "runs/tiny/checkpoints").iterdir())
    assert load_checkpoint(path).metadata["step"] == int(stopped[1])
    run = open_small_run(settings_of(yaml_file), cwd / "runs")
    run.lock.release()
    assert run.resume_from is not None
    assert run.resume_from.metadata["step"] == int(stopped[1])


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_to_the_whole_group_saves_and_goes_on(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    steps = 60
    yaml_file = write_long_run(tmp_path, steps, workers=2)
    finish(yaml_file, tmp_path / "straight")
    cwd = tmp_path / "stopped"
    with training(yaml_file, cwd) as process:
        wait_for_row(process, cwd, 6)
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code, output
        if number != signal.SIGHUP:  # Python's own resource tracker dies of it, and complains
            assert "Traceback" not in output
        if sys.platform == "linux":
            assert_session_ends(process.pid)
    finish(yaml_file, cwd)
    assert final_bytes(cwd) == final_bytes(tmp_path / "straight")


@pytest.mark.slow
@posix_only
def test_second_interrupt_leaves_at_once_without_workers_left_behind(tmp_path: Path) -> None:
    yaml_file = write_long_run(tmp_path, 400, workers=2)
    text = yaml_file.read_text()
    # Steps of a second or so, so that the second signal comes before the first one's end.
    yaml_file.write_text(text.replace("crop_size: 16", "crop_size: 512"))
    cwd = tmp_path / "left"
    with training(yaml_file, cwd) as process:
        wait_for_row(process, cwd, 3)
        before = sorted((cwd / "runs/tiny/checkpoints").iterdir())
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, output
        assert "Traceback" not in output
        assert output.endswith("error: interrupted\n")
        if sys.platform == "linux":
            assert_session_ends(process.pid)
    assert sorted((cwd / "runs/tiny/checkpoints").iterdir()) == before


@pytest.mark.slow
@posix_only
def test_kills_at_many_moments_lose_nothing(tmp_path: Path) -> None:
    steps = 120
    yaml_file = write_long_run(tmp_path, steps, workers=2)
    finish(yaml_file, tmp_path / "straight")
    cwd = tmp_path / "killed"
    num_kills = 0
    while newest_row(cwd) < steps - 20 and num_kills < 6:
        with training(yaml_file, cwd) as process:
            # A resumed run first cuts its table back; another 10 steps and a bit, then.
            wait_for_row(process, cwd, max(3, newest_row(cwd) + 7))
            time.sleep(0.013 * num_kills)  # somewhere else within the interval
            os.kill(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_S)
            if sys.platform == "linux":
                assert_session_ends(process.pid)
            num_kills += 1
    assert num_kills >= 3
    finish(yaml_file, cwd)
    assert final_bytes(cwd) == final_bytes(tmp_path / "straight")


@pytest.mark.slow
@posix_only
def test_full_disk_keeps_the_run_going_and_fails_at_its_end(tmp_path: Path) -> None:
    yaml_file = write_long_run(tmp_path, 30, workers=0)
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from fast_style.cli.main import train_main\n"
        "raise SystemExit(train_main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, yaml_file, "--device", "cpu"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert done.stdout.count("no checkpoint could be written") == 7  # steps 4, 8, ... 28
    assert "warning: TensorBoard cannot be written any more" in done.stdout
    # (Before it Python may tell how TensorBoard's writing thread died.)
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("error: step 30: no checkpoint could be written (")
    assert newest_row(tmp_path) == 30


@pytest.mark.slow
@posix_only
def test_closed_console_does_not_stop_the_run(tmp_path: Path) -> None:
    yaml_file = write_long_run(tmp_path, 30, workers=0)
    command = f"'{sys.executable}' '{REPOSITORY}/train.py' '{yaml_file}' | head -n 4"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert newest_row(tmp_path) == 30
