"""A small loss network, learned from a large one, for machines on which the large one is slow.

The student has the teacher's layers with a fraction of its channels. It starts with the best choice
of the teacher's own channels. It learns so that, at every layer, a linear map of its features (a
head) gives the teacher's. The heads are stored with the student: through them, its content and
style distances are the teacher's, up to what it failed to learn.

It learns on the pictures that a loss network meets: photos, paintings, plain surfaces, and above
all photos that transform networks have stylized. Such networks exploit every error of a loss
network. So some of them, the painters, are trained against the current student all the time, and
the student learns from their pictures.
"""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fast_style.core.devices import ordinary_torch, resolve_precision
from fast_style.core.errors import UserError, printable
from fast_style.distilling.painters import Painter, Styles, painting_crop, plain_surface
from fast_style.distilling.students import (
    Comparison,
    agreement_sums,
    best_head,
    compare,
    folded_head,
)
from fast_style.losses.loss_network import LossNetwork, Weights
from fast_style.losses.weight_files import write_weights_file
from fast_style.models.checkpoint import (
    Checkpoint,
    checkpoint_path,
    last_good_checkpoint,
    optimizer_tensors,
    require_same_tensors,
    restore_optimizer,
    save_checkpoint,
)
from fast_style.models.model_files import CheckpointError
from fast_style.networks.transform_net import memory_format_for
from fast_style.settings.config import DistillLogConfig, DistillTrainConfig
from fast_style.settings.layers import convolution_of
from fast_style.training.loop import Interval, show_status, take_steps
from fast_style.training.photo_stream import PhotoStream, to_pixels
from fast_style.training.run_log import RunLog, photo_and_result_sheet, print_line
from fast_style.training.saving import with_prefix, writing_step
from fast_style.training.schedule import is_due, learning_rate_at, set_learning_rate

# Distinguishes the random numbers of pictures from others of the same seed.
PICTURES_STREAM = 101

# Weight of the Gram matrices' errors relative to those of features.
_GRAM_WEIGHT = 1.0
# Share of the running products, from which heads are computed, that each step keeps.
_DECAY = 0.98


class Distiller:
    """Trains one student and writes its run folder.

    Args:
        teacher: the large network, on its device.
        student: its first convolutions, from `choose_channels`.
        energies: mean square of the teacher's features on photos, at every layer to compare.
        photos: the training photos.
        styles: the pictures that painters imitate, and the paintings to learn on.
        validation: pictures never learned on, by name: uint8 (N, 3, S, S).
        settings: steps, pictures per step, rate, schedule.
        log: how often each part of a report, and a checkpoint, is written.
        run_folder: an existing folder.
        description: the metadata of files, without the step.
        seed: every random choice derives from it.
        resume_from: the checkpoint to resume from.
        say: called with each line for the user.

    Raises:
        CheckpointError: `resume_from` does not fit the student or its painters.
    """

    def __init__(
        self,
        *,
        teacher: LossNetwork,
        student: Weights,
        energies: Mapping[str, float],
        photos: PhotoStream,
        styles: Styles,
        validation: Mapping[str, Tensor],
        settings: DistillTrainConfig,
        log: DistillLogConfig,
        run_folder: Path,
        description: dict[str, Any],
        seed: int,
        resume_from: Checkpoint | None = None,
        say: Callable[[str], None] = print_line,
    ) -> None:
        self.device = teacher.mean.device
        self.precision = resolve_precision(settings.precision, self.device)
        memory_format = memory_format_for(self.device)
        self.teacher = teacher.to(memory_format=memory_format)
        self.energies = energies
        self.layers = list(energies)
        self.photos = photos
        self.styles = styles
        self.validation = validation
        self.settings = settings
        self.log = log
        self.run_folder = run_folder
        self.checkpoints = run_folder / "checkpoints"
        self.description = description
        self.seed = seed
        parameters: dict[str, tuple[Tensor, Tensor]] = {
            number: (
                nn.Parameter(kernel.to(memory_format=memory_format)),
                nn.Parameter(bias),
            )
            for number, (kernel, bias) in student.convolutions.items()
        }
        # `student` learns. `judge` shares its weights and has heads; painters are trained against
        # the judge. Gradients reach the judge's input and never its weights.
        self.student = teacher.with_weights(student._replace(convolutions=parameters))
        detached = {n: (kernel.detach(), bias.detach()) for n, (kernel, bias) in parameters.items()}
        heads = {layer: torch.eye(len(detached[convolution_of(layer)][0])) for layer in self.layers}
        self.judge = teacher.with_weights(student._replace(convolutions=detached, heads=heads))
        self.parameters: dict[str, Tensor] = {
            f"{part}_{number}": parameter
            for number, pair in parameters.items()
            for part, parameter in zip(("kernel", "bias"), pair, strict=True)
        }
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=settings.learning_rate)
        # By layer: running products of the student's channels with themselves, and with the
        # teacher's.
        self.products: dict[str, tuple[Tensor, Tensor]] = {}
        self.held_out: dict[str, dict[str, float]] = {}
        self.step = 0
        self.painters = [self._new_painter(number) for number in range(settings.num_painters)]
        if resume_from is not None:
            self.restore(resume_from)
        self.run_log = RunLog(
            run_folder,
            columns=self._columns(),
            start_step=self.step,
            num_steps=settings.steps,
            say=say,
        )

    @ordinary_torch()
    def train(self, stop_signal: Callable[[], int | None] = lambda: None) -> None:
        """Train to the last step and save; save too when a signal ends training earlier.

        Args:
            stop_signal: called after every step; returns the number of a signal that ends training
                there, or None.

        Raises:
            Stopped: `stop_signal` gave a number; the state is saved.
            UserError: too many photos are unreadable, a number is not finite, or a checkpoint could
                not be written.
        """
        with closing(self.run_log):
            take_steps(
                self,
                self.photos.batches(self.step, self.settings.steps, self.run_log.warn),
                num_steps=self.settings.steps,
                checkpoint_every=self.log.checkpoint_every,
                stop_signal=stop_signal,
            )

    def train_step(self, photos: Tensor) -> dict[str, Tensor]:
        """One step of Adam, which brings the student's features, through heads, to the teacher's.

        Args:
            photos: uint8 (N, 3, S, S).

        Returns:
            The numbers to log.
        """
        set_learning_rate(self.optimizer, self.step, self.settings)
        pictures = self.pictures_of_step(to_pixels(photos, self.device))
        targets = self.targets(pictures)
        features = self.student(pictures, self.layers)
        numbers = {}
        loss = torch.zeros((), device=self.device)
        for layer in self.layers:
            comparison = compare(features[layer], targets[layer], self.energies[layer])
            head = self.update_head(layer, comparison)
            numbers[f"error/{layer}"] = comparison.feature_error(head)
            numbers[f"gram_error/{layer}"] = comparison.gram_error(head)
            loss = loss + numbers[f"error/{layer}"] + _GRAM_WEIGHT * numbers[f"gram_error/{layer}"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return {"loss": loss.detach(), **{key: value.detach() for key, value in numbers.items()}}

    @torch.no_grad()
    def targets(self, pictures: Tensor) -> dict[str, Tensor]:
        """The teacher's features of pictures, (N, 3, H, W) in [0, 1]: float32, by layer."""
        # In float32, this would take the largest part of a step's time.
        enabled = self.precision is not None
        with torch.autocast(self.device.type, dtype=self.precision, enabled=enabled):
            features = self.teacher(pictures, self.layers)
        return {layer: found.float() for layer, found in features.items()}

    def pictures_of_step(self, photos: Tensor) -> Tensor:
        """This step's pictures: the photos, the same photos by a painter, paintings, surfaces."""
        rng = np.random.default_rng((self.seed, PICTURES_STREAM, self.step))
        size = photos.shape[-1]
        paintings = self.styles.paintings
        drawn = [
            painting_crop(paintings[int(rng.integers(len(paintings)))], size, rng)
            for _ in range(self.settings.num_paintings)
        ]
        drawn += [plain_surface(size, rng) for _ in range(self.settings.num_surfaces)]
        pictures = [photos]
        if self.painters:
            pictures.append(self._painter_of_this_step().paint(photos, self.judge))
        if drawn:
            pictures.append(torch.stack(drawn).to(self.device))
        return torch.cat(pictures)

    def _painter_of_this_step(self) -> Painter:
        slot = self.step % len(self.painters)
        painter = self.painters[slot]
        if painter.age >= painter.lifetime:
            painter = self._new_painter(painter.number + len(self.painters), painter)
            self.painters[slot] = painter
        return painter

    def _new_painter(self, number: int, predecessor: Painter | None = None) -> Painter:
        return Painter(number, self.seed, self.styles, self.device, predecessor)

    def update_head(self, layer: str, comparison: Comparison) -> Tensor:
        """Add a step's products to the running ones; returns the head that fits the sums best."""
        products = (comparison.own.detach(), comparison.cross.detach())
        if layer in self.products:
            own, cross = self.products[layer]
            # The first steps count equally.
            share = max(1 - _DECAY, 1 / (self.step + 1))
            products = own.lerp(products[0], share), cross.lerp(products[1], share)
        self.products[layer] = products
        head = best_head(*products)
        self.judge.get_buffer(f"head_{layer}").copy_(folded_head(head))
        return head

    def report(self, interval: Interval, numbers: Mapping[str, Tensor]) -> None:
        """Write what is due at this step, and restart the interval if anything was.

        Raises:
            UserError: the loss is not finite.
        """
        num_steps, batch_size = self.settings.steps, self.settings.num_photos
        is_log_due = is_due(self.step, self.log.every, num_steps)
        is_validation_due = is_due(self.step, self.log.validate_every, num_steps)
        if not (is_log_due or is_validation_due):
            return
        values = dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))
        self._require_finite(values["loss"])
        values["lr"] = learning_rate_at(self.step - 1, self.settings)
        speed = interval.measure(self.step, batch_size, self.device)
        if is_log_due:
            show_status(
                self.run_log,
                self.step,
                num_steps=num_steps,
                batch_size=batch_size,
                loss=values["loss"],
                images_per_s=speed["time/images_per_s"],
            )
        if is_validation_due:
            self.held_out = self.validate()
            for name, agreement in self.held_out.items():
                values |= {f"{name}/{key}": value for key, value in agreement.items()}
            if self.painters:
                self.run_log.picture("painters", self.step, self.painters_sheet())
        self.run_log.scalars(self.step, self.step * batch_size, values, untabled=speed)
        interval.restart(self.step)

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise UserError(
                f"step {self.step}: the loss is not a finite number. Try a lower "
                f"train.learning_rate. {last_good_checkpoint(self.checkpoints)}",
                exit_code=1,
            )

    @torch.no_grad()
    def validate(self) -> dict[str, dict[str, float]]:
        """The errors of the student's features, through heads, against the teacher's.

        For each set of held-out pictures and each layer: ``error``, the squared error divided by
        the teacher's squares; ``correlation`` over positions; ``gram_error``, likewise of Gram
        matrices.
        """
        return {name: self._agreement(pictures) for name, pictures in self.validation.items()}

    def _agreement(self, pictures: Tensor) -> dict[str, float]:
        heads = {layer: best_head(*self.products[layer]) for layer in self.layers}
        sums = {layer: torch.zeros(6, device=self.device) for layer in self.layers}
        for chunk in torch.split(pictures, self.settings.num_photos):
            pixels = to_pixels(chunk, self.device)
            targets = self.targets(pixels)
            features = self.student(pixels, self.layers)
            for layer in self.layers:
                found = heads[layer] @ features[layer].flatten(2)
                sums[layer] += agreement_sums(found, targets[layer].flatten(2))
        numbers = {}
        for layer in self.layers:
            error, whole, both, found_square, target_square, gram_error = sums[layer].tolist()
            numbers[f"error/{layer}"] = error / whole
            numbers[f"correlation/{layer}"] = both / math.sqrt(found_square * target_square + 1e-30)
            numbers[f"gram_error/{layer}"] = gram_error / len(pictures)
        return numbers

    @torch.no_grad()
    def painters_sheet(self) -> Image.Image:
        """A held-out photo for each painter, above the same photo stylized by this painter."""
        photos = next(iter(self.validation.values()))[: len(self.painters)]
        pixels = to_pixels(photos, self.device)
        results = [
            painter.net(photo[None])[0]
            for painter, photo in zip(self.painters, pixels, strict=False)
        ]
        return photo_and_result_sheet(pixels[: len(results)], torch.stack(results))

    def _columns(self) -> list[str]:
        kinds = [f"{kind}/{layer}" for kind in ("error", "gram_error") for layer in self.layers]
        held_out = [
            f"{name}/{kind}/{layer}"
            for name in self.validation
            for kind in ("error", "correlation", "gram_error")
            for layer in self.layers
        ]
        return ["loss", *kinds, *held_out, "lr"]

    # --- Saving ---------------------------------------------------------------------------------

    def save(self, *, must_succeed: bool = True) -> None:
        """Write the student, its card and a checkpoint; then remove the oldest.

        Args:
            must_succeed: part of `loop.Learner`, without effect here: a distillation always ends
                when its checkpoint cannot be written.

        Raises:
            UserError: a number is not finite, or writing failed.
        """
        metadata = {**self.description, "kind": "distillation", "step": self.step}
        metadata["energies"] = self.energies
        metadata["painters"] = [
            {"number": painter.number, "age": painter.age} for painter in self.painters
        ]
        with writing_step(
            self.checkpoints, self.step, keep=self.log.keep_checkpoints, warn=self.run_log.warn
        ):
            self._write_student()
            save_checkpoint(checkpoint_path(self.checkpoints, self.step), self.tensors(), metadata)

    def _write_student(self) -> None:
        """Write the student and its heads alone, with a description for its users."""
        weights = self.judge.weights
        settings = _without_folders(self.description["settings"])
        card = {**self.description, "settings": settings, "step": self.step}
        if self.step == self.settings.steps:
            # Resumed at the end, to write this file again, it has not been measured yet.
            self.held_out = self.held_out or self.validate()
            card["held_out"] = {
                name: {key: round(value, 4) for key, value in agreement.items()}
                for name, agreement in self.held_out.items()
            }
        own_mean = {} if weights.mean is None else {"mean": " ".join(map(str, weights.mean))}
        write_weights_file(
            self.run_folder / "loss_network.safetensors",
            self.teacher.architecture,
            weights.convolutions,
            {layer: self.judge.get_buffer(f"head_{layer}") for layer in self.layers},
            {
                "preprocessing": weights.preprocessing,
                "padding": weights.padding,
                **own_mean,
                "card": json.dumps(card, sort_keys=True),
            },
        )

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint: student, Adam's state, running products and painters."""
        state = with_prefix("student", self.parameters)
        state |= with_prefix("optimizer", optimizer_tensors(self.parameters, self.optimizer))
        for layer, (own, cross) in self.products.items():
            state |= {f"products.own.{layer}": own, f"products.cross.{layer}": cross}
        for slot, painter in enumerate(self.painters):
            state |= with_prefix(f"painter{slot}", painter.state())
        return state

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint: its step, the student, Adam's state, heads and painters.

        Raises:
            CheckpointError: the checkpoint lacks some of them, or has them in other shapes.
        """
        self.step = checkpoint.metadata["step"]
        path = checkpoint_path(self.checkpoints, self.step)
        student = checkpoint.part("student")
        require_same_tensors(student, self.parameters, path)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(student[name])
        restore_optimizer(self.parameters, self.optimizer, checkpoint.part("optimizer"), path)
        # Measured anew, they would differ if a photo has become unreadable. Older runs lack them.
        self.energies = self._energies(checkpoint, path)
        self._restore_heads(checkpoint.part("products"), path)
        for slot, (number, age) in enumerate(self._numbers_and_ages(checkpoint, path)):
            self.painters[slot] = self._new_painter(number)
            self.painters[slot].restore(checkpoint.part(f"painter{slot}"), age, path)

    def _restore_heads(self, products: Mapping[str, Tensor], path: Path) -> None:
        expected = {}
        for layer in self.layers:
            number = convolution_of(layer)
            channels = len(self.parameters[f"bias_{number}"])
            teachers = len(self.teacher.get_buffer(f"bias_{number}"))
            expected[f"own.{layer}"] = torch.empty(channels, channels)
            expected[f"cross.{layer}"] = torch.empty(channels, teachers)
        require_same_tensors(products, expected, path)
        for layer in self.layers:
            own, cross = products[f"own.{layer}"], products[f"cross.{layer}"]
            self.products[layer] = own.to(self.device), cross.to(self.device)
            try:
                head = folded_head(best_head(*self.products[layer]))
            except RuntimeError as error:  # it cannot be inverted
                raise CheckpointError(
                    f"{printable(path)}: products.own.{layer} is damaged ({error})"
                ) from None
            self.judge.get_buffer(f"head_{layer}").copy_(head)

    def _energies(self, checkpoint: Checkpoint, path: Path) -> Mapping[str, float]:
        found = checkpoint.metadata.get("energies", self.energies)
        is_sound = isinstance(found, Mapping) and found.keys() == self.energies.keys()
        if not is_sound or not all(
            isinstance(energy, float) and 0 <= energy < math.inf for energy in found.values()
        ):
            raise CheckpointError(
                f"{printable(path)}: its energies are not a number for each layer"
            )
        return {layer: found[layer] for layer in self.layers}

    def _numbers_and_ages(self, checkpoint: Checkpoint, path: Path) -> list[tuple[int, int]]:
        """Number and age of every painter, from a checkpoint's metadata."""
        try:
            found = [(entry["number"], entry["age"]) for entry in checkpoint.metadata["painters"]]
        except (KeyError, TypeError):
            found = []
        is_sound = all(type(value) is int and value >= 0 for pair in found for value in pair)
        if len(found) != len(self.painters) or not is_sound:
            raise CheckpointError(
                f"{printable(path)}: its metadata lack number and age of {len(self.painters)} "
                "painters"
            )
        return found


def _without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with names in place of paths: the file may be passed on, and paths are private."""
    data, teacher = dict(settings["data"]), dict(settings["teacher"])
    for key in ("photos", "paintings", "validation_photos", "validation_paintings"):
        data[key] = data[key] and Path(data[key]).name
    teacher["weights"] = Path(teacher["weights"]).name
    return {**settings, "data": data, "teacher": teacher}
