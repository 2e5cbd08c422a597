"""Claims about `fast_kernels`: each kernel alone, known answers first, then torch's own."""

from collections.abc import Callable

import pytest
import torch
from small_networks import FORMATS, make_photos
from torch import Tensor
from torch.nn import functional as F

from fast_style.networks import fast_kernels
from fast_style.networks.fast_kernels import (
    column_kernels,
    convolve_exactly,
    interleave,
    moments,
    norm_relu_by_formula,
    norm_relu_by_library,
    norm_relu_in_pieces_,
    phase_kernels,
    row_kernels,
    side_by_side,
    smooth_phase_kernels,
    sum_rows,
    weight_gradient,
)
from fast_style.networks.transform_net import (
    Convolution,
    InstanceNorm,
    ResizeConvolution,
    channel_statistics,
    instance_norm,
)

each_format = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    # Several per picture, the last one smaller.
    monkeypatch.setattr(fast_kernels, "NUMBERS_PER_PIECE", 500)


# --- Instance norm and ReLU ---------------------------------------------------------------------


@each_format
def test_moments_are_the_channel_statistics(memory_format: torch.memory_format) -> None:
    features = make_photos(2, 3, 41, 17).contiguous(memory_format=memory_format)
    for ours, theirs in zip(moments(features), channel_statistics(features), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_moments_of_a_large_mean_keep_the_variance() -> None:
    # As the difference of two means of squares it would be anything from 0 to 16.
    features = 10_000 + torch.tensor([-1.0, 1.0]).repeat(32, 16)[None, None]
    mean, variance = moments(features)
    assert mean.item() == 10_000
    assert variance.item() == 1


@pytest.mark.parametrize("kernel", [norm_relu_by_formula, norm_relu_by_library])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_norm_and_relu_are_instance_norm_and_relu(
    kernel: Callable[..., Tensor], relu: bool, count: int
) -> None:
    norm, features = varied_norm(), make_photos(count, 3, 9, 9)
    expected = instance_norm(features, norm.weight, norm.bias)
    expected = expected.relu() if relu else expected
    torch.testing.assert_close(kernel(features, norm, relu=relu), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("relu", [True, False])
def test_norm_in_pieces_overwrites_its_argument_only_without_gradient(relu: bool) -> None:
    norm, features = varied_norm(), make_photos(1, 3, 9, 9)
    expected = instance_norm(features, norm.weight, norm.bias).detach()
    expected = expected.relu() if relu else expected
    kept = features.clone()
    result = norm_relu_in_pieces_(kept, norm, relu=relu)
    assert torch.equal(kept, features)
    torch.testing.assert_close(result.detach(), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        result = norm_relu_in_pieces_(kept, norm, relu=relu)
    assert result.data_ptr() == kept.data_ptr()
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [norm_relu_by_formula, norm_relu_in_pieces_])
def test_norm_of_a_part_with_the_wholes_statistics_is_part_of_the_wholes_result(
    kernel: Callable[..., Tensor],
) -> None:
    norm, features = varied_norm(), make_photos(1, 3, 12, 10)
    statistics, part = moments(features), features[..., 2:7, 3:9].clone()
    with torch.no_grad():
        given = kernel(part, norm, statistics=statistics)
        whole = kernel(features, norm)
    torch.testing.assert_close(given, whole[..., 2:7, 3:9], rtol=0, atol=1e-6)


def test_norm_with_a_scale_of_zero_has_a_gradient() -> None:
    norm, features = InstanceNorm(2), make_photos(1, 2, 6, 6).requires_grad_()
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.fill_(1)
    total = norm_relu_in_pieces_(features, norm).square().sum()
    pulls = torch.autograd.grad(total, [features, norm.weight])
    assert pulls[0].abs().max() == 0
    assert torch.isfinite(pulls[1]).all()


def varied_norm() -> InstanceNorm:
    """A norm of three channels that scales and shifts each in its own way."""
    norm = InstanceNorm(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        norm.bias.copy_(torch.tensor([0.25, -1.0, 3.0]))
    return norm


# --- Convolutions in other steps ----------------------------------------------------------------


def test_phases_of_a_kernel_of_ones_count_how_often_an_old_pixel_is_seen() -> None:
    phases = phase_kernels(torch.ones(1, 1, 3, 3))
    assert phases[:, 0].tolist() == [
        [[1, 2], [2, 4]],
        [[2, 1], [4, 2]],
        [[2, 4], [1, 2]],
        [[4, 2], [2, 1]],
    ]


@each_format
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 8), (1, 3)])
def test_phases_are_nearest_neighbour_and_a_convolution(
    memory_format: torch.memory_format, height: int, width: int
) -> None:
    torch.manual_seed(0)
    plain = ResizeConvolution(3, 2).double()
    features = make_photos(2, 3, height, width).double().contiguous(memory_format=memory_format)
    padded = F.pad(features, (1, 1, 1, 1), mode="replicate")
    result = interleave(F.conv2d(padded, phase_kernels(plain.layer.weight)))
    torch.testing.assert_close(result, plain(features), rtol=0, atol=1e-12)
    assert result.is_contiguous(memory_format=memory_format)


@each_format
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 8), (1, 3)])
def test_smooth_phases_are_the_antialiased_convolution(
    memory_format: torch.memory_format, height: int, width: int
) -> None:
    torch.manual_seed(0)
    plain = ResizeConvolution(3, 2, antialiased=True).double()
    features = make_photos(2, 3, height, width).double().contiguous(memory_format=memory_format)
    padded = F.pad(features, (1, 1, 1, 1), mode="replicate")
    phases = F.conv2d(padded, smooth_phase_kernels(plain.layer.weight))
    result = interleave(phases, overlap=0)
    torch.testing.assert_close(result, plain(features), rtol=0, atol=1e-12)
    assert result.is_contiguous(memory_format=memory_format)


@each_format
@pytest.mark.parametrize(("multiple", "num_rows"), [(1, 27), (8, 32)])
def test_rows_add_up_to_a_convolution(
    memory_format: torch.memory_format, multiple: int, num_rows: int
) -> None:
    torch.manual_seed(0)
    plain = Convolution(4, 3, 9).double()
    features = make_photos(2, 4, 11, 14).double().contiguous(memory_format=memory_format)
    padded = F.pad(features, (4, 4, 4, 4), mode="reflect")
    kernels = row_kernels(plain.layer.weight, multiple=multiple)
    assert kernels.shape == (num_rows, 4, 1, 9)
    result = sum_rows(F.conv2d(padded, kernels), num_channels=3, kernel_size=9)
    torch.testing.assert_close(result, plain(features), rtol=0, atol=1e-12)


@each_format
@pytest.mark.parametrize(("multiple", "num_columns"), [(1, 27), (8, 32)])
def test_columns_side_by_side_are_a_convolution(
    memory_format: torch.memory_format, multiple: int, num_columns: int
) -> None:
    torch.manual_seed(0)
    plain = Convolution(3, 5, 9).double()
    photos = make_photos(2, 3, 11, 14).double().contiguous(memory_format=memory_format)
    padded = F.pad(photos, (4, 4, 4, 4), mode="reflect")
    pictures = side_by_side(padded, 9, multiple=multiple)
    kernels = column_kernels(plain.layer.weight, multiple=multiple)
    assert pictures.shape[1] == kernels.shape[1] == num_columns
    torch.testing.assert_close(F.conv2d(pictures, kernels), plain(photos), rtol=0, atol=1e-12)


# --- Convolutions with gradients of their own ---------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_of_half_precision_loses_nothing_but_in_its_gradients(stride: int) -> None:
    padded, kernel = make_photos(2, 4, 12, 12).bfloat16(), make_photos(3, 4, 1, 9)
    padded.requires_grad_()
    kernel.requires_grad_()
    expected = F.conv2d(padded.float(), kernel, stride=stride)
    result = convolve_exactly(padded, kernel, stride)
    assert torch.equal(result, expected)
    grad = make_photos(*result.shape)
    ours = torch.autograd.grad(result, [padded, kernel], grad)
    theirs = torch.autograd.grad(expected, [padded, kernel], grad)
    for own, known in zip(ours, theirs, strict=True):
        assert own.dtype == known.dtype
        assert (own - known).norm() < 0.01 * known.norm()  # 8 bits of each number


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(3, 3), (2, 2), (1, 9)])
@pytest.mark.parametrize("sides", [(9, 9), (10, 13)])
def test_weight_gradient_is_that_of_the_convolution(
    stride: int, size: tuple[int, int], sides: tuple[int, int]
) -> None:
    padded = make_photos(2, 5, *sides).double().contiguous(memory_format=torch.channels_last)
    kernel = make_photos(4, 5, *size).double().requires_grad_()
    output = F.conv2d(padded, kernel, stride=stride)
    grad = make_photos(*output.shape).double().contiguous(memory_format=torch.channels_last)
    (expected,) = torch.autograd.grad(output, kernel, grad)
    result = weight_gradient(padded, grad, kernel.shape, stride=stride)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
