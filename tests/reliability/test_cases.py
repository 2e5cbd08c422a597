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
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = importlib.import_module("cases")
    monkeypatch.setattr(cases, "_HANGS_AFTER_S", 12)  # the machine may be busy
    monkeypatch.setattr(cases, "MOST_S", 60)
    monkeypatch.setattr(cases, "MOST_BYTES", 200_000_000)
    tally = cases.run_cases(build, 200_000_000, count=10, num_workers=2)
    assert tally.kinds == {"even": 3, "odd": 4}
    assert tally.raised.keys() == {2}
    assert tally.raised[2].endswith("ValueError: the third case\n")
    assert tally.crashed == {4: "the process died (-6)"}
    assert tally.slow == {7: "given up after 12 s"}
    assert 200_000_000 < tally.most_bytes < 400_000_000
    of_cases, of_memory = tally.counted("cases")
    assert of_cases[1:3] == (7, 10)
    assert of_cases.remark.startswith("3 even, 4 odd; 1 tracebacks, 1 crashes, 1 over 60 s ")
    assert of_memory[1:3] == (0, 1)
    assert "failed: case 4: the process died (-6)\n" in capsys.readouterr().err


@pytest.mark.usefixtures("command")
def test_case_that_fails_in_two_ways_is_one_and_not_all_failures_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases = importlib.import_module("cases")
    tally = cases.Tally(30, raised=dict.fromkeys(range(25), "wrong"), slow={0: "2.5 s"})
    assert next(iter(tally.counted("cases")))[1:3] == (5, 30)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 21
    assert told[-1] == "failed: 6 more"
