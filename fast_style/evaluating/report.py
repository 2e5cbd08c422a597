"""The files of a report: ``report.md``, plots and grids for people, ``results.json`` for programs.

Nothing is measured here, and no picture is stylized.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fast_style.core.words import count, plural
from fast_style.evaluating.evaluation import TERMS, GridRow
from fast_style.evaluating.objective import COMPACT_APPROXIMATES
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
from fast_style.evaluating.plan import VARIANT_TITLES
from fast_style.evaluating.plots import draw_grid, draw_plots, require_plotting
from fast_style.evaluating.summary import summarize

# With fewer, a quartile is hardly more than a single photo.
_FEW_PHOTOS = 10

_SLICED = "; whole distributions of their features (loss.style_distance: sliced)"


def write_report(
    folder: Path,
    results: Mapping[str, Any],
    grid: Sequence[GridRow],
    say: Callable[[str], object] = lambda line: None,
) -> list[Path]:
    """Write all files of the report; returns their paths, ``report.md`` last.

    ``results.json`` is written first, so that no number is lost when a plot fails.

    Args:
        folder: created if it does not exist; older files of the same names are replaced.
        results: of `evaluation.evaluate`. A `command` in it is shown as the way to repeat the
            report, without the folders of absolute paths.
        grid: the rows that `evaluate` returned with the results.
        say: prints a line for the user: that a page was changed, and is kept.

    Raises:
        UserError: matplotlib is not installed, or the folder cannot be written to (exit code 1).
    """
    results = dict(results)
    if results.get("command"):
        results["command"] = without_folders(results["command"])
    summary = summarize(results)
    make_folder(folder)
    paths = [write_file(folder / "results.json", strict_json(results | {"summary": summary}))]
    require_plotting()
    for size, of_size in results["sizes"].items():
        for name, encoded in draw_plots(size, of_size, results["iterations"]):
            paths.append(write_file(folder / name, encoded))
        rows = [row for row in grid if row.size == int(size)]
        if rows:
            paths.append(write_file(folder / f"grid-{size}.png", draw_grid(rows)))
    page = _page(results, summary["sizes"], {path.name for path in paths})
    paths.append(write_page(folder / "report.md", page, say))
    return paths


# --- The page -----------------------------------------------------------------------------------


def _page(
    results: Mapping[str, Any], summaries: Mapping[str, Any], pictures: set[str]
) -> Iterator[str]:
    names = ", ".join(markdown(model["name"]) for model in results["models"])
    yield from (f"# Evaluation of {names}", "")
    for size, summary in summaries.items():
        for name in summary["models"]:
            yield f"- {_answer(name, size, summary, results['iterations'])}"
    yield ""
    yield (
        "*Equals*: the first iteration after which L-BFGS's picture has an objective no higher "
        "than the network's; the median over the photos, with the lower and the upper quartile. "
        "More iterations are better. Johnson et al. (2016, figure 5) report 50 to 100 of clipped "
        "L-BFGS, with another objective and other photos."
    )
    yield ""
    cautions = [*_cautions_about_models(results), *_cautions_about_photos(results, summaries)]
    if cautions:
        yield from ("## Read with care", "", *(f"- {caution}" for caution in cautions), "")
    for size, summary in summaries.items():
        yield from _size_section(size, summary, pictures)
    yield from _artifacts_section(results["sizes"])
    yield from _setup_section(results)


def _answer(name: str, size: str, summary: Mapping[str, Any], iterations: int) -> str:
    parts = []
    for variant, quartiles in summary["equals"][name].items():
        median, title = quartiles["median"], VARIANT_TITLES[variant]
        equal = f"**{_quartiles(quartiles, iterations)}** {plural(median, 'iteration')} of {title}"
        if median == 0:
            parts.append(f"{equal} (no better than its start on half of the photos or more)")
            continue
        factor = summary["speed_ups"][name][variant]["equal"]
        bound = ">" if factor["is_lower_bound"] else ""
        parts.append(f"{equal} ({bound}{_factor(factor['factor'])} times as long)")
    equals = " and ".join(parts) or "no L-BFGS that was run"
    where = f"{count(summary['num_photos'], 'photo')} at {size} px"
    return f"{where}: one forward pass of {markdown(name)} equals {equals}."


def _cautions_about_models(results: Mapping[str, Any]) -> Iterator[str]:
    """Cautions about the loss network, and about the objectives that models were trained for."""
    network = results["objective"]["loss_network"]
    label = network["label"]
    if "RANDOM" in label:
        yield (
            f"The loss network has {markdown(label)}: the objective says little about what people "
            "see, and cannot be compared with that of a trained loss network."
        )
    if label == "COMPACT weights":
        yield (
            f"The objective is measured with {network['architecture']}, {markdown(label)}, "
            f"{COMPACT_APPROXIMATES}."
        )
    for model in results["models"]:
        name = markdown(model["name"])
        differing = [part for part, is_same in model["agrees"].items() if not is_same]
        is_approximation = model["label"] == "COMPACT weights" != label
        if "loss network" in differing and is_approximation:
            differing.remove("loss network")
            full = f"VGG-{model['architecture'].removeprefix('vgg')}"
            yield (
                f"{name} was trained with {markdown(model['label'])}, which approximate the full "
                f"{markdown(full)}; here it is measured with {markdown(label)}."
            )
        if differing:
            yield (
                f"{name} was trained for another objective (another "
                f"{' and another '.join(differing)}), so it cannot be expected to lower this one."
            )


def _cautions_about_photos(
    results: Mapping[str, Any], summaries: Mapping[str, Any]
) -> Iterator[str]:
    """Cautions about the photos, about L-BFGS, and about surprising numbers."""
    for size, summary in summaries.items():
        photos = f"{count(summary['num_photos'], 'photo')} at {size} px"
        if summary["num_enlarged"]:
            yield (
                f"{summary['num_enlarged']} of the {photos} had to be enlarged: blurred photos are "
                "easier, for the network and for L-BFGS."
            )
        if summary["num_photos"] < _FEW_PHOTOS:
            yield f"{photos}: too few for reliable quartiles."
        for variant, num_ended in summary["ended_early"].items():
            if num_ended:
                yield (
                    f"At {size} px, {VARIANT_TITLES[variant]} converged before iteration "
                    f"{results['iterations']} on {count(num_ended, 'photo')}; its last value "
                    "stands for the later iterations."
                )
        unstylized = summary["photo"]["total"]["mean"]
        for name, statistic in summary["models"].items():
            mean = statistic["total"]["mean"]
            if mean is None:
                yield f"{markdown(name)}'s objective at {size} px is not finite: it is broken."
            elif unstylized is not None and mean >= unstylized:
                yield (
                    f"{markdown(name)}'s pictures at {size} px have no lower objective than the "
                    "photos themselves: it is untrained, or trained for something else."
                )


def _size_section(size: str, summary: Mapping[str, Any], pictures: set[str]) -> Iterator[str]:
    seconds = summary["seconds"]
    first = next(iter(summary["models"]))
    unit = seconds["forward_pass"][first]

    def row(title: str, statistic: Mapping[str, Any], time: float | None) -> list[str]:
        factor = "–" if time is None else _factor(time / unit)
        return [title, *(_mean_and_std(statistic[term]) for term in TERMS), factor]

    rows = [row("the photos as they are", summary["photo"], None)]
    for name, statistic in summary["models"].items():
        rows.append(row(f"**{markdown(name)}**", statistic, seconds["forward_pass"][name]))
    for variant, milestones in summary["baselines"].items():
        for milestone, statistic in milestones.items():
            title = f"{VARIANT_TITLES[variant]}: {count(int(milestone), 'iteration')}"
            rows.append(row(title, statistic, seconds["lbfgs"][variant][milestone]))
    yield from (f"## {size} px, {count(summary['num_photos'], 'photo')}", "")
    yield from table(["", "objective", "content", "style", "total variation", "time"], rows)
    yield (
        "Mean ± standard deviation over the photos; the terms before their weights; the time "
        f"divided by that of one forward pass of {markdown(first)}."
    )
    yield ""
    for name, alternative in (
        (f"objective-{size}.png", f"The objective at {size} px over the iterations of L-BFGS"),
        (f"terms-{size}.png", f"The terms at {size} px over the iterations of L-BFGS"),
        (f"grid-{size}.png", f"Photos, models and L-BFGS at {size} px"),
    ):
        if name in pictures:
            yield from (f"![{alternative}]({name})", "")
    if f"grid-{size}.png" in pictures:
        yield (
            "Beside each model, the stored picture of L-BFGS at or next after an equal objective, "
            "or its last one; at the right its last one. Photos are chosen evenly, not by looks."
        )
        yield ""


# --- Artifacts ----------------------------------------------------------------------------------

# By artifact: its normal values, suspicious values, and its definition; see `measures.artifacts`
# and `measures.steadiness`.
_ARTIFACTS = {
    "weave_2": (
        "below 0.5",
        "above 1",
        "a pattern that repeats every 2 pixels where the photo is flat, in levels of 0..255; "
        "photos have none",
    ),
    "weave_4": (
        "below 0.5",
        "above 1",
        "a pattern that repeats every 4 pixels, likewise; it shows in skies and faces, and photos "
        "have about 0.1",
    ),
    "repeats": (
        "below 0.15",
        "above 0.2",
        "how regularly the picture repeats itself every 6 to 16 pixels, as cells and rings do; "
        "photos have about 0.1, perfect copies 1",
    ),
    "halos": (
        "below 0.001",
        "above 0.003",
        "glows and patches where the photo is flat, as around a bird in the sky: the square of how "
        "much more the picture changes slowly than the photo; photos have none",
    ),
    "blots": (
        "below 0.1%",
        "above 0.3%",
        "the share of the picture in flat patches that are lighter, darker or more colorful than "
        "the style picture ever is, and than the photo is there",
    ),
    "border": (
        "about 1",
        "above 1.3",
        "the objective along the border, divided by that in the middle; it varies much where "
        "photos are few",
    ),
    "clipped": (
        "below 5%",
        "–",
        "the color values at black or white; normal is what the photos and the style picture have, "
        "and ink on white paper has more",
    ),
    "shift": (
        "below 0.02",
        "above 0.05",
        "the change of the picture, of 1, when the photo is shifted by 1 to 3 pixels; in a video, "
        "it flickers",
    ),
    "whole_shift": (
        "below 0.01",
        "–",
        "likewise for 4 pixels, by which all features are shifted, too: the floor of *shift*",
    ),
    "zoom": (
        "–",
        "–",
        "the change of the picture, of 1, when the photo is enlarged 1.1 times; strokes keep their "
        "size, so it is never 0",
    ),
    "noise_gain": (
        "below 1",
        "above 1.5",
        "how many times as strong as in the photo its noise is in the picture",
    ),
    "blotches": (
        "1.5 to 4",
        "above 12",
        "unevenness of flat areas, in levels of 0..255, measured on flat test pictures; the limits "
        "are those at 256 px",
    ),
}


def _artifacts_section(sizes: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for size, of_size in sizes.items():
        artifacts = of_size.get("artifacts") or {}
        rows += [_artifacts_row(f"{size} px: {title}", row) for title, row in _titled(artifacts)]
    if not rows:
        return
    yield from ("## Artifacts", "")
    limits = [
        ["*normal*", *(normal for normal, _, _ in _ARTIFACTS.values())],
        ["*worth a look*", *(high for _, high, _ in _ARTIFACTS.values())],
    ]
    yield from table(["", *_ARTIFACTS], [*limits, *rows])
    yield from (f"- **{name}**: {meaning}." for name, (_, _, meaning) in _ARTIFACTS.items())
    yield ""
    yield (
        "Medians over the photos, but means of *blots*, *halos* and *clipped*. Where L-BFGS's last "
        "pictures have the same artifact, it comes from the objective, and not from the network."
    )
    yield ""


def _titled(artifacts: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float | None]]]:
    if artifacts.get("photos"):
        yield "the photos as they are", artifacts["photos"]
    for name, row in artifacts.get("models", {}).items():
        yield f"**{markdown(name)}**", row
    for variant, row in artifacts.get("baselines", {}).items():
        yield f"{VARIANT_TITLES[variant]}, last", row


_DECIMALS = {"halos": 4, "shift": 3, "whole_shift": 3, "zoom": 3}
"""Of artifacts that have other than two."""


def _artifacts_row(title: str, artifacts: Mapping[str, float | None]) -> list[str]:
    def cell(name: str) -> str:
        value = artifacts.get(name)
        if value is None or not math.isfinite(value):
            return "–"
        if name in ("blots", "clipped"):
            return f"{100 * value:.2f}%"
        return f"{value:.{_DECIMALS.get(name, 2)}f}"

    return [title, *(cell(name) for name in _ARTIFACTS)]


# --- Setup --------------------------------------------------------------------------------------

_VARIANTS_EXPLAINED = {
    "box": "SciPy's L-BFGS-B, the strongest baseline known here",
    "clip": (
        "without a line search, the picture clipped after each update (Johnson et al. 2016, "
        "section 4.1)"
    ),
}


def _setup_section(results: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Setup", "", *_objective_lines(results))
    for variant in results["variants"]:
        yield f"- {VARIANT_TITLES[variant]}: {_VARIANTS_EXPLAINED[variant]}"
    for model in results["models"]:
        yield (
            f"- {markdown(model['name'])}: {markdown(model['file'])}, sha256 "
            f"`{model['digest'][:12]}`, trained with {markdown(model['label'])}"
        )
    yield f"{machine_line(results['machine'])}; float32 without TF32"
    yield ""
    yield (
        "[results.json](results.json) has all numbers, photo by photo: quartiles, seconds, and "
        "the objective after every iteration."
    )
    yield from command_lines(results)


def _objective_lines(results: Mapping[str, Any]) -> Iterator[str]:
    objective = results["objective"]
    style, network, loss = objective["style"], objective["loss_network"], objective["loss"]
    yield (
        f"- objective: {loss['content_weight']:g} × content + {loss['style_weight']:g} × style + "
        f"{loss['tv_weight']:g} × total variation (exponent {loss['tv_exponent']:g}), "
        f"normalization *{loss['normalization']}*, digest `{results['objective_digest'][:12]}`"
    )
    for kind in ("content", "style"):
        weights = loss[f"{kind}_layers"].items()
        layers = [f"{layer} (weight {weight:g})" for layer, weight in weights]
        sliced = kind == "style" and loss.get("style_distance") == "sliced"
        yield f"- {kind} layers: {', '.join(layers) or 'none'}{_SLICED if sliced else ''}"
    yield (
        f"- style picture: {markdown(style['file'])}, {style['width']} × {style['height']} "
        f"pixels, digest `{style['digest'][:12]}`"
    )
    yield (
        f"- loss network: {network['architecture']}, {markdown(network['label'])}, "
        f"{network['preprocessing']} preprocessing, {network['padding']} padding, "
        f"{network['pooling']} pooling, digest `{network['digest'][:12]}`"
    )


# --- Numbers -----------------------------------------------------------------------------------


def _mean_and_std(statistic: Mapping[str, float | None]) -> str:
    """Three significant digits of the mean, and as many decimals of the standard deviation."""
    mean, std = statistic["mean"], statistic["std"]
    if mean is None or not math.isfinite(mean):
        return "–"
    magnitude = math.floor(math.log10(abs(mean))) if mean else 2
    if -5 <= magnitude <= 6:
        decimals = max(0, 2 - magnitude)
        number, spread = f"{mean:.{decimals}f}", f"{std or 0:.{decimals}f}"
    else:
        number, spread = f"{mean:.2e}", f"{std or 0:.1e}"
    return number if std is None else f"{number} ± {spread}"


def _quartiles(quartiles: Mapping[str, int | None], iterations: int) -> str:
    """The median, with both quartiles if they differ; ``>500`` where L-BFGS did not get there."""
    median, lower, upper = (
        f">{iterations}" if quartiles[key] is None else str(quartiles[key])
        for key in ("median", "lower", "upper")
    )
    return median if lower == upper else f"{median} ({lower} to {upper})"


def _factor(value: float) -> str:
    """Two or three digits, because times are not more precise."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 10 or value == 0 else f"{value:.2g}"
