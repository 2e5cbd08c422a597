"""Time of 3x3 convolutions by `winograd` and by torch, on the CPU: one layer, forward and backward.

    python benchmarks/convolutions.py                                # two minutes
    python benchmarks/convolutions.py --layers 1x128x64 4x512x8      # photos, channels, pixels

Layers have as many channels out as in and zero padding, in channels_last and float32. Backward goes
to the pixels, as in a frozen loss network. One process measures all, and keeps freed memory as our
commands do. The last column is the answer of `winograd.is_faster`, whose limits come from these
ratios.
"""

import time
from collections.abc import Callable, Mapping

import peer
import program
import torch
from torch import Tensor
from torch.nn import functional as F

from fast_style.cli.allocator import keep_freed_memory
from fast_style.cli.arguments import positive, thread_count
from fast_style.networks import winograd

Layer = tuple[int, int, int]


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the table."""
    parser = program.parser_of(__doc__)
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--threads", type=thread_count, default=2)
    layer = program.numbers_like("4x128x64")
    layers = "4x64x128 4x96x64 4x128x128 4x128x64 2x128x16 4x256x64 4x256x16 4x512x32 4x512x8"
    parser.add_argument(
        "--layers",
        type=layer,
        nargs="+",
        default=[layer(words) for words in layers.split()],
        metavar="PHOTOSxCHANNELSxPIXELS",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    assert keep_freed_memory()
    print(f"{peer.machine(threads=options.threads)}\n{options.rounds} rounds\n")
    print(peer.table_head("photos", "channels", "pixels", "forward", "backward", "used"))
    for count, channels, side in options.layers:
        print(row((count, channels, side), options.rounds), flush=True)


def row(layer: Layer, rounds: int) -> str:
    """The table's row of one layer."""
    count, channels, side = layer
    torch.manual_seed(0)
    pixels = torch.rand(count, channels, side, side).to(memory_format=torch.channels_last)
    kernel = torch.randn(channels, channels, 3, 3) / (9 * channels) ** 0.5
    leaf = pixels.clone().requires_grad_()
    results = {
        "winograd": winograd.convolve(leaf, kernel, padding=1),
        "torch": F.conv2d(leaf, kernel, padding=1),
    }
    grad = torch.rand_like(pixels)

    def backward(result: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(result, leaf, grad, retain_graph=True)

    forward = {
        "winograd": lambda: winograd.convolve(pixels, kernel, padding=1),
        "torch": lambda: F.conv2d(pixels, kernel, padding=1),
    }
    return peer.table_row(
        *map(str, (count, channels, f"{side} x {side}")),
        ratio(forward, rounds),
        ratio({name: backward(result) for name, result in results.items()}, rounds),
        "yes" if winograd.is_faster(pixels, kernel, padding=1) else "no",
    )


def ratio(sides: Mapping[str, Callable[[], object]], rounds: int) -> str:
    """Median ratio of torch's time to ours."""
    seconds = peer.interleave(
        {name: seconds_of(work) for name, work in sides.items()}, rounds=rounds
    )
    return str(peer.ratio_of(seconds["torch"], seconds["winograd"]))


def seconds_of(work: Callable[[], object]) -> Callable[[], float]:
    """A function that runs `work` once and returns the seconds."""

    def measure() -> float:
        begun_at = time.perf_counter()
        work()
        return time.perf_counter() - begun_at

    return measure


if __name__ == "__main__":
    main()
