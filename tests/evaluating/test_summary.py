"""The arithmetic of summaries, on results made by hand."""

import copy
import json
import math

import pytest
from small_evaluation import curve, falling, photo, results_of, three_photos

from fast_style.evaluating.summary import nearest_rank, summarize


@pytest.mark.parametrize(
    ("values", "quartiles"),
    [
        ([5], [5, 5, 5]),
        ([1, 2], [1, 1, 2]),
        ([3, 1, 2], [1, 2, 3]),
        ([4, 3, 2, 1], [1, 2, 3]),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [3, 5, 8]),
    ],
)
def test_quartiles_are_nearest_ranks(values: list[float], quartiles: list[float]) -> None:
    assert [nearest_rank(values, share) for share in (0.25, 0.5, 0.75)] == quartiles


def test_summary_of_three_photos() -> None:
    summary = summarize(three_photos())["sizes"]["32"]
    assert summary["num_photos"] == 3
    assert summary["photo"]["total"] == {"mean": 20.0, "std": 0.0}
    assert summary["models"]["night"]["total"] == {"mean": 4.0, "std": 3.0}
    assert summary["models"]["night"]["content"] == {"mean": 2.0, "std": 1.5}
    assert summary["models"]["night"]["style"]["mean"] == pytest.approx(0.4)
    assert list(summary["baselines"]["box"]) == ["10", "12"]  # a mark, and the last iteration
    assert summary["baselines"]["box"]["10"]["total"]["mean"] == pytest.approx(20 / 11)
    assert summary["equals"]["night"]["box"] == {
        "median": 4,
        "lower": 2,
        "upper": None,
        "num_never": 1,
        "num_at_start": 0,
    }


def test_more_than_all_iterations_on_most_photos_is_none() -> None:
    photos = [photo(1.0, None), photo(1.0, None), photo(4.0, 4)]
    equals = summarize(results_of(photos))["sizes"]["32"]["equals"]["night"]["box"]
    assert (equals["lower"], equals["median"], equals["upper"]) == (4, None, None)


def test_a_single_photo_has_no_standard_deviation() -> None:
    summary = summarize(results_of([photo(4.0, 4)]))["sizes"]["32"]
    assert summary["models"]["night"]["total"] == {"mean": 4.0, "std": None}
    assert summary["baselines"]["clip"]["10"]["total"]["std"] is None


def test_a_number_that_is_not_finite_has_no_mean() -> None:
    summary = summarize(results_of([photo(math.nan, 4), photo(4.0, 4)]))["sizes"]["32"]
    assert summary["models"]["night"]["total"] == {"mean": None, "std": None}


def test_the_last_value_holds_where_lbfgs_ended_early() -> None:
    early, whole = photo(4.0, 4), photo(4.0, 4)
    early["baselines"]["box"] = curve(falling(20.0, 6))
    summary = summarize(results_of([early, whole]))["sizes"]["32"]
    assert summary["ended_early"] == {"box": 1, "clip": 0}
    expected = (20 / 6 + 20 / 13) / 2
    assert summary["baselines"]["box"]["12"]["total"]["mean"] == pytest.approx(expected)
    # 12 evaluations when it ended, 26 for all iterations, 2 seconds each
    assert summary["seconds"]["lbfgs"]["box"]["12"] == 2.0 * (12 + 26) / 2


@pytest.mark.parametrize(
    ("equals", "evaluations", "is_lower_bound"),
    [
        ([4, 2, 6], 10, False),
        ([4, 2, None], 10, False),  # whatever the third is, it is not in the middle
        ([4, None, None], 26, True),
        ([0, 0, 4], 0, False),
    ],
)
def test_speed_up_at_an_equal_objective(
    equals: list[int | None], evaluations: int, is_lower_bound: bool
) -> None:
    results = results_of([photo(4.0, equal) for equal in equals])
    factors = summarize(results)["sizes"]["32"]["speed_ups"]["night"]["box"]
    # 2 seconds an evaluation, half a second a forward pass
    assert factors == {"equal": {"factor": evaluations * 4.0, "is_lower_bound": is_lower_bound}}


def test_speed_up_after_a_hundred_iterations_and_more() -> None:
    long = photo(4.0, 4)
    long["baselines"] = {"box": curve(falling(20.0, 401))}
    summary = summarize(results_of([long], iterations=400))["sizes"]["32"]
    factors = summary["speed_ups"]["night"]["box"]
    assert list(factors) == ["100", "300", "equal"]
    assert factors["100"] == 202 * 2.0 / 0.5
    assert list(summary["baselines"]["box"]) == ["10", "20", "50", "100", "200", "300", "400"]


def test_summarizing_changes_nothing() -> None:
    results = three_photos()
    before = copy.deepcopy(results)
    summarize(results)
    assert json.dumps(results) == json.dumps(before)
