"""``fast-style optimize``: draw one photo by changing its pixels."""

import argparse
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.cli.arguments import (
    add_device,
    add_settings,
    nonempty_path,
    positive,
    read_settings,
)
from fast_style.cli.process import lines_beside, say, stop_signals
from fast_style.core.errors import UserError, printable

if TYPE_CHECKING:
    from PIL import Image

    from fast_style.optimizing.course import Course
    from fast_style.optimizing.picture import Optimized
    from fast_style.settings.gatys_config import GatysConfig


SUMMARY = "draw one photo by optimizing its pixels (Gatys et al.)"
EXAMPLES = """\
examples:
  {prog} configs/optimize/gatys.yaml --content photo.jpg --output drawn.png
  # a setting for this run; content, style and result side by side; the course as an animation
  {prog} my.yaml loss.style_weight=20 --content a.jpg -o b.png --sheet sheet.png --course course.gif
  # the photo as one layer encodes it; the style picture as the layers up to one encode it
  {prog} my.yaml --reconstruct relu4_1 --content a.jpg -o content.png
  {prog} my.yaml --reconstruct-style relu4_1 -o style.png
"""
LESS_MEMORY = "set a smaller optimize.size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    add_settings(parser)
    parser.add_argument("--content", "-c", type=nonempty_path, metavar="PHOTO", help="what to draw")
    parser.add_argument(
        "--output", "-o", type=nonempty_path, metavar="PICTURE", help="where to write it"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing pictures")
    parser.add_argument(
        "--sheet",
        type=nonempty_path,
        metavar="PICTURE",
        help="also write content, style and result side by side in one picture",
    )
    parser.add_argument(
        "--course",
        type=nonempty_path,
        metavar="PICTURE",
        help="also write the pictures on the way: as an animation (.gif) or as a sheet of frames "
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
        "layers of all blocks up to this layer's, without content",
    )
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Draw one picture; gives the exit code."""
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
        raise UserError("say where to write the picture: --output PICTURE")
    if options.content is None and options.reconstruct_style is None:
        raise UserError("say what to draw: --content PHOTO")
    _require_files(options, config)
    return optimize(config, options)


def _reconstruction(options: argparse.Namespace) -> list[str]:
    """The settings that --reconstruct and --reconstruct-style stand for."""
    for layer, of in ((options.reconstruct, "content"), (options.reconstruct_style, "style")):
        if layer is not None:
            from fast_style.settings.gatys_config import reconstruction

            return reconstruction(layer, of)
    return []


def optimize(config: "GatysConfig", options: argparse.Namespace) -> int:
    """Draw one picture, with signals handled; gives the exit code."""
    from tqdm import tqdm

    from fast_style.core.devices import resolve_device
    from fast_style.optimizing.course import Course
    from fast_style.optimizing.picture import Look, optimize_picture
    from fast_style.pictures.reading import read_photo

    each = config.optimize.iterations
    total = each * config.optimize.scales
    course = Course(total, options.output, options.every)
    photo = read_photo(options.content) if options.content is not None else None
    with tqdm(total=total, unit="iteration", disable=None) as bar, stop_signals() as stop_signal:
        tell = lines_beside(bar)

        def watch(look: Look) -> bool:
            number = look.scale * each + look.iterate.iteration
            try:
                course.see(number, look.iterate.picture)
            except UserError as error:  # a full disk: the result may still be written elsewhere
                tell(f"warning: {error}")
            loss = f"loss {look.iterate.values.total:.4g}"
            bar.set_postfix_str(loss, refresh=False)
            bar.update(number - bar.n)
            is_tenth = number * 10 // total > (number - 1) * 10 // total
            if bar.disable and is_tenth and look.iterate.iteration > 0:
                say(f"iteration {number}/{total}  {loss}")
            return stop_signal() is None

        result = optimize_picture(
            config, photo, device=resolve_device(options.device), watch=watch, say=tell
        )
        signal_number = stop_signal()
    _write(options, photo, result, course)
    if result.minimum.is_failure:
        raise UserError(
            f"{result.minimum.reason}; the best picture before that was written", exit_code=1
        )
    return 0 if signal_number is None else 128 + signal_number


def _write(
    options: argparse.Namespace,
    photo: "Image.Image | None",
    result: "Optimized",
    course: "Course",
) -> None:
    """Write the result and the pictures beside it, and print what was done."""
    from fast_style.pictures.sheets import side_by_side
    from fast_style.pictures.writing import write_picture

    write_picture(options.output, result.picture)
    if options.sheet is not None:
        content = [] if photo is None else [photo.resize(result.picture.size)]
        write_picture(options.sheet, side_by_side([*content, result.style, result.picture]))
    if options.course is not None:
        course.write(options.course)
    best = result.minimum.best
    values = ", ".join(f"{name} {value:.4g}" for name, value in best.values._asdict().items())
    say(
        f"{printable(options.output)}: {result.picture.width} x {result.picture.height} pixels, "
        f"{best.iteration} iterations, {best.evaluations} evaluations of the loss; {values} "
        f"({result.minimum.reason})"
    )


# --- Files, checked before torch takes its seconds and the optimization its hours ---------------


def _require_files(options: argparse.Namespace, config: "GatysConfig") -> None:
    """Check all files to read, and the names of all files to write.

    Raises:
        UserError: names the first one that is missing, or cannot or must not be written.
    """
    from fast_style.losses.inputs import require_weights
    from fast_style.pictures.reading import require_picture
    from fast_style.settings.gatys_config import INIT_WORDS

    sources = [config.style.image, *(further.image for further in config.style.blend)]
    if options.content is not None:
        sources.insert(0, options.content)
    _require_outputs(options, config, sources)
    for path in sources:
        require_picture(path)
    if config.optimize.init not in INIT_WORDS:
        require_picture(Path(config.optimize.init))
    require_weights(config.loss_network.weights)


def _require_outputs(
    options: argparse.Namespace, config: "GatysConfig", sources: Iterable[Path]
) -> None:
    """Check that every file can be written, and make the folders.

    Raises:
        UserError: one cannot, would be written twice, or would replace a file.
    """
    from fast_style.optimizing.course import pictures_in_between
    from fast_style.pictures.writing import writable_format

    outputs = [path for path in (options.output, options.sheet, options.course) if path is not None]
    in_between = pictures_in_between(
        options.output,
        iterations=config.optimize.iterations * config.optimize.scales,
        every=options.every,
    )
    present = [path for path in sources if os.path.exists(path)]
    taken: set[str] = set()
    for path in itertools.chain(outputs, in_between):
        if os.path.isdir(path):
            raise UserError(f"{printable(path)}: is a folder, where a file is to be written")
        if path is not options.course or path.suffix.lower() != ".gif":
            writable_format(path)
        if os.path.realpath(path) in taken:
            raise UserError(f"{printable(path)}: would be written twice; choose another name")
        taken.add(os.path.realpath(path))
        _require_replaceable(path, present, overwrite=options.overwrite)
    for folder in {path.parent for path in outputs}:
        _make_writable_folder(folder)


def _require_replaceable(path: Path, sources: Iterable[Path], *, overwrite: bool) -> None:
    """Check that a file does not exist, or may be replaced: it is no input, and --overwrite."""
    try:
        is_there = path.exists()
    except OSError as error:
        raise UserError(f"{printable(path)}: cannot be written ({error.strerror})") from None
    if is_there and any(path.samefile(source) for source in sources):
        raise UserError(f"{printable(path)}: is one of the pictures to begin with")
    if is_there and not overwrite:
        raise UserError(f"{printable(path)}: exists already; allow --overwrite")


def _make_writable_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{printable(folder)}: no folder can be made there ({error.strerror})"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{printable(folder)}: this folder cannot be written to")
