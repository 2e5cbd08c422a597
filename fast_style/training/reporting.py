"""The parts of a training report: losses, gradient shares, speed, sample pictures, warnings.

`Trainer.report` decides the order; each method here makes one part of a report.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from fast_style.core.distributed import Group
from fast_style.core.errors import UserError, printable
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.networks.fast_transform import FastTransform
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import LogConfig, TrainConfig
from fast_style.training.loop import Interval, show_status
from fast_style.training.photo_stream import PhotoStream, to_pixels
from fast_style.training.run_log import RunLog, photo_and_result_sheet
from fast_style.training.saving import LATEST_SAMPLES, MODEL_CARD, write_model_card
from fast_style.training.schedule import is_due, learning_rate_at
from fast_style.training.step import StepOutput
from fast_style.training.validation import MEASURES

# A term with a smaller share of the gradient has no effect; its weight is probably a mistake.
_NEGLIGIBLE_SHARE = 0.01
# With a larger share of values that become 0 or 255, pictures have lost their lights and shadows.
_MUCH_CLIPPED = 0.25


class StepResult(NamedTuple):
    """The results of a training step that a report needs; tensors on the device.

    `photos` are (N, 3, S, S), this process's share of the batch. `gradient_norm` is the norm of the
    gradient at all weights, without the scale of the loss.
    """

    photos: Tensor
    output: StepOutput
    gradient_norm: Tensor


class Due(NamedTuple):
    """The parts of a report that are due at a step."""

    log: bool
    shares: bool
    validation: bool
    samples: bool


def columns_of(
    perceptual_loss: PerceptualLoss, *, with_stability: bool, with_adversary: bool = False
) -> list[str]:
    """The columns of a run's metrics.csv, beside step and images."""
    parts = [f"loss/style/{part}" for part in perceptual_loss.style_parts]
    losses = ["loss/total", "loss/content", "loss/style", "loss/tv", *parts]
    validation = [f"validation/{name}" for name in MEASURES]
    shares = ["share/content", "share/style", "share/tv"]
    output = ["output/min", "output/max", "output/clipped"]
    further = ["loss/stability"] if with_stability else []
    further += ["loss/adversarial", "loss/discriminator"] if with_adversary else []
    return [*losses, *validation, *shares, "lr", "grad_norm", *output, "data/skipped", *further]


class Reporter:
    """Makes the parts of a report, and writes them to the run's log.

    Args:
        run_log: where values, pictures and warnings go.
        run_folder: where sample pictures go.
        fast_net: the network that is trained.
        perceptual_loss: the objective.
        photos: the training photos, for the number of unreadable ones.
        sample_photos: uint8 (M, 3, S, S), for people to look at.
        settings: steps, batch size, rate, schedule.
        log: how often each part is due.
        group: the processes that train together; all call the same methods at the same steps.
    """

    def __init__(
        self,
        *,
        run_log: RunLog,
        run_folder: Path,
        fast_net: FastTransform,
        perceptual_loss: PerceptualLoss,
        photos: PhotoStream,
        sample_photos: Tensor,
        settings: TrainConfig,
        log: LogConfig,
        group: Group,
    ) -> None:
        self.run_log = run_log
        self.run_folder = run_folder
        self.fast_net = fast_net
        self.perceptual_loss = perceptual_loss
        self.photos = photos
        self.sample_photos = sample_photos
        self.settings = settings
        self.log = log
        self.group = group
        self.device = next(fast_net.parameters()).device
        self._newest_sheet: tuple[int, Image.Image] | None = None  # with the step of its network
        self._given_warnings: set[str] = set()

    def due_at(self, step: int) -> Due:
        """The parts that are due at this step."""
        num_steps = self.settings.steps
        return Due(
            log=is_due(step, self.log.every, num_steps),
            shares=is_due(step, self.log.shares_every, num_steps),
            validation=is_due(step, self.log.validate_every, num_steps),
            samples=is_due(step, self.log.samples_every, num_steps),
        )

    def losses(self, step: int, result: StepResult) -> dict[str, float]:
        """Losses, gradient norm, output range and learning rate of the step, by column.

        Over all processes: the least output, the greatest output, and the mean of all else; of the
        stability term, the mean over those whose photos had changed copies, if any had.
        """
        stylized, terms, instability, adversarial, discriminating = result.output
        # Written as 0 or 255: beyond the range, or within half a value of its end.
        clipped = ((stylized <= 0.5 / 255) | (stylized >= 254.5 / 255)).float().mean()
        named = {
            "loss/total": terms.total,
            "loss/content": terms.content,
            "loss/style": terms.style,
            "loss/tv": terms.tv,
            **{f"loss/style/{layer}": term for layer, term in terms.style_by_layer.items()},
            "loss/stability": instability,
            "grad_norm": result.gradient_norm,
            "output/min": stylized.min(),
            "output/max": stylized.max(),
            "output/clipped": clipped,
        }
        if adversarial is not None and discriminating is not None:
            named |= {"loss/adversarial": adversarial, "loss/discriminator": discriminating}
        # Together, so that the device is waited for once.
        numbers = torch.stack([value.detach().float() for value in named.values()]).tolist()
        by_process = zip(*self.group.gather(numbers), strict=True)
        how: dict[str, Callable[[Sequence[float]], float]] = {
            "output/min": min,
            "output/max": max,
            "loss/stability": _mean_of_positive,
        }
        values = {
            name: how.get(name, fmean)(found) for name, found in zip(named, by_process, strict=True)
        }
        if values["loss/stability"] == 0:
            del values["loss/stability"]
        self._warn_if_clipped(step, values["output/clipped"])
        values["lr"] = learning_rate_at(step - 1, self.settings)
        values["data/skipped"] = self.photos.num_unreadable
        return values

    def _warn_if_clipped(self, step: int, share: float) -> None:
        if share > _MUCH_CLIPPED:
            self._warn_once(
                "clipped output",
                f"step {step}: {share:.0%} of the output is pure black or white; try a lower "
                "loss.style_weight, or a lower train.learning_rate",
            )

    def speed(self, step: int, interval: Interval, loss: float) -> dict[str, float]:
        """Rank zero's speed, mean share of waiting and largest memory, by TensorBoard's tags.

        Shown on the console with the loss.
        """
        batch_size = self.settings.batch_size
        found = self.group.gather(interval.measure(step, batch_size, self.device))
        speed = {
            **found[0],
            "time/data_wait_share": fmean(one["time/data_wait_share"] for one in found),
            "memory/peak_mb": max(one["memory/peak_mb"] for one in found),
        }
        show_status(
            self.run_log,
            step,
            num_steps=self.settings.steps,
            batch_size=batch_size,
            loss=loss,
            images_per_s=speed["time/images_per_s"],
        )
        return speed

    def shares(self, result: StepResult) -> dict[str, float]:
        """Each term's share of the gradient at the output; warns of terms without effect."""
        loss = self.perceptual_loss
        shares = loss.gradient_shares(
            result.output.stylized,
            result.photos,
            sum_over_processes=self.group.sums,
        )
        for term, weight, layers in (
            ("content", loss.content_weight, loss.content_layers),
            ("style", loss.style_weight, loss.style_layers),
        ):
            if weight > 0 and layers and shares[term] < _NEGLIGIBLE_SHARE:
                self._warn_once(
                    f"negligible {term}",
                    f"the {term} term has {shares[term]:.1%} of the gradient, so it hardly "
                    f"counts; raise loss.{term}_weight (now {weight:g})",
                )
        return {f"share/{term}": share for term, share in shares.items()}

    def write(self, step: int, values: dict[str, float], untabled: dict[str, float]) -> None:
        """Write `values` to metrics.csv and TensorBoard, `untabled` ones to TensorBoard alone."""
        if values:
            images = step * self.settings.batch_size
            self.run_log.scalars(step, images, values, untabled=untabled)

    def write_samples(self, step: int) -> None:
        """Write the sample sheet of this step to TensorBoard and the run folder."""
        if not self.group.is_first:
            return
        self.run_log.picture("samples/photo_and_result", step, self.sample_sheet(step))
        self._write_sheet(step, f"step-{step:08d}.png")

    def write_latest_samples(self, step: int) -> None:
        """Write the sample sheet of this step for the model card; rank zero alone calls this."""
        self._write_sheet(step, LATEST_SAMPLES)

    def write_model_card(self, metadata: Mapping[str, Any]) -> None:
        """Write the model card; the first one that cannot be is told. Rank zero alone calls this.

        Args:
            metadata: of the model file.
        """
        try:
            write_model_card(self.run_folder, metadata)
        except OSError as error:  # a card is not worth a checkpoint
            self._warn_once(
                "unwritten card",
                f"{printable(self.run_folder / MODEL_CARD)}: cannot be written ({error.strerror}); "
                "training continues, and the next one is tried without a warning",
            )

    def sample_sheet(self, step: int) -> Image.Image:
        """The sample photos above their stylized versions; drawn once for each step."""
        if self._newest_sheet is None or self._newest_sheet[0] != step:
            self._newest_sheet = step, self._draw_samples()
        return self._newest_sheet[1]

    def _write_sheet(self, step: int, name: str) -> None:
        """Write a sample sheet into the run folder; the first one that cannot be is told."""
        folder = self.run_folder / "samples"
        with suppress(OSError):  # somebody may have removed it; else, to write will fail
            folder.mkdir(exist_ok=True)
        try:
            write_picture(folder / name, self.sample_sheet(step))
        except UserError as error:  # a picture is not worth the run
            self._warn_once(
                "unwritten samples",
                f"{error}; training continues, and other samples are tried without a warning",
            )

    @torch.no_grad()
    def _draw_samples(self) -> Image.Image:
        # One at a time: training leaves little memory.
        photos = [to_pixels(photo[None], self.device)[0] for photo in self.sample_photos]
        results = [self.fast_net(photo[None])[0] for photo in photos]
        return photo_and_result_sheet(torch.stack(photos), torch.stack(results))

    def _warn_once(self, kind: str, line: str) -> None:
        if kind not in self._given_warnings:
            self._given_warnings.add(kind)
            self.run_log.warn(line)


def _mean_of_positive(numbers: Sequence[float]) -> float:
    return fmean([number for number in numbers if number > 0] or [0.0])
