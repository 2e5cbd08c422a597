"""The demo's own style picture, and the photos that it borrows from scikit-image."""

import hashlib
import importlib.util
import re
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fast_style.cli import main as cli
from fast_style.core.errors import UserError
from fast_style.demo import demo
from fast_style.settings.config import load_config

ROOT = Path(__file__).resolve().parents[2]
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
    assert prepared.photo == Path("demo/held_out/chelsea.png")
    assert prepared.photo.is_file()
    assert prepared.config.style.image == here / "demo/style.png"
    assert prepared.config.data.photos == here / "demo/photos"
    assert prepared.config.data.validation_photos == here / "demo/held_out"
    with Image.open("demo/style.png") as style:
        assert sha256_of_pixels(style) == sha256_of_pixels(demo.draw_style_picture())


def test_demo_can_be_prepared_again(here: Path) -> None:
    assert demo.prepare_demo(Path("demo")) == demo.prepare_demo(Path("demo"))


def test_demo_says_beforehand_which_loss_network_it_has(here: Path) -> None:
    prepared = demo.prepare_demo(Path("demo"))
    assert prepared.config.loss_network.weights == "compact"
    assert "the COMPACT loss network" in prepared.announcement


def plain_picture(path: Path, size: tuple[int, int], color: str) -> Path:
    Image.new("RGB", size, color).save(path)
    return path


def test_demo_with_pictures_of_ones_own_has_a_folder_and_a_run_of_its_own(here: Path) -> None:
    style = plain_picture(here / "My Painting.jpg", (60, 40), "red")
    photo = plain_picture(here / "me.png", (30, 50), "blue")
    prepared = demo.prepare_demo(Path("demo"), style=style, photo=photo)
    assert re.fullmatch(r"My-Painting-[0-9a-f]{6}", prepared.config.name)
    assert prepared.folder == Path("demo") / prepared.config.name
    assert prepared.photo == prepared.folder / "held_out/me.png"
    assert prepared.photo.read_bytes() == photo.read_bytes()
    with Image.open(prepared.config.style.image) as kept, Image.open(style) as own:
        assert sha256_of_pixels(kept) == sha256_of_pixels(own)
    # And is trained like the other one.
    own, usual = prepared.config, demo.prepare_demo(Path("demo")).config
    moved = {"name", "style", "data"}
    assert own.model_dump(exclude=moved) == usual.model_dump(exclude=moved)
    assert own.style.size == usual.style.size


def test_another_picture_of_the_same_name_is_another_run(here: Path) -> None:
    def name(folder: str, color: str) -> str:
        (here / folder).mkdir(exist_ok=True)
        style = plain_picture(here / folder / "style.png", (20, 20), color)
        return demo.prepare_demo(Path("demo"), style=style).config.name

    assert name("one", "red") == name("two", "red") != name("two", "blue")


def test_photo_of_ones_own_is_restyled_by_the_demos_model(here: Path) -> None:
    first = demo.prepare_demo(Path("demo"))
    own = plain_picture(here / "me.png", (20, 20), "green")
    prepared = demo.prepare_demo(Path("demo"), photo=own)
    assert prepared.config.name == first.config.name  # and need not be trained again
    assert prepared.photo == Path("demo/quickstart/held_out/me.png")
    # A copy that an earlier demo made may be named, too.
    assert demo.prepare_demo(Path("demo"), photo=prepared.photo).photo == prepared.photo


@pytest.mark.parametrize("argument", ["style", "photo"])
def test_picture_that_cannot_be_read_is_named_before_anything_is_written(
    here: Path, argument: str
) -> None:
    broken = here / "broken.jpg"
    broken.write_text("no picture")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        demo.prepare_demo(Path("demo"), **{argument: broken})
    assert not Path("demo").exists()


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


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of seconds."""
    words = ["style.size=32", "data.crop_size=32", "data.workers=0", "model.width=2"]
    words += ["model.residual_blocks=1", "train.steps=4", "train.warmup_steps=1"]
    words += ["train.batch_size=1"]
    monkeypatch.setattr(
        demo, "load_config", lambda path, overrides: load_config(path, [*overrides, *words])
    )


@pytest.mark.usefixtures("small")
def test_demo_restyles_ones_own_photo_in_ones_own_style(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    style = plain_picture(here / "bold.png", (40, 64), "red")
    photo = plain_picture(here / "large.jpg", (1600, 1200), "blue")
    assert cli.main(["demo", "--device", "cpu", "--style", str(style), "--photo", str(photo)]) == 0
    (run,) = (here / "runs").iterdir()
    assert re.fullmatch(r"bold-[0-9a-f]{6}", run.name)
    with Image.open(here / "demo" / run.name / "result.png") as result:
        assert result.size == (800, 600)
    assert f"stylize --model runs/{run.name}/model.safetensors " in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_demo_trains_stylizes_and_says_what_to_do_next(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda command: f"/usr/bin/{command}")

    assert cli.main(["demo", "--device", "cpu"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "the COMPACT loss network" in lines[0]
    assert lines[-6:] == [
        "look at it: demo/sheet.png  (photo, style, result)",
        "next:",
        "  fast-style demo --style YOUR_STYLE.jpg --photo YOUR_PHOTO.jpg",
        "  fast-style stylize --model runs/quickstart/model.safetensors YOUR_PHOTO.jpg",
        "  fast-style init YOUR_STYLE.jpg > my_style.yaml; fast-style train my_style.yaml",
        "  tensorboard --logdir runs",
    ]
    assert lines[-7].startswith("style term on a photo that was not trained on: ")
    assert lines[-7].endswith("(COMPACT weights)")
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
