"""Files that hold several pictures, of which one is read: animations, and pages of a document.

Previews, thumbnails, depth and gain maps are no further pictures: nothing is lost with them. They
are much smaller than the picture, or the file says what they are.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import MpoImagePlugin

from fast_style.pictures.formats import EXTENSIONS, FORMATS
from fast_style.pictures.reading import opened
from fast_style.pictures.scanning import first_of
from fast_style.pictures.tiff_pages import Page, find_pages, picture_among

# Of the metadata of a gain map, which may be as large as its picture: Adobe's and Google's, and
# that of ISO 21496-1.
_GAIN_MAPS = (b"hdrgm", b"iso:ts:21496")

# Of the pixels of the page that is read, what a further one has at least. Smaller versions that do
# not say so have a quarter of them, as in pyramids, or fewer.
_LEAST_SHARE = 0.5


MAY_HOLD_SEVERAL = EXTENSIONS.difference(FORMATS["JPEG"])
"""Suffixes, in lower case, of formats that are used for animations and documents.

Large sets of photos are JPEG, so that files with these can be opened before a training.
"""


def num_pictures(path: Path) -> int:
    """How many pictures of one kind a file holds; 1 if it cannot be read.

    No pixels are decoded.
    """
    try:
        with opened(path) as (image, file):
            if image.format == "TIFF":
                return _num_pages(find_pages(file))
            if isinstance(image, MpoImagePlugin.MpoImageFile):
                return _num_views(image)
            return int(getattr(image, "n_frames", 1))
    except Exception:  # decoders meet bad data with nearly any
        return 1


def _num_pages(pages: list[Page]) -> int:
    """How many pages are pictures of their own: sheets of a scan, say, of any shape."""
    read = picture_among(pages)
    assert read is not None, "a raw photo is not opened"
    further = [page for page in pages if not (page.is_reduced or page.is_mask or page.is_raw)]
    least = _LEAST_SHARE * read.num_pixels
    return 1 + sum(page is not read and page.num_pixels >= least for page in further)


def _num_views(image: MpoImagePlugin.MpoImageFile) -> int:
    """How many pictures of an MPO are like its first: those of a stereo camera, or of a series."""
    first = (image.size, image.mode)
    number = 1
    for frame in range(1, image.n_frames):
        image.seek(frame)
        number += (image.size, image.mode) == first and not _is_gain_map(image)
    return number


def _is_gain_map(image: MpoImagePlugin.MpoImageFile) -> bool:
    return any(word in data for _, data in image.applist for word in _GAIN_MAPS)


def line_about_several(files: Sequence[tuple[str, int]]) -> str:
    """What is told of files that hold several pictures; empty if none does.

    Args:
        files: their names, and from `num_pictures`.
    """
    found = sorted((name, count) for name, count in files if count > 1)
    if not found:
        return ""
    remedy = "magick (package imagemagick) writes each to a file of its own"
    if len(found) == 1:
        ((name, count),) = found
        return f"1 of {count:,} pictures in {first_of([name])} is taken; {remedy}"
    names = first_of([f"{name} ({count:,} pictures)" for name, count in found])
    return f"of {len(found):,} files with several pictures, one of each is taken: {names}; {remedy}"
