"""A small loss network, learned from a large one: for machines on which the large one is slow.

The student has the teacher's layers with a fraction of its channels. It begins as the best choice
of the teacher's own channels and learns so that, at every layer, a linear map of its features (a
head) gives the teacher's. The heads are not thrown away: through them, the student's content and
style distances are the teacher's, up to what it has not learned.

It learns on the pictures that a loss network meets: photos, paintings, plain surfaces, and above
all what transform networks make of photos. Such networks find whatever a loss network is wrong
about; so some of them, the painters, are trained against the student as it is, all the time, and
the student is corrected on what they make of it.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fast_style.core.devices import resolve_precision, set_up_torch
from fast_style.core.errors import Stopped, UserError
from fast_style.core.files import write_text_atomically
from fast_style.distilling.painters import Painter, Styles, painting_crop, plain_surface
from fast_style.distilling.students import (
    Comparison,
    agreement_sums,
    best_head,
    choose_channels,
    compare,
    folded_head,
    relu_layers,
)
from fast_style.losses.loss_network import LossNetwork, Weights, load_weights
from fast_style.losses.weight_files import write_weights_file
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
from fast_style.networks.transform_net import memory_format_for
from fast_style.pictures.folders import find_photos
from fast_style.pictures.reading import read_photo
from fast_style.settings.config import (
    DistillConfig,
    DistillDataConfig,
    DistillLogConfig,
    DistillTrainConfig,
)
from fast_style.settings.layers import convolution_of
from fast_style.settings.settings import to_dict, to_yaml
from fast_style.training.build import cache_photos, find_photos_of
from fast_style.training.data import (
    Crops,
    StepSampler,
    read_validation_photos,
    resolve_workers,
    stream_photos,
)
from fast_style.training.run_folder import Run, environment, require_same_inputs, versions
from fast_style.training.run_log import RunLog, photo_and_result_sheet
from fast_style.training.schedule import Interval, learning_rate_at
from fast_style.training.unreadable import UnreadableList, probe_photos

# --- Learning -----------------------------------------------------------------------------------

# What a random stream is for; keeps it apart from others of the same seed.
_PICTURES = 101

# Of Gram matrices' errors beside those of features.
_GRAM_WEIGHT = 1.0
# Of the running sums that heads are computed from: how much of them is older than a step.
_MEMORY = 0.98
# For choosing channels and measuring the teacher's energies.
_FIRST_PHOTOS, _FIRST_PAINTINGS = 24, 12


class Distiller:
    """Trains one student and writes its run folder.

    Args:
        teacher: the large network, on its device.
        student: the convolutions to begin with, from `choose_channels`.
        energies: mean square of the teacher's features on photos, at every layer to compare.
        crops: gives photo k for any k.
        styles: what painters imitate, and the paintings to learn on.
        validation: pictures never learned on, by name: uint8 (N, 3, S, S).
        settings: steps, pictures per step, rate, schedule.
        log: how often what is written.
        run_folder: exists.
        description: what files say of themselves, besides the step.
        unreadable: opened at the same step.
        seed: every random choice derives from it.
        workers: processes that decode photos.
        resume_from: a checkpoint to go on from.
    """

    def __init__(
        self,
        *,
        teacher: LossNetwork,
        student: Weights,
        energies: Mapping[str, float],
        crops: Crops,
        styles: Styles,
        validation: Mapping[str, Tensor],
        settings: DistillTrainConfig,
        log: DistillLogConfig,
        run_folder: Path,
        description: dict[str, Any],
        unreadable: UnreadableList,
        seed: int,
        workers: int = 0,
        resume_from: Checkpoint | None = None,
    ) -> None:
        self.device = teacher.mean.device
        self.memory_format = memory_format_for(self.device)
        self.precision = resolve_precision(settings.precision, self.device)
        self.teacher = teacher.to(memory_format=self.memory_format)
        self.energies = energies
        self.layers = list(energies)
        self.crops = crops
        self.styles = styles
        self.validation = validation
        self.settings = settings
        self.log = log
        self.run_folder = run_folder
        self.description = description
        self.unreadable = unreadable
        self.seed = seed
        self.workers = workers
        parameters: dict[str, tuple[Tensor, Tensor]] = {
            number: (
                nn.Parameter(kernel.to(memory_format=self.memory_format)),
                nn.Parameter(bias),
            )
            for number, (kernel, bias) in student.convolutions.items()
        }
        # `student` learns; `judge` has the same numbers, with heads, and is what painters are
        # trained against: gradients reach its input and never its weights.
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
        self.products: dict[str, tuple[Tensor, Tensor]] = {}
        self.held_out: dict[str, dict[str, float]] = {}
        self.step = 0
        self.painters = [self._new_painter(number) for number in range(settings.painters)]
        if resume_from is not None:
            self._restore(resume_from)
        self.run_log = RunLog(
            run_folder, columns=self._columns(), start_step=self.step, steps=settings.steps
        )

    def train(self, stop_signal: Callable[[], int | None] = lambda: None) -> None:
        """Train to the last step and save; save too when a signal ends it earlier.

        Args:
            stop_signal: asked after every step; a signal's number ends training there.

        Raises:
            Stopped: `stop_signal` asked for it; the state is saved.
            UserError: too many photos are unreadable, a number is not finite, or a checkpoint could
                not be written.
        """
        batches = stream_photos(
            self.crops,
            StepSampler(self.step, self.settings.steps, self.settings.photos),
            lambda batch: self.unreadable.report(
                batch.unreadable, self.run_log.warn, is_fatal=batch.is_empty
            ),
            workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        interval = Interval(self.step)
        try:
            for photos in interval.waiting_for(batches):
                errors = self.train_step(photos)
                self.run_log.progress(self.step)
                self._report(interval, errors)
                if (signal_number := stop_signal()) is not None:
                    self.save()
                    raise Stopped(signal_number, self.step)
                if self.step % self.log.checkpoint_every == 0 and self.step < self.settings.steps:
                    self.save()
            self.save()
        finally:
            self.run_log.close()

    def train_step(self, photos: Tensor) -> dict[str, Tensor]:
        """One step of Adam: the student's features, through the best heads, towards the teacher's.

        Args:
            photos: uint8 (N, 3, S, S).

        Returns:
            The numbers to log.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.settings)
        pictures = self._pictures(self._pixels(photos))
        targets = self._targets(pictures)
        features = self.student(pictures, self.layers)
        numbers = {}
        loss = torch.zeros((), device=self.device)
        for layer in self.layers:
            comparison = compare(features[layer], targets[layer], self.energies[layer])
            head = self._remember(layer, comparison)
            numbers[f"error/{layer}"] = comparison.feature_error(head)
            numbers[f"gram_error/{layer}"] = comparison.gram_error(head)
            loss = loss + numbers[f"error/{layer}"] + _GRAM_WEIGHT * numbers[f"gram_error/{layer}"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return {"loss": loss.detach(), **{key: value.detach() for key, value in numbers.items()}}

    @torch.no_grad()
    def _targets(self, pictures: Tensor) -> dict[str, Tensor]:
        # In float32, the largest part of a step's time.
        enabled = self.precision is not None
        with torch.autocast(self.device.type, dtype=self.precision, enabled=enabled):
            features = self.teacher(pictures, self.layers)
        return {layer: found.float() for layer, found in features.items()}

    def _pictures(self, photos: Tensor) -> Tensor:
        """A step's pictures: the photos, what a painter makes of them, paintings, surfaces."""
        rng = np.random.default_rng((self.seed, _PICTURES, self.step))
        size = photos.shape[-1]
        paintings = self.styles.paintings
        drawn = [
            painting_crop(paintings[int(rng.integers(len(paintings)))], size, rng)
            for _ in range(self.settings.paintings)
        ]
        drawn += [plain_surface(size, rng) for _ in range(self.settings.surfaces)]
        pictures = [photos]
        if self.painters:
            pictures.append(self._painter_of_this_step().paint(photos, self.judge))
        if drawn:
            pictures.append(torch.stack(drawn).to(self.device))
        return torch.cat(pictures)

    def _pixels(self, photos: Tensor) -> Tensor:
        return photos.to(self.device, memory_format=self.memory_format).float() / 255

    def _painter_of_this_step(self) -> Painter:
        slot = self.step % len(self.painters)
        painter = self.painters[slot]
        if painter.age >= painter.lifetime:
            painter = self._new_painter(painter.number + len(self.painters), painter)
            self.painters[slot] = painter
        return painter

    def _new_painter(self, number: int, predecessor: Painter | None = None) -> Painter:
        return Painter(number, self.seed, self.styles, self.device, predecessor)

    def _remember(self, layer: str, comparison: Comparison) -> Tensor:
        """Take a step's products into the running ones; gives the head that fits them best."""
        products = (comparison.own.detach(), comparison.cross.detach())
        if layer in self.products:
            own, cross = self.products[layer]
            # As long as there are few, the mean of all.
            share = max(1 - _MEMORY, 1 / (self.step + 1))
            products = own.lerp(products[0], share), cross.lerp(products[1], share)
        self.products[layer] = products
        head = best_head(*products)
        self.judge.get_buffer(f"head_{layer}").copy_(folded_head(head))
        return head

    # --- Looking --------------------------------------------------------------------------------

    def _report(self, interval: Interval, numbers: Mapping[str, Tensor]) -> None:
        is_last = self.step == self.settings.steps
        is_due = self.step % self.log.every == 0 or is_last
        is_validation_due = self.step % self.log.validate_every == 0 or is_last
        if not (is_due or is_validation_due):
            return
        values = dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise UserError(
                f"step {self.step}: the loss is not a finite number. Try a lower "
                f"train.learning_rate. {self._last_checkpoint()}",
                exit_code=1,
            )
        values["lr"] = learning_rate_at(self.step - 1, self.settings)
        untabled = interval.measure(self.step, self.settings.photos, self.device)
        if is_due:
            self.run_log.status(
                self.step,
                loss=values["loss"],
                images_per_s=untabled["time/images_per_s"],
                seconds_left=(self.settings.steps - self.step)
                * self.settings.photos
                / untabled["time/images_per_s"],
            )
        if is_validation_due:
            self.held_out = self.validate()
            for name, agreement in self.held_out.items():
                values |= {f"{name}/{key}": value for key, value in agreement.items()}
            if self.painters:
                self.run_log.picture("painters", self.step, self._painters_sheet())
        images = self.step * self.settings.photos
        self.run_log.scalars(self.step, images, values, untabled=untabled)
        interval.restart(self.step)

    @torch.no_grad()
    def validate(self) -> dict[str, dict[str, float]]:
        """How well heads give the teacher's features of pictures never learned on.

        For each set of pictures and each layer: ``error``, the squared error relative to the
        features' own squares; ``correlation`` over positions; ``gram_error``.
        """
        return {name: self._agreement(pictures) for name, pictures in self.validation.items()}

    def _agreement(self, pictures: Tensor) -> dict[str, float]:
        heads = {layer: best_head(*self.products[layer]) for layer in self.layers}
        sums = {layer: torch.zeros(6, device=self.device) for layer in self.layers}
        for chunk in torch.split(pictures, self.settings.photos):
            pixels = self._pixels(chunk)
            targets = self._targets(pixels)
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
    def _painters_sheet(self) -> Image.Image:
        photos = next(iter(self.validation.values()))[: len(self.painters)]
        pixels = self._pixels(photos)
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

    def save(self) -> None:
        """Write the student, its card and a checkpoint; then remove the oldest.

        Raises:
            UserError: a number is not finite, or writing failed.
        """
        folder = self.run_folder / "checkpoints"
        metadata = {**self.description, "kind": "distillation", "step": self.step}
        metadata["painters"] = [
            {"number": painter.number, "age": painter.age} for painter in self.painters
        ]
        try:
            self._write_student()
            save_checkpoint(checkpoint_path(folder, self.step), self._state(), metadata)
        except (OSError, ValueError) as error:
            raise UserError(
                f"step {self.step}: no checkpoint could be written ({error}). "
                f"{self._last_checkpoint()}",
                exit_code=1,
            ) from None
        remove_old_checkpoints(folder, self.log.keep_checkpoints, newest=self.step)

    def _write_student(self) -> None:
        """The small network alone, with what people have to know about it."""
        weights = self.judge.weights
        settings = _without_folders(self.description["settings"])
        card = {**self.description, "settings": settings, "step": self.step}
        if self.step == self.settings.steps:
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

    def _state(self) -> dict[str, Tensor]:
        state = {f"student.{name}": tensor for name, tensor in self.parameters.items()}
        for name, tensor in adam_tensors(self.parameters, self.optimizer).items():
            state[f"optimizer.{name}"] = tensor
        for layer, (own, cross) in self.products.items():
            state |= {f"products.own.{layer}": own, f"products.cross.{layer}": cross}
        for slot, painter in enumerate(self.painters):
            for name, tensor in painter.state().items():
                state[f"painter{slot}.{name}"] = tensor
        return state

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.step = checkpoint.metadata["step"]
        path = checkpoint_path(self.run_folder / "checkpoints", self.step)
        student = checkpoint.part("student")
        require_same_tensors(student, self.parameters, path)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(student[name])
        restore_adam(self.parameters, self.optimizer, checkpoint.part("optimizer"), path)
        products = checkpoint.part("products")
        for layer in self.layers:
            own, cross = products[f"own.{layer}"], products[f"cross.{layer}"]
            self.products[layer] = own.to(self.device), cross.to(self.device)
            head = folded_head(best_head(*self.products[layer]))
            self.judge.get_buffer(f"head_{layer}").copy_(head)
        for slot, entry in enumerate(checkpoint.metadata["painters"]):
            self.painters[slot] = self._new_painter(entry["number"])
            self.painters[slot].restore(checkpoint.part(f"painter{slot}"), entry["age"], path)

    def _last_checkpoint(self) -> str:
        return last_good_checkpoint(self.run_folder / "checkpoints")


def _without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with names in place of paths: the file may be passed on, and homes are private."""
    data, teacher = dict(settings["data"]), dict(settings["teacher"])
    for key in ("photos", "paintings", "validation_photos", "validation_paintings"):
        data[key] = data[key] and Path(data[key]).name
    teacher["weights"] = Path(teacher["weights"]).name
    return {**settings, "data": data, "teacher": teacher}


# --- From settings to a distillation ------------------------------------------------------------


def build_distiller(
    config: DistillConfig,
    run: Run,
    *,
    device: torch.device,
    say: Callable[[str], None],
    command: str = "",
) -> Distiller:
    """Everything that a distillation needs, in the order in which it can go wrong cheaply.

    Args:
        config: the settings.
        run: from `runs.open_run`.
        device: where to train.
        say: takes lines for people.
        command: the command line, to be written down.

    Raises:
        UserError: pictures or weights are not as they should be.
    """
    set_up_torch(device, threads=config.train.threads, deterministic=config.train.deterministic)
    config = config.model_copy(update={"name": run.folder.name})  # which may be <name>-2
    data = config.data
    photos = find_photos_of(data)
    probe_photos(photos, max_unreadable_share=data.max_unreadable_share)
    paintings = find_photos(
        data.paintings,
        validation_folder=data.validation_paintings,
        validation_count=data.validation_count,
        kind="paintings",
    )
    validation = {
        name: read_validation_photos(
            found.validation,
            data.crop_size,
            on_skipped=lambda line: say(f"warning: {line}"),
        )
        for name, found in (("photos", photos), ("paintings", paintings))
    }
    weights = _load_teacher(config)
    teacher = LossNetwork(config.teacher.architecture, weights, pooling=config.teacher.pooling).to(
        device
    )
    say(
        f"{len(photos.training)} photos and {len(paintings.training)} paintings to learn on, "
        f"{len(photos.validation)} and {len(paintings.validation)} held out; teacher: "
        f"{config.teacher.architecture}, {weights.label}"
    )
    description = {
        "name": config.name,
        "settings": to_dict(config),
        "photos": {"count": len(photos.training), "digest": photos.digest},
        "paintings": {"count": len(paintings.training), "digest": paintings.digest},
        "teacher": {
            "architecture": config.teacher.architecture,
            "source": weights.source,
            "digest": weights.digest,
        },
        "versions": versions(),
    }
    if run.resume_from is not None:
        require_same_inputs(
            run,
            description,
            {"photos": "data.photos", "paintings": "data.paintings", "teacher": "teacher.weights"},
        )
    styles = Styles([read_photo(path) for path in paintings.training], photos.training)
    cache = cache_photos(data, photos, data.crop_size, say)
    crops = Crops(
        photos,
        seed=config.seed,
        size=data.crop_size,
        scale=data.crop_scale,
        flip=data.flip,
        cache=cache,
    )
    layers = relu_layers(config.teacher.architecture, config.student.deepest)
    first = _first_pictures(crops, styles, data, config.seed).to(device)
    with torch.no_grad():
        features = teacher(first[:_FIRST_PHOTOS], layers)
    step = run.resume_from.metadata["step"] if run.resume_from else 0
    distiller = Distiller(
        teacher=teacher,
        student=weights._replace(
            convolutions=choose_channels(teacher, first, layers, config.student.widths),
            source="student",
        ),
        energies={layer: float(features[layer].square().mean()) for layer in layers},
        crops=crops,
        styles=styles,
        validation=validation,
        settings=config.train,
        log=config.log,
        run_folder=run.folder,
        description=description,
        unreadable=UnreadableList.open(
            run.folder / "unreadable_photos.jsonl",
            num_photos=len(photos.training),
            max_share=data.max_unreadable_share,
            before_sample=step * config.train.photos,
        ),
        seed=config.seed,
        workers=resolve_workers(data.workers, device.type, cached=cache is not None),
        resume_from=run.resume_from,
    )
    try:
        write_text_atomically(run.folder / "environment.json", environment(device, command))
        write_text_atomically(run.folder / "config.yaml", to_yaml(config))
    except OSError as error:
        raise UserError(f"{run.folder}: cannot be written ({error.strerror})") from None
    return distiller


def _load_teacher(config: DistillConfig) -> Weights:
    network = config.teacher
    weights = load_weights(
        network.weights,
        network.architecture,
        config.student.deepest,
        preprocessing=network.preprocessing,
        padding=network.padding,
        seed=config.seed,
    )
    if weights.heads:
        raise UserError(
            f"teacher.weights: {network.weights} was learned from another network; give that one"
        )
    for number, (_, bias) in weights.convolutions.items():
        width = config.student.widths[int(number[0]) - 1]
        if width > len(bias):
            raise UserError(
                f"student.widths: conv{number} of the teacher has {len(bias)} channels, of which "
                f"{width} cannot be chosen"
            )
    return weights


def _first_pictures(crops: Crops, styles: Styles, data: DistillDataConfig, seed: int) -> Tensor:
    """What channels are chosen by: photos, then paintings; (N, 3, S, S) in [0, 1]."""
    rng = np.random.default_rng((seed, _PICTURES, 2**40))
    found = [sample.pixels for k in range(_FIRST_PHOTOS) if (sample := crops[k]).pixels is not None]
    photos = [pixels.float() / 255 for pixels in found]
    paintings = [
        painting_crop(styles.paintings[k % len(styles.paintings)], data.crop_size, rng)
        for k in range(_FIRST_PAINTINGS)
    ]
    return torch.stack([*photos, *paintings])
