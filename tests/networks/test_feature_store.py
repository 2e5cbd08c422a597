"""Features between sweeps: what is written is read, in memory and on a disk."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from fast_style.networks.feature_store import FeatureStore, Plane

CPU = torch.device("cpu")


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureStore]:
    """Six lines of twelve values."""
    with closing(FeatureStore(6, 12, CPU if request.param == "memory" else tmp_path)) as store:
        yield store


def test_lines_are_read_as_they_were_written(store: FeatureStore) -> None:
    values = torch.arange(24.0).view(2, 12)
    store.write(range(1, 5, 3), values)
    assert torch.equal(store.read(range(1, 5, 3), 12), values)
    assert torch.equal(store.read(range(4, 5), 5), values[1:, :5])


def test_what_is_read_is_a_copy(store: FeatureStore) -> None:
    store.write(range(2), torch.ones(2, 12))
    store.read(range(2), 12).zero_()
    assert torch.equal(store.read(range(2), 12), torch.ones(2, 12))


def test_two_planes_of_every_second_line_share_a_store(store: FeatureStore) -> None:
    first = Plane(store, 0, 2, height=3, width=4, channels=3, device=CPU)
    second = first._replace(start=1)
    numbers = torch.arange(36.0).view(3, 4, 3)
    first.write(0, numbers)
    second.write(0, -numbers)
    second.write(1, 100 + numbers[:1])
    assert torch.equal(first.read(0, 3), numbers)
    assert torch.equal(second.read(0, 1), -numbers[:1])
    assert torch.equal(second.read(1, 3), torch.cat([100 + numbers[:1], -numbers[2:]]))
