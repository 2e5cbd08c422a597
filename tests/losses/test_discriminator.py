"""A discriminator learns what it is for, and its opinion reaches the pictures alone."""

import pytest
import torch
from torch import Tensor

from fast_style.losses.discriminator import Discriminator, adversarial_loss, discriminator_loss
from fast_style.settings.layers import layers_judged


def features_of(seed: int, side: int = 12, mean: float = 0.0) -> dict[str, Tensor]:
    """Noise, of 6 and 8 channels, the deeper layer of half the size."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"relu2_2": (6, side), "relu3_3": (8, side // 2)}
    return {
        layer: mean + torch.randn(2, channels, size, size, generator=generator)
        for layer, (channels, size) in sizes.items()
    }


@pytest.fixture
def discriminator() -> Discriminator:
    return Discriminator(features_of(1), seed=1)


def test_layers_of_the_first_three_blocks_are_judged() -> None:
    layers = {"relu1_2": 1.0, "relu2_2": 0.5, "conv3_1": 1.0, "relu3_3": 0.0, "relu4_3": 1.0}
    assert layers_judged(layers) == ["relu1_2", "relu2_2", "conv3_1"]
    assert layers_judged({"relu4_1": 1.0, "nonsense": 1.0}) == []


def test_each_place_has_a_score_from_its_surroundings(discriminator: Discriminator) -> None:
    before = features_of(2)
    after = {layer: features.clone() for layer, features in before.items()}
    after["relu2_2"][:, :, 6, 6] += 1  # which scores of at most two places away see
    (first, deep), (second, still_deep) = discriminator(before, after)
    assert first.shape == (2, 1, 8, 8)
    assert deep.shape == (2, 1, 2, 2)
    changed = (first != second)[0, 0].nonzero()
    assert changed.min() == 6 - 4
    assert changed.max() == 6
    assert torch.equal(deep, still_deep)


def test_every_other_place_of_the_first_block_has_a_score() -> None:
    features = {"relu1_2": torch.rand(1, 3, 32, 33)}
    (scores,), = Discriminator(features, seed=1)(features)  # fmt: skip
    assert scores.shape == (1, 1, 13, 14)


def test_features_count_in_deviations_of_the_style(discriminator: Discriminator) -> None:
    style, others = features_of(1), features_of(2)
    larger = Discriminator({layer: 3 + 50 * each for layer, each in style.items()}, seed=1)
    (scores,) = discriminator(others)
    (found,) = larger({layer: 3 + 50 * each for layer, each in others.items()})
    for one, other in zip(scores, found, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_channel_that_the_style_does_not_use_does_not_outweigh_the_others() -> None:
    style = features_of(1)
    style["relu2_2"][:, 0] = 0
    (scores, _), = Discriminator(style, seed=1)(features_of(2))  # fmt: skip
    assert scores.abs().max() < 20  # kernels shrink, and ten deviations come in at most


def test_loss_is_the_hinge_of_scores() -> None:
    style, results = [torch.tensor([0.5, 3.0])], [torch.tensor([-0.25, -4.0])]
    assert discriminator_loss(style, results) == pytest.approx((0.5 + 0) / 2 + (0.75 + 0) / 2)
    assert adversarial_loss(results) == pytest.approx(4.25 / 2)


def test_it_learns_to_tell_two_kinds_of_pictures_apart(discriminator: Discriminator) -> None:
    adam = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    for step in range(60):
        scores = discriminator(features_of(10 + step), features_of(100 + step, mean=1.0))
        loss = discriminator_loss(*scores)
        adam.zero_grad()
        loss.backward()
        adam.step()
        discriminator.find_largest_values()
    of_style, of_others = discriminator(features_of(200), features_of(201, mean=1.0))
    for style, others in zip(of_style, of_others, strict=True):
        assert style.mean() > 0.3
        assert others.mean() < -0.3


def test_seed_decides_the_weights_and_nothing_else_is_drawn() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = Discriminator(features_of(1), seed=1).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again, other = (Discriminator(features_of(1), seed=seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_scores_do_not_depend_on_how_often_they_were_asked_for(
    discriminator: Discriminator,
) -> None:
    first, again = discriminator(features_of(2)), discriminator(features_of(2))
    for one, other in zip(first[0], again[0], strict=True):
        assert torch.equal(one, other)


def test_largest_singular_values_of_kernels_become_1(discriminator: Discriminator) -> None:
    kernel = discriminator.judges["relu2_2"][0]
    with torch.no_grad():
        kernel.parametrizations.weight.original.mul_(3).add_(0.1)
    for _ in range(30):
        discriminator.find_largest_values()
    largest = torch.linalg.svdvals(kernel.weight.flatten(1)).max()
    assert largest.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dots", [0, 1])
def test_style_picture_of_nearly_one_color_gives_finite_opinions(dots: int) -> None:
    style = {"relu2_2": torch.full((1, 6, 12, 12), 2.0)}
    style["relu2_2"][:, :, 6, :dots] += 0.01
    features = {"relu2_2": features_of(2)["relu2_2"].requires_grad_()}
    (scores,) = Discriminator(style, seed=1)(features)
    (gradient,) = torch.autograd.grad(adversarial_loss(scores), features["relu2_2"])
    assert scores[0].abs().max() < 300
    assert gradient.abs().max() < 1
