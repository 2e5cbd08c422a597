"""The file format: what is saved is loaded, and whatever is not whole or not ours is refused."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_model import tiny_description
from torch import Tensor

from fast_style import __version__
from fast_style.models import model_files
from fast_style.models.checkpoint import (
    Checkpoint,
    adam_tensors,
    build_transform_net,
    checkpoint_path,
    last_good_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_transform_net,
    newest_valid_checkpoint,
    remove_old_checkpoints,
    restore_adam,
    save_checkpoint,
)
from fast_style.models.model_files import CheckpointError
from fast_style.networks.transform_net import TransformNet

ARCHITECTURE = {"width": 2, "residual_blocks": 1, "upsampling": "resize", "tanh_scale": 127.5}


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


def message_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_transform_net(path)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def write_forged(path: Path, tensors: dict[str, Tensor], description: str) -> None:
    """A file with a right digest and any description, as a forger could make it."""
    blank = "0" * 64
    data = safetensors.torch.save(tensors, {"fast_style": description, "sha256": blank})
    digest = hashlib.sha256(data).hexdigest()
    path.write_bytes(data.replace(f'"sha256":"{blank}"'.encode(), f'"sha256":"{digest}"'.encode()))


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
    # Often, since safetensors orders its metadata by chance
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


def test_description_cannot_move_the_digest(tmp_path: Path) -> None:
    fake = '"sha256":"' + "1" * 64 + '"'
    save_checkpoint(tmp_path / "a", {"x": torch.zeros(1)}, {"a": fake, fake: 1, "sha256": "2" * 64})
    assert load_checkpoint(tmp_path / "a").metadata[fake] == 1


# --- Damage -------------------------------------------------------------------------------------


def test_every_flipped_byte_and_every_truncation_is_refused(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    save_checkpoint(whole, {"model.x": torch.arange(4.0)}, {"step": 1})
    data = whole.read_bytes()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        damaged.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            load_checkpoint(damaged)
    for length in range(len(data)):
        damaged.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(damaged)
    damaged.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError):
        load_checkpoint(damaged)
    damaged.write_bytes(data)
    load_checkpoint(damaged)


def test_flipped_weight_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert message_of(path) == (
        "is damaged: its contents do not match the digest it was written with; use another copy"
    )


class Bomb:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return Path.touch, (self.sentinel,)


@pytest.mark.parametrize("kind", ["pickle", "torch", "legacy torch"])
def test_malicious_pickle_is_refused_and_never_run(tmp_path: Path, kind: str) -> None:
    path, sentinel = tmp_path / "evil.safetensors", tmp_path / "ran"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(sentinel)))
    else:
        torch.save(Bomb(sentinel), path, _use_new_zipfile_serialization=kind == "torch")
    found = "is not a fast-style model (it looks like a .pth of another project)"
    assert message_of(path) == found
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (b"", "it is empty"),
        (b"  \n<!DOCTYPE html><html>", "it is a web page"),
        (b"<html>", "it is a web page"),
        (b"PK\x03\x04 and so on", "it looks like a .pth of another project"),
        (os.urandom(5), "damaged, or of another format"),
        (b"\x01" * 3000, "damaged, or of another format"),
        (
            safetensors.torch.save({"x": torch.zeros(2)}),
            "it is truncated, or a safetensors file of another project",
        ),
    ],
    ids=["empty", "html", "html2", "zip", "short", "long", "safetensors"],
)
def test_foreign_file_is_told(tmp_path: Path, contents: bytes, told: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(contents)
    assert message_of(path) == f"is not a fast-style model ({told})"


def test_missing_file_and_folder_are_told(tmp_path: Path) -> None:
    assert message_of(tmp_path / "no") == "not found; give a model.safetensors of a training run"
    assert message_of(tmp_path) == "is not a file; give a model.safetensors"


def test_enormous_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)  # a hole; takes no space
    assert message_of(path) == ("is too large for a model (1073741825 bytes; at most 1073741824)")


def test_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_model(path, format=2, fast_style="9.0")
    assert message_of(path) == (
        f"has format 2, made by fast-style 9.0; this is {__version__}, which knows formats up to "
        "1. Upgrade fast-style"
    )


@pytest.mark.parametrize(
    "description",
    ["", "[]", "1", "{}", '{"format": "x"}', '{"format": null}', "[" * 100_000, '{"format": 1}'],
)
def test_forged_description_is_refused(tmp_path: Path, description: str) -> None:
    write_forged(tmp_path / "m", {"model.x": torch.zeros(1)}, description)
    assert message_of(tmp_path / "m")


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
    assert message_of(tmp_path / "m").startswith("describes no transform network (")


def test_wrong_tensors_are_refused_by_name(tmp_path: Path) -> None:
    path, name = tmp_path / "m", "model.to_rgb.conv.bias"
    for tensors, told in (
        ({name: None}, "has no tensor to_rgb.conv.bias"),
        ({"model.extra": torch.zeros(1)}, "has a tensor extra that the network has not"),
        (
            {name: torch.zeros(4)},
            "to_rgb.conv.bias is torch.float32 (4,); the network needs torch.float32 (3,)",
        ),
        (
            {name: torch.zeros(3).double()},
            "to_rgb.conv.bias is torch.float64 (3,); the network needs torch.float32 (3,)",
        ),
    ):
        save_model(path, tensors=tensors)
        assert message_of(path) == told


def test_number_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    net = TransformNet(**ARCHITECTURE)  # type: ignore[arg-type]
    tensors = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors["model.to_rgb.conv.bias"][1] = torch.nan
    write_forged(tmp_path / "m", tensors, json.dumps({"format": 1, "architecture": ARCHITECTURE}))
    assert message_of(tmp_path / "m") == "to_rgb.conv.bias has numbers that are not finite"


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
    assert adam_tensors(parameters, adam_of(parameters)) == {}


def test_state_of_adam_by_hand() -> None:
    parameters = two_parameters()
    optimizer = adam_of(parameters)
    learn(parameters, optimizer, 1)
    found = adam_tensors(parameters, optimizer)
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
    save_checkpoint(tmp_path / "m", {**straight, **adam_tensors(straight, optimizer)}, {})
    saved = load_checkpoint(tmp_path / "m").tensors
    resumed = two_parameters()
    with torch.no_grad():
        for name, parameter in resumed.items():
            parameter.copy_(saved.pop(name))
    again = adam_of(resumed, fused)
    restore_adam(resumed, again, saved, tmp_path / "m")
    for name, parameter in resumed.items():
        ours, theirs = again.state[parameter], optimizer.state[straight[name]]
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        assert ours["exp_avg"].stride() == parameter.stride()
    learn(straight, optimizer, 2)
    learn(resumed, again, 2)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"step.bias": None}, "has no tensor step.bias"),
        ({"exp_avg_sq.kernel": None}, "has no tensor exp_avg_sq.kernel"),
        ({"max_exp_avg_sq.bias": torch.zeros(2)},
         "has a tensor max_exp_avg_sq.bias that the network has not"),
        ({"exp_avg.bias": torch.zeros(3)},
         "exp_avg.bias is torch.float32 (3,); the network needs torch.float32 (2,)"),
        ({"exp_avg.bias": torch.full((2,), torch.nan)},
         "exp_avg.bias has numbers that are not finite"),
    ],
)  # fmt: skip
def test_incomplete_state_of_adam_is_refused(change: dict[str, Tensor | None], told: str) -> None:
    parameters = two_parameters()
    optimizer = adam_of(parameters)
    learn(parameters, optimizer, 1)
    saved = {**adam_tensors(parameters, optimizer), **change}
    with pytest.raises(CheckpointError) as caught:
        restore_adam(
            parameters,
            adam_of(parameters),
            {name: tensor for name, tensor in saved.items() if tensor is not None},
            Path("m"),
        )
    assert str(caught.value) == f"m: {told}"


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
    assert said == [
        f"skipping {newest}: is not a fast-style model (it is empty)",
        f"skipping {second}: is damaged: its contents do not match the digest it was written "
        "with; use another copy",
    ]


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


def test_format_version_is_one() -> None:
    # A change needs a reader for files of the old version, and a fixture that is one.
    assert model_files.FORMAT_VERSION == 1


# --- Files of earlier versions ------------------------------------------------------------------


@pytest.mark.parametrize("number", [1])
def test_files_of_every_format_ever_released_can_be_used(number: int) -> None:
    # Written by write_tiny_model of tests/tiny_model.py when the format was new; never again.
    path = Path(__file__).parents[1] / "fixtures" / f"model-format-{number}.safetensors"
    net, metadata = load_transform_net(path)
    assert metadata["format"] == number
    assert metadata["name"] == "tiny"
    photo = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    with torch.no_grad():
        result = net(photo)
    # What it gave when it was written, torch 2.15.
    expected = [0.584484, 0.63957, 0.681071]
    assert result[0, :, 7, 9].tolist() == pytest.approx(expected, abs=1e-5)
