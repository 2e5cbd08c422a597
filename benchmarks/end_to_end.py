"""Whole trainings beside pytorch/examples, with the same photos and losses: time and objective.

    python benchmarks/end_to_end.py --peer ../examples --photos photos/ --held-out val/ \
        --style style.jpg --epochs 2 --device cuda --weights vgg16.pth

Both commands train on a folder of photos against VGG-16 to relu4_3, with the peer's losses and
their weights, batch size and learning rate. That objective then judges both models, in float32, on
photos that neither was trained on. Without `--weights`, VGG-16 has the same random weights on both
sides: a training takes the same time, and its objective falls, too.

The peer takes the middle of each photo, ours random squares. Our learning rate follows our
settings, by default a cosine. `--with train.compile=true data.cache=disk` and the like change our
settings.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import peer
import program
import torch
import yaml
from torch import Tensor, nn

from fast_style.cli.arguments import positive
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.losses.loss_network import load_weights
from fast_style.losses.perceptual import LossValues
from fast_style.models.checkpoint import load_transform_net
from fast_style.networks.fast_transform import FastTransform
from fast_style.pictures.reading import read_photo
from fast_style.pictures.scanning import scan_folder
from fast_style.settings.config import Config, load_config
from fast_style.settings.layers import CHANNELS_PER_BLOCK, torchvision_index
from fast_style.training.build import find_photos_of
from fast_style.training.data import read_validation_photos

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
STYLE_SIDE = 256
CONTENT_WEIGHT, STYLE_WEIGHT = 1e5, 1e10  # the peer's


class Outcome(NamedTuple):
    """A training: seconds of its command, and the objective of its model."""

    seconds: float
    values: LossValues


@program.errors_in_one_line()
def main() -> None:
    """Train with both, judge, and print the table."""
    options = parse()
    print(peer.machine(device=options.device), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_peer_inputs(folder, options)
        config = load_config(write_config(folder, options), options.settings)
        print(f"{config.train.steps} steps of {options.batch_size} photos of {options.size} pixels")
        judge = Judge(config, options)
        print(f"the held-out photos themselves: {judge(lambda photos: photos).total:.4g}\n")
        outcomes = {"fast-style": train(folder, options, judge)}
        if options.peer:
            outcomes[peer.NAME] = train_peer(folder, options, judge)
    print(peer.table_head("command", "seconds", "objective", "content", "style"))
    for side, outcome in outcomes.items():
        total, content, style, _ = outcome.values
        terms = (total, CONTENT_WEIGHT * content, STYLE_WEIGHT * style)
        print(peer.table_row(side, f"{outcome.seconds:.1f}", *(f"{term:.4g}" for term in terms)))
    if options.peer:
        print(f"\nx{outcomes[peer.NAME].seconds / outcomes['fast-style'].seconds:.2f} as fast")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = program.parser_of(__doc__)
    parser.add_argument(
        "--photos", type=program.existing_folder, required=True, help="a folder to train on"
    )
    parser.add_argument(
        "--held-out", type=program.existing_folder, required=True, help="a folder to judge by"
    )
    parser.add_argument("--style", type=program.existing_file, required=True)
    parser.add_argument("--weights", default="random", help="of VGG-16, by torchvision's names")
    parser.add_argument("--epochs", type=positive, default=1)
    parser.add_argument("--batch-size", type=positive, default=4)
    parser.add_argument("--size", type=positive, default=256, help="pixels of the photos' sides")
    program.add_device(parser)
    parser.add_argument("--with", dest="settings", nargs="+", default=[], metavar="KEY=VALUE")
    peer.add_peer(parser)
    return parser.parse_args()


def write_peer_inputs(folder: Path, options: argparse.Namespace) -> None:
    """Write the style picture at the size that both use, and VGG-16 by torchvision's names."""
    style = read_photo(options.style)
    scale = STYLE_SIDE / min(style.size)
    style.resize((round(style.width * scale), round(style.height * scale))).save(
        folder / "style.png"
    )
    weights = load_weights(options.weights, "vgg16", "relu4_3", preprocessing="torchvision")
    assert weights.preprocessing == "torchvision", "the peer takes no other pixels"
    state = {}
    for number, (kernel, bias) in weights.convolutions.items():
        place = torchvision_index(f"conv{number}", "vgg16")
        state |= {f"features.{place}.weight": kernel, f"features.{place}.bias": bias}
    torch.save(state, folder / "vgg16.pth")
    # It wants a folder in a folder.
    (folder / "photos").mkdir()
    (folder / "photos" / "all").symlink_to(options.photos.absolute())


def write_config(folder: Path, options: argparse.Namespace) -> Path:
    """Write a YAML file of ours with the peer's losses."""
    steps = options.epochs * len(scan_folder(options.photos).names) // options.batch_size
    # Its mean over a Gram matrix is our sum, divided by the number of entries.
    entries = {layer: CHANNELS_PER_BLOCK[int(layer[4]) - 1] ** 2 for layer in STYLE_LAYERS}
    settings = {
        "name": "end_to_end",
        "style": {"image": "style.png", "size": STYLE_SIDE},
        "data": {
            "photos": str(options.photos.absolute()),
            "validation_photos": str(options.held_out.absolute()),
            "crop_size": options.size,
        },
        "loss_network": {
            "architecture": "vgg16",
            "weights": "vgg16.pth",
            "preprocessing": "torchvision",
        },
        "loss": {
            "normalization": "paper",
            "content_layers": {"relu2_2": 1.0},
            "style_layers": {layer: 1 / count for layer, count in entries.items()},
            "content_weight": CONTENT_WEIGHT,
            "style_weight": STYLE_WEIGHT,
            "tv_weight": 0,
        },
        "train": {
            "steps": steps,
            "batch_size": options.batch_size,
            "warmup_steps": min(100, steps // 10),
        },
    }
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


class Judge:
    """The mean objective of pictures, in float32, on the held-out photos."""

    def __init__(self, config: Config, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        torch.backends.cudnn.allow_tf32 = False
        self.loss = build_perceptual_loss(
            config,
            load_loss_weights(config),
            read_style(config.style.image, config.style.size),
            self.device,
        )
        held_out = find_photos_of(config.data, print).validation
        self.photos = read_validation_photos(held_out, options.size).float() / 255

    @torch.no_grad()
    def __call__(self, stylize: Callable[[Tensor], Tensor]) -> LossValues:
        """The mean objective of what `stylize` makes of photos in [0, 1]."""
        values = [
            self.loss(stylize(photo).clamp(0, 1), photo).values()
            for photo in self.photos.to(self.device).split(1)
        ]
        return LossValues(*(statistics.mean(term) for term in zip(*values, strict=True)))


def train(folder: Path, options: argparse.Namespace, judge: Judge) -> Outcome:
    """Train with our command."""
    words = [sys.executable, str(peer.ROOT / "train.py"), str(folder / "settings.yaml")]
    words += ["--device", options.device, *options.settings]
    seconds = peer.time_command(words, folder=folder)
    net, _ = load_transform_net(folder / "runs" / "end_to_end" / "model.safetensors")
    return Outcome(seconds, judge(FastTransform(net.to(judge.device))))


def train_peer(folder: Path, options: argparse.Namespace, judge: Judge) -> Outcome:
    """Train with the peer's command."""
    models = folder / "peer_models"
    command = peer.training_command(
        options.peer,
        photos=folder / "photos",
        style=folder / "style.png",
        models=models,
        batch_size=options.batch_size,
        size=options.size,
        device=options.device,
        epochs=options.epochs,
        weights=folder / "vgg16.pth",
    )
    seconds = peer.time_command(command, folder=folder)
    net: nn.Module = peer.peer_module(options.peer, "transformer_net").TransformerNet()
    (path,) = models.iterdir()
    net.load_state_dict(torch.load(path, map_location="cpu"))
    net.to(judge.device).eval()
    return Outcome(seconds, judge(lambda photos: net(255 * photos) / 255))


if __name__ == "__main__":
    main()
