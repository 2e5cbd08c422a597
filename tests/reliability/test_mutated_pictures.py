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
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    formats, pictures, memory = figures_of(
        "mutated_pictures.py", "--count", "800", "--workers", "1"
    ).items()
    assert formats == ("formats that Pillow here can write", ("10 of 10", ""))
    name, (counts, remark) = pictures
    found = re.match(r"mutated pictures, of (\d+), seed 1, ", name)
    assert found is not None, name
    assert counts == "800 of 800"
    num_seeds = int(found[1])
    assert num_seeds > 300
    assert "; 0 tracebacks, 0 crashes, 0 over 2 s " in remark
    num_read, num_refused = re.findall(r"(\d+) (?:read|refused)", remark)
    assert int(num_read) + int(num_refused) == 800
    assert int(num_read) > num_seeds  # these are whole
    assert int(num_refused) > 100
    assert memory[0] == "the same: under 500 MB of memory"
