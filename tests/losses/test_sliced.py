"""Claims about `sliced`: the sliced Wasserstein distance as a style term."""

from pathlib import Path

import pytest
import torch
from small_run import settings_of, train_once, write_small_run
from torch import Tensor

from fast_style.losses.perceptual import PerceptualLoss
from fast_style.losses.sliced import (
    NUM_DIRECTIONS,
    directions_of,
    sliced_distance,
    sorted_projections,
    thinned,
)
from fast_style.models.checkpoint import load_checkpoint
from fast_style.networks.compiling import compile_whole


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def loss_of(style: Tensor, **settings: object) -> PerceptualLoss:
    """The style term alone, on pixels in the place of features."""
    given = {"content_layers": {}, "style_layers": {"x": 1.0}, "style_distance": "sliced"}
    return PerceptualLoss(lambda pixels, layers: {"x": pixels}, style, **given | settings)


def style_of(loss: PerceptualLoss, output: Tensor) -> float:
    return float(loss(output, output).style)


# --- The distance -------------------------------------------------------------------------------


def test_directions_are_of_length_one_and_always_the_same() -> None:
    found = directions_of(7)
    assert found.shape == (NUM_DIRECTIONS, 7)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(NUM_DIRECTIONS))
    assert torch.equal(found, directions_of(7))


def test_projections_are_sorted_along_each_direction() -> None:
    features = torch.tensor([[[3.0, 1.0]], [[5.0, 7.0]]])[None]  # two channels, two positions
    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(
        sorted_projections(features, directions), torch.tensor([[[1.0, 3.0], [5.8, 6.2]]])
    )


def test_distance_of_a_shift_is_its_square() -> None:
    target = noise(1, 1, 5, 7)
    directions = torch.ones(1, 1)
    found = sliced_distance(
        sorted_projections(target + 3, directions), sorted_projections(target, directions)
    )
    assert found.item() == pytest.approx(9, rel=1e-5)


@pytest.mark.parametrize(
    ("size", "left"), [((80, 80), (80, 80)), ((81, 80), (41, 40)), ((160, 320), (40, 80))]
)
def test_every_other_row_and_column_is_left_out_of_large_features(
    size: tuple[int, int], left: tuple[int, int]
) -> None:
    features = noise(1, 1, *size)
    found = thinned(features)
    assert found.shape[2:] == left
    step = round(size[0] / left[0])
    assert torch.equal(found, features[:, :, ::step, ::step])


# --- The style term -----------------------------------------------------------------------------


def test_style_picture_itself_has_no_distance_and_neither_have_its_pixels_elsewhere() -> None:
    style = noise(1, 3, 16, 24)
    loss = loss_of(style)
    assert style_of(loss, style) == 0
    moved = style.flatten(2)[..., torch.randperm(16 * 24)].view(1, 3, 24, 16)
    assert style_of(loss, moved) == pytest.approx(0, abs=1e-10)


def test_pictures_of_equal_gram_matrices_are_told_apart() -> None:
    coin = torch.cat([torch.ones(512), -torch.ones(512)]).view(1, 1, 32, 32)
    normal = noise(1, 1, 32, 32)
    normal = normal / normal.square().mean().sqrt()
    assert style_of(loss_of(coin, style_distance="gram"), normal) == pytest.approx(0, abs=1e-9)
    # W2 squared of N(0, 1) and a fair coin is 2 - 2 sqrt(2 / pi), and three times that is meant.
    assert style_of(loss_of(coin), normal) == pytest.approx(3 * 0.404, abs=0.1)


def test_relative_distance_does_not_depend_on_the_unit_of_features() -> None:
    style, output = noise(1, 3, 16, 16), noise(2, 3, 16, 16, seed=1) + 0.5
    one, ten = style_of(loss_of(style), output), style_of(loss_of(10 * style), 10 * output)
    assert one == pytest.approx(ten, rel=1e-5)
    assert style_of(loss_of(10 * style, normalization="paper"), 10 * output) == pytest.approx(
        100 * style_of(loss_of(style, normalization="paper"), output), rel=1e-5
    )


def test_blended_styles_of_other_sizes_share_the_term() -> None:
    first, second, output = noise(1, 3, 16, 16), noise(1, 3, 8, 24, seed=1) + 1, noise(1, 3, 9, 9)
    blended = style_of(loss_of(first, blend=[(second, 3.0)]), output)
    alone = [style_of(loss_of(style), output) for style in (first, second)]
    assert blended == pytest.approx(0.25 * alone[0] + 0.75 * alone[1], rel=1e-5)


def test_descent_along_the_gradient_reaches_the_styles_distribution() -> None:
    style = noise(1, 3, 16, 16) * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1) + 1
    output = noise(1, 3, 16, 16, seed=1).requires_grad_()
    loss = loss_of(style, tv_weight=0.0)
    before = style_of(loss, output.detach())
    optimizer = torch.optim.Adam([output], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss(output, output.detach()).style.backward()
        optimizer.step()
    assert style_of(loss, output.detach()) < 0.01 * before


def test_training_with_it_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    config = settings_of(write_small_run(tmp_path), "loss.style_distance=sliced")
    train_once(config, tmp_path / "straight")
    train_once(config, tmp_path / "stopped", stop_at=2)
    train_once(config, tmp_path / "stopped")
    models = [tmp_path / name / "tiny" / "model.safetensors" for name in ("straight", "stopped")]
    assert models[0].read_bytes() == models[1].read_bytes()
    settings = load_checkpoint(models[0]).metadata["settings"]
    assert settings["loss"]["style_distance"] == "sliced"


@pytest.mark.slow
def test_it_is_compiled_as_one_graph() -> None:
    loss, output = loss_of(noise(1, 3, 64, 64)), noise(1, 3, 64, 64, seed=1).requires_grad_()
    compiled = compile_whole(loss)
    (expected,) = torch.autograd.grad(loss(output, output.detach()).total, output)
    (found,) = torch.autograd.grad(compiled(output, output.detach()).total, output)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
