"""Training crops per second of one core: decoded every time, or from the cache of photos.

    python benchmarks/loader.py                        # a minute; drawn JPEGs of 640 x 480
    python benchmarks/loader.py --photos data/val2017
    python benchmarks/loader.py --peer ../examples

Each side makes batches of four crops of 256 pixels, in this process. Sides take turns; the table
has medians over the rounds, and the medians of ratios within a round. Seconds are CPU time of this
process, so that other processes, and waiting for a disk, count for little.

--peer names a checkout of pytorch/examples' fast_neural_style. Its pipeline is then a third side:
the same parts of torchvision, which resize a photo to 256 pixels and cut out the middle. It makes
floats; ours makes bytes, which become floats on the training device.
"""

import argparse
import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import peer
import program
import torch
from PIL import Image
from torch import Tensor

from fast_style.cli.arguments import positive
from fast_style.core.errors import UserError, printable
from fast_style.pictures.folders import Photos, find_photos
from fast_style.training.data import Crops, StepSampler, least_side, load_batches
from fast_style.training.photo_cache import PhotoCache, open_photo_cache

SIZE = 256
SCALE = (0.5, 1.0)
BATCH = 4

# What the peer's training loop does to a photo, as its file says it.
PEERS_PIPELINE = (
    "transforms.Resize(args.image_size)",
    "transforms.CenterCrop(args.image_size)",
    "transforms.ToTensor()",
    "x.mul(255)",
    "datasets.ImageFolder(",
    "DataLoader(train_dataset, batch_size=args.batch_size)",
)


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the table."""
    options = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.photos
        if folder is None:
            folder = Path(temporary, "drawn")
            draw_photos(folder, options.images)
        rates = measure(folder.resolve(), Path(temporary), options)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {version('torch')}, "
        f"Pillow {version('pillow')}; {options.images} crops in each of {options.rounds} rounds\n"
    )
    names = list(rates)
    others = names[:-1]  # the last one is the cache
    print_row(["side", "crops/s of a core", *(f"against {name}" for name in others)])
    print_row(["---"] * (2 + len(others)))
    for name in names:
        ratios = [f"x{ratio(rates[name], rates[other]):.1f}" for other in others]
        print_row([name, f"{statistics.median(rates[name]):.0f}", *ratios])


def print_row(cells: list[str]) -> None:
    """Print one row of a Markdown table."""
    print(f"| {' | '.join(cells)} |")


def measure(folder: Path, temporary: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Crops per second of every side in every round."""
    sides = {"decoded": batches(crops_of(find_photos(folder)))}
    if options.peer is not None:
        sides["pytorch/examples"] = peers_batches(folder, temporary, options.peer)
    side = options.cache_side or least_side(SIZE, SCALE)
    sides[f"cached at {side}"] = batches(crops_from_cache_alone(folder, temporary, side))
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(options.rounds + 1):
        for name, side_batches in sides.items():
            num_batches = -(-options.images // BATCH)
            start_at = time.process_time()
            for photos in itertools.islice(side_batches, num_batches):
                assert photos.shape == (BATCH, 3, SIZE, SIZE)
            seconds = time.process_time() - start_at
            if round_number > 0:  # the first one warms up
                rates[name].append(num_batches * BATCH / seconds)
    return rates


def crops_of(photos: Photos, cache: PhotoCache | None = None) -> Crops:
    """The crops of a run with the default settings."""
    return Crops(photos, seed=1, size=SIZE, scale=SCALE, flip=True, cache=cache)


def crops_from_cache_alone(folder: Path, temporary: Path, side: int) -> Crops:
    """Crops of photos that are gone: whatever they show comes from the cache."""
    link = temporary / "photos"
    link.symlink_to(folder)
    photos = find_photos(link)
    cache = open_photo_cache(
        photos.training, folder=link, side=side, root=temporary / "caches", say=print
    )
    link.unlink()
    assert not any(path.exists() for path in photos.training)
    return crops_of(photos, cache)


def batches(crops: Crops) -> Iterator[Tensor]:
    """Batches as the training loop gets them."""
    sampler = StepSampler(0, 1_000_000, BATCH)
    for batch in load_batches(crops, sampler, workers=0, pin_memory=False):
        if batch.unreadable:
            raise UserError(f"a photo cannot be read, remove it: {batch.unreadable[0]}")
        yield batch.photos


def peers_batches(folder: Path, temporary: Path, checkout: Path) -> Iterator[Tensor]:
    """Batches as the peer's training loop gets them, by the parts of torchvision that it names."""
    from torchvision import datasets, transforms

    source = (checkout / "neural_style.py").read_text()
    missing = [part for part in PEERS_PIPELINE if part not in source]
    if missing:
        raise UserError(
            f"{printable(checkout)}: is another version of {peer.NAME}: it has no {missing[0]}"
        )
    steps = [
        transforms.Resize(SIZE),
        transforms.CenterCrop(SIZE),
        transforms.ToTensor(),
        transforms.Lambda(lambda pixels: pixels.mul(255)),
    ]
    classes = temporary / "classes"  # torchvision wants a folder for each class
    classes.mkdir()
    (classes / "photos").symlink_to(folder)
    photos = datasets.ImageFolder(str(classes), transforms.Compose(steps))
    while True:
        for batch, _ in torch.utils.data.DataLoader(photos, batch_size=BATCH, drop_last=True):
            yield batch


def draw_photos(folder: Path, count: int) -> None:
    """JPEGs of 640 x 480 with shapes of all sizes; about 160 kB each, as COCO's."""
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        pixels = np.full((480, 640, 3), 128.0)
        for width in (5, 20, 80, 320, 640):
            coarse = rng.normal(0, 30 if width < 320 else 11, (width * 3 // 4, width, 3))
            layers = [
                Image.fromarray(channel.astype(np.float32)).resize((640, 480))
                for channel in np.moveaxis(coarse, -1, 0)
            ]
            pixels += np.stack(layers, axis=-1)
        photo = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        photo.save(folder / f"{number:05}.jpg", quality=90)


def ratio(rates: list[float], others: list[float]) -> float:
    """The median of the ratios within a round."""
    return statistics.median(mine / other for mine, other in zip(rates, others, strict=True))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = program.parser_of(__doc__)
    parser.add_argument(
        "--photos", type=program.existing_folder, help="a folder of photos (default: drawn ones)"
    )
    peer.add_peer(parser)
    parser.add_argument("--images", type=positive, default=200, help="crops per round")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--cache-side", type=positive, help="data.cache_side")
    return parser.parse_args()


if __name__ == "__main__":
    main()
