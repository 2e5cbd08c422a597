"""``fast-style evaluate``: measure models on held-out photos, and write a report."""

import argparse
import shlex
import sys

from fast_style.cli.arguments import add_device, nonempty_path, positive
from fast_style.cli.process import lines_beside, say, stop_signals
from fast_style.core.errors import Stopped, printable

SUMMARY = "compare models with the optimization method, on held-out photos"
EXAMPLES = """\
examples:
  # the model of a run against L-BFGS on the same losses: hours on a CPU; repeat it to resume
  {prog} runs/wave/model.safetensors --photos val2017/ --count 10 --output report/
  # a first look: two photos, 100 iterations
  {prog} runs/wave/model.safetensors --photos val2017/ --quick --output report/
  # models that were trained for different objectives, measured with one
  {prog} a.safetensors b.safetensors --loss my.yaml --style wave.jpg --photos val/ -o report/
"""
LESS_MEMORY = "use smaller --sizes"

_QUICK_PHOTOS, _QUICK_ITERATIONS = 2, 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "models", nargs="+", type=nonempty_path, metavar="MODEL", help="model.safetensors of a run"
    )
    parser.add_argument(
        "--photos",
        nargs="+",
        type=nonempty_path,
        required=True,
        metavar="FOLDER",
        help="photos that no model was trained on: folders or files",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=nonempty_path,
        required=True,
        metavar="REPORT",
        help="folder for the report, and for the L-BFGS results from which a repeated command "
        "resumes",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=positive,
        default=[256],
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
        default=500,
        metavar="N",
        help="iterations of L-BFGS (default: 500)",
    )
    parser.add_argument(
        "--baseline",
        nargs="+",
        choices=("box", "clip"),
        default=("box", "clip"),
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
        type=nonempty_path,
        metavar="PICTURE",
        help="style picture (default: style.png of the first model's run folder)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of the loss network: a file, or a word as in loss_network.weights (default: "
        "loss_network.weights of the settings; but the full network in place of the first model's "
        "compact if torch's cache has it)",
    )
    parser.add_argument(
        "--loss",
        type=nonempty_path,
        metavar="CONFIG.yaml",
        help="training YAML for loss, loss_network and style.size (default: the first model's "
        "settings)",
    )
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluate, and write the report; returns the exit code."""
    _require_inputs(options)
    from tqdm import tqdm

    from fast_style.core.devices import resolve_device
    from fast_style.evaluating.evaluation import evaluate
    from fast_style.evaluating.objective import load_models, load_objective
    from fast_style.evaluating.plan import make_plan, pixel_iterations
    from fast_style.evaluating.plots import require_plotting
    from fast_style.evaluating.report import write_report

    require_plotting()
    device = resolve_device(options.device)
    plan = make_plan(
        options.photos,
        sizes=options.sizes,
        counts=[_QUICK_PHOTOS] if options.quick else options.count,
        iterations=min(options.iterations, _QUICK_ITERATIONS)
        if options.quick
        else options.iterations,
        variants=options.baseline,
    )
    models = load_models(options.models, device)
    objective = load_objective(
        models,
        style=options.style,
        weights=options.weights,
        loss=options.loss,
        device=device,
        say=say,
    )
    # Without tqdm's counts: pixels times iterations mean nothing to a reader.
    bar_format = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left, {desc}"
    with (
        tqdm(total=pixel_iterations(plan), bar_format=bar_format, disable=None) as bar,
        stop_signals() as stop_signal,
    ):

        def progress(work: int, doing: str) -> None:
            bar.set_description_str(doing, refresh=False)
            bar.update(work)
            signal_number = stop_signal()
            if signal_number is not None:
                raise Stopped(signal_number)

        tell = lines_beside(bar)
        try:
            results, grid = evaluate(
                models, objective, plan, options.output, device=device, progress=progress, say=tell
            )
        except Stopped as stopped:
            tell("stopped; repeat the command to resume after the last finished L-BFGS result")
            return 128 + stopped.signal_number
    results["command"] = shlex.join(["fast-style", *sys.argv[1:]])
    for path in write_report(options.output, results, grid):
        say(printable(path))
    return 0


def _require_inputs(options: argparse.Namespace) -> None:
    """Check files and settings before torch takes seconds to import.

    Raises:
        UserError: names the first file that is missing or wrong.
    """
    from fast_style.losses.inputs import require_weights
    from fast_style.models.model_files import read_description
    from fast_style.pictures.folders import pictures_of
    from fast_style.pictures.reading import require_picture
    from fast_style.settings.config import load_config

    for path in options.models:
        read_description(path)
    pictures_of(options.photos)
    if options.style is not None:
        require_picture(options.style)
    config = load_config(options.loss) if options.loss is not None else None
    if options.weights is not None:
        require_weights(options.weights, "--weights")
    elif config is not None:
        require_weights(config.loss_network.weights)
