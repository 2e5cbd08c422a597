"""The pictures, besides photos, that a student learns on.

They are paintings, plain surfaces, and photos stylized by painters. A painter is a transform
network that is trained against the current student, and so exploits the student's errors.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fast_style.losses.loss_network import LossNetwork
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.models.checkpoint import Checkpoint, restore_optimizer
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.transform_net import TransformNet, memory_format_for
from fast_style.pictures.pixels import image_to_tensor
from fast_style.pictures.reading import PictureError, read_photo
from fast_style.settings.sections import LossConfig
from fast_style.training.data import random_crop
from fast_style.training.run_log import print_line
from fast_style.training.saving import restore_weights, training_tensors

# Distinguishes a painter's random numbers from others of the same seed.
_PAINTER = 102

_PAINTING_SCALE = (0.25, 1.0)  # of a crop, as a share of a painting's shorter side
_NOISES = (1 / 255, 5 / 255, 25 / 255, 75 / 255)  # standard deviations


def painting_crop(painting: Image.Image, size: int, rng: np.random.Generator) -> Tensor:
    """A random square of a painting, (3, size, size) in [0, 1], often in other colors.

    Channels are permuted with probability 1/2, and the negative taken with probability 1/4: the
    colors of a few paintings must not matter.
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
    """A transform network that is trained against the student for a number of steps, its lifetime.

    The first weights, the style picture, the style weight and the lifetime of painter n are
    functions of (seed, n). Two in three painters start with their predecessor's weights instead,
    so that some are trained as long as in a real run.

    Args:
        number: n.
        seed: of the run.
        styles: the pictures from which the style picture is drawn.
        device: where it learns.
        predecessor: the painter that it replaces.
    """

    WIDTH = 16
    LEARNING_RATE = 2e-3
    LIFETIME = (200, 800)  # steps
    _SHARE_OF_HEIRS = 2 / 3
    _STYLE_WEIGHTS = (2.0, 5.0, 10.0)

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
        self.lifetime = int(rng.integers(*self.LIFETIME))
        self.style = painting_crop(styles.draw(rng), styles.size, rng)[None].to(device)
        self.weight = float(rng.choice(self._STYLE_WEIGHTS))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**32)))
            # Not antialiased: runs that have begun go on as they began.
            net = TransformNet(width=self.WIDTH, antialiased=False).to(device)
        self.net = net.to(memory_format=memory_format_for(device))
        if rng.random() < self._SHARE_OF_HEIRS and predecessor is not None:
            self.net.load_state_dict(predecessor.net.state_dict())
        self.fast_net = FastTransform(self.net)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=self.LEARNING_RATE)

    def paint(self, photos: Tensor, judge: LossNetwork) -> Tensor:
        """Stylize photos, and then learn from them for one step.

        Args:
            photos: (N, 3, H, W) in [0, 1].
            judge: the loss network to train against.

        Returns:
            The stylized photos, of the same shape, in [0, 1].
        """
        # A new loss in every step: the judge has changed since the last one.
        loss = PerceptualLoss(judge, self.style, **self.loss_for(judge).model_dump())
        output: Tensor = self.fast_net(photos)
        self.optimizer.zero_grad(set_to_none=True)
        loss(output, photos).total.backward()
        self.optimizer.step()
        self.age += 1
        return output.detach().clamp(0, 1)

    def loss_for(self, judge: LossNetwork) -> LossConfig:
        """The default loss at those layers that the judge has, or else at the judge's last one."""
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
        """Its weights and Adam's state: ``model.*`` and ``optimizer.*``."""
        return training_tensors(self.net, self.optimizer)

    def restore(self, state: Mapping[str, Tensor], age: int, path: Path) -> None:
        """Resume from a `state` that was taken at this age.

        Raises:
            CheckpointError: `state` lacks a tensor, or has it in another shape; names `path`.
        """
        self.age = age
        found = Checkpoint(dict(state), {})
        restore_weights(self.net, found.part("model"), path)
        if age > 0:
            parameters = dict(self.net.named_parameters())
            restore_optimizer(parameters, self.optimizer, found.part("optimizer"), path)


class Styles:
    """The style pictures of painters: paintings, and a photo with probability 1/4.

    Args:
        paintings: RGB.
        photos: files.
        size: of the squares that painters cut from them, in pixels: the size of the photos that
            they stylize, so that strokes are learned at the size at which they appear.
        takes_results: whether a result of this software is as good as a photo.
        warn: called with a line about a photo that cannot be used.
    """

    SHARE_OF_PHOTOS = 0.25

    def __init__(
        self,
        paintings: Sequence[Image.Image],
        photos: Sequence[Path],
        *,
        size: int,
        takes_results: bool = True,
        warn: Callable[[str], None] = print_line,
    ) -> None:
        self.paintings = paintings
        self.photos = photos
        self.size = size
        self.takes_results = takes_results
        self.warn = warn

    def draw(self, rng: np.random.Generator) -> Image.Image:
        """A random style picture; a painting if the drawn photo cannot be used."""
        if rng.random() < self.SHARE_OF_PHOTOS:
            photo = self.photos[int(rng.integers(len(self.photos)))]
            try:
                return read_photo(photo, takes_results=self.takes_results)
            except PictureError as error:
                self.warn(f"{error}; a painter imitates a painting instead")
        return self.paintings[int(rng.integers(len(self.paintings)))]
