"""A short form of benchmarks/reliability/mutated_settings.py.

`tests/settings/test_any_file.py` damages the files of training and of optimizing in this process.
"""

import re
import sys
from collections.abc import Callable

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def test_damaged_files_of_all_kinds_are_accepted_or_refused(row: Callable[..., list[str]]) -> None:
    what, counted, *_ = row("mutated_settings.py", "--count", "150", "--workers", "1")
    assert re.match(r"150 mutated YAML files, of \d\d, seed 1", what)
    assert counted.startswith("0 tracebacks, 0 crashes, 0 over 2 s ")
    num_accepted, num_refused = map(int, re.findall(r"(\d+) (?:accepted|refused)", counted))
    assert num_accepted + num_refused == 150
    assert min(num_accepted, num_refused) > 20
