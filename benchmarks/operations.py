"""Count the arithmetic of a training step and of a stylized photo.

    python benchmarks/operations.py
    python benchmarks/operations.py --size 128 --widths 16 32

torch's own counter counts multiplications, each with an addition, of convolutions and Gram
matrices. Every convolution counts in full, though `winograd` saves three quarters of some on a CPU.
docs/scaling.md draws the conclusions.
"""

from collections.abc import Callable
from functools import partial

import peer
import program
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fast_style.cli.arguments import positive
from fast_style.losses.loss_network import LossNetwork, load_weights
from fast_style.losses.perceptual import gram_matrix
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.transform_net import TransformNet
from fast_style.settings.sections import LossConfig

LEAST_SIZE = 8  # which three poolings before relu4_3 make one pixel
CONTENT, STYLE = [*LossConfig().content_layers], [*LossConfig().style_layers]
NETWORKS = {f"VGG-16 to {STYLE[-1]}": "random", "the compact network": "compact"}


@program.errors_in_one_line()
def main() -> None:
    """Count, and print the tables."""
    parser = program.parser_of(__doc__)
    parser.add_argument(
        "--size",
        type=partial(positive, least=LEAST_SIZE),
        default=256,
        help=f"pixels of the crops' sides, from {LEAST_SIZE} (256)",
    )
    parser.add_argument("--widths", type=program.net_width, nargs="+", default=[16, 32, 48])
    options = parser.parse_args()
    photo = torch.rand(1, 3, options.size, options.size)
    print(f"Billions (10^9) for one photo of {options.size} x {options.size}\n")
    print(peer.table_head("transform network", "forward", "forward, fast", "in a step, fast"))
    for width in options.widths:
        print(peer.table_row(f"width {width}", *transform_counts(width, photo)))
    print()
    print(peer.table_head("loss network", "φ(x)", "φ(y), forward", "in a step, with Gram matrices"))
    for name, weights in NETWORKS.items():
        print(peer.table_row(name, *loss_counts(weights, photo)))


def transform_counts(width: int, photo: Tensor) -> list[str]:
    """Counts of a transform network: forward, plain and fast, and in a training step."""
    net = TransformNet(width=width)
    fast = FastTransform(net)
    step = count(lambda: fast(photo).sum().backward())
    return [*map(shown, (count(lambda: net(photo)), count(lambda: fast(photo)), step))]


def loss_counts(weights: str, photo: Tensor) -> list[str]:
    """Counts of a loss network: for the content target, for the result, and in a training step."""
    loss_network = LossNetwork("vgg16", load_weights(weights, "vgg16", STYLE[-1]))
    result = photo.clone().requires_grad_()
    target = count(lambda: loss_network(photo, CONTENT))
    forward = count(lambda: loss_network(photo, STYLE))
    step = target + count(lambda: grams(loss_network, result).backward())
    return [*map(shown, (target, forward, step))]


def grams(loss_network: LossNetwork, pictures: Tensor) -> Tensor:
    """All Gram matrices of the style term, summed to one number."""
    features = loss_network(pictures, STYLE)
    return sum((gram_matrix(features[layer]).sum() for layer in STYLE), start=torch.zeros(()))


def count(work: Callable[[], object]) -> int:
    """The number of multiplications, each with an addition."""
    with FlopCounterMode(display=False) as counter:
        work()
    total: int = counter.get_total_flops() // 2
    return total


def shown(operations: int) -> str:
    """A count in billions, for a table."""
    return f"{operations / 1e9:.2f}"


if __name__ == "__main__":
    main()
