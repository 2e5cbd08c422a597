"""``fast-style stylize``: a model and photos in, stylized photos out."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.cli.common import add_device, nonempty_path, percent, positive, say
from fast_style.errors import UserError, printable

if TYPE_CHECKING:
    from fast_style.jobs import Job, OutputOptions

SUMMARY = "apply a model to photos"
EXAMPLES = """\
examples:
  # writes photo.wave.jpg
  {prog} --model runs/wave/model.safetensors photo.jpg
  # folders keep their structure
  {prog} --model wave.safetensors --output out/ holiday/ a.png
  {prog} --model wave.safetensors --output big.png --max-side 2000 big.jpg
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    parser.add_argument("words", nargs="+", metavar="PHOTO", help="photos, or folders of photos")
    parser.add_argument(
        "--model",
        "-m",
        type=nonempty_path,
        required=True,
        help="a model.safetensors or a checkpoint",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=nonempty_path,
        help="a file for one photo, else a folder (default: beside each photo, with a suffix)",
    )
    parser.add_argument(
        "--max-side", type=positive, metavar="N", help="shrink photos to a longer side of N pixels"
    )
    parser.add_argument(
        "--suffix", help="put behind the name (default: .MODEL's name beside photos, else nothing)"
    )
    parser.add_argument(
        "--format", choices=("jpg", "png", "webp", "tif", "bmp"), help="default: the photo's own"
    )
    parser.add_argument(
        "--quality", type=percent, default=95, metavar="1..100", help="of JPEG and WebP (95)"
    )
    parser.add_argument(
        "--max-pixels", type=positive, metavar="N", help="take photos of up to N pixels"
    )
    add_device(parser)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that are there")
    existing.add_argument("--skip-existing", action="store_true", help="leave out what is there")


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from fast_style.jobs import plan_jobs
    from fast_style.model_files import read_description

    # Mistakes are told before the seconds that torch takes.
    if "" in options.words:  # an unset variable, which Path would take for the working directory
        raise UserError("a photo has an empty name")
    description = read_description(options.model)
    jobs, skipped = plan_jobs(
        [Path(word) for word in options.words], _output_options(options, description["name"])
    )
    label = description["loss_network"]["label"]
    if label.startswith("RANDOM"):
        print(f"note: this model was trained with {label}: a try-out", file=sys.stderr)
    num_failed = _stylize(options, jobs)
    if len(jobs) + len(skipped) > 1:
        say(f"{len(jobs) - num_failed} done, {len(skipped)} skipped, {num_failed} failed")
    return 1 if num_failed else 0


def _output_options(options: argparse.Namespace, model_name: str) -> "OutputOptions":
    from fast_style.jobs import OutputOptions

    suffix = options.suffix
    if suffix is None:
        suffix = "" if options.output else f".{model_name}"
    if os.sep in suffix or "/" in suffix:
        raise UserError(f"--suffix {suffix!r}: must not contain a path separator")
    return OutputOptions(
        output=options.output,
        suffix=suffix,
        format=options.format,
        overwrite=options.overwrite,
        skip_existing=options.skip_existing,
    )


def _stylize(options: argparse.Namespace, jobs: "Sequence[Job]") -> int:
    """Do the jobs, and tell of each; gives how many failed."""
    from tqdm import tqdm

    from fast_style.images import DEFAULT_MAX_PIXELS
    from fast_style.stylizer import Stylizer, stylize_files

    outcomes = stylize_files(
        Stylizer(options.model, device=options.device),
        jobs,
        max_side=options.max_side,
        max_pixels=options.max_pixels or DEFAULT_MAX_PIXELS,
        quality=options.quality,
    )
    num_failed = 0
    # A bar on a terminal when there are several; otherwise a line for every photo.
    show_bar = len(jobs) > 1 and sys.stderr.isatty()
    with closing(outcomes):  # an interrupt ends its threads at once
        for outcome in tqdm(outcomes, total=len(jobs), unit="photo", disable=not show_bar):
            if outcome.error is not None:
                num_failed += 1
                tqdm.write(f"error: {outcome.error}", file=sys.stderr)
            elif not show_bar:
                say(printable(outcome.job.output))
    return num_failed
