"""Claims about `images`, known answers first."""

import io
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from fast_style.core.errors import UserError
from fast_style.pictures import writing
from fast_style.pictures.folders import EXTENSIONS, find_pictures
from fast_style.pictures.pixels import (
    fit_longer_side,
    image_to_tensor,
    resize_shorter_side,
    tensor_to_image,
)
from fast_style.pictures.reading import (
    DEFAULT_MAX_PIXELS,
    PictureError,
    over_white,
    printable,
    read_picture,
    size_in_header,
    to_picture,
)
from fast_style.pictures.sheets import contact_sheet, side_by_side
from fast_style.pictures.writing import writable_format, write_animation, write_picture

AWKWARD = Path(__file__).resolve().parents[3] / "shared" / "assets" / "awkward"

# What Pillow's own limit is, before any test ran.
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


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def gradient(width: int = 64, height: int = 48) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(
    width: int,
    height: int,
    rows: bytes,
    *,
    bit_depth: int,
    color_type: int,
    transparent: bytes | None = None,
) -> bytes:
    """A PNG made by hand: what Pillow cannot write itself. Each row begins with a filter byte 0."""
    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    middle = png_chunk(b"tRNS", transparent) if transparent is not None else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + middle
        + png_chunk(b"IDAT", zlib.compress(rows, 1))
        + png_chunk(b"IEND", b"")
    )


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


@contextmanager
def must_not_block(seconds: int = 5) -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise AssertionError("blocked")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


# Modes


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


# Bit depth


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


# Alpha


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


# Orientation


def corners() -> Image.Image:
    """3 wide, 2 high, six colours that survive a JPEG only as PNG: a b c / d e f."""
    image = Image.new("RGB", (3, 2))
    image.putdata([(i * 40, 0, 0) for i in range(1, 7)])
    return image


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


# Colour profiles


def test_srgb_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(gradient(), tmp_path / "a.png", icc_profile=profile)
    assert read_picture(path).rgb.tobytes() == gradient().tobytes()


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue primaries are exchanged: an unmistakable profile."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")


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


# Files


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


def test_link_to_a_picture_is_followed(tmp_path):
    saved(gradient(), tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert read_picture(tmp_path / "b.png").size == (48, 64)


UNKNOWN = "not a picture of a known format (JPEG, MPO, PNG, WEBP, BMP, GIF, TIFF)"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", UNKNOWN),
        (b"\xff\xd8\xff\xe0" + b"\0" * 16, UNKNOWN),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UNKNOWN),
        (b"%PDF-1.4\n", UNKNOWN),
    ],
)
def test_content_that_is_no_picture_is_refused(tmp_path, content, problem):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value) == f"{path}: {problem}"
    assert caught.value.exit_code == 2


def test_missing_files_folders_and_loops_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, problem in [
        ("nothing.jpg", "not found"),
        ("dangling", "not found"),
        ("", "a folder, not a picture"),
        ("loop", "cannot be read (Too many levels of symbolic links)"),
    ]:
        with pytest.raises(PictureError) as caught:
            read_picture(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {problem}"


def test_fifos_and_devices_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for path in (tmp_path / "a.jpg", Path("/dev/zero")):
        with must_not_block(), pytest.raises(PictureError) as caught:
            read_picture(path)
        assert str(caught.value) == f"{path}: not a regular file"


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = saved(gradient(), tmp_path / "a.png")

    # Root may read everything, so the refusal of the system is imitated.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value) == f"{path}: permission denied"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".bmp", ".tif"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = saved(gradient(200, 200), tmp_path / f"a{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_truncated_jpeg_says_so(tmp_path):
    path = saved(gradient(200, 200), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PictureError, match=r"a\.jpg: damaged picture \(image file is truncated"):
        read_picture(path)


# Size limit


def test_bomb_is_refused_by_its_header(tmp_path):
    path = white_bilevel_png(tmp_path / "bomb.png", 20_000)
    assert path.stat().st_size < 300_000
    with must_not_block(), pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value) == (
        f"{path}: 400,000,000 pixels, more than the limit of 178,956,970; for a photo that you "
        f"trust, raise it with --max-pixels 400000000"
    )


def test_limit_is_exact(tmp_path):
    path = saved(gradient(11, 10), tmp_path / "a.png")
    assert read_picture(path, max_pixels=110).size == (10, 11)
    with pytest.raises(PictureError) as caught:
        read_picture(path, max_pixels=109)
    assert str(caught.value) == (
        f"{path}: 110 pixels, more than the limit of 109; for a photo that you trust, "
        f"raise it with --max-pixels 110"
    )


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
        with pytest.raises(PictureError, match=r"1,200 pixels, more than the limit of 1,000"):
            read_picture(path, max_pixels=1000)
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
        "from fast_style.pictures import reading as images\n"
        "def hold():\n"
        "    with images._process_settings:\n"
        "        time.sleep(2)\n"
        "threading.Thread(target=hold, daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    started = time.monotonic()\n"
        "    images.read_picture(Path(sys.argv[1]))\n"
        "    os._exit(0 if time.monotonic() - started < 1.5 else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(path)],
        cwd=root,
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


# Damage


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


def mutated(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        # Headers are at the front, and have more to break.
        end = len(damaged) if chance.random() < 0.4 else min(len(damaged), 120)
        place = chance.randrange(end)
        kind = chance.randrange(4)
        if kind == 0:
            damaged[place] = chance.randrange(256)
        elif kind == 1:
            damaged[place] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del damaged[place : place + chance.randrange(1, 9)]
        else:
            damaged[place:place] = chance.randbytes(chance.randrange(1, 9))
        if not damaged:
            break
    return bytes(damaged)


@pytest.mark.parametrize("number", range(12))
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, number):
    chance = random.Random(number)
    content = seeds()[number]
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    read_picture(path)
    for _ in range(60):
        path.write_bytes(mutated(content, chance))
        try:
            picture = read_picture(path, max_pixels=10_000_000)
        except PictureError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017
        else:
            assert picture.rgb.mode == "RGB"


# Tensors


def test_image_and_tensor_hold_the_same_pixels():
    pixels = image_to_tensor(corners())
    assert (pixels.shape, pixels.dtype) == ((3, 2, 3), torch.uint8)
    assert pixels.is_contiguous()
    assert pixels[0].tolist() == [[40, 80, 120], [160, 200, 240]]
    assert tensor_to_image(pixels / 255).tobytes() == corners().tobytes()


def test_tensor_owns_its_memory():
    image = corners()
    pixels = image_to_tensor(image)
    image.putpixel((0, 0), (9, 9, 9))
    assert pixels[0, 0, 0] == 40
    pixels.zero_()
    assert image.getpixel((1, 0)) == (80, 0, 0)


def test_tensor_is_clamped_and_rounded():
    levels = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 1.6 / 255, 254.6 / 255, 2.0])
    image = tensor_to_image(levels.expand(3, 1, 6))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 2, 255, 255]


def test_all_levels_survive_the_way_to_float_and_back():
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    assert torch.equal(image_to_tensor(tensor_to_image(levels / 255)), levels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_taken(dtype):
    pixels = torch.full((3, 2, 2), 0.5, dtype=dtype, requires_grad=True)
    assert tensor_to_image(pixels).getpixel((0, 0)) == (128, 128, 128)


# Sizes


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((640, 480), 240, (320, 240)),
        ((480, 640), 240, (240, 320)),
        ((3, 2), 256, (384, 256)),
        ((640, 480), 480, (640, 480)),
        ((5, 2), 1, (3, 1)),  # 2.5 is rounded up
        ((1, 500), 2, (2, 1000)),
        ((1, 1), 7, (7, 7)),
    ],
)
def test_shorter_side_is_resized_with_the_ratio_kept(size, side, expected):
    assert resize_shorter_side(Image.new("RGB", size), side).size == expected


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((640, 480), 320, (320, 240)),
        ((480, 640), 320, (240, 320)),
        ((640, 480), 640, (640, 480)),
        ((640, 480), 9999, (640, 480)),
        ((1000, 1), 10, (10, 1)),
    ],
)
def test_longer_side_is_only_shrunk(size, side, expected):
    assert fit_longer_side(Image.new("RGB", size), side).size == expected


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(fit_longer_side(Image.fromarray(stripes), 16)).astype(int)
    assert np.abs(small[:, 2:-2] - 127).max() <= 12


# Sheets


def plain(color: str, width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), color)


def colors_along(image: Image.Image, *places: tuple[int, int]) -> list[tuple[int, ...]]:
    return [image.getpixel(place) for place in places]


RED, LIME, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def test_pictures_side_by_side_are_as_high_as_the_first():
    row = [plain("red", 30, 20), plain("lime", 10, 40), plain("blue", 6, 4)]
    sheet = side_by_side(row)
    assert sheet.size == (30 + 8 + 5 + 8 + 30, 20)
    corners = [(0, 0), (29, 19), (30, 0), (37, 19), (38, 0), (42, 19), (43, 10), (51, 0), (80, 19)]
    expected = [RED, RED, WHITE, WHITE, LIME, LIME, WHITE, BLUE, BLUE]
    assert colors_along(sheet, *corners) == expected


def test_picture_side_by_side_with_nothing_is_itself():
    assert side_by_side([gradient()]).tobytes() == gradient().tobytes()


def test_gap_is_as_wide_as_told():
    assert side_by_side([plain("red", 5, 5), plain("lime", 5, 5)], gap=3).size == (13, 5)
    assert contact_sheet([plain("red", 5, 5)] * 4, 2, gap=3).size == (13, 13)


def test_ribbon_side_by_side_keeps_a_pixel():
    assert side_by_side([plain("red", 20, 16), plain("lime", 16, 8192)]).size == (29, 16)


def test_contact_sheet_is_read_from_left_to_right():
    sheet = contact_sheet([plain(name, 10, 6) for name in ("red", "lime", "blue")], 2)
    assert sheet.size == (10 + 8 + 10, 6 + 8 + 6)
    places = [(0, 0), (9, 5), (10, 0), (18, 0), (27, 5), (0, 6), (0, 14), (9, 19), (18, 14)]
    expected = [RED, RED, WHITE, LIME, LIME, WHITE, BLUE, BLUE, WHITE]
    assert colors_along(sheet, *places) == expected


@pytest.mark.parametrize(
    ("count", "columns", "size"),
    [(1, 6, (10, 6)), (3, 6, (46, 6)), (6, 6, (100, 6)), (7, 6, (100, 20)), (4, 1, (10, 48))],
)
def test_contact_sheet_is_no_larger_than_it_must_be(count, columns, size):
    assert contact_sheet([plain("red", 10, 6)] * count, columns).size == size


# Writing


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif", "a.tiff"])
def test_lossless_formats_give_back_the_same_pixels(tmp_path, name):
    write_picture(tmp_path / name, gradient())
    picture = read_picture(tmp_path / name)
    assert picture.rgb.tobytes() == gradient().tobytes()
    assert picture.alpha is None


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.webp"])
def test_lossy_formats_come_close(tmp_path, name):
    write_picture(tmp_path / name, gradient())
    found = read_picture(tmp_path / name).rgb
    assert np.abs(np.subtract(found, gradient(), dtype=np.int16)).mean() < 2


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_alpha_is_written_where_the_format_has_it(tmp_path, name):
    alpha = gradient().getchannel(1)
    write_picture(tmp_path / name, gradient(), alpha=alpha)
    found = read_picture(tmp_path / name).alpha
    assert found is not None
    assert found.tobytes() == alpha.tobytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp"])
def test_formats_without_alpha_get_white_paper(tmp_path, name):
    write_picture(tmp_path / name, Image.new("RGB", (8, 8)), alpha=Image.new("L", (8, 8), 51))
    picture = read_picture(tmp_path / name)
    assert picture.alpha is None
    assert np.abs(np.subtract(picture.rgb.getpixel((3, 3)), 204)).max() <= 1


@pytest.mark.parametrize(("quality", "sampling"), [(95, 1), (90, 1), (89, 2), (50, 2)])
def test_jpeg_keeps_full_color_resolution_from_quality_90(tmp_path, quality, sampling):
    write_picture(tmp_path / "a.jpg", gradient(), quality=quality)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.layer[0][1:3] == (sampling, sampling)


@pytest.mark.parametrize("format", ["png", "PNG"])
def test_format_may_be_named(tmp_path, format):
    write_picture(tmp_path / "a.out", gradient(), format=format)
    with Image.open(tmp_path / "a.out") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_bare_picture_is_written_without_a_copy_of_it(tmp_path, monkeypatch, suffix):
    def forbid_copies(image: Image.Image) -> Image.Image:
        raise AssertionError("a huge picture may not fit into the memory twice")

    picture = gradient()
    monkeypatch.setattr(Image.Image, "copy", forbid_copies)
    write_picture(tmp_path / f"a{suffix}", picture)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_no_metadata_is_written(tmp_path, suffix):
    image = gradient()
    image.info = {"icc_profile": swapped_profile(), "comment": b"secret", "dpi": (7, 7)}
    image.info["exif"] = b"Exif\0\0secret"
    write_picture(tmp_path / f"a{suffix}", image)
    with Image.open(tmp_path / f"a{suffix}") as found:
        assert not {"icc_profile", "comment", "exif", "transparency"} & set(found.info)
    assert b"secret" not in (tmp_path / f"a{suffix}").read_bytes()
    assert image.info["comment"] == b"secret"


@pytest.mark.parametrize(("name", "found"), [("a.gif", "'.gif'"), ("a.psd", "'.psd'"), ("a", "''")])
def test_unknown_format_names_the_known_ones(tmp_path, name, found):
    with pytest.raises(UserError) as caught:
        write_picture(tmp_path / name, gradient())
    assert str(caught.value) == (
        f"{tmp_path / name}: cannot write the format {found}; "
        f"use one of .jpg, .jpeg, .png, .webp, .tif, .tiff, .bmp"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "side"), [("a.webp", 16_383), ("a.jpg", 65_500)])
def test_sides_that_a_format_cannot_hold_are_refused(tmp_path, name, side):
    write_picture(tmp_path / name, Image.new("RGB", (side, 1)))
    with pytest.raises(UserError) as caught:
        write_picture(tmp_path / name, Image.new("RGB", (side + 1, 1)))
    kind = {"a.webp": "WEBP", "a.jpg": "JPEG"}[name]
    assert str(caught.value) == (
        f"{tmp_path / name}: {side + 1} x 1 pixels do not fit into a {kind}, "
        f"whose sides end at {side}; write a .png"
    )


def test_missing_folder_is_named(tmp_path):
    path = tmp_path / "nowhere" / "a.png"
    with pytest.raises(UserError) as caught:
        write_picture(path, gradient())
    assert str(caught.value) == f"{path}: cannot be written (No such file or directory)"
    assert caught.value.exit_code == 1


def test_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError) as caught:
        write_picture(path, gradient())
    assert str(caught.value) == f"{path}: cannot be written (No space left on device)"
    assert caught.value.exit_code == 1
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_same_picture_gives_the_same_bytes(tmp_path):
    write_picture(tmp_path / "a.png", gradient())
    write_picture(tmp_path / "b.png", gradient())
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def frames_of(path: Path) -> list[tuple[tuple[int, ...], int]]:
    """The first pixel of each frame, and for how many milliseconds it is shown."""
    with Image.open(path) as film:
        assert film.format == "GIF"
        found = []
        for number in range(film.n_frames):
            film.seek(number)
            found.append((film.convert("RGB").getpixel((0, 0)), film.info["duration"]))
        return found


def test_animation_shows_its_frames_in_turn_for_ever_and_rests_on_the_last(tmp_path):
    path = tmp_path / "a.gif"
    write_animation(path, [plain(name, 10, 6) for name in ("red", "lime", "blue")], frame_ms=50)
    assert frames_of(path) == [(RED, 50), (LIME, 50), (BLUE, 500)]
    with Image.open(path) as film:
        assert film.size == (10, 6)
        assert film.info["loop"] == 0  # for ever


def test_animation_of_one_frame_is_a_picture(tmp_path):
    write_animation(tmp_path / "a.gif", [plain("red", 10, 6)])
    assert [color for color, _ in frames_of(tmp_path / "a.gif")] == [RED]


def test_animation_comes_close_to_its_frames(tmp_path):
    write_animation(tmp_path / "a.gif", [gradient(), gradient().transpose(0)])
    with Image.open(tmp_path / "a.gif") as film:
        found = film.convert("RGB")
    assert np.abs(np.subtract(found, gradient(), dtype=np.int16)).mean() < 10  # of 256 colors


def test_animation_in_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "nowhere" / "a.gif"
    with pytest.raises(UserError) as caught:
        write_animation(path, [gradient()])
    assert str(caught.value) == f"{path}: cannot be written (No such file or directory)"
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("a.jpg", None, "JPEG"),
        ("a.b.JPEG", None, "JPEG"),
        ("a.tif", None, "TIFF"),
        ("a.out", "png", "PNG"),
        ("a.png", "webp", "WEBP"),
    ],
)
def test_writable_format_is_told_by_the_suffix_or_by_name(name, format, expected):
    assert writable_format(Path(name), format) == expected


@pytest.mark.parametrize(("name", "format"), [("a.gif", None), ("a.png", "gif"), (".png", None)])
def test_format_that_cannot_be_written_is_refused_without_a_picture(name, format):
    with pytest.raises(UserError, match="cannot write the format"):
        writable_format(Path(name), format)


# Folders


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_pictures_are_found_recursively_in_order_of_names(tmp_path):
    names = ["b.jpg", "a/z.JPEG", "a/b/c.Png", "a.jpg", "B.TIFF", "é.webp", "-x.bmp", "a b.gif"]
    for name in [*names, "notes.txt", "jpg", "a.jpg.part", "x.psd"]:
        touch(tmp_path / name)
    found = [str(path.relative_to(tmp_path)) for path in find_pictures(tmp_path)]
    assert found == [
        "-x.bmp",
        "B.TIFF",
        "a/b/c.Png",
        "a/z.JPEG",
        "a b.gif",
        "a.jpg",
        "b.jpg",
        "é.webp",
    ]


def test_order_does_not_depend_on_the_order_of_creation(tmp_path):
    names = [f"{letter}/{number}.png" for letter in "cab" for number in (10, 9, 1)]
    for root, order in ((tmp_path / "1", names), (tmp_path / "2", sorted(names))):
        for name in order:
            touch(root / name)
    first, second = (
        [path.relative_to(root) for path in find_pictures(root)]
        for root in (tmp_path / "1", tmp_path / "2")
    )
    assert first == second


def test_hidden_files_and_folders_are_left_out(tmp_path):
    for name in (".x.jpg", "._a.jpg", ".git/a.jpg", "__MACOSX/._a.jpg", "a.jpg", ".jpg"):
        touch(tmp_path / name)
    assert find_pictures(tmp_path) == [tmp_path / "a.jpg"]


def test_folder_that_was_asked_for_may_be_hidden_or_a_link(tmp_path):
    touch(tmp_path / ".hidden" / "a.jpg")
    (tmp_path / "link").symlink_to(".hidden")
    assert find_pictures(tmp_path / ".hidden") == [tmp_path / ".hidden" / "a.jpg"]
    assert find_pictures(tmp_path / "link") == [tmp_path / "link" / "a.jpg"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path):
    touch(tmp_path / "elsewhere" / "real.jpg")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "file.jpg").symlink_to(tmp_path / "elsewhere" / "real.jpg")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "folder.jpg").symlink_to(tmp_path / "elsewhere")
    (folder / "self").symlink_to(folder)
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    assert find_pictures(folder) == [folder / "file.jpg"]


def test_only_regular_files_are_found_and_none_is_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    touch(tmp_path / "folder.jpg" / "a.jpg")
    with must_not_block():
        assert find_pictures(tmp_path) == [tmp_path / "folder.jpg" / "a.jpg"]


def test_names_that_are_not_utf8_are_found_and_read(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.png"))
    try:
        write_picture(path, gradient())
    except UserError:
        pytest.skip("this file system wants UTF-8")
    assert find_pictures(tmp_path) == [path]
    assert read_picture(path).size == (48, 64)
    path.write_bytes(b"no picture")
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value) == f"{tmp_path}/\\xff\\n.png: {UNKNOWN}"


def test_folders_that_cannot_be_listed_are_named(tmp_path):
    touch(tmp_path / "a.jpg")
    for name, problem in [("a.jpg", "not a folder"), ("nowhere", "not found")]:
        with pytest.raises(PictureError) as caught:
            find_pictures(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {problem}"


def test_unreadable_folder_inside_stops_the_search(tmp_path, monkeypatch):
    touch(tmp_path / "a" / "b" / "x.jpg")
    scandir = os.scandir

    # Root may list everything, so the refusal of the system is imitated.
    def refuse_b(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_b)
    with pytest.raises(PictureError) as caught:
        find_pictures(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'a' / 'b'}: permission denied"


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


def test_importing_changes_no_setting_of_pillow_and_needs_no_torchvision():
    program = (
        "import sys, warnings\n"
        "from PIL import Image\n"
        "before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)\n"
        "import torch\n"
        "before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)\n"
        "import fast_style.pictures.reading\n"
        "assert before == (Image.MAX_IMAGE_PIXELS, list(warnings.filters))\n"
        "assert 'torchvision' not in sys.modules\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, timeout=60, check=True)


# Real files


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
    path = awkward(name)
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value) == f"{path}: damaged picture ({problem})"


@pytest.mark.real_data
def test_awkward_folder_is_listed_and_copied_names_do_not_matter(tmp_path):
    assert len(find_pictures(awkward("flower.webp").parent)) == 17
    shutil.copy(awkward("flower.webp"), tmp_path / "wrong.gif")
    assert read_picture(tmp_path / "wrong.gif").size == (360, 480)


def test_module_lists_every_suffix_that_it_writes():
    assert set(writing._WRITABLE) < EXTENSIONS
