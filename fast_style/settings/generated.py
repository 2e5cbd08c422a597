"""The files of ``configs/`` that are made from the package: JSON Schemas and two YAML files.

``python -m fast_style.settings.generated configs`` rewrites them; run it after changing a setting.
"""

import sys
from pathlib import Path

from fast_style.settings.config import Config, DistillConfig
from fast_style.settings.gatys_config import GatysConfig
from fast_style.settings.help import json_schema
from fast_style.settings.starting_file import laptop_file
from fast_style.settings.structure import Root

ROOTS: dict[str, type[Root]] = {
    "schema.json": Config,
    "optimize/schema.json": GatysConfig,
    "distill.schema.json": DistillConfig,
}
"""Each kind of file, by the path of its schema in ``configs/``."""

JUDGE_FILE = Path(__file__).parent.parent / "losses" / "judge.yaml"
"""The file with which `fast-style evaluate --judge` measures; ``configs/`` has a copy to read."""


def generated_files() -> dict[str, str]:
    """The text of every generated file, by its path in ``configs/``."""
    schemas = {path: json_schema(root) for path, root in ROOTS.items()}
    judge = JUDGE_FILE.read_text(encoding="utf-8")
    return schemas | {"laptop.yaml": laptop_file(), "judge.yaml": judge}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for path, text in generated_files().items():
        (folder / path).write_text(text, encoding="utf-8")
