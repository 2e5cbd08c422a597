"""Claims about `earlier`: of the reports and files in a folder, none is lost."""

import json
from pathlib import Path

import pytest

from fast_style.core.errors import UserError
from fast_style.evaluating.earlier import (
    Kind,
    names_of_judgment,
    names_of_report,
    require_nothing_lost,
)

OF_SIZE_32 = names_of_report([32])
OF_STYLE_32 = names_of_judgment(["32"])


def write_report(folder: Path, kind: Kind) -> None:
    """The files of an evaluation at 32 px, or of a judgment in the style of 32.jpg."""
    numbers = {"results": {"sizes": {"32": {}}}, "judge": {"styles": [{"name": "32"}]}}[kind]
    (folder / f"{kind}.json").write_text(json.dumps(numbers))
    for name in OF_SIZE_32 if kind == "results" else OF_STYLE_32:
        (folder / name).write_text(kind)


def test_names_are_those_of_the_page_and_the_pictures() -> None:
    assert OF_SIZE_32 == ["report.md", "grid-32.png", "objective-32.png", "terms-32.png"]
    assert names_of_judgment(["a b", "c"]) == ["judge.md", "grid-a b.png", "grid-c.png"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_picture_of_the_other_report_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    reports: list[tuple[Kind, Kind, list[str], str]] = [
        ("results", "judge", OF_STYLE_32, "report.md"),
        ("judge", "results", OF_SIZE_32, "judge.md"),
    ]
    for kind, new, names, page in reports:
        folder = tmp_path / kind
        folder.mkdir()
        write_report(folder, kind)
        with pytest.raises(UserError) as caught:
            require_nothing_lost(folder, new, names, overwrite=overwrite)
        assert str(caught.value) == (
            f"{folder}/grid-32.png: exists already, and is of the report {page}; choose another "
            "--output"
        )
        others = names_of_judgment(["wave"]) if new == "judge" else names_of_report([48])
        require_nothing_lost(folder, new, others, overwrite=overwrite)


@pytest.mark.parametrize("kind", ["results", "judge"])
def test_report_replaces_its_own_files_and_no_others(tmp_path: Path, kind: Kind) -> None:
    write_report(tmp_path, kind)
    names = OF_SIZE_32 if kind == "results" else OF_STYLE_32
    require_nothing_lost(tmp_path, kind, names, overwrite=False)
    more = names_of_report([32, 48]) if kind == "results" else names_of_judgment(["32", "48"])
    require_nothing_lost(tmp_path, kind, more, overwrite=False)
    (tmp_path / "grid-48.png").write_text("mine")
    with pytest.raises(UserError) as caught:
        require_nothing_lost(tmp_path, kind, more, overwrite=False)
    assert str(caught.value) == (
        f"{tmp_path}/grid-48.png: exists already, and is of no report; choose another --output, or "
        "replace it with --overwrite"
    )
    require_nothing_lost(tmp_path, kind, more, overwrite=True)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sizes": 3, "styles": {}}', '{"styles": [3, {"name": []}]}']
)
def test_files_beside_unknown_numbers_are_of_no_report(tmp_path: Path, text: str) -> None:
    for name in ("results.json", "judge.json", "grid-32.png"):
        (tmp_path / name).write_text(text)
    for kind, names in (("results", OF_SIZE_32), ("judge", OF_STYLE_32)):
        with pytest.raises(UserError, match="is of no report"):
            require_nothing_lost(tmp_path, kind, names, overwrite=False)
