"""Grain: always the same noise, endless, of strokes' sizes."""

import math

import pytest
import torch
from other_defaults import OTHER_DEFAULTS, other_defaults

from fast_style.networks import grain as grain_module
from fast_style.networks.grain import grain_pattern


def test_it_is_noise_of_mean_zero_and_deviation_one() -> None:
    grain = grain_pattern(0, 0, 441, 512)
    assert grain.shape == (3, 441, 512)
    assert grain.dtype == torch.float32
    for channel in grain:
        assert abs(channel.mean()) < 0.01
        assert channel.std() == pytest.approx(1, abs=0.05)
    channels = torch.corrcoef(grain.flatten(1))
    assert (channels - torch.eye(3)).abs().max() < 0.1


def test_parts_agree_where_they_overlap() -> None:
    whole = grain_pattern(0, 0, 600, 700)
    assert torch.equal(grain_pattern(440, 500, 90, 180), whole[:, 440:530, 500:680])


def test_it_repeats_neither_where_one_pattern_does_nor_where_the_other_does() -> None:
    here = grain_pattern(0, 0, 128, 128).flatten()
    for distance in (441, 512):
        for top, left in ((distance, 0), (0, distance)):
            there = grain_pattern(top, left, 128, 128).flatten()
            # One of the two patterns is the same there, so half of the variance is.
            assert torch.corrcoef(torch.stack([here, there]))[0, 1] < 0.65
    far = grain_pattern(441 * 512, 0, 128, 128).flatten()
    assert torch.equal(here, far)


@pytest.mark.parametrize("setting", OTHER_DEFAULTS)
def test_what_the_caller_has_set_in_torch_changes_nothing(setting: str) -> None:
    expected = grain_pattern(3, 5, 20, 30)
    grain_module._pattern.cache_clear()
    with other_defaults(setting):
        found = grain_pattern(3, 5, 20, 30)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert torch.equal(grain_pattern(3, 5, 20, 30), expected)


def test_it_has_no_single_pixels_and_no_slow_changes() -> None:
    power = torch.fft.fft2(grain_pattern(0, 0, 512, 512)).abs().square().sum(dim=0)
    frequency = torch.fft.fftfreq(512)
    radius = torch.hypot(frequency[:, None], frequency)
    share_of = lambda chosen: float(power[chosen].sum() / power.sum())  # noqa: E731
    assert share_of(radius > 1 / 5) < 0.01  # of wavelengths below 5 pixels
    assert share_of(radius < 1 / 120) < 0.03  # above 120
    for wavelength in (12, 25, 50):  # about those that each octave passes best
        octave = (radius > math.sqrt(0.5) / wavelength) & (radius < math.sqrt(2) / wavelength)
        assert share_of(octave) > 0.15, wavelength
