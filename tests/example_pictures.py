"""Small pictures, and what several tests of pictures share."""

import signal
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

# The error for files that no decoder recognizes.
UNKNOWN = (
    "not a picture of a known format (JPEG, MPO, PNG, WEBP, BMP, DIB, GIF, TIFF, AVIF, JPEG2000)"
)
RED, LIME, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def gradient(width: int = 64, height: int = 48) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def corners() -> Image.Image:
    """Six colors, 3 wide and 2 high, red 40, 80, 120 / 160, 200, 240; a JPEG would blur them."""
    image = Image.new("RGB", (3, 2))
    image.putdata([(i * 40, 0, 0) for i in range(1, 7)])
    return image


def plain(color: str, width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), color)


def swapped_profile() -> bytes:
    """An sRGB profile with red and blue exchanged, so that it visibly changes a picture."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")


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


@contextmanager
def must_not_block(seconds: int = 5) -> Iterator[None]:
    """Fails when the block takes longer."""

    def give_up(*_: object) -> None:
        raise AssertionError("blocked")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
