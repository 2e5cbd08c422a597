"""A folder of photos: one process of ours beside one process of the peer for each photo.

    python benchmarks/folder.py                                   # ours alone: some minutes
    python benchmarks/folder.py --peer ../examples                # the peer on every photo: long
    python benchmarks/folder.py --peer ../examples --peer-count 10   # on every tenth one
    python benchmarks/folder.py --photos holiday/ --count 20 --peer ../examples
    python benchmarks/folder.py --peer ../examples --peer-count 10 --device cuda --compile

The peer's command takes one photo, so a folder is a loop over it. With ``--peer-count`` it stylizes
every k-th photo only. The ratio compares seconds per photo: the median of the peer's commands, and
ours over the whole folder. No time is extrapolated. Photos are noise over gradients, from a seed,
of several sizes, upright and wide; or copies of your own. ``--compile`` adds a row of ours with
that option: its first round compiles, and the others use torch's cache of compiled code.
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

SIZES = ((320, 240), (480, 360), (512, 512), (640, 427), (640, 480))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="photos (100)")
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="FOLDER",
        help="a folder to take photos from (default: drawn ones)",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the drawn photos' sides (1)")
    parser.add_argument("--rounds", type=int, default=1, help="of our process (1)")
    parser.add_argument(
        "--peer-count", type=int, metavar="N", help="photos that the peer does (all)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
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
    """Write the photos of a benchmark into a folder of their own."""
    folder.mkdir()
    if options.photos is None:
        return [
            draw_photo(folder / f"{number:03}.jpg", number, options.scale)
            for number in range(options.count)
        ]
    from fast_style.pictures.folders import find_pictures

    found = [
        path
        for path in find_pictures(options.photos)
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")  # what the peer takes without trouble
    ]
    return [
        Path(shutil.copy(path, folder / f"{number:03}{path.suffix}"))
        for number, path in enumerate(found[: options.count])
    ]


def draw_photo(path: Path, number: int, scale: float) -> Path:
    """Noise over gradients; every number gives another picture."""
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
    """Total number of pixels of all photos."""
    from PIL import Image

    total = 0
    for path in photos:
        with Image.open(path) as image:
            total += image.width * image.height
    return total


def every_kth(photos: Sequence[Path], count: int) -> list[Path]:
    """About `count` photos, evenly spread."""
    step = max(1, len(photos) // count)
    return list(itertools.islice(photos, 0, None, step))[:count]


def measure_ours(
    folder: Path, model: Path, options: argparse.Namespace, *words: str
) -> list[float]:
    """Seconds of one process for the whole folder, in every round."""
    command = peer.our_command(
        *("--model", model, "--output", folder / "ours", "--overwrite"),
        *("--device", options.device, *words, folder / "photos"),
    )
    return [peer.time_command(command) for _ in range(options.rounds)]


def measure_peer(
    folder: Path, model: Path, photos: Sequence[Path], options: argparse.Namespace
) -> list[float]:
    """Seconds of the peer's command for each photo."""
    files = {"model": model, "output": folder / "theirs.jpg"}
    return [
        peer.time_command(
            peer.peer_command(options.peer, photo=photo, device=options.device, **files)
        )
        for photo in photos
    ]


def show(what: str, count: int, seconds: Sequence[float]) -> None:
    """Print one row of ours."""
    median = statistics.median(seconds)
    row = peer.table_row(what, f"{count}", f"{median:.1f}", f"{median / count:.3g}")
    print(row, flush=True)


if __name__ == "__main__":
    main()
