"""Claims about `artifacts`: each measure on pictures with its fault and without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fast_style.losses.perceptual import PerceptualLoss
from fast_style.measures.artifacts import (
    MIN_SIDE_TO_SEPARATE_PEAKS,
    blotchiness,
    border_ratio,
    clipped_fraction,
    flat_probes,
    weave_strengths,
)
from fast_style.pictures.pixels import image_to_tensor
from fast_style.pictures.reading import read_picture

CLEAN, FAULTY = 0.5, 1.0  # levels, as the docstring of `weave_strengths` says


def make_pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def make_photos(num_photos: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth shapes with some straight edges, in [0.2, 0.8]."""
    coarse = make_pictures(num_photos, 3, 7, 9, seed=seed)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    smooth[..., height // 3 :, width // 5 : width // 2] *= 0.6
    return 0.2 + 0.6 * smooth


def board(height: int, width: int, period: int) -> Tensor:
    """+-1 in squares of half a period."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return 1.0 - 2 * ((rows // (period // 2) + columns // (period // 2)) % 2)


# --- Weave --------------------------------------------------------------------------------------


def weave(pictures: Tensor, photos: Tensor | None = None) -> Tensor:
    """What repeats every 2 and every 4 pixels: (2, N). By default, the pictures are the photos."""
    return torch.stack(weave_strengths(pictures, pictures if photos is None else photos))


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("amplitude", [1.0, 2.0, 10.0])
def test_weave_of_a_checkerboard_is_its_amplitude_in_levels(period: int, amplitude: float) -> None:
    pictures = 0.5 + amplitude / 255 * board(64, 96, period).expand(1, 3, -1, -1)
    found = weave(pictures)[:, 0].tolist()
    expected = [amplitude, 0.0] if period == 2 else [0.0, amplitude]
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-2)


def test_squares_of_the_two_periods_sum_to_the_square_of_both_patterns_together() -> None:
    pictures = 0.5 + (3 * board(64, 64, 2) + 4 * board(64, 64, 4)).expand(1, 3, -1, -1) / 255
    found = weave(pictures)[:, 0]
    assert found.tolist() == pytest.approx([3.0, 4.0], rel=1e-3)
    assert found.norm().item() == pytest.approx(5.0, rel=1e-3)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("period", [2, 4])
def test_stripes_count_in_either_direction(axis: int, period: int) -> None:
    stripes = 1.0 - 2 * (torch.arange(64) // (period // 2) % 2)
    pictures = 0.5 + 3 / 255 * stripes.view(-1, 1).expand(1, 3, 64, 64).transpose(2, axis)
    assert weave(pictures).max().item() == pytest.approx(3, rel=1e-3)


def test_a_pattern_in_one_channel_counts_a_third_of_its_power() -> None:
    pictures = torch.full((1, 3, 64, 64), 0.5)
    pictures[:, 1] += 6 / 255 * board(64, 64, 4)
    assert weave(pictures)[1].item() == pytest.approx(6 / 3**0.5, rel=1e-3)


@pytest.mark.parametrize("period", [2, 4])
def test_a_pattern_in_a_picture_is_found_with_its_amplitude(period: int) -> None:
    photos = make_photos(3, 120, 161)
    assert (weave(photos) < CLEAN).all()
    marked = photos + 2 / 255 * board(120, 161, period)
    assert weave(marked, photos)[period // 4].tolist() == pytest.approx([2.0] * 3, abs=0.2)


def rough_photos(num_photos: int, side: int) -> Tensor:
    """Photos that are flat in their left fifth, and rough elsewhere."""
    photos = make_pictures(num_photos, 3, side, side) * 0.6 + 0.2
    photos[..., : side // 5] = 0.5
    return photos


@pytest.mark.parametrize("period", [2, 4])
def test_a_pattern_in_flat_areas_alone_is_found(period: int) -> None:
    photos = rough_photos(2, 256)
    marked = photos.clone()
    marked[..., : 256 // 5] += 3 / 255 * board(256, 256 // 5, period)
    assert (weave(photos) < CLEAN).all()
    assert (weave(marked, photos)[period // 4] > 2 * FAULTY).all()


def test_a_pattern_where_the_photo_is_rough_is_not_counted() -> None:
    photos = rough_photos(2, 256)
    marked = photos.clone()
    marked[..., 256 // 4 :] += 3 / 255 * board(256, 256 - 256 // 4, 4)
    assert (weave(marked, photos) < CLEAN).all()


@pytest.mark.parametrize("period", [2, 4])
def test_a_pattern_whose_sign_changes_is_found(period: int) -> None:
    pictures = 0.5 + 3 / 255 * (board(256, 256, period) * board(256, 256, 128)).expand(1, 3, -1, -1)
    assert weave(pictures)[period // 4].item() == pytest.approx(3, rel=1e-2)


@pytest.mark.parametrize("period", [3, 5, 6, 7, 16])
def test_other_periods_are_no_weave(period: int) -> None:
    # Sinusoids: a square wave of period 16 has none of our frequencies, one of 12 would.
    wave = torch.sin(2 * torch.pi * torch.arange(96) / period)
    pictures = 0.5 + 20 / 255 * (wave[:, None] * wave).expand(1, 3, -1, -1)
    # A window of 32 pixels tells a period of 5 from one of 4, up to a hundredth of the amplitude.
    assert weave(pictures).max().item() < 0.2


def test_noise_of_20_levels_is_clean() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 + 20 / 255 * torch.randn(3, 3, 256, 256, generator=generator)
    assert (weave(noise) < CLEAN / 2).all()


@pytest.mark.parametrize("photo_has_the_edge", [True, False])
def test_a_straight_edge_is_clean(photo_has_the_edge: bool) -> None:
    # It shines along a whole row of the spectrum, through the frequencies of the pattern.
    pictures = torch.full((1, 3, 256, 256), 0.2)
    pictures[..., 101:] = 0.8
    photos = pictures if photo_has_the_edge else torch.full_like(pictures, 0.5)
    assert (weave(pictures, photos) < CLEAN / 2).all()


@pytest.mark.parametrize("size", [(16, 16), (17, 35), (31, 64), (63, 18)])
def test_weave_works_for_small_and_odd_sizes(size: tuple[int, int]) -> None:
    flat = torch.full((1, 3, *size), 0.4)
    assert weave(flat).max().item() < 1e-2
    marked = flat + 5 / 255 * board(*size, 4)
    assert weave(marked, flat)[:, 0].tolist() == pytest.approx([0, 5], rel=1e-2, abs=2e-2)


def test_weave_of_a_picture_that_is_too_small_is_not_a_number() -> None:
    tiny = torch.zeros(2, 3, MIN_SIDE_TO_SEPARATE_PEAKS - 1, 40)
    assert weave(tiny).isnan().tolist() == [[True, True]] * 2


def test_weave_does_not_know_brightness_nor_mirrors() -> None:
    pictures = make_photos(2, 64, 80) + 2 / 255 * board(64, 80, 4)
    expected = weave(pictures)
    for other in (pictures + 0.1, pictures.flip(2), pictures.flip(3), pictures.transpose(2, 3)):
        torch.testing.assert_close(weave(other), expected, rtol=1e-2, atol=1e-2)


def test_weave_of_a_batch_is_that_of_its_pictures() -> None:
    pictures, photos = make_pictures(3, 3, 70, 90), make_photos(3, 70, 90)
    one_by_one = [weave(pictures[i : i + 1], photos[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(weave(pictures, photos), torch.cat(one_by_one, dim=1))


def test_weave_of_half_precision_is_measured_in_float32() -> None:
    pictures = make_photos(1, 64, 64) + 2 / 255 * board(64, 64, 4)
    half = pictures.half()
    assert weave(half).dtype == torch.float32
    torch.testing.assert_close(weave(half), weave(half.float()))


def upsampler(kind: str) -> Callable[[Tensor], Tensor]:
    """Photos to a quarter of their size and back by two stages with random weights."""
    torch.manual_seed(0)
    stages = [
        nn.ConvTranspose2d(channels, 3 if last else 8, 3, 2, padding=1, output_padding=1)
        if kind == "transposed"
        else nn.Sequential(
            nn.Upsample(scale_factor=2.0),
            nn.Conv2d(channels, 3 if last else 8, 3, padding=1, padding_mode="reflect"),
        )
        for channels, last in ((3, False), (8, True))
    ]
    network = nn.Sequential(*stages)

    def upsample(photos: Tensor) -> Tensor:
        with torch.no_grad():
            result = network(F.avg_pool2d(photos, 4))
        # The same contrast for both kinds: a standard deviation of 40 levels.
        return 0.5 + 40 / 255 * (result - result.mean()) / result.std()

    return upsample


def test_transposed_convolutions_have_a_weave_and_resizing_has_none() -> None:
    photos = make_photos(3, 128, 128)
    assert (weave(upsampler("transposed")(photos), photos) > 5 * FAULTY).all()
    assert (weave(upsampler("resize")(photos), photos) < FAULTY).all()


@pytest.mark.real_data
def test_photos_are_clean_and_a_transposed_network_is_not(assets: Path) -> None:
    paths = sorted((assets / "photos" / "val").glob("kodak_*.jpg"))
    assert len(paths) == 20
    upsample = upsampler("transposed")
    own, made = [], []
    for path in paths:
        photo = image_to_tensor(read_picture(path).rgb)[None].float() / 255
        own.append(weave(photo))
        made.append(weave(upsample(photo), photo))
    assert (torch.cat(own, dim=1).mean(dim=1) < CLEAN).all()
    assert (torch.cat(made, dim=1) > FAULTY).all()


# --- Border -------------------------------------------------------------------------------------


def loss_network(pixels: Tensor, layers: list[str]) -> dict[str, Tensor]:
    """A fixed little φ of two scales, padded with zeros as VGG is."""
    generator = torch.Generator().manual_seed(5)
    first = torch.randn(4, 3, 3, 3, generator=generator) / 3
    second = torch.randn(6, 4, 3, 3, generator=generator) / 3
    found = {"relu1_1": F.relu(F.conv2d(pixels, first, padding=1))}
    pooled = F.max_pool2d(found["relu1_1"], 2)
    found["relu2_1"] = F.relu(F.conv2d(pooled, second, padding=1))
    return {layer: found[layer] for layer in layers}


def ratio(outputs: Tensor, photos: Tensor, **settings: Any) -> Tensor:
    """The border ratio with the little φ, or with another `network`."""
    network = settings.pop("network", loss_network)
    usual = {
        "content_layers": {"relu2_1": 1.0},
        "style_layers": {"relu1_1": 1.0, "relu2_1": 0.5},
    }
    style = make_pictures(1, 3, 40, 48, seed=9)
    return border_ratio(PerceptualLoss(network, style, **usual | settings), outputs, photos)


def with_frame(pictures: Tensor, *, width: int, factor: float) -> Tensor:
    framed = pictures * factor
    inside = slice(width, -width)
    framed[..., inside, inside] = pictures[..., inside, inside]
    return framed


def test_border_ratio_of_a_uniform_change_is_one() -> None:
    # Noise is everywhere alike, and so is the change.
    photos = make_pictures(2, 3, 160, 160)
    assert ratio(photos * 0.8, photos).tolist() == pytest.approx([1.0, 1.0], abs=0.15)


@pytest.mark.parametrize("normalization", ["relative", "paper"])
@pytest.mark.parametrize(("content_weight", "style_weight"), [(1.0, 0.0), (0.0, 1.0), (1.0, 5.0)])
def test_border_ratio_shows_a_dark_frame(
    normalization: str, content_weight: float, style_weight: float
) -> None:
    photos = make_pictures(1, 3, 128, 160)
    results = photos * 0.9
    settings = {
        "normalization": normalization,
        "content_weight": content_weight,
        "style_weight": style_weight,
    }
    framed = with_frame(results, width=8, factor=0.5)
    assert ratio(framed, photos, **settings) > 2 * ratio(results, photos, **settings)


def test_zero_padding_has_a_worse_border_than_reflection() -> None:
    photos = make_photos(2, 128, 128)
    kernel = torch.full((3, 1, 9, 9), 1 / 81)

    def smooth(mode: str) -> Tensor:
        return F.conv2d(F.pad(photos, (4,) * 4, mode=mode), kernel, groups=3)

    # Of content alone: the little φ sees hardly any style in so smooth a picture.
    assert (ratio(smooth("constant"), photos, style_weight=0.0) > 5).all()
    assert (ratio(smooth("reflect"), photos, style_weight=0.0) < 1).all()


def test_border_ratio_of_content_is_what_the_definition_says() -> None:
    # φ = the pixels; twice the error in the band is four times the distance.
    photos = make_pictures(1, 3, 128, 160)
    outputs = photos + 0.1
    outputs[..., 8:-8, 8:-8] -= 0.05
    found = ratio(
        outputs,
        photos,
        network=lambda pixels, layers: dict.fromkeys(layers, pixels),
        content_layers={"relu1_1": 1.0},
        style_layers={},
    )
    assert found.item() == pytest.approx(4.0, rel=1e-4)


def test_border_ratio_of_a_batch_is_that_of_its_pictures() -> None:
    outputs, photos = make_pictures(3, 3, 50, 71, seed=1), make_pictures(3, 3, 50, 71, seed=2)
    one_by_one = [ratio(outputs[i : i + 1], photos[i : i + 1]).item() for i in range(3)]
    assert ratio(outputs, photos).tolist() == pytest.approx(one_by_one, rel=1e-4)


def test_border_ratio_does_not_depend_on_the_loss_networks_padding() -> None:
    photos = make_pictures(1, 3, 64, 64)

    def reflecting(pixels: Tensor, layers: list[str]) -> dict[str, Tensor]:
        features = loss_network(F.pad(pixels, (8,) * 4, mode="reflect"), layers)
        return {
            layer: part[..., (cut := 8 // int(layer[4])) : -cut, cut:-cut]
            for layer, part in features.items()
        }

    found = [
        ratio(photos * 0.7, photos, network=network, style_layers={}).item()
        for network in (loss_network, reflecting)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("size", [(24, 24), (33, 47), (40, 200)])
def test_border_ratio_works_for_small_and_odd_sizes(size: tuple[int, int]) -> None:
    photos = make_pictures(1, 3, *size)
    assert 0.2 < ratio(photos * 0.8, photos).item() < 5


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (16, 100)])
def test_border_ratio_without_a_middle_is_not_a_number(size: tuple[int, int]) -> None:
    photos = make_pictures(1, 3, *size)
    assert ratio(photos, photos, content_layers={"relu1_1": 1.0}).isnan().all()


# --- Blotches -----------------------------------------------------------------------------------


def test_probes_are_flat_with_a_patchwork_around_them() -> None:
    probes = flat_probes(64)
    assert probes.shape == (11, 3, 64, 64)
    assert probes.min() >= 0
    assert probes.max() <= 1
    flat = probes[..., 8:-8, 8:-8]
    assert flat.std(dim=(2, 3)).max() < 1.5 / 255
    assert flat.mean(dim=(2, 3))[:, 0].tolist() == pytest.approx(
        [0.15] * 4 + [0.85] * 4 + [0.25, 0.5, 0.75], abs=1e-3
    )
    assert torch.equal(probes, flat_probes(64))
    assert probes[..., :8, :].std() > 0.2


def test_a_stylizer_that_changes_nothing_has_no_blotches() -> None:
    assert (blotchiness(lambda photos: photos, size=128) < 0.1).all()


def test_blotches_are_measured_in_levels() -> None:
    squares = board(128, 128, 64)
    found = blotchiness(lambda photos: 0.5 + 12 / 255 * squares.expand_as(photos), size=128)
    assert found.tolist() == pytest.approx([12.0] * 11, rel=1e-4)


def test_strokes_are_no_blotches() -> None:
    strokes = board(128, 128, 8)
    found = blotchiness(lambda photos: 0.5 + 50 / 255 * strokes.expand_as(photos), size=128)
    assert (found < 1e-3).all()


def test_blotches_are_measured_on_what_is_written() -> None:
    found = blotchiness(lambda photos: 2 + board(64, 64, 32).expand_as(photos), size=64)
    assert found.tolist() == [0.0] * 11


# --- Clipping -----------------------------------------------------------------------------------


def test_clipped_fraction_counts_values_at_or_beyond_black_and_white() -> None:
    outputs = torch.full((2, 3, 4, 5), 0.5)
    outputs[0, 0, 0] = torch.tensor([-0.1, 0.0, 1.0, 1.2, 0.999])
    assert clipped_fraction(outputs).tolist() == pytest.approx([4 / 60, 0.0])
