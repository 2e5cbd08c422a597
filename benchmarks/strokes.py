"""What larger strokes cost: photos painted coarse to fine, against one pass (`--strokes 0`).

    python benchmarks/strokes.py
    python benchmarks/strokes.py --sides 1024 --strokes 512

Photos are of noise, in the shape of a phone's (4:3). Times are ratios of whole calls of `Stylizer`,
in pairs that alternate: the median over the pairs, with the extremes in brackets.
"""

import time

import peer
import program
import torch
from memory import untrained_stylizer
from PIL import Image

from fast_style.cli.allocator import keep_freed_memory
from fast_style.cli.arguments import positive, thread_count
from fast_style.cli.painting import strokes_side
from fast_style.stylizing.copies import DEFAULT_STROKES, copy_sides


@program.errors_in_one_line()
def main() -> None:
    """Measure, and print the table."""
    parser = program.parser_of(__doc__)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--threads", type=thread_count, default=2)
    parser.add_argument("--width", type=program.net_width, default=16)
    parser.add_argument("--strokes", type=strokes_side, default=DEFAULT_STROKES)
    parser.add_argument("--sides", type=positive, nargs="+", default=[2304, 3072, 4032])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    assert keep_freed_memory()
    print(f"{peer.machine(threads=options.threads)}\n{options.rounds} rounds\n")
    print(peer.table_head("photo", "copies", "against one pass"))
    several, once = (
        untrained_stylizer(width=options.width, upsampling="resize", strokes=strokes)
        for strokes in (options.strokes, 0)
    )
    for side in options.sides:
        photo = Image.effect_noise((side, side * 3 // 4), 64).convert("RGB")
        seconds: dict[object, list[float]] = {several: [], once: []}
        for number in range(options.rounds + 1):
            for stylizer, times in seconds.items():
                begin = time.perf_counter()
                stylizer(photo)
                if number > 0:  # the first ones warm up
                    times.append(time.perf_counter() - begin)
        copies = ", ".join(map(str, copy_sides(side, options.strokes)))
        ratio = peer.ratio_of(seconds[several], seconds[once])
        print(peer.table_row(f"{side} x {side * 3 // 4}", copies, str(ratio)))


if __name__ == "__main__":
    main()
