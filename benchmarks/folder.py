"""A folder of photos: one process of ours beside one process of the peer for each photo.

    python benchmarks/folder.py                                   # ours alone: some minutes
    python benchmarks/folder.py --peer ../examples                # the peer on every photo: long
    python benchmarks/folder.py --peer ../examples --peer-count 10   # on every tenth one
    python benchmarks/folder.py --photos holiday/ --count 20 --peer ../examples
    python benchmarks/folder.py --peer ../examples --peer-count 10 --device cuda --compile

The peer's command takes one photo, so it is started once for each. With ``--peer-count`` it does
every k-th photo only, and seconds per photo are compared: ours over the whole folder, and the
median of its commands. No time is extrapolated. Photos are seeded noise over gradients, of several
sizes, upright and wide; or copies of your own. ``--compile`` adds a row of ours with that option:
the first round compiles, and later rounds use torch's cache.
"""

import argparse
import itertools
import random
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import peer
import program

from fast_style.cli.arguments import positive, positive_number
from fast_style.core.errors import UserError, printable

SIZES = ((320, 240), (480, 360), (512, 512), (640, 427), (640, 480))


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the table."""
    parser = program.parser_of(__doc__)
    parser.add_argument("--count", type=positive, default=100, help="number of photos (100)")
    parser.add_argument(
        "--photos",
        type=program.existing_folder,
        metavar="FOLDER",
        help="use the photos of this folder",
    )
    parser.add_argument(
        "--scale",
        type=positive_number,
        default=1.0,
        help="factor for the sides of drawn photos (1)",
    )
    parser.add_argument(
        "--rounds", type=positive, default=1, help="how often our process is timed (1)"
    )
    parser.add_argument(
        "--peer-count", type=positive, metavar="N", help="number of photos that the peer does (all)"
    )
    program.add_device(parser)
    parser.add_argument("--compile", action="store_true", help="add a row of ours, compiled")
    peer.add_peer(parser)
    options = parser.parse_args()
    print(peer.machine(device=options.device), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, peer_model = peer.write_models(folder)
        photos = prepare_photos(folder / "photos", options)
        print(f"{len(photos)} photos, {num_pixels(photos) / 1e6:.1f} megapixels in all\n")
        print(peer.table_head("what", "photos", "seconds", "seconds per photo"), flush=True)
        ours = measure_ours(folder, model, options)
        show("one process of stylize.py", len(photos), ours)
        if options.compile:
            compiled = measure_ours(folder, model, options, "--compile")
            show("the same with --compile", len(photos), compiled)
        if options.peer is None:
            return
        chosen = every_kth(photos, options.peer_count or len(photos))
        theirs = measure_peer(folder, peer_model, chosen, options)
    whole = f"one process of {peer.NAME} for each photo"
    cells = (whole, f"{len(chosen)}", f"{sum(theirs):.1f}", f"{statistics.median(theirs):.3g}")
    print(peer.table_row(*cells))
    per_photo = statistics.median(ours) / len(photos)
    if len(chosen) == len(photos):
        print(f"\nwhole folder: x{sum(theirs) / statistics.median(ours):.2f} as fast")
    share = "" if len(chosen) == len(photos) else f" (the peer did {len(chosen)} photos)"
    print(f"\nper photo, medians{share}: x{statistics.median(theirs) / per_photo:.2f} as fast")


def prepare_photos(folder: Path, options: argparse.Namespace) -> list[Path]:
    """Draw the photos, or copy those of --photos, into a new folder; gives their paths."""
    folder.mkdir()
    if options.photos is None:
        return [
            draw_photo(folder / f"{number:03}.jpg", number, options.scale)
            for number in range(options.count)
        ]
    from fast_style.pictures.scanning import scan_folder

    found = [
        path
        for path in scan_folder(options.photos).pictures
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")  # the peer reads these
    ]
    if not found:
        raise UserError(f"{printable(options.photos)}: has no JPEG or PNG; name another --photos")
    return [
        Path(shutil.copy(path, folder / f"{number:03}{path.suffix}"))
        for number, path in enumerate(found[: options.count])
    ]


def draw_photo(path: Path, number: int, scale: float) -> Path:
    """Write a picture of noise over gradients; `number` seeds it. Gives `path`."""
    from PIL import Image

    generator = random.Random(number)
    width, height = (max(1, round(side * scale)) for side in SIZES[number % len(SIZES)])
    if generator.random() < 0.5:
        width, height = height, width
    gradients = [
        Image.linear_gradient("L").rotate(90 * generator.randrange(4)).resize((width, height))
        for _ in range(3)
    ]
    noise = Image.frombytes("RGB", (width, height), generator.randbytes(3 * width * height))
    Image.blend(Image.merge("RGB", gradients), noise, 0.2).save(path, quality=90)
    return path


def num_pixels(photos: Sequence[Path]) -> int:
    """Pixels of all photos together."""
    from PIL import Image

    total = 0
    for path in photos:
        with Image.open(path) as image:
            total += image.width * image.height
    return total


def every_kth(photos: Sequence[Path], num_chosen: int) -> list[Path]:
    """Up to `num_chosen` photos, evenly spread."""
    step = max(1, len(photos) // num_chosen)
    return list(itertools.islice(photos, 0, None, step))[:num_chosen]


def measure_ours(
    folder: Path, model: Path, options: argparse.Namespace, *words: str
) -> list[float]:
    """Seconds that one process takes for the whole folder, one value per round."""
    command = peer.our_command(
        *("--model", model, "--output", folder / "ours", "--overwrite"),
        *("--device", options.device, *words, folder / "photos"),
    )
    return [peer.time_command(command) for _ in range(options.rounds)]


def measure_peer(
    folder: Path, model: Path, photos: Sequence[Path], options: argparse.Namespace
) -> list[float]:
    """Seconds that the peer's command takes, one value per photo."""
    files = {"model": model, "output": folder / "theirs.jpg"}
    return [
        peer.time_command(
            peer.peer_command(options.peer, photo=photo, device=options.device, **files)
        )
        for photo in photos
    ]


def show(label: str, num_photos: int, seconds: Sequence[float]) -> None:
    """Print one row of ours, with the median of the rounds."""
    median = statistics.median(seconds)
    row = peer.table_row(label, f"{num_photos}", f"{median:.1f}", f"{median / num_photos:.3g}")
    print(row, flush=True)


if __name__ == "__main__":
    main()
