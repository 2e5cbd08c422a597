"""Claims about `help`: every setting is explained, and the schema knows it."""

import json
import math
import re

import pytest
from settings_files import DISTILL_LEAST, GATYS_LEAST, LEAST, Letter, complaint, read

from fast_style.settings.config import Config, DistillConfig
from fast_style.settings.gatys_config import GatysConfig
from fast_style.settings.generated import ROOTS
from fast_style.settings.help import (
    allowed_values,
    commented_yaml,
    default_of,
    help_text,
    json_schema,
)
from fast_style.settings.structure import Root, iterate_fields
from fast_style.settings.writing import flatten, to_dict


def test_help_of_any_root_is_made_from_its_fields():
    assert (
        help_text(Letter)
        == """\
Every setting as key: default  # allowed values, and its meaning.

text: (required)  # text
    What it says.

paper: white  # white | lined | path
    What to write on, or a picture of it.

copies: 1  # at least 1
    How many are written.

pen: What to write with.

pen.color: blue  # small letters
    The ink; a word.

pen.width: 0.5  # above 0
    Millimeters."""
    )
    assert allowed_values(Letter, "pen.color") == "small letters"


def test_commented_yaml_holds_what_was_chosen_with_its_meaning(tmp_path):
    text = commented_yaml(Letter, ["text", "pen.color", "pen.width"], {"text": "a: b"})
    assert (
        text
        == """\
# What it says.
text: 'a: b'

pen:
  # The ink; a word.
  color: blue
  # Millimeters.
  width: 0.5
"""
    )
    assert read(Letter, tmp_path, text) == Letter(text="a: b")


def alternatives(item):
    """What a setting may be, unions opened."""
    branches = item.get("anyOf", item.get("oneOf"))
    return [item] if branches is None else [x for branch in branches for x in alternatives(branch)]


def numeric_settings(root: type[Root]):
    """(key, edge, a value just outside or None) for every range, from the JSON Schema."""
    schema = json.loads(json_schema(root))

    def visit(properties, prefix):
        for name, item in properties.items():
            if "$ref" in item:
                inner = schema["$defs"][item["$ref"].rpartition("/")[2]]
                yield from visit(inner["properties"], f"{prefix}{name}.")
                continue
            for branch in alternatives(item):
                if branch.get("type") not in ("integer", "number"):
                    continue
                step = 1 if branch["type"] == "integer" else 1e-9
                for bound, sign in (("minimum", -1), ("maximum", 1)):
                    if bound in branch:
                        edge = branch[bound]
                        outside = edge + sign * step * max(1, abs(edge) if step < 1 else 1)
                        yield f"{prefix}{name}", edge, outside
                if "exclusiveMinimum" in branch:
                    edge = branch["exclusiveMinimum"]
                    yield f"{prefix}{name}", math.nextafter(edge, 1), edge
                if "exclusiveMaximum" in branch:
                    edge = branch["exclusiveMaximum"]
                    yield f"{prefix}{name}", math.nextafter(edge, 0), edge

    yield from visit(schema["properties"], "")


RANGES = [
    (root, text, *setting)
    for root, text in (
        (Config, f"{LEAST}train: {{warmup_steps: 0}}\n"),  # goes with any number of steps
        (GatysConfig, f"{GATYS_LEAST}optimize: {{size: 8192}}\n"),  # enough for eight scales
        (DistillConfig, f"{DISTILL_LEAST}train: {{warmup_steps: 0}}\n"),
    )
    for setting in numeric_settings(root)
]


@pytest.mark.parametrize(("root", "text", "key", "edge", "outside"), RANGES)
def test_ranges_hold_at_their_edges(tmp_path, root, text, key, edge, outside):
    config = read(root, tmp_path, text, f"{key}={edge!r}")
    assert flatten(to_dict(config))[key] == edge
    assert complaint(root, tmp_path, text, f"{key}={outside!r}").startswith(
        f"'{key}={outside!r}' on the command line: {key}: must be "
    )


def test_every_number_but_the_layers_weights_and_crop_scale_has_a_least_value():
    ranged = {key for key, _, _ in numeric_settings(Config)}
    numbers = {
        key
        for key, info in iterate_fields(Config)
        if re.search(r"\b(int|float)\b", str(info.annotation)) and "layers" not in key
    }
    assert numbers - ranged == {"data.crop_scale"}


@pytest.mark.parametrize(
    ("root", "key"),
    [(root, key) for root in ROOTS.values() for key, _ in iterate_fields(root)],
)
def test_every_setting_has_a_description_and_says_what_it_may_be(root, key):
    info = dict(iterate_fields(root))[key]
    assert len(info.description) > 10
    assert info.description.strip().endswith(".")
    assert allowed_values(root, key)


@pytest.mark.parametrize(
    ("key", "default", "allowed"),
    [
        ("name", "(required)", "letters, digits, '.', '_' and '-' (at most 100), a letter or digit "
         "first"),
        ("style.image", "(required)", "path"),
        ("style.size", "256", "16 to 8192"),
        ("data.validation_photos", "(unset)", "path"),
        ("data.crop_scale", "[0.5, 1.0]", "two numbers, each above 0, at most 1"),
        ("data.flip", "true", "true | false"),
        ("data.workers", "auto", "0 to 256 | auto"),
        ("data.cache", "none", "none | disk"),
        ("data.cache_side", "(unset)", "16 to 32768"),
        ("data.cache_folder", "(unset)", "path"),
        (
            "loss_network.weights",
            "imagenet_features",
            "imagenet | imagenet_features | compact | random | path",
        ),
        ("loss_network.padding", "(unset)", "zeros | reflect"),
        ("loss.content_layers", "{relu3_3: 1.0}", "{layer: weight, ...}, each weight at least 0"),
        ("loss.style_weight", "1.5", "at least 0"),
        ("train.learning_rate", "0.001", "above 0, at most 10"),
        ("train.precision", "auto", "auto | fp32 | bf16 | fp16"),
        ("train.threads", "(unset)", "1 to 1024"),
        ("log.every", "50", "at least 1"),
    ],
)  # fmt: skip
def test_help_says_default_and_allowed_values(key, default, allowed):
    assert default_of(dict(iterate_fields(Config))[key]) == default
    assert allowed_values(Config, key) == allowed
    assert f"\n{key}: {default}  # {allowed}\n" in help_text(Config)


@pytest.mark.parametrize(
    ("key", "default", "allowed"),
    [
        ("style.blend", "[]", "a list of {image: path, weight: above 0}"),
        ("style.size", "(unset)", "16 to 8192 | [width, height], each 16 to 8192"),
        ("optimize.size", "512", "16 to 8192 | [width, height], each 16 to 8192"),
        ("optimize.init", "content", "content | style | uniform_noise | normal_noise | path"),
        ("optimize.bounds", "box", "box | clip | none"),
        ("optimize.tolerance", "0.0", "at least 0, below 1"),
        ("optimize.restart_every", "(unset)", "at least 2"),
    ],
)
def test_help_says_what_an_optimization_takes(key, default, allowed):
    assert f"\n{key}: {default}  # {allowed}\n" in help_text(GatysConfig)


@pytest.mark.parametrize(
    ("key", "default", "allowed"),
    [
        ("data.paintings", "(required)", "path"),
        ("student.widths", "[24, 64, 96, 160]", "a list of whole numbers, each 1 to 4096"),
        ("student.deepest", "relu4_3", "layer"),
        (
            "teacher.weights",
            "imagenet_features",
            "imagenet | imagenet_features | compact | random | path",
        ),
        ("train.painters", "4", "0 to 64"),
    ],
)
def test_help_says_what_a_distillation_takes(key, default, allowed):
    assert f"\n{key}: {default}  # {allowed}\n" in help_text(DistillConfig)


def test_help_has_every_setting_and_section_once():
    lines = help_text(Config).splitlines()
    for key, _ in iterate_fields(Config):
        assert sum(line.startswith(f"{key}: ") for line in lines) == 1
    assert lines.count("train: How the network is trained.") == 1
    at = lines.index("train.precision: auto  # auto | fp32 | bf16 | fp16")
    assert lines[at + 1].startswith("    fp32, bf16 (autocast), or auto: ")
    assert lines[at + 2].endswith("convolutions round to TF32.")
    assert lines[at + 3] == ""


def test_help_has_every_setting_and_section_of_an_optimization_once():
    lines = help_text(GatysConfig).splitlines()
    for key, _ in iterate_fields(GatysConfig):
        assert sum(line.startswith(f"{key}: ") for line in lines) == 1
    assert lines.count("optimize: How the picture is optimized.") == 1
    assert not any(line.startswith("train") for line in lines)


def test_the_default_of_a_section_is_its_settings():
    assert default_of(Config.model_fields["model"]) == (
        "{width: 32, residual_blocks: 5, upsampling: resize, antialiased: true, tanh_scale: 150.0}"
    )


@pytest.mark.parametrize(
    ("root", "required"),
    [
        (Config, ["name", "style", "data"]),
        (GatysConfig, ["style"]),
        (DistillConfig, ["name", "data"]),
    ],
)
def test_the_schema_knows_every_setting_and_nothing_else(root, required):
    schema = json.loads(json_schema(root))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == required
    found = []
    for name, item in schema["properties"].items():
        if "$ref" not in item:
            found.append(name)
            continue
        section = schema["$defs"][item["$ref"].rpartition("/")[2]]
        assert section["additionalProperties"] is False
        found += [f"{name}.{inner}" for inner in section["properties"]]
        assert all(inner["description"] for inner in section["properties"].values())
    assert found == [key for key, _ in iterate_fields(root)]


@pytest.mark.parametrize("root", [Config, GatysConfig])
def test_the_schema_knows_the_names_of_layers(root):
    schema = json.loads(json_schema(root))
    (loss,) = (part for name, part in schema["$defs"].items() if name.endswith("LossConfig"))
    loss = loss["properties"]
    pattern = re.compile(loss["style_layers"]["propertyNames"]["pattern"])
    assert all(pattern.search(layer) for layer in loss["style_layers"]["default"])
