"""The commands: argparse in, calls out. The only place that prints errors or exits.

Nothing heavy is imported before the arguments are understood, so that ``--help`` and a mistyped
option are answered at once.
"""

import argparse
import errno
import io
import itertools
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from fast_style import __version__
from fast_style.errors import UserError, printable, shortened

if TYPE_CHECKING:
    from fast_style.config import Config, GatysConfig

RUNS = Path("runs")

_TRAIN_EXAMPLES = """\
examples:
  # train; the same again continues
  {prog} configs/starry_night.yaml
  # change settings for this run
  {prog} my.yaml train.steps=2000 loss.style_weight=8
  # are photos, style and weights fine?
  {prog} my.yaml --check
  # watch
  tensorboard --logdir runs
"""
_STYLIZE_EXAMPLES = """\
examples:
  # writes photo.wave.jpg
  {prog} --model runs/wave/model.safetensors photo.jpg
  # folders keep their structure
  {prog} --model wave.safetensors --output out/ holiday/ a.png
  {prog} --model wave.safetensors --output big.png --max-side 2000 big.jpg
"""
_OPTIMIZE_EXAMPLES = """\
examples:
  {prog} configs/optimize/gatys.yaml --content photo.jpg --output drawn.png
  # settings for this once; content, style and result in one picture; the course as an animation
  {prog} my.yaml loss.style_weight=20 --content a.jpg -o b.png --sheet sheet.png --course course.gif
  # what a layer knows of a photo, and what the layers up to it know of the style picture
  {prog} my.yaml --reconstruct relu4_1 --content a.jpg -o content.png
  {prog} my.yaml --reconstruct-style relu4_1 -o style.png
"""
_EVALUATE_EXAMPLES = """\
examples:
  # the model of a run against L-BFGS on its own losses: hours on a CPU; the same again continues
  {prog} runs/wave/model.safetensors --photos val2017/ --count 10 --output report/
  # a first look: two photos, 100 iterations
  {prog} runs/wave/model.safetensors --photos val2017/ --quick --output report/
  # models of different origin on one objective
  {prog} a.safetensors b.safetensors --loss my.yaml --style wave.jpg --photos val/ -o report/
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """``fast-style COMMAND ...``; gives the exit code."""
    parser = _Parser(
        prog="fast-style", description="Train a neural style of your own, and apply it to photos."
    )
    parser.add_argument("--version", action="version", version=f"fast-style {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary, add_arguments, run, examples in (
        ("train", "train a style from a YAML file", _add_train, _train, _TRAIN_EXAMPLES),
        ("stylize", "apply a model to photos", _add_stylize, _stylize, _STYLIZE_EXAMPLES),
        (
            "optimize",
            "draw one photo by optimizing its pixels (Gatys et al.)",
            _add_optimize,
            _optimize,
            _OPTIMIZE_EXAMPLES,
        ),
        (
            "evaluate",
            "compare models with the optimization method, on held-out photos",
            _add_evaluate,
            _evaluate,
            _EVALUATE_EXAMPLES,
        ),
        (
            "init",
            "print a starting YAML file for a style picture",
            _add_init,
            _init,
            "example:\n  {prog} monet.jpg > monet.yaml\n",
        ),
        (
            "info",
            "print what a model file says of itself",
            _add_info,
            _info,
            "example:\n  {prog} runs/wave/model.safetensors\n",
        ),
        (
            "demo",
            "train a small model and use it, in minutes, on a CPU",
            _add_demo,
            _demo,
            "example:\n  # writes demo/ and runs/quickstart/ here\n  {prog}\n",
        ),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=examples.format(prog=f"fast-style {name}"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_arguments(command)
        command.set_defaults(run=run)
    return _run(parser, arguments)


def train_main(arguments: Sequence[str] | None = None) -> int:
    """``train.py CONFIG.yaml ...``."""
    return _single_command("train.py", _add_train, _train, _TRAIN_EXAMPLES, arguments)


def stylize_main(arguments: Sequence[str] | None = None) -> int:
    """``stylize.py --model MODEL PHOTO ...``."""
    return _single_command("stylize.py", _add_stylize, _stylize, _STYLIZE_EXAMPLES, arguments)


def _single_command(
    prog: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
    examples: str,
    arguments: Sequence[str] | None,
) -> int:
    parser = _Parser(
        prog=prog,
        epilog=examples.format(prog=f"python {prog}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)
    return _run(parser, arguments)


class _Parser(argparse.ArgumentParser):
    """argparse with our form of errors: one line, ``error:`` first."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message} ({self.prog} --help shows what there is)", file=sys.stderr)
        raise SystemExit(2)


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal has no letters for is shown with escapes, and stops nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            options = _parse(parser, arguments)
            code: int = options.run(options)
            return code
        finally:
            sys.stdout.flush()
    except UserError as error:
        _print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _stop_talking()
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        # Files name themselves in their errors; a full disk without a name is under our stdout.
        _stop_talking()
        print("error: the output cannot be written (the disk is full)", file=sys.stderr)
        return 1


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    options, rest = parser.parse_known_args(arguments)
    # argparse fills a list once: words behind an option that follows it are left over.
    if rest and hasattr(options, "words") and not any(word.startswith("-") for word in rest):
        options.words += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _print_error(error: UserError) -> None:
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)


# --- train --------------------------------------------------------------------------------------


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG.yaml", help="the settings")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="settings that replace the file's"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)"
    )
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: go on with an unfinished run of this name; never: begin a new run folder",
    )
    parser.add_argument(
        "--check", action="store_true", help="look at photos, style and weights; train nothing"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the complete settings; train nothing"
    )
    parser.add_argument(
        "--help-config", action="store_true", help="print all settings with defaults and meanings"
    )


def _train(options: argparse.Namespace) -> int:
    from fast_style import config as settings

    if options.help_config:
        print(settings.help_text())
        return 0
    if options.config is None:
        raise UserError("give a YAML file, such as configs/quickstart.yaml, or see --help")
    config = settings.load_config(options.config, options.words)
    if options.print_config:
        print(settings.config_to_yaml(config), end="")
        return 0
    if options.check:
        from fast_style.runs import check_inputs

        check_inputs(config, _say)
        return 0
    return train(config, device=options.device, fresh=options.resume == "never")


def train(config: "Config", *, device: str, fresh: bool) -> int:
    """Train, or go on training, with signals handled; gives the exit code."""
    from fast_style.runs import build_trainer, open_run
    from fast_style.stylizer import resolve_device
    from fast_style.trainer import Stopped

    chosen = resolve_device(device)
    run = open_run(config, root=RUNS, fresh=fresh, say=_say)
    model = run.folder / "model.safetensors"
    step = run.resume_from.metadata["step"] if run.resume_from else 0
    if step >= config.train.steps:
        _say(
            f"{run.folder}: finished at step {step}; the model is {model}. Begin anew with "
            "--resume never, or start another run from it with train.init_from"
        )
        return 0
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    try:
        trainer = build_trainer(config, run, device=chosen, say=_say, command=command)
    except (UserError, KeyboardInterrupt):
        run.abandon()
        raise
    action = f"going on at step {step}" if step else "training"
    _say(f"{action} in {run.folder} on {chosen}; watch with: tensorboard --logdir {RUNS}")
    with _stop_signals() as stop_signal:
        try:
            trainer.train(stop_signal)
        except Stopped as stopped:
            again = f"--resume auto name={run.folder.name}" if fresh else "the same command"
            _say(f"stopped at step {stopped.step}; {again} goes on from there")
            return 128 + stopped.signal_number
    _say(f"finished: {model}")
    return 0


@contextmanager
def _stop_signals() -> Iterator[Callable[[], int | None]]:
    """Inside, the first SIGINT, SIGTERM or SIGHUP is only noted; the second one leaves at once."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        with suppress(OSError):  # the terminal may be gone; print() is not safe in a handler
            os.write(2, b"stopping after this step; once more to leave at once\n")

    numbers = [
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    ]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        # nohup ignores SIGHUP for us. (Shells ignore SIGINT for what they start with &, but a
        # SIGINT that reaches us all the same was meant.)
        if number == signal.SIGINT or handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- stylize ------------------------------------------------------------------------------------


def _add_stylize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="PHOTO", help="photos, or folders of photos")
    parser.add_argument(
        "--model", "-m", type=_path, required=True, help="a model.safetensors or a checkpoint"
    )
    parser.add_argument(
        "--output",
        "-o",
        type=_path,
        help="a file for one photo, else a folder (default: beside each photo, with a suffix)",
    )
    parser.add_argument(
        "--max-side", type=_positive, metavar="N", help="shrink photos to a longer side of N pixels"
    )
    parser.add_argument(
        "--suffix", help="put behind the name (default: .MODEL's name beside photos, else nothing)"
    )
    parser.add_argument(
        "--format", choices=("jpg", "png", "webp", "tif", "bmp"), help="default: the photo's own"
    )
    parser.add_argument(
        "--quality", type=_percent, default=95, metavar="1..100", help="of JPEG and WebP (95)"
    )
    parser.add_argument(
        "--max-pixels", type=_positive, metavar="N", help="take photos of up to N pixels"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)"
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that are there")
    existing.add_argument("--skip-existing", action="store_true", help="leave out what is there")


def _stylize(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fast_style.images import DEFAULT_MAX_PIXELS
    from fast_style.stylizer import OutputOptions, Stylizer, plan_jobs, stylize_files

    if "" in options.words:  # an unset variable, which Path would take for the working directory
        raise UserError("a photo has an empty name")
    stylizer = Stylizer(options.model, device=options.device)
    suffix = options.suffix
    if suffix is None:
        suffix = "" if options.output else f".{stylizer.description['name']}"
    if os.sep in suffix or "/" in suffix:
        raise UserError(f"--suffix {suffix!r}: must not contain a path separator")
    output_options = OutputOptions(
        output=options.output,
        suffix=suffix,
        format=options.format,
        quality=options.quality,
        overwrite=options.overwrite,
        skip_existing=options.skip_existing,
    )
    jobs, skipped = plan_jobs([Path(word) for word in options.words], output_options)
    label = stylizer.description["loss_network"]["label"]
    if label.startswith("RANDOM"):
        print(f"note: this model was trained with {label}: a try-out", file=sys.stderr)
    outcomes = stylize_files(
        stylizer,
        jobs,
        max_side=options.max_side,
        max_pixels=options.max_pixels or DEFAULT_MAX_PIXELS,
        quality=options.quality,
    )
    num_failed = 0
    # A bar on a terminal when there are several; otherwise a line for every photo.
    show_bar = len(jobs) > 1 and sys.stderr.isatty()
    for outcome in tqdm(outcomes, total=len(jobs), unit="photo", disable=not show_bar):
        if outcome.error is not None:
            num_failed += 1
            tqdm.write(f"error: {outcome.error}", file=sys.stderr)
        elif not show_bar:
            _say(printable(outcome.job.output))
    if len(jobs) + len(skipped) > 1:
        _say(f"{len(jobs) - num_failed} done, {len(skipped)} skipped, {num_failed} failed")
    return 1 if num_failed else 0


def _path(text: str) -> Path:
    if not text:  # an unset variable, which Path would take for the working directory
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or len(text) > 15 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {shortened(text)!r}")
    return int(text)


def _percent(text: str) -> int:
    number = _positive(text)
    if number > 100:
        raise argparse.ArgumentTypeError(f"must be 1 to 100, got {text!r}")
    return number


# --- optimize -----------------------------------------------------------------------------------


def _add_optimize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG.yaml", help="the settings")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="settings that replace the file's"
    )
    parser.add_argument("--content", "-c", type=_path, metavar="PHOTO", help="what to draw")
    parser.add_argument("--output", "-o", type=_path, metavar="PICTURE", help="where to write it")
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that are there")
    parser.add_argument(
        "--sheet", type=_path, metavar="PICTURE", help="also write content, style and result in one"
    )
    parser.add_argument(
        "--course",
        type=_path,
        metavar="PICTURE",
        help="also write how it came about: a .gif moves, other formats show a sheet",
    )
    parser.add_argument(
        "--every",
        type=_positive,
        metavar="N",
        help="also write a picture every N iterations, as OUTPUT-00050.png",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--reconstruct",
        metavar="LAYER",
        help="only what this layer knows of the content, from noise",
    )
    which.add_argument(
        "--reconstruct-style",
        metavar="LAYER",
        help="only the style, as the first layers of the blocks up to this one know it, from noise",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the complete settings; draw nothing"
    )
    parser.add_argument(
        "--help-config", action="store_true", help="print all settings with defaults and meanings"
    )


def _optimize(options: argparse.Namespace) -> int:
    from fast_style import config as settings

    if options.help_config:
        print(settings.help_text(settings.GatysConfig))
        return 0
    if options.config is None:
        raise UserError("give a YAML file, such as configs/optimize/gatys.yaml, or see --help")
    config = settings.load_gatys_config(options.config, [*_reconstruction(options), *options.words])
    if options.print_config:
        print(settings.config_to_yaml(config), end="")
        return 0
    if options.output is None:
        raise UserError("say where to write the picture: --output PICTURE")
    if options.content is None and options.reconstruct_style is None:
        raise UserError("say what to draw: --content PHOTO")
    return optimize(config, options)


def _reconstruction(options: argparse.Namespace) -> list[str]:
    """The settings that --reconstruct and --reconstruct-style stand for."""
    for layer, of in ((options.reconstruct, "content"), (options.reconstruct_style, "style")):
        if layer is not None:
            from fast_style.gatys import reconstruction

            return reconstruction(layer, of)
    return []


def optimize(config: "GatysConfig", options: argparse.Namespace) -> int:
    """Draw one picture, with signals handled; gives the exit code."""
    from tqdm import tqdm

    from fast_style.data import read_photo
    from fast_style.gatys import Course, Look, optimize_picture
    from fast_style.images import side_by_side, write_picture
    from fast_style.stylizer import resolve_device

    each = config.optimize.iterations
    total = each * config.optimize.scales
    course = Course(total, options.output, options.every)
    _require_places(options, config, course.files())
    photo = read_photo(options.content) if options.content is not None else None
    with tqdm(total=total, unit="iteration", disable=None) as bar, _stop_signals() as stop_signal:

        def say(line: str) -> None:
            if bar.disable:
                _say(line)
            else:
                bar.write(line)

        def watch(look: Look) -> bool:
            number = look.scale * each + look.iterate.iteration
            try:
                course.see(number, look.iterate.picture)
            except UserError as error:  # a full disk: the result may still find a place
                say(f"warning: {error}")
            loss = f"loss {look.iterate.values.total:.4g}"
            bar.set_postfix_str(loss, refresh=False)
            bar.update(number - bar.n)
            is_tenth = number * 10 // total > (number - 1) * 10 // total
            if bar.disable and is_tenth and look.iterate.iteration > 0:
                _say(f"iteration {number}/{total}  {loss}")
            return stop_signal() is None

        result = optimize_picture(
            config, photo, device=resolve_device(options.device), watch=watch, say=say
        )
        signal_number = stop_signal()
    write_picture(options.output, result.picture)
    if options.sheet is not None:
        content = [] if photo is None else [photo.resize(result.picture.size)]
        write_picture(options.sheet, side_by_side([*content, result.style, result.picture]))
    if options.course is not None:
        course.write(options.course)
    best = result.minimum.best
    values = ", ".join(f"{name} {value:.4g}" for name, value in best.values._asdict().items())
    _say(
        f"{printable(options.output)}: {result.picture.width} x {result.picture.height} pixels, "
        f"{best.iteration} iterations, {best.evaluations} evaluations of the loss; {values} "
        f"({result.minimum.reason})"
    )
    if result.minimum.is_failure:
        raise UserError(
            f"{result.minimum.reason}; the best picture before that was written", exit_code=1
        )
    return 0 if signal_number is None else 128 + signal_number


def _require_places(
    options: argparse.Namespace, config: "GatysConfig", in_between: Iterable[Path]
) -> None:
    """Say what is wrong with the names of the pictures to write, before hours go into them."""
    from fast_style.images import writable_format

    sources = [
        path
        for path in (options.content, config.style.image, *config.style.blend)
        if path is not None and os.path.exists(path)
    ]
    places = [path for path in (options.output, options.sheet, options.course) if path is not None]
    taken: set[str] = set()
    for path in itertools.chain(places, in_between):
        if os.path.isdir(path):
            raise UserError(f"{printable(path)}: is a folder, where a file is to be written")
        if path is not options.course or path.suffix.lower() != ".gif":
            writable_format(path)
        if os.path.realpath(path) in taken:
            raise UserError(f"{printable(path)}: would be written twice; choose another name")
        taken.add(os.path.realpath(path))
        try:
            is_there = path.exists()
        except OSError as error:
            raise UserError(f"{printable(path)}: cannot be written ({error.strerror})") from None
        if is_there and any(path.samefile(source) for source in sources):
            raise UserError(f"{printable(path)}: is one of the pictures to begin with")
        if is_there and not options.overwrite:
            raise UserError(f"{printable(path)}: exists already; allow --overwrite")
    for folder in {path.parent for path in places}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{printable(folder)}: no folder can be made there ({error.strerror})"
            ) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{printable(folder)}: this folder cannot be written to")


# --- evaluate -----------------------------------------------------------------------------------


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="+", type=_path, metavar="MODEL", help="model.safetensors of runs"
    )
    parser.add_argument(
        "--photos",
        nargs="+",
        type=_path,
        required=True,
        metavar="FOLDER",
        help="held-out photos: folders or files",
    )
    parser.add_argument(
        "--output", "-o", type=_path, required=True, metavar="REPORT", help="the report's folder"
    )
    parser.add_argument(
        "--sizes", nargs="+", type=_positive, default=[256], metavar="N", help="pixels (256)"
    )
    parser.add_argument(
        "--count",
        nargs="+",
        type=_positive,
        metavar="N",
        help="photos, spread evenly over the folder: one number, or one for each size (all)",
    )
    parser.add_argument(
        "--iterations", type=_positive, default=500, metavar="N", help="of L-BFGS (500)"
    )
    parser.add_argument(
        "--baseline",
        nargs="+",
        choices=("box", "clip"),
        default=("box", "clip"),
        help="box: L-BFGS within [0, 1], from the photo; clip: the paper's, from noise (both)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="two photos and 100 iterations: a first look"
    )
    parser.add_argument(
        "--style", type=_path, metavar="PICTURE", help="instead of the run folder's style.png"
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="of the loss network, instead of what the settings name"
    )
    parser.add_argument(
        "--loss",
        type=_path,
        metavar="CONFIG.yaml",
        help="a training YAML: its loss, loss_network and style.size",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)"
    )


def _evaluate(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fast_style import evaluation
    from fast_style.baselines import Stopped
    from fast_style.plots import require_plotting
    from fast_style.report import write_report
    from fast_style.stylizer import resolve_device

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
        models, style=options.style, weights=options.weights, loss=options.loss, device=device
    )
    # tqdm's own counts would be of pixels times iterations, which nobody wants to read.
    bar_format = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left, {desc}"
    work = evaluation.work_of(plan)
    with (
        tqdm(total=work, bar_format=bar_format, disable=None) as bar,
        _stop_signals() as stop_signal,
    ):

        def progress(work: int, doing: str) -> bool:
            bar.set_description_str(doing, refresh=False)
            bar.update(work)
            return stop_signal() is None

        def say(line: str) -> None:
            if bar.disable:
                _say(line)
            else:
                bar.write(line)

        try:
            results, grid = evaluation.evaluate(
                models, objective, plan, options.output, device=device, progress=progress, say=say
            )
        except Stopped:
            say("stopped; the same command goes on with the photo that was begun")
            return 128 + (stop_signal() or signal.SIGINT)
    results["command"] = shlex.join(["fast-style", *sys.argv[1:]])
    for path in write_report(options.output, results, grid):
        _say(printable(path))
    return 0


# --- the others ---------------------------------------------------------------------------------


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("style", type=Path, metavar="STYLE.jpg", help="the style picture")


def _init(options: argparse.Namespace) -> int:
    from fast_style.config import starting_file
    from fast_style.images import read_picture

    read_picture(options.style)  # says what is wrong with it, if anything is
    print(starting_file(options.style), end="")
    return 0


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a model.safetensors or checkpoint"
    )


def _info(options: argparse.Namespace) -> int:
    from fast_style.checkpoint import describe, load_transform_net

    for line in describe(load_transform_net(options.model)[1]):
        print(printable(line))  # somebody else's file may hold what moves a terminal's cursor
    return 0


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)"
    )


def _demo(options: argparse.Namespace) -> int:
    from fast_style.demo import finish_demo, prepare_demo

    prepared = prepare_demo(Path("demo"))
    _say(prepared.announcement)
    code = train(prepared.config, device=options.device, fresh=False)
    if code == 0:
        for line in finish_demo(prepared, RUNS, device=options.device):
            _say(line)
    return code


def _say(line: str) -> None:
    """A line about work that goes on, whether or not anybody still listens."""
    try:
        print(line, flush=True)
    except OSError:  # `... | head`, a closed terminal, a log file on a full disk
        _stop_talking()


def _stop_talking() -> None:
    # `... | head` has seen enough. Python would complain once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
