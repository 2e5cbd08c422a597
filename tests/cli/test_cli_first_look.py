"""``try``: a first look at photos in the style of any picture."""

from pathlib import Path

import numpy as np
import pytest
from command_line import Output, errors, photo_at, run
from PIL import Image
from small_styles import ship

NAMES = ("great_wave", "starry_night")


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
    assert first.startswith("out/look.png: a.png in the colors of paint.png and the strokes of ")
    assert advice == "  fast-style demo --style paint.png --photo a.png"
    assert err == ""


@pytest.mark.usefixtures("styles")
def test_several_styles_and_photos_make_a_sheet(capsys: Output) -> None:
    photo_at("a.png")
    photo_at("b.png", seed=1)
    photo_at("paint.png", seed=2)
    words = ["paint.png", "a.png", "b.png", "--style", "great_wave", "--max-side", "40"]
    assert run("try", *words, "--device", "cpu") == 0
    assert capsys.readouterr().out.startswith("first_look.png: 2 photos in 2 styles; ")
    assert size("first_look.png") == (12 + 3 * 52, 12 + 3 * (40 + 14 + 12))


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
    words = ["try", "great_wave", "a.png", "--device", "cpu", "--max-side"]
    assert run(*words, "60") == 0
    assert size("first_look.png") == (60, 30)
    assert run(*words, "400", "--overwrite") == 0
    assert size("first_look.png") == (300, 150)


@pytest.mark.usefixtures("styles")
def test_photo_that_is_given_twice_is_drawn_once_and_told(capsys: Output) -> None:
    photo_at("a.png")
    assert run("try", "great_wave", "a.png", "./a.png", "--device", "cpu") == 0
    out, err = capsys.readouterr()
    assert out.startswith("first_look.png: a.png in the colors of ")
    assert err == "note: a.png: given twice; it is drawn once\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.png", "a.png"], "none.png: not found"),
        (["starry_nigt", "a.png"], "starry_nigt: not found; did you mean 'starry_night'?"),
        (["a.png", "none.png"], "none.png: not found"),
        (["a.png", "."], ".: a folder, not a picture"),
        (["a.png", "b.png", "-o", "a.png", "--overwrite"], "a.png: is an input, and would be "
         "replaced; choose another name"),
        (["a.png", "b.png", "-o", "b.png", "--overwrite"], "b.png: is an input, and would be "
         "replaced; choose another name"),
        (["a.png", "b.png", "-o", "c.png"], "c.png: exists already; replace it with --overwrite"),
        (["a.png", "b.png", "-o", "d.gif"], "d.gif: cannot write the format '.gif'; use one of "
         ".jpg, .jpeg, .png, .webp, .tif, .tiff, .bmp"),
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


def test_installation_without_styles_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    ship(monkeypatch, here / "ships")
    photo_at("a.png")
    photo_at("paint.png", seed=1)
    assert run("try", "paint.png", "a.png") == 2
    (line,) = errors(capsys)
    assert line.endswith("train one of your own: fast-style demo --style PICTURE")
