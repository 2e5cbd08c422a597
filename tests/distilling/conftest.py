"""What tests of distilling share: small distillations, one of which nothing interrupted."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from small_distillation import (
    distill_once,
    make_distiller,
    settings_of,
    small_painters,
    write_small_distillation,
)
from small_run import opening

from fast_style.distilling.distiller import Distiller


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_painters():
        yield


@pytest.fixture(scope="session")
def yaml_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of six steps, and pictures, which no test may change."""
    return write_small_distillation(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def straight(yaml_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps that nothing interrupted."""
    root = tmp_path_factory.mktemp("straight")
    with small_painters():
        distill_once(settings_of(yaml_file), root)
    return root / "small"


@pytest.fixture
def open_distiller(yaml_file: Path, tmp_path: Path) -> Iterator[Callable[..., Distiller]]:
    """Makes distillers of runs in `tmp_path`, from ``key=value`` words."""
    with opening(tmp_path, partial(settings_of, yaml_file), make_distiller) as open_one:
        yield open_one
