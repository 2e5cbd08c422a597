"""Which objective models are measured with, and which models are refused."""

import copy
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from small_distillation import write_teacher
from small_evaluation import (
    CPU,
    WITH_COMPACT,
    WITH_FULL,
    measure_with,
    objective_of,
    redescribed,
    retrained,
)
from small_run import draw_photo, write_small_run
from tiny_model import trained_with_first_compact, write_tiny_model

from fast_style.core.errors import UserError
from fast_style.evaluating.objective import agreement, load_models
from fast_style.models.checkpoint import load_checkpoint, save_checkpoint
from fast_style.training.trainer import Trainer

pytestmark = pytest.mark.slow


def approximates(model: Path) -> str:
    return (
        f"{model} was trained with COMPACT weights, which approximate these; to measure with "
        "COMPACT weights, give --weights compact"
    )


def write_settings(folder: Path, weights: str) -> Path:
    """The YAML file of a run with a loss network of these weights."""
    path = write_small_run(folder / "other")
    settings = yaml.safe_load(path.read_text()) | {"loss_network": {"weights": weights}}
    path.write_text(yaml.safe_dump(settings))
    return path


# --- Messages -----------------------------------------------------------------------------------


class Mistake(NamedTuple):
    models: list[Path]
    options: dict[str, Any]
    message: str


def spoiled_style(run: Path, folder: Path) -> Mistake:
    copy = Path(shutil.copytree(run, folder / "copy"))
    Image.new("RGB", (32, 32), "red").save(copy / "style.png")
    message = (
        f"{copy}/style.png: not the style picture that {copy}/model.safetensors was trained on "
        "(its digest differs); give that picture with --style PICTURE"
    )
    return Mistake([copy / "model.safetensors"], {}, message)


def no_style(run: Path, folder: Path) -> Mistake:
    model = Path(shutil.copy(run / "model.safetensors", folder))
    message = (
        f"{model}: found no style.png in its folder or in the folder above; give the style picture "
        "with --style PICTURE"
    )
    return Mistake([model], {}, message)


def another_objective(run: Path, folder: Path) -> Mistake:
    other = write_tiny_model(folder / "other.safetensors")
    message = (
        f"{other}: trained with another style picture and loss network and loss than the "
        "objective's; name the objective with --loss CONFIG.yaml"
    )
    return Mistake([run / "model.safetensors", other], {}, message)


def another_loss(run: Path, folder: Path) -> Mistake:
    """A style picture that is meant leaves the other differences unmeant."""
    models, _, message = another_objective(run, folder)
    message = message.replace("style picture and loss network", "loss network")
    return Mistake(models, {"style": run.parent.parent / "style.png"}, message)


@pytest.mark.parametrize(
    "mistake", [spoiled_style, no_style, another_objective, another_loss], ids=lambda f: f.__name__
)
def test_objective_messages(
    run: Path, tmp_path: Path, mistake: Callable[[Path, Path], Mistake]
) -> None:
    models, options, message = mistake(run, tmp_path)
    with pytest.raises(UserError) as caught:
        measure_with(models, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("parts", "given", "remedy"),
    [
        (["style"], [], "--style PICTURE, or with --loss CONFIG.yaml"),
        (["style"], ["weights"], "--style PICTURE, or with --loss CONFIG.yaml"),
        (["network"], [], "--weights FILE, or with --loss CONFIG.yaml"),
        (
            ["style", "network"],
            [],
            "--style PICTURE and --weights FILE, or with --loss CONFIG.yaml",
        ),
        (["style", "network"], ["style"], "--weights FILE, or with --loss CONFIG.yaml"),
        (["loss"], ["style", "weights"], "--loss CONFIG.yaml"),
        (["style", "loss"], ["weights"], "--loss CONFIG.yaml"),
    ],
)
def test_options_that_name_what_differs_are_advised(
    run: Path, tmp_path: Path, parts: list[str], given: list[str], remedy: str
) -> None:
    def change(metadata: dict[str, Any]) -> dict[str, Any]:
        if "style" in parts:
            metadata["style"]["digest"] = "a" * 64
        if "network" in parts:
            metadata["loss_network"]["digest"] = "b" * 64
        if "loss" in parts:
            metadata["settings"]["loss"]["tv_weight"] = 7.0
        return metadata

    models = [run / "model.safetensors", redescribed(run, tmp_path / "other", change)]
    values = {"style": run / "style.png", "weights": "random"}  # those of the first model
    with pytest.raises(UserError) as caught:
        measure_with(models, **{name: values[name] for name in given})
    message = str(caught.value)
    assert message.startswith(f"{models[1]}: ")
    assert message.endswith(f"; name the objective with {remedy}")
    # What the message advises is enough.
    advised = [name for name in values if f"--{name}" in remedy]
    if advised:
        measure_with(models, **{name: values[name] for name in (*given, *advised)})
    measure_with(models, loss=write_small_run(tmp_path / "settings"))


def test_a_file_that_does_not_say_how_it_takes_pixels_needs_a_loss(
    run: Path, full_vgg: Path, tmp_path: Path
) -> None:
    unknown = tmp_path / "unknown.pth"
    torch.save(torch.load(full_vgg) | {"other": torch.zeros(1)}, unknown)
    with pytest.raises(UserError) as caught:
        objective_of(run, weights=str(unknown))
    message = str(caught.value)
    assert str(unknown) in message
    assert "loss_network.preprocessing" in message
    assert message.endswith(
        "(fast-style evaluate takes the weights from --weights FILE, and the other settings of "
        "loss_network and loss from --loss CONFIG.yaml)"
    )


def test_weights_that_cannot_be_had_are_to_be_named_by_an_option(
    run: Path, torch_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError) as caught:
        objective_of(run, weights="imagenet_features")
    for remedy in ("--weights FILE", "--weights compact"):
        assert remedy in str(caught.value)
    assert "loss_network.weights" not in str(caught.value)
    gone = torch_cache / "gone.pth"
    with pytest.raises(UserError) as caught:
        objective_of(run, weights=str(gone))
    assert str(caught.value).startswith(f"{gone}: ")
    assert "check --weights (" in str(caught.value)


def test_settings_that_contradict_each_other_are_refused_where_they_are_measured_with(
    run: Path, tmp_path: Path
) -> None:
    message = (
        "{}: loss_network.architecture: must be vgg16 for the weights imagenet_features".format
    )
    other = retrained(run, tmp_path / "other", architecture="vgg19")
    with pytest.raises(UserError) as caught:
        measure_with([other], weights="imagenet_features")
    assert str(caught.value).startswith(message(other))
    assert "--weights FILE" in str(caught.value)
    assert "--loss CONFIG.yaml" in str(caught.value)
    other = retrained(run, tmp_path / "both", architecture="vgg19", weights="imagenet_features")
    with pytest.raises(UserError) as caught:
        measure_with([other, run / "model.safetensors"])
    assert str(caught.value).startswith(message(other))
    measure_with([run / "model.safetensors", other])  # its settings are only compared


@pytest.mark.usefixtures("full_vgg")
def test_weights_with_a_name_need_no_preprocessing(run: Path, tmp_path: Path) -> None:
    model = retrained(run, tmp_path / "file", weights="vgg16.pth", preprocessing="torchvision")
    network = measure_with([model], weights="imagenet_features")[0].description["loss_network"]
    assert (network["label"], network["preprocessing"]) == ("imagenet_features weights", "caffe")


def test_weights_replace_those_of_the_loss_before_its_settings_are_checked(
    run: Path, tmp_path: Path, full_vgg: Path
) -> None:
    model, path = run / "model.safetensors", write_settings(tmp_path, "compact")
    settings = yaml.safe_load(path.read_text())
    settings["loss_network"]["preprocessing"] = "caffe"  # which compact weights have of themselves
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=r"loss_network\.preprocessing"):
        measure_with([model], loss=path)
    for weights in (str(full_vgg), "imagenet_features"):
        network = measure_with([model], loss=path, weights=weights)[0].description["loss_network"]
        assert (network["label"].split()[0], network["preprocessing"]) == (
            Path(weights).name,
            "caffe",
        )


# --- Objectives of runs -------------------------------------------------------------------------


def test_the_objective_of_a_model_is_what_its_training_validates(
    trained: tuple[Path, Trainer],
) -> None:
    run, trainer = trained
    (model,) = load_models([run / "model.safetensors"], CPU)
    loss = objective_of(run).loss
    photos = trainer.validation.photos.float() / 255
    with torch.no_grad():
        totals = [loss(model.net(photo[None]), photo[None]).total.item() for photo in photos]
    assert np.mean(totals) == pytest.approx(
        trainer.validation.measure(trainer.fast_net)["validation/total"], rel=1e-5
    )


def test_the_objective_comes_from_the_run_folder(run: Path) -> None:
    objective, said = measure_with([run / "model.safetensors"])
    style, network = objective.description["style"], objective.description["loss_network"]
    assert style["file"] == "style.png"
    assert (style["width"], style["height"]) == (32, 32)
    assert network["label"] == "RANDOM weights"
    assert said == ["the objective is measured with vgg16, RANDOM weights"]
    checkpoint = next((run / "checkpoints").glob("*.safetensors"))
    assert measure_with([checkpoint])[0].digest == objective.digest


def test_the_style_picture_can_be_given(run: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(run / "model.safetensors", tmp_path))
    objective, _ = measure_with([model], style=run.parent.parent / "style.png")
    assert objective.digest == objective_of(run).digest


def test_another_style_picture_is_another_objective(run: Path, tmp_path: Path) -> None:
    style = tmp_path / "wave.png"
    draw_photo(55).save(style)
    objective = objective_of(run, style=style)
    assert objective.digest != objective_of(run).digest
    (model,) = load_models([run / "model.safetensors"], CPU)
    assert agreement(model, objective) == {
        "style picture": False,
        "loss network": True,
        "loss": True,
    }


def test_terms_of_training_make_no_other_objective(run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(run / "model.safetensors")
    metadata = copy.deepcopy(checkpoint.metadata)
    metadata["settings"]["loss"] |= {"adversarial_weight": 0.5}
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, checkpoint.tensors, metadata)
    style = run.parent.parent / "style.png"
    objective = objective_of(run)
    assert measure_with([other], style=style)[0].digest == objective.digest
    # The digest of reports that were written before the term came.
    assert "adversarial_weight" not in objective.description["loss"]
    metadata["settings"]["loss"] |= {"stability_weight": 7.0}
    save_checkpoint(other, checkpoint.tensors, metadata)
    (model,) = load_models([other], CPU)
    assert agreement(model, objective)["loss"]


def test_models_of_other_objectives_are_warned_about_where_that_is_meant(
    run: Path, tmp_path: Path
) -> None:
    other = write_tiny_model(tmp_path / "other.safetensors")
    _, said = measure_with([run / "model.safetensors", other], loss=run / "config.yaml")
    assert said == [
        "the objective is measured with vgg16, RANDOM weights",
        f"warning: {other} was trained with another style picture and loss network and loss",
    ]


def test_models_of_one_name_are_told_apart(run: Path) -> None:
    models = load_models([run / "model.safetensors"] * 3, CPU)
    assert [model.name for model in models] == ["tiny", "tiny-2", "tiny-3"]


# --- Compact weights, and the network that they approximate -------------------------------------


def test_without_the_full_network_a_compact_model_is_measured_with_compact(
    compact_run: Path, torch_cache: Path
) -> None:
    objective, said = measure_with([compact_run / "model.safetensors"])
    network = objective.description["loss_network"]
    assert (network["label"], network["padding"]) == ("COMPACT weights", "reflect")
    assert said == [WITH_COMPACT]
    assert [*torch_cache.iterdir()] == []


def test_a_compact_model_is_measured_with_the_full_network_that_is_cached(
    compact_run: Path, full_vgg: Path
) -> None:
    model = compact_run / "model.safetensors"
    objective, said = measure_with([model])
    network = objective.description["loss_network"]
    assert network["label"] == "imagenet_features weights"
    assert network["digest"] == hashlib.sha256(full_vgg.read_bytes()).hexdigest()
    assert (network["preprocessing"], network["padding"]) == ("caffe", "zeros")
    assert said == [WITH_FULL, approximates(model)]
    asked = objective_of(compact_run, weights="imagenet_features")
    by_settings = objective_of(
        compact_run,
        loss=write_settings(full_vgg.parent, "imagenet_features"),
        style=compact_run / "style.png",
    )
    assert objective.digest == asked.digest == by_settings.digest


@pytest.mark.usefixtures("full_vgg")
def test_compact_that_is_asked_for_is_measured_with(compact_run: Path, tmp_path: Path) -> None:
    for given in ({"loss": write_settings(tmp_path, "compact")}, {"weights": "compact"}):
        objective, said = measure_with([compact_run / "model.safetensors"], **given)
        assert objective.description["loss_network"]["label"] == "COMPACT weights"
        assert said == [WITH_COMPACT]


def test_models_of_the_compact_and_of_the_full_network_are_measured_together(
    compact_run: Path, full_vgg: Path, tmp_path: Path
) -> None:
    compact = compact_run / "model.safetensors"
    digest = hashlib.sha256(full_vgg.read_bytes()).hexdigest()
    full = retrained(compact_run, tmp_path / "full", digest, weights="imagenet_features")
    expected = [WITH_FULL, approximates(compact)]
    assert measure_with([compact, full])[1] == expected
    assert measure_with([full, compact])[1] == expected


@pytest.mark.usefixtures("full_vgg")
def test_models_of_other_networks_are_refused_beside_a_compact_one(
    compact_run: Path, run: Path, tmp_path: Path
) -> None:
    compact = compact_run / "model.safetensors"
    average = retrained(compact_run, tmp_path / "average", pooling="average")
    for other in (run / "model.safetensors", average):
        with pytest.raises(UserError, match="trained with another loss network than") as caught:
            measure_with([compact, other])
        assert str(caught.value).startswith(f"{other}: ")


def test_compact_is_no_approximation_of_vgg19(
    compact_run: Path, full_vgg19: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256(full_vgg19.read_bytes()).hexdigest()
    settings = {"weights": "imagenet", "architecture": "vgg19"}
    vgg19 = retrained(compact_run, tmp_path / "vgg19", digest, **settings)
    compact = compact_run / "model.safetensors"
    with pytest.raises(UserError, match="trained with another loss network than") as caught:
        measure_with([vgg19, compact])
    assert str(caught.value).startswith(f"{compact}: ")


@pytest.mark.usefixtures("torch_cache")
def test_a_compact_model_can_be_measured_with_a_file(compact_run: Path, tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    model = compact_run / "model.safetensors"
    objective, said = measure_with([model], weights=str(teacher))
    network = objective.description["loss_network"]
    assert network["label"] == "teacher.safetensors weights"
    assert (network["preprocessing"], network["padding"]) == ("caffe", "reflect")
    assert said == [
        "the objective is measured with vgg16, teacher.safetensors weights",
        f"warning: {model} was trained with another loss network",
    ]


# --- Models of the compact weights that were learned from VGG-19 --------------------------------


@pytest.fixture
def old_model(compact_run: Path, tmp_path: Path) -> Path:
    """A model that a version trained whose compact weights were learned from VGG-19."""
    return redescribed(compact_run, tmp_path / "old", trained_with_first_compact)


@pytest.mark.usefixtures("full_vgg")
@pytest.mark.parametrize("weights", [None, "compact"])
def test_a_model_of_the_first_compact_network_asks_for_vgg19(
    old_model: Path, weights: str | None
) -> None:
    with pytest.raises(UserError) as caught:
        measure_with([old_model], weights=weights)
    assert str(caught.value) == (
        f"{old_model}: cannot be measured with compact weights of vgg19, which fast-style no "
        "longer has: compact is learned from VGG-16 now. Measure with VGG-19 itself, --weights "
        "FILE or --weights imagenet (548 MB, downloaded once), or name another objective, --loss "
        "CONFIG.yaml"
    )


@pytest.mark.parametrize("weights", [None, "imagenet"])
def test_a_model_of_the_first_compact_network_is_measured_with_vgg19_where_it_is_cached(
    old_model: Path, full_vgg19: Path, weights: str | None
) -> None:
    objective, said = measure_with([old_model], weights=weights)
    network = objective.description["loss_network"]
    assert network["digest"] == hashlib.sha256(full_vgg19.read_bytes()).hexdigest()
    assert "relu3_4" in objective.loss.style_layers
    assert said == [
        "the objective is measured with vgg19, imagenet weights",
        f"{old_model} was trained with COMPACT weights, which approximate these",
    ]


def test_a_model_of_the_first_compact_network_can_be_measured_with_a_file(
    old_model: Path, full_vgg19: Path, tmp_path: Path
) -> None:
    file = full_vgg19.rename(tmp_path / "vgg19.pth")
    objective, said = measure_with([old_model], weights=str(file))
    assert "relu3_4" in objective.loss.style_layers
    assert said == [
        "the objective is measured with vgg19, vgg19.pth weights",
        f"warning: {old_model} was trained with another loss network",
    ]


@pytest.mark.usefixtures("torch_cache")
def test_a_model_of_the_first_compact_network_can_be_measured_with_another_loss(
    old_model: Path, compact_run: Path, tmp_path: Path
) -> None:
    objective, said = measure_with([old_model], loss=write_settings(tmp_path, "compact"))
    assert objective.description["loss_network"]["architecture"] == "vgg16"
    assert said == [
        WITH_COMPACT,
        f"warning: {old_model} was trained with another loss network and loss",
    ]
    new_model = compact_run / "model.safetensors"
    with pytest.raises(UserError, match="trained with another loss network and loss than"):
        measure_with([new_model, old_model])
