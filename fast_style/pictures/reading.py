"""Read picture files as upright 8-bit sRGB pixels, with the alpha channel apart.

Orientation, color profile, alpha and bit depth are settled here; the rest of the package sees none
of them. Left to others: sizes and tensors (`pixels`), and the search for files (`scanning`). Not
supported: metadata other than orientation and colors (it is never copied), frames after the first
(`several` counts them), and PNG's gAMA.

Two limits come from Pillow. It drops the low byte of 16-bit *color*, so such a value may come out 1
lower than rounding gives. And its libtiff complains about damaged TIFFs on stderr, too.
"""

import io
import os
import re
import stat
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from fast_style.core.devices import is_out_of_memory
from fast_style.core.errors import UserError, printable
from fast_style.core.files import pointer_in
from fast_style.core.free_memory import limit_remedy
from fast_style.pictures.formats import FORMATS, RAW_PHOTO, known_by
from fast_style.pictures.tiff_pages import beginning_with, find_pages, picture_among

DEFAULT_MAX_PIXELS = 178_956_970
"""Pillow's own limit for an error: twice the default of its MAX_IMAGE_PIXELS."""

MAX_PIXELS_VARIABLE = "FAST_STYLE_MAX_PIXELS"
"""The environment variable by which a command passes --max-pixels on, to data workers too."""

# Pillow reads MPO through its JPEG decoder; asking `Image.open` for "MPO" is a KeyError.
_DECODERS = tuple(name for name in FORMATS if name != "MPO")

# EXIF 2.32, tag 0x0112: the transposition that brings the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

MARK = "fast-style"
"""What `writing` puts into its files as the EXIF tag Software (TIFF 6.0), or as a GIF's comment."""

BITMAP_MARK = b"fsty"
"""Its place in a BMP, which has no metadata: bytes 6 to 9, reserved for "the application that
creates the image", and ignored by readers."""

RESULT_REASON = "a result of fast-style, not a photo"


class PictureError(UserError):
    """A file cannot be used as a picture: one line with its path and the reason."""


class ResultError(PictureError):
    """A file is a result of this software where a photo is wanted: one line, as `PictureError`."""

    @classmethod
    def about(cls, path: Path) -> "ResultError":
        """The error for a file."""
        return cls(f"{printable(path)}: {RESULT_REASON}")


@dataclass(frozen=True)
class Picture:
    """Upright sRGB pixels, and the alpha channel if the file has one.

    Attributes:
        rgb: mode RGB. Fully transparent pixels have the mean color of the others, weighted by alpha
            (black if all are transparent): colors that nobody could see must not bleed into a
            stylized picture.
        alpha: mode L, 0 transparent to 255 opaque. Kept even if opaque everywhere, so that a file
            with an alpha channel gives a result with one.
        is_result: whether this software made the file.
    """

    rgb: Image.Image
    alpha: Image.Image | None
    is_result: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.height, self.rgb.width


# --- Files --------------------------------------------------------------------------------------


def read_picture(
    path: Path,
    *,
    max_pixels: int | None = None,
    shorter_side_at_least: int | None = None,
    takes_results: bool = True,
) -> Picture:
    """The picture in a file; the first frame of an animation.

    Args:
        path: a regular file in one of `FORMATS`, or a link to one.
        max_pixels: largest number of pixels accepted, checked before anything is decoded. None:
            --max-pixels of the command that runs, else `DEFAULT_MAX_PIXELS`.
        shorter_side_at_least: lets JPEGs be decoded at 1/2, 1/4 or 1/8 of their size, several times
            faster, as long as the shorter side keeps this many pixels.
        takes_results: whether a result of this software is as good as a photo.

    Raises:
        PictureError: the file is missing, not regular, not a picture, damaged or too large.
        ResultError: it is a result of this software.
    """
    with _errors_about(path), _open_regular_file(path) as file:
        image = _open_image(file, max_pixels)
        if shorter_side_at_least is not None:
            image.draft(None, (shorter_side_at_least, shorter_side_at_least))
        picture = to_picture(image, upright=True)
    if picture.is_result and not takes_results:
        raise ResultError.about(path)
    return picture


def read_photo(
    path: Path, *, shorter_side_at_least: int | None = None, takes_results: bool = True
) -> Image.Image:
    """A photo on white, mode RGB.

    Raises:
        PictureError: as `read_picture`.
    """
    return over_white(
        read_picture(path, shorter_side_at_least=shorter_side_at_least, takes_results=takes_results)
    )


def require_picture(path: Path) -> None:
    """Check that a file has the header of a picture. Damage to its pixels is not noticed here.

    Raises:
        PictureError: as `read_picture`.
    """
    with _errors_about(path), _open_regular_file(path) as file:
        _open_image(file)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """An image of any size with its header read, and its file; raises whatever decoders raise."""
    with _open_regular_file(path) as file, _quiet_pillow(0):
        yield _open_image(file, sys.maxsize), file


def size_in_header(path: Path) -> tuple[int, int] | None:
    """(height, width) of a picture file as stored, before it is turned upright; None if unreadable.

    Any number of pixels is accepted, since none is decoded.
    """
    try:
        with opened(path) as (image, _):
            return image.height, image.width
    except Exception:  # see `_errors_about`
        return None


# --- Images in memory ---------------------------------------------------------------------------


def to_picture(image: Image.Image, *, upright: bool = False) -> Picture:
    """The sRGB picture of an image that Pillow has opened or made; `image` is unchanged.

    Values of more bits are rounded to 8. White is 65535 in 16-bit grey and in mode I; in mode F it
    is the smallest of 1, 255 and 65535 that no pixel exceeds. (Modes I and F define no white. Where
    a pixel exceeds 65535, the largest value is white.) Negative values, NaN and infinities are
    black.

    A color profile that cannot be applied (broken, or for another mode) is ignored: see `profiles`.

    Args:
        image: of any mode.
        upright: turn it as its EXIF orientation says. That is right for a file. An image in memory
            may have been turned already: `Image.transpose` and others keep the old orientation.

    Raises:
        Exception: whatever Pillow raises when it cannot decode `image`.
    """
    _load(image)
    exif_orientation, software = _exif_of(image)
    orientation = exif_orientation if upright else 1
    is_result = software == MARK or image.info.get("comment") == MARK.encode()
    colors, alpha = _split_alpha(image)
    rgb = _to_srgb(colors, image.info.get("icc_profile"))
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
        alpha = alpha.transpose(_UPRIGHT[orientation]) if alpha is not None else None
    if alpha is not None:
        _hide_invisible_colors_(rgb, alpha)
    # Pillow's writers would copy what is left of profiles and comments.
    for part in (rgb, alpha):
        if part is not None:
            part.info = {}
    return Picture(rgb, alpha, is_result)


def over_white(picture: Picture) -> Image.Image:
    """The picture blended with white by its alpha, mode RGB; the form of photos in training."""
    if picture.alpha is None:
        return picture.rgb
    white = Image.new("RGB", picture.rgb.size, "white")
    return Image.composite(picture.rgb, white, picture.alpha)


# --- Opening files ------------------------------------------------------------------------------


class _UnusableError(Exception):
    """The reason why a file cannot be used, worded to follow its path."""


@contextmanager
def _errors_about(path: Path) -> Iterator[None]:
    try:
        yield
    except _UnusableError as reason:
        raise PictureError(f"{printable(path)}: {reason}") from None
    except Exception as error:
        # Decoders meet bad data with nearly any exception (OSError, SyntaxError, ValueError,
        # IndexError, struct.error, zlib.error, ...): a list of them would never be complete.
        raise PictureError(f"{printable(path)}: {explain(error)}") from error


def explain(error: Exception) -> str:
    """The reason why a file could not be opened or decoded, as a part of a line."""
    match error:
        case FileNotFoundError():
            return "not found"
        case NotADirectoryError():
            return "not a folder"
        case PermissionError():
            return "permission denied"
        case UnidentifiedImageError():
            return f"not a picture of a known format ({', '.join(FORMATS)})"
        case _ if is_out_of_memory(error):
            return f"not enough memory to decode it{limit_remedy()}"
        case OSError(strerror=str(reason)):
            return f"cannot be read ({printable(reason)})"
        case _:
            reason = printable(str(error) or type(error).__name__)
            return f"damaged picture ({reason})"


def _open_regular_file(path: Path) -> BinaryIO:
    # The status first: opening a FIFO would wait until somebody writes into it.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise _UnusableError("a folder, not a picture; name a picture in it")
    if not stat.S_ISREG(status.st_mode):
        raise _UnusableError("not a regular file")
    if status.st_size == 0:
        raise _UnusableError("empty file")
    return path.open("rb")


def _open_image(file: BinaryIO, max_pixels: int | None = None) -> Image.Image:
    """An image with its header read and its size checked; no pixels are decoded yet."""
    if max_pixels is None:
        max_pixels = int(os.environ.get(MAX_PIXELS_VARIABLE, DEFAULT_MAX_PIXELS))
    pages = find_pages(file)
    page = picture_among(pages) if pages else None
    if pages and page is None:
        raise _UnusableError(RAW_PHOTO)
    file.seek(0)
    if page is not None and page is not pages[0]:
        _check_size(page.num_pixels, max_pixels)
        file = beginning_with(file, page)
    image = _open_first_page(file, max_pixels)
    if page is not None and page.orientation is None and pages[0].orientation is not None:
        # Converters write the orientation of all pages on the first one.
        image.getexif()[ExifTags.Base.Orientation] = pages[0].orientation
    return image


def _open_first_page(file: BinaryIO, max_pixels: int) -> Image.Image:
    try:
        with _quiet_pillow(max_pixels):
            image = Image.open(file, formats=_DECODERS)
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(512)
        if reason := pointer_in(start) or known_by(start):
            raise _UnusableError(reason) from None
        raise
    except Image.DecompressionBombError as error:
        # Pillow refuses some files before there is an image to ask for its size.
        found = re.search(r"(\d+) pixels", str(error))
        raise _too_large(int(found[1]) if found else None, max_pixels) from None
    _check_size(image.width * image.height, max_pixels)
    _mend_transparent_value(image)
    if image.format == "BMP":
        place = file.tell()
        file.seek(6)
        if file.read(4) == BITMAP_MARK:
            image.info["comment"] = MARK.encode()
        file.seek(place)
    return image


def _check_size(num_pixels: int, max_pixels: int) -> None:
    if num_pixels > max_pixels:
        raise _too_large(num_pixels, max_pixels)


def _too_large(num_pixels: int | None, max_pixels: int) -> _UnusableError:
    found = f"{num_pixels:,}" if num_pixels is not None else "too many"
    remedy = "use a smaller copy"
    if MAX_PIXELS_VARIABLE in os.environ:  # a command runs, and has this option
        remedy = f"for a photo that you trust, raise it with --max-pixels {num_pixels or 'N'}"
    return _UnusableError(f"{found} pixels, more than the limit of {max_pixels:,}; {remedy}")


# --- Pillow's settings of the whole process -----------------------------------------------------

# Held while process-wide settings of Pillow and `warnings` are changed: see `_quiet_pillow`.
_process_settings = threading.RLock()


def _renew_lock() -> None:
    global _process_settings
    _process_settings = threading.RLock()


if sys.platform != "win32":
    # A data worker forked while another thread holds the lock would wait for it forever.
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def _quiet_pillow(num_pixels: int) -> Iterator[None]:
    """Within the block, Pillow gives no warnings and accepts at least `num_pixels`.

    Pillow warns about damaged metadata and large pictures, and refuses very large ones. Both are
    settings of the whole process, so they change only inside this block and under a lock: two of
    our threads could otherwise restore each other's settings in the wrong order. (Threads of other
    libraries see the change while the block lasts.) The limit is never lowered or switched off:
    Pillow checks it before some allocations of its own, before we know the size from the header.
    """
    with _process_settings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit_before = Image.MAX_IMAGE_PIXELS
        if limit_before is not None:
            # Pillow raises its error at twice this number.
            Image.MAX_IMAGE_PIXELS = max(limit_before, -(-num_pixels // 2))
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit_before


def _load(image: Image.Image) -> None:
    # Decoding a JPEG gives no warnings. It needs no lock, so threads can decode at the same time.
    is_jpeg = image.format in ("JPEG", "MPO")
    with nullcontext() if is_jpeg else _quiet_pillow(image.width * image.height):
        image.load()


def _exif_of(image: Image.Image) -> tuple[int, object]:
    """The EXIF (or XMP) orientation of a loaded image, and the software that wrote it.

    The orientation is 1 (upright), and the software None, where missing or invalid.
    """
    with _quiet_pillow(0):
        try:
            exif = image.getexif()
            orientation = exif.get(ExifTags.Base.Orientation, 1)
            software = exif.get(ExifTags.Base.Software)
        except Exception:
            # Metadata can be damaged in as many ways as pixels. Then the orientation is lost, not
            # the picture.
            return 1, None
    return orientation if isinstance(orientation, int) else 1, software


# --- Alpha and bit depth ------------------------------------------------------------------------


def _mend_transparent_value(image: Image.Image) -> None:
    """Scale a PNG's transparent value to the 8 bits that its pixels will have.

    Pillow scales pixels of 2, 4 and 3x16 bits to 8 bits, but not the value of the tRNS chunk that
    they are compared with. (For 16-bit colors, it compares the high bytes.)
    """
    value = image.info.get("transparency")
    tiles = getattr(image, "tile", [])
    if value is None or not tiles:
        return
    match image.format, tiles[0].args:
        case "PNG", "L;2":
            image.info["transparency"] = value * 85  # 255 / (2**2 - 1)
        case "PNG", "L;4":
            image.info["transparency"] = value * 17  # 255 / (2**4 - 1)
        case "PNG", "RGB;16B":
            image.info["transparency"] = tuple(channel >> 8 for channel in value)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """8-bit colors without alpha (L, RGB, CMYK, LAB, YCbCr or HSV), and the alpha channel."""
    if image.mode.startswith("I") or image.mode == "F":
        return _split_wide_grey(image)
    if image.mode in ("LA", "La"):
        grey, alpha = image.convert("LA").split()
        return grey, alpha
    if image.has_transparency_data:
        *bands, alpha = image.convert("RGBA").split()
        return Image.merge("RGB", bands), alpha
    if image.mode == "1":
        return image.convert("L"), None
    if image.mode in ("P", "RGBX"):
        return image.convert("RGB"), None
    return image, None


def _split_wide_grey(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """8-bit grey and alpha of the modes I;16 (any byte order), I and F."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        # A table is exact, and needs no wide copy of a large picture.
        table = (np.arange(65_536, dtype=np.uint32) * 255 + 32_767) // 65_535
        grey = table.astype(np.uint8)[values]
    else:
        whites = (65_535,) if image.mode == "I" else (1, 255, 65_535)
        grey = _scale_to_eight_bits(values, whites)
    transparent_value = image.info.get("transparency")
    if transparent_value is None:
        return Image.fromarray(grey), None
    alpha = np.where(values == transparent_value, 0, 255).astype(np.uint8)
    return Image.fromarray(grey), Image.fromarray(alpha)


def _scale_to_eight_bits(values: NDArray[Any], whites: Iterable[int]) -> NDArray[np.uint8]:
    """Values scaled to 0..255. White is the first of `whites` that none exceeds, or the maximum."""
    finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
    largest = float(finite.max())
    white = next((white for white in whites if largest <= white), largest)
    levels: NDArray[np.uint8] = np.rint((finite / white).clip(0, 1) * 255).astype(np.uint8)
    return levels


def _hide_invisible_colors_(rgb: Image.Image, alpha: Image.Image) -> None:
    """Give pixels with alpha 0 the mean color of the others, weighted by alpha."""
    if alpha.getextrema()[0] != 0:
        return
    total, sums = 0, np.zeros(3, np.uint64)
    for top in range(0, rgb.height, 64):  # an array of the whole picture would be a copy of it
        box = (0, top, rgb.width, min(top + 64, rgb.height))
        colors, weights = np.asarray(rgb.crop(box)), np.asarray(alpha.crop(box))
        total += int(weights.sum(dtype=np.uint64))
        sums += np.einsum("hwc,hw->c", colors, weights, dtype=np.uint64, casting="unsafe")
    red, green, blue = (round(int(channel) / max(total, 1)) for channel in sums)
    rgb.paste((red, green, blue), mask=alpha.point([255] + [0] * 255))


# --- Colors --------------------------------------------------------------------------------------


def _to_srgb(colors: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB pixels in sRGB; without a usable profile, Pillow's conversion of the mode."""
    if colors.mode in ("YCbCr", "HSV"):
        colors = colors.convert("RGB")  # a profile of such a file describes its RGB values
    if profile:
        converted = apply_profile(colors, profile)
        if converted is not None:
            return converted
    return colors.convert("RGB")


def apply_profile(colors: Image.Image, profile: bytes) -> Image.Image | None:
    """`colors` in sRGB according to an ICC profile; None if the profile cannot be applied."""
    try:
        return ImageCms.profileToProfile(
            colors,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        # Many photos carry a broken profile, or one for another mode (grey pixels, RGB profile).
        # Viewers show their plain pixels, and so do we.
        return None
