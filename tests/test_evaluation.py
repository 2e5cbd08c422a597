"""Claims about `fast_style.evaluation`: its bookkeeping, its cache, and whom it believes."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import draw_photo, ignore, settings_of, train_once, write_photos, write_small_run
from tiny_model import write_tiny_model

from fast_style import baselines
from fast_style.baselines import VARIANTS, Baselines, Descent, Stopped, Variant, descend
from fast_style.cli import main
from fast_style.errors import UserError
from fast_style.evaluation import (
    Objective,
    evaluate,
    load_models,
    load_objective,
    make_plan,
    read_photos,
    work_of,
)
from fast_style.gatys import Iterate

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
    run: Path, held_out: Path, tmp_path: Path
) -> None:
    results = judge(run, [held_out], tmp_path)
    loss = objective_of(run).loss
    (model,) = load_models([run / "model.safetensors"], CPU)
    files = sorted(held_out.iterdir())
    assert [row["name"] for row in results["sizes"]["32"]["photos"]] == [f.name for f in files]
    for row, photo in zip(
        results["sizes"]["32"]["photos"], read_photos(files, 32, CPU, ignore), strict=True
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
    seconds = results["sizes"]["32"]["seconds"]
    assert min(seconds["evaluation"].values()) > 0
    assert list(seconds["evaluation"]) == ["box", "clip"]
    assert seconds["forward_pass"]["tiny"] > 0
    json.dumps(results, allow_nan=False)


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
    run: Path, held_out: Path, tmp_path: Path
) -> None:
    together = judge(run, [held_out], tmp_path / "a")["sizes"]["32"]["photos"]
    for number, file in enumerate(sorted(held_out.iterdir())):
        (alone,) = judge(run, [file], tmp_path / f"alone{number}")["sizes"]["32"]["photos"]
        assert alone == together[number]


@pytest.mark.parametrize("stop_at", [0, 3, 9, 17])
def test_an_interrupted_evaluation_resumed_equals_a_straight_one(
    run: Path, held_out: Path, tmp_path: Path, stop_at: int
) -> None:
    straight = judge(run, [held_out], tmp_path / "straight")
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
        f"warning: {other} was trained with another style picture and loss network and loss"
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
        ([model, "--photos", str(held_out), "-o", str(tmp_path / "r"), "--device", "tpu"], "tpu"),
    ):
        assert main(["evaluate", *words, "--iterations", "1"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
