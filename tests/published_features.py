"""The features that the publishers of the real weights give for a picture."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from fast_style.losses.loss_network import LossNetwork, Weights


def assert_published_features(weights: Weights, name: str, assets: Path) -> None:
    """Check a VGG's features of the published picture at all published layers.

    Args:
        weights: of the network.
        name: the network's, in weights/expected_features.json; it begins with the architecture.
        assets: the folder of real data.
    """
    expected = json.loads((assets / "weights" / "expected_features.json").read_text())
    by_layer = expected["networks"][name]["relu"]
    with Image.open(assets / expected["image"]) as image:
        width, height = image.size
        data = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    pixels = data.view(1, height, width, 3).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        network = LossNetwork(name.partition("_")[0], weights)  # type: ignore[arg-type]
        features = network(pixels, [f"relu{number}" for number in by_layer])
    assert len(features) == len(by_layer) > 0
    for number, stated in by_layer.items():
        found = features[f"relu{number}"]
        assert list(found.shape) == stated["shape"], number
        assert found.mean().item() == pytest.approx(stated["mean"], rel=1e-3), number
        assert found.std().item() == pytest.approx(stated["std"], rel=1e-3), number
        centre = found[0, :4, found.shape[2] // 2, found.shape[3] // 2].tolist()
        # A single number may be small by cancellation: a thousandth of the layer's scale, too.
        near = pytest.approx(stated["first4_at_centre"], rel=1e-3, abs=1e-3 * stated["std"])
        assert centre == near, number
