"""The training of one transform network for one style (Johnson et al. 2016, section 3).

`Trainer.train_step` is one step; `loop.take_steps` repeats it. A trainer knows a network, a loss
and photos. It knows neither YAML nor the command line: `build.build_trainer` makes one from
settings. Resuming at step s is starting at step s with the weights and the optimizer's moments of
that step, of the network and of the discriminator: all else is a function of the settings and s.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast_style.core.devices import ordinary_torch
from fast_style.core.distributed import ALONE, Group
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.models.checkpoint import Checkpoint, checkpoint_path, save_checkpoint
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.transform_net import TransformNet
from fast_style.settings.config import LogConfig, TrainConfig
from fast_style.training.adversary import Adversary
from fast_style.training.guard import FiniteGuard
from fast_style.training.loop import Interval, take_steps
from fast_style.training.optimizer import build_optimizer
from fast_style.training.photo_stream import PhotoStream, to_pixels
from fast_style.training.reporting import Reporter, StepResult, columns_of
from fast_style.training.run_log import RunLog, print_line
from fast_style.training.saving import (
    restore_training,
    training_tensors,
    writing_step,
)
from fast_style.training.schedule import set_learning_rate
from fast_style.training.stability import EVERY, Changes, copied_in, draw_changes
from fast_style.training.step import TrainingStep
from fast_style.training.validation import Validation

# With more steps left than this, compiling first saves time on a GPU.
_MANY_STEPS = 5000


class Trainer:
    """Trains one network and writes its run folder.

    Args:
        net: the transform network, on its device.
        perceptual_loss: the objective, on the same device.
        photos: the training photos.
        validation: the photos that are never trained on, and what is measured on them.
        sample_photos: uint8 (M, 3, S', S'), for people to look at.
        settings: steps, batch size, rate, schedule.
        stability_weight: weight of the stability term, beside the perceptual loss.
        stability_noise: standard deviation of the noise in its photos, for pixels in [0, 1].
        seed: of the run, for the changes of that term.
        adversary: gives the adversarial term; None: there is no such term.
        log: how often each part of a report, and a checkpoint, is written.
        run_folder: an existing folder.
        description: the metadata of model files, without the step.
        precision: the dtype of autocast, or None for float32.
        resume_from: the checkpoint to resume from.
        say: called with each line for the user.
        group: the processes that train together. Each has its share of every batch; all have the
            same weights at every step; rank zero writes.

    Raises:
        CheckpointError: `resume_from` does not fit the network.
    """

    def __init__(
        self,
        *,
        net: TransformNet,
        perceptual_loss: PerceptualLoss,
        photos: PhotoStream,
        validation: Validation,
        sample_photos: Tensor,
        settings: TrainConfig,
        stability_weight: float,
        stability_noise: float,
        seed: int,
        adversary: Adversary | None = None,
        log: LogConfig,
        run_folder: Path,
        description: dict[str, Any],
        precision: torch.dtype | None = None,
        resume_from: Checkpoint | None = None,
        say: Callable[[str], None] = print_line,
        group: Group = ALONE,
    ) -> None:
        self.net = net
        self.fast_net = FastTransform(net)
        self.perceptual_loss = perceptual_loss
        self.photos = photos
        self.validation = validation
        self.settings = settings
        self.stability_weight = stability_weight
        self.stability_noise = stability_noise
        self.seed = seed
        self.adversary = adversary
        self.log = log
        self.run_folder = run_folder
        self.checkpoints = run_folder / "checkpoints"
        self.description = description
        self.precision = precision
        self.group = group
        self.device = next(net.parameters()).device
        self.optimizer = build_optimizer(net, settings, self.device)
        # Half precision has no numbers below 6e-8; gradients are taken of a multiple of the loss.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == torch.float16)
        self.guard = FiniteGuard(self.device, self.checkpoints, group)
        self.step = 0
        if resume_from is not None:
            self.restore(resume_from)
        self.run_log = RunLog(
            run_folder,
            columns=columns_of(
                perceptual_loss,
                with_stability=stability_weight > 0,
                with_adversary=adversary is not None,
            ),
            start_step=self.step,
            num_steps=settings.steps,
            say=say,
            is_silent=not group.is_first,
        )
        self.reporter = Reporter(
            run_log=self.run_log,
            run_folder=run_folder,
            fast_net=self.fast_net,
            perceptual_loss=perceptual_loss,
            photos=photos,
            sample_photos=sample_photos,
            settings=settings,
            log=log,
            group=group,
        )

    @ordinary_torch()
    def train(self, stop_signal: Callable[[], int | None] = lambda: None) -> None:
        """Train to the last step and save; save too when a signal ends training earlier.

        Args:
            stop_signal: called after every step, or with several processes every `log.every`
                steps; returns the number of a signal that ends training there, or None.

        Raises:
            Stopped: `stop_signal` gave a number; the state is saved.
            UserError: too many photos are unreadable, a number is not finite, the step cannot be
                compiled or recorded, or the last checkpoint could not be written.
        """
        with closing(self.run_log):
            self.prepare()
            if self.step == 0:
                measured = self.validation.measure(self.fast_net)
                self.reporter.write(0, measured, self.validation.judge_terms(self.fast_net))
                self.reporter.write_samples(0)
            take_steps(
                self,
                self.photos.batches(self.step, self.settings.steps, self.run_log.warn),
                num_steps=self.settings.steps,
                checkpoint_every=self.log.checkpoint_every,
                stop_signal=stop_signal,
                group=self.group,
                writes_at=lambda step: any(self.reporter.due_at(step)),
            )
            self.photos.sum_up(self.run_log.warn)

    def prepare(self) -> None:
        """Make `compute_gradients`, which `train_step` needs; all processes do it together.

        Raises:
            UserError: the step cannot be compiled, and compiling was asked for.
        """
        is_cuda = self.device.type == "cuda"
        if self.settings.compile:
            self.run_log.say("compiling the network and its loss; this takes minutes")
        elif is_cuda and self.settings.steps - self.step > _MANY_STEPS:
            self.run_log.say(
                "train.compile=true makes steps twice as fast on a GPU, after a minute or two of "
                "compiling"
            )
        is_recorded = self.settings.cuda_graph and is_cuda and self.group.is_alone
        # Only where it was set: true is the default on every device.
        is_wanted = self.settings.cuda_graph and "cuda_graph" in self.settings.model_fields_set
        if is_wanted and not is_recorded:
            found = f"the device is {self.device}" if self.group.is_alone else "these are several"
            self.run_log.say(
                "train.cuda_graph: true is ignored; only a single process on a CUDA GPU records "
                f"steps, and {found}"
            )
        num_photos = self.settings.batch_size // self.group.launch.world_size
        self.compute_gradients = TrainingStep(
            self.fast_net,
            self.perceptual_loss,
            stability_weight=self.stability_weight,
            adversary=self.adversary,
            scaler=self.scaler,
            precision=self.precision,
            batch_size=num_photos,
            compile_for=self._batches() if self.settings.compile else (),
            record=is_recorded,
            group=self.group,
        )

    def _batches(self) -> list[tuple[int, int]]:
        """(photos, side) of all batches that the network sees from here on, copies included."""
        sides = {self.photos.side_at(step) for step in (self.step, self.settings.steps - 1)}
        num_photos = self.settings.batch_size // self.group.launch.world_size
        # Copies repeat after `EVERY` steps at the latest.
        copies = {len(copied_in(self.photos.samples_of(step))) for step in range(EVERY)}
        if self.stability_weight == 0:
            copies = {0}
        return sorted((num_photos + more, side) for more in copies for side in sides)

    def _changes(self, photos: Tensor) -> Changes | None:
        if self.stability_weight == 0:
            return None
        samples = self.photos.samples_of(self.step)[: len(photos)]
        return draw_changes(
            self.seed, samples, photos.shape[-1], self.device, noise=self.stability_noise
        )

    def _adversarial(self, photos: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.adversary is None:
            return None
        samples = self.photos.samples_of(self.step)[: len(photos)]
        return self.adversary.inputs(self.step, samples, photos.shape[-1])

    def train_step(self, photos: Tensor) -> StepResult:
        """One optimizer step on all terms; nothing in it waits for the device.

        Call `prepare` once before the first step.

        Args:
            photos: uint8 (N, 3, S, S), this process's share of the batch.
        """
        set_learning_rate(self.optimizer, self.step, self.settings)
        pixels = to_pixels(photos, self.device)
        output = self.compute_gradients(pixels, self._changes(photos), self._adversarial(photos))
        self.scaler.unscale_(self.optimizer)
        gradient_norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.net.parameters() if p.grad is not None]
        )
        self.step += 1
        loss_scale = self.scaler.scale(torch.ones_like(gradient_norm))
        self.guard.note(self.step, output.terms, gradient_norm, loss_scale=loss_scale)
        self.scaler.step(self.optimizer)  # skipped if a scaled gradient is not finite
        self.scaler.update()
        if self.adversary:
            self.adversary.update()
        return StepResult(pixels, output, gradient_norm)

    def report(self, interval: Interval, result: StepResult) -> None:
        """Write what is due at this step, and restart the interval if anything was.

        Raises:
            UserError: a number is not finite, or too many photos are unreadable.
        """
        due = self.reporter.due_at(self.step)
        if not any(due):
            return
        self._require_sound()
        values: dict[str, float] = {}
        untabled: dict[str, float] = {}
        if due.log:
            values |= self.reporter.losses(self.step, result)
            untabled = self.reporter.speed(self.step, interval, values["loss/total"])
        if due.shares:
            values |= self.reporter.shares(result)
        if due.validation:
            values |= self.validation.measure(self.fast_net)
            untabled |= self.validation.judge_terms(self.fast_net)
        self.reporter.write(self.step, values, untabled)
        if due.samples:
            self.reporter.write_samples(self.step)
        interval.restart(self.step)

    def _require_sound(self) -> None:
        """Raise UserError if a number is not finite or too many photos are unreadable."""
        self.photos.collect_unreadable(self.run_log.warn)
        self.guard.check()

    def save(self, *, must_succeed: bool = False) -> None:
        """Write the model file, the model card and a checkpoint; then remove the oldest.

        The checkpoint is written last: where it exists, all files of its step exist. A full disk
        costs a warning unless `must_succeed`, and the next interval tries again.

        Raises:
            UserError: a number is not finite, or writing failed and `must_succeed`.
        """
        self._require_sound()
        with self.group.together():
            if self.group.is_first:
                self._write(must_succeed=must_succeed)

    def _write(self, *, must_succeed: bool) -> None:
        tensors = training_tensors(self.net, self.optimizer)
        if self.adversary:
            tensors |= self.adversary.tensors()
        model = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
        metadata = {**self.description, "step": self.step}
        scale = {"loss_scale": self.scaler.state_dict()} if self.scaler.is_enabled() else {}
        with writing_step(
            self.checkpoints,
            self.step,
            keep=self.log.keep_checkpoints,
            warn=self.run_log.warn,
            on_full_disk=None if must_succeed else self.run_log.warn,
        ):
            save_checkpoint(
                self.run_folder / "model.safetensors", model, {**metadata, "kind": "model"}
            )
            self.reporter.write_latest_samples(self.step)
            self.reporter.write_model_card(metadata)
            save_checkpoint(
                checkpoint_path(self.checkpoints, self.step),
                tensors,
                {**metadata, **scale, "kind": "checkpoint"},
            )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint: its step, weights, the optimizer's state and the loss's scale.

        Raises:
            CheckpointError: the checkpoint lacks some of them, or has them in other shapes.
        """
        self.step = checkpoint.metadata["step"]
        path = checkpoint_path(self.checkpoints, self.step)
        restore_training(self.net, self.optimizer, self.scaler, checkpoint, path)
        if self.adversary:
            self.adversary.restore(checkpoint, path)
