"""A short form of benchmarks/reliability/hosts.py."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX users, limits and modes"),
]


def test_command_works_without_a_home_and_with_few_descriptors(
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    words = ["--commands", "init", "--hosts", "home that is not there", "24 descriptors"]
    assert figures_of("hosts.py", *words) == {
        "home that is not there: commands work": ("1 of 1", ""),
        "24 descriptors: commands work": ("1 of 1", ""),
    }


def test_settings_name_files_that_the_locale_cannot(
    figures_of: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    words = ["--commands", "check", "train", "--hosts", "LANG=C"]
    assert figures_of("hosts.py", *words) == {"LANG=C: commands work": ("2 of 2", "")}


@pytest.mark.usefixtures("command")
def test_command_that_fails_is_told_and_a_host_that_cannot_be_had(
    tmp_path: Path,
) -> None:
    hosts = importlib.import_module("hosts")
    told = hosts.mistake(hosts.Host("any"), tmp_path, ["info", "none.safetensors"])
    assert told.startswith("info ended with 2: error: none.safetensors")
    far_away = hosts.Host("far away", cannot=lambda: "no ship")
    found = hosts.measure(far_away, tmp_path, ["info"])
    assert found == ("far away: commands work", 0, None, "no ship")
