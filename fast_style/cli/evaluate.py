"""``fast-style evaluate``: models in, a report on how good they are out."""

import argparse
import shlex
import signal
import sys

from fast_style.cli.arguments import add_device, nonempty_path, positive
from fast_style.cli.process import lines_beside, say, stop_signals
from fast_style.core.errors import Stopped, printable

SUMMARY = "compare models with the optimization method, on held-out photos"
EXAMPLES = """\
examples:
  # the model of a run against L-BFGS on its own losses: hours on a CPU; the same again continues
  {prog} runs/wave/model.safetensors --photos val2017/ --count 10 --output report/
  # a first look: two photos, 100 iterations
  {prog} runs/wave/model.safetensors --photos val2017/ --quick --output report/
  # models of different origin on one objective
  {prog} a.safetensors b.safetensors --loss my.yaml --style wave.jpg --photos val/ -o report/
"""
LESS_MEMORY = "use smaller --sizes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    parser.add_argument(
        "models", nargs="+", type=nonempty_path, metavar="MODEL", help="model.safetensors of runs"
    )
    parser.add_argument(
        "--photos",
        nargs="+",
        type=nonempty_path,
        required=True,
        metavar="FOLDER",
        help="held-out photos: folders or files",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=nonempty_path,
        required=True,
        metavar="REPORT",
        help="the report's folder",
    )
    parser.add_argument(
        "--sizes", nargs="+", type=positive, default=[256], metavar="N", help="pixels (256)"
    )
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument(
        "--count",
        nargs="+",
        type=positive,
        metavar="N",
        help="photos, spread evenly over the folder: one number, or one for each size (all)",
    )
    parser.add_argument(
        "--iterations", type=positive, default=500, metavar="N", help="of L-BFGS (500)"
    )
    parser.add_argument(
        "--baseline",
        nargs="+",
        choices=("box", "clip"),
        default=("box", "clip"),
        help="box: L-BFGS within [0, 1], from the photo; clip: the paper's, from noise (both)",
    )
    how_many.add_argument(
        "--quick", action="store_true", help="two photos and 100 iterations: a first look"
    )
    parser.add_argument(
        "--style",
        type=nonempty_path,
        metavar="PICTURE",
        help="instead of the run folder's style.png",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="of the loss network: a file, or a word as in loss_network.weights, instead of what "
        "the settings name (where a model's name compact: imagenet if torch's cache has it)",
    )
    parser.add_argument(
        "--loss",
        type=nonempty_path,
        metavar="CONFIG.yaml",
        help="a training YAML: its loss, loss_network and style.size",
    )
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    _require_inputs(options)
    from tqdm import tqdm

    from fast_style.core.devices import resolve_device
    from fast_style.evaluating import evaluation
    from fast_style.evaluating.plots import require_plotting
    from fast_style.evaluating.report import write_report

    require_plotting()
    device = resolve_device(options.device)
    plan = evaluation.make_plan(
        options.photos,
        sizes=options.sizes,
        counts=[2] if options.quick else options.count,
        iterations=min(options.iterations, 100) if options.quick else options.iterations,
        variants=options.baseline,
    )
    models = evaluation.load_models(options.models, device)
    objective = evaluation.load_objective(
        models,
        style=options.style,
        weights=options.weights,
        loss=options.loss,
        device=device,
        say=say,
    )
    # tqdm's own counts would be of pixels times iterations, which nobody wants to read.
    bar_format = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left, {desc}"
    work = evaluation.work_of(plan)
    with (
        tqdm(total=work, bar_format=bar_format, disable=None) as bar,
        stop_signals() as stop_signal,
    ):

        def progress(work: int, doing: str) -> bool:
            bar.set_description_str(doing, refresh=False)
            bar.update(work)
            return stop_signal() is None

        tell = lines_beside(bar)

        try:
            results, grid = evaluation.evaluate(
                models, objective, plan, options.output, device=device, progress=progress, say=tell
            )
        except Stopped:
            tell("stopped; the same command begins that photo again, and keeps the finished ones")
            return 128 + (stop_signal() or signal.SIGINT)
    results["command"] = shlex.join(["fast-style", *sys.argv[1:]])
    for path in write_report(options.output, results, grid):
        say(printable(path))
    return 0


def _require_inputs(options: argparse.Namespace) -> None:
    """Say what is wrong with files and settings before the seconds that torch takes."""
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
