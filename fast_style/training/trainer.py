"""The training loop: one transform network, one style (Johnson et al. 2016, section 3).

`Trainer` knows a network, a loss and batches; it knows neither YAML nor the command line (`runs`
makes it from settings). Resuming at step s is starting at step s with the weights and Adam's
moments of that step: everything else is a function of the settings and s.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from fast_style.core.distributed import ALONE, Group
from fast_style.core.errors import Stopped, UserError, printable
from fast_style.core.files import free_bytes, write_text_atomically
from fast_style.losses.perceptual import LossTerms, PerceptualLoss
from fast_style.models.checkpoint import (
    Checkpoint,
    adam_tensors,
    checkpoint_path,
    last_good_checkpoint,
    remove_old_checkpoints,
    require_same_tensors,
    restore_adam,
    save_checkpoint,
)
from fast_style.models.model_files import CheckpointError, describe
from fast_style.networks.compiling import CompileRequest, compile_whole
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.transform_net import TransformNet, memory_format_for
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import LogConfig, TrainConfig
from fast_style.training.data import Batch, Crops, StepSampler, stream_photos
from fast_style.training.recording import Gradients, Recorded
from fast_style.training.run_log import RunLog, photo_and_result_sheet
from fast_style.training.schedule import Interval, learning_rate_at
from fast_style.training.unreadable import Unreadable, UnreadableList

# A term whose share of the gradient is below this does nothing; its weight is probably a mistake.
_NEGLIGIBLE_SHARE = 0.01
# More values than this at the end of the range: the picture has lost its lights and shadows.
_MUCH_CLIPPED = 0.25
# So many that it pays to compile first.
_MANY_STEPS = 5000
# Between gradients of the same, in half precision. No gradient at all makes it 1.
_MOST_BY_ROUNDING = 0.5
_COMPILING = CompileRequest("train.compile", "set train.compile=false")
_GUARDED = ("content term", "style term", "total variation", "gradient")


class Trainer:
    """Trains one network and writes its run folder.

    Args:
        net: the transform network, on its device.
        perceptual_loss: what it is trained for, on the same device.
        crops: gives sample k for any k.
        validation_photos: uint8 (N, 3, S, S), never trained on.
        sample_photos: uint8 (M, 3, S', S'), for people to look at.
        settings: steps, batch size, rate, schedule.
        log: how often what is written.
        run_folder: exists.
        description: what model files say of themselves, besides the step.
        unreadable: opened at the same step.
        workers: processes that decode photos.
        precision: the dtype of autocast, or None for float32.
        resume_from: a checkpoint to go on from.
        group: the processes that train together. Each has its share of every batch; all have the
            same weights at every step; rank zero writes.
    """

    def __init__(
        self,
        *,
        net: TransformNet,
        perceptual_loss: PerceptualLoss,
        crops: Crops,
        validation_photos: Tensor,
        sample_photos: Tensor,
        settings: TrainConfig,
        log: LogConfig,
        run_folder: Path,
        description: dict[str, Any],
        unreadable: UnreadableList,
        workers: int = 0,
        precision: torch.dtype | None = None,
        resume_from: Checkpoint | None = None,
        group: Group = ALONE,
    ) -> None:
        self.net = net
        self.fast_net = FastTransform(net)
        # What the training step calls: the same network, the way it is executed there.
        self.forward_net: nn.Module = self.fast_net
        self.forward_loss: nn.Module = perceptual_loss
        self.perceptual_loss = perceptual_loss
        self.crops = crops
        self.validation_photos = validation_photos
        self.sample_photos = sample_photos
        self.settings = settings
        self.log = log
        self.run_folder = run_folder
        self.description = description
        self.unreadable = unreadable
        self.workers = workers
        self.precision = precision
        self.group = group
        self.device = next(net.parameters()).device
        # `compute_gradients`, as it is or recorded.
        self.take_gradients: Gradients = self.compute_gradients
        # On a CPU, where a step takes a thousand times as long, torch's default.
        fused = True if self.device.type == "cuda" else None
        self.optimizer = torch.optim.Adam(net.parameters(), lr=settings.learning_rate, fused=fused)
        # Half precision has no numbers below 6e-8; gradients are taken of a multiple of the loss.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == torch.float16)
        self.step = 0
        if resume_from is not None:
            self._restore(resume_from)
        # The first step at which each guarded number was not finite, -1 for never. On the device,
        # so that looking at it costs a synchronization only when it is read.
        self.nonfinite_since = torch.full((len(_GUARDED),), -1, device=self.device)
        self.run_log = RunLog(
            run_folder,
            columns=self._columns(),
            start_step=self.step,
            steps=settings.steps,
            is_silent=not group.is_first,
        )
        self._sheet: tuple[int, Image.Image] | None = None  # the last one, and its step
        self._said: set[str] = set()
        self._unheard: list[Unreadable] = []  # met by this process, and not yet told to rank zero

    # --- The loop -------------------------------------------------------------------------------

    def train(self, stop_signal: Callable[[], int | None] = lambda: None) -> None:
        """Train to the last step and save; save too when a signal ends it earlier.

        Args:
            stop_signal: asked after every step, or at the log interval where several processes
                have to stop at the same step; a signal's number ends training there.

        Raises:
            Stopped: `stop_signal` asked for it; the state is saved.
            UserError: too many photos are unreadable, a number is not finite, or the last
                checkpoint could not be written.
        """
        try:
            self.prepare()
            if self.step == 0:
                self._observe(validate=True, samples=True)
            interval = Interval(self.step)
            for pixels in interval.waiting_for(self._photos()):
                photos = self._to_device(pixels)
                output, terms, gradient_norm = self.train_step(photos)
                self.run_log.progress(self.step)
                self._report(interval, photos, output, terms, gradient_norm)
                if (signal_number := self._agreed(stop_signal)) is not None:
                    self.save(must_succeed=True)
                    raise Stopped(signal_number, self.step)
                if self.step % self.log.checkpoint_every == 0 and self.step < self.settings.steps:
                    self.save()
            self.save(must_succeed=True)
            self._sum_up()
        finally:
            self.run_log.close()

    def prepare(self) -> None:
        """Set up how the training step executes the network and the loss.

        Raises:
            UserError: they cannot be compiled, and were asked to be.
        """
        forward: nn.Module = self.fast_net
        if self.settings.compile:
            self.run_log.say("compiling the network and its loss; this takes minutes")
            with self.group.together():
                forward, self.forward_loss = self._compiled()
        elif self.device.type == "cuda" and self.settings.steps - self.step > _MANY_STEPS:
            self.run_log.say(
                "train.compile=true makes steps twice as fast on a GPU, after a minute or two of "
                "compiling"
            )
        self.forward_net = self.group.parallel(forward, self.device)
        if self.settings.cuda_graph and self.device.type == "cuda" and self.group.is_alone:
            self.take_gradients = Recorded(
                self.compute_gradients,
                self.net.parameters(),
                batch_size=self.settings.batch_size,
            )

    def _compiled(self) -> tuple[nn.Module, nn.Module]:
        """The network and the loss, compiled now for all sizes of crops that are still to come.

        They share their parameters with `net`, whose names stay as they are.
        """
        share = self.settings.batch_size // self.group.launch.world_size
        steps = self.step, self.settings.steps - 1
        sizes = {self.crops.size_of(step * self.settings.batch_size) for step in steps}
        with _COMPILING.mistakes():
            net, loss = compile_whole(self.fast_net), compile_whole(self.perceptual_loss)
            for size in sizes:
                generator = torch.Generator().manual_seed(0)
                noise = torch.randint(256, (share, 3, size, size), generator=generator)
                photos = self._to_device(noise.byte())
                compiled = self._gradient(net, loss, photos)  # which has a graph of its own
                # The mean over photos, one at a time: together they could take more memory than
                # the compiled step does.
                plain = torch.zeros_like(compiled)
                for photo in torch.split(photos, 1):
                    plain += self._gradient(self.fast_net, self.perceptual_loss, photo) / share
                _COMPILING.require_same(compiled, plain, "gradient", most=_MOST_BY_ROUNDING)
        return net, loss

    def _gradient(self, net: nn.Module, loss: nn.Module, photos: Tensor) -> Tensor:
        """At all weights, one after the other, in one row; scaled as half precision needs it."""
        with self._autocast():
            terms = loss(net(photos), photos)
        total = self.scaler.scale(terms.total)
        gradients = torch.autograd.grad(total, list(self.net.parameters()))
        return torch.cat([gradient.flatten() for gradient in gradients])

    def train_step(self, photos: Tensor) -> tuple[Tensor, LossTerms, Tensor]:
        """One step of Adam on the perceptual loss; nothing in it waits for the device.

        Args:
            photos: (N, 3, S, S) in [0, 1], on the device: this process's share of the batch.

        Returns:
            The stylized photos, the loss terms, and the norm of the gradient.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.settings)
        output, terms = self.take_gradients(photos)
        self.scaler.unscale_(self.optimizer)
        gradient_norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.net.parameters() if p.grad is not None]
        )
        self._guard(terms, gradient_norm)
        self.scaler.step(self.optimizer)  # nothing, if a scaled gradient was not finite
        self.scaler.update()
        self.step += 1
        return output, terms, gradient_norm

    def compute_gradients(self, photos: Tensor) -> tuple[Tensor, LossTerms]:
        """Stylized photos and loss terms; leaves the loss's gradients at the weights."""
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            output = self.forward_net(photos)
            terms = self.forward_loss(output, photos)
        self.scaler.scale(terms.total).backward()
        return output.detach(), terms.detached()

    def _photos(self) -> Iterator[Tensor]:
        return stream_photos(
            self.crops,
            StepSampler(
                self.step,
                self.settings.steps,
                self.settings.batch_size,
                rank=self.group.launch.rank,
                world_size=self.group.launch.world_size,
            ),
            self._look_at,
            workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )

    def _look_at(self, batch: Batch) -> None:
        if self.group.is_alone or batch.is_empty:
            self.unreadable.report(batch.unreadable, self.run_log.warn, is_fatal=batch.is_empty)
        else:
            self._unheard += batch.unreadable

    def _agreed(self, stop_signal: Callable[[], int | None]) -> int | None:
        """The signal that a process received, at the same step in all of them."""
        if not self.group.is_alone and self.step % self.log.every != 0:
            return None
        numbers = [number for number in self.group.gather(stop_signal()) if number is not None]
        return numbers[0] if numbers else None

    def _to_device(self, photos: Tensor) -> Tensor:
        """uint8 crosses to the device, a quarter of the bytes, and becomes [0, 1] there."""
        photos = photos.to(self.device, non_blocking=True)
        return photos.to(memory_format=memory_format_for(self.device)).float() / 255

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=self.precision, enabled=self.precision is not None
        )

    def _sum_up(self) -> None:
        if self.unreadable.entries:
            self.run_log.warn(
                f"skipped {len(self.unreadable.entries)} of {self.unreadable.num_photos} photos, "
                f"listed in {printable(self.unreadable.path)}"
            )

    # --- Looking --------------------------------------------------------------------------------

    def _report(
        self,
        interval: "Interval",
        photos: Tensor,
        output: Tensor,
        terms: LossTerms,
        gradient_norm: Tensor,
    ) -> None:
        """Write down what is due at this step."""
        is_last = self.step == self.settings.steps
        due = {
            name: self.step % every == 0 or is_last
            for name, every in (
                ("log", self.log.every),
                ("shares", self.log.shares_every),
                ("validate", self.log.validate_every),
                ("samples", self.log.samples_every),
            )
        }
        if not any(due.values()):
            return
        self._hear_of_unreadable()
        self.check_finite()
        values: dict[str, float] = {}
        untabled: dict[str, float] = {}
        if due["log"]:
            values |= self._loss_values(output, terms, gradient_norm)
            untabled |= self._measure(interval)
            self.run_log.status(
                self.step,
                loss=values["loss/total"],
                images_per_s=untabled["time/images_per_s"],
                seconds_left=(self.settings.steps - self.step)
                * self.settings.batch_size
                / untabled["time/images_per_s"],
            )
        if due["shares"]:
            values |= self._shares(output, photos)
        self._observe(values, untabled, validate=due["validate"], samples=due["samples"])
        interval.restart(self.step)

    def _observe(
        self,
        values: dict[str, float] | None = None,
        untabled: dict[str, float] | None = None,
        *,
        validate: bool,
        samples: bool,
    ) -> None:
        """Look at the held-out photos where asked, and write everything down."""
        values = dict(values or {})
        if validate:
            values |= {f"validation/{name}": value for name, value in self.validate().items()}
        if values:
            images = self.step * self.settings.batch_size
            self.run_log.scalars(self.step, images, values, untabled=untabled or {})
        if samples and self.group.is_first:
            sheet = self.sample_sheet()
            self.run_log.picture("samples/photo_and_result", self.step, sheet)
            with suppress(UserError):  # a picture that cannot be written is not worth the run
                write_picture(self.run_folder / "samples" / f"step-{self.step:08d}.png", sheet)

    def _loss_values(
        self, output: Tensor, terms: LossTerms, gradient_norm: Tensor
    ) -> dict[str, float]:
        # What will be written as 0 or 255: beyond the range, or so near its end.
        clipped = ((output <= 0.5 / 255) | (output >= 254.5 / 255)).float().mean()
        named = {
            "loss/total": terms.total,
            "loss/content": terms.content,
            "loss/style": terms.style,
            "loss/tv": terms.tv,
            **{f"loss/style/{layer}": term for layer, term in terms.style_by_layer.items()},
            "grad_norm": gradient_norm,
            "output/min": output.min(),
            "output/max": output.max(),
            "output/clipped": clipped,
        }
        numbers = torch.stack([value.detach().float() for value in named.values()]).tolist()
        by_process = zip(*self.group.gather(numbers), strict=True)
        how = {"output/min": min, "output/max": max}
        values = {
            name: how.get(name, fmean)(found) for name, found in zip(named, by_process, strict=True)
        }
        if values["output/clipped"] > _MUCH_CLIPPED:
            self._warn_once(
                f"step {self.step}: {values['output/clipped']:.0%} of the output is pure black or "
                "white; try a lower loss.style_weight, or a lower train.learning_rate"
            )
        values["lr"] = learning_rate_at(self.step - 1, self.settings)
        values["data/skipped"] = len(self.unreadable.entries)
        return values

    def _measure(self, interval: "Interval") -> dict[str, float]:
        """Speed by rank zero's clock; waiting on the average; the memory of the largest process."""
        found = self.group.gather(
            interval.measure(self.step, self.settings.batch_size, self.device)
        )
        return {
            **found[0],
            "time/data_wait_share": fmean(one["time/data_wait_share"] for one in found),
            "memory/peak_mb": max(one["memory/peak_mb"] for one in found),
        }

    def _shares(self, output: Tensor, photos: Tensor) -> dict[str, float]:
        shares = self.perceptual_loss.gradient_shares(
            output, photos, sum_over_processes=self._summed
        )
        loss = self.perceptual_loss
        for term, weight, layers in (
            ("content", loss.content_weight, loss.content_layers),
            ("style", loss.style_weight, loss.style_layers),
        ):
            if weight > 0 and layers and shares[term] < _NEGLIGIBLE_SHARE:
                self._warn_once(
                    f"the {term} term has {shares[term]:.1%} of the gradient, so it hardly "
                    f"counts; raise loss.{term}_weight (now {weight:g})"
                )
        return {f"share/{term}": share for term, share in shares.items()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The mean objective and terms on the validation photos, in float32."""
        sums: dict[str, float] = {"total": 0.0, "content": 0.0, "style": 0.0}
        launch = self.group.launch
        chunks = torch.split(self.validation_photos, self.settings.batch_size // launch.world_size)
        for chunk in chunks[launch.rank :: launch.world_size]:
            photos = self._to_device(chunk)
            terms = self.perceptual_loss(self.fast_net(photos), photos)
            for name in sums:
                sums[name] += getattr(terms, name).item() * len(chunk)
        totals = self._summed(list(sums.values()))
        return {
            name: total / len(self.validation_photos)
            for name, total in zip(sums, totals, strict=True)
        }

    def _summed(self, numbers: list[float]) -> list[float]:
        """Each number summed over all processes."""
        return [sum(found) for found in zip(*self.group.gather(numbers), strict=True)]

    def sample_sheet(self) -> Image.Image:
        """The sample photos above their stylized versions; drawn once at each step."""
        if self._sheet is None or self._sheet[0] != self.step:
            self._sheet = self.step, self._draw_samples()
        return self._sheet[1]

    @torch.no_grad()
    def _draw_samples(self) -> Image.Image:
        photos = [self._to_device(photo[None])[0] for photo in self.sample_photos]
        results = [self.fast_net(photo[None])[0] for photo in photos]
        return photo_and_result_sheet(torch.stack(photos), torch.stack(results))

    def _warn_once(self, line: str) -> None:
        key = line.partition(":")[2] or line
        kind = "".join(letter for letter in key if letter.isalpha())
        if kind not in self._said:
            self._said.add(kind)
            self.run_log.warn(line)

    def _columns(self) -> list[str]:
        layers = [f"loss/style/{layer}" for layer in self.perceptual_loss.style_layers]
        losses = ["loss/total", "loss/content", "loss/style", "loss/tv", *layers]
        validation = ["validation/total", "validation/content", "validation/style"]
        shares = ["share/content", "share/style", "share/tv"]
        output = ["output/min", "output/max", "output/clipped"]
        return [*losses, *validation, *shares, "lr", "grad_norm", *output, "data/skipped"]

    # --- Guarding -------------------------------------------------------------------------------

    def _hear_of_unreadable(self) -> None:
        """Bring rank zero's list up to date with what other processes met.

        Raises:
            UserError: there are too many now.
        """
        if self.group.is_alone:
            return
        met = sorted(chain(*self.group.gather(self._unheard)), key=lambda photo: photo.sample)
        self._unheard = []
        with self.group.together():
            if self.group.is_first and met:
                self.unreadable.report(met, self.run_log.warn)

    def _guard(self, terms: LossTerms, gradient_norm: Tensor) -> None:
        """Note, without waiting for the device, which numbers are not finite."""
        numbers = torch.stack([terms.content, terms.style, terms.tv, gradient_norm]).detach()
        is_bad = ~torch.isfinite(numbers)
        # A gradient may be too large for half precision because the loss was scaled: its step is
        # left out, and the scale halved. It is bad if there is nothing left to halve.
        is_bad[-1] &= self.scaler.scale(torch.ones_like(gradient_norm)) <= 1
        self.nonfinite_since.masked_fill_((self.nonfinite_since < 0) & is_bad, self.step + 1)

    def check_finite(self) -> None:
        """Stop when a number has not been finite since the last look.

        Such numbers are never repaired: their cause would go on.

        Raises:
            UserError: names the step and the term.
        """
        since = self.nonfinite_since.tolist()
        bad = [(step, place) for place, step in enumerate(since) if step >= 0]
        # By step, then in the order of computation: a gradient is bad because a term was.
        first = min(chain(*self.group.gather(bad)), default=None)
        if first is None:
            return
        step, place = first
        with self.group.together():
            raise UserError(
                f"step {step}: the {_GUARDED[place]} is not a finite number. Try a lower "
                "train.learning_rate or loss.style_weight, or train.precision=fp32. "
                f"{self._last_checkpoint()}",
                exit_code=1,
            )

    # --- Saving ---------------------------------------------------------------------------------

    def save(self, *, must_succeed: bool = False) -> None:
        """Write the model file, the model card and a checkpoint; then remove the oldest.

        The checkpoint comes last: where it is, everything of its step is there. A disk that is full
        costs a warning, and the next interval tries again.

        Raises:
            UserError: a number is not finite, or writing failed and `must_succeed`.
        """
        self._hear_of_unreadable()
        self.check_finite()
        with self.group.together():
            if self.group.is_first:
                self._write(must_succeed=must_succeed)

    def _write(self, *, must_succeed: bool) -> None:
        folder = self.run_folder / "checkpoints"
        model = {f"model.{name}": tensor for name, tensor in self.net.state_dict().items()}
        moments = adam_tensors(dict(self.net.named_parameters()), self.optimizer)
        optimizer = {f"optimizer.{name}": tensor for name, tensor in moments.items()}
        metadata = {**self.description, "step": self.step}
        scale = {"loss_scale": self.scaler.state_dict()} if self.scaler.is_enabled() else {}
        try:
            save_checkpoint(
                self.run_folder / "model.safetensors", model, {**metadata, "kind": "model"}
            )
            self._write_model_card(metadata)
            save_checkpoint(
                checkpoint_path(folder, self.step),
                {**model, **optimizer},
                {**metadata, **scale, "kind": "checkpoint"},
            )
        except ValueError as error:
            raise UserError(
                f"step {self.step}: {error}. Try a lower train.learning_rate. "
                f"{self._last_checkpoint()}",
                exit_code=1,
            ) from None
        except OSError as error:
            line = (
                f"step {self.step}: no checkpoint could be written ({error}; "
                f"{free_bytes(folder) >> 20} MB are free). {self._last_checkpoint()}"
            )
            if must_succeed:
                raise UserError(line, exit_code=1) from None
            self.run_log.warn(f"{line}; trying again in {self.log.checkpoint_every} steps")
            return
        remove_old_checkpoints(folder, self.log.keep_checkpoints, newest=self.step)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Weights and Adam's moments.

        Raises:
            CheckpointError: it does not hold all of them, or not of these shapes.
        """
        self.step = checkpoint.metadata["step"]
        path = checkpoint_path(self.run_folder / "checkpoints", self.step)
        require_same_tensors(checkpoint.part("model"), self.net.state_dict(), path)
        self.net.load_state_dict(checkpoint.part("model"))
        parameters = dict(self.net.named_parameters())
        saved = checkpoint.part("optimizer")
        # Adam is as new where all steps were left out until the loss's scale fitted.
        if saved or not self.scaler.is_enabled():
            restore_adam(parameters, self.optimizer, saved, path)
        if self.scaler.is_enabled():
            # Without one, as from checkpoints made before there was one, the scale begins anew.
            self._restore_scale(checkpoint.metadata.get("loss_scale", {}), path)

    def _restore_scale(self, saved: dict[str, Any], path: Path) -> None:
        fresh = self.scaler.state_dict()
        try:
            state = {name: type(value)(saved.get(name, value)) for name, value in fresh.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: its loss_scale is none ({error})") from None
        self.scaler.load_state_dict(state)

    def _write_model_card(self, metadata: dict[str, Any]) -> None:
        sheet = self.sample_sheet()
        with suppress(UserError):  # a picture that cannot be written is not worth the checkpoint
            write_picture(self.run_folder / "samples" / "latest.png", sheet)
        lines = "\n".join(f"- {line}" for line in describe(metadata))
        write_text_atomically(
            self.run_folder / "README.md",
            f"# {metadata['name']}\n\nA style-transfer model made with fast-style.\n\n{lines}\n\n"
            "![held-out photos above, stylized below](samples/latest.png)\n\n"
            "```\nfast-style stylize --model model.safetensors --output out.jpg photo.jpg\n```\n",
        )

    def _last_checkpoint(self) -> str:
        return last_good_checkpoint(self.run_folder / "checkpoints")
