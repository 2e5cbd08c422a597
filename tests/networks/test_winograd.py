"""Claims about `winograd`: torch's convolutions, in another way."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fast_style.networks import winograd
from fast_style.networks.winograd import convolve, is_faster

TEXTBOOK = tuple(map(Fraction, (0, 1, -1, 2, -2)))


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_TILES_AT_ONCE", 6)  # several per picture


def make_numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return numbers.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else numbers


# --- Known answers ------------------------------------------------------------------------------


def test_matrices_are_those_of_the_paper_at_its_points() -> None:
    # Lavin and Gray 2016, section 4.1: the matrices of F(4x4, 3x3).
    tiles, kernels, results = winograd._matrices(TEXTBOOK)
    assert tiles == [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
    assert [[24 * number for number in row] for row in kernels] == [
        [6, 0, 0],
        [-4, -4, -4],
        [-4, 4, -4],
        [1, 2, 4],
        [1, -2, 4],
        [0, 0, 24],
    ]
    assert [list(column) for column in zip(*results, strict=True)] == [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]


def test_kernel_with_a_single_one_shifts_the_picture() -> None:
    pixels = make_numbers(1, 1, 9, 11)
    kernel = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    kernel[0, 0, 0, 2] = 1  # from the upper right
    torch.testing.assert_close(convolve(pixels, kernel), pixels[:, :, :-2, 2:])


def test_picture_of_one_color_stays_one() -> None:
    # Rounding differs between the pixels of a tile, and an instance norm makes a pattern of it.
    pixels = make_numbers(2, 5, 1, 1, dtype=torch.float32).expand(2, 5, 21, 30)
    kernel = make_numbers(4, 5, 3, 3, seed=1, dtype=torch.float32)
    result = convolve(pixels.contiguous(memory_format=torch.channels_last), kernel)
    assert torch.equal(result, result[:, :, :1, :1].expand_as(result))
    torch.testing.assert_close(result, F.conv2d(pixels, kernel))


# --- The same as torch's ------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("height", [*range(3, 12), 18, 31])
def test_result_is_torchs_at_all_sizes(height: int, padding: int) -> None:
    kernel, bias = make_numbers(4, 3, 3, 3, seed=1), make_numbers(4, seed=2)
    for width in (3, 4, 5, 6, 7, 16, 18):
        pixels = make_numbers(2, 3, height, width)
        result = convolve(pixels, kernel, bias, padding=padding)
        expected = F.conv2d(pixels, kernel, bias, padding=padding)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
        assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(("height", "width"), [(6, 6), (10, 18), (7, 9), (12, 5), (33, 30)])
def test_gradients_are_torchs(height: int, width: int, padding: int) -> None:
    pixels = make_numbers(2, 3, height, width).requires_grad_()
    kernel = make_numbers(4, 3, 3, 3, seed=1).requires_grad_()
    bias = make_numbers(4, seed=3).requires_grad_()
    inputs = [pixels, kernel, bias]
    expected = F.conv2d(pixels, kernel, bias, padding=padding)
    grad = make_numbers(*expected.shape, seed=2)
    wanted = torch.autograd.grad(expected, inputs, grad)
    result = convolve(pixels, kernel, bias, padding=padding)
    for ours, theirs in zip(torch.autograd.grad(result, inputs, grad), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_each_gradient_can_be_taken_alone(wanted: int) -> None:
    inputs = [make_numbers(1, 2, 9, 9), make_numbers(3, 2, 3, 3, seed=1), make_numbers(3, seed=2)]
    inputs[wanted].requires_grad_()
    (ours,) = torch.autograd.grad(convolve(*inputs, padding=1).square().sum(), inputs[wanted])
    expected = F.conv2d(*inputs, padding=1).square().sum()
    (theirs,) = torch.autograd.grad(expected, inputs[wanted])
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_pixels_and_pulls_may_lie_in_memory_in_any_way() -> None:
    pixels = make_numbers(2, 3, 10, 18).contiguous().requires_grad_()
    kernel = make_numbers(4, 3, 3, 3, seed=1)
    # The gradient of a sum is one number, shown everywhere.
    (ours,) = torch.autograd.grad(convolve(pixels, kernel).sum(), pixels)
    (theirs,) = torch.autograd.grad(F.conv2d(pixels, kernel).sum(), pixels)
    torch.testing.assert_close(ours, theirs)


# --- Rounding -----------------------------------------------------------------------------------


def rounding_of(
    convolution: Callable[[Tensor, Tensor], Tensor], pixels: Tensor, kernel: Tensor
) -> float:
    """The largest error in float32, against the deviation of the result."""
    exact = F.conv2d(pixels.double(), kernel.double())
    return float((convolution(pixels, kernel) - exact).abs().max() / exact.std())


def test_rounding_is_near_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = make_numbers(1, 256, 34, 34, dtype=torch.float32).relu()
    kernel = make_numbers(256, 256, 3, 3, seed=1, dtype=torch.float32)
    ours = rounding_of(convolve, pixels, kernel)
    assert ours < 4 * rounding_of(F.conv2d, pixels, kernel)
    # Which is what the points are for.
    monkeypatch.setattr(winograd, "_POINTS", TEXTBOOK)
    assert rounding_of(convolve, pixels, kernel) > 2 * ours


# --- Where it is used ---------------------------------------------------------------------------


def test_it_pays_with_many_channels_and_pixels_on_a_cpu() -> None:
    pixels = make_numbers(1, 128, 50, 50, dtype=torch.float32)
    kernel = make_numbers(128, 128, 3, 3, dtype=torch.float32)
    assert is_faster(pixels, kernel)
    assert is_faster(pixels.double(), kernel.double())
    assert not is_faster(pixels[:, :64], kernel[:, :64])
    assert not is_faster(pixels, kernel[:64])
    assert not is_faster(pixels[:, :, :20].contiguous(memory_format=torch.channels_last), kernel)
    assert not is_faster(pixels, kernel[:, :, :2, :2])
    assert not is_faster(pixels.contiguous(), kernel)
    assert not is_faster(pixels.bfloat16(), kernel.bfloat16())
    assert not is_faster(pixels.bfloat16(), kernel)
    assert not is_faster(pixels.to("meta"), kernel.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_faster(pixels, kernel)


def test_padding_counts_as_pixels() -> None:
    pixels = make_numbers(1, 128, 44, 44, dtype=torch.float32)
    kernel = make_numbers(128, 128, 3, 3, dtype=torch.float32)
    assert not is_faster(pixels, kernel)  # 42 * 42 pixels are 110 tiles
    assert is_faster(pixels, kernel, padding=2)  # 46 * 46 are 132
