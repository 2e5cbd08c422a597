"""A first look at photos in the style of any picture, in seconds and without a training.

The photo gets the style picture's colors, lights and darks. Then the optimization method of Gatys
et al. 2016 paints the style picture's strokes on a smaller copy, in a few updates, and what it
changes is enlarged.
For many photos, or a video, a network is better: it draws them at once, and steadily.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fast_style.core.devices import ordinary_torch
from fast_style.losses.loss_network import LossNetwork
from fast_style.losses.nearest import compact_network, usual_loss
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.optimizing.minimizing import SAFE_FIRST_STEP, Iterate, minimize
from fast_style.pictures.colors import Colors, colors_of, lights_of, recolored, with_lights
from fast_style.pictures.pixels import image_to_tensor
from fast_style.pictures.reading import Picture, over_white
from fast_style.pictures.sheets import Captioned, captioned_grid

STYLE_SIDE = 256
"""Pixels of the shorter side of a painting, as in configs/laptop.yaml."""

ITERATIONS = 12
"""Updates of each picture, unless asked for others."""

# Of the objective; configs/laptop.yaml has 1.5, whose strokes are faint after so few updates.
_STYLE_WEIGHT, _HALO_WEIGHT = 5.0, 50.0
# The longer side of the copy that is painted: a larger one takes longer, and has smaller strokes.
_SIDE = 384
# The loss network needs a few pixels, and autocorrelations of a longer strip take minutes.
_LEAST_SIDE, _MOST_SIDE = 32, 1024


class _Style(NamedTuple):
    """What photos get of a painting."""

    colors: Colors
    lights: NDArray[np.float64]
    loss: PerceptualLoss

    @classmethod
    def of(cls, painting: Image.Image, network: LossNetwork, device: torch.device) -> "_Style":
        loss = usual_loss(network, painting, style_weight=_STYLE_WEIGHT, halo_weight=_HALO_WEIGHT)
        return cls(colors_of(painting), lights_of(painting), loss.to(device))

    def colored(self, photo: Image.Image) -> Image.Image:
        """The photo with the painting's colors, and about its lights and darks."""
        return with_lights(recolored(photo, self.colors), self.lights)


class FirstLooks:
    """Paints photos in the styles of paintings.

    Args:
        paintings: mode RGB, with a shorter side of `STYLE_SIDE` pixels.
        device: where to paint.
        iterations: updates of each picture; 0: the photo in the painting's colors and lights.
    """

    @ordinary_torch()
    def __init__(
        self,
        paintings: Sequence[Image.Image],
        *,
        device: torch.device,
        iterations: int = ITERATIONS,
    ) -> None:
        network = compact_network()
        self._device, self._iterations = device, iterations
        self._styles = [_Style.of(painting, network, device) for painting in paintings]

    def draw(self, photo: Picture, watch: Callable[[], None] = lambda: None) -> list[Picture]:
        """The photo in the style of each painting, in their order.

        Args:
            photo: of any size.
            watch: called after each update of each picture.

        Returns:
            Pictures of the photo's size, with its alpha.
        """
        content = over_white(photo)
        return [
            Picture(self._painted(content, style.colored(content), style.loss, watch), photo.alpha)
            for style in self._styles
        ]

    @ordinary_torch()
    def _painted(
        self,
        content: Image.Image,
        start: Image.Image,
        loss: PerceptualLoss,
        watch: Callable[[], None],
    ) -> Image.Image:
        """`start` with what the updates change in a smaller copy of it, enlarged."""
        size = _smaller(content.size)
        targets = loss.content_targets(self._pixels(content, size))

        def on_iterate(iterate: Iterate) -> bool:
            if iterate.iteration > 0:
                watch()
            return True

        smaller = self._pixels(start, size)
        found = minimize(
            lambda pixels: loss.terms(pixels, targets),
            smaller,
            iterations=self._iterations,
            bounds="clip",
            first_step=SAFE_FIRST_STEP,
            on_iterate=on_iterate,
        )
        return _with_change(start, 255 * (found.best.picture - smaller)[0])

    def _pixels(self, image: Image.Image, size: tuple[int, int]) -> Tensor:
        """(1, 3, H, W) in [0, 1] on the device."""
        sized = image.resize(size, Image.Resampling.LANCZOS)
        return image_to_tensor(sized)[None].to(self._device).float() / 255


def _smaller(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the copy that is painted."""
    scale = max(min(1.0, _SIDE / max(size)), _LEAST_SIDE / min(size))
    width, height = (min(_MOST_SIDE, round(side * scale)) for side in size)
    return width, height


def _with_change(picture: Image.Image, change: Tensor) -> Image.Image:
    """A picture, of mode RGB, plus a change (3, h, w) in levels of 255 that is enlarged to it."""
    bands = []
    # One at a time, so that the floats of a large picture take less memory.
    for band, levels in zip(picture.split(), change.cpu().numpy(), strict=True):
        enlarged = Image.fromarray(levels).resize(picture.size, Image.Resampling.BICUBIC)
        summed = np.asarray(band, np.float32) + np.asarray(enlarged)
        bands.append(Image.fromarray(summed.clip(0, 255).round().astype(np.uint8)))
    return Image.merge("RGB", bands)


def first_look_sheet(
    photos: Sequence[tuple[str, Picture]],
    paintings: Sequence[tuple[str, Image.Image]],
    looks: Sequence[Sequence[Picture]],
) -> Image.Image:
    """Photos below one another, each in all styles; above them, the style pictures.

    Args:
        photos: each with its caption.
        paintings: likewise.
        looks: the pictures of each photo, in the order of the paintings.
    """
    side = max(max(photo.rgb.size) for _, photo in photos)

    def cell(image: Image.Image, *caption: str) -> Captioned:
        return Captioned(ImageOps.pad(image, (side, side), color="white"), list(caption))

    corner = cell(Image.new("RGB", (side, side), "white"))
    rows = [[corner, *(cell(painting, name) for name, painting in paintings)]]
    for (name, photo), of_photo in zip(photos, looks, strict=True):
        rows.append([cell(over_white(photo), name), *(cell(over_white(look)) for look in of_photo)])
    return captioned_grid(rows)
