"""Picture files and images become upright 8-bit sRGB pixels; known answers first."""

import io
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from example_pictures import (
    UNKNOWN,
    corners,
    gradient,
    must_not_block,
    png_bytes,
    png_chunk,
    saved,
    swapped_profile,
)
from mutations import damaged
from PIL import Image, ImageCms, features

from fast_style.pictures.formats import EXTENSIONS
from fast_style.pictures.pixels import resize_shorter_side
from fast_style.pictures.reading import (
    DEFAULT_MAX_PIXELS,
    MAX_PIXELS_VARIABLE,
    PictureError,
    over_white,
    read_picture,
    size_in_header,
    to_picture,
)

ROOT = Path(__file__).resolve().parents[2]
AWKWARD = ROOT.parent / "shared" / "assets" / "awkward"

# Pillow's own limit, before any test ran.
PILLOW_LIMIT = Image.MAX_IMAGE_PIXELS


@pytest.fixture(autouse=True)
def _settings_of_the_process_stay() -> Iterator[None]:
    filters = list(warnings.filters)
    yield
    assert warnings.filters == filters
    assert PILLOW_LIMIT == Image.MAX_IMAGE_PIXELS


def awkward(name: str) -> Path:
    path = AWKWARD / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return path


def refusal(path: Path, **options) -> str:
    """Why a file cannot be read: the error without its first part, which must be the path."""
    with must_not_block(), pytest.raises(PictureError) as caught:
        read_picture(path, **options)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


def rgb_of(image: Image.Image) -> tuple[int, ...]:
    """The first pixel after conversion; also checks that there is no alpha."""
    picture = to_picture(image)
    assert picture.rgb.mode == "RGB"
    assert picture.alpha is None
    return picture.rgb.getpixel((0, 0))


def rgba_of(image: Image.Image, x: int = 0) -> tuple[int, ...]:
    picture = to_picture(image)
    assert picture.alpha is not None
    assert (picture.rgb.mode, picture.alpha.mode) == ("RGB", "L")
    return (*picture.rgb.getpixel((x, 0)), picture.alpha.getpixel((x, 0)))


def white_bilevel_png(path: Path, side: int) -> Path:
    """A large picture in a small file, without ever holding its pixels."""
    packer = zlib.compressobj(1)
    row = b"\0" + b"\xff" * ((side + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", packed)
        + png_chunk(b"IEND", b"")
    )
    return path


# --- Modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 0, (0, 0, 0)),
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 9), (1, 2, 3)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (128, 128, 128), (128, 128, 128)),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),  # BT.601 of pure red
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("HSV", (0, 0, 90), (90, 90, 90)),
    ],
)
def test_modes_without_alpha_become_rgb(mode, color, expected):
    assert rgb_of(Image.new(mode, (2, 2), color)) == expected


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ((255, 128, 128), (255, 255, 255)),
        ((0, 128, 128), (0, 0, 0)),
        # sRGB red is L 54.3, a 80.8, b 69.9 under the D50 light of ICC profiles.
        ((138, 209, 198), (255, 0, 0)),
    ],
)
def test_lab_becomes_rgb(color, expected):
    found = rgb_of(Image.new("LAB", (2, 2), color))
    assert np.abs(np.subtract(found, expected)).max() <= 6  # a step of a or b is 2 to 5 of 255


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("LA", (100, 50), (100, 100, 100, 50)),
        ("La", (50, 128), (100, 100, 100, 128)),  # premultiplied: 50 / (128 / 255) = 99.6
        ("RGBA", (1, 2, 3, 4), (1, 2, 3, 4)),
        ("RGBa", (50, 0, 128, 128), (100, 0, 255, 128)),
        ("RGBA", (1, 2, 3, 255), (1, 2, 3, 255)),
    ],
)
def test_modes_with_alpha_keep_it_aside(mode, color, expected):
    red, green, blue, alpha = rgba_of(Image.new(mode, (2, 2), color))
    assert alpha == expected[3]
    assert np.abs(np.subtract((red, green, blue), expected[:3])).max() <= 1


def palette_image(mode: str = "P") -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    return image


def test_palette_without_transparency_gives_its_colors():
    picture = to_picture(palette_image())
    assert picture.alpha is None
    assert [picture.rgb.getpixel((x, 0)) for x in range(3)] == [
        (10, 20, 30),
        (40, 50, 60),
        (70, 80, 90),
    ]


def test_palette_with_one_transparent_entry_gives_alpha():
    image = palette_image()
    image.info["transparency"] = 1
    assert [rgba_of(image, x)[3] for x in range(3)] == [255, 0, 255]
    assert rgba_of(image, 2) == (70, 80, 90, 255)


def test_palette_with_transparency_bytes_gives_alpha():
    image = palette_image()
    image.info["transparency"] = bytes([255, 128, 64])
    assert [rgba_of(image, x) for x in range(3)] == [
        (10, 20, 30, 255),
        (40, 50, 60, 128),
        (70, 80, 90, 64),
    ]


def test_palette_with_alpha_in_its_entries_gives_alpha():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 255, 40, 50, 60, 128], "RGBA")
    image.putdata([0, 1])
    assert [rgba_of(image, x) for x in range(2)] == [(10, 20, 30, 255), (40, 50, 60, 128)]


def test_palette_with_an_alpha_channel_gives_both():
    image = Image.merge("PA", (palette_image(), Image.new("L", (3, 1), 200)))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert rgba_of(image, 1) == (40, 50, 60, 200)


def test_converting_leaves_the_image_as_it_was():
    image = palette_image()
    image.info["transparency"] = 1
    before = (image.mode, image.tobytes(), dict(image.info))
    to_picture(image)
    assert (image.mode, image.tobytes(), dict(image.info)) == before


# --- Bit depth -----------------------------------------------------------------------------------


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_sixteen_bit_grey_is_scaled_and_rounded(byte_order):
    values = np.array([[0, 128, 129, 257, 257 * 77, 32767, 32768, 65406, 65407, 65535]])
    mode = "I;16" if byte_order == "<u2" else "I;16B"
    image = Image.frombytes(mode, (10, 1), values.astype(byte_order).tobytes())
    picture = to_picture(image)
    # 128 / 257 = 0.498, 129 / 257 = 0.502; 32767 / 257 = 127.498; 65406 / 257 = 254.498
    expected = [0, 0, 1, 1, 77, 127, 128, 254, 255, 255]
    assert np.asarray(picture.rgb)[0, :, 0].tolist() == expected


def test_every_sixteen_bit_value_is_rounded_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    picture = to_picture(Image.fromarray(values))
    assert np.array_equal(np.asarray(picture.rgb)[..., 1], np.rint(values / 257.0))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 257, 65535], [0, 1, 255]),
        ([0, 255, 257 * 9], [0, 1, 9]),  # still 16 bits, however dark
        ([-5, 0, 1_000_000], [0, 0, 255]),
        ([0, 500_000, 1_000_000], [0, 128, 255]),  # 127.5 is rounded to even
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_integers_have_white_at_65535_or_at_their_largest(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert image.mode == "I"
    assert np.asarray(to_picture(image).rgb)[0, :, 2].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.2, 1.0], [0, 51, 255]),
        ([-1.0, 0.2, 0.4], [0, 51, 102]),  # not stretched: white is 1
        ([0.0, 51.4, 200.0], [0, 51, 200]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([0.0, 1e6, 2e6], [0, 128, 255]),
        ([np.nan, np.inf, 0.2], [0, 0, 51]),
    ],
)
def test_floats_have_white_at_1_or_255_or_65535_or_at_their_largest(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert np.asarray(to_picture(image).rgb)[0, :, 0].tolist() == expected


def test_sixteen_bit_png_and_tiff_read_as_written(tmp_path):
    values = (np.arange(12, dtype=np.uint16) * 257 * 20).reshape(3, 4)
    for name in ("a.png", "a.tif"):
        path = saved(Image.fromarray(values), tmp_path / name)
        assert np.array_equal(np.asarray(read_picture(path).rgb)[..., 0], values // 257)


@pytest.mark.parametrize(
    ("bit_depth", "color_type", "row", "transparent", "expected"),
    [
        # Two pixels each, the second of which has the transparent value.
        (1, 0, bytes([0b01_000000]), (1,), [(0, 255), (None, 0)]),
        (2, 0, bytes([0b0110_0000]), (2,), [(85, 255), (None, 0)]),
        (4, 0, bytes([0x3F]), (15,), [(51, 255), (None, 0)]),
        (8, 0, bytes([9, 8]), (8,), [(9, 255), (None, 0)]),
        (16, 0, struct.pack(">HH", 257 * 9, 257 * 8), (257 * 8,), [(9, 255), (None, 0)]),
        (8, 2, bytes([9, 9, 9, 1, 2, 3]), (1, 2, 3), [(9, 255), (None, 0)]),
        (
            16,
            2,
            struct.pack(">6H", *[257 * 9] * 3, 257, 514, 771),
            (257, 514, 771),
            [(9, 255), (None, 0)],
        ),
    ],
)
def test_transparent_value_of_a_png_gives_alpha(
    tmp_path, bit_depth, color_type, row, transparent, expected
):
    path = tmp_path / "a.png"
    path.write_bytes(
        png_bytes(
            2,
            1,
            b"\0" + row,
            bit_depth=bit_depth,
            color_type=color_type,
            transparent=struct.pack(f">{len(transparent)}H", *transparent),
        )
    )
    picture = read_picture(path)
    assert picture.alpha is not None
    for x, (grey, alpha) in enumerate(expected):
        assert picture.alpha.getpixel((x, 0)) == alpha
        if grey is not None:
            assert picture.rgb.getpixel((x, 0)) == (grey, grey, grey)


# --- Alpha ---------------------------------------------------------------------------------------


def test_hidden_color_becomes_the_mean_of_the_visible_weighted_by_alpha():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 0), (0, 0, 200, 255), (0, 90, 80, 51)])
    picture = to_picture(image)
    # green: 90 * 51 / 306 = 15; blue: (200 * 255 + 80 * 51) / 306 = 180
    assert [picture.rgb.getpixel((x, 0)) for x in range(3)] == [
        (0, 15, 180),
        (0, 0, 200),
        (0, 90, 80),
    ]
    assert [picture.alpha.getpixel((x, 0)) for x in range(3)] == [0, 255, 51]


def test_hidden_color_is_the_mean_over_the_whole_height():
    values = np.random.default_rng(5).integers(0, 256, (150, 3, 4), dtype=np.uint8)
    values[::2, :, 3] = 0
    colors, weights = values[..., :3].astype(np.float64), values[..., 3:].astype(np.float64)
    mean = (colors * weights).sum((0, 1)) / weights.sum()
    assert rgb_of(to_picture(Image.fromarray(values)).rgb) == tuple(np.rint(mean).astype(int))


def test_nothing_visible_is_black():
    assert rgba_of(Image.new("RGBA", (2, 2), (9, 9, 9, 0))) == (0, 0, 0, 0)


def test_over_white_blends_by_alpha():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 0), (10, 20, 30, 255), (0, 0, 0, 51)])
    white = over_white(to_picture(image))
    assert white.mode == "RGB"
    assert [white.getpixel((x, 0)) for x in range(3)] == [
        (255, 255, 255),
        (10, 20, 30),
        (204, 204, 204),
    ]


def test_over_white_without_alpha_is_the_picture():
    picture = to_picture(gradient())
    assert over_white(picture) is picture.rgb


# --- Orientation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, ["123", "456"]),
        (2, ["321", "654"]),
        (3, ["654", "321"]),
        (4, ["456", "123"]),
        (5, ["14", "25", "36"]),
        (6, ["41", "52", "63"]),
        (7, ["63", "52", "41"]),
        (8, ["36", "25", "14"]),
        (9, ["123", "456"]),
        (0, ["123", "456"]),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_pictures_are_turned_upright(tmp_path, orientation, expected, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == ".webp" else {}
    path = saved(corners(), tmp_path / f"a{suffix}", exif=exif, **options)
    picture = read_picture(path)
    assert picture.size == (len(expected), len(expected[0]))
    found = np.asarray(picture.rgb)[..., 0] // 40
    assert ["".join(map(str, row)) for row in found] == expected


def test_jpeg_and_alpha_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(gradient(64, 48), tmp_path / "a.jpg", exif=exif)
    assert read_picture(path).size == (64, 48)

    image = Image.new("LA", (2, 1))
    image.putdata([(10, 20), (30, 40)])
    picture = read_picture(saved(image, tmp_path / "a.png", exif=exif))
    assert picture.size == (2, 1)
    assert [picture.alpha.getpixel((0, y)) for y in range(2)] == [20, 40]


def test_damaged_exif_is_ignored_without_a_warning(tmp_path):
    for number, damage in enumerate(
        [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01", b"Exif\0\0xx"]
    ):
        path = saved(corners(), tmp_path / f"{number}.jpg", exif=damage)
        assert read_picture(path).size == (2, 3)


# --- Color profiles ------------------------------------------------------------------------------


def test_srgb_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(gradient(), tmp_path / "a.png", icc_profile=profile)
    assert read_picture(path).rgb.tobytes() == gradient().tobytes()


def test_profile_is_applied_to_rgb(tmp_path):
    image = Image.new("RGB", (2, 1), (250, 100, 10))
    path = saved(image, tmp_path / "a.png", icc_profile=swapped_profile())
    red, green, blue = read_picture(path).rgb.getpixel((0, 0))
    assert np.abs(np.subtract((red, green, blue), (10, 100, 250))).max() <= 2


def test_profile_is_applied_beside_alpha_and_to_palettes(tmp_path):
    image = Image.new("RGBA", (2, 1), (250, 100, 10, 70))
    picture = read_picture(saved(image, tmp_path / "a.png", icc_profile=swapped_profile()))
    assert picture.alpha.getpixel((0, 0)) == 70
    assert picture.rgb.getpixel((0, 0))[2] > 240

    palette = Image.new("P", (1, 1))
    palette.putpalette([250, 100, 10])
    picture = read_picture(saved(palette, tmp_path / "p.png", icc_profile=swapped_profile()))
    assert picture.rgb.getpixel((0, 0))[2] > 240


def test_profile_of_another_mode_is_ignored(tmp_path):
    path = saved(Image.new("L", (2, 1), 99), tmp_path / "a.png", icc_profile=swapped_profile())
    assert read_picture(path).rgb.getpixel((0, 0)) == (99, 99, 99)


@pytest.mark.parametrize("profile", [b"x", b"\0" * 200, swapped_profile()[:150]])
def test_broken_profile_is_ignored(tmp_path, profile):
    path = saved(gradient(), tmp_path / "a.png", icc_profile=profile)
    assert read_picture(path).rgb.tobytes() == gradient().tobytes()


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = read_picture(saved(image, tmp_path / "a.jpg", quality=100)).rgb.getpixel(
        (3, 3)
    )
    assert red > 250
    assert max(green, blue) < 5


def test_no_metadata_stays_on_the_picture(tmp_path):
    image = Image.new("RGB", (2, 1))
    path = saved(
        image, tmp_path / "a.jpg", icc_profile=swapped_profile(), comment=b"me", dpi=(9, 9)
    )
    assert read_picture(path).rgb.info == {}


# --- Files ---------------------------------------------------------------------------------------


def test_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 0, 255))]
    for suffix in (".gif", ".png", ".tif", ".webp"):
        path = tmp_path / f"a{suffix}"
        options = {"lossless": True} if suffix == ".webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert read_picture(path).rgb.getpixel((4, 4)) == (255, 0, 0)


def test_stereo_jpeg_is_read_and_drafted(tmp_path):
    path = tmp_path / "a.jpg"
    gradient(640, 480).save(path, "MPO", save_all=True, append_images=[gradient(640, 480)])
    assert read_picture(path).size == (480, 640)
    assert read_picture(path, shorter_side_at_least=100).size == (120, 160)


@pytest.mark.parametrize(
    ("side", "expected"),
    [(1, (50, 75)), (49, (50, 75)), (50, (100, 150)), (199, (200, 300)), (200, (399, 599))],
)
def test_draft_keeps_the_shorter_side_as_asked(tmp_path, side, expected):
    path = saved(gradient(599, 399), tmp_path / "a.jpg")
    assert read_picture(path, shorter_side_at_least=side).size == expected


def test_draft_never_enlarges_and_looks_the_same(tmp_path):
    path = saved(gradient(640, 480), tmp_path / "a.jpg")
    assert read_picture(path, shorter_side_at_least=9999).size == (480, 640)
    small = read_picture(path, shorter_side_at_least=120).rgb
    expected = resize_shorter_side(read_picture(path).rgb, 120)
    assert np.abs(np.subtract(small, expected, dtype=np.int16)).mean() < 1


def test_file_type_is_judged_by_content_not_name(tmp_path):
    path = tmp_path / "a.jpg"
    gradient().save(path, "PNG")
    assert read_picture(path).size == (48, 64)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".jpe", "JPEG"),
        (".jfif", "JPEG"),
        (".mpo", "MPO"),
        (".apng", "PNG"),
        (".dib", "DIB"),
        (".avif", "AVIF"),
        (".jp2", "JPEG2000"),
        (".j2k", "JPEG2000"),
    ],
)
def test_every_format_is_read_under_its_usual_suffixes(tmp_path, suffix, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = saved(gradient(), tmp_path / f"a{suffix}", format=kind)
    assert suffix in EXTENSIONS
    picture = read_picture(path)
    assert picture.size == (48, 64)
    assert np.abs(np.subtract(picture.rgb, gradient(), dtype=np.int16)).mean() < 4


def test_avif_is_turned_upright_and_keeps_alpha(tmp_path):
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    exif[0x0112] = 6
    image = gradient()
    image.putalpha(128)
    picture = read_picture(saved(image, tmp_path / "a.avif", exif=exif))
    assert picture.size == (64, 48)
    assert picture.alpha is not None
    assert picture.alpha.getextrema() == (128, 128)


def test_link_to_a_picture_is_followed(tmp_path):
    saved(gradient(), tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert read_picture(tmp_path / "b.png").size == (48, 64)


LFS = "a Git LFS pointer: run git lfs pull"
ANNEX = "a git-annex pointer: run git annex get"


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        (b"", {}, "empty file"),
        (b"<html>not found</html>", {}, UNKNOWN),
        (b"\xff\xd8\xff\xe0" + b"\0" * 16, {}, UNKNOWN),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {}, UNKNOWN),
        (b"%PDF-1.4\n", {}, UNKNOWN),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", {}, LFS),
        (b"\xef\xbb\xbfversion https://hawser.github.com/spec/v1\n", {}, LFS),
        (b"/annex/objects/SHA256E-s9--0.jpg\n", {}, ANNEX),
        (b"../../.git/annex/objects/Fq/x/SHA256E-s9--0.jpg", {}, ANNEX),
        (
            b"\0\0\0\x18ftypheic" + bytes(99),
            {},
            "a HEIC picture; convert it with heif-convert (package libheif-examples; on macOS: "
            "sips -s format jpeg)",
        ),
        (
            b"\0\0\0\x18ftypavci" + bytes(99),
            {},
            "a HEIC picture; convert it with heif-convert (package libheif-examples; on macOS: "
            "sips -s format jpeg)",
        ),
        (
            b"II\xbc\x01" + bytes(99),
            {},
            "a JPEG XR picture; convert it with JxrDecApp (package libjxr-tools)",
        ),
        (
            b"BPG\xfb" + bytes(99),
            {},
            "a BPG picture; convert it with bpgdec (https://bellard.org/bpg)",
        ),
        (
            b"bplist00" + bytes(99),
            {},
            "a placeholder of iCloud or another property list of macOS; download it first (in "
            "Finder: Download Now)",
        ),
        (
            b"\xff\x0a" + bytes(99),
            {},
            "a JPEG XL picture; convert it with djxl (package libjxl-tools)",
        ),
        (
            b"FUJIFILMCCD-RAW " + bytes(99),
            {},
            "a camera raw file; develop it with darktable-cli (package darktable)",
        ),
        (
            png_bytes(2, 1, b"\0" * 3, bit_depth=8, color_type=0),
            {"max_pixels": 1},
            "2 pixels, more than the limit of 1; use a smaller copy",
        ),
    ],
)
def test_content_that_is_no_picture_is_refused(tmp_path, content, options, problem):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert refusal(path, **options) == problem


def test_missing_files_folders_and_loops_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, problem in [
        ("nothing.jpg", "not found"),
        ("dangling", "not found"),
        ("", "a folder, not a picture; name a picture in it"),
        ("loop", "cannot be read (Too many levels of symbolic links)"),
    ]:
        assert refusal(tmp_path / name) == problem


def test_fifos_and_devices_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for path in (tmp_path / "a.jpg", Path("/dev/zero")):
        assert refusal(path) == "not a regular file"


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = saved(gradient(), tmp_path / "a.png")

    # Root may read everything, so the refusal of the system is imitated.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(path) == "permission denied"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".bmp", ".tif"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = saved(gradient(200, 200), tmp_path / f"a{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert refusal(path) != ""


def test_truncated_jpeg_says_so(tmp_path):
    path = saved(gradient(200, 200), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path).startswith("damaged picture (image file is truncated")


# --- Size limit ----------------------------------------------------------------------------------


def test_bomb_is_refused_by_its_header(tmp_path):
    path = white_bilevel_png(tmp_path / "bomb.png", 20_000)
    assert path.stat().st_size < 300_000
    assert refusal(path) == (
        "400,000,000 pixels, more than the limit of 178,956,970; use a smaller copy"
    )


def test_limit_of_a_command_is_raised_with_its_option(tmp_path, monkeypatch):
    path = saved(gradient(11, 10), tmp_path / "a.png")
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "109")
    assert refusal(path) == (
        "110 pixels, more than the limit of 109; for a photo that you trust, raise it with "
        "--max-pixels 110"
    )
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "110")
    assert read_picture(path).size == (10, 11)


def test_limit_is_exact(tmp_path):
    path = saved(gradient(11, 10), tmp_path / "a.png")
    assert read_picture(path, max_pixels=110).size == (10, 11)
    assert "limit of 109" in refusal(path, max_pixels=109)


def test_default_limit_is_where_pillow_stops():
    assert PILLOW_LIMIT is not None
    assert DEFAULT_MAX_PIXELS == 2 * PILLOW_LIMIT


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".gif", ".jpg", ".bmp"])
def test_limit_may_be_raised_above_pillows_own(tmp_path, monkeypatch, suffix):
    # Pillow's limits are lowered to 500 (warning) and 1000 pixels (error) instead of making a
    # picture of 200 megapixels in every format.
    path = saved(gradient(40, 30), tmp_path / f"a{suffix}")
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
        assert "1,200 pixels, more than the limit of 1,000" in refusal(path, max_pixels=1000)
        assert read_picture(path, max_pixels=1200).size == (30, 40)
        assert Image.MAX_IMAGE_PIXELS == 500


@pytest.mark.slow
def test_photo_of_200_megapixels_is_read_when_allowed(tmp_path):
    path = white_bilevel_png(tmp_path / "a.png", 14_200)
    assert read_picture(path, max_pixels=300_000_000).size == (14_200, 14_200)


def test_threads_leave_the_settings_of_the_process_alone(tmp_path):
    paths = [saved(gradient(), tmp_path / f"{i}.png") for i in range(4)]
    paths.append(saved(corners(), tmp_path / "bad.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01"))
    sizes: list[tuple[int, int]] = []

    def read_all() -> None:
        sizes.extend(read_picture(path, max_pixels=10**9).size for path in paths * 10)

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 200  # and the fixture above looks at filters and limit


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_process_forked_while_the_lock_is_held_does_not_hang(tmp_path):
    path = saved(gradient(), tmp_path / "a.png")
    program = (
        "import os, sys, threading, time\n"
        "from pathlib import Path\n"
        "from fast_style.pictures import reading\n"
        "def hold():\n"
        "    with reading._process_settings:\n"
        "        time.sleep(2)\n"
        "threading.Thread(target=hold, daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    started = time.monotonic()\n"
        "    reading.read_picture(Path(sys.argv[1]))\n"
        "    os._exit(0 if time.monotonic() - started < 1.5 else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(path)],
        cwd=ROOT,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_size_is_known_before_a_picture_is_decoded(tmp_path):
    bomb = white_bilevel_png(tmp_path / "bomb.png", 20_000)
    with must_not_block():
        assert size_in_header(bomb) == (20_000, 20_000)
    path = saved(Image.new("L", (30, 40)), tmp_path / "a.png")
    assert size_in_header(path) == (40, 30)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_what_is_no_picture_has_no_size(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert size_in_header(tmp_path / "a.png") is None
    assert size_in_header(tmp_path / "missing.png") is None
    assert size_in_header(tmp_path) is None


# --- Damaged files -------------------------------------------------------------------------------


def seeds() -> list[bytes]:
    """One small file of each kind that has metadata or structure to be damaged."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files: list[tuple[Image.Image, str, dict[str, object]]] = [
        (gradient(), "JPEG", {"exif": exif, "icc_profile": swapped_profile()}),
        (gradient(), "PNG", {"exif": exif, "icc_profile": swapped_profile()}),
        (palette_image(), "PNG", {"transparency": bytes([0, 128, 255])}),
        (Image.new("I;16", (9, 9), 300), "PNG", {"transparency": 300}),
        (palette_image(), "GIF", {"transparency": 1}),
        (gradient(), "TIFF", {"compression": "tiff_adobe_deflate"}),
        (Image.new("RGBA", (9, 9), (1, 2, 3, 4)), "TIFF", {}),
        (Image.new("RGBA", (9, 9), (1, 2, 3, 4)), "WEBP", {"exif": exif}),
        (gradient(), "BMP", {}),
    ]
    contents = []
    for image, kind, options in files:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        contents.append(buffer.getvalue())
    frames = [gradient(), Image.new("RGB", (64, 48))]
    for kind in ("PNG", "MPO", "GIF"):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
        contents.append(buffer.getvalue())
    return contents


@pytest.mark.slow
@pytest.mark.parametrize("number", range(12))
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, number):
    chance = random.Random(number)
    content = seeds()[number]
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    read_picture(path)
    for _ in range(60):
        path.write_bytes(damaged(content, chance))
        try:
            picture = read_picture(path, max_pixels=10_000_000)
        except PictureError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017
        else:
            assert picture.rgb.mode == "RGB"


def test_importing_changes_no_setting_of_pillow_or_of_warnings():
    program = (
        "import warnings\n"
        "import numpy\n"
        "from PIL import Image\n"
        "before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)\n"
        "import fast_style.pictures.reading\n"
        "assert before == (Image.MAX_IMAGE_PIXELS, list(warnings.filters))\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=True)


# --- Real files ----------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "size", "has_alpha"),
    [
        ("16bit.cropped.tif", (64, 64), False),
        ("exif_Landscape_3.jpg", (1200, 1800), False),
        ("exif_Portrait_6.jpg", (1800, 1200), False),  # 1200 x 1800 on disk
        ("flower.webp", (360, 480), False),
        ("hopper_bad_exif.jpg", (500, 500), False),
        ("hopper_bw_500.png", (500, 500), False),
        ("hopper_gray.jpg", (128, 128), False),
        ("hopper_orientation_7.jpg", (128, 128), False),
        ("i_trns.png", (64, 64), True),
        ("iss634.gif", (245, 245), False),
        ("iss634.webp", (245, 245), True),
        ("p_trns_single.png", (64, 64), True),
        ("pil_sample_cmyk.jpg", (100, 100), False),
        ("transparent.png", (150, 200), True),
        ("uncompressed_la.png", (128, 128), True),
    ],
)
def test_awkward_files_are_read(name, size, has_alpha):
    picture = read_picture(awkward(name))
    assert picture.size == size
    assert (picture.alpha is not None) == has_alpha


@pytest.mark.real_data
def test_awkward_cmyk_is_red_letters_on_black():
    rgb = read_picture(awkward("pil_sample_cmyk.jpg")).rgb
    assert rgb.getpixel((3, 2)) == (255, 13, 25)
    assert max(rgb.getpixel((50, 90))) < 20


@pytest.mark.real_data
def test_awkward_orientation_7_stands_upright():
    """The flag is at the left and the blue wall at the right, as in Pillow's hopper."""
    pixels = np.asarray(read_picture(awkward("hopper_orientation_7.jpg")).rgb).astype(int)
    wall = pixels[10:60, 100:].mean((0, 1))
    assert wall[2] > wall[0] + 40


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("truncated_image.png", "image file is truncated"),
        ("truncated_jpeg.jpg", "image file is truncated (8 bytes not processed)"),
    ],
)
def test_awkward_truncated_files_are_refused(name, problem):
    assert refusal(awkward(name)) == f"damaged picture ({problem})"


@pytest.mark.real_data
def test_awkward_file_is_read_under_a_wrong_name(tmp_path):
    shutil.copy(awkward("flower.webp"), tmp_path / "wrong.gif")
    assert read_picture(tmp_path / "wrong.gif").size == (360, 480)
