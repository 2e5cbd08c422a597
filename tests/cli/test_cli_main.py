"""The command lines as a whole: help, version, and scripts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command_line import Output, errors, photo_at, run, run_in_process

from fast_style import __version__
from fast_style.cli.main import stylize_main, train_main

COMMANDS = ["train", "stylize", "optimize", "evaluate", "distill", "init", "info", "demo"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, capsys: Output) -> None:
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: fast-style {command} ")
    _, _, examples = text.partition("\nexample")
    assert f"  fast-style {command}" in examples


@pytest.mark.parametrize(
    ("main", "script"), [(train_main, "train.py"), (stylize_main, "stylize.py")]
)
def test_help_of_a_script_shows_examples_with_its_name(
    main: Callable[[list[str]], int], script: str, capsys: Output
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert f"  python {script} " in capsys.readouterr().out


def test_help_names_all_commands(capsys: Output) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(f"    {command} " in text for command in COMMANDS)


def test_version_is_printed(capsys: Output) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"fast-style {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "found", "remedy"),
    [
        ([], "required: COMMAND", "fast-style --help"),
        (["tarin"], "argument COMMAND: invalid choice: 'tarin'", "fast-style --help"),
        (["info", "a", "b"], "unrecognized arguments: b", "fast-style info --help"),
        (
            ["stylize", "-m", "m", "a.jpg", "--quiet", "b.jpg"],
            "unrecognized arguments: --quiet b.jpg",
            "fast-style stylize --help",
        ),
        (
            ["train", "a.yaml", "--data.photos=p"],
            "settings have no --: data.photos=p",
            "fast-style train --help",
        ),
    ],
)
def test_mistake_is_one_line_that_names_the_help_of_its_command(
    arguments: list[str], found: str, remedy: str, capsys: Output
) -> None:
    assert run(*arguments) == 2
    (line,) = errors(capsys)
    assert found in line
    assert line.endswith(f"; see {remedy}")


@pytest.mark.parametrize("word", ["\u2013\u2013model", "\u2014m", "\u201cmy photo.jpg\u201d"])
def test_word_that_a_text_program_has_changed_is_told(
    here: Path, word: str, capsys: Output
) -> None:
    assert run("stylize", "-m", "m", word) == 2
    (line,) = errors(capsys)
    assert line.startswith(f"error: {word}: begins with {word[0]}, ")
    assert "write" in line
    Path(word).touch()  # a file of this very name
    assert run("stylize", "-m", "m", word) == 2
    assert "begins with" not in capsys.readouterr().err


def test_module_runs_as_the_command() -> None:
    result = run_in_process("--version")
    assert (result.returncode, result.stdout) == (0, f"fast-style {__version__}\n")


def test_train_script_takes_the_same_words(config: Path, capsys: Output) -> None:
    assert train_main([str(config), "--print-config", "seed=7"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 7


def test_stylize_script_does_the_same(model: Path, capsys: Output) -> None:
    photo_at("a.jpg")
    assert stylize_main(["a.jpg", "-m", str(model), "-o", "b.png"]) == 0
    assert capsys.readouterr() == ("b.png\n", "")
