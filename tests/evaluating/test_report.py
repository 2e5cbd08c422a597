"""The summary's arithmetic by hand-made numbers, and that the report says them to anybody."""

import builtins
import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fast_style.core.errors import UserError
from fast_style.evaluating.evaluation import GridRow
from fast_style.evaluating.plots import require_plotting
from fast_style.evaluating.report import nearest_rank, summarize, write_report

ITERATIONS = 12
VARIANTS = ("box", "clip")


def terms(total: float) -> dict[str, float]:
    return {"total": total, "content": total / 2, "style": total / 10, "tv": 0.0}


def curve(totals: list[float]) -> dict[str, list[float]]:
    """A descent with two evaluations at the start and two for each iteration."""
    columns = {term: [terms(total)[term] for total in totals] for term in terms(0)}
    return columns | {"evaluations": [2 * index + 2 for index in range(len(totals))]}


def falling(start: float, count: int = ITERATIONS + 1) -> list[float]:
    """20, 10, 6.7, 5, 4, ... for 20."""
    return [start / (1 + index) for index in range(count)]


def photo(total: float, equals: int | None, start: float = 20.0) -> dict[str, Any]:
    return {
        "name": f"photo{total:g}.jpg",
        "enlarged": False,
        "photo": terms(start),
        "models": {"night": terms(total) | {"equals": dict.fromkeys(VARIANTS, equals)}},
        "baselines": {variant: curve(falling(start)) for variant in VARIANTS},
    }


def results_of(photos: list[dict[str, Any]], **others: Any) -> dict[str, Any]:
    names = list(photos[0]["models"])
    of_size = {
        "photos": photos,
        "seconds": {
            "forward_pass": dict.fromkeys(names, 0.5),
            "evaluation": dict.fromkeys(VARIANTS, 2.0),
        },
        "artifacts": {
            "photos": {"checkerboard": 0.125, "clipped": 0.01},
            "models": {
                name: {"checkerboard": 0.25, "border": math.nan, "clipped": 0.031, "blotches": 2.5}
                for name in names
            },
            "baselines": {
                "box": {"checkerboard": 0.375, "border": 1.125, "clipped": 0.25},
            },
        },
    }
    network = {"architecture": "vgg19", "label": "imagenet weights", "digest": "b" * 64}
    network |= {"preprocessing": "torchvision", "padding": "zeros", "pooling": "max"}
    loss: dict[str, Any] = {"normalization": "relative", "content_layers": {"relu3_3": 1.0}}
    loss |= {"style_layers": {"relu1_2": 0.5}, "content_weight": 1.0, "style_weight": 5.0}
    return {
        "format": 1,
        "objective": {
            "style": {"file": "stars.jpg", "width": 320, "height": 256, "digest": "a" * 64},
            "loss_network": network,
            "loss": loss | {"tv_weight": 1.0, "tv_exponent": 2.0},
        },
        "objective_digest": "c" * 64,
        "iterations": ITERATIONS,
        "variants": list(photos[0]["baselines"]),
        "models": [
            {
                "name": name,
                "file": "model.safetensors",
                "digest": "d" * 64,
                "agrees": {"style picture": True, "loss network": True, "loss": True},
                "label": "imagenet weights",
            }
            for name in names
        ],
        "sizes": {"32": of_size},
        "machine": {
            "device": "cpu",
            "threads": 2,
            "fast_style": "0.1",
            "python": "3.12",
            "torch": "2.11",
        },
    } | others


def three_photos() -> dict[str, Any]:
    return results_of([photo(4.0, 4), photo(1.0, None), photo(7.0, 2)])


def renamed(results: dict[str, Any], name: str) -> dict[str, Any]:
    text = json.dumps(results).replace('"night"', json.dumps(name))
    return json.loads(text)


def grid_of(results: dict[str, Any], size: int = 32) -> list[GridRow]:
    levels = np.full((size, size, 3), 128, np.uint8)
    captions = ["photo", "night", "L-BFGS, 4 iterations", "L-BFGS, 12 iterations"]
    return [
        GridRow(size, row["name"], [(caption, levels) for caption in captions])
        for row in results["sizes"]["32"]["photos"]
    ]


def page_of(folder: Path, results: dict[str, Any]) -> str:
    """What report.md says."""
    write_report(folder, results, [])
    return (folder / "report.md").read_text(encoding="utf-8")


def warnings_of(page: str) -> list[str]:
    """The points under *Read with care*."""
    return page.partition("## Read with care\n\n")[2].partition("\n\n")[0].split("\n")


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take a second, and many tests are about something else."""
    monkeypatch.setattr("fast_style.evaluating.report.draw_plots", lambda *_: iter(()))


# --- The summary --------------------------------------------------------------------------------


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


# --- Files --------------------------------------------------------------------------------------


def test_all_files_are_written_linked_and_twice_the_same(tmp_path: Path) -> None:
    results = three_photos()
    first = write_report(tmp_path / "a" / "b", results, grid_of(results))
    assert [path.name for path in first] == [
        "results.json",
        "objective-32.png",
        "objective-32.svg",
        "terms-32.png",
        "grid-32.png",
        "report.md",
    ]
    assert sorted(first) == sorted((tmp_path / "a" / "b").iterdir())
    links = re.findall(r"\]\(([^)]+)\)", first[-1].read_text(encoding="utf-8"))
    assert set(links) == {path.name for path in first[:-1]}
    second = write_report(tmp_path / "c", results, grid_of(results))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert b"<dc:date>" not in first[2].read_bytes()


@pytest.mark.usefixtures("no_plots")
def test_json_is_strict_and_holds_results_and_summary(tmp_path: Path) -> None:
    results = three_photos()
    results["sizes"]["32"]["photos"][0]["photo"]["tv"] = math.inf
    write_report(tmp_path, results, [])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert written["sizes"]["32"]["artifacts"]["models"]["night"]["border"] is None
    assert written["sizes"]["32"]["photos"][0]["photo"]["tv"] is None
    assert written["summary"]["sizes"]["32"]["models"]["night"]["total"]["mean"] == 4.0
    assert written["objective_digest"] == "c" * 64


def end_at_once(row: dict[str, Any]) -> None:
    row["baselines"]["box"] = curve([5.0])
    row["models"]["night"]["equals"]["box"] = None


@pytest.mark.parametrize(
    "change",
    [
        lambda photos: photos.pop() and photos.pop(),
        lambda photos: [row["baselines"].pop("box") for row in photos],
        lambda photos: list(map(end_at_once, photos)),
        lambda photos: [row["models"]["night"].update(total=math.nan) for row in photos],
        lambda photos: [
            row["models"].update({f"_{k}{'model' * 20}{k}": photo(4, 4)["models"]["night"]})
            for row in photos
            for k in range(8)
        ],
    ],
    ids=["one photo", "one variant", "ended at once", "not finite", "nine models"],
)
def test_all_kinds_of_results_are_drawn(
    tmp_path: Path, change: Callable[[list[dict[str, Any]]], Any]
) -> None:
    photos = three_photos()["sizes"]["32"]["photos"]
    change(photos)
    write_report(tmp_path, results_of(photos), [])
    with Image.open(tmp_path / "objective-32.png") as image:
        assert image.width == 1350
        levels = np.array(image.convert("RGB"))
    assert (levels[0] == 255).all()  # nothing is cut off
    assert (levels[:, -1] == 255).all()


def test_names_in_any_script_and_with_any_sign_are_drawn(tmp_path: Path) -> None:
    write_report(tmp_path, renamed(three_photos(), "$\\frac$ 星夜 _^{"), [])
    assert (tmp_path / "objective-32.svg").stat().st_size > 0


@pytest.mark.usefixtures("no_plots")
def test_long_captions_are_cut_to_their_picture(tmp_path: Path) -> None:
    rows = [GridRow(32, "m" * 300, [("photo", np.zeros((32, 32, 3), np.uint8))])]
    write_report(tmp_path, three_photos(), rows)
    with Image.open(tmp_path / "grid-32.png") as image:
        assert image.width == 192 + 2 * 8
        assert (np.array(image)[:, -8:] == 255).all()


def test_a_folder_that_cannot_be_made_is_an_error_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        write_report(tmp_path / "file" / "report", three_photos(), [])
    assert str(caught.value) == (
        f"{tmp_path / 'file' / 'report'}: cannot be written (Not a directory)"
    )
    assert caught.value.exit_code == 1


def test_a_full_disk_is_an_error_for_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fast_style.evaluating.report.atomic_write", full)
    with pytest.raises(UserError) as caught:
        write_report(tmp_path, three_photos(), [])
    assert str(caught.value) == (
        f"{tmp_path / 'results.json'}: cannot be written (No space left on device)"
    )


def test_without_matplotlib_the_numbers_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    message = "the report's plots need matplotlib; run pip install 'fast-style[evaluation]'"
    with pytest.raises(UserError) as caught:
        require_plotting()
    assert str(caught.value) == message
    with pytest.raises(UserError):
        write_report(tmp_path, three_photos(), [])
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


# --- The page -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_plots")
def test_the_page_says_the_numbers(tmp_path: Path) -> None:
    page = page_of(tmp_path, three_photos())
    assert (
        "- On 3 held-out photos at 32 px, night's objective after one forward pass, 4.00 ± 3.00, "
        "equals **4 (2 to >12)** iterations of L-BFGS within [0, 1] from the photo and "
        "**4 (2 to >12)** iterations of clipped L-BFGS from white noise. To get that far, L-BFGS "
        "within [0, 1] from the photo takes 40 times as long.\n"
    ) in page
    assert "| **night** | 4.00 ± 3.00 | 2.00 ± 1.50 | 0.400 ± 0.300 | 0 ± 0 |" in page
    assert "| L-BFGS within [0, 1] from the photo: 10 iterations | 1.82 ± 0.00 |" in page
    assert "| night | clipped L-BFGS from white noise | 4 | 2 to >12 | 1 photo | 0 photos |" in page
    assert "| night | clipped L-BFGS from white noise | 4 | 40 |" in page
    assert "| **night** | 0.25 | – | 3.10% | 2.50 |" in page
    assert "| L-BFGS within [0, 1] from the photo, its last | 0.38 | 1.12 | 25.00% | – |" in page
    assert "| the photos as they are | 0.12 | – | 1.00% | – |" in page
    assert "- 3 photos at 32 px: a spread of few photos.\n" in page
    assert "1 × content + 5 × style + 1 × total variation (exponent 2)" in page
    assert "- style layers: relu1_2 (weight 0.5)\n" in page


@pytest.mark.usefixtures("no_plots")
def test_never_equal_is_more_than_all_iterations(tmp_path: Path) -> None:
    page = page_of(tmp_path, results_of([photo(1.0, None)] * 3))
    assert "equals **>12** iterations of L-BFGS within [0, 1] from the photo" in page
    assert "takes >104 times as long." in page


@pytest.mark.usefixtures("no_plots")
def test_no_better_than_the_start_is_said(tmp_path: Path) -> None:
    page = page_of(tmp_path, results_of([photo(30.0, 0)] * 3))
    assert "equals **0** iterations" in page
    assert "no better than where L-BFGS within [0, 1] from the photo starts." in page
    assert "- night's pictures at 32 px are no better than the photos as they are" in page


@pytest.mark.usefixtures("no_plots")
def test_the_page_warns_of_what_distorts_the_answer(tmp_path: Path) -> None:
    photos = [photo(4.0, 4) for _ in range(10)]
    photos[3]["enlarged"] = True
    photos[4]["baselines"]["clip"] = curve(falling(20.0, 6))
    results = results_of(photos)
    results["models"][0]["agrees"] |= {"style picture": False, "loss": False}
    results["objective"]["loss_network"]["label"] = "RANDOM weights"
    page = page_of(tmp_path, results)
    assert warnings_of(page) == [
        "- The loss network has RANDOM weights: the objective says little about what people see, "
        "and is not comparable with that of a trained loss network.",
        "- night was trained for another objective than the one here (another style picture and "
        "another loss), so it cannot be expected to make this one small.",
        "- 1 of the 10 photos at 32 px had to be enlarged: blurred photos are easier, for the "
        "network and for L-BFGS.",
        "- At 32 px, clipped L-BFGS from white noise ended by itself on 1 photo before all 12 "
        "iterations; its last value stands for the later ones.",
    ]


@pytest.mark.usefixtures("no_plots")
def test_the_page_says_that_compact_weights_approximate(tmp_path: Path) -> None:
    results = results_of([photo(4.0, 4)] * 10)
    results["objective"]["loss_network"]["label"] = "COMPACT weights"
    results["models"][0]["label"] = "COMPACT weights"
    assert warnings_of(page_of(tmp_path, results)) == [
        "- The objective is measured with vgg19, COMPACT weights, which approximate the full "
        "VGG-19; to measure under that one, give --weights FILE, or --weights imagenet, which "
        "keeps it in torch's cache (548 MB)."
    ]


@pytest.mark.usefixtures("no_plots")
def test_the_page_says_that_a_compact_model_is_judged_by_another_network(tmp_path: Path) -> None:
    results = results_of([photo(4.0, 4)] * 10)
    results["models"][0]["label"] = "COMPACT weights"
    results["models"][0]["agrees"] |= {"loss network": False}
    compact = (
        "- night was trained with COMPACT weights, which approximate the full VGG-19; here it is "
        "judged with imagenet weights."
    )
    assert warnings_of(page_of(tmp_path, results)) == [compact]
    results["models"][0]["agrees"] |= {"loss": False}
    assert warnings_of(page_of(tmp_path, results)) == [
        compact,
        "- night was trained for another objective than the one here (another loss), so it cannot "
        "be expected to make this one small.",
    ]
    # The compact weights of another version of the package, which are another network.
    results["models"][0]["agrees"] |= {"loss": True}
    results["objective"]["loss_network"]["label"] = "COMPACT weights"
    assert warnings_of(page_of(tmp_path, results))[1:] == [
        "- night was trained for another objective than the one here (another loss network), so "
        "it cannot be expected to make this one small."
    ]


@pytest.mark.usefixtures("no_plots")
def test_without_reasons_there_are_no_warnings(tmp_path: Path) -> None:
    assert "Read with care" not in page_of(tmp_path, results_of([photo(4.0, 4)] * 10))


@pytest.mark.usefixtures("no_plots")
def test_seconds_are_told_of_gpus_only(tmp_path: Path) -> None:
    results = three_photos()
    assert "one forward pass | " not in page_of(tmp_path, results)
    results["machine"]["device"] = "NVIDIA H200"
    page = page_of(tmp_path, results)
    assert "In seconds, on NVIDIA H200:" in page
    assert "| night, one forward pass | 0.500 |" in page
    assert "| clipped L-BFGS from white noise: 10 iterations | 44.0 |" in page


@pytest.mark.usefixtures("no_plots")
def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, renamed(three_photos(), "a|b_c_\n<b>$x$"))
    assert r"| **a\|b_c\_\\n\<b\>\$x\$** | 4.00 ± 3.00 |" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert rows
    assert all(row.endswith("|") for row in rows)


@pytest.mark.usefixtures("no_plots")
def test_absolute_paths_are_cut_down_to_names(tmp_path: Path) -> None:
    command = "fast-style evaluate /home/me/a.safetensors --photos photos/val --style='/x/my y.png'"
    page = page_of(tmp_path, three_photos() | {"command": command})
    expected = "fast-style evaluate a.safetensors --photos photos/val '--style=my y.png'"
    assert f"\n\n    {expected}\n" in page
    assert "/home" not in page + (tmp_path / "results.json").read_text()


@pytest.mark.usefixtures("no_plots")
def test_results_without_artifacts_and_command_are_fine(tmp_path: Path) -> None:
    results = three_photos()
    del results["sizes"]["32"]["artifacts"]
    page = page_of(tmp_path, results)
    assert "Faults" not in page
    assert "measure it again" not in page
