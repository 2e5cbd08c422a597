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
    row: Callable[..., list[str]],
) -> None:
    words = ["--commands", "init", "--hosts", "home that is not there", "24 descriptors"]
    assert row("hosts.py", *words) == ["24 descriptors", *2 * ["1 of 1 commands"], "yes"]


@pytest.mark.usefixtures("command")
def test_command_that_fails_is_told_and_a_host_that_cannot_be_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = importlib.import_module("hosts")
    told = hosts.mistake(hosts.Host("any"), tmp_path, ["info", "none.safetensors"])
    assert told.startswith("info ended with 2: error: none.safetensors")
    assert hosts.show(hosts.Host("far away", cannot=lambda: "no ship"), tmp_path, ["info"])
    row = "| far away | not run | 1 of 1 commands | not run: no ship |\n"
    assert capsys.readouterr().out == row
