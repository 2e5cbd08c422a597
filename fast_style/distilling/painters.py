"""The pictures that a small loss network learns on, beside photos.

They are those that a loss network meets: paintings, plain surfaces, and above all what transform
networks make of photos. Such networks find whatever a loss network is wrong about; so some of them,
the painters, are trained against the student as it is, all the time.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fast_style.losses.loss_network import LossNetwork
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.models.checkpoint import (
    Checkpoint,
    adam_tensors,
    require_same_tensors,
    restore_adam,
)
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.transform_net import TransformNet, memory_format_for
from fast_style.pictures.pixels import image_to_tensor
from fast_style.pictures.reading import PictureError, read_photo
from fast_style.settings.config import LossConfig
from fast_style.training.data import random_crop

# What a random stream is for; keeps it apart from others of the same seed.
_PAINTER = 102

_PAINTING_SCALE = (0.25, 1.0)  # of a crop, as a share of a painting's shorter side
_NOISES = (1 / 255, 5 / 255, 25 / 255, 75 / 255)  # standard deviations


def painting_crop(painting: Image.Image, size: int, rng: np.random.Generator) -> Tensor:
    """A random square of a painting, (3, size, size) in [0, 1], in its own or in other colors.

    One in two has its channels exchanged, one in four is its negative: there are few paintings, and
    their colors are to say nothing.
    """
    crop = random_crop(painting, size, scale=_PAINTING_SCALE, flip=True, rng=rng)
    pixels = image_to_tensor(crop).float() / 255
    if rng.random() < 0.5:
        pixels = pixels[torch.from_numpy(rng.permutation(3))]
    return 1 - pixels if rng.random() < 0.25 else pixels


def plain_surface(size: int, rng: np.random.Generator) -> Tensor:
    """A color with noise, a gradient, or patches of colors: (3, size, size) in [0, 1]."""
    kind = rng.integers(3)
    colors = torch.from_numpy(rng.random((2, 3, 1, 1), dtype=np.float32))
    if kind == 0:
        noise = torch.from_numpy(rng.standard_normal((3, size, size), dtype=np.float32))
        return (colors[0] + noise * float(rng.choice(_NOISES))).clamp(0, 1)
    if kind == 1:
        along = torch.linspace(0, 1, size).view(1, 1, size)
        if rng.random() < 0.5:
            along = along.transpose(1, 2)
        return (colors[0].lerp(colors[1], along)).expand(3, size, size).contiguous()
    cells = max(2, size >> int(rng.integers(1, 6)))
    patches = torch.from_numpy(rng.random((1, 3, cells, cells), dtype=np.float32))
    mode = "nearest" if rng.random() < 0.5 else "bicubic"
    return F.interpolate(patches, (size, size), mode=mode)[0].clamp(0, 1)


class Painter:
    """A transform network in training: it finds what the student does not see.

    Painter n of a run (its first weights, its style picture, how much style, how long it lives) is
    a function of (seed, n); what it has learned is state. Two in three take over what the painter
    before them has learned of another style, so that some come as far as long training does.

    Args:
        number: n.
        seed: of the run.
        styles: what it may take as its style picture.
        device: where it learns.
        predecessor: the painter whose place it takes.
    """

    WIDTH = 16
    LEARNING_RATE = 2e-3
    _LIFETIME = (200, 800)  # steps
    _SHARE_OF_HEIRS = 2 / 3
    _STYLE_WEIGHTS = (2.0, 5.0, 10.0)
    _STYLE_SIDE = 128

    def __init__(
        self,
        number: int,
        seed: int,
        styles: "Styles",
        device: torch.device,
        predecessor: "Painter | None" = None,
    ) -> None:
        rng = np.random.default_rng((seed, _PAINTER, number))
        self.number = number
        self.age = 0
        self.lifetime = int(rng.integers(*self._LIFETIME))
        self.style = painting_crop(styles.draw(rng), self._STYLE_SIDE, rng)[None].to(device)
        self.weight = float(rng.choice(self._STYLE_WEIGHTS))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**32)))
            net = TransformNet(width=self.WIDTH).to(device)
        self.net = net.to(memory_format=memory_format_for(device))
        if rng.random() < self._SHARE_OF_HEIRS and predecessor is not None:
            self.net.load_state_dict(predecessor.net.state_dict())
        self.fast_net = FastTransform(self.net)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=self.LEARNING_RATE)

    def paint(self, photos: Tensor, judge: LossNetwork) -> Tensor:
        """Learn on these photos for one step; gives what it made of them before, in [0, 1]."""
        # Anew each time: the judge has changed since.
        loss = PerceptualLoss(judge, self.style, **self._loss_for(judge).model_dump())
        output: Tensor = self.fast_net(photos)
        self.optimizer.zero_grad(set_to_none=True)
        loss(output, photos).total.backward()
        self.optimizer.step()
        self.age += 1
        return output.detach().clamp(0, 1)

    def _loss_for(self, judge: LossNetwork) -> LossConfig:
        """The usual loss at the layers that the judge has; at its last one if it has none."""
        usual = LossConfig()

        def known(layers: Mapping[str, float]) -> dict[str, float]:
            found = {layer: weight for layer, weight in layers.items() if layer in judge.names}
            return found or {judge.names[-1]: 1.0}

        return LossConfig(
            content_layers=known(usual.content_layers),
            style_layers=known(usual.style_layers),
            style_weight=self.weight,
        )

    def state(self) -> dict[str, Tensor]:
        """What it has learned."""
        moments = adam_tensors(dict(self.net.named_parameters()), self.optimizer)
        return {
            **{f"model.{name}": tensor for name, tensor in self.net.state_dict().items()},
            **{f"optimizer.{name}": tensor for name, tensor in moments.items()},
        }

    def restore(self, state: Mapping[str, Tensor], age: int, path: Path) -> None:
        """Go on where `state` was taken, at that age; `path` is named in errors."""
        self.age = age
        found = Checkpoint(dict(state), {})
        require_same_tensors(found.part("model"), self.net.state_dict(), path)
        self.net.load_state_dict(found.part("model"))
        if age > 0:
            parameters = dict(self.net.named_parameters())
            restore_adam(parameters, self.optimizer, found.part("optimizer"), path)


class Styles:
    """Pictures that painters imitate: paintings, and now and then a photo."""

    _SHARE_OF_PHOTOS = 0.25

    def __init__(self, paintings: Sequence[Image.Image], photos: Sequence[Path]) -> None:
        self.paintings = paintings
        self.photos = photos

    def draw(self, rng: np.random.Generator) -> Image.Image:
        """One of them by chance."""
        if rng.random() < self._SHARE_OF_PHOTOS:
            with suppress(PictureError):
                return read_photo(self.photos[int(rng.integers(len(self.photos)))])
        return self.paintings[int(rng.integers(len(self.paintings)))]
