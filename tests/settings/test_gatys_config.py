"""Claims about `gatys_config`: the settings of an optimization, and their rules."""

import os
import sys
from pathlib import Path

import pytest
import yaml
from settings_files import ALL_GATYS_DEFAULTS, GATYS_LEAST, complaint, read, write

from fast_style.core.errors import UserError
from fast_style.settings.gatys_config import (
    INIT_WORDS,
    GatysConfig,
    load_gatys_config,
    reconstruction,
)
from fast_style.settings.reading import parse
from fast_style.settings.structure import iterate_fields
from fast_style.settings.writing import to_dict, to_yaml


def test_a_file_that_spells_all_defaults_of_an_optimization_equals_them(tmp_path):
    least = read(GatysConfig, tmp_path, GATYS_LEAST)
    assert read(GatysConfig, tmp_path, ALL_GATYS_DEFAULTS) == least
    text = f"{GATYS_LEAST}optimize:\n#  size: 3\nloss: ~\n"
    assert read(GatysConfig, tmp_path, text) == least
    spelled = yaml.safe_load(ALL_GATYS_DEFAULTS)
    assert spelled.pop("seed") == 1
    keys = [f"{section}.{key}" for section, settings in spelled.items() for key in settings]
    assert [key for key, _ in iterate_fields(GatysConfig)] == ["seed", *keys]


def test_the_defaults_of_an_optimization_are_these(tmp_path):
    config = read(GatysConfig, tmp_path, GATYS_LEAST)
    assert config.seed == 1
    assert config.style.image == tmp_path / "s.jpg"
    assert config.style.blend == ()
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
    config = read(GatysConfig, tmp_path, text)
    assert config.style.size == (640, 480)
    assert config.optimize.size == 300
    config = read(GatysConfig, tmp_path, text, "optimize.size=[16, 8192]", "style.size=null")
    assert config.style.size is None
    assert config.optimize.size == (16, 8192)
    assert to_dict(config)["optimize"]["size"] == [16, 8192]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # unknown keys, here and across the tree
        ("optimize:\n  iteratoins: 3",
         "FILE:3: optimize.iteratoins: unknown key; did you mean 'optimize.iterations'?"),
        ("optimise: {size: 64}", "FILE:2: optimise: unknown key; did you mean 'optimize'?"),
        ("restart_every: 20",
         "FILE:2: restart_every: unknown key; did you mean 'optimize.restart_every'?"),
        ("loss: {blend: {}}", "FILE:2: loss.blend: unknown key; did you mean 'style.blend'?"),
        ("loss: {iteration: 3}",
         "FILE:2: loss.iteration: unknown key; did you mean 'optimize.iterations'?"),
        ("zzz: {steps: 3}", "FILE:2: zzz: unknown key; valid keys here: seed, style, "
         "loss_network, loss, optimize"),
        # ranges, types and choices
        ("optimize: {iterations: 0}", "FILE:2: optimize.iterations: must be at least 1, got 0"),
        ("optimize: {tolerance: 1}", "FILE:2: optimize.tolerance: must be below 1, got 1"),
        ("optimize: {learning_rate: 10.5}",
         "FILE:2: optimize.learning_rate: must be at most 10, got 10.5"),
        ("optimize: {restart_every: 1}",
         "FILE:2: optimize.restart_every: must be at least 2, got 1"),
        ("optimize: {method: sgd}",
         "FILE:2: optimize.method: must be lbfgs or adam, got 'sgd'"),
        ("optimize: {bounds: }",
         "FILE:2: optimize.bounds: must be box, clip or none, got nothing"),
        ("optimize: {init: 3}",
         "FILE:2: optimize.init: must be a path (put quotes around it), got 3"),
        ("optimize: {init: 'http://x/y'}",
         "FILE:2: optimize.init: 'http://x/y' is a URL; download it first (data/README.md has the "
         "commands) and give the path of the file"),
        # between settings
        ("optimize:\n  restart_every: 20\n  method: adam\n  bounds: clip",
         "FILE:3: optimize.restart_every: adam has no history to clear; leave it out"),
        ("optimize:\n  bounds: clip\n  restart_every: 20",
         "FILE:4: optimize.restart_every: needs optimize.bounds box or none, got clip"),
        ("optimize:\n  scales: 7",
         "FILE:3: optimize.scales: must be at most 6, got 7: the coarsest picture "
         "would have 8 pixels of 512, fewer than 16"),
        ("optimize: {scales: 2, size: [640, 31]}",
         "FILE:2: optimize.scales: must be at most 1, got 2: the coarsest picture "
         "would have 15 pixels of 31, fewer than 16"),
        ("loss: {content_weight: 0, style_weight: 0, tv_weight: 0}",
         "FILE:2: loss.content_weight: content_weight, style_weight and tv_weight are all 0, which "
         "leaves nothing to draw; raise one of them"),
        ("loss:\n  style_layers: {conv4_4: 1}",
         "FILE:3: loss.style_layers: vgg16 has no conv4_4; the last of its block 4 is conv4_3 "
         "(loss_network.architecture); write conv4_3 or relu4_3 instead, or set "
         "loss_network.architecture to vgg19 and loss_network.weights to imagenet"),
        ("loss_network: {architecture: vgg19, weights: imagenet_features}",
         "FILE:2: loss_network.architecture: must be vgg16 for the weights imagenet_features, got "
         "vgg19; for vgg19, set loss_network.weights to imagenet"),
    ],
)  # fmt: skip
def test_a_mistake_about_an_optimization_is_told(tmp_path, lines, message):
    assert complaint(GatysConfig, tmp_path, f"{GATYS_LEAST}{lines}\n") == message


def test_all_mistakes_about_an_optimization_are_told_at_once(tmp_path):
    text = """\
style:
  blend:
  - {image: b.jpg, weight: 0}
  - image: https://x.org/c.jpg
    weight: 1
  -
    image: d.jpg
    weight: heavy
  - {image: '', wieght: 1}
  - e.jpg
  size: 3
optimize:
  size: [8, 16]
  steps: 3
"""
    assert complaint(GatysConfig, tmp_path, text, "optimize.init=", "name=a") == (
        "FILE:1: style.image: missing; give the style picture\n"
        "FILE:3: style.blend[0].weight: must be above 0, got 0\n"
        "FILE:4: style.blend[1].image: 'https://x.org/c.jpg' is a URL; download it first "
        "(data/README.md has the commands) and give the path of the file\n"
        "FILE:8: style.blend[2].weight: must be a number, got 'heavy'\n"
        "FILE:9: style.blend[3].image: must be a path, got ''\n"
        "FILE:9: style.blend[3].weight: missing; give the weight of this picture in the style "
        "loss\n"
        "FILE:9: style.blend[3].wieght: unknown key; did you mean 'style.blend[3].weight'?\n"
        "FILE:10: style.blend[4]: must be a section of key: value lines, got 'e.jpg'\n"
        "FILE:11: style.size: must be at least 16, got 3\n"
        "FILE:13: optimize.size[0]: must be at least 16, got 8\n"
        "FILE:14: optimize.steps: unknown key; valid keys here: method, iterations, size, "
        "scales, init, bounds, learning_rate, history, tolerance, restart_every\n"
        "'name=a' on the command line: name: unknown key; valid keys here: seed, style, "
        "loss_network, loss, optimize\n"
        "'optimize.init=' on the command line: optimize.init: must be a path, got nothing"
    )


# --- Several style pictures ---------------------------------------------------------------------


def blend_of(config: GatysConfig) -> list[tuple[Path, float]]:
    return [(further.image, further.weight) for further in config.style.blend]


@pytest.mark.parametrize(
    "form",
    [
        "[{{image: {0}, weight: {1}}}, {{image: {2}, weight: {3}}}]",
        "{{{0}: {1}, {2}: {3}}}",  # of earlier versions
    ],
)
def test_paths_of_a_blend_are_relative_to_what_gives_them(tmp_path, monkeypatch, form):
    (tmp_path / "configs").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/someone")
    blend = form.format("../b.jpg", 0.5, "~/c.jpg", 2)
    path = write(tmp_path / "configs", f"style:\n  image: s.jpg\n  blend: {blend}\n")
    configs, here = tmp_path / "configs", tmp_path / "here"
    config = load_gatys_config(path)
    assert blend_of(config) == [
        (configs / "../b.jpg", 0.5),
        (Path("/home/someone/c.jpg"), 2.0),
    ]

    blend = form.format("b.jpg", 0.25, "/d.jpg", 1e-3)
    of_the_word = [(here / "b.jpg", 0.25), (Path("/d.jpg"), 0.001)]
    config = load_gatys_config(path, [f"style.blend={blend}"])
    assert blend_of(config) == of_the_word


def test_a_blend_may_be_empty_in_both_forms(tmp_path):
    text = f"{GATYS_LEAST.rstrip()[:-1]}, blend: [{{image: b.jpg, weight: 1}}]}}\n"
    assert len(read(GatysConfig, tmp_path, text).style.blend) == 1
    for empty in ("[]", "{}"):
        assert read(GatysConfig, tmp_path, text, f"style.blend={empty}").style.blend == ()


def test_stored_settings_of_earlier_versions_give_the_same_blend_as_todays():
    old = {"style": {"image": "/s.jpg", "blend": {"/b.jpg": 0.5, "/c.jpg": 2}}}
    new = [{"image": "/b.jpg", "weight": 0.5}, {"image": "/c.jpg", "weight": 2.0}]
    config = parse(GatysConfig, old, "x")
    assert to_dict(config)["style"]["blend"] == new
    assert parse(GatysConfig, to_dict(config), "x") == config


def test_a_mistake_in_the_old_form_names_the_entry(tmp_path):
    text = "style:\n  image: s.jpg\n  blend:\n    b.jpg: 0\n    http://x/c.jpg: 1\n"
    first, second = complaint(GatysConfig, tmp_path, text).splitlines()
    assert first == "FILE:3: style.blend[0].weight: must be above 0, got 0"
    assert second.startswith("FILE:3: style.blend[1].image: 'http://x/c.jpg' is a URL; ")


@pytest.mark.parametrize(
    ("blend", "message"),
    [
        ("[{image: b.jpg, weight: 1}, {image: ./b.jpg, weight: 2}]",
         "style.blend[1].image: 'FOLDER/b.jpg' is also style.blend[0].image; give each style "
         "picture once"),
        ("[{image: link.jpg, weight: 1}, {image: b.jpg, weight: 2}]",
         "style.blend[1].image: 'FOLDER/b.jpg' is also style.blend[0].image; give each style "
         "picture once"),
        ("{b.jpg: 1, a/../b.jpg: 2}",
         "style.blend[1].image: 'FOLDER/a/../b.jpg' is also style.blend[0].image; give each style "
         "picture once"),
        ("[{image: ./s.jpg, weight: 1}]",
         "style.blend[0].image: 'FOLDER/s.jpg' is also style.image, which has the weight 1; give "
         "each style picture once"),
        ("b.jpg",
         "style.blend: must be a list of {image: path, weight: above 0}, got 'b.jpg'"),
        ("",
         "style.blend: must be a list of {image: path, weight: above 0}, got nothing"),
    ],
)  # fmt: skip
def test_a_picture_of_a_blend_is_given_once(tmp_path, blend, message):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "b.jpg")
    text = f"style:\n  image: s.jpg\n  blend: {blend}\n"
    found = complaint(GatysConfig, tmp_path, text).replace(str(tmp_path), "FOLDER")
    assert found == f"FILE:3: {message}"


@pytest.mark.parametrize("blend", ["", "\n  blend: [{image: b.jpg, weight: 1}]"])
def test_a_word_cannot_change_a_part_of_a_blend(tmp_path, blend):
    text = f"style:\n  image: s.jpg{blend}\n"
    assert complaint(GatysConfig, tmp_path, text, "style.blend.weight=2") == (
        "'style.blend.weight=2' on the command line: style.blend is a list; set the whole list, as "
        "style.blend=[...]"
    )


def test_init_is_a_word_or_a_path(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for word in INIT_WORDS:
        for config in (
            read(GatysConfig, tmp_path, f"{GATYS_LEAST}optimize: {{init: {word}}}\n"),
            read(GatysConfig, tmp_path, GATYS_LEAST, f"optimize.init={word}"),
        ):
            assert config.optimize.init == word
    config = read(GatysConfig, tmp_path, f"{GATYS_LEAST}optimize: {{init: ./content}}\n")
    assert config.optimize.init == str(tmp_path / "content")
    config = read(GatysConfig, tmp_path, f"{GATYS_LEAST}optimize: {{init: imagenet}}\n")
    assert config.optimize.init == str(tmp_path / "imagenet")
    config = read(GatysConfig, tmp_path, GATYS_LEAST, "optimize.init=a: 1.jpg")
    assert config.optimize.init == str(tmp_path / "here" / "a: 1.jpg")


def test_weights_of_one_term_alone_can_be_optimized(tmp_path):
    for off in (("content", "tv"), ("style", "tv"), ("content", "style")):
        read(GatysConfig, tmp_path, GATYS_LEAST, *(f"loss.{name}_weight=0" for name in off))


def test_settings_of_adam_and_lbfgs_may_stand_side_by_side(tmp_path):
    text = "optimize: {history: 5, tolerance: 0.01, learning_rate: 0.039, "
    for rest in (
        "method: adam}", "method: adam, bounds: clip}", "restart_every: 20}",
        "restart_every: 20, bounds: none}", "bounds: clip}",
    ):  # fmt: skip
        read(GatysConfig, tmp_path, f"{GATYS_LEAST}{text}{rest}\n")


def test_the_coarsest_of_the_scales_may_have_sixteen_pixels(tmp_path):
    config = read(GatysConfig, tmp_path, GATYS_LEAST, "optimize.scales=6")
    assert config.optimize.size / 2 ** (config.optimize.scales - 1) == 16
    read(GatysConfig, tmp_path, GATYS_LEAST, "optimize.scales=8", "optimize.size=[2048, 4096]")


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_a_picture_of_a_blend_whose_path_is_not_utf8_survives(tmp_path):
    config = read(
        GatysConfig, tmp_path, GATYS_LEAST, r'style.blend=[{image: "\udcff.jpg", weight: 1}]'
    )
    (further,) = config.style.blend
    assert os.fsencode(further.image).endswith(b"/\xff.jpg")
    assert read(GatysConfig, tmp_path, to_yaml(config)) == config


# --- Files of trainings ---------------------------------------------------------------------------

TRAINING = """\
name: waves
seed: 7
style: {image: wave.jpg}
data: {photos: photos}
loss_network: {weights: compact}
loss:
  style_weight: 3
"""


def test_losses_of_a_training_file_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "training.yaml"
    path.write_text(TRAINING)
    config = load_gatys_config(path, ["optimize.iterations=60", "loss.tv_weight=2"])
    assert config.seed == 7
    assert config.style.image == tmp_path / "wave.jpg"
    assert config.style.size == 256  # a training's default, at which the network learns its strokes
    assert config.loss_network.weights == "compact"
    assert (config.loss.style_weight, config.loss.tv_weight) == (3, 2)
    assert config.optimize.iterations == 60


def test_words_change_the_defaults_of_a_training_file_as_in_training(tmp_path: Path) -> None:
    text = "name: a\nstyle: {image: s.jpg}\ndata: {photos: p}\n"

    def weight(*words: str) -> float:
        return read(GatysConfig, tmp_path, text, *words).loss.autocorrelation_weight

    assert weight() == 50
    assert weight("loss.normalization=paper", "optimize.size=64") == 0
    assert weight("loss.normalization=paper", "loss.autocorrelation_weight=3") == 3
    assert weight(*reconstruction("relu3_1", "style")) == 0


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("train: {stesp: 3}", "seed=2", "training.yaml:8: train.stesp: unknown key; did you mean"),
        ("train: {steps: 0}", "seed=2", "training.yaml:8: train.steps: must be at least 1, got 0"),
        ("train: {}", "train.steps=3", "on the command line: train: unknown key"),
    ],
)
def test_mistakes_in_a_training_file_are_told_as_training_tells_them(
    text: str, word: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "training.yaml"
    path.write_text(TRAINING + text)
    with pytest.raises(UserError) as caught:
        load_gatys_config(path, [word])
    assert expected in str(caught.value)
