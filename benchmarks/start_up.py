"""Time of whole commands: import, --help, a mistake of usage, one photo; and of the peer's command.

    python benchmarks/start_up.py                                 # about a minute
    python benchmarks/start_up.py --peer ../examples              # a checkout of pytorch/examples
    OMP_NUM_THREADS=1 python benchmarks/start_up.py --peer ../examples --rounds 9

Each is a process of its own, as people start it, with all files in the system's cache. `import
torch` alone is the least that a command that computes can take. The peer does the same work;
`benchmarks/peer.py` says what differs.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import peer
import program

from fast_style.cli.arguments import positive

PACKAGE = "import fast_style"
HELP = "stylize.py --help"
MISTAKE = "a photo that is not there"
TORCH = "import torch"
OURS = "stylize.py"
THEIRS = "neural_style.py eval"


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the table."""
    parser = program.parser_of(__doc__)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--side", type=positive, default=512, help="of the photo, in pixels (512)")
    peer.add_peer(parser)
    options = parser.parse_args()
    print(peer.machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), options)
    print(f"one photo of {options.side} x {options.side} pixels, {options.rounds} rounds\n")
    print(peer.table_head("command", "seconds, median (and extremes)"))
    for name, values in seconds.items():
        print(peer.table_row(name, peer.shown_seconds(values)))
    over_torch = peer.ratio_of(seconds[OURS], seconds[TORCH])
    print(f"\n{OURS} takes {over_torch} times as long as {TORCH}")
    if THEIRS in seconds:
        print(f"{OURS} is {peer.ratio_of(seconds[THEIRS], seconds[OURS])} as fast as {peer.NAME}")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every command in every round."""
    from PIL import Image

    model, peer_model = peer.write_models(folder)
    photo, output = folder / "photo.jpg", folder / "result.jpg"
    Image.effect_noise((options.side, options.side), 64).convert("RGB").save(photo)
    one_photo = ("--model", model, "--output", output, "--overwrite", "--device", "cpu")
    sides = {
        PACKAGE: partial(peer.time_command, [sys.executable, "-c", "import fast_style"]),
        HELP: partial(peer.time_command, peer.our_command("--help")),
        MISTAKE: partial(
            peer.time_command, peer.our_command("--model", model, "none.jpg"), exit_code=2
        ),
        TORCH: partial(peer.time_command, [sys.executable, "-c", "import torch"]),
        OURS: partial(peer.time_command, peer.our_command(*one_photo, photo)),
    }
    if options.peer is not None:
        command = peer.peer_command(options.peer, model=peer_model, photo=photo, output=output)
        sides[THEIRS] = partial(peer.time_command, command)
    # One round is for trying the command out.
    return peer.interleave(sides, rounds=options.rounds, warm_up=options.rounds > 1)


if __name__ == "__main__":
    main()
