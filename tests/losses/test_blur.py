"""The Gaussian blur against its definition."""

import pytest
import torch
from torch.nn import functional as F

from fast_style.losses.blur import blurred, reach_of


def test_a_point_becomes_a_gaussian() -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    found = blurred(point, 3)[0, 0]
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    for down, right in ((0, 0), (3, 0), (2, 5)):
        share = torch.exp(torch.tensor(-(down**2 + right**2) / (2 * 9.0))).item()
        at = found[20 + down, 20 + right] / found[20, 20]
        assert at.item() == pytest.approx(share, abs=1e-5)
    assert found[20, 20 + reach_of(3)] > 0
    assert found[20, 20 + reach_of(3) + 1] == 0


def test_pictures_and_channels_are_blurred_alone_and_constants_stay() -> None:
    pictures = torch.rand(2, 3, 40, 36, generator=torch.Generator().manual_seed(1))
    found = blurred(pictures, 3)
    torch.testing.assert_close(found[1:, 2:], blurred(pictures[1:, 2:], 3))
    torch.testing.assert_close(blurred(pictures.to(memory_format=torch.channels_last), 3), found)
    constant = torch.full((1, 3, 40, 36), 0.3)
    torch.testing.assert_close(blurred(constant, 3), constant)


def test_borders_reflect() -> None:
    pictures = torch.rand(1, 2, 30, 22, generator=torch.Generator().manual_seed(1))
    reach = reach_of(3)
    padded = F.pad(pictures, (reach,) * 4, mode="reflect")
    inner = blurred(padded, 3)[..., reach:-reach, reach:-reach]
    torch.testing.assert_close(blurred(pictures, 3), inner, atol=1e-5, rtol=0)
