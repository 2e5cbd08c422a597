"""``fast-style demo``: train a small model and stylize a photo, without a download."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.cli.arguments import add_device, add_max_pixels, input_path, style_picture
from fast_style.cli.notes import note, note_about
from fast_style.cli.process import say
from fast_style.cli.runs import RUNS
from fast_style.cli.train import train
from fast_style.core.distributed import ALONE, read_launch
from fast_style.core.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import
    import torch

    from fast_style.demo.demo import PreparedDemo

SUMMARY = "train a small model in minutes on a CPU, and stylize a photo with it"
EXAMPLES = """\
examples:
  # writes demo/ and runs/quickstart/ here
  {prog}
  # the same with pictures of your own
  {prog} --style painting.jpg --photo me.jpg
"""

_FOLDER = Path("demo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--style",
        type=style_picture,
        metavar="PICTURE",
        help="your style picture, or the name of a style that comes with fast-style (default: a "
        "painted one)",
    )
    parser.add_argument(
        "--photo",
        type=input_path,
        metavar="PICTURE",
        help="your photo, stylized at the end (default: a cat)",
    )
    add_device(parser)
    add_max_pixels(parser)


def run(options: argparse.Namespace) -> int:
    """Prepare the pictures, train, and stylize; returns the exit code."""
    from fast_style.losses.inputs import require_style_picture
    from fast_style.pictures.reading import require_picture

    # Before torch, which takes seconds to import.
    if options.style is not None:
        require_style_picture(options.style)
    if options.photo is not None:
        require_picture(options.photo)
    note_about([path for path in (options.style, options.photo) if path is not None])
    from fast_style.core.devices import resolve_device
    from fast_style.demo.demo import alone_in_folder, prepare_demo

    if not read_launch().is_alone:
        raise UserError("demo runs in one process; start it without torchrun")
    device = resolve_device(options.device)
    pictures = {"style": options.style, "photo": options.photo}
    with alone_in_folder(_FOLDER, **pictures, say=say):
        prepared = prepare_demo(_FOLDER, **pictures, runs=RUNS, say=say)
        return _train_and_show(prepared, device, with_styles=options.style is None)


def _train_and_show(prepared: "PreparedDemo", device: "torch.device", *, with_styles: bool) -> int:
    from fast_style.demo.demo import build_demo, draw_styles, finish_demo

    if with_styles and (line := draw_styles(prepared, device=str(device))):
        say(line)
    if not (RUNS / prepared.config.name / "model.safetensors").exists():
        say(prepared.announcement)
    build = partial(build_demo, prepared)
    code = train([prepared.config], device=device, fresh=False, group=ALONE, build=build, anew="")
    if code != 0:
        return code
    try:
        lines = finish_demo(prepared, RUNS, device=str(device))
    except KeyboardInterrupt:
        note("stopped after the training; the same command stylizes the photo")
        raise
    for line in lines:
        say(line)
    return 0
