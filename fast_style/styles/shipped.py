"""The styles that come with fast-style, found by their names.

Each is a file beside this one, NAME.safetensors; most have their style picture, NAME.jpg, and a
card, NAME.md. docs/ship_style.py makes them. There may be any number, also none. Only names are
looked at here, so that a command is not slower for it.
"""

import os
from pathlib import Path
from typing import NamedTuple

from fast_style.core.errors import UserError, printable, shortened

FOLDER = Path(__file__).parent

ALL = "all"
"""The word that stands for all styles, where a command takes the name of one."""

SHEET_SIDE = 384
"""The usual longer side of a photo on a sheet of all styles, in pixels: enough to choose by."""

LIST = "fast-style styles lists all"
"""The remedy for a name that no style has."""

NONE_SHIPPED = "no model comes with this installation"


class ShippedStyle(NamedTuple):
    """A style that comes with fast-style."""

    name: str
    model: Path
    """In the format of `models.model_files`."""

    picture: Path | None
    """The style picture, at most 512 pixels high and wide; None if it may not be given away."""


def shipped_styles() -> list[ShippedStyle]:
    """All styles, by name."""
    return [_style(path) for path in sorted(FOLDER.glob("*.safetensors"))]


def _style(model: Path) -> ShippedStyle:
    picture = model.with_suffix(".jpg")
    return ShippedStyle(model.stem, model, picture if picture.is_file() else None)


def require_styles(remedy: str) -> list[ShippedStyle]:
    """All styles, at least one.

    Args:
        remedy: what to do if there is none, for the message.

    Raises:
        UserError: there is none.
    """
    styles = shipped_styles()
    if not styles:
        raise UserError(f"{NONE_SHIPPED}; {remedy}")
    return styles


def find_style(name: str) -> ShippedStyle:
    """The style that ``--style NAME`` names.

    Raises:
        UserError: there is none of this name; the message has the nearest ones.
    """
    named = {style.name: style for style in shipped_styles()}
    if name in named:
        return named[name]
    shown = f"--style {printable(shortened(name))}"
    if os.path.isfile(name):
        raise UserError(
            f"{shown}: is a file, but --style takes the name of a style that comes with "
            "fast-style; give a model with --model, and make one of a style picture with "
            f"fast-style demo --style {printable(name)}"
        )
    if not named:
        raise UserError(f"{shown}: {NONE_SHIPPED}; give a model.safetensors with --model")
    raise UserError(
        f"{shown}: no style of this name comes with fast-style{meant(name) or ';'} {LIST}"
    )


def model_of(name: str) -> Path | None:
    """The model file of the style of exactly this name; None if none of it is shipped."""
    return next((style.model for style in shipped_styles() if style.name == name), None)


def style_named(path: Path) -> ShippedStyle | None:
    """The style whose name was given as the path of a model; None if none has it."""
    name = os.fspath(path).removesuffix(".safetensors")
    return next((style for style in shipped_styles() if style.name == name), None)


def model_hint(path: Path) -> str:
    """What to add to the message that a model was not found: the style that was meant, if any."""
    if style := style_named(path):
        return f"; the model of the style of this name is {printable(style.model)}"
    is_name = path.parts == (path.stem,)  # neither a folder nor a suffix
    return (
        f"{(meant(path.name) if is_name else '') or ';'} give a model.safetensors of a training run"
    )


def near_names(name: str, *words: str) -> list[str]:
    """The names of the styles that a mistyped name may mean: those that contain it, or similar.

    `words` may be meant as well.
    """
    import difflib

    names = [*words, *(style.name for style in shipped_styles())]
    plain = name.lower().replace("-", "_").replace(" ", "_")
    containing = [known for known in names if plain.strip("_") and plain in known]
    return containing or difflib.get_close_matches(plain, names)


def meant(name: str, *words: str) -> str:
    """A question for a message, with what a mistyped name may mean; empty if nothing is near.

    Args:
        name: what was given.
        words: what may be meant beside the styles.
    """
    near = near_names(name, *words)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


# --- Style pictures -----------------------------------------------------------------------------


def style_picture(text: str, path: Path) -> Path:
    """The file of a style picture that a user named, or that ships with a style of this name.

    If it is neither, this is `path`; the code that looks for the file adds `picture_hint`.

    Args:
        text: as the user wrote it.
        path: the file that it would be.
    """
    if not os.path.exists(path):
        for style in shipped_styles():
            if style.name == text and style.picture is not None:
                return style.picture
    return path


def word_for(picture: Path) -> str:
    """What a user writes for a style picture: the name of the style that it ships with, or a path.

    The reverse of `style_picture`.
    """
    for style in shipped_styles() if picture.parent == FOLDER else ():
        if style.picture == picture and not os.path.exists(style.name):
            return style.name
    return str(picture)


def picture_hint(path: Path) -> str:
    """What to add to the message that a style picture was not found; often empty."""
    if path.name in [style.name for style in shipped_styles()]:
        return "; the style of this name comes without its picture"
    if path.suffix:
        return ""
    is_name = path.parts == (path.name,)  # not in a folder
    lists = f"; give a picture, or the name of a style: {LIST}" if is_name else ""
    return meant(path.name) or lists
