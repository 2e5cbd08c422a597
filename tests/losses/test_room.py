"""Claims about `room`: large pictures are refused before they take memory, small ones never."""

import pytest
import torch

from fast_style.losses import room
from fast_style.losses.loss_network import LossNetwork, load_weights
from fast_style.losses.room import Room, least_bytes

LAYERS = [(1, 24), (1, 24), (2, 64)]  # blocks and channels
GIGABYTE = 1 << 30


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What the system says it has, in its last place."""
    amounts: list[int | None] = [None]
    monkeypatch.setattr(room, "available_bytes", lambda device: amounts[-1])
    return amounts


def test_least_bytes_count_float32_features_and_their_gradients() -> None:
    pixels = torch.zeros(2, 3, 9, 6)
    assert least_bytes(pixels, LAYERS) == 3 * 4 * 2 * 24 * 9 * 6
    pixels.requires_grad_()
    assert least_bytes(pixels, LAYERS) == 2 * 4 * 2 * (24 * 9 * 6 * 2 + 64 * 4 * 3)
    with torch.no_grad():
        assert least_bytes(pixels, LAYERS) == 3 * 4 * 2 * 24 * 9 * 6


def test_too_large_a_picture_is_refused_with_both_amounts(available: list[int | None]) -> None:
    pixels = torch.zeros(1, 3, 1, 1).expand(1, 3, 4096, 4096)  # takes no memory
    available.append(GIGABYTE)
    with pytest.raises(MemoryError, match=r"^4\.8 GB are needed, and 1\.1 GB are available$"):
        Room().require(pixels, LAYERS)
    available.append(None)  # the system does not say
    Room().require(pixels, LAYERS)


def test_what_was_there_once_is_not_asked_for_again(available: list[int | None]) -> None:
    once, pixels = Room(), torch.zeros(1, 3, 1, 1).expand(1, 3, 4096, 4096)
    available.append(8 * GIGABYTE)
    once.require(pixels, LAYERS)
    available.append(GIGABYTE)  # freed memory is kept by the process
    once.require(pixels, LAYERS)
    with pytest.raises(MemoryError):
        once.require(pixels.expand(2, 3, 4096, 4096), LAYERS)


def test_small_pictures_are_never_refused(available: list[int | None]) -> None:
    available.append(0)
    Room().require(torch.zeros(4, 3, 256, 256), LAYERS)


def test_loss_network_asks_up_to_the_deepest_wanted_layer(available: list[int | None]) -> None:
    network = LossNetwork("vgg16", load_weights("random", "vgg16", "relu2_1"))
    asked: list[object] = []
    network._room.require = lambda pixels, layers: asked.append(layers)  # type: ignore[assignment]
    pixels = torch.zeros(1, 3, 16, 16)
    network(pixels, ["relu1_1"])
    network(pixels, ["relu2_1", "conv1_1"])
    network(pixels, [])
    assert asked == [[(1, 64)], [(1, 64), (1, 64), (2, 128)], []]
