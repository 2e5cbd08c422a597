"""The YAML files of `configs/`: they load, and they explain themselves."""

import re
from pathlib import Path

import pytest

from fast_style.config import load_config

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def keys_without_comment(text: str) -> list[str]:
    """Settings that no comment explains: on their line, above them, or beside their section's name.

    A comment above the first of several keys is for the others too, up to the next empty line.
    Paths and the seed say themselves what they are.
    """
    missing = []
    explained, section_explained = False, False
    for line in text.splitlines():
        content, _, comment = line.partition("#")
        if re.match(r"\s*(seed:|\w+: \.\./)", content):
            continue
        if not content.strip():
            explained = bool(comment)
        elif content.startswith(" "):
            if not (explained or comment or section_explained):
                missing.append(content.strip())
        else:
            opens_a_section = content.rstrip().endswith(":")
            section_explained = opens_a_section and bool(explained or comment)
            if not (opens_a_section or explained or comment):
                missing.append(content.strip())
    return missing


def test_there_are_configs() -> None:
    assert ROOT / "configs" / "quickstart.yaml" in CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_config_loads(path: Path) -> None:
    assert load_config(path).name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_setting_of_a_config_is_explained(path: Path) -> None:
    assert keys_without_comment(path.read_text(encoding="utf-8")) == []


def test_packaged_quickstart_is_the_same_file() -> None:
    ours = ROOT / "configs" / "quickstart.yaml"
    assert (ROOT / "fast_style" / "quickstart.yaml").read_bytes() == ours.read_bytes()


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("name: a\n", ["name: a"]),
        ("name: a  # any\n", []),
        ("# any\nname: a\n", []),
        ("seed: 1\nstyle:\n  image: ../a.jpg\n", []),
        ("train:\n  steps: 4\n", ["steps: 4"]),
        ("train:\n  # few\n  steps: 4\n", []),
        ("train:  # little\n  steps: 4\n", []),
        ("# about this file\n\nname: a\n", ["name: a"]),
    ],
)
def test_missing_comments_are_found(text: str, missing: list[str]) -> None:
    assert keys_without_comment(text) == missing
