"""What the tests of stylizing share."""

from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from fast_style.stylizing.stylizer import Stylizer


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="session")
def stylizer(model: Path) -> Stylizer:
    return Stylizer(model, device="cpu")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that messages hold short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
