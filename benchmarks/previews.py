"""How well `fast-style preview` predicts trained networks: previews beside what runs became.

    python benchmarks/previews.py runs/weak runs/strong --photos face.jpg sky.jpg --output pairs.png

For each run, its preview and the picture of its model are drawn of the same square of a photo, and
measured with the losses of that run. A row has the medians over the photos. The sheet, of the first
photo, has the previews above and the networks below, in the order of the runs.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import program
import torch
from PIL import Image

from fast_style import load_config
from fast_style.cli.arguments import positive
from fast_style.losses.build import build_perceptual_loss, load_loss_weights
from fast_style.losses.perceptual import LossValues
from fast_style.models.checkpoint import load_transform_net
from fast_style.networks.fast_transform import FastTransform
from fast_style.optimizing.preview import Choice, draw_previews, read_styles, side_of
from fast_style.pictures.pixels import center_crop, image_to_tensor, tensor_to_image
from fast_style.pictures.reading import read_photo
from fast_style.pictures.sheets import Captioned, captioned_grid
from fast_style.pictures.writing import write_picture

CPU = torch.device("cpu")


class Pair(NamedTuple):
    """A preview and the network's picture of the same photo; pictures and terms."""

    preview: tuple[Image.Image, LossValues]
    network: tuple[Image.Image, LossValues]


@program.errors_in_one_line()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each run, and write the sheet."""
    parser = program.parser_of(__doc__)
    parser.add_argument(
        "runs", type=program.existing_folder, nargs="+", help="folders of finished runs"
    )
    parser.add_argument("--photos", type=program.existing_file, nargs="+", required=True)
    parser.add_argument("--iterations", type=positive, default=40, help="of a preview")
    parser.add_argument("--output", type=Path, help="the sheet")
    program.add_overwrite(parser)
    options = parser.parse_args(arguments)
    if options.output is not None:
        program.require_new_picture(options.output, options.photos, overwrite=options.overwrite)
    photos = [read_photo(path) for path in options.photos]
    compare(options.runs, photos, options.iterations, options.output)


def compare(
    runs: Sequence[Path], photos: Sequence[Image.Image], iterations: int, output: Path | None
) -> None:
    """Print a row for each run; write the sheet if a file is named."""
    print("| run | content: preview | network | style: preview | network |")
    print("| --- | --- | --- | --- | --- |")
    previews, networks = [], []
    for run in runs:
        choice, pairs = pairs_of(run, photos, iterations)
        row = [
            statistics.median(getattr(values, term) for values in side)
            for term in ("content", "style")
            for side in ([p.preview[1] for p in pairs], [p.network[1] for p in pairs])
        ]
        print(
            f"| {run.name}, {choice.words()} | {' | '.join(f'{v:.3f}' for v in row)} |", flush=True
        )
        caption = [f"size {choice.style_size}, weight {choice.style_weight:g}"]
        previews.append(Captioned(pairs[0].preview[0], caption))
        networks.append(Captioned(pairs[0].network[0], caption))
    if output is not None:
        write_picture(output, captioned_grid([previews, networks]))


@torch.no_grad()
def pairs_of(
    run: Path, photos: Sequence[Image.Image], iterations: int
) -> tuple[Choice, list[Pair]]:
    """The values of a run, and its preview and its network's picture for each photo."""
    config = load_config(run / "config.yaml")
    net = FastTransform(load_transform_net(run / "model.safetensors")[0])
    choice = Choice(config.loss.style_weight, config.style.size)
    styles = read_styles(config, [choice.style_size])
    weights = load_loss_weights(config)
    loss = build_perceptual_loss(config, weights, styles[choice.style_size], CPU)
    pairs = []
    for photo in photos:
        with torch.enable_grad():
            (preview,) = draw_previews(
                config,
                photo,
                styles,
                style_weights=[choice.style_weight],
                style_sizes=[choice.style_size],
                iterations=iterations,
                device=CPU,
            )
        pixels = image_to_tensor(center_crop(photo, side_of(config)))[None].float() / 255
        picture = net(pixels).clamp(0, 1)
        values = loss(picture, pixels).values()
        pairs.append(Pair((preview.picture, preview.values), (tensor_to_image(picture[0]), values)))
    return choice, pairs


if __name__ == "__main__":
    main()
