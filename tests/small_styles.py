"""Styles that come with fast-style, for tests: their models are tiny."""

from pathlib import Path

import pytest
from PIL import Image
from tiny_model import write_tiny_model

from fast_style.models.checkpoint import load_checkpoint, save_checkpoint
from fast_style.styles import shipped

CARDS = {
    "great_wave": ("The Great Wave", "Hokusai", "1831"),
    "starry_night": ("The Starry Night", "Vincent van Gogh", "1889"),
    "water_lilies": ("Water Lilies", "Claude Monet", "1906"),
}


def ship(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str, pictures: bool = True) -> Path:
    """Put styles of these names into a folder, and let it be that of the shipped ones."""
    folder.mkdir()
    monkeypatch.setattr(shipped, "FOLDER", folder)
    for number, name in enumerate(names):
        path = write_tiny_model(folder / f"{name}.safetensors", name=name, tanh_scale=100 + number)
        tensors, metadata = load_checkpoint(path)
        title, artist, year = CARDS[name]
        card = {"title": title, "artist": artist, "year": year, "source": "a museum"}
        save_checkpoint(path, tensors, metadata | {"card": card})
        if pictures:
            Image.new("RGB", (40, 32), (50 * number, 90, 200)).save(folder / f"{name}.jpg")
    return folder
