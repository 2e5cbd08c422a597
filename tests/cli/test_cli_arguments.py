"""Arguments: mistakes are one line with the rule and what was found."""

import os
from pathlib import Path

import pytest
from command_line import Output, errors, photo_at, run
from small_styles import ship
from tiny_model import write_tiny_model

from fast_style.cli.arguments import expanded, num_bytes
from fast_style.core.errors import UserError
from fast_style.pictures.reading import MAX_PIXELS_VARIABLE
from fast_style.settings.config import load_config


@pytest.mark.parametrize(
    "word", ["2", "2g", "0G", "-1G", "2GiB", "2 G", "1,5G", "G", "", "9999999G"]
)
def test_size_of_memory_in_another_form_is_refused(word: str, capsys: Output) -> None:
    assert run("stylize", "-m", "m", "a.jpg", f"--memory={word}") == 2
    (line,) = errors(capsys)
    assert "argument --memory: " in line
    assert "such as 500M or 2G" in line
    assert repr(word) in line


@pytest.mark.parametrize(
    ("word", "expected"), [("500M", 500_000_000), ("2G", 2_000_000_000), ("1.5G", 1_500_000_000)]
)
def test_size_of_memory_is_in_powers_of_1000(word: str, expected: int) -> None:
    assert num_bytes(word) == expected


# Every message of the module. Types are tried with one of the options that have them.
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stylize", "a.jpg"], "one of the arguments --style --model/-m is required"),
        (
            ["stylize", "-m", "m", "a.jpg", "--overwrite", "--skip-existing"],
            "argument --skip-existing: not allowed with argument --overwrite",
        ),
        (["stylize", "-m", "m", "a.jpg", "-o", ""], "argument --output/-o: must not be empty"),
        (
            ["stylize", "-m", "m", "a.jpg", "--max-side", "0"],
            "argument --max-side: must be a whole number from 1, got '0'",
        ),
        (
            ["stylize", "-m", "m", "a.jpg", "--quality", "101"],
            "argument --quality: must be 1 to 100, got '101'",
        ),
        (
            ["stylize", "-m", "m", "a.jpg", "--threads", "2000"],
            "argument --threads: must be 1 to 1024, got '2000'",
        ),
        (
            ["stylize", "-m", "m", "a.jpg", "--memory", "2"],
            "argument --memory: must be a size such as 500M or 2G, got '2'",
        ),
        (
            ["stylize", "-m", "m", "a.jpg", "--device", "gpu"],
            "argument --device: must be auto, cpu, cuda, cuda:1 (any number) or mps, got 'gpu'",
        ),
    ],
)
def test_mistake_of_usage_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: Output
) -> None:
    assert run(*arguments) == 2
    assert errors(capsys) == [f"error: {message}; see fast-style stylize --help"]


def test_missing_file_of_settings_is_named_with_an_example(capsys: Output) -> None:
    assert run("train") == 2
    assert errors(capsys) == [
        "error: CONFIG.yaml is missing; give a YAML file, such as configs/laptop.yaml"
    ]


def test_printed_config_loads_back_equal(config: Path, capsys: Output) -> None:
    words = ["loss.style_weight=8", "train.steps=300"]
    # Words may stand anywhere among the options.
    arguments = ["train", str(config), words[0], "--print-config", "--device", "cpu", words[1]]
    assert run(*arguments) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    assert load_config(Path("printed.yaml")) == load_config(config, words)


def test_help_config_tells_every_section(capsys: Output) -> None:
    assert run("train", "--help-config") == 0
    text = capsys.readouterr().out
    assert "style.image: (required)" in text
    assert "loss.style_weight: 1.5" in text


# --- Patterns that no shell has expanded ----------------------------------------------------------


def test_pattern_stands_for_its_matches_and_a_file_of_that_name_for_itself(here: Path) -> None:
    for name in ("b.png", "a.png", "[c].png", "sub/d.png"):
        photo_at(name)
    assert expanded([Path("*.png")]) == [Path("[c].png"), Path("a.png"), Path("b.png")]
    assert expanded([Path("b.png"), Path("?.png")]) == [Path("b.png"), Path("a.png"), Path("b.png")]
    assert expanded([Path("[c].png")]) == [Path("[c].png")]
    assert expanded([Path("**/d.png")]) == [Path("sub/d.png")]
    assert expanded([Path("none.png")]) == [Path("none.png")]  # told by the command
    with pytest.raises(UserError, match=r"^\*\.jpg: no file matches this pattern$"):
        expanded([Path("*.jpg")])


@pytest.mark.parametrize(
    "words",
    [
        ["stylize", "-m", "model.safetensors", "*.jpg"],
        ["evaluate", "model.safetensors", "--photos", "*.jpg", "-o", "report"],
        ["evaluate", "*.jpg", "--photos", "a.png", "-o", "report"],
        ["preview", "my.yaml", "--photo", "*.jpg"],
        ["train", "*.jpg"],
    ],
)
def test_every_command_for_several_files_expands_patterns(
    here: Path, capsys: Output, words: list[str]
) -> None:
    write_tiny_model(Path("model.safetensors"))
    photo_at("a.png")
    Path("my.yaml").write_text("name: a\nstyle: {image: a.png}\ndata: {photos: .}\n")
    assert run(*words) == 2
    assert errors(capsys) == ["error: *.jpg: no file matches this pattern"]


def test_pattern_of_photos_is_stylized(here: Path, capsys: Output) -> None:
    write_tiny_model(Path("model.safetensors"))
    photo_at("a.png")
    photo_at("b.png")
    assert run("stylize", "-m", "model.safetensors", "?.png", "--device", "cpu") == 0
    assert capsys.readouterr().out == "a.tiny.png\nb.tiny.png\n2 done, 0 skipped, 0 failed\n"


def test_pattern_of_settings_is_read(here: Path, capsys: Output) -> None:
    photo_at("a.png")
    for name in ("one", "two"):
        text = f"name: {name}\nstyle: {{image: a.png}}\ndata: {{photos: .}}\n"
        Path(f"{name}.yaml").write_text(text)
    assert run("train", "*.yaml", "--print-config") == 0
    names = [line for line in capsys.readouterr().out.splitlines() if line.startswith("name: ")]
    assert names == ["name: one", "name: two"]


@pytest.mark.parametrize(
    "words",
    [
        ["stylize", "a.png", "-m", "{}.safetensors"],
        ["info", "{}.safetensors"],
        ["init", "{}.png"],
        ["demo", "--photo", "{}.png"],
        ["demo", "--style", "{}.png"],
        ["styles", "--sheet", "{}.png"],
        ["optimize", "my.yaml", "--content", "{}.png"],
        ["preview", "{}.yaml"],
        ["distill", "{}.yaml"],
    ],
)
def test_pattern_stands_for_one_file_where_one_is_wanted(
    here: Path, capsys: Output, words: list[str]
) -> None:
    for name in ("a.png", "b.png", "a.yaml", "b.yaml", "a.safetensors", "b.safetensors"):
        Path(name).write_bytes(b"")
    suffix = next(word for word in words if "{}" in word)[2:]
    assert run(*(word.format("*") for word in words)) == 2
    assert errors(capsys) == [f"error: *{suffix}: 2 files match this pattern; name one"]
    assert run(*(word.format("c*") for word in words)) == 2
    assert errors(capsys) == [f"error: c*{suffix}: no file matches this pattern"]
    assert run(*(word.format("[b]") for word in words)) == 2
    assert "pattern" not in errors(capsys)[0]  # but something else: all files are empty


# --- Home folders and variables ------------------------------------------------------------------


def test_paths_have_a_home_folder_and_variables(
    here: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_model(Path("tiny.safetensors"))
    photo_at("in/a.png")
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("DATA", "in")
    words = ["-m", "~/tiny.safetensors", "$DATA/a.png", "-o", "~/%DATA%/out", "--device", "cpu"]
    assert run("stylize", *words) == 0
    assert capsys.readouterr().out == f"{here}/in/out/a.png\n"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("$NOSUCH/out", "'$NOSUCH/out': the environment has no variable NOSUCH"),
        ("~nobody-here/out", "the home folder in '~nobody-here/out' is unknown"),
    ],
)
def test_unknown_variable_or_home_folder_is_told(
    here: Path, capsys: Output, word: str, message: str
) -> None:
    photo_at("a.png")
    write_tiny_model(Path("tiny.safetensors"))
    assert run("stylize", "-m", "tiny.safetensors", "a.png", f"--output={word}") == 2
    assert errors(capsys)[0].startswith(f"error: {message}")
    assert run("stylize", "-m", "tiny.safetensors", word) == 2
    assert errors(capsys)[0].startswith(f"error: {message}")


@pytest.mark.parametrize(
    "words",
    [
        ["stylize", "--style", "the_scream", "URL"],
        ["stylize", "--model", "URL", "a.png"],
        ["evaluate", "URL", "--photos", "a.png", "-o", "r"],
        ["evaluate", "m.safetensors", "--photos", "URL", "-o", "r"],
        ["evaluate", "m.safetensors", "--photos", "a.png", "-o", "r", "--loss", "URL"],
        ["preview", "my.yaml", "--photo", "URL"],
        ["demo", "--photo", "URL"],
        ["demo", "--style", "URL"],
        ["init", "URL"],
        ["info", "URL"],
        ["styles", "--sheet", "URL"],
        ["optimize", "my.yaml", "--content", "URL", "-o", "b.png"],
        ["train", "URL"],
        ["train", "my.yaml", "URL.yaml"],
    ],
)
def test_url_is_told_as_it_was_typed(here: Path, capsys: Output, words: list[str]) -> None:
    photo_at("a.png")
    write_tiny_model(Path("m.safetensors"))
    Path("my.yaml").write_text("name: a\nstyle: {image: a.png}\ndata: {photos: .}\n")
    url = "https://example.com/a*.jpg"
    typed = [word.replace("URL", url) for word in words]
    assert run(*typed) == 2
    (line,) = errors(capsys)
    assert line.startswith(f"error: '{url}")
    assert "is a URL; download it first" in line


@pytest.mark.parametrize(
    "words",
    [
        ["stylize", "-m", "m", "a.png", "-o"],
        ["evaluate", "m", "--photos", "a.png", "-o"],
        ["evaluate", "m", "--photos", "a.png", "-o", "r", "--judge-cache"],
        ["preview", "my.yaml", "-o"],
        ["init", "a.png", "-o"],
        ["styles", "--sheet", "a.png", "-o"],
        ["optimize", "my.yaml", "-o"],
        ["optimize", "my.yaml", "-o", "b.png", "--sheet"],
        ["optimize", "my.yaml", "-o", "b.png", "--course"],
    ],
)
def test_stdout_is_not_written_to(here: Path, capsys: Output, words: list[str]) -> None:
    assert run(*words, "-") == 2
    (line,) = errors(capsys)
    assert f"argument {'--output/-o' if words[-1] == '-o' else words[-1]}: " in line
    assert "./-" in line
    assert ("leave it out to print" in line) == (words[0] == "init")
    assert list(here.iterdir()) == []


def test_url_is_no_place_to_write(here: Path, capsys: Output) -> None:
    assert run("styles", "--sheet", "a.png", "-o", "https://example.com/a.png") == 2
    (line,) = errors(capsys)
    assert "'https://example.com/a.png'" in line
    assert "a path on this machine" in line


def test_dash_with_its_folder_is_a_name(here: Path, capsys: Output) -> None:
    photo_at("a.png")
    assert run("init", "a.png", "-o", "./-") == 0
    assert Path("-").is_file()


# --- Pictures of many pixels ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["init", "a.png"],
        ["stylize", "-m", "model.safetensors", "a.png", "--device", "cpu"],
        ["optimize", "gatys.yaml", "-c", "a.png", "-o", "b.png"],
        ["preview", "my.yaml", "--photo", "a.png"],
        ["evaluate", "model.safetensors", "--photos", ".", "--style", "a.png", "-o", "report"],
        ["train", "my.yaml"],
        ["demo", "--photo", "a.png"],
    ],
)
def test_picture_of_too_many_pixels_is_told_with_an_option_of_the_command(
    here: Path, capsys: Output, words: list[str]
) -> None:
    write_tiny_model(Path("model.safetensors"))
    photo_at("a.png")
    Path("my.yaml").write_text("name: a\nstyle: {image: a.png}\ndata: {photos: .}\n")
    Path("gatys.yaml").write_text("style: {image: a.png}\n")
    assert run(*words, "--max-pixels", "1919") in (1, 2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "pixels" in line]
    assert line.endswith(
        "a.png: 1,920 pixels, more than the limit of 1,919; for a photo that you trust, raise it "
        "with --max-pixels 1920"
    )
    assert MAX_PIXELS_VARIABLE not in os.environ


def test_every_command_that_reads_pictures_has_max_pixels(capsys: Output) -> None:
    for command in ("train", "stylize", "preview", "optimize", "evaluate", "distill", "init",
                    "demo"):  # fmt: skip
        assert run(command, "--help") == 0
        assert "--max-pixels N" in capsys.readouterr().out


def test_picture_of_as_many_pixels_as_allowed_is_read(here: Path) -> None:
    photo_at("a.png")
    assert run("init", "a.png", "--max-pixels", "1920", "-o", "a.yaml") == 0


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["stylize", "--style", "a", "-p.jpg"], "-p.jpg"),
        (["stylize", "--style", "a", "a.jpg", "-p.jpg", "-q.jpg"], "-p.jpg"),
        (["stylize", "--style", "a", "-model.jpg"], "-model.jpg"),  # for argparse, -m odel.jpg
        (["preview", "a.yaml", "--photo", "-p.jpg"], "-p.jpg"),
        (["init", "-p.jpg"], "-p.jpg"),
    ],
)
def test_file_whose_name_looks_like_an_option_is_told(
    here: Path, capsys: Output, words: list[str], file: str
) -> None:
    assert run(*words) == 2
    assert "./" not in capsys.readouterr().err  # there is no such file
    for name in ("-p.jpg", "-q.jpg", "-model.jpg"):
        photo_at(name)
    assert run(*words) == 2
    (line,) = errors(capsys)
    assert f"if the file {file} is meant, write ./{file} " in line


def test_file_behind_two_dashes_is_a_photo(model: Path, capsys: Output) -> None:
    photo_at("-p.png")
    assert run("stylize", "-m", str(model), "-o", "out", "--", "-p.png") == 0
    assert capsys.readouterr() == ("out/-p.png\n", "")


def test_last_of_two_values_of_a_setting_holds_and_is_told(config: Path, capsys: Output) -> None:
    words = ["seed=3", "train.steps=9", "seed=3 ", "seed=4"]
    assert run("train", config.name, *words, "--print-config") == 0
    out, err = capsys.readouterr()
    assert "\nseed: 4\n" in out
    assert err == "note: 'seed=3' gives way to 'seed=4' after it\n"


def test_word_for_a_mapping_tells_the_words_for_its_keys_that_it_replaces(
    config: Path, capsys: Output
) -> None:
    inner, whole = "loss.content_layers.relu2_2=3", "loss.content_layers={relu3_3: 1}"
    assert run("train", config.name, inner, whole, "--print-config") == 0
    out, err = capsys.readouterr()
    assert "relu2_2: 3" not in out
    assert err == f"note: {inner!r} gives way to {whole!r} after it\n"


def test_style_that_ships_gives_way_by_its_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    ship(monkeypatch, here / "ships", "great_wave")
    assert run("demo", "--style", "great_wave", "--style", "b.png") == 2
    note, _ = errors(capsys)
    assert note == "note: --style great_wave gives way to --style b.png after it"


@pytest.mark.parametrize("found", ["-1", "1.5", "few"])
def test_number_that_may_be_zero_is_told_with_its_own_rule(
    here: Path, capsys: Output, found: str
) -> None:
    assert run("try", "a.jpg", "b.jpg", f"--iterations={found}") == 2
    (line,) = errors(capsys)
    assert f"--iterations: must be a whole number from 0, got '{found}'" in line


def test_number_of_very_many_digits_is_told_by_the_rule_that_it_breaks(
    here: Path, capsys: Output
) -> None:
    assert run("stylize", "-m", "m", "a.jpg", "--max-side", "9" * 20) == 2
    (line,) = errors(capsys)
    assert "--max-side: must have at most 15 digits" in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("-o x.png -o y.png", "note: -o x.png gives way to -o y.png after it"),
        ("-o y.png --max-side 9 --max-side 20", "note: --max-side 9 gives way to --max-side 20"),
        ("-o y.png -o y.png", None),
    ],
)
def test_option_given_again_is_told_and_the_last_one_holds(
    words: str, told: str | None, here: Path, capsys: Output
) -> None:
    photo_at("a.png")
    model = write_tiny_model(here / "m.safetensors")
    assert run("stylize", "-m", str(model), "a.png", *words.split()) == 0
    err = capsys.readouterr().err
    assert (told in err) if told else ("gives way" not in err)
    assert (here / "y.png").is_file()
    assert not (here / "x.png").exists()


def test_single_photo_that_is_skipped_is_told(here: Path, capsys: Output) -> None:
    photo_at("a.png")
    photo_at("y.png")
    model = write_tiny_model(here / "m.safetensors")
    assert run("stylize", "-m", str(model), "a.png", "-o", "y.png", "--skip-existing") == 0
    assert "1 skipped" in capsys.readouterr().out
