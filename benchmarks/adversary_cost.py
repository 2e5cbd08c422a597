"""What the discriminator of `loss.adversarial_weight` costs in a training step.

    python benchmarks/adversary_cost.py

Times are ratios to a step without it, in pairs that alternate, with the settings of
configs/laptop.yaml: the median over the pairs, and their quartiles.
"""

from collections.abc import Callable
from pathlib import Path

import program
import torch
from steadiness_cost import ratio

from fast_style.losses.loss_network import LossNetwork, load_weights
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.transform_net import TransformNet
from fast_style.settings.config import TERMS_OF_TRAINING, Config, load_config
from fast_style.settings.layers import layers_judged
from fast_style.training.adversary import Adversary
from fast_style.training.stability import EVERY, draw_changes
from fast_style.training.step import TrainingStep

LAPTOP = Path(__file__).resolve().parents[1] / "configs" / "laptop.yaml"
CPU = torch.device("cpu")


@program.errors_in_one_line()
def main() -> None:
    """Print the ratio of training steps."""
    program.parser_of(__doc__).parse_args()
    config = load_config(LAPTOP)
    steps = [step_of(config, is_judged=is_judged) for is_judged in (True, False)]
    print(
        f"steps of {config.train.batch_size} crops of {config.data.crop_size} pixels, width "
        f"{config.model.width}, {config.loss_network.weights}: {ratio(*steps)}"
    )


def step_of(config: Config, *, is_judged: bool) -> Callable[[], object]:
    """Takes as many training steps as have one copy for the stability term."""
    torch.manual_seed(0)
    batch_size, side = config.train.batch_size, config.data.crop_size
    net = TransformNet(**config.model.model_dump()).to(memory_format=torch.channels_last)
    weights = load_weights(config.loss_network.weights, "vgg16", "relu4_3", seed=0)
    loss_network = LossNetwork("vgg16", weights).to(memory_format=torch.channels_last)
    style = torch.rand(1, 3, config.style.size, config.style.size)
    loss = PerceptualLoss(
        loss_network,
        style,
        kept_layers=layers_judged(config.loss.style_layers) if is_judged else (),
        **config.loss.model_dump(exclude=set(TERMS_OF_TRAINING)),
    )
    adversary = Adversary(loss, style, weight=0.1, seed=0) if is_judged else None
    step = TrainingStep(
        FastTransform(net),
        loss,
        stability_weight=config.loss.stability_weight,
        adversary=adversary,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        precision=None,
        batch_size=batch_size,
    )
    photos = torch.rand(batch_size, 3, side, side).contiguous(memory_format=torch.channels_last)
    noise = config.loss.stability_noise / 255

    def take() -> None:
        for first in range(0, EVERY, batch_size):
            samples = range(first, first + batch_size)
            changes = draw_changes(1, samples, side, CPU, noise=noise)
            step(photos, changes, adversary.inputs(999, samples, side) if adversary else None)
            if adversary:
                adversary.update()

    return take


if __name__ == "__main__":
    main()
