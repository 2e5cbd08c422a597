"""What tests of training share: small runs, one of which nothing interrupted."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from small_run import make_trainer, opening, quick_runs, settings_of, train_once, write_small_run

from fast_style.training.trainer import Trainer


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with quick_runs():
        yield


@pytest.fixture(scope="session")
def yaml_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of six steps, and photos, which no test may change."""
    return write_small_run(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def straight(yaml_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps that nothing interrupted."""
    root = tmp_path_factory.mktemp("straight")
    with quick_runs():
        train_once(settings_of(yaml_file), root)
    return root / "tiny"


@pytest.fixture
def open_trainer(yaml_file: Path, tmp_path: Path) -> Iterator[Callable[..., Trainer]]:
    """Makes trainers of runs in `tmp_path`, from ``key=value`` words."""
    with opening(tmp_path, partial(settings_of, yaml_file), make_trainer) as open_one:
        yield open_one
