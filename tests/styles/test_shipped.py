"""Styles that come with fast-style: found by name, and unknown names answered with near ones."""

import tomllib
from pathlib import Path

import pytest

from fast_style.core.errors import UserError
from fast_style.styles import shipped
from fast_style.styles.shipped import (
    find_style,
    near_names,
    picture_hint,
    require_styles,
    shipped_styles,
    style_picture,
    word_for,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three styles, one without its picture; only their names are looked at."""
    folder = tmp_path / "styles"
    folder.mkdir()
    for name in ("starry_night.safetensors", "starry_night.jpg", "great_wave.safetensors"):
        (folder / name).touch()
    for name in ("water_lilies.safetensors", "water_lilies.jpg", "water_lilies.md", "stray.jpg"):
        (folder / name).touch()
    monkeypatch.setattr(shipped, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without models."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)


def message(name: str) -> str:
    with pytest.raises(UserError) as caught:
        find_style(name)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_styles_are_listed_by_name_with_the_pictures_that_are_there(folder: Path) -> None:
    assert [(style.name, style.picture) for style in shipped_styles()] == [
        ("great_wave", None),
        ("starry_night", folder / "starry_night.jpg"),
        ("water_lilies", folder / "water_lilies.jpg"),
    ]


def test_style_is_found_by_its_name(folder: Path) -> None:
    assert find_style("great_wave").model == folder / "great_wave.safetensors"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "starry_nigt",
            "--style starry_nigt: no style of this name comes with fast-style; did you mean "
            "'starry_night'? fast-style styles lists all",
        ),
        (
            "qqq\n",
            r"--style qqq\n: no style of this name comes with fast-style; fast-style styles "
            "lists all",
        ),
        (
            "mine.jpg",
            "--style mine.jpg: is a file, but --style takes the name of a style that comes with "
            "fast-style; give a model with --model, and make one of a style picture with "
            "fast-style demo --style mine.jpg",
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_unknown_name_is_answered_with_the_nearest_ones(name: str, expected: str) -> None:
    Path("mine.jpg").touch()
    assert message(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wave", ["great_wave"]),
        ("Starry Night", ["starry_night"]),
        ("great-wave", ["great_wave"]),
        ("t", ["great_wave", "starry_night", "water_lilies"]),
        ("waterlillies", ["water_lilies"]),
        ("", []),
        ("-", []),
        ("guernica", []),
    ],
)
@pytest.mark.usefixtures("folder")
def test_near_names_contain_the_word_or_resemble_it(name: str, expected: list[str]) -> None:
    assert near_names(name) == expected


@pytest.mark.usefixtures("nothing")
def test_installation_without_models_says_so() -> None:
    assert shipped_styles() == []
    assert message("starry_night") == (
        "--style starry_night: no model comes with this installation; give a model.safetensors "
        "with --model"
    )
    with pytest.raises(UserError, match=r"^no model comes with this installation; train one$"):
        require_styles("train one")


def test_name_means_the_picture_that_ships_unless_there_is_such_a_file(folder: Path) -> None:
    assert style_picture("starry_night", Path("starry_night")) == folder / "starry_night.jpg"
    for text in ("great_wave", "starry_nigt", "sub/starry_night"):  # without picture, unknown, path
        assert style_picture(text, Path(text)) == Path(text)
    Path("starry_night").touch()
    assert style_picture("starry_night", Path("starry_night")) == Path("starry_night")


def test_word_for_a_picture_that_ships_is_the_name_unless_there_is_such_a_file(
    folder: Path,
) -> None:
    assert word_for(folder / "starry_night.jpg") == "starry_night"
    for path in (folder / "other.jpg", Path("sub/starry_night.jpg"), Path("starry_night")):
        assert word_for(path) == str(path)
    Path("starry_night").touch()
    assert word_for(folder / "starry_night.jpg") == str(folder / "starry_night.jpg")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("great_wave", "; the style of this name comes without its picture"),
        ("pictures/great_wave", "; the style of this name comes without its picture"),
        ("starry_nigt", "; did you mean 'starry_night'?"),
        ("pictures/starry_nigt", "; did you mean 'starry_night'?"),
        ("starry_nigt.jpg", ""),
        (
            "guernica",
            "; give a picture, or the name of a style: fast-style styles lists all",
        ),
        ("guernica.jpg", ""),
        ("pictures/guernica", ""),
    ],
)
@pytest.mark.usefixtures("folder")
def test_missing_picture_is_answered_with_styles_that_may_be_meant(
    path: str, expected: str
) -> None:
    assert picture_hint(Path(path)) == expected


def test_files_of_a_style_are_package_data() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["fast_style"]
    assert {f"styles/*{suffix}" for suffix in (".safetensors", ".jpg", ".md")} <= set(patterns)
