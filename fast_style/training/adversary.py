"""The adversary of training: a discriminator that learns in the same steps as the network.

At every step it sees the network's results beside as many crops of the style picture, and moves one
step towards telling them apart; the network moves towards being taken for the style picture.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fast_style.losses.discriminator import (
    Discriminator,
    Features,
    adversarial_loss,
    discriminator_loss,
)
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.models.checkpoint import (
    Checkpoint,
    optimizer_tensors,
    require_same_tensors,
    restore_optimizer,
)
from fast_style.training.saving import with_prefix

# Distinguishes the random numbers of style crops from others of the same seed.
_STYLE_CROP = 4
_LEARNING_RATE = 1e-3
# Of Adam: the network that the gradients are about changes at every step.
_BETAS = (0.5, 0.99)
# Steps in which the discriminator learns alone, as its first scores mean nothing; then, steps over
# which the weight of its opinion rises.
_STEPS_ALONE = 60
_STEPS_RISING = 60


class Adversary:
    """A discriminator with its optimizer, its style crops and its weight.

    Args:
        perceptual_loss: the objective, which computes the features of `kept_layers`.
        style_picture: (1, 3, H, W) in [0, 1], on the device, of at least
            `discriminator.SMALLEST_PICTURE` pixels.
        weight: weight of the adversarial term beside the perceptual loss.
        seed: of the run.
    """

    def __init__(
        self,
        perceptual_loss: PerceptualLoss,
        style_picture: Tensor,
        *,
        weight: float,
        seed: int,
    ) -> None:
        self.style_picture = style_picture
        self.weight = weight
        self.seed = seed
        self._loss_network = perceptual_loss.loss_network
        self._layers = perceptual_loss.kept_layers
        device = style_picture.device
        with torch.no_grad():
            style = self._loss_network(style_picture, self._layers)
        self.discriminator = Discriminator(style, seed=seed).to(device)
        self._optimizer = torch.optim.Adam(
            self.discriminator.parameters(),
            lr=_LEARNING_RATE,
            betas=_BETAS,
            fused=True if device.type == "cuda" else None,
        )

    def inputs(self, step: int, samples: Sequence[int], side: int) -> tuple[Tensor, Tensor]:
        """Crops of the style picture, (N, 3, S', S'), and the weight of the term, (), of a step.

        Args:
            step: finished steps.
            samples: the numbers of the batch's samples; each has its own crop.
            side: S, pixels of the side of the photos' crops; S' is less if the style picture is.
        """
        crops = torch.cat([self._style_crop(sample, side) for sample in samples])
        rise = min(max((step + 1 - _STEPS_ALONE) / _STEPS_RISING, 0.0), 1.0)
        # Filled on the device; to copy a number there, the host would wait for it.
        return crops, torch.full((), rise * self.weight, device=crops.device)

    def _style_crop(self, sample: int, side: int) -> Tensor:
        rng = np.random.default_rng((self.seed, _STYLE_CROP, sample))
        height, width = self.style_picture.shape[-2:]
        side = min(side, height, width)
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = self.style_picture[..., top : top + side, left : left + side]
        return crop.flip(-1) if rng.random() < 0.5 else crop

    def opinion(self, features: Features) -> Tensor:
        """The adversarial term of the network's results, before its weight: ().

        Args:
            features: of the results, with gradient.
        """
        # Its gradient goes to the network alone.
        self.discriminator.requires_grad_(False)
        (of_results,) = self.discriminator(features)
        self.discriminator.requires_grad_(True)
        return adversarial_loss(of_results)

    def learn(
        self, style_crops: Tensor, features: Features, discriminator: nn.Module | None = None
    ) -> Tensor:
        """The discriminator's loss, (); its gradients are left at the discriminator's weights.

        Args:
            style_crops: from `inputs`.
            features: of the results.
            discriminator: the discriminator, wrapped to average its gradients over processes.
        """
        discriminator = discriminator or self.discriminator
        self.discriminator.zero_grad(set_to_none=True)
        with torch.no_grad():
            of_style = self._loss_network(style_crops, self._layers)
        apart = {layer: features[layer].detach() for layer in self._layers}
        loss: Tensor = discriminator_loss(*discriminator(of_style, apart))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def update(self) -> None:
        """Move the discriminator along the gradients that `learn` left."""
        self._optimizer.step()
        self.discriminator.find_largest_values()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it, by name."""
        moments = optimizer_tensors(dict(self.discriminator.named_parameters()), self._optimizer)
        return {
            **with_prefix("discriminator", self.discriminator.state_dict()),
            **with_prefix("discriminator_optimizer", moments),
        }

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Take the state of `tensors` from a checkpoint.

        Raises:
            CheckpointError: it lacks some of them, or has them in other shapes; names `path`.
        """
        weights = checkpoint.part("discriminator")
        require_same_tensors(weights, self.discriminator.state_dict(), path)
        self.discriminator.load_state_dict(weights)
        restore_optimizer(
            dict(self.discriminator.named_parameters()),
            self._optimizer,
            checkpoint.part("discriminator_optimizer"),
            path,
        )
