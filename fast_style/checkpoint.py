"""One file format for training states and finished models: safetensors with a digest.

No pickle anywhere, so that a model from the internet cannot run code. The header's metadata holds
a JSON description (format version, architecture, settings, step, where the loss network came from,
licence) and a sha256 over the whole file, its own 64 characters taken as zeros: torch and
safetensors would both load a file with a flipped byte and give other weights.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from fast_style import __version__
from fast_style.config import ModelConfig
from fast_style.errors import UserError
from fast_style.files import atomic_write, what_it_looks_like, with_sorted_metadata
from fast_style.transform_net import TransformNet

FORMAT_VERSION = 1
_LARGEST_BYTES = 1 << 30  # a network of width 128 with Adam's state is a quarter of this
_DIGEST_PLACE = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_NO_DIGEST = "0" * 64


class CheckpointError(UserError):
    """A file that is not a usable model or checkpoint."""


class Checkpoint(NamedTuple):
    """What a file holds: named tensors (``model.*``, ``optimizer.*``) and their description."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix.``, without the prefix."""
        return {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a file atomically.

    Args:
        path: its name; the folder must exist.
        tensors: any dtype and memory format; saved contiguous, from the CPU.
        metadata: plain data, to which the format's and the software's version are added.

    Raises:
        OSError: it cannot be written; a file of that name is untouched.
        ValueError: a tensor holds numbers that are not finite. Such a file is never written.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in ready.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has numbers that are not finite")
    description = {"format": FORMAT_VERSION, "fast_style": __version__, **metadata}
    data = with_sorted_metadata(
        safetensors.torch.save(
            ready, {"fast_style": json.dumps(description, sort_keys=True), "sha256": _NO_DIGEST}
        )
    )
    digest = hashlib.sha256(data).hexdigest()
    place = _digest_place(data)
    assert place is not None
    with atomic_write(path) as file:
        file.write(data[: place.start(1)] + digest.encode() + data[place.end(1) :])


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a file after checking that it is whole.

    Raises:
        CheckpointError: it is missing, damaged, of another kind or too new; says which.
    """
    data = _read_bytes(path)
    place = _digest_place(data)
    if place is None:
        raise CheckpointError(f"{path}: is not a fast-style model ({_looks_like(data)})")
    blank = data[: place.start(1)] + _NO_DIGEST.encode() + data[place.end(1) :]
    if hashlib.sha256(blank).hexdigest() != place[1].decode():
        raise CheckpointError(
            f"{path}: is damaged: its contents do not match the digest it was written with; use "
            "another copy"
        )
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + _header_length(data)])
        metadata = json.loads(header["__metadata__"]["fast_style"])
        version = int(metadata["format"])
        # RecursionError: JSON nested a thousand times
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not a fast-style model ({error})") from None
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format {version}, made by fast-style {metadata.get('fast_style')}; this "
            f"is {__version__}, which knows formats up to {FORMAT_VERSION}. Upgrade fast-style"
        )
    return Checkpoint(tensors, metadata)


def load_transform_net(path: Path) -> tuple[TransformNet, dict[str, Any]]:
    """The network of a model or checkpoint, ready to use, and the file's description.

    Raises:
        CheckpointError: see `load_checkpoint`; also when weights do not fit the architecture, or
            the description lacks something.
    """
    checkpoint = load_checkpoint(path)
    net = build_transform_net(checkpoint, path)
    try:
        describe(checkpoint.metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its description is incomplete ({error})") from None
    return net, checkpoint.metadata


def build_transform_net(checkpoint: Checkpoint, path: Path) -> TransformNet:
    """The network that a checkpoint describes, with its weights; `path` is named in errors."""
    try:
        # A hostile file must not make us allocate: checked as settings are, and shapes only.
        architecture = ModelConfig(**checkpoint.metadata["architecture"])
        with torch.device("meta"):
            net = TransformNet(**architecture.model_dump())
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: describes no transform network ({reason})") from None
    require_same_tensors(checkpoint.part("model"), net.state_dict(), path)
    net.load_state_dict(checkpoint.part("model"), assign=True)
    return net.eval()


def require_same_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> None:
    """Check names, shapes, types and finiteness.

    Raises:
        CheckpointError: names the first tensor that differs.
    """
    for name in [*expected, *found]:
        if name not in found:
            raise CheckpointError(f"{path}: has no tensor {name}")
        if name not in expected:
            raise CheckpointError(f"{path}: has a tensor {name} that the network has not")
        ours, theirs = expected[name], found[name]
        if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
            raise CheckpointError(
                f"{path}: {name} is {theirs.dtype} {tuple(theirs.shape)}; the network needs "
                f"{ours.dtype} {tuple(ours.shape)}"
            )
        if not torch.isfinite(theirs).all():
            raise CheckpointError(f"{path}: {name} has numbers that are not finite")


def describe(metadata: Mapping[str, Any]) -> list[str]:
    """What a file says of itself, in lines for people: for model cards and ``info``."""
    architecture, loss_network = metadata["architecture"], metadata["loss_network"]
    settings, versions = metadata["settings"], metadata["versions"]
    style_layers = ", ".join(settings["loss"]["style_layers"])
    content_layers = ", ".join(settings["loss"]["content_layers"])
    steps, batch_size = metadata["step"], settings["train"]["batch_size"]
    crops = str(settings["data"]["crop_size"])
    if grown := settings["data"].get("grown_crop_size"):
        crops += f", later {grown},"
    return [
        f"name: {metadata['name']}",
        f"kind: {metadata.get('kind', 'model')}, format {metadata.get('format', FORMAT_VERSION)}",
        f"style: {metadata['style']['file']}, sha256 of its pixels {metadata['style']['digest']}",
        f"loss network: {loss_network['architecture']}, {loss_network['label']}, sha256 "
        f"{loss_network['digest']}",
        f"trained: {steps} of {settings['train']['steps']} steps, {steps * batch_size} crops of "
        f"{crops} pixels from {metadata['photos']['count']} photos",
        f"content: {content_layers}, weight {settings['loss']['content_weight']:g}; style: "
        f"{style_layers}, weight {settings['loss']['style_weight']:g}; total variation: weight "
        f"{settings['loss']['tv_weight']:g} ({settings['loss']['normalization']})",
        f"network: width {architecture['width']}, {architecture['residual_blocks']} residual "
        f"blocks, {architecture['upsampling']} up-sampling, tanh scale "
        f"{architecture['tanh_scale']:g}",
        f"license: {metadata['license']}",
        f"made with: fast-style {versions['fast_style']}, torch {versions['torch']}",
    ]


# --- Adam's state --------------------------------------------------------------------------------

_MOMENTS = ("exp_avg", "exp_avg_sq")


def adam_tensors(
    parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Steps and moments of every parameter, as ``exp_avg.<parameter>``."""
    return {
        f"{key}.{name}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }


def restore_adam(
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, Tensor],
    path: Path,
) -> None:
    """Give an optimizer what `adam_tensors` took, in each parameter's own memory format.

    Raises:
        CheckpointError: it is not complete, or not of these shapes; names `path`.
    """
    expected: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        expected[f"step.{name}"] = torch.tensor(0.0)
        expected |= {f"{key}.{name}": parameter for key in _MOMENTS}
    require_same_tensors(saved, expected, path)
    for name, parameter in parameters.items():
        moments = {
            key: torch.empty_like(parameter).copy_(saved[f"{key}.{name}"]) for key in _MOMENTS
        }
        optimizer.state[parameter] = {"step": saved[f"step.{name}"], **moments}


# --- The checkpoints of a run -------------------------------------------------------------------

_CHECKPOINT_NAME = re.compile(r"step-(\d{8,})\.safetensors")


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the training state after `step` steps lies."""
    return folder / f"step-{step:08d}.safetensors"


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    if not folder.is_dir():
        return []
    steps = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := _CHECKPOINT_NAME.fullmatch(path.name))
    }
    return [steps[step] for step in sorted(steps, reverse=True)]


def newest_valid_checkpoint(
    folder: Path, on_skipped: Callable[[str], None]
) -> tuple[Path, Checkpoint] | None:
    """The newest checkpoint that can be loaded. Whether one is valid is judged from itself alone.

    Args:
        folder: of one run's checkpoints.
        on_skipped: called with a line about each newer one that is not usable.
    """
    for path in list_checkpoints(folder):
        try:
            return path, load_checkpoint(path)
        except CheckpointError as error:
            on_skipped(f"skipping {error}")
    return None


def last_good_checkpoint(folder: Path) -> str:
    """A sentence for errors that end a run: where it can go on."""
    found = newest_valid_checkpoint(folder, lambda line: None)
    return f"The last good checkpoint is {found[0]}" if found else "There is no checkpoint yet"


def remove_old_checkpoints(folder: Path, keep: int, *, newest: int) -> None:
    """Keep the newest `keep` up to step `newest`, which has just been written.

    Later ones are left alone and do not count: the run was resumed before them, since they are
    damaged, and counting them would cost the ones that are whole.
    """
    kept = checkpoint_path(folder, newest)
    paths = list_checkpoints(folder)
    for path in paths[paths.index(kept) + keep :]:
        with suppress(OSError):  # one file too many is not worth the run
            path.unlink()


# --- Bytes --------------------------------------------------------------------------------------


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise CheckpointError(f"{path}: not found; give a model.safetensors of a training run")
        if not path.is_file():
            raise CheckpointError(f"{path}: is not a file; give a model.safetensors")
        size = path.stat().st_size
        if size > _LARGEST_BYTES:
            raise CheckpointError(
                f"{path}: is too large for a model ({size} bytes; at most {_LARGEST_BYTES})"
            )
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def _header_length(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")


def _digest_place(data: bytes) -> re.Match[bytes] | None:
    # Inside the JSON description quotes are escaped, so the bare key is found only once.
    length = _header_length(data)
    if length > len(data) - 8:
        return None
    return _DIGEST_PLACE.search(data, 8, 8 + length)


def _looks_like(data: bytes) -> str:
    if data.startswith((b"PK\x03\x04", b"\x80")):
        return "it looks like a .pth of another project"
    if data[8:9] == b"{":
        return "it is truncated, or a safetensors file of another project"
    return what_it_looks_like(data[:512])
