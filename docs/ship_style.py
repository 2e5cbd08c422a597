r"""Put the model of a run among the styles that come with fast-style.

    python docs/ship_style.py runs/starry_night --photos face.jpg night.jpg snow.jpg \
        --title "The Starry Night" --artist "Vincent van Gogh" --year 1889 \
        --source https://commons.wikimedia.org/... --license "CC0: photos and picture are free"

It writes three files into fast_style/styles: NAME.safetensors, the model in 8 bits, or in 16 if 8
change one of the photos by more than 2 of 255; NAME.jpg, the style picture with 512 pixels at most;
and NAME.md, the card. A fourth, configs/styles/NAME.yaml, trains the style again. With --base, the
model becomes the network that trainings start from (train.init_from: base), and the files are
fast_style/training/base.safetensors, base.md and configs/base.yaml.

Run again, it writes the same files again. Title, artist, year, source and license are then known
already, and need not be given; they stand in the model file.
"""

import argparse
import csv
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import program

from fast_style.cli.painting import grain_levels
from fast_style.core.errors import UserError, printable
from fast_style.core.files import write_text_atomically
from fast_style.models.model_files import describe, grain_of, read_description
from fast_style.models.shipping import Card, Shipped, write_shipped
from fast_style.pictures.pixels import fit_longer_side, image_to_tensor
from fast_style.pictures.reading import read_photo
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import BASE, Config, parse_config
from fast_style.settings.help import commented_yaml
from fast_style.settings.strict_yaml import dump_yaml
from fast_style.settings.structure import iterate_fields
from fast_style.settings.writing import to_dict
from fast_style.styles import shipped
from fast_style.training.start import BASE_FILE

CONFIGS = Path(__file__).parents[1] / "configs"
PICTURE_SIDE = 512
PHOTO_SIDE = 512
SHAPES_NO_MODEL = ("log.", "data.cache", "data.workers", "train.threads")
"""How keys of settings begin that change no weight of a model."""

JPEG_QUALITY = 88


@program.errors_in_one_line()
def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files of a style."""
    parser = program.parser_of(__doc__)
    parser.add_argument("run", type=program.existing_folder, help="the run folder")
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="to compare on")
    parser.add_argument(
        "--name", help="of the style, whose files of before are replaced (default: that of the run)"
    )
    parser.add_argument("--base", action="store_true", help="make it the base of trainings")
    for part in (*Card._fields, "license"):
        parser.add_argument(f"--{part}", help="needed once; then that of before")
    parser.add_argument(
        "--grain",
        type=grain_levels,
        metavar="LEVELS",
        help="what fast-style stylize --style NAME takes as its --grain (default: that of before, "
        "or 0)",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        help="the style picture (default: style.image of the run if it is there, else its copy in "
        "the run folder)",
    )
    parser.add_argument("--no-picture", action="store_true", help="it may not be given away")
    parser.add_argument(
        "--judged",
        type=Path,
        help="judge.json of a report of `fast-style evaluate --judge` that has this run's model",
    )
    parser.add_argument("--notes", type=Path, help="Markdown to end the card with")
    options = parser.parse_args(arguments)
    ship(options)


def ship(options: argparse.Namespace) -> None:
    """Write the files that the command line asks for.

    Raises:
        UserError: an input is missing or wrong.
    """
    name = BASE if options.base else options.name or options.run.resolve().name
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name) or name == shipped.ALL:
        raise UserError(
            f"--name {printable(name)}: must be small letters, digits and _, and not "
            f"{shipped.ALL}; give another --name"
        )
    source = options.run / "model.safetensors"
    trained = read_description(source)
    model = BASE_FILE if options.base else shipped.FOLDER / f"{name}.safetensors"
    before = read_description(model) if model.exists() else {}
    words = _words(options, before)
    grain = grain_of(before if options.grain is None else {"grain": options.grain})
    # Read first, so that a mistake leaves the files of before as they are.
    has_none = options.no_picture or options.base
    picture = None if has_none else read_photo(_style_picture(options, trained))
    photos = [
        image_to_tensor(fit_longer_side(read_photo(path), PHOTO_SIDE)).float() / 255
        for path in options.photos
    ]
    measured = _last_validation(options.run / "metrics.csv")
    if options.judged is not None:
        measured |= _judgement(options.judged, hashlib.sha256(source.read_bytes()).hexdigest())
    notes = options.notes.read_text(encoding="utf-8") if options.notes is not None else ""
    license = words.pop("license")
    found = write_shipped(
        model, source, photos, name=name, card=Card(**words), license=license, grain=grain
    )
    beside = model.with_suffix(".jpg")
    if picture is None:
        beside.unlink(missing_ok=True)
    else:
        write_picture(beside, fit_longer_side(picture, PICTURE_SIDE), quality=JPEG_QUALITY)
    description = read_description(model)
    text = card(description, found, len(photos), measured, picture is not None)
    write_text_atomically(model.with_suffix(".md"), "\n".join([text, notes]).rstrip() + "\n")
    settings = CONFIGS.parent / _settings_file(name)
    settings.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(settings, recipe(description, picture is not None))
    print(
        f"{printable(model)}: {model.stat().st_size} bytes, {found.bits} bits, differs by "
        f"{found.difference} of 255 at most"
    )


def _words(options: argparse.Namespace, before: dict[str, Any]) -> dict[str, str]:
    """The parts of the card and the license, from the command line or else from before.

    Raises:
        UserError: one is in neither.
    """
    known = {**before.get("card", {}), **({"license": before["license"]} if before else {})}
    words = {}
    for part in (*Card._fields, "license"):
        word = getattr(options, part) or known.get(part)
        if not word:
            raise UserError(f"--{part}: is not known yet; give it")
        words[part] = word
    return words


def _style_picture(options: argparse.Namespace, trained: dict[str, Any]) -> Path:
    """The largest copy of the style picture that is there."""
    if options.picture is not None:
        return options.picture
    original = parse_config(trained["settings"], str(options.run)).style.image
    return original if original.is_file() else options.run / "style.png"


def _judgement(report: Path, digest: str) -> dict[str, str]:
    """What the judge found of a model, by what it is; medians over photos, but means of blots.

    Args:
        report: a judge.json.
        digest: SHA-256 of the model file.

    Raises:
        UserError: the file is no report, or the report has no such model.
    """
    try:
        judged = json.loads(report.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{printable(report)}: is no judge.json ({error}); judge again") from None
    for style in judged["styles"]:
        for model in judged["models"]:
            found = judged["summary"]["styles"][style["name"]]["models"].get(model["name"])
            if found is not None and model["digest"] == digest:
                photos = [photo["name"] for photo in style["photos"]]
                equals = found["equals"] or f"more than {judged['iterations']}"
                keys = ("content", "style", "second_opinion", "blots", "shift", "noise_gain")
                return {
                    "the judge's photos": ", ".join(photos),
                    "the judge, equals iterations of L-BFGS": str(equals),
                    **{f"the judge, {key}": f"{found[key]:.3g}" for key in keys},
                }
    raise UserError(f"{printable(report)}: has no model of this run; judge it first")


def _last_validation(table: Path) -> dict[str, str]:
    """The measures of the last validation in a metrics.csv, by what they are; or nothing."""
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("validation/total")]
    return {
        key.replace("validation/", "held-out photos, "): f"{float(value):.3g}"
        for key, value in (rows[-1] if rows else {}).items()
        if key.startswith("validation/") and value
    }


def card(
    description: dict[str, Any],
    found: Shipped,
    num_photos: int,
    measured: dict[str, str],
    has_picture: bool,
) -> str:
    """The card of a shipped model, in Markdown."""
    about, name = description["card"], description["name"]
    lines = [
        f"# {about['title']}",
        "",
        f"{about['artist']}, {about['year']}. The picture is from {about['source']}.",
        "",
        *([f"![{about['title']}]({name}.jpg)", ""] if has_picture else []),
        *([] if name == BASE else [f"    fast-style stylize --style {name} photo.jpg"]),
        f"    fast-style train {_settings_file(name)} data.photos=PHOTOS  # trains it again",
        *_grain_of_another(
            description, "    fast-style stylize --grain {:g} -m MODEL photo.jpg  # with that"
        ),
        "",
        *(f"- {line}" for line in describe(description)),
        f"- weights: {found.bits} bits; no value of the pictures of {num_photos} photos differs "
        f"by more than {found.difference} of 255 from those of the model as it was trained",
        *(f"- {key}: {value}" for key, value in measured.items()),
        "",
        "All settings:",
        "",
        *(f"    {line}" for line in dump_yaml(description["settings"]).splitlines()),
        "",
    ]
    return "\n".join(lines)


def recipe(description: dict[str, Any], has_picture: bool) -> str:
    """The YAML file that trains a shipped style again: all settings that shape the model.

    Args:
        description: that of the shipped model.
        has_picture: whether its style picture is shipped, and so known by the style's name.
    """
    name, about = description["name"], description["card"]
    least = {"name": name, "style": {"image": name}, "data": {"photos": name}}
    defaults = _by_key(least)
    data = f"{'..' if name == BASE else '../..'}/data"
    values = _by_key(description["settings"]) | {
        "style.image": name if has_picture else f"{data}/styles/{description['style']['file']}",
        "data.photos": f"{data}/train2017",
    }
    keys = [
        key
        for key, value in values.items()
        if key in ("name", "style.image", "data.photos")
        or (value != defaults[key] and not key.startswith(SHAPES_NO_MODEL))
    ]
    grain = "".join(
        _grain_of_another(description, "# The shipped model asks for --grain {:g} of stylize.\n")
    )
    use = "the base of trainings" if name == BASE else "a style that comes with fast-style"
    return f"""\
# {about["title"]}, {about["artist"]}, {about["year"]}: {use}.
#
#   fast-style train {_settings_file(name)} data.photos=PHOTOS
#
# trains it again. Its card says on which photos it was trained.
{grain}
{commented_yaml(Config, keys, values)}"""


def _grain_of_another(description: dict[str, Any], words: str) -> list[str]:
    """What to say of a model that is trained again, which asks for no grain; mostly nothing."""
    grain = grain_of(description)
    return [words.format(grain)] if grain else []


def _settings_file(name: str) -> str:
    """The path of the YAML file that trains a model again, as one writes it in a command."""
    return f"configs/{BASE}.yaml" if name == BASE else f"configs/styles/{name}.yaml"


def _by_key(settings: dict[str, Any]) -> dict[str, Any]:
    """The value of every setting by its dotted key, also of those that `settings` leaves out."""
    complete = to_dict(parse_config(settings, "the model"))
    return {key: reduce(getitem, key.split("."), complete) for key, _ in iterate_fields(Config)}


if __name__ == "__main__":
    main()
