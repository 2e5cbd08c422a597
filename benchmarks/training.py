"""Training beside pytorch/examples: one step on photos that lie ready, and whole commands.

    python benchmarks/training.py --peer ../examples               # steps: a few minutes
    python benchmarks/training.py --peer ../examples --commands    # and commands: half an hour
    python benchmarks/training.py --peer ../examples --device cuda --with train.compile=true

The work is the peer's on both sides: VGG-16 to relu4_3 with content at relu2_2, a transform network
of width 32, Adam; in float32 on the CPU, in bfloat16 (ours) on a GPU. VGG's weights are random
ones, since nothing is downloaded here; weights do not change the time. Ours does more: total
variation, the guard against numbers that are not finite, and, as a command, pictures, validation
and checkpoints.

Each side is a process of its own: ours keeps freed memory and lets waiting threads sleep, as our
commands do.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import peer
import program

from fast_style.cli.arguments import positive, thread_count

OURS = "fast-style"
STYLE_SIDE = 256

work = program.numbers_like("4x256")
"""Parses photos per step, and pixels of their sides."""


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the tables."""
    parser = program.parser_of(__doc__)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--threads", type=thread_count, default=2)
    parser.add_argument(
        "--work", type=work, nargs="+", default=[(4, 256), (8, 128)], metavar="BATCHxPIXELS"
    )
    program.add_device(parser)
    parser.add_argument(
        "--with",
        dest="settings",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings of ours, such as train.compile=true",
    )
    parser.add_argument("--commands", action="store_true", help="also measure whole commands")
    parser.add_argument("--steps", type=positive, default=20, help="steps of a command (20)")
    peer.add_peer(parser)
    options = parser.parse_args()
    print(peer.machine(threads=options.threads, device=options.device), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"\none step, {options.rounds} rounds\n")
        print_table(options, partial(step_sides, folder))
        if options.commands:
            print(f"\na command of {options.steps} steps, {options.rounds} rounds\n")
            print_table(options, partial(command_sides, folder))


def print_table(options: argparse.Namespace, sides_of: Callable[..., dict[str, object]]) -> None:
    """Print a table with a row for each kind of work."""
    names = [OURS, *([peer.NAME] if options.peer else [])]
    ratio = [f"against {peer.NAME}"] if options.peer else []
    print(peer.table_head("batch", *(f"{name}, seconds" for name in names), *ratio))
    for batch_size, size in options.work:
        sides = sides_of(batch_size, size, options)
        seconds = peer.interleave(
            {name: side.measure for name, side in sides.items()},
            rounds=options.rounds,
            warm_up=not isinstance(sides[OURS], Command),  # whose start is a part of it
        )
        for side in sides.values():
            side.close()
        ratios = [str(peer.ratio_of(seconds[peer.NAME], seconds[OURS]))] if options.peer else []
        cells = [*map(peer.shown_seconds, seconds.values()), *ratios]
        print(peer.table_row(f"{batch_size} of {size} x {size}", *cells), flush=True)


# --- One step -----------------------------------------------------------------------------------


def step_sides(
    folder: Path, batch_size: int, size: int, options: argparse.Namespace
) -> dict[str, peer.Worker]:
    """A process for each side."""
    arguments = (batch_size, size, options.threads, options.device)
    sides = {OURS: peer.Worker(build_step, folder, *arguments, options.settings)}
    if options.peer:
        sides[peer.NAME] = peer.Worker(build_peer_step, options.peer, *arguments)
    return sides


def build_step(
    folder: Path, batch_size: int, size: int, threads: int, device: str, settings: list[str]
) -> Callable[[], object]:
    """In a worker: a step of our trainer."""
    from fast_style.cli.allocator import keep_freed_memory
    from fast_style.cli.openmp import let_waiting_threads_sleep

    let_waiting_threads_sleep()  # before torch is loaded
    import torch

    from fast_style.settings.config import load_config
    from fast_style.training.build import build_trainer
    from fast_style.training.run_folder import open_run

    assert keep_freed_memory()
    path = write_config(folder, batch_size, size, steps=1000, threads=threads, most_photos=4)
    config = load_config(path, settings)
    run = open_run(config, root=folder / "runs", fresh=True, say=print)
    trainer = build_trainer(
        config, run, device=torch.device(device), say=lambda line: None, command=""
    )
    trainer.prepare()
    assert config.train.compile == trainer.compute_gradients.is_compiled
    photos = torch.randint(256, (batch_size, 3, size, size)).byte().to(device)

    def step() -> None:
        trainer.train_step(photos)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def build_peer_step(
    folder: Path, batch_size: int, size: int, threads: int, device: str
) -> Callable[[], object]:
    """In a worker: one step of the peer's loop, by its own modules."""
    import torch
    import torchvision

    torch.set_num_threads(threads)
    vgg16 = torchvision.models.vgg16
    torchvision.models.vgg16 = lambda weights: vgg16()
    net = peer.peer_module(folder, "transformer_net").TransformerNet().to(device)
    vgg = peer.peer_module(folder, "vgg").Vgg16(requires_grad=False).to(device)
    tools = peer.peer_module(folder, "utils")
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    distance = torch.nn.MSELoss()
    style = 255 * torch.rand(batch_size, 3, STYLE_SIDE, STYLE_SIDE, device=device)
    with torch.no_grad():
        style_grams = [tools.gram_matrix(layer) for layer in vgg(tools.normalize_batch(style))]
    photos = 255 * torch.rand(batch_size, 3, size, size, device=device)

    def step() -> None:
        optimizer.zero_grad()
        batch = photos.clone()  # it is changed in place
        output = tools.normalize_batch(net(batch))
        seen, wanted = vgg(output), vgg(tools.normalize_batch(batch))
        loss = 1e5 * distance(seen.relu2_2, wanted.relu2_2)
        for layer, gram in zip(seen, style_grams, strict=True):
            loss = loss + 1e10 * distance(tools.gram_matrix(layer), gram)
        loss.backward()
        optimizer.step()
        loss.item()  # it adds up its losses after every batch

    return step


# --- Whole commands -----------------------------------------------------------------------------


class Command:
    """A command that is measured from its start to its end."""

    def __init__(self, words: Callable[[], list[str]], folder: Path) -> None:
        self.words = words
        self.folder = folder

    def measure(self) -> float:
        """Seconds of the command."""
        return peer.time_command(self.words(), folder=self.folder)

    def close(self) -> None:
        """There is nothing to end."""


def command_sides(
    folder: Path, batch_size: int, size: int, options: argparse.Namespace
) -> dict[str, Command]:
    """Both commands, on the same photos."""
    config = write_config(folder, batch_size, size, steps=options.steps, threads=options.threads)
    train = str(peer.ROOT / "train.py")
    ours = [sys.executable, train, str(config), "--resume", "never"]
    ours += ["--device", options.device, *options.settings]
    sides = {OURS: Command(lambda: ours, folder)}
    if options.peer:
        words = peer.training_command(
            options.peer,
            photos=config.parent / "photos",
            style=config.parent / "style.png",
            models=folder,
            batch_size=batch_size,
            size=size,
            device=options.device,
        )
        sides[peer.NAME] = Command(lambda: words, folder)
    return sides


def write_config(
    folder: Path,
    batch_size: int,
    size: int,
    *,
    steps: int,
    threads: int,
    most_photos: int = sys.maxsize,
) -> Path:
    """Write a style picture, the settings, and enough photos of 640 x 480 pixels for the steps."""
    import yaml
    from PIL import Image

    # A folder for every number of steps: the peer's command takes all photos that are there.
    place = folder / f"{batch_size}x{size}" / f"{steps}_steps"
    photos = place / "photos" / "all"  # the peer wants a folder in a folder
    photos.mkdir(parents=True, exist_ok=True)
    num_photos = min(steps * batch_size, most_photos)
    for number in range(num_photos + 1):
        path = photos / f"{number:04}.jpg" if number else place / "held_out" / "0000.jpg"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            noise = Image.effect_noise((640, 480), 40 + number % 50)
            noise.resize((160, 120)).resize((640, 480)).convert("RGB").save(path, quality=90)
    Image.effect_noise((STYLE_SIDE, STYLE_SIDE), 90).convert("RGB").save(place / "style.png")
    path = place / "settings.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "benchmark",
                "style": {"image": "style.png", "size": STYLE_SIDE},
                "data": {
                    "photos": "photos",
                    "validation_photos": "held_out",
                    "crop_size": size,
                },
                "loss_network": {"architecture": "vgg16", "weights": "random"},
                "loss": {
                    "content_layers": {"relu2_2": 1.0},
                    "style_layers": dict.fromkeys(
                        ["relu1_2", "relu2_2", "relu3_3", "relu4_3"], 1.0
                    ),
                },
                "train": {
                    "steps": steps,
                    "batch_size": batch_size,
                    "warmup_steps": 0,
                    "optimizer": "adam",
                    "threads": threads,
                },
            }
        )
    )
    return path


if __name__ == "__main__":
    main()
