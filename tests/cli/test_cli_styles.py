"""``styles`` and ``--style``: the models that come with fast-style, listed, used and drawn."""

import os
from pathlib import Path

import numpy as np
import pytest
from command_line import Output, errors, photo_at, run
from noise_photos import write_noise_photo
from PIL import Image
from small_styles import ship

from fast_style.cli.arguments import style_picture
from fast_style.models.model_files import CheckpointError
from fast_style.pictures.reading import read_photo
from fast_style.styles import shipped
from fast_style.stylizing.stylizer import Stylizer

NAMES = ("great_wave", "starry_night", "water_lilies")


@pytest.fixture
def styles(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of three shipped styles."""
    return ship(monkeypatch, here / "ships", *NAMES)


@pytest.fixture
def no_styles(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship(monkeypatch, here / "ships")


def pixels(path: str | Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def expected(style: str, photo: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return np.asarray(Stylizer(shipped.find_style(style).model)(read_photo(Path(photo))))


# --- The list -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("styles")
def test_styles_are_listed_with_title_artist_and_year(capsys: Output) -> None:
    assert run("styles") == 0
    assert capsys.readouterr() == (
        "great_wave    The Great Wave, Hokusai, 1831\n"
        "starry_night  The Starry Night, Vincent van Gogh, 1889\n"
        "water_lilies  Water Lilies, Claude Monet, 1906\n",
        "",
    )


@pytest.mark.usefixtures("no_styles")
def test_installation_without_styles_has_an_empty_list_and_says_so(capsys: Output) -> None:
    assert run("styles") == 0
    assert capsys.readouterr() == (
        "no model comes with this installation; train one of your own: fast-style demo --style "
        "PICTURE\n",
        "",
    )


def test_damaged_model_is_told(styles: Path, capsys: Output) -> None:
    path = styles / "great_wave.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert run("styles") == CheckpointError("").exit_code
    assert "is damaged" in errors(capsys)[0]


# --- The sheet ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("styles")
def test_sheet_has_the_photo_and_all_styles_in_order(capsys: Output) -> None:
    photo_at("a.png")  # 48 x 40 pixels, with 12 between pictures
    assert run("styles", "--sheet", "a.png", "-o", "out/sheet.png", "--device", "cpu") == 0
    assert capsys.readouterr() == ("out/sheet.png: a.png in 3 styles\n", "")
    sheet = pixels("out/sheet.png")
    assert sheet.shape == (12 + 2 * (40 + 2 * 14 + 12), 12 + 2 * (48 + 12), 3)
    wanted = [pixels("a.png"), *(expected(name, "a.png") for name in NAMES)]
    corners = [(top, left) for top in (12, 12 + 40 + 2 * 14 + 12) for left in (12, 12 + 48 + 12)]
    for (top, left), picture in zip(corners, wanted, strict=True):
        assert np.array_equal(sheet[top : top + 40, left : left + 48], picture)
    below = sheet[12 + 40 : 12 + 40 + 28, 12 : 12 + 48]
    assert below.min() < 128  # a caption


@pytest.mark.usefixtures("styles")
def test_photo_of_several_pictures_is_noted(capsys: Output) -> None:
    frames = [Image.open(photo_at(f"{seed}.png", seed=seed)) for seed in range(3)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    assert run("styles", "--sheet", "a.gif", "-o", "sheet.png", "--device", "cpu") == 0
    assert capsys.readouterr().err.startswith("note: 1 of 3 pictures in a.gif is taken; magick ")


@pytest.mark.usefixtures("styles")
def test_photo_on_the_sheet_has_the_side_that_was_asked_for() -> None:
    photo_at("a.png")
    assert run("styles", "--sheet", "a.png", "--max-side", "24", "--device", "cpu") == 0
    assert pixels("styles.png").shape[1] == 12 + 2 * (24 + 12)


@pytest.mark.usefixtures("styles")
def test_broken_link_is_only_replaced_on_request(capsys: Output) -> None:
    photo_at("a.png")
    Path("styles.png").symlink_to("nowhere")
    assert run("styles", "--sheet", "a.png") == 2
    (line,) = errors(capsys)
    assert line.startswith("error: styles.png: is a broken link; ")
    assert "--overwrite" in line
    assert run("styles", "--sheet", "a.png", "--max-side", "24", "--overwrite") == 0
    assert Path("styles.png").is_file()


@pytest.mark.usefixtures("styles")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_device_or_pipe_is_never_replaced(capsys: Output) -> None:
    photo_at("a.png")
    os.mkfifo("styles.png")
    assert run("styles", "--sheet", "a.png", "--overwrite") == 2
    assert errors(capsys) == ["error: styles.png: is a device or a pipe; name a file"]
    assert Path("styles.png").is_fifo()


@pytest.mark.usefixtures("styles")
def test_grain_on_the_sheet_is_the_one_asked_for() -> None:
    photo_at("a.png")
    for levels in ("0", "20"):
        command = ("styles", "--sheet", "a.png", "-o", f"{levels}.png", "--device", "cpu")
        assert run(*command, "--grain", levels) == 0
    assert run("styles", "--sheet", "a.png", "-o", "own.png", "--device", "cpu") == 0
    none, much, own = (pixels(f"{name}.png") for name in ("0", "20", "own"))
    assert not np.array_equal(none, much)
    assert np.array_equal(none, own)  # no model of these asks for grain


@pytest.mark.usefixtures("styles")
def test_strokes_on_the_sheet_are_those_asked_for() -> None:
    write_noise_photo("a.png", width=120)
    for side in ("0", "64"):
        command = ("styles", "--sheet", "a.png", "-o", f"{side}.png", "--device", "cpu")
        assert run(*command, "--strokes", side) == 0
    assert not np.array_equal(pixels("0.png"), pixels("64.png"))


@pytest.mark.usefixtures("styles")
def test_sheet_replaces_only_on_request_and_never_the_photo(capsys: Output) -> None:
    photo_at("a.png")
    photo_at("styles.png")
    assert run("styles", "--sheet", "a.png") == 2
    assert errors(capsys) == ["error: styles.png: exists already; replace it with --overwrite"]
    assert run("styles", "--sheet", "a.png", "-o", "a.png", "--overwrite") == 2
    assert errors(capsys) == [
        "error: a.png: is an input, and would be replaced; choose another name"
    ]
    assert run("styles", "--sheet", "a.png", "--overwrite", "--device", "cpu") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "a.png"], "--output: works with --sheet only; add --sheet PHOTO"),
        (["--max-side", "9"], "--max-side: works with --sheet only; add --sheet PHOTO"),
        (["--strokes", "0"], "--strokes: works with --sheet only; add --sheet PHOTO"),
        (["--grain", "0"], "--grain: works with --sheet only; add --sheet PHOTO"),
        (["--overwrite"], "--overwrite: works with --sheet only; add --sheet PHOTO"),
        (["--sheet", "none.png"], "none.png: not found"),
        (["--sheet", "."], ".: a folder, not a picture; name a picture in it"),
        (["--sheet", "a.png", "-o", "ships"], "ships: is a folder; name a file"),
        (
            ["--sheet", "a.png", "-o", "b.gif"],
            "b.gif: cannot write the format '.gif'; use one of .jpg, .jpeg, .png, .webp, .tif, "
            ".tiff, .bmp",
        ),
    ],
)
@pytest.mark.usefixtures("styles")
def test_mistake_is_one_line(words: list[str], message: str, capsys: Output) -> None:
    photo_at("a.png")
    assert run("styles", *words) == 2
    assert errors(capsys) == [f"error: {message}"]


@pytest.mark.usefixtures("no_styles")
def test_no_sheet_of_no_styles(capsys: Output) -> None:
    photo_at("a.png")
    assert run("styles", "--sheet", "a.png") == 2
    assert errors(capsys) == [
        "error: no model comes with this installation; train one of your own: fast-style demo "
        "--style PICTURE"
    ]


# --- stylize --style ----------------------------------------------------------------------------


@pytest.mark.usefixtures("styles")
def test_style_stylizes_as_its_model_file_does(capsys: Output) -> None:
    photo_at("a.png")
    assert run("stylize", "--style", "starry_night", "a.png", "--device", "cpu") == 0
    assert capsys.readouterr() == ("a.starry_night.png\n", "")
    assert np.array_equal(pixels("a.starry_night.png"), expected("starry_night", "a.png"))


@pytest.mark.usefixtures("styles")
def test_all_styles_make_one_sheet_of_each_photo(capsys: Output) -> None:
    photo_at("a.png")
    photo_at("b.png", seed=1)
    assert run("stylize", "--style", "all", "a.png", "b.png", "--device", "cpu") == 0
    assert capsys.readouterr() == ("a.all.png\nb.all.png\n2 done, 0 skipped, 0 failed\n", "")
    assert run("styles", "--sheet", "b.png", "--device", "cpu") == 0
    assert np.array_equal(pixels("b.all.png"), pixels("styles.png"))


@pytest.mark.usefixtures("styles")
def test_pictures_of_a_sheet_are_shrunk_unless_a_side_is_given(here: Path) -> None:
    Image.new("RGB", (600, 100), "blue").save("wide.png")
    assert run("stylize", "--style", "all", "wide.png", "--device", "cpu") == 0
    assert pixels("wide.all.png").shape[1] == 12 + 2 * (shipped.SHEET_SIDE + 12)
    words = ["--style", "all", "wide.png", "--device", "cpu", "--overwrite", "--max-side", "90"]
    assert run("stylize", *words) == 0
    assert pixels("wide.all.png").shape[1] == 12 + 2 * (90 + 12)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--style", "wave"],
            "--style wave: no style of this name comes with fast-style; did you mean "
            "'great_wave'? fast-style styles lists all",
        ),
        (
            ["--style", "all", "--compile"],
            "--compile: would take minutes for every style; remove it, or --style all",
        ),
        (
            ["--style", "great_wave", "--model", "m"],
            "argument --model/-m: not allowed with argument --style; see fast-style stylize --help",
        ),
        (
            [],
            "one of the arguments --style --model/-m is required; see fast-style stylize --help",
        ),
    ],
)
@pytest.mark.usefixtures("styles")
def test_mistake_about_the_style_is_one_line(
    words: list[str], message: str, capsys: Output
) -> None:
    photo_at("a.png")
    assert run("stylize", "a.png", *words) == 2
    assert errors(capsys) == [f"error: {message}"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("all", "no model comes with this installation; give a model.safetensors with --model"),
        (
            "starry_night",
            "--style starry_night: no model comes with this installation; give a "
            "model.safetensors with --model",
        ),
    ],
)
@pytest.mark.usefixtures("no_styles")
def test_style_of_an_installation_without_models(name: str, message: str, capsys: Output) -> None:
    photo_at("a.png")
    assert run("stylize", "a.png", "--style", name) == 2
    assert errors(capsys) == [f"error: {message}"]


# --- Style pictures of other commands -----------------------------------------------------------


@pytest.mark.usefixtures("styles")
def test_init_takes_the_picture_of_a_style(capsys: Output) -> None:
    assert run("init", "starry_night") == 0
    text = capsys.readouterr().out
    assert "image: starry_night\n" in text  # its path is another one in another environment
    assert "\nname: starry_night\n" in text


@pytest.mark.parametrize(
    "words",
    [
        ["init", "starry_nigt"],
        ["demo", "--style", "starry_nigt"],
        ["evaluate", "ships/great_wave.safetensors", "--photos", "a.png", "-o", "report",
         "--style", "starry_nigt"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
@pytest.mark.usefixtures("styles")
def test_mistyped_style_picture_is_answered_with_the_nearest_style(
    words: list[str], capsys: Output
) -> None:
    photo_at("a.png")
    assert run(*words) == 2
    assert errors(capsys) == ["error: starry_nigt: not found; did you mean 'starry_night'?"]


def test_argument_is_the_picture_of_a_style(styles: Path) -> None:
    assert style_picture("starry_night") == styles / "starry_night.jpg"
    assert style_picture("own.jpg") == Path("own.jpg")
