"""A short form of benchmarks/reliability/kill.py."""

import re
import sys
from collections.abc import Callable

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="forks and kills processes"),
]


def test_both_kinds_of_kills_are_counted(
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    found = figures_of("kill.py", "--count", "2", "--calls", "1")
    kinds = [name.partition(":")[0] for name in found]
    assert kinds[:2] == ["kill -9 at random moments", "runs so killed"]
    assert all(
        re.fullmatch(r"kill -9 at 1 of \d{3} system calls of a run", kind) for kind in kinds[2:]
    )
    assert len(kinds) == 5
