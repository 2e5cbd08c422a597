"""The files of a report, and what its page tells."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from small_evaluation import curve, falling, grid_of, photo, renamed, results_of, three_photos

from fast_style.core.errors import UserError
from fast_style.evaluating import pages, report
from fast_style.evaluating.report import write_report
from fast_style.pictures.folders import why_unreadable
from fast_style.pictures.reading import ResultError


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take a second, and many tests are about something else."""
    monkeypatch.setattr(report, "draw_plots", lambda *_: iter(()))


def page_of(folder: Path, results: dict[str, Any]) -> str:
    """The text of report.md."""
    write_report(folder, results, [])
    return (folder / "report.md").read_text(encoding="utf-8")


def cautions_of(page: str) -> list[str]:
    """The points under *Read with care*."""
    return page.partition("## Read with care\n\n")[2].partition("\n\n")[0].splitlines()


# --- Files --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_files_are_written_linked_and_twice_the_same(tmp_path: Path) -> None:
    results = three_photos()
    first = write_report(tmp_path / "a" / "b", results, grid_of(results))
    assert [path.name for path in first] == [
        "results.json",
        "objective-32.png",
        "terms-32.png",
        "grid-32.png",
        "report.md",
    ]
    assert sorted(first) == sorted((tmp_path / "a" / "b").iterdir())
    links = re.findall(r"\]\(([^)]+)\)", first[-1].read_text(encoding="utf-8"))
    assert set(links) == {path.name for path in first[:-1]}
    pictures = [path for path in first if path.suffix == ".png"]
    assert [why_unreadable(path, takes_results=True) for path in pictures] == [None] * 3
    for path in pictures:
        assert isinstance(why_unreadable(path, takes_results=False), ResultError)
    second = write_report(tmp_path / "c", results, grid_of(results))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


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


@pytest.mark.usefixtures("no_plots")
def test_page_that_somebody_changed_is_kept_and_others_are_replaced(tmp_path: Path) -> None:
    lines: list[str] = []
    for _ in range(2):
        write_report(tmp_path, three_photos(), [], lines.append)
    page, kept = tmp_path / "report.md", tmp_path / "report-2.md"
    assert (lines, kept.exists()) == ([], False)
    written = page.read_bytes()
    page.write_bytes(written.replace(b"\n", b"\r\n"))  # as a checkout on Windows
    write_report(tmp_path, three_photos(), [], lines.append)
    assert (lines, page.read_bytes()) == ([], written)
    for changed, name in ((b"Mine. " + written, "report-2.md"), (b"", "report-3.md")):
        page.write_bytes(changed)
        write_report(tmp_path, three_photos(), [], lines.append)
        assert (page.read_bytes(), (tmp_path / name).read_bytes()) == (written, changed)
        assert str(page) in lines[-1]
        assert name in lines[-1]
    assert len(lines) == 2


def test_a_report_that_cannot_be_written_is_an_error_for_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        write_report(tmp_path / "file" / "report", three_photos(), [])
    assert str(caught.value) == (
        f"{tmp_path}/file/report: cannot be written (Not a directory); choose another file or "
        "folder"
    )
    assert caught.value.exit_code == 1

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pages, "atomic_write", full)
    with pytest.raises(UserError) as caught:
        write_report(tmp_path, three_photos(), [])
    assert str(caught.value) == (
        f"{tmp_path}/results.json: cannot be written (No space left on device); free some room on "
        "its disk"
    )


def test_when_plots_fail_the_numbers_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise UserError("no matplotlib")

    monkeypatch.setattr(report, "require_plotting", fail)
    with pytest.raises(UserError):
        write_report(tmp_path, three_photos(), [])
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


# --- The page -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "answer"),
    [
        (
            three_photos(),
            "- 3 photos at 32 px: one forward pass of night equals "
            "**4 (2 to >12)** iterations of L-BFGS within [0, 1] from the photo "
            "(40 times as long) and **4 (2 to >12)** iterations of clipped L-BFGS from white noise "
            "(40 times as long).",
        ),
        (
            results_of([photo(1.0, None)]),
            "- 1 photo at 32 px: one forward pass of night equals "
            "**>12** iterations of L-BFGS within [0, 1] from the photo (>104 times as long) and "
            "**>12** iterations of clipped L-BFGS from white noise (>104 times as long).",
        ),
        (
            results_of([photo(30.0, 0)]),
            "- 1 photo at 32 px: one forward pass of night equals "
            "**0** iterations of L-BFGS within [0, 1] from the photo (no better than its start on "
            "half of the photos or more) and **0** iterations of clipped L-BFGS from white noise "
            "(no better than its start on half of the photos or more).",
        ),
    ],
    ids=["quartiles", "never", "at the start"],
)
@pytest.mark.usefixtures("no_plots")
def test_the_page_begins_with_the_answer(
    tmp_path: Path, results: dict[str, Any], answer: str
) -> None:
    lines = page_of(tmp_path, results).splitlines()
    assert lines[:4] == ["# Evaluation of night", "", answer, ""]


@pytest.mark.usefixtures("no_plots")
def test_the_page_has_the_numbers(tmp_path: Path) -> None:
    page = page_of(tmp_path, three_photos())
    for row in (
        "| the photos as they are | 20.0 ± 0.0 | 10.0 ± 0.0 | 2.00 ± 0.00 | 0 ± 0 | – |",
        "| **night** | 4.00 ± 3.00 | 2.00 ± 1.50 | 0.400 ± 0.300 | 0 ± 0 | 1 |",
        "| clipped L-BFGS from white noise: 10 iterations | 1.82 ± 0.00 | 0.909 ± 0.000 | "
        "0.182 ± 0.000 | 0 ± 0 | 88 |",
        "| *normal* | below 0.5 | below 0.5 | below 0.15 | below 0.001 | below 0.1% | about 1 | "
        "below 5% | below 0.02 | below 0.01 | – | below 1 | 1.5 to 4 |",
        "| 32 px: the photos as they are | 0.00 | 0.12 | 0.06 | 0.0010 | 0.00% | – | 1.00% | "
        "0.000 | 0.000 | 0.000 | 1.00 | – |",
        "| 32 px: **night** | 0.75 | 0.25 | 0.21 | 0.0033 | 0.42% | – | 3.10% | 0.053 | 0.004 | "
        "0.100 | 1.25 | 2.50 |",
        "| 32 px: L-BFGS within [0, 1] from the photo, last | 0.00 | 0.38 | 0.08 | 0.0013 | "
        "0.01% | 1.12 | 25.00% | – | – | – | – | – |",
    ):
        assert f"{row}\n" in page
    assert "1 × content + 5 × style + 1 × total variation (exponent 2)" in page
    assert "- style layers: relu1_2 (weight 0.5)\n" in page


@pytest.mark.usefixtures("no_plots")
def test_the_page_says_that_whole_distributions_are_compared(tmp_path: Path) -> None:
    results = three_photos()
    results["objective"]["loss"]["style_distance"] = "sliced"
    assert "- style layers: relu1_2 (weight 0.5); whole distributions" in page_of(tmp_path, results)


@pytest.mark.usefixtures("no_plots")
def test_the_page_warns_of_what_distorts_the_answer(tmp_path: Path) -> None:
    photos = [photo(4.0, 4) for _ in range(9)]
    photos[3]["enlarged"] = True
    photos[4]["baselines"]["clip"] = curve(falling(20.0, 6))
    results = results_of(photos)
    results["models"][0]["agrees"] |= {"style picture": False, "loss": False}
    results["objective"]["loss_network"]["label"] = "RANDOM weights"
    assert cautions_of(page_of(tmp_path, results)) == [
        "- The loss network has RANDOM weights: the objective says little about what people see, "
        "and cannot be compared with that of a trained loss network.",
        "- night was trained for another objective (another style picture and another loss), so it "
        "cannot be expected to lower this one.",
        "- 1 of the 9 photos at 32 px had to be enlarged: blurred photos are easier, for the "
        "network and for L-BFGS.",
        "- 9 photos at 32 px: too few for reliable quartiles.",
        "- At 32 px, clipped L-BFGS from white noise converged before iteration 12 on 1 photo; its "
        "last value stands for the later iterations.",
    ]


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    ("total", "caution"),
    [
        (30.0, "have no lower objective than the photos themselves"),
        (math.nan, "is not finite: it is broken"),
    ],
)
def test_the_page_warns_of_models_that_stylize_nothing(
    tmp_path: Path, total: float, caution: str
) -> None:
    (line,) = cautions_of(page_of(tmp_path, results_of([photo(total, 0)] * 10)))
    assert line.startswith("- night's ")
    assert caution in line


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    ("trained_with", "measured_with", "differing", "words"),
    [
        ("COMPACT weights", "COMPACT weights", [], [["approximate the full VGG-16", "--weights"]]),
        (
            "COMPACT weights",
            "imagenet weights",
            ["loss network"],
            [["approximate the full VGG-16", "measured with imagenet weights"]],
        ),
        (
            "COMPACT weights",
            "imagenet weights",
            ["loss network", "loss"],
            [["measured with imagenet weights"], ["(another loss)"]],
        ),
        # The compact weights of another version of the package are another network.
        (
            "COMPACT weights",
            "COMPACT weights",
            ["loss network"],
            [["approximate the full VGG-16"], ["(another loss network)"]],
        ),
        ("imagenet weights", "imagenet weights", [], []),
    ],
)
def test_the_page_warns_of_compact_weights(
    tmp_path: Path,
    trained_with: str,
    measured_with: str,
    differing: list[str],
    words: list[list[str]],
) -> None:
    results = results_of([photo(4.0, 4)] * 10)
    results["objective"]["loss_network"]["label"] = measured_with
    results["models"][0]["label"] = trained_with
    results["models"][0]["agrees"] |= dict.fromkeys(differing, False)
    page = page_of(tmp_path, results)
    cautions = cautions_of(page)
    assert ("Read with care" in page) == bool(words)
    for caution, expected in zip(cautions, words, strict=True):
        assert all(word in caution for word in expected)


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
    assert "Artifacts" not in page
    assert "repeat it" not in page
