"""Arguments of the commands that paint photos with a network."""

import argparse

from fast_style.core.errors import shortened
from fast_style.stylizing.copies import DEFAULT_STROKES, LEAST_RATIO, LEAST_STROKES, require_strokes


def add_grain(parser: argparse.ArgumentParser) -> None:
    """Add ``--grain``; None is what the model asks for."""
    parser.add_argument(
        "--grain",
        type=grain_levels,
        metavar="LEVELS",
        help="add faint, smooth noise to each photo, so that plain skies and walls get strokes, "
        "too: about 5 levels of 255; 0, as for the frames of a video, adds none (default: what the "
        "model asks for: 5 in some of the styles that come with fast-style, else none)",
    )


def grain_levels(text: str) -> float:
    """A number from 0 to `MOST_GRAIN`."""
    from fast_style.models.model_files import MOST_GRAIN, require_grain

    try:
        return require_grain(float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number from 0 to {MOST_GRAIN:g}, got {shortened(text)!r}"
        ) from None


def add_strokes(parser: argparse.ArgumentParser) -> None:
    """Add ``--strokes``; None is `DEFAULT_STROKES`."""
    parser.add_argument(
        "--strokes",
        type=strokes_side,
        metavar="PIXELS",
        help="on photos with a longer side of at least "
        f"{LEAST_RATIO:g} times PIXELS, paint strokes as large as on one of PIXELS; fewer make "
        "them larger, and swallow more of the photo. 0, as for the frames of a video, paints every "
        f"photo in one pass, large ones with fine strokes (default: {DEFAULT_STROKES})",
    )


def strokes_side(text: str) -> int:
    """0, or a whole number of at least `LEAST_STROKES`."""
    try:
        return require_strokes(int(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be 0, or a whole number of at least {LEAST_STROKES}, got {shortened(text)!r}"
        ) from None
