"""``fast-style optimize``: draw one photo by changing its pixels."""

import argparse
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.cli.arguments import (
    add_device,
    add_max_pixels,
    add_settings,
    input_path,
    output_path,
    positive,
    read_settings,
)
from fast_style.cli.notes import note, note_about
from fast_style.cli.outputs import (
    make_writable_folder,
    put_in_place,
    put_picture_in_place,
    require_replaceable,
)
from fast_style.cli.process import lines_beside, say
from fast_style.core.errors import UserError, printable, shortened
from fast_style.core.signals import stop_signals
from fast_style.core.words import count

if TYPE_CHECKING:
    from fast_style.optimizing.course import Course
    from fast_style.optimizing.picture import Optimized
    from fast_style.pictures.reading import Picture
    from fast_style.settings.gatys_config import GatysConfig


SUMMARY = "draw one photo by optimizing its pixels (Gatys et al.)"
EXAMPLES = """\
examples:
  {prog} configs/optimize/gatys.yaml --content photo.jpg --output drawn.png
  # what the losses of a training ask for, before the training
  {prog} my_training.yaml optimize.iterations=60 --content photo.jpg -o wanted.png
  # a setting for this run; content, style and result side by side; the course as an animation
  {prog} my.yaml loss.style_weight=20 --content a.jpg -o b.png --sheet sheet.png --course course.gif
  # the photo as one layer encodes it; the style picture as the layers up to one encode it
  {prog} my.yaml --reconstruct relu4_1 --content a.jpg -o content.png
  {prog} my.yaml --reconstruct-style relu4_1 -o style.png
"""
LESS_MEMORY = "set a smaller optimize.size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_settings(parser)
    parser.add_argument(
        "--content", "-c", type=input_path, metavar="PHOTO", help="the photo to draw"
    )
    parser.add_argument(
        "--output", "-o", type=output_path, metavar="PICTURE", help="file for the result"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing pictures")
    parser.add_argument(
        "--sheet",
        type=output_path,
        metavar="PICTURE",
        help="also write content, style and result side by side in one picture",
    )
    parser.add_argument(
        "--course",
        type=output_path,
        metavar="PICTURE",
        help="also write the course of the optimization: an animation (.gif), or a sheet of frames "
        "(other formats)",
    )
    parser.add_argument(
        "--every",
        type=positive,
        metavar="N",
        help="also write a picture every N iterations, as OUTPUT-00050.png",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--reconstruct",
        metavar="LAYER",
        help="from noise, find a picture with the photo's features at this layer, without style",
    )
    which.add_argument(
        "--reconstruct-style",
        metavar="LAYER",
        help="from noise, find a picture with the style picture's Gram matrices at the first "
        "layer of every block up to the block of this layer, without content",
    )
    add_device(parser)
    add_max_pixels(parser)


def run(options: argparse.Namespace) -> int:
    """Check the command line, then draw one picture; returns the exit code."""
    from fast_style.settings.gatys_config import GatysConfig

    config = read_settings(
        options,
        GatysConfig,
        example="configs/optimize/gatys.yaml",
        first=_reconstruction(options),
    )
    if config is None:
        return 0
    if options.output is None:
        raise UserError("no file for the result; name one with --output PICTURE")
    if options.content is None and options.reconstruct_style is None:
        raise UserError("no photo to draw; name one with --content PHOTO")
    _require_files(options, config)
    return _optimize(config, options)


def _reconstruction(options: argparse.Namespace) -> list[str]:
    """The settings that --reconstruct and --reconstruct-style stand for.

    Raises:
        UserError: VGG has no such layer, or the words of the command line name another one.
    """
    for layer, term in ((options.reconstruct, "content"), (options.reconstruct_style, "style")):
        if layer is not None:
            from fast_style.settings.gatys_config import reconstruction

            found = reconstruction(layer, term)
            _require_no_contradiction(options, term)
            return found
    return []


def _require_no_contradiction(options: argparse.Namespace, term: str) -> None:
    """Check that no word of the command line sets what is reconstructed.

    Raises:
        UserError: names the first such word.
    """
    other = {"content": "style", "style": "content"}[term]
    decided = ("loss.content_layers", "loss.style_layers", f"loss.{other}_weight")
    for word in options.words:
        key = word.partition("=")[0]
        if key == "loss" or any(f"{key}.".startswith(f"{name}.") for name in decided):
            raise UserError(
                f"{shortened(repr(word))} on the command line: {_reconstruct_option(options)} "
                f"decides on {', '.join(decided)}; leave out one of the two"
            )


def _reconstruct_option(options: argparse.Namespace) -> str:
    """``--reconstruct LAYER`` or ``--reconstruct-style LAYER``; empty if neither is given."""
    if options.reconstruct is not None:
        return f"--reconstruct {printable(options.reconstruct)}"
    if options.reconstruct_style is not None:
        return f"--reconstruct-style {printable(options.reconstruct_style)}"
    return ""


def _optimize(config: "GatysConfig", options: argparse.Namespace) -> int:
    """Draw one picture until the last iteration or a signal; returns the exit code."""
    from tqdm import tqdm

    from fast_style.core.devices import resolve_device
    from fast_style.losses.loss_network import MissingLayerError
    from fast_style.optimizing.course import Course
    from fast_style.optimizing.minimizing import STOPPED
    from fast_style.optimizing.picture import Progress, optimize_picture
    from fast_style.pictures.reading import over_white, read_picture

    each = config.optimize.iterations
    total = each * config.optimize.scales
    course = Course(total, options.output, options.every, replaces=options.overwrite)
    content = read_picture(options.content) if options.content is not None else None
    photo = over_white(content) if content is not None else None
    unwritten: list[UserError] = []
    with (
        tqdm(total=total, unit="iteration", disable=None) as bar,
        stop_signals(unit="iteration") as stop_signal,
    ):
        tell = lines_beside(bar)

        def watch(progress: Progress) -> bool:
            number = progress.scale * each + progress.iterate.iteration
            try:
                course.record(number, progress.iterate.picture)
            except UserError as error:  # a full disk: the result may still be written elsewhere
                if not unwritten:
                    tell(f"warning: {error}")
                unwritten.append(error)
            except FileExistsError as error:
                tell(f"warning: {printable(error.filename)}: has appeared meanwhile, and is kept")
            loss = f"loss {progress.iterate.values.total:.4g}"
            bar.set_postfix_str(loss, refresh=False)
            bar.update(number - bar.n)
            is_tenth = number * 10 // total > (number - 1) * 10 // total
            if bar.disable and is_tenth and progress.iterate.iteration > 0:
                say(f"iteration {number}/{total}  {loss}")
            return stop_signal() is None

        try:
            result = optimize_picture(
                config, photo, device=resolve_device(options.device), watch=watch, say=tell
            )
        except MissingLayerError as error:
            if option := _reconstruct_option(options):
                raise UserError(
                    f"{option}: {error.problem}. Choose a shallower layer, or other weights with "
                    "loss_network.weights"
                ) from None
            raise
        signal_number = stop_signal()
        bar.close()
        if len(unwritten) > 1:
            tell(f"warning: {count(len(unwritten), 'picture')} in between could not be written")
        # Here too, a first signal waits: the picture may be the work of hours.
        is_stopped = result.minimum.reason == STOPPED
        if is_stopped and (result.scale, result.minimum.last.iteration) == (0, 0):
            note("stopped before the first iteration: nothing is written")
        else:
            # What an earlier command has finished is worth more than what was stopped.
            overwrite = options.overwrite and not is_stopped
            _write(options, content, result, course, overwrite=overwrite)
    if result.minimum.is_failure:
        raise UserError(
            f"{result.minimum.reason}; the best picture before that was written", exit_code=1
        )
    return 0 if signal_number is None else 128 + signal_number


def _write(
    options: argparse.Namespace,
    content: "Picture | None",
    result: "Optimized",
    course: "Course",
    *,
    overwrite: bool,
) -> None:
    """Write the result, the sheet and the course; print the result's size and loss.

    Raises:
        UserError: some of them cannot be written. The others are there, and those in the folder of
            temporary files.
    """
    from fast_style.pictures.reading import over_white
    from fast_style.pictures.sheets import side_by_side

    output, size = options.output, result.picture.size
    alpha = None
    if content is not None and content.alpha is not None:
        alpha = content.alpha.resize(size)
    failures: list[str] = []
    with _collecting(failures):
        output = put_picture_in_place(output, result.picture, alpha=alpha, overwrite=overwrite)
    if options.sheet is not None:
        photos = [] if content is None else [over_white(content).resize(size)]
        sheet = side_by_side([*photos, result.style, result.picture])
        with _collecting(failures):
            put_picture_in_place(options.sheet, sheet, overwrite=overwrite)
    if options.course is not None:
        with _collecting(failures):
            put_in_place(
                options.course,
                lambda path, replaces: course.write(path, replaces=replaces),
                overwrite=overwrite,
                elsewhere=True,
            )
    if failures:
        raise UserError("\n".join(failures), exit_code=1)
    best = result.minimum.best
    scale = f" at scale {result.scale + 1}" if result.scale > 0 else ""
    values = ", ".join(f"{name} {value:.4g}" for name, value in best.values._asdict().items())
    say(
        f"{printable(output)}: {result.picture.width} x {result.picture.height} pixels, "
        f"{count(best.iteration, 'iteration')}{scale}, "
        f"{count(best.evaluations, 'evaluation')} of the loss; {values} ({result.minimum.reason})"
    )


@contextmanager
def _collecting(failures: list[str]) -> Iterator[None]:
    """Within the block, a UserError becomes an entry of the list."""
    try:
        yield
    except UserError as error:
        failures.append(str(error))


# --- Files, checked before torch takes seconds to import ----------------------------------------


def _require_files(options: argparse.Namespace, config: "GatysConfig") -> None:
    """Check all files to read, and the names of all files to write.

    Raises:
        UserError: a file is missing, unreadable or cannot be written; names the first one.
    """
    from fast_style.losses.inputs import require_style_picture, require_weights
    from fast_style.pictures.reading import require_picture
    from fast_style.settings.gatys_config import INIT_WORDS

    styles = [config.style.image, *(further.image for further in config.style.blend)]
    contents = [] if options.content is None else [options.content]
    init = config.optimize.init
    starts = [] if init in INIT_WORDS else [Path(init)]
    _require_outputs(options, config, [*contents, *styles, *starts])
    for path in (*contents, *starts):
        require_picture(path)
    require_style_picture(config.style.image, "style.image")
    for further in config.style.blend:
        require_style_picture(further.image, "style.blend")
    require_weights(config.loss_network.weights)
    note_about([*contents, *styles])


def _require_outputs(
    options: argparse.Namespace, config: "GatysConfig", sources: Iterable[Path]
) -> None:
    """Check that every file can be written, and make the folders.

    Raises:
        UserError: a file cannot be written, would be written twice, or would replace another.
    """
    from fast_style.optimizing.course import earlier_pictures, pictures_in_between
    from fast_style.pictures.writing import writable_format

    outputs = [path for path in (options.output, options.sheet, options.course) if path is not None]
    total = config.optimize.iterations * config.optimize.scales
    in_between = [*pictures_in_between(options.output, iterations=total, every=options.every)]
    if options.every is not None and options.every > total:
        note(
            f"--every {options.every}: no picture in between is written, of "
            f"{count(total, 'iteration')} "
            "(optimize.iterations, at each of optimize.scales)"
        )
    present = [path for path in sources if os.path.exists(path)]
    taken: set[str] = set()
    for path in itertools.chain(outputs, in_between):
        require_replaceable(path, present, overwrite=options.overwrite)
        if path is not options.course or path.suffix.lower() != ".gif":
            writable_format(path)
        if os.path.realpath(path) in taken:
            raise UserError(f"{printable(path)}: would be written twice; choose another name")
        taken.add(os.path.realpath(path))
    if options.overwrite and in_between:
        earlier = earlier_pictures(options.output, in_between)
        if earlier:
            more = f" and {len(earlier) - 1} more" if len(earlier) > 1 else ""
            note(f"of an earlier command, and kept: {printable(earlier[0])}{more}")
    for folder in {path.parent for path in outputs}:
        make_writable_folder(folder)
