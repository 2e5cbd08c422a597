"""Working directories for the commands."""

from pathlib import Path

import pytest
import yaml
from command_line import photo_at
from tiny_model import trained_with_first_compact, write_tiny_model

from fast_style.models.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(here: Path) -> Path:
    return write_tiny_model(here / "model.safetensors")


@pytest.fixture
def old_model(model: Path) -> Path:
    """The model as trained with the compact weights that were learned from VGG-19."""
    tensors, description = load_checkpoint(model)
    save_checkpoint(Path("old.safetensors"), tensors, trained_with_first_compact(description))
    return Path("old.safetensors")


@pytest.fixture
def config(here: Path) -> Path:
    """A YAML file whose style, photos and weights are all there."""
    photo_at("style.png")
    for number in range(4):
        photo_at(f"photos/{number}.png", seed=number)
    settings = {
        "name": "wave",
        "style": {"image": "style.png", "size": 32},
        "data": {"photos": "photos", "crop_size": 32},
        "loss_network": {"weights": "random"},
    }
    path = here / "wave.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
