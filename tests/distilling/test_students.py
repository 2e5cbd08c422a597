"""Students beside their teachers: channels, heads and errors, by hand."""

from typing import Any

import pytest
import torch
from small_distillation import (
    CHANNELS,
    LAYERS,
    error_at,
    random_numbers,
    random_pictures,
    random_weights,
)
from torch import Tensor

from fast_style.distilling import students
from fast_style.distilling.students import (
    best_head,
    choose_channels,
    compare,
    folded_head,
    relu_layers,
)
from fast_style.losses.loss_network import LossNetwork
from fast_style.losses.perceptual import (
    content_distance,
    gram_matrix,
    style_distance,
)

# --- Choosing channels ----------------------------------------------------------------------------


def products_of(rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return rows @ rows.T, rows @ targets.T


def test_layers_to_compare_are_the_relus_up_to_the_deepest() -> None:
    assert relu_layers("vgg19", "relu2_1") == ["relu1_1", "relu1_2", "relu2_1"]
    assert relu_layers("vgg16", "relu3_3") == [
        "relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3",
    ]  # fmt: skip


def test_independent_rows_are_chosen_before_their_copies() -> None:
    a, b, c = 3 * torch.eye(4)[0], 2 * torch.eye(4)[1], torch.eye(4)[2]
    rows = torch.stack([c, -a, 5 * a, b + c, b, torch.zeros(4)])
    # 9, 4 and 1 are to be explained. -a explains 9, b + c 17 / 5, b 4. After a and b, only c is
    # left, of which c and b + c say the same; the first one wins. The rest say nothing.
    chosen = students.most_telling_rows(*products_of(rows, torch.stack([a, b, c])), 6)
    assert chosen[:3] == [1, 4, 0]
    assert sorted(chosen) == [0, 1, 2, 3, 4, 5]


def test_row_is_chosen_for_what_it_tells_and_not_for_its_size() -> None:
    rows = torch.diag(torch.tensor([100.0, 1.0, 0.1]))
    targets = torch.tensor([[0.0, 1.0, 2.0]])
    assert students.most_telling_rows(*products_of(rows, targets), 3) == [2, 1, 0]


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_no_row_is_chosen_twice(rank: int) -> None:
    rows = random_numbers(12, rank) @ random_numbers(rank, 50, seed=1)
    chosen = students.most_telling_rows(*products_of(rows, random_numbers(4, 50, seed=2)), 12)
    assert sorted(chosen) == list(range(12))


def test_choosing_rows_leaves_the_products_alone() -> None:
    own, cross = products_of(random_numbers(5, 9), random_numbers(3, 9, seed=1))
    before = own.clone(), cross.clone()
    students.most_telling_rows(own, cross, 3)
    assert torch.equal(own, before[0])
    assert torch.equal(cross, before[1])


def chosen_student(
    teacher: LossNetwork, pictures: Tensor, widths: list[int], layers: list[str] = LAYERS
) -> LossNetwork:
    convolutions = choose_channels(teacher, pictures, layers, widths)
    return teacher.with_weights(teacher.weights._replace(convolutions=convolutions))


@pytest.mark.parametrize(("pooling", "padding"), [("max", "reflect"), ("average", "zeros")])
def test_all_channels_of_the_teacher_give_its_features_scaled(pooling: Any, padding: Any) -> None:
    weights = random_weights(CHANNELS)._replace(padding=padding)
    teacher = LossNetwork("vgg19", weights, pooling=pooling)
    pictures = random_pictures(4, 3, 16, 16)
    student = chosen_student(teacher, pictures, [8, 12])
    features, targets = student(pictures, LAYERS), teacher(pictures, LAYERS)
    for layer in LAYERS:
        found, target = (part[layer].transpose(0, 1).flatten(1) for part in (features, targets))
        torch.testing.assert_close(
            found.square().mean(dim=1), torch.ones(len(found)), rtol=1e-4, atol=0
        )
        # Every channel of the student is one of the teacher's, each of which is there once.
        alike = torch.nn.functional.cosine_similarity(found[:, None], target[None], dim=2)
        assert (alike.max(dim=1).values > 0.999).all()
        assert sorted(alike.argmax(dim=1).tolist()) == list(range(len(target)))
        assert error_at(student, teacher, pictures, layer) < 1e-4


def test_copies_of_channels_are_not_chosen() -> None:
    # Every channel is there twice, the second time twice as large.
    convolutions = {}
    for number, (kernel, bias) in random_weights({"1_1": 4, "2_1": 6}).convolutions.items():
        if number != "1_1":
            kernel = torch.cat([kernel / 2, kernel / 4], dim=1)
        convolutions[number] = torch.cat([kernel, 2 * kernel]), torch.cat([bias, 2 * bias])
    weights = random_weights({})._replace(convolutions=convolutions)
    teacher, layers = LossNetwork("vgg19", weights), ["relu1_1", "relu2_1"]
    pictures = random_pictures(4, 3, 16, 16)
    student = chosen_student(teacher, pictures, [4, 6], layers)
    assert all(error_at(student, teacher, pictures, layer) < 1e-4 for layer in layers)
    fewer = chosen_student(teacher, pictures, [3, 5], layers)
    assert all(error_at(fewer, teacher, pictures, layer) > 1e-2 for layer in layers)


def test_chosen_channels_are_better_than_as_many_random_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher = LossNetwork("vgg19", random_weights(CHANNELS))
    pictures = random_pictures(4, 3, 16, 16)
    student = chosen_student(teacher, pictures, [3, 4])
    ours = [error_at(student, teacher, pictures, layer) for layer in LAYERS]
    generator = torch.Generator().manual_seed(0)

    def at_random(own: Tensor, cross: Tensor, count: int) -> list[int]:
        return torch.randperm(len(own), generator=generator)[:count].tolist()

    monkeypatch.setattr(students, "most_telling_rows", at_random)
    others = [chosen_student(teacher, pictures, [3, 4]) for _ in range(8)]
    for layer, our_error in zip(LAYERS, ours, strict=True):
        errors = [error_at(other, teacher, pictures, layer) for other in others]
        assert 0 < our_error < 0.9 * sum(errors) / len(errors)


def test_each_block_has_its_width() -> None:
    teacher = LossNetwork("vgg19", random_weights(CHANNELS))
    convolutions = choose_channels(teacher, random_pictures(2, 3, 16, 16), LAYERS, [3, 5])
    shapes = {number: tuple(kernel.shape) for number, (kernel, _) in convolutions.items()}
    assert shapes == {
        "1_1": (3, 3, 3, 3),
        "1_2": (3, 3, 3, 3),
        "2_1": (5, 3, 3, 3),
        "2_2": (5, 5, 3, 3),
    }
    assert all(len(bias) == len(kernel) for kernel, bias in convolutions.values())


def test_channel_that_is_always_silent_may_be_chosen() -> None:
    weights = random_weights(CHANNELS)
    kernel, bias = weights.convolutions["1_1"]
    kernel[2], bias[2] = 0, -1
    teacher = LossNetwork("vgg19", weights)
    pictures = random_pictures(2, 3, 16, 16)
    student = chosen_student(teacher, pictures, [8, 12])
    for kernel, bias in student.weights.convolutions.values():
        assert torch.isfinite(kernel).all()
        assert torch.isfinite(bias).all()
    assert error_at(student, teacher, pictures, "relu2_2") < 1e-3


# --- Heads ----------------------------------------------------------------------------------------


def test_head_of_a_known_linear_map_is_found() -> None:
    known = torch.tensor([[1.0, 2.0], [0.0, -1.0], [0.5, 0.0]])
    features = random_numbers(2, 1000)
    head = best_head(*products_of(features, known @ features))
    torch.testing.assert_close(head, known, rtol=0, atol=1e-3)


def test_head_has_the_least_squared_error() -> None:
    features, targets = random_numbers(4, 30), random_numbers(3, 30, seed=1)
    head = best_head(*products_of(features, targets))
    expected = torch.linalg.lstsq(features.T, targets.T).solution.T
    torch.testing.assert_close(head, expected, rtol=0, atol=1e-3)


def test_silent_channel_does_not_spoil_the_head() -> None:
    known = torch.tensor([[1.0, 7.0, 2.0], [0.0, 7.0, -1.0]])
    features = random_numbers(3, 1000)
    features[1] = 0
    head = best_head(*products_of(features, known @ features))
    torch.testing.assert_close(head[:, [0, 2]], known[:, [0, 2]], rtol=0, atol=1e-3)
    assert (head[:, 1] == 0).all()


def test_folded_head_keeps_the_distances_of_the_full_one() -> None:
    head = random_numbers(12, 5)
    features, others = random_numbers(2, 5, 7, 6), random_numbers(2, 5, 7, 6, seed=1)

    def through(matrix: Tensor) -> tuple[Tensor, Tensor]:
        found, target = (torch.einsum("ij,njyx->niyx", matrix, part) for part in (features, others))
        return (
            content_distance(found, target),
            style_distance(gram_matrix(found), gram_matrix(target)[0]),
        )

    folded = folded_head(head)
    assert folded.shape == (5, 5)
    for ours, full in zip(through(folded), through(head), strict=True):
        torch.testing.assert_close(ours, full, rtol=1e-4, atol=0)
    # Without the division by the number of channels in mind, they would be others.
    unscaled = through(torch.linalg.qr(head).R)
    assert (unscaled[0] / through(head)[0] > 2).all()


# --- Errors ---------------------------------------------------------------------------------------


def errors_computed_directly(
    features: Tensor, target: Tensor, head: Tensor, typical_energy: float
) -> tuple[Tensor, Tensor]:
    """The formulas of `Comparison` with the features as they are."""
    found = torch.einsum("ij,njyx->niyx", head, features)
    weights = 1 / (target.square().mean(dim=(1, 2, 3)) + 0.3 * typical_energy)
    off, whole = (part.square().sum(dim=(1, 2, 3)) for part in (found - target, target))
    grams = gram_matrix(found), gram_matrix(target)
    squares = grams[1].square().sum(dim=(1, 2))
    gram_off = (grams[0] - grams[1]).square().sum(dim=(1, 2))
    return (
        (weights * off).sum() / (weights * whole).sum(),
        (gram_off / (squares + 0.1 * squares.mean())).mean(),
    )


def test_errors_of_a_comparison_are_the_plain_formulas() -> None:
    features, target = random_numbers(3, 4, 5, 6), random_numbers(3, 7, 5, 6, seed=1)
    target *= torch.tensor([0.1, 1.0, 3.0]).view(3, 1, 1, 1)
    head = random_numbers(7, 4, seed=2) / 4
    comparison = compare(features, target, 0.7)
    expected = errors_computed_directly(features, target, head, 0.7)
    torch.testing.assert_close(comparison.feature_error(head), expected[0])
    torch.testing.assert_close(comparison.gram_error(head), expected[1])


def test_errors_are_zero_through_the_true_head_and_near_one_through_none() -> None:
    features, head = random_numbers(2, 4, 5, 6), random_numbers(7, 4, seed=2)
    target = torch.einsum("ij,njyx->niyx", head, features)
    comparison = compare(features, target, 1.0)
    assert float(comparison.feature_error(head)) == pytest.approx(0, abs=1e-6)
    assert float(comparison.gram_error(head)) == pytest.approx(0, abs=1e-6)
    assert float(comparison.feature_error(0 * head)) == pytest.approx(1)
    assert float(comparison.gram_error(0 * head)) == pytest.approx(1 / 1.1, abs=0.02)


def test_flat_pictures_count_less() -> None:
    # Of an ordinary picture everything is right, of one with a thousandth of its energy nothing.
    target = random_numbers(2, 3, 20, 20)
    target /= target.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    target[1] *= 1e-3**0.5
    features = target.clone()
    features[1] = 0
    comparison = compare(features, target, 1.0)
    head = torch.eye(3)
    # 0.001 / 0.301 beside 1 / 1.3, and about 1e-6 / 0.05, halved.
    assert float(comparison.feature_error(head)) == pytest.approx(0.0043, abs=1e-4)
    assert float(comparison.gram_error(head)) == pytest.approx(1e-5, rel=0.3)


def test_gradient_of_an_error_is_that_of_the_plain_formula() -> None:
    features = random_numbers(2, 4, 5, 6).requires_grad_()
    target, head = random_numbers(2, 7, 5, 6, seed=1), random_numbers(7, 4, seed=2) / 4
    comparison = compare(features, target, 0.7)
    ours = comparison.feature_error(head) + comparison.gram_error(head)
    (gradient,) = torch.autograd.grad(ours, features)
    (expected,) = torch.autograd.grad(
        sum(errors_computed_directly(features, target, head, 0.7)),  # type: ignore[arg-type]
        features,
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-7)
    assert expected.abs().max() > 0


def test_agreement_of_equal_features_is_perfect() -> None:
    target = random_numbers(3, 4, 50)
    error, whole, both, found_square, target_square, gram_error = students.agreement_sums(
        target, target
    )
    assert (error, gram_error) == (0, 0)
    assert float(whole) == pytest.approx(float(target.square().sum()))
    assert both == found_square == target_square


def test_agreement_of_shifted_and_scaled_features_by_hand() -> None:
    target = torch.tensor([[[1.0, 3.0]]])
    sums = students.agreement_sums(2 * target + 1, target)  # 3, 7
    # Errors 2 and 4; around the means -2, 2 beside -1, 1; Gram matrices 58 and 10.
    assert sums.tolist() == pytest.approx([20, 10, 4, 8, 2, (48 / 10) ** 2])
