"""`fast-style optimize`: what it prints, what it writes, and how it ends."""

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from small_run import draw_photo

from fast_style.cli import main as cli
from fast_style.core.errors import UserError
from fast_style.optimizing import picture
from fast_style.optimizing.course import Course
from fast_style.pictures import writing
from fast_style.pictures.pixels import image_to_tensor
from fast_style.settings.gatys_config import load_gatys_config

ROOT = Path(__file__).resolve().parents[2]
SCIPY_MISSING = (
    "error: this L-BFGS is SciPy's, which is not installed: pip install 'fast-style[evaluation]'"
)
WRITABLE = "use one of .jpg, .jpeg, .png, .webp, .tif, .tiff, .bmp"
KNOWN_FORMATS = "(JPEG, MPO, PNG, WEBP, BMP, DIB, GIF, TIFF, AVIF, JPEG2000)"

Output = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with settings, a photo of 40 x 32 pixels and a style picture."""
    monkeypatch.chdir(tmp_path)
    draw_photo(1, (40, 32)).save("photo.png")
    draw_photo(100).save("style.png")
    settings = {
        "style": {"image": "style.png"},
        "loss_network": {"weights": "random"},
        "loss": {"content_layers": {"relu1_2": 1.0}, "style_layers": {"relu1_1": 1.0}},
        "optimize": {"size": 16, "iterations": 4},
    }
    Path("my.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def run(*arguments: str) -> int:
    """The exit code, whether it is returned or raised."""
    try:
        return cli.main(["optimize", *arguments])
    except SystemExit as end:
        return int(end.code or 0)


def draw(*arguments: str) -> int:
    """The same with settings, photo and output."""
    return run("my.yaml", "--content", "photo.png", "--output", "out.png", *arguments)


def errors(capsys: Output) -> list[str]:
    """The lines on stderr; stdout must be empty."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def files() -> set[str]:
    """All that is here, apart from what was here at the beginning."""
    found = {path.as_posix() for path in Path().rglob("*") if path.is_file()}
    return found - {"my.yaml", "photo.png", "style.png"}


# --- Help ---------------------------------------------------------------------------------------


def test_help_shows_examples(capsys: Output) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: fast-style optimize ")
    _, _, examples = text.partition("\nexamples:\n")
    assert "  fast-style optimize configs/optimize/gatys.yaml --content" in examples


def test_commands_of_the_examples_are_understood(
    here: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--help")
    lines = capsys.readouterr().out.partition("\nexamples:\n")[2].splitlines()
    commands = [line.split()[2:] for line in lines if line.startswith("  fast-style optimize ")]
    assert len(commands) == 5
    for command in commands:
        yaml_file = ROOT / command[0] if "/" in command[0] else here / "my.yaml"
        assert run(str(yaml_file), *command[1:], "--print-config") == 0, command


def test_help_config_tells_every_setting(capsys: Output) -> None:
    assert run("--help-config") == 0
    text = capsys.readouterr().out
    assert "style.image: (required)" in text
    assert "optimize.iterations: 500" in text
    assert "train." not in text


def test_printed_config_loads_back_equal(here: Path, capsys: Output) -> None:
    words = ["optimize.iterations=7", "loss.style_weight=8"]
    # Words may stand anywhere among the options; nothing to draw is needed.
    assert run("my.yaml", words[0], "--print-config", "--every", "5", words[1]) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    assert load_gatys_config(Path("printed.yaml")) == load_gatys_config(Path("my.yaml"), words)


def test_words_of_a_reconstruction_can_be_overridden(here: Path, capsys: Output) -> None:
    assert run("my.yaml", "--reconstruct", "conv2_1", "loss.tv_weight=3", "--print-config") == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["loss"]["content_layers"] == {"conv2_1": 1.0}
    assert settings["loss"]["style_layers"] == {}
    assert settings["loss"]["tv_weight"] == 3
    assert settings["optimize"]["init"] == "uniform_noise"


# --- What is written ----------------------------------------------------------------------------


def test_picture_is_drawn_and_told(here: Path, capsys: Output) -> None:
    assert draw() == 0
    assert size_of("out.png") == (20, 16)
    assert files() == {"out.png"}
    captured = capsys.readouterr()
    assert captured.err == ""
    first, *middle, last = captured.out.splitlines()
    assert first == "loss network: vgg16, RANDOM weights"
    shown = [re.fullmatch(r"iteration (\d)/4  loss ([\d.]+)", line) for line in middle]
    assert [match and match[1] for match in shown] == ["1", "2", "3", "4"]
    losses = [float(match[2]) for match in shown if match]
    assert losses == sorted(losses, reverse=True)
    assert re.fullmatch(
        r"out\.png: 20 x 16 pixels, 4 iterations, \d evaluations of the loss; total [\d.]+, "
        r"content [\d.]+, style [\d.]+, tv [\d.]+ \(all iterations done\)",
        last,
    )
    assert f"total {losses[-1]:.4g}," in last


def test_drawing_again_gives_the_same_picture(here: Path) -> None:
    assert draw() == 0
    first = Path("out.png").read_bytes()
    assert draw("--overwrite") == 0
    assert Path("out.png").read_bytes() == first
    assert draw("--overwrite", "optimize.iterations=1") == 0
    assert Path("out.png").read_bytes() != first


def test_everything_that_was_asked_for_is_written(here: Path) -> None:
    arguments = ["--sheet", "in/sheet.jpg", "--course", "in/film.gif", "--every", "2"]
    assert draw(*arguments) == 0
    assert files() == {
        "out.png",
        "out-00002.png",
        "out-00004.png",
        "in/sheet.jpg",
        "in/film.gif",
    }
    # Content and result, both 20 x 16, and the square style picture between them.
    assert size_of("in/sheet.jpg") == (20 + 8 + 16 + 8 + 20, 16)
    with Image.open("in/film.gif") as film:
        assert (film.n_frames, film.size) == (5, (20, 16))
    assert Path("out-00004.png").read_bytes() == Path("out.png").read_bytes()
    assert Path("out-00002.png").read_bytes() != Path("out.png").read_bytes()


def test_course_may_be_a_sheet(here: Path) -> None:
    assert draw("--course", "course.webp") == 0
    assert size_of("course.webp") == (5 * 20 + 4 * 8, 16)


def test_scales_are_counted_through(here: Path, capsys: Output) -> None:
    words = ["optimize.size=32", "optimize.scales=2", "optimize.iterations=5"]
    assert draw("--every", "4", "--course", "film.gif", *words) == 0
    numbers = re.findall(r"^iteration (\d+)/10 ", capsys.readouterr().out, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 11)]
    assert size_of("out-00004.png") == (20, 16)
    assert size_of("out-00008.png") == size_of("out.png") == size_of("film.gif") == (40, 32)


def test_picture_between_two_scales_is_the_coarser_ones_result(here: Path, capsys: Output) -> None:
    words = ["optimize.size=32", "optimize.scales=2", "optimize.iterations=2", "--every", "2"]
    for more in ([], ["--overwrite"]):
        assert draw(*words, *more) == 0
        assert "warning" not in capsys.readouterr().err
        assert size_of("out-00002.png") == (20, 16)


def test_pictures_of_an_earlier_course_are_kept_and_told(here: Path, capsys: Output) -> None:
    assert draw("--every", "1") == 0
    capsys.readouterr()
    assert draw("--every", "3", "--overwrite") == 0
    assert "out-00001.png and 2 more" in capsys.readouterr().err
    assert {f"out-0000{number}.png" for number in (1, 2, 3, 4)} <= files()


def test_transparency_of_the_photo_is_that_of_the_result(here: Path) -> None:
    photo = Image.open("photo.png")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.save("photo.png")
    assert draw() == 0
    with Image.open("out.png") as result:
        assert result.mode == "RGBA"
        alpha = np.asarray(result.getchannel("A"))
    assert alpha[0].max() < 20 < 235 < alpha[-1].min()


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif", "bmp", "PNG"])
def test_output_has_the_format_of_its_name(here: Path, suffix: str) -> None:
    output = f"out.{suffix}"
    arguments = ["my.yaml", "-c", "photo.png", "-o", output, "optimize.iterations=1"]
    assert run(*arguments) == 0
    expected = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    with Image.open(output) as image:
        assert image.format == expected


def test_transparent_photo_is_drawn_on_white(here: Path) -> None:
    Image.new("RGBA", (24, 24), (0, 0, 0, 0)).save("photo.png")
    words = ["loss.style_weight=0", "loss.tv_weight=0", "optimize.iterations=1"]
    assert draw(*words) == 0
    with Image.open("out.png") as image:
        assert image.convert("RGB").getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--reconstruct", "loss.content_layers={relu2_2: 1}"),
        ("--reconstruct", "loss.content_layers.relu2_2=1"),
        ("--reconstruct", "loss.style_weight=2"),
        ("--reconstruct-style", "loss.style_layers={relu2_2: 1}"),
        ("--reconstruct-style", "loss.content_weight=2"),
    ],
)
def test_words_that_contradict_a_reconstruction_are_refused(
    here: Path, option: str, word: str, capsys: Output
) -> None:
    assert run("my.yaml", option, "relu3_1", word, *CONTENT, *OUTPUT) == 2
    (line,) = errors(capsys)
    for part in (f"{word!r} on the command line", f"{option} relu3_1", "leave out one"):
        assert part in line


@pytest.mark.parametrize("option", ["--reconstruct", "--reconstruct-style"])
def test_layer_that_the_weights_lack_is_told_with_the_option_that_names_it(
    here: Path, option: str, capsys: Output
) -> None:
    words = ["loss_network.weights=compact", option, "relu5_3"]
    assert run("my.yaml", *words, *CONTENT, *OUTPUT) == 2
    (line,) = errors(capsys)
    assert line.startswith(f"error: {option} relu5_3: ")
    assert "up to conv4_3. Choose a shallower layer" in line
    assert "loss.content_layers" not in line


def test_pictures_in_between_that_never_come_are_told(here: Path, capsys: Output) -> None:
    words = ["optimize.iterations=2", "optimize.scales=1"]
    assert run("my.yaml", *words, *CONTENT, "-o", "two.png", "--every", "3") == 0
    assert "--every 3: no picture in between is written, of 2 iterations" in capsys.readouterr().err
    assert run("my.yaml", *words, *CONTENT, "-o", "three.png", "--every", "2") == 0
    assert "--every" not in capsys.readouterr().err
    assert Path("three-00002.png").exists()


def test_reconstructions_are_drawn(here: Path) -> None:
    assert run("my.yaml", "--reconstruct", "relu1_2", "-c", "photo.png", "-o", "content.png") == 0
    assert size_of("content.png") == (20, 16)
    # No photo: the result has the shape of the style picture.
    arguments = ["--reconstruct-style", "block1_conv2", "-o", "style-of.png", "--sheet", "s.png"]
    assert run("my.yaml", *arguments) == 0
    assert size_of("style-of.png") == (16, 16)
    assert size_of("s.png") == (16 + 8 + 16, 16)


def test_blend_is_drawn(here: Path, capsys: Output) -> None:
    draw_photo(101, (30, 50)).save("other.png")
    assert draw("style.blend={other.png: 2.0}") == 0
    assert draw("style.blend={none.png: 2.0}", "--overwrite") == 2
    assert capsys.readouterr().err.startswith(f"error: {here / 'none.png'}: not found; ")


# --- Mistakes -----------------------------------------------------------------------------------

CONTENT = ["-c", "photo.png"]
OUTPUT = ["-o", "out.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "CONFIG.yaml is missing; give a YAML file, such as configs/optimize/gatys.yaml"),
        (["my.yaml", *CONTENT], "no file for the result; name one with --output PICTURE"),
        (["my.yaml", *OUTPUT], "no photo to draw; name one with --content PHOTO"),
        (
            ["none.yaml", *CONTENT, *OUTPUT],
            "none.yaml: not found; configs/optimize/ has files to start from, such as gatys.yaml",
        ),
        (["my.yaml", "-c", "none.png", *OUTPUT], "none.png: not found"),
        (
            ["my.yaml", "-c", "my.yaml", *OUTPUT],
            f"my.yaml: not a picture of a known format {KNOWN_FORMATS}",
        ),
        (
            ["my.yaml", "-c", "folder", *OUTPUT],
            "folder: a folder, not a picture; name a picture in it",
        ),
        (
            ["my.yaml", *CONTENT, "-o", "folder"],
            "folder: is a folder; name a file",
        ),
        (["my.yaml", *CONTENT, "-o", "."], ".: is a folder; name a file"),
        (
            ["my.yaml", *CONTENT, "-o", "a.pdf"],
            f"a.pdf: cannot write the format '.pdf'; {WRITABLE}",
        ),
        (
            ["my.yaml", *CONTENT, "-o", "a.gif"],
            f"a.gif: cannot write the format '.gif'; {WRITABLE}",
        ),
        (
            ["my.yaml", *CONTENT, "-o", "a"],
            f"a: a picture's file needs a suffix, which names its format; {WRITABLE}",
        ),
        (
            ["my.yaml", *CONTENT, *OUTPUT, "--sheet", "a.gif"],
            f"a.gif: cannot write the format '.gif'; {WRITABLE}",
        ),
        (
            ["my.yaml", *CONTENT, *OUTPUT, "--course", "a.mp4"],
            f"a.mp4: cannot write the format '.mp4'; {WRITABLE}",
        ),
        (
            ["my.yaml", *CONTENT, "-o", "photo.png/a.png"],
            "photo.png: cannot create this folder (File exists); choose another",
        ),
        (
            ["my.yaml", *CONTENT, "-o", f"{'x' * 300}.png"],
            f"{'x' * 300}.png: cannot be written (File name too long); choose another name",
        ),
        (
            ["my.yaml", *CONTENT, *OUTPUT, "--sheet", "folder/../out.png"],
            "folder/../out.png: would be written twice; choose another name",
        ),
        (
            ["my.yaml", *CONTENT, *OUTPUT, "--every", "2", "--course", "out-00004.png"],
            "out-00004.png: would be written twice; choose another name",
        ),
        (
            ["my.yaml", *CONTENT, *OUTPUT, "--reconstruct", "pool4"],
            "--reconstruct: 'pool4' is not a VGG layer; say for example relu3_3, conv3_3 or "
            "block3_conv3",
        ),
        (
            ["my.yaml", *CONTENT, *OUTPUT, "--reconstruct", ""],
            "--reconstruct: '' is not a VGG layer; say for example relu3_3, conv3_3 or "
            "block3_conv3",
        ),
        (
            [
                "my.yaml",
                *CONTENT,
                *OUTPUT,
                "--reconstruct",
                "relu1_3",
            ],
            "'loss.content_layers={relu1_3: 1.0}' on the command line: loss.content_layers: vgg16 "
            "has no relu1_3; the last of its block 1 is relu1_2 (loss_network.architecture)",
        ),
        (
            [
                "my.yaml",
                *CONTENT,
                *OUTPUT,
                "--reconstruct",
                "relu1_1",
                "--reconstruct-style",
                "relu1_1",
            ],
            "argument --reconstruct-style: not allowed with argument --reconstruct; see fast-style "
            "optimize --help",
        ),
        (
            ["my.yaml", *CONTENT, *OUTPUT, "--every", "0"],
            "argument --every: must be a whole number from 1, got '0'; see fast-style optimize "
            "--help",
        ),
        (
            ["my.yaml", *CONTENT, "-o", ""],
            "argument --output/-o: must not be empty; see fast-style optimize --help",
        ),
        (
            ["my.yaml", *CONTENT, *OUTPUT, "--device", "cuda:77"],
            "--device cuda:77: not on this machine; choose one of auto, cpu",
        ),
        (
            ["my.yaml", *CONTENT, *OUTPUT, "optimize.iteration=7"],
            "'optimize.iteration=7' on the command line: optimize.iteration: unknown key; did you "
            "mean 'optimize.iterations'?",
        ),
    ],
    ids=lambda value: None if isinstance(value, list) else value[:40],
)
def test_mistake_is_one_line_exit_code_2_and_nothing_written(
    here: Path, capsys: Output, arguments: list[str], message: str
) -> None:
    Path("folder").mkdir()
    assert run(*arguments) == 2
    assert errors(capsys) == [f"error: {message}"]
    assert files() == set()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "style.image=none.png",
            "{here}/none.png: not found; check style.image (a picture, or the name of one of "
            "fast-style styles)",
        ),
        ("optimize.init=none.png", "{here}/none.png: not found"),
        (
            "style.image=my.yaml",
            f"{{here}}/my.yaml: not a picture of a known format {KNOWN_FORMATS}",
        ),
        (
            "loss_network.weights=none.pth",
            "{here}/none.pth: loss network weights not found; check loss_network.weights",
        ),
    ],
)
def test_input_that_is_not_there_is_named(
    here: Path, capsys: Output, word: str, message: str
) -> None:
    assert draw(word) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message.format(here=here)}")
    assert files() == set()


def test_wrong_key_is_told_with_its_file_and_line(here: Path, capsys: Output) -> None:
    Path("my.yaml").write_text("style:\n  image: style.png\noptimize:\n  itertions: 3\n")
    assert draw() == 2
    assert errors(capsys) == [
        "error: my.yaml:4: optimize.itertions: unknown key; did you mean 'optimize.iterations'?"
    ]


def test_the_losses_of_a_training_draw_a_picture(here: Path, capsys: Output) -> None:
    Path("training.yaml").write_text(
        "name: t\nstyle: {image: style.png}\ndata: {photos: nowhere}\n"
        "loss_network: {weights: compact}\nmodel: {width: 2}\n"
    )
    small = ["optimize.iterations=2", "optimize.size=32", "style.size=32"]
    assert run("training.yaml", *small, *CONTENT, *OUTPUT) == 0
    capsys.readouterr()
    with Image.open("out.png") as picture:
        assert min(picture.size) == 32
    assert run("training.yaml", "model.width=3", *CONTENT, "-o", "other.png") == 2
    (line,) = errors(capsys)
    assert line.startswith("error: 'model.width=3' on the command line: model: unknown key")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "out.png"),
        (["--sheet", "sheet.png"], "sheet.png"),
        (["--course", "film.gif"], "film.gif"),
        (["--every", "2"], "out-00004.png"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_existing_pictures_are_only_replaced_on_request(
    here: Path, capsys: Output, arguments: list[str], name: str
) -> None:
    Path(name).write_bytes(b"precious")
    assert draw(*arguments) == 2
    assert errors(capsys) == [f"error: {name}: exists already; replace it with --overwrite"]
    assert files() == {name}
    assert Path(name).read_bytes() == b"precious"
    assert draw(*arguments, "--overwrite") == 0
    assert Path(name).read_bytes() != b"precious"


@pytest.mark.parametrize("source", ["photo.png", "style.png", "other.png"])
@pytest.mark.parametrize("option", ["--output", "--sheet", "--course"])
def test_inputs_are_never_overwritten(here: Path, capsys: Output, option: str, source: str) -> None:
    draw_photo(101).save("other.png")
    Path("link.png").symlink_to(source)
    before = {name: Path(name).read_bytes() for name in ("photo.png", "style.png", "other.png")}
    blend = "style.blend={other.png: 1.0}"
    assert draw(option, "link.png", "--overwrite", blend) == 2
    assert errors(capsys)[-1:] == [
        "error: link.png: is an input, and would be replaced; choose another name"
    ]
    assert {name: Path(name).read_bytes() for name in before} == before


def test_picture_to_start_from_is_never_overwritten(here: Path, capsys: Output) -> None:
    draw_photo(101).save("start.png")
    before = Path("start.png").read_bytes()
    assert draw("--output", "start.png", "--overwrite", "optimize.init=start.png") == 2
    assert errors(capsys)[-1:] == [
        "error: start.png: is an input, and would be replaced; choose another name"
    ]
    assert Path("start.png").read_bytes() == before


def test_picture_in_between_is_no_input(here: Path, capsys: Output) -> None:
    Path("photo.png").rename("out-00002.png")
    arguments = ["my.yaml", "-c", "out-00002.png", "-o", "out.png", "--every", "2", "--overwrite"]
    assert run(*arguments) == 2
    assert errors(capsys) == [
        "error: out-00002.png: is an input, and would be replaced; choose another name"
    ]


def test_missing_photo_is_told_although_the_output_is_there(here: Path, capsys: Output) -> None:
    Path("out.png").touch()
    assert run("my.yaml", "-c", "none.png", "-o", "out.png", "--overwrite") == 2
    assert errors(capsys) == ["error: none.png: not found"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written_to_is_told_first(here: Path, capsys: Output) -> None:
    Path("locked").mkdir(mode=0o500)
    assert run("my.yaml", *CONTENT, "-o", "locked/a.png") == 2
    assert errors(capsys) == [
        "error: locked: no permission to write to this folder; choose another"
    ]


def test_missing_scipy_is_told_with_its_remedy(
    here: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert draw() == 2
    assert capsys.readouterr().err.splitlines() == [SCIPY_MISSING]
    assert files() == set()
    assert draw("optimize.method=adam") == 0


# --- Ends that are not the usual one ------------------------------------------------------------


def test_picture_in_between_that_cannot_be_written_costs_no_result(
    here: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(course: object, number: int, picture: object) -> None:
        raise UserError("out-00002.png: cannot be written (No space left on device)", exit_code=1)

    monkeypatch.setattr(Course, "record", fail)
    assert draw("--every", "2") == 0
    assert size_of("out.png") == (20, 16)
    warning = "warning: out-00002.png: cannot be written (No space left on device)"
    told = capsys.readouterr()
    assert told.out.splitlines().count(warning) == 1
    assert "warning: 5 pictures in between could not be written" in told.out


def test_loss_beyond_all_numbers_writes_the_best_and_fails(here: Path, capsys: Output) -> None:
    # Adam's first step is ten times the pixel range; the tenth power of it, weighted, overflows.
    exploding = ["optimize.method=adam", "optimize.bounds=none", "optimize.learning_rate=10"]
    assert draw(*exploding, "loss.tv_exponent=10", "loss.tv_weight=1e25", "--course", "c.gif") == 1
    assert capsys.readouterr().err == (
        "error: the loss was not finite at evaluation 2; the best picture before that was written\n"
    )
    assert files() == {"out.png", "c.gif"}
    start = draw_photo(1, (40, 32)).resize((20, 16), Image.Resampling.LANCZOS)
    with Image.open("out.png") as image:
        assert image_to_tensor(image.convert("RGB")).equal(image_to_tensor(start))


def test_loss_that_is_beyond_all_numbers_from_the_start_is_told(here: Path, capsys: Output) -> None:
    assert draw("loss.style_weight=1e300") == 1
    assert capsys.readouterr().err == (
        "error: the loss of the starting picture is not finite; the weights of the loss "
        "network or of its terms are too large\n"
    )
    assert files() == set()


# Adam ends of itself only when all iterations are done.
ENDLESS = ["optimize.method=adam", "optimize.iterations=20000", "--every", "10"]


def interrupt_when_there_is(path: Path) -> threading.Thread:
    """Sends SIGINT to this process as soon as a file has appeared."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.skipif(os.name == "nt", reason="signals come otherwise there")
def test_interrupt_keeps_the_best_picture_and_exits_130(here: Path, capsys: Output) -> None:
    thread = interrupt_when_there_is(here / "out-00010.png")
    handler = signal.getsignal(signal.SIGINT)
    assert draw(*ENDLESS, "--sheet", "sheet.png", "--course", "film.gif") == 130
    thread.join()
    assert signal.getsignal(signal.SIGINT) is handler
    last = capsys.readouterr().out.splitlines()[-1]
    match = re.fullmatch(r"out\.png: 20 x 16 pixels, (\d+) iterations, .* \(stopped\)", last)
    assert match is not None
    assert 5 <= int(match[1]) < 20000
    assert {"out.png", "sheet.png", "film.gif"} <= files()
    assert size_of("sheet.png") == (72, 16)


@pytest.mark.skipif(os.name == "nt", reason="signals come otherwise there")
def test_interrupted_result_does_not_replace_a_finished_one(here: Path, capsys: Output) -> None:
    assert draw() == 0
    finished = Path("out.png").read_bytes()
    thread = interrupt_when_there_is(here / "out-00010.png")
    assert draw(*ENDLESS, "--overwrite") == 130
    thread.join()
    assert Path("out.png").read_bytes() == finished
    assert size_of("out-2.png") == (20, 16)
    assert "out-2.png: 20 x 16 pixels" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="signals come otherwise there")
def test_interrupt_before_the_first_iteration_writes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    real = picture.optimize_picture

    def interrupted(*words: Any, **options: Any) -> picture.Optimized:
        signal.raise_signal(signal.SIGINT)
        return real(*words, **options)

    monkeypatch.setattr(picture, "optimize_picture", interrupted)
    assert draw("--sheet", "sheet.png", "--course", "film.gif") == 130
    assert files() == set()
    assert "nothing is written" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals come otherwise there")
def test_interrupted_process_says_so_and_leaves_no_traceback(here: Path) -> None:
    command = [sys.executable, "-m", "fast_style", "optimize", "my.yaml", *CONTENT, *OUTPUT]
    process = subprocess.Popen(
        [*command, *ENDLESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    while not Path("out-00010.png").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == "stopping after this iteration; a second signal stops at once\n"
    assert stdout.splitlines()[-1].endswith("(stopped)")
    assert size_of("out.png") == (20, 16)


# --- The words that docs/optimization.md gives for other weights --------------------------------


def documented_words() -> list[tuple[str, list[str]]]:
    """Of every row of its tables: the weights' heading, then configuration and words."""
    text = (ROOT / "docs" / "optimization.md").read_text(encoding="utf-8")
    rows = []
    for title, body in re.findall(r"^\*\*(VGG-19|A pruned)(.*?)(?=^\*\*|\Z)", text, re.M | re.S):
        before, _, table = body.partition("| file |")
        # Several settings may stand in one pair of backquotes, and go over the end of a line.
        given = f"{title}{before}".replace("\n", " ")
        shared = [word for span in re.findall(r"`([^`]*)`", given) for word in shlex.split(span)]
        shared = [word for word in shared if "=" in word and "weights=" not in word]
        for name, words in re.findall(r"^\| `(\w+\.yaml)` \| (?:`([^`]*)`)?", table, re.M):
            own = shlex.split(words)
            rows.append((title, [name, *shared, *own]))
    return rows


def test_every_system_has_documented_words_for_both_weights() -> None:
    names = sorted(path.name for path in (ROOT / "configs" / "optimize").glob("*.yaml"))
    assert sorted(words[0] for _, words in documented_words()) == sorted(2 * names)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("weights", "words"),
    documented_words(),
    ids=[f"{weights}-{words[0]}" for weights, words in documented_words()],
)
def test_documented_words_draw_with_real_weights(
    assets: Path, tmp_path: Path, weights: str, words: list[str]
) -> None:
    name, *settings = words
    file = {"VGG-19": "vgg19_conv3_4.pth", "A pruned": "vgg19_small16x_conv5_1.pth"}[weights]
    picture = tmp_path / "out.png"
    quick = ["optimize.size=64", "style.size=64", "optimize.iterations=3"]
    arguments = [
        str(ROOT / "configs" / "optimize" / name),
        *settings,
        f"loss_network.weights={assets / 'weights' / file}",
        f"style.image={assets / 'styles' / 'wave.jpg'}",
        *quick,
    ]
    photo = assets / "photos" / "content" / "chicago.jpg"
    assert run(*arguments, "--content", str(photo), "--output", str(picture)) == 0
    assert min(size_of(str(picture))) == 64


def test_files_that_appear_during_the_work_are_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    real = picture.optimize_picture
    theirs = {"out.png", "out-00002.png", "sheet.png", "course.gif"}

    def while_others_write(*words: Any, **options: Any) -> picture.Optimized:
        for name in theirs:
            Path(name).write_text("theirs")
        return real(*words, **options)

    monkeypatch.setattr(picture, "optimize_picture", while_others_write)
    assert draw("--every", "2", "--sheet", "sheet.png", "--course", "course.gif") == 0
    assert all(Path(name).read_text() == "theirs" for name in theirs)
    ours = {"out-2.png", "out-00004.png", "sheet-2.png", "course-2.gif"}
    assert files() == theirs | ours
    assert {size_of(name) for name in ("out-2.png", "out-00004.png")} == {(20, 16)}
    told = capsys.readouterr()
    assert "out-2.png: 20 x 16 pixels" in told.out
    assert "warning: out-00002.png" in told.out
    for name in ("out", "sheet", "course"):
        assert re.search(rf"{name}\.(png|gif): .* is kept; .* {name}-2\.(png|gif)", told.err)

    assert draw("--overwrite") == 0
    assert size_of("out.png") == (20, 16)


def test_a_folder_that_vanishes_during_the_work_is_made_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = picture.optimize_picture

    def while_it_vanishes(*words: Any, **options: Any) -> picture.Optimized:
        Path("results").rmdir()
        return real(*words, **options)

    monkeypatch.setattr(picture, "optimize_picture", while_it_vanishes)
    assert draw("--output", "results/out.png") == 0
    assert size_of("results/out.png") == (20, 16)


def let_no_result_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full for out.png, and for no other file."""
    real = os.link

    def full(source: Any, target: Any, **options: Any) -> None:
        if Path(target) == Path("out.png"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target, **options)

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "replace", full)


def test_a_result_that_cannot_be_written_is_kept_elsewhere(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    (here / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(here / "tmp"))
    let_no_result_be_written(monkeypatch)
    assert draw("--sheet", "sheet.png", "--course", "course.gif") == 1
    told = capsys.readouterr().err
    assert "out.png: cannot be written" in told
    assert str(here / "tmp" / "out.png") in told
    assert size_of("tmp/out.png") == (20, 16)
    assert files() == {"tmp/out.png", "sheet.png", "course.gif"}


def test_result_that_can_be_written_nowhere_is_told_and_the_rest_is_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def no_folder() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in [...]")

    let_no_result_be_written(monkeypatch)
    monkeypatch.setattr(tempfile, "gettempdir", no_folder)
    assert draw("--sheet", "sheet.png", "--course", "course.gif") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out.png: cannot be written")
    assert files() == {"sheet.png", "course.gif"}


def test_a_signal_while_the_result_is_written_waits(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = writing._encode

    def interrupted(*words: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(*words)

    monkeypatch.setattr(writing, "_encode", interrupted)
    assert draw() == 0
    assert size_of("out.png") == (20, 16)
