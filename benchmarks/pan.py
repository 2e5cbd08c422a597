"""How much pictures flicker while a camera pans over a still scene, by whole pixels.

    python benchmarks/pan.py photo.jpg --models runs/a/model.safetensors runs/b/model.safetensors \
        --frames-to frames/

A window moves over the photo, one pixel to the right and one down in each frame, and each frame is
stylized by itself. Flicker is the root mean square difference of two neighboring pictures where
they show the same part of the scene, 16 pixels of border left out: a steady network would have
none. The floor is that of two frames 4 pixels apart, the product of the network's strides, where
only the statistics of the norms differ. --frames-to writes every picture, and a sheet of their
centres, twice as large and moved along with the scene, to look at; each model has a folder, named
after its file, or after the run of a model.safetensors.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import program
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fast_style.cli.arguments import positive
from fast_style.cli.painting import grain_levels
from fast_style.pictures.pixels import image_to_tensor, tensor_to_image
from fast_style.pictures.reading import read_photo
from fast_style.pictures.sheets import contact_sheet
from fast_style.pictures.writing import write_picture
from fast_style.stylizing.stylizer import Stylizer

BORDER = 16
STRIDE = 4
CENTRE_SHARE = 3 / 8
LEAST_SIDE = 2 * BORDER + STRIDE + 1  # so that something is left to compare


@program.errors_in_one_line()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each model."""
    parser = program.parser_of(__doc__)
    parser.add_argument("photo", type=program.existing_file)
    parser.add_argument("--models", type=program.existing_file, nargs="+", required=True)
    parser.add_argument("--frames", type=positive, default=24, help="(default: 24)")
    parser.add_argument(
        "--side",
        type=partial(positive, least=LEAST_SIDE),
        default=256,
        help=f"of the window, from {LEAST_SIDE} pixels (default: 256)",
    )
    parser.add_argument(
        "--grain", type=grain_levels, default=0.0, help="as of stylize (default: 0)"
    )
    parser.add_argument(
        "--frames-to", type=Path, help="folder for the pictures, in a folder for each model"
    )
    program.add_overwrite(parser)
    options = parser.parse_args(arguments)
    folders = folders_of(options)
    side, num_frames = options.side, options.frames + STRIDE
    scene = ImageOps.fit(read_photo(options.photo), (side + num_frames, side + num_frames))
    print("| model | flicker | floor | above the floor |\n| --- | --- | --- | --- |")
    for model, folder in zip(options.models, folders, strict=True):
        pictures = stylized(Stylizer(model, grain=options.grain), scene, side, num_frames)
        flicker, floor = mean_change(pictures, 1), mean_change(pictures, STRIDE)
        print(f"| {model} | {flicker:.4f} | {floor:.4f} | {max(0, flicker - floor):.4f} |")
        if folder is not None:
            write_frames(folder, pictures)


def folders_of(options: argparse.Namespace) -> list[Path | None]:
    """The folder for the frames of each model: named after its file, or the run it lies in.

    Raises:
        UserError: two have the same name, or one holds files already.
    """
    if options.frames_to is None:
        return [None] * len(options.models)
    names = [
        model.resolve().parent.name if model.stem == "model" else model.stem
        for model in options.models
    ]
    program.require_different("--models", options.models, names)
    folders = [options.frames_to / name for name in names]
    for folder in folders:
        program.require_new_folder(folder, overwrite=options.overwrite)
    return list(folders)


def stylized(stylizer: Stylizer, scene: Image.Image, side: int, num_frames: int) -> list[Tensor]:
    """The picture of every frame: (3, side, side) in [0, 1]."""
    photo = image_to_tensor(scene).float() / 255
    return [
        stylizer(photo[:, place : place + side, place : place + side])
        for place in range(num_frames)
    ]


def mean_change(pictures: Sequence[Tensor], distance: int) -> float:
    """The mean difference of two pictures so many frames apart, where both show the same scene."""
    changes = []
    for one, other in zip(pictures[: len(pictures) - STRIDE], pictures[distance:], strict=False):
        side = one.shape[-1] - distance
        here, there = one[:, distance:, distance:], other[:, :side, :side]
        inside = slice(BORDER, -BORDER)
        changes.append((here - there)[:, inside, inside].square().mean().sqrt())
    return float(torch.stack(changes).mean())


def write_frames(folder: Path, pictures: Sequence[Tensor]) -> None:
    """Write every picture, and a sheet on which one part of the scene stays in place.

    Raises:
        UserError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, picture in enumerate(pictures):
        write_picture(folder / f"frame-{number:03}.png", tensor_to_image(picture))
        centre = round(CENTRE_SHARE * picture.shape[-1])
        start = max(0, (picture.shape[-1] - centre) // 2 - number)
        part = tensor_to_image(picture[:, start : start + centre, start : start + centre])
        parts.append(ImageOps.scale(part, 2, resample=Image.Resampling.NEAREST))
    write_picture(folder / "sheet.png", contact_sheet(parts, columns=6))


if __name__ == "__main__":
    main()
