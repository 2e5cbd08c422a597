r"""Trains the variants of one question at equal cost, and lets the judge compare them.

    python benchmarks/ablations.py content --styles starry_night.jpg ink.jpg --photos photos/ \
        --held-out face.jpg night.jpg church.jpg hawk.jpg --images 1600 --output ablations/ \
        --judge-weights vgg16_conv5_3.pth --second-opinion squeezenet_v1_0.pth

The questions, their variants and all other settings are in ablations.yaml. Every variant sees the
same number of photos; where a variant costs more per photo, its entry says so. Runs that are there
already are not repeated, and an interrupted one resumes. The table has medians over the held-out
photos, then over styles and seeds. A sheet for each style and seed has a row for each held-out
photo and a column for each variant, in the order of the table, between the photo and L-BFGS.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import program
import yaml

from fast_style.cli.arguments import Parser, natural, positive
from fast_style.settings.config import load_config

HERE = Path(__file__).resolve().parent
NEVER = 1_000_000_000
QUIET = [f"log.{what}_every={NEVER}" for what in ("shares", "validate", "samples")]
MEASURES = (
    *("total", "content", "style", "second_opinion"),
    *("blots", "weave_2", "weave_4", "border", "shift", "zoom", "noise_gain"),
)


@program.errors_in_one_line()
def main() -> None:
    """Train what is missing, judge everything, and print the table."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    table = yaml.safe_load((HERE / "ablations.yaml").read_text())
    questions = table["questions"]
    parser.add_argument(
        "question", choices=list(questions), metavar="QUESTION", help=", ".join(questions)
    )
    parser.add_argument("--styles", nargs="+", type=program.existing_file, required=True)
    parser.add_argument(
        "--photos", type=program.existing_folder, required=True, help="folder to train on"
    )
    parser.add_argument("--held-out", nargs="+", type=program.existing_file, required=True)
    parser.add_argument(
        "--images", type=positive, required=True, help="photos that each variant sees"
    )
    parser.add_argument("--seeds", nargs="+", type=natural, default=[1])
    parser.add_argument("--variants", nargs="+", help="only these (default: all)")
    parser.add_argument("--judge-weights", type=program.file_or("imagenet_features"), required=True)
    parser.add_argument("--second-opinion", type=program.file_or("none"), required=True)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="folder for runs and reports; reports of before are replaced",
    )
    options = parser.parse_args()
    variants: dict[str, list[str]] = questions[options.question]
    names = options.variants or list(variants)
    program.require_names("--variants", names, variants)
    options.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for style in options.styles:
        for seed in options.seeds:
            models = {
                name: train(
                    f"{options.question}-{name}-{style.stem}-{seed}",
                    [*table["settings"], *variants[name]],
                    style,
                    seed,
                    options,
                )
                for name in names
            }
            judged = judge(f"{options.question}-{style.stem}-{seed}", models, style, options)
            for name, found in judged.items():
                results[name].append(found)
    print("\n".join(rows(results)))


def train(
    run: str, words: Sequence[str], style: Path, seed: int, options: argparse.Namespace
) -> Path:
    """The model of a run, trained unless it is there."""
    model = options.output.resolve() / "runs" / run / "model.safetensors"
    laptop = HERE.parent / "configs" / "laptop.yaml"
    own = [*words, f"name={run}", f"seed={seed}", f"style.image={style.resolve()}"]
    own += [f"data.photos={options.photos.resolve()}", *QUIET]
    batch_size = load_config(laptop, own).train.batch_size
    steps = max(1, options.images // batch_size)
    command = [sys.executable, "-m", "fast_style", "train", str(laptop), *own]
    command.append(f"train.steps={steps}")
    if not is_finished(model.parent, steps):
        subprocess.run(command, check=True, cwd=options.output)
    return model


def is_finished(folder: Path, steps: int) -> bool:
    """Whether a run has its last checkpoint."""
    return (folder / "checkpoints" / f"step-{steps:08d}.safetensors").is_file()


def judge(
    name: str, models: dict[str, Path], style: Path, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """The judge's medians for each variant; its report stays in the output folder."""
    report = options.output / f"judge-{name}"
    command = [sys.executable, "-m", "fast_style", "evaluate", *map(str, models.values())]
    command += ["--judge", "--photos", *map(str, options.held_out), "--style", str(style)]
    command += ["--weights", options.judge_weights, "--second-opinion", options.second_opinion]
    command += ["--judge-cache", str(options.output / "judge_cache"), "--output", str(report)]
    command += ["--overwrite"]  # of models that were trained again
    subprocess.run(command, check=True)
    (found,) = json.loads((report / "judge.json").read_text())["summary"]["styles"].values()
    return dict(zip(models, found["models"].values(), strict=True))


def rows(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A Markdown table: one row for each variant."""
    lines = [
        f"| | equals | {' | '.join(MEASURES)} |",
        "| :-- " + "| --: " * (len(MEASURES) + 1) + "|",
    ]
    for name, found in results.items():
        equals = [NEVER if one["equals"] is None else one["equals"] for one in found]
        cells = [f"{statistics.median(equals):g}"]
        for measure in MEASURES:
            values = [one[measure] for one in found if one.get(measure) is not None]
            cells.append(f"{statistics.median(values):.3g}" if values else "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
