"""Claims about `config`: what it accepts, and what it says about what it does not."""

import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fast_style.core.errors import UserError
from fast_style.settings import config as config_module
from fast_style.settings.config import (
    INIT_WORDS,
    ROOTS,
    Config,
    DistillConfig,
    GatysConfig,
    load_config,
    load_distill_config,
    load_gatys_config,
    parse_config,
    starting_file,
)
from fast_style.settings.settings import (
    Root,
    allowed_values,
    changed_settings,
    default_of,
    flatten,
    help_text,
    iterate_fields,
    json_schema,
    to_dict,
    to_yaml,
)

ROOT = Path(__file__).resolve().parents[2]

# What a file must say; a tested setting stands from line 4 on.
LEAST = """\
name: a
style: {image: s.jpg}
data: {photos: p}
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(folder: Path, text: str | bytes, *overrides: str) -> Config:
    return load_config(write(folder, text), overrides)


def complaint(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The message that a file gets, with its path written as FILE."""
    with pytest.raises(UserError) as caught:
        load(folder, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(folder / "x.yaml"), "FILE")


@pytest.fixture
def least(tmp_path) -> Config:
    return load(tmp_path, LEAST)


# --- Known answers ------------------------------------------------------------------------------

ALL_DEFAULTS = """\
seed: 1
style: {image: s.jpg, size: 256}
data:
  photos: p
  validation_photos: null
  validation_count: 16
  crop_size: 256
  crop_scale: [0.5, 1]
  flip: true
  workers: auto
  cache: none
  cache_side: null
  cache_folder: null
  max_unreadable_share: 0.05
  grown_crop_size: null
  grow_after: 0.7
model: {width: 32, residual_blocks: 5, upsampling: resize, tanh_scale: 150.0}
loss_network:
  {architecture: vgg19, weights: imagenet, pooling: max, padding: null, preprocessing: null}
loss:
  normalization: relative
  content_layers: {relu3_3: 1.0}
  style_layers: {relu1_2: 1.0, block2_conv2: 1, relu3_3: 1.0, relu3_4: 1.0}
  content_weight: 1.0
  style_weight: 5
  tv_weight: 1e0
  tv_exponent: 2
train:
  {steps: 40000, batch_size: 4, learning_rate: 0.001, schedule: cosine, warmup_steps: 100,
   precision: auto, compile: false, cuda_graph: true, deterministic: false, threads: null,
   init_from: null}
log:
  {every: 50, shares_every: 500, validate_every: 500, samples_every: 500, samples: 6,
   checkpoint_every: 1000, keep_checkpoints: 3}
name: a
"""


def test_a_file_that_spells_all_defaults_equals_the_defaults(tmp_path):
    spelled = load(tmp_path, ALL_DEFAULTS)
    assert spelled == load(tmp_path, LEAST)
    written = flatten(yaml.safe_load(ALL_DEFAULTS))
    layers = {key for key in written if "_layers." in key}
    assert {key for key, _ in iterate_fields(Config)} == (written.keys() - layers) | {
        "loss.content_layers",
        "loss.style_layers",
    }


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("train: {learning_rate: 1e-3}", "train.learning_rate", 0.001),
        ("loss: {style_weight: 1e5}", "loss.style_weight", 100_000.0),
        ("loss: {style_weight: 1.0e10}", "loss.style_weight", 1e10),
        ("loss: {style_weight: .5}", "loss.style_weight", 0.5),
        ("loss: {style_weight: +3}", "loss.style_weight", 3.0),
        ("seed: 010", "seed", 10),  # 8 in YAML 1.1
        ("seed: 0x1F", "seed", 31),
        ("seed: 0o17", "seed", 15),
        ("train: {threads: null}", "train.threads", None),
        ("train: {threads: ~}", "train.threads", None),
        ("train: {threads: }", "train.threads", None),
        ("data: {photos: p, flip: False}", "data.flip", False),
        ("data: {photos: p, workers: 0}", "data.workers", 0),
        ("data: {photos: p, workers: 'auto'}", "data.workers", "auto"),
        ("data: {photos: p, crop_scale: [1, 1]}", "data.crop_scale", [1.0, 1.0]),
        ("name: yes", "name", "yes"),
        ("name: on", "name", "on"),
        ("name: 2020-01-01", "name", "2020-01-01"),
        ("name: 1_000", "name", "1_000"),  # 1000 in YAML 1.1
        ("name: '010'", "name", "010"),
        ("loss: {style_layers: {}}", "loss.style_layers", {}),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(tmp_path, line, key, value):
    section = line.split(":")[0]
    kept = "".join(row + "\n" for row in LEAST.splitlines() if not row.startswith(f"{section}:"))
    found = to_dict(load(tmp_path, f"{kept}{line}\n"))
    for part in key.split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_an_empty_section_means_its_defaults(tmp_path, least):
    assert load(tmp_path, f"{LEAST}train:\n#  steps: 3\nlog: ~\n") == least


def test_aliases_stand_for_what_they_name(tmp_path):
    text = f"{LEAST}loss: {{content_layers: &l {{relu2_2: 2}}, style_layers: *l}}\n"
    loss = load(tmp_path, text).loss
    assert loss.content_layers == loss.style_layers == {"relu2_2": 2.0}


def test_keras_names_of_layers_become_ours(tmp_path):
    text = f"{LEAST}loss: {{content_layers: {{block4_conv3: 2, conv1_1: 1}}}}\n"
    assert load(tmp_path, text).loss.content_layers == {"relu4_3": 2.0, "conv1_1": 1.0}


# --- Mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # C1: unknown keys
        (
            "loss:\n  styel_weight: 3",
            "FILE:5: unknown key 'loss.styel_weight'; did you mean 'loss.style_weight'?",
        ),
        ("trian: {steps: 3}", "FILE:4: unknown key 'trian'; did you mean 'train'?"),
        ("batch_size: 3", "FILE:4: unknown key 'batch_size'; did you mean 'train.batch_size'?"),
        (
            "model: {zzz: 3}",
            "FILE:4: unknown key 'model.zzz'; valid keys here: width, residual_blocks, "
            "upsampling, tanh_scale",
        ),
        (
            "model: {int: 3}",
            "FILE:4: unknown key 'model.int'; valid keys here: width, residual_blocks, "
            "upsampling, tanh_scale",
        ),
        (
            '? "a\\nb\\e[2J"\n: 3',
            "FILE:4: unknown key 'a\\nb\\x1b[2J'; valid keys here: name, seed, style, data, model, "
            "loss_network, loss, train, log",
        ),
        (
            "<<: {seed: 3}",
            "FILE:4: unknown key '<<'; valid keys here: name, seed, style, data, model, "
            "loss_network, loss, train, log",
        ),
        # C2: types
        ("train: {steps: four}", "FILE:4: train.steps: must be an integer, got 'four'"),
        ("train: {steps: '4'}", "FILE:4: train.steps: must be an integer, got '4'"),
        ("train: {steps: [4]}", "FILE:4: train.steps: must be an integer, got [4]"),
        ("train: {steps: }", "FILE:4: train.steps: must be an integer, got nothing"),
        ("train: {steps: true}", "FILE:4: train.steps: must be an integer, got true"),
        ("train: {steps: 1.5}", "FILE:4: train.steps: must be an integer, got 1.5"),
        ("train: {steps: 0x}", "FILE:4: train.steps: must be an integer, got '0x'"),
        (
            "train: {steps: 1e5}",
            "FILE:4: train.steps: must be an integer (write 100000), got 100000.0",
        ),
        ("loss: {tv_weight: false}", "FILE:4: loss.tv_weight: must be a number, got false"),
        ("loss: {tv_weight: {}}", "FILE:4: loss.tv_weight: must be a number, got {}"),
        ("loss: 3", "FILE:4: loss: must be a section of key: value lines, got 3"),
        ("loss: [3]", "FILE:4: loss: must be a section of key: value lines, got [3]"),
        (
            "loss: {style_layers: relu1_1}",
            "FILE:4: loss.style_layers: must be a section of key: value lines, got 'relu1_1'",
        ),
        (
            "loss: {style_layers: }",
            "FILE:4: loss.style_layers: must be a section of key: value lines, got nothing",
        ),
        (
            "train: {init_from: 12}",
            "FILE:4: train.init_from: must be a path (put quotes around it), got 12",
        ),
        ("train: {init_from: [a]}", "FILE:4: train.init_from: must be a path, got ['a']"),
        ("train: {init_from: ''}", "FILE:4: train.init_from: must be a path, got ''"),
        (
            'train: {init_from: "a\\0b"}',
            "FILE:4: train.init_from: must be a path, got 'a\\x00b'",
        ),
        (
            'train: {init_from: "\\ud800"}',
            "FILE:4: train.init_from: no file can be called '\\ud800'",
        ),
        (
            "loss_network: {weights: 12}",
            "FILE:4: loss_network.weights: must be a path (put quotes around it), got 12",
        ),
        ("model: {width: " + "9" * 41 + "}", f"FILE:4: number too long: {'9' * 20}..."),
        # choices
        ("train: {precision: fp8}",
         "FILE:4: train.precision: must be one of auto, fp32, bf16, fp16, got 'fp8'"),
        ("train: {precision: }",
         "FILE:4: train.precision: must be one of auto, fp32, bf16, fp16, got nothing"),
        ("loss_network: {padding: same}",
         "FILE:4: loss_network.padding: must be one of zeros, reflect, got 'same'"),
        # C4: ranges and finite numbers
        ("train: {steps: 0}", "FILE:4: train.steps: must be at least 1, got 0"),
        ("train: {steps: -5}", "FILE:4: train.steps: must be at least 1, got -5"),
        ("train: {learning_rate: 0}", "FILE:4: train.learning_rate: must be above 0, got 0"),
        ("train: {learning_rate: 11}", "FILE:4: train.learning_rate: must be at most 10, got 11"),
        ("loss: {tv_weight: .nan}", "FILE:4: loss.tv_weight: must be a finite number, got nan"),
        ("loss: {tv_weight: .inf}", "FILE:4: loss.tv_weight: must be a finite number, got inf"),
        ("loss: {tv_weight: -.INF}", "FILE:4: loss.tv_weight: must be a finite number, got -inf"),
        ("loss: {tv_weight: 1e400}", "FILE:4: number too large: 1e400"),
        ("loss: {style_layers: {relu1_1: -1}}",
         "FILE:4: loss.style_layers.relu1_1: must be at least 0, got -1"),
        ("loss: {style_layers: {relu1_1: x}}",
         "FILE:4: loss.style_layers.relu1_1: must be a number, got 'x'"),
        ("loss:\n  style_layers:\n    relu1_1: 1\n    int: 1",
         "FILE:7: loss.style_layers.int: 'int' is not a VGG layer; say for example relu3_3, "
         "conv3_3 or block3_conv3"),
        ("loss: {style_layers: {relu1_1: 1, block1_conv1: 1}}",
         "FILE:4: loss.style_layers: relu1_1 is given twice, once under another name"),
        # C6: duplicate keys
        ("seed: 3\nlog: {}\nseed: 4",
         "FILE:6: key 'seed' is given twice (first at line 4)"),
        ("log:\n  every: 3\n  every: 3",
         "FILE:6: key 'log.every' is given twice (first at line 5)"),
        # C7: tags
        ("seed: !!python/object/apply:os.system [ls]",
         "FILE:4: tags are not allowed, got 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("seed: !foo 3", "FILE:4: tags are not allowed, got '!foo'"),
        ("? !!str seed\n: 3", "FILE:4: tags are not allowed, got 'tag:yaml.org,2002:str'"),
        # C10: not a file of settings
        ("seed: [", "FILE:5: not valid YAML: expected the node content, but found "
         "'<stream end>'"),
        ("log:\n\tevery: 3", "FILE:5: not valid YAML: found character '\\t' that cannot start any "
         "token; indent with spaces"),
        ("---\nseed: 3",
         "FILE:4: a second document begins here; one file holds one configuration"),
        ("seed: *nothing", "FILE:4: not valid YAML: found undefined alias 'nothing'"),
        ("seed: &a [*a]", "FILE:4: nested deeper than 32 levels once aliases are expanded"),
        ("? [a]\n: 3", "FILE:4: a key must be a plain word"),
        ("# \0", "FILE:4: not valid YAML: the character '\\x00' is not allowed"),
        # C11: paths
        ("train: {init_from: 'https://x.org/a'}",
         "FILE:4: train.init_from: 'https://x.org/a' is a URL; download it first (data/README.md "
         "has the commands) and give the path of the file"),
        ("loss_network: {weights: 's3://x/a'}",
         "FILE:4: loss_network.weights: 's3://x/a' is a URL; download it first (data/README.md has "
         "the commands) and give the path of the file"),
        ("train: {init_from: ~no-such-user/a}",
         "FILE:4: train.init_from: the home folder in '~no-such-user/a' is not known; write it "
         "out"),
        # between settings
        ("train: {steps: 100}",
         "FILE:4: train.warmup_steps: must be below train.steps (100), got 100"),
        ("train:\n  steps: 100\n  warmup_steps: 200",
         "FILE:6: train.warmup_steps: must be below train.steps (100), got 200"),
        ("loss: {content_weight: 0, style_weight: 0, tv_weight: 0}",
         "FILE:4: loss.content_weight: all three weights are 0, so there is nothing to learn"),
        ("loss_network: {weights: imagenet_features}",
         "FILE:4: loss_network.weights: imagenet_features exists for vgg16 only"),
        ("loss_network:\n  weights: random\n  preprocessing: caffe",
         "FILE:6: loss_network.preprocessing: weights random have their own; leave it out"),
        ("loss: {style_layers: {relu3_4: 1, conv4_4: 1}}\nloss_network: {architecture: vgg16}",
         "FILE:4: loss.style_layers: vgg16 has no conv4_4; the last of its block 4 is conv4_3 "
         "(loss_network.architecture)\n"
         "FILE:4: loss.style_layers: vgg16 has no relu3_4; the last of its block 3 is relu3_3 "
         "(loss_network.architecture)"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_key_rule_and_value(tmp_path, lines, message):
    assert complaint(tmp_path, f"{LEAST}{lines}\n") == message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # C5: what YAML reads as a number is not text
        ("010", "FILE:3: name: must be text (put quotes around it), got 10"),
        ("1e5", "FILE:3: name: must be text (put quotes around it), got 100000.0"),
        ("true", "FILE:3: name: must be text (put quotes around it), got true"),
        ("", "FILE:3: name: must be text, got nothing"),
        ("''", "FILE:3: name: must be letters, digits, '.', '_' and '-' (at most 100), a letter or "
         "digit first, got ''"),
        ("12:30", "FILE:3: name: must be letters, digits, '.', '_' and '-' (at most 100), a letter "
         "or digit first, got '12:30'"),
        ("../a", "FILE:3: name: must be letters, digits, '.', '_' and '-' (at most 100), a letter "
         "or digit first, got '../a'"),
        ('"a\\n"', "FILE:3: name: must be letters, digits, '.', '_' and '-' (at most 100), a "
         "letter or digit first, got 'a\\n'"),
        ("a" * 101, "FILE:3: name: must be letters, digits, '.', '_' and '-' (at most 100), a "
         f"letter or digit first, got '{'a' * 96}..."),
    ],
)  # fmt: skip
def test_a_name_is_text_that_can_name_a_folder(tmp_path, lines, message):
    text = f"style: {{image: s.jpg}}\ndata: {{photos: p}}\nname: {lines}\n"
    assert complaint(tmp_path, text) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("workers: many", "data.workers: must be one of 0 to 256, auto, got 'many'"),
        ("workers: 257", "data.workers: must be one of 0 to 256, auto, got 257"),
        ("workers: true", "data.workers: must be one of 0 to 256, auto, got true"),
        ("cache: device", "data.cache: must be one of none, disk, got 'device'"),
        ("flip: yes", "data.flip: must be true or false, got 'yes'"),
        ("flip: 1", "data.flip: must be true or false, got 1"),
        ("crop_scale: 0.5", "data.crop_scale: must be a list of two numbers, got 0.5"),
        ("crop_scale: [1, 0.5]", "data.crop_scale: must be [least, most], got [1.0, 0.5]"),
        ("crop_scale: [0.5, 2]", "data.crop_scale[1]: must be at most 1, got 2"),
        ("crop_scale: [0, x]", "data.crop_scale[0]: must be above 0, got 0\n"
         "FILE:3: data.crop_scale[1]: must be a number, got 'x'"),
        ("crop_scale: [0.5]", "data.crop_scale[1]: must be a list of two numbers, got [0.5]"),
        ("crop_scale: [0.1, 0.2, 0.3]",
         "data.crop_scale: must be a list of two numbers, got [0.1, 0.2, 0.3]"),
    ],
)  # fmt: skip
def test_a_mistake_about_the_data_is_told(tmp_path, value, message):
    text = f"name: a\nstyle: {{image: s.jpg}}\ndata: {{photos: p, {value}}}\n"
    assert complaint(tmp_path, text) == f"FILE:3: {message}"


def test_missing_keys_are_told_with_their_meaning(tmp_path):
    assert complaint(tmp_path, "seed: 3\nstyle: {size: 64}\n") == (
        "FILE: missing key 'data.photos': A folder of photos, flat or nested\n"
        "FILE: missing key 'name': The run's name: it trains in runs/<name> of the working "
        "directory\n"
        "FILE:2: missing key 'style.image': The style picture"
    )


def test_all_mistakes_of_fields_are_told_at_once_in_the_order_of_the_file(tmp_path):
    text = """\
train:
  steps: -1
  warmup_steps: many
name: a
styel: {}
loss: {content_weight: 0, style_weight: 0, tv_weight: 0}
style:
  image: http://x/y
  size: 1
data: {photos: 3}
"""
    assert complaint(tmp_path, text, "log.every=0", "seed=x") == (
        "FILE:2: train.steps: must be at least 1, got -1\n"
        "FILE:3: train.warmup_steps: must be an integer, got 'many'\n"
        "FILE:5: unknown key 'styel'; did you mean 'style'?\n"
        "FILE:8: style.image: 'http://x/y' is a URL; download it first (data/README.md has the "
        "commands) and give the path of the file\n"
        "FILE:9: style.size: must be at least 16, got 1\n"
        "FILE:10: data.photos: must be a path (put quotes around it), got 3\n"
        "'log.every=0' on the command line: log.every: must be at least 1, got 0\n"
        "'seed=x' on the command line: seed: must be an integer, got 'x'"
    )


def test_mistakes_between_settings_are_told_together_when_the_fields_are_right(tmp_path):
    text = f"{LEAST}train: {{steps: 5}}\nloss: {{content_weight: 0, style_weight: 0, tv_weight: 0}}"
    assert complaint(tmp_path, text) == (
        "FILE:4: train.warmup_steps: must be below train.steps (5), got 100\n"
        "FILE:5: loss.content_weight: all three weights are 0, so there is nothing to learn"
    )


def test_a_missing_file_is_told_with_the_way_to_make_one(tmp_path):
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "none.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/none.yaml: not found; `fast-style init STYLE.jpg > my.yaml` writes a file to "
        "start from"
    )


# --- Words of the command line ------------------------------------------------------------------


def test_words_of_the_command_line_lie_over_the_file_the_last_one_on_top(tmp_path):
    config = load(
        tmp_path,
        f"{LEAST}train: {{steps: 300}}\nlog:\n",
        "train.steps=1000",
        "train.learning_rate=1e-4",
        "data.crop_scale=[0.2, 0.3]",
        "log.every=7",
        "train.steps=2000",
        "loss.style_layers={relu1_1: 2}",
        "loss.content_layers.relu2_2=3",
    )
    assert config.train.steps == 2000
    assert config.train.learning_rate == 1e-4
    assert config.data.crop_scale == (0.2, 0.3)
    assert config.log.every == 7
    assert config.loss.style_layers == {"relu1_1": 2.0}
    assert config.loss.content_layers == {"relu2_2": 3.0}


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("train.steps", "settings are given as key=value, for example train.steps=2000"),
        ("=3", "settings are given as key=value, for example train.steps=2000"),
        ("--steps=3", "settings are given as key=value, for example train.steps=2000"),
        (".".join("a" * 5000) + "=3",
         "settings are given as key=value, for example train.steps=2000"),
        ("train.stesp=3", "unknown key 'train.stesp'; did you mean 'train.steps'?"),
        ("trian.steps=3", "unknown key 'trian'; did you mean 'train'?"),
        ("steps=3", "unknown key 'steps'; did you mean 'train.steps'?"),
        ("train.=3", "unknown key 'train.'; valid keys here: steps, batch_size, learning_rate, "
         "schedule, warmup_steps, precision, compile, cuda_graph, deterministic, threads, "
         "init_from"),
        ("train.steps=-3", "train.steps: must be at least 1, got -3"),
        ("train.steps=", "train.steps: must be an integer, got nothing"),
        ("train.steps.x=3", "train.steps: must be an integer, got {'x': 3}"),
        ("name.x=3", "name is a value, not a section"),
        ("train=3", "train: must be a section of key: value lines, got 3"),
        ("name='a b'", "name: must be letters, digits, '.', '_' and '-' (at most 100), a letter or "
         "digit first, got 'a b'"),
        ("seed=!foo 3", "tags are not allowed, got '!foo'"),
        ("seed=[", "not valid YAML: expected the node content, but found '<stream end>'"),
        ("style.image=http://x/y", "style.image: 'http://x/y' is a URL; download it first "
         "(data/README.md has the commands) and give the path of the file"),
        ("style={size: 64}", "missing key 'style.image': The style picture"),
        ("train.warmup_steps=50000",
         "train.warmup_steps: must be below train.steps (40000), got 50000"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_names_the_word(tmp_path, word, rule):
    shown = repr(word) if len(repr(word)) <= 100 else repr(word)[:97] + "..."
    text = f"{LEAST}model:\n  width: 8\n"
    assert complaint(tmp_path, text, word) == f"{shown} on the command line: {rule}"


def test_paths_are_taken_from_the_file_s_folder_or_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/someone")
    text = """\
name: a
style: {image: ../styles/s.jpg}
data: {photos: /data/p, validation_photos: ~/v}
loss_network: {weights: w.pth}
"""
    write(tmp_path / "configs", text)
    path = Path("../configs/x.yaml")
    config = load_config(path)
    configs = tmp_path / "here" / ".." / "configs"
    assert config.style.image == configs / "../styles/s.jpg"
    assert config.data.photos == Path("/data/p")
    assert config.data.validation_photos == Path("/home/someone/v")
    assert config.loss_network.weights == str(configs / "w.pth")

    here = tmp_path / "here"
    words = [
        "style={image: s.jpg, size: 99}",
        "data.photos=a #1: [x].d",
        "data.validation_photos=~/w",
        "train.init_from='m: 1'",
        "loss_network.weights=w.pth",
    ]
    config = load_config(path, words)
    assert config.style.image == here / "s.jpg"
    assert config.data.photos == here / "a #1: [x].d"
    assert config.data.validation_photos == Path("/home/someone/w")
    assert config.train.init_from == here / "m: 1"
    assert config.loss_network.weights == str(here / "w.pth")
    words = ["data.validation_photos=null", "loss_network.weights=random"]
    config = load_config(path, words)
    assert config.data.validation_photos is None
    assert config.loss_network.weights == "random"


def test_a_name_on_the_command_line_needs_no_quotes(tmp_path):
    assert load(tmp_path, LEAST, "name=010").name == "010"


# --- Settings that exist ------------------------------------------------------------------------


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


@pytest.mark.parametrize(("key", "edge", "outside"), list(numeric_settings(Config)))
def test_ranges_hold_at_their_edges(least, key, edge, outside):
    # A step count of 1 needs a warm-up of 0, and a warm-up of 0 goes with any.
    data = to_dict(least)
    data["train"] |= {"warmup_steps": 0}
    *sections, name = key.split(".")
    target = data
    for section in sections:
        target = target[section]
    target[name] = edge
    assert to_dict(parse_config(data, "x")) == data
    target[name] = outside
    with pytest.raises(UserError) as caught:
        parse_config(data, "x")
    assert str(caught.value).startswith(f"x: {key}: must be ")


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
            "imagenet",
            "imagenet | imagenet_features | compact | random | path",
        ),
        ("loss_network.padding", "(unset)", "zeros | reflect"),
        ("loss.content_layers", "{relu3_3: 1.0}", "{layer: weight, ...}, each weight at least 0"),
        ("loss.style_weight", "5.0", "at least 0"),
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


def test_help_has_every_setting_and_section_once():
    lines = help_text(Config).splitlines()
    for key, _ in iterate_fields(Config):
        assert sum(line.startswith(f"{key}: ") for line in lines) == 1
    assert lines.count("train: How the network is trained.") == 1
    at = lines.index("train.precision: auto  # auto | fp32 | bf16 | fp16")
    assert lines[at + 1 : at + 4] == [
        "    fp32, bf16 (autocast), or auto: bf16 where a GPU computes it natively, else fp32. "
        "fp16 (with",
        "    a scaled loss) is for CUDA GPUs without bf16. On CUDA, fp32 rounds to TF32 in "
        "convolutions.",
        "",
    ]


def test_the_default_of_a_section_is_its_settings():
    assert default_of(Config.model_fields["model"]) == (
        "{width: 32, residual_blocks: 5, upsampling: resize, tanh_scale: 150.0}"
    )


def test_settings_are_frozen_all_the_way_down(least):
    with pytest.raises(ValidationError, match="frozen"):
        least.train.steps = 3
    with pytest.raises(TypeError):
        least.loss.style_layers["relu1_1"] = 3


# --- Round trips --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "1e5", "0o17", "010", "null", "yes", "1_000", "2020-01-01"])
def test_settings_survive_a_yaml_file_and_plain_data(tmp_path, name):
    config = load(
        tmp_path,
        LEAST,
        f"name='{name}'",
        "style.image=" + "é 墨 : # '\" \\ " * 20 + ".jpg",
        "train.learning_rate=1e-7",
        "loss.style_layers={block1_conv1: 1e5, conv5_4: 0}",
        "loss.content_layers={}",
        "data.crop_scale=[0.123456789012345, 1]",
        "seed=9223372036854775807",
    )
    text = to_yaml(config)
    write(tmp_path, text)
    assert load_config(tmp_path / "x.yaml") == config
    assert yaml.safe_load(text)["name"] == name  # whatever the version of YAML
    assert parse_config(to_dict(config), "x") == config
    assert parse_config(json.loads(json.dumps(to_dict(config))), "x") == config


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_a_path_that_is_not_utf8_survives(tmp_path):
    config = load(tmp_path, LEAST, "style.image=" + os.fsdecode(b"\xff.jpg"))
    assert os.fsencode(config.style.image).endswith(b"/\xff.jpg")
    assert load(tmp_path, to_yaml(config)) == config


def test_plain_data_with_mistakes_names_the_place_that_was_given():
    with pytest.raises(UserError) as caught:
        parse_config({"name": "a", "style": {"image": "s", "size": 1}, "data": 3, "x": 1}, "m.st")
    assert str(caught.value) == (
        "m.st: data: must be a section of key: value lines, got 3\n"
        "m.st: style.size: must be at least 16, got 1\n"
        "m.st: unknown key 'x'; valid keys here: name, seed, style, data, model, loss_network, "
        "loss, train, log"
    )
    for data in (None, [1], "text", 3):
        with pytest.raises(UserError, match=r"^m\.st: settings: must be a section of key"):
            parse_config(data, "m.st")


def test_parsing_leaves_the_given_data_alone():
    data = {"name": "a", "style": {"image": "s"}, "data": {"photos": "p"}, "log": None}
    parse_config(data, "x")
    assert data == {"name": "a", "style": {"image": "s"}, "data": {"photos": "p"}, "log": None}


def test_changed_settings_are_told_with_old_and_new_values(least):
    data = to_dict(least)
    data["train"] |= {"steps": 7000, "threads": 2}
    data["loss"]["content_layers"] = {"relu2_2": 2}
    data["name"] = "b"
    assert changed_settings(least, parse_config(data, "x")) == [
        ("name", "a", "b"),
        ("loss.content_layers.relu2_2", None, 2.0),
        ("train.steps", 40000, 7000),
        ("train.threads", None, 2),
        ("loss.content_layers.relu3_3", 1.0, None),
    ]
    assert changed_settings(least, least) == []


# --- The settings of an optimization ------------------------------------------------------------

GATYS_LEAST = "style: {image: s.jpg}\n"

ALL_GATYS_DEFAULTS = """\
seed: 1
style: {image: s.jpg, blend: {}, size: null}
loss_network:
  {architecture: vgg19, weights: imagenet, pooling: max, padding: null, preprocessing: null}
loss:
  normalization: relative
  content_layers: {relu3_3: 1.0}
  style_layers: {relu1_2: 1.0, relu2_2: 1, relu3_3: 1.0, block3_conv4: 1.0}
  content_weight: 1.0
  style_weight: 5
  tv_weight: 1e0
  tv_exponent: 2
optimize:
  {method: lbfgs, iterations: 500, size: 512, scales: 1, init: content, bounds: box,
   learning_rate: 0.02, history: 10, tolerance: 0, restart_every: null}
"""


def load_gatys(folder: Path, text: str | bytes, *overrides: str) -> GatysConfig:
    return load_gatys_config(write(folder, text), overrides)


def gatys_complaint(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The message that a file gets, with its path written as FILE."""
    with pytest.raises(UserError) as caught:
        load_gatys(folder, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(folder / "x.yaml"), "FILE")


def test_a_file_that_spells_all_defaults_of_an_optimization_equals_them(tmp_path):
    assert load_gatys(tmp_path, ALL_GATYS_DEFAULTS) == load_gatys(tmp_path, GATYS_LEAST)
    least = load_gatys(tmp_path, f"{GATYS_LEAST}optimize:\n#  size: 3\nloss: ~\n")
    assert least == load_gatys(tmp_path, GATYS_LEAST)
    spelled = yaml.safe_load(ALL_GATYS_DEFAULTS)
    assert spelled.pop("seed") == 1
    keys = [f"{section}.{key}" for section, settings in spelled.items() for key in settings]
    assert [key for key, _ in iterate_fields(GatysConfig)] == ["seed", *keys]


def test_the_defaults_of_an_optimization_are_these(tmp_path):
    config = load_gatys(tmp_path, GATYS_LEAST)
    assert config.seed == 1
    assert config.style.image == tmp_path / "s.jpg"
    assert config.style.blend == {}
    assert config.style.size is None
    assert config.optimize.model_dump() == {
        "method": "lbfgs",
        "iterations": 500,
        "size": 512,
        "scales": 1,
        "init": "content",
        "bounds": "box",
        "learning_rate": 0.02,
        "history": 10,
        "tolerance": 0.0,
        "restart_every": None,
    }


def test_a_size_is_a_number_or_a_pair(tmp_path):
    text = "style: {image: s.jpg, size: [640, 480]}\noptimize: {size: 300}\n"
    config = load_gatys(tmp_path, text)
    assert config.style.size == (640, 480)
    assert config.optimize.size == 300
    config = load_gatys(tmp_path, text, "optimize.size=[16, 8192]", "style.size=null")
    assert config.style.size is None
    assert config.optimize.size == (16, 8192)
    assert to_dict(config)["optimize"]["size"] == [16, 8192]


@pytest.mark.parametrize("key", ["style.size", "optimize.size"])
@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("15", ": must be at least 16, got 15"),
        ("8193", ": must be at most 8192, got 8193"),
        ("large", ": must be an integer or [width, height], got 'large'"),
        ("true", ": must be an integer or [width, height], got true"),
        ("{a: 1}", ": must be an integer or [width, height], got {'a': 1}"),
        ("512.0", ": must be an integer (write 512) or [width, height], got 512.0"),
        ("[512]", "[1]: must be a list of two numbers, got [512]"),
        ("[1, 2, 3]", ": must be a list of two numbers, got [1, 2, 3]"),
        ("[640, 4]", "[1]: must be at least 16, got 4"),
        ("[640.0, 480]", "[0]: must be an integer (write 640), got 640.0"),
    ],
)
def test_of_a_wrong_size_only_the_form_that_was_meant_is_told(tmp_path, key, value, rule):
    word = f"{key}={value}"
    message = f"{word!r} on the command line: {key}{rule}"
    assert gatys_complaint(tmp_path, GATYS_LEAST, word) == message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # unknown keys, here and across the tree
        ("optimize:\n  iteratoins: 3",
         "FILE:3: unknown key 'optimize.iteratoins'; did you mean 'optimize.iterations'?"),
        ("optimise: {size: 64}", "FILE:2: unknown key 'optimise'; did you mean 'optimize'?"),
        ("restart_every: 20",
         "FILE:2: unknown key 'restart_every'; did you mean 'optimize.restart_every'?"),
        ("loss: {blend: {}}", "FILE:2: unknown key 'loss.blend'; did you mean 'style.blend'?"),
        ("loss: {iteration: 3}",
         "FILE:2: unknown key 'loss.iteration'; did you mean 'optimize.iterations'?"),
        ("zzz: {steps: 3}", "FILE:2: unknown key 'zzz'; valid keys here: seed, style, "
         "loss_network, loss, optimize"),
        # ranges, types and choices
        ("optimize: {iterations: 0}", "FILE:2: optimize.iterations: must be at least 1, got 0"),
        ("optimize: {tolerance: 1}", "FILE:2: optimize.tolerance: must be below 1, got 1"),
        ("optimize: {learning_rate: 10.5}",
         "FILE:2: optimize.learning_rate: must be at most 10, got 10.5"),
        ("optimize: {restart_every: 1}",
         "FILE:2: optimize.restart_every: must be at least 2, got 1"),
        ("optimize: {method: sgd}",
         "FILE:2: optimize.method: must be one of lbfgs, adam, got 'sgd'"),
        ("optimize: {bounds: }",
         "FILE:2: optimize.bounds: must be one of box, clip, none, got nothing"),
        ("optimize: {init: 3}",
         "FILE:2: optimize.init: must be a path (put quotes around it), got 3"),
        ("optimize: {init: 'http://x/y'}",
         "FILE:2: optimize.init: 'http://x/y' is a URL; download it first (data/README.md has the "
         "commands) and give the path of the file"),
        # between settings
        ("optimize:\n  restart_every: 20\n  method: adam\n  bounds: clip",
         "FILE:3: optimize.restart_every: adam has no history to forget; leave it out"),
        ("optimize:\n  bounds: clip\n  restart_every: 20",
         "FILE:4: optimize.restart_every: goes with optimize.bounds box or none, not with clip"),
        ("optimize:\n  scales: 7",
         "FILE:3: optimize.scales: must be at most 6, got 7: 512 pixels, halved 6 times, are 8, "
         "fewer than 16"),
        ("optimize: {scales: 2, size: [640, 31]}",
         "FILE:2: optimize.scales: must be at most 1, got 2: 31 pixels, halved 1 times, are 15, "
         "fewer than 16"),
        ("loss: {content_weight: 0, style_weight: 0, tv_weight: 0}",
         "FILE:2: loss.content_weight: all three weights are 0, so there is nothing to draw"),
        ("loss:\n  style_layers: {conv4_4: 1}\nloss_network: {architecture: vgg16}",
         "FILE:3: loss.style_layers: vgg16 has no conv4_4; the last of its block 4 is conv4_3 "
         "(loss_network.architecture)"),
        ("loss_network: {weights: imagenet_features}",
         "FILE:2: loss_network.weights: imagenet_features exists for vgg16 only"),
    ],
)  # fmt: skip
def test_a_mistake_about_an_optimization_is_told(tmp_path, lines, message):
    assert gatys_complaint(tmp_path, f"{GATYS_LEAST}{lines}\n") == message


def test_all_mistakes_about_an_optimization_are_told_at_once(tmp_path):
    text = """\
style:
  blend:
    b.jpg: 0
    https://x.org/c.jpg: 1
    d.jpg: heavy
    '': 1
  size: 3
optimize:
  size: [8, 16]
  steps: 3
"""
    assert gatys_complaint(tmp_path, text, "optimize.init=", "name=a") == (
        "FILE:1: missing key 'style.image': The style picture\n"
        "FILE:3: style.blend.b.jpg: must be above 0, got 0\n"
        "FILE:4: style.blend.https://x.org/c.jpg: 'https://x.org/c.jpg' is a URL; download it "
        "first (data/README.md has the commands) and give the path of the file\n"
        "FILE:5: style.blend.d.jpg: must be a number, got 'heavy'\n"
        "FILE:6: style.blend.: must be a path, got ''\n"
        "FILE:7: style.size: must be at least 16, got 3\n"
        "FILE:9: optimize.size[0]: must be at least 16, got 8\n"
        "FILE:10: unknown key 'optimize.steps'; valid keys here: method, iterations, size, "
        "scales, init, bounds, learning_rate, history, tolerance, restart_every\n"
        "'name=a' on the command line: unknown key 'name'; valid keys here: seed, style, "
        "loss_network, loss, optimize\n"
        "'optimize.init=' on the command line: optimize.init: must be a path, got nothing"
    )


def test_the_keys_of_a_blend_are_taken_from_the_folder_of_what_says_them(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/someone")
    text = "style:\n  image: s.jpg\n  blend: {../b.jpg: 0.5, ~/c.jpg: 2, /d.jpg: 1e-3}\n"
    path = write(tmp_path / "configs", text)
    configs, here = tmp_path / "configs", tmp_path / "here"
    of_the_file = {
        configs / "../b.jpg": 0.5,
        Path("/home/someone/c.jpg"): 2.0,
        Path("/d.jpg"): 0.001,
    }
    config = load_gatys_config(path)
    assert config.style.blend == of_the_file
    assert list(config.style.blend) == list(of_the_file)
    with pytest.raises(TypeError):
        config.style.blend[Path("x")] = 1.0

    config = load_gatys_config(path, ["style.blend={b.jpg: 0.25, ../b.jpg: 3}"])
    assert config.style.blend == {here / "b.jpg": 0.25, here / "../b.jpg": 3.0}
    config = load_gatys_config(path, ["style={image: t.jpg, blend: {b.jpg: 1}}"])
    assert config.style.blend == {here / "b.jpg": 1.0}
    config = load_gatys_config(path, ["style.blend.b=4"])
    assert config.style.blend == {**of_the_file, here / "b": 4.0}
    assert load_gatys_config(path, ["style.blend={}"]).style.blend == {}


@pytest.mark.parametrize(
    ("blend", "rule"),
    [
        ("{b.jpg: 1, ./b.jpg: 2}", "'./b.jpg' is given twice, once under another name"),
        ("{b.jpg: 1, a/../b.jpg: 2}", "'a/../b.jpg' is given twice, once under another name"),
        ("{link.jpg: 1, b.jpg: 2}", "'b.jpg' is given twice, once under another name"),
        ("{s.jpg: 1}", "'FOLDER/s.jpg' is style.image, which has the weight 1"),
        ("{./s.jpg: 1}", "'FOLDER/s.jpg' is style.image, which has the weight 1"),
        ("[b.jpg]", "must be a section of key: value lines, got ['b.jpg']"),
        ("", "must be a section of key: value lines, got nothing"),
    ],
)
def test_a_picture_of_a_blend_is_given_once(tmp_path, blend, rule):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "b.jpg")
    text = f"style:\n  image: s.jpg\n  blend: {blend}\n"
    found = gatys_complaint(tmp_path, text).replace(str(tmp_path), "FOLDER")
    assert found == f"FILE:3: style.blend: {rule}"


def test_a_picture_given_twice_within_yaml_is_told_with_both_lines(tmp_path):
    text = "style:\n  image: s.jpg\n  blend:\n    b.jpg: 1\n    b.jpg: 2\n"
    assert gatys_complaint(tmp_path, text) == (
        "FILE:5: key 'style.blend.b.jpg' is given twice (first at line 4)"
    )


def test_init_is_a_word_or_a_path(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for word in INIT_WORDS:
        for config in (
            load_gatys(tmp_path, f"{GATYS_LEAST}optimize: {{init: {word}}}\n"),
            load_gatys(tmp_path, GATYS_LEAST, f"optimize.init={word}"),
        ):
            assert config.optimize.init == word
    config = load_gatys(tmp_path, f"{GATYS_LEAST}optimize: {{init: ./content}}\n")
    assert config.optimize.init == str(tmp_path / "content")
    config = load_gatys(tmp_path, f"{GATYS_LEAST}optimize: {{init: imagenet}}\n")
    assert config.optimize.init == str(tmp_path / "imagenet")
    config = load_gatys(tmp_path, GATYS_LEAST, "optimize.init=a: 1.jpg")
    assert config.optimize.init == str(tmp_path / "here" / "a: 1.jpg")


def test_a_word_that_is_no_setting_gets_an_example_of_its_command(tmp_path):
    assert gatys_complaint(tmp_path, GATYS_LEAST, "photo.jpg") == (
        "'photo.jpg' on the command line: settings are given as key=value, for example "
        "optimize.iterations=200"
    )
    assert complaint(tmp_path, LEAST, "photo.jpg").endswith("for example train.steps=2000")
    for root, text, read in (
        (Config, LEAST, load),
        (GatysConfig, GATYS_LEAST, load_gatys),
        (DistillConfig, DISTILL_LEAST, load_distill),
    ):
        assert read(tmp_path, text, root.example) != read(tmp_path, text)


@pytest.mark.parametrize(("key", "edge", "outside"), list(numeric_settings(GatysConfig)))
def test_ranges_of_an_optimization_hold_at_their_edges(tmp_path, key, edge, outside):
    # Eight scales need a large picture.
    text = GATYS_LEAST if key == "optimize.size" else f"{GATYS_LEAST}optimize: {{size: 8192}}\n"
    config = load_gatys(tmp_path, text, f"{key}={edge!r}")
    assert flatten(to_dict(config))[key] == edge
    assert gatys_complaint(tmp_path, text, f"{key}={outside!r}").startswith(
        f"'{key}={outside!r}' on the command line: {key}: must be "
    )


def test_weights_of_one_term_alone_can_be_optimized(tmp_path):
    for off in (("content", "tv"), ("style", "tv"), ("content", "style")):
        load_gatys(tmp_path, GATYS_LEAST, *(f"loss.{name}_weight=0" for name in off))


def test_settings_of_adam_and_lbfgs_may_stand_side_by_side(tmp_path):
    text = "optimize: {history: 5, tolerance: 0.01, learning_rate: 0.039, "
    for rest in (
        "method: adam}", "method: adam, bounds: clip}", "restart_every: 20}",
        "restart_every: 20, bounds: none}", "bounds: clip}",
    ):  # fmt: skip
        load_gatys(tmp_path, f"{GATYS_LEAST}{text}{rest}\n")


def test_the_coarsest_of_the_scales_may_have_sixteen_pixels(tmp_path):
    config = load_gatys(tmp_path, GATYS_LEAST, "optimize.scales=6")
    assert config.optimize.size / 2 ** (config.optimize.scales - 1) == 16
    load_gatys(tmp_path, GATYS_LEAST, "optimize.scales=8", "optimize.size=[2048, 4096]")


@pytest.mark.parametrize(
    ("key", "default", "allowed"),
    [
        ("style.blend", "{}", "{path: weight, ...}, each weight above 0"),
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


def test_help_has_every_setting_and_section_of_an_optimization_once():
    lines = help_text(GatysConfig).splitlines()
    for key, _ in iterate_fields(GatysConfig):
        assert sum(line.startswith(f"{key}: ") for line in lines) == 1
    assert lines.count("optimize: How the picture is optimized.") == 1
    assert not any(line.startswith("train") for line in lines)


def test_settings_of_an_optimization_survive_a_yaml_file(tmp_path):
    config = load_gatys(
        tmp_path,
        GATYS_LEAST,
        "style.blend={'é 墨 : # .jpg': 0.1, 010: 1e-9, 'a\\b': 3}",
        "style.size=[64, 48]",
        "optimize.init=1e5",
        "loss.style_layers={block1_conv1: 1e5}",
    )
    text = to_yaml(config)
    assert load_gatys(tmp_path, text) == config
    assert yaml.safe_load(text)["style"]["size"] == [64, 48]
    assert json.loads(json.dumps(to_dict(config))) == to_dict(config)


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_a_picture_of_a_blend_whose_path_is_not_utf8_survives(tmp_path):
    config = load_gatys(tmp_path, GATYS_LEAST, r'style.blend={"\udcff.jpg": 1}')
    (picture,) = config.style.blend
    assert os.fsencode(picture).endswith(b"/\xff.jpg")
    assert load_gatys(tmp_path, to_yaml(config)) == config


# --- The settings of a distillation -------------------------------------------------------------

DISTILL_LEAST = """\
name: a
data: {photos: p, paintings: q}
"""

ALL_DISTILL_DEFAULTS = """\
seed: 1
teacher:
  {architecture: vgg19, weights: imagenet, pooling: max, padding: null, preprocessing: null}
student: {widths: [16, 32, 64], deepest: relu3_4}
data:
  photos: p
  validation_photos: null
  validation_count: 16
  crop_size: 96
  crop_scale: [0.5, 1]
  flip: true
  workers: auto
  cache: none
  cache_side: null
  cache_folder: null
  max_unreadable_share: 0.05
  paintings: q
  validation_paintings: null
train:
  {steps: 20000, photos: 4, paintings: 3, surfaces: 1, painters: 4, learning_rate: 0.001,
   schedule: cosine, warmup_steps: 100, precision: auto, deterministic: false, threads: null}
log: {every: 50, validate_every: 500, checkpoint_every: 500, keep_checkpoints: 3}
name: a
"""


def load_distill(folder: Path, text: str, *overrides: str) -> DistillConfig:
    return load_distill_config(write(folder, text), overrides)


def distill_complaint(folder: Path, text: str, *overrides: str) -> str:
    """The message that a file gets, with its path written as FILE."""
    with pytest.raises(UserError) as caught:
        load_distill(folder, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(folder / "x.yaml"), "FILE")


def test_a_file_that_spells_all_defaults_of_a_distillation_equals_them(tmp_path):
    least = load_distill(tmp_path, DISTILL_LEAST)
    assert load_distill(tmp_path, ALL_DISTILL_DEFAULTS) == least
    spelled = yaml.safe_load(ALL_DISTILL_DEFAULTS)
    assert {key for key, _ in iterate_fields(DistillConfig)} == set(flatten(spelled))
    assert least.data.paintings == tmp_path / "q"
    assert least.student.widths == (16, 32, 64)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # the student
        ("student: {widths: [8, 16]}",
         "FILE:3: student.widths: must have a number for each block up to that of "
         "student.deepest (relu3_4), got [8, 16]"),
        ("student:\n  deepest: relu2_2",
         "FILE:3: student.widths: must have a number for each block up to that of "
         "student.deepest (relu2_2), got [16, 32, 64]"),
        ("student: {deepest: conv3_4}",
         "FILE:3: student.deepest: must be a layer after a ReLU, got conv3_4"),
        ("teacher: {architecture: vgg16}\nstudent:\n  deepest: relu3_4",
         "FILE:5: student.deepest: vgg16 has no relu3_4; the last of its block 3 is relu3_3 "
         "(teacher.architecture)"),
        ("student: {deepest: relu6_1}",
         "FILE:3: student.deepest: 'relu6_1' is not a VGG layer; say for example relu3_3, conv3_3 "
         "or block3_conv3"),
        ("student: {widths: 16}",
         "FILE:3: student.widths: must be a list of whole numbers, got 16"),
        ("student: {widths: []}",
         "FILE:3: student.widths: must be a list of whole numbers, got []"),
        ("student: {widths: [16, 0, 64]}",
         "FILE:3: student.widths[1]: must be at least 1, got 0"),
        ("student: {widths: [16, 32.0, 64]}",
         "FILE:3: student.widths[1]: must be an integer (write 32), got 32.0"),
        # the teacher
        ("teacher: {weights: imagenet_features}",
         "FILE:3: teacher.weights: imagenet_features exists for vgg16 only"),
        ("teacher: {weights: random, preprocessing: caffe}",
         "FILE:3: teacher.preprocessing: weights random have their own; leave it out"),
        ("loss_network: {weights: random}",
         "FILE:3: unknown key 'loss_network'; valid keys here: name, seed, teacher, student, data, "
         "train, log"),
        # the rest
        ("train: {steps: 100}",
         "FILE:3: train.warmup_steps: must be below train.steps (100), got 100"),
        ("train: {painters: -1}", "FILE:3: train.painters: must be at least 0, got -1"),
        ("log: {keep_checkpoints: 1}",
         "FILE:3: log.keep_checkpoints: must be at least 2, got 1"),
    ],
)  # fmt: skip
def test_a_mistake_about_a_distillation_is_told(tmp_path, lines, message):
    assert distill_complaint(tmp_path, f"{DISTILL_LEAST}{lines}\n") == message


def test_paintings_must_be_said(tmp_path):
    assert distill_complaint(tmp_path, "name: a\ndata: {photos: p}\n") == (
        "FILE:2: missing key 'data.paintings': A folder of paintings"
    )


def test_a_layer_of_a_distillation_may_have_the_name_of_keras(tmp_path):
    words = ["student.deepest=block2_conv2", "student.widths=[4, 8]"]
    assert load_distill(tmp_path, DISTILL_LEAST, *words).student.deepest == "relu2_2"


@pytest.mark.parametrize(("key", "edge", "outside"), list(numeric_settings(DistillConfig)))
def test_ranges_of_a_distillation_hold_at_their_edges(tmp_path, key, edge, outside):
    text = f"{DISTILL_LEAST}train: {{warmup_steps: 0}}\n"
    config = load_distill(tmp_path, text, f"{key}={edge!r}")
    assert flatten(to_dict(config))[key] == edge
    assert distill_complaint(tmp_path, text, f"{key}={outside!r}").startswith(
        f"'{key}={outside!r}' on the command line: {key}: must be "
    )


@pytest.mark.parametrize(
    ("key", "default", "allowed"),
    [
        ("data.paintings", "(required)", "path"),
        ("student.widths", "[16, 32, 64]", "a list of whole numbers, each 1 to 4096"),
        ("student.deepest", "relu3_4", "layer"),
        (
            "teacher.weights",
            "imagenet",
            "imagenet | imagenet_features | compact | random | path",
        ),
        ("train.painters", "4", "0 to 64"),
    ],
)
def test_help_says_what_a_distillation_takes(key, default, allowed):
    assert f"\n{key}: {default}  # {allowed}\n" in help_text(DistillConfig)


def test_settings_of_a_distillation_survive_a_yaml_file(tmp_path):
    words = ["student.widths=[4096, 1]", "student.deepest=relu2_1", "data.validation_paintings=v"]
    config = load_distill(tmp_path, DISTILL_LEAST, *words, "teacher.weights=t.mat")
    assert load_distill(tmp_path, to_yaml(config)) == config
    assert json.loads(json.dumps(to_dict(config))) == to_dict(config)


# --- The JSON Schema ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "root", "path"),
    [
        ([], Config, "schema.json"),
        (["train"], Config, "schema.json"),
        (["optimize"], GatysConfig, "optimize/schema.json"),
        (["distill"], DistillConfig, "distill.schema.json"),
    ],
)
def test_the_schema_in_the_repository_is_current(words, root, path):
    # python -m fast_style.settings.config > configs/schema.json
    # python -m fast_style.settings.config optimize > configs/optimize/schema.json
    # python -m fast_style.settings.config distill > configs/distill.schema.json
    assert (ROOT / "configs" / path).read_text(encoding="utf-8") == json_schema(root)
    command = [sys.executable, "-m", "fast_style.settings.config", *words]
    printed = subprocess.run(command, check=True, capture_output=True, text=True)
    assert printed.stdout == json_schema(root)


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
    loss = schema["$defs"]["LossConfig"]["properties"]
    pattern = re.compile(loss["style_layers"]["propertyNames"]["pattern"])
    assert all(pattern.search(layer) for layer in loss["style_layers"]["default"])


# --- The starting file --------------------------------------------------------------------------


def from_starting_file(folder: Path, style: Path) -> Config:
    return load(folder, starting_file(style).encode("utf-8"))


def test_the_starting_file_explains_itself():
    text = starting_file(Path("/styles/starry_night.jpg"), photos="/photos")
    lines = text.splitlines()
    for line in [
        "name: starry_night",
        "  image: /styles/starry_night.jpg",
        "  photos: /photos",
        "  # Optimizer steps in all.",
        "  weights: compact",
        "#   tensorboard --logdir runs                      watch",
    ]:
        assert lines.count(line) == 1
    assert "  fast-style train my.yaml  " in text
    assert "and no download" in text
    assert all(len(line) <= 100 and line == line.rstrip() for line in lines)
    assert not re.search(r"\n\n\n", text)
    for key in config_module._FIRST_SETTINGS:
        assert re.search(rf"^ *{key.rpartition('.')[2]}: .", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("starry_night.jpg", "starry_night"),
        ("Die Brücke.tar.jpg", "Die-Brucke.tar"),
        ("墨.jpg", "my-style"),
        (".hidden", "hidden"),
        ("1e5.png", "1e5"),
        ("null", "null"),
        ("a: #'\"b\n.jpg", "a-b"),
        ("x" * 200, "x" * 100),
        ("-_.", "my-style"),
    ],
)
def test_the_run_is_named_after_the_style(tmp_path, file_name, name):
    assert from_starting_file(tmp_path, Path(file_name)).name == name


ODD_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
)


@settings(max_examples=80, deadline=None)
@given(name=ODD_NAMES)
@example(name="~")
@example(name="..")
@example(name=" leading and trailing ")
@example(name="a\u0085b\u2028c\ufeff")
@example(name="😀: #")
def test_the_starting_file_of_any_style_is_the_one_for_laptops(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("start")
    style = Path("/styles") / name
    config = from_starting_file(folder, style)
    assert config.style.image == style
    assert config.data.photos == folder / "data" / "photos"
    laptop = load_config(Path(__file__).parents[2] / "configs" / "laptop.yaml")
    data = laptop.data.model_copy(update={"photos": config.data.photos})
    update = {"name": config.name, "style": config.style, "data": data}
    assert config == laptop.model_copy(update=update)


def test_a_relative_style_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    config = from_starting_file(tmp_path / "elsewhere", Path("s.jpg"))
    assert config.style.image == tmp_path / "s.jpg"


# --- Whatever a file holds ----------------------------------------------------------------------

TOKENS = [
    ":", ": ", "- ", "[", "]", "{", "}", ",", "\n", "\n  ", "\t", "#", " #", "'", '"', "&a ", "*a",
    "<<: ", "!!str ", "!x ", "? ", "|", ">", "%YAML 1.1\n", "---\n", "...\n", "~", "null", "true",
    "yes", "010", "1e400", ".nan", "-.inf", "1e5", "99999999999999999999", "0x", "é", "\u2028",
    "\ufeff", "\\", "\\ud800", '"\\ud800"', "\\0", "://", "~x/", "relu1_1", "block1_conv1: 1",
    "int", "style", "image", "steps: 0", "train: ", "loss: {style_layers: {", "\r",
]  # fmt: skip


def mutated(text: str, source: random.Random) -> bytes:
    data = text.encode()
    for _ in range(source.randint(1, 4)):
        at, end = source.randrange(len(data) + 1), source.randrange(len(data) + 1)
        match source.randrange(6):
            case 0:
                data = data[:at] + bytes([source.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[at + source.randint(1, 30) :]
            case 2:
                piece = data[at : at + source.randint(1, 60)]
                data = data[:end] + piece + data[end:]
            case 3 | 4:
                token = source.choice(TOKENS).encode()
                data = data[:at] + token + data[at + source.choice([0, 0, len(token)]) :]
            case 5:
                words = re.split(rb"(\W+)", data)
                words[source.randrange(len(words))] = source.choice(TOKENS).encode()
                data = b"".join(words)
    return data


def complaints_about_mutations(
    folder: Path, *, seed: int, cases: int, text: str = ALL_DEFAULTS, read=load_config
) -> int:
    refused = 0
    source = random.Random(seed)
    for case in range(cases):
        data = mutated(text, source)
        try:
            config = read(write(folder, data))
        except UserError as error:
            refused += 1
            lines = str(error).splitlines()
            assert lines
            assert all(line.startswith(str(folder / "x.yaml")) for line in lines), (case, lines)
            assert all(line.isprintable() for line in lines), (case, lines)
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {case}: {data!r}") from error
        else:
            write(folder, to_yaml(config))
            assert read(folder / "x.yaml") == config, (case, data)
    return refused


def test_a_mutated_file_loads_or_is_a_user_error(tmp_path):
    assert 200 < complaints_about_mutations(tmp_path, seed=1, cases=800) < 800


def test_a_mutated_file_of_an_optimization_loads_or_is_a_user_error(tmp_path):
    text = ALL_GATYS_DEFAULTS.replace("blend: {}", "blend: {b.jpg: 1, ../c.jpg: 0.5}")
    refused = complaints_about_mutations(
        tmp_path, seed=1, cases=300, text=text, read=load_gatys_config
    )
    assert 75 < refused < 300


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_ten_thousand_mutated_files_load_or_are_user_errors(tmp_path, seed):
    assert 250 < complaints_about_mutations(tmp_path, seed=seed, cases=1000) < 1000


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = (
    [key for key, _ in iterate_fields(Config)]
    + list(Config.model_fields)
    + ["x", "loss.style_layers.x"]
)


@settings(max_examples=500, deadline=None)
@given(key=st.sampled_from(KEYS), value=PLAIN)
def test_any_value_of_any_setting_is_taken_or_is_a_user_error(key, value):
    data = {
        "name": "a",
        "style": {"image": "s"},
        "data": {"photos": "p"},
        "loss": {"style_layers": {}},
    }
    target = data
    *sections, name = key.split(".")
    for section in sections:
        target = target.setdefault(section, {})
    target[name] = value
    try:
        config = parse_config(data, "place")
    except UserError as error:
        message = str(error)
    else:
        assert parse_config(to_dict(config), "place") == config
        return
    assert all(line.startswith("place: ") for line in message.splitlines())


@settings(max_examples=400, deadline=None)
@given(key=st.sampled_from(KEYS) | st.text(max_size=10), value=st.text(max_size=12))
def test_any_word_of_the_command_line_is_taken_or_is_a_user_error(tmp_path_factory, key, value):
    path = write(tmp_path_factory.getbasetemp(), LEAST)
    try:
        load_config(path, [f"{key}={value}"])
        message = ""
    except UserError as error:
        message = str(error)
    assert all(line.isprintable() for line in message.split("\n"))


GATYS_KEYS = [key for key, _ in iterate_fields(GatysConfig)] + ["style.blend.x", "style", "x"]


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(GATYS_KEYS), value=PLAIN)
@example(key="style.blend", value={"\ud800": 1.0})
@example(key="style.blend", value={"a\nb": 1.0, "./a\nb": 1.0})
def test_any_value_in_a_word_for_an_optimization_is_taken_or_is_a_user_error(
    tmp_path_factory, key, value
):
    path = write(tmp_path_factory.getbasetemp(), GATYS_LEAST)
    try:
        config = load_gatys_config(path, [f"{key}={json.dumps(value)}"])
    except UserError as error:
        message = str(error)
    else:
        write(path.parent, to_yaml(config))
        assert load_gatys_config(path) == config
        return
    assert all(line.isprintable() for line in message.split("\n"))


def test_importing_config_imports_no_torch():
    code = "import sys, fast_style.settings.config; sys.exit(int('torch' in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)
