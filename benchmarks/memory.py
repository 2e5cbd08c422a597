"""Peak memory of stylizing one photo on a CPU, per pixel, and the line through it.

    python benchmarks/memory.py                                # one to three minutes, 2 GB
    python benchmarks/memory.py --sides 256 512 --widths 8     # smaller

From the decoded photo to the finished 8-bit picture. Every row is a fresh process: memory that one
forward pass leaves behind would hide the peak of the next. The stylizer's estimate of which photos
fit as a whole rests on these numbers (`docs/performance.md`). `benchmarks/huge_photo.py` measures
the others. Linux only.
"""

import argparse
import json
import platform
import resource
import sys
import tempfile
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import peer
import program

from fast_style.cli.allocator import keep_freed_memory
from fast_style.cli.arguments import positive
from fast_style.core.errors import UserError

if TYPE_CHECKING:
    from fast_style.stylizing.stylizer import Stylizer

# torch is imported only in child processes: a child's peak starts at its parent's.


class Measurement(NamedTuple):
    """The peak of one photo, `side` pixels square, above what the process held before."""

    side: int
    width: int
    peak_bytes: int

    @property
    def bytes_per_pixel(self) -> float:
        """Bytes per pixel, which the estimate has to cover."""
        return self.peak_bytes / self.side**2


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the table and the line."""
    parser = program.parser_of(__doc__)
    parser.add_argument("--sides", type=positive, nargs="+", default=[256, 512, 1024, 1536])
    parser.add_argument("--widths", type=program.net_width, nargs="+", default=[8, 16, 32])
    parser.add_argument("--upsampling", choices=("resize", "transposed"), default="resize")
    parser.add_argument(
        "--keep-freed-memory", action="store_true", help="as the commands do (cli/allocator.py)"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(measure_in_this_process(**json.loads(options.child)))
        return
    print(f"{platform.machine()}, torch {version('torch')}, {options.upsampling} up-sampling\n")
    print("| photo | width | peak | bytes per pixel |")
    print("| --- | --- | --- | --- |")
    measurements = []
    for side, width in product(options.sides, options.widths):
        row = measure(side, width, upsampling=options.upsampling, keep=options.keep_freed_memory)
        megabytes = row.peak_bytes / 1e6
        print(
            f"| {side} x {side} | {width} | {megabytes:,.0f} MB | {row.bytes_per_pixel:.0f} |",
            flush=True,
        )
        measurements.append(row)
    if len(set(options.widths)) > 1:
        constant, slope = fit(measurements)
        print(f"\nbytes = pixels * ({constant:.0f} + {slope:.1f} * width)")


def measure(side: int, width: int, *, upsampling: str, keep: bool) -> Measurement:
    """The peak of one photo, in a process of its own."""
    task = json.dumps({"side": side, "width": width, "upsampling": upsampling, "keep": keep})
    output = program.output_of([sys.executable, __file__, "--child", task])
    return Measurement(side, width, int(output))


def measure_in_this_process(*, side: int, width: int, upsampling: str, keep: bool) -> int:
    """Bytes that stylizing one photo adds to this process's memory."""
    if keep and not keep_freed_memory():
        raise UserError("--keep-freed-memory: only with glibc; leave it out")
    from PIL import Image

    from fast_style.pictures.reading import Picture

    stylizer = untrained_stylizer(width=width, upsampling=upsampling)
    # Libraries allocate their own buffers once, at the first photo, whatever its size.
    stylizer.stylize_picture(Picture(Image.effect_noise((32, 32), 64).convert("RGB"), None))
    photo = Image.effect_noise((side, side), 64).convert("RGB")
    before = resident_bytes()
    stylizer.stylize_picture(Picture(photo, None))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def untrained_stylizer(*, width: int, upsampling: str, strokes: int = 0) -> "Stylizer":
    """A model with random weights, on the CPU; `strokes` as those of `Stylizer`."""
    from fast_style.stylizing.stylizer import Stylizer

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.safetensors")
        peer.write_model(model, width=width, upsampling=upsampling)
        return Stylizer(model, device="cpu", strokes=strokes)


def resident_bytes() -> int:
    """Bytes that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def fit(measurements: list[Measurement]) -> tuple[float, float]:
    """(a, b) of bytes per pixel = a + b * width, by least squares."""
    count = len(measurements)
    mean_width = sum(row.width for row in measurements) / count
    mean_bytes = sum(row.bytes_per_pixel for row in measurements) / count
    covariance = sum((row.width - mean_width) * row.bytes_per_pixel for row in measurements)
    slope = covariance / sum((row.width - mean_width) ** 2 for row in measurements)
    return mean_bytes - slope * mean_width, slope


if __name__ == "__main__":
    main()
