"""Plots of all kinds of results, and grids."""

import builtins
import math
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_evaluation import ITERATIONS, curve, photo, renamed, results_of, three_photos

from fast_style.core.errors import UserError
from fast_style.evaluating.evaluation import GridRow
from fast_style.evaluating.plots import draw_grid, draw_plots, require_plotting

Photos = list[dict[str, Any]]


def draw(results: dict[str, Any]) -> dict[str, bytes]:
    return dict(draw_plots("32", results["sizes"]["32"], ITERATIONS))


def only_one(photos: Photos) -> None:
    del photos[1:]


def without_box(photos: Photos) -> None:
    for row in photos:
        del row["baselines"]["box"]


def converged_at_once(photos: Photos) -> None:
    for row in photos:
        row["baselines"]["box"] = curve([5.0])
        row["models"]["night"]["equals"]["box"] = None


def not_finite(photos: Photos) -> None:
    for row in photos:
        row["models"]["night"]["total"] = math.nan


def nine_models(photos: Photos) -> None:
    for row in photos:
        for number in range(8):
            name = f"_{number}{'model' * 20}{number}"
            row["models"][name] = photo(4, 4)["models"]["night"]


@pytest.mark.parametrize(
    "changes",
    [
        [only_one, converged_at_once],
        [without_box, not_finite, nine_models],
        pytest.param([only_one], marks=pytest.mark.slow),
        pytest.param([without_box], marks=pytest.mark.slow),
        pytest.param([converged_at_once], marks=pytest.mark.slow),
        pytest.param([not_finite], marks=pytest.mark.slow),
        pytest.param([nine_models], marks=pytest.mark.slow),
    ],
    ids=lambda changes: ", ".join(change.__name__ for change in changes),
)
def test_all_kinds_of_results_are_drawn(changes: list[Callable[[Photos], None]]) -> None:
    photos = three_photos()["sizes"]["32"]["photos"]
    for change in changes:
        change(photos)
    plots = draw(results_of(photos))
    assert list(plots) == ["objective-32.png", "terms-32.png"]
    with Image.open(BytesIO(plots["objective-32.png"])) as image:
        assert image.width == 1350
        levels = np.array(image.convert("RGB"))
    assert (levels[0] == 255).all()  # nothing is cut off
    assert (levels[:, -1] == 255).all()


@pytest.mark.slow
def test_names_in_any_script_and_with_any_sign_are_drawn() -> None:
    draw(renamed(three_photos(), "$\\frac$ 星夜 _^{"))  # a missing letter would be a warning


def test_long_captions_are_cut_to_their_picture() -> None:
    rows = [GridRow(32, "m" * 300, [("photo", np.zeros((32, 32, 3), np.uint8))])]
    with Image.open(BytesIO(draw_grid(rows))) as image:
        assert image.width == 192 + 2 * 8
        assert (np.array(image)[:, -8:] == 255).all()


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError) as caught:
        require_plotting()
    assert str(caught.value) == (
        "the report's plots need matplotlib; run pip install 'fast-style[evaluation]'"
    )
