"""A photo in bands against the same photo as a whole: memory, time, largest difference.

    python benchmarks/huge_photo.py                                   # half an hour, 16 GB
    python benchmarks/huge_photo.py --sides 1024 2048 --widths 16     # minutes, 2 GB

Both ways have the same random weights and the same square photo of noise. Memory is the peak above
what the process held with the decoded photo, in a fresh process for every figure. `on disk` is the
memory of bands when a file holds the features between sweeps; `estimate` is the stylizer's estimate
of it. Times are measured in one process, the whole and bands in turn: medians, and the median ratio
of neighbors. The difference is that of the unrounded pixels. Linux and the CPU only.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from importlib.metadata import version
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import program
from memory import resident_bytes, untrained_stylizer

from fast_style.cli.allocator import keep_freed_memory
from fast_style.cli.arguments import positive, thread_count
from fast_style.core.errors import UserError

# torch is imported only in child processes: a child's peak starts at its parent's.
if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from fast_style.stylizing.stylizer import Stylizer

Way = Literal["whole", "memory", "disk"]


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the table."""
    parser = program.parser_of(__doc__)
    parser.add_argument("--sides", type=positive, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--widths", type=program.net_width, nargs="+", default=[32])
    parser.add_argument("--upsampling", choices=("resize", "transposed"), default="resize")
    parser.add_argument(
        "--rounds", type=positive, default=3, help="how often each side is timed (3)"
    )
    parser.add_argument("--threads", type=thread_count, help="of torch (default: its own choice)")
    parser.add_argument(
        "--keep-freed-memory", action="store_true", help="as the commands do (cli/allocator.py)"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        task = json.loads(options.child)
        print(json.dumps(peak(**task) if "way" in task else times(**task)))
        return
    print(f"{platform.machine()}, torch {version('torch')}, {options.upsampling} up-sampling\n")
    print(
        "| photo | width | memory: whole | bands | ratio | on disk | estimate "
        "| time: whole | bands | ratio | largest difference, of 255 |"
    )
    print("| --- " * 11 + "|")
    for side, width in product(options.sides, options.widths):
        print(row(side, width, options), flush=True)


def row(side: int, width: int, options: argparse.Namespace) -> str:
    """One size and width."""
    task = {"side": side, "width": width}
    task |= {"upsampling": options.upsampling, "threads": options.threads}
    task |= {"keep": options.keep_freed_memory}
    whole = in_child(task | {"way": "whole"})["peak_bytes"]
    bands = in_child(task | {"way": "memory"})["peak_bytes"]
    on_disk = in_child(task | {"way": "disk"})
    timed = in_child(task | {"rounds": options.rounds})
    cells = [
        f"{side} x {side}",
        str(width),
        f"{whole / 1e6:,.0f} MB",
        f"{bands / 1e6:,.0f} MB",
        f"{bands / whole:.2f}",
        f"{on_disk['peak_bytes'] / 1e6:,.0f} MB",
        f"{on_disk['estimate_bytes'] / 1e6:,.0f} MB",
        f"{timed['whole_s']:.1f} s",
        f"{timed['bands_s']:.1f} s",
        f"{timed['ratio']:.2f}",
        f"{255 * timed['difference']:.1e}",
    ]
    return f"| {' | '.join(cells)} |"


def in_child(task: dict[str, Any]) -> Any:
    """The result of a measurement in a process of its own."""
    return json.loads(program.output_of([sys.executable, __file__, "--child", json.dumps(task)]))


def peak(
    *, side: int, width: int, upsampling: str, threads: int | None, keep: bool, way: Way
) -> dict[str, float]:
    """Bytes that stylizing one photo adds to what this process holds, and the estimate."""
    stylizer, photo = prepared(side, width, upsampling, threads, keep=keep)
    # Libraries allocate their own buffers once, at the first photo, whatever its size.
    stylize(stylizer, photo.resize((32, 32)), way)
    before = resident_bytes()
    estimate = stylize(stylizer, photo, way)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"peak_bytes": peak_bytes, "estimate_bytes": estimate}


def stylize(stylizer: "Stylizer", photo: "Image.Image", way: Way) -> int:
    """Make the 8-bit picture, as `Stylizer` does with more or less memory; gives the estimate."""
    from fast_style.networks.streaming import storage_bytes
    from fast_style.stylizing.memory import (
        Bands,
        PhotoSize,
        bands_bytes,
        scratch_folder,
        whole_bytes,
    )

    execution = stylizer._net_setup
    if way == "whole":
        stylizer._paint_whole(photo, 0)
        return whole_bytes(photo.height, photo.width, execution)
    rows = band_rows(stylizer, photo)
    storage = stylizer.device if way == "memory" else scratch_folder()
    stylizer._paint_in_bands(photo, 0, Bands(rows, storage), None)
    estimate = bands_bytes(PhotoSize(photo.height, photo.width), execution, band_rows=rows)
    if way == "memory":
        estimate += storage_bytes(photo.height, photo.width, net_width=execution.net_width)
    return estimate


def band_rows(stylizer: "Stylizer", photo: "Image.Image") -> int:
    """The height of bands when there is memory enough for the best."""
    from fast_style.stylizing.memory import Bands, Budget, PhotoSize, plan_photo, scratch_folder

    # Nothing for the photo as a whole, plenty for bands.
    budget = Budget(
        device_bytes=0,
        main_bytes=1e15,
        disk_bytes=0,
        scratch_folder=scratch_folder(),
        includes_photo=False,
    )
    bands = plan_photo(PhotoSize(photo.height, photo.width), stylizer._net_setup, budget)
    assert isinstance(bands, Bands)
    return bands.rows


def times(
    *, side: int, width: int, upsampling: str, threads: int | None, keep: bool, rounds: int
) -> dict[str, float]:
    """Seconds of both ways, in turn, and the largest difference of their pixels."""
    stylizer, photo = prepared(side, width, upsampling, threads, keep=keep)
    rows = band_rows(stylizer, photo)
    seconds: dict[str, list[float]] = {"whole": [], "bands": []}
    difference = 0.0
    for _ in range(rounds):
        start = time.perf_counter()
        whole = as_a_whole(stylizer, photo)
        between = time.perf_counter()
        difference = max(difference, difference_in_bands(stylizer, photo, rows, whole))
        seconds["whole"].append(between - start)
        seconds["bands"].append(time.perf_counter() - between)
        del whole  # before the next one needs its memory
    ratios = [bands / whole for whole, bands in zip(*seconds.values(), strict=True)]
    return {
        "whole_s": statistics.median(seconds["whole"]),
        "bands_s": statistics.median(seconds["bands"]),
        "ratio": statistics.median(ratios),
        "difference": difference,
    }


def as_a_whole(stylizer: "Stylizer", photo: "Image.Image") -> "Tensor":
    """The picture in one pass: (3, H, W)."""
    from fast_style.pictures.pixels import image_to_tensor

    return stylizer._forward(image_to_tensor(photo).float().div_(255)[None])[0]


def difference_in_bands(
    stylizer: "Stylizer", photo: "Image.Image", rows: int, whole: "Tensor"
) -> float:
    """The largest difference between the picture in bands and the whole one."""
    from fast_style.networks.streaming import Band, stylize_in_bands

    differences = []

    def compare(band: Band) -> None:
        _, height, width = band.pixels.shape
        same = whole[:, band.top : band.top + height, band.left : band.left + width]
        differences.append(float((band.pixels.clamp(0, 1) - same).abs().max()))

    net, storage = stylizer._net.net, stylizer.device
    for _ in stylize_in_bands(net, photo, compare, band_rows=rows, storage=storage):
        pass
    return max(differences)


def prepared(
    side: int, width: int, upsampling: str, threads: int | None, *, keep: bool
) -> tuple["Stylizer", "Image.Image"]:
    """The model and the photo."""
    if keep and not keep_freed_memory():
        raise UserError("--keep-freed-memory: only with glibc; leave it out")
    import torch
    from PIL import Image

    torch.manual_seed(0)
    if threads is not None:
        torch.set_num_threads(threads)
    photo = Image.effect_noise((side, side), 64).convert("RGB")
    return untrained_stylizer(width=width, upsampling=upsampling), photo


if __name__ == "__main__":
    main()
