"""What steady pictures cost: the filters around changes of size, and the stability term.

    python benchmarks/steadiness_cost.py

Times are ratios to a network without filters, and to a step without filters and term, in pairs that
alternate: the median over the pairs, and their quartiles.
"""

import statistics
import time
from collections.abc import Callable

import program
import torch

from fast_style.losses.loss_network import LossNetwork, load_weights
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.transform_net import TransformNet
from fast_style.training.stability import EVERY, draw_changes
from fast_style.training.step import TrainingStep

NUM_PAIRS = 15
SIDE, CROP, BATCH_SIZE = 512, 160, 2  # crops and batches are those of configs/laptop.yaml
CPU = torch.device("cpu")


@program.errors_in_one_line()
def main() -> None:
    """Print the ratios of pictures and of training steps."""
    program.parser_of(__doc__).parse_args()
    for width in (16, 32):
        pictures = [picture_of(width, antialiased=antialiased) for antialiased in (True, False)]
        print(f"a picture of {SIDE} x {SIDE} pixels, width {width}: {ratio(*pictures)}")
    steps = [step_of(antialiased=antialiased) for antialiased in (True, False)]
    print(f"steps of {BATCH_SIZE} crops of {CROP} pixels, width 16, compact: {ratio(*steps)}")


def network(width: int, *, antialiased: bool) -> FastTransform:
    """A network with seeded weights."""
    torch.manual_seed(0)
    net = TransformNet(width=width, antialiased=antialiased)
    return FastTransform(net.to(memory_format=torch.channels_last))


def picture_of(width: int, *, antialiased: bool) -> Callable[[], object]:
    """Stylizes one photo."""
    net = network(width, antialiased=antialiased)
    photo = torch.rand(1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def stylize() -> object:
        return net(photo)

    return stylize


def step_of(*, antialiased: bool) -> Callable[[], object]:
    """Takes a training step; with filters, also with the stability term."""
    layers = dict.fromkeys(["relu1_2", "relu2_2", "relu3_3", "relu4_3"], 1.0)
    weights = load_weights("compact", "vgg16", "relu4_3", seed=0)
    loss_network = LossNetwork("vgg16", weights).to(memory_format=torch.channels_last)
    style = torch.rand(1, 3, 256, 256)
    loss = PerceptualLoss(loss_network, style, content_layers={"relu3_3": 1.0}, style_layers=layers)
    step = TrainingStep(
        network(16, antialiased=antialiased),
        loss,
        stability_weight=20.0,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        precision=None,
        batch_size=BATCH_SIZE,
    )
    photos = torch.rand(BATCH_SIZE, 3, CROP, CROP).contiguous(memory_format=torch.channels_last)
    # So many that one of them has a copy.
    batches = [range(first, first + BATCH_SIZE) for first in range(0, EVERY, BATCH_SIZE)]

    def take() -> object:
        return [
            step(
                photos, draw_changes(1, samples, CROP, CPU, noise=3 / 255) if antialiased else None
            )
            for samples in batches
        ]

    return take


def ratio(ours: Callable[[], object], other: Callable[[], object]) -> str:
    """The time of `ours`, divided by that of `other`."""
    ratios = []
    for number in range(NUM_PAIRS + 2):
        seconds = []
        for work in (ours, other):
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
        if number >= 2:  # the first ones warm up
            ratios.append(seconds[0] / seconds[1])
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return f"x{median:.2f} ({lower:.2f} to {upper:.2f})"


if __name__ == "__main__":
    main()
