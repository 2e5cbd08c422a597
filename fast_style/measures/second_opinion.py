"""A second opinion about style, by a network and a distance that no model here is trained with.

Models are trained against Gram matrices of VGG's features, and can learn their weaknesses. This
opinion compares whole distributions of SqueezeNet's features instead (Iandola et al. 2016), by the
sliced Wasserstein distance (Heitz et al. 2021, *A Sliced Wasserstein Loss for Neural Texture
Synthesis*, section 4).
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fast_style.core.errors import UserError, printable
from fast_style.core.files import sha256_of
from fast_style.losses.downloads import cached_file, torchvision_models
from fast_style.losses.sliced import directions_of, sliced_distance, sorted_projections

# Modules of torchvision's `squeezenet1_0().features` whose outputs are compared: the first ReLU,
# fire4, fire8 and fire9, which are the last ones at strides of 2, 4, 8 and 16.
_COMPARED = (1, 5, 10, 12)

# A layer's distance is divided by the style's variance, but at least by this share of its mean
# square: a style picture of one color has no variance.
_SMALLEST_VARIANCE = 0.01


class _KnownFile(NamedTuple):
    """What RGB in 0..255 is reduced by and then divided by, for a published file."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Keys: the first 8 hex digits of the sha256.
_KNOWN_FILES = {
    # torchvision's squeezenet1_0, IMAGENET1K_V1
    "b66bff10": _KnownFile((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    # Deep Compression's SqueezeNet, decoded (Han et al. 2016; forresti's training)
    "ca169540": _KnownFile((123.0, 117.0, 104.0), (1.0, 1.0, 1.0)),
}


class SqueezeNet(nn.Module):
    """The features of SqueezeNet 1.0 that are compared, from pixels in [0, 1].

    Args:
        features: ``squeezenet1_0().features``, with weights.
        mean: of RGB in 0..255, subtracted.
        std: what is divided by then.
        digest: sha256 of the file of the weights, in hex, if they are of one.
    """

    def __init__(
        self,
        features: nn.Sequential,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        digest: str | None = None,
    ) -> None:
        super().__init__()
        self.digest = digest
        self.features = features.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> list[Tensor]:
        """The features at the four compared layers of pictures (N, 3, H, W) in [0, 1]."""
        inputs = (pictures.float() * 255 - self.get_buffer("mean")) / self.get_buffer("std")
        found = []
        for index, module in enumerate(self.features):
            inputs = module(inputs)
            if index in _COMPARED:
                found.append(inputs)
        return found


class SecondOpinion:
    """Sliced Wasserstein distances between a style picture and others, on SqueezeNet's features.

    Args:
        squeezenet: from `load_squeezenet`.
        style: (1, 3, H, W) in [0, 1], on the device to compute on.
    """

    def __init__(self, squeezenet: SqueezeNet, style: Tensor) -> None:
        self.squeezenet = squeezenet.to(style.device)
        self.style = [_projected(features) for features in squeezenet(style)]

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """The distance of each picture's style from the style picture's: (N,), float32.

        0 for equal distributions of features at all four layers; each layer's distance is relative
        to the variance of the style picture's features. Measured: photos 0.19 to 0.66 in four
        styles; pictures of L-BFGS 0.06 (Turner's shipwreck, 60 iterations) and 0.09 (Starry Night,
        100).

        Args:
            pictures: (N, 3, H, W) in [0, 1]; at least 32 pixels a side.
        """
        distances = [
            relative_distance(features, target)
            for features, target in zip(self.squeezenet(pictures), self.style, strict=True)
        ]
        return torch.stack(distances).mean(dim=0)


def relative_distance(features: Tensor, target: Tensor) -> Tensor:
    """The `sliced_distance` of features (N, C, H, W), divided by the variance of the target: (N,).

    Args:
        features: of pictures.
        target: `_projected` features of the style picture, (1, K, P).
    """
    spread = target.var(dim=2, correction=0).mean()
    spread = torch.maximum(spread, _SMALLEST_VARIANCE * target.square().mean())
    return sliced_distance(_projected(features), target) / spread


def _projected(features: Tensor) -> Tensor:
    directions = directions_of(features.shape[1]).to(features.device)
    return sorted_projections(features, directions)


def load_squeezenet(weights: Path | None) -> SqueezeNet:
    """SqueezeNet 1.0 for `SecondOpinion`.

    Args:
        weights: a file that is known here by its digest; None takes torchvision's from torch's
            cache, or downloads it (5 MB).

    Raises:
        UserError: the file is missing or unknown, or cannot be downloaded.
    """
    path = weights or cached_file(
        "SqueezeNet1_0_Weights",
        "IMAGENET1K_V1",
        purpose="SqueezeNet's weights, for the second opinion,",
        otherwise="name a file of them with --second-opinion FILE, or leave the second opinion out "
        "with --second-opinion none",
    )
    if not path.is_file():
        raise UserError(
            f"{printable(path)}: SqueezeNet's weights not found; check --second-opinion"
        )
    digest = sha256_of(path)
    known = _KNOWN_FILES.get(digest[:8])
    if known is None:
        raise UserError(
            f"{printable(path)}: is not SqueezeNet 1.0 as torchvision publishes it (its sha256 "
            "does not begin "
            "with b66bff10); leave --second-opinion out to download that one (5 MB)"
        )
    net = torchvision_models().squeezenet1_0(weights=None)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return SqueezeNet(net.features, known.mean, known.std, digest)
