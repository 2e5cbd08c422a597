"""Claims about `borders`: values, gradients and memory formats are those of `F.pad`."""

from collections.abc import Callable

import pytest
import torch
from small_networks import FORMATS, make_photos
from torch import Tensor
from torch.nn import functional as F

from fast_style.networks.borders import pad_by_copying, pad_by_index
from fast_style.networks.transform_net import Border

each_format = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)


@pytest.mark.parametrize("pad", [pad_by_copying, pad_by_index])
@each_format
@pytest.mark.parametrize(("padding", "border"), [(4, "reflect"), (1, "reflect"), (1, "replicate")])
def test_border_is_that_of_torch_and_keeps_the_format(
    pad: Callable[..., Tensor], memory_format: torch.memory_format, padding: int, border: Border
) -> None:
    features = make_photos(2, 3, 5, 7).double().contiguous(memory_format=memory_format)
    result = require_torchs_border(pad, features, padding, border)
    assert result.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("pad", [pad_by_copying, pad_by_index])
@pytest.mark.parametrize("padding", [1, 2])
@pytest.mark.parametrize("height", [3, 4, 5, 6])
def test_border_of_small_pictures_is_that_of_torch(
    pad: Callable[..., Tensor], height: int, padding: int
) -> None:
    require_torchs_border(pad, make_photos(1, 2, height, 3).double(), padding, "reflect")


@pytest.mark.slow
@each_format
@pytest.mark.parametrize(("padding", "border"), [(4, "reflect"), (1, "replicate")])
def test_compiled_border_is_that_of_torch(
    memory_format: torch.memory_format, padding: int, border: Border
) -> None:
    compiled = torch.compile(pad_by_index, backend="aot_eager", fullgraph=True, dynamic=False)
    features = make_photos(2, 3, 5, 7).double().contiguous(memory_format=memory_format)
    require_torchs_border(compiled, features, padding, border)


def require_torchs_border(
    pad: Callable[..., Tensor], features: Tensor, padding: int, border: Border
) -> Tensor:
    """The features with their border, after a check of values and gradients."""
    features.requires_grad_()
    expected = F.pad(features, (padding,) * 4, mode=border)
    result = pad(features, padding, border)
    assert torch.equal(result, expected)
    grad = make_photos(*expected.shape).double()
    (ours,) = torch.autograd.grad(result, features, grad)
    (theirs,) = torch.autograd.grad(expected, features, grad)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    return result
