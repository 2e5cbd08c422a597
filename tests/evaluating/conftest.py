"""Runs and photos that the tests of evaluations share."""

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision.models
from small_distillation import CHANNELS, random_convolutions
from small_evaluation import JUDGE_ITERATIONS, JUDGE_SIZE, write_narrow_vgg16
from small_run import settings_of, train_once, write_photos, write_small_run

from fast_style.evaluating import evaluation
from fast_style.losses import judge, loss_network
from fast_style.settings.layers import Architecture, torchvision_index
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
    """torchvision's file for VGG-16 of Caffe origin, in the cache; a narrow one, up to relu2_2.

    Beside it lies the other one for VGG-16, with the same numbers.
    """
    path, digest = write_vgg(torch_cache, "vgg16_features-amdegroot", "vgg16", CHANNELS)
    path_of_other = torch_cache / f"vgg16-{digest}.pth"
    shutil.copy(path, path_of_other)
    offer(monkeypatch, "VGG16", IMAGENET1K_FEATURES=path, IMAGENET1K_V1=path_of_other)
    known = loss_network._KnownFile("caffe", is_bgr=False)
    monkeypatch.setitem(loss_network._KNOWN_FILES, digest, known)
    return path


@pytest.fixture
def full_vgg19(torch_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's file for VGG-19, in the cache; a narrow one, up to relu3_4."""
    channels = CHANNELS | dict.fromkeys(["3_1", "3_2", "3_3", "3_4"], 12)
    path, digest = write_vgg(torch_cache, "vgg19", "vgg19", channels)
    offer(monkeypatch, "VGG19", IMAGENET1K_V1=path)
    known = loss_network._KnownFile("torchvision", is_bgr=False)
    monkeypatch.setitem(loss_network._KNOWN_FILES, digest, known)
    return path


def write_vgg(
    folder: Path, name: str, architecture: Architecture, channels: dict[str, int]
) -> tuple[Path, str]:
    """A state dict, named as torchvision's are; its path, and the digest in its name."""
    tensors = {}
    for number, (kernel, bias) in random_convolutions(channels).items():
        index = torchvision_index(f"conv{number}", architecture)
        tensors |= {f"features.{index}.weight": kernel, f"features.{index}.bias": bias}
    path = folder / "new.pth"
    torch.save(tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(folder / f"{name}-{digest}.pth"), digest


def offer(monkeypatch: pytest.MonkeyPatch, architecture: str, **paths: Path) -> None:
    """Let torchvision's weights be these files."""
    entries = {
        entry: SimpleNamespace(url=f"https://example.org/{path.name}", meta={"_file_size": 528})
        for entry, path in paths.items()
    }
    weights = SimpleNamespace(**entries)
    monkeypatch.setattr(torchvision.models, f"{architecture}_Weights", weights)


@pytest.fixture(scope="package")
def narrow_vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow VGG-16 up to relu4_3, in a file that does not state its preprocessing."""
    return write_narrow_vgg16(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def small_judge(narrow_vgg16: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Makes the judge one of small pictures and few iterations; gives weights for it."""
    text = judge.JUDGE_FILE.read_text()
    text = text.replace("size: 256", f"size: {JUDGE_SIZE}")
    text = text.replace("iterations: 100", f"iterations: {JUDGE_ITERATIONS}")
    path = tmp_path / "judge.yaml"
    path.write_text(text)
    monkeypatch.setattr(judge, "JUDGE_FILE", path)
    return narrow_vgg16
