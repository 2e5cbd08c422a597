"""``fast-style preview``: see what style weights and sizes do, before training."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.cli.arguments import (
    add_device,
    add_max_pixels,
    add_settings,
    expanded,
    input_path,
    is_setting,
    is_yaml_file,
    nonempty_path,
    output_path,
    positive,
    positive_number,
    read_settings,
)
from fast_style.cli.notes import each_once, note, note_about
from fast_style.cli.outputs import make_writable_folder, put_picture_in_place, require_replaceable
from fast_style.cli.process import lines_beside, say
from fast_style.core.errors import UserError, printable
from fast_style.core.signals import stop_signals
from fast_style.core.words import count

if TYPE_CHECKING:
    from fast_style.optimizing.preview import Preview
    from fast_style.settings.config import Config

SUMMARY = "see in minutes what style weights and sizes do, before training"
EXAMPLES = """\
examples:
  # a sheet of three style weights and three style sizes, those of my.yaml in the middle
  {prog} my.yaml --photo face.jpg street.jpg
  {prog} my.yaml --photo face.jpg --style-weights 1 3 --style-sizes 192 384 -o choices.png
"""
LESS_MEMORY = "set a smaller data.crop_size"

_SMALLEST_SIZE, _LARGEST_SIZE = 16, 8192  # of style.size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_settings(parser)
    parser.add_argument(
        "--photo",
        "-p",
        type=photo_or_word,
        nargs="+",
        action="extend",
        default=[],
        metavar="PHOTO",
        help="photos to draw",
    )
    parser.add_argument(
        "--style-weights",
        type=positive_number,
        nargs="+",
        metavar="W",
        help="values of loss.style_weight, the columns (default: the file's, and 2.5 times less "
        "and more)",
    )
    parser.add_argument(
        "--style-sizes",
        type=style_size,
        nargs="+",
        metavar="S",
        help="values of style.size, the rows (default: the file's, and 1.5 times less and more)",
    )
    parser.add_argument(
        "--iterations", type=positive, default=40, metavar="N", help="of L-BFGS (default: 40)"
    )
    parser.add_argument(
        "--output",
        "-o",
        type=output_path,
        default=Path("preview.png"),
        metavar="PICTURE",
        help="file for the sheet; of several photos, PICTURE-PHOTO (default: preview.png)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing sheets")
    add_device(parser)
    add_max_pixels(parser)


def photo_or_word(text: str) -> Path | str:
    """The path of a photo; a YAML file, or a ``key=value`` word that is no file, stays a text."""
    is_word = is_yaml_file(text) or (is_setting(text) and not os.path.lexists(text))
    return text if is_word else nonempty_path(text)


def style_size(text: str) -> int:
    """A value of ``style.size``."""
    size = positive(text)
    if not _SMALLEST_SIZE <= size <= _LARGEST_SIZE:
        raise argparse.ArgumentTypeError(
            f"must be {_SMALLEST_SIZE} to {_LARGEST_SIZE} pixels, got {text!r}"
        )
    return size


def run(options: argparse.Namespace) -> int:
    """Check the command line, then draw a sheet for each photo; returns the exit code."""
    from fast_style.losses.inputs import require_style_picture, require_weights
    from fast_style.pictures.reading import require_picture
    from fast_style.settings.config import Config

    _take_words_from_photos(options)
    config = read_settings(options, Config, example="configs/laptop.yaml")
    if config is None:
        return 0
    if not options.photo:
        raise UserError("no photo to draw; name one with --photo PHOTO")
    options.photo = each_once(expanded(options.photo), "drawn")
    require_style_picture(config.style.image, "style.image")
    for path in options.photo:
        require_picture(path)
    outputs = _outputs(options, config.style.image)
    require_weights(config.loss_network.weights)
    note_about([*options.photo, config.style.image])
    return _preview(config, options, outputs)


def _take_words_from_photos(options: argparse.Namespace) -> None:
    """Give the settings what argparse took for photos, as it stood behind them."""
    words = [word for word in options.photo if isinstance(word, str)]
    options.photo = [photo for photo in options.photo if isinstance(photo, Path)]
    file = next(filter(is_yaml_file, words), None)
    if options.config is None and file is not None:
        words.remove(file)
        options.config = input_path(file)
    options.words += words


def _outputs(options: argparse.Namespace, style: Path) -> list[Path]:
    """The sheet of each photo.

    Raises:
        UserError: a sheet cannot be written, exists already, is an input, or would be written
            twice.
    """
    from fast_style.pictures.writing import writable_format

    output: Path = options.output
    writable_format(output)
    outputs = [output]
    if len(options.photo) > 1:
        outputs = [
            output.with_name(f"{output.stem}-{photo.stem}{output.suffix}")
            for photo in options.photo
        ]
    for path in outputs:
        if outputs.count(path) > 1:
            raise UserError(
                f"{printable(path)}: would be the sheet of two photos of the same name; give them "
                "one by one, each with its own --output"
            )
        require_replaceable(path, [*options.photo, style], overwrite=options.overwrite)
    make_writable_folder(output.parent)
    return outputs


def _preview(config: "Config", options: argparse.Namespace, outputs: list[Path]) -> int:
    """Draw the sheets until the last one or a signal; returns the exit code."""
    from tqdm import tqdm

    from fast_style.core.devices import resolve_device
    from fast_style.optimizing.preview import (
        choices_near,
        draw_previews,
        preview_sheet,
        read_styles,
    )
    from fast_style.pictures.reading import read_photo

    near = choices_near(config)
    weights, sizes = options.style_weights or near[0], options.style_sizes or near[1]
    styles = read_styles(config, sizes)  # once: the file may vanish while the first ones are drawn
    device = resolve_device(options.device)
    total = len(outputs) * len(weights) * len(sizes) * options.iterations
    with (
        tqdm(total=total, unit="iteration", disable=None) as bar,
        stop_signals(unit="iteration") as stop_signal,
    ):
        tell = lines_beside(bar)

        def watch() -> bool:
            bar.update()
            return stop_signal() is None

        num_drawn = 0
        for photo_file, output in zip(options.photo, outputs, strict=True):
            photo = read_photo(photo_file)
            previews = []
            for preview in draw_previews(
                config,
                photo,
                styles,
                style_weights=weights,
                style_sizes=sizes,
                iterations=options.iterations,
                device=device,
                watch=watch,
            ):
                previews.append(preview)
                num_drawn += 1
                if bar.disable:
                    say(f"{len(previews)} of {len(weights) * len(sizes)}: {_told(preview)}")
            if previews:
                sheet = preview_sheet(config, photo, styles, previews, num_columns=len(weights))
                written = put_picture_in_place(
                    output, sheet, overwrite=options.overwrite, tell=tell
                )
                drawn = count(len(previews), "preview")
                tell(f"{printable(written)}: {drawn} of {printable(photo_file)}")
            if (signal_number := stop_signal()) is not None:
                num_left = len(outputs) * len(weights) * len(sizes) - num_drawn
                again = "; --overwrite draws all again" if num_drawn else ""
                note(f"stopped: {count(num_left, 'preview')} left to draw{again}")
                return 128 + signal_number
    _tell_lines(previews)
    return 0


def _told(preview: "Preview") -> str:
    values = preview.values
    return (
        f"{preview.choice.words()}: content {values.content:.3g}, style {values.style:.3g}, total "
        f"variation {values.tv:.3g}"
    )


def _tell_lines(previews: "list[Preview]") -> None:
    """Print what to write into the file, or on the command line, for each choice."""
    say("After minutes of training, a network keeps less of the photo, and has less of the style.")
    say("Set what you like under style and loss in the file, or on the command line:")
    for choice in (preview.choice for preview in previews):
        say(
            f"  size: {choice.style_size}, style_weight: {choice.style_weight:g}   {choice.words()}"
        )
