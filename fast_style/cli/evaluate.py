"""``fast-style evaluate``: measure models on held-out photos, and write a report."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fast_style.cli.arguments import (
    add_device,
    add_include_results,
    add_max_pixels,
    expanded,
    input_path,
    nonempty_path,
    output_path,
    positive,
    style_picture,
    word_or_file,
)
from fast_style.cli.notes import each_once, note
from fast_style.cli.process import lines_beside, say
from fast_style.core.errors import Stopped, UserError, printable, unwritten
from fast_style.core.files import made_folders
from fast_style.core.signals import stop_signals

if TYPE_CHECKING:
    import torch

    from fast_style.evaluating.objective import Model
    from fast_style.pictures.folders import Inputs

SUMMARY = "compare models with the optimization method, on held-out photos"
EXAMPLES = """\
examples:
  # the model of a run against L-BFGS on the same losses: hours on a CPU; repeat it to resume
  {prog} runs/wave/model.safetensors --photos val2017/ --count 10 --output report/
  # a first look: two photos, 100 iterations
  {prog} runs/wave/model.safetensors --photos val2017/ --quick --output report/
  # models that were trained for different objectives, measured with one
  {prog} a.safetensors b.safetensors --loss my.yaml --style wave.jpg --photos val/ -o report/
  # models of any styles, measured with the one objective that never changes
  {prog} a.safetensors b.safetensors --judge --photos val/ --count 4 -o report/
"""

_QUICK_PHOTOS, _QUICK_ITERATIONS = 2, 100
_SIZES, _ITERATIONS = [256], 500
_BASELINES: tuple[Literal["box", "clip"], ...] = ("box", "clip")
_LOCK = ".evaluating"
_JUDGE_CACHE = Path("judge_cache")
_NOT_THE_JUDGES = ("imagenet", "compact", "random")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "models", nargs="+", type=nonempty_path, metavar="MODEL", help="model.safetensors of a run"
    )
    parser.add_argument(
        "--photos",
        nargs="+",
        action="extend",
        type=nonempty_path,
        required=True,
        metavar="FOLDER",
        help="photos that no model was trained on: folders or files",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=output_path,
        required=True,
        metavar="REPORT",
        help="folder for the report, and for the L-BFGS results from which a repeated command "
        "resumes",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a report of another command or other files",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=positive,
        metavar="N",
        help="sides in pixels of the squares cut from the photos (default: 256)",
    )
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument(
        "--count",
        nargs="+",
        type=positive,
        metavar="N",
        help="number of photos, evenly spread over the folder: one for all sizes, or one for each "
        "size (default: all photos)",
    )
    parser.add_argument(
        "--iterations",
        type=positive,
        metavar="N",
        help="iterations of L-BFGS (default: 500)",
    )
    parser.add_argument(
        "--baseline",
        nargs="+",
        choices=_BASELINES,
        help="box: L-BFGS within [0, 1] from the photo; clip: clipped L-BFGS from white noise, as "
        "in Johnson et al. 2016 (default: both)",
    )
    how_many.add_argument(
        "--quick",
        action="store_true",
        help=f"{_QUICK_PHOTOS} photos and at most {_QUICK_ITERATIONS} iterations",
    )
    parser.add_argument(
        "--style",
        type=style_picture,
        metavar="PICTURE",
        help="style picture, or the name of a style that comes with fast-style (default: style.png "
        "of the first model's run folder)",
    )
    parser.add_argument(
        "--weights",
        type=word_or_file("imagenet_features", *_NOT_THE_JUDGES),
        metavar="FILE",
        help="weights of the loss network: a file, or a word as in loss_network.weights (default: "
        "loss_network.weights of the settings; but the full network in place of the first model's "
        "compact if torch's cache has it)",
    )
    parser.add_argument(
        "--loss",
        type=input_path,
        metavar="CONFIG.yaml",
        help="training YAML for loss, loss_network and style.size (default: the first model's "
        "settings)",
    )
    judge = parser.add_argument_group(
        "the judge",
        "one objective for all models, whatever each was trained with: VGG-16 up to relu4_3 "
        "(configs/judge.yaml), against 100 iterations of L-BFGS; and a second opinion",
    )
    judge.add_argument(
        "--judge",
        action="store_true",
        help="measure with the judge; each model in its own style, unless --style names one",
    )
    judge.add_argument(
        "--second-opinion",
        type=word_or_file("none"),
        metavar="FILE",
        help="SqueezeNet 1.0, as torchvision publishes it (default: from torch's cache, or "
        "downloaded, 5 MB); none: no second opinion",
    )
    judge.add_argument(
        "--judge-cache",
        type=output_path,
        metavar="FOLDER",
        help="folder of the judge's L-BFGS results, which all reports share (default: "
        f"{_JUDGE_CACHE} in the working directory)",
    )
    add_include_results(parser)
    add_device(parser)
    add_max_pixels(parser)


def less_memory(options: argparse.Namespace) -> str:
    """The remedy for a lack of memory."""
    # The judge's size is fixed.
    return (
        "close other programs, or use another --device" if options.judge else "use smaller --sizes"
    )


def run(options: argparse.Namespace) -> int:
    """Evaluate, and write the report; returns the exit code."""
    _require_fitting(options)
    options.models, options.photos = (
        each_once(expanded(options.models), "measured"),
        expanded(options.photos),
    )
    photos = _require_inputs(options)
    from fast_style.evaluating.earlier import names_of_judgment, names_of_report
    from fast_style.evaluating.plots import require_plotting

    require_plotting()
    with _held(options.output):
        if not options.overwrite:
            _require_no_other_report(options.output, _kind(options))
        # The judge's grids have the names of styles, which are known when the models are loaded.
        names = names_of_judgment(()) if options.judge else names_of_report(options.sizes or _SIZES)
        _require_nothing_lost(options, names)
        try:
            return (_run_judge if options.judge else _run_evaluation)(options, photos)
        except Stopped as stopped:
            return 128 + stopped.signal_number


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a report's folder, which is made, so that no other evaluation writes into it.

    The lock lies in a folder of its own, which is removed in the end: a user's folder may have a
    file ``lock``. What a killed evaluation left is taken over.

    Raises:
        UserError: another evaluation holds the folder, or it cannot be written.
    """
    from fast_style.core.folder_lock import FolderLock, Held

    home = folder / _LOCK
    with ExitStack() as stack:
        try:
            stack.enter_context(made_folders(home))
            lock = FolderLock(home, say)
        except Held as held:
            raise UserError(
                f"{printable(folder)}: {held.holder or 'another process'} writes a report into "
                "this folder already; wait for it, or choose another --output"
            ) from None
        except OSError as error:
            raise unwritten(folder, error, "choose another --output", exit_code=2) from None
        try:
            yield
        finally:
            # Before the release: whoever waits for this file finds out that it is gone.
            for remove in ((home / "lock").unlink, lock.release, home.rmdir):
                with suppress(OSError):  # Windows keeps an open file
                    remove()


def _require_no_other_report(folder: Path, name: str) -> None:
    """Check that a folder has no report, or that of this very command, which is made again.

    Args:
        folder: the report's.
        name: of its file of numbers, without ``.json``.

    Raises:
        UserError: it has another report, or a file of the same name.
    """
    from fast_style.evaluating.pages import command_of, without_folders

    file = folder / f"{name}.json"
    if os.path.lexists(file) and command_of(file) != without_folders(_command()):
        raise UserError(
            f"{printable(file)}: exists already, and is not of this command; choose another "
            "--output, or replace it with --overwrite"
        )


def _require_nothing_lost(options: argparse.Namespace, names: Sequence[str]) -> None:
    from fast_style.evaluating.earlier import require_nothing_lost

    require_nothing_lost(options.output, _kind(options), names, overwrite=options.overwrite)


def _digest_of_inputs(
    options: argparse.Namespace, models: "Sequence[Model]", objective: str, photos: Sequence[Path]
) -> str:
    """Digest of what the report is of; an earlier report must be of the same, or --overwrite."""
    from fast_style.evaluating.earlier import inputs_digest, require_same_inputs

    inputs = inputs_digest(models, objective, photos)
    if not options.overwrite:
        require_same_inputs(options.output, _kind(options), models, inputs)
    return inputs


def _models(options: argparse.Namespace, device: "torch.device") -> "list[Model]":
    """The models to evaluate; prints which of them ask for grain."""
    from fast_style.evaluating.objective import load_models
    from fast_style.models.model_files import grain_of

    models = load_models(options.models, device)
    for model in models:
        if levels := grain_of(model.metadata):
            note(
                f"{printable(model.name)}: is measured without the grain of {levels:g} that "
                "stylize adds to photos for it (--grain 0 adds none)"
            )
    return models


def _kind(options: argparse.Namespace) -> Literal["judge", "results"]:
    """The kind of the report, which is the name of its file of numbers without ``.json``."""
    return "judge" if options.judge else "results"


def _run_evaluation(options: argparse.Namespace, photos: "Inputs") -> int:
    from fast_style.core.devices import resolve_device
    from fast_style.evaluating.evaluation import evaluate
    from fast_style.evaluating.objective import load_objective
    from fast_style.evaluating.plan import make_plan, pixel_iterations
    from fast_style.evaluating.report import write_report

    device = resolve_device(options.device)
    iterations = options.iterations or _ITERATIONS
    plan = make_plan(
        photos.pictures,
        sizes=options.sizes or _SIZES,
        counts=[_QUICK_PHOTOS] if options.quick else options.count,
        iterations=min(iterations, _QUICK_ITERATIONS) if options.quick else iterations,
        variants=options.baseline or _BASELINES,
        takes_results=photos.takes_results,
        say=say,
    )
    models = _models(options, device)
    objective = load_objective(
        models,
        style=options.style,
        weights=options.weights,
        loss=options.loss,
        device=device,
        say=say,
    )
    files = [file for of_size in plan.photos.values() for file in of_size]
    inputs = _digest_of_inputs(options, models, objective.digest, files)
    with _shown_progress(pixel_iterations(plan)) as (progress, tell):
        results, grid = evaluate(
            models, objective, plan, options.output, device=device, progress=progress, say=tell
        )
    results |= {"inputs_digest": inputs, "command": _command()}
    for path in write_report(options.output, results, grid, say):
        say(printable(path))
    return 0


def _run_judge(options: argparse.Namespace, photos: "Inputs") -> int:
    from fast_style.core.devices import resolve_device
    from fast_style.evaluating.earlier import names_of_judgment
    from fast_style.evaluating.judge import Judge
    from fast_style.evaluating.judge_report import write_judge_report
    from fast_style.evaluating.pages import make_folder
    from fast_style.evaluating.plan import choose_photos

    make_folder(options.output)
    device = resolve_device(options.device)
    files = photos.pictures
    count = options.count[0] if options.count else len(files)
    (chosen,) = choose_photos(files, [count], takes_results=photos.takes_results, say=say)
    judge = Judge(
        _models(options, device),
        chosen,
        style=options.style,
        weights=options.weights,
        second_opinion=options.second_opinion,
        cache=options.judge_cache or _JUDGE_CACHE,
        device=device,
    )
    inputs = _digest_of_inputs(options, judge.models, judge.objective_digest, chosen)
    _require_nothing_lost(options, names_of_judgment(judge.styles))
    with _shown_progress(judge.work) as (progress, tell):
        results, grids = judge.run(progress, tell)
    results |= {"inputs_digest": inputs, "command": _command()}
    for path in write_judge_report(options.output, results, grids, say):
        say(printable(path))
    return 0


@contextmanager
def _shown_progress(
    work: int,
) -> Iterator[tuple[Callable[[int, str], None], Callable[[str], None]]]:
    """A progress bar: what advances it and ends the work on a signal, what prints beside it."""
    from tqdm import tqdm

    # Without tqdm's counts: pixels times iterations mean nothing to a reader.
    bar_format = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left, {desc}"
    with (
        tqdm(total=work, bar_format=bar_format, disable=None) as bar,
        stop_signals(unit="iteration") as stop_signal,
    ):

        def progress(done: int, doing: str) -> None:
            bar.set_description_str(doing, refresh=False)
            bar.update(done)
            signal_number = stop_signal()
            if signal_number is not None:
                raise Stopped(signal_number)

        tell = lines_beside(bar)
        try:
            yield progress, tell
        except Stopped:
            tell("stopped; repeat the command to resume after the last finished L-BFGS result")
            raise


def _command() -> str:
    return shlex.join(["fast-style", *(word for word in sys.argv[1:] if word != "--overwrite")])


def _require_fitting(options: argparse.Namespace) -> None:
    """Check that options fit together.

    Raises:
        UserError: an option has no effect with, or without, --judge.
    """
    if options.judge:
        if options.weights in _NOT_THE_JUDGES:
            raise UserError(
                f"--weights: the judge's network is VGG-16 of Caffe origin, got {options.weights}; "
                "give a file of it, or remove --weights to take torchvision's imagenet_features"
            )
        fixed = ("loss", "sizes", "iterations", "baseline", "quick")
        for name in fixed:
            if getattr(options, name):
                raise UserError(
                    f"--{name}: the judge's is fixed, so that all its numbers can be compared; "
                    f"remove --{name}, or --judge"
                )
        if options.count and len(options.count) > 1:
            raise UserError(
                f"--count: got {len(options.count)} numbers, but the judge has one size; give one"
            )
    else:
        for name in ("second_opinion", "judge_cache"):
            if getattr(options, name):
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option}: works with --judge only; add --judge")


def _require_inputs(options: argparse.Namespace) -> "Inputs":
    """Check files and settings before torch takes seconds to import; returns the photos.

    Says what is left out of the folders of photos.

    Raises:
        UserError: names the first file that is missing or wrong.
    """
    from fast_style.losses.inputs import JUDGE_WORDS, require_style_picture, require_weights
    from fast_style.models.model_files import read_description
    from fast_style.pictures.folders import find_inputs
    from fast_style.pictures.scanning import lines_about
    from fast_style.settings.config import load_config
    from fast_style.settings.sections import NAMED_WEIGHTS

    for path in options.models:
        read_description(path)
    _require_own_folder(options)
    photos = find_inputs(options.photos, takes_results=options.include_results, tell=say)
    for line in lines_about(photos.left_out, "--include-results"):
        say(line)
    if options.style is not None:
        require_style_picture(options.style)
    config = load_config(options.loss) if options.loss is not None else None
    if options.weights is not None:
        words = JUDGE_WORDS if options.judge else NAMED_WEIGHTS
        require_weights(options.weights, "--weights", words)
    elif config is not None:
        require_weights(config.loss_network.weights)
    return photos


def _require_own_folder(options: argparse.Namespace) -> None:
    """Check that the report's folder is not that of photos or of a run.

    A report's own pictures among photos would have to be told from them by their names.

    Raises:
        UserError: it is one of the folders of photos, holds pictures, or a run fills it.
    """
    from fast_style.evaluating.pages import command_of
    from fast_style.pictures.own_files import is_filled_by_a_run, picture_of_a_user_in

    output: Path = options.output
    advice = "choose another --output, such as a new folder report in it"
    real_output = Path(os.path.realpath(output))
    for photo in options.photos:
        real_photo = Path(os.path.realpath(photo))
        if real_photo.is_relative_to(real_output):
            found = "is" if real_photo == real_output else "holds"
            raise UserError(
                f"--output {printable(output)}: {found} an input, --photos {printable(photo)}, and "
                f"is no place for a report; {advice}"
            )
    if is_filled_by_a_run(output):
        raise UserError(f"--output {printable(output)}: is a folder of a run; {advice}")
    # A report that was written among photos can still be written again.
    has_report = any(command_of(output / name) for name in ("results.json", "judge.json"))
    if not has_report and (picture := picture_of_a_user_in(output)) is not None:
        raise UserError(
            f"--output {printable(output)}: holds pictures, such as {printable(picture)}; {advice}"
        )
