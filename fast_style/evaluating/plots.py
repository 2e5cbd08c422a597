"""The pictures of a report: plots of the objective and its terms, and a grid of photos and results.

Equal inputs give equal bytes. matplotlib is used through its objects; pyplot's global state is not.
"""

import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fast_style.core.errors import UserError, printable
from fast_style.evaluating.evaluation import TERMS, GridRow
from fast_style.evaluating.plan import VARIANT_TITLES
from fast_style.pictures.sheets import INK, fitting
from fast_style.pictures.writing import mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colors, distinct for every kind of color vision; L-BFGS is grey and black.
_MODEL_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MODEL_DASHES = ("-", "--", "-.")  # solid for the first six models, dashed for the next six
_VARIANT_LINES = {"box": ("#222222", "-"), "clip": ("#8C7A5B", "--")}
_PHOTO_COLOR = "#777777"
_MOST_DROP_LINES = 8  # more would hide one another
_TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,  # names may contain dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.dpi": 150,
}


def require_plotting() -> None:
    """Check that plots can be drawn, before hours are spent on their numbers.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "the report's plots need matplotlib; run pip install 'fast-style[evaluation]'"
        ) from None


def draw_plots(
    size: str, of_size: Mapping[str, Any], iterations: int
) -> Iterator[tuple[str, bytes]]:
    """The two plots of one size, the objective and its terms: file names and PNGs."""
    photos = of_size["photos"]
    count = f"{len(photos)} photo{'s' if len(photos) > 1 else ''}"
    num_entries = 1 + len(photos[0]["baselines"]) + len(photos[0]["models"])
    legend_height = 0.22 * math.ceil(num_entries / 2)  # inches
    with _plot_style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4.4 + legend_height), layout="constrained")
        axes = figure.add_subplot()
        _draw_term(axes, of_size, "total", iterations)
        bands = "; bands: lower to upper quartile" if len(photos) > 1 else ""
        axes.set_title(f"lower is better{bands}", fontsize=10)
        axes.set_ylabel("objective")
        title = f"Objective at {size} × {size} pixels, mean over {count}"
        yield f"objective-{size}.png", _finish(figure, axes, title)

        figure = Figure(figsize=(12, 3.8 + legend_height), layout="constrained")
        for column, term in enumerate(TERMS[1:], start=1):
            axes = figure.add_subplot(1, 3, column)
            _draw_term(axes, of_size, term, iterations)
            axes.set_title("total variation" if term == "tv" else term, fontsize=11)
        title = f"The terms of the objective at {size} × {size} pixels, before their weights"
        yield f"terms-{size}.png", _finish(figure, axes, title)


@contextmanager
def _plot_style() -> Iterator[None]:
    """Inside, plots look the same on every machine, whatever its matplotlibrc sets."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


def _finish(figure: "Figure", axes: "Axes", title: str) -> bytes:
    """Add the title and the legend of these axes; the PNG, with our mark in place of its own."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format="png",
        metadata={"Software": None},
        pil_kwargs={"exif": mark()},
        facecolor="white",
    )
    return buffer.getvalue()


def _draw_term(axes: "Axes", of_size: Mapping[str, Any], term: str, iterations: int) -> None:
    """Plot a term over iterations: a curve for each L-BFGS, a line for the photo and each model."""
    photos = of_size["photos"]
    drawn: list[float] = []
    photo = _mean_of([row["photo"][term] for row in photos])
    if photo is not None:
        axes.axhline(photo, color=_PHOTO_COLOR, linestyle=":", label="the photo as it is")
        drawn.append(photo)
    means: list[NDArray[np.float64]] = []
    crossings: list[tuple[float, float, str]] = []
    for variant in photos[0]["baselines"]:
        lines = _draw_lbfgs(axes, variant, _curves(photos, variant, term, iterations))
        means.append(lines[0])
        drawn += lines.ravel().tolist()
    for index, name in enumerate(photos[0]["models"]):
        value = _mean_of([row["models"][name][term] for row in photos])
        if value is None:
            continue
        color = _MODEL_COLORS[index % len(_MODEL_COLORS)]
        dashes = _MODEL_DASHES[index // len(_MODEL_COLORS) % len(_MODEL_DASHES)]
        label = f"one forward pass of {_drawable(name)}"
        axes.axhline(value, color=color, linestyle=dashes, linewidth=1.8, label=label)
        drawn.append(value)
        for mean in means if term == "total" else ():
            crossing = _crossing(mean, value)
            if crossing is not None:
                crossings.append((crossing, value, color))
    _scale_axes(axes, drawn, iterations)
    for crossing, value, color in crossings:
        _mark_crossing(
            axes, crossing, value, color, has_drop_line=len(crossings) <= _MOST_DROP_LINES
        )


def _draw_lbfgs(axes: "Axes", variant: str, curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw one variant's mean over the photos with its band.

    Args:
        axes: where to draw.
        variant: of L-BFGS.
        curves: (photos, iterations + 1).

    Returns:
        (3, iterations + 1): the mean, the lower and the upper quartile.
    """
    color, dashes = _VARIANT_LINES[variant]
    across = np.arange(curves.shape[1])
    mean = curves.mean(axis=0)
    lower, upper = np.quantile(curves, [0.25, 0.75], axis=0)
    if len(curves) > 1:
        axes.fill_between(across, lower, upper, color=color, alpha=0.16, linewidth=0)
    label = VARIANT_TITLES[variant]
    axes.plot(across, mean, color=color, linestyle=dashes, linewidth=1.8, label=label)
    return np.stack([mean, lower, upper])


def _mean_of(values: Sequence[float]) -> float | None:
    mean = statistics.fmean(values)
    return mean if math.isfinite(mean) else None


def _curves(
    photos: Sequence[Mapping[str, Any]], variant: str, term: str, iterations: int
) -> NDArray[np.float64]:
    """(photos, iterations + 1); after L-BFGS converged, its last value is repeated."""
    curves = [photo["baselines"][variant][term] for photo in photos]
    return np.array(
        [[*curve, *[curve[-1]] * (iterations + 1 - len(curve))] for curve in curves], dtype=float
    )


def _crossing(mean: NDArray[np.float64], value: float) -> float | None:
    """The iteration where a falling curve meets a model's line; None if never or at the start."""
    below = np.nonzero(mean <= value)[0]
    if not len(below) or below[0] == 0:
        return None
    after = int(below[0])
    before = after - 1
    return before + float((mean[before] - value) / (mean[before] - mean[after]))


def _mark_crossing(
    axes: "Axes", crossing: float, value: float, color: str, *, has_drop_line: bool
) -> None:
    """Mark a crossing with a dot, and a dotted line down to its iteration."""
    if has_drop_line:
        bottom, top = axes.get_ylim()
        axes.vlines(crossing, bottom, value, color=color, linestyle=":", linewidth=1.2)
        axes.set_ylim(bottom, top)
    axes.plot(
        [crossing], [value], "o", markersize=7, color=color, markeredgecolor="white", zorder=4
    )


def _scale_axes(axes: "Axes", drawn: Sequence[float], iterations: int) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("symlog", linthresh=1, linscale=0.35)
    axes.set_xlim(0, iterations)
    axes.xaxis.set_major_locator(FixedLocator(_iteration_ticks(iterations)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("iterations of L-BFGS")
    positive = [value for value in drawn if value > 0]
    if not positive:
        return
    least, most = min(positive), max(positive)
    if most < 3 * least:  # a logarithmic axis would have hardly any labels
        return
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylim(least / 1.15, most * 1.15)
    subs = (1.0, 2.0, 5.0) if most < 1e4 * least else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _iteration_ticks(iterations: int) -> list[int]:
    """Round numbers, and the last iteration."""
    return [tick for tick in _TICKS if tick * 1.25 < iterations] + [iterations]


def _drawable(text: str) -> str:
    """At most 28 characters of a text, with ``?`` for those that the plots' font lacks."""
    from matplotlib.font_manager import get_font

    known = get_font(_font_file()).get_charmap()
    shown = "".join(letter if ord(letter) in known else "?" for letter in printable(text))
    # Shortened in the middle: names often differ at their ends.
    return shown if len(shown) <= 28 else f"{shown[:14]}…{shown[-13:]}"


def _font_file() -> str:
    """The path of DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


# --- Grids --------------------------------------------------------------------------------------

# Sides in pixels: captions fit into the smallest cell, and a grid of the largest has a few MB.
_SMALLEST_CELL, _LARGEST_CELL = 192, 512
_GAP = 8


def draw_grid(rows: Sequence[GridRow]) -> bytes:
    """A PNG with one row per photo and a caption above each picture."""
    side = rows[0].size
    cell = min(side * max(1, round(_SMALLEST_CELL / side)), _LARGEST_CELL)
    font = ImageFont.truetype(
        _font_file(), max(13, cell // 17), layout_engine=ImageFont.Layout.BASIC
    )
    caption_height = round(1.7 * font.size)
    columns = max(len(row.pictures) for row in rows)
    height = cell + caption_height + _GAP
    sheet = Image.new("RGB", (columns * (cell + _GAP) + _GAP, len(rows) * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, row in enumerate(rows):
        for column, (caption, levels) in enumerate(row.pictures):
            left, top = _GAP + column * (cell + _GAP), _GAP + index * height
            text = fitting(row.name if column == 0 else caption, font, cell)
            draw.text((left, top + caption_height // 2), text, fill=INK, font=font, anchor="lm")
            picture = Image.fromarray(levels)
            if cell != side:
                resample = Image.Resampling.LANCZOS if cell < side else Image.Resampling.NEAREST
                picture = picture.resize((cell, cell), resample)
            sheet.paste(picture, (left, top + caption_height))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", exif=mark())
    return buffer.getvalue()
