r"""The objective of style models that were trained against different loss networks.

    python benchmarks/loss_networks.py configs/laptop.yaml style.image=starry_night.jpg \
        data.photos=photos/ --minutes 3 \
        --judge 'loss_network.weights=vgg16.pth loss_network.preprocessing=caffe' \
        --network 'full loss_network.weights=vgg16.pth loss_network.preprocessing=caffe' \
        --network 'compact loss_network.weights=compact' --mixture compact full

Trains the same style with each network, for as many steps as fit into the same time (`--minutes`),
or for the same number of photos (`--images`). One loss network, the judge, then gives each result's
objective on held-out photos. The numbers of steps follow from measured speeds: networks take turns,
a few steps each, and the medians count, by the wall clock of an otherwise idle machine. A mixture
is trained with the first network for two thirds of the time, then with the second one. Runs, models
and sheets (photo | result) are left in `--output`.
"""

import argparse
import shlex
import statistics
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import program
import torch

from fast_style.cli.arguments import positive, positive_number
from fast_style.core.errors import UserError, shortened
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.losses.perceptual import LossValues
from fast_style.models.checkpoint import load_transform_net
from fast_style.networks.fast_transform import FastTransform
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import Config, load_config
from fast_style.training.build import build_trainer, find_photos_of
from fast_style.training.data import read_validation_photos
from fast_style.training.run_folder import open_run
from fast_style.training.run_log import photo_and_result_sheet
from fast_style.training.trainer import Trainer

ROUNDS, STEPS_PER_ROUND = 3, 8
SHEET_PHOTOS = 6
LEAST_SIZE = 16  # which four poolings before VGG's last block make one pixel
NEVER = 1_000_000
QUIET = [
    *(f"log.{what}={NEVER}" for what in ("every", "shares_every", "validate_every")),
    *(f"log.{what}={NEVER}" for what in ("samples_every", "checkpoint_every")),
]


class Bench:
    """The settings that all runs share, and the photos and the judge that measure results.

    Args:
        config: a training YAML.
        words: settings that replace the file's.
        judge: words that choose the loss network to judge by.
        size: pixels of the held-out photos.
        output: the folder for runs and sheets.
    """

    def __init__(
        self, config: Path, words: list[str], judge: list[str], *, size: int, output: Path
    ) -> None:
        self.config = config
        self.words = [*words, *QUIET]
        self.output = output
        settings = self.settings(judge)
        self.batch_size = settings.train.batch_size
        found = find_photos_of(settings.data, print)
        self.photos = read_validation_photos(found.validation, size).float() / 255
        style = read_style(settings.style.image, settings.style.size)
        self.objective = build_perceptual_loss(
            settings, load_loss_weights(settings), style, torch.device("cpu")
        )

    def settings(self, words: list[str]) -> Config:
        """The settings of one run."""
        return load_config(self.config, [*self.words, *words])

    def trainer(self, name: str, words: list[str]) -> Trainer:
        """A trainer of a new run of this name."""
        settings = self.settings([*words, f"name={name}"])
        run = open_run(settings, root=self.output, fresh=True, say=print)
        return build_trainer(settings, run, device=torch.device("cpu"), say=lambda line: None)

    def train(self, name: str, words: list[str]) -> Path:
        """Train a run to its end; returns the model."""
        trainer = self.trainer(name, words)
        trainer.train()
        return trainer.run_folder / "model.safetensors"

    def seconds_per_step(self, networks: "Iterable[Network]") -> dict[str, float]:
        """Each network's seconds per step: medians over some rounds, in which they take turns."""
        trainers = {
            network.name: self.trainer(f"{network.name}-speed", network.words)
            for network in networks
        }
        for trainer in trainers.values():
            trainer.prepare()
        seconds: dict[str, list[float]] = {name: [] for name in trainers}
        for round_number in range(ROUNDS + 1):
            for name, trainer in trainers.items():
                samples = [trainer.photos.crops[k].pixels for k in range(self.batch_size)]
                photos = torch.stack([pixels for pixels in samples if pixels is not None])
                start_at = time.perf_counter()
                for _ in range(STEPS_PER_ROUND):
                    trainer.train_step(photos)
                if round_number > 0:  # the first one warms up
                    seconds[name].append((time.perf_counter() - start_at) / STEPS_PER_ROUND)
        for trainer in trainers.values():
            trainer.run_log.close()
        return {name: statistics.median(values) for name, values in seconds.items()}

    @torch.no_grad()
    def judge(self, name: str, model: Path | None) -> LossValues:
        """The mean objective of a model's results on the held-out photos; None: of the photos."""
        results = [photo[None] for photo in self.photos]
        if model is not None:
            net, _ = load_transform_net(model)
            forward = FastTransform(net)
            results = [forward(photo).clamp(0, 1) for photo in results]
            sheet = photo_and_result_sheet(
                self.photos[:SHEET_PHOTOS], torch.cat(results[:SHEET_PHOTOS])
            )
            write_picture(self.output / f"{name}.png", sheet)
        values = [
            self.objective(result, photo[None]).values()
            for result, photo in zip(results, self.photos, strict=True)
        ]
        return LossValues(*(statistics.mean(term) for term in zip(*values, strict=True)))


class Network(NamedTuple):
    """A loss network to train with: a name, and the settings that choose it."""

    name: str
    words: list[str]


@program.errors_in_one_line()
def main() -> None:
    """Train, judge, and print the table."""
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        options.config,
        options.words,
        options.judge,
        size=options.size,
        output=options.output,
    )
    networks = {network.name: network for network in options.network}
    seconds = bench.seconds_per_step(networks.values())

    def steps_of(name: str, share: float = 1.0) -> int:
        if options.images is not None:
            return round(share * options.images / bench.batch_size)
        return round(share * 60 * options.minutes / seconds[name])

    print("| trained with | photos/s | photos | objective | content | style |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(row("nothing: the photos", None, 0, bench.judge("photos", None)))
    for name, network in networks.items():
        steps = steps_of(name)
        model = bench.train(name, [*network.words, f"train.steps={steps}"])
        rate = bench.batch_size / seconds[name]
        print(row(name, rate, steps * bench.batch_size, bench.judge(name, model)), flush=True)
    for first, second in options.mixture:
        name = f"{first}-then-{second}"
        steps = [steps_of(first, 2 / 3), steps_of(second, 1 / 3)]
        begun = bench.train(
            f"{name}-begun",
            [*networks[first].words, f"train.steps={steps[0]}", "train.schedule=constant"],
        )
        words = [f"train.init_from={begun}", f"train.steps={steps[1]}", "train.warmup_steps=0"]
        model = bench.train(name, [*networks[second].words, *words])
        print(row(name, None, sum(steps) * bench.batch_size, bench.judge(name, model)), flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = program.parser_of(__doc__)
    parser.add_argument("config", type=program.existing_file)
    parser.add_argument("words", nargs="*", metavar="key=value")
    parser.add_argument("--network", action="append", required=True, type=to_network)
    parser.add_argument("--mixture", nargs=2, action="append", default=[])
    parser.add_argument("--judge", required=True, type=words_of)
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--minutes", type=positive_number)
    amount.add_argument("--images", type=positive)
    parser.add_argument(
        "--size",
        type=partial(positive, least=LEAST_SIZE),
        default=256,
        help=f"pixels of the held-out photos, from {LEAST_SIZE} (256)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("loss_networks"),
        help="folder for runs and sheets; those of before are replaced (loss_networks)",
    )
    options = parser.parse_intermixed_args()
    names = [network.name for network in options.network]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--network {name}: is given twice; give each a name of its own")
    program.require_names("--mixture", [name for both in options.mixture for name in both], names)
    return options


def words_of(text: str) -> list[str]:
    """The words of a text, which may be quoted as for a shell."""
    try:
        return shlex.split(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must have both quotes of each pair, got {shortened(text)!r}"
        ) from None


def to_network(text: str) -> Network:
    """A network from words such as ``'name key=value ...'``."""
    words = words_of(text)
    if not words or "=" in words[0]:
        raise argparse.ArgumentTypeError(f"must be a name, then settings, got {shortened(text)!r}")
    return Network(words[0], words[1:])


def row(name: str, rate: float | None, photos: int, values: LossValues) -> str:
    """One row of the table."""
    speed = "" if rate is None else f"{rate:.2f}"
    numbers = [f"{value:.3f}" for value in (values.total, values.content, values.style)]
    return f"| {' | '.join([name, speed, str(photos), *numbers])} |"


if __name__ == "__main__":
    main()
