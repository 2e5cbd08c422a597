"""Claims about `layers`, from the layer tables of VGG-16 and VGG-19."""

import re

import pytest

from fast_style.settings.layers import (
    CHANNELS_PER_BLOCK,
    LAYER_PATTERN,
    canonical_layer,
    convolution_of,
    deepest_layer,
    layer_names,
    require_layers,
    torchvision_index,
)

# By hand, from Simonyan and Zisserman 2015, table 1: convolution, ReLU and pool count as one each.
VGG19 = {
    "1_1": 0, "1_2": 2,
    "2_1": 5, "2_2": 7,
    "3_1": 10, "3_2": 12, "3_3": 14, "3_4": 16,
    "4_1": 19, "4_2": 21, "4_3": 23, "4_4": 25,
    "5_1": 28, "5_2": 30, "5_3": 32, "5_4": 34,
}  # fmt: skip
VGG16 = {
    "1_1": 0, "1_2": 2,
    "2_1": 5, "2_2": 7,
    "3_1": 10, "3_2": 12, "3_3": 14,
    "4_1": 17, "4_2": 19, "4_3": 21,
    "5_1": 24, "5_2": 26, "5_3": 28,
}  # fmt: skip
TABLES = [("vgg16", VGG16), ("vgg19", VGG19)]


@pytest.mark.parametrize(("architecture", "table"), TABLES)
def test_convolutions_are_where_torchvision_has_them(architecture, table):
    found = {name: torchvision_index(f"conv{name}", architecture) for name in table}
    assert found == table


@pytest.mark.parametrize(("architecture", "table"), TABLES)
def test_every_relu_follows_its_convolution(architecture, table):
    for name, index in table.items():
        assert torchvision_index(f"relu{name}", architecture) == index + 1


@pytest.mark.parametrize(("architecture", "table"), TABLES)
def test_layer_names_are_all_layers_in_the_order_of_computation(architecture, table):
    assert layer_names(architecture) == [
        f"{kind}{name}" for name in table for kind in ("conv", "relu")
    ]


def test_each_of_the_five_blocks_has_its_channels():
    assert CHANNELS_PER_BLOCK == (64, 128, 256, 512, 512)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("relu1_1", "relu1_1"),
        ("conv5_4", "conv5_4"),
        ("block1_conv1", "relu1_1"),
        ("block4_conv3", "relu4_3"),
        ("block5_conv2", "relu5_2"),
    ],
)
def test_keras_names_mean_the_layer_after_the_relu(name, canonical):
    assert canonical_layer(name) == canonical
    assert re.search(LAYER_PATTERN, name)


@pytest.mark.parametrize(
    "name",
    ["", "relu", "relu6_1", "relu0_1", "relu1_5", "relu1_0", "pool1", "block4_pool", "Relu1_1",
     "relu1_1 ", "relu1_1\n", "relu1-1", "block1_relu1", "conv12_1", "relu\u0661_1"],
)  # fmt: skip
def test_other_names_are_no_layers(name):
    with pytest.raises(ValueError, match="is not a VGG layer") as caught:
        canonical_layer(name)
    assert str(caught.value) == (
        f"{name!r} is not a VGG layer; say for example relu3_3, conv3_3 or block3_conv3"
    )
    assert not re.fullmatch(LAYER_PATTERN, name)


@pytest.mark.parametrize(
    ("name", "architecture", "message"),
    [
        ("relu1_3", "vgg19", "vgg19 has no relu1_3; the last of its block 1 is relu1_2"),
        ("conv3_4", "vgg16", "vgg16 has no conv3_4; the last of its block 3 is conv3_3"),
        ("relu5_4", "vgg16", "vgg16 has no relu5_4; the last of its block 5 is relu5_3"),
    ],
)
def test_a_layer_that_the_network_has_not_is_named(name, architecture, message):
    with pytest.raises(ValueError, match=name) as caught:
        require_layers(["relu1_1", name], architecture)
    assert str(caught.value) == message


@pytest.mark.parametrize(("architecture", "table"), TABLES)
def test_a_network_has_all_its_layers(architecture, table):
    require_layers([f"{kind}{name}" for name in table for kind in ("relu", "conv")], architecture)


def test_deepest_layer_is_computed_last_whatever_the_order():
    assert deepest_layer(["relu3_4", "conv4_1", "relu1_2"], "vgg19") == "conv4_1"
    assert deepest_layer(["relu2_2", "conv2_2"], "vgg16") == "relu2_2"


def test_convolution_of_a_layer_is_its_number():
    assert convolution_of("relu3_4") == convolution_of("conv3_4") == "3_4"
