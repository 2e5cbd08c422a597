"""Training states and models: what is saved is loaded, and tensors that do not fit are refused."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_files import (
    foreign_files,
    forged_descriptions,
    forged_headers,
    forged_weights,
    model,
)
from system_calls import FullDisk, in_child, killed_at, watched
from tiny_model import tiny_description
from torch import Tensor

from fast_style import __version__
from fast_style.core.files import remove_stray_temporaries
from fast_style.models.checkpoint import (
    Checkpoint,
    build_transform_net,
    checkpoint_path,
    last_good_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_transform_net,
    newest_valid_checkpoint,
    optimizer_tensors,
    remove_old_checkpoints,
    require_same_tensors,
    restore_optimizer,
    save_checkpoint,
)
from fast_style.models.model_files import CheckpointError
from fast_style.networks.transform_net import TransformNet

ARCHITECTURE = {"width": 2, "residual_blocks": 1, "tanh_scale": 127.5, "upsampling": "resize",
                "antialiased": True}  # fmt: skip


def save_model(path: Path, **changes: Any) -> TransformNet:
    torch.manual_seed(0)
    net = TransformNet(**ARCHITECTURE)  # type: ignore[arg-type]
    tensors: dict[str, Tensor] = {f"model.{name}": t for name, t in net.state_dict().items()}
    for name, change in changes.pop("tensors", {}).items():
        if change is None:
            del tensors[name]
        else:
            tensors[name] = change
    save_checkpoint(path, tensors, {**tiny_description(ARCHITECTURE), **changes})
    return net


def refusal_of(path: Path) -> str:
    """The message of the error about a file, without its name."""
    with pytest.raises(CheckpointError) as caught:
        load_transform_net(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


# --- Round trip ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(4, 6).T,
        torch.tensor(7.0),
        torch.empty(0, 3),
        torch.arange(5),
        torch.randn(3).to(torch.bfloat16),
        torch.randn(3, requires_grad=True),
    ],
    ids=["channels_last", "transposed", "0-dim", "empty", "integers", "bfloat16", "gradient"],
)
def test_what_is_saved_is_loaded(tmp_path: Path, tensor: Tensor) -> None:
    save_checkpoint(tmp_path / "a.safetensors", {"model.x": tensor}, {"step": 5, "é": ["\n", None]})
    found = load_checkpoint(tmp_path / "a.safetensors")
    loaded = found.part("model")["x"]
    assert torch.equal(loaded, tensor)
    assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
    assert found.metadata == {
        "format": 1,
        "fast_style": __version__,
        "step": 5,
        "é": ["\n", None],
    }


def test_parts_are_told_apart_by_prefix() -> None:
    one, two = torch.tensor(1), torch.tensor(2)
    found = Checkpoint({"model.a.b": one, "models.c": two, "optimizer.a": two}, {})
    assert found.part("model") == {"a.b": one}


def test_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    # Several times, since safetensors orders its metadata by chance.
    found = set()
    for _ in range(20):
        save_model(tmp_path / "m")
        found.add((tmp_path / "m").read_bytes())
    assert len(found) == 1


def test_loaded_network_computes_what_the_saved_one_did(tmp_path: Path) -> None:
    net = save_model(tmp_path / "m.safetensors", step=3)
    loaded, metadata = load_transform_net(tmp_path / "m.safetensors")
    photo = torch.rand(1, 3, 20, 24)
    assert torch.equal(loaded(photo), net(photo))
    assert not loaded.training
    assert metadata["step"] == 3


# --- Tensors that do not fit --------------------------------------------------------------------


@pytest.mark.parametrize(
    "architecture",
    [
        None,
        [],
        {"width": -1},
        {"width": "2"},
        {"width": 10**9},
        {"residual_blocks": 10**9},
        {"tanh_scale": "loud"},
        {"upsampling": "magic"},
        {"depth": 3},
    ],
)
def test_impossible_architecture_is_refused(tmp_path: Path, architecture: Any) -> None:
    save_model(tmp_path / "m", architecture=architecture)
    assert refusal_of(tmp_path / "m").startswith("describes no transform network (")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("to_rgb.conv.bias", None, "has no tensor to_rgb.conv.bias"),
        ("extra", torch.zeros(1), "has a tensor extra, which the network lacks"),
        (
            "to_rgb.conv.bias",
            torch.zeros(4),
            "to_rgb.conv.bias is torch.float32 (4,); the network needs torch.float32 (3,)",
        ),
        (
            "to_rgb.conv.bias",
            torch.zeros(3).double(),
            "to_rgb.conv.bias is torch.float64 (3,); the network needs torch.float32 (3,)",
        ),
    ],
    ids=["missing", "extra", "shape", "dtype"],
)
def test_wrong_tensors_are_refused_by_name(
    tmp_path: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    save_model(tmp_path / "m", tensors={f"model.{name}": tensor})
    assert refusal_of(tmp_path / "m") == message


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_number_that_is_not_finite_is_refused(number: float) -> None:
    found = {"x": torch.tensor([1.0, number])}
    with pytest.raises(CheckpointError, match=r"^m: x has numbers that are not finite$"):
        require_same_tensors(found, {"x": torch.zeros(2)}, Path("m"))


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "m", architecture={**ARCHITECTURE, "width": 4})
    with pytest.raises(CheckpointError, match=r"the network needs torch.float32 \(4, 3, 9, 9\)$"):
        build_transform_net(load_checkpoint(tmp_path / "m"), tmp_path / "m")


# --- Writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_number_that_is_not_finite_is_never_written(tmp_path: Path, number: float) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"^model\.x has numbers that are not finite$"):
        save_checkpoint(path, {"model.x": torch.tensor([1.0, number])}, {})
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("fault", ["replace", "fsync"])
def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    path = tmp_path / "m"
    save_model(path, step=1)
    before = path.read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fault, fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(path, step=2)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


@pytest.mark.slow  # the default suite fills a disk in tests/core/test_files.py
@pytest.mark.skipif(sys.platform == "win32", reason="has no RLIMIT_FSIZE")
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_model(path)
    before = path.read_bytes()
    script = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from fast_style.models.checkpoint import save_checkpoint\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2)\n"
        f"save_checkpoint(Path(sys.argv[1]), {{'x': torch.zeros({len(before)})}}, {{}})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert "File too large" in done.stderr
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


# --- Adam's state --------------------------------------------------------------------------------


def two_parameters() -> dict[str, Tensor]:
    numbers = torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last)
    return {"kernel": torch.nn.Parameter(numbers), "bias": torch.nn.Parameter(torch.ones(2))}


def adam_of(parameters: dict[str, Tensor], fused: bool | None = None) -> torch.optim.Adam:
    return torch.optim.Adam(parameters.values(), lr=0.1, fused=fused)


def learn(parameters: dict[str, Tensor], optimizer: torch.optim.Adam, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        sum(parameter.square().sum() for parameter in parameters.values()).backward()  # type: ignore[union-attr]
        optimizer.step()


def test_adam_that_has_not_learned_has_no_state() -> None:
    parameters = two_parameters()
    assert optimizer_tensors(parameters, adam_of(parameters)) == {}


def test_state_of_adam_by_hand() -> None:
    parameters = two_parameters()
    optimizer = adam_of(parameters)
    learn(parameters, optimizer, 1)
    found = optimizer_tensors(parameters, optimizer)
    keys = ("step", "exp_avg", "exp_avg_sq")
    assert list(found) == [f"{key}.{name}" for name in ("kernel", "bias") for key in keys]
    # The gradient of Σ x² at 1 is 2: a tenth of it, and a thousandth of its square.
    assert found["step.bias"] == 1
    torch.testing.assert_close(found["exp_avg.bias"], torch.full((2,), 0.2))
    torch.testing.assert_close(found["exp_avg_sq.bias"], torch.full((2,), 0.004))


@pytest.mark.parametrize("fused", [None, True])
def test_restored_adam_goes_on_exactly(tmp_path: Path, fused: bool | None) -> None:
    straight = two_parameters()
    optimizer = adam_of(straight, fused)
    learn(straight, optimizer, 2)
    save_checkpoint(tmp_path / "m", {**straight, **optimizer_tensors(straight, optimizer)}, {})
    saved = load_checkpoint(tmp_path / "m").tensors
    resumed = two_parameters()
    with torch.no_grad():
        for name, parameter in resumed.items():
            parameter.copy_(saved.pop(name))
    again = adam_of(resumed, fused)
    restore_optimizer(resumed, again, saved, tmp_path / "m")
    for name, parameter in resumed.items():
        ours, theirs = again.state[parameter], optimizer.state[straight[name]]
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        assert ours["exp_avg"].stride() == parameter.stride()
    learn(straight, optimizer, 2)
    learn(resumed, again, 2)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.parametrize(
    "change",
    [
        {"step.bias": None},
        {"exp_avg_sq.kernel": None},
        {"max_exp_avg_sq.bias": torch.zeros(2)},
        {"exp_avg.bias": torch.zeros(3)},
        {"exp_avg.bias": torch.full((2,), torch.nan)},
    ],
    ids=["no step", "no moment", "extra", "shape", "not finite"],
)
def test_incomplete_state_of_adam_is_refused(change: dict[str, Tensor | None]) -> None:
    parameters = two_parameters()
    optimizer = adam_of(parameters)
    learn(parameters, optimizer, 1)
    saved = {**optimizer_tensors(parameters, optimizer), **change}
    with pytest.raises(CheckpointError) as caught:
        restore_optimizer(
            parameters,
            adam_of(parameters),
            {name: tensor for name, tensor in saved.items() if tensor is not None},
            Path("m"),
        )
    assert str(caught.value).startswith("m: ")
    assert next(iter(change)) in str(caught.value)


# --- Files that nobody should load ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "files", [foreign_files, forged_headers, forged_descriptions, forged_weights]
)
def test_hostile_files_are_refused_in_one_line_and_never_run(
    tmp_path: Path, files: Callable[..., dict[str, bytes]]
) -> None:
    sentinel = tmp_path / "ran"
    for name, data in (files(sentinel) if files is foreign_files else files()).items():
        (tmp_path / "m").write_bytes(data)
        assert len(refusal_of(tmp_path / "m").splitlines()) == 1, name
        assert not sentinel.exists(), name


def test_forged_files_are_those_of_a_model_but_for_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(model())
    load_transform_net(tmp_path / "m")


# --- Kills and full disks -------------------------------------------------------------------------


def save_over_old(path: Path) -> Callable[[], None]:
    """Saves 2 over a file of 1, both after so many steps."""
    save_checkpoint(path, {"x": torch.full((100,), 1.0)}, {"step": 1})
    return lambda: save_checkpoint(path, {"x": torch.full((100,), 2.0)}, {"step": 2})


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_save_killed_at_any_system_call_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "m"
    steps, code = [], -signal.SIGKILL
    while code == -signal.SIGKILL:
        save = save_over_old(path)

        def save_and_die(number: int = len(steps) + 1, save: Callable[[], None] = save) -> None:
            with watched(killed_at(number)):
                save()

        code = in_child(save_and_die)
        steps.append(load_checkpoint(path).metadata["step"])
        remove_stray_temporaries(tmp_path)
        assert list(tmp_path.iterdir()) == [path]
    assert code == 0
    # Opened, written in pieces, synced, given permissions, renamed; then the folder is synced.
    assert len(steps) > 8
    assert steps == sorted(steps)
    assert set(steps) == {1, 2}


def test_save_on_a_disk_full_at_any_call_leaves_the_old_file_and_nothing_else(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m"
    save = save_over_old(path)
    disk = FullDisk(sys.maxsize)
    with watched(disk):
        save()
    num_calls = next(disk.numbers) - 1
    failed = []
    for number in range(1, num_calls):
        save = save_over_old(path)
        disk = FullDisk(number)
        with pytest.raises(OSError, match="No space left"), watched(disk):
            save()
        failed.append(disk.failed[0][0])
        assert load_checkpoint(path).metadata["step"] == 1
        assert list(tmp_path.iterdir()) == [path]
    assert set(failed) == {"open", "write", "fsync", "replace"}
    # The last call syncs the folder; where that is refused, the new file is there all the same.
    save = save_over_old(path)
    with watched(FullDisk(num_calls)):
        save()
    assert load_checkpoint(path).metadata["step"] == 2


# --- The checkpoints of a run -------------------------------------------------------------------


def write_steps(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(checkpoint_path(folder, step), {"x": torch.tensor(step)}, {"step": step})


def steps_in(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step-")) for path in list_checkpoints(folder)]


def test_checkpoints_are_listed_newest_first_and_nothing_else_is(tmp_path: Path) -> None:
    write_steps(tmp_path, 5, 1000, 123_456_789, 40)
    for name in ("step-00000007.tmp", ".step-00000008.safetensors", "step-9.safetensors", "x"):
        (tmp_path / name).touch()
    assert steps_in(tmp_path) == [123_456_789, 1000, 40, 5]
    assert list_checkpoints(tmp_path / "missing") == []


def test_newest_valid_checkpoint_falls_back_and_tells(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, 2, 3)
    newest, second, oldest = list_checkpoints(tmp_path)
    newest.write_bytes(b"")
    data = second.read_bytes()
    second.write_bytes(data[:-1] + b"\xff")
    said: list[str] = []
    found = newest_valid_checkpoint(tmp_path, said.append)
    assert found is not None
    assert found[0] == oldest
    assert found[1].metadata["step"] == 1
    assert len(said) == 2
    assert said[0].startswith(f"skipping {newest}: ")
    assert said[1].startswith(f"skipping {second}: ")


def test_no_valid_checkpoint_is_none(tmp_path: Path) -> None:
    checkpoint_path(tmp_path, 1).touch()
    assert newest_valid_checkpoint(tmp_path, lambda line: None) is None


def test_last_good_checkpoint_is_the_newest_whole_one(tmp_path: Path) -> None:
    assert last_good_checkpoint(tmp_path / "missing") == "There is no checkpoint yet"
    write_steps(tmp_path, 1, 2)
    checkpoint_path(tmp_path, 2).write_bytes(b"")
    assert last_good_checkpoint(tmp_path) == (
        f"The last good checkpoint is {tmp_path}/step-00000001.safetensors"
    )


def test_newest_ones_are_kept(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, 2, 10, 20)
    remove_old_checkpoints(tmp_path, 2, newest=20)
    assert steps_in(tmp_path) == [20, 10]
    remove_old_checkpoints(tmp_path, 3, newest=20)
    assert steps_in(tmp_path) == [20, 10]


def test_damaged_later_ones_do_not_cost_the_one_just_written(tmp_path: Path) -> None:
    for step in (70, 80, 90):
        checkpoint_path(tmp_path, step).write_bytes(b"damaged")
    write_steps(tmp_path, 10, 20, 30)
    remove_old_checkpoints(tmp_path, 2, newest=30)
    assert steps_in(tmp_path) == [90, 80, 70, 30, 20]
    found = newest_valid_checkpoint(tmp_path, lambda line: None)
    assert found is not None
    assert found[1].metadata["step"] == 30


def test_file_that_cannot_be_removed_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_steps(tmp_path, 1, 2, 3)

    def fail(path: Path) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "unlink", fail)
    remove_old_checkpoints(tmp_path, 1, newest=3)
    assert steps_in(tmp_path) == [3, 2, 1]


# --- Files of earlier versions ------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_files_of_every_format_ever_released_can_be_used(number: int) -> None:
    # Written by write_tiny_model of tests/tiny_model.py when the format was new; never again. In
    # that of format 2, the kernels of the other one have 8 bits.
    path = Path(__file__).parents[1] / "fixtures" / f"model-format-{number}.safetensors"
    net, metadata = load_transform_net(path)
    assert metadata["format"] == number
    assert metadata["name"] == "tiny"
    photo = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    with torch.no_grad():
        result = net(photo)
    # What it gave when it was written, torch 2.15.
    expected = {1: [0.584484, 0.63957, 0.681071], 2: [0.585401, 0.639301, 0.680601]}
    assert result[0, :, 7, 9].tolist() == pytest.approx(expected[number], abs=1e-5)
