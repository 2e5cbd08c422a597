"""Claims about the files that a command writes after its work."""

from pathlib import Path

from PIL import Image

from fast_style.cli.outputs import put_picture_in_place


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
