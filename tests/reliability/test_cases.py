"""Cases in worker processes: what goes wrong is counted, and the rest is done all the same."""

import importlib
import os
import sys
import time
from collections.abc import Callable

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def build(num_bytes: int) -> Callable[[int], str]:
    def check(case: int) -> str:
        match case:
            case 2:
                raise ValueError("the third case")
            case 4:
                os.abort()
            case 6:
                bytearray(num_bytes)[::4096] = bytes(-(-num_bytes // 4096))
            case 7:
                time.sleep(60)
        return "even" if case % 2 == 0 else "odd"

    return check


@pytest.mark.usefixtures("command")
def test_exceptions_crashes_and_hangs_are_counted_and_the_rest_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = importlib.import_module("cases")
    monkeypatch.setattr(cases, "_HANGS_AFTER_S", 3)
    monkeypatch.setattr(cases, "MOST_BYTES", 200_000_000)
    tally = cases.run_cases(build, 200_000_000, count=10, num_workers=2)
    assert tally.kinds == {"even": 3, "odd": 4}
    (raised,), (crashed,), (slow,) = tally.raised, tally.crashed, tally.slow
    assert raised.startswith("case 2: Traceback")
    assert raised.endswith("ValueError: the third case\n")
    assert crashed == "case 4: the process died (-6)"
    assert slow == "case 7: given up after 3 s"
    assert 200_000_000 < tally.most_bytes < 400_000_000
    assert len(tally.failures()) == 4  # and the memory
