"""The demo's own style picture, and the photos that it borrows from scikit-image."""

import hashlib
import importlib.util
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fast_style import cli, demo
from fast_style.config import load_config, parse_config
from fast_style.errors import UserError
from fast_style.settings import to_dict

ROOT = Path(__file__).resolve().parent.parent
PAINTS = sorted({*demo.CURRENT, *(paint for ramp in demo.VORTEX_RAMPS for paint in ramp)})


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """The style picture at its default size and seed."""
    return demo.draw_style_picture()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for an installed scikit-image, with empty files for photos."""
    (tmp_path / "data").mkdir()
    for name in (*demo.TRAINING_PHOTOS, demo.HELD_OUT_PHOTO):
        (tmp_path / "data" / name).touch()
    spec = ModuleSpec("skimage", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return tmp_path


def sha256_of_pixels(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


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


def paint_shares(image: Image.Image) -> NDArray[np.float64]:
    """The share of pixels that are nearest to each of the paints."""
    pixels = np.asarray(image.convert("RGB"), float).reshape(-1, 1, 3)
    nearest = np.linalg.norm(pixels - np.array(PAINTS, float), axis=-1).argmin(axis=1)
    return np.asarray(np.bincount(nearest, minlength=len(PAINTS)) / len(nearest))


def test_same_seed_draws_the_same_picture(picture: Image.Image) -> None:
    assert sha256_of_pixels(demo.draw_style_picture(seed=0)) == sha256_of_pixels(picture)


def test_another_seed_draws_another_picture(picture: Image.Image) -> None:
    assert sha256_of_pixels(demo.draw_style_picture(seed=1)) != sha256_of_pixels(picture)


@pytest.mark.parametrize("size", [1, 97, 256])
def test_picture_is_rgb_of_the_size_asked_for(size: int) -> None:
    image = demo.draw_style_picture(size)
    assert (image.mode, image.size) == ("RGB", (size, size))


def test_every_size_shows_the_same_picture(picture: Image.Image) -> None:
    small = np.asarray(demo.draw_style_picture(96), float)
    shrunk = np.asarray(picture.reduce(4), float)
    other = np.asarray(demo.draw_style_picture(96, seed=1), float)
    assert abs(small - shrunk).mean() < 0.2 * abs(other - shrunk).mean()


@pytest.mark.parametrize("seed", range(4))
def test_every_paint_is_on_the_canvas(seed: int) -> None:
    assert paint_shares(demo.draw_style_picture(192, seed)).min() > 0.02


@pytest.mark.parametrize("seed", range(4))
def test_strokes_stay_legible_at_192_pixels(seed: int) -> None:
    strength, coherence = stroke_edges(demo.draw_style_picture(seed=seed))
    assert strength > 12.0
    assert coherence > 0.6


def test_blank_and_noise_would_not_pass_for_strokes() -> None:
    blank = Image.new("RGB", (384, 384), demo.COBALT)
    values = np.random.default_rng(0).integers(0, 256, (384, 384, 3), dtype=np.uint8)
    assert stroke_edges(blank)[0] == 0.0
    assert paint_shares(blank).min() == 0.0
    assert stroke_edges(Image.fromarray(values))[1] < 0.3


def test_scikit_image_ships_the_photos() -> None:
    pytest.importorskip("skimage", reason="needs the extra `demo`")
    training, held_out = demo.demo_photos()
    assert held_out.name == "chelsea.png"
    for path in (*training, held_out):
        with Image.open(path) as photo:
            assert min(photo.size) >= 256, path.name  # room for crops of 96 to 256 pixels


def test_held_out_photo_is_not_trained_on(wheel: Path) -> None:
    training, held_out = demo.demo_photos()
    assert [path.name for path in training] == list(demo.TRAINING_PHOTOS)
    assert held_out == wheel / "data" / demo.HELD_OUT_PHOTO
    assert held_out not in training


def test_missing_scikit_image_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        demo.demo_photos()
    assert str(caught.value) == (
        "the demo's photos come with scikit-image, which is not installed: "
        "pip install 'fast-style[demo]'"
    )
    assert caught.value.exit_code == 2


def test_missing_photo_is_a_user_error_that_names_it(wheel: Path) -> None:
    missing = wheel / "data" / "coffee.png"
    missing.unlink()
    with pytest.raises(UserError) as caught:
        demo.demo_photos()
    assert str(caught.value) == (
        f"{missing}: the demo's photo is missing from this scikit-image; "
        "reinstall it: pip install --force-reinstall 'fast-style[demo]'"
    )


# --- The run ------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    pytest.importorskip("skimage", reason="needs the extra `demo`")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_demo_prepares_its_pictures_and_settings(here: Path) -> None:
    prepared = demo.prepare_demo(Path("demo"))
    assert sorted(path.name for path in (here / "demo/photos").iterdir()) == [
        "astronaut.png",
        "camera.png",
        "coffee.png",
        "motorcycle_left.png",
        "rocket.jpg",
    ]
    assert prepared.held_out == Path("demo/held_out/chelsea.png")
    assert prepared.held_out.is_file()
    assert prepared.config.style.image == here / "demo/style.png"
    assert prepared.config.data.photos == here / "demo/photos"
    assert prepared.config.data.validation_photos == here / "demo/held_out"
    with Image.open("demo/style.png") as style:
        assert sha256_of_pixels(style) == sha256_of_pixels(demo.draw_style_picture())


def test_demo_can_be_prepared_again(here: Path) -> None:
    assert demo.prepare_demo(Path("demo")) == demo.prepare_demo(Path("demo"))


def test_demo_says_beforehand_that_its_weights_are_random(here: Path) -> None:
    prepared = demo.prepare_demo(Path("demo"))
    assert prepared.config.loss_network.weights == "random"
    assert "RANDOM weights" in prepared.announcement


def test_file_in_place_of_the_demos_folder_is_a_user_error(here: Path) -> None:
    Path("demo").touch()
    with pytest.raises(UserError) as caught:
        demo.prepare_demo(Path("demo"))
    assert str(caught.value) == "demo: cannot be written (Not a directory)"


def test_quickstart_in_configs_trains_the_same_as_the_demo(here: Path) -> None:
    written = load_config(ROOT / "configs" / "quickstart.yaml")
    prepared = demo.prepare_demo(Path("demo")).config
    moved = {"style", "data"}  # their paths; the files are equal byte for byte
    assert written.model_dump(exclude=moved) == prepared.model_dump(exclude=moved)


def test_demo_trains_stylizes_and_says_what_to_do_next(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = to_dict(demo.prepare_demo(Path("demo")).config)
    settings["style"]["size"] = 32
    settings["data"] |= {"crop_size": 32, "workers": 0}
    settings["model"] |= {"width": 2, "residual_blocks": 1}
    settings["train"] |= {"steps": 4, "warmup_steps": 1, "batch_size": 1}
    small = parse_config(settings, "test")
    monkeypatch.setattr(demo, "load_config", lambda path, overrides: small)
    monkeypatch.setattr(shutil, "which", lambda command: f"/usr/bin/{command}")

    assert cli.main(["demo", "--device", "cpu"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "RANDOM weights" in lines[0]
    assert lines[-5:] == [
        "look at it: demo/sheet.png  (photo, style, result)",
        "next:",
        "  fast-style stylize --model runs/quickstart/model.safetensors YOUR_PHOTO.jpg",
        "  fast-style init YOUR_STYLE.jpg > my_style.yaml; fast-style train my_style.yaml",
        "  tensorboard --logdir runs",
    ]
    assert lines[-6].startswith("style term on a photo that was not trained on: ")
    assert lines[-6].endswith("(RANDOM weights)")
    with Image.open("demo/sheet.png") as sheet:
        assert sheet.size == (451 + 8 + 300 + 8 + 451, 300)  # chelsea.png is 451 x 300
    with Image.open("demo/result.png") as result:
        assert result.size == (451, 300)

    # Once more: the training is finished, and the rest is done again. Where the environment is not
    # activated, as after `make demo`, commands are shown with their folder.
    monkeypatch.setattr(shutil, "which", lambda command: None)
    monkeypatch.setattr(sys, "executable", str(Path(".venv/bin/python").absolute()))
    assert cli.main(["demo", "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    assert "runs/quickstart: finished at step 4" in output
    assert output.splitlines()[-1] == "  .venv/bin/tensorboard --logdir runs"
