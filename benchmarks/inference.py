"""Time of the transform network alone: our fast execution, the plain one, and the peer's.

    python benchmarks/inference.py                                # two minutes
    python benchmarks/inference.py --peer ../examples --threads 2

    python benchmarks/inference.py --peer ../examples --device cuda --sides 512 1024 2048 4096

One photo, float32 (on a GPU with TF32 convolutions, torch's default), eager. Each side is a process
of its own. On the CPU, ours keeps freed memory as our commands do, and is also measured without
that. `--compile` adds the fast execution, compiled by torch for that one size.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import peer
import program

from fast_style.cli.arguments import positive, thread_count

if TYPE_CHECKING:
    from torch import nn

FAST, COMPILED = "fast", "fast, compiled"
SYSTEM, PLAIN = "fast, system's allocator", "plain"
# Another project, whose network is ours with the paper's transposed up-sampling.
RRMINA, TRANSPOSED = "rrmina/fast-neural-style-pytorch", "fast, transposed"


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the table."""
    parser = program.parser_of(__doc__)
    parser.add_argument(
        "--sides", type=positive, nargs="+", default=[256, 512, 1024], metavar="PIXELS"
    )
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--threads", type=thread_count, default=2)
    program.add_device(parser)
    parser.add_argument(
        "--compile", action="store_true", help="also measure it compiled: a minute per size"
    )
    peer.add_peer(parser)
    parser.add_argument(
        "--rrmina", type=rrmina_folder, metavar="PATH", help=f"a checkout of {RRMINA}"
    )
    options = parser.parse_args()
    print(peer.machine(threads=options.threads, device=options.device), flush=True)
    allocators = [SYSTEM] if options.device == "cpu" else []
    pairs = compared(options)
    executions = list(
        dict.fromkeys([FAST, *allocators, *(name for pair in pairs for name in pair)])
    )
    titles = [f"{ours} against {theirs}" for ours, theirs in pairs]
    print(f"{options.rounds} rounds\n")
    print(peer.table_head("photo", *(f"{name}, seconds" for name in executions), *titles))
    for side in options.sides:
        print(row(side, executions, options), flush=True)


def rrmina_folder(text: str) -> Path:
    """The folder of a checkout of that project."""
    if not Path(text, "transformer.py").is_file():
        raise argparse.ArgumentTypeError(f"{text}: no checkout of {RRMINA}")
    return Path(text)


def compared(options: argparse.Namespace) -> list[tuple[str, str]]:
    """An execution of ours, and what it is compared with."""
    return [
        *([(FAST, COMPILED)] if options.compile else []),
        (FAST, PLAIN),
        *([(FAST, peer.NAME)] if options.peer else []),
        *([(TRANSPOSED, RRMINA)] if options.rrmina else []),
    ]


def row(side: int, executions: list[str], options: argparse.Namespace) -> str:
    """Measure one size."""
    folders = {peer.NAME: options.peer, RRMINA: options.rrmina}
    workers = {
        name: peer.Worker(
            build_forward, name, side, options.threads, options.device, folders.get(name)
        )
        for name in executions
    }
    seconds = peer.interleave(
        {name: worker.measure for name, worker in workers.items()}, rounds=options.rounds
    )
    for worker in workers.values():
        worker.close()
    return peer.table_row(
        f"{side} x {side}",
        *map(peer.shown_seconds, seconds.values()),
        *(str(peer.ratio_of(seconds[theirs], seconds[ours])) for ours, theirs in compared(options)),
    )


def build_forward(
    name: str, side: int, threads: int, device: str, folder: Path | None
) -> Callable[[], None]:
    """In a worker: one forward pass of this execution, ready to be called."""
    import torch

    from fast_style.cli.allocator import keep_freed_memory
    from fast_style.networks.fast_transform import FastTransform
    from fast_style.networks.transform_net import TransformNet, memory_format_for

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net: nn.Module = TransformNet(upsampling="transposed" if name == TRANSPOSED else "resize")
    photos = torch.rand(1, 3, side, side, device=device)
    if name == RRMINA:
        assert folder is not None
        net, photos = peer.peer_module(folder, "transformer").TransformerNetwork(), 255 * photos
    elif name == peer.NAME:
        assert folder is not None
        theirs = peer.peer_module(folder, "transformer_net").TransformerNet()
        theirs.load_state_dict(peer.peer_weights(net))
        net, photos = theirs.eval(), 255 * photos
    else:
        photos = photos.to(memory_format=memory_format_for(photos.device))
        net = net.to(memory_format=memory_format_for(photos.device))
        net = net if name == PLAIN else FastTransform(net)
    if name in (FAST, COMPILED, TRANSPOSED):
        assert keep_freed_memory() or device == "cuda"
    net = net.to(device)
    if name == COMPILED:
        net = torch.compile(net, fullgraph=True, dynamic=False)  # as a whole, or an error

    def forward() -> None:
        with torch.no_grad():
            net(photos)
        if device == "cuda":
            torch.cuda.synchronize()

    return forward


if __name__ == "__main__":
    main()
