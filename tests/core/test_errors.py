"""How text of users is shown in messages."""

import errno
import os
from pathlib import Path

import pytest

from fast_style.core.errors import printable, remedy_for, shown


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


def test_remedy_of_a_full_disk_is_room() -> None:
    full = [OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EDQUOT)]
    assert {remedy_for(error, "choose another") for error in full} == {"free some room on its disk"}
    assert remedy_for(OSError(errno.EACCES, "denied"), "choose another") == "choose another"
