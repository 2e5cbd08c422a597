"""Photos that cannot be read: how many a run tolerates, and the list of those that it met.

A few photos of a large folder are always damaged, so a run replaces them and continues. It stops
when they are too many, because then the fault lies in the folder and not in single photos.

Results of this software among the photos are replaced and listed too. They are no fault, so any
number of them is tolerated.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fast_style.core.errors import UserError, printable, unwritten
from fast_style.core.files import write_text_atomically
from fast_style.pictures.folders import INCLUDE_RESULTS, Photos, by_hash, why_unreadable
from fast_style.pictures.reading import PictureError, ResultError

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
    is_result: bool = False
    """Whether it can be read, but is a result of this software."""


def too_many_unreadable(num_unreadable: int, num_photos: int, max_share: float) -> bool:
    """Whether the unreadable photos are more than ten, and more than `max_share` of all."""
    return num_unreadable > _TOLERATED_UNREADABLE and num_unreadable > max_share * num_photos


def probe_photos(photos: Photos, *, max_unreadable_share: float) -> None:
    """Try to read some of the training photos, before anything slow begins.

    Raises:
        UserError: none of them can be read, or too few.
    """
    probed = by_hash(photos.training, photos.folder)[:_PROBED_PHOTOS]
    problems = [why_unreadable(path, takes_results=photos.takes_results) for path in probed]
    require_usable(photos.folder, problems, max_unreadable_share=max_unreadable_share)


def require_usable(
    folder: Path, problems: Sequence[PictureError | None], *, max_unreadable_share: float
) -> None:
    """Check that enough of the training photos can be used.

    Args:
        folder: of the photos, for messages.
        problems: for each photo that was tried, from `why_unreadable`.
        max_unreadable_share: from 0 to 1; see `too_many_unreadable`.

    Raises:
        UserError: none of them can be used, or too few can be read.
    """
    found = [problem for problem in problems if problem is not None]
    damaged = [problem for problem in found if not isinstance(problem, ResultError)]
    if too_many_unreadable(len(damaged), len(problems), max_unreadable_share) or (
        len(damaged) == len(problems)
    ):
        raise UserError(
            f"{printable(folder)}: {len(damaged)} of {len(problems)} photos tried cannot be "
            f"read, the first one: {damaged[0]}. Replace or remove them, or raise "
            "data.max_unreadable_share"
        )
    if len(found) == len(problems):
        raise UserError(
            f"{printable(folder)}: none of {len(problems)} photos tried can be used, the "
            f"first one: {found[0]}. Add photos, or take results in with {INCLUDE_RESULTS}"
        )


def require_held_out(problems: Sequence[PictureError | None]) -> None:
    """Check that one of the validation photos can be used.

    Args:
        problems: for each of them, from `why_unreadable`.

    Raises:
        UserError: none can.
    """
    found = [problem for problem in problems if problem is not None]
    if len(found) < len(problems):
        return
    has_results = any(isinstance(problem, ResultError) for problem in found)
    what, remedy = (
        ("used", f"Add photos, or take results in with {INCLUDE_RESULTS}")
        if has_results
        else ("read", "Replace or remove them")
    )
    raise UserError(
        f"none of the {len(found)} validation photos can be {what}, the first one: {found[0]}. "
        f"{remedy}"
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
    unwritten: OSError | None = None
    """Why an entry is missing in the file, if one is."""

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

        Raises:
            UserError: the file cannot be read or written.
        """
        opened = cls(path, num_photos, max_share, is_kept=is_kept)
        if not is_kept:
            return opened
        try:
            if path.exists():
                opened._cut_back_to(before_sample)
        except OSError as error:
            raise unwritten(path, error, "rename what is there", exit_code=2) from None
        return opened

    def _cut_back_to(self, sample: int) -> None:
        for line in self.path.read_bytes().splitlines():
            # A process that was killed while writing may have left half a line; its photo will be
            # met again.
            with suppress(ValueError, TypeError):
                entry = Unreadable(**json.loads(line))
                if entry.sample < sample:
                    self.entries[entry.photo] = entry
        write_text_atomically(self.path, "".join(map(_json_line, self.entries.values())))

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
        damaged = [entry for entry in self.entries.values() if not entry.is_result]
        if is_fatal or too_many_unreadable(len(damaged), self.num_photos, self.max_share):
            told = damaged or list(self.entries.values())
            raise UserError(
                f"{len(told)} of {self.num_photos} photos cannot be {'read' if damaged else 'used'}"
                f", the first one: {told[0].reason}. They are listed in {printable(self.path)}; "
                + (
                    "replace or remove them, or raise data.max_unreadable_share"
                    if damaged
                    else f"add photos, or take results in with {INCLUDE_RESULTS}"
                ),
                exit_code=1,
            )
        return new

    def report(
        self, met: Sequence[Unreadable], warn: Callable[[str], None], *, is_fatal: bool = False
    ) -> None:
        """Add the photos that a batch met; warn of each new one until ten have been named.

        That the file cannot be written is told once.

        Raises:
            UserError: as `add`.
        """
        num_known, was_written = len(self.entries), self.unwritten is None
        new = self.add(met, is_fatal=is_fatal)
        if was_written and self.unwritten is not None:
            warn(
                f"{printable(self.path)} cannot be written ({self.unwritten.strerror}), and lacks "
                "unreadable photos; they are counted all the same"
            )
        for photo in new[: max(0, _NAMED_UNREADABLE - num_known)]:
            warn(f"skipping {photo.reason}")
        if num_known < _NAMED_UNREADABLE <= num_known + len(new):
            warn(f"more will only be listed in {printable(self.path)}")

    def _append(self, new: Iterable[Unreadable]) -> None:
        if not self.is_kept:
            return
        try:
            with self.path.open("a", encoding="ascii") as file:
                file.writelines(map(_json_line, new))
        except OSError as error:
            self.unwritten = error


def _json_line(entry: Unreadable) -> str:
    fields = entry._asdict()
    if not entry.is_result:  # as in lists of versions that did not know results
        del fields["is_result"]
    return json.dumps(fields) + "\n"
