"""``try``: a first look at photos in the style of any picture."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Output, errors, photo_at, run
from PIL import Image
from small_styles import ship

from fast_style.cli.first_look import _captions

NAMES = ("great_wave", "starry_night")
DEVICES = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])


@pytest.fixture
def styles(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of two shipped styles."""
    return ship(monkeypatch, here / "ships", *NAMES)


def size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.usefixtures("styles")
def test_one_photo_becomes_a_picture_of_its_size_and_the_way_to_a_better_one_is_told(
    capsys: Output,
) -> None:
    photo_at("a.png")
    photo_at("paint.png", seed=1)
    assert run("try", "paint.png", "a.png", "-o", "out/look.png", "--device", "cpu") == 0
    out, err = capsys.readouterr()
    assert size("out/look.png") == size("a.png")
    first, *_, advice = out.splitlines()
    assert first.startswith("out/look.png: a.png in the style of paint.png; ")
    assert advice == "  fast-style demo --style paint.png --photo a.png"
    assert err == ""


@pytest.mark.usefixtures("styles")
def test_advice_can_be_pasted_whatever_the_names(capsys: Output) -> None:
    photo_at("-a b.png")
    photo_at("new\nline.png", seed=1)
    words = ["./new\nline.png", "./-a b.png", "-o", "look.png", "--device", "cpu"]
    assert run("try", *words, "--iterations", "0") == 0
    advice = capsys.readouterr().out.splitlines()[-1]
    assert advice == "  fast-style demo --style YOUR_PICTURE --photo './-a b.png'"


@pytest.mark.usefixtures("styles")
def test_several_styles_and_photos_make_a_sheet(capsys: Output) -> None:
    photo_at("a.png")
    photo_at("b.png", seed=1)
    photo_at("paint.png", seed=2)
    words = [
        "paint.png",
        "a.png",
        "b.png",
        "--style",
        "great_wave",
        "--max-side",
        "40",
        "--iterations",
        "1",
    ]
    assert run("try", *words, "--device", "cpu") == 0
    assert capsys.readouterr().out.startswith("first_look.png: 2 photos in 2 styles; ")
    assert size("first_look.png") == (12 + 3 * 52, 12 + 3 * (40 + 14 + 12))


@pytest.mark.usefixtures("styles")
def test_sheet_is_no_larger_than_its_photos_need() -> None:
    photo_at("one/a.png")
    photo_at("two/a.png", seed=1)
    words = ["great_wave", "one/a.png", "two/a.png", "--max-side", "3000000000"]
    assert run("try", *words, "--device", "cpu") == 0
    assert size("first_look.png") == (12 + 2 * 60, 12 + 3 * (48 + 14 + 12))


def test_files_of_one_name_are_captioned_with_their_folders(here: Path) -> None:
    assert _captions([Path("one/a.png"), Path("two/a.jpg")]) == ["one/a", "two/a"]
    assert _captions([Path("one/a.png"), Path("two/b.jpg")]) == ["a", "b"]


@pytest.mark.usefixtures("styles")
def test_advice_can_be_pasted_into_a_shell(capsys: Output) -> None:
    photo_at("my photo.png")
    photo_at("it's.png", seed=1)
    assert run("try", "it's.png", "my photo.png", "--device", "cpu") == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words == ["fast-style", "demo", "--style", "it's.png", "--photo", "my photo.png"]


@pytest.mark.usefixtures("styles")
def test_transparency_is_kept(capsys: Output) -> None:
    photo = Image.new("RGBA", (48, 40), "olive")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.save("a.png")
    assert run("try", "great_wave", "a.png", "--device", "cpu") == 0
    with Image.open("first_look.png") as drawn:
        assert np.array_equal(drawn.getchannel("A"), photo.getchannel("A"))


@pytest.mark.usefixtures("styles")
def test_large_photo_is_shrunk_to_the_side_that_was_asked_for() -> None:
    Image.new("RGB", (300, 150), "green").save("a.png")
    words = ["try", "great_wave", "a.png", "--device", "cpu", "--iterations", "0", "--max-side"]
    assert run(*words, "60") == 0
    assert size("first_look.png") == (60, 30)
    assert run(*words, "400", "--overwrite") == 0
    assert size("first_look.png") == (300, 150)


@pytest.mark.usefixtures("styles")
def test_photo_that_is_given_twice_is_drawn_once_and_told(capsys: Output) -> None:
    photo_at("a.png")
    assert run("try", "great_wave", "a.png", "./a.png", "--device", "cpu") == 0
    out, err = capsys.readouterr()
    assert out.startswith("first_look.png: a.png in the style of ")
    assert err == "note: a.png: given twice; it is drawn once\n"


@pytest.mark.usefixtures("styles")
def test_style_that_ships_is_told_by_its_name(capsys: Output) -> None:
    photo_at("a.png")
    words = ["great_wave", "a.png", "--style", "great_wave", "--iterations", "0"]
    assert run("try", *words, "--device", "cpu") == 0
    out, err = capsys.readouterr()
    assert out.startswith("first_look.png: a.png in the style of great_wave; ")
    assert out.endswith("fast-style demo --style great_wave --photo a.png\n")
    assert err == "note: great_wave: given twice; it is used once\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.png", "a.png"], "none.png: not found"),
        (["starry_nigt", "a.png"], "starry_nigt: not found; did you mean 'starry_night'?"),
        (["a.png", "none.png"], "none.png: not found"),
        (["a.png", "."], ".: a folder, not a picture; name a picture in it"),
        (["a.png", "b.png", "-o", "a.png", "--overwrite"], "a.png: is an input, and would be "
         "replaced; choose another name"),
        (["a.png", "b.png", "-o", "b.png", "--overwrite"], "b.png: is an input, and would be "
         "replaced; choose another name"),
        (["a.png", "b.png", "-o", "c.png"], "c.png: exists already; replace it with --overwrite"),
        (["a.png", "b.png", "-o", "d.gif"], "d.gif: cannot write the format '.gif'; use one of "
         ".jpg, .jpeg, .png, .webp, .tif, .tiff, .bmp"),
        (["a.png", "b.png", "-o", "look"], "look: a picture's file needs a suffix, which names its "
         "format; use one of .jpg, .jpeg, .png, .webp, .tif, .tiff, .bmp"),
        (["a.png", "b.png", "--device", "cuda:99"], "--device cuda:99: not on this machine; choose "
         f"one of auto, {DEVICES}"),
        (["strip.png", "a.png"], "strip.png: 300 x 3 pixels are a strip; crop the style picture "
         "to at most 20 times as long as wide"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("styles")
def test_mistake_is_one_line(words: list[str], message: str, capsys: Output) -> None:
    for name in ("a.png", "b.png", "c.png"):
        photo_at(name)
    Image.new("RGB", (300, 3)).save("strip.png")
    assert run("try", *words) == 2
    assert errors(capsys) == [f"error: {message}"]
    assert not Path("first_look.png").exists()


@pytest.mark.usefixtures("styles")
def test_more_updates_make_another_picture_and_twelve_are_the_default() -> None:
    photo_at("a.png")
    drawn = []
    for words in (["--iterations", "0"], ["--iterations", "12"], []):
        words = ["great_wave", "a.png", "--device", "cpu", "--overwrite", *words]
        assert run("try", *words) == 0
        drawn.append(np.asarray(Image.open("first_look.png").convert("RGB"), np.float32))
    assert np.abs(drawn[0] - drawn[1]).mean() > 1
    assert np.array_equal(drawn[1], drawn[2])


def test_installation_without_styles_has_first_looks_too(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(monkeypatch, here / "ships")
    photo_at("a.png")
    photo_at("paint.png", seed=1)
    assert run("try", "paint.png", "a.png", "--device", "cpu", "--iterations", "1") == 0
    assert size("first_look.png") == size("a.png")
