"""Write picture files. A file appears under its name only when it is complete.

Folders are not created here. The only metadata is the mark by which `reading` knows our results.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from fast_style.core.errors import UserError, printable, unwritten
from fast_style.core.files import atomic_write
from fast_style.pictures.reading import BITMAP_MARK, MARK, Picture, over_white

WRITABLE = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
"""Suffixes of the formats that can be written, with Pillow's names of these formats.

GIF is not among them: a palette of 256 colors would spoil the picture.
"""

# Pillow can write alpha into a BMP, but hardly any program (nor Pillow) reads it back.
_KEEPS_ALPHA = frozenset({"PNG", "WEBP", "TIFF"})

_LONGEST_SIDE = {
    "JPEG": 65_500,  # JPEG_MAX_DIMENSION of libjpeg's jmorecfg.h
    "WEBP": 16_383,  # WEBP_MAX_DIMENSION of libwebp's encode.h
}


def write_picture(
    path: Path,
    rgb: Image.Image,
    *,
    alpha: Image.Image | None = None,
    quality: int = 95,
    format: str | None = None,
    replaces: bool = True,
) -> None:
    """Write 8-bit sRGB pixels; an existing file is replaced only when the new one is complete.

    No metadata of the photo is written, neither GPS position nor orientation. Nor is a color
    profile: programs assume sRGB for a picture without one. The file says that fast-style made it.

    Args:
        path: the file, in an existing folder.
        rgb: mode RGB.
        alpha: mode L, of the same size. JPEG and BMP cannot store it: the picture is blended with
            white instead.
        quality: 1 to 100, for JPEG and WebP. From 90 on, JPEG keeps colors at full resolution.
        format: such as "png" or "jpeg"; None to take it from the suffix of `path`.
        replaces: whether an existing file is replaced.

    Raises:
        FileExistsError: the file exists, and is not to be replaced.
        UserError: the format cannot be written or cannot hold so large a picture (exit code 2), or
            the disk is full or the folder not writable (exit code 1).
    """
    kind = writable_format(path, format)
    require_fitting(path, rgb.size, format)
    # Encoded in memory first, so that an OSError can only come from the disk.
    _write_bytes(path, _encode(Picture(rgb, alpha), kind, quality), replaces=replaces)


def write_animation(
    path: Path, frames: Sequence[Image.Image], *, frame_ms: int = 120, replaces: bool = True
) -> None:
    """Write a GIF that repeats the frames forever and shows the last one ten times as long.

    Args:
        path: the file, in an existing folder.
        frames: at least one, all of one size.
        frame_ms: milliseconds for which a frame is shown.
        replaces: whether an existing file is replaced.

    Raises:
        FileExistsError: the file exists, and is not to be replaced.
        UserError: the disk is full or the folder not writable (exit code 1).
    """
    durations = [frame_ms] * (len(frames) - 1) + [10 * frame_ms]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        comment=MARK,
    )
    _write_bytes(path, buffer.getvalue(), replaces=replaces)


def _write_bytes(path: Path, encoded: bytes | memoryview, *, replaces: bool) -> None:
    try:
        with atomic_write(path, replaces=replaces) as file:
            file.write(encoded)
    except OSError as error:
        if isinstance(error, FileExistsError) and not replaces:
            raise
        raise unwritten(path, error) from error


def writable_format(path: Path, format: str | None = None) -> str:
    """Pillow's name of the format that `write_picture` would write.

    Raises:
        UserError: the format cannot be written.
    """
    suffix = path.suffix if format is None else f".{format}"
    kind = WRITABLE.get(suffix.lower())
    if kind is None:
        raise UserError(f"{printable(path)}: {misnamed(suffix)}")
    return kind


def misnamed(suffix: str) -> str:
    """What is wrong with a suffix that names no format that can be written, with the remedy."""
    remedy = f"use one of {', '.join(WRITABLE)}"
    if not suffix:
        return f"a picture's file needs a suffix, which names its format; {remedy}"
    return f"cannot write the format {printable(suffix)!r}; {remedy}"


def require_fitting(path: Path, size: tuple[int, int], format: str | None = None) -> None:
    """Check that a file's format can hold a picture of this width and height in pixels.

    Raises:
        UserError: it cannot, or the format cannot be written.
    """
    kind = writable_format(path, format)
    limit = _LONGEST_SIDE.get(kind)
    if limit is not None and max(size) > limit:
        raise UserError(
            f"{printable(path)}: {size[0]} x {size[1]} pixels are too many for {kind}, which "
            f"allows {limit} a side; write a .png"
        )


def keeps_alpha(path: Path) -> bool:
    """Whether the format that a file's suffix names can store transparency."""
    return writable_format(path) in _KEEPS_ALPHA


def _encode(picture: Picture, kind: str, quality: int) -> memoryview:
    if picture.alpha is not None and kind in _KEEPS_ALPHA:
        image = picture.rgb.convert("RGBA")
        image.info = {}
        image.putalpha(picture.alpha)
    else:
        image = _without_metadata(over_white(picture))
    options: dict[str, Any] = {"exif": mark()}
    if kind == "JPEG":
        options |= {"quality": quality, "subsampling": "4:4:4" if quality >= 90 else "4:2:0"}
    elif kind == "WEBP":
        options |= {"quality": quality}
    elif kind == "TIFF":
        options |= {"compression": "tiff_adobe_deflate"}
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    encoded = buffer.getbuffer()
    if kind == "BMP":
        encoded[6:10] = BITMAP_MARK
    return encoded


def mark() -> Image.Exif:
    """The EXIF tag by which `reading` knows our results, for pictures that others encode."""
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = MARK
    return exif


def _without_metadata(image: Image.Image) -> Image.Image:
    """The image without its profiles and comments, which Pillow's writers would copy."""
    if type(image) is Image.Image and not image.info:
        return image
    bare = image.copy()
    bare.info = {}
    return bare
