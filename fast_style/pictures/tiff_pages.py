"""Which page of a TIFF file is its picture.

Usually it is the first. But scanners, cameras and DNG converters put a thumbnail first and the
picture behind it, or below it as a sub-page (TIFF 6.0, and its supplement 1 for sub-pages).
"""

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

# Tags of TIFF 6.0 and its supplement 1.
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _WIDTH, _HEIGHT = 254, 255, 256, 257
_PHOTOMETRIC, _ORIENTATION, _SUB_PAGES = 262, 274, 330
_TAGS = {
    _NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _ORIENTATION, _SUB_PAGES,
}  # fmt: skip
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_REDUCED_OLD = 2  # value of SubfileType
_RAW_PHOTOMETRICS = (32_803, 34_892)  # DNG 1.7: values of a sensor, before and after demosaicing
_TYPES = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # unsigned numbers, and places of pages

_MOST_PAGES = 100  # looked at; a damaged file could link its pages without end
_MOST_TAGS, _MOST_SUB_PAGES = 4096, 64


class Page(NamedTuple):
    """A page of a TIFF file: its place in the file, and what its tags say."""

    offset: int
    width: int
    height: int
    is_reduced: bool
    """Whether it says that it is a smaller version of another page."""
    is_mask: bool
    is_raw: bool
    """Whether it holds a sensor's values, which are no picture yet."""
    orientation: int | None

    @property
    def num_pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def find_pages(file: BinaryIO) -> list[Page]:
    """The pages of a TIFF file with their sub-pages, the first page first; empty for other files.

    Pages behind damage are not found. The place in the file is changed.
    """
    file.seek(0)
    reader = _Reader.of(file, file.read(16))
    found: list[Page] = []
    if reader is not None:
        try:
            for page in reader.pages():
                found.append(page)
                if len(found) == _MOST_PAGES:
                    break
        except (struct.error, OSError, OverflowError, ValueError):
            pass  # the file ends before its pages do
    return found


def picture_among(pages: list[Page]) -> Page | None:
    """The page to read: the first, or if that is a thumbnail, the largest; None if it is raw.

    Pages of equal kind may have any sizes (a scan of several sheets), and there the first is read.
    """
    pictures = [page for page in pages if not (page.is_raw or page.is_mask)]
    whole = [page for page in pictures if not page.is_reduced]
    chosen = pages[0]
    if chosen.is_reduced or chosen not in pictures:
        chosen = max(whole or pictures or pages, key=lambda page: page.num_pixels)
    is_preview = any(page.is_raw and page.num_pixels > chosen.num_pixels for page in pages)
    return None if is_preview or chosen.is_raw else chosen


def beginning_with(file: BinaryIO, page: Page) -> BinaryIO:
    """A copy of a TIFF file, in memory, whose first page is `page`."""
    file.seek(0)
    data = bytearray(file.read())
    reader = _Reader.of(file, bytes(data[:16]))
    assert reader is not None
    struct.pack_into(reader.order + reader.place_type, data, reader.first_place, page.offset)
    return io.BytesIO(data)


class _Reader(NamedTuple):
    """Reads the tags of a file, a classic TIFF or a BigTIFF."""

    file: BinaryIO
    order: str
    is_big: bool
    first_offset: int

    @classmethod
    def of(cls, file: BinaryIO, header: bytes) -> "_Reader | None":
        """A reader for a file with this header; None if it is no TIFF."""
        order = {b"II": "<", b"MM": ">"}.get(header[:2])
        if order is None or len(header) < 16:
            return None
        (version,) = struct.unpack_from(order + "H", header, 2)
        if version not in (42, 43):
            return None
        reader = cls(file, order, version == 43, 0)
        (first,) = struct.unpack_from(order + reader.place_type, header, reader.first_place)
        return reader._replace(first_offset=first)

    @property
    def place_type(self) -> str:
        """The struct type of a place in the file."""
        return "Q" if self.is_big else "I"

    @property
    def first_place(self) -> int:
        """Where in the header the place of the first page stands."""
        return 8 if self.is_big else 4

    def pages(self) -> Iterator[Page]:
        """Each page, followed by its sub-pages; a page that was met before ends the search."""
        met: set[int] = set()
        waiting = [self.first_offset]
        while waiting:
            offset = waiting.pop()
            if offset == 0 or offset in met:
                continue
            met.add(offset)
            tags, following = self._read_page(offset)
            yield self._page(offset, tags)
            waiting.append(following)
            waiting += reversed(tags.get(_SUB_PAGES, ())[:_MOST_SUB_PAGES])

    def _page(self, offset: int, tags: dict[int, tuple[int, ...]]) -> Page:
        def first(tag: int) -> int:
            return tags.get(tag, (0,))[0]

        return Page(
            offset,
            first(_WIDTH),
            first(_HEIGHT),
            is_reduced=bool(first(_NEW_SUBFILE_TYPE) & _REDUCED)
            or first(_SUBFILE_TYPE) == _REDUCED_OLD,
            is_mask=bool(first(_NEW_SUBFILE_TYPE) & _MASK),
            is_raw=first(_PHOTOMETRIC) in _RAW_PHOTOMETRICS,
            orientation=first(_ORIENTATION) or None,
        )

    def _read_page(self, offset: int) -> tuple[dict[int, tuple[int, ...]], int]:
        """The values of `_TAGS` on the page at `offset`, and the place of the page behind it."""
        (num_tags,) = self._read(offset, "Q" if self.is_big else "H")
        if num_tags > _MOST_TAGS:
            raise ValueError("more tags than a page has")
        start = offset + (8 if self.is_big else 2)
        entry = "HHQ8s" if self.is_big else "HHI4s"
        size = struct.calcsize(self.order + entry)
        tags = {}
        for number in range(num_tags):
            tag, kind, count, value = self._read(start + number * size, entry)
            if tag in _TAGS and kind in _TYPES and count:
                tags[tag] = self._values(kind, min(count, _MOST_SUB_PAGES), value)
        (following,) = self._read(start + num_tags * size, self.place_type)
        return tags, following

    def _values(self, kind: int, count: int, value: bytes) -> tuple[int, ...]:
        form = f"{count}{_TYPES[kind]}"
        if struct.calcsize(self.order + form) <= len(value):
            return struct.unpack_from(self.order + form, value)
        (offset,) = struct.unpack(self.order + self.place_type, value)
        return self._read(offset, form)

    def _read(self, offset: int, form: str) -> tuple[Any, ...]:
        self.file.seek(offset)
        form = self.order + form
        return struct.unpack(form, self.file.read(struct.calcsize(form)))
