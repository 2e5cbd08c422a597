"""The discriminator in training: exact under resume, and of effect where it has a weight."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from small_run import final_state, rows_of, settings_of, train_once

from fast_style.core.errors import UserError
from fast_style.models.checkpoint import load_checkpoint
from fast_style.models.model_files import CheckpointError
from fast_style.pictures.pixels import image_to_tensor
from fast_style.training import adversary
from fast_style.training import trainer as trainer_module
from fast_style.training.adversary import Adversary
from fast_style.training.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.training.photo_stream import to_pixels

WORDS = (
    "data.crop_size=32",
    "loss.style_layers={relu2_1: 1, relu4_1: 1}",
    "loss.adversarial_weight=0.5",
)


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """The weight is whole from the third step on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adversary, "_STEPS_ALONE", 2)
        patch.setattr(adversary, "_STEPS_RISING", 1)
        yield


@pytest.fixture
def alone(yaml_file: Path) -> Adversary:
    config = settings_of(yaml_file, *WORDS)
    style = read_style(config.style.image, 40)
    cpu = torch.device("cpu")
    loss = build_perceptual_loss(
        config, load_loss_weights(config), style, cpu, kept_layers=["relu2_1"]
    )
    pixels = to_pixels(image_to_tensor(style)[None], cpu)
    return Adversary(loss, pixels, weight=0.5, seed=1)


def test_style_crops_depend_on_the_sample_alone(alone: Adversary) -> None:
    both, _ = alone.inputs(0, [7, 8], 32)
    second, _ = alone.inputs(5, [8], 32)
    assert both.shape == (2, 3, 32, 32)
    assert torch.equal(both[1:], second)
    assert not torch.equal(both[:1], second)


def test_style_crop_is_a_part_of_the_style_picture_perhaps_mirrored(alone: Adversary) -> None:
    crops, _ = alone.inputs(0, range(12), 32)
    style = alone.style_picture[0]
    places = [(top, left) for top in range(9) for left in range(style.shape[2] - 31)]
    found = []
    for crop in crops:
        for is_mirrored, seen in enumerate((crop, crop.flip(-1))):
            found += [
                is_mirrored
                for top, left in places
                if torch.equal(seen, style[:, top : top + 32, left : left + 32])
            ]
    assert len(found) == len(crops)
    assert set(found) == {0, 1}


def test_crop_is_no_larger_than_the_style_picture(alone: Adversary) -> None:
    crops, _ = alone.inputs(0, [0], 200)
    assert crops.shape == (1, 3, 40, 40)


def test_weight_rises_once_the_discriminator_has_learned(
    alone: Adversary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adversary, "_STEPS_ALONE", 10)
    monkeypatch.setattr(adversary, "_STEPS_RISING", 4)
    weights = [float(alone.inputs(step, [0], 32)[1]) for step in (0, 9, 10, 11, 13, 999)]
    assert weights == [0, 0, 0.125, 0.25, 0.5, 0.5]


def test_opinion_reaches_the_pictures_and_learning_the_discriminator(alone: Adversary) -> None:
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    features = alone._loss_network(pixels.requires_grad_(), ["relu2_1"])
    (gradient,) = torch.autograd.grad(alone.opinion(features), pixels, retain_graph=True)
    assert gradient.abs().max() > 0
    weights = list(alone.discriminator.parameters())
    assert all(weight.grad is None for weight in weights)
    crops, _ = alone.inputs(0, [0], 32)
    assert alone.learn(crops, features) > 0
    assert all(weight.grad is not None for weight in weights)
    assert pixels.grad is None


@pytest.mark.parametrize(
    "stop", [3, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 2, 4, 5))]
)
def test_resumed_run_equals_the_straight_one_byte_for_byte(
    yaml_file: Path, tmp_path: Path, stop: int
) -> None:
    config = settings_of(yaml_file, *WORDS)
    train_once(config, tmp_path / "straight")
    train_once(config, tmp_path / "stopped", stop_at=stop)
    train_once(config, tmp_path / "stopped")
    straight, stopped = (final_state(tmp_path / name / "tiny") for name in ("straight", "stopped"))
    assert stopped == straight


@pytest.mark.slow
def test_compiled_run_is_the_eager_one(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced, and run as it stands: C++ would take minutes. The fast execution rounds differently
    # where it is compiled.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(trainer_module, "FastTransform", lambda net: net)
    states = []
    for compiled in ("true", "false"):
        train_once(settings_of(yaml_file, *WORDS, f"train.compile={compiled}"), tmp_path / compiled)
        path = max((tmp_path / compiled / "tiny" / "checkpoints").iterdir())
        states.append(load_checkpoint(path).tensors)
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_weight_changes_the_model_and_is_written_down(yaml_file: Path, tmp_path: Path) -> None:
    models = []
    for weight in ("0", "0.5"):
        words = (*WORDS[:2], f"loss.adversarial_weight={weight}")
        train_once(settings_of(yaml_file, *words), tmp_path / weight)
        models.append(load_checkpoint(tmp_path / weight / "tiny" / "model.safetensors").tensors)
    assert models[0].keys() == models[1].keys()  # a model file holds no discriminator
    assert not all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert "loss/adversarial" not in rows_of(tmp_path / "0" / "tiny")[1]
    rows = rows_of(tmp_path / "0.5" / "tiny")[1:]
    assert len({row["loss/adversarial"] for row in rows}) == 6
    assert all(float(row["loss/discriminator"]) > 0 for row in rows)


@pytest.mark.parametrize(
    "too_small", ["data.crop_size=16", "data.grown_crop_size=20", "style.size=24"]
)
def test_small_pictures_train_as_without_it_and_it_is_told(
    yaml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], too_small: str
) -> None:
    words = (*WORDS[:2], too_small)
    train_once(settings_of(yaml_file, *words), tmp_path / "without")
    assert "adversarial_weight" not in capsys.readouterr().out
    train_once(settings_of(yaml_file, *words, WORDS[2]), tmp_path / "with")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "adversarial" in line]
    assert too_small.partition("=")[2] in line
    assert too_small.partition("=")[0] in line
    without, ours = (
        load_checkpoint(tmp_path / name / "tiny" / "model.safetensors").tensors
        for name in ("without", "with")
    )
    assert all(torch.equal(without[name], tensor) for name, tensor in ours.items())


def test_checkpoint_without_the_discriminator_is_refused(yaml_file: Path, tmp_path: Path) -> None:
    trainer = train_once(settings_of(yaml_file, *WORDS), tmp_path, stop_at=2)
    checkpoint = load_checkpoint(max(trainer.checkpoints.iterdir()))
    kept = {
        name: tensor
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith("discriminator.")
    }
    with pytest.raises(CheckpointError, match="judges"):
        trainer.restore(checkpoint._replace(tensors=kept))


def test_style_layers_that_it_cannot_judge_are_told(yaml_file: Path) -> None:
    with pytest.raises(UserError) as caught:
        settings_of(yaml_file, "loss.adversarial_weight=0.1", "loss.style_layers={relu4_1: 1}")
    message = str(caught.value)
    assert "loss.adversarial_weight" in message
    assert "loss.style_layers" in message
    assert "relu3_3" in message
