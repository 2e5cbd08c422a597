"""Claims about `evaluation`: its bookkeeping, its cache, and whom it believes."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models
import yaml
from PIL import Image
from small_distillation import CHANNELS, random_convolutions, write_teacher
from small_run import draw_photo, ignore, settings_of, train_once, write_photos, write_small_run
from tiny_model import write_tiny_model

from fast_style.cli.main import main
from fast_style.core.errors import Stopped, UserError
from fast_style.evaluating import baselines
from fast_style.evaluating.baselines import VARIANTS, Baselines, Descent, Variant, descend
from fast_style.evaluating.evaluation import (
    Objective,
    evaluate,
    load_models,
    load_objective,
    make_plan,
    read_photos,
    work_of,
)
from fast_style.losses import loss_network
from fast_style.optimizing.minimizing import Iterate
from fast_style.settings.layers import torchvision_index

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run, ``.../runs/tiny``, with the photos and settings beside `runs`."""
    folder = tmp_path_factory.mktemp("trained")
    train_once(settings_of(write_small_run(folder)), folder / "runs")
    return folder / "runs" / "tiny"


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("held-out"), 3)


def objective_of(run: Path, **given: Any) -> Objective:
    models = load_models([run / "model.safetensors"], CPU)
    words = {"style": None, "weights": None, "loss": None} | given
    return load_objective(models, device=CPU, **words)


def description_of(run: Path, **given: Any) -> tuple[dict[str, Any], list[str]]:
    """The objective's loss network, and what was said of it."""
    said: list[str] = []
    objective = objective_of(run, **given, say=said.append)
    network: dict[str, Any] = objective.description["loss_network"]
    return network, said


def keep(folder: Path, objective: Objective) -> Baselines:
    return Baselines(folder, objective.loss, objective.digest)


def judge(
    run: Path,
    photos: list[Path],
    output: Path,
    *,
    iterations: int = 4,
    progress: Callable[[int, str], bool] = lambda work, doing: True,
) -> dict[str, Any]:
    plan = make_plan(
        photos, sizes=[32], counts=None, iterations=iterations, variants=["box", "clip"]
    )
    models = load_models([run / "model.safetensors"], CPU)
    results, _ = evaluate(models, objective_of(run), plan, output, device=CPU, progress=progress)
    return results


@pytest.fixture(scope="module")
def straight(run: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes of all held-out photos without interruption."""
    return judge(run, [held_out], tmp_path_factory.mktemp("straight"))


def without_seconds(results: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(results))
    for size in copied["sizes"].values():
        del size["seconds"]
    return copied


# --- What L-BFGS did ----------------------------------------------------------------------------


def a_descent() -> Descent:
    totals = [9.0, 5.0, 5.0, 3.0, 1.0]
    pictures = np.zeros((3, 2, 2, 3), np.uint8)
    pictures[1] += 1
    pictures[2] += 2
    return Descent(
        np.array([[total, 0, 0, 0] for total in totals]),
        np.array([1, 2, 4, 5, 6]),
        np.array([0, 2, 4]),
        pictures,
    )


@pytest.mark.parametrize(
    ("total", "iterations"),
    [(9.5, 0), (9.0, 0), (8.9, 1), (5.0, 1), (3.5, 3), (1.0, 4), (0.9, None)],
)
def test_an_objective_equals_the_first_iteration_that_is_no_worse(
    total: float, iterations: int | None
) -> None:
    assert a_descent().equals(total) == iterations


def test_the_picture_after_an_iteration_is_the_next_one_kept() -> None:
    found = [a_descent().picture_after(iteration) for iteration in (0, 1, 2, 3, 4, 9)]
    assert [(iteration, int(picture.max())) for iteration, picture in found] == [
        (0, 0),
        (2, 1),
        (2, 1),
        (4, 2),
        (4, 2),
        (4, 2),
    ]


def test_a_broken_model_equals_nothing_but_the_start() -> None:
    assert [a_descent().equals(total) for total in (math.nan, math.inf)] == [0, 0]


def test_a_descent_that_ended_early_stays_where_it_was() -> None:
    assert [a_descent().at(iteration) for iteration in (0, 4, 500)] == [0, 4, 4]


@pytest.mark.parametrize("variant", ["box", "clip"])
def test_a_descent_holds_the_best_so_far_and_counts_evaluations(
    run: Path, held_out: Path, variant: Variant
) -> None:
    loss = objective_of(run).loss
    (photo,) = read_photos(sorted(held_out.iterdir())[:1], 32, CPU, ignore)
    seen: list[Iterate] = []

    def note(iterate: Iterate) -> bool:
        seen.append(iterate)
        return True

    descent = descend(loss, photo.pixels, variant, 12, note)
    totals = [iterate.values.total for iterate in seen]
    assert descent.values[:, 0].tolist() == [min(totals[: n + 1]) for n in range(13)]
    assert descent.evaluations.tolist() == [iterate.evaluations for iterate in seen]
    assert descent.kept.tolist() == [0, 1, 2, 3, 5, 7, 10, 12]
    best = min(seen, key=lambda iterate: iterate.values.total)
    levels = (best.picture[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(descent.pictures[-1], levels)


def test_the_strong_baseline_begins_with_the_photo_and_the_papers_with_noise(
    run: Path, held_out: Path
) -> None:
    loss = objective_of(run).loss
    first, second = read_photos(sorted(held_out.iterdir())[:2], 32, CPU, ignore)
    own = loss(first.pixels, first.pixels).total.item()
    strong = descend(loss, first.pixels, "box", 1)
    assert strong.values[0, 0] == pytest.approx(own)
    assert strong.values[0, 1] == 0  # no other content than the photo's
    papers = [descend(loss, photo.pixels, "clip", 1) for photo in (first, second)]
    assert np.array_equal(papers[0].pictures[0], papers[1].pictures[0])
    assert papers[0].pictures[0].std() > 60  # uniform noise: 255 / sqrt(12) = 74


def test_a_kept_descent_serves_fewer_iterations_and_not_more(
    run: Path, held_out: Path, tmp_path: Path
) -> None:
    (photo,) = read_photos(sorted(held_out.iterdir())[:1], 32, CPU, ignore)
    kept = keep(tmp_path / "kept", objective_of(run))
    kept.make_folder()
    assert kept.find(photo, "box", 6) is None
    computed = kept.compute(photo, "box", 6, lambda iterate: True)
    again = kept.find(photo, "box", 6)
    assert again is not None
    assert all(np.array_equal(*pair) for pair in zip(again, computed, strict=True))
    assert kept.find(photo, "box", 4) is None  # it kept no picture after 4
    fewer = kept.find(photo, "box", 3)
    alone = descend(kept.loss, photo.pixels, "box", 3)
    assert fewer is not None
    assert all(np.array_equal(*pair) for pair in zip(fewer, alone, strict=True))
    assert kept.find(photo, "box", 7) is None
    assert kept.find(photo, "clip", 3) is None


@pytest.mark.parametrize("length", [0, 1, 100, 1000])
def test_a_damaged_descent_is_computed_anew(
    run: Path, held_out: Path, tmp_path: Path, length: int
) -> None:
    (photo,) = read_photos(sorted(held_out.iterdir())[:1], 32, CPU, ignore)
    kept = keep(tmp_path / "kept", objective_of(run))
    kept.make_folder()
    kept.compute(photo, "box", 2, lambda iterate: True)
    path = kept.path(photo, "box")
    path.write_bytes(path.read_bytes()[:length])
    assert kept.find(photo, "box", 2) is None


def test_a_descent_stands_for_one_objective_one_photo_and_one_size(
    run: Path, held_out: Path, tmp_path: Path
) -> None:
    files = sorted(held_out.iterdir())
    photos = [*read_photos(files, 32, CPU, ignore), *read_photos(files[:1], 48, CPU, ignore)]
    other_style = tmp_path / "other.png"
    draw_photo(7).save(other_style)
    objectives = [objective_of(run), objective_of(run, style=other_style)]
    paths = {
        keep(tmp_path, objective).path(photo, variant)
        for objective in objectives
        for photo in photos
        for variant in VARIANTS
    }
    assert len(paths) == 2 * 4 * 2


# --- The whole ----------------------------------------------------------------------------------


def test_the_objective_of_a_model_is_what_its_training_validates(
    tmp_path: Path,
) -> None:
    trainer = train_once(settings_of(write_small_run(tmp_path)), tmp_path / "runs")
    run = tmp_path / "runs" / "tiny"
    (model,) = load_models([run / "model.safetensors"], CPU)
    loss = objective_of(run).loss
    photos = trainer.validation_photos.float() / 255
    with torch.no_grad():
        totals = [loss(model.net(photo[None]), photo[None]).total.item() for photo in photos]
    assert np.mean(totals) == pytest.approx(trainer.validate()["total"], rel=1e-5)


def test_results_hold_the_terms_of_photos_models_and_baselines(
    run: Path, held_out: Path, straight: dict[str, Any]
) -> None:
    loss = objective_of(run).loss
    (model,) = load_models([run / "model.safetensors"], CPU)
    files = sorted(held_out.iterdir())
    assert [row["name"] for row in straight["sizes"]["32"]["photos"]] == [f.name for f in files]
    for row, photo in zip(
        straight["sizes"]["32"]["photos"], read_photos(files, 32, CPU, ignore), strict=True
    ):
        with torch.no_grad():
            values = loss(model.net(photo.pixels).clamp(0, 1), photo.pixels).values()
            own = loss(photo.pixels, photo.pixels).values()
        assert row["photo"] == pytest.approx(own._asdict())
        found = row["models"]["tiny"]
        assert {key: found[key] for key in values._asdict()} == pytest.approx(values._asdict())
        for variant, curve in row["baselines"].items():
            assert len(curve["total"]) == len(curve["evaluations"]) == 5
            reached = [n for n, total in enumerate(curve["total"]) if total <= values.total]
            assert found["equals"][variant] == (reached[0] if reached else None)
    seconds = straight["sizes"]["32"]["seconds"]
    assert min(seconds["evaluation"].values()) > 0
    assert list(seconds["evaluation"]) == ["box", "clip"]
    assert seconds["forward_pass"]["tiny"] > 0
    json.dumps(straight, allow_nan=False)


def test_a_grid_shows_six_photos_evenly(run: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "many", 8)
    plan = make_plan([photos], sizes=[32], counts=None, iterations=1, variants=["box"])
    models = load_models([run / "model.safetensors"], CPU)
    _, grid = evaluate(
        models, objective_of(run), plan, tmp_path, device=CPU, progress=lambda work, doing: True
    )
    assert [row.name[6:8] for row in grid] == ["00", "01", "02", "04", "05", "06"]
    captions = [caption for caption, _ in grid[0].pictures]
    assert captions[:2] == ["photo", "tiny"]
    assert captions[-1] == "L-BFGS, 1 iterations"


def test_a_photo_alone_or_among_others_gives_the_same_numbers(
    run: Path, held_out: Path, straight: dict[str, Any], tmp_path: Path
) -> None:
    together = straight["sizes"]["32"]["photos"]
    for number, file in enumerate(sorted(held_out.iterdir())):
        (alone,) = judge(run, [file], tmp_path / f"alone{number}")["sizes"]["32"]["photos"]
        assert alone == together[number]


@pytest.mark.parametrize("stop_at", [0, 3, 9, 17])
def test_an_interrupted_evaluation_resumed_equals_a_straight_one(
    run: Path, held_out: Path, straight: dict[str, Any], tmp_path: Path, stop_at: int
) -> None:
    calls = 0

    def stop(work: int, doing: str) -> bool:
        nonlocal calls
        calls += 1
        return calls <= stop_at

    with pytest.raises(Stopped):
        judge(run, [held_out], tmp_path / "stopped", progress=stop)
    resumed = judge(run, [held_out], tmp_path / "stopped")
    assert without_seconds(resumed) == without_seconds(straight)


def test_what_was_finished_before_a_stop_is_not_computed_again(
    run: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(run, [held_out], tmp_path)

    def fail(*given: object, **more: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(baselines, "descend", fail)
    judge(run, [held_out], tmp_path)
    judge(run, [held_out], tmp_path, iterations=2)


def test_progress_comes_to_the_whole_work(run: Path, held_out: Path, tmp_path: Path) -> None:
    plan = make_plan([held_out], sizes=[32], counts=None, iterations=4, variants=["box", "clip"])
    assert work_of(plan) == 32 * 32 * 4 * 3 * 2
    told: list[int] = []

    def note(work: int, doing: str) -> bool:
        told.append(work)
        return True

    judge(run, [held_out], tmp_path, progress=note)  # computed
    assert sum(told) == work_of(plan)
    judge(run, [held_out], tmp_path, progress=note)  # kept
    assert sum(told) == 2 * work_of(plan)


# --- Whom it believes ---------------------------------------------------------------------------


def test_the_objective_comes_from_the_run_folder(run: Path, tmp_path: Path) -> None:
    description = objective_of(run).description
    assert description["style"]["file"] == "style.png"
    assert (description["style"]["width"], description["style"]["height"]) == (32, 32)
    assert description["loss_network"]["label"] == "RANDOM weights"
    checkpoint = next((run / "checkpoints").glob("*.safetensors"))
    models = load_models([checkpoint], CPU)
    again = load_objective(models, style=None, weights=None, loss=None, device=CPU)
    assert again.digest == objective_of(run).digest


def test_another_style_picture_is_another_objective_and_the_result_says_so(
    run: Path, held_out: Path, tmp_path: Path
) -> None:
    style = tmp_path / "wave.png"
    draw_photo(55).save(style)
    models = load_models([run / "model.safetensors"], CPU)
    objective = load_objective(models, style=style, weights=None, loss=None, device=CPU)
    assert objective.digest != objective_of(run).digest
    plan = make_plan([held_out], sizes=[32], counts=[1], iterations=1, variants=["box"])
    results, _ = evaluate(
        models, objective, plan, tmp_path, device=CPU, progress=lambda work, doing: True
    )
    assert results["models"][0]["agrees"] == {
        "style picture": False,
        "loss network": True,
        "loss": True,
    }


def test_a_spoiled_style_picture_is_refused(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    Image.new("RGB", (32, 32), "red").save(copy / "style.png")
    with pytest.raises(UserError) as caught:
        objective_of(copy)
    assert str(caught.value) == (
        f"{copy}/style.png: is not the picture that {copy}/model.safetensors was trained with "
        "(its digest differs); give the right one with --style PICTURE"
    )


def test_a_model_without_its_run_folder_needs_its_style_picture(run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    shutil.copy(run / "model.safetensors", model)
    models = load_models([model], CPU)
    with pytest.raises(UserError) as caught:
        load_objective(models, style=None, weights=None, loss=None, device=CPU)
    assert str(caught.value) == (
        f"{model}: there is no style.png beside it, as in a run folder; give the style picture "
        "with --style PICTURE"
    )
    given = run.parent.parent / "style.png"
    objective = load_objective(models, style=given, weights=None, loss=None, device=CPU)
    assert objective.digest == objective_of(run).digest


def test_models_of_different_objectives_need_one_to_be_named(run: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other.safetensors")
    models = load_models([run / "model.safetensors", other], CPU)
    with pytest.raises(UserError) as caught:
        load_objective(models, style=None, weights=None, loss=None, device=CPU)
    assert str(caught.value) == (
        f"{other}: was trained with another style picture and loss network and loss than the "
        "objective has; say which one is meant, with --style PICTURE, --weights FILE or --loss "
        "CONFIG.yaml"
    )
    said: list[str] = []
    config = run / "config.yaml"
    load_objective(models, style=None, weights=None, loss=config, device=CPU, say=said.append)
    assert said == [
        "the objective is measured with vgg19, RANDOM weights",
        f"warning: {other} was trained with another style picture and loss network and loss",
    ]
    style = run.parent.parent / "style.png"
    with pytest.raises(UserError, match="another loss network and loss than the objective has"):
        load_objective(models, style=style, weights=None, loss=None, device=CPU)


def test_models_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    model = run / "model.safetensors"
    assert [found.name for found in load_models([model, model, model], CPU)] == [
        "tiny",
        "tiny-2",
        "tiny-3",
    ]


# --- Which network it measures with -------------------------------------------------------------

MEASURED_WITH_COMPACT = (
    "the objective is measured with vgg19, COMPACT weights, which approximate the full VGG-19; to "
    "measure under that one, give --weights FILE, or --weights imagenet, which keeps it in torch's "
    "cache (548 MB)"
)
MEASURED_WITH_IMAGENET = "the objective is measured with vgg19, imagenet weights"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder into which torch.hub downloads, empty; and nothing can be downloaded."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a download was begun")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def full_vgg(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's file for VGG-19, in the cache; a narrow one, up to relu2_2.

    Beside it lies that for VGG-16, which up to there has the same layers.
    """
    path = cache / "vgg.pth"
    tensors = {}
    for number, (kernel, bias) in random_convolutions(CHANNELS).items():
        index = torchvision_index(f"conv{number}", "vgg19")
        tensors |= {f"features.{index}.weight": kernel, f"features.{index}.bias": bias}
    torch.save(tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    for architecture in ("vgg16", "vgg19"):
        name = f"{architecture}-{digest}.pth"
        shutil.copy(path, cache / name)
        entry = SimpleNamespace(url=f"https://example.org/{name}", meta={"_file_size": 548})
        weights = SimpleNamespace(IMAGENET1K_V1=entry)
        monkeypatch.setattr(torchvision.models, f"{architecture.upper()}_Weights", weights)
    known = loss_network._KnownFile("torchvision", is_bgr=False)
    monkeypatch.setitem(loss_network._KNOWN_FILES, digest, known)
    return cache / f"vgg19-{digest}.pth"


def train_with(folder: Path, *words: str) -> Path:
    """The model of a tiny run, ``.../runs/tiny/model.safetensors``, with these settings changed."""
    train_once(settings_of(write_small_run(folder), *words), folder / "runs")
    return folder / "runs" / "tiny" / "model.safetensors"


@pytest.fixture(scope="module")
def compact_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run like `run`, with the compact loss network."""
    folder = tmp_path_factory.mktemp("compact")
    return train_with(folder, "loss_network.weights=compact").parent


def write_settings(folder: Path, weights: str) -> Path:
    """The YAML file of a run with a loss network of these weights."""
    path = write_small_run(folder / "other")
    settings = yaml.safe_load(path.read_text()) | {"loss_network": {"weights": weights}}
    path.write_text(yaml.safe_dump(settings))
    return path


def said_of(models: list[Path], **given: Any) -> list[str]:
    """What is said when these models are judged together."""
    said: list[str] = []
    words = {"style": None, "weights": None, "loss": None} | given
    load_objective(load_models(models, CPU), device=CPU, say=said.append, **words)
    return said


def approximates(model: Path) -> str:
    return (
        f"{model} was trained with COMPACT weights, which approximate these; --weights compact "
        "measures with them"
    )


def test_the_network_that_the_objective_is_measured_with_is_said(run: Path) -> None:
    assert said_of([run / "model.safetensors"]) == [
        "the objective is measured with vgg19, RANDOM weights"
    ]


def test_without_the_full_network_a_compact_model_is_measured_with_compact(
    compact_run: Path, cache: Path
) -> None:
    network, said = description_of(compact_run)
    assert (network["label"], network["padding"]) == ("COMPACT weights", "reflect")
    assert said == [MEASURED_WITH_COMPACT]
    assert [*cache.iterdir()] == []


def test_a_compact_model_is_measured_with_the_full_network_that_is_cached(
    compact_run: Path, full_vgg: Path
) -> None:
    network, said = description_of(compact_run)
    assert network["label"] == "imagenet weights"
    assert network["digest"] == hashlib.sha256(full_vgg.read_bytes()).hexdigest()
    assert (network["preprocessing"], network["padding"]) == ("torchvision", "zeros")
    assert said == [MEASURED_WITH_IMAGENET, approximates(compact_run / "model.safetensors")]
    asked = objective_of(compact_run, weights="imagenet")
    by_settings = objective_of(
        compact_run,
        loss=write_settings(full_vgg.parent, "imagenet"),
        style=compact_run / "style.png",
    )
    assert objective_of(compact_run).digest == asked.digest == by_settings.digest


@pytest.mark.usefixtures("full_vgg")
def test_compact_that_is_asked_for_is_measured_with(compact_run: Path, tmp_path: Path) -> None:
    for given in ({"loss": write_settings(tmp_path, "compact")}, {"weights": "compact"}):
        network, said = description_of(compact_run, **given)
        assert network["label"] == "COMPACT weights"
        assert said == [MEASURED_WITH_COMPACT]


def test_models_of_the_compact_and_of_the_full_network_are_judged_together(
    compact_run: Path, full_vgg: Path, tmp_path: Path
) -> None:
    compact = compact_run / "model.safetensors"
    full = train_with(tmp_path / "full", "loss_network.weights=imagenet")
    expected = [MEASURED_WITH_IMAGENET, approximates(compact)]
    assert said_of([compact, full]) == expected
    assert said_of([full, compact]) == expected


@pytest.mark.usefixtures("full_vgg")
def test_models_of_other_networks_are_refused_beside_a_compact_one(
    compact_run: Path, run: Path, tmp_path: Path
) -> None:
    compact = compact_run / "model.safetensors"
    average = train_with(
        tmp_path / "average", "loss_network.weights=compact", "loss_network.pooling=average"
    )
    for other in (run / "model.safetensors", average):
        with pytest.raises(UserError) as caught:
            said_of([compact, other])
        assert str(caught.value) == (
            f"{other}: was trained with another loss network than the objective has; say which one "
            "is meant, with --style PICTURE, --weights FILE or --loss CONFIG.yaml"
        )


@pytest.mark.usefixtures("full_vgg")
def test_compact_is_no_approximation_of_vgg16(compact_run: Path, tmp_path: Path) -> None:
    vgg16 = train_with(tmp_path, "loss_network.weights=imagenet", "loss_network.architecture=vgg16")
    with pytest.raises(UserError, match="trained with another loss network than the objective has"):
        said_of([vgg16, compact_run / "model.safetensors"])


@pytest.mark.usefixtures("cache")
def test_a_compact_model_can_be_measured_with_a_file(compact_run: Path, tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    network, said = description_of(compact_run, weights=str(teacher))
    assert network["label"] == "teacher.safetensors weights"
    assert (network["preprocessing"], network["padding"]) == ("caffe", "reflect")
    assert said == [
        "the objective is measured with vgg19, teacher.safetensors weights",
        f"warning: {compact_run / 'model.safetensors'} was trained with another loss network",
    ]


def test_a_file_that_does_not_say_how_it_takes_pixels_needs_a_loss(
    compact_run: Path, full_vgg: Path, tmp_path: Path
) -> None:
    unknown = tmp_path / "unknown.pth"
    torch.save(torch.load(full_vgg) | {"other": torch.zeros(1)}, unknown)
    with pytest.raises(UserError) as caught:
        objective_of(compact_run, weights=str(unknown))
    assert str(caught.value) == (
        f"{unknown}: it is not known how these weights take pixels; set loss_network.preprocessing "
        "to caffe (0..255 minus the mean) or torchvision ([0, 1], mean and standard deviation). "
        "The wrong one fails nowhere and spoils the pictures (here: --weights FILE, and its "
        "preprocessing in a --loss CONFIG.yaml)"
    )


# --- Plans and photos ---------------------------------------------------------------------------


def test_photos_are_spread_evenly(held_out: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "many", 10)
    plan = make_plan([photos], sizes=[64, 96], counts=[4, 2], iterations=1, variants=["box"])
    numbers = {size: [path.stem[-2:] for path in files] for size, files in plan.photos.items()}
    assert numbers == {64: ["00", "02", "05", "07"], 96: ["00", "05"]}
    assert (
        len(make_plan([photos], sizes=[64], counts=[99], iterations=1, variants=[]).photos[64])
        == 10
    )


def test_impossible_plans_are_refused(held_out: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for inputs, sizes, counts, message in (
        ([empty], [64], None, f"{empty}: there are no photos in this folder"),
        (
            [held_out],
            [64, 96, 128],
            [1, 2],
            "--count: give one number, or one for each of the 3 --sizes",
        ),
        ([held_out], [8], None, "--sizes: must be 32 to 4096, got 8"),
    ):
        with pytest.raises(UserError) as caught:
            make_plan(inputs, sizes=sizes, counts=counts, iterations=1, variants=["box"])
        assert str(caught.value) == message


def test_unreadable_photos_are_skipped_and_named(held_out: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    said: list[str] = []
    photos = read_photos([broken, *sorted(held_out.iterdir())], 32, CPU, said.append)
    assert [photo.name for photo in photos] == [path.name for path in sorted(held_out.iterdir())]
    assert len(said) == 1
    assert said[0].startswith(f"skipping {broken}: ")
    with pytest.raises(UserError, match="none of the 1 photos can be read"):
        read_photos([broken], 32, CPU, ignore)


def test_enlarged_photos_are_known(held_out: Path) -> None:
    file = sorted(held_out.iterdir())[0]  # 40 x 40
    assert [read_photos([file], size, CPU, ignore)[0].is_enlarged for size in (32, 40, 41)] == [
        False,
        False,
        True,
    ]


# --- The command --------------------------------------------------------------------------------


def test_the_command_writes_a_report(
    run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "deep" / "report"
    words = ["evaluate", str(run / "model.safetensors"), "--photos", str(held_out)]
    words += ["--sizes", "32", "--iterations", "3", "--count", "2", "--output", str(report)]
    assert main(words) == 0
    results = json.loads((report / "results.json").read_text())
    assert results["iterations"] == 3
    assert len(results["sizes"]["32"]["photos"]) == 2
    assert "tiny" in (report / "report.md").read_text()
    assert str(report / "report.md") in capsys.readouterr().out


@pytest.mark.usefixtures("full_vgg")
def test_the_command_says_what_it_measures_with_and_so_does_the_report(
    compact_run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, report = compact_run / "model.safetensors", tmp_path / "report"
    words = ["evaluate", str(model), "--photos", str(held_out), "--output", str(report)]
    words += ["--sizes", "32", "--iterations", "1", "--count", "1", "--baseline", "box"]
    for given, said, warning in (
        ([], MEASURED_WITH_IMAGENET, "here it is judged with imagenet weights."),
        (["--weights", "compact"], MEASURED_WITH_COMPACT, f"- T{MEASURED_WITH_COMPACT[1:]}."),
    ):
        assert main([*words, *given]) == 0
        assert capsys.readouterr().out.splitlines()[0] == said
        assert warning in (report / "report.md").read_text()


def test_what_is_wrong_is_said_in_a_line(
    run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(run / "model.safetensors")
    file = tmp_path / "file"
    file.write_text("x")
    for words, message in (
        (
            ["no.safetensors", "--photos", str(held_out), "-o", str(tmp_path / "r")],
            "no.safetensors",
        ),
        ([model, "--photos", str(tmp_path / "none"), "-o", str(tmp_path / "r")], "none: not found"),
        ([model, "--photos", str(held_out), "-o", str(file / "r")], "no folder can be made there"),
        ([model, "--photos", str(held_out), "-o", str(tmp_path / "r"), "--sizes", "8"], "--sizes"),
    ):
        assert main(["evaluate", *words, "--iterations", "1"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
