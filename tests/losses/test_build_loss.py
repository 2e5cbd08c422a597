"""Claims about `build`: settings become a loss, and unusable style pictures are named."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import pytest
import torch
from PIL import Image
from small_distillation import random_convolutions
from small_optimization import CPU, settings_of, write_small_optimization
from small_run import draw_photo
from torch import Tensor

from fast_style.core.errors import UserError
from fast_style.losses.build import (
    BlendedStyle,
    build_perceptual_loss,
    load_loss_weights,
    read_style,
)
from fast_style.losses.judge import load_judge_settings, load_judge_weights
from fast_style.losses.loss_network import Weights
from fast_style.losses.weight_files import write_weights_file
from fast_style.settings.config import Config
from fast_style.settings.gatys_config import GatysConfig
from fast_style.settings.layers import torchvision_index

WHITE = Image.new("RGB", (20, 20), "white")


@pytest.fixture
def config(tmp_path: Path) -> GatysConfig:
    return settings_of(write_small_optimization(tmp_path))


def blind_to_white() -> Weights:
    """conv1_1 alone, whose ReLU lets nothing of a white picture through."""
    kernel = torch.zeros(4, 3, 3, 3)
    kernel[:, :, 1, 1] = -1
    return Weights({"1_1": (kernel, torch.zeros(4))}, "torchvision", "zeros", "random", "")


def test_settings_of_the_loss_arrive(config: GatysConfig) -> None:
    loss = build_perceptual_loss(config, load_loss_weights(config), draw_photo(1), CPU)
    assert loss.content_layers == {"relu1_2": 1.0}
    assert loss.style_layers == {"relu1_1": 1.0}
    assert (loss.content_weight, loss.style_weight) == (
        config.loss.content_weight,
        config.loss.style_weight,
    )


def test_missing_weights_of_the_judge_are_to_be_named_by_its_own_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    for option in ("--weights", "log.judge_weights"):
        with pytest.raises(UserError) as caught:
            load_judge_weights(load_judge_settings(None), option)
        assert option in str(caught.value)
        assert "compact" not in str(caught.value)  # which the judge refuses


def test_file_of_the_judge_that_is_gone_is_to_be_named_by_its_own_option(tmp_path: Path) -> None:
    gone = tmp_path / "gone.pth"
    for option in ("--weights", "log.judge_weights"):
        with pytest.raises(UserError) as caught:
            load_judge_weights(load_judge_settings(str(gone)), option)
        message = str(caught.value)
        assert message.startswith(f"{gone}: ")
        assert f"check {option} (imagenet_features, or" in message
        assert "loss_network." not in message


VGG16 = {"1_1": 4, "1_2": 4, "2_1": 6, "2_2": 6, "3_1": 6, "3_2": 6, "3_3": 6}
VGG16 |= {"4_1": 8, "4_2": 8, "4_3": 8}
UP_TO_CONV2_2 = {number: VGG16[number] for number in ("1_1", "1_2", "2_1", "2_2")}


@pytest.mark.parametrize(
    ("name", "channels", "problem"),
    [
        ("vgg.pth", UP_TO_CONV2_2, "has no conv3_1 (features.10) of vgg16"),
        ("vgg.pth", UP_TO_CONV2_2 | {"3_1": 6, "3_2": 6, "3_3": 6}, "has no conv4_1"),
        ("vgg.h5", VGG16 | {"3_4": 6}, "has a conv3_4, so it is a vgg19"),
        ("other.pth", VGG16, "conv2_1 (features.5) has the shape (6, 3, 3, 3)"),
        (
            "torchvision.safetensors",
            VGG16,
            "the judge's preprocessing is caffe, but these weights need torchvision",
        ),
    ],
)
def test_weights_that_do_not_fit_the_judge_are_to_be_others(
    tmp_path: Path, name: str, channels: dict[str, int], problem: str
) -> None:
    path = tmp_path / name
    convolutions = random_convolutions(channels)
    if name == "other.pth":
        kernel, bias = convolutions["2_1"]
        convolutions["2_1"] = (kernel[:, :3], bias)
    if path.suffix == ".safetensors":
        write_weights_file(path, "vgg16", convolutions, {}, {"preprocessing": "torchvision"})
    elif path.suffix == ".h5":
        write_keras_weights(path, convolutions)
    else:
        torch.save(state_dict_of(convolutions), path)
    with pytest.raises(UserError) as caught:
        load_judge_weights(load_judge_settings(str(path)), "--weights")
    message = str(caught.value)
    assert message.startswith(f"{path}: {problem}")
    assert message.endswith(
        ". Choose other weights: the judge's, from --weights, are of VGG-16 up to relu4_3 and of "
        "Caffe origin"
    )
    for setting in ("loss_network", "loss."):  # the judge's never change
        assert setting not in message


def state_dict_of(convolutions: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Convolutions as torchvision names them in a VGG-16."""
    tensors = {}
    for number, (kernel, bias) in convolutions.items():
        index = torchvision_index(f"conv{number}", "vgg16")
        tensors |= {f"features.{index}.weight": kernel, f"features.{index}.bias": bias}
    return tensors


def write_keras_weights(path: Path, convolutions: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    with h5py.File(path, "w") as file:
        for number, (kernel, bias) in convolutions.items():
            layer = file.create_group(f"block{number[0]}_conv{number[2]}")
            layer["kernel:0"], layer["bias:0"] = kernel.permute(2, 3, 1, 0), bias


def test_weights_end_with_the_deepest_layer_of_the_loss(config: GatysConfig) -> None:
    assert [*load_loss_weights(config).convolutions] == ["1_1", "1_2"]


def test_shares_of_a_blend_are_its_weights_beside_one(config: GatysConfig) -> None:
    blend = [BlendedStyle(Path("b"), draw_photo(2), 3.0)]
    loss = build_perceptual_loss(config, load_loss_weights(config), draw_photo(1), CPU, blend=blend)
    assert loss.style_shares == [0.25, 0.75]
    own = build_perceptual_loss(config, load_loss_weights(config), draw_photo(2), CPU)
    assert torch.equal(loss.style_grams("relu1_1")[1], own.style_grams("relu1_1")[0])


@pytest.mark.parametrize("blank", ["style", "blend"])
def test_style_picture_that_the_network_does_not_see_is_named(tmp_path: Path, blank: str) -> None:
    config = settings_of(write_small_optimization(tmp_path), "loss.content_layers={}")
    style, further = (WHITE, draw_photo(1)) if blank == "style" else (draw_photo(1), WHITE)
    with pytest.raises(UserError) as caught:
        build_perceptual_loss(
            config,
            blind_to_white(),
            style,
            CPU,
            blend=[BlendedStyle(Path("other.png"), further, 1.0)],
        )
    path = config.style.image if blank == "style" else Path("other.png")
    assert str(caught.value) == (
        f"{path}: the loss network sees nothing in this style picture (the Gram matrix of relu1_1 "
        "is zero or not finite); choose another one"
    )


def test_style_is_read_at_its_training_size_and_strips_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "style.png"
    config = Config.model_validate(
        {"name": "a", "style": {"image": path, "size": 32}, "data": {"photos": tmp_path}}
    )
    draw_photo(1, (80, 64)).save(path)
    assert read_style(config.style.image, config.style.size).size == (40, 32)
    draw_photo(1, (210, 10)).save(path)
    with pytest.raises(UserError) as caught:
        read_style(config.style.image, config.style.size)
    assert str(caught.value) == (
        f"{path}: 210 x 10 pixels are a strip; crop the style picture to at most 20 times as long "
        "as wide"
    )
