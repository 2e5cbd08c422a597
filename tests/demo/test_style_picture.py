"""The package's style picture is what docs/draw_demo_style.py draws, and can be learned from."""

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fast_style.demo.demo import STYLE_PICTURE

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "draw_demo_style.py"


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    with Image.open(STYLE_PICTURE) as image:
        return image.copy()


@pytest.fixture(scope="module")
def paints() -> list[Any]:
    script = runpy.run_path(str(SCRIPT))
    ramps = script["VORTEX_RAMPS"]
    return sorted({*script["CURRENT"], *(paint for ramp in ramps for paint in ramp)})


def stroke_edges(image: Image.Image) -> tuple[float, float]:
    """How strong edges are in the image at 192 pixels, and how much neighbors agree in direction.

    Mean gray gradient, in levels per pixel, and coherence of the structure tensor over blocks of
    8 pixels, weighted by its energy: 1 for parallel strokes, near 0 for noise.
    """
    gray = np.asarray(image.convert("L").resize((192, 192), Image.Resampling.LANCZOS), float)
    dy, dx = np.gradient(gray)

    def block_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values.reshape(24, 8, 24, 8).sum(axis=(1, 3)))

    energy = block_sums(dx**2 + dy**2)
    agreement = np.hypot(block_sums(dx**2 - dy**2), 2 * block_sums(dx * dy))
    return float(np.hypot(dx, dy).mean()), float(agreement.sum() / max(energy.sum(), 1e-9))


def paint_shares(image: Image.Image, paints: list[Any]) -> NDArray[np.float64]:
    """The share of pixels that are nearest to each of the paints."""
    pixels = np.asarray(image.convert("RGB"), float).reshape(-1, 1, 3)
    nearest = np.linalg.norm(pixels - np.array(paints, float), axis=-1).argmin(axis=1)
    return np.asarray(np.bincount(nearest, minlength=len(paints)) / len(nearest))


@pytest.mark.slow
def test_script_draws_the_very_pixels_of_the_package(
    picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path / "drawn.png")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert (drawn.mode, drawn.size) == (picture.mode, picture.size) == ("RGB", (384, 384))
        assert drawn.tobytes() == picture.tobytes()


def test_every_paint_is_on_the_canvas(picture: Image.Image, paints: list[Any]) -> None:
    assert paint_shares(picture, paints).min() > 0.02


def test_strokes_stay_legible_at_192_pixels(picture: Image.Image) -> None:
    strength, coherence = stroke_edges(picture)
    assert strength > 12.0
    assert coherence > 0.6


def test_blank_and_noise_would_not_pass_for_strokes(paints: list[Any]) -> None:
    blank = Image.new("RGB", (384, 384), paints[0])
    values = np.random.default_rng(0).integers(0, 256, (384, 384, 3), dtype=np.uint8)
    assert stroke_edges(blank)[0] == 0.0
    assert paint_shares(blank, paints).min() == 0.0
    assert stroke_edges(Image.fromarray(values))[1] < 0.3
