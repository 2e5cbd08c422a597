"""Claims about `judge_report`: medians of a judgment, and the page that people read."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fast_style.evaluating.evaluation import GridRow
from fast_style.evaluating.judge_report import summarize_judgment, write_judge_report


def measures(total: float, **others: float | None) -> dict[str, Any]:
    found = {"total": total, "content": total / 2, "style": total / 10, "tv": 0.0}
    found |= {"blots": 0.001 * total, "weave_2": 0.1, "weave_4": 2.5, "border": math.nan}
    return found | {"clipped": 0.02} | others


def photo(name: str, equals: dict[str, int | None]) -> dict[str, Any]:
    return {
        "name": name,
        "enlarged": False,
        "photo": measures(9.0),
        "models": {
            model: measures(3.0 + index, equals=iterations)
            for index, (model, iterations) in enumerate(equals.items())
        },
        "lbfgs": {"20": measures(4.0), "100": measures(1.0)},
        "objective_of_lbfgs": [9.0, 4.0, 1.0],
    }


def results_of(styles: dict[str, list[dict[str, Any]]], **others: Any) -> dict[str, Any]:
    network = {"architecture": "vgg16", "label": "imagenet_features weights", "digest": "b" * 64}
    names = [name for photos in styles.values() for name in photos[0]["models"]]
    return {
        "format": 1,
        "iterations": 100,
        "second_opinion": False,
        "models": [
            {"name": name, "file": "model.safetensors", "digest": "d" * 64} for name in names
        ],
        "styles": [
            {
                "name": name,
                "objective": {"loss_network": network},
                "objective_digest": "c" * 64,
                "photos": photos,
            }
            for name, photos in styles.items()
        ],
        "machine": {
            "device": "cpu",
            "threads": 2,
            "fast_style": "0.1",
            "python": "3.12",
            "torch": "2.11",
        },
    } | others


def two_styles() -> dict[str, Any]:
    return results_of(
        {
            "wave": [photo(f"{number}.jpg", {"a": number}) for number in (10, 30, 20)],
            "night": [photo("1.jpg", {"b": None, "c": 50}), photo("2.jpg", {"b": 7, "c": 50})],
        }
    )


def page_of(results: dict[str, Any], folder: Path) -> str:
    write_judge_report(folder, results, {})
    return (folder / "judge.md").read_text()


# --- Medians ------------------------------------------------------------------------------------


def test_equals_of_a_model_is_the_median_photo() -> None:
    styles = summarize_judgment(two_styles())["styles"]
    assert styles["wave"]["models"]["a"]["equals"] == 20


def test_photos_that_lbfgs_never_reaches_count_as_more_than_all() -> None:
    never = [photo(str(number), {"a": None}) for number in range(3)] + [photo("3", {"a": 5})]
    summary = summarize_judgment(results_of({"wave": never}))
    assert summary["styles"]["wave"]["models"]["a"]["equals"] is None
    assert summary["equals"] is None


def test_equals_of_all_models_is_the_median_of_their_medians() -> None:
    # a: 20, b: 7 (the lower of 7 and never), c: 50
    assert summarize_judgment(two_styles())["equals"] == 20


def test_measures_are_medians_without_those_that_are_not_finite() -> None:
    photos = [photo("1", {"a": 1}), photo("2", {"a": 1}), photo("3", {"a": 1})]
    for value, one in zip((1.0, math.nan, 3.0), photos, strict=True):
        one["models"]["a"]["border"] = value
    found = summarize_judgment(results_of({"wave": photos}))["styles"]["wave"]["models"]["a"]
    assert found["border"] == 2.0
    assert summarize_judgment(two_styles())["styles"]["wave"]["photo"]["border"] is None


# --- The page -----------------------------------------------------------------------------------


def test_the_page_begins_with_the_answers(tmp_path: Path) -> None:
    lines = page_of(two_styles(), tmp_path).splitlines()
    assert lines[0] == "# The judge on a, b, c"
    assert lines[2:6] == [
        "- a, in the style of wave: one forward pass equals **20** iterations of L-BFGS.",
        "- b, in the style of night: one forward pass equals **7** iterations of L-BFGS.",
        "- c, in the style of night: one forward pass equals **50** iterations of L-BFGS.",
        "- The median over 3 models: **20** iterations.",
    ]


def test_a_table_has_a_row_for_each_picture(tmp_path: Path) -> None:
    page = page_of(two_styles(), tmp_path)
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows[0] == (
        "|  | equals | objective | content | style | blots, % | weave 2 | weave 4 | border | "
        "clipped, % |"
    )
    assert rows[3] == "| **a** | 20 | 3.00 | 1.50 | 0.300 | 0.30 | 0.10 | 2.50 | – | 2.00 |"
    assert rows[4].startswith("| L-BFGS, 20 iterations |  | 4.00 |")


def test_the_second_opinion_has_a_column_where_it_was_measured(tmp_path: Path) -> None:
    results = two_styles()
    for style in results["styles"]:
        for one in style["photos"]:
            one["photo"]["second_opinion"] = 0.75
    assert "| second opinion |" in page_of(results, tmp_path)


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    results = results_of({"a b": [photo("1", {"x|y*": 3})]})
    write_judge_report(tmp_path, results, {"a b": [GridRow(8, "1", [])]})
    page = (tmp_path / "judge.md").read_text()
    assert r"**x\|y\***" in page
    assert "](grid-a%20b.png)" in page


def test_all_files_are_written_and_their_numbers_are_standard_json(tmp_path: Path) -> None:
    levels = np.full((8, 8, 3), 128, np.uint8)
    grids = {"wave": [GridRow(8, "1.jpg", [("photo", levels)])]}
    paths = write_judge_report(tmp_path / "new", two_styles(), grids)
    assert [path.name for path in paths] == ["judge.json", "grid-wave.png", "judge.md"]
    saved = json.loads((tmp_path / "new" / "judge.json").read_text())
    assert saved["summary"]["equals"] == 20
    assert saved["styles"][0]["photos"][0]["photo"]["border"] is None


@pytest.mark.parametrize("command", ["fast-style evaluate /home/me/a.safetensors --judge"])
def test_the_command_is_repeated_without_private_folders(tmp_path: Path, command: str) -> None:
    page = page_of(two_styles() | {"command": command}, tmp_path)
    assert "    fast-style evaluate a.safetensors --judge" in page
    assert "/home/me" not in page
