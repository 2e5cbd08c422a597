"""``fast-style stylize``: apply a model to photos."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fast_style.cli.arguments import (
    add_device,
    add_include_results,
    add_max_pixels,
    add_memory,
    expanded,
    input_path,
    output_path,
    percent,
    positive,
    thread_count,
    usual_path,
)
from fast_style.cli.notes import note
from fast_style.cli.painting import add_grain, add_strokes
from fast_style.cli.process import say
from fast_style.core.distributed import Launch, joined, own_device, read_launch
from fast_style.core.errors import UserError, printable, shown
from fast_style.core.words import count
from fast_style.styles.shipped import (
    ALL,
    SHEET_SIDE,
    find_style,
    require_styles,
    style_named,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from fast_style.stylizing.folder import Painter
    from fast_style.stylizing.jobs import Job, OutputOptions, Plan

SUMMARY = "apply a model to photos"
EXAMPLES = """\
examples:
  # a style that comes with fast-style: writes photo.starry_night.jpg; fast-style styles lists them
  {prog} --style starry_night photo.jpg
  # one sheet of all these styles: photo.all.jpg
  {prog} --style all photo.jpg
  # a model of your own: writes photo.wave.jpg
  {prog} --model runs/wave/model.safetensors photo.jpg
  # the results of a folder keep its structure
  {prog} --model wave.safetensors --output out/ holiday/ a.png
  {prog} --model wave.safetensors --output big.png --max-side 2000 big.jpg
  # four GPUs share the photos
  torchrun --nproc-per-node 4 stylize.py --model wave.safetensors --output out/ holiday/
"""

LESS_MEMORY = "use a smaller --max-side"

_QUALITY = 95
_WITH_QUALITY = ("JPEG", "WEBP")  # formats that lose some of a picture

# tqdm's default format shows seconds per photo when photos are slow.
_BAR = "{n_fmt}/{total_fmt} |{bar}| {rate_noinv_fmt}, {elapsed} gone, {remaining} left"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("words", nargs="+", metavar="PHOTO", help="photos, or folders of photos")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--style",
        metavar="NAME",
        help=f"a style that comes with fast-style (fast-style styles lists them); {ALL}: one sheet "
        "of all of them for each photo",
    )
    which.add_argument(
        "--model",
        "-m",
        type=input_path,
        help="a model.safetensors, or a checkpoint of a run",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=result_place,
        help="file for the result of one photo, or folder for the results (default: beside each "
        "photo)",
    )
    parser.add_argument(
        "--max-side",
        type=positive,
        metavar="N",
        help="shrink photos to a longer side of at most N pixels (default: not at all; for a sheet "
        f"of all styles, {SHEET_SIDE})",
    )
    parser.add_argument(
        "--suffix",
        help="text between a photo's name and its extension (default: a dot and the model's name; "
        "with --output, none)",
    )
    parser.add_argument(
        "--format",
        choices=("jpg", "png", "webp", "tif", "bmp"),
        help="format of the results (default: that of each photo)",
    )
    parser.add_argument(
        "--quality",
        type=percent,
        metavar="1..100",
        help=f"quality of JPEG and WebP results (default: {_QUALITY})",
    )
    add_grain(parser)
    add_strokes(parser)
    add_max_pixels(parser)
    add_memory(parser)
    add_device(parser)
    parser.add_argument(
        "--threads",
        type=thread_count,
        metavar="N",
        help="number of CPU threads (default: torch's choice)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the network first, which may take minutes; useful for many photos on a GPU, "
        "slower on a CPU",
    )
    add_include_results(parser)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace existing results")
    existing.add_argument(
        "--skip-existing", action="store_true", help="skip photos whose result exists"
    )


class ResultPlace(NamedTuple):
    """What --output names."""

    path: Path
    is_folder: bool
    """Whether it ends with a slash; otherwise it may be either."""


def result_place(text: str) -> ResultPlace:
    """The file or folder of the results; on Windows, a backslash ends a folder, too."""
    return ResultPlace(output_path(text), text.endswith(("/", os.sep)))


def run(options: argparse.Namespace) -> int:
    """Stylize the photos of the command line; returns the exit code."""
    from fast_style.models.model_files import read_description
    from fast_style.pictures.profiles import line_about_profiles
    from fast_style.pictures.scanning import LeftOut, keep_silent, lines_about
    from fast_style.pictures.several import line_about_several
    from fast_style.stylizing.jobs import plan_jobs

    # Mistakes are reported before seconds are spent on importing torch.
    if "" in options.words:  # an unset shell variable; Path("") would be the working directory
        raise UserError("a PHOTO is an empty word; name a file or a folder")
    launch = read_launch()
    models = _models(options)
    descriptions = [read_description(model) for model in models]
    name = ALL if options.style == ALL else descriptions[0]["name"]
    tell = note if launch.is_first else keep_silent
    plan = plan_jobs(
        expanded(map(usual_path, options.words)),
        _output_options(options, name),
        takes_results=options.include_results,
        tell=tell,
    )
    for line in (*lines_about(plan.left_out, "--include-results"), _about_quality(options, plan)):
        if line:
            tell(line)
    for label in (description["loss_network"]["label"] for description in descriptions):
        if label.startswith("RANDOM"):
            tell(f"this model is only a test, trained with {label}")
    try:
        done = _stylize(options, models, plan, launch)
    except KeyboardInterrupt:
        if len(plan.jobs) > 1 and launch.is_alone:
            instead = " in place of --overwrite" if options.overwrite else ""
            note(
                "stopped before all photos were done; the same command with --skip-existing"
                f"{instead} stylizes the others"
            )
        raise
    results = done.results
    for line in (
        _line_about_alpha(done.flattened),
        line_about_several(done.several),
        line_about_profiles(done.unprofiled),
    ):
        if line:
            tell(line)
    if results:
        summary = LeftOut(Path(), {"result": results}).summary("--include-results")
        if len(results) == len(plan.jobs) and not plan.skipped:
            # An error, as if they had been known by their names.
            raise UserError(f"no photos to stylize; {summary}" if launch.is_first else "")
        tell(summary)
    if (len(plan.jobs) > 1 or plan.skipped) and launch.is_first:
        say(_counts(plan, done))
    return 1 if done.num_failed else 0


@dataclass
class _Done:
    """What became of the jobs of one process or several.

    Attributes:
        num_failed: of them.
        num_skipped: of them, because their result had appeared by then.
        results: photos that are results of this software.
        flattened: outputs whose format cannot store the transparency of their photos.
        several: photos whose files hold several pictures, and how many.
        unprofiled: photos whose color profile cannot be applied.
    """

    num_failed: int = 0
    num_skipped: int = 0
    results: list[str] = field(default_factory=list)
    flattened: list[str] = field(default_factory=list)
    several: list[tuple[str, int]] = field(default_factory=list)
    unprofiled: list[str] = field(default_factory=list)

    def add(self, other: "_Done") -> None:
        """Add what became of further jobs."""
        self.num_failed += other.num_failed
        self.num_skipped += other.num_skipped
        self.results += other.results
        self.flattened += other.flattened
        self.several += other.several
        self.unprofiled += other.unprofiled


def _line_about_alpha(outputs: Sequence[str]) -> str:
    from fast_style.pictures.scanning import first_of

    if not outputs:
        return ""
    what = "result has" if len(outputs) == 1 else "results have"
    return (
        f"{len(outputs):,} {what} white in place of transparency: {first_of(sorted(outputs))}; "
        "png, webp and tif keep it"
    )


def _counts(plan: "Plan", done: _Done) -> str:
    """How many photos are done, skipped and failed, and how many results are left out.

    Args:
        plan: has the results that were known by their names.
        done: what became of its jobs, with the results that were known by their mark.
    """
    results = done.results
    num_done = len(plan.jobs) - done.num_failed - done.num_skipped - len(results)
    num_results = len(results) + sum(len(found.names.get("result", ())) for found in plan.left_out)
    num_skipped = len(plan.skipped) + done.num_skipped
    counts = f"{num_done} done, {num_skipped} skipped, {done.num_failed} failed"
    if num_results:
        counts += f", {count(num_results, 'result')} left out"
    return counts


def _models(options: argparse.Namespace) -> list[Path]:
    """The model that the command line names, or those of all styles.

    Raises:
        UserError: no style of that name comes with fast-style, or all would be compiled.
    """
    if options.style is None:
        if not os.path.exists(options.model) and (style := style_named(options.model)):
            raise UserError(
                f"--model {printable(options.model)}: not found, but a style of this name comes "
                f"with fast-style; give --style {style.name} in place of --model"
            )
        return [options.model]
    if options.style != ALL:
        return [find_style(options.style).model]
    if options.compile:
        raise UserError(
            f"--compile: would take minutes for every style; remove it, or --style {ALL}"
        )
    return [style.model for style in require_styles("give a model.safetensors with --model")]


def _suffix_of(model_name: object) -> str:
    """The suffix of results that are named after their model.

    Raises:
        UserError: the name, which may come from anybody, has what no file's name should have.
    """
    is_usable = isinstance(model_name, str) and model_name.isprintable()
    if not is_usable or {"/", "\\", os.sep} & {*str(model_name)}:
        raise UserError(
            f"--model: its name {shown(model_name)} cannot be a part of the results' names; set "
            "--suffix or --output"
        )
    return f".{model_name}"


def _output_options(options: argparse.Namespace, model_name: str) -> "OutputOptions":
    from fast_style.stylizing.jobs import OutputOptions

    if options.quality and options.format and not _has_quality(f".{options.format}"):
        raise UserError(
            f"--quality {options.quality}: --format {options.format} loses nothing of a picture, "
            "and has no quality; leave one of them out"
        )
    suffix = options.suffix
    if suffix is None:
        suffix = "" if options.output else _suffix_of(model_name)
    if os.sep in suffix or "/" in suffix:
        raise UserError(f"--suffix {suffix!r}: must not contain a path separator")
    output, is_folder = options.output or (None, False)
    return OutputOptions(
        output=output,
        is_folder=is_folder,
        suffix=suffix,
        format=options.format,
        overwrite=options.overwrite,
        skip_existing=options.skip_existing,
    )


def _has_quality(suffix: str) -> bool:
    from fast_style.pictures.writing import WRITABLE

    return WRITABLE.get(suffix.lower()) in _WITH_QUALITY


def _about_quality(options: argparse.Namespace, plan: "Plan") -> str:
    """A line if --quality changes nothing, as where the photos are PNGs; empty otherwise."""
    from fast_style.stylizing.jobs import named_otherwise

    outputs = [Path(job.output) for job in plan.jobs]
    if options.quality is None or not outputs or any(_has_quality(path.suffix) for path in outputs):
        return ""
    is_named = options.output is not None and outputs == [options.output.path]
    remedy = named_otherwise(outputs[0], ".jpg", plan.jobs[0].photo) if is_named else "--format jpg"
    return (
        f"--quality {options.quality}: changes nothing, since no result is a JPEG or WebP; leave "
        f"it out, or give {remedy}"
    )


def _stylize(
    options: argparse.Namespace, models: Sequence[Path], plan: "Plan", launch: Launch
) -> _Done:
    """Do the jobs, shared among all processes; returns what became of those of all."""
    import torch

    from fast_style.core.devices import resolve_device

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = own_device(resolve_device(options.device), launch)
    advice = "The same command with --skip-existing stylizes the remaining photos"
    # The processes exchange only objects, through the CPU.
    with joined(launch, torch.device("cpu"), advice=advice) as group:
        # No process writes a result before every process has looked for existing ones. All use the
        # list of rank zero, since the folders may have changed meanwhile.
        jobs = group.gather(plan.jobs)[0]
        if options.compile and launch.is_first:
            on_cpu = "; on a CPU, the compiled network is slower" if device.type == "cpu" else ""
            note(f"compiling takes a minute or two the first time{on_cpu}")
        painter = _painter(options, models, str(device))
        share = jobs[launch.rank :: launch.world_size]
        own = _stylize_share(options, painter, share, takes_results=plan.takes_results)
        # torchrun ends all processes as soon as one has failed, so each waits for the last photo.
        done = _Done()
        for share_done in group.gather(own):
            done.add(share_done)
        return done


def _painter(options: argparse.Namespace, models: Sequence[Path], device: str) -> "Painter":
    if options.style == ALL:
        from fast_style.stylizing.style_sheet import StyleSheet

        return StyleSheet(
            models,
            device=device,
            memory_bytes=options.memory,
            grain=options.grain,
            strokes=options.strokes,
        )
    from fast_style.stylizing.stylizer import Stylizer

    return Stylizer(
        models[0],
        device=device,
        memory_bytes=options.memory,
        compile=options.compile,
        grain=options.grain,
        strokes=options.strokes,
    )


def _stylize_share(
    options: argparse.Namespace,
    painter: "Painter",
    jobs: "Sequence[Job]",
    *,
    takes_results: bool,
) -> _Done:
    """Do the jobs of this process and report each; returns what became of them."""
    from tqdm import tqdm

    from fast_style.pictures.reading import ResultError
    from fast_style.stylizing.folder import stylize_files
    from fast_style.stylizing.jobs import ExistingError

    outcomes = stylize_files(
        painter,
        jobs,
        max_side=options.max_side or (SHEET_SIDE if options.style == ALL else None),
        quality=options.quality or _QUALITY,
        takes_results=takes_results,
        overwrite=options.overwrite,
        progress=_BandsBar() if sys.stderr.isatty() else None,
    )
    done = _Done()
    # Several photos on a terminal have a progress bar. Otherwise, each result is a line.
    show_bar = len(jobs) > 1 and sys.stderr.isatty() and read_launch().is_alone
    bar = tqdm(outcomes, total=len(jobs), unit=" photos", bar_format=_BAR, disable=not show_bar)
    with closing(outcomes), bar:  # an interrupt ends the threads of `outcomes` at once
        for outcome in bar:
            if isinstance(outcome.error, ResultError):
                done.results.append(outcome.job.photo)
            elif isinstance(outcome.error, ExistingError) and options.skip_existing:
                done.num_skipped += 1
            elif outcome.error is not None:
                done.num_failed += 1
                tqdm.write(f"error: {outcome.error}", file=sys.stderr)
            elif not show_bar:
                say(printable(outcome.job.output))
            if outcome.loses_alpha:
                done.flattened.append(outcome.job.output)
            if outcome.num_pictures > 1:
                done.several.append((outcome.job.photo, outcome.num_pictures))
            if outcome.ignores_profile:
                done.unprofiled.append(outcome.job.photo)
    return done


class _BandsBar:
    """A progress bar for a photo that is stylized in bands, which may take minutes."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def __call__(self, share: float) -> None:
        from tqdm import tqdm

        bar = self._bar
        if bar is None:
            form = "{l_bar}{bar}| {elapsed}<{remaining}"
            bar = tqdm(total=100, desc="in bands", bar_format=form, leave=False)
        bar.update(100 * share - bar.n)
        self._bar = bar
        if share >= 1:  # the next photo in bands begins a new bar
            bar.close()
            self._bar = None
