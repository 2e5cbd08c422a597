"""The network in bands: the same picture as from the whole photo, in little memory."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import KINDS, make_net
from torch import Tensor

from fast_style.networks.grain import grain_pattern
from fast_style.networks.streaming import (
    Band,
    Moments,
    band_bytes,
    highest_band,
    storage_bytes,
    stylize_in_bands,
)
from fast_style.networks.transform_net import TransformNet
from fast_style.pictures.pixels import image_to_tensor
from fast_style.settings.fields import SMALLEST_SIDE

CPU = torch.device("cpu")
SIZES = [(1, 1), (3, 40), (16, 16), (17, 19), (19, 16), (18, 33), (40, 7), (47, 22), (64, 64)]


def channels_last_net(**settings: object) -> TransformNet:
    return make_net(**settings).to(memory_format=torch.channels_last)


def noise(height: int, width: int) -> Image.Image:
    values = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@torch.no_grad()
def whole(net: TransformNet, photo: Image.Image) -> Tensor:
    pixels: Tensor = net(image_to_tensor(photo)[None] / 255)
    return pixels[0]


def in_bands(
    net: TransformNet,
    photo: Image.Image,
    *,
    rows: int,
    storage: torch.device | Path = CPU,
    grain: float = 0.0,
) -> Tensor:
    """(3, H, W), put together."""
    picture = torch.full((3, photo.height, photo.width), torch.nan)

    def keep(band: Band) -> None:
        _, height, width = band.pixels.shape
        place = picture[:, band.top : band.top + height, band.left : band.left + width]
        assert place.isnan().all()
        place[:] = band.pixels

    for _ in stylize_in_bands(net, photo, keep, band_rows=rows, storage=storage, grain=grain):
        pass
    return picture


# --- The same picture ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [4, 20, 400])
def test_bands_give_what_the_whole_gives(kind: str, rows: int) -> None:
    net = channels_last_net(**KINDS[kind])
    for height, width in SIZES:
        photo = noise(height, width)
        difference = (in_bands(net, photo, rows=rows) - whole(net, photo)).abs().max()
        # Of the pixel range; 5e-6 were seen. The norms of a single color magnify rounding.
        assert difference < (1e-3 if height == width == 1 else 2e-5), (height, width)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "residual_blocks"), [(1, 0), (1, 1), (3, 2), (8, 5)])
def test_any_network_does(kind: str, width: int, residual_blocks: int) -> None:
    net = channels_last_net(width=width, residual_blocks=residual_blocks, **KINDS[kind])
    photo = noise(37, 42)
    difference = (in_bands(net, photo, rows=8) - whole(net, photo)).abs().max()
    assert difference < 2e-5


@pytest.mark.parametrize(("height", "width"), [(3, 40), (47, 22), (64, 64)])
def test_bands_have_the_grain_of_the_whole(height: int, width: int) -> None:
    net = channels_last_net(residual_blocks=1)
    photo = noise(height, width)
    pixels = image_to_tensor(photo) / 255 + 0.1 * grain_pattern(0, 0, height, width)
    with torch.no_grad():
        expected = net(pixels[None])[0]
    assert (expected - whole(net, photo)).abs().max() > 0.01
    assert (in_bands(net, photo, rows=8, grain=0.1) - expected).abs().max() < 2e-5


def test_share_that_is_done_grows_to_one() -> None:
    net = channels_last_net(residual_blocks=2)
    photo = noise(33, 16)
    shares = list(stylize_in_bands(net, photo, lambda band: None, band_rows=4, storage=CPU))
    assert shares == sorted(shares)
    # Six sweeps and two per block. Of 4 rows: nine bands at full size, five at half, three at a
    # quarter.
    assert len(shares) == 3 * 9 + 2 * 5 + 5 * 3
    assert shares[-1] == 1


def test_every_row_of_the_photo_is_read_twice_and_none_more_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[int] = []

    def crop(photo: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        _, top, _, bottom = box
        rows.extend(range(top, bottom))
        return original(photo, box)

    original = Image.Image.crop
    monkeypatch.setattr(Image.Image, "crop", crop)
    in_bands(channels_last_net(), noise(50, 20), rows=8)
    assert rows == [*range(50), *range(50)]


# --- Statistics ---------------------------------------------------------------------------------


def test_moments_of_parts_are_those_of_all() -> None:
    moments = Moments()
    moments.add(torch.tensor([1.0, 2.0]).view(1, 1, 1, 2))
    moments.add(torch.tensor([3.0, 4.0, 10.0]).view(1, 1, 3, 1))
    mean, variance = moments.statistics()
    assert mean.flatten().tolist() == [4]  # 20 / 5
    assert variance.flatten().tolist() == [10]  # (9 + 4 + 1 + 0 + 36) / 5


def test_moments_keep_their_digits_where_the_mean_is_large() -> None:
    # E[x^2] - E[x]^2 in float32 would be 0 or worse: the squares differ in their ninth digit.
    values = 30_000 + torch.tensor([-1.0, 1.0]).repeat(50).view(1, 1, 10, 10)
    assert (values**2).mean() - values.mean() ** 2 != 1
    moments = Moments()
    for part in values.split(3, dim=2):
        moments.add(part)
    mean, variance = moments.statistics()
    assert (mean.item(), variance.item()) == (30_000, 1)


def test_moments_are_those_of_numpy_per_channel() -> None:
    features = torch.randn(1, 5, 23, 7, generator=torch.Generator().manual_seed(1)) * 3 + 7
    moments = Moments()
    for part in features.split([1, 10, 12], dim=2):
        moments.add(part)
    mean, variance = moments.statistics()
    values = features.double().numpy()
    assert np.allclose(mean.numpy(), values.mean((2, 3), keepdims=True), rtol=1e-6)
    assert np.allclose(variance.numpy(), values.var((2, 3), keepdims=True), rtol=1e-6)


# --- Memory and disk ----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 32])
def test_storage_is_two_bytes_per_pixel_and_channel_of_the_first_convolution(width: int) -> None:
    assert storage_bytes(4000, 3000, net_width=width) == 2 * width * 4000 * 3000
    padded = 2 * width * SMALLEST_SIDE * SMALLEST_SIDE
    assert storage_bytes(1, 1, net_width=width) == padded


def test_band_is_as_long_as_the_shorter_side() -> None:
    sizes = [(100, 3000), (3000, 100), (100, 100)]
    assert len({band_bytes(*size, net_width=8, band_rows=4) for size in sizes}) == 1


@pytest.mark.parametrize("most_bytes", [1.1e7, 2e7, 123_456_789])
def test_highest_band_fits_and_the_next_does_not(most_bytes: float) -> None:
    size = {"height": 300, "width": 30_000, "net_width": 4}
    rows = highest_band(**size, most_bytes=most_bytes)
    assert rows > 0
    assert rows % 4 == 0
    assert band_bytes(**size, band_rows=rows) <= most_bytes
    assert band_bytes(**size, band_rows=rows + 4) > most_bytes


def test_highest_band_is_no_higher_than_the_photo() -> None:
    assert highest_band(30, 500, net_width=4, most_bytes=1e12) == 500
    assert highest_band(30, 29, net_width=4, most_bytes=1e12) == 32


@pytest.mark.parametrize("most_bytes", [-1e9, 0, 8e6])
def test_no_band_fits_into_nothing(most_bytes: float) -> None:
    assert highest_band(300, 500, net_width=4, most_bytes=most_bytes) == 0


def test_features_on_a_disk_give_the_same_picture(tmp_path: Path) -> None:
    net = channels_last_net()
    photo = noise(41, 30)
    on_disk = in_bands(net, photo, rows=8, storage=tmp_path)
    assert torch.equal(on_disk, in_bands(net, photo, rows=8))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def shares(tmp_path: Path) -> Iterator[float]:
    """A photo in work, its features on a disk."""
    net, photo = channels_last_net(), noise(64, 64)
    return stylize_in_bands(net, photo, lambda band: None, band_rows=4, storage=tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere, open files have names")
def test_file_has_no_name_while_it_is_there(shares: Iterator[float], tmp_path: Path) -> None:
    names = [list(tmp_path.iterdir()) for _ in shares]
    assert names
    assert not any(names)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """The temporary files that have been opened."""
    files: list[IO[bytes]] = []

    def open_file(**options: Any) -> IO[bytes]:
        files.append(temporary_file(**options))
        return files[-1]

    temporary_file = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", open_file)
    return files


def test_file_grows_to_the_storage_bytes(shares: Iterator[float], opened: list[IO[bytes]]) -> None:
    sizes = [os.fstat(file.fileno()).st_size for _ in shares for file in opened]
    assert max(sizes) == storage_bytes(64, 64, net_width=2)


def test_file_is_closed_when_work_is_given_up(shares: Any, opened: list[IO[bytes]]) -> None:
    next(shares)
    assert not opened[0].closed
    with pytest.raises(KeyboardInterrupt):
        shares.throw(KeyboardInterrupt)
    assert opened[0].closed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_full_disk_is_an_error_of_the_system(
    shares: Iterator[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Path("/dev/full").open("w+b"))  # noqa: SIM115
    with pytest.raises(OSError, match="No space left") as caught:
        list(shares)
    assert caught.value.errno == errno.ENOSPC
