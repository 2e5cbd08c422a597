"""Write pictures, whole or not at all."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fast_style.core.errors import UserError, printable
from fast_style.core.files import atomic_write
from fast_style.pictures.reading import Picture, over_white

if TYPE_CHECKING:
    pass  # it takes seconds; finding and reading pictures needs none of it


_WRITABLE = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}


# Pillow can put alpha into a BMP, but hardly any program (nor Pillow) finds it there again.
_KEEPS_ALPHA = frozenset({"PNG", "WEBP", "TIFF"})


_LONGEST_SIDE = {
    "JPEG": 65_500,  # JPEG_MAX_DIMENSION of libjpeg's jmorecfg.h
    "WEBP": 16_383,  # WEBP_MAX_DIMENSION of libwebp's encode.h
}


def _without_metadata(image: Image.Image) -> Image.Image:
    """The pixels alone: Pillow's writers would pass profiles and comments on."""
    if type(image) is Image.Image and not image.info:
        return image
    bare = image.copy()
    bare.info = {}
    return bare


def write_picture(
    path: Path,
    rgb: Image.Image,
    *,
    alpha: Image.Image | None = None,
    quality: int = 95,
    format: str | None = None,
) -> None:
    """Write 8-bit sRGB pixels, whole or not at all; an older file stays until the new one is done.

    No metadata is written: neither GPS position nor orientation, and sRGB is what a picture without
    a profile is taken for.

    Args:
        path: what to write, in a folder that exists.
        rgb: mode RGB.
        alpha: mode L, of the same size. JPEG and BMP have none: there the picture is put on white.
        quality: 1 to 100, for JPEG and WebP. From 90 on, JPEG keeps colors at full resolution.
        format: such as "png" or "jpeg"; the suffix of `path` says it otherwise.

    Raises:
        UserError: a format that cannot be written or cannot hold so large a picture (exit code 2);
            a full disk or a folder that cannot be written to (exit code 1).
    """
    kind = writable_format(path, format)
    _check_longest_side(path, rgb, kind)
    # Encoded in memory first, so that an OSError can only come from the disk.
    _write_bytes(path, _encode(Picture(rgb, alpha), kind, quality))


def write_animation(path: Path, frames: Sequence[Image.Image], *, frame_ms: int = 120) -> None:
    """Write a GIF that shows the frames in turn, for ever, and rests on the last one.

    Raises:
        UserError: a full disk or a folder that cannot be written to (exit code 1).
    """
    durations = [frame_ms] * (len(frames) - 1) + [10 * frame_ms]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
    _write_bytes(path, buffer.getvalue())


def _write_bytes(path: Path, encoded: bytes | memoryview) -> None:
    try:
        with atomic_write(path) as file:
            file.write(encoded)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{printable(path)}: cannot be written ({reason})", exit_code=1) from error


def writable_format(path: Path, format: str | None = None) -> str:
    """Pillow's name of the format to write.

    Raises:
        UserError: it is none that can be written.
    """
    suffix = path.suffix if format is None else f".{format}"
    kind = _WRITABLE.get(suffix.lower())
    if kind is None:
        raise UserError(
            f"{printable(path)}: cannot write the format {printable(suffix)!r}; "
            f"use one of {', '.join(_WRITABLE)}"
        )
    return kind


def _check_longest_side(path: Path, rgb: Image.Image, kind: str) -> None:
    limit = _LONGEST_SIDE.get(kind)
    if limit is not None and max(rgb.size) > limit:
        raise UserError(
            f"{printable(path)}: {rgb.width} x {rgb.height} pixels do not fit into a {kind}, "
            f"whose sides end at {limit}; write a .png"
        )


def _encode(picture: Picture, kind: str, quality: int) -> memoryview:
    if picture.alpha is not None and kind in _KEEPS_ALPHA:
        image = picture.rgb.convert("RGBA")
        image.info = {}
        image.putalpha(picture.alpha)
    else:
        image = _without_metadata(over_white(picture))
    options: dict[str, Any] = {}
    if kind == "JPEG":
        options = {"quality": quality, "subsampling": "4:4:4" if quality >= 90 else "4:2:0"}
    elif kind == "WEBP":
        options = {"quality": quality}
    elif kind == "TIFF":
        options = {"compression": "tiff_adobe_deflate"}
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getbuffer()
