"""Whole runs as processes: finished, stopped by signals, and killed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from small_run import (
    PATIENCE_S,
    REPOSITORY,
    SETTINGS,
    command_environment,
    draw_photo,
    open_small_run,
    settings_of,
    train_once,
    write_photos,
    write_small_run,
)

from fast_style.cli.main import train_main
from fast_style.models.checkpoint import load_checkpoint

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return write_small_run(tmp_path)


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
        "runs/tiny: finished at step 6; the model is runs/tiny/model.safetensors. Train in a new "
        "folder with --resume never (or another name=...), or start another run from this model "
        "with train.init_from\n"
    )
    assert (tmp_path / "runs/tiny/metrics.csv").read_bytes() == before
    assert not (tmp_path / "runs/tiny-2").exists()
    assert train_main([*arguments, "--resume", "never"]) == 0
    assert (tmp_path / "runs/tiny-2/model.safetensors").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="file systems whose names are Unicode")
def test_names_that_are_no_utf_8_are_trained_with(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "style.png").rename(name)
    arguments = [str(yaml_file), "--device", "cpu", "train.steps=2"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, f"style.image={name}"])
    assert train_main() == 0
    card = (tmp_path / "runs/tiny/README.md").read_text(encoding="utf-8")
    assert "- style: caf\\xe9.png, " in card
    assert settings_of(tmp_path / "runs/tiny/config.yaml").style.image == tmp_path / name


def test_missing_style_is_one_line_and_exit_code_two(
    yaml_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "style.png").unlink()
    assert train_main([str(yaml_file), "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/style.png: not found; check style.image ")


# --- Processes that are stopped and killed --------------------------------------------------------


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


STEPS = 60


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The settings of a run of `STEPS` steps with two workers, and the folder where it ended."""
    folder = tmp_path_factory.mktemp("straight")
    yaml_file = write_long_run(folder, STEPS, workers=2)
    finish(yaml_file, folder / "run")
    return yaml_file, folder / "run"


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
            env=command_environment(),
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


@pytest.mark.slow
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
    straight_run: tuple[Path, Path], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    yaml_file, straight = straight_run
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
    assert final_bytes(cwd) == final_bytes(straight)


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
        env=command_environment(),
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
        env=command_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert newest_row(tmp_path) == 30
