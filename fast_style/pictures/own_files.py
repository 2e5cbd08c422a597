"""Which names in a folder are those of this software's own files: runs, reports and caches."""

import os
import re
from pathlib import Path

from fast_style.pictures.formats import EXTENSIONS, suffix_of

_OF_A_RUN = {"config.yaml", "checkpoints"}
OF_A_REPORT = {"report.md", "results.json"}
"""Names that together are only in the folder of a report. It may hold a user's photos, too."""
OWN_FOLDERS = (_OF_A_RUN, {"index.jsonl", "pixels.bin"})
"""Names that together are only in a run, or in a cache of this software."""
_PICTURE_OF_A_REPORT = re.compile(r"((objective|terms)-\d+|grid-.+)\.png")

_FILLED_BY_A_RUN = ("checkpoints", "samples")


def is_run_folder(folder: Path) -> bool:
    """Whether a folder is that of a run; False if there is none, or it cannot be looked into."""
    return all(os.path.lexists(folder / name) for name in _OF_A_RUN)


def is_filled_by_a_run(folder: Path) -> bool:
    """Whether a run writes into a folder: its own, or one of those in it."""
    real = Path(os.path.realpath(folder))
    return is_run_folder(real) or (real.name in _FILLED_BY_A_RUN and is_run_folder(real.parent))


def is_picture_of_a_report(name: str) -> bool:
    """Whether a picture has a name that reports give to theirs."""
    return _PICTURE_OF_A_REPORT.fullmatch(name) is not None


def picture_of_a_user_in(folder: Path) -> str | None:
    """A picture in a folder or below it, or None; those that a report has there do not count."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            is_own = place == os.fspath(folder) and is_picture_of_a_report(name)
            if suffix_of(name) in EXTENSIONS and not (is_own or name.startswith(".")):
                return os.path.join(place, name)
    return None
