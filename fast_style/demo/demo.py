"""The first run: pictures for a short training, and a sheet that shows its result.

Nothing is downloaded. The photos lie in scikit-image's wheel, and the style picture lies here:
docs/draw_demo_style.py drew it.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from fast_style.core.errors import UserError, printable, remedy_for
from fast_style.core.files import atomic_write, made_folders, make_with_parents
from fast_style.core.folder_lock import FolderLock, Held
from fast_style.demo.course import ShownTraining
from fast_style.losses.build import (
    build_perceptual_loss,
    load_loss_weights,
    read_style,
    require_no_strip,
)
from fast_style.pictures.pixels import fit_longer_side, image_to_tensor
from fast_style.pictures.reading import Picture, read_photo, read_picture
from fast_style.pictures.sheets import side_by_side
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import Config, load_config
from fast_style.settings.fields import SMALLEST_SIDE
from fast_style.settings.starting_file import name_from
from fast_style.styles.shipped import SHEET_SIDE, shipped_styles
from fast_style.stylizing.style_sheet import StyleSheet
from fast_style.stylizing.stylizer import Stylizer
from fast_style.training.build import build_trainer
from fast_style.training.run_folder import Run
from fast_style.training.run_lock import remove_lock, require_unlocked
from fast_style.training.run_log import print_line

# Read from the wheel of scikit-image 0.26, never copied into this repository. Their origin, from
# the docstrings of `skimage.data`:
#   astronaut.png        NASA, public domain
#   camera.png           Lav Varshney, CC0
#   chelsea.png          Stefan van der Walt, CC0
#   coffee.png           Rachel Michetti, CC0
#   rocket.jpg           SpaceX, public domain
#   motorcycle_left.png  Middlebury stereo benchmark 2014 (Scharstein et al.), no licence stated
# The wheel's other pictures are textures, charts, microscopy and, in `motorcycle_right.png`, the
# same scene once more.
TRAINING_PHOTOS = (
    "astronaut.png",
    "camera.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
# A cat: large clear shapes, a face anybody recognizes, and nothing like it among the others.
HELD_OUT_PHOTO = "chelsea.png"

STYLE_PICTURE = Path(__file__).with_name("style.png")
SETTINGS = Path(__file__).with_name("quickstart.yaml")

# The copy of the user's photo, alone in its folder. It has one name and format, and not the mark of
# results, since a folder's photos are known by these; the user named the photo himself.
_OWN_PHOTO = Path("own_photo", "photo.png")

# What the demo draws. All of them carry the mark of results.
_DRAWN = ("style.png", "styles.png", "course.png", "result.png", "sheet.png")

# Pixels of the longer side at which the held-out photo is stylized: large enough to look at, small
# enough to show strokes that were learned on crops of 160 pixels.
_RESULT_SIDE = 800

# From further away, a command is shown with its absolute path, which is easier to read.
_MOST_FOLDERS_UP = 2


class PreparedDemo(NamedTuple):
    """A demo that is ready to train."""

    folder: Path
    photo: Path  # held out of training, stylized at the end
    shown: Image.Image
    """That photo. The file may become another one: a demo with another photo has the same."""
    config: Config
    announcement: str


def find_demo_photos() -> tuple[list[Path], Path]:
    """The photos to train on, and the one that is held out to show the result.

    Raises:
        UserError: scikit-image is not installed, or its wheel lacks one of the photos.
    """
    folder = _find_scikit_image() / "data"
    *training, held_out = (folder / name for name in (*TRAINING_PHOTOS, HELD_OUT_PHOTO))
    for path in (*training, held_out):
        if not path.is_file():
            raise UserError(
                f"{printable(path)}: the demo's photo is missing from this scikit-image; "
                "reinstall it: pip install --force-reinstall 'fast-style[demo]'"
            )
    return training, held_out


@contextmanager
def alone_in_folder(
    folder: Path,
    *,
    style: Path | None = None,
    photo: Path | None = None,
    say: Callable[[str], None] = print_line,
) -> Iterator[None]:
    """Keep other demos out of the folder that `prepare_demo` fills, which is made for it.

    Without this, a second demo would replace the photo of one that trains.

    Args:
        folder: as for `prepare_demo`, like `style` and `photo`.
        style: the user's style picture, if any.
        photo: the user's photo, if any.
        say: called with a line while the lock of the folder is watched.

    Raises:
        UserError: another process runs a demo there; the folder cannot be written, or a picture
            cannot be read.
    """
    if style is not None or photo is not None:
        painting = read_photo(STYLE_PICTURE if style is None else style)
        folder = folder / _name_of_run(style, painting)
    with ExitStack() as stack:
        try:
            stack.enter_context(made_folders(folder))
            lock = FolderLock(folder, say)
        except Held as error:
            raise UserError(
                f"{printable(folder)}: {error.holder or 'another process'} runs a demo here "
                "already; wait for it, or change (cd) to another folder"
            ) from None
        except OSError as error:
            raise _unwritten(folder, error) from None
        try:
            yield
        finally:
            lock.release()
            remove_lock(folder)


def prepare_demo(
    folder: Path,
    *,
    style: Path | None = None,
    photo: Path | None = None,
    runs: Path = Path("runs"),
    say: Callable[[str], None] = print_line,
) -> PreparedDemo:
    """Put the pictures into `folder`, and make the settings that train on them.

    Args:
        folder: receives the pictures. With `style` or `photo`, a folder inside it does.
        style: the user's style picture; by default the one in the package.
        photo: the user's photo, held out of training; by default a cat's.
        runs: the folder of all runs.
        say: called with a line while the lock of the run is watched.

    Raises:
        UserError: scikit-image is not installed, a picture cannot be read, the style picture is a
            strip, another process trains this demo, or the folder cannot be written, or has files
            that the demo would replace and has not made.
    """
    training, cat = find_demo_photos()
    shown = read_photo(cat if photo is None else photo)  # an error now, not after the training
    painting = read_photo(STYLE_PICTURE if style is None else style)
    if style is not None:
        require_no_strip(painting, style)
    name = _name_of_run(style, painting)
    if style is not None or photo is not None:
        folder = folder / name
    held_out = folder / "held_out" / cat.name if photo is None else folder / _OWN_PHOTO
    copies = {folder / "photos" / path.name: path for path in training}
    _require_nothing_lost(folder, copies | ({held_out: cat} if photo is None else {}))
    require_unlocked(runs / name, say, anew="")
    try:
        _copy_into(folder / "photos", training)
        held_out.parent.mkdir(exist_ok=True)
        with atomic_write(held_out) as file:
            shown.save(file, "PNG")
    except OSError as error:
        raise _unwritten(folder, error) from None
    write_picture(folder / "style.png", painting)
    config = load_config(
        SETTINGS,
        [
            f"name={name}",
            f"style.image={json.dumps(str(folder / 'style.png'))}",
            f"data.photos={json.dumps(str(folder / 'photos'))}",
            f"data.validation_photos={json.dumps(str(held_out.parent))}",
        ],
    )
    return PreparedDemo(
        folder,
        held_out,
        shown,
        config,
        "demo: trains a small network for about three minutes on two CPU cores, with the COMPACT "
        "loss network that comes with fast-style, on five photos",
    )


def draw_styles(prepared: PreparedDemo, *, device: str) -> str | None:
    """Draw the photo in all styles that come with fast-style; returns a line that says where.

    None if there are no such styles.

    Args:
        prepared: the demo.
        device: where to draw, such as "auto".
    """
    styles = shipped_styles()
    if not styles:
        return None
    photo = fit_longer_side(prepared.shown, SHEET_SIDE)
    drawn = StyleSheet([style.model for style in styles], device=device)
    sheet = prepared.folder / "styles.png"
    write_picture(sheet, drawn.stylize_picture(Picture(photo, None)).rgb)
    return (
        f"look at {sheet}: the photo in {len(styles)} styles that come with fast-style; use one "
        f"with {_as_typed('fast-style')} stylize --style {styles[0].name} YOUR_PHOTO.jpg"
    )


def build_demo(prepared: PreparedDemo, config: Config, run: Run, **options: Any) -> ShownTraining:
    """The training of a demo, which shows the course of its photo on a sheet.

    Args:
        prepared: the demo.
        config: its settings.
        run: from `open_run`.
        options: further arguments of `build_trainer`.

    Raises:
        UserError: as `build_trainer`.
    """
    trainer = build_trainer(config, run, **options)
    return ShownTraining(trainer, prepared.shown, prepared.folder / "course.png")


def finish_demo(prepared: PreparedDemo, runs: Path, *, device: str) -> list[str]:
    """Stylize the held-out photo and write the sheet; returns lines with the result and next steps.

    Args:
        prepared: the demo, now trained.
        runs: the folder of all runs.
        device: where to stylize, such as "auto".
    """
    config = prepared.config
    model = runs / config.name / "model.safetensors"
    stylizer = Stylizer(model, device=device)
    photo = fit_longer_side(prepared.shown, _RESULT_SIDE)
    result = stylizer(photo)
    style = read_style(config.style.image, config.style.size)
    write_picture(prepared.folder / "result.png", result)
    sheet = prepared.folder / "sheet.png"
    write_picture(sheet, side_by_side([photo, style, result]))

    fast_style = _as_typed("fast-style")
    return [
        _measured(config, photo, result, style, stylizer),
        f"look at it: {sheet}  (photo, style, result)",
        "next:",
        f"  {fast_style} demo --style YOUR_STYLE.jpg --photo YOUR_PHOTO.jpg",
        f"  {fast_style} stylize --model {model} YOUR_PHOTO.jpg",
        f"  {fast_style} init YOUR_STYLE.jpg --output my_style.yaml; "
        f"{fast_style} train my_style.yaml",
        f"  {_as_typed('tensorboard')} --logdir {runs}",
    ]


def _find_scikit_image() -> Path:
    # skimage itself is never imported: only its folder is needed.
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the demo's photos come with scikit-image, which is not installed: "
            "pip install 'fast-style[demo]'"
        )
    return Path(spec.submodule_search_locations[0])


def _unwritten(folder: Path, error: OSError) -> UserError:
    place = printable(Path(error.filename or folder))
    remedy = remedy_for(error, "rename what is there, or change (cd) to another folder")
    return UserError(
        f"{place}: cannot be written ({error.strerror}); the demo needs the folder "
        f"{printable(folder)}: {remedy}"
    )


def _name_of_run(style: Path | None, painting: Image.Image) -> str:
    """The picture's name and a digest, so that another picture of that name is another run."""
    if style is None:
        return "quickstart"
    digest = hashlib.sha256(painting.tobytes()).hexdigest()
    return f"{name_from(style.stem)[:90]}-{digest[:6]}"


def _require_nothing_lost(folder: Path, copies: Mapping[Path, Path]) -> None:
    """Check that the demo replaces only what an earlier one has made.

    The copy of the user's own photo is not looked at: it has no mark, and another one replaces it.

    Args:
        folder: the demo's.
        copies: the photos that are copied, by their new paths.

    Raises:
        UserError: names the first file that an earlier one has not made.
    """
    drawn = {folder / name: None for name in _DRAWN}
    for path, original in (*drawn.items(), *copies.items()):
        if os.path.lexists(path) and not _is_of_a_demo(path, original):
            raise UserError(
                f"{printable(path)}: is not of an earlier demo, and would be replaced; rename it, "
                "or change (cd) to another folder"
            )


def _is_of_a_demo(path: Path, original: Path | None) -> bool:
    """Whether a file has the pixels of its original, or without one the mark of results."""
    try:
        if original is None:
            return read_picture(path).is_result
        # Not its bytes: another version of Pillow packs them otherwise.
        return read_photo(path).tobytes() == read_photo(original).tobytes()
    except UserError:
        return False


def _copy_into(folder: Path, photos: list[Path]) -> None:
    make_with_parents(folder)
    for path in photos:
        # Whole, since the next demo refuses half a copy.
        with atomic_write(folder / path.name) as file:
            file.write(path.read_bytes())


@torch.no_grad()
def _measured(
    config: Config, photo: Image.Image, result: Image.Image, style: Image.Image, stylizer: Stylizer
) -> str:
    """A line with the style term of the photo and of its picture."""
    if min(photo.size) < SMALLEST_SIDE:
        return (
            f"style term: not measured, as the photo has {photo.width} x {photo.height} pixels "
            f"here, and the loss network needs {SMALLEST_SIDE} on each side"
        )
    device = stylizer.device
    loss = build_perceptual_loss(config, load_loss_weights(config), style, device)
    pixels = [(image_to_tensor(image)[None].float() / 255).to(device) for image in (photo, result)]
    before, after = (loss(picture, pixels[0]).style.item() for picture in pixels)
    return (
        f"style term on a photo that was not trained on: {before:.2f} before, {after:.2f} after "
        f"({stylizer.description['loss_network']['label']})"
    )


def _as_typed(command: str) -> str:
    """A command of this environment, with its folder unless the environment is activated."""
    if shutil.which(command) is not None:
        return command
    path = Path(sys.executable).parent / command
    try:
        near = os.path.relpath(path)
    except ValueError:  # on another drive of Windows
        return str(path)
    return near if Path(near).parts.count(os.pardir) <= _MOST_FOLDERS_UP else str(path)
