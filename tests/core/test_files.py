"""Atomic writing, and small facts about files."""

import inspect
import io
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from fast_style.core.files import (
    atomic_write,
    free_bytes,
    made_folders,
    make_with_parents,
    remove_stray_temporaries,
    sha256_of,
    what_it_looks_like,
    why_unwritable,
    with_sorted_metadata,
    write_text_atomically,
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_folders_that_were_missing_are_removed_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(OSError, match="later"), made_folders(tmp_path / "old" / "a" / "b"):  # noqa: PT012
        assert (tmp_path / "old" / "a" / "b").is_dir()
        raise OSError("later")
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]
    with pytest.raises(OSError, match="later"), made_folders(tmp_path / "mine"):  # noqa: PT012
        (tmp_path / "mine" / "photo.png").touch()
        raise OSError("later")
    assert (tmp_path / "mine" / "photo.png").exists()
    with made_folders(tmp_path / "old" / "a", tmp_path / "old"):
        pass
    assert (tmp_path / "old" / "a").is_dir()


def test_folder_is_made_at_any_depth(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d"] * 300)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 200)
    try:
        make_with_parents(folder)
    finally:
        sys.setrecursionlimit(limit)
    assert folder.is_dir()
    make_with_parents(folder)
    (folder / "file").touch()
    with pytest.raises(FileExistsError):
        make_with_parents(folder / "file")


def test_folder_whose_path_is_too_long_leaves_none_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        make_with_parents(tmp_path.joinpath(*["folder"] * 1000))
    assert names(tmp_path) == set()


@pytest.mark.skipif(os.name == "nt", reason="there, a working directory cannot be removed")
def test_no_folder_can_be_made_in_a_removed_working_directory(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for folder in (Path("a"), Path("a", "b")):
        with pytest.raises(FileNotFoundError):
            make_with_parents(folder)
    assert names(tmp_path) == set()


def test_why_a_folder_cannot_be_written_to(tmp_path, monkeypatch):
    assert why_unwritable(tmp_path) is None
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "permission" in why_unwritable(tmp_path)
    facts = SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda _: facts, raising=False)
    assert "read-only" in why_unwritable(tmp_path)


def test_what_is_written_is_what_the_file_holds(tmp_path):
    path = tmp_path / "a"
    with atomic_write(path) as file:
        file.write(b"one")
        file.write(b"\x00two")
    assert path.read_bytes() == b"one\x00two"
    assert names(tmp_path) == {"a"}


def test_an_old_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"long old content")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"long old content"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:  # noqa: PT012
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"a"}


def test_a_failure_leaves_no_new_file(tmp_path):
    with pytest.raises(ValueError, match="stop"), atomic_write(tmp_path / "a"):
        raise ValueError("stop")
    assert names(tmp_path) == set()


def test_interrupt_as_the_file_is_made_leaves_no_file(tmp_path, monkeypatch):
    real = io.open

    def interrupt(name, *arguments, **keywords):
        real(name, *arguments, **keywords).close()
        raise KeyboardInterrupt

    monkeypatch.setattr(io, "open", interrupt)
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a"):
        pass
    assert names(tmp_path) == set()


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_has_appeared_is_not_replaced(tmp_path, monkeypatch, has_links):
    def refuse(*unused):
        raise PermissionError("no hard links on this disk")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a"
    with atomic_write(path, replaces=False) as file:
        file.write(b"mine")
    assert (path.read_bytes(), names(tmp_path)) == (b"mine", {"a"})
    path.unlink()
    with pytest.raises(FileExistsError), atomic_write(path, replaces=False) as file:  # noqa: PT012
        path.write_bytes(b"another's")
        file.write(b"mine")
    assert (path.read_bytes(), names(tmp_path)) == (b"another's", {"a"})


def test_a_failing_rename_leaves_no_temporary(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"), atomic_write(tmp_path / "folder") as file:
        file.write(b"x")
    assert names(tmp_path) == {"folder"}


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none" / "a"):
        pass


def test_a_bare_file_name_is_written_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text_atomically(Path("a"), "x")
    assert names(tmp_path) == {"a"}


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask_which_stays(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text_atomically(tmp_path / "a", "x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_text_is_utf8_with_its_line_ends_as_they_are(tmp_path):
    write_text_atomically(tmp_path / "a", "é\n墨\r\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n\xe5\xa2\xa8\r\n"


def test_a_killed_write_leaves_a_temporary_that_is_removed_and_nothing_else_is(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from fast_style.core.files import *\n"
        "with atomic_write(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "model"
    target.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", code, target])
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2
    others = {".hidden", "fast-style-notes", "x.fast-style-y", "model"}
    for name in others - {"model"}:
        (tmp_path / name).touch()
    (tmp_path / ".fast-style-folder").mkdir()
    remove_stray_temporaries(tmp_path)
    assert names(tmp_path) == others | {".fast-style-folder"}
    assert target.read_bytes() == b"old"


def test_removing_temporaries_of_a_missing_folder_does_nothing(tmp_path):
    remove_stray_temporaries(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "digest"),  # FIPS 180-2, appendix B
    [
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ],
)
def test_sha256_of_known_contents(tmp_path, content, digest):
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == digest


def test_free_bytes_are_those_of_the_disk(tmp_path):
    status = os.statvfs(tmp_path)
    for folder in (tmp_path, tmp_path / "not" / "yet"):
        assert 0 <= free_bytes(folder) <= status.f_frsize * status.f_blocks


@pytest.mark.parametrize(
    ("start", "guess"),
    [
        (b"", "it is empty"),
        (b" <!DOCTYPE html>", "it is a web page"),
        (b"<HTML>", "it is a web page"),
        (b"PK\x03\x04", "damaged, or of another format"),
    ],
)
def test_unusable_file_is_guessed_by_its_first_bytes(start, guess):
    assert what_it_looks_like(start) == guess


FULL_DISK = """
import resource, sys
from pathlib import Path
from fast_style.core.files import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    with atomic_write(Path(sys.argv[1])) as file:
        file.write(b"x" * int(sys.argv[2]))
except OSError as error:
    sys.exit(f"{type(error).__name__} {error.errno}")
"""


@pytest.mark.skipif(os.name != "posix", reason="no limit on file sizes here")
@pytest.mark.parametrize("size", [4097, 1_000_000])  # buffered until the flush, or written at once
def test_a_full_disk_is_an_os_error_and_leaves_the_old_file_whole(tmp_path, size):
    target = tmp_path / "model"
    target.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, target, str(size)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "OSError 27\n")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == {"model"}


def test_a_file_that_fits_is_written_under_the_same_limit(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path / "a", "4096"])
    assert done.returncode == 0
    assert (tmp_path / "a").stat().st_size == 4096


def test_metadata_of_safetensors_are_sorted_and_nothing_else_changes(tmp_path):
    tensors = {"b": np.arange(3.0), "a": np.ones((2, 2))}
    metadata = {letter: letter * 3 for letter in "hgfedcba"}
    data = {
        with_sorted_metadata(safetensors.numpy.save(tensors, dict(order)))
        for order in (metadata.items(), sorted(metadata.items()))
        for _ in range(5)
    }
    assert len(data) == 1
    (tmp_path / "x.safetensors").write_bytes(data.pop())
    with safetensors.safe_open(tmp_path / "x.safetensors", framework="np") as file:
        assert file.metadata() == metadata
        assert set(file.keys()) == {"a", "b"}
        assert all(np.array_equal(file.get_tensor(name), tensors[name]) for name in "ab")
