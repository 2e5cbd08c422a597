"""Claims about `perceptual`, known answers first."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fast_style.losses import perceptual as losses
from fast_style.losses.loss_network import LossNetwork, Weights
from fast_style.losses.perceptual import (
    LossTerms,
    PerceptualLoss,
    content_distance,
    gram_matrix,
    style_distance,
    total_variation,
)

DEPTH = {"relu1_1": 1, "relu1_2": 2, "relu2_1": 3}


class FakeNetwork:
    """A fixed little φ of three layers; `calls` holds the layers of every call.

    `factor` multiplies all features.
    """

    def __init__(self, factor: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(5)
        self.kernels = [
            torch.randn(4, channels, 3, 3, generator=generator) / 3 for channels in (3, 4, 4)
        ]
        self.factor = factor
        self.calls: list[list[str]] = []

    def __call__(self, pixels: Tensor, layers: list[str]) -> dict[str, Tensor]:
        self.calls.append(list(layers))
        features, found = pixels - 0.5, {}
        for name, kernel in zip(DEPTH, self.kernels, strict=True):
            features = F.relu(F.conv2d(features, kernel, padding=1, stride=DEPTH[name] // 3 + 1))
            found[name] = features * self.factor
        return {layer: found[layer] for layer in layers}


def make_pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


STYLE = make_pictures(1, 3, 20, 14, seed=9)


def make_loss(
    network: Callable[[Tensor, list[str]], dict[str, Tensor]] | None = None, **settings: object
) -> PerceptualLoss:
    layers = {
        "content_layers": {"relu1_2": 1.0},
        "style_layers": {"relu1_1": 1.0, "relu2_1": 0.5},
    }
    return PerceptualLoss(network or FakeNetwork(), STYLE, **layers | settings)


def assert_same_terms(found: LossTerms, expected: LossTerms, rtol: float = 1e-5) -> None:
    for name in ("total", "content", "style", "tv", "style_by_layer"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=rtol, atol=1e-9, msg=name
        )


# --- Gram matrix --------------------------------------------------------------------------------


def test_gram_of_constant_features_is_outer_product_over_channels() -> None:
    values = torch.tensor([1.0, 2.0, -3.0])
    features = values.view(1, 3, 1, 1).expand(1, 3, 4, 5)
    torch.testing.assert_close(gram_matrix(features)[0], torch.outer(values, values) / 3)


def test_gram_is_what_explicit_loops_give() -> None:
    features = make_pictures(2, 3, 4, 5)
    expected = torch.zeros(2, 3, 3)
    for photo in range(2):
        for one in range(3):
            for other in range(3):
                for row in range(4):
                    for column in range(5):
                        product = (
                            features[photo, one, row, column]
                            * (features[photo, other, row, column])
                        )
                        expected[photo, one, other] += product / (3 * 4 * 5)
    torch.testing.assert_close(gram_matrix(features), expected)


def test_gram_does_not_know_where_features_are() -> None:
    features = make_pictures(1, 3, 6, 6)
    torch.testing.assert_close(gram_matrix(features.flip(2, 3)), gram_matrix(features))


def test_gram_of_a_repeated_picture_is_the_gram_of_the_picture() -> None:
    # So pictures of different sizes can be compared.
    features = make_pictures(1, 3, 6, 6)
    torch.testing.assert_close(gram_matrix(features.repeat(1, 1, 2, 3)), gram_matrix(features))


def test_gram_does_not_depend_on_the_memory_format() -> None:
    features = make_pictures(2, 3, 4, 5)
    other = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gram_matrix(other), gram_matrix(features))


def test_gram_in_parts_is_the_sum_of_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(2, 3, 128, 96)
    expected = gram_matrix(features)
    monkeypatch.setattr(losses, "_most_parts", lambda device: 32)
    assert losses._pixels_in_parts(features).shape == (2, 4, 3072, 3)  # 6144 has an odd factor
    torch.testing.assert_close(gram_matrix(features), expected)


def test_gram_of_rounded_features_and_its_gradient_are_those_of_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a GPU does in one step: bfloat16 in, float32 out.
    product = torch.bmm

    def widened(first: Tensor, second: Tensor, *, out_dtype: torch.dtype) -> Tensor:
        return product(first.to(out_dtype), second.to(out_dtype))

    monkeypatch.setattr(torch, "bmm", widened)
    monkeypatch.setattr(losses, "_most_parts", lambda device: 2)
    rounded = torch.randn(2, 3, 64, 64).bfloat16().requires_grad_()
    same = rounded.detach().float().requires_grad_()
    products, expected = losses._ProductsOfRounded.apply(rounded), gram_matrix(same) * 3 * 64 * 64
    torch.testing.assert_close(products, expected)
    grad = torch.randn(2, 3, 3)
    (ours,) = torch.autograd.grad(products, rounded, grad)
    (theirs,) = torch.autograd.grad(expected, same, grad)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), theirs, rtol=0.02, atol=0.05)


@pytest.mark.gpu
def test_gram_of_rounded_features_on_a_gpu_is_exact() -> None:
    features = torch.randn(2, 64, 128, 128, device="cuda").bfloat16()
    features = features.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        gram_matrix(features), gram_matrix(features.float()), rtol=1e-4, atol=1e-6
    )


def test_gram_under_autocast_is_computed_in_float32() -> None:
    features = make_pictures(1, 8, 32, 32).bfloat16()
    flat = features.double().reshape(8, 1024).numpy()
    with torch.autocast("cpu", torch.bfloat16):
        gram = gram_matrix(features)
    assert gram.dtype == torch.float32
    # bfloat16 would be off by 1e-3.
    np.testing.assert_allclose(gram[0].numpy(), flat @ flat.T / flat.size, rtol=1e-5)


# --- Distances ----------------------------------------------------------------------------------


def test_content_distance_of_a_constant_difference_is_its_square() -> None:
    target = make_pictures(2, 3, 4, 5)
    target_plus = target + torch.tensor([2.0, 3.0]).view(2, 1, 1, 1)
    assert content_distance(target_plus, target).tolist() == pytest.approx([4.0, 9.0])


def test_style_distance_is_the_squared_frobenius_norm() -> None:
    gram = torch.tensor([[[1.0, 2.0], [2.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]])
    target = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert style_distance(gram, target).tolist() == [4 + 4 + 9, 1 + 4]


# --- Total variation ----------------------------------------------------------------------------


def test_total_variation_of_a_constant_picture_is_zero_with_zero_gradient() -> None:
    for exponent in (2.0, 2.5):
        pixels = torch.full((1, 3, 5, 4), 0.7, requires_grad=True)
        value = total_variation(pixels, exponent)
        (gradient,) = torch.autograd.grad(value, pixels)
        assert value.item() == 0
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize(("exponent", "expected"), [(2.0, 2.0), (2.5, 2**1.25), (4.0, 4.0)])
def test_total_variation_of_a_checkerboard(exponent: float, expected: float) -> None:
    # Both differences are 1 everywhere: (1 + 1)^(exponent / 2), whatever the size.
    board = (torch.arange(6)[:, None] + torch.arange(7)) % 2
    pixels = board.float().expand(2, 3, 6, 7)
    assert total_variation(pixels, exponent).item() == pytest.approx(expected)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize(("exponent", "expected"), [(2.0, 0.01), (2.5, 0.1**2.5)])
def test_total_variation_of_a_ramp(axis: int, exponent: float, expected: float) -> None:
    ramp = torch.arange(8) / 10
    pixels = ramp.view(-1, 1).expand(1, 3, 8, 8).transpose(2, axis)
    assert total_variation(pixels, exponent).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (5, 1)])
def test_total_variation_of_a_side_of_one_pixel_is_zero_with_zero_gradient(
    height: int, width: int
) -> None:
    pixels = make_pictures(2, 3, height, width).requires_grad_()
    value = total_variation(pixels)
    (gradient,) = torch.autograd.grad(value, pixels)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros(2, 3, height, width))


def test_total_variation_of_a_batch_is_the_mean_over_its_photos() -> None:
    photos = make_pictures(3, 3, 6, 6)
    one_by_one = sum(total_variation(photo[None]).item() for photo in photos) / 3
    assert total_variation(photos).item() == pytest.approx(one_by_one)


# --- The objective ------------------------------------------------------------------------------


def test_paper_objective_is_equation_5() -> None:
    network = FakeNetwork()
    content_layers = {"relu1_2": 2.0, "relu2_1": 1.0}
    style_layers = {"relu1_1": 1.0, "relu2_1": 0.5}
    loss = make_loss(
        network,
        content_layers=content_layers,
        style_layers=style_layers,
        content_weight=3.0,
        style_weight=5.0,
        tv_weight=7.0,
        normalization="paper",
    )
    output, photo = make_pictures(1, 3, 12, 16, seed=1), make_pictures(1, 3, 12, 16, seed=2)

    def phi(pixels: Tensor, layer: str) -> np.ndarray:
        return network(pixels, [layer])[layer][0].double().numpy()

    def gram(features: np.ndarray) -> np.ndarray:
        return np.einsum("ahw,bhw->ab", features, features) / features.size

    content = sum(
        weight * ((phi(output, layer) - phi(photo, layer)) ** 2).sum() / phi(photo, layer).size
        for layer, weight in content_layers.items()
    )
    by_layer = {
        layer: ((gram(phi(output, layer)) - gram(phi(STYLE, layer))) ** 2).sum()
        for layer in style_layers
    }
    style = sum(weight * by_layer[layer] for layer, weight in style_layers.items())
    tv = total_variation(output).item()
    terms = loss(output, photo)
    assert terms.content.item() == pytest.approx(content, rel=1e-4)
    assert terms.style.item() == pytest.approx(style, rel=1e-4)
    assert terms.tv.item() == pytest.approx(tv)
    assert terms.total.item() == pytest.approx(3 * content + 5 * style + 7 * tv, rel=1e-4)
    found = {layer: value.item() for layer, value in terms.style_by_layer.items()}
    assert found == pytest.approx(by_layer, rel=1e-4)


# --- Normalization ------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["relative", "paper"])
def test_photo_has_no_content_loss_against_itself(normalization: str) -> None:
    photos = make_pictures(2, 3, 12, 12)
    assert make_loss(normalization=normalization)(photos, photos).content.item() == 0


@pytest.mark.parametrize("normalization", ["relative", "paper"])
def test_style_picture_has_no_style_loss(normalization: str) -> None:
    terms = make_loss(normalization=normalization)(STYLE, STYLE)
    assert terms.style.item() == pytest.approx(0, abs=1e-12)


def test_relative_terms_of_silent_features_are_one() -> None:
    # Nothing left of the photo: ‖φ(x)‖² / ‖φ(x)‖²; nothing of the style: ‖G(s)‖² / ‖G(s)‖².
    loss = make_loss(style_layers={"relu1_1": 1.0, "relu2_1": 1.0})
    grey = torch.full((2, 3, 12, 12), 0.5)  # to which FakeNetwork answers zero
    terms = loss(grey, make_pictures(2, 3, 12, 12))
    assert terms.content.item() == pytest.approx(1)
    assert [value.item() for value in terms.style_by_layer.values()] == pytest.approx([1, 1])
    assert terms.style.item() == pytest.approx(2)


@pytest.mark.parametrize("factor", [0.01, 40.0])
def test_relative_terms_do_not_depend_on_the_size_of_the_features(factor: float) -> None:
    output, photos = make_pictures(2, 3, 12, 12, seed=1), make_pictures(2, 3, 12, 12, seed=2)
    expected = make_loss(FakeNetwork())(output, photos)
    assert_same_terms(make_loss(FakeNetwork(factor))(output, photos), expected, rtol=1e-4)


def test_paper_terms_grow_with_the_second_and_fourth_power_of_the_features() -> None:
    output, photos = make_pictures(2, 3, 12, 12, seed=1), make_pictures(2, 3, 12, 12, seed=2)
    one = make_loss(FakeNetwork(), normalization="paper")(output, photos)
    three = make_loss(FakeNetwork(3.0), normalization="paper")(output, photos)
    assert three.content.item() == pytest.approx(3**2 * one.content.item(), rel=1e-4)
    assert three.style.item() == pytest.approx(3**4 * one.style.item(), rel=1e-4)
    assert three.tv.item() == one.tv.item()


def test_relative_content_of_a_blank_photo_is_divided_by_a_hundredth_of_the_styles() -> None:
    network = FakeNetwork()
    output, blank = make_pictures(1, 3, 12, 12), torch.full((1, 3, 12, 12), 0.5)
    distance = network(output, ["relu1_2"])["relu1_2"].square().mean().item()
    floor = 0.01 * network(STYLE, ["relu1_2"])["relu1_2"].square().mean().item()
    assert make_loss(network)(output, blank).content.item() == pytest.approx(distance / floor)


def test_every_photo_is_normalized_by_itself() -> None:
    output, photos = make_pictures(3, 3, 12, 12, seed=1), make_pictures(3, 3, 12, 12, seed=2)
    photos[1] = 0.5 + 0.2 * (photos[1] - 0.5)  # weaker features than the others
    loss = make_loss()
    single = [loss(output[i : i + 1], photos[i : i + 1]) for i in range(3)]
    terms = loss(output, photos)
    for name in ("total", "content", "style", "tv"):
        mean = sum(getattr(one, name).item() for one in single) / 3
        assert getattr(terms, name).item() == pytest.approx(mean, rel=1e-5), name


@pytest.mark.parametrize("normalization", ["relative", "paper"])
def test_duplicates_in_a_batch_leave_every_term_as_it_is(normalization: str) -> None:
    output, photos = make_pictures(1, 3, 12, 12, seed=1), make_pictures(1, 3, 12, 12, seed=2)
    loss = make_loss(normalization=normalization)
    doubled = loss(output.repeat(4, 1, 1, 1), photos.repeat(4, 1, 1, 1))
    assert_same_terms(doubled, loss(output, photos))


# --- Several styles -----------------------------------------------------------------------------

OTHER_STYLE = make_pictures(1, 3, 12, 18, seed=8)


@pytest.mark.parametrize("normalization", ["relative", "paper"])
def test_blend_is_the_weighted_mean_of_the_style_terms(normalization: str) -> None:
    network = FakeNetwork()
    output, photos = make_pictures(2, 3, 12, 12, seed=1), make_pictures(2, 3, 12, 12, seed=2)
    third = make_pictures(1, 3, 16, 16, seed=7)
    settings = {"normalization": normalization, "content_layers": {}}
    layers = {"relu1_1": 1.0, "relu2_1": 0.5}
    one, two, three = (
        PerceptualLoss(network, style, style_layers=layers, **settings)(output, photos)
        for style in (STYLE, OTHER_STYLE, third)
    )
    blend = [(OTHER_STYLE, 3.0), (third, 0.5)]
    terms = make_loss(network, blend=blend, **settings)(output, photos)
    for layer in layers:
        distances = [terms.style_by_layer[layer] for terms in (one, two, three)]
        mean = (distances[0] + 3 * distances[1] + 0.5 * distances[2]) / 4.5
        torch.testing.assert_close(terms.style_by_layer[layer], mean, rtol=1e-5, atol=0)
    mean = (one.style + 3 * two.style + 0.5 * three.style) / 4.5
    torch.testing.assert_close(terms.style, mean, rtol=1e-5, atol=0)


def test_blend_of_a_style_with_itself_changes_nothing() -> None:
    output, photos = make_pictures(1, 3, 12, 12, seed=1), make_pictures(1, 3, 12, 12, seed=2)
    assert_same_terms(make_loss(blend=[(STYLE, 2.0)])(output, photos), make_loss()(output, photos))


def test_blend_leaves_the_content_term_as_it_is() -> None:
    # A blank photo's term is divided by a share of the first style picture's features.
    output, blank = make_pictures(1, 3, 12, 12), torch.full((1, 3, 12, 12), 0.5)
    blended = make_loss(blend=[(OTHER_STYLE, 3.0)])(output, blank)
    assert blended.content.item() == make_loss()(output, blank).content.item()


def test_grams_of_a_blend_stand_in_its_order() -> None:
    network = FakeNetwork()
    loss = make_loss(network, blend=[(OTHER_STYLE, 3.0)])
    expected = [
        gram_matrix(network(style, ["relu1_1"])["relu1_1"]) for style in (STYLE, OTHER_STYLE)
    ]
    assert torch.equal(loss.style_grams("relu1_1"), torch.cat(expected))


# --- Settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"content_layers": {"relu1_1": 1.0}},
        {"content_layers": {"relu1_2": 2.0}},
        {"style_layers": {"relu1_1": 1.0}},
        {"style_layers": {"relu1_1": 2.0, "relu2_1": 0.5}},
        {"content_weight": 2.0},
        {"style_weight": 2.0},
        {"tv_weight": 2.0},
        {"tv_exponent": 2.5},
        {"normalization": "paper"},
    ],
    ids=lambda change: " ".join(map(str, change.items())),
)
def test_every_setting_changes_the_total(change: dict[str, object]) -> None:
    output, photos = make_pictures(1, 3, 12, 12, seed=1), make_pictures(1, 3, 12, 12, seed=2)
    expected = make_loss()(output, photos).total.item()
    assert make_loss(**change)(output, photos).total.item() != pytest.approx(expected, rel=0.01)


def test_defaults_are_relative_with_weights_1_5_and_1() -> None:
    output, photos = make_pictures(1, 3, 12, 12, seed=1), make_pictures(1, 3, 12, 12, seed=2)
    given = {"content_weight": 1.0, "style_weight": 5.0, "tv_weight": 1.0, "tv_exponent": 2.0}
    expected = make_loss(normalization="relative", **given)(output, photos)
    assert_same_terms(make_loss()(output, photos), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"content_weight": 0.0, "style_weight": 0.0, "tv_weight": 0.0},
        {"content_layers": {}, "style_layers": {}, "tv_weight": 0.0},
    ],
    ids=["weights", "layers"],
)
def test_loss_of_nothing_is_zero_with_zero_gradient(settings: dict[str, object]) -> None:
    output = make_pictures(2, 3, 12, 12).requires_grad_()
    terms = make_loss(**settings)(output, make_pictures(2, 3, 12, 12, seed=1))
    (gradient,) = torch.autograd.grad(terms.total, output)
    assert terms.total.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize(
    ("settings", "term"),
    [({"content_layers": {}}, "content"), ({"style_layers": {}}, "style")],
)
def test_term_without_layers_is_zero_and_leaves_the_others(
    settings: dict[str, object], term: str
) -> None:
    output, photos = make_pictures(1, 3, 12, 12, seed=1), make_pictures(1, 3, 12, 12, seed=2)
    whole, without = make_loss()(output, photos), make_loss(**settings)(output, photos)
    other = "style" if term == "content" else "content"
    assert getattr(without, term).item() == 0
    assert getattr(without, other).item() == getattr(whole, other).item()


# --- What is computed, and where ----------------------------------------------------------------


def test_content_target_is_computed_no_deeper_than_the_content_layers() -> None:
    network = FakeNetwork()
    loss = make_loss(network)
    assert network.calls == [["relu1_2", "relu1_1", "relu2_1"]]  # the style picture, once
    network.calls.clear()
    loss(make_pictures(1, 3, 12, 12), make_pictures(1, 3, 12, 12, seed=1))
    assert network.calls == [["relu1_2"], ["relu1_2", "relu1_1", "relu2_1"]]


def test_terms_with_known_targets_are_those_of_the_call() -> None:
    network = FakeNetwork()
    loss = make_loss(network)
    output, photos = make_pictures(2, 3, 12, 12, seed=1), make_pictures(2, 3, 12, 12, seed=2)
    targets = loss.content_targets(photos)
    assert list(targets) == ["relu1_2"]
    assert torch.equal(targets["relu1_2"], network(photos, ["relu1_2"])["relu1_2"])
    assert not targets["relu1_2"].requires_grad
    expected = loss(output, photos)
    network.calls.clear()
    assert_same_terms(loss.terms(output, targets), expected, rtol=0)
    assert network.calls == [["relu1_2", "relu1_1", "relu2_1"]]  # the photo is not looked at again


def test_values_are_the_terms_as_numbers() -> None:
    output, photos = make_pictures(2, 3, 12, 12, seed=1), make_pictures(2, 3, 12, 12, seed=2)
    terms = make_loss()(output.requires_grad_(), photos)
    values = terms.values()
    assert values == (terms.total.item(), terms.content.item(), terms.style.item(), terms.tv.item())
    assert [type(value) for value in values] == [float] * 4
    assert values.total == pytest.approx(values.content + 5 * values.style + values.tv)


def test_only_the_output_gets_a_gradient() -> None:
    weights = Weights(
        {"1_1": (make_pictures(4, 3, 3, 3) - 0.5, torch.zeros(4))},
        "torchvision",
        "zeros",
        "random",
        "",
    )
    layers = {"relu1_1": 1.0}
    loss = make_loss(LossNetwork("vgg19", weights), content_layers=layers, style_layers=layers)
    output = make_pictures(1, 3, 12, 12).requires_grad_()
    photos = make_pictures(1, 3, 12, 12, seed=1).requires_grad_()
    loss(output, photos).total.backward()
    assert output.grad is not None
    assert output.grad.abs().max() > 0
    assert photos.grad is None
    assert list(loss.parameters()) == []
    assert not any(buffer.requires_grad for buffer in loss.buffers())


def test_style_picture_may_have_another_size_and_gives_its_own_gram() -> None:
    network = FakeNetwork()
    loss = make_loss(network)
    expected = gram_matrix(network(STYLE, ["relu2_1"])["relu2_1"])
    assert torch.equal(loss.style_grams("relu2_1"), expected)
    assert torch.isfinite(loss(make_pictures(1, 3, 9, 31), make_pictures(1, 3, 9, 31)).total)


def test_what_is_known_of_the_style_moves_with_the_loss() -> None:
    loss = make_loss().to("meta")
    assert loss.style_grams("relu1_1").device.type == "meta"
    assert {buffer.device.type for buffer in loss.buffers()} == {"meta"}


def test_autocast_leaves_the_terms_in_float32() -> None:
    loss = make_loss()
    output, photos = make_pictures(1, 3, 16, 16, seed=1), make_pictures(1, 3, 16, 16, seed=2)
    expected = loss(output, photos)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss.loss_network(output, ["relu1_1"])["relu1_1"].dtype == torch.bfloat16
        terms = loss(output, photos)
    for term in (terms.total, terms.content, terms.style, terms.tv, *terms.style_by_layer.values()):
        assert term.dtype == torch.float32
    assert_same_terms(terms, expected, rtol=0.05)


def test_gradient_shares_sum_to_one_and_follow_the_weights() -> None:
    output, photos = make_pictures(1, 3, 12, 12, seed=1), make_pictures(1, 3, 12, 12, seed=2)
    shares = make_loss().gradient_shares(output, photos)
    assert list(shares) == ["content", "style", "tv"]
    assert sum(shares.values()) == pytest.approx(1)
    more = make_loss(style_weight=10.0).gradient_shares(output, photos)
    # Twice the weight is twice the gradient, against the same others.
    ratio = shares["style"] / shares["content"]
    assert more["style"] / more["content"] == pytest.approx(2 * ratio, rel=1e-4)


def test_gradient_shares_are_the_norms_of_the_gradients() -> None:
    loss = make_loss()
    output, photos = make_pictures(1, 3, 12, 12, seed=1), make_pictures(1, 3, 12, 12, seed=2)
    shares = loss.gradient_shares(output, photos)
    norms = {}
    for name, weight in (("content", 1.0), ("style", 5.0), ("tv", 1.0)):
        leaf = output.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(weight * getattr(loss(leaf, photos), name), leaf)
        norms[name] = gradient.norm().item()
    expected = {name: norm / sum(norms.values()) for name, norm in norms.items()}
    assert shares == pytest.approx(expected, rel=1e-4)
    assert output.grad is None
    assert not output.requires_grad


def test_gradient_shares_of_nothing_are_zero() -> None:
    loss = make_loss(content_weight=0.0, style_weight=0.0, tv_weight=0.0)
    photos = make_pictures(1, 3, 12, 12)
    assert loss.gradient_shares(photos, photos) == {"content": 0, "style": 0, "tv": 0}


def test_total_has_the_gradient_of_its_finite_differences() -> None:
    loss = make_loss()
    output, photos = make_pictures(1, 3, 12, 12, seed=1), make_pictures(1, 3, 12, 12, seed=2)
    direction = photos - output
    leaf = output.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, photos).total, leaf)
    step = 1e-3
    ahead, behind = (
        loss(output + sign * step * direction, photos).total.item() for sign in (1, -1)
    )
    slope = (gradient * direction).sum().item()
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=0.02)
