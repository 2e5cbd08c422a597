"""Files whose color profile cannot be applied, so that their plain pixels are taken."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from fast_style.pictures.reading import apply_profile, opened
from fast_style.pictures.scanning import first_of

_GREY = ("1", "L", "LA", "La", "F")


def has_unusable_profile(path: Path) -> bool:
    """Whether a file has a profile that is broken, or made for other pixels; False if unreadable.

    No pixels are decoded.
    """
    try:
        with opened(path) as (image, _):
            profile = image.info.get("icc_profile")
            if not profile:
                return False
            return apply_profile(Image.new(_mode_of_colors(image), (1, 1)), profile) is None
    except Exception:  # decoders meet bad data with nearly any
        return False


def _mode_of_colors(image: Image.Image) -> str:
    """The mode of the pixels that `read_picture` applies the profile to."""
    if image.mode in ("CMYK", "LAB"):
        return image.mode
    is_grey = image.mode in _GREY or image.mode.startswith("I")
    return "RGB" if not is_grey or (image.mode == "L" and image.has_transparency_data) else "L"


def line_about_profiles(names: Iterable[str]) -> str:
    """What is told of files whose profile cannot be applied; empty if there are none."""
    found = sorted(names)
    if not found:
        return ""
    files, them = ("1 file", "it") if len(found) == 1 else (f"{len(found):,} files", "them")
    return (
        f"the color profile of {files} cannot be applied, and the plain pixels are taken: "
        f"{first_of(found)}; if their colors are wrong, save {them} as sRGB"
    )
