"""The reports that a folder has already: what they are of, and which files are theirs.

So none is lost: a report is only made again, with the same inputs, unless the user says otherwise.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from fast_style.core.errors import UserError, printable
from fast_style.core.files import sha256_of
from fast_style.evaluating.baselines import digest_of
from fast_style.evaluating.objective import Model
from fast_style.evaluating.pages import numbers_in

Kind = Literal["results", "judge"]
"""Of a report, by its file of numbers: that of models and L-BFGS, or the judge's."""

_PAGES: Mapping[Kind, str] = {"results": "report.md", "judge": "judge.md"}


def inputs_digest(models: Sequence[Model], objective: str, photos: Iterable[Path]) -> str:
    """Digest of what a report is of, by contents.

    A report has its command without the folders of absolute paths, as it may be published. In it,
    two models of the same name look the same.

    Args:
        models: what is measured.
        objective: digest of what it is measured with.
        photos: the files of all sizes.

    Raises:
        UserError: a photo cannot be read any more.
    """
    digests: dict[Path, str] = {}
    for photo in photos:
        try:
            digests[photo] = digests.get(photo) or sha256_of(photo)
        except OSError as error:
            raise UserError(
                f"{printable(photo)}: cannot be read any more ({error.strerror}); repeat the "
                "command without it"
            ) from None
    return digest_of(
        {
            "models": [model.digest for model in models],
            "objective": objective,
            "photos": [*digests.values()],
        }
    )


def require_same_inputs(folder: Path, kind: Kind, models: Sequence[Model], inputs: str) -> None:
    """Check that a folder has no report of this kind, or one of the same inputs.

    Reports of earlier versions tell only their models.

    Args:
        folder: the report's.
        kind: of the report.
        models: what is measured.
        inputs: `inputs_digest` of the new report.

    Raises:
        UserError: the report is of others.
    """
    file = folder / f"{kind}.json"
    if not os.path.lexists(file):
        return
    numbers = numbers_in(file)
    described = numbers.get("models")
    digests = [
        model.get("digest")
        for model in (described if isinstance(described, list) else ())
        if isinstance(model, dict)
    ]
    if digests != [model.digest for model in models]:
        others = "other models of the same names"
    elif numbers.get("inputs_digest", inputs) != inputs:
        others = "other photos, or of another objective (style picture, weights or loss)"
    else:
        return
    raise UserError(
        f"{printable(file)}: exists already, and is of {others}; choose another "
        "--output, or replace it with --overwrite"
    )


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
