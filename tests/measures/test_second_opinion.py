"""Claims about `second_opinion`: the sliced Wasserstein distance, and SqueezeNet's weights."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import squeezenet1_0

from fast_style.core.errors import UserError
from fast_style.losses.sliced import directions_of, sorted_projections
from fast_style.measures import second_opinion
from fast_style.measures.second_opinion import (
    SecondOpinion,
    SqueezeNet,
    load_squeezenet,
    relative_distance,
)
from fast_style.pictures.pixels import image_to_tensor


def random_features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative_sliced_wasserstein(features: Tensor, target: Tensor) -> Tensor:
    return relative_distance(features, sorted_projections(target, directions_of(target.shape[1])))


# --- The distance -------------------------------------------------------------------------------


def test_distance_of_a_shift_is_its_square_over_the_variance() -> None:
    # With one channel, every direction is +1 or -1, and sorting keeps the shift.
    target = torch.tensor([0.0, 2.0, 4.0, 6.0]).view(1, 1, 2, 2)  # variance 5
    assert relative_sliced_wasserstein(target + 3, target).item() == pytest.approx(9 / 5)


def test_distance_of_a_shift_in_one_of_many_channels_is_shared_by_all_directions() -> None:
    # A unit direction has a squared share of 1 / C along any axis on average.
    target = random_features(1, 16, 32, 32)
    shifted = target.clone()
    shifted[:, 3] += 4
    assert relative_sliced_wasserstein(shifted, target).item() == pytest.approx(1.0, rel=0.25)


def test_distance_ignores_where_features_are() -> None:
    target = random_features(1, 4, 8, 8)
    moved = target.flatten(2)[..., torch.randperm(64)].view(1, 4, 4, 16)
    assert relative_sliced_wasserstein(moved, target).item() == pytest.approx(0, abs=1e-10)


def test_distance_compares_more_than_means_and_variances() -> None:
    # Both have mean 0 and variance 1: a Gram matrix cannot tell them apart, nor can moments.
    coin = torch.cat([torch.ones(2048), -torch.ones(2048)]).view(1, 1, 64, 64)
    normal = random_features(1, 1, 64, 64)
    normal = (normal - normal.mean()) / normal.std(correction=0)
    # W2 squared of N(0, 1) and a fair coin: 2 - 2 E|x| = 2 - 2 sqrt(2 / pi).
    assert relative_sliced_wasserstein(normal, coin).item() == pytest.approx(0.404, abs=0.02)


def test_distances_of_other_sizes_compare_quantiles() -> None:
    ramp = torch.linspace(0, 1, 4096).view(1, 1, 64, 64)
    coarse = torch.linspace(0, 1, 100).view(1, 1, 10, 10)
    assert relative_sliced_wasserstein(ramp, coarse).item() == pytest.approx(0, abs=1e-6)
    assert relative_sliced_wasserstein(coarse + 0.5, ramp).item() == pytest.approx(3, rel=0.03)


def test_a_target_without_variance_gives_a_finite_distance() -> None:
    flat = torch.ones(1, 3, 8, 8)
    assert torch.isfinite(relative_sliced_wasserstein(random_features(1, 3, 8, 8), flat)).all()


def test_distance_of_a_batch_is_that_of_its_pictures() -> None:
    features, target = random_features(3, 5, 8, 8), random_features(1, 5, 9, 7, seed=1)
    one_by_one = torch.cat([relative_sliced_wasserstein(one[None], target) for one in features])
    torch.testing.assert_close(relative_sliced_wasserstein(features, target), one_by_one)


# --- SqueezeNet ---------------------------------------------------------------------------------


def random_squeezenet() -> SqueezeNet:
    torch.manual_seed(0)
    return SqueezeNet(squeezenet1_0(weights=None).features, (123.0, 117.0, 104.0), (1.0, 1.0, 1.0))


def test_compared_layers_have_strides_of_2_4_8_and_16() -> None:
    found = random_squeezenet()(torch.rand(1, 3, 128, 96))
    assert [tuple(features.shape[1:]) for features in found] == [
        (96, 61, 45),
        (256, 30, 22),
        (512, 15, 11),
        (512, 7, 5),
    ]


def test_pixels_are_normalized_before_the_first_convolution() -> None:
    first = nn.Conv2d(3, 1, 1, bias=False)
    nn.init.ones_(first.weight)
    net = SqueezeNet(nn.Sequential(first, nn.Identity()), (100.0, 50.0, 0.0), (2.0, 4.0, 1.0))
    (found,) = net(torch.full((1, 3, 1, 1), 100 / 255))
    assert found.item() == pytest.approx((100 - 100) / 2 + (100 - 50) / 4 + 100)


def test_opinion_of_the_style_picture_itself_is_zero() -> None:
    style = torch.rand(1, 3, 64, 80)
    opinion = SecondOpinion(random_squeezenet(), style)
    assert opinion(style).item() == pytest.approx(0, abs=1e-8)
    assert opinion(torch.rand(2, 3, 64, 64) * 0.2).min().item() > 0.01


def test_an_unknown_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "squeeze.pth"
    path.write_bytes(b"other")
    with pytest.raises(UserError) as caught:
        load_squeezenet(path)
    assert str(path) in str(caught.value)
    assert "b66bff10" in str(caught.value)
    assert "--second-opinion" in str(caught.value)


def test_a_missing_file_is_an_error_of_the_option(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--second-opinion"):
        load_squeezenet(tmp_path / "none.pth")


def test_a_failed_download_names_both_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError) as caught:
        load_squeezenet(None)
    for part in ("no network", "squeezenet1_0-b66bff10.pth", "--second-opinion FILE", "none"):
        assert part in str(caught.value)


def test_a_known_file_is_read_with_its_own_normalization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "squeeze.pth"
    torch.save(squeezenet1_0(weights=None).state_dict(), path)
    digest = second_opinion.sha256_of(path)[:8]
    known = second_opinion._KnownFile((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    monkeypatch.setitem(second_opinion._KNOWN_FILES, digest, known)
    net = load_squeezenet(path)
    assert net.get_buffer("mean").flatten().tolist() == [1.0, 2.0, 3.0]
    assert net.get_buffer("std").flatten().tolist() == [4.0, 5.0, 6.0]


@pytest.mark.real_data
def test_real_weights_prefer_a_painting_of_the_style_to_the_photo(assets: Path) -> None:
    sheet = Image.open(assets / "evidence" / "failed_turner_church.jpg").convert("RGB")
    pixels = image_to_tensor(sheet)[None].float() / 255
    photo, style, lbfgs = pixels[..., :320], pixels[..., 327:996], pixels[..., 1321:]
    opinion = SecondOpinion(load_squeezenet(assets / "weights" / "squeezenet_v1_0.pth"), style)
    # Measured: 0.06 and 0.66.
    assert opinion(lbfgs).item() < 0.2 < 0.4 < opinion(photo).item()
