"""Claims about `writing`: what is written is read back, and differences are found."""

import json
import os
import sys

import pytest
import yaml
from settings_files import DISTILL_LEAST, GATYS_LEAST, LEAST, LETTER, Letter, read

from fast_style.settings.config import Config, DistillConfig, parse_config
from fast_style.settings.gatys_config import GatysConfig
from fast_style.settings.reading import parse
from fast_style.settings.writing import (
    changed_settings,
    flatten,
    to_dict,
    to_yaml,
    without_folders,
)


def test_plain_data_of_any_root_is_read_and_written(tmp_path):
    letter = parse(Letter, {"text": "1e5", "copies": 3, "pen": {"width": 2}}, "x")
    assert to_dict(letter) == {
        "text": "1e5", "paper": "white", "copies": 3, "pen": {"color": "blue", "width": 2.0},
    }  # fmt: skip
    assert read(Letter, tmp_path, to_yaml(letter)) == letter


def test_a_changed_setting_has_its_name_in_the_file(tmp_path):
    old = read(Letter, tmp_path, LETTER)
    new = read(Letter, tmp_path, f"{LETTER}copies: 2\npen: {{width: 1}}\n")
    assert changed_settings(old, new) == [("copies", 1, 2), ("pen.width", 0.5, 1.0)]


def test_flatten_joins_keys_with_dots():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }


def test_paths_without_folders_are_the_last_parts_and_all_else_is_kept(tmp_path):
    words = ["data.photos=/home/me/photos", "style.image=/home/me/a.jpg"]
    words += ["loss_network.weights=/home/me/vgg.pth"]
    config = read(Config, tmp_path, LEAST, *words)
    data, bare = to_dict(config), without_folders(config)
    assert "/home" not in json.dumps(bare)
    assert bare["data"]["photos"] == "photos"
    data["data"]["photos"], data["style"]["image"] = "photos", "a.jpg"
    data["loss_network"]["weights"] = "vgg.pth"
    assert bare == data
    named = read(Config, tmp_path, LEAST, "loss_network.weights=compact")
    assert without_folders(named)["loss_network"]["weights"] == "compact"


@pytest.mark.parametrize("name", ["a", "1e5", "0o17", "010", "null", "yes", "1_000", "2020-01-01"])
def test_settings_survive_a_yaml_file_and_plain_data(tmp_path, name):
    config = read(
        Config,
        tmp_path,
        LEAST,
        f"name='{name}'",
        "style.image=" + "é 墨 : # '\" \\ " * 20 + ".jpg",
        "train.learning_rate=1e-7",
        "loss.style_layers={block1_conv1: 1e5, conv5_3: 0}",
        "loss.content_layers={}",
        "data.crop_scale=[0.123456789012345, 1]",
        "seed=9223372036854775807",
    )
    text = to_yaml(config)
    assert read(Config, tmp_path, text) == config
    assert yaml.safe_load(text)["name"] == name  # whatever the version of YAML
    assert parse_config(to_dict(config), "x") == config
    assert parse_config(json.loads(json.dumps(to_dict(config))), "x") == config


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_a_path_that_is_not_utf8_survives(tmp_path):
    config = read(Config, tmp_path, LEAST, "style.image=" + os.fsdecode(b"\xff.jpg"))
    assert os.fsencode(config.style.image).endswith(b"/\xff.jpg")
    assert read(Config, tmp_path, to_yaml(config)) == config


def test_changed_settings_are_told_with_old_and_new_values(tmp_path):
    least = read(Config, tmp_path, LEAST)
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


def test_settings_of_an_optimization_survive_a_yaml_file(tmp_path):
    config = read(
        GatysConfig,
        tmp_path,
        GATYS_LEAST,
        "style.blend=[{image: 'é 墨 : # .jpg', weight: 0.1}, {image: 'a\\b', weight: 1e-9}]",
        "style.size=[64, 48]",
        "optimize.init=1e5",
        "loss.style_layers={block1_conv1: 1e5}",
    )
    text = to_yaml(config)
    assert read(GatysConfig, tmp_path, text) == config
    assert yaml.safe_load(text)["style"]["size"] == [64, 48]
    assert json.loads(json.dumps(to_dict(config))) == to_dict(config)


def test_settings_of_a_distillation_survive_a_yaml_file(tmp_path):
    words = ["student.widths=[4096, 1]", "student.deepest=relu2_1", "data.validation_paintings=v"]
    config = read(DistillConfig, tmp_path, DISTILL_LEAST, *words, "teacher.weights=t.mat")
    assert read(DistillConfig, tmp_path, to_yaml(config)) == config
    assert json.loads(json.dumps(to_dict(config))) == to_dict(config)
