"""Claims about `real_paths`: it finds the paths that `os.path.realpath` finds."""

import os
from pathlib import Path

import pytest

from fast_style.pictures.real_paths import RealPaths


def test_real_paths_are_those_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.jpg").touch()
    (tmp_path / "a" / "link").symlink_to("b")
    (tmp_path / "deep").symlink_to("a/link/../b")
    for name, target in [
        ("1.jpg", "a/b/x.jpg"),
        ("2.jpg", tmp_path / "1.jpg"),
        ("a/b/3.jpg", "../../2.jpg"),
        ("a/link/4.jpg", "../link/3.jpg"),
        ("5.jpg", "deep/4.jpg"),
    ]:
        (tmp_path / name).symlink_to(target)
    real_paths = RealPaths()
    real = str(tmp_path.resolve() / "a" / "b" / "x.jpg")
    for name in ("1.jpg", "2.jpg", "a/link/3.jpg", "deep/4.jpg", "5.jpg"):
        assert real_paths.of_link(os.path.join(tmp_path, name)) == real
    monkeypatch.chdir(tmp_path)
    assert RealPaths().of_link("2.jpg") == real
    assert RealPaths().in_real_folder("2.jpg") == str(tmp_path.resolve() / "2.jpg")
    assert RealPaths().in_real_folder("/x.jpg") == "/x.jpg"


def test_a_link_that_becomes_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert RealPaths().of_link(str(tmp_path / "a")).startswith(str(tmp_path.resolve()))
