"""Runs and photos that the tests of evaluations share."""

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision.models
from small_distillation import CHANNELS, random_convolutions
from small_run import settings_of, train_once, write_photos, write_small_run

from fast_style.evaluating import evaluation
from fast_style.losses import loss_network
from fast_style.settings.layers import torchvision_index
from fast_style.training.trainer import Trainer


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer]:
    folder = tmp_path_factory.mktemp("trained")
    trainer = train_once(settings_of(write_small_run(folder)), folder / "runs")
    return folder / "runs" / "tiny", trainer


@pytest.fixture(scope="package")
def run(trained: tuple[Path, Trainer]) -> Path:
    """A finished tiny run, ``.../runs/tiny``, with the photos and settings beside `runs`."""
    return trained[0]


@pytest.fixture(scope="package")
def compact_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run like `run`, with the compact loss network."""
    folder = tmp_path_factory.mktemp("compact")
    settings = settings_of(write_small_run(folder), "loss_network.weights=compact")
    train_once(settings, folder / "runs")
    return folder / "runs" / "tiny"


@pytest.fixture(scope="package")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("held-out"), 3)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing takes most of a small evaluation's time, and many tests are about something else."""
    monkeypatch.setattr(evaluation, "measure_seconds", lambda *_: {})


@pytest.fixture
def torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder into which torch.hub downloads, empty; and nothing can be downloaded."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a download was begun")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def full_vgg(torch_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's file for VGG-19, in the cache; a narrow one, up to relu2_2.

    Beside it lies that for VGG-16, which up to there has the same layers.
    """
    path = torch_cache / "vgg.pth"
    tensors = {}
    for number, (kernel, bias) in random_convolutions(CHANNELS).items():
        index = torchvision_index(f"conv{number}", "vgg19")
        tensors |= {f"features.{index}.weight": kernel, f"features.{index}.bias": bias}
    torch.save(tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    for architecture in ("vgg16", "vgg19"):
        name = f"{architecture}-{digest}.pth"
        shutil.copy(path, torch_cache / name)
        entry = SimpleNamespace(url=f"https://example.org/{name}", meta={"_file_size": 548})
        weights = SimpleNamespace(IMAGENET1K_V1=entry)
        monkeypatch.setattr(torchvision.models, f"{architecture.upper()}_Weights", weights)
    known = loss_network._KnownFile("torchvision", is_bgr=False)
    monkeypatch.setitem(loss_network._KNOWN_FILES, digest, known)
    return torch_cache / f"vgg19-{digest}.pth"
