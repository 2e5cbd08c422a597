"""Color profiles that cannot be applied: known without decoding, and told in one line."""

from pathlib import Path

import pytest
from example_pictures import gradient, swapped_profile
from PIL import Image, ImageCms

from fast_style.pictures import reading
from fast_style.pictures.profiles import has_unusable_profile, line_about_profiles
from fast_style.pictures.reading import read_picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.mark.parametrize(
    ("mode", "profile", "is_unusable"),
    [
        ("RGB", None, False),
        ("RGB", SRGB, False),
        ("RGB", swapped_profile(), False),
        ("RGB", LAB, True),
        ("RGB", b"garbage", True),
        ("RGB", swapped_profile()[:150], True),
        ("RGBA", SRGB, False),
        ("RGBA", LAB, True),
        ("P", SRGB, False),
        ("L", SRGB, True),
        ("LA", SRGB, True),
        ("1", SRGB, True),
        ("I;16", SRGB, True),
    ],
)
def test_profiles_are_told_that_reading_ignores(
    tmp_path: Path,
    mode: str,
    profile: bytes | None,
    is_unusable: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "a.png"
    image = gradient().convert("L").convert("I;16") if mode == "I;16" else gradient().convert(mode)
    image.save(path, icc_profile=profile)
    assert has_unusable_profile(path) == is_unusable
    ignored = []

    def applied(colors: Image.Image, data: bytes) -> Image.Image | None:
        found = apply_profile(colors, data)
        ignored.append(found is None)
        return found

    apply_profile = reading.apply_profile
    monkeypatch.setattr(reading, "apply_profile", applied)
    read_picture(path)
    assert ignored == ([] if profile is None else [is_unusable])


def test_grey_with_a_transparent_value_is_read_as_colors(tmp_path: Path) -> None:
    gradient().convert("L").save(tmp_path / "a.png", icc_profile=SRGB, transparency=0)
    assert not has_unusable_profile(tmp_path / "a.png")


def test_what_is_no_picture_has_no_profile(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    assert not has_unusable_profile(tmp_path / "a.png")
    assert not has_unusable_profile(tmp_path / "none.png")


def test_the_line_counts_and_names_the_first() -> None:
    assert line_about_profiles([]) == ""
    one, several = line_about_profiles(["a.jpg"]), line_about_profiles(["d", "c", "b", "a"])
    assert "1 file " in one
    assert "a.jpg" in one
    assert "4 files " in several
    assert "a, b, c, ..." in several
