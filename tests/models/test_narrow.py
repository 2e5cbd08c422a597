"""Weights in 8 and 16 bits: known numbers, how far they are from float32, and forged files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_description
from torch import Tensor

from fast_style.models import narrow
from fast_style.models.checkpoint import Checkpoint, build_transform_net
from fast_style.models.model_files import CheckpointError
from fast_style.models.narrow import Bits, narrowed, widened
from fast_style.networks.transform_net import TransformNet

ARCHITECTURE: dict[str, Any] = {"width": 2, "residual_blocks": 1, "tanh_scale": 127.5,
                                "upsampling": "resize", "antialiased": True}  # fmt: skip
KERNEL = "to_rgb.conv.weight"


@pytest.fixture
def small_kernels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of any size in 8 bits."""
    monkeypatch.setattr(narrow, "_FEWEST_IN_8_BITS", 1)


def weights_of(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(TransformNet(**ARCHITECTURE).state_dict())


def part(prefix: str, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    return Checkpoint(stored, {}).part(prefix)


def loaded(stored: dict[str, Tensor], number: int = 2) -> TransformNet:
    metadata = tiny_description(ARCHITECTURE) | {"format": number}
    return build_transform_net(Checkpoint(stored, metadata), Path("m"))


# --- Numbers ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_kernels_too")
def test_channel_is_stored_as_integers_up_to_127_and_their_scale() -> None:
    kernel = torch.tensor([[127.0, -64.0, 0.4], [0.0, 0.0, 0.0], [-2.54, 1.27, 0.02]])
    stored = narrowed({"x": kernel[:, :, None, None]}, 8)
    assert stored["model.x"].dtype == torch.int8
    assert stored["model.x"].flatten(1).tolist() == [[127, -64, 0], [0, 0, 0], [-127, 64, 1]]
    assert stored["scale.x"].tolist() == pytest.approx([1, 0, 0.02])


@pytest.mark.usefixtures("small_kernels_too")
def test_weight_in_8_bits_is_wrong_by_half_a_scale_at_most() -> None:
    weights = weights_of()
    stored = narrowed(weights, 8)
    wide = widened(part("model", stored), part("scale", stored), weights, Path("m"))
    scales = part("scale", stored)
    assert set(scales) == {name for name, weight in weights.items() if weight.ndim == 4}
    for name, scale in scales.items():
        error = (wide[name] - weights[name]).abs().amax(dim=(1, 2, 3))
        assert (error <= 0.5001 * scale).all(), name
        assert error.max() > 0


def test_kernels_of_the_first_and_last_convolutions_keep_16_bits() -> None:
    torch.manual_seed(0)
    weights = TransformNet(**ARCHITECTURE | {"width": 16}).state_dict()
    in_8_bits = {name for name in narrowed(weights, 8) if name.startswith("scale.")}
    assert "scale.residual.0.first.convolution.conv.weight" in in_8_bits
    assert "scale.down.0.convolution.conv.weight" not in in_8_bits
    assert f"scale.{KERNEL}" not in in_8_bits


def test_16_bits_are_those_of_float16() -> None:
    weights = weights_of()
    stored = narrowed(weights, 16)
    assert stored.keys() == {f"model.{name}" for name in weights}
    for name, weight in weights.items():
        assert torch.equal(stored[f"model.{name}"], weight.half())


@pytest.mark.usefixtures("small_kernels_too")
@pytest.mark.parametrize("bits", [8, 16])
def test_loaded_network_has_float32_weights_near_the_stored_ones(bits: Bits) -> None:
    weights = weights_of()
    net = loaded(narrowed(weights, bits))
    assert {weight.dtype for weight in net.state_dict().values()} == {torch.float32}
    for name, weight in net.state_dict().items():
        torch.testing.assert_close(weight, weights[name], atol=2e-3, rtol=1e-3)


# --- Forged files -------------------------------------------------------------------------------

NEEDS = "; the network needs torch.float32 (3, 2, 9, 9)"


@pytest.mark.usefixtures("small_kernels_too")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"scale.{KERNEL}": None}, f"has no scales of {KERNEL}, whose weights are in 8 bits"),
        (
            {f"scale.{KERNEL}": torch.ones(2)},
            f"the scales of {KERNEL} are torch.float32 (2,); they must be torch.float32 (3,)",
        ),
        (
            {f"scale.{KERNEL}": torch.ones(3, 2, 9, 9)},
            f"the scales of {KERNEL} are torch.float32 (3, 2, 9, 9); they must be torch.float32 "
            "(3,)",
        ),
        (
            {f"scale.{KERNEL}": torch.ones(3).double()},
            f"the scales of {KERNEL} are torch.float64 (3,); they must be torch.float32 (3,)",
        ),
        (
            {f"scale.{KERNEL}": torch.tensor([1, torch.nan, 1])},
            f"{KERNEL} has numbers that are not finite",
        ),
        (
            {f"scale.{KERNEL}": torch.full((3,), 3e38)},
            f"{KERNEL} has numbers that are not finite",
        ),
        (
            {"scale.to_rgb.conv.bias": torch.ones(3)},
            "has scales of to_rgb.conv.bias, but no weights in 8 bits",
        ),
        ({"scale.x": torch.ones(3)}, "has scales of x, but no weights in 8 bits"),
        (
            {f"model.{KERNEL}": torch.zeros(4, 2, 9, 9, dtype=torch.int8)},
            f"{KERNEL} is torch.int8 (4, 2, 9, 9){NEEDS}",
        ),
        (
            {f"model.{KERNEL}": torch.zeros(3, 2, 9, 9).bfloat16(), f"scale.{KERNEL}": None},
            f"{KERNEL} is torch.bfloat16 (3, 2, 9, 9){NEEDS}",
        ),
        (
            {
                f"model.{KERNEL}": torch.zeros(3, 2, 9, 9, dtype=torch.int16),
                f"scale.{KERNEL}": None,
            },
            f"{KERNEL} is torch.int16 (3, 2, 9, 9){NEEDS}",
        ),
        (
            {"model.to_rgb.conv.bias": torch.full((3,), torch.inf).half()},
            "to_rgb.conv.bias has numbers that are not finite",
        ),
        ({"model.to_rgb.conv.bias": None}, "has no tensor to_rgb.conv.bias"),
        ({"model.extra": torch.zeros(1).half()}, "has a tensor extra, which the network lacks"),
    ],
)
def test_forged_tensors_are_refused_by_name(
    changes: dict[str, Tensor | None], message: str
) -> None:
    stored = narrowed(weights_of(), 8) | changes
    with pytest.raises(CheckpointError) as caught:
        loaded({name: tensor for name, tensor in stored.items() if tensor is not None})
    assert str(caught.value) == f"m: {message}"


def test_narrow_weights_in_a_file_of_format_1_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"is torch.float16 .*; the network needs"):
        loaded(narrowed(weights_of(), 16), number=1)


def test_tensor_that_does_not_fit_is_not_widened() -> None:
    # So that a hostile file cannot make us allocate four times its size.
    huge = torch.zeros(1, dtype=torch.int8).expand(1 << 40)
    found = widened({"x": huge}, {}, {"x": torch.zeros(3)}, Path("m"))
    assert found["x"] is huge
