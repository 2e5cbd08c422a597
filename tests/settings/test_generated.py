"""Claims about `generated`: the files of `configs/` that are made from the settings."""

import subprocess
import sys
from pathlib import Path

import pytest

from fast_style.settings.config import load_config
from fast_style.settings.generated import generated_files

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("path", generated_files())
def test_the_file_in_the_repository_is_current(path):
    # python -m fast_style.settings.generated configs
    assert (CONFIGS / path).read_text(encoding="utf-8") == generated_files()[path]


def test_the_documented_command_writes_all_generated_files(tmp_path):
    (tmp_path / "optimize").mkdir()
    command = [sys.executable, "-m", "fast_style.settings.generated", str(tmp_path)]
    subprocess.run(command, check=True)
    written = {
        str(path.relative_to(tmp_path)): path.read_text(encoding="utf-8")
        for path in tmp_path.rglob("*.*")
    }
    assert written == generated_files()
    assert load_config(tmp_path / "laptop.yaml").train.steps == 900
