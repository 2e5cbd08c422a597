"""Claims about `mistakes`: the words for what is wrong with a file, whole and in one table."""

import pytest
from settings_files import GATYS_LEAST, LEAST, complaint

from fast_style.settings.config import Config
from fast_style.settings.gatys_config import GatysConfig


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # unknown keys
        (
            "loss:\n  styel_weight: 3",
            "FILE:5: loss.styel_weight: unknown key; did you mean 'loss.style_weight'?",
        ),
        ("trian: {steps: 3}", "FILE:4: trian: unknown key; did you mean 'train'?"),
        ("batch_size: 3", "FILE:4: batch_size: unknown key; did you mean 'train.batch_size'?"),
        (
            "model: {zzz: 3}",
            "FILE:4: model.zzz: unknown key; valid keys here: width, residual_blocks, "
            "upsampling, antialiased, tanh_scale",
        ),
        (
            "model: {int: 3}",
            "FILE:4: model.int: unknown key; valid keys here: width, residual_blocks, "
            "upsampling, antialiased, tanh_scale",
        ),
        (
            '? "a\\nb\\e[2J"\n: 3',
            "FILE:4: a\\nb\\x1b[2J: unknown key; valid keys here: name, seed, style, data, model, "
            "loss_network, loss, train, log",
        ),
        (
            "<<: {seed: 3}",
            "FILE:4: <<: unknown key; sections are not merged here: write their keys out",
        ),
        # keys as on the command line
        ("train.steps: 50", "FILE:4: train.steps: unknown key; write `steps: 50` below `train:`"),
        ("train.precision: fp32",
         "FILE:4: train.precision: unknown key; write `precision: 'fp32'` below `train:`"),
        ("train.step: 50", "FILE:4: train.step: unknown key; did you mean 'train.steps'?"),
        ("loss.style_layers: {relu1_1: 1}",
         "FILE:4: loss.style_layers: unknown key; write `style_layers:` below `loss:`"),
        # types
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
        ("train: {init_from: [a]}", "FILE:4: train.init_from: must be one path, got ['a']"),
        ("train: {init_from: ''}", "FILE:4: train.init_from: must be a path, got ''"),
        (
            'train: {init_from: "a\\x00b"}',
            "FILE:4: train.init_from: must be a path, got 'a\\x00b'",
        ),
        (
            'train: {init_from: "\\ud800"}',
            "FILE:4: train.init_from: no file can be named '\\ud800'",
        ),
        (
            "loss_network: {weights: 12}",
            "FILE:4: loss_network.weights: must be a path (put quotes around it), got 12",
        ),
        # choices
        ("train: {precision: fp8}",
         "FILE:4: train.precision: must be auto, fp32, bf16 or fp16, got 'fp8'"),
        ("train: {precision: }",
         "FILE:4: train.precision: must be auto, fp32, bf16 or fp16, got nothing"),
        ("loss_network: {padding: same}",
         "FILE:4: loss_network.padding: must be zeros or reflect, got 'same'"),
        # ranges and finite numbers
        ("train: {steps: 0}", "FILE:4: train.steps: must be at least 1, got 0"),
        ("train: {steps: -5}", "FILE:4: train.steps: must be at least 1, got -5"),
        ("train: {learning_rate: 0}", "FILE:4: train.learning_rate: must be above 0, got 0"),
        ("train: {learning_rate: 11}", "FILE:4: train.learning_rate: must be at most 10, got 11"),
        ("loss: {tv_weight: .nan}", "FILE:4: loss.tv_weight: must be a finite number, got nan"),
        ("loss: {tv_weight: .inf}", "FILE:4: loss.tv_weight: must be a finite number, got inf"),
        ("loss: {tv_weight: -.INF}", "FILE:4: loss.tv_weight: must be a finite number, got -inf"),
        ("loss: {style_layers: {relu1_1: -1}}",
         "FILE:4: loss.style_layers.relu1_1: must be at least 0, got -1"),
        ("loss: {style_layers: {relu1_1: x}}",
         "FILE:4: loss.style_layers.relu1_1: must be a number, got 'x'"),
        ("loss:\n  style_layers:\n    relu1_1: 1\n    int: 1",
         "FILE:7: loss.style_layers.int: 'int' is not a VGG layer; say for example relu3_3, "
         "conv3_3 or block3_conv3"),
        ("loss: {style_layers: {relu1_1: 1, block1_conv1: 1}}",
         "FILE:4: loss.style_layers: relu1_1 and block1_conv1 are one layer under its two names; "
         "remove one"),
        # paths
        ("train: {init_from: 'https://x.org/a'}",
         "FILE:4: train.init_from: 'https://x.org/a' is a URL; download it first (data/README.md "
         "has the commands) and give the path of the file"),
        ("loss_network: {weights: 's3://x/a'}",
         "FILE:4: loss_network.weights: 's3://x/a' is a URL; download it first (data/README.md has "
         "the commands) and give the path of the file"),
        ("train: {init_from: ~no-such-user/a}",
         "FILE:4: train.init_from: the home folder in '~no-such-user/a' is unknown; write the "
         "whole path"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_key_rule_and_value(tmp_path, lines, message):
    assert complaint(Config, tmp_path, f"{LEAST}{lines}\n") == message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # what YAML reads as a number is not text
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
        ('"a\\x0A"', "FILE:3: name: must be letters, digits, '.', '_' and '-' (at most 100), a "
         "letter or digit first, got 'a\\n', which begins or ends with an invisible character "
         "(U+000A); remove it"),
        ("a" * 101, "FILE:3: name: must be letters, digits, '.', '_' and '-' (at most 100), a "
         f"letter or digit first, got '{'a' * 96}..."),
    ],
)  # fmt: skip
def test_a_name_is_text_that_can_name_a_folder(tmp_path, lines, message):
    text = f"style: {{image: s.jpg}}\ndata: {{photos: p}}\nname: {lines}\n"
    assert complaint(Config, tmp_path, text) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("workers: many", "data.workers: must be 0 to 256 or auto, got 'many'"),
        ("workers: 257", "data.workers: must be 0 to 256 or auto, got 257"),
        ("workers: true", "data.workers: must be 0 to 256 or auto, got true"),
        ("cache: device", "data.cache: must be none or disk, got 'device'"),
        ("flip: yes", "data.flip: must be true or false, got 'yes'"),
        ("flip: 1", "data.flip: must be true or false, got 1"),
        ("validation_photos: [a, b]",
         "data.validation_photos: must be one path, got ['a', 'b']; make one folder with links to "
         "these"),
        ("cache_folder: [a]", "data.cache_folder: must be one path, got ['a']"),
        ("crop_scale: 0.5", "data.crop_scale: must be a list of two numbers, got 0.5"),
        (
            "crop_scale: [1, 0.5]",
            "data.crop_scale: must be [least, most] in ascending order, got [1.0, 0.5]",
        ),
        ("crop_scale: [0.5, 2]", "data.crop_scale[1]: must be at most 1, got 2"),
        ("crop_scale: [0, x]", "data.crop_scale[0]: must be above 0, got 0\n"
         "FILE:3: data.crop_scale[1]: must be a number, got 'x'"),
        ("crop_scale: [0.5]", "data.crop_scale: must be a list of two numbers, got [0.5]"),
        ("crop_scale: [0.1, 0.2, 0.3]",
         "data.crop_scale: must be a list of two numbers, got [0.1, 0.2, 0.3]"),
    ],
)  # fmt: skip
def test_a_mistake_about_the_data_is_told(tmp_path, value, message):
    text = f"name: a\nstyle: {{image: s.jpg}}\ndata: {{photos: p, {value}}}\n"
    assert complaint(Config, tmp_path, text) == f"FILE:3: {message}"


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
        ("[512]", ": must be a list of two numbers, got [512]"),
        ("[1, 2, 3]", ": must be a list of two numbers, got [1, 2, 3]"),
        ("[640, 4]", "[1]: must be at least 16, got 4"),
        ("[640.0, 480]", "[0]: must be an integer (write 640), got 640.0"),
    ],
)
def test_of_a_wrong_size_only_the_form_that_was_meant_is_told(tmp_path, key, value, rule):
    word = f"{key}={value}"
    message = f"{word!r} on the command line: {key}{rule}"
    assert complaint(GatysConfig, tmp_path, GATYS_LEAST, word) == message
