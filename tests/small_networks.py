"""Transform networks and photos that are small and seeded, for tests that compute with them."""

from typing import Any

import torch
from torch import Tensor

from fast_style.networks.transform_net import InstanceNorm, TransformNet

KINDS: dict[str, dict[str, Any]] = {
    "antialiased": {"upsampling": "resize", "antialiased": True},
    "resize": {"upsampling": "resize", "antialiased": False},
    "transposed": {"upsampling": "transposed", "antialiased": False},
    "transposed, antialiased": {"upsampling": "transposed", "antialiased": True},
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def make_net(seed: int = 0, **settings: object) -> TransformNet:
    """A tiny network whose norms have no special values, as after training.

    Args:
        seed: of its weights.
        settings: of `TransformNet`; by default width 2 and one residual block.
    """
    torch.manual_seed(seed)
    net = TransformNet(**{"width": 2, "residual_blocks": 1} | settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, InstanceNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return net.eval()


def make_photos(*shape: int, seed: int = 0) -> Tensor:
    """Noise in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
