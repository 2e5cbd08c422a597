"""Claims about `config`: the settings of training runs and distillations, and their rules."""

import pytest
import yaml
from pydantic import ValidationError
from settings_files import (
    ALL_DEFAULTS,
    ALL_DISTILL_DEFAULTS,
    DISTILL_LEAST,
    LEAST,
    complaint,
    read,
)

from fast_style.settings.config import Config, DistillConfig, parse_config
from fast_style.settings.structure import iterate_fields
from fast_style.settings.writing import flatten, to_dict


def test_a_file_that_spells_all_defaults_equals_the_defaults(tmp_path):
    spelled = read(Config, tmp_path, ALL_DEFAULTS)
    assert spelled == read(Config, tmp_path, LEAST)
    written = flatten(yaml.safe_load(ALL_DEFAULTS))
    layers = {key for key in written if "_layers." in key}
    assert {key for key, _ in iterate_fields(Config)} == (written.keys() - layers) | {
        "loss.content_layers",
        "loss.style_layers",
    }


def test_keras_names_of_layers_become_ours(tmp_path):
    text = f"{LEAST}loss: {{content_layers: {{block4_conv3: 2, conv1_1: 1}}}}\n"
    assert read(Config, tmp_path, text).loss.content_layers == {"relu4_3": 2.0, "conv1_1": 1.0}


def test_settings_are_frozen_all_the_way_down(tmp_path):
    least = read(Config, tmp_path, LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        least.train.steps = 3
    with pytest.raises(TypeError):
        least.loss.style_layers["relu1_1"] = 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("train: {steps: 100, warmup_steps: 100}",
         "FILE:4: train.warmup_steps: must be below train.steps (100), got 100"),
        ("train:\n  steps: 100\n  warmup_steps: 200",
         "FILE:6: train.warmup_steps: must be below train.steps (100), got 200"),
        ("loss: {content_weight: 0, style_weight: 0, tv_weight: 0}",
         "FILE:4: loss.content_weight: content_weight, style_weight and tv_weight are all 0, which "
         "leaves nothing to learn; raise one of them"),
        ("loss_network: {architecture: vgg19, weights: imagenet_features}",
         "FILE:4: loss_network.architecture: must be vgg16 for the weights imagenet_features, got "
         "vgg19; for vgg19, set loss_network.weights to imagenet"),
        ("loss_network:\n  weights: random\n  preprocessing: caffe",
         "FILE:6: loss_network.preprocessing: cannot be set for the weights random, which have "
         "their own; leave it out"),
        ("teacher: {weights: random}",
         "FILE:4: teacher: unknown key; this section is of a file for fast-style distill"),
        ("optimize: {size: 64}",
         "FILE:4: optimize: unknown key; this section is of a file for fast-style optimize"),
        ("loss: {style_layers: {}, autocorrelation_weight: 0}",
         "FILE:4: loss.style_layers: without a layer, and with loss.autocorrelation_weight 0, no "
         "style is learned; name a layer, or set loss.style_weight to 0 if that is meant"),
        ("loss: {style_layers: {relu1_3: 1}}",
         "FILE:4: loss.style_layers: vgg16 has no relu1_3; the last of its block 1 is relu1_2 "
         "(loss_network.architecture)"),
        ("loss: {style_layers: {relu3_4: 1, conv4_4: 1}}\nloss_network: {weights: random}",
         "FILE:4: loss.style_layers: vgg16 has no conv4_4; the last of its block 4 is conv4_3 "
         "(loss_network.architecture); write conv4_3 or relu4_3 instead, or set "
         "loss_network.architecture to vgg19\n"
         "FILE:4: loss.style_layers: vgg16 has no relu3_4; the last of its block 3 is relu3_3 "
         "(loss_network.architecture); write relu3_3 or relu4_3 instead, or set "
         "loss_network.architecture to vgg19"),
    ],
)  # fmt: skip
def test_a_contradiction_in_a_training_run_is_told(tmp_path, lines, message):
    assert complaint(Config, tmp_path, f"{LEAST}{lines}\n") == message


OLD_LAYERS = "{relu1_2: 1, relu2_2: 1, relu3_3: 1, relu3_4: 1}"
OF_VGG19 = "loss.style_layers: vgg16 has no relu3_4; the last of its block 3 is relu3_3 "


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (f"loss_network:\n  architecture: vgg19\n  weights: compact\nloss:\n"
         f"  style_layers: {OLD_LAYERS}",
         "FILE:5: loss_network.architecture: must be vgg16 for the weights compact, got vgg19; "
         "they are learned from VGG-16 up to relu4_3, and no longer from VGG-19\n"
         f"FILE:8: {OF_VGG19}(loss_network.architecture); write relu4_3 instead"),
        (f"loss_network: {{weights: compact}}\nloss:\n  style_layers: {OLD_LAYERS}\n"
         "  content_layers: {relu3_4: 1}",
         f"FILE:6: {OF_VGG19}(loss_network.architecture); write relu4_3 instead\n"
         "FILE:7: loss.content_layers: vgg16 has no relu3_4; the last of its block 3 is relu3_3 "
         "(loss_network.architecture); write relu3_3 or relu4_3 instead"),
        ("loss_network: {weights: compact}\nloss: {style_layers: {relu3_3: 1, relu3_4: 1, "
         "relu4_3: 1}}",
         f"FILE:5: {OF_VGG19}(loss_network.architecture); leave it out"),
        (f"loss: {{style_layers: {OLD_LAYERS}}}",
         f"FILE:4: {OF_VGG19}(loss_network.architecture); write relu4_3 instead, or set "
         "loss_network.architecture to vgg19 and loss_network.weights to imagenet"),
        (f"loss_network: {{weights: vgg19.pth}}\nloss: {{style_layers: {OLD_LAYERS}}}",
         f"FILE:5: {OF_VGG19}(loss_network.architecture); write relu4_3 instead, or set "
         "loss_network.architecture to vgg19"),
    ],
    ids=["whole", "compact", "leave out", "defaults", "file"],
)  # fmt: skip
def test_a_file_for_the_vgg19_of_earlier_versions_is_told_which_lines_to_change(
    tmp_path, lines, message
):
    assert complaint(Config, tmp_path, f"{LEAST}{lines}\n") == message


def test_a_file_that_names_vgg19_and_its_weights_is_as_good_as_before(tmp_path):
    text = f"{LEAST}loss: {{style_layers: {OLD_LAYERS}}}\n"
    words = ["loss_network.architecture=vgg19", "loss_network.weights=imagenet"]
    assert "relu3_4" in read(Config, tmp_path, text, *words).loss.style_layers


def test_a_file_that_spells_all_defaults_of_a_distillation_equals_them(tmp_path):
    least = read(DistillConfig, tmp_path, DISTILL_LEAST)
    assert read(DistillConfig, tmp_path, ALL_DISTILL_DEFAULTS) == least
    spelled = yaml.safe_load(ALL_DISTILL_DEFAULTS)
    assert {key for key, _ in iterate_fields(DistillConfig)} == set(flatten(spelled))
    assert least.data.paintings == tmp_path / "q"
    assert least.student.widths == (24, 64, 96, 160)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # the student
        ("student: {widths: [8, 16], deepest: relu4_3}",
         "FILE:3: student.widths: must have 4 numbers, one for each block up to "
         "student.deepest (relu4_3), got [8, 16]"),
        ("student:\n  deepest: relu2_2\n  widths: [24, 64, 96, 160]",
         "FILE:5: student.widths: must have 2 numbers, one for each block up to "
         "student.deepest (relu2_2), got [24, 64, 96, 160]"),
        ("student: {deepest: conv4_3}",
         "FILE:3: student.deepest: must be a layer after a ReLU, got conv4_3"),
        ("student:\n  deepest: relu3_4\n  widths: [8, 16, 32]",
         "FILE:4: student.deepest: vgg16 has no relu3_4; the last of its block 3 is relu3_3 "
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
        ("teacher: {architecture: vgg19, weights: imagenet_features}",
         "FILE:3: teacher.architecture: must be vgg16 for the weights imagenet_features, got "
         "vgg19; for vgg19, set teacher.weights to imagenet"),
        ("teacher: {weights: random, preprocessing: caffe}",
         "FILE:3: teacher.preprocessing: cannot be set for the weights random, which have their "
         "own; leave it out"),
        ("teacher: {weights: compact, preprocessing: caffe}",
         "FILE:3: teacher.weights: cannot be compact, which was learned from another network; set "
         "it to imagenet_features, or to a file"),
        ("teacher: {weights: compact, architecture: vgg19}",
         "FILE:3: teacher.weights: cannot be compact, which was learned from another network; set "
         "it to imagenet, or to a file"),
        ("style: {image: a.jpg}",
         "FILE:3: style: unknown key; this section is of a file for fast-style train"),
        ("loss_network: {weights: random}",
         "FILE:3: loss_network: unknown key; valid keys here: name, seed, teacher, student, data, "
         "train, log"),
        # the rest
        ("train: {steps: 100, warmup_steps: 100}",
         "FILE:3: train.warmup_steps: must be below train.steps (100), got 100"),
        ("train: {painters: -1}", "FILE:3: train.painters: must be at least 0, got -1"),
        ("log: {keep_checkpoints: 1}",
         "FILE:3: log.keep_checkpoints: must be at least 2, got 1"),
    ],
)  # fmt: skip
def test_a_mistake_about_a_distillation_is_told(tmp_path, lines, message):
    assert complaint(DistillConfig, tmp_path, f"{DISTILL_LEAST}{lines}\n") == message


def test_paintings_must_be_said(tmp_path):
    found = complaint(DistillConfig, tmp_path, "name: a\ndata: {photos: p}\n")
    assert found == "FILE:2: data.paintings: missing; give a folder of paintings"


def test_counts_have_their_names_in_the_file(tmp_path):
    config = read(
        DistillConfig,
        tmp_path,
        f"{DISTILL_LEAST}train: {{photos: 2, surfaces: 5}}\n",
        "train.paintings=0",
        "train.painters=6",
    )
    train = config.train
    counts = (train.num_photos, train.num_paintings, train.num_surfaces, train.num_painters)
    assert counts == (2, 0, 5, 6)


def test_a_layer_of_a_distillation_may_have_the_name_of_keras(tmp_path):
    words = ["student.deepest=block2_conv2", "student.widths=[4, 8]"]
    assert read(DistillConfig, tmp_path, DISTILL_LEAST, *words).student.deepest == "relu2_2"


# --- Defaults that fit what was set ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "warmup_steps"), [(101, 100), (100, 10), (50, 5), (9, 0), (1, 0)]
)
def test_a_warm_up_that_was_not_set_ends_before_the_last_step(tmp_path, steps, warmup_steps):
    for root, least in ((Config, LEAST), (DistillConfig, DISTILL_LEAST)):
        config = read(root, tmp_path, f"{least}train: {{steps: {steps}}}\n")
        assert config.train.warmup_steps == warmup_steps
        assert read(root, tmp_path, least, f"train.steps={steps}") == config


@pytest.mark.parametrize("name", ["autocorrelation_weight", "halo_weight"])
def test_terms_that_were_not_set_do_not_go_with_the_papers(tmp_path, name):
    def weight(text, *words):
        return getattr(read(Config, tmp_path, LEAST + text, *words).loss, name)

    assert weight("") == 50
    assert weight("loss: {normalization: paper}\n") == 0
    assert weight("", "loss.normalization=paper") == 0
    assert weight(f"loss: {{normalization: paper, {name}: 3}}\n") == 3
    assert weight(f"loss: {{{name}: 0}}\n") == 0


@pytest.mark.parametrize(
    ("name", "once", "now"),
    [
        ("stability_noise", 6.0, 3.0),
        ("stability_weight", 0.0, 20.0),
        ("autocorrelation_weight", 0.0, 50.0),
        ("halo_weight", 0.0, 50.0),
        ("style_weight", 5.0, 1.5),
    ],
)
def test_settings_stored_before_a_key_came_mean_what_training_did_then(tmp_path, name, once, now):
    config = read(Config, tmp_path, LEAST)
    assert getattr(config.loss, name) == now
    stored = to_dict(config)
    assert getattr(parse_config(stored, "model.safetensors").loss, name) == now
    del stored["loss"][name]
    assert getattr(parse_config(stored, "model.safetensors").loss, name) == once


def test_weights_that_were_not_set_fit_the_architecture(tmp_path):
    assert read(Config, tmp_path, LEAST).loss_network.weights == "imagenet_features"
    config = read(Config, tmp_path, LEAST, "loss_network.architecture=vgg19")
    assert config.loss_network.weights == "imagenet"
    distilling = read(DistillConfig, tmp_path, DISTILL_LEAST, "teacher.architecture=vgg19")
    assert distilling.teacher.weights == "imagenet"


@pytest.mark.parametrize(
    ("word", "widths", "deepest"),
    [
        ("student.deepest=relu2_1", (24, 64), "relu2_1"),
        ("student.deepest=relu5_1", (24, 64, 96, 160, 160), "relu5_1"),
        ("student.widths=[8, 16]", (8, 16), "relu2_2"),
        ("student.widths=[1, 2, 3, 4]", (1, 2, 3, 4), "relu4_3"),
        ("seed=1", (24, 64, 96, 160), "relu4_3"),
    ],
)
def test_a_student_fits_what_was_set_of_it(tmp_path, word, widths, deepest):
    student = read(DistillConfig, tmp_path, DISTILL_LEAST, word).student
    assert (student.widths, student.deepest) == (widths, deepest)
