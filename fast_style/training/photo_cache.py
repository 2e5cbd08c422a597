"""Photos decoded once: their pixels in one file, which all runs share.

A run crops every photo many times, and decoding a photo takes many times as long as cutting a crop
from its pixels. A cache is a folder, named after the size of its photos and a digest of their
files::

    about.json      for people: the photos' folder and number, and their stored size
    pixels.bin      uint8 RGB, row by row, one photo after the other
    index.jsonl     a line per photo, in order: its place in pixels.bin, or why it is unreadable
    complete.json   written last: the digest of the index

pixels.bin and index.jsonl are only appended to, and pixels reach the disk before the index lines
that refer to them. So a build that was killed at any moment resumes after the last whole line, and
gives the same bytes as an uninterrupted one. `data` makes the crops.

The file is read, not mapped into memory: where a mapped file loses its end, or a network drive its
connection, the system ends the process.

Longer than 500 lines: those that read a cache and those that build one share its format.
"""

import errno
import hashlib
import json
import math
import os
import re
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fast_style.core.errors import UserError, printable
from fast_style.core.files import (
    free_bytes,
    made_folders,
    sha256_of,
    size_in_words,
    write_text_atomically,
)
from fast_style.core.folder_lock import FolderLock, Held
from fast_style.core.words import count
from fast_style.pictures.pixels import resize_shorter_side
from fast_style.pictures.reading import PictureError, ResultError, over_white, read_picture
from fast_style.training.run_log import print_line

_FORMAT = 1
# Bytes written between two waits for the disk: a killed build loses no more. Waiting more often
# costs time.
_COMMIT_BYTES = 64_000_000
# Photos that are decoded before a build, to estimate its size, and photos of a finished cache that
# are compared with their checksums.
_PROBED_PHOTOS = 64
# Reasons, in the words of `reading.explain`, that another time or another option may remove. All
# others lie in a file's bytes. The index has had no more than these words in all versions.
_MAY_PASS = re.compile(
    r"not found|not a folder|permission denied|cannot be read \(|not enough memory"
    r"|damaged picture \(out of memory|.* more than the limit of "
)


class _Entry(NamedTuple):
    """A line of the index: the place of a photo's pixels, or (height 0) why there are none."""

    offset: int
    height: int
    width: int
    crc32: int
    unreadable: str | None = None
    is_result: bool = False

    @property
    def num_bytes(self) -> int:
        return self.height * self.width * 3

    @property
    def end(self) -> int:
        return self.offset + self.num_bytes


class PhotoCache:
    """The decoded photos of a finished cache.

    Args:
        folder: of the cache.
        photos: those that the cache was built from, in the same order.
        side: pixels of a stored photo's shorter side.
        say: called with a line if photos that could not be read then can be read now. They are
            decoded for every crop.
        takes_results: whether results of this software, which are stored too, are given back.

    Raises:
        UserError: the cache is damaged.
    """

    def __init__(
        self,
        folder: Path,
        photos: Sequence[Path],
        *,
        side: int,
        say: Callable[[str], None],
        takes_results: bool = True,
    ) -> None:
        self.folder = folder
        self.side = side
        self.takes_results = takes_results
        entries = _read_finished_index(folder)
        if len(entries) != len(photos):
            raise _damaged(folder, f"{len(entries)} photos instead of {len(photos)}")
        self._entries = dict(zip(photos, entries, strict=True))
        for path in _spread(photos):
            entry = self._entries[path]
            try:
                is_as_written = (
                    entry.unreadable is not None
                    or zlib.crc32(self._read_pixels(entry)) == entry.crc32
                )
            except OSError as error:
                raise _damaged(folder, f"pixels.bin cannot be read ({error.strerror})") from None
            if not is_as_written:
                raise _damaged(folder, "its pixels differ from their checksums")
        self._is_lost = False
        self._decoded_each_time = self._try_refused_again()
        if self._decoded_each_time:
            say(
                "photo cache: photos that could not be read when it was built, and can be read "
                f"now: {len(self._decoded_each_time)}. They are decoded for every crop; to store "
                f"them, remove {printable(folder)} while no run uses it"
            )

    def _try_refused_again(self) -> set[Path]:
        """The photos that were refused, for what is not in their bytes, and can be read now."""
        refused = [
            path for path, entry in self._entries.items() if _MAY_PASS.match(entry.unreadable or "")
        ]
        readable = set()
        for path, photo in zip(refused, _decode_in_order(refused, self.side), strict=True):
            self._entries[path] = self._entries[path]._replace(
                unreadable=photo.unreadable, is_result=photo.is_result
            )
            if photo.unreadable is None:
                readable.add(path)
        return readable

    def read(self, path: Path) -> NDArray[np.uint8]:
        """A photo's pixels, (H, W, 3), uint8.

        If the cache is damaged or out of reach since it was opened, photos are decoded, with the
        same pixels, and a line tells so.

        Raises:
            PictureError: the photo could not be read when the cache was built, nor when it was
                opened if the reason may have passed; or it has to be decoded, and cannot be read.
            ResultError: it is a result of this software, and these are not taken.
        """
        entry = self._entries[path]
        if entry.unreadable is not None:
            raise PictureError(f"{printable(path)}: {entry.unreadable}")
        if entry.is_result and not self.takes_results:
            raise ResultError.about(path)
        if path not in self._decoded_each_time and not self._is_lost:
            try:
                return _as_array(self._read_pixels(entry), entry)
            except OSError as error:
                self._is_lost = True
                # Data workers, too, can tell this line.
                print_line(
                    f"warning: {printable(self.folder)}: this photo cache can no longer be read "
                    f"({error.strerror}); photos are decoded for every crop, with the same result. "
                    "For the next run, remove the folder, and it is built again"
                )
        photo = _decode(path, self.side)
        if photo.unreadable is not None:
            raise PictureError(f"{printable(path)}: {photo.unreadable}")
        return _as_array(photo.pixels, photo)

    def _read_pixels(self, entry: _Entry) -> bytes:
        """The stored pixels of one photo.

        Raises:
            OSError: they cannot be read, or the file ends before.
        """
        with (self.folder / "pixels.bin").open("rb") as file:
            file.seek(entry.offset)
            pixels = file.read(entry.num_bytes)
        if len(pixels) < entry.num_bytes:
            raise OSError(errno.EIO, "pixels.bin has become shorter")
        return pixels


def _as_array(pixels: bytes, size: "_Entry | _Decoded") -> NDArray[np.uint8]:
    return np.frombuffer(pixels, np.uint8).reshape(size.height, size.width, 3)


def open_photo_cache(
    photos: Sequence[Path],
    *,
    folder: Path,
    side: int,
    root: Path,
    say: Callable[[str], None],
    takes_results: bool = True,
) -> PhotoCache:
    """The cache of these photos; built first unless it exists.

    Args:
        photos: files in `folder`.
        folder: photos are identified by their paths relative to it, so that it can be moved.
        side: pixels of a stored photo's shorter side; smaller photos keep their size.
        root: the folder that holds caches.
        say: prints a line for the user.
        takes_results: as in `PhotoCache`; the stored cache is the same.

    Raises:
        UserError: the cache is damaged (its folder is left as found), cannot be written, or does
            not fit on the disk.
    """
    digest = _digest_of(photos, folder, side)
    home = root.absolute() / f"{side}-{digest[:16]}"
    if not os.path.exists(home / "complete.json"):
        about = {"photos": printable(folder.absolute()), "count": len(photos), "side": side}
        try:
            with made_folders(home):
                lock = _lock(home, say)
        except OSError as error:
            raise UserError(
                f"{printable(home)}: the photo cache cannot be written ({error.strerror}); set "
                "data.cache_folder to another folder, or data.cache=none"
            ) from None
        with lock:
            # Another process may have built it while this one waited for the lock.
            if not os.path.exists(home / "complete.json"):
                _build(home, photos, side, about, say)
    return PhotoCache(home, photos, side=side, say=say, takes_results=takes_results)


def _digest_of(photos: Sequence[Path], folder: Path, side: int) -> str:
    """The digest of a cache's format and side, and of its photos' names, sizes and times."""
    digest = hashlib.sha256(f"{_FORMAT} {side}\n".encode())
    for path in photos:
        name = path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape")
        try:
            status = path.stat()
            facts = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:  # the file has vanished: it counts as unreadable
            facts = "gone"
        digest.update(name + b"\0" + facts.encode() + b"\n")
    return digest.hexdigest()


def _lock(home: Path, say: Callable[[str], None]) -> FolderLock:
    """The lock on building, acquired once no other process has it; a ``with`` releases it."""
    waiting = f"waiting for the photo cache {printable(home)}, which another process is building"
    while True:
        try:
            return FolderLock(home, say)
        except Held:
            if waiting:
                say(waiting)
            waiting = ""  # once
        time.sleep(0.5)


# --- Building -----------------------------------------------------------------------------------


class _Decoded(NamedTuple):
    """A photo in its stored form, or the reason why it is unreadable."""

    height: int
    width: int
    pixels: bytes
    crc32: int
    unreadable: str | None = None
    is_result: bool = False


def _decode(path: Path, side: int) -> _Decoded:
    try:
        picture = read_picture(path, shorter_side_at_least=side)
    except PictureError as error:
        # The reason is stored without the path: the folder may be moved before it is shown.
        return _Decoded(0, 0, b"", 0, str(error).removeprefix(f"{printable(path)}: "))
    image = over_white(picture)
    if min(image.size) > side:
        image = resize_shorter_side(image, side)
    pixels = image.tobytes()
    return _Decoded(
        image.height, image.width, pixels, zlib.crc32(pixels), is_result=picture.is_result
    )


def _decode_in_order(photos: Sequence[Path], side: int) -> Iterator[_Decoded]:
    """All photos in order, decoded ahead on all cores: Pillow works without the GIL."""
    num_threads = os.cpu_count() or 1
    waiting: deque[Future[_Decoded]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for path in photos:
                waiting.append(pool.submit(_decode, path, side))
                if len(waiting) > 2 * num_threads:  # enough for all cores; more would fill memory
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _build(
    home: Path,
    photos: Sequence[Path],
    side: int,
    about: Mapping[str, object],
    say: Callable[[str], None],
) -> None:
    start_at = time.monotonic()
    try:
        write_text_atomically(home / "about.json", json.dumps(about, indent=2))
        done = _cut_back(home)
        _announce(home, photos, side, done, say)
        _append(home, photos, side, done)
        seal = {"index_sha256": sha256_of(home / "index.jsonl")}
        write_text_atomically(home / "complete.json", json.dumps(seal))
    except OSError as error:
        raise UserError(
            f"{printable(home)}: the photo cache cannot be written ({error.strerror}). Make room, "
            "and the same command resumes the build; or set data.cache_folder to another disk, or "
            "data.cache=none",
            exit_code=1,
        ) from None
    say(f"photo cache: built in {time.monotonic() - start_at:.0f} s")


def _cut_back(home: Path) -> list[_Entry]:
    """The entries that an unfinished build has finished; cuts both files off after the last one."""
    pixels, index = home / "pixels.bin", home / "index.jsonl"
    pixels.touch()
    index.touch()
    entries = _parse(index.read_bytes())
    # After a power cut, some disks hold index lines whose pixels were never written.
    with pixels.open("rb") as file:
        while entries and not _ends_as_written(file, entries):
            entries.pop()
    os.truncate(index, sum(len(_line(entry)) for entry in entries))
    os.truncate(pixels, _end_of(entries))
    return entries


def _ends_as_written(file: BinaryIO, entries: Sequence[_Entry]) -> bool:
    """Whether the pixels of the last readable entry are in the file, by their checksum."""
    last = next((entry for entry in reversed(entries) if entry.unreadable is None), None)
    if last is None:
        return True
    file.seek(last.offset)
    return zlib.crc32(file.read(last.num_bytes)) == last.crc32


def _announce(
    home: Path,
    photos: Sequence[Path],
    side: int,
    done: Sequence[_Entry],
    say: Callable[[str], None],
) -> None:
    """Print the cache's estimated size, and the number of other caches beside it.

    Raises:
        UserError: the disk has no room for it.
    """
    sample = list(_decode_in_order(_spread(photos), side))
    total = len(photos) * sum(len(photo.pixels) for photo in sample) // len(sample)
    missing_bytes = total - _end_of(done)
    free = free_bytes(home)
    if missing_bytes > free:
        raise UserError(
            f"{printable(home)}: the photo cache needs about {size_in_words(missing_bytes)} "
            f"more, and {size_in_words(free)} are free on this disk. Make room, lower "
            f"data.cache_side ({side} pixels), set data.cache_folder to another disk, or "
            "data.cache=none"
        )
    begun = f"; {len(done)} of them are stored already" if done else ""
    say(
        f"photo cache: {count(len(photos), 'photo')} with a shorter side of at most {side} pixels, "
        f"about {size_in_words(total)}, in {printable(home)}{begun}"
    )
    others = [path.parent for path in home.parent.glob("*/about.json") if path.parent != home]
    if others:
        size = sum(_num_bytes_of(other / "pixels.bin") for other in others)
        say(
            f"photo cache: other caches in the same folder: {len(others)} "
            f"({size_in_words(size)}); about.json in each names its photos. Remove the caches that "
            "no run needs"
        )


def _append(home: Path, photos: Sequence[Path], side: int, done: Sequence[_Entry]) -> None:
    """Append the photos after those of the entries `done`."""
    with (home / "pixels.bin").open("ab") as pixels, (home / "index.jsonl").open("ab") as index:
        lines: list[bytes] = []

        def commit() -> None:
            _wait_for_disk(pixels)
            index.writelines(lines)
            _wait_for_disk(index)
            lines.clear()

        offset = committed = _end_of(done)
        # None shows the bar on a terminal only; a program without a console has no stderr.
        is_hidden = True if sys.stderr is None else None
        with tqdm(total=len(photos), initial=len(done), unit="photo", disable=is_hidden) as bar:
            for photo in _decode_in_order(photos[len(done) :], side):
                pixels.write(photo.pixels)
                entry = _Entry(
                    offset,
                    photo.height,
                    photo.width,
                    photo.crc32,
                    photo.unreadable,
                    photo.is_result,
                )
                lines.append(_line(entry))
                offset = entry.end
                if offset - committed >= _COMMIT_BYTES:
                    commit()
                    committed = offset
                bar.update()
        commit()


def _wait_for_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


# --- The index ----------------------------------------------------------------------------------


def _line(entry: _Entry) -> bytes:
    fields = entry._asdict()
    if not entry.is_result:  # as in caches of versions that did not know results
        del fields["is_result"]
    return json.dumps(fields).encode() + b"\n"


def _end_of(entries: Sequence[_Entry]) -> int:
    return entries[-1].end if entries else 0


def _parse(index: bytes) -> list[_Entry]:
    """The entries before the first line that is torn or does not continue the one before it."""
    entries: list[_Entry] = []
    for line in index.splitlines(keepends=True):
        try:
            entry = _Entry(**json.loads(line))
            follows = entry.offset == _end_of(entries) and line == _line(entry)
        except (ValueError, TypeError):
            break
        if not follows:
            break
        entries.append(entry)
    return entries


def _read_finished_index(home: Path) -> list[_Entry]:
    """All entries of a finished cache.

    Raises:
        UserError: a file is missing, or has changed since it was written.
    """
    try:
        seal = json.loads((home / "complete.json").read_bytes())
        digest = sha256_of(home / "index.jsonl")
        index = (home / "index.jsonl").read_bytes()
        with (home / "pixels.bin").open("rb") as pixels:
            size = os.fstat(pixels.fileno()).st_size
    except OSError as error:
        name = Path(error.filename or home).name
        raise _damaged(home, f"{name} cannot be read ({error.strerror})") from None
    except ValueError:
        raise _damaged(home, "complete.json has changed since it was written") from None
    if seal != {"index_sha256": digest}:
        raise _damaged(home, "index.jsonl has changed since it was written")
    entries = _parse(index)
    if size != _end_of(entries):
        raise _damaged(home, f"pixels.bin has {size} bytes instead of {_end_of(entries)}")
    return entries


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(
        f"{printable(folder)}: this photo cache is damaged: {what}. Remove the folder, and the "
        "same command builds it again"
    )


def _spread(photos: Sequence[Path]) -> Sequence[Path]:
    """At most `_PROBED_PHOTOS` photos, evenly from the whole."""
    return photos[:: math.ceil(len(photos) / _PROBED_PHOTOS)]


def _num_bytes_of(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
