"""``init`` and ``info``: what they print."""

from pathlib import Path

from command_line import Output, errors, photo_at, run
from tiny_model import FIRST_COMPACT, write_tiny_model

from fast_style.settings.config import load_config
from fast_style.styles.shipped import find_style


def test_init_prints_a_file_that_loads(here: Path, capsys: Output) -> None:
    photo_at("Über style.png")
    assert run("init", "Über style.png") == 0
    Path("sub").mkdir()
    Path("sub/my.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    settings = load_config(Path("sub/my.yaml"))
    assert settings.style.image == here / "Über style.png"
    assert settings.name == "Uber-style"


def test_init_refuses_what_is_no_picture(here: Path, capsys: Output) -> None:
    assert run("init", "none.jpg") == 2
    (line,) = errors(capsys)
    assert line.startswith("error: none.jpg: ")


def test_info_prints_what_a_model_says_of_itself(model: Path, capsys: Output) -> None:
    assert run("info", str(model)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "name: tiny",
        "kind: model, format 1",
        f"style: wave.jpg, sha256 of its pixels {'5' * 64}",
    ]
    assert "license: none" in lines


def test_info_tells_of_a_model_of_the_first_compact_network(
    old_model: Path, capsys: Output
) -> None:
    assert run("info", str(old_model)) == 0
    text = capsys.readouterr().out
    assert f"loss network: vgg19, COMPACT weights, sha256 {FIRST_COMPACT}\n" in text
    assert "style: relu1_2, relu2_2, relu3_3, relu3_4, weight 1.5; " in text


def test_info_tells_of_the_loss_network_that_comes_with_the_package(capsys: Output) -> None:
    assert run("info", "compact") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name: compact"
    assert any(line.startswith("teacher: vgg16, ") for line in lines)


def test_info_shows_control_characters_as_escapes(here: Path, capsys: Output) -> None:
    write_tiny_model(Path("m.safetensors"), label="\x1b[2Jclean")
    assert run("info", "m.safetensors") == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\\x1b[2Jclean" in text


def test_name_of_a_style_is_answered_with_its_model(here: Path, capsys: Output) -> None:
    path = find_style("starry_night").model
    for word in ("starry_night", "starry_night.safetensors"):
        assert run("info", word) == 2
        (line,) = errors(capsys)
        assert line == (f"error: {word}: not found; the model of the style of this name is {path}")
    assert run("info", "starry_nigt") == 2
    (line,) = errors(capsys)
    assert "did you mean 'starry_night'? give a model.safetensors" in line


def test_damaged_model_is_one_line(model: Path, capsys: Output) -> None:
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    Path("m.safetensors").write_bytes(data)
    assert run("info", "m.safetensors") == 2
    (line,) = errors(capsys)
    assert line.startswith("error: m.safetensors: ")
    assert "damaged" in line
