"""Finding the photos of a huge folder: seconds until all are found, and until the first line.

    python benchmarks/scanning.py                  # 100,000 photos: half a minute
    python benchmarks/scanning.py --count 1000000

A thousand photos lie in each folder, all of them names of one small JPEG. The first row is what
`stylize --output` does before its first photo: it finds them, and checks what it would replace. The
second is what `train` does.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import peer
import program
from PIL import Image

from fast_style.cli.arguments import positive
from fast_style.pictures.folders import Photos, find_photos
from fast_style.stylizing.jobs import OutputOptions, plan_jobs

PER_FOLDER = 1000


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the table."""
    parser = program.parser_of(__doc__)
    parser.add_argument(
        "--count", type=positive, default=100_000, help="number of photos (100,000)"
    )
    parser.add_argument("--rounds", type=positive, default=3)
    options = parser.parse_args()
    print(peer.machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        photos, output = Path(name, "photos"), Path(name, "output")
        make_photos(photos, options.count)
        print(f"{options.count:,} photos in {-(-options.count // PER_FOLDER):,} folders\n")
        print(peer.table_head("what", "seconds", "seconds until the first line"))
        measure(
            "stylize --output",
            lambda tell: len(plan_jobs([photos], OutputOptions(output), tell=tell).jobs),
            options,
        )
        measure("train", lambda tell: num_photos(find_photos(photos, tell=tell)), options)


def num_photos(found: Photos) -> int:
    """How many photos training found, those that it holds out among them."""
    return len(found.training) + len(found.validation)


def make_photos(folder: Path, count: int) -> None:
    """Make a folder of so many photos; those of a folder in it are one file of many names."""
    for number in range(count):
        parent, index = folder / str(number // PER_FOLDER), number % PER_FOLDER
        if index == 0:
            parent.mkdir(parents=True)
            Image.new("RGB", (16, 16), "gray").save(parent / "0.jpg")
        else:
            os.link(parent / "0.jpg", parent / f"{index}.jpg")


def measure(
    what: str, find: Callable[[Callable[[str], None]], int], options: argparse.Namespace
) -> None:
    """Print the medians of the seconds that finding all photos takes."""
    seconds, until_line = [], []
    for _ in range(options.rounds):
        lines: list[float] = []
        start = time.perf_counter()
        found = find(lambda line, at=lines: at.append(time.perf_counter()))  # type: ignore[misc]
        seconds.append(time.perf_counter() - start)
        assert found == options.count, found
        until_line.append(lines[0] - start if lines else None)
    told = [value for value in until_line if value is not None]
    first = f"{statistics.median(told):.2f}" if len(told) == len(until_line) else "ended before"
    print(peer.table_row(what, f"{statistics.median(seconds):.2f}", first))


if __name__ == "__main__":
    main()
