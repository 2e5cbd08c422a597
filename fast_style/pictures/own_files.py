"""Which names in a folder are those of this software's own files: runs, reports and caches."""

import os
from pathlib import Path

_OF_A_RUN = {"config.yaml", "checkpoints"}
OWN_FOLDERS = (
    _OF_A_RUN,
    {"report.md", "results.json"},
    {"index.jsonl", "pixels.bin"},
)
"""Names that together are only in a run, a report, or a cache of this software."""

_FILLED_BY_A_RUN = ("checkpoints", "samples")


def is_run_folder(folder: Path) -> bool:
    """Whether a folder is that of a run; False if there is none, or it cannot be looked into."""
    return all(os.path.lexists(folder / name) for name in _OF_A_RUN)


def is_filled_by_a_run(folder: Path) -> bool:
    """Whether a run writes into a folder: its own, or one of those in it."""
    real = Path(os.path.realpath(folder))
    return is_run_folder(real) or (real.name in _FILLED_BY_A_RUN and is_run_folder(real.parent))
