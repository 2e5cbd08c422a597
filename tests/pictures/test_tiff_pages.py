"""Which page of a TIFF is read. The files are made here, byte by byte."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fast_style.core.errors import UserError
from fast_style.pictures.reading import PictureError, read_picture, size_in_header
from fast_style.pictures.tiff_pages import find_pages

WHOLE, REDUCED, MASK = 0, 1, 4  # NewSubfileType
RGB, RAW, LINEAR_RAW = 2, 32_803, 34_892  # PhotometricInterpretation


class Drawn(NamedTuple):
    """A page to write: noise of this size, by its number as a seed."""

    width: int
    height: int
    kind: int | None = WHOLE
    photometric: int = RGB
    orientation: int | None = None
    is_below_first: bool = False
    old_kind: int | None = None

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3)."""
        rng = np.random.default_rng(self.width)
        return rng.integers(0, 256, (self.height, self.width, 3), np.uint8)


def tiff(pages: list[Drawn], *, order: str = "<", is_big: bool = False) -> bytes:
    """A TIFF file of uncompressed pages, some of them below the first one."""
    place, entry = ("Q", "HHQ8s") if is_big else ("I", "HHI4s")
    header = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if is_big else 42)
    if is_big:
        header += struct.pack(order + "HH", 8, 0)
    start = len(header) + struct.calcsize(order + place)
    body = bytearray()
    pixels = []
    for page in pages:
        pixels.append(start + len(body))
        body += page.pixels.tobytes()

    # Every page has the same number of bytes, so that their places are known beforehand.
    def tags(page: Drawn, at: int, below: list[int]) -> Iterator[tuple[int, int, int]]:
        if page.kind is not None:
            yield 254, 4, page.kind
        if page.old_kind is not None:
            yield 255, 3, page.old_kind
        yield from [(256, 4, page.width), (257, 4, page.height), (258, 3, 8), (259, 3, 1)]
        yield from [(262, 3, page.photometric), (273, 4, at)]
        if page.orientation is not None:
            yield 274, 3, page.orientation
        yield from [(277, 3, 3), (278, 4, page.height), (279, 4, page.width * page.height * 3)]
        if below:
            assert len(below) == 1
            yield 330, 4, below[0]

    size = struct.calcsize(order + ("Q" if is_big else "H")) + 14 * struct.calcsize(order + entry)
    size += struct.calcsize(order + place)
    places = [start + len(body) + number * size for number in range(len(pages))]
    chain = [number for number, page in enumerate(pages) if not page.is_below_first]
    for number, page in enumerate(pages):
        below = [places[n] for n, other in enumerate(pages) if other.is_below_first]
        found = list(tags(page, pixels[number], below if number == 0 else []))
        part = struct.pack(order + ("Q" if is_big else "H"), len(found))
        for tag, kind, value in found:
            text = struct.pack(order + {3: "H", 4: "I"}[kind], value)
            part += struct.pack(order + entry, tag, kind, 1, text.ljust(8 if is_big else 4, b"\0"))
        later = [n for n in chain if n > number] if number in chain else []
        part += struct.pack(order + place, places[later[0]] if later else 0)
        body += part.ljust(size, b"\0")
    return bytes(header + struct.pack(order + place, places[0]) + body)


THUMBNAIL, PICTURE = Drawn(60, 40, REDUCED), Drawn(120, 80)


@pytest.mark.parametrize(("order", "is_big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([THUMBNAIL, PICTURE], 1),
        ([THUMBNAIL, PICTURE._replace(is_below_first=True)], 1),
        ([THUMBNAIL, Drawn(90, 60), PICTURE, Drawn(30, 20)], 2),
        ([THUMBNAIL, Drawn(200, 100, REDUCED), PICTURE], 2),  # a whole one before a reduced one
        ([THUMBNAIL, Drawn(200, 100, REDUCED)], 1),
        ([THUMBNAIL, Drawn(120, 81, MASK), PICTURE], 2),
        ([THUMBNAIL], 0),
        ([THUMBNAIL._replace(kind=None, old_kind=2), PICTURE], 1),  # the tag before TIFF 6.0
        ([Drawn(60, 40), PICTURE], 0),  # a scan of several sheets
        ([PICTURE, THUMBNAIL], 0),
    ],
)
def test_the_picture_is_read_and_not_its_thumbnail(
    tmp_path: Path, pages: list[Drawn], expected: int, order: str, is_big: bool
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(pages, order=order, is_big=is_big))
    page = pages[expected]
    assert np.array_equal(np.asarray(read_picture(path).rgb), page.pixels)
    assert size_in_header(path) == (page.height, page.width)


def test_orientation_of_the_first_page_is_that_of_its_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    first = THUMBNAIL._replace(orientation=6)
    path.write_bytes(tiff([first, PICTURE]))
    assert np.array_equal(np.asarray(read_picture(path).rgb), np.rot90(PICTURE.pixels, -1))
    path.write_bytes(tiff([first, PICTURE._replace(orientation=1)]))
    assert np.array_equal(np.asarray(read_picture(path).rgb), PICTURE.pixels)


@pytest.mark.parametrize(
    "pages",
    [
        [THUMBNAIL, PICTURE._replace(photometric=RAW)],
        [THUMBNAIL, PICTURE._replace(photometric=RAW, is_below_first=True)],
        [THUMBNAIL._replace(kind=WHOLE), PICTURE._replace(photometric=LINEAR_RAW)],
        [PICTURE._replace(photometric=RAW)],
        [PICTURE._replace(photometric=RAW), THUMBNAIL],
    ],
)
def test_camera_raw_is_refused_instead_of_its_preview(tmp_path: Path, pages: list[Drawn]) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(tiff(pages))
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value) == (
        f"{path}: a camera raw file; develop it with darktable-cli (package darktable)"
    )


def test_size_of_the_page_behind_the_thumbnail_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff([THUMBNAIL, PICTURE]))
    with pytest.raises(UserError, match="9,600 pixels, more than the limit of 9,599"):
        read_picture(path, max_pixels=9599)


def test_pages_that_form_a_circle_are_found_once(tmp_path: Path) -> None:
    data = bytearray(tiff([THUMBNAIL, PICTURE]))
    (first,) = struct.unpack_from("<I", data, 4)
    number_of_tags = struct.unpack_from("<H", data, first)[0]
    following = first + 2 + 12 * number_of_tags
    (second,) = struct.unpack_from("<I", data, following)
    number_of_tags = struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<I", data, second + 2 + 12 * number_of_tags, first)
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert [page.width for page in find_pages(file)] == [60, 120]


@pytest.mark.parametrize("seed", range(30))
def test_damage_never_gives_another_error_than_ours(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(tiff([THUMBNAIL, PICTURE._replace(is_below_first=True), Drawn(20, 20)]))
    tags = len(data) - 3 * 200
    for _ in range(8):
        place = (
            int(rng.integers(0, 8)) if rng.random() < 0.1 else int(rng.integers(tags, len(data)))
        )
        data[place] = int(rng.integers(256))
    path = tmp_path / "a.tif"
    path.write_bytes(data[: len(data) if seed % 2 else int(rng.integers(len(data)))])
    with suppress(PictureError):
        read_picture(path)
