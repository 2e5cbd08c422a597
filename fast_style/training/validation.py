"""What a training measures on the photos that it holds out."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fast_style.core.distributed import Group
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.measures.artifacts import weave_strengths
from fast_style.measures.blots import blot_share
from fast_style.measures.halos import halos
from fast_style.measures.repeats import repeat_strengths
from fast_style.measures.steadiness import noise_gains, shift_errors
from fast_style.networks.fast_transform import FastTransform
from fast_style.training.photo_stream import to_pixels

TERMS = ("total", "content", "style")
MEASURES = (*TERMS, "blots", "weave_2", "weave_4", "repeats", "halos", "shift", "noise_gain")
"""What is measured on every validation: the objective, two terms, faults, and steadiness."""


class ValidationJudge(NamedTuple):
    """The judge's objective, and the validation photos at its size: uint8 (N, 3, S, S)."""

    loss: PerceptualLoss
    photos: Tensor


class Validation:
    """The held-out photos, and what is measured on their stylized versions.

    Args:
        photos: uint8 (N, 3, S, S), never trained on.
        perceptual_loss: the objective of the training.
        style_picture: (1, 3, H, W), float in [0, 1], on the device, as the loss network sees it.
        judge: logged beside the objective, and without influence on the training.
        batch_size: photos that are stylized at once, over all processes together.
        group: the processes that share the photos; all call the same methods at the same steps.
    """

    def __init__(
        self,
        photos: Tensor,
        perceptual_loss: PerceptualLoss,
        style_picture: Tensor,
        *,
        judge: ValidationJudge | None,
        batch_size: int,
        group: Group,
    ) -> None:
        self.photos = photos
        self.perceptual_loss = perceptual_loss
        self.style_picture = style_picture
        self.judge = judge
        self.batch_size = batch_size
        self.group = group

    @torch.no_grad()
    def measure(self, net: FastTransform) -> dict[str, float]:
        """The mean objective, terms and faults, in float32, by column of metrics.csv."""
        means = self._means(net, partial(self._all_of, net), MEASURES, self.photos)
        return {f"validation/{name}": mean for name, mean in means.items()}

    @torch.no_grad()
    def judge_terms(self, net: FastTransform) -> dict[str, float]:
        """The judge's mean terms, by TensorBoard's tag; empty without a judge."""
        if self.judge is None:
            return {}
        means = self._means(net, partial(_terms, self.judge.loss), TERMS, self.judge.photos)
        return {f"judge/{name}": mean for name, mean in means.items()}

    def _all_of(self, net: FastTransform, stylized: Tensor, photos: Tensor) -> dict[str, Tensor]:
        def stylize(pixels: Tensor) -> Tensor:
            pictures: Tensor = net(pixels)
            return pictures.clamp(0, 1)

        saved = stylized.clamp(0, 1)
        weave = weave_strengths(saved, photos)
        return {
            **_terms(self.perceptual_loss, stylized, photos),
            "blots": blot_share(saved, photos, self.style_picture),
            "weave_2": weave.period_2,
            "weave_4": weave.period_4,
            "repeats": repeat_strengths(saved),
            "halos": halos(saved, photos),
            "shift": shift_errors(stylize, photos),
            "noise_gain": noise_gains(stylize, photos, saved),
        }

    def _means(
        self,
        net: FastTransform,
        measure: Callable[[Tensor, Tensor], dict[str, Tensor]],
        names: Sequence[str],
        photos: Tensor,
    ) -> dict[str, float]:
        """The means of what `measure` gives for stylized and original photos, by its names.

        Args:
            net: stylizes them.
            measure: takes both, (N, 3, S, S) in [0, 1]; gives values of single photos, or means.
            names: of all that it gives; a process without photos adds zeros.
            photos: uint8 (N, 3, S, S), of all processes together.
        """
        device = self.style_picture.device
        sums = dict.fromkeys(names, 0.0)
        launch = self.group.launch
        chunks = torch.split(photos, self.batch_size // launch.world_size)
        for chunk in chunks[launch.rank :: launch.world_size]:
            pixels = to_pixels(chunk, device)
            for name, values in measure(net(pixels), pixels).items():
                sums[name] += values.mean().item() * len(chunk)
        totals = self.group.sums(list(sums.values()))
        return {name: total / len(photos) for name, total in zip(sums, totals, strict=True)}


def _terms(loss: PerceptualLoss, stylized: Tensor, photos: Tensor) -> dict[str, Tensor]:
    terms = loss(stylized, photos)
    return {name: getattr(terms, name) for name in TERMS}
