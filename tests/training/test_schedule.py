"""The learning rate, as a function of the step alone."""

import pytest

from fast_style.settings.config import TrainConfig
from fast_style.training.schedule import learning_rate_at


def test_cosine_rate_by_hand() -> None:
    settings = TrainConfig(steps=14, warmup_steps=4, learning_rate=0.8)
    rates = [learning_rate_at(step, settings) for step in range(14)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[9] == pytest.approx(0.4)  # half-way down
    assert 0 < rates[13] < 0.02
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_constant_rate_by_hand() -> None:
    settings = TrainConfig(steps=10, warmup_steps=2, learning_rate=0.8, schedule="constant")
    rates = [learning_rate_at(step, settings) for step in range(10)]
    assert rates == pytest.approx([0.4] + [0.8] * 9)


def test_rate_without_warm_up_begins_at_its_height() -> None:
    settings = TrainConfig(steps=10, warmup_steps=0, learning_rate=0.8)
    assert learning_rate_at(0, settings) == 0.8
