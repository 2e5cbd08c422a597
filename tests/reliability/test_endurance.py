"""A short form of benchmarks/reliability/endurance.py."""

import importlib
import sys
from collections.abc import Callable

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def test_a_hundred_calls_in_four_threads_give_the_pictures_of_one(
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    # Training and files take whole processes of their own, and 20 pieces of work tell nothing.
    ((name, (counts, remark)),) = figures_of(
        "endurance.py", "--only", "calls", "--calls", "100"
    ).items()
    assert name.startswith("100 calls in 4 threads: ")
    assert counts == "3 of 3"  # memory, descriptors, threads
    assert "threads 5, then 5" in remark  # these four and the main thread
    assert remark.endswith("; same pictures")


@pytest.mark.usefixtures("command")
def test_growth_is_a_slope_and_more_than_what_a_start_leaves() -> None:
    endurance = importlib.import_module("endurance")

    def looks(mb_per_1000: float, num_descriptors: Callable[[int], int]) -> list[object]:
        return [
            endurance.Look(work, round(1e8 + 1e3 * work * mb_per_1000), num_descriptors(work), 5)
            for work in range(0, 5000, 50)
        ]

    flat = looks(0.5, lambda work: 9)
    assert endurance.mb_per_1000(flat) == pytest.approx(0.5, rel=1e-3)
    assert endurance.mistakes("work", flat) == []
    steep = looks(1.5, lambda work: 9)
    assert endurance.mistakes("work", steep) == ["work: memory grows by 1.50 MB per 1,000"]
    assert endurance.mistakes("work", steep[:20]) == []  # 1.4 MB in all
    leaking = looks(0.0, lambda work: 9 + work // 1000)
    assert endurance.mistakes("work", leaking) == ["work: descriptors grow from 10 to 13"]
