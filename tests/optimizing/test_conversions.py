"""Claims about `conversions`: a text's objective, written as the text has it, is ours.

The texts' formulas are in NumPy and float64 here, features as (H, W, C) where Keras and TensorFlow
have them so, pixels in units of 0..255.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conversions import (
    LossSettings,
    convert_gatys,
    convert_keras,
    convert_tensorflow,
    feature_shape,
)
from numpy.typing import NDArray
from torch import Tensor

from fast_style.losses.perceptual import (
    LossTerms,
    PerceptualLoss,
    content_distance,
    total_variation,
)
from fast_style.settings.config import TERMS_OF_TRAINING, load_config
from fast_style.settings.gatys_config import load_gatys_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# Height and width; all but the first are odd somewhere on the way down.
SIZES = [(48, 32), (37, 50), (33, 53), (17, 16)]
FIRST_OF_BLOCK = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]

Array = NDArray[np.float64]


def random_features(generator: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """(1, C, H, W), about as large as VGG's on pixels of 0..255, and zero where a ReLU cuts off."""
    return torch.from_numpy(np.maximum(generator.normal(0, 100, (1, *shape)), 0)).float()


class Pictures:
    """A result, a photo and a style picture of one size, with random features at some layers."""

    def __init__(self, layers: list[str], height: int, width: int, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.pixels: dict[str, Tensor] = {}
        self.features: dict[str, dict[str, Tensor]] = {}
        for name in ("result", "photo", "style"):
            pixels = generator.uniform(size=(1, 3, height, width))
            self.pixels[name] = torch.from_numpy(pixels).float()
            self.features[name] = {
                layer: random_features(generator, feature_shape(layer, height, width))
                for layer in layers
            }

    def terms(self, settings: Mapping[str, Any]) -> LossTerms:
        """This project's losses, by a loss network that knows these pictures only."""

        def network(pixels: Tensor, layers: list[str]) -> dict[str, Tensor]:
            (name,) = [name for name, known in self.pixels.items() if torch.equal(known, pixels)]
            return {layer: self.features[name][layer] for layer in layers}

        loss = PerceptualLoss(network, self.pixels["style"], **settings)
        return loss(self.pixels["result"], self.pixels["photo"])

    def total(self, settings: LossSettings) -> float:
        return self.terms(settings._asdict()).total.item()

    def hwc(self, name: str, layer: str) -> Array:
        return self.features[name][layer][0].permute(1, 2, 0).double().numpy()

    def image(self, name: str = "result") -> Array:
        """(1, H, W, 3) in units of 0..255."""
        return 255 * self.pixels[name].permute(0, 2, 3, 1).double().numpy()


def weights_in_total(loss: Mapping[str, Any]) -> dict[str, float]:
    """What each term's layer weighs in the total, however it is split up among the settings."""
    found = {"tv": loss["tv_weight"]}
    for term in ("content", "style"):
        for layer, weight in loss[f"{term}_layers"].items():
            found[f"{term} {layer}"] = loss[f"{term}_weight"] * weight
    return found


def assert_yaml_has(name: str, settings: LossSettings) -> None:
    path = CONFIGS / name
    config = load_gatys_config(path) if path.parent.name == "optimize" else load_config(path)
    loss = config.loss.model_dump()
    assert loss["normalization"] == settings.normalization
    assert loss["tv_exponent"] == settings.tv_exponent
    # Six digits are written: an error of half a unit in the sixth.
    assert weights_in_total(loss) == pytest.approx(weights_in_total(settings._asdict()), rel=5e-6)


# --- Sizes of features --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("relu1_2", (64, 300, 301)),
        ("block2_conv2", (128, 150, 150)),
        ("relu3_3", (256, 75, 75)),
        ("conv4_3", (512, 37, 37)),
        ("relu5_3", (512, 18, 18)),
    ],
)
def test_pools_round_down(layer: str, shape: tuple[int, int, int]) -> None:
    assert feature_shape(layer, 300, 301) == shape


@pytest.mark.parametrize("size", [*SIZES, (300, 300), (400, 533)])
def test_feature_shape_is_that_of_torchs_pools(size: tuple[int, int]) -> None:
    features = torch.zeros(1, 1, *size)
    assert feature_shape("relu1_1", *size)[1:] == size
    for layer in FIRST_OF_BLOCK[1:]:
        features = torch.nn.functional.max_pool2d(features, 2)
        assert feature_shape(layer, *size)[1:] == features.shape[2:]


# --- Gatys et al. -------------------------------------------------------------------------------


def gram_of_rows(rows: Array) -> Array:
    """G_ij = Σ_k F_ik F_jk, F being (N, M) (equation 3)."""
    return np.einsum("ik,jk->ij", rows, rows)


def rows_of(hwc: Array) -> Array:
    return hwc.reshape(-1, hwc.shape[2]).T


def gatys_style_term(pictures: Pictures, layer: str) -> float:
    """E_l (equation 4)."""
    rows = rows_of(pictures.hwc("result", layer))
    n, m = rows.shape
    difference = gram_of_rows(rows) - gram_of_rows(rows_of(pictures.hwc("style", layer)))
    return float((difference**2).sum() / (4 * n**2 * m**2))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("content_factor", [0.5, 1.0])
def test_gatys_objective_is_ours(size: tuple[int, int], content_factor: float) -> None:
    content_layers = {"relu4_2": 0.5, "relu5_2": 1.0}
    style_layers = dict(zip(FIRST_OF_BLOCK, [0.1, 0.2, 0.3, 0.2, 0.2], strict=True))
    pictures = Pictures([*content_layers, *style_layers], *size)
    content = sum(
        weight
        * content_factor
        * ((pictures.hwc("result", layer) - pictures.hwc("photo", layer)) ** 2).sum()
        for layer, weight in content_layers.items()
    )
    style = sum(
        weight * gatys_style_term(pictures, layer) for layer, weight in style_layers.items()
    )
    settings = convert_gatys(
        content_layers,
        style_layers,
        height=size[0],
        width=size[1],
        content_weight=1e-3,
        style_weight=2.0,
        content_factor=content_factor,
    )
    assert pictures.total(settings) == pytest.approx(1e-3 * content + 2.0 * style, rel=1e-5)


def test_gatys_weights_known_by_hand() -> None:
    settings = convert_gatys(
        {"block5_conv2": 1.0},
        {"relu1_1": 0.2},
        height=512,
        width=512,
        content_weight=1.0,
        style_weight=1e3,
    )
    assert settings.content_layers == {"relu5_2": 512 * 32 * 32 / 2}
    assert settings.style_layers == {"relu1_1": 0.05}
    assert (settings.content_weight, settings.style_weight, settings.tv_weight) == (1.0, 1e3, 0.0)


def test_notebook_numbers_are_in_the_yaml_as_weights_of_the_formulas() -> None:
    # The text's sums and E_l, with the weights that make them the code's means, see the YAML.
    settings = convert_gatys(
        {"relu5_2": 1.0},
        dict.fromkeys(FIRST_OF_BLOCK, 1 / 5),
        height=512,
        width=384,
        content_weight=1e3 / (512 * 32 * 24),
        style_weight=4 * 1e-2,
        content_factor=1.0,
    )
    assert_yaml_has("optimize/gatys_block5.yaml", settings)


@pytest.mark.parametrize("size", SIZES)
def test_gatys_yaml_gives_the_objective_of_the_notebook(size: tuple[int, int]) -> None:
    pictures = Pictures([*FIRST_OF_BLOCK, "relu5_2"], *size)

    def gram_matrix(layer_output: Array) -> Array:
        flat = layer_output.reshape(-1, layer_output.shape[-1])
        return flat.T @ flat / flat.shape[0]

    style_score = sum(
        1.0
        / 5
        * np.mean(
            (gram_matrix(pictures.hwc("result", layer)) - gram_matrix(pictures.hwc("style", layer)))
            ** 2
        )
        for layer in FIRST_OF_BLOCK
    )
    content_score = np.mean(
        (pictures.hwc("result", "relu5_2") - pictures.hwc("photo", "relu5_2")) ** 2
    )
    loss = load_gatys_config(CONFIGS / "optimize" / "gatys_block5.yaml").loss.model_dump()
    expected = 1e-2 * style_score + 1e3 * content_score
    assert pictures.terms(loss).total.item() == pytest.approx(expected, rel=1e-5)


# --- Keras --------------------------------------------------------------------------------------


def keras_gram_matrix(x: Array) -> Array:
    features = x.transpose(2, 0, 1).reshape(x.shape[2], -1)
    return features @ features.T


def keras_style_loss(style: Array, combination: Array, height: int, width: int) -> float:
    channels = 3
    size = height * width
    difference = keras_gram_matrix(style) - keras_gram_matrix(combination)
    return float((difference**2).sum() / (4.0 * (channels**2) * (size**2)))


def keras_total_variation(x: Array, power: float) -> float:
    rows, columns = x.shape[1:3]
    corner = x[:, : rows - 1, : columns - 1, :]
    a = (corner - x[:, 1:, : columns - 1, :]) ** 2
    b = (corner - x[:, : rows - 1, 1:, :]) ** 2
    return float(((a + b) ** power).sum())


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("power", [1.0, 1.25])
def test_keras_objective_is_ours(size: tuple[int, int], power: float) -> None:
    style_layers = ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    pictures = Pictures(style_layers, *size)
    content_weight, style_weight, tv_weight = 0.02, 4.5, 0.995
    loss = content_weight * float(
        ((pictures.hwc("result", "relu2_2") - pictures.hwc("photo", "relu2_2")) ** 2).sum()
    )
    for layer in style_layers:
        loss += (style_weight / len(style_layers)) * keras_style_loss(
            pictures.hwc("style", layer), pictures.hwc("result", layer), *size
        )
    tv = tv_weight * keras_total_variation(pictures.image(), power)
    settings = convert_keras(
        "block2_conv2",
        style_layers,
        height=size[0],
        width=size[1],
        content_weight=content_weight,
        style_weight=style_weight,
        tv_weight=tv_weight,
        tv_power=power,
    )
    assert pictures.total(settings) == pytest.approx(loss + tv, rel=1e-5)
    # Each term for itself: in the total, the largest hides the others.
    terms = pictures.terms(settings._asdict())
    assert settings.tv_weight * terms.tv.item() == pytest.approx(tv, rel=1e-5)
    others = settings.content_weight * terms.content + settings.style_weight * terms.style
    assert others.item() == pytest.approx(loss, rel=1e-5)


def test_numbers_of_keras_lbfgs_yaml_are_the_conversions() -> None:
    settings = convert_keras(
        "block2_conv2",
        ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"],
        height=300,
        width=300,
        content_weight=0.02,
        style_weight=4.5,
        tv_weight=0.9950,
    )
    assert_yaml_has("optimize/keras_lbfgs.yaml", settings)
    config = load_gatys_config(CONFIGS / "optimize" / "keras_lbfgs.yaml")
    assert config.optimize.size == (300, 300)
    assert config.style.size is None  # as the photo's


def convert_keras_example(content_layer: str) -> LossSettings:
    return convert_keras(
        content_layer,
        ["block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1"],
        height=400,
        width=533,
        content_weight=0.025,
        style_weight=1.0,
        tv_weight=1.0,
    )


def test_numbers_of_keras_neural_style_yaml_are_the_conversions() -> None:
    assert_yaml_has("optimize/keras_neural_style.yaml", convert_keras_example("block5_conv2"))
    config = load_gatys_config(CONFIGS / "optimize" / "keras_neural_style.yaml")
    assert config.optimize.size == (533, 400)
    assert config.style.size is None  # as the photo's


def test_keras_neural_style_yaml_names_the_weight_of_its_shallow_content_layer() -> None:
    text = (CONFIGS / "optimize" / "keras_neural_style.yaml").read_text(encoding="utf-8")
    (weight,) = convert_keras_example("relu3_2").content_layers.values()
    assert f"'loss.content_layers={{relu3_2: {weight:.0f}}}'" in text


# --- TensorFlow ---------------------------------------------------------------------------------


def l2_loss(x: Array) -> float:
    """tf.nn.l2_loss."""
    return float((x**2).sum() / 2)


def tensorflow_total_variation(image: Array) -> float:
    """(1, H, W, 3) in units of 0..255."""
    down = image[:, 1:, :, :] - image[:, :-1, :, :]
    right = image[:, :, 1:, :] - image[:, :, :-1, :]
    return 2 * (l2_loss(down) / down.size + l2_loss(right) / right.size)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("blend", [1.0, 0.3])
def test_content_and_style_of_anishathalye_are_ours(size: tuple[int, int], blend: float) -> None:
    content_layers = {"relu4_2": blend, "relu5_2": 1.0 - blend}
    exponential = [2.0**power for power in range(5)]
    style_layers = {
        layer: weight / sum(exponential)
        for layer, weight in zip(FIRST_OF_BLOCK, exponential, strict=True)
    }
    pictures = Pictures([*content_layers, *style_layers], *size)
    content_weight, style_weight = 5.0, 500.0
    content_loss = 0.0
    for layer, weight in content_layers.items():
        result, photo = pictures.hwc("result", layer), pictures.hwc("photo", layer)
        content_loss += weight * content_weight * (2 * l2_loss(result - photo) / photo.size)
    style_loss = 0.0
    for layer, weight in style_layers.items():
        grams = []
        for name in ("result", "style"):
            features = pictures.hwc(name, layer)
            flat = features.reshape(-1, features.shape[2])
            grams.append(flat.T @ flat / features.size)
        style_loss += weight * 2 * l2_loss(grams[0] - grams[1]) / grams[1].size
    settings = convert_tensorflow(
        content_layers,
        style_layers,
        content_weight=content_weight,
        style_weight=style_weight,
        tv_weight=0.0,
    )
    expected = content_loss + style_weight * style_loss
    assert pictures.total(settings) == pytest.approx(expected, rel=1e-5)


def converted_tv(tv_weight: float) -> LossSettings:
    return convert_tensorflow({}, {}, content_weight=0, style_weight=0, tv_weight=tv_weight)


def test_total_variation_of_tensorflow_is_ours_where_it_is_the_same_everywhere() -> None:
    rows, columns = np.indices((9, 14))
    board = 0.1 + 0.5 * ((rows + columns) % 2)
    pixels = torch.from_numpy(np.stack([board, 0.3 * board, 0.7 * board])[None])
    settings = converted_tv(100.0)
    ours = settings.tv_weight * total_variation(pixels, settings.tv_exponent).item()
    image = 255 * pixels.permute(0, 2, 3, 1).numpy()
    assert ours == pytest.approx(100.0 * tensorflow_total_variation(image), rel=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_total_variation_of_tensorflow_has_one_row_and_column_more(size: tuple[int, int]) -> None:
    pictures = Pictures([], *size)
    settings = converted_tv(100.0)
    ours = settings.tv_weight * total_variation(pictures.pixels["result"]).item()
    theirs = 100.0 * tensorflow_total_variation(pictures.image())
    assert ours == pytest.approx(theirs, rel=1 / min(size))


def test_numbers_of_chinese_painting_yaml_are_the_conversions() -> None:
    settings = convert_tensorflow(
        {"relu4_2": 1.0, "relu5_2": 0.0},
        dict.fromkeys(FIRST_OF_BLOCK, 1 / 5),
        content_weight=5e0,
        style_weight=5e2,
        tv_weight=1e2,
    )
    assert_yaml_has("optimize/chinese_painting.yaml", settings)
    config = load_gatys_config(CONFIGS / "optimize" / "chinese_painting.yaml")
    assert config.optimize.learning_rate == pytest.approx(1e1 / 255, rel=5e-6)


def test_learning_rate_of_the_notebook_is_in_units_of_one() -> None:
    config = load_gatys_config(CONFIGS / "optimize" / "gatys_block5.yaml")
    assert config.optimize.learning_rate == pytest.approx(5 / 255, rel=5e-6)


def test_numbers_of_tensorflow_vgg19_yaml_are_the_conversions() -> None:
    settings = convert_tensorflow(
        {"relu4_2": 1.0},
        dict.fromkeys(FIRST_OF_BLOCK, 1.0),
        content_weight=7.5e0,
        style_weight=1e2,
        tv_weight=2e2,
    )
    assert_yaml_has("tensorflow_vgg19.yaml", settings)


def test_batch_means_of_lengstrom_are_ours() -> None:
    # Its sums over a batch are divided by the batch, as here.
    generator = np.random.default_rng(0)
    result, photo = generator.normal(size=(2, 3, 4, 5, 64))  # (N, H, W, C)
    theirs = 2 * l2_loss(result - photo) / (photo[0].size * 3)
    ours = content_distance(*(torch.from_numpy(x).permute(0, 3, 1, 2) for x in (result, photo)))
    assert ours.mean().item() == pytest.approx(theirs, rel=1e-5)


def test_content_and_style_of_overflocat_are_those_of_transposed_tanh_yaml() -> None:
    # overflocat/fast-neural-style-keras with one photo: its sum over a batch is a common factor.
    layers = ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    pictures = Pictures(layers, 40, 56)
    result, photo = pictures.hwc("result", "relu2_2"), pictures.hwc("photo", "relu2_2")
    content = ((result - photo) ** 2).sum() / result.size
    style = 0.0
    for layer in layers:
        grams = []
        for name in ("result", "style"):
            features = pictures.hwc(name, layer)
            flat = features.reshape(-1, features.shape[2])
            grams.append(flat.T @ flat / flat.size)
        style += ((grams[0] - grams[1]) ** 2).sum()
    settings = load_config(CONFIGS / "transposed_tanh.yaml").loss
    assert settings.stability_weight == 0
    loss = settings.model_dump(exclude=set(TERMS_OF_TRAINING))
    terms = pictures.terms(loss)
    ours = loss["content_weight"] * terms.content + loss["style_weight"] * terms.style
    assert ours.item() == pytest.approx(400 * content + 0.1 / len(layers) * style, rel=1e-5)


def test_total_variation_of_overflocat_is_that_of_transposed_tanh_yaml() -> None:
    pictures = Pictures([], 256, 256)
    image = pictures.image()
    tv = ((image[:, :-1] - image[:, 1:]) ** 2).sum() / 256
    tv += ((image[:, :, :-1] - image[:, :, 1:]) ** 2).sum() / 256
    config = load_config(CONFIGS / "transposed_tanh.yaml")
    assert config.data.crop_size == 256
    ours = config.loss.tv_weight * total_variation(pictures.pixels["result"]).item()
    assert ours == pytest.approx(2 * tv, rel=1 / 256)
    assert config.loss.tv_weight == 2 * 3 * 255 * 255**2
