"""A short form of benchmarks/reliability/disk_full.py."""

import sys
from collections.abc import Callable

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="forks processes"),
]


def test_files_that_met_a_full_disk_are_named(
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    found = figures_of("disk_full.py", "--calls", "1")
    names = {name.partition(",")[0] for name in found}
    assert names == {"disk full from a call on", "disk full at one call"}
