"""The demo's pictures and settings, and the whole demo on pictures that train in seconds."""

import importlib.util
import os
import re
import shutil
import signal
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from threading import Thread

import pytest
import torch
from PIL import Image
from small_run import draw_photo, ignore
from small_styles import ship

from fast_style.cli import main as cli
from fast_style.cli.train import train
from fast_style.core.distributed import ALONE
from fast_style.core.errors import UserError
from fast_style.core.signals import Terminated
from fast_style.demo import demo
from fast_style.pictures.reading import ResultError, read_picture
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import load_config
from fast_style.training.build import find_photos_of
from fast_style.training.run_folder import open_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for an installed scikit-image, with small photos."""
    folder = tmp_path / "site-packages" / "skimage"
    (folder / "data").mkdir(parents=True)
    for number, name in enumerate((*demo.TRAINING_PHOTOS, demo.HELD_OUT_PHOTO)):
        draw_photo(number, (150, 100)).save(folder / "data" / name)
    spec = ModuleSpec("skimage", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return folder


@pytest.fixture
def here(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no styles that come with fast-style."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    ship(monkeypatch, tmp_path / "ships")
    return folder


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def plain_picture(path: Path, size: tuple[int, int], color: str) -> Path:
    Image.new("RGB", size, color).save(path)
    return path


# --- The photos -----------------------------------------------------------------------------------


def test_scikit_image_ships_the_photos() -> None:
    pytest.importorskip("skimage", reason="needs the extra `demo`")
    training, held_out = demo.find_demo_photos()
    assert held_out.name == "chelsea.png"
    for path in (*training, held_out):
        with Image.open(path) as photo:
            assert min(photo.size) >= 256, path.name  # room for crops of 96 to 256 pixels


def test_held_out_photo_is_not_trained_on(wheel: Path) -> None:
    training, held_out = demo.find_demo_photos()
    assert [path.name for path in training] == list(demo.TRAINING_PHOTOS)
    assert held_out == wheel / "data" / demo.HELD_OUT_PHOTO
    assert held_out not in training


# --- The folder -----------------------------------------------------------------------------------


def test_demo_prepares_its_pictures_and_settings(here: Path) -> None:
    prepared = demo.prepare_demo(Path("demo"))
    assert sorted(path.name for path in (here / "demo/photos").iterdir()) == [
        "astronaut.png",
        "camera.png",
        "coffee.png",
        "motorcycle_left.png",
        "rocket.jpg",
    ]
    assert prepared.folder == Path("demo")
    assert prepared.photo == Path("demo/held_out/chelsea.png")
    assert prepared.photo.is_file()
    assert prepared.config.name == "quickstart"
    assert prepared.config.style.image == here / "demo/style.png"
    assert prepared.config.data.photos == here / "demo/photos"
    assert prepared.config.data.validation_photos == here / "demo/held_out"
    assert pixels(here / "demo/style.png") == pixels(demo.STYLE_PICTURE)


def test_demo_can_be_prepared_again(here: Path) -> None:
    assert demo.prepare_demo(Path("demo")) == demo.prepare_demo(Path("demo"))


FILES = [
    "style.png",
    "styles.png",
    "course.png",
    "result.png",
    "sheet.png",
    "photos/coffee.png",
    "photos/rocket.jpg",
    "held_out/chelsea.png",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("is_picture", [True, False])
def test_files_that_no_demo_has_made_are_kept(here: Path, name: str, is_picture: bool) -> None:
    own = Path("demo", name)
    own.parent.mkdir(parents=True)
    if is_picture:
        plain_picture(own, (20, 20), "red")
    else:
        own.write_text("mine")
    before = own.read_bytes()
    with pytest.raises(UserError) as caught:
        demo.prepare_demo(Path("demo"))
    assert str(caught.value) == (
        f"{own}: is not of an earlier demo, and would be replaced; rename it, or change (cd) to "
        "another folder"
    )
    assert own.read_bytes() == before
    assert [path for path in here.rglob("*") if path.is_file()] == [here / own]


def test_demo_says_beforehand_which_loss_network_it_has(here: Path) -> None:
    prepared = demo.prepare_demo(Path("demo"))
    assert prepared.config.loss_network.weights == "compact"
    assert "the COMPACT loss network" in prepared.announcement


def test_demo_with_pictures_of_ones_own_has_a_folder_and_a_run_of_its_own(here: Path) -> None:
    style = plain_picture(here / "My Painting.jpg", (60, 40), "red")
    photo = plain_picture(here / "me.png", (30, 50), "blue")
    prepared = demo.prepare_demo(Path("demo"), style=style, photo=photo)
    assert re.fullmatch(r"My-Painting-[0-9a-f]{6}", prepared.config.name)
    assert prepared.folder == Path("demo") / prepared.config.name
    assert prepared.photo == prepared.folder / "own_photo/photo.png"
    assert pixels(prepared.photo) == pixels(photo)
    assert pixels(prepared.config.style.image) == pixels(style)
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


def test_photo_of_ones_own_is_stylized_by_the_demos_model(here: Path) -> None:
    first = demo.prepare_demo(Path("demo"))
    own = plain_picture(here / "me.png", (20, 20), "green")
    prepared = demo.prepare_demo(Path("demo"), photo=own)
    assert prepared.config.name == first.config.name  # and need not be trained again
    assert prepared.photo == Path("demo/quickstart/own_photo/photo.png")
    # A copy that an earlier demo made may be named, too.
    assert demo.prepare_demo(Path("demo"), photo=prepared.photo).photo == prepared.photo


@pytest.mark.parametrize("name", ["me", "me.heic", ".me.jpg", "._me.jpg"])
def test_photo_of_ones_own_is_held_out_whatever_its_name(here: Path, name: str) -> None:
    Image.new("RGB", (20, 30), "green").save(here / name, "JPEG")
    data = demo.prepare_demo(Path("demo"), photo=here / name).config.data
    assert [path.name for path in find_photos_of(data, print).validation] == ["photo.png"]


def test_photo_of_ones_own_may_be_a_result(here: Path) -> None:
    photo = here / "me.png"
    write_picture(photo, Image.new("RGB", (20, 30), "green"))
    with pytest.raises(ResultError):
        read_picture(photo, takes_results=False)
    prepared = demo.prepare_demo(Path("demo"), photo=photo)
    assert read_picture(prepared.photo, takes_results=False).rgb.size == (20, 30)


def test_photo_of_an_earlier_demo_is_held_out_no_more(here: Path) -> None:
    for name in ("cat", "one.png", "two.jpg"):
        photo = None if name == "cat" else plain_picture(here / name, (20, 30), "green")
        prepared = demo.prepare_demo(Path("demo"), style=demo.STYLE_PICTURE, photo=photo)
        held_out = find_photos_of(prepared.config.data, print).validation
        assert held_out == [here / prepared.photo]


@pytest.mark.parametrize("argument", ["style", "photo"])
def test_picture_that_cannot_be_read_is_named_before_anything_is_written(
    here: Path, argument: str
) -> None:
    broken = here / "broken.jpg"
    broken.write_text("no picture")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        demo.prepare_demo(Path("demo"), **{argument: broken})
    assert not Path("demo").exists()


def forget_scikit_image(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def remove_a_photo(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (wheel / "data" / "coffee.png").unlink()


def put_a_file_in_place_of_the_folder(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("demo").touch()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            forget_scikit_image,
            "the demo's photos come with scikit-image, which is not installed: "
            "pip install 'fast-style[demo]'",
        ),
        (
            remove_a_photo,
            "{wheel}/data/coffee.png: the demo's photo is missing from this scikit-image; "
            "reinstall it: pip install --force-reinstall 'fast-style[demo]'",
        ),
        (
            put_a_file_in_place_of_the_folder,
            "demo/photos: cannot be written (Not a directory); the demo needs the folder demo: "
            "rename what is there, or change (cd) to another folder",
        ),
    ],
)
def test_what_a_user_can_mend_is_said(
    damage: Callable[[Path, pytest.MonkeyPatch], None],
    message: str,
    here: Path,
    wheel: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage(wheel, monkeypatch)
    with pytest.raises(UserError) as caught:
        demo.prepare_demo(Path("demo"))
    assert str(caught.value) == message.format(wheel=wheel)
    assert caught.value.exit_code == 2


# --- The settings ---------------------------------------------------------------------------------


def test_settings_alone_name_the_folder_that_make_demo_fills_in_a_checkout() -> None:
    config = load_config(demo.SETTINGS)
    named = (config.style.image, config.data.photos, config.data.validation_photos)
    folder = demo.SETTINGS.parents[2] / "demo"
    assert [path and path.resolve() for path in named] == [
        folder / "style.png",
        folder / "photos",
        folder / "held_out",
    ]


def test_picture_and_settings_are_package_data() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["fast_style"]
    package = ROOT / "fast_style"
    assert {demo.STYLE_PICTURE, demo.SETTINGS} <= {
        path for pattern in patterns for path in package.glob(pattern)
    }


# --- The whole demo -------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of seconds."""
    words = ["style.size=32", "data.crop_size=32", "data.workers=0", "model.width=2"]
    words += ["model.residual_blocks=1", "train.steps=4", "train.warmup_steps=1"]
    words += ["train.batch_size=1"]
    monkeypatch.setattr(
        demo, "load_config", lambda path, overrides: load_config(path, [*overrides, *words])
    )


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_demo_stylizes_ones_own_photo_in_ones_own_style(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    style = plain_picture(here / "bold.png", (40, 64), "red")
    photo = plain_picture(here / "large.jpg", (1600, 120), "blue")
    assert cli.main(["demo", "--device", "cpu", "--style", str(style), "--photo", str(photo)]) == 0
    (run,) = (here / "runs").iterdir()
    assert re.fullmatch(r"bold-[0-9a-f]{6}", run.name)
    with Image.open(here / "demo" / run.name / "result.png") as result:
        assert result.size == (800, 60)
    assert f"stylize --model runs/{run.name}/model.safetensors " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_photo_too_small_to_measure_is_stylized_all_the_same(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = plain_picture(here / "dot.png", (1, 1), "blue")
    assert cli.main(["demo", "--device", "cpu", "--photo", str(photo)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("style term")]
    for part in ("not measured", "1 x 1", "16"):
        assert part in line
    with Image.open(here / "demo" / "quickstart" / "result.png") as result:
        assert result.size == (1, 1)


def test_strip_as_a_style_is_refused_before_anything_is_written(here: Path) -> None:
    style = plain_picture(here / "strip.png", (1, 64), "red")
    with pytest.raises(UserError, match=r"strip\.png: 1 x 64 pixels are a strip; crop"):
        demo.prepare_demo(Path("demo"), style=style)
    assert not (here / "demo").exists()


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
        "  fast-style init YOUR_STYLE.jpg --output my_style.yaml; fast-style train my_style.yaml",
        "  tensorboard --logdir runs",
    ]
    figures = re.fullmatch(
        r"style term on a photo that was not trained on: (\S+) before, (\S+) after "
        r"\(COMPACT weights\)",
        lines[-7],
    )
    assert figures is not None
    assert figures[1] != figures[2]
    with Image.open("demo/sheet.png") as sheet:
        assert sheet.size == (150 + 8 + 100 + 8 + 150, 100)
    with Image.open("demo/result.png") as result:
        assert result.size == (150, 100)
    # The course: the photo, the picture of second 0, and the last one.
    shown = [line for line in lines if line.endswith("painted now is in demo/course.png")]
    assert [line.partition(", ")[2].partition(":")[0] for line in shown] == ["step 0", "step 4"]
    with Image.open("demo/course.png") as course:
        assert course.width == 12 + 3 * (150 + 12)
    assert not Path("demo/styles.png").exists()

    # Once more: the training is finished, and the rest is done again. Where the environment is not
    # activated, as after `make demo`, commands are shown with their folder.
    monkeypatch.setattr(shutil, "which", lambda command: None)
    monkeypatch.setattr(sys, "executable", str(Path(".venv/bin/python").absolute()))
    assert cli.main(["demo", "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    assert "runs/quickstart: finished at step 4" in output
    assert "--resume" not in output
    assert "train.init_from" not in output
    assert output.splitlines()[-1] == "  .venv/bin/tensorboard --logdir runs"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated(signal.SIGTERM)])
def test_demo_that_is_stopped_after_its_training_says_how_to_go_on(
    here: Path,
    error: KeyboardInterrupt,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*unused: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("fast_style.cli.demo.train", lambda *unused, **options: 0)
    monkeypatch.setattr(demo, "finish_demo", stop)
    assert cli.main(["demo", "--device", "cpu"]) > 128
    note, end = capsys.readouterr().err.splitlines()
    assert note.startswith("note: ")
    assert "the same command" in note
    assert end.startswith("error: ")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("env/bin", "../../env/bin/fast-style"),
        ("here/a/env/bin", "env/bin/fast-style"),
        ("../env/bin", "ABSOLUTE/fast-style"),
    ],
)
def test_command_of_a_distant_environment_has_its_absolute_path(
    here: Path, folder: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a").mkdir()
    monkeypatch.chdir(here / "a")
    environment = Path(os.path.normpath(here.parent / folder))
    monkeypatch.setattr(shutil, "which", lambda command: None)
    monkeypatch.setattr(sys, "executable", str(environment / "python"))
    assert demo._as_typed("fast-style") == expected.replace("ABSOLUTE", str(environment))


@pytest.mark.usefixtures("small")
def test_second_demo_beside_a_first_one_touches_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blue, red = (plain_picture(here / f"{c}.png", (40, 30), c) for c in ("blue", "red"))
    prepared = demo.prepare_demo(Path("demo"), photo=blue)
    with open_run(prepared.config, root=Path("runs"), fresh=False, say=ignore):
        before = {path: path.read_bytes() for path in Path("demo").rglob("*.*")}
        code = []
        # As another process: a lock of one's own thread is taken over.
        thread = Thread(target=lambda: code.append(cli.main(["demo", "--photo", str(red)])))
        thread.start()
        thread.join()
        assert {path: path.read_bytes() for path in Path("demo").rglob("*.*")} == before
    assert code == [2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: runs/quickstart: ")
    assert "name=" not in line
    assert "(cd)" in line


@pytest.mark.usefixtures("small")
def test_second_demo_in_the_same_moment_is_refused_and_one_in_another_folder_is_not(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    style, photo = (plain_picture(here / f"{c}.png", (40, 30), c) for c in ("blue", "red"))
    with demo.alone_in_folder(Path("demo"), photo=photo):
        assert cli.main(["demo", "--photo", str(style)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: demo/quickstart: process ")
        assert "(cd)" in line
        assert not Path("demo/quickstart/own_photo").exists()
        with demo.alone_in_folder(Path("demo"), style=style, photo=photo):
            assert len(list(Path("demo").iterdir())) == 2
    assert all(path.is_dir() for path in Path("demo").rglob("*"))  # no lock is left


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("change", ["train.learning_rate=0.5", None])
def test_demo_that_differs_from_its_run_names_a_remedy_that_it_has(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: str | None,
) -> None:
    usual = demo.load_config
    if change is not None:
        patched = lambda path, overrides: usual(path, [*overrides, change])  # noqa: E731
        monkeypatch.setattr(demo, "load_config", patched)
    assert cli.main(["demo", "--device", "cpu"]) == 0
    monkeypatch.setattr(demo, "load_config", usual)
    if change is None:
        shutil.rmtree("runs/quickstart/checkpoints")
    assert cli.main(["demo", "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: runs/quickstart: ")
    assert ("train.learning_rate" if change else "model.safetensors") in line
    assert "ename this folder" in line
    for missing in ("--resume", "name=", "train.init_from"):
        assert missing not in line


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_demo_shows_the_photo_that_it_began_with(here: Path) -> None:
    blue, red = (plain_picture(here / f"{c}.png", (40, 30), c) for c in ("blue", "red"))
    prepared = demo.prepare_demo(Path("demo"), photo=blue)
    demo.prepare_demo(Path("demo"), photo=red)  # began at the same moment
    build = partial(demo.build_demo, prepared)
    assert (
        train([prepared.config], device=torch.device("cpu"), fresh=False, group=ALONE, build=build)
        == 0
    )
    demo.finish_demo(prepared, Path("runs"), device="cpu")
    for name in ("demo/quickstart/course.png", "demo/quickstart/sheet.png"):
        with Image.open(name) as sheet:
            colors = {color for _, color in sheet.getcolors(1 << 24)}
        assert (0, 0, 255) in colors
        assert (255, 0, 0) not in colors


# --- Styles that come with fast-style -------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_demo_begins_with_the_photo_in_all_styles(
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "which", lambda command: f"/usr/bin/{command}")
    ship(monkeypatch, tmp_path / "more", "great_wave", "starry_night")
    assert cli.main(["demo", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "look at demo/styles.png: the photo in 2 styles that come with fast-style; use one with "
        "fast-style stylize --style great_wave YOUR_PHOTO.jpg"
    )
    assert "the COMPACT loss network" in lines[1]
    with Image.open("demo/styles.png") as sheet:
        assert sheet.width == 12 + 2 * (150 + 12)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_demo_trains_on_the_picture_of_a_style(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ships = ship(monkeypatch, tmp_path / "more", "great_wave")
    assert cli.main(["demo", "--device", "cpu", "--style", "great_wave"]) == 0
    (folder,) = (path for path in Path("demo").iterdir() if path.name.startswith("great_wave-"))
    assert pixels(folder / "style.png") == pixels(ships / "great_wave.jpg")
    assert (folder / "course.png").is_file()
    assert not (folder / "styles.png").exists()
