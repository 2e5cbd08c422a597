"""Files that come with fast-style: as small as their pictures allow, and without private names."""

from pathlib import Path

import pytest
import torch
from tiny_model import write_tiny_model

from fast_style.models import narrow, shipping
from fast_style.models.checkpoint import load_checkpoint, load_transform_net, save_checkpoint
from fast_style.models.shipping import Card, Shipped, write_shipped

CARD = Card("The Wave", "Hokusai", "1831", "a museum")


@pytest.fixture(autouse=True)
def small_kernels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of small networks' residual blocks in 8 bits, too."""
    monkeypatch.setattr(narrow, "_FEWEST_IN_8_BITS", 1000)


def photos() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(3, *size, generator=generator) for size in ((24, 32), (40, 20))]


def ship(folder: Path, model: Path) -> Shipped:
    return write_shipped(
        folder / "wave.safetensors", model, photos(), name="wave", card=CARD, license="MIT"
    )


def values(model: Path, photo: torch.Tensor) -> torch.Tensor:
    net, _ = load_transform_net(model)
    with torch.no_grad():
        return (net(photo[None]).clamp(0, 1) * 255).round()


def test_difference_is_that_of_the_files_pictures(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors", width=3)
    shipped = ship(tmp_path, model)
    differences = [
        (values(tmp_path / "wave.safetensors", photo) - values(model, photo)).abs().max().item()
        for photo in photos()
    ]
    assert shipped == Shipped(8, int(max(differences)))
    assert 0 < shipped.difference <= 2


def test_weights_take_16_bits_where_8_change_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors", width=3)
    monkeypatch.setattr(shipping, "LARGEST_DIFFERENCE", 0)  # above, 8 bits made one of 1 or 2
    assert ship(tmp_path, model).bits == 16
    stored = load_checkpoint(tmp_path / "wave.safetensors").tensors
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_file_has_the_name_the_card_and_the_license(tmp_path: Path) -> None:
    ship(tmp_path, write_tiny_model(tmp_path / "model.safetensors"))
    _, metadata = load_transform_net(tmp_path / "wave.safetensors")
    assert (metadata["format"], metadata["name"], metadata["license"]) == (2, "wave", "MIT")
    assert metadata["settings"]["name"] == "wave"
    assert metadata["card"] == CARD._asdict()
    assert metadata["step"] == 40_000


def test_file_says_nothing_of_the_folders_it_was_trained_in(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors")
    tensors, metadata = load_checkpoint(model)
    metadata["settings"]["data"] |= {
        "photos": "/home/me/secret/photos",
        "cache_folder": "/secret/c",
    }
    metadata["settings"]["style"]["image"] = "/secret/wave.jpg"
    metadata["settings"]["loss_network"]["weights"] = "/secret/vgg.pth"
    metadata["settings"]["train"]["init_from"] = "/secret/base.safetensors"
    save_checkpoint(model, tensors, metadata)
    ship(tmp_path, model)
    assert b"secret" not in (tmp_path / "wave.safetensors").read_bytes()
    _, described = load_transform_net(tmp_path / "wave.safetensors")
    settings = described["settings"]
    assert settings["data"]["photos"] == "photos"
    assert settings["style"]["image"] == "wave.jpg"
    assert settings["loss_network"]["weights"] == "vgg.pth"


def test_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors")
    found = set()
    for _ in range(3):
        ship(tmp_path, model)
        found.add((tmp_path / "wave.safetensors").read_bytes())
    assert len(found) == 1


def test_half_width_takes_less_than_a_third_of_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    model = write_tiny_model(tmp_path / "model.safetensors", width=16)
    assert ship(tmp_path, model).bits == 8
    ratio = (tmp_path / "wave.safetensors").stat().st_size / model.stat().st_size
    assert ratio < 1 / 3
