"""A short form of benchmarks/reliability/hostile_models.py."""

import sys
from collections.abc import Callable

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc"),
]


def test_every_door_is_tried(
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    found = figures_of("hostile_models.py", "--count", "1")
    assert set(found.values()) == {("1 of 1", "")}
    assert len(found) == 6
