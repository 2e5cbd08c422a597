"""From the numbers of an evaluation to pages that people read.

`summarize` is arithmetic on `evaluation.evaluate`'s results, and `write_report` puts them down as
JSON, Markdown and pictures. Nothing is measured here, and no picture is stylized.
"""

import json
import math
import re
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from fast_style.core.errors import UserError, printable
from fast_style.core.files import atomic_write
from fast_style.evaluating.baselines import MARKS, VARIANTS_IN_WORDS
from fast_style.evaluating.evaluation import COMPACT_APPROXIMATES, TERMS, GridRow
from fast_style.evaluating.plots import draw_grid, draw_plots, require_plotting

# Johnson et al. 2016, table 1: L-BFGS is timed after so many iterations.
_TIMED = (100, 300, 500)
# With fewer, quartiles are hardly more than single photos.
_FEW_PHOTOS = 10


# --- Numbers ------------------------------------------------------------------------------------


def summarize(results: Mapping[str, Any]) -> dict[str, Any]:
    """Means, quartiles and speed-ups, as plain data: one entry of `sizes` for each size.

    photo, models, baselines: mean and standard deviation (n - 1; None for a single photo) of each
        term; for baselines after each number of iterations that is looked at.
    equals: the iterations of L-BFGS after which its objective is no more than the model's; median
        and quartiles are nearest ranks. None stands for more than all iterations, 0 for a model
        that is no better than L-BFGS's start.
    seconds: of forward passes, of an evaluation, and of L-BFGS after some iterations.
    speed_ups: how many times as long as a forward pass L-BFGS takes, for some iterations and until
        it reaches the model's own objective.

    Args:
        results: of `evaluation.evaluate`; stays as it is.
    """
    return {
        "sizes": {
            size: _summarize_size(of_size, results["iterations"])
            for size, of_size in results["sizes"].items()
        }
    }


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest of the values that is no less than this share of them: always one of them."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _summarize_size(of_size: Mapping[str, Any], iterations: int) -> dict[str, Any]:
    photos, seconds = of_size["photos"], of_size["seconds"]
    names, variants = list(photos[0]["models"]), list(photos[0]["baselines"])
    marks = [mark for mark in MARKS if mark < iterations] + [iterations]
    lbfgs_seconds = {
        variant: {
            str(mark): seconds["evaluation"][variant] * _evaluations(photos, variant, mark)
            for mark in marks
        }
        for variant in variants
    }
    return {
        "num_photos": len(photos),
        "num_enlarged": sum(bool(photo["enlarged"]) for photo in photos),
        "photo": _statistics([photo["photo"] for photo in photos]),
        "models": {
            name: _statistics([photo["models"][name] for photo in photos]) for name in names
        },
        "baselines": {
            variant: {
                str(mark): _statistics([_at(photo, variant, mark) for photo in photos])
                for mark in marks
            }
            for variant in variants
        },
        "ended_early": {
            variant: sum(
                len(photo["baselines"][variant]["total"]) <= iterations for photo in photos
            )
            for variant in variants
        },
        "equals": {
            name: {
                variant: _quartiles([photo["models"][name]["equals"][variant] for photo in photos])
                for variant in variants
            }
            for name in names
        },
        "seconds": seconds | {"lbfgs": lbfgs_seconds},
        "speed_ups": {
            name: {
                variant: _speed_ups(photos, name, variant, seconds, lbfgs_seconds[variant])
                for variant in variants
            }
            for name in names
        },
    }


def _at(photo: Mapping[str, Any], variant: str, iteration: int) -> dict[str, float]:
    """The terms after so many iterations, or at L-BFGS's end if that was before."""
    curves = photo["baselines"][variant]
    return {term: curves[term][min(iteration, len(curves[term]) - 1)] for term in TERMS}


def _statistics(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """The mean and the standard deviation of each term."""
    summary: dict[str, dict[str, float | None]] = {}
    for term in TERMS:
        values = [float(row[term]) for row in rows]
        is_finite = all(math.isfinite(value) for value in values)
        summary[term] = {
            "mean": statistics.fmean(values) if is_finite else None,
            "std": statistics.stdev(values) if is_finite and len(values) > 1 else None,
        }
    return summary


def _quartiles(found: Sequence[int | None]) -> dict[str, int | None]:
    numbers = [math.inf if iteration is None else iteration for iteration in found]

    def rank(share: float) -> int | None:
        value = nearest_rank(numbers, share)
        return None if math.isinf(value) else int(value)

    return {
        "median": rank(0.5),
        "lower": rank(0.25),
        "upper": rank(0.75),
        "num_never": sum(iteration is None for iteration in found),
        "num_at_start": sum(iteration == 0 for iteration in found),
    }


def _evaluations(photos: Sequence[Mapping[str, Any]], variant: str, iteration: int) -> float:
    """The median over the photos of the evaluations that so many iterations took."""
    curves = [photo["baselines"][variant]["evaluations"] for photo in photos]
    return statistics.median(curve[min(iteration, len(curve) - 1)] for curve in curves)


def _speed_ups(
    photos: Sequence[Mapping[str, Any]],
    name: str,
    variant: str,
    seconds: Mapping[str, Any],
    lbfgs_seconds: Mapping[str, float],
) -> dict[str, Any]:
    forward_pass = seconds["forward_pass"][name]
    least, most = [], []  # evaluations until the objectives are equal, as far as is known
    for photo in photos:
        evaluations = photo["baselines"][variant]["evaluations"]
        equal = photo["models"][name]["equals"][variant]
        if equal is None:
            least.append(evaluations[-1])
            most.append(math.inf)
        else:
            least.append(evaluations[equal] if equal > 0 else 0)  # the start costs nothing
            most.append(least[-1])
    evaluations_at_least = nearest_rank(least, 0.5)
    timed = [str(mark) for mark in _TIMED if str(mark) in lbfgs_seconds]
    return {mark: lbfgs_seconds[mark] / forward_pass for mark in timed} | {
        "equal": {
            "factor": evaluations_at_least * seconds["evaluation"][variant] / forward_pass,
            "is_lower_bound": nearest_rank(most, 0.5) > evaluations_at_least,
        }
    }


# --- Files --------------------------------------------------------------------------------------


def write_report(folder: Path, results: Mapping[str, Any], grid: Sequence[GridRow]) -> list[Path]:
    """Write all files of the report; the paths, ``report.md`` last.

    ``results.json`` comes first and needs nothing but a disk, so that no number is lost when a plot
    fails.

    Args:
        folder: is made if it is not there; older files of the same names are replaced.
        results: of `evaluation.evaluate`. If it has a `command`, it is shown as the way to make the
            report again, without the folders of absolute paths.
        grid: the pictures that `evaluate` gave along with them.

    Raises:
        UserError: matplotlib is not installed; the folder cannot be written or the disk is full
            (exit code 1).
    """
    told = dict(results)
    if results.get("command"):
        told["command"] = _without_folders(results["command"])
    summary = summarize(told)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    paths = [_write(folder / "results.json", _strict_json(told | {"summary": summary}))]
    require_plotting()
    for size, of_size in told["sizes"].items():
        for name, encoded in draw_plots(size, of_size, told["iterations"]):
            paths.append(_write(folder / name, encoded))
        rows = [row for row in grid if row.size == int(size)]
        if rows:
            paths.append(_write(folder / f"grid-{size}.png", draw_grid(rows)))
    pictures = {path.name for path in paths}
    page = "\n".join(_page(told, summary["sizes"], pictures))
    paths.append(_write(folder / "report.md", page.encode()))
    return paths


def _write(path: Path, encoded: bytes) -> Path:
    try:
        with atomic_write(path) as file:
            file.write(encoded)
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(f"{printable(path)}: cannot be written ({reason})", exit_code=1)


def _strict_json(data: Any) -> bytes:
    """JSON that every reader accepts: what is not finite becomes null."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): finite(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [finite(part) for part in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return (json.dumps(finite(data), indent=1, allow_nan=False) + "\n").encode()


def _without_folders(command: str) -> str:
    """The command with the last name of every absolute path: it may be shown to strangers."""
    try:
        words = shlex.split(command)
    except ValueError:  # an open quote: nobody can run it anyway
        return ""

    def last_name(word: str) -> str:
        key, equals, value = word.rpartition("=")
        if PurePosixPath(value).is_absolute() or value.startswith("~"):
            value = PurePosixPath(value).name
        elif PureWindowsPath(value).is_absolute():
            value = PureWindowsPath(value).name
        return key + equals + value

    return shlex.join(last_name(word) for word in words)


# --- The page -----------------------------------------------------------------------------------

# What `artifacts` says of them, in a line each.
_NORMAL_ARTIFACTS = {
    "checkerboard": (
        "strength of a pattern that repeats every 2 or 4 pixels, in levels of 0..255. Normal is "
        "below 1 at 256 pixels and more (photos: about 0.1); above 2 it is a fault that shows in "
        "skies and faces."
    ),
    "border": (
        "the objective in a band along the border, divided by that in the middle. Normal is about "
        "1, with much chance in it where photos are few; from 1.3 on it is worth a look."
    ),
    "clipped": (
        "share of the color values at black or white, or beyond. Normal is what the photos and the "
        "style picture have themselves, mostly below 5%; ink on white paper has more."
    ),
    "blotches": (
        "how uneven the model paints what is flat, in levels of 0..255. Normal at 256 pixels is "
        "1.5 to 4; clouds all over a sky are 12 and more."
    ),
}


def _page(
    results: Mapping[str, Any], summaries: Mapping[str, Any], pictures: set[str]
) -> Iterator[str]:
    names = ", ".join(_markdown(model["name"]) for model in results["models"])
    yield f"# Evaluation of {names}"
    yield ""
    yield from _question(results)
    yield "## Answer"
    yield ""
    for size, summary in summaries.items():
        for name in summary["models"]:
            yield f"- {_answer(name, size, summary, results['iterations'])}"
    yield ""
    yield (
        "The number of iterations is the median over the photos, with the lower and the upper "
        "quartile in brackets. Johnson et al. (2016, figure 5) report 50 to 100 iterations of "
        "clipped L-BFGS for their networks, with another objective and other photos: how many "
        "iterations a network equals depends on the weights of the objective."
    )
    yield ""
    warnings = list(_warnings(results, summaries))
    if warnings:
        yield "## Read with care"
        yield ""
        yield from (f"- {warning}" for warning in warnings)
        yield ""
    for size, summary in summaries.items():
        artifacts = results["sizes"][size].get("artifacts") or {}
        yield from _size_section(size, summary, artifacts, results, pictures)
    if any(of_size.get("artifacts") for of_size in results["sizes"].values()):
        yield "## What the faults mean"
        yield ""
        yield from (f"- **{fault}**: {normal}" for fault, normal in _NORMAL_ARTIFACTS.items())
        yield ""
    yield from _about_objective(results)
    yield from _about_method(results)


def _question(results: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "A network stylizes a photo in one forward pass. It was trained to make an *objective* "
        "small, a number that says how far a picture is from the content of the photo and from "
        "the style of the style picture; lower is better. The slow way to make the same number "
        "small is to change the pixels of one photo step by step with L-BFGS (Gatys et al. 2016). "
        "Asked here, as by Johnson et al. (2016, section 4.1): **after how many iterations of "
        "L-BFGS is its picture as good as the network's**, on photos that the network was not "
        "trained on? More iterations speak for the network."
    )
    yield ""


def _answer(name: str, size: str, summary: Mapping[str, Any], iterations: int) -> str:
    where = f"On {_count(summary['num_photos'], 'held-out photo')} at {size} px"
    mean = _mean_and_std(summary["models"][name]["total"])
    equals = summary["equals"][name]
    parts = [
        f"**{_equal_iterations(quartiles, iterations)}** "
        f"{_plural(quartiles['median'], 'iteration')} of {VARIANTS_IN_WORDS[variant]}"
        for variant, quartiles in equals.items()
    ]
    answer = (
        f"{where}, {_markdown(name)}'s objective after one forward pass, {mean}, equals "
        f"{' and '.join(parts)}"
    )
    first = next(iter(equals), None)
    if first is None:
        return f"{answer}no L-BFGS that was run."
    if equals[first]["median"] == 0:
        start = f"where {VARIANTS_IN_WORDS[first]} starts"
        return f"{answer}. On half of the photos or more it is no better than {start}."
    factor = _equal_factor(summary["speed_ups"][name][first])
    return f"{answer}. To get that far, {VARIANTS_IN_WORDS[first]} takes {factor} times as long."


def _warnings(results: Mapping[str, Any], summaries: Mapping[str, Any]) -> Iterator[str]:
    network = results["objective"]["loss_network"]
    label = network["label"]
    if "RANDOM" in label:
        yield (
            f"The loss network has {_markdown(label)}: the objective says little about what people "
            "see, and is not comparable with that of a trained loss network."
        )
    if label == "COMPACT weights":
        yield (
            f"The objective is measured with {network['architecture']}, {_markdown(label)}, "
            f"{COMPACT_APPROXIMATES}."
        )
    for model in results["models"]:
        differing = [what for what, same in model["agrees"].items() if not same]
        is_approximation = model["label"] == "COMPACT weights" != label
        if "loss network" in differing and is_approximation:
            differing.remove("loss network")
            yield (
                f"{_markdown(model['name'])} was trained with {_markdown(model['label'])}, which "
                f"approximate the full VGG-19; here it is judged with {_markdown(label)}."
            )
        if differing:
            yield (
                f"{_markdown(model['name'])} was trained for another objective than the one here "
                f"(another {' and another '.join(differing)}), so it cannot be expected to make "
                "this one small."
            )
    for size, summary in summaries.items():
        count = summary["num_photos"]
        if summary["num_enlarged"]:
            yield (
                f"{summary['num_enlarged']} of the {_count(count, 'photo')} at {size} px had to be "
                "enlarged: blurred photos are easier, for the network and for L-BFGS."
            )
        if count < _FEW_PHOTOS:
            yield (
                f"{_count(count, 'photo')} at {size} px: "
                + ("there is no spread." if count == 1 else "a spread of few photos.")
            )
        for variant, ended in summary["ended_early"].items():
            if ended:
                yield (
                    f"At {size} px, {VARIANTS_IN_WORDS[variant]} ended by itself on "
                    f"{_count(ended, 'photo')} before all {results['iterations']} iterations; its "
                    "last value stands for the later ones."
                )
        yield from _surprises(size, summary)


def _surprises(size: str, summary: Mapping[str, Any]) -> Iterator[str]:
    photo = summary["photo"]["total"]["mean"]
    for name, statistic in summary["models"].items():
        mean = statistic["total"]["mean"]
        if mean is None:
            yield f"{_markdown(name)}'s objective at {size} px is not finite: the model is broken."
        elif photo is not None and mean >= photo:
            yield (
                f"{_markdown(name)}'s pictures at {size} px are no better than the photos as they "
                "are: it is not trained, or for something else."
            )


def _size_section(
    size: str,
    summary: Mapping[str, Any],
    artifacts: Mapping[str, Any],
    results: Mapping[str, Any],
    pictures: set[str],
) -> Iterator[str]:
    iterations = results["iterations"]
    yield f"## {size} px, {_count(summary['num_photos'], 'photo')}"
    yield ""
    if f"objective-{size}.png" in pictures:
        yield f"![The objective at {size} px](objective-{size}.png)"
        yield ""
        yield (
            "Curves: the best picture of L-BFGS so far, mean over the photos; bands from the lower "
            "to the upper quartile. Horizontal lines: the models, and the photo as it is. "
            f"([as SVG](objective-{size}.svg))"
        )
        yield ""
    yield from _table(
        ["", "objective", "content", "style", "total variation"], _objective_rows(summary)
    )
    yield "Mean ± standard deviation over the photos; the terms are before their weights."
    yield ""
    if f"terms-{size}.png" in pictures:
        yield f"![The terms at {size} px](terms-{size}.png)"
        yield ""
        yield "Zeros, as the photo's own content term, have no place on a logarithmic axis."
        yield ""
    yield "### Equal iterations"
    yield ""
    yield from _table(
        ["model", "of", "median", "quartiles", "never equal", "no better than the start"],
        [
            [
                _markdown(name),
                VARIANTS_IN_WORDS[variant],
                _iterations(quartiles["median"], iterations),
                f"{_iterations(quartiles['lower'], iterations)} to "
                f"{_iterations(quartiles['upper'], iterations)}",
                _count(quartiles["num_never"], "photo"),
                _count(quartiles["num_at_start"], "photo"),
            ]
            for name, variants in summary["equals"].items()
            for variant, quartiles in variants.items()
        ],
    )
    yield "### Photo by photo"
    yield ""
    yield from _table(*_photo_rows(results["sizes"][size]["photos"], iterations))
    yield from _times(summary, results["machine"]["device"])
    if artifacts:
        yield "### Faults"
        yield ""
        yield from _table(["", *_NORMAL_ARTIFACTS], _artifact_rows(artifacts))
        yield (
            "Medians over the photos, but the mean of *clipped*; *blotches* are looked for in flat "
            "pictures made for that. What is normal stands under *What the faults mean*."
        )
        yield ""
    if f"grid-{size}.png" in pictures:
        yield "### Pictures"
        yield ""
        yield f"![Photos, models, and L-BFGS at {size} px](grid-{size}.png)"
        yield ""
        yield (
            "Beside each model the picture of L-BFGS with an equal objective, the next one after "
            "it that was kept, or its last where it never got there; at the right its last. "
            "(Photos chosen evenly, not by looks.)"
        )
        yield ""


def _photo_rows(
    photos: Sequence[Mapping[str, Any]], iterations: int
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each model's objective on each photo, and the iterations that it equals."""
    header = ["photo", "as it is"]
    for name, model in photos[0]["models"].items():
        header += [f"**{_markdown(name)}**"]
        header += [f"equals, of {VARIANTS_IN_WORDS[variant]}" for variant in model["equals"]]
    rows = []
    for photo in photos:
        cells = [_markdown(photo["name"]), _number(photo["photo"]["total"])]
        for model in photo["models"].values():
            cells += [_number(model["total"])]
            cells += [_iterations(equal, iterations) for equal in model["equals"].values()]
        rows.append(cells)
    return header, rows


def _objective_rows(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    def row(title: str, statistic: Mapping[str, Any]) -> list[str]:
        return [title, *(_mean_and_std(statistic[term]) for term in TERMS)]

    yield row("the photo as it is", summary["photo"])
    for name, statistic in summary["models"].items():
        yield row(f"**{_markdown(name)}**", statistic)
    for variant, marks in summary["baselines"].items():
        for mark, statistic in marks.items():
            yield row(f"{VARIANTS_IN_WORDS[variant]}: {_count(int(mark), 'iteration')}", statistic)


def _times(summary: Mapping[str, Any], device: str) -> Iterator[str]:
    seconds = summary["seconds"]
    timed = [mark for mark in map(str, _TIMED) if _is_timed(summary, mark)]
    yield "### Times"
    yield ""
    yield "How many times as long as one forward pass of the network L-BFGS takes:"
    yield ""
    yield from _table(
        ["model", "of", "one evaluation", *(f"{mark} iterations" for mark in timed), "until equal"],
        [
            [
                _markdown(name),
                VARIANTS_IN_WORDS[variant],
                _factor(seconds["evaluation"][variant] / seconds["forward_pass"][name]),
                *(_factor(factors[mark]) for mark in timed),
                _equal_factor(factors),
            ]
            for name, variants in summary["speed_ups"].items()
            for variant, factors in variants.items()
        ],
    )
    yield (
        "*Until equal* is the fair one: until L-BFGS's objective is as low as the network's. "
        "Johnson et al. (2016, table 1) report about 210 for 100 iterations and 1,040 for 500, "
        "numbers of iterations that were fixed beforehand."
    )
    yield ""
    if device in ("cpu", "mps"):
        yield (
            "Seconds are in `results.json`; they are left out here because on this kind of device "
            "they depend on what else it did."
        )
        yield ""
        return
    yield f"In seconds, on {_markdown(device)}:"
    yield ""
    yield from _table(
        ["", "seconds"],
        [
            *(
                [f"{_markdown(name)}, one forward pass", _number(value)]
                for name, value in seconds["forward_pass"].items()
            ),
            *(
                [f"{VARIANTS_IN_WORDS[variant]}: one evaluation", _number(value)]
                for variant, value in seconds["evaluation"].items()
            ),
            *(
                [f"{VARIANTS_IN_WORDS[variant]}: {_count(int(mark), 'iteration')}", _number(value)]
                for variant, marks in seconds["lbfgs"].items()
                for mark, value in marks.items()
            ),
        ],
    )


def _is_timed(summary: Mapping[str, Any], mark: str) -> bool:
    return any(
        mark in factors
        for variants in summary["speed_ups"].values()
        for factors in variants.values()
    )


def _artifact_rows(artifacts: Mapping[str, Any]) -> Iterator[list[str]]:
    def row(title: str, found: Mapping[str, float | None]) -> list[str]:
        return [title, *(_fault(fault, found.get(fault)) for fault in _NORMAL_ARTIFACTS)]

    if artifacts.get("photos"):
        yield row("the photos as they are", artifacts["photos"])
    for name, found in artifacts["models"].items():
        yield row(f"**{_markdown(name)}**", found)
    for variant, found in artifacts["baselines"].items():
        yield row(f"{VARIANTS_IN_WORDS[variant]}, its last", found)


def _fault(fault: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.2f}%" if fault == "clipped" else f"{value:.2f}"


def _about_objective(results: Mapping[str, Any]) -> Iterator[str]:
    objective = results["objective"]
    style, network, loss = objective["style"], objective["loss_network"], objective["loss"]
    yield "## The objective"
    yield ""
    yield (
        f"{loss['content_weight']:g} × content + {loss['style_weight']:g} × style + "
        f"{loss['tv_weight']:g} × total variation (exponent {loss['tv_exponent']:g}), "
        f"normalization *{loss['normalization']}*."
    )
    yield ""
    yield (
        f"- style picture: {_markdown(style['file'])}, {style['width']} × {style['height']} "
        f"pixels, digest `{style['digest'][:12]}`"
    )
    yield (
        f"- loss network: {network['architecture']}, {_markdown(network['label'])}, "
        f"{network['preprocessing']} preprocessing, {network['padding']} padding, "
        f"{network['pooling']} pooling, digest `{network['digest'][:12]}`"
    )
    for kind in ("content", "style"):
        weights = loss[f"{kind}_layers"].items()
        layers = [f"{layer} (weight {weight:g})" for layer, weight in weights]
        yield f"- {kind} layers: {', '.join(layers) or 'none'}"
    yield f"- digest of all this: `{results['objective_digest'][:12]}`"
    yield ""


def _about_method(results: Mapping[str, Any]) -> Iterator[str]:
    machine = results["machine"]
    yield "## How this was measured"
    yield ""
    for variant in results["variants"]:
        yield f"- **{VARIANTS_IN_WORDS[variant]}**: {_VARIANTS_EXPLAINED[variant]}"
    yield (
        "- **equals**: the first iteration after which L-BFGS's best picture so far has an "
        f"objective no higher than the model's, photo by photo. *>{results['iterations']}*: the "
        "model's was still lower when L-BFGS ended. *0*: the model is no better than L-BFGS's "
        "start. Medians and quartiles are nearest ranks: each is the number of one photo."
    )
    yield (
        "- **iterations and evaluations**: an iteration is an accepted update of the pixels. A "
        "line search may need several evaluations of the objective and its gradient for one; times "
        "count evaluations: their median over the photos, times the seconds of one."
    )
    yield (
        "- **pictures**: the middle square of every photo. The network's result is brought into "
        "[0, 1] before it is judged, and is not rounded to 8 bits; neither is L-BFGS's."
    )
    yield (
        f"- **machine**: {_markdown(machine['device'])}, "
        f"{_count(machine['threads'], 'CPU thread')}; fast-style {machine['fast_style']}, torch "
        f"{machine['torch']}, Python {machine['python']}; float32 without TF32; times of one "
        "picture at a time, without reading and writing files."
    )
    for model in results["models"]:
        yield (
            f"- **{_markdown(model['name'])}**: {_markdown(model['file'])}, sha256 "
            f"`{model['digest'][:12]}`, trained with {_markdown(model['label'])}"
        )
    yield ""
    yield "All numbers, photo by photo, are in [results.json](results.json)."
    if results.get("command"):
        yield ""
        yield "To measure it again (absolute paths are cut down to their names):"
        yield ""
        yield f"    {printable(results['command'])}"
    yield ""


_VARIANTS_EXPLAINED = {
    "box": (
        "SciPy's L-BFGS-B, which keeps the pixels within [0, 1] inside the method and starts from "
        "the photo. The strongest baseline known here."
    ),
    "clip": (
        "as by Johnson et al. (2016, section 4.1): L-BFGS without a line search, from white noise "
        "(the same for every photo), with the pixels clipped to [0, 1] after each update."
    ),
}


# --- Words --------------------------------------------------------------------------------------


def _markdown(text: str) -> str:
    """Text from outside, so that it stays text, in a table too."""
    escaped = re.sub(r"([\\`*\[\]<>|$#~&])", r"\\\1", printable(text))
    # Within a word an underscore is no markup, and names are full of them.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]] | Iterator[list[str]]) -> list[str]:
    """A table and an empty line; the first column of words to the left, numbers to the right."""
    num_words = 2 if header[1] == "of" else 1
    rules = [":--" if index < num_words else "--:" for index in range(len(header))]
    return [f"| {' | '.join(row)} |" for row in (header, rules, *rows)] + [""]


def _number(value: float | None) -> str:
    """Three significant digits; an exponent only where digits would be hard to count."""
    if value is None or not math.isfinite(value):
        return "–"
    decimals = _decimals(value)
    return f"{value:.2e}" if decimals is None else f"{value:.{decimals}f}"


def _mean_and_std(statistic: Mapping[str, float | None]) -> str:
    mean, std = statistic["mean"], statistic["std"]
    if mean is None or std is None:
        return _number(mean)
    decimals = _decimals(mean)
    if decimals is None:
        return f"{mean:.2e} ± {std:.1e}"
    return f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def _decimals(value: float) -> int | None:
    """The decimals that give three significant digits; None: better with an exponent."""
    if value == 0:
        return 0
    magnitude = math.floor(math.log10(abs(value)))
    return max(0, 2 - magnitude) if -5 <= magnitude <= 6 else None


def _iterations(value: int | None, iterations: int) -> str:
    return f">{iterations}" if value is None else str(value)


def _equal_iterations(quartiles: Mapping[str, int | None], iterations: int) -> str:
    median, lower, upper = (
        _iterations(quartiles[key], iterations) for key in ("median", "lower", "upper")
    )
    return median if lower == upper else f"{median} ({lower} to {upper})"


def _factor(value: float) -> str:
    """Two or three digits: times are not known better."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 10 or value == 0 else f"{value:.2g}"


def _equal_factor(factors: Mapping[str, Any]) -> str:
    equal = factors["equal"]
    return (">" if equal["is_lower_bound"] else "") + _factor(equal["factor"])


def _count(number: int, noun: str) -> str:
    return f"{number} {_plural(number, noun)}"


def _plural(number: int | None, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"
