"""Which files of a folder are photos, and which are left out and why: one scan for all commands.

Only names and kinds of files are examined here. No picture is opened, so damaged ones are included.
A file's status is asked for only where the listing of its folder does not have it (links).
Hard links are photos of their own: file systems make them of equal files, and the numbers by which
a listing knows them cannot be relied on everywhere (FUSE, overlays).
"""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from fast_style.core.errors import printable, shortened
from fast_style.core.files import identity_of
from fast_style.core.words import count
from fast_style.pictures.formats import (
    EXTENSIONS,
    SUFFIXES_OF_RULES_3,
    is_known_suffix,
    is_placeholder,
    remedies_for,
    suffix_of,
)
from fast_style.pictures.own_files import OF_A_REPORT, OWN_FOLDERS, is_picture_of_a_report
from fast_style.pictures.reading import PictureError, explain
from fast_style.pictures.real_paths import RealPaths

RULES = 5
"""The number of the rules by which this version scans. A run keeps those that it began with.

5: as this module says. 4: the folder of a report is left out whole. 3: a link to a photo is one
more photo. 2: of a link to a folder, only its own name is judged; the folders of systems are those
of `_FOLDERS_OF_RULES_2`; `formats.SUFFIXES_OF_RULES_3` are not known, so that a.gpr.jpg is a
result. 1: links to folders are not followed; nothing is left out but hidden files and folders;
suffixes are those of `_FIRST_EXTENSIONS`.
"""

_FIRST_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"},
)

# Folders that programs and systems keep for themselves, in lower case. Hidden ones (.Trashes,
# .thumbnails, .@__thumb) are left out in any case.
_FOLDERS_OF_RULES_2 = frozenset(
    {
        # thumbnails: web galleries, NAS (Synology, QNAP), iPhoto
        *("thumb", "thumbs", "thumbnail", "thumbnails", "_thumb", "_thumbs", "_thumbnails"),
        *("@eadir", "@__thumb", "ipod photo cache"),
        # trash: Windows, NAS, Samba
        *("$recycle.bin", "recycler", "recycled", "#recycle", "@recycle", "trash", "trashbox"),
        *("network trash folder",),
        # systems: file systems, Android, Windows, macOS, snapshots and services of NAS
        *("lost+found", "lost.dir", "system volume information", "$extend", "__macosx"),
        *("temporary items", "#snapshot", "~snapshot", "@recently-snapshot", "@snapshot", "@tmp"),
        *("@database", "@docker", "@synologydrive", "@appdata", "@sharebin", "#archive"),
    }
)
_PATTERN_OF_RULES_2 = r"found\.\d{3}|.*\.lrdata"  # Windows's chkdsk; Lightroom's previews

# Synology's services have folders of their own at the top of a volume. Not all that begins with @
# is a system's: people have folders named @home, and downloads named after accounts.
_SYNOLOGY = (
    "@antivirus @appconf @apphome @appshare @appstore @apptemp @autoupdate @cloudstation "
    "@cloudsync @config_backup @download @downloadstation @guestimage @iscsi @iscsitrg @logcenter "
    "@maillog @mailscanner @notestation @optware @photostation @postfix @quarantine @repository "
    "@s2s @sharesnap @snapshotreplication @spool @ssbackup @surveillancestation @transcode @upd@te "
    "@usbcopy @userpreference @videostation @webstation"
)
_SYSTEM_FOLDERS = _FOLDERS_OF_RULES_2 | {
    *_SYNOLOGY.split(),
    # trash and versions: Nextcloud, Windows, GoodSync, macOS
    *("files_trashbin", "files_versions", "recycle bin", "_gsdata_", "trashes"),
    # thumbnails: digiKam, Piwigo
    *("thumbnails-digikam", "pwg_representative"),
    # systems: shares of macOS and Windows
    *("thevolumesettingsfolder", "dfsrprivate"),
}
_SYSTEM_PATTERN = "|".join(
    (
        _PATTERN_OF_RULES_2,
        r"@(syno|img_bkp|activebackup|mailplus|smallupd@te).*",  # Synology
        r"@gmt-.*",  # snapshots of Samba
        r"appdata_\w+",  # Nextcloud's previews
        r".*\.lrcat-data",  # Lightroom
        r"trash-\d+",  # of a volume, behind a dot
    )
)
# The photo libraries of macOS are folders, and hold thumbnails beside the photos.
_LIBRARIES = (".photoslibrary", ".photolibrary", ".aplibrary", ".migratedphotolibrary")
_PHOTOS_OF_A_LIBRARY = frozenset({"originals", "masters"})

# `settings.fields.RunName` without leading digits alone: photo.2.jpg is a second photo.
_MODEL_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]*")

# Seconds until a scan first says how far it is; the next times lie twice as far apart.
_SILENCE_S = 1.0

Reason = Literal["result", "system", "hidden", "unreadable", "broken", "special", "again", "twin"]

_WORDS: dict[Reason, tuple[str, str]] = {
    "result": ("result of fast-style", "results of fast-style"),
    "system": (
        "folder of thumbnails, trash or a system",
        "folders of thumbnails, trash or systems",
    ),
    "unreadable": ("folder that cannot be read", "folders that cannot be read"),
    "broken": ("broken link", "broken links"),
    "again": ("link to a folder that is taken already", "links to folders that are taken already"),
    "twin": ("link to a photo that is taken already", "links to photos that are taken already"),
    "hidden": ("hidden file or folder", "hidden files and folders"),
    "special": ("pipe, socket or device", "pipes, sockets and devices"),
}
_MOST_NAMES, _MOST_SUFFIXES = 3, 8  # that a line names


@dataclass
class LeftOut:
    """What a scan left out of a folder, and why.

    Attributes:
        folder: as it was given.
        names: paths below the folder, by reason. A reason without names is not there.
        suffixes: how many files of each suffix are no known pictures.
    """

    folder: Path
    names: dict[Reason, list[str]] = field(default_factory=dict)
    suffixes: Counter[str] = field(default_factory=Counter)

    def add(self, reason: Reason, name: str) -> None:
        """Count a file or folder."""
        self.names.setdefault(reason, []).append(name)

    def summary(self, option: str) -> str:
        """All that was left out, without the folder, in one line; empty if nothing was.

        Args:
            option: what takes results in, such as ``--include-results``.
        """
        parts = [self._suffixes()] if self.suffixes else []
        for reason, (one, several) in _WORDS.items():
            if names := self.names.get(reason):
                part = f"{len(names):,} {one if len(names) == 1 else several} left out: "
                part += first_of(sorted(names))
                parts.append(part + (f" ({option} takes them in)" if reason == "result" else ""))
        return "; ".join(parts)

    def line(self, option: str) -> str:
        """`summary` behind the folder; empty if nothing was left out."""
        summary = self.summary(option)
        return summary and f"{printable(self.folder)}: {summary}"

    def _suffixes(self) -> str:
        total = self.suffixes.total()
        ranked = sorted(self.suffixes.items(), key=lambda pair: (-pair[1], pair[0]))
        shown = [
            f"{shortened(printable(suffix)) or 'no suffix'} ({count:,})"
            for suffix, count in ranked[:_MOST_SUFFIXES]
        ]
        if len(ranked) > _MOST_SUFFIXES:
            shown.append(f"{len(ranked) - _MOST_SUFFIXES:,} other suffixes")
        counts = f"{count(total, 'file')} left out: {', '.join(shown)}"
        return "; ".join([counts, *remedies_for(self.suffixes)])


def first_of(names: Sequence[str]) -> str:
    """The first three of these names, as they may stand in a line."""
    shown = [shortened(printable(name)) for name in names[:_MOST_NAMES]]
    return ", ".join(shown + ["..."] * (len(names) > _MOST_NAMES))


class Scan(NamedTuple):
    """The photos of a folder, and what was left out."""

    folder: Path
    names: list[str]
    """Paths below the folder, sorted by their parts."""
    left_out: LeftOut
    links: Mapping[str, str]
    """The real paths of those photos that are links, by name; none by rules before the fourth."""

    @property
    def pictures(self) -> list[Path]:
        """The photos, each with the folder in front."""
        prefix = prefix_of(self.folder)
        return [Path(prefix + name) for name in self.names]


def prefix_of(folder: Path) -> str:
    """What stands before the names of files in a folder: ``photos/``, or nothing for ``.``.

    By the hundred thousand, paths are cut and put together as text: pathlib takes much longer.
    """
    return "" if folder == Path() else os.path.join(folder, "")


def keep_silent(line: str) -> None:
    """Take a line for people, and tell it nobody."""


def scan_folder(
    folder: Path,
    *,
    rules: int = RULES,
    takes_results: bool = False,
    tell: Callable[[str], None] = keep_silent,
) -> Scan:
    """The photos of a folder and its sub-folders, in an order that the disk does not influence.

    Photos are regular files, and links to them, with a suffix of `EXTENSIONS` in any case. Links to
    folders are followed. A real folder or photo is taken once, by its own path if it has one below
    `folder`. Links are judged by their own names, and by those of the real folders.

    Left out and counted are: hidden files and folders (such as macOS's ``._x.jpg``); folders of
    thumbnails, trash and systems; results of this software, as far as their names tell; folders
    that cannot be listed; links that lead nowhere; and files of other suffixes.

    Args:
        folder: may itself be hidden, or a link, or of a kind that would be left out.
        rules: see `RULES`.
        takes_results: take results of this software for photos.
        tell: called with a line now and then, if the scan takes more than a second.

    Raises:
        PictureError: `folder` itself cannot be listed.
    """
    scanner = _Scanner(folder, rules, takes_results, tell)
    scanner.run()
    names = sorted(scanner.found, key=_by_parts)
    return Scan(folder, names, scanner.left_out, scanner.links_taken)


def _by_parts(name: str) -> str:
    """A key that sorts names as the tuples of their parts; no name contains a zero."""
    return name.replace(os.sep, "\0")


def names_of_results(names: Collection[str], rules: int = RULES) -> set[str]:
    """The names that `fast-style stylize` gives to results of the other ones.

    Such are ``a.wave.jpg`` and ``a.wave.ink.png`` beside ``a.jpg``: a result has its photo's name
    with the model's behind. Not such are ``a.2.jpg`` and ``a.png.jpg``.

    Args:
        names: of pictures in one folder.
        rules: see `RULES`.
    """
    candidates = [name for name in names if name.count(".") > 1]
    if not candidates:
        return set()
    stems = {os.path.splitext(name)[0] for name in names}
    return {name for name in candidates if _is_result(os.path.splitext(name)[0], stems, rules)}


def _is_result(stem: str, stems: Collection[str], rules: int) -> bool:
    cut = stem.find(".")
    while cut > 0:
        model = stem[cut + 1 :]
        if (
            stem[:cut] in stems
            and _MODEL_NAME.fullmatch(model)
            and not _is_converted(f".{model.lower()}", rules)
        ):
            return True
        cut = stem.find(".", cut + 1)
    return False


def _is_converted(suffix: str, rules: int) -> bool:
    """Whether a name's inner suffix tells what the picture was before: a.nef.jpg."""
    return is_known_suffix(suffix) and (rules >= 3 or suffix not in SUFFIXES_OF_RULES_3)


class _Scanner:
    """A scan in progress; its arguments are those of `scan_folder`."""

    def __init__(
        self, folder: Path, rules: int, takes_results: bool, tell: Callable[[str], None]
    ) -> None:
        self.root = os.fspath(folder)
        self.is_first = rules == 1
        self.rules = rules
        self.judges_targets = rules >= 3
        self.system_folders = _SYSTEM_FOLDERS if rules >= 3 else _FOLDERS_OF_RULES_2
        pattern = _SYSTEM_PATTERN if rules >= 3 else _PATTERN_OF_RULES_2
        self.system_pattern = re.compile(pattern)
        self.extensions = _FIRST_EXTENSIONS if self.is_first else EXTENSIONS
        self.takes_results = takes_results
        self.tell = tell
        self.takes_photos_once = rules >= 4
        self.own_folders = OWN_FOLDERS if rules >= 5 else (*OWN_FOLDERS, OF_A_REPORT)
        self.found: list[str] = []
        self.links_to_photos: list[str] = []
        self.links_taken: dict[str, str] = {}
        self.left_out = LeftOut(folder)
        # Paths below the root that end with a separator; empty is the root.
        self.unvisited = [""]
        self.links: list[str] = []
        self.visited: set[object] = set()
        self.num_entries = 0
        self.pause_s = _SILENCE_S
        self.tell_at = time.monotonic() + self.pause_s

    def run(self) -> None:
        """Visit all folders, real ones before links: so a folder keeps its real path."""
        while self.unvisited or self.links:
            if not self.unvisited:
                # The order must not depend on the disk's.
                self.links.sort(key=_by_parts, reverse=True)
            is_link = not self.unvisited
            place = self.links.pop() if is_link else self.unvisited.pop()
            try:
                if self._is_new(place):
                    self._visit(place, is_link=is_link)
                elif is_link:
                    self.left_out.add("again", place.rstrip(os.sep))
            except OSError as error:
                reason = explain(error)
                if not place:
                    name = printable(self.root)
                    raise PictureError(f"{name}: {reason}") from error
                self.left_out.add("unreadable", f"{place.rstrip(os.sep)} ({reason})")
        if self.links_to_photos:
            self._take_links()

    def _take_links(self) -> None:
        """Take each photo that only links show, by the first of them."""
        real_paths = RealPaths()
        taken = {real_paths.in_real_folder(os.path.join(self.root, name)) for name in self.found}
        for name in sorted(self.links_to_photos, key=_by_parts):
            real = real_paths.of_link(os.path.join(self.root, name))
            if real in taken:
                self.left_out.add("twin", name)
            else:
                taken.add(real)
                self.found.append(name)
                self.links_taken[name] = real

    def _is_new(self, place: str) -> bool:
        """Whether the real folder behind a path has not been visited; notes that it is now."""
        if self.is_first:
            return True
        real = identity_of(os.path.join(self.root, place))
        if real in self.visited:
            return False
        self.visited.add(real)
        return True

    def _visit(self, place: str, *, is_link: bool) -> None:
        with os.scandir(os.path.join(self.root, place) if place else self.root) as listing:
            entries = [self._counted(entry) for entry in listing]
        is_report = False
        if not (self.is_first or self.takes_results or not place):
            names = {entry.name for entry in entries}
            if any(own <= names for own in self.own_folders):
                self.left_out.add("result", place)
                return
            if is_report := names >= OF_A_REPORT:
                entries = [entry for entry in entries if entry.name not in OF_A_REPORT]
        pictures: list[str] = []
        in_library = not self.is_first and self._is_library(place, is_link)
        for entry in entries:
            if self.is_first:
                self._sort_by_first_rules(entry, place, pictures)
            else:
                self._sort(entry, place, pictures, in_library)
        results: set[str] = set()
        if not (self.is_first or self.takes_results):
            results = names_of_results(pictures, self.rules)
        if is_report:  # its folder may be one of photos
            results |= set(filter(is_picture_of_a_report, pictures))
        links: set[str] = set()
        if self.takes_photos_once:
            links = {entry.name for entry in entries if entry.is_symlink()}
        for name in pictures:
            if name in results:
                self.left_out.add("result", place + name)
            elif name in links:
                self.links_to_photos.append(place + name)
            else:
                self.found.append(place + name)

    def _counted(self, entry: os.DirEntry[str]) -> os.DirEntry[str]:
        self.num_entries += 1
        if time.monotonic() > self.tell_at:
            self.tell(
                f"{printable(self.root)}: looking for photos, {self.num_entries:,} files and "
                "folders so far"
            )
            self.pause_s *= 2
            self.tell_at = time.monotonic() + self.pause_s
        return entry

    def _is_library(self, place: str, is_link: bool) -> bool:
        """Whether a folder is a photo library of macOS, by its name or its real one."""
        names = [place or os.path.abspath(self.root)]
        if self.judges_targets and (is_link or not place):
            names.append(os.path.realpath(os.path.join(self.root, place)))
        return any(name.rstrip(os.sep).lower().endswith(_LIBRARIES) for name in names)

    def _sort(
        self, entry: os.DirEntry[str], place: str, pictures: list[str], in_library: bool
    ) -> None:
        """Add an entry of the folder `place` to its pictures, the folders, or what is left out."""
        name = entry.name
        suffix = suffix_of(name)
        is_picture = suffix in self.extensions
        if name.startswith(".") and is_placeholder(name):
            self.left_out.suffixes[suffix] += 1
        elif name.startswith("."):
            # Files that no picture's suffix ends (.DS_Store, .gitignore) are not worth a word. What
            # is no file may have been a folder of photos.
            ending = suffix or name.lower()  # .jpg has no suffix
            if ending in self.extensions or is_known_suffix(ending) or not _is_file(entry):
                self.left_out.add("hidden", place + name)
        elif _is_file(entry):
            if is_picture:
                pictures.append(name)
            else:
                self.left_out.suffixes[suffix] += 1
        elif _is_folder(entry):
            if self._is_system_folder(entry, in_library):
                self.left_out.add("system", place + name)
            else:
                (self.links if entry.is_symlink() else self.unvisited).append(place + name + os.sep)
        else:
            is_broken = entry.is_symlink() and not os.path.exists(entry)
            self.left_out.add("broken" if is_broken else "special", place + name)

    def _is_system_folder(self, entry: os.DirEntry[str], in_library: bool) -> bool:
        """Whether a folder holds thumbnails, trash or a system's files, by its name or real one."""
        if in_library:
            return entry.name.lower() not in _PHOTOS_OF_A_LIBRARY
        if self._is_systems_name(entry.name):
            return True
        if not (self.judges_targets and entry.is_symlink()):
            return False
        parts = os.path.realpath(entry.path).lower().split(os.sep)
        # Hidden folders that a link shows are taken, but not .Trashes and .thumbnails.
        return self._is_systems_name(parts[-1].lstrip(".")) or any(
            parent.endswith(_LIBRARIES) and name not in _PHOTOS_OF_A_LIBRARY
            for parent, name in pairwise(parts)
        )

    def _is_systems_name(self, name: str) -> bool:
        name = name.lower()
        return name in self.system_folders or self.system_pattern.fullmatch(name) is not None

    def _sort_by_first_rules(
        self, entry: os.DirEntry[str], place: str, pictures: list[str]
    ) -> None:
        if entry.name.startswith("."):
            return
        if entry.is_dir(follow_symlinks=False):
            self.unvisited.append(place + entry.name + os.sep)
        elif suffix_of(entry.name) in self.extensions and _is_file(entry):
            pictures.append(entry.name)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False  # a link to itself


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def lines_about(left_out: Iterable[LeftOut], option: str) -> list[str]:
    """A line for each folder that something was left out of.

    Args:
        left_out: of several scans.
        option: what takes results in, such as ``data.include_results=true``.
    """
    # Two settings may name one folder.
    return list(dict.fromkeys(line for found in left_out if (line := found.line(option))))
