"""How text of users is shown in messages."""

from pathlib import Path

import pytest

from fast_style.core.errors import printable, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "nothing"),
        (True, "true"),
        (0.5, "0.5"),
        ("a\nb", r"'a\nb'"),
        ((1, 2), "[1, 2]"),
        ("x" * 200, "'" + "x" * 96 + "..."),
    ],
)
def test_value_is_shown_within_a_line(value, expected):
    assert shown(value) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo 1.jpg", "photo 1.jpg"),
        ("Zürich 日本.jpg", "Zürich 日本.jpg"),
        ("a\nb\tc\x1b[31m\x7f", r"a\nb\tc\x1b[31m\x7f"),
        ("\udcff\udc80", r"\xff\x80"),
        ("\ud800", r"\ud800"),
        ("right\u202eleft", r"right\u202eleft"),
        (Path("a/b.jpg"), "a/b.jpg"),
    ],
)
def test_printable_escapes_what_cannot_be_shown(name, expected):
    assert printable(name) == expected
    printable(name).encode()
