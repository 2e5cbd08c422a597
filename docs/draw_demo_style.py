"""Draw the demo's style picture: swirling brush strokes, so that its only owner is this project.

    python docs/draw_demo_style.py                # writes fast_style/demo/style.png
    python docs/draw_demo_style.py picture.png

The package ships the picture, not this script. Lengths are fractions of the picture's side. All
numbers were chosen by eye.
"""

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import program

Floats = NDArray[np.float64]
Color = tuple[int, int, int]

SHIPPED = Path(__file__).resolve().parents[1] / "fast_style" / "demo" / "style.png"
SIZE = 384  # pixels, square
SEED = 0
SUPERSAMPLING = 3  # strokes are drawn this many times larger, then averaged: smooth edges

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
REACH = 1.2  # distance from a vortex's eye, in radii, at which its colors end
WAVE_HEIGHT = 0.12  # of the current, which swings up and down once across the canvas
NUM_PATH_POINTS = 14  # points along a stroke: enough for the tightest turn to look round


class Layer(NamedTuple):
    """One pass of the brush over the whole canvas."""

    width: float
    length: float
    coverage: float  # total area of the strokes, in canvases
    num_bristles: int  # stripes of slightly different brightness across a stroke


# Strokes about 17, 12 and 8 pixels wide, from 6 to 20 with their variation.
LAYERS = (
    Layer(width=0.044, length=0.24, coverage=4.0, num_bristles=7),
    Layer(width=0.030, length=0.17, coverage=1.6, num_bristles=6),
    Layer(width=0.020, length=0.10, coverage=0.6, num_bristles=4),
)


class Vortices(NamedTuple):
    """Whirls in the current."""

    centers: Floats  # (V, 2), x before y
    radii: Floats  # (V,)
    spins: Floats  # (V,), +1 or -1


@program.errors_in_one_line()
def main() -> None:
    """Draw the picture, and write it."""
    parser = program.parser_of(__doc__)
    parser.add_argument(
        "output", type=Path, nargs="?", help="a .png (default: the shipped one, which is replaced)"
    )
    program.add_overwrite(parser)
    options = parser.parse_args()
    output = options.output or SHIPPED
    overwrite = options.overwrite or options.output is None
    program.require_new_picture(output, [], overwrite=overwrite, suffixes=[".png"])
    draw_picture().save(output, compress_level=9)


def draw_picture() -> Image.Image:
    """The painting, RGB; every call draws the same pixels."""
    generator = Generator(PCG64(SEED))
    vortices = scatter_vortices(generator)
    canvas_size = SUPERSAMPLING * SIZE
    canvas = Image.new("RGB", (canvas_size, canvas_size), MIDNIGHT)
    brush = ImageDraw.Draw(canvas)
    fill_eyes(brush, vortices, canvas_size)
    for layer in LAYERS:
        starts = scatter_starts(layer, generator)
        paths = trace(starts, layer.length, vortices)
        colors = pick_colors(paths[:, NUM_PATH_POINTS // 2], vortices, generator)
        for path, color in zip(paths, colors, strict=True):
            for outline, stripe_color in stripes(path, color, layer, generator):
                brush.polygon((outline * canvas_size).ravel().tolist(), fill=stripe_color)
    return canvas.reduce(SUPERSAMPLING)


def scatter_vortices(generator: Generator) -> Vortices:
    """Vortices spread over the canvas: each takes the loneliest of 32 random points."""
    centers = generator.uniform(0.1, 0.9, (1, 2))
    while len(centers) < NUM_VORTICES:
        candidates = generator.uniform(0.0, 1.0, (32, 2))
        distances = np.linalg.norm(candidates[:, None] - centers, axis=-1).min(axis=1)
        centers = np.vstack([centers, candidates[distances.argmax()]])
    radii = generator.uniform(0.10, 0.20, NUM_VORTICES)
    return Vortices(centers, radii, generator.choice([-1.0, 1.0], NUM_VORTICES))


def fill_eyes(brush: ImageDraw.ImageDraw, vortices: Vortices, canvas_size: int) -> None:
    """Put a dab into the middle of every vortex, where strokes are too stiff to close the ring."""
    for index, (center, radius) in enumerate(zip(vortices.centers, vortices.radii, strict=True)):
        color = VORTEX_RAMPS[index % len(VORTEX_RAMPS)][0]
        brush.circle((center * canvas_size).tolist(), radius * canvas_size / 2, fill=color)


def scatter_starts(layer: Layer, generator: Generator) -> Floats:
    """Starting points of a layer's strokes, (N, 2), in random order; some lie off the canvas.

    A jittered grid leaves no holes, which independent random points would.
    """
    num_strokes = layer.coverage / (layer.width * layer.length)
    ticks = np.linspace(-0.15, 1.15, round(1.3 * num_strokes**0.5))
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    grid += generator.uniform(-0.5, 0.5, grid.shape) * (ticks[1] - ticks[0])
    return generator.permutation(grid)


def current(points: Floats) -> tuple[Floats, Floats]:
    """The wavy current's stream function, and its direction along the lines of equal value."""
    x, y = points[..., 0], points[..., 1]
    wave = 2 * np.pi * x + 1.0
    stream = y + WAVE_HEIGHT * np.sin(wave)
    slope = -2 * np.pi * WAVE_HEIGHT * np.cos(wave)
    return stream, np.stack([np.ones_like(slope), slope], axis=-1)


def flow(points: Floats, vortices: Vortices) -> Floats:
    """Unit directions of the strokes at `points`, (N, 2): the current, bent round the vortices."""
    offsets = points[:, None] - vortices.centers  # (N, V, 2)
    distances = np.linalg.norm(offsets, axis=-1) / vortices.radii
    strengths = vortices.spins * WHIRL * np.exp(-(distances**2)) / vortices.radii
    tangents = np.stack([-offsets[..., 1], offsets[..., 0]], axis=-1)
    velocity = current(points)[1] + (strengths[..., None] * tangents).sum(axis=1)
    return np.asarray(velocity / (np.linalg.norm(velocity, axis=-1, keepdims=True) + 1e-9))


def trace(starts: Floats, length: float, vortices: Vortices) -> Floats:
    """Paths of `length` along the flow, (N, NUM_PATH_POINTS, 2), by the midpoint rule."""
    step = length / (NUM_PATH_POINTS - 1)
    path = [starts]
    while len(path) < NUM_PATH_POINTS:
        middle = path[-1] + step / 2 * flow(path[-1], vortices)
        path.append(path[-1] + step * flow(middle, vortices))
    return np.stack(path, axis=1)


def pick_colors(points: Floats, vortices: Vortices, generator: Generator) -> Floats:
    """A paint for every stroke, (N, 3), by the band of the current or vortex in which it lies."""
    distances = np.linalg.norm(points[:, None] - vortices.centers, axis=-1) / vortices.radii
    nearest = distances.argmin(axis=1)
    ramps = np.array(VORTEX_RAMPS, dtype=float)[nearest % len(VORTEX_RAMPS)]  # (N, bands, 3)
    num_bands = ramps.shape[1]
    # The brush wanders into neighboring bands, or rings would look ruled.
    wander = generator.normal(0.0, 0.45, len(points))
    ring = np.floor(distances.min(axis=1) / REACH * num_bands + wander).astype(int)
    in_vortex = ramps[np.arange(len(points)), ring.clip(0, num_bands - 1)]
    band = np.floor(current(points)[0] * 2 * len(CURRENT) + wander).astype(int)
    in_current = np.array(CURRENT, dtype=float)[band % len(CURRENT)]
    paint = np.where((ring < num_bands)[:, None], in_vortex, in_current)
    # No two loads of the brush are alike, which keeps strokes of one band apart.
    brightness = generator.normal(1.0, 0.12, (len(points), 1))
    tint = generator.normal(0.0, 7.0, paint.shape)
    return np.asarray(paint * brightness + tint)


def stripes(
    path: Floats, color: Floats, layer: Layer, generator: Generator
) -> Iterator[tuple[Floats, Color]]:
    """The bristles' stripes of one stroke, side by side: outline (P, 2) and color of each.

    Thick paint under a light from the upper left: the stripe at one edge of the stroke is bright,
    the one at the other edge dark. So strokes stay legible after shrinking.
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


if __name__ == "__main__":
    main()
