"""The optimizer of training: Adam, or Muon for the kernels between feature maps beside it.

Adam treats each weight by itself. Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon)
treats a layer's weights as a matrix: an update moves all its singular directions equally far.
Half as many steps suffice (docs/ablations.md). torch.optim.Muon takes no kernels of four
dimensions, and rounds to bfloat16.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fast_style.settings.config import TrainConfig

# A convolution of or to the three colors has too few singular directions.
_LEAST_CHANNELS = 4
_MOMENTUM = 0.95
# Of an update, in learning rates, whatever the matrix. Adam's have about 0.2, which Liu et al. 2025
# (arXiv:2502.16982, section 2.2) take; three times as much was better here.
_ROOT_MEAN_SQUARE = 0.6
# Of the polynomial that brings singular values near 1 (Jordan et al.), and how often it is applied.
_COEFFICIENTS = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def build_optimizer(
    net: nn.Module, settings: TrainConfig, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer that the settings name, for a network on this device."""
    # On a CPU, a fused step takes a thousand times as long, and torch's default is kept.
    fused = True if device.type == "cuda" else None
    kind = Muon if settings.optimizer == "muon" else torch.optim.Adam
    return kind(net.parameters(), lr=settings.learning_rate, fused=fused)


class Muon(torch.optim.Optimizer):
    """Updates kernels between feature maps with orthogonal matrices, the rest as Adam does.

    Args:
        parameters: those of a network.
        lr: the learning rate of both methods.
        fused: of Adam; see `torch.optim.Adam`.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, fused: bool | None = None
    ) -> None:
        every = list(parameters)
        kernels = [parameter for parameter in every if is_kernel(parameter)]
        others = [parameter for parameter in every if not is_kernel(parameter)]
        # As groups, either may be empty: a network of width 1 has no kernels that Muon takes.
        self._adam = torch.optim.Adam([{"params": others}], lr=lr, fused=fused)
        super().__init__([{"params": kernels}], self._adam.defaults)
        self.param_groups += self._adam.param_groups
        self._by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for kernel in kernels:
            self._by_shape[kernel.shape].append(kernel)

    def moments_of(self, parameter: Tensor) -> tuple[str, ...]:
        """The names of the tensors that a step keeps for this parameter."""
        return ("momentum",) if is_kernel(parameter) else ("step", "exp_avg", "exp_avg_sq")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None
        # One optimizer to all others: a learning rate that is set, or a state that is restored,
        # holds for both parts.
        self._adam.state, self._adam.param_groups = self.state, self.param_groups[1:]
        self._adam.step()
        for kernels in self._by_shape.values():
            updated = [kernel for kernel in kernels if kernel.grad is not None]
            if updated:
                self._update(updated)

    def _update(self, kernels: list[nn.Parameter]) -> None:
        """Update kernels of one shape, all of them at once."""
        directions = []
        for kernel in kernels:
            assert kernel.grad is not None
            state = self.state[kernel]
            if not state:
                state["momentum"] = torch.zeros_like(kernel)
            momentum = state["momentum"].lerp_(kernel.grad, 1 - _MOMENTUM)
            directions.append(kernel.grad.lerp(momentum, _MOMENTUM).flatten(1))  # Nesterov's
        updates = orthogonal(torch.stack(directions))
        size = _ROOT_MEAN_SQUARE * max(updates.shape[1:]) ** 0.5
        for kernel, update in zip(kernels, updates, strict=True):
            kernel.sub_(update.view_as(kernel), alpha=self.param_groups[0]["lr"] * size)


def is_kernel(parameter: Tensor) -> bool:
    """Whether a parameter is a kernel between feature maps, each of at least 4 channels."""
    return parameter.ndim == 4 and min(parameter.shape[:2]) >= _LEAST_CHANNELS


def orthogonal(matrices: Tensor) -> Tensor:
    """About U Vᵀ of each matrix U S Vᵀ: the singular values become about 1 (Jordan et al. 2024).

    They lie between 0.68 and 1.2, and tiny ones, of directions without a gradient, stay small.

    Args:
        matrices: (N, rows, columns).
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.transpose(1, 2)).transpose(1, 2)
    first, second, third = _COEFFICIENTS
    result = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        squares = result @ result.transpose(1, 2)
        result = first * result + (second * squares + third * squares @ squares) @ result
    return result
