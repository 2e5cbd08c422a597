"""Stops a run whose numbers are not finite."""

from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from fast_style.core.distributed import Group
from fast_style.core.errors import UserError
from fast_style.losses.perceptual import LossTerms
from fast_style.models.checkpoint import last_good_checkpoint

# In the order of computation: a gradient is not finite because a term was not.
_GUARDED = ("content term", "style term", "total variation", "gradient")


class FiniteGuard:
    """Notes on the device which numbers are not finite; only `check` waits for the device.

    Such numbers are never repaired: their cause would remain.

    Args:
        device: where training computes.
        checkpoints: the folder of the run's checkpoints.
        group: the processes that train together.
    """

    def __init__(self, device: torch.device, checkpoints: Path, group: Group) -> None:
        self._checkpoints = checkpoints
        self._group = group
        # The first step at which each number was not finite; -1: none so far.
        self._first_bad_step = torch.full((len(_GUARDED),), -1, device=device)

    def note(
        self, step: int, terms: LossTerms, gradient_norm: Tensor, *, loss_scale: Tensor
    ) -> None:
        """Note the numbers of this step, without waiting for the device.

        A gradient may overflow half precision because the loss was scaled. Its step is then
        skipped and the scale halved. It counts as not finite only at a scale of at most 1.
        """
        numbers = torch.stack([terms.content, terms.style, terms.tv, gradient_norm]).detach()
        is_bad = ~torch.isfinite(numbers)
        is_bad[-1] &= loss_scale <= 1
        self._first_bad_step.masked_fill_((self._first_bad_step < 0) & is_bad, step)

    def check(self) -> None:
        """Require that all numbers so far were finite, in all processes.

        Raises:
            UserError: names the first number that is not finite, and its step.
        """
        bad = [(step, k) for k, step in enumerate(self._first_bad_step.tolist()) if step >= 0]
        first = min(chain(*self._group.gather(bad)), default=None)
        if first is None:
            return
        step, k = first
        with self._group.together():
            raise UserError(
                f"step {step}: the {_GUARDED[k]} is not a finite number. Try a lower "
                "train.learning_rate, loss.style_weight or loss.adversarial_weight, or "
                "train.precision=fp32. "
                f"{last_good_checkpoint(self._checkpoints)}",
                exit_code=1,
            )
