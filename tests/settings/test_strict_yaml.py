"""Claims about `strict_yaml`: what YAML means here, and which files are refused."""

import os
import time

import pytest
from PIL import Image
from settings_files import LEAST, LETTER, Letter, complaint, read, write
from tiny_model import write_tiny_model

from fast_style.core.errors import UserError
from fast_style.settings.config import Config
from fast_style.settings.gatys_config import GatysConfig
from fast_style.settings.reading import load
from fast_style.settings.strict_yaml import read_yaml
from fast_style.settings.writing import to_dict


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("train: {learning_rate: 1e-3}", "train.learning_rate", 0.001),
        ("loss: {style_weight: 1e5}", "loss.style_weight", 100_000.0),
        ("loss: {style_weight: 1.0e10}", "loss.style_weight", 1e10),
        ("loss: {style_weight: .5}", "loss.style_weight", 0.5),
        ("loss: {style_weight: +3}", "loss.style_weight", 3.0),
        ("seed: 010", "seed", 10),  # 8 in YAML 1.1
        ("seed: 0x1F", "seed", 31),
        ("seed: 0o17", "seed", 15),
        ("train: {threads: null}", "train.threads", None),
        ("train: {threads: ~}", "train.threads", None),
        ("train: {threads: }", "train.threads", None),
        ("data: {photos: p, flip: False}", "data.flip", False),
        ("data: {photos: p, workers: 0}", "data.workers", 0),
        ("data: {photos: p, workers: 'auto'}", "data.workers", "auto"),
        ("data: {photos: p, crop_scale: [1, 1]}", "data.crop_scale", [1.0, 1.0]),
        ("name: yes", "name", "yes"),
        ("name: on", "name", "on"),
        ("name: 2020-01-01", "name", "2020-01-01"),
        ("name: 1_000", "name", "1_000"),  # 1000 in YAML 1.1
        ("name: '010'", "name", "010"),
        ("loss: {style_layers: {}}", "loss.style_layers", {}),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(tmp_path, line, key, value):
    section = line.split(":")[0]
    kept = "".join(row + "\n" for row in LEAST.splitlines() if not row.startswith(f"{section}:"))
    found = to_dict(read(Config, tmp_path, f"{kept}{line}\n"))
    for part in key.split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_aliases_stand_for_what_they_name(tmp_path):
    text = f"{LEAST}loss: {{content_layers: &l {{relu2_2: 2}}, style_layers: *l}}\n"
    loss = read(Config, tmp_path, text).loss
    assert loss.content_layers == loss.style_layers == {"relu2_2": 2.0}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # duplicate keys
        ("seed: 3\nlog: {}\nseed: 4",
         "FILE:6: seed: given twice (first at line 4)"),
        ("log:\n  every: 3\n  every: 3",
         "FILE:6: log.every: given twice (first at line 5)"),
        # tags
        ("seed: !!python/object/apply:os.system [ls]",
         "FILE:4: tags are not allowed, got 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("seed: !foo 3", "FILE:4: tags are not allowed, got '!foo'"),
        ("? !!str seed\n: 3", "FILE:4: tags are not allowed, got 'tag:yaml.org,2002:str'"),
        # not a file of settings
        ("seed: [", "FILE:5: not valid YAML: expected the node content, but found "
         "'<stream end>'"),
        ("log:\n\tevery: 3", "FILE:5: not valid YAML: found character '\\t' that cannot start any "
         "token; indent with spaces"),
        ("---\nseed: 3",
         "FILE:4: a second document begins here; write it into a file of its own"),
        ("seed: *nothing", "FILE:4: not valid YAML: found undefined alias 'nothing'"),
        ("seed: *.jpg", "FILE:4: not valid YAML: expected alphabetic or numeric character, but "
         "found '.'; put single quotes around the text"),
        ("log: {every: ${N}}", "FILE:4: not valid YAML: expected ',' or '}', but got '{'; "
         "put single quotes around a text with a variable in it"),
        ("seed: &a [*a]", "FILE:4: nested deeper than 32 levels once aliases are expanded"),
        ("? [a]\n: 3", "FILE:4: a key must be a word, not a list or a section"),
        ('seed: "\\U00110000"', "FILE:4: not valid YAML: the number of an escape in double quotes, "
         "or of a %YAML line, is too large"),
        ('seed: "\\UFFFFFFFF"', "FILE:4: not valid YAML: the number of an escape in double quotes, "
         "or of a %YAML line, is too large"),
        ("# \0", "FILE:4: not valid YAML: the character '\\x00' is not allowed"),
        # numbers that cannot be meant
        ("model: {width: " + "9" * 41 + "}", f"FILE:4: number too long: {'9' * 20}..."),
        ("loss: {tv_weight: 1e400}", "FILE:4: number too large: 1e400"),
    ],
)  # fmt: skip
def test_what_is_no_strict_yaml_is_told_with_its_line(tmp_path, lines, message):
    assert complaint(Config, tmp_path, f"{LEAST}{lines}\n") == message


def test_bom_crlf_comments_and_a_document_mark_change_nothing(tmp_path):
    text = f"---\n# comment\n{LETTER}...\n".replace("\n", "\r\n")
    path = write(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert load(Letter, path) == Letter(text="hello")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "FILE:1: must be lines of 'key: value', got nothing"),
        (b"# only this\n", "FILE:1: must be lines of 'key: value', got nothing"),
        (b"- a\n", "FILE:1: must be lines of 'key: value', got ['a']"),
        (b"some words", "FILE:1: must be lines of 'key: value', got 'some words'"),
        ("text: a\n".encode("utf-16") + b"a", "FILE:2: not UTF-8 text; save the file as UTF-8"),
        (b"text: a\npaper: \xff\n", "FILE:2: not UTF-8 text; save the file as UTF-8"),
        (
            b"\x89PNG\r\n\x1a\n\0\0",
            "FILE: is a picture, but a YAML file of settings is needed here; the drawer has some",
        ),
        (
            b"text: \0\xff",
            "FILE: is no text, but a YAML file of settings is needed here; the drawer has some",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "FILE: a Git LFS pointer: run git lfs pull",
        ),
        (b"#" * 1_048_577, "FILE: larger than 1048576 bytes; give a YAML file of settings"),
    ],
)
def test_what_is_no_file_of_settings_is_refused(tmp_path, content, message):
    assert complaint(Letter, tmp_path, content) == message


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif", "avif", "jp2"])
def test_picture_is_told_from_a_damaged_text(tmp_path, suffix):
    Image.effect_noise((90, 80), 64).convert("RGB").save(tmp_path / f"a.{suffix}")
    message = complaint(Config, tmp_path, (tmp_path / f"a.{suffix}").read_bytes())
    assert message.startswith("FILE: is a picture")
    assert "fast-style init STYLE.jpg" in message
    assert "style.image" in message


def test_model_is_told_however_large(tmp_path):
    for width in (1, 16):
        model = write_tiny_model(tmp_path / "m.safetensors", width=width).read_bytes()
        assert complaint(Config, tmp_path, model).startswith("FILE: is a model, but a YAML file")
        message = complaint(GatysConfig, tmp_path, model + bytes(1_048_577))
        assert message.startswith("FILE: is a model, but a YAML file")
        assert "the photo belongs behind --content" in message


@pytest.mark.parametrize("written", ["copies:2", "text:a", "paper:'white'", "copies:[1]"])
def test_missing_space_behind_a_colon_is_told_with_its_line(tmp_path, written):
    remedy = "put a space behind the colon"
    for text in (f"text: hello\n{written}\n", f"text: hello\n{written}\n\npaper: white\n"):
        message = complaint(Letter, tmp_path, text)
        assert message == f"FILE:2: not valid YAML: {written!r}; {remedy}"
    message = complaint(Letter, tmp_path, written)
    assert message == f"FILE:1: must be lines of 'key: value', got {written!r}; {remedy}"
    message = complaint(Letter, tmp_path, f"text: hello\npen:\n  {written}\n")
    assert message == (
        f"FILE:2: pen: must be a section of key: value lines, got {written!r}; {remedy}"
    )


@pytest.mark.parametrize(
    ("odd", "remedy"),
    [
        (":\u00a0", "a no-break space (U+00A0) stands beside the key; type an ordinary space"),
        (":\u3000", "an ideographic space (U+3000) stands beside the key; type an ordinary space"),
        (":\u200b ", "a zero width space (U+200B) stands beside the key; type an ordinary space"),
        ("\uff1a", "a full-width colon (U+FF1A) stands behind the key; type an ordinary colon and "
                   "a space"),
    ],
)  # fmt: skip
def test_spaces_and_colons_of_web_pages_are_named_with_their_line(tmp_path, odd, remedy):
    written = f"text{odd}a"
    for text in (f"{written}\npaper: white\n", f"{written}\n\npaper: white\ncopies: 2\n"):
        message = complaint(Letter, tmp_path, text)
        assert message == f"FILE:1: not valid YAML: {written!r}; {remedy}"
    message = complaint(Letter, tmp_path, f"# a letter\n{written}")
    assert message == f"FILE:2: must be lines of 'key: value', got {written!r}; {remedy}"
    message = complaint(Letter, tmp_path, f"text: hello\npen:\n  {written}\n")
    assert message == (
        f"FILE:2: pen: must be a section of key: value lines, got {written!r}; {remedy}"
    )


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("text: a\npen:\u00a0{color: red}\n", "FILE:2: pen:"),
        ("text: a\npen:\u00a0{color: red, width: 2}\n", "FILE:2: not valid YAML: 'pen:"),
        ("text: a\npen:\u00a0{\n  color: red\n}\n", "FILE:2: not valid YAML: 'pen:"),
        ("text: a\ncopies\u00a0: 2\n", "FILE:2: copies"),
        ("text: a\npen:\n\u00a0 color: red\n", "FILE:3: "),
    ],
)
def test_no_break_space_before_a_section_or_a_key_is_named(tmp_path, text, start):
    message = complaint(Letter, tmp_path, text)
    assert message.startswith(start)
    assert "a no-break space (U+00A0) stands beside the key; type an ordinary space" in message


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("\u20072", "which begins or ends with an invisible character (U+2007); remove it"),
        ("“2”", "which begins or ends with “ and ”, which is no straight quote; write ' or \" or "
                "none"),
    ],
)  # fmt: skip
def test_value_that_pasting_has_changed_is_told_with_its_remedy(tmp_path, value, remedy):
    message = complaint(Letter, tmp_path, f"text: a\ncopies: {value}\n")
    assert message == f"FILE:2: copies: must be an integer, got {value!r}, {remedy}"


@pytest.mark.parametrize("text", ["a\u00a0b", "\u00a0a", "“a”", "key\uff1ab", "a:\u00a0b"])
def test_texts_may_have_such_characters(tmp_path, text):
    assert read(Letter, tmp_path, f"text: {text}\n").text == text
    # Nor are they to blame for another line's mistake.
    message = complaint(Letter, tmp_path, f"text: {text}\npaper: 'white\n")
    assert message == "FILE:3: not valid YAML: found unexpected end of stream"


def test_model_has_a_header_and_utf_16_has_none(tmp_path):
    text = "ab: {c: 1}\ntext: a\n"  # in UTF-16, its brace is where a model's header begins
    message = complaint(Letter, tmp_path, text.encode("utf-16-le"))
    assert message.startswith("FILE:1: ab: unknown key")


@pytest.mark.parametrize("text", ["text: hello\nno colon\n", "text: hello\nhttp://a\nb: c: d\n"])
def test_other_colons_are_not_blamed(tmp_path, text):
    message = complaint(Letter, tmp_path, text)
    assert "FILE:2: " in message or "FILE:3: " in message
    assert "space behind" not in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_utf_16_is_read_with_a_mark_and_without(tmp_path, encoding):
    # What `>` of Windows PowerShell writes is UTF-16 with a mark and \r\n.
    path = write(tmp_path, "# 日本\r\ntext: Café\r\n".encode(encoding))
    assert load(Letter, path) == Letter(text="Café")
    big_endian = "\ufefftext: Café\n".encode("utf-16-be")
    assert load(Letter, write(tmp_path, big_endian)) == Letter(text="Café")


@pytest.mark.parametrize(
    ("written", "meant", "remedy"),
    [
        ("'it's.jpg'", '"it\'s.jpg"', "double quotes"),
        ('"a"b.jpg', "'\"a\"b.jpg'", "single quotes"),
        ("a: b.jpg", '"a: b.jpg"', "double quotes"),
    ],
)
def test_text_that_needs_other_quotes_is_answered_with_them(tmp_path, written, meant, remedy):
    message = complaint(Letter, tmp_path, f"text: {written}\n")
    assert message.startswith("FILE:1: not valid YAML: ")
    assert remedy in message
    assert read(Letter, tmp_path, f"text: {meant}\n").text == meant[1:-1]


NO_ESCAPES = (
    "in double quotes, a backslash begins an escape; write a path in single quotes, or with /"
)


@pytest.mark.parametrize(
    "written",
    [
        r'"D:\nice"', r'"D:\data"', r'"C:\Users\me"', r'"D:\xampp"', r'"D:\x41"', r'"D:\u00e9"',
        r'"photos\train"', r'"..\new"', r'"photos\raw"',
        r'"D:/photos\new"', r'"\\server\new"', r'"\\server\share"',
        r'"D:\ photos"', r'"a\_b"', r'"D:\0"', r'"a\Nb"', r'"D:\photos\"',
    ],
)  # fmt: skip
def test_windows_path_in_double_quotes_is_answered(tmp_path, written):
    for text in (f"text: {written}\n", f"text: {written}  # my photos\npaper: a\n"):
        message = complaint(Letter, tmp_path, text)
        assert message.startswith("FILE:1: ")
        assert message.endswith(NO_ESCAPES)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r"'D:\nice'", r"D:\nice"), (r"D:\nice", r"D:\nice"), (r'"D:\\nice"', r"D:\nice"),
        ('"D:/nice"', "D:/nice"), (r'"D:\/nice"', "D:/nice"), (r'"Caf\u00e9 \"a\""', 'Café "a"'),
        (r'"\\\\server\\new"', r"\\server\new"), (r'"a\x0Ab"', "a\nb"), (r'"a\\\\nb"', r"a\\nb"),
    ],
)  # fmt: skip
def test_other_quotes_and_escapes_mean_what_yaml_says(tmp_path, written, value):
    assert read(Letter, tmp_path, f"text: {written}\n").text == value


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
        f"{tmp_path}/a\\nb.yaml:1: must be lines of 'key: value', got nothing"
    )


LAUGHS = "a: &a [l, l, l, l, l, l, l, l, l]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
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
    assert complaint(Letter, tmp_path, text) == message
    assert time.process_time() - before < 5  # a quarter of a second at most, on an idle core


def test_version_of_thousands_of_digits_is_told_with_its_line() -> None:
    with pytest.raises(UserError, match=r"^FILE:1: not valid YAML: .*%YAML line"):
        read_yaml(f"%YAML {'1' * 5000}.1\n---\na: 1\n", "FILE")


@pytest.mark.parametrize("escape", [r"\U00110000", r"\UFFFFFFFF"])
def test_word_with_an_escape_beyond_unicode_is_told(escape: str) -> None:
    with pytest.raises(UserError, match=r"^WORD: not valid YAML: .*escape"):
        read_yaml(f'"{escape}"', "WORD", any_value=True)
