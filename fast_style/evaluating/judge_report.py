"""The files of the judge's report: ``judge.md``, a grid for each style, ``judge.json``.

Nothing is measured here, and no picture is stylized.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fast_style.core.words import count, plural
from fast_style.evaluating.evaluation import GridRow, average
from fast_style.evaluating.pages import (
    command_lines,
    machine_line,
    make_folder,
    markdown,
    strict_json,
    table,
    without_folders,
    write_file,
    write_page,
)
from fast_style.evaluating.plots import draw_grid
from fast_style.evaluating.summary import nearest_rank

# By measure: its column, and its decimals.
_COLUMNS = {
    "total": ("objective", 2),
    "content": ("content", 2),
    "style": ("style", 3),
    "second_opinion": ("second opinion", 3),
    "blots": ("blots, %", 2),
    "weave_2": ("weave 2", 2),
    "weave_4": ("weave 4", 2),
    "repeats": ("repeats", 2),
    "halos": ("halos", 4),
    "border": ("border", 2),
    "clipped": ("clipped, %", 2),
    "shift": ("shift", 3),
    "zoom": ("zoom", 3),
    "noise_gain": ("noise gain", 2),
}
_PERCENT = ("blots", "clipped")


def write_judge_report(
    folder: Path,
    results: Mapping[str, Any],
    grids: Mapping[str, Sequence[GridRow]],
    say: Callable[[str], object] = lambda line: None,
) -> list[Path]:
    """Write all files of the judge's report; returns their paths, ``judge.md`` last.

    Args:
        folder: created if it does not exist; older files of the same names are replaced.
        results: of `judge.Judge.run`. A `command` in it is shown as the way to repeat the report,
            without the folders of absolute paths.
        grids: the rows that `run` returned with the results.
        say: prints a line for the user: that a page was changed, and is kept.

    Raises:
        UserError: the folder cannot be written to (exit code 1).
    """
    results = dict(results)
    if results.get("command"):
        results["command"] = without_folders(results["command"])
    make_folder(folder)
    summary = summarize_judgment(results)
    paths = [write_file(folder / "judge.json", strict_json(results | {"summary": summary}))]
    for name, rows in grids.items():
        paths.append(write_file(folder / f"grid-{name}.png", draw_grid(rows)))
    paths.append(write_page(folder / "judge.md", _page(results, summary), say))
    return paths


def summarize_judgment(results: Mapping[str, Any]) -> dict[str, Any]:
    """Averages over the photos of each style, and the median of the models' iterations.

    styles: by name, ``photo``, ``models`` and ``lbfgs``: the `average` of each measure. A model's
        `equals` is a nearest rank; None stands for more than all iterations, and 0 for a model that
        is no better than noise.
    equals: the median over all models; None likewise.

    Args:
        results: of `judge.Judge.run`; not changed.
    """
    styles = {style["name"]: _summarize_style(style["photos"]) for style in results["styles"]}
    equals = [
        math.inf if model["equals"] is None else model["equals"]
        for style in styles.values()
        for model in style["models"].values()
    ]
    median = statistics.median(equals)
    return {"styles": styles, "equals": None if math.isinf(median) else median}


def _summarize_style(photos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def of_kind(kind: str) -> dict[str, Any]:
        return {
            name: _averages([photo[kind][name] for photo in photos]) for name in photos[0][kind]
        }

    return {
        "photo": _averages([photo["photo"] for photo in photos]),
        "models": of_kind("models"),
        "lbfgs": of_kind("lbfgs"),
    }


def _averages(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for measure in rows[0]:
        values = [row[measure] for row in rows]
        if measure == "equals":
            rank = nearest_rank([math.inf if value is None else value for value in values], 0.5)
            found[measure] = None if math.isinf(rank) else int(rank)
        else:
            found[measure] = average(measure, values)
    return found


# --- The page -----------------------------------------------------------------------------------


def _page(results: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[str]:
    iterations = results["iterations"]
    names = ", ".join(markdown(model["name"]) for model in results["models"])
    yield from (f"# The judge on {names}", "")
    for style, of_style in summary["styles"].items():
        for name, measures in of_style["models"].items():
            equal = _equals(measures["equals"], iterations)
            yield (
                f"- {markdown(name)}, in the style of {markdown(style)}: one forward pass equals "
                f"**{equal}** {plural(measures['equals'], 'iteration')} of L-BFGS."
            )
    if len(results["models"]) > 1:
        equal = _equals(summary["equals"], iterations)
        yield (
            f"- The median over {len(results['models'])} models: **{equal}** "
            f"{plural(summary['equals'], 'iteration')}."
        )
    yield ""
    num_photos = len(results["styles"][0]["photos"])
    yield (
        f"Medians over {count(num_photos, 'photo')}, but means of blots, halos and clipped values. "
        "*Equals*: the first iteration after which L-BFGS's picture has an objective no higher "
        "than the model's; more is better. L-BFGS is that of Johnson et al. 2016, section 4.1: "
        "from white noise, without a line search, clipped after each update. *Second opinion*: "
        "sliced Wasserstein distance to the style picture on SqueezeNet's features; lower is "
        "better. Blots, weaves, repeats and halos are faults; photos have next to none. *Shift*, "
        "*zoom*, *noise gain*: how much the picture changes when the photo is shifted, enlarged or "
        "gets noise; lower flickers less in a video."
    )
    yield ""
    for style in results["styles"]:
        yield from _style_section(style, summary["styles"][style["name"]], iterations)
    yield from _setup_section(results)


def _style_section(
    style: Mapping[str, Any], summary: Mapping[str, Any], iterations: int
) -> Iterator[str]:
    measured = [measure for measure in _COLUMNS if measure in summary["photo"]]

    def row(title: str, measures: Mapping[str, Any]) -> list[str]:
        equal = _equals(measures["equals"], iterations) if "equals" in measures else ""
        return [title, equal, *(_cell(measure, measures.get(measure)) for measure in measured)]

    rows = [row("the photos as they are", summary["photo"])]
    rows += [row(f"**{markdown(name)}**", found) for name, found in summary["models"].items()]
    rows += [
        row(f"L-BFGS, {number} iterations", found) for number, found in summary["lbfgs"].items()
    ]
    name = style["name"]
    yield from (f"## {markdown(name)}", "")
    yield from table(["", "equals", *(_COLUMNS[measure][0] for measure in measured)], rows)
    yield from (f"![Photos, models and L-BFGS]({f'grid-{name}.png'.replace(' ', '%20')})", "")


def _equals(value: float | None, iterations: int) -> str:
    return f">{iterations}" if value is None else f"{value:g}"


def _cell(measure: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * (100 if measure in _PERCENT else 1):.{_COLUMNS[measure][1]}f}"


def _setup_section(results: Mapping[str, Any]) -> Iterator[str]:
    network = results["styles"][0]["objective"]["loss_network"]
    yield from ("## Setup", "")
    yield "- objective: configs/judge.yaml"
    yield (
        f"- loss network: {network['architecture']}, {markdown(network['label'])}, digest "
        f"`{network['digest'][:12]}`"
    )
    for model in results["models"]:
        yield (
            f"- {markdown(model['name'])}: {markdown(model['file'])}, sha256 "
            f"`{model['digest'][:12]}`"
        )
    yield machine_line(results["machine"])
    yield from ("", "[judge.json](judge.json) has all numbers, photo by photo.")
    yield from command_lines(results)
