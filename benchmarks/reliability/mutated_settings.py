"""Damaged YAML files of all kinds of settings: each gives settings or errors with their place.

    python benchmarks/reliability/mutated_settings.py
    python benchmarks/reliability/mutated_settings.py --count 2000 --seed 7 --workers 1

The kinds are the files of train, optimize and distill, and the judge's: all defaults spelled out,
and the files of `configs/`. They get wrong bytes, cuts, repeated pieces, and signs and words that
mean something in YAML. Reading may raise a `UserError` whose lines begin with the file and can be
printed, nothing else. What is accepted is written and read again: it must be the same settings.
"""

import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import figures
import program
from cases import Check, add_options, run_cases
from mutations import mutated_yaml

from fast_style.core.errors import UserError
from fast_style.settings.config import Config, DistillConfig
from fast_style.settings.gatys_config import GatysConfig
from fast_style.settings.reading import load
from fast_style.settings.structure import Root
from fast_style.settings.writing import to_yaml


@program.errors_in_one_line()
def main() -> int:
    """Damage, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__)
    add_options(parser)
    options = parser.parse_args()
    return figures.conclude(measure(options.count, options.seed, options.workers))


def measure(count: int, seed: int, num_workers: int) -> Iterator[figures.Figure]:
    """The figures of the files and of memory."""
    with tempfile.TemporaryDirectory() as folder:
        tally = run_cases(*(build, Path(folder), seed), count=count, num_workers=num_workers)
    yield from tally.counted(
        f"mutated YAML files, of {len(texts())}, seed {seed}: accepted, or refused in lines "
        "that name the file"
    )


def texts() -> list[tuple[type[Root], str]]:
    """The files that are damaged, each with the kind of settings it holds."""
    from settings_files import ALL_DEFAULTS, ALL_DISTILL_DEFAULTS, ALL_GATYS_DEFAULTS

    blends = "[{image: b.jpg, weight: 1}]", "{b.jpg: 1, ../c.jpg: 0.5}"  # today's and the old form
    gatys = [ALL_GATYS_DEFAULTS.replace("blend: []", f"blend: {blend}") for blend in blends]
    kinds: list[tuple[type[Root], str]] = [
        (Config, ALL_DEFAULTS),
        *((GatysConfig, text) for text in gatys),
        (DistillConfig, ALL_DISTILL_DEFAULTS),
    ]
    for path in sorted((figures.ROOT / "configs").glob("**/*.yaml")):
        text = path.read_text(encoding="utf-8")
        is_gatys = path.parent.name == "optimize" or path.stem == "judge"
        kind = GatysConfig if is_gatys else DistillConfig if "distill" in path.stem else Config
        kinds.append((kind, text))
    return kinds


def build(folder: Path, seed: int) -> Check:
    """The check of one case: its file is accepted or refused."""
    path = Path(tempfile.mkdtemp(dir=folder)) / "x.yaml"
    kinds = texts()

    def check(case: int) -> str:
        is_whole = case < len(kinds)
        chance = random.Random(f"{seed} {case}")
        root, text = kinds[case] if is_whole else chance.choice(kinds)
        path.write_bytes(text.encode() if is_whole else mutated_yaml(text, chance))
        try:
            settings = load(root, path)
        except UserError as error:
            refusal = str(error)
        else:
            path.write_text(to_yaml(settings), encoding="utf-8")
            assert load(root, path) == settings
            return "accepted"
        assert not is_whole, refusal
        lines = refusal.splitlines()
        assert all(line.startswith(str(path)) and line.isprintable() for line in lines), refusal
        return "refused"

    return check


if __name__ == "__main__":
    sys.exit(main())
