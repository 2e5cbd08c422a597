"""The first run: a style picture that it draws, photos to restyle, and what comes of them.

The picture is painted here rather than shipped, so it has no owner but this project; the photos
are those in scikit-image's wheel. Nothing is downloaded.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import PCG64, Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fast_style.core.errors import UserError
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.pictures.pixels import fit_longer_side, image_to_tensor
from fast_style.pictures.reading import read_photo
from fast_style.pictures.sheets import side_by_side
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import Config, load_config, name_from
from fast_style.stylizing.stylizer import Stylizer

Floats = NDArray[np.float64]

# --- The photos ---------------------------------------------------------------------------------
# Read from the wheel of scikit-image 0.26, never copied into this repository. Their origin, from
# the docstrings of `skimage.data`:
#   astronaut.png        NASA, public domain
#   camera.png           Lav Varshney, CC0
#   chelsea.png          Stefan van der Walt, CC0
#   coffee.png           Rachel Michetti, CC0
#   rocket.jpg           SpaceX, public domain
#   motorcycle_left.png  Middlebury stereo benchmark 2014 (Scharstein et al.), no licence stated
# The wheel's other pictures are textures, charts, microscopy and, in `motorcycle_right.png`, the
# same scene once more.
TRAINING_PHOTOS = (
    "astronaut.png",
    "camera.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
# A cat: large clear shapes, a face anybody recognizes, and nothing like it among the others.
HELD_OUT_PHOTO = "chelsea.png"

# --- The painting -------------------------------------------------------------------------------
# Lengths are fractions of the picture's side, so that every size shows the same picture. All
# numbers were chosen by eye.

ULTRAMARINE = (24, 34, 122)
MIDNIGHT = (12, 18, 62)
COBALT = (38, 82, 178)
SKY = (112, 168, 214)
TEAL = (22, 132, 140)
CREAM = (248, 236, 196)
YELLOW = (252, 204, 32)
ORANGE = (238, 122, 22)

# Colors of the current between the vortices, band after band across it.
CURRENT = (MIDNIGHT, ULTRAMARINE, COBALT, SKY, COBALT, TEAL, ULTRAMARINE)
# Colors of a vortex from its eye outwards.
VORTEX_RAMPS = (
    (CREAM, YELLOW, YELLOW, ORANGE, YELLOW, TEAL, COBALT),
    (YELLOW, ORANGE, ORANGE, YELLOW, CREAM, SKY, ULTRAMARINE),
    (CREAM, SKY, TEAL, CREAM, COBALT, SKY, ULTRAMARINE),
)
NUM_VORTICES = 9
WHIRL = 6.0  # a vortex turns at up to 0.43 times this; the current's speed is 1 or a little more
REACH = 1.2  # radii from a vortex's eye at which its colors end
WAVE_HEIGHT = 0.12  # of the current, which swings up and down once across the canvas

NUM_PATH_POINTS = 14  # points along a stroke: enough for the tightest turn to look round
SUPERSAMPLING = 3  # strokes are drawn this much larger, then averaged: smooth edges


class Layer(NamedTuple):
    """One pass of the brush over the whole canvas."""

    width: float
    length: float
    coverage: float  # how many times the strokes' areas, added up, cover the canvas
    num_bristles: int  # stripes of slightly different brightness across a stroke


# At 384 pixels: strokes about 17, 12 and 8 pixels wide, from 6 to 20 with their variation.
LAYERS = (
    Layer(width=0.044, length=0.24, coverage=4.0, num_bristles=7),
    Layer(width=0.030, length=0.17, coverage=1.6, num_bristles=6),
    Layer(width=0.020, length=0.10, coverage=0.6, num_bristles=4),
)


class Vortices(NamedTuple):
    """Whirls in the current. Lengths are fractions of the picture's side."""

    centers: Floats  # (V, 2), x before y
    radii: Floats  # (V,)
    spins: Floats  # (V,), +1 or -1


def demo_photos() -> tuple[list[Path], Path]:
    """The photos to train on, and the one kept out of training to show the result on.

    Raises:
        UserError: scikit-image is not installed, or its wheel lacks one of the photos.
    """
    folder = _scikit_image_folder() / "data"
    *training, held_out = (folder / name for name in (*TRAINING_PHOTOS, HELD_OUT_PHOTO))
    for path in (*training, held_out):
        if not path.is_file():
            raise UserError(
                f"{path}: the demo's photo is missing from this scikit-image; "
                "reinstall it: pip install --force-reinstall 'fast-style[demo]'"
            )
    return training, held_out


def draw_style_picture(size: int = 384, seed: int = 0) -> Image.Image:
    """A painting of swirling brush strokes, `size` pixels square; one `seed`, one picture."""
    generator = Generator(PCG64(seed))
    vortices = _scatter_vortices(generator)
    canvas_size = SUPERSAMPLING * size
    canvas = Image.new("RGB", (canvas_size, canvas_size), MIDNIGHT)
    brush = ImageDraw.Draw(canvas)
    _fill_eyes(brush, vortices, canvas_size)
    for layer in LAYERS:
        starts = _scatter_starts(layer, generator)
        paths = _trace(starts, layer.length, vortices)
        colors = _pick_colors(paths[:, NUM_PATH_POINTS // 2], vortices, generator)
        for path, color in zip(paths, colors, strict=True):
            for outline, stripe_color in _stripes(path, color, layer, generator):
                brush.polygon((outline * canvas_size).ravel().tolist(), fill=stripe_color)
    return canvas.reduce(SUPERSAMPLING)


def _scikit_image_folder() -> Path:
    # Only the folder is wanted: skimage itself is never imported.
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the demo's photos come with scikit-image, which is not installed: "
            "pip install 'fast-style[demo]'"
        )
    return Path(spec.submodule_search_locations[0])


def _scatter_vortices(generator: Generator) -> Vortices:
    """Vortices spread well over the canvas: each is the loneliest of some random candidates."""
    centers = generator.uniform(0.1, 0.9, (1, 2))
    while len(centers) < NUM_VORTICES:
        candidates = generator.uniform(0.0, 1.0, (32, 2))
        distances = np.linalg.norm(candidates[:, None] - centers, axis=-1).min(axis=1)
        centers = np.vstack([centers, candidates[distances.argmax()]])
    radii = generator.uniform(0.10, 0.20, NUM_VORTICES)
    return Vortices(centers, radii, generator.choice([-1.0, 1.0], NUM_VORTICES))


def _fill_eyes(brush: ImageDraw.ImageDraw, vortices: Vortices, canvas_size: int) -> None:
    """Put a dab in the middle of every vortex, where strokes are too stiff to close the ring."""
    for index, (center, radius) in enumerate(zip(vortices.centers, vortices.radii, strict=True)):
        color = VORTEX_RAMPS[index % len(VORTEX_RAMPS)][0]
        brush.circle((center * canvas_size).tolist(), radius * canvas_size / 2, fill=color)


def _scatter_starts(layer: Layer, generator: Generator) -> Floats:
    """Where the strokes of a layer begin, (N, 2), in random order and a little off the canvas too.

    A jittered grid leaves no holes, which independent random points would.
    """
    num_strokes = layer.coverage / (layer.width * layer.length)
    ticks = np.linspace(-0.15, 1.15, round(1.3 * num_strokes**0.5))
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    grid += generator.uniform(-0.5, 0.5, grid.shape) * (ticks[1] - ticks[0])
    return generator.permutation(grid)


def _current(points: Floats) -> tuple[Floats, Floats]:
    """The wavy current's stream function, and its direction along the lines of equal value."""
    x, y = points[..., 0], points[..., 1]
    wave = 2 * np.pi * x + 1.0
    stream = y + WAVE_HEIGHT * np.sin(wave)
    slope = -2 * np.pi * WAVE_HEIGHT * np.cos(wave)
    return stream, np.stack([np.ones_like(slope), slope], axis=-1)


def _flow(points: Floats, vortices: Vortices) -> Floats:
    """Unit directions of the strokes at `points`, (N, 2): the current, bent round the vortices."""
    offsets = points[:, None] - vortices.centers  # (N, V, 2)
    distances = np.linalg.norm(offsets, axis=-1) / vortices.radii
    strengths = vortices.spins * WHIRL * np.exp(-(distances**2)) / vortices.radii
    tangents = np.stack([-offsets[..., 1], offsets[..., 0]], axis=-1)
    velocity = _current(points)[1] + (strengths[..., None] * tangents).sum(axis=1)
    return np.asarray(velocity / (np.linalg.norm(velocity, axis=-1, keepdims=True) + 1e-9))


def _trace(starts: Floats, length: float, vortices: Vortices) -> Floats:
    """Paths of `length` along the flow, (N, NUM_PATH_POINTS, 2), by the midpoint rule."""
    step = length / (NUM_PATH_POINTS - 1)
    path = [starts]
    while len(path) < NUM_PATH_POINTS:
        middle = path[-1] + step / 2 * _flow(path[-1], vortices)
        path.append(path[-1] + step * _flow(middle, vortices))
    return np.stack(path, axis=1)


def _pick_colors(points: Floats, vortices: Vortices, generator: Generator) -> Floats:
    """A paint for every stroke, (N, 3): by the band of the current or vortex that it lies in."""
    distances = np.linalg.norm(points[:, None] - vortices.centers, axis=-1) / vortices.radii
    nearest = distances.argmin(axis=1)
    ramps = np.array(VORTEX_RAMPS, dtype=float)[nearest % len(VORTEX_RAMPS)]  # (N, bands, 3)
    num_bands = ramps.shape[1]
    # The brush wanders into neighboring bands, or rings would look ruled.
    wander = generator.normal(0.0, 0.45, len(points))
    ring = np.floor(distances.min(axis=1) / REACH * num_bands + wander).astype(int)
    in_vortex = ramps[np.arange(len(points)), ring.clip(0, num_bands - 1)]
    band = np.floor(_current(points)[0] * 2 * len(CURRENT) + wander).astype(int)
    in_current = np.array(CURRENT, dtype=float)[band % len(CURRENT)]
    paint = np.where((ring < num_bands)[:, None], in_vortex, in_current)
    # No two loads of the brush are alike, which keeps strokes of one band apart.
    brightness = generator.normal(1.0, 0.12, (len(points), 1))
    tint = generator.normal(0.0, 7.0, paint.shape)
    return np.asarray(paint * brightness + tint)


def _stripes(
    path: Floats, color: Floats, layer: Layer, generator: Generator
) -> Iterator[tuple[Floats, tuple[int, int, int]]]:
    """The bristles' stripes of one stroke, side by side: outline (P, 2) and color of each.

    Thick paint under a light from the upper left: the stripe at one edge of the stroke is bright,
    the one at the other dark, which is what makes strokes legible after shrinking.
    """
    tangents = np.gradient(path, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True) + 1e-9
    normals = np.stack([-tangents[:, 1], tangents[:, 0]], axis=1)
    along = np.linspace(-1.0, 1.0, len(path))
    half_width = layer.width / 2 * generator.uniform(0.8, 1.2) * (1 - along**4) ** 0.5
    across = np.linspace(-1.0, 1.0, layer.num_bristles + 1)
    light = float(normals.mean(axis=0) @ (-0.7, -0.7))
    for left, right in pairwise(across):
        relief = light * ((left + right) / 2) ** 3
        brightness = 1.0 + 0.6 * relief + generator.normal(0.0, 0.12)
        begin = generator.integers(0, 3)  # bristles touch down and lift off one after the other
        end = len(path) - generator.integers(0, 3)
        sides = [(path + normals * (half_width * s)[:, None])[begin:end] for s in (left, right)]
        red, green, blue = (color * brightness).clip(0, 255).astype(int).tolist()
        yield np.vstack([sides[0], sides[1][::-1]]), (red, green, blue)


# --- The run ------------------------------------------------------------------------------------


class PreparedDemo(NamedTuple):
    """A demo whose pictures lie ready."""

    folder: Path
    photo: Path
    config: Config
    announcement: str


# Pixels of the longer side at which the held-out photo is restyled: large enough to look at, and
# small enough for strokes to be seen that were learned on crops of 96.
_RESULT_SIDE = 800


def prepare_demo(
    folder: Path, *, style: Path | None = None, photo: Path | None = None
) -> PreparedDemo:
    """Lay the pictures ready in `folder`; with the settings that train on them.

    Args:
        folder: for all that the demo shows; pictures of the user's get a folder in it.
        style: the user's style picture; None: one that is drawn.
        photo: the user's photo, not to be trained on; None: a cat's.

    Raises:
        UserError: scikit-image is not installed, a picture cannot be read, or the folder cannot be
            written.
    """
    training, cat = demo_photos()
    held_out = cat if photo is None else photo
    read_photo(held_out)  # says what is wrong with it, if anything is
    painting = draw_style_picture() if style is None else read_photo(style)
    name = "quickstart" if style is None else _name_of_run(style, painting)
    if style is not None or photo is not None:
        folder = folder / name
    try:
        for part, photos in (("photos", training), ("held_out", [held_out])):
            (folder / part).mkdir(parents=True, exist_ok=True)
            for path in photos:
                with suppress(shutil.SameFileError):  # a photo of an earlier demo
                    shutil.copyfile(path, folder / part / path.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    write_picture(folder / "style.png", painting)
    config = load_config(
        Path(__file__).with_name("quickstart.yaml"),  # the same as configs/quickstart.yaml
        [
            f"name={name}",
            f"style.image={json.dumps(str(folder / 'style.png'))}",
            f"data.photos={json.dumps(str(folder / 'photos'))}",
            f"data.validation_photos={json.dumps(str(folder / 'held_out'))}",
        ],
    )
    return PreparedDemo(
        folder,
        folder / "held_out" / held_out.name,
        config,
        "demo: trains a small network for about two minutes on two CPU cores, with the COMPACT "
        "loss network that comes with fast-style, on five photos",
    )


def _name_of_run(style: Path, painting: Image.Image) -> str:
    """After the picture, and another one for another picture of the same name."""
    digest = hashlib.sha256(painting.tobytes()).hexdigest()
    return f"{name_from(style.stem)[:90]}-{digest[:6]}"


def finish_demo(prepared: PreparedDemo, runs: Path, *, device: str) -> list[str]:
    """Stylize the held-out photo and write the sheet; lines for people about what to do next."""
    config = prepared.config
    model = runs / config.name / "model.safetensors"
    stylizer = Stylizer(model, device=device)
    photo = fit_longer_side(read_photo(prepared.photo), _RESULT_SIDE)
    result = stylizer(photo)
    style = read_style(config)
    write_picture(prepared.folder / "result.png", result)
    sheet = prepared.folder / "sheet.png"
    write_picture(sheet, side_by_side([photo, style, result]))

    perceptual_loss = build_perceptual_loss(
        config, load_loss_weights(config), style, stylizer.device
    )
    fast_style = _as_typed("fast-style")
    before, after = (_style_term(perceptual_loss, photo, picture) for picture in (photo, result))
    return [
        f"style term on a photo that was not trained on: {before:.2f} before, {after:.2f} after "
        f"({stylizer.description['loss_network']['label']})",
        f"look at it: {sheet}  (photo, style, result)",
        "next:",
        f"  {fast_style} demo --style YOUR_STYLE.jpg --photo YOUR_PHOTO.jpg",
        f"  {fast_style} stylize --model {model} YOUR_PHOTO.jpg",
        f"  {fast_style} init YOUR_STYLE.jpg > my_style.yaml; {fast_style} train my_style.yaml",
        f"  {_as_typed('tensorboard')} --logdir {runs}",
    ]


def _as_typed(command: str) -> str:
    """A command of this environment, with its folder unless the environment is activated."""
    if shutil.which(command) is not None:
        return command
    return os.path.relpath(Path(sys.executable).parent / command)


@torch.no_grad()
def _style_term(loss: PerceptualLoss, photo: Image.Image, picture: Image.Image) -> float:
    pixels = [image_to_tensor(image)[None].float() / 255 for image in (picture, photo)]
    device = loss.style_grams(next(iter(loss.style_layers))).device
    return loss(pixels[0].to(device), pixels[1].to(device)).style.item()
