"""A short form of benchmarks/reliability/corruption.py."""

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow


def test_every_kind_of_damage_is_counted(
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    found = figures_of("corruption.py", "--flips", "20", "--resumes", "1", "--width", "1")
    assert [name.partition(":")[0] for name in found] == [
        "a flipped byte of 0.0 MB",
        "a page of 4 KB of zeros",
        "truncated at every KB",
        "resumed from the next whole one, and said so",
    ]
