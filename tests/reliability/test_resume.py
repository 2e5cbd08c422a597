"""A short form of benchmarks/reliability/resume.py."""

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow


def test_a_try_is_counted_at_every_step(
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    found = figures_of("resume.py", "--steps", "2", "--workers", "0", "--no-ranks")
    assert found == {"resumed bit-exact, 0 workers": ("2 of 2", "")}
