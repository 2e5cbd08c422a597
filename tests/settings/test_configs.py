"""The YAML files of `configs/` and of the demo: they load, and they explain themselves."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from fast_style.settings.config import load_config, load_distill_config
from fast_style.settings.gatys_config import load_gatys_config
from fast_style.settings.layers import deepest_layer, layer_names

ROOT = Path(__file__).resolve().parents[2]
DISTILL_CONFIG = ROOT / "configs" / "distill.yaml"
DEMO_CONFIG = ROOT / "fast_style" / "demo" / "quickstart.yaml"
JUDGE_CONFIG = ROOT / "configs" / "judge.yaml"
OF_OTHER_KINDS = {DISTILL_CONFIG, JUDGE_CONFIG}
STYLES = (ROOT / "configs" / "styles").glob("*.yaml")
CONFIGS = sorted({*(ROOT / "configs").glob("*.yaml"), *STYLES, DEMO_CONFIG} - OF_OTHER_KINDS)
GATYS_CONFIGS = [JUDGE_CONFIG, *sorted((ROOT / "configs" / "optimize").glob("*.yaml"))]

# Those that have another text's constants; tests/optimizing/test_conversions.py checks the numbers.
OF_OTHER_TEXTS = [
    ROOT / "configs" / "optimize" / f"{name}.yaml"
    for name in ("chinese_painting", "gatys_block5", "keras_lbfgs", "keras_neural_style")
]


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


def words_for_shallow_weights(path: Path) -> list[str]:
    """The overrides that a file names in its comments, for weights that reach only conv3_4."""
    lines = path.read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("#   'loss.")]
    return shlex.split(line.removeprefix("#"))


def test_there_are_configs() -> None:
    assert ROOT / "configs" / "laptop.yaml" in CONFIGS
    assert DEMO_CONFIG in CONFIGS
    assert set(OF_OTHER_TEXTS) <= set(GATYS_CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_config_loads(path: Path) -> None:
    assert load_config(path).name == path.stem


@pytest.mark.parametrize("path", GATYS_CONFIGS, ids=lambda path: path.name)
def test_config_of_an_optimization_loads(path: Path) -> None:
    load_gatys_config(path)


def test_config_of_a_distillation_loads() -> None:
    assert load_distill_config(DISTILL_CONFIG).name == "compact"


@pytest.mark.parametrize("path", OF_OTHER_TEXTS, ids=lambda path: path.name)
def test_weights_of_other_texts_lie_in_the_data_folder(path: Path) -> None:
    assert Path(load_gatys_config(path).loss_network.weights).resolve().parent == ROOT / "data"


@pytest.mark.parametrize("path", OF_OTHER_TEXTS, ids=lambda path: path.name)
def test_words_for_shallow_weights_leave_only_shallow_layers(path: Path) -> None:
    words = words_for_shallow_weights(path)
    weights = ["loss_network.weights=vgg19_conv3_4.pth", "loss_network.preprocessing=caffe"]
    whole, reduced = load_gatys_config(path), load_gatys_config(path, [*weights, *words])
    layers = [*reduced.loss.content_layers, *reduced.loss.style_layers]
    order = layer_names("vgg19")
    assert order.index(deepest_layer(layers, "vgg19")) <= order.index("relu3_4")
    # What is left weighs what it did.
    assert reduced.loss.style_layers.items() < whole.loss.style_layers.items()


@pytest.mark.parametrize(
    "path", [*CONFIGS, *GATYS_CONFIGS, DISTILL_CONFIG], ids=lambda path: path.name
)
def test_every_setting_of_a_config_is_explained(path: Path) -> None:
    assert keys_without_comment(path.read_text(encoding="utf-8")) == []


ABLATIONS = yaml.safe_load((ROOT / "benchmarks" / "ablations.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("question", ABLATIONS["questions"])
def test_variants_of_an_ablation_are_valid_and_differ(question: str) -> None:
    laptop = ROOT / "configs" / "laptop.yaml"
    found = [
        load_config(laptop, [*ABLATIONS["settings"], *words])
        for words in ABLATIONS["questions"][question].values()
    ]
    assert len(found) > 1
    assert all(one != other for index, one in enumerate(found) for other in found[:index])


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
