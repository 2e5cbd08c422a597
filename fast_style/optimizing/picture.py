"""A picture by the method of Gatys et al. 2016, from settings, a photo and style pictures.

No network is trained: the pixels themselves are changed until the loss is low. That is slow, and it
shows how low the objective of a trained network could be.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fast_style.core.devices import ordinary_torch
from fast_style.core.errors import UserError
from fast_style.losses.build import BlendedStyle, build_perceptual_loss, load_loss_weights
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.optimizing.minimizing import (
    STOPPED,
    Iterate,
    Minimum,
    StartNotFiniteError,
    minimize,
)
from fast_style.pictures.pixels import image_to_tensor, resize_shorter_side, tensor_to_image
from fast_style.pictures.reading import read_photo
from fast_style.settings.fields import SMALLEST_SIDE
from fast_style.settings.gatys_config import INIT_WORDS, GatysConfig, OptimizeConfig

# Largest side of a picture, in pixels: at optimize.size=512, a panorama of 2000 x 3 would become
# 341,333 pixels wide.
_LARGEST_SIDE = 8192

# Standard deviation of `normal_noise` around mid-grey: hardly any pixel is clipped.
_NOISE_STD = 0.1


class Progress(NamedTuple):
    """The state of an optimization after an update, as `watch` receives it."""

    scale: int
    """0 is the coarsest."""

    iterate: Iterate


class Optimized(NamedTuple):
    """A picture whose optimization is finished, or was stopped."""

    picture: Image.Image
    style: Image.Image
    """The style picture at the size in which the last scale used it."""

    minimum: Minimum
    """Of the last scale that was begun."""

    scale: int
    """The last scale that was begun; 0 is the coarsest."""


@ordinary_torch()
def optimize_picture(
    config: GatysConfig,
    photo: Image.Image | None,
    *,
    device: torch.device,
    watch: Callable[[Progress], bool] = lambda progress: True,
    say: Callable[[str], None] = lambda line: None,
) -> Optimized:
    """The photo in the style of the style pictures, optimized at each scale after the coarser one.

    Args:
        config: the settings.
        photo: the content, RGB; None if the loss has no content term. The result then has the
            aspect ratio of the style picture.
        device: where to compute.
        watch: called with the start and after every update; False ends the optimization.
        say: prints a line for the user.

    Raises:
        UserError: a style picture, the start or the weights cannot be used.
    """
    style = read_photo(config.style.image)
    blend = [
        BlendedStyle(further.image, read_photo(further.image), further.weight)
        for further in config.style.blend
    ]
    weights = load_loss_weights(config)
    say(f"loss network: {config.loss_network.architecture}, {weights.label}")
    width, height = _size_of(style if photo is None else photo, config)
    num_scales = config.optimize.scales
    picture = _start(config, width, height, photo, style).to(device)
    minimum: Minimum | None = None
    for scale in range(num_scales):
        halvings = num_scales - 1 - scale
        size = _halved(width, halvings), _halved(height, halvings)
        sized_style = _style_at(style, config, halvings)
        sized_blend = [
            one._replace(picture=_style_at(one.picture, config, halvings)) for one in blend
        ]
        loss = build_perceptual_loss(config, weights, sized_style, device, blend=sized_blend)
        picture = _resized(picture, size)
        content = picture if photo is None else _pixels(photo, size).to(device)
        try:
            minimum = _minimize_at(scale, picture, content, loss, config.optimize, watch)
        except StartNotFiniteError as error:
            if minimum is None:
                raise
            minimum = minimum._replace(reason=f"at a finer scale, {error}", is_failure=True)
        picture = minimum.best.picture
        if minimum.reason == STOPPED or minimum.is_failure:
            break
    assert minimum is not None
    return Optimized(tensor_to_image(picture[0]), sized_style, minimum, scale)


def _minimize_at(
    scale: int,
    start: Tensor,
    content: Tensor,
    loss: PerceptualLoss,
    settings: OptimizeConfig,
    watch: Callable[[Progress], bool],
) -> Minimum:
    targets = loss.content_targets(content)
    return minimize(
        lambda pixels: loss.terms(pixels, targets),
        start,
        iterations=settings.iterations,
        method=settings.method,
        bounds=settings.bounds,
        history=settings.history,
        tolerance=settings.tolerance,
        restart_every=settings.restart_every,
        learning_rate=settings.learning_rate,
        on_iterate=lambda iterate: watch(Progress(scale, iterate)),
    )


def _size_of(picture: Image.Image, config: GatysConfig) -> tuple[int, int]:
    """Width and height of the result."""
    size = config.optimize.size
    if not isinstance(size, int):
        return size
    _require_no_strip(picture, size, "optimize.size")
    width, height = (round(side * size / min(picture.size)) for side in picture.size)
    return width, height


def _require_no_strip(picture: Image.Image, size: int, key: str) -> None:
    """Check that with a shorter side of `size`, the longer one is within the limit.

    Raises:
        UserError: the longer side would have more than `_LARGEST_SIDE` pixels.
    """
    longer = round(max(picture.size) * size / min(picture.size))
    if longer > _LARGEST_SIDE:
        lowest = _LARGEST_SIDE * min(picture.size) // max(picture.size)
        lower = f", or lower {key} to at most {lowest}" if lowest >= SMALLEST_SIDE else ""
        raise UserError(
            f"{key}: a shorter side of {size} makes a picture of {picture.width} x "
            f"{picture.height} pixels {longer} pixels long, more than {_LARGEST_SIDE}; crop the "
            f"picture to at most {_LARGEST_SIDE // size} times as long as wide{lower}"
        )


def _halved(side: int, times: int) -> int:
    return max(SMALLEST_SIDE, round(side / 2**times))


def _style_at(style: Image.Image, config: GatysConfig, halvings: int) -> Image.Image:
    """A style picture at its size for the loss network, halved this many times."""
    size = config.style.size or config.optimize.size
    if isinstance(size, int):
        _require_no_strip(style, size, "style.size")
        return resize_shorter_side(style, _halved(size, halvings))
    width, height = (_halved(side, halvings) for side in size)
    return style.resize((width, height), Image.Resampling.LANCZOS)


def _start(
    config: GatysConfig, width: int, height: int, photo: Image.Image | None, style: Image.Image
) -> Tensor:
    """The starting picture of the coarsest scale, (1, 3, H, W), float, about [0, 1]."""
    halvings = config.optimize.scales - 1
    size = _halved(width, halvings), _halved(height, halvings)
    init = config.optimize.init
    if init not in INIT_WORDS:
        return _pixels(read_photo(Path(init)), size)
    if init == "style":
        return _pixels(style, size)
    if init == "content":
        if photo is None:
            raise UserError(
                "optimize.init: content needs a photo; set it to uniform_noise, normal_noise, "
                "style or the path of a picture"
            )
        return _pixels(photo, size)
    shape, generator = (1, 3, size[1], size[0]), torch.Generator().manual_seed(config.seed)
    if init == "uniform_noise":
        return torch.rand(shape, generator=generator)
    return 0.5 + _NOISE_STD * torch.randn(shape, generator=generator)


def _pixels(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """An image resized to (width, height): (1, 3, H, W), float in [0, 1]."""
    resized = image.resize(size, Image.Resampling.LANCZOS)
    return image_to_tensor(resized)[None].float() / 255


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture (1, 3, H, W) resized to (width, height); clipped to [0, 1] if that changes it."""
    width, height = size
    if picture.shape[2:] == (height, width):
        return picture
    larger = F.interpolate(picture, (height, width), mode="bicubic", align_corners=False)
    return larger.clamp(0, 1)
