"""Several processes: what each of them is told, and that together they train what one would."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from small_run import settings_of, train_once, write_small_run
from torch import Tensor
from two_processes import start_two

from fast_style.cli.main import main, train_main
from fast_style.core.distributed import Launch, own_device, read_launch, require_equal_shares
from fast_style.core.errors import UserError
from fast_style.models.checkpoint import load_checkpoint
from fast_style.networks.transform_net import TransformNet
from fast_style.training import adversary
from fast_style.training import build as runs

TESTS = Path(__file__).resolve().parents[1]

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

# --- What torchrun says -------------------------------------------------------------------------

SIXTH_OF_EIGHT = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


def test_torchrun_says_which_process_this_is() -> None:
    launch = read_launch(SIXTH_OF_EIGHT)
    assert launch == Launch(rank=5, world_size=8, local_rank=1, local_world_size=4)
    assert not launch.is_first


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE"])
def test_process_without_torchrun_is_alone(missing: str) -> None:
    environment = {name: text for name, text in SIXTH_OF_EIGHT.items() if name != missing}
    assert read_launch(environment) == Launch(0, 1, 0, 1)
    assert read_launch(environment).is_first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"RANK": "8"},
            "RANK in the environment: must be a whole number from 0 to 7, got '8'",
        ),
        (
            {"WORLD_SIZE": "two"},
            "WORLD_SIZE in the environment: must be a whole number from 1 to 999999, got 'two'",
        ),
        (
            {"LOCAL_RANK": ""},
            "LOCAL_RANK in the environment: must be a whole number from 0 to 3, got nothing",
        ),
    ],
)
def test_place_that_makes_no_sense_is_told(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_launch({**SIXTH_OF_EIGHT, **change})
    assert str(caught.value) == (
        f"{message}; torchrun sets it, and without torchrun RANK and WORLD_SIZE must not be set"
    )


@pytest.mark.parametrize(
    ("batch_size", "world_size", "fitting"),
    [(4, 3, "3 or 6"), (2, 4, "4"), (9, 8, "8 or 16"), (1, 2, "2")],
)
def test_batch_that_cannot_be_shared_equally_is_told_with_numbers_that_fit(
    batch_size: int, world_size: int, fitting: str
) -> None:
    with pytest.raises(UserError) as caught:
        require_equal_shares(batch_size, Launch(0, world_size, 0, world_size))
    assert str(caught.value) == (
        f"train.batch_size: {batch_size} photos cannot be shared equally among {world_size} "
        f"processes; set it to {fitting}, or start another number of processes (torchrun "
        "--nproc-per-node)"
    )


@pytest.mark.parametrize(("batch_size", "world_size"), [(4, 1), (4, 2), (4, 4)])
def test_batch_that_can_be_shared_is_let_through(batch_size: int, world_size: int) -> None:
    require_equal_shares(batch_size, Launch(0, world_size, 0, world_size))


# --- Two processes ------------------------------------------------------------------------------

PATIENCE_S = 120  # a step takes milliseconds; a busy machine may take its time all the same


class Trained(NamedTuple):
    """Settings, where one process trained alone, where two did, what these said and found."""

    yaml_file: Path
    alone: Path
    two: Path
    said: list[str]
    outcomes: list[dict[str, Any]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Five steps alone, and what `two_processes` does, on photos one of which is broken."""
    folder = tmp_path_factory.mktemp("two")
    yaml_file = write_small_run(folder)
    text = yaml_file.read_text().replace("steps: 6", "steps: 5")
    yaml_file.write_text(text.replace("checkpoint_every: 2", "checkpoint_every: 99"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "SMALLEST_SAMPLE", 32)
        probe = train_once(settings_of(yaml_file), folder / "probe", stop_at=1)
        # Of two photos in a batch the second process has the second one.
        probe.photos.crops.photo_of(3).write_bytes(b"")
        train_once(settings_of(yaml_file), folder / "alone")
    said, outcomes = train_two(yaml_file, folder / "two", "stopped")
    return Trained(yaml_file, folder / "alone" / "tiny", folder / "two", said, outcomes)


def train_two(yaml_file: Path, root: Path, what: str) -> tuple[list[str], list[dict[str, Any]]]:
    """What the two processes of `two_processes` said, and what came of it."""
    root.mkdir()
    processes = start_two([TESTS / "two_processes.py", yaml_file, root, what], root)
    said = ["".join(process.communicate(timeout=PATIENCE_S)) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    outcomes = [json.loads((root / f"outcome-{rank}.json").read_text()) for rank in range(2)]
    return said, outcomes


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(folder / "model.safetensors").part("model")


def table_of(folder: Path) -> list[list[str]]:
    return [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(trained: Trained) -> None:
    alone, two = weights_of(trained.alone), weights_of(trained.two / "tiny")
    begun = runs.build_net(settings_of(trained.yaml_file), None).state_dict()
    assert alone.keys() == two.keys()
    # A constant before a convolution and instance norm changes nothing: the gradient of these
    # biases is rounding alone, and Adam divides it by its own size.
    without_effect = "residual.0.norm.bias"
    for name in alone.keys() - {without_effect}:
        assert torch.allclose(alone[name], two[name], rtol=1e-3, atol=2e-5), name
    assert (alone["to_rgb.conv.weight"] - begun["to_rgb.conv.weight"]).abs().max() > 1e-3
    photo = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    pictures = []
    for weights in (alone, two):
        net = TransformNet(width=2, residual_blocks=1)
        net.load_state_dict(weights)
        pictures.append(net(photo))
    assert torch.allclose(*pictures, atol=1e-4)


@pytest.mark.slow
def test_two_processes_write_down_what_one_does(trained: Trained) -> None:
    header, *rows = table_of(trained.alone)
    found_header, *found_rows = table_of(trained.two / "tiny")
    assert found_header == header
    assert len(found_rows) == len(rows) == 6  # the beginning, and five steps
    for row, found in zip(rows, found_rows, strict=True):
        assert [bool(cell) for cell in found] == [bool(cell) for cell in row]
        numbers, found_numbers = ([float(cell or 0) for cell in cells] for cells in (row, found))
        assert found_numbers == pytest.approx(numbers, rel=2e-4, abs=1e-6, nan_ok=True)


@pytest.mark.slow
def test_photo_that_only_the_second_process_met_is_in_the_list(trained: Trained) -> None:
    name = "unreadable_photos.jsonl"
    listed = (trained.two / "tiny" / name).read_text()
    assert listed == (trained.alone / name).read_text()
    assert json.loads(listed)["sample"] == 3
    header, *rows = table_of(trained.two / "tiny")
    assert [row[header.index("data/skipped")] for row in rows] == ["", "0", "1", "1", "1", "1"]


@pytest.mark.slow
def test_only_the_first_process_talks(trained: Trained) -> None:
    assert "step 5/5  loss " in trained.said[0]
    assert "skipped 1 of 9 photos" in trained.said[0]
    # `say` is the caller's, who keeps it silent.
    assert "step " not in trained.said[1]
    assert "warning" not in trained.said[1].lower()


@pytest.mark.slow
def test_signal_to_the_second_process_stops_both_at_the_next_log_interval(
    trained: Trained,
) -> None:
    assert [outcome["stopped"] for outcome in trained.outcomes] == [[2, 15], [2, 15]]


@pytest.mark.slow
def test_two_processes_go_on_to_the_same_bytes(trained: Trained) -> None:
    assert [outcome["resumed"] for outcome in trained.outcomes] == [5, 5]
    straight, stopped = weights_of(trained.two / "tiny"), weights_of(trained.two / "stopped")
    assert all(torch.equal(straight[name], stopped[name]) for name in straight)


@pytest.mark.slow
def test_two_processes_learn_the_same_with_what_is_compiled(tmp_path: Path) -> None:
    _, outcomes = train_two(write_small_run(tmp_path), tmp_path / "two", "compiled")
    assert [outcome["compiled"] for outcome in outcomes] == [6, 6]
    straight, compiled = (weights_of(tmp_path / "two" / name) for name in ("tiny", "compiled"))
    assert straight.keys() == compiled.keys()
    assert all(torch.equal(straight[name], compiled[name]) for name in straight)


@pytest.mark.slow
def test_two_processes_have_the_discriminator_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml_file = write_small_run(tmp_path)
    settings = yaml.safe_load(yaml_file.read_text())
    settings["data"]["crop_size"] = 32
    settings["loss"] = {"style_layers": {"relu2_1": 1.0}, "adversarial_weight": 0.5}
    yaml_file.write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(runs, "SMALLEST_SAMPLE", 32)
    for name in ("_STEPS_ALONE", "_STEPS_RISING"):
        monkeypatch.setattr(adversary, name, 1)
    train_once(settings_of(yaml_file), tmp_path / "alone")
    train_two(yaml_file, tmp_path / "two", "adversarial")
    alone, two = (
        load_checkpoint(max((tmp_path / name / "tiny" / "checkpoints").iterdir())).tensors
        for name in ("alone", "two")
    )
    assert alone.keys() == two.keys()
    for name, tensor in alone.items():
        if name.startswith("discriminator."):
            assert torch.allclose(tensor, two[name], rtol=1e-3, atol=1e-4), name
    kernel = "model.to_rgb.conv.weight"
    assert torch.allclose(alone[kernel], two[kernel], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_number_that_is_not_finite_on_one_process_stops_both_with_its_name(
    trained: Trained,
) -> None:
    first, second = (outcome["poisoned"] for outcome in trained.outcomes)
    assert first == [
        "step 2: the style term is not a finite number. Try a lower train.learning_rate, "
        "loss.style_weight or loss.adversarial_weight, or train.precision=fp32. There is no "
        "checkpoint yet",
        1,
    ]
    assert second == ["", 1]  # the first one has said it
    assert list((trained.two / "poisoned" / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_mistake_of_the_second_process_is_told_by_the_first(trained: Trained) -> None:
    first, second = (outcome["together"] for outcome in trained.outcomes)
    assert first == ["only the second one sees this", 1]
    assert second == ["", 1]


# --- The command --------------------------------------------------------------------------------


def write_long_run(folder: Path) -> Path:
    """Settings of a run that lasts until it is stopped."""
    yaml_file = write_small_run(folder)
    settings = yaml.safe_load(yaml_file.read_text())
    settings["train"]["steps"] = 100_000
    settings["log"] = {
        "every": 3,
        "validate_every": 9_999,
        "samples_every": 9_999,
        "shares_every": 9_999,
    }
    yaml_file.write_text(yaml.safe_dump(settings))
    return yaml_file


def wait_for_row(processes: list[subprocess.Popen[str]], folder: Path, step: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline, "the run does not get there"
        with contextlib.suppress(OSError, ValueError):
            if int(table_of(folder)[-1][0]) >= step:
                return
        time.sleep(0.02)


def test_indivisible_batch_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml_file = write_small_run(tmp_path)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "3")
    errors = []
    for rank in range(3):
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, str(rank))
        assert train_main([str(yaml_file), "--device", "cpu"]) == 2
        errors.append(capsys.readouterr().err)
    assert errors == [
        "error: train.batch_size: 2 photos cannot be shared equally among 3 processes; set it to "
        "3, or start another number of processes (torchrun --nproc-per-node)\n",
        "",
        "",
    ]


@pytest.mark.parametrize("command", ["distill", "demo"])
def test_command_for_one_process_refuses_torchrun(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in SIXTH_OF_EIGHT.items():
        monkeypatch.setenv(name, text)
    arguments = [str(TESTS.parent / "configs" / "distill.yaml")] if command == "distill" else []
    assert main([command, *arguments]) == 2
    assert capsys.readouterr().err == (
        f"error: process 5: {command} runs in one process; start it without torchrun\n"
    )


PROGRAM_WITH_A_LAST_WORD = """
import atexit, runpy, sys
atexit.register(print, "Python tidied up", file=sys.stderr)
program = sys.argv.pop(1)
run = runpy.run_path if program.endswith(".py") else runpy.run_module
run(program, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train.py none", "stylize.py -m none x", "fast_style info x"])
@pytest.mark.parametrize("place", [{}, SIXTH_OF_EIGHT], ids=["alone", "one of several"])
def test_one_of_several_processes_leaves_before_python_tidies_up(
    command: str, place: dict[str, str]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM_WITH_A_LAST_WORD, *command.split()],
        cwd=TESTS.parent,
        env={**os.environ, **place, "LOCAL_RANK": "0"},  # which tells of what all find
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.endswith("Python tidied up\n") == (not place)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_each_process_has_the_cpu_or_a_gpu_of_its_own() -> None:
    two = Launch(1, 2, 1, 2)
    cpu = torch.device("cpu")
    assert own_device(cpu, two) == cpu
    assert own_device(torch.device("cuda:1"), Launch()) == torch.device("cuda:1")
    for device, message in (
        (
            "cuda:1",
            "--device cuda:1: one GPU cannot serve all processes of torchrun; use --device cuda, "
            "and choose GPUs with CUDA_VISIBLE_DEVICES",
        ),
        (
            "cuda",
            "--device cuda: 2 processes on a machine with 0 GPUs; use --device cpu",
        ),
    ):
        with pytest.raises(UserError) as caught:
            own_device(torch.device(device), two)
        assert str(caught.value) == message


@pytest.mark.slow
@posix_only
def test_signal_to_one_process_stops_both_and_the_run_goes_on(tmp_path: Path) -> None:
    yaml_file = write_long_run(tmp_path)
    processes = start_two([TESTS.parent / "train.py", yaml_file, "--device", "cpu"], tmp_path)
    folder = tmp_path / "runs" / "tiny"
    wait_for_row(processes, folder, 3)
    processes[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=PATIENCE_S) for process in processes]
    assert [process.returncode for process in processes] == [143, 143], said
    (checkpoint,) = (folder / "checkpoints").iterdir()
    step = load_checkpoint(checkpoint).metadata["step"]
    assert step % 3 == 0
    assert said[0][0].endswith(f"stopped at step {step}; the same command resumes from there\n")
    assert said[1] == ("", "")
    trainer = train_once(settings_of(yaml_file), tmp_path / "runs", stop_at=step + 1)
    assert trainer.step == step + 1  # and alone, though not to the same bytes


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("killed", [0, 1])
def test_process_that_is_killed_ends_the_other_with_a_word(tmp_path: Path, killed: int) -> None:
    yaml_file = write_long_run(tmp_path)
    processes = start_two([TESTS.parent / "train.py", yaml_file, "--device", "cpu"], tmp_path)
    wait_for_row(processes, tmp_path / "runs" / "tiny", 3)
    processes[killed].kill()
    errors = [process.communicate(timeout=PATIENCE_S)[1] for process in processes]
    assert processes[1 - killed].returncode == 1, errors
    assert errors[1 - killed] == (
        f"error: {'process 1: ' if killed == 0 else ''}another process of this run has ended; its "
        "own error or torchrun's summary gives the reason. The same command resumes from the last "
        "checkpoint\n"
    )


@pytest.mark.slow
@posix_only
def test_torchrun_trains_and_hands_on_a_signal(tmp_path: Path) -> None:
    yaml_file = write_long_run(tmp_path)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", TESTS.parent / "train.py", yaml_file, "--device", "cpu"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for_row([process], tmp_path / "runs" / "tiny", 3)
        # As Ctrl-C: to torchrun and to both, and torchrun hands its own on to both.
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    (stopped,) = re.findall(r"^stopped at step (\d+); the same command", said, re.MULTILINE)
    (checkpoint,) = (tmp_path / "runs" / "tiny" / "checkpoints").iterdir()
    assert load_checkpoint(checkpoint).metadata["step"] == int(stopped)
    assert said.count("stopping at the next step that is logged") == 1
