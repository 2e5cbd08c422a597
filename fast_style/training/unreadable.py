"""Photos that cannot be read: how many a run tolerates, and the list of those that it met.

A few photos of a large folder are always damaged, so a run replaces them and continues. It stops
when they are too many, because then the fault lies in the folder and not in single photos.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fast_style.core.errors import UserError, printable
from fast_style.core.files import write_text_atomically
from fast_style.pictures.folders import Photos, by_hash
from fast_style.pictures.reading import PictureError, read_picture

# Unreadable photos that are tolerated, however small the folder is.
_TOLERATED_UNREADABLE = 10
# Photos that are tried before a run begins, so that a hopeless folder is found at once.
_PROBED_PHOTOS = 64
# Unreadable photos that are named on the console; all of them are in the list.
_NAMED_UNREADABLE = 10


class Unreadable(NamedTuple):
    """A photo (its name within the folder) that could not be read, and the sample that met it."""

    photo: str
    reason: str
    sample: int


def too_many_unreadable(num_unreadable: int, num_photos: int, max_share: float) -> bool:
    """Whether the unreadable photos are more than ten, and more than `max_share` of all."""
    return num_unreadable > _TOLERATED_UNREADABLE and num_unreadable > max_share * num_photos


def why_unreadable(path: Path) -> str | None:
    """Why a photo cannot be read, or None."""
    try:
        read_picture(path)
    except PictureError as error:
        return str(error)
    return None


def probe_photos(photos: Photos, *, max_unreadable_share: float) -> None:
    """Try to read some of the training photos, before anything slow begins.

    Raises:
        UserError: none of them can be read, or too few.
    """
    probed = by_hash(photos.training, photos.folder)[:_PROBED_PHOTOS]
    reasons = [reason for path in probed if (reason := why_unreadable(path)) is not None]
    if len(reasons) == len(probed) or too_many_unreadable(
        len(reasons), len(probed), max_unreadable_share
    ):
        raise UserError(
            f"{printable(photos.folder)}: {len(reasons)} of {len(probed)} photos tried cannot be "
            f"read, the first one: {reasons[0]}. Replace or remove them, or raise "
            "data.max_unreadable_share"
        )


@dataclass
class UnreadableList:
    """The unreadable photos of a run, each once, kept in a file of one JSON object per line.

    Sample numbers are kept too: a resumed run drops the entries of steps after its checkpoint. It
    repeats these steps, and so meets the photos again.
    """

    path: Path
    num_photos: int
    max_share: float
    entries: dict[str, Unreadable] = field(default_factory=dict)
    is_kept: bool = True
    """Whether this process writes the file."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        num_photos: int,
        max_share: float,
        before_sample: int,
        is_kept: bool = True,
    ) -> "UnreadableList":
        """The list of a run folder, with the photos that samples before `before_sample` met.

        Args:
            path: the file; made if there is none.
            num_photos: of the run, of which `max_share` may be unreadable.
            max_share: from 0 to 1; see `too_many_unreadable`.
            before_sample: the first sample that the run takes.
            is_kept: whether this process reads and writes the file.
        """
        opened = cls(path, num_photos, max_share, is_kept=is_kept)
        if not is_kept:
            return opened
        if path.exists():
            for line in path.read_bytes().splitlines():
                # A process that was killed while writing may have left half a line; its photo
                # will be met again.
                with suppress(ValueError, TypeError):
                    entry = Unreadable(**json.loads(line))
                    if entry.sample < before_sample:
                        opened.entries[entry.photo] = entry
            write_text_atomically(path, "".join(map(_json_line, opened.entries.values())))
        return opened

    def add(self, met: Iterable[Unreadable], *, is_fatal: bool = False) -> list[Unreadable]:
        """Add the photos that a batch met; returns those that were not listed before.

        Args:
            met: the photos; duplicates are allowed.
            is_fatal: raise however few they are, because the batch could not be filled.

        Raises:
            UserError: there are too many now.
        """
        new = []
        for entry in met:
            if entry.photo not in self.entries:
                self.entries[entry.photo] = entry
                new.append(entry)
        if new:
            self._append(new)
        if is_fatal or too_many_unreadable(len(self.entries), self.num_photos, self.max_share):
            raise UserError(
                f"{len(self.entries)} of {self.num_photos} photos cannot be read, the first one: "
                f"{next(iter(self.entries.values())).reason}. They are listed in "
                f"{printable(self.path)}; replace or remove them, or raise "
                "data.max_unreadable_share",
                exit_code=1,
            )
        return new

    def report(
        self, met: Sequence[Unreadable], warn: Callable[[str], None], *, is_fatal: bool = False
    ) -> None:
        """Add the photos that a batch met; warn of each new one until ten have been named.

        Raises:
            UserError: as `add`.
        """
        num_known = len(self.entries)
        new = self.add(met, is_fatal=is_fatal)
        for photo in new[: max(0, _NAMED_UNREADABLE - num_known)]:
            warn(f"skipping {photo.reason}")
        if num_known < _NAMED_UNREADABLE <= num_known + len(new):
            warn(f"more will only be listed in {printable(self.path)}")

    def _append(self, new: Iterable[Unreadable]) -> None:
        if not self.is_kept:
            return
        # On a full disk the list stays short; photos are counted and named all the same.
        with suppress(OSError), self.path.open("a", encoding="ascii") as file:
            file.writelines(map(_json_line, new))


def _json_line(entry: Unreadable) -> str:
    return json.dumps(entry._asdict()) + "\n"
