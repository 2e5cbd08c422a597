"""Claims about `settings` that hold for any kind of file; most are in test_config.py."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from fast_style.core.errors import UserError
from fast_style.settings.settings import (
    InWords,
    PathOr,
    Root,
    Section,
    allowed_values,
    changed_settings,
    commented_yaml,
    flatten,
    help_text,
    load,
    parse,
    to_dict,
    to_yaml,
)


class Pen(Section):
    """What to write with."""

    color: Annotated[str, Field(pattern=r"^[a-z]+$"), InWords("small letters")] = "blue"
    """The ink; a word."""

    width: float = Field(0.5, gt=0)
    """Millimeters."""


class Letter(Root):
    """Something to write."""

    example = "pen.width=1"
    to_start_from = "the drawer has some"

    text: str
    """What it says."""

    paper: Annotated[str, PathOr(("white", "lined"))] = "white"
    """What to write on, or a picture of it."""

    pen: Pen = Field(default_factory=Pen)

    def _mistakes(self) -> Iterator[str]:
        if self.paper == "lined" and self.pen.width > 1:
            yield f"pen.width: must be at most 1 on lined paper, got {self.pen.width}"


LEAST = "text: hello\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The message that a file gets, with its path written as FILE."""
    path = write(folder, text)
    with pytest.raises(UserError) as caught:
        load(Letter, path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(path), "FILE")


# --- Any root -----------------------------------------------------------------------------------


def test_a_root_is_read_from_a_file_with_words_over_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, f"{LEAST}paper: lined\npen: {{color: red}}\n")
    assert load(Letter, path) == Letter(text="hello", paper="lined", pen=Pen(color="red"))
    letter = load(Letter, path, ["text=1: #2", "paper=a.jpg", "pen.width=2"])
    assert letter.text == "1: #2"
    assert letter.paper == str(tmp_path / "a.jpg")
    assert letter.pen == Pen(color="red", width=2.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("pen: {color: Red}", "FILE:2: pen.color: must be small letters, got 'Red'"),
        ("pen: {colour: red}", "FILE:2: unknown key 'pen.colour'; did you mean 'pen.color'?"),
        ("pen:\n  width: 0", "FILE:3: pen.width: must be above 0, got 0"),
        ("paper: lined\npen: {width: 3}",
         "FILE:3: pen.width: must be at most 1 on lined paper, got 3.0"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_of_any_root_is_told(tmp_path, lines, message):
    assert complaint(tmp_path, f"{LEAST}{lines}\n") == message


def test_errors_point_to_what_the_root_names(tmp_path):
    assert complaint(tmp_path, LEAST, "red") == (
        "'red' on the command line: settings are given as key=value, for example pen.width=1"
    )
    with pytest.raises(UserError) as caught:
        load(Letter, tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: not found; the drawer has some"


def test_plain_data_of_any_root_is_read_and_written(tmp_path):
    letter = parse(Letter, {"text": "1e5", "pen": {"width": 2}}, "x")
    assert to_dict(letter) == {
        "text": "1e5", "paper": "white", "pen": {"color": "blue", "width": 2.0},
    }  # fmt: skip
    assert load(Letter, write(tmp_path, to_yaml(letter))) == letter
    with pytest.raises(UserError) as caught:
        parse(Letter, {"pen": {"color": ""}}, "header")
    assert str(caught.value) == (
        "header: missing key 'text': What it says\nheader: pen.color: must be small letters, got ''"
    )


def test_changed_settings_of_any_root_are_told():
    new = Letter(text="hello", pen=Pen(width=1))
    assert changed_settings(Letter(text="hello"), new) == [("pen.width", 0.5, 1.0)]


def test_help_of_any_root_is_made_from_its_fields():
    assert (
        help_text(Letter)
        == """\
Every setting as key: default  # allowed values, and what it means.

text: (required)  # text
    What it says.

paper: white  # white | lined | path
    What to write on, or a picture of it.

pen: What to write with.

pen.color: blue  # small letters
    The ink; a word.

pen.width: 0.5  # above 0
    Millimeters."""
    )
    assert allowed_values(Letter, "pen.color") == "small letters"


def test_commented_yaml_holds_what_was_chosen_with_its_meaning(tmp_path):
    text = commented_yaml(Letter, ["text", "pen.color", "pen.width"], {"text": "a: b"})
    assert (
        text
        == """\
# What it says.
text: 'a: b'

pen:
  # The ink; a word.
  color: blue
  # Millimeters.
  width: 0.5
"""
    )
    assert load(Letter, write(tmp_path, text)) == Letter(text="a: b")


def test_flatten_joins_keys_with_dots():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }


# --- Files --------------------------------------------------------------------------------------


def test_bom_crlf_comments_and_a_document_mark_change_nothing(tmp_path):
    text = f"---\n# comment\n{LEAST}...\n".replace("\n", "\r\n")
    path = write(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert load(Letter, path) == Letter(text="hello")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "FILE:1: must be a list of 'key: value' lines, got nothing"),
        (b"# only this\n", "FILE:1: must be a list of 'key: value' lines, got nothing"),
        (b"- a\n", "FILE:1: must be a list of 'key: value' lines, got ['a']"),
        (b"some words", "FILE:1: must be a list of 'key: value' lines, got 'some words'"),
        ("text: a\n".encode("utf-16"), "FILE:1: not UTF-8 text; save the file as UTF-8"),
        (b"text: a\npaper: \xff\n", "FILE:2: not UTF-8 text; save the file as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "FILE:1: not UTF-8 text; save the file as UTF-8"),
        (b"#" * 1_048_577, "FILE: larger than 1048576 bytes; is this really a YAML file?"),
    ],
)
def test_what_is_no_file_of_settings_is_refused(tmp_path, content, message):
    assert complaint(tmp_path, content) == message


def test_a_folder_a_pipe_and_an_impossible_name_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    long = "x" * 300
    for name, reason in [
        ("", "is a folder; give a YAML file"),
        ("pipe", "is not a regular file; give a YAML file"),
        (long, "cannot be read (File name too long)"),
    ]:
        with pytest.raises(UserError) as caught:
            load(Letter, tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {reason}"


def test_a_file_name_with_a_line_break_makes_no_second_line(tmp_path):
    path = tmp_path / "a\nb.yaml"
    path.write_text("")
    with pytest.raises(UserError) as caught:
        load(Letter, path)
    assert str(caught.value) == (
        f"{tmp_path}/a\\nb.yaml:1: must be a list of 'key: value' lines, got nothing"
    )


LAUGHS = "a: &a [l, l, l, l, l, l, l, l, l]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # C8, C9
        (LAUGHS, "FILE:1: more than 10000 values once aliases are expanded"),
        ("text: " + "[" * 5000, "FILE:1: nested deeper than 32 levels"),
        ("text: " + "{a: " * 5000, "FILE:1: nested deeper than 32 levels"),
        (
            "".join(" " * i + f"k{i}:\n" for i in range(700)),
            "FILE:33: nested deeper than 32 levels",
        ),
        ("- " * 5000, "FILE:1: nested deeper than 32 levels"),
        ("text: [" + "1, " * 200_000 + "]", "FILE:1: more than 10000 values"),
        ("".join(f"k{i}: 1\n" for i in range(50_000)), "FILE:5000: more than 10000 values"),
    ],
)
def test_bombs_are_refused_quickly(tmp_path, text, message):
    before = time.process_time()
    assert complaint(tmp_path, text) == message
    assert time.process_time() - before < 5  # a quarter of a second at most, on an idle core
