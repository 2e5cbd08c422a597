"""A short form of benchmarks/reliability/mutated_pictures.py."""

import re
import sys
from collections.abc import Callable

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def test_a_picture_of_every_format_and_mode_is_read_and_damaged_ones_are_read_or_refused(
    row: Callable[..., list[str]],
) -> None:
    what, counted, *_ = row("mutated_pictures.py", "--count", "800", "--workers", "1")
    found = re.match(r"800 mutated pictures, of (\d+) in 10 formats, seed 1, ", what)
    assert found is not None, what
    num_seeds = int(found[1])
    assert num_seeds > 300
    assert counted.startswith("0 tracebacks, 0 crashes, 0 over 2 s ")
    num_read, num_refused = re.findall(r"(\d+) (?:read|refused)", counted.replace(",", ""))
    assert int(num_read) + int(num_refused) == 800
    assert int(num_read) > num_seeds  # these are whole
    assert int(num_refused) > 100
