"""A discriminator: tells features of the network's pictures from those of the style picture.

Li and Wand 2016, *Precomputed Real-Time Texture Synthesis with Markovian Generative Adversarial
Networks*: it judges each place of a feature map by its surroundings, so it learns what gives the
pictures away. Statistics that are fixed before the training, as Gram matrices, cannot.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

SMALLEST_PICTURE = 32
"""Pixels of the shorter side from which on feature maps have room for the kernels."""

_CHANNELS = 32
_SLOPE = 0.2
# The least deviation of a channel: this share of the mean one, for channels that the style picture
# hardly uses; and this share of the features' size, for a style picture of nearly one color.
_LEAST_DEVIATION_SHARE, _LEAST_SHARE_OF_SIZE = 0.1, 0.03

Features = Mapping[str, Tensor]
"""By layer, (N, C, H, W)."""


class Discriminator(nn.Module):
    """Scores for the places of feature maps: above 0 for the style picture's, below 0 for others.

    Call `find_largest_values` after each change of the kernels.

    For each layer, three convolutions that see 5 x 5 places, or 7 x 7 of the first block, of which
    every other row and column of places has a score. Their kernels are divided by their largest
    singular value (Miyato et al. 2018), so that the gradients they give stay small.

    Args:
        style: the features of the whole style picture, by whose mean and deviation all features are
            normalized, channel by channel.
        seed: of the initial weights.
    """

    def __init__(self, style: Features, *, seed: int) -> None:
        super().__init__()
        self.layers = list(style)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not those of GPUs
            self.judges = nn.ModuleDict(
                {
                    layer: _judge(features.shape[1], stride=2 if layer[4] == "1" else 1)
                    for layer, features in style.items()
                }
            )
        for layer, features in style.items():
            deviation, mean = torch.std_mean(features.float(), dim=(0, 2, 3), keepdim=True)
            size = features.float().square().mean().sqrt()
            least = torch.maximum(
                _LEAST_DEVIATION_SHARE * deviation.mean(), _LEAST_SHARE_OF_SIZE * size
            )
            deviation = torch.maximum(deviation, least)
            self.register_buffer(f"mean_{layer}", mean, persistent=False)
            self.register_buffer(f"deviation_{layer}", deviation, persistent=False)
        self.eval()

    def forward(self, *pictures: Features) -> list[list[Tensor]]:
        """For each batch of pictures, the scores of each layer, (N, 1, H', W'), float32.

        Args:
            pictures: features of each batch; the sizes of batches may differ.
        """
        return [[self._scores(layer, each[layer]) for layer in self.layers] for each in pictures]

    @torch.no_grad()
    def find_largest_values(self) -> None:
        """Follow the kernels' largest singular values, by one step of the power iteration.

        torch takes such a step in each forward pass of a module in training. Here the number of
        passes, which a recorded step repeats to warm up, must change nothing.
        """
        self.train()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight  # noqa: B018 (computing the normalized kernel takes the step)
        self.eval()

    def _scores(self, layer: str, features: Tensor) -> Tensor:
        mean, deviation = self.get_buffer(f"mean_{layer}"), self.get_buffer(f"deviation_{layer}")
        with torch.autocast(features.device.type, enabled=False):
            scores: Tensor = self.judges[layer]((features.float() - mean) / deviation)
        return scores


def _judge(num_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(num_channels, _CHANNELS, 3, stride)),
        nn.LeakyReLU(_SLOPE),
        spectral_norm(nn.Conv2d(_CHANNELS, _CHANNELS, 3)),
        nn.LeakyReLU(_SLOPE),
        spectral_norm(nn.Conv2d(_CHANNELS, 1, 1)),
    )


def discriminator_loss(of_style: list[Tensor], of_results: list[Tensor]) -> Tensor:
    """What the discriminator lowers: scores short of 1 for the style, beyond -1 for results, ().

    The hinge loss (Lim and Ye 2017, equation 10), summed over layers.
    """
    hinges = [F.relu(1 - style).mean() for style in of_style]
    hinges += [F.relu(1 + result).mean() for result in of_results]
    return torch.stack(hinges).sum()


def adversarial_loss(of_results: list[Tensor]) -> Tensor:
    """What the transform network lowers: minus the mean score of its results, over layers, ()."""
    return -torch.stack([scores.mean() for scores in of_results]).sum()
