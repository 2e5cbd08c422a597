"""Claims about the files that a command writes after its work."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from fast_style.cli.outputs import put_picture_in_place
from fast_style.core.errors import UserError


def test_sheet_that_is_too_large_for_its_format_becomes_a_png_beside_what_is_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "sheet.png").write_bytes(b"a photo")
    lines: list[str] = []
    written = put_picture_in_place(
        tmp_path / "sheet.webp", Image.new("RGB", (16_384, 1)), overwrite=True, tell=lines.append
    )
    assert written == tmp_path / "sheet-2.png"
    with Image.open(written) as picture:
        assert picture.size == (16_384, 1)
    assert (tmp_path / "sheet.png").read_bytes() == b"a photo"
    assert "sheet.webp" in lines[0]
    assert "16383" in lines[0]
    assert "sheet-2.png" in lines[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet-2.png", "sheet.png"]


def test_picture_for_a_full_disk_goes_to_the_folder_of_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def full(source: Path, target: Path) -> None:
        if target.parent == tmp_path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "replace", full)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "sheet.png").write_bytes(b"an earlier one")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with pytest.raises(UserError) as caught:
        put_picture_in_place(tmp_path / "sheet.png", Image.new("RGB", (2, 1)), overwrite=False)
    copy = tmp_path / "tmp" / "sheet-2.png"
    for part in (f"{tmp_path}/sheet.png: ", "free some room", str(copy)):
        assert part in str(caught.value)
    assert caught.value.exit_code == 1
    with Image.open(copy) as picture:
        assert picture.size == (2, 1)


def test_full_disk_that_temporary_files_share_names_the_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UserError) as caught:
        put_picture_in_place(tmp_path / "sheet.png", Image.new("RGB", (2, 1)), overwrite=False)
    for part in (f"{tmp_path}/sheet.png: ", "free some room", "TMPDIR"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 1
