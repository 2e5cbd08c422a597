"""What several test modules share."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"

# Commands that are tried out in this process must not decide how the other tests get memory.
os.environ["FAST_STYLE_MALLOC"] = "system"
# Test processes share the cores, and the commands that they start have several threads each: those
# that wait must not spin. (OpenMP reads this when torch is loaded.)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What a script starts in the background ignores Ctrl-C, which tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        needs_assets = "assets" in getattr(item, "fixturenames", ())
        if needs_assets and item.get_closest_marker("real_data") is None:
            raise pytest.UsageError(f"{item.nodeid} uses `assets` and is not marked real_data")
    # The longest test first: begun last, it would run alone on one core.
    items.sort(key=lambda item: item.get_closest_marker("readme") is None)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Iterator[None]:
    # One process more than cores: some tests wait for others.
    return (yield) + 1


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    # The tests' pictures are so small that threads mostly wait for each other: on two busy cores
    # two threads took ten times as long as one. torch is not imported for this; tests of modules
    # that need none run without.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_temporary_files() -> Iterator[None]:
    # Trainings tell of others of this user that run now; tests must see none but their own. Not
    # below pytest's folder: sockets of data workers lie there, whose paths must be short.
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session")
def assets() -> Path:
    """Photographs and weights that are not part of the repository."""
    if not ASSETS.is_dir():
        pytest.skip(f"the real data are not at {ASSETS}")
    return ASSETS


@pytest.fixture
def winograd_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """3x3 convolutions of small networks in the way of those with many channels and pixels."""
    from fast_style.networks import winograd  # here, as it needs torch

    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_FEWEST_TILES_TIMES_CHANNELS", 0)
