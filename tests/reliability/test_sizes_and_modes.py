"""A short form of benchmarks/reliability/sizes_and_modes.py.

Single modes, orientations and profiles are in `tests/pictures/test_reading.py`.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def test_small_sizes_and_all_modes_depths_orientations_and_profiles_give_what_they_should(
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    assert figures_of("sizes_and_modes.py", "--largest", "9") == {
        "sizes 1 to 9 x 1 to 9": ("81 of 81", ""),
        "modes and bit depths": ("58 of 58", ""),
        "EXIF orientations 1 to 8": ("40 of 40", ""),
        "color profiles": ("28 of 28", ""),
    }


@pytest.mark.usefixtures("command")
def test_other_pixels_than_expected_are_told(tmp_path: Path) -> None:
    sizes_and_modes = importlib.import_module("sizes_and_modes")
    case = next(sizes_and_modes.png_depths())
    assert sizes_and_modes.mistake(tmp_path, case) is None
    black = case._replace(pixels=np.zeros((1, 1, 3)))
    assert sizes_and_modes.mistake(tmp_path, black) == (
        "PNG of 1 bits, type 0: [255 255 255] in place of [0. 0. 0.], at the first pixel"
    )
    larger = case._replace(pixels=np.zeros((2, 1, 3)))
    told = sizes_and_modes.mistake(tmp_path, larger)
    assert told == "PNG of 1 bits, type 0: shape (1, 1, 3) in place of (2, 1, 3)"
