"""Photos of noise for tests that stylize some: in memory, and in files."""

from pathlib import Path

import numpy as np
from PIL import Image


def noise_photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A photo of noise in any mode; the width is its seed."""
    values = np.random.default_rng(width).integers(0, 256, (height, width, 4), dtype=np.uint8)
    opaque = Image.fromarray(values[..., :3])
    return Image.fromarray(values) if mode == "RGBA" else opaque.convert(mode)


def write_noise_photo(path: str, *, width: int = 20, height: int = 18) -> Path:
    """Write a photo of noise, and its folder; gives its path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    noise_photo(width, height).save(path)
    return Path(path)
