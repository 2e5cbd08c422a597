"""Claims about `starting_file`: what ``fast-style init`` prints."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from settings_files import LEAST, read

from fast_style.settings.config import Config
from fast_style.settings.starting_file import laptop_file, starting_file
from fast_style.settings.writing import changed_settings
from fast_style.styles import shipped

ODD_NAMES = st.text(
    # $ may begin the name of a variable; test_settings_reading has names with it
    st.characters(exclude_characters="/\0$", exclude_categories=["Cs"]),
    min_size=1,
    max_size=60,
)


def from_starting_file(folder: Path, style: Path) -> Config:
    return read(Config, folder, starting_file(style).encode("utf-8"))


def test_the_starting_file_explains_itself():
    text = starting_file(Path("/styles/starry_night.jpg"))
    lines = text.splitlines()
    for line in [
        "name: starry_night",
        "  image: /styles/starry_night.jpg",
        "  photos: data/photos",
        "  # Number of optimizer steps in all.",
        "  weights: compact",
        "#   tensorboard --logdir runs                      watch the training",
    ]:
        assert lines.count(line) == 1
    assert "  fast-style train my.yaml  " in text
    assert "and no download" in text
    assert all(len(line) <= 100 and line == line.rstrip() for line in lines)
    assert not re.search(r"\n\n\n", text)


def test_the_starting_file_differs_from_the_defaults_in_what_a_laptop_needs(tmp_path):
    defaults = read(Config, tmp_path, LEAST)
    changed = changed_settings(defaults, read(Config, tmp_path, starting_file(Path("/s.jpg"))))
    assert {key: new for key, _, new in changed} == {
        "name": "s",
        "style.image": "/s.jpg",
        "data.photos": str(tmp_path / "data/photos"),
        "data.crop_size": 160,
        "model.width": 16,
        "loss_network.weights": "compact",
        "loss.content_layers.relu1_2": 0.5,
        "loss.content_layers.relu2_2": 0.5,
        "loss.style_distance": "sliced",
        "loss.style_weight": 2.5,
        "loss.halo_weight": 150.0,
        "loss.adversarial_weight": 0.1,
        "train.init_from": "nearest",
        "train.steps": 900,
        "train.batch_size": 2,
        "log.samples_every": 100,
        "log.checkpoint_every": 100,
    }


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("starry_night.jpg", "starry_night"),
        ("Die Brücke.tar.jpg", "Die-Brucke.tar"),
        ("墨.jpg", "my-style"),
        (".hidden", "hidden"),
        ("1e5.png", "1e5"),
        ("null", "null"),
        ("a: #'\"b\n.jpg", "a-b"),
        ("x" * 200, "x" * 100),
        ("-_.", "my-style"),
    ],
)
def test_the_run_is_named_after_the_style(tmp_path, file_name, name):
    assert from_starting_file(tmp_path, Path(file_name)).name == name


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(name=ODD_NAMES)
@example(name="~")
@example(name="..")
@example(name=" leading and trailing ")
@example(name="a\u0085b\u2028c\ufeff")
@example(name="😀: #")
def test_the_starting_file_of_any_style_is_the_one_for_laptops(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("start")
    style = Path("/styles") / name
    config = from_starting_file(folder, style)
    assert config.style.image == style
    assert config.data.photos == folder / "data" / "photos"
    laptop = read(Config, folder, laptop_file())
    data = laptop.data.model_copy(update={"photos": config.data.photos})
    update = {"name": config.name, "style": config.style, "data": data}
    assert config == laptop.model_copy(update=update)


def test_a_relative_style_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    config = from_starting_file(tmp_path / "elsewhere", Path("s.jpg"))
    assert config.style.image == tmp_path / "s.jpg"


def test_a_style_that_ships_is_written_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ships = tmp_path / "ships"
    ships.mkdir()
    (ships / "wave.jpg").touch()
    (ships / "wave.safetensors").touch()
    monkeypatch.setattr(shipped, "FOLDER", ships)
    text = starting_file(ships / "wave.jpg")
    assert "\n  image: wave\n" in text
    assert read(Config, tmp_path, text).style.image == ships / "wave.jpg"
