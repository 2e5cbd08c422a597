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


def test_damaged_files_of_all_kinds_are_accepted_or_refused(
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    files, _ = figures_of("mutated_settings.py", "--count", "150", "--workers", "1").items()
    name, (counts, remark) = files
    assert re.match(r"mutated YAML files, of \d\d, seed 1: ", name)
    assert counts == "150 of 150"
    assert "; 0 tracebacks, 0 crashes, 0 over 2 s " in remark
    num_accepted, num_refused = map(int, re.findall(r"(\d+) (?:accepted|refused)", remark))
    assert num_accepted + num_refused == 150
    assert min(num_accepted, num_refused) > 20
