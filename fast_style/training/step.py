"""What one training step computes: stylized photos, loss terms, and gradients at the weights.

`TrainingStep` alone knows how this is executed: in which precision, compiled or not, in one process
or several, as a recorded CUDA graph or not. What Adam does with the gradients is `Trainer`'s.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from fast_style.core.distributed import ALONE, Group
from fast_style.losses.perceptual import LossTerms, PerceptualLoss
from fast_style.networks.compiling import CompileRequest, compile_whole
from fast_style.training.photo_stream import to_pixels
from fast_style.training.recording import Recorded

# Largest relative difference between the compiled and the eager gradient that half precision
# explains; a compiled gradient of zeros differs by 1.
_LARGEST_GRADIENT_DIFFERENCE = 0.5
_COMPILING = CompileRequest("train.compile", "set train.compile=false")


class TrainingStep:
    """Computes the gradients of the perceptual loss, executed as these arguments say.

    Args:
        net: the network, on its device.
        perceptual_loss: the objective, on the same device.
        scaler: multiplies the loss, where half precision needs it.
        precision: the dtype of autocast, or None for float32.
        batch_size: photos of a full batch in this process.
        compile_for: sides of the crops to compile for, before the first step; empty: do not
            compile.
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
        scaler: torch.amp.GradScaler,
        precision: torch.dtype | None,
        batch_size: int,
        compile_for: Sequence[int] = (),
        record: bool = False,
        group: Group = ALONE,
    ) -> None:
        self.net = net
        self.perceptual_loss = perceptual_loss
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
        self._recorded = Recorded(self._compute, net.parameters(), batch_size=batch_size)

    def __call__(self, photos: Tensor) -> tuple[Tensor, LossTerms]:
        """Stylized photos and loss terms; the gradients of the scaled loss are left at the weights.

        Args:
            photos: (N, 3, S, S) in [0, 1], on the device.

        Raises:
            UserError: the step cannot be recorded.
        """
        return self._recorded(photos) if self.is_recorded else self._compute(photos)

    def _compute(self, photos: Tensor) -> tuple[Tensor, LossTerms]:
        self.net.zero_grad(set_to_none=True)
        with self._autocast():
            stylized = self._forward_net(photos)
            terms = self._forward_loss(stylized, photos)
        self.scaler.scale(terms.total).backward()
        return stylized.detach(), terms.detached()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=self.precision, enabled=self.precision is not None
        )

    def _compiled(self, sides: Iterable[int]) -> tuple[nn.Module, nn.Module]:
        """The network and the loss, compiled for crops of these sides.

        They share their parameters with `net`, where these keep their names.
        """
        with _COMPILING.mistakes():
            net, loss = compile_whole(self.net), compile_whole(self.perceptual_loss)
            for side in sides:
                generator = torch.Generator().manual_seed(0)
                noise = torch.randint(256, (self.batch_size, 3, side, side), generator=generator)
                self._require_same_gradient(net, loss, to_pixels(noise.byte(), self.device))
        return net, loss

    def _require_same_gradient(self, net: nn.Module, loss: nn.Module, photos: Tensor) -> None:
        """Compile for photos of this shape, and compare the gradient with the eager one.

        Raises:
            UserError: they differ by more than rounding explains.
        """
        compiled = self._gradient(net, loss, photos)
        # The mean over photos, one at a time: a whole batch could take more memory than the
        # compiled step does.
        eager = torch.zeros_like(compiled)
        for photo in torch.split(photos, 1):
            eager += self._gradient(self.net, self.perceptual_loss, photo) / len(photos)
        _COMPILING.require_same(compiled, eager, "gradient", most=_LARGEST_GRADIENT_DIFFERENCE)

    def _gradient(self, net: nn.Module, loss: nn.Module, photos: Tensor) -> Tensor:
        """The gradient of the scaled loss at all weights, in one row."""
        with self._autocast():
            terms = loss(net(photos), photos)
        total = self.scaler.scale(terms.total)
        gradients = torch.autograd.grad(total, list(self.net.parameters()))
        return torch.cat([gradient.flatten() for gradient in gradients])
