"""The reports that a folder has already: which files are theirs, so that none is lost."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from fast_style.core.errors import UserError, printable
from fast_style.evaluating.pages import numbers_in

Kind = Literal["results", "judge"]
"""Of a report, by its file of numbers: that of models and L-BFGS, or the judge's."""

_PAGES: Mapping[Kind, str] = {"results": "report.md", "judge": "judge.md"}


def names_of_report(sizes: Iterable[object]) -> list[str]:
    """The names of the page and pictures of an evaluation at these sizes."""
    pictures = [f"{kind}-{size}.png" for size in sizes for kind in ("grid", "objective", "terms")]
    return [_PAGES["results"], *pictures]


def names_of_judgment(styles: Iterable[object]) -> list[str]:
    """The names of the page and pictures of a judgment of models in these styles."""
    return [_PAGES["judge"], *(f"grid-{name}.png" for name in styles)]


def require_nothing_lost(
    folder: Path, kind: Kind, names: Iterable[str], *, overwrite: bool
) -> None:
    """Check that a report replaces no files but those of the earlier report in its place.

    Both kinds of reports may share a folder, and both have grids.

    Args:
        folder: the report's.
        kind: of the report.
        names: of the files that it writes.
        overwrite: whether it may replace files of no report. Those of the report of the other kind
            are not replaced even so: its page would show them as its own.

    Raises:
        UserError: names the first file that would be replaced.
    """
    other: Kind = "results" if kind == "judge" else "judge"
    own, of_other = _names_in(folder, kind), _names_in(folder, other)
    for name in names:
        path = folder / name
        if not os.path.lexists(path):
            continue
        if name in of_other:
            raise UserError(
                f"{printable(path)}: exists already, and is of the report {_PAGES[other]}; choose "
                "another --output"
            )
        if name not in own and not overwrite:
            raise UserError(
                f"{printable(path)}: exists already, and is of no report; choose another "
                "--output, or replace it with --overwrite"
            )


def _names_in(folder: Path, kind: Kind) -> set[str]:
    """The names of the files of a folder's report of this kind; none if it has no such report."""
    numbers = numbers_in(folder / f"{kind}.json")
    if not numbers:
        return set()
    if kind == "results":
        sizes = numbers.get("sizes")
        return {*names_of_report(sizes if isinstance(sizes, dict) else ())}
    styles = numbers.get("styles")
    found = styles if isinstance(styles, list) else ()
    return {*names_of_judgment(style.get("name") for style in found if isinstance(style, dict))}
