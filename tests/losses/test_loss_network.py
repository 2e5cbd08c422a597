"""Claims about `loss_network`, known answers first."""

import hashlib
import pickle
import sys
from http.client import IncompleteRead
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.models
from published_features import assert_published_features
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from fast_style.core import free_memory
from fast_style.core.errors import UserError
from fast_style.losses import loss_network
from fast_style.losses.inputs import COMPACT_FILE
from fast_style.losses.loss_network import (
    LossNetwork,
    Weights,
    full_network_is_cached,
    load_weights,
)
from fast_style.losses.perceptual import gram_matrix
from fast_style.networks import winograd
from fast_style.pictures.pixels import image_to_tensor
from fast_style.pictures.reading import read_photo
from fast_style.settings.layers import layer_names, torchvision_index
from fast_style.settings.sections import DEEPEST_LAYER

ARCHITECTURES = ["vgg16", "vgg19"]


def make_pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def torchvision_features(architecture: str, *, divide_channels_by: int = 16) -> nn.Sequential:
    """torchvision's own stack of layers, narrow, so that files stay small; random weights."""
    configuration = cfgs["D" if architecture == "vgg16" else "E"]
    narrow = [item if item == "M" else item // divide_channels_by for item in configuration]
    torch.manual_seed(3)
    features = make_layers(narrow)
    for module in features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return features


def state_dict_of(features: nn.Sequential) -> dict[str, Tensor]:
    return {f"features.{key}": value for key, value in features.state_dict().items()}


def outputs_by_layer(features: nn.Sequential, architecture: str, x: Tensor) -> dict[str, Tensor]:
    """What the modules of torchvision's VGG give, by our names, for preprocessed pixels."""
    names = {torchvision_index(name, architecture): name for name in layer_names(architecture)}
    found = {}
    with torch.inference_mode():
        for index, module in enumerate(features):
            x = module(x).clone()  # torchvision's ReLUs work in place
            if index in names:
                found[names[index]] = x.clone()
    return found


def imagenet_normalized(pixels: Tensor) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (pixels - mean) / std


def assert_same_features(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4, msg=name)


@pytest.fixture
def small_vgg(tmp_path: Path) -> Path:
    """conv1_1 to conv2_1 of a VGG-19 with four channels each, as torchvision saves it."""
    path = tmp_path / "small.pth"
    torch.save(small_tensors(), path)
    return path


def small_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for index, channels in ((0, 3), (2, 4), (5, 4)):
        kernel = torch.randn(4, channels, 3, 3, generator=generator) / 3
        tensors[f"features.{index}.weight"] = kernel
        tensors[f"features.{index}.bias"] = torch.randn(4, generator=generator) / 10
    return tensors


def load_small(path: Path, deepest: str = "relu2_1", **options: object) -> Weights:
    return load_weights(str(path), "vgg19", deepest, **{"preprocessing": "torchvision"} | options)


def message_of(path: Path | str, deepest: str = "relu2_1", **options: object) -> str:
    """What a user reads when these weights are refused."""
    with pytest.raises(UserError) as caught:
        load_weights(str(path), "vgg19", deepest, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- Features -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_are_torchvisions_at_every_layer(architecture: str, tmp_path: Path) -> None:
    features = torchvision_features(architecture)
    torch.save(state_dict_of(features), tmp_path / "vgg.pth")
    names = layer_names(architecture)
    weights = load_weights(
        str(tmp_path / "vgg.pth"), architecture, names[-1], preprocessing="torchvision"
    )
    pixels = make_pictures(2, 3, 35, 32)
    with torch.inference_mode():
        found = LossNetwork(architecture, weights)(pixels, names)
    expected = outputs_by_layer(features, architecture, imagenet_normalized(pixels))
    assert list(expected) == names
    assert_same_features(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whole_torchvision_model_of_full_width_loads(architecture: str, tmp_path: Path) -> None:
    with torch.device("meta"):  # its own initialization would take long
        model = getattr(torchvision.models, architecture)(weights=None)
    features = model.features.to_empty(device="cpu")
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in features.parameters():
            parameter.normal_(std=0.03)
    path = tmp_path / "vgg.pth"
    torch.save(state_dict_of(features), path)
    names = layer_names(architecture)
    weights = load_weights(str(path), architecture, names[-1], preprocessing="torchvision")
    path.unlink()  # 80 MB
    pixels = make_pictures(1, 3, 32, 32)
    with torch.inference_mode():
        found = LossNetwork(architecture, weights)(pixels, names)
    assert_same_features(
        found, outputs_by_layer(features, architecture, imagenet_normalized(pixels))
    )


def test_caffe_preprocessing_is_0_to_255_minus_the_mean(small_vgg: Path) -> None:
    weights = load_small(small_vgg, "conv1_1", preprocessing="caffe")
    pixels = make_pictures(1, 3, 8, 8)
    mean = torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)
    kernel, bias = weights.convolutions["1_1"]
    expected = F.conv2d(pixels * 255 - mean, kernel, bias, padding=1)
    found = LossNetwork("vgg19", weights)(pixels, ["conv1_1"])["conv1_1"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_average_pooling_averages(small_vgg: Path) -> None:
    weights = load_small(small_vgg)
    pixels = make_pictures(1, 3, 9, 8)
    names = ["relu1_2", "conv2_1"]
    found = LossNetwork("vgg19", weights, pooling="average")(pixels, names)
    kernel, bias = weights.convolutions["2_1"]
    pooled = F.avg_pool2d(found["relu1_2"], 2)
    torch.testing.assert_close(found["conv2_1"], F.conv2d(pooled, kernel, bias, padding=1))
    by_maximum = LossNetwork("vgg19", weights)(pixels, names)
    assert torch.equal(by_maximum["relu1_2"], found["relu1_2"])
    assert not torch.allclose(by_maximum["conv2_1"], found["conv2_1"])


def test_reflect_padding_reflects(small_vgg: Path) -> None:
    weights = load_small(small_vgg, "conv1_1", padding="reflect")
    pixels = make_pictures(1, 3, 7, 8)
    kernel, bias = weights.convolutions["1_1"]
    padded = F.pad(imagenet_normalized(pixels), (1, 1, 1, 1), mode="reflect")
    found = LossNetwork("vgg19", weights)(pixels, ["conv1_1"])["conv1_1"]
    torch.testing.assert_close(found, F.conv2d(padded, kernel, bias), rtol=1e-4, atol=1e-5)
    zeros = LossNetwork("vgg19", weights._replace(padding="zeros"))(pixels, ["conv1_1"])["conv1_1"]
    torch.testing.assert_close(found[..., 1:-1, 1:-1], zeros[..., 1:-1, 1:-1])
    assert not torch.allclose(found, zeros)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 24), (24, 8)])
def test_a_single_row_or_column_is_reflected_to_itself(height: int, width: int) -> None:
    """In block 4, eight pixels are one: there, what repeats in a picture is one, too."""
    weights = load_weights("random", "vgg16", "relu4_2", padding="reflect")
    network = LossNetwork("vgg16", weights)
    found = network(make_pictures(1, 3, height, width), ["relu4_1", "relu4_2"])
    before, after = found["relu4_1"], found["relu4_2"]
    assert before.shape[-2:] == after.shape[-2:] == (height // 8, width // 8)
    padded = np.pad(before.numpy(), [(0, 0), (0, 0), (1, 1), (1, 1)], mode="reflect")
    kernel, bias = weights.convolutions["4_2"]
    expected = F.relu(F.conv2d(torch.from_numpy(padded), kernel, bias))
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_many_channels_give_what_few_do_and_their_gradients(
    padding: str, small_vgg: Path, request: pytest.FixtureRequest
) -> None:
    network = LossNetwork("vgg19", load_small(small_vgg, padding=padding)).double()
    pixels = make_pictures(2, 3, 19, 14).double().contiguous(memory_format=torch.channels_last)
    names = ["conv1_1", "relu1_2", "relu2_1"]

    def look() -> list[Tensor]:
        leaf = pixels.clone().requires_grad_()
        found = network(leaf, names)
        (grad,) = torch.autograd.grad(sum(value.square().sum() for value in found.values()), leaf)
        return [*found.values(), grad]

    expected = look()
    request.getfixturevalue("winograd_everywhere")
    with patch.object(winograd, "convolve", wraps=winograd.convolve) as convolve:
        found = look()
    assert convolve.call_count == 3
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_order_and_company_of_layers_do_not_change_them(small_vgg: Path) -> None:
    # ReLUs work in place where nobody looks; a layer before one must not be overwritten.
    network = LossNetwork("vgg19", load_small(small_vgg))
    pixels = make_pictures(1, 3, 8, 8)
    names = ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "conv2_1", "relu2_1"]
    together = network(pixels, names[::-1])
    for name in names:
        assert torch.equal(network(pixels, [name])[name], together[name]), name
    assert (together["conv1_1"] < 0).any()


def test_network_of_no_layers_computes_nothing(small_vgg: Path) -> None:
    network = LossNetwork("vgg19", load_small(small_vgg))
    assert network(torch.full((1, 3, 8, 8), float("nan")), []) == {}


def test_nothing_is_computed_behind_the_deepest_layer(small_vgg: Path) -> None:
    weights = load_small(small_vgg)
    pixels = make_pictures(1, 3, 8, 8)
    expected = LossNetwork("vgg19", weights)(pixels, ["relu1_2", "relu1_1"])
    unusable = (torch.zeros(4, 7, 3, 3), torch.zeros(4))  # takes seven channels, and gets four
    network = LossNetwork(
        "vgg19", weights._replace(convolutions=weights.convolutions | {"2_1": unusable})
    )
    assert_same_features(network(pixels, ["relu1_2", "relu1_1"]), expected)
    with pytest.raises(RuntimeError):
        network(pixels, ["conv2_1"])


def test_pixels_get_a_gradient_and_the_network_none(small_vgg: Path) -> None:
    network = LossNetwork("vgg19", load_small(small_vgg))
    pixels = make_pictures(1, 3, 8, 8).requires_grad_()
    sum(value.sum() for value in network(pixels, ["conv1_1", "relu2_1"]).values()).backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().max() > 0
    assert list(network.parameters()) == []
    assert not any(buffer.requires_grad for buffer in network.buffers())


# --- Heads --------------------------------------------------------------------------------------


def small_heads() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(4, 4, generator=generator) for name in ("relu1_1", "relu2_1")}


def test_features_go_through_their_heads_and_not_on_to_the_next_layer(small_vgg: Path) -> None:
    weights = load_small(small_vgg)
    pixels = make_pictures(2, 3, 8, 8)
    names = ["conv1_1", "relu1_1", "relu1_2", "conv2_1", "relu2_1"]
    plain = LossNetwork("vgg19", weights)(pixels, names)
    heads = small_heads()
    found = LossNetwork("vgg19", weights._replace(heads=heads))(pixels, names)
    for name in names:
        expected = plain[name]
        if name in heads:
            expected = torch.einsum("ij,njyx->niyx", heads[name], expected)
        torch.testing.assert_close(found[name], expected)


def test_network_with_other_weights_keeps_the_rest(small_vgg: Path) -> None:
    weights = load_small(small_vgg)
    network = LossNetwork("vgg19", weights, pooling="average")
    pixels = make_pictures(1, 3, 8, 8)
    others = load_small(small_vgg, padding="reflect")._replace(heads=small_heads())
    found = network.with_weights(others)(pixels, ["relu2_1"])
    expected = LossNetwork("vgg19", others, pooling="average")(pixels, ["relu2_1"])
    assert torch.equal(found["relu2_1"], expected["relu2_1"])
    again = network.with_weights(weights)(pixels, ["relu2_1"])
    assert torch.equal(again["relu2_1"], network(pixels, ["relu2_1"])["relu2_1"])
    assert network.with_weights(others).mean.device == network.mean.device


@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_heads_of_a_file_are_read_as_float32_copies(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{form}"
    heads = {f"heads.{name}": head.half() for name, head in small_heads().items()}
    heads["heads.relu1_1"] = heads["heads.relu1_1"].float()
    tensors = small_tensors() | heads
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    weights = load_small(path)
    path.write_bytes(b"\xff" * path.stat().st_size)  # it was mapped into memory
    for name, head in small_heads().items():
        assert weights.heads[name].dtype == torch.float32
        assert torch.equal(weights.heads[name], heads[f"heads.{name}"].float())
        torch.testing.assert_close(weights.heads[name], head, rtol=1e-3, atol=1e-3)


def test_heads_of_layers_that_are_not_computed_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    tensors = small_tensors() | {f"heads.{name}": head for name, head in small_heads().items()}
    torch.save(tensors, path)
    assert [*load_small(path).heads] == ["relu1_1", "relu2_1"]
    assert [*load_small(path, "relu1_2").heads] == ["relu1_1"]


# --- Files --------------------------------------------------------------------------------------


def test_digest_and_label_are_those_of_the_file(small_vgg: Path) -> None:
    weights = load_small(small_vgg)
    assert weights.digest == hashlib.sha256(small_vgg.read_bytes()).hexdigest()
    assert weights.label == "small.pth weights"
    assert (weights.preprocessing, weights.padding) == ("torchvision", "zeros")


def test_only_what_is_needed_is_read(small_vgg: Path) -> None:
    assert [*load_small(small_vgg, "relu1_2").convolutions] == ["1_1", "1_2"]
    assert [*load_small(small_vgg, "conv1_1").convolutions] == ["1_1"]


def test_weights_survive_their_file(small_vgg: Path) -> None:
    # The file is mapped into memory while it is read.
    weights = load_small(small_vgg)
    small_vgg.write_bytes(b"\xff" * small_vgg.stat().st_size)
    for index, number in ((0, "1_1"), (2, "1_2"), (5, "2_1")):
        kernel, bias = weights.convolutions[number]
        assert torch.equal(kernel, small_tensors()[f"features.{index}.weight"])
        assert torch.equal(bias, small_tensors()[f"features.{index}.bias"])


FORMS = ["bare keys", "old format", "newer pickle", "float16", "safetensors"]


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_the_same_weights_load(form: str, tmp_path: Path) -> None:
    tensors, path = small_tensors(), tmp_path / "weights.pth"
    if form == "bare keys":
        torch.save({key.removeprefix("features."): t for key, t in tensors.items()}, path)
    elif form == "old format":
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    elif form == "newer pickle":  # torch warns of it
        torch.save(tensors, path, pickle_protocol=3)
    elif form == "float16":
        torch.save({key: tensor.half() for key, tensor in tensors.items()}, path)
    else:
        path = path.with_suffix(".safetensors")
        save_file(tensors, path)
    kernel, _ = load_small(path).convolutions["1_2"]
    assert kernel.dtype == torch.float32
    torch.testing.assert_close(kernel, tensors["features.2.weight"], rtol=2e-3, atol=1e-3)


def test_safetensors_say_how_they_want_to_be_used(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(small_tensors(), path, {"preprocessing": "caffe", "padding": "reflect"})
    weights = load_weights(str(path), "vgg19", "relu2_1")
    assert (weights.preprocessing, weights.padding) == ("caffe", "reflect")
    asked = load_weights(str(path), "vgg19", "relu2_1", preprocessing="caffe", padding="zeros")
    assert (asked.preprocessing, asked.padding) == ("caffe", "zeros")


def test_known_caffe_file_is_converted_to_rgb(
    small_vgg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(small_vgg.read_bytes()).hexdigest()
    known = loss_network._KnownFile("caffe", is_bgr=True)
    monkeypatch.setitem(loss_network._KNOWN_FILES, digest[:8], known)
    weights = load_weights(str(small_vgg), "vgg19", "relu2_1")
    assert weights.preprocessing == "caffe"
    tensors = small_tensors()
    bgr = tensors["features.0.weight"]
    assert torch.equal(weights.convolutions["1_1"][0], torch.stack(bgr.unbind(1)[::-1], dim=1))
    assert torch.equal(weights.convolutions["1_2"][0], tensors["features.2.weight"])


# --- Files that are refused ---------------------------------------------------------------------


def spoiled(key: str, value: float) -> dict[str, Tensor]:
    """A tensor of the small network with one other number."""
    tensor = small_tensors()[key]
    tensor.view(-1)[3] = value
    return {key: tensor}


LACKS = "Choose shallower layers in loss.content_layers and loss.style_layers, or other weights"
SHAPE = (
    "(channels, 4, 3, 3) and (channels,) are needed. Is it a vgg19? See loss_network.architecture"
)


@pytest.mark.parametrize(
    ("changes", "metadata", "asked", "message"),
    [
        (
            {},
            {},
            None,
            "this file does not state which pixel values its weights expect; set "
            "loss_network.preprocessing to caffe (0..255 minus the mean) or torchvision ([0, 1], "
            "mean and standard deviation). The wrong one raises no error and spoils the pictures",
        ),
        (
            {},
            {"preprocessing": "caffe"},
            "torchvision",
            "loss_network.preprocessing is torchvision, but these weights need caffe; remove this "
            "setting",
        ),
        (
            {},
            {"preprocessing": "keras"},
            None,
            "its metadata has preprocessing 'keras'; it must be one of torchvision, caffe",
        ),
        (
            {},
            {"preprocessing": "caffe", "padding": "keras"},
            None,
            "its metadata has padding 'keras'; it must be one of zeros, reflect",
        ),
        (
            {"features.5.weight": None},
            {},
            "caffe",
            "has no conv2_1 (features.5) of vgg19, which the layer relu2_1 needs; it has up to "
            f"conv1_2. {LACKS}",
        ),
        (
            {"features.0.bias": None},
            {},
            "caffe",
            "has no conv1_1 (features.0) of vgg19, which the layer relu2_1 needs; it has none of "
            f"them. {LACKS}",
        ),
        (
            {"features.2.weight": torch.zeros(4, 5, 3, 3)},
            {},
            "caffe",
            f"conv1_2 (features.2) has the shape (4, 5, 3, 3), bias (4,); {SHAPE}",
        ),
        (
            {"features.2.weight": torch.zeros(4, 4, 5, 5)},
            {},
            "caffe",
            f"conv1_2 (features.2) has the shape (4, 4, 5, 5), bias (4,); {SHAPE}",
        ),
        (
            {"features.2.weight": torch.tensor(1.0)},
            {},
            "caffe",
            f"conv1_2 (features.2) has the shape (), bias (4,); {SHAPE}",
        ),
        (
            {"features.2.bias": torch.zeros(7)},
            {},
            "caffe",
            f"conv1_2 (features.2) has the shape (4, 4, 3, 3), bias (7,); {SHAPE}",
        ),
        (
            spoiled("features.2.weight", torch.nan),
            {},
            "caffe",
            "conv1_2 (features.2) has numbers that are not finite",
        ),
        (
            spoiled("features.2.bias", torch.inf),
            {},
            "caffe",
            "conv1_2 (features.2) has numbers that are not finite",
        ),
        (
            {"features.2.weight": torch.ones(4, 4, 3, 3, dtype=torch.int8)},
            {},
            "caffe",
            "conv1_2 (features.2) holds torch.int8, bias torch.float32; floating-point numbers are "
            "needed",
        ),
        (
            {"heads.relu1_2": torch.zeros(4, 5)},
            {},
            "caffe",
            "heads.relu1_2 has the shape (4, 5); (4, 4) is needed",
        ),
        (
            {"heads.relu1_2": torch.zeros(4)},
            {},
            "caffe",
            "heads.relu1_2 has the shape (4,); (4, 4) is needed",
        ),
        (
            {"heads.relu1_2": torch.zeros(4, 4, dtype=torch.int64)},
            {},
            "caffe",
            "heads.relu1_2 holds torch.int64; floating-point numbers are needed",
        ),
        (
            {"heads.relu1_2": torch.full((4, 4), torch.nan)},
            {},
            "caffe",
            "heads.relu1_2 has numbers that are not finite",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_weights_that_cannot_be_used_are_named_with_the_reason(
    changes: dict[str, Tensor | None],
    metadata: dict[str, str],
    asked: str | None,
    message: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "weights.safetensors"
    changed = small_tensors() | changes
    save_file({key: part for key, part in changed.items() if part is not None}, path, metadata)
    assert message_of(path, preprocessing=asked) == f"{path}: {message}"


def test_file_of_something_else_has_none_of_the_layers(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"state_dict": small_tensors(), "epoch": 3}, path)
    message = message_of(path, "relu1_1", preprocessing="caffe")
    assert "has no conv1_1 (features.0) of vgg19" in message
    assert "it has none of them" in message


@pytest.mark.parametrize(
    ("architecture", "other", "deepest", "missing"),
    [
        ("vgg16", "vgg19", "relu3_4", "conv3_4 (features.16)"),
        ("vgg19", "vgg16", "relu4_3", "conv4_1 (features.17)"),
    ],
)
def test_one_architecture_is_not_taken_for_the_other(
    architecture: str, other: Any, deepest: str, missing: str, tmp_path: Path
) -> None:
    path = tmp_path / "vgg.pth"
    torch.save(state_dict_of(torchvision_features(architecture)), path)
    with pytest.raises(UserError) as caught:
        load_weights(str(path), other, deepest, preprocessing="caffe")
    assert str(caught.value) == (
        f"{path}: has no {missing} of {other}, which the layer {deepest} needs; it has up to "
        f"conv3_3. If it is a {architecture}, set loss_network.architecture to {architecture}; "
        f"otherwise {LACKS.lower()}"
    )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>Quota exceeded</html>", "it is a web page"),
        (b"<html>Sign in</html>", "it is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer: run git lfs pull",
        ),
        (bytes(range(256)), "damaged, or of another format"),
    ],
    ids=["empty", "doctype", "html", "lfs", "bytes"],
)
def test_file_that_is_no_weights_file_is_refused(
    suffix: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    expected = f"{path}: is not a readable weights file ({reason})"
    assert message_of(path, preprocessing="caffe") == expected


@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_file_is_refused(form: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file(small_tensors(), path)
    else:
        torch.save(small_tensors(), path, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert message_of(path, preprocessing="caffe") == (
        f"{path}: is not a readable weights file (damaged, or of another format)"
    )


class _Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.sentinel,)


@pytest.mark.parametrize("form", ["zip", "old", "plain pickle"])
def test_weights_file_cannot_run_code(form: str, tmp_path: Path) -> None:
    path, sentinel = tmp_path / "evil.pth", tmp_path / "sentinel"
    payload = small_tensors() | {"evil": _Evil(sentinel)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(payload, protocol=2))
        pickle.loads(path.read_bytes())
        assert sentinel.exists()  # so the file is evil indeed
        sentinel.unlink()
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "zip")
    assert message_of(path, preprocessing="caffe") == (
        f"{path}: is not a readable weights file (damaged, or of another format)"
    )
    assert not sentinel.exists()


def test_damage_of_an_old_file_is_always_reported_as_such(tmp_path: Path) -> None:
    # Unpicklers raise whatever the damaged bytes lead to: here KeyError, IndexError, struct.error.
    path = tmp_path / "weights.pth"
    torch.save(small_tensors(), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    for end in range(len(data) % 7, len(data), len(data) // 150):
        path.write_bytes(data[:end])
        assert message_of(path, preprocessing="caffe").startswith(
            f"{path}: is not a readable weights file ("
        )


def test_list_of_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save([*small_tensors().values()], path)
    expected = f"{path}: holds a list, not a dictionary of tensors"
    assert message_of(path, preprocessing="caffe") == expected


@pytest.mark.parametrize("folder", [False, True], ids=["nothing", "folder"])
def test_path_without_a_file_is_refused(folder: bool, tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    if folder:
        path.mkdir()
    found = "are no regular file" if folder else "not found"
    assert message_of(path) == (
        f"{path}: loss network weights {found}; check loss_network.weights (imagenet, "
        "imagenet_features, compact, random, or the path of a .pth, .safetensors, .mat or .h5 file)"
    )


def test_file_that_may_not_be_read_is_refused(
    small_vgg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who may read anything
    assert message_of(small_vgg) == f"{small_vgg}: cannot be read (Permission denied)"


# --- Random weights -----------------------------------------------------------------------------


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(7)
    one = load_weights("random", "vgg19", "relu1_2", seed=1)
    torch.manual_seed(8)
    again = load_weights("random", "vgg19", "relu1_2", seed=1)
    other = load_weights("random", "vgg19", "relu1_2", seed=2)
    assert one.digest == again.digest
    assert one.digest != other.digest
    for number, (kernel, _) in one.convolutions.items():
        assert torch.equal(kernel, again.convolutions[number][0])
        assert not torch.allclose(kernel, other.convolutions[number][0])


def test_random_weights_stay_what_they_were() -> None:
    # Golden values of torch 2.15 on x86-64. Not the digest: the normal distribution's last bits
    # depend on the CPU (with and without AVX2 they differ by 2e-8).
    kernel, bias = load_weights("random", "vgg19", "relu1_2", seed=1).convolutions["1_1"]
    expected = [-0.4152146, -0.2041872, -0.1779911, -0.4380463]
    assert kernel.flatten()[:4].tolist() == pytest.approx(expected, abs=1e-6)
    assert bias.abs().max() == 0


def test_random_weights_say_so() -> None:
    assert load_weights("random", "vgg16", "relu1_1").label == "RANDOM weights"


def test_random_kernels_keep_the_size_of_activations() -> None:
    weights = load_weights("random", "vgg16", "relu3_1")
    assert [*weights.convolutions] == ["1_1", "1_2", "2_1", "2_2", "3_1"]
    pixels = make_pictures(1, 3, 64, 64)
    layers = ["relu1_2", "relu2_2", "relu3_1"]
    features = LossNetwork("vgg16", weights)(pixels, layers)
    sizes = [value.square().mean().sqrt().item() for value in features.values()]
    assert max(sizes) < 5 * min(sizes)


# --- torchvision's files ------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder into which torch.hub downloads, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_known_files_cover_torchvisions() -> None:
    for entry, preprocessing in (
        (torchvision.models.VGG16_Weights.IMAGENET1K_V1, "torchvision"),
        (torchvision.models.VGG19_Weights.IMAGENET1K_V1, "torchvision"),
        (torchvision.models.VGG16_Weights.IMAGENET1K_FEATURES, "caffe"),
    ):
        digest = entry.url.removesuffix(".pth").rpartition("-")[2]
        known = loss_network._KNOWN_FILES[digest]
        assert known == loss_network._KnownFile(preprocessing, is_bgr=False)
        mean, std = loss_network._NORMALIZATION[preprocessing]
        transforms = entry.transforms()
        assert transforms.mean == pytest.approx(mean, abs=0.003)  # 123 instead of 123.68, once
        assert transforms.std == pytest.approx(std, abs=1e-4)


@pytest.mark.parametrize(
    ("source", "architecture", "name", "megabytes"),
    [
        ("imagenet", "vgg19", "vgg19-dcbb9e9d.pth", 548),
        ("imagenet", "vgg16", "vgg16-397923af.pth", 528),
        ("imagenet_features", "vgg16", "vgg16_features-amdegroot-88682ab5.pth", 528),
    ],
)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            URLError(OSError(-2, "Name or service not known")),
            "[Errno -2] Name or service not known",
        ),
        (TimeoutError(), "TimeoutError"),
        (IncompleteRead(b"", 7), "IncompleteRead(0 bytes read, 7 more expected)"),
    ],
    ids=["no network", "timeout", "cut off"],
)
def test_failed_download_says_what_to_do(
    source: str,
    architecture: str,
    name: str,
    megabytes: int,
    error: Exception,
    reason: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError) as caught:
        load_weights(source, architecture, "relu1_1")
    message = (
        f"the loss network's weights are not in torch's cache and cannot be downloaded ({reason}): "
        f"fetch https://download.pytorch.org/models/{name} ({megabytes} MB) and put it into "
        f"{cache}, or name a file of yours with loss_network.weights=FILE"
    )
    if architecture == "vgg16":
        message += (
            ", or use the small network that comes with fast-style, loss_network.weights=compact"
        )
    assert str(caught.value) == message
    assert [*cache.iterdir()] == []


@pytest.mark.parametrize("deepest", ["relu4_3", "relu5_1"])
def test_compact_is_advised_where_it_reaches_the_deepest_layer(
    deepest: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError) as caught:
        load_weights("imagenet_features", "vgg16", deepest)
    assert "loss_network.weights=FILE" in str(caught.value)
    assert ("loss_network.weights=compact" in str(caught.value)) == (deepest == "relu4_3")


def offer(path: Path, monkeypatch: pytest.MonkeyPatch, *, digest: str | None = None) -> str:
    """Let torchvision's entry for VGG-19 be a local file; gives its name in the cache."""
    digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    offered = path.with_name(f"vgg19-{digest}.pth")
    path.rename(offered)
    entry = SimpleNamespace(url=offered.as_uri(), meta={"_file_size": 0.01})
    models = torchvision.models
    monkeypatch.setattr(models, "VGG19_Weights", SimpleNamespace(IMAGENET1K_V1=entry))
    known = loss_network._KnownFile("torchvision", is_bgr=False)
    monkeypatch.setitem(loss_network._KNOWN_FILES, digest, known)
    return offered.name


def test_imagenet_weights_are_downloaded_once(
    small_vgg: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = offer(small_vgg, monkeypatch)
    weights = load_weights("imagenet", "vgg19", "relu2_1")
    assert weights.label == "imagenet weights"
    assert (weights.preprocessing, weights.padding) == ("torchvision", "zeros")
    assert torch.equal(weights.convolutions["2_1"][0], small_tensors()["features.5.weight"])
    assert [path.name for path in cache.iterdir()] == [name]
    small_vgg.with_name(name).unlink()  # so that a second download would fail
    assert load_weights("imagenet", "vgg19", "relu2_1").digest == weights.digest


def test_program_without_a_console_downloads(
    small_vgg: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = offer(small_vgg, monkeypatch)
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    load_weights("imagenet", "vgg19", "relu2_1")
    assert [path.name for path in cache.iterdir()] == [name]


def test_download_with_another_digest_is_not_kept(
    small_vgg: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = offer(small_vgg, monkeypatch, digest="00000000")
    digest = hashlib.sha256(small_vgg.with_name(name).read_bytes()).hexdigest()
    message = message_of("imagenet")
    assert message.startswith(
        "the loss network's weights are not in torch's cache and cannot be downloaded (invalid "
        f'hash value (expected "00000000", got "{digest}")): fetch file://'
    )
    assert [*cache.iterdir()] == []


def test_damaged_file_in_the_cache_is_named(cache: Path) -> None:
    cache.mkdir(parents=True)
    path = cache / "vgg19-dcbb9e9d.pth"
    path.write_bytes(b"half of it")
    assert message_of("imagenet") == (
        f"{path}: is damaged (its sha256 does not begin with dcbb9e9d); delete it, and it will be "
        "downloaded again"
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_torchvisions_own_file_of_the_nearest_network_counts_as_cached(
    architecture: Any, cache: Path
) -> None:
    models = torchvision.models
    urls = {
        "vgg16": models.VGG16_Weights.IMAGENET1K_FEATURES.url,
        "vgg19": models.VGG19_Weights.IMAGENET1K_V1.url,
    }
    own = urls.pop(architecture).rpartition("/")[2]
    assert not full_network_is_cached(architecture)
    cache.mkdir(parents=True)
    (cache / urls.popitem()[1].rpartition("/")[2]).touch()
    (cache / models.VGG16_Weights.IMAGENET1K_V1.url.rpartition("/")[2]).touch()
    for name in ("vgg16-00b39a1b.pth", "vgg19-d01eb7cb.pth"):  # jcjohnson's
        (cache / name).touch()
    assert not full_network_is_cached(architecture)
    (cache / own).touch()
    assert full_network_is_cached(architecture)


def test_whether_weights_are_cached_is_known_without_torchvision(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert not full_network_is_cached("vgg16")
    assert not cache.exists()
    cache.mkdir(parents=True)
    (cache / "vgg16_features-amdegroot-88682ab5.pth").touch()
    assert full_network_is_cached("vgg16")


def test_torchvision_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert message_of("imagenet") == (
        "torchvision cannot be imported (import of torchvision.models halted; None in "
        "sys.modules); it must come with the torch beside it: install both in one command, pip "
        "install torch torchvision"
    )


def test_torchvision_that_lacks_memory_is_not_taken_for_one_of_another_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As torchvision does, whose own library found no room.
    (tmp_path / "models.py").write_text("raise RuntimeError('operator a::b does not exist')\n")
    torchvision = ModuleType("torchvision")
    torchvision.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    assert "torchvision cannot be imported (operator a::b" in message_of("imagenet")
    monkeypatch.setattr(free_memory, "_address_space_limit", lambda: 1)
    with pytest.raises(RuntimeError, match="operator a::b"):
        message_of("imagenet")


def test_torchvision_is_not_needed_for_a_file(
    small_vgg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert [*load_small(small_vgg).convolutions] == ["1_1", "1_2", "2_1"]


# --- Real weights -------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "padding", "deepest"),
    [
        ("vgg16_conv5_3", "zeros", "relu5_3"),
        ("vgg19_conv3_4", "zeros", "relu3_4"),
        ("vgg19_small16x_conv5_1", "reflect", "relu5_1"),
    ],
)
def test_features_of_real_weights_are_the_published_ones(
    name: str, padding: Any, deepest: str, assets: Path
) -> None:
    weights = load_weights(
        str(assets / "weights" / f"{name}.pth"),
        name.partition("_")[0],
        deepest,
        preprocessing="caffe",
        padding=padding,
    )
    assert_published_features(weights, name, assets)


# --- The network in the package -----------------------------------------------------------------


def test_compact_network_knows_how_it_is_used() -> None:
    weights = load_weights("compact", "vgg16", "relu4_3")
    assert weights.label == "COMPACT weights"
    assert (weights.preprocessing, weights.padding) == ("caffe", "reflect")
    assert {*weights.heads} == {f"relu{layer}" for layer in weights.convolutions}
    widths = [len(bias) for _, bias in weights.convolutions.values()]
    assert widths == [24, 24, 64, 64, 96, 96, 96, 160, 160, 160]


def test_compact_network_is_small() -> None:
    assert COMPACT_FILE.stat().st_size < 2_000_000


def test_compact_network_ends_at_the_deepest_layer_of_the_usual_loss() -> None:
    assert DEEPEST_LAYER == "relu4_3"
    with pytest.raises(UserError, match=r"has no conv5_1 .* it has up to conv4_3"):
        load_weights("compact", "vgg16", "relu5_1")


@pytest.mark.parametrize("source", ["compact", "imagenet_features"])
def test_weights_of_vgg16_are_not_taken_for_a_vgg19(source: str) -> None:
    # Up to conv3_3 the two networks have the same layers, so nothing would be missing.
    assert message_of(source, "relu3_3") == (
        f"loss_network.weights: {source} are weights of vgg16, and loss_network.architecture is "
        "vgg19; set it to vgg16, or name other weights"
    )


@pytest.mark.real_data
def test_compact_network_gives_the_distances_of_the_full_one(assets: Path) -> None:
    full = load_weights(
        str(assets / "weights/vgg16_conv5_3.pth"),
        "vgg16",
        "relu4_3",
        preprocessing="caffe",
        padding="reflect",
    )
    paths = sorted((assets / "photos/val").glob("kodak_*.jpg"))[:6]
    photos = [image_to_tensor(read_photo(path).crop((0, 0, 256, 256))) for path in paths]
    pixels = torch.stack(photos).float() / 255
    distances = []
    for weights in (full, load_weights("compact", "vgg16", "relu4_3")):
        features = LossNetwork("vgg16", weights)(pixels, ["relu2_2", "relu3_3", "relu4_3"])
        compared = [*features.values(), *(gram_matrix(found) for found in features.values())]
        distances.append(
            [float((part[:3] - part[3:]).square().sum() / part.square().sum()) for part in compared]
        )
    assert distances[1] == pytest.approx(distances[0], rel=0.2)
