"""Claims about `other_trainings`: living ones are told, dead ones are not, and none fails."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_run import command_environment

from fast_style.training import other_trainings
from fast_style.training.other_trainings import told_of_others

TRAIN = """
import sys
from fast_style.training.other_trainings import told_of_others
with told_of_others(print):
    print("trains", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of this process and of those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def told() -> list[str]:
    said: list[str] = []
    with told_of_others(said.append):
        pass
    return said


@contextmanager
def another_training() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", TRAIN],
        env=command_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while process.stdout.readline() != "trains\n":
            assert process.poll() is None
        yield process


def files_in(folder: Path) -> list[Path]:
    return list(folder.glob("fast-style*/*"))


def test_training_alone_is_told_nothing_and_leaves_nothing(temporary: Path) -> None:
    with told_of_others(print):
        assert len(files_in(temporary)) == 1
    assert files_in(temporary) == []
    assert told() == []


def test_living_trainings_are_told_in_one_line_and_ended_ones_are_not(temporary: Path) -> None:
    with another_training() as first:
        assert told() == [
            f"another training runs on this machine (process {first.pid}); both are slower while "
            "they share its cores or its GPU"
        ]
        with another_training() as second:
            (line,) = told()
            numbers = ", ".join(map(str, sorted([first.pid, second.pid], key=str)))
            assert line.startswith(f"2 other trainings run on this machine (processes {numbers}); ")
            second.communicate()
        assert f"(process {first.pid})" in told()[0]
        first.communicate()
    assert told() == []


def test_killed_training_is_not_told_and_its_file_is_removed(temporary: Path) -> None:
    with another_training() as process:
        process.kill()
    assert len(files_in(temporary)) == 1
    assert told() == []
    assert files_in(temporary) == []


def test_each_of_two_that_overlap_has_its_file(temporary: Path) -> None:
    with told_of_others(print):
        assert f"(process {os.getpid()})" in told()[0]  # a notebook's other thread
        assert len(files_in(temporary)) == 1


def no_folder(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "none"))


def a_file_in_its_place(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / f"fast-style-{os.getuid()}").touch()


def a_link_in_its_place(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / f"fast-style-{os.getuid()}").symlink_to(temporary / "elsewhere")


def another_users_folder(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.getuid() + 1
    (temporary / f"fast-style-{other}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: other)


def no_temporary_folder(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)


def read_only(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*unused: object) -> bool:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(other_trainings, "has_locks", fail)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users have numbers elsewhere")
@pytest.mark.parametrize(
    "spoil",
    [
        no_folder,
        no_temporary_folder,
        a_file_in_its_place,
        a_link_in_its_place,
        another_users_folder,
        read_only,
    ],
)
def test_training_that_cannot_be_seen_says_so_and_goes_on(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, spoil: object
) -> None:
    assert callable(spoil)
    spoil(temporary, monkeypatch)
    (line,) = told()
    assert "cannot be written (" in line
    assert "(None)" not in line
    assert not [path for path in temporary.rglob("*") if path.suffix == ".lock"]


def test_nothing_is_said_where_files_cannot_be_locked(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_trainings, "has_locks", lambda folder: False)
    assert told() == []
    assert files_in(temporary) == []
