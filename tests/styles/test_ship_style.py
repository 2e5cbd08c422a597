"""docs/ship_style.py puts the model of a run among the shipped styles, as often as one likes."""

import hashlib
import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tiny_model import write_tiny_model

from fast_style.models.model_files import read_description
from fast_style.settings.config import load_config, parse_config
from fast_style.styles import shipped
from fast_style.styles.shipped import ShippedStyle, find_style
from fast_style.training.start import BASE_FILE

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "ship_style.py"
CONFIGS = SCRIPT.parents[1] / "configs"
ABOUT = ["--title", "The Wave", "--artist", "Hokusai", "--year", "1831"]
ABOUT += ["--source", "a museum", "--license", "CC0"]

Main = Callable[[list[str]], None]


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """The script's `main`, in a folder with a finished run and a photo."""
    (tmp_path / "styles").mkdir()
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "styles")
    monkeypatch.chdir(tmp_path)
    Path("great_wave").mkdir()
    write_tiny_model(Path("great_wave/model.safetensors"), name="run-1")
    Image.new("RGB", (1030, 515), "teal").save("great_wave/style.png")
    Path("great_wave/metrics.csv").write_text(
        "step,validation/total,validation/blots\n0,9.87654,\n1,,\n2,1.23456,0.5\n3,,\n"
    )
    Image.new("RGB", (40, 30), "gold").save("photo.png")
    main: Main = runpy.run_path(str(SCRIPT))["main"]
    monkeypatch.setitem(main.__wrapped__.__globals__, "CONFIGS", tmp_path / "configs")
    return main


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shipped.FOLDER.iterdir()}


def error_of(main: Main, words: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return str(caught.value)


def test_run_becomes_a_style_with_picture_and_card(
    main: Main, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["great_wave", "--photos", "photo.png", *ABOUT])
    style = find_style("great_wave")
    assert style.picture is not None
    with Image.open(style.picture) as picture:
        assert picture.size == (512, 256)
    description = read_description(style.model)
    assert (description["name"], description["license"]) == ("great_wave", "CC0")
    assert description["card"]["title"] == "The Wave"
    card = style.model.with_suffix(".md").read_text()
    assert card.startswith("# The Wave\n\nHokusai, 1831. The picture is from a museum.\n")
    for line in (
        "![The Wave](great_wave.jpg)",
        "    fast-style stylize --style great_wave photo.jpg",
        "- held-out photos, total: 1.23",
        "- held-out photos, blots: 0.5",
        "    name: great_wave",
    ):
        assert f"\n{line}\n" in card
    size = style.model.stat().st_size
    assert f"great_wave.safetensors: {size} bytes, 8 bits, differs by " in capsys.readouterr().out


def test_grain_is_kept_until_other_grain_is_given(main: Main) -> None:
    words = ["great_wave", "--photos", "photo.png", *ABOUT]
    for grain, expected in ((["--grain", "5"], 5), ([], 5), (["--grain", "0"], None)):
        main([*words, *grain])
        model = find_style("great_wave").model
        assert read_description(model).get("grain") == expected
        card = model.with_suffix(".md").read_text()
        recipe = Path("configs/styles/great_wave.yaml").read_text()
        for line, text in (
            ("- grain: 5 of 255 is added to photos\n", card),
            ("    fast-style stylize --grain 5 -m MODEL photo.jpg  # with that\n", card),
            ("# The shipped model asks for --grain 5 of stylize.\n", recipe),
        ):
            assert (line in text) == (expected is not None)
    mistake = error_of(main, [*words, "--grain", "33"])
    assert mistake.startswith("error: argument --grain: must be a number from 0 to 32, got '33'")


def test_its_settings_become_a_file_that_trains_it_again(main: Main) -> None:
    main(["great_wave", "--photos", "photo.png", *ABOUT])
    path = Path("configs/styles/great_wave.yaml")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# The Wave, Hokusai, 1831: a style that comes with fast-style.\n")
    again = load_config(path)
    assert again.style.image == find_style("great_wave").picture
    stored = read_description(find_style("great_wave").model)["settings"]
    trained = parse_config(stored, "the model")
    update = {"style": again.style, "data": again.data}
    assert trained.model_copy(update=update) == again
    assert trained.data.model_copy(update={"photos": again.data.photos}) == again.data


@pytest.mark.parametrize("style", shipped.shipped_styles(), ids=lambda style: style.name)
def test_the_repository_has_the_settings_of_every_style(style: ShippedStyle) -> None:
    # docs/ship_style.py writes them.
    recipe = runpy.run_path(str(SCRIPT))["recipe"]
    expected = recipe(read_description(style.model), style.picture is not None)
    path = CONFIGS / "styles" / f"{style.name}.yaml"
    assert path.read_text(encoding="utf-8") == expected


def write_judgement(path: str, *, digest: str, equals: int | None) -> None:
    """A judge.json of two models in styles of their own, the second with this digest."""
    measures = {"content": 1.0, "style": 0.25, "second_opinion": 0.125, "blots": 0.01}
    measures |= {"shift": 0.009, "noise_gain": 0.3}
    found = {"wave": measures | {"equals": equals}}
    report = {
        "iterations": 100,
        "models": [{"name": "scream", "digest": "0"}, {"name": "wave", "digest": digest}],
        "styles": [
            {"name": "munch", "photos": [{"name": "a.jpg"}]},
            {"name": "hokusai", "photos": [{"name": "face.jpg"}, {"name": "night.jpg"}]},
        ],
        "summary": {"styles": {"munch": {"models": {"scream": {}}}, "hokusai": {"models": found}}},
    }
    Path(path).write_text(json.dumps(report))


@pytest.mark.parametrize(("equals", "words"), [(17, "17"), (None, "more than 100")])
def test_card_says_what_the_judge_found(main: Main, equals: int | None, words: str) -> None:
    digest = hashlib.sha256(Path("great_wave/model.safetensors").read_bytes()).hexdigest()
    write_judgement("judge.json", digest=digest, equals=equals)
    main(["great_wave", "--photos", "photo.png", *ABOUT, "--judged", "judge.json"])
    card = find_style("great_wave").model.with_suffix(".md").read_text()
    for line in (
        "- the judge's photos: face.jpg, night.jpg",
        f"- the judge, equals iterations of L-BFGS: {words}",
        "- the judge, second_opinion: 0.125",
    ):
        assert f"\n{line}\n" in card


def test_judgement_of_another_model_is_refused(main: Main) -> None:
    write_judgement("judge.json", digest="1", equals=17)
    words = ["great_wave", "--photos", "photo.png", *ABOUT, "--judged", "judge.json"]
    message = "error: judge.json: has no model of this run; judge it first"
    assert error_of(main, words) == message
    assert files() == {}


def test_judgement_that_is_no_json_is_told(main: Main) -> None:
    Path("judge.json").write_text("{")
    words = ["great_wave", "--photos", "photo.png", *ABOUT, "--judged", "judge.json"]
    message = error_of(main, words)
    assert message.startswith("error: judge.json: is no judge.json (")
    assert files() == {}


def test_the_repository_has_the_settings_of_the_base() -> None:
    expected = runpy.run_path(str(SCRIPT))["recipe"](read_description(BASE_FILE), False)
    assert (CONFIGS / "base.yaml").read_text(encoding="utf-8") == expected


def test_run_becomes_the_base(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path("base.safetensors")
    monkeypatch.setitem(main.__wrapped__.__globals__, "BASE_FILE", base)
    main(["great_wave", "--base", "--photos", "photo.png", *ABOUT])
    assert read_description(base)["name"] == "base"
    assert files() == {}
    card = Path("base.md").read_text(encoding="utf-8")
    assert "    fast-style train configs/base.yaml data.photos=PHOTOS  # trains it again\n" in card
    assert "stylize" not in card
    assert load_config(Path("configs/base.yaml")).style.image.parts[-2:] == ("styles", "wave.jpg")


def test_run_again_it_knows_what_it_was_told_and_writes_the_same(main: Main) -> None:
    main(["great_wave", "--photos", "photo.png", *ABOUT])
    before = files()
    main(["great_wave", "--photos", "photo.png"])
    assert files() == before
    main(["great_wave", "--photos", "photo.png", "--year", "about 1831"])
    assert read_description(find_style("great_wave").model)["card"]["year"] == "about 1831"


def test_picture_that_may_not_be_given_away_is_left_out(main: Main) -> None:
    main(["great_wave", "--photos", "photo.png", *ABOUT])
    main(["great_wave", "--photos", "photo.png", "--no-picture"])
    assert sorted(files()) == ["great_wave.md", "great_wave.safetensors"]
    assert b"![" not in files()["great_wave.md"]


def test_name_picture_and_notes_are_those_of_the_command_line(main: Main) -> None:
    Image.new("RGB", (30, 60), "red").save("other.png")
    Path("notes.md").write_text("Judged: 25 iterations.\n")
    words = ["--name", "wave_2", "--picture", "other.png", "--notes", "notes.md"]
    main(["great_wave", "--photos", "photo.png", *ABOUT, *words])
    style = find_style("wave_2")
    assert style.picture is not None
    with Image.open(style.picture) as picture:
        assert picture.size == (30, 60)
    assert style.model.with_suffix(".md").read_text().endswith("\n\nJudged: 25 iterations.\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (ABOUT[2:], "--title: is not known yet; give it"),
        (ABOUT[:-2], "--license: is not known yet; give it"),
        (
            [*ABOUT, "--name", "all"],
            "--name all: must be small letters, digits and _, and not all; give another --name",
        ),
        (
            [*ABOUT, "--name", "../x"],
            "--name ../x: must be small letters, digits and _, and not all; give another --name",
        ),
        ([*ABOUT, "--picture", "none.jpg"], "none.jpg: not found"),
    ],
)
def test_mistake_is_told_and_nothing_written(main: Main, words: list[str], message: str) -> None:
    assert error_of(main, ["great_wave", "--photos", "photo.png", *words]) == f"error: {message}"
    assert files() == {}
