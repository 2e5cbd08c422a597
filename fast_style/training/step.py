"""What one training step computes: stylized photos, loss terms, and gradients at the weights.

`TrainingStep` alone knows how this is executed: in which precision, compiled or not, in one process
or several, as a recorded CUDA graph or not. `Trainer` gives the gradients to the optimizer.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fast_style.core.distributed import ALONE, Group
from fast_style.losses.perceptual import LossTerms, PerceptualLoss
from fast_style.networks.compiling import CompileRequest, compile_whole
from fast_style.training.adversary import Adversary
from fast_style.training.photo_stream import to_pixels
from fast_style.training.recording import Recorded
from fast_style.training.stability import Changes

# Largest relative difference between the compiled and the eager gradient that half precision
# explains; a compiled gradient of zeros differs by 1.
_LARGEST_GRADIENT_DIFFERENCE = 0.5
_COMPILING = CompileRequest("train.compile", "set train.compile=false")


class StepOutput(NamedTuple):
    """What a step computes beside the gradients; detached, on the device."""

    stylized: Tensor
    """(N, 3, S, S)."""

    terms: LossTerms
    """Those of the perceptual loss; the stability term is not in their total."""

    instability: Tensor
    """`Changes.instability`, before its weight; 0 without copies."""

    adversarial: Tensor | None = None
    """`Adversary.opinion`, before its weight; None without an adversary."""

    discriminating: Tensor | None = None
    """The discriminator's loss, likewise."""


class TrainingStep:
    """Computes the gradients of the training's objective, executed as these arguments say.

    Args:
        net: the network, on its device.
        perceptual_loss: the objective without the stability term, on the same device.
        stability_weight: weight of the stability term.
        adversary: gives the adversarial term, and gets gradients, too; None: there is no such term.
        scaler: multiplies the loss, where half precision needs it.
        precision: the dtype of autocast, or None for float32.
        batch_size: photos of a full batch in this process.
        compile_for: (photos, side) of the batches that the network is applied to, copies
            included, to compile for before the first step; empty: do not compile.
        record: record the step as a CUDA graph.
        group: the processes that train together; their gradients are averaged.

    Raises:
        UserError: `net` or `perceptual_loss` cannot be compiled, or is compiled wrongly.
    """

    def __init__(
        self,
        net: nn.Module,
        perceptual_loss: PerceptualLoss,
        *,
        stability_weight: float,
        adversary: Adversary | None = None,
        scaler: torch.amp.GradScaler,
        precision: torch.dtype | None,
        batch_size: int,
        compile_for: Sequence[tuple[int, int]] = (),
        record: bool = False,
        group: Group = ALONE,
    ) -> None:
        self.net = net
        self.perceptual_loss = perceptual_loss
        self.stability_weight = stability_weight
        self.adversary = adversary
        self.scaler = scaler
        self.precision = precision
        self.batch_size = batch_size
        self.device = next(net.parameters()).device
        self.is_compiled = len(compile_for) > 0
        self.is_recorded = record
        forward_net: nn.Module = net
        forward_loss: nn.Module = perceptual_loss
        if self.is_compiled:
            with group.together():
                forward_net, forward_loss = self._compiled(compile_for)
        self._forward_net = group.parallel(forward_net, self.device)
        self._forward_loss = forward_loss
        parameters = list(net.parameters())
        self._discriminator = None
        if adversary:
            parameters += adversary.discriminator.parameters()
            self._discriminator = group.parallel(adversary.discriminator, self.device)
        self._recorded = Recorded(self._compute, parameters, batch_size=batch_size)

    def __call__(
        self,
        photos: Tensor,
        changes: Changes | None,
        adversarial: tuple[Tensor, Tensor] | None = None,
    ) -> StepOutput:
        """Stylized photos and loss terms; the gradients of the scaled loss are left at the weights.

        Those of the discriminator's own loss, which is not scaled, are left at its weights.

        Args:
            photos: (N, 3, S, S) in [0, 1], on the device.
            changes: those of the photos that have a changed copy.
            adversarial: from `Adversary.inputs`, if there is an adversary.

        Raises:
            UserError: the step cannot be recorded.
        """
        inputs = (photos, *(adversarial or ()), *(changes or ()))
        return self._recorded(*inputs) if self.is_recorded else self._compute(*inputs)

    def _compute(self, photos: Tensor, *others: Tensor) -> StepOutput:
        self.net.zero_grad(set_to_none=True)
        of_adversary, of_changes = (others[:2], others[2:]) if self.adversary else ((), others)
        changes = Changes(*of_changes) if of_changes else None
        # Copies go through the network with the crops: DDP allows it one forward pass a step.
        both = torch.cat([photos, changes.copies(photos)]) if changes else photos
        with self._autocast():
            pictures = self._forward_net(both)
            stylized = pictures[: len(photos)]
            terms = self._forward_loss(stylized, photos)
        objective, instability = terms.total, torch.zeros_like(terms.total)
        if changes:
            instability = changes.instability(stylized, pictures[len(photos) :])
            weight = self.stability_weight * changes.weight_in(len(photos))
            objective = objective + weight * instability
        if self.adversary:
            style_crops, adversarial_weight = of_adversary
            adversarial = self.adversary.opinion(terms.features)
            objective = objective + adversarial_weight * adversarial
        self.scaler.scale(objective).backward()
        output = StepOutput(stylized.detach(), terms.detached(), instability.detach())
        if not self.adversary:
            return output
        with self._autocast():  # so that the features of both sides are rounded alike
            discriminating = self.adversary.learn(style_crops, terms.features, self._discriminator)
        return output._replace(adversarial=adversarial.detach(), discriminating=discriminating)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=self.precision, enabled=self.precision is not None
        )

    def _compiled(self, batches: Iterable[tuple[int, int]]) -> tuple[nn.Module, nn.Module]:
        """The network and the loss, compiled for batches of so many crops and sides.

        They share their parameters with `net`, where these keep their names.
        """
        with _COMPILING.mistakes():
            net, loss = compile_whole(self.net), compile_whole(self.perceptual_loss)
            for count, side in batches:
                generator = torch.Generator().manual_seed(0)
                noise = torch.randint(256, (count, 3, side, side), generator=generator)
                self._require_same_gradient(net, loss, to_pixels(noise.byte(), self.device))
        return net, loss

    def _require_same_gradient(self, net: nn.Module, loss: nn.Module, photos: Tensor) -> None:
        """Compile for photos of this shape, and compare the gradient with the eager one.

        Copies, the photos beyond a full batch, are in the network's batch and not in the loss's.

        Raises:
            UserError: they differ by more than rounding explains.
        """
        compiled = self._gradient(net, loss, photos)
        # The mean over photos, one at a time: a whole batch could take more memory than the
        # compiled step does.
        eager = torch.zeros_like(compiled)
        for photo in torch.split(photos[: self.batch_size], 1):
            eager += self._gradient(self.net, self.perceptual_loss, photo) / self.batch_size
        _COMPILING.require_same(compiled, eager, "gradient", most=_LARGEST_GRADIENT_DIFFERENCE)

    def _gradient(self, net: nn.Module, loss: nn.Module, photos: Tensor) -> Tensor:
        """The gradient of the scaled loss at all weights, in one row."""
        with self._autocast():
            terms = loss(net(photos)[: self.batch_size], photos[: self.batch_size])
        total = self.scaler.scale(terms.total)
        gradients = torch.autograd.grad(total, list(self.net.parameters()))
        return torch.cat([gradient.flatten() for gradient in gradients])
