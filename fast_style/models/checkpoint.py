"""Training states and finished models, saved and loaded in the format of `model_files`."""

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
from fast_style.core.errors import printable
from fast_style.core.files import atomic_write, with_sorted_metadata
from fast_style.models.model_files import (
    FORMAT_VERSION,
    NARROW_FORMAT_VERSION,
    NO_DIGEST,
    CheckpointError,
    digest_place,
    read_model_file,
    require_description,
    require_step,
)
from fast_style.models.narrow import widened
from fast_style.networks.transform_net import TransformNet
from fast_style.settings.config import ModelConfig
from fast_style.settings.structure import with_old_meanings


class Checkpoint(NamedTuple):
    """Contents of a file: tensors (``model.*``, ``optimizer.*`` and so on), their description."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix.``, without the prefix."""
        return {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    format_version: int = FORMAT_VERSION,
) -> None:
    """Write tensors and their description to a file, atomically.

    Args:
        path: the file, in a folder that exists.
        tensors: any dtype and memory format; they are saved contiguous.
        metadata: plain data; the versions of the format and of the software are added.
        format_version: which of the formats of `model_files` the tensors have.

    Raises:
        OSError: it cannot be written; an older file of that name is untouched.
        ValueError: a tensor holds numbers that are not finite; nothing is written.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in ready.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has numbers that are not finite")
    description = {"format": format_version, "fast_style": __version__, **metadata}
    data = with_sorted_metadata(
        safetensors.torch.save(
            ready, {"fast_style": json.dumps(description, sort_keys=True), "sha256": NO_DIGEST}
        )
    )
    digest = hashlib.sha256(data).hexdigest()
    place = digest_place(data)
    assert place is not None
    with atomic_write(path) as file:
        file.write(data[: place.start(1)] + digest.encode() + data[place.end(1) :])


def load_checkpoint(path: Path) -> Checkpoint:
    """The tensors and the description of a file, after checking its digest and its format version.

    Raises:
        CheckpointError: it is missing, damaged, of another kind or of a newer format.
    """
    data, metadata = read_model_file(path)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{printable(path)}: is not a fast-style model ({error})") from None
    return Checkpoint(tensors, metadata)


def load_transform_net(path: Path) -> tuple[TransformNet, dict[str, Any]]:
    """The network of a model or checkpoint, in evaluation mode, and the file's description.

    Raises:
        CheckpointError: see `load_checkpoint`; also when weights do not fit the architecture, or
            the description is incomplete.
    """
    checkpoint = load_checkpoint(path)
    net = build_transform_net(checkpoint, path)
    require_description(checkpoint.metadata, path)
    return net, checkpoint.metadata


def build_transform_net(checkpoint: Checkpoint, path: Path) -> TransformNet:
    """The network that a checkpoint describes, with its weights, in evaluation mode.

    Raises:
        CheckpointError: the architecture or the weights are wrong; names `path`.
    """
    try:
        # A hostile file must not make us allocate: settings are checked, and "meta" has no memory.
        found = {**checkpoint.metadata["architecture"]}
        architecture = ModelConfig(**with_old_meanings(ModelConfig, found))
        with torch.device("meta"):
            net = TransformNet(**architecture.model_dump()).float()  # whatever torch's default is
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{printable(path)}: describes no transform network ({reason})"
        ) from None
    weights = checkpoint.part("model")
    if checkpoint.metadata.get("format") == NARROW_FORMAT_VERSION:
        weights = widened(weights, checkpoint.part("scale"), net.state_dict(), path)
    require_same_tensors(weights, net.state_dict(), path)
    net.load_state_dict(weights, assign=True)
    return net.eval()


def require_same_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> None:
    """Check that names, shapes and types are the expected ones, and that numbers are finite.

    Raises:
        CheckpointError: names `path` and the first tensor that differs.
    """
    for name in [*expected, *found]:
        if name not in found:
            raise CheckpointError(f"{printable(path)}: has no tensor {name}")
        if name not in expected:
            raise CheckpointError(
                f"{printable(path)}: has a tensor {name}, which the network lacks"
            )
        ours, theirs = expected[name], found[name]
        if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
            raise CheckpointError(
                f"{printable(path)}: {name} is {theirs.dtype} {tuple(theirs.shape)}; the "
                "network needs "
                f"{ours.dtype} {tuple(ours.shape)}"
            )
        if not torch.isfinite(theirs).all():
            raise CheckpointError(f"{printable(path)}: {name} has numbers that are not finite")


# --- The optimizer's state -----------------------------------------------------------------------

_ADAM = ("step", "exp_avg", "exp_avg_sq")


def optimizer_tensors(
    parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """What an optimizer keeps for each parameter: ``step.<name>``, ``exp_avg.<name>`` and so on."""
    return {
        f"{key}.{name}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }


def restore_optimizer(
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, Tensor],
    path: Path,
) -> None:
    """Restore the result of `optimizer_tensors`, in each parameter's memory format.

    Args:
        parameters: those of the optimizer, by name.
        optimizer: Adam, or one that has `moments_of`, the names of what it keeps for a parameter.
        saved: the tensors.
        path: of the checkpoint.

    Raises:
        CheckpointError: `saved` is incomplete, or of other shapes; names `path`.
    """
    moments_of = getattr(optimizer, "moments_of", lambda parameter: _ADAM)
    expected = {
        f"{key}.{name}": torch.tensor(0.0) if key == "step" else parameter
        for name, parameter in parameters.items()
        for key in moments_of(parameter)
    }
    require_same_tensors(saved, expected, path)
    # The fused kernel needs the step on its own device, the other kernels on the CPU.
    is_fused = bool(optimizer.defaults.get("fused"))
    for name, parameter in parameters.items():
        state = {}
        for key in moments_of(parameter):
            value = saved[f"{key}.{name}"]
            if key != "step":
                value = torch.empty_like(parameter).copy_(value)
            elif is_fused:
                value = value.to(parameter.device)
            state[key] = value
        optimizer.state[parameter] = state


# --- The checkpoints of a run -------------------------------------------------------------------

_CHECKPOINT_NAME = re.compile(r"step-(\d{8,})\.safetensors")


def checkpoint_path(folder: Path, step: int) -> Path:
    """The file of the training state after `step` steps."""
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
    """The file and the contents of the newest checkpoint that loads; None if there is none.

    Args:
        folder: the checkpoints of one run.
        on_skipped: called with a message about each newer checkpoint that does not load.
    """
    for path in list_checkpoints(folder):
        try:
            found = load_checkpoint(path)
            require_step(found.metadata, path)
            return path, found
        except CheckpointError as error:
            on_skipped(f"skipping {error}")
    return None


def last_good_checkpoint(folder: Path) -> str:
    """A sentence for errors that end a run: the checkpoint from which it can resume."""
    found = newest_valid_checkpoint(folder, lambda line: None)
    return f"The last good checkpoint is {found[0]}" if found else "There is no checkpoint yet"


def remove_old_checkpoints(folder: Path, keep: int, *, newest: int) -> None:
    """Remove all checkpoints up to step `newest`, the one just written, except the newest `keep`.

    Checkpoints of later steps are neither counted nor removed. They are damaged, which is why the
    run resumed from an earlier step; counting them would remove undamaged ones.
    """
    kept = checkpoint_path(folder, newest)
    paths = list_checkpoints(folder)
    if kept not in paths:  # somebody has removed it already, and the others may be all that is left
        return
    for path in paths[paths.index(kept) + keep :]:
        with suppress(OSError):  # a file that stays is no reason to end the run
            path.unlink()
