"""Writing and restoring the state of a run, for training and distilling."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fast_style.core.errors import UserError, capitalized, printable, remedy_for
from fast_style.core.files import (
    free_bytes,
    make_with_parents,
    size_in_words,
    write_text_atomically,
)
from fast_style.models.checkpoint import (
    Checkpoint,
    last_good_checkpoint,
    list_checkpoints,
    optimizer_tensors,
    remove_old_checkpoints,
    require_same_tensors,
    restore_optimizer,
)
from fast_style.models.model_files import CheckpointError, describe

RESULTS = ("model.safetensors", "loss_network.safetensors")
"""What a training, or a distilling, leaves in its folder for use."""

MODEL_CARD = "README.md"
"""The model's description in a run folder, for people."""

LATEST_SAMPLES = "latest.png"
"""The sample sheet of the newest checkpoint, in the folder of samples."""


@contextmanager
def writing_step(
    folder: Path,
    step: int,
    *,
    keep: int,
    warn: Callable[[str], None],
    on_full_disk: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Inside, the files of a step are written; after success, the oldest checkpoints are removed.

    Args:
        folder: the run's checkpoints.
        step: finished steps.
        keep: number of checkpoints to keep.
        warn: called with a warning if the folder is gone. It is made again, so that nothing is lost
            of what follows.
        on_full_disk: called with a warning if a file cannot be written; the run continues, and
            tries again at the next checkpoint. None: raise UserError.

    Raises:
        UserError: a number is not finite, or a file cannot be written; names the last good
            checkpoint.
    """
    if not os.path.lexists(folder):
        warn(
            f"{printable(folder)}: this folder is gone, renamed or deleted while the run trained; "
            "it is made again, without the checkpoints of before"
        )
    try:
        make_with_parents(folder)  # somebody may have removed it during the work
        yield
    except ValueError as error:
        raise UserError(
            f"step {step}: {error}. Try a lower train.learning_rate. "
            f"{last_good_checkpoint(folder)}",
            exit_code=1,
        ) from None
    except OSError as error:
        line = (
            f"step {step}: no checkpoint could be written ({error}; "
            f"{_room_words(folder, error)}). {last_good_checkpoint(folder)}"
        )
        if on_full_disk is None:
            remedy = capitalized(remedy_for(error, "see that this folder can be written to"))
            raise UserError(f"{line}. {remedy}{_then(folder)}", exit_code=1) from None
        on_full_disk(f"{line}; trying again at the next one")
    else:
        remove_old_checkpoints(folder, keep, newest=step)


def _then(folder: Path) -> str:
    """What to do once files can be written again, as the end of a sentence."""
    if list_checkpoints(folder):
        return ", and repeat the command"
    # A training never replaces a result that it cannot resume.
    results = [path for path in map(folder.parent.joinpath, RESULTS) if path.is_file()]
    away = f", move {printable(results[0])} away (it is whole)" if results else ""
    return f"{away}, and repeat the command, which begins anew"


def _room_words(folder: Path, error: OSError) -> str:
    if error.errno == errno.EFBIG:  # what is free does not matter then
        return "a limit of this process, as by ulimit -f"
    return f"{size_in_words(free_bytes(folder))} are free"


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors renamed to ``prefix.<name>``; `Checkpoint.part` is the inverse."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def training_tensors(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """A network as ``model.<name>``, the optimizer's state as ``optimizer.<moment>.<name>``."""
    moments = optimizer_tensors(dict(net.named_parameters()), optimizer)
    return {**with_prefix("model", net.state_dict()), **with_prefix("optimizer", moments)}


def restore_weights(net: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give a network these weights.

    Raises:
        CheckpointError: a tensor is missing, or of another shape; names `path`.
    """
    require_same_tensors(weights, net.state_dict(), path)
    net.load_state_dict(weights)


def restore_training(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    checkpoint: Checkpoint,
    path: Path,
) -> None:
    """Give a network its weights, the optimizer its state and the loss its scale.

    Raises:
        CheckpointError: the checkpoint lacks some of them, or has them in other shapes; names
            `path`.
    """
    restore_weights(net, checkpoint.part("model"), path)
    saved = checkpoint.part("optimizer")
    # There is no state if every step so far was skipped, because scaled gradients overflowed.
    if saved or not scaler.is_enabled():
        restore_optimizer(dict(net.named_parameters()), optimizer, saved, path)
    if scaler.is_enabled():
        # Older checkpoints hold no scale; the initial one is used.
        _restore_scale(scaler, checkpoint.metadata.get("loss_scale", {}), path)


def _restore_scale(scaler: torch.amp.GradScaler, saved: Mapping[str, Any], path: Path) -> None:
    fresh = scaler.state_dict()
    try:
        state = {name: type(value)(saved.get(name, value)) for name, value in fresh.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{printable(path)}: its loss_scale is damaged ({error})") from None
    scaler.load_state_dict(state)


def write_model_card(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write `MODEL_CARD` of a run folder; it shows `LATEST_SAMPLES`."""
    lines = "\n".join(f"- {line}" for line in describe(metadata))
    write_text_atomically(
        folder / MODEL_CARD,
        f"# {metadata['name']}\n\nA style-transfer model made with fast-style.\n\n{lines}\n\n"
        f"![held-out photos above, stylized below](samples/{LATEST_SAMPLES})\n\n"
        "```\nfast-style stylize --model model.safetensors --output out.jpg photo.jpg\n```\n",
    )
