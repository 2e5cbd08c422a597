"""How good a first look is (`fast-style try`), by the judge, on paintings that no network has seen.

    python benchmarks/first_look.py --paintings a.jpg b.jpg --photos face.jpg night.jpg \
        --judge-weights vgg16_conv5_3.pth --second-opinion squeezenet_v1_0.pth

Medians over all pairs, photos and paintings at 256 pixels: the terms of the judge's objective
(docs/judge.md) and the second opinion. --shift adds the change of the picture when the photo is
shifted by 1 to 3 pixels, for which many first looks are drawn. Beside the first look: the photo,
and the photo with the painting's colors. --others names a folder with the pictures of another
program, PAINTING.PHOTO.png for each pair, which are measured but for the shift; --pictures-to
writes the photos and first looks under such names.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import program
import torch
from PIL import Image
from torch import Tensor, nn

from fast_style.evaluating.evaluation import steadiness_of
from fast_style.evaluating.objective import full_float32, objective_of
from fast_style.evaluating.plan import Photo, read_photos
from fast_style.losses.build import read_style
from fast_style.losses.judge import judge_sides, load_judge_settings, load_judge_weights
from fast_style.measures.second_opinion import SecondOpinion, load_squeezenet
from fast_style.optimizing.first_look import FirstLooks
from fast_style.pictures.colors import colors_of, recolored
from fast_style.pictures.pixels import image_to_tensor, tensor_to_image
from fast_style.pictures.reading import Picture, read_photo
from fast_style.pictures.writing import write_picture

TERMS = ("total", "content", "style", "second opinion")
CPU = torch.device("cpu")


class Look(nn.Module):
    """A first look at photos (1, 3, H, W) in [0, 1], in the place of a network."""

    def __init__(self, painting: Image.Image) -> None:
        super().__init__()
        self.looks = FirstLooks([painting], device=CPU)

    def forward(self, photo: Tensor) -> Tensor:
        """The picture, of the photo's shape."""
        (look,) = self.looks.draw(Picture(tensor_to_image(photo[0]), None))
        return to_pixels(look.rgb)


def to_pixels(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return image_to_tensor(image)[None].float() / 255


@program.errors_in_one_line()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each way to make the pictures."""
    parser = program.parser_of(__doc__)
    parser.add_argument("--paintings", type=program.existing_file, nargs="+", required=True)
    parser.add_argument("--photos", type=program.existing_file, nargs="+", required=True)
    parser.add_argument("--judge-weights", required=True, help="VGG-16's, as for evaluate --judge")
    parser.add_argument("--second-opinion", type=Path, help="SqueezeNet's (default: torchvision's)")
    parser.add_argument("--shift", action="store_true", help="measure it; minutes for each pair")
    parser.add_argument(
        "--others", type=program.existing_folder, help="folder of another program's pictures"
    )
    parser.add_argument("--pictures-to", type=Path, help="folder for photos and first looks")
    program.add_overwrite(parser)
    options = parser.parse_args(arguments)
    require_new_pictures(options)
    with full_float32():
        print_table(measured(options))


def require_new_pictures(options: argparse.Namespace) -> None:
    """Check that --pictures-to loses no pictures, neither those of before nor one of two.

    Raises:
        UserError: it would.
    """
    if options.pictures_to is None:
        return
    for option, paths in (("--photos", options.photos), ("--paintings", options.paintings)):
        program.require_different(option, paths, [path.stem for path in paths])
    program.require_new_folder(options.pictures_to, overwrite=options.overwrite)


def measured(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """The measures of all pairs, by the way to make the pictures and by name."""
    settings = load_judge_settings(options.judge_weights)
    weights = load_judge_weights(settings, "--judge-weights")
    squeezenet = load_squeezenet(options.second_opinion)
    style_side, side = judge_sides(settings)
    photos = read_photos(options.photos, side, CPU)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in options.paintings:
        painting = read_style(path, style_side)
        objective = objective_of(settings, weights, painting, path.name, CPU)
        opinion = SecondOpinion(squeezenet, objective.style)
        look = Look(painting)
        for photo in photos:
            targets = objective.loss.content_targets(photo.pixels)
            for way, picture in pictures_of(photo, painting, look, path.stem, options).items():
                with torch.no_grad():
                    values = objective.loss.terms(picture, targets).values()
                row = (values.total, values.content, values.style, float(opinion(picture)))
                for name, value in zip(TERMS, row, strict=True):
                    found[way][name].append(value)
            if options.shift:
                found["first look"]["shift"].append(steadiness_of(look, photo)["shift"])
        print(f"{path.name}: done", file=sys.stderr)
    return found


def pictures_of(
    photo: Photo, painting: Image.Image, look: Look, name: str, options: argparse.Namespace
) -> dict[str, Tensor]:
    """The pictures of a pair by the way they are made, each (1, 3, H, W)."""
    image = tensor_to_image(photo.pixels[0])
    pictures = {
        "photo": photo.pixels,
        "photo with the painting's colors": to_pixels(recolored(image, colors_of(painting))),
        "first look": look(photo.pixels),
    }
    file = f"{name}.{Path(photo.name).stem}.png"
    if options.pictures_to is not None:
        options.pictures_to.mkdir(parents=True, exist_ok=True)
        write_picture(options.pictures_to / f"{Path(photo.name).stem}.png", image)
        write_picture(options.pictures_to / file, tensor_to_image(pictures["first look"][0]))
    if options.others is not None:
        pictures[options.others.name] = to_pixels(read_photo(options.others / file))
    return pictures


def print_table(found: dict[str, dict[str, list[float]]]) -> None:
    """Print the medians as a table in Markdown."""
    names = (*TERMS, "shift")
    print("| | " + " | ".join(names) + " |\n|" + " --- |" * (len(names) + 1))
    for way, values in found.items():
        cells = [f"{statistics.median(values[name]):.3f}" if values[name] else "" for name in names]
        print(f"| {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
