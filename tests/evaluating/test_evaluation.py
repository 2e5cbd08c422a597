"""Results of whole evaluations: their numbers, their grid, and how an interrupted one resumes."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest
import torch
from PIL import Image
from small_evaluation import CPU, objective_of
from small_run import draw_photo, write_photos

from fast_style.core.errors import Stopped, UserError
from fast_style.evaluating import baselines
from fast_style.evaluating.evaluation import GridRow, evaluate
from fast_style.evaluating.objective import load_models
from fast_style.evaluating.plan import Variant, make_plan, pixel_iterations, read_photos
from fast_style.measures.artifacts import weave_strengths
from fast_style.measures.blots import blot_share
from fast_style.pictures.folders import find_inputs
from fast_style.pictures.pixels import image_to_tensor
from fast_style.pictures.reading import read_picture

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untimed")]


def evaluate_run(
    run: Path,
    photos: list[Path],
    output: Path,
    *,
    iterations: int = 4,
    variants: tuple[Variant, ...] = ("box", "clip"),
    progress: Callable[[int, str], None] = lambda work, doing: None,
    **options: Any,
) -> tuple[dict[str, Any], list[GridRow]]:
    files = find_inputs(photos).pictures
    plan = make_plan(files, sizes=[32], counts=None, iterations=iterations, variants=variants)
    models = load_models([run / "model.safetensors"], CPU)
    objective = objective_of(run, **options)
    return evaluate(models, objective, plan, output, device=CPU, progress=progress)


@pytest.fixture(scope="module")
def straight(run: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of all held-out photos without interruption, seconds included."""
    return evaluate_run(run, [held_out], tmp_path_factory.mktemp("straight"))[0]


def without_seconds(results: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(results))
    for size in copied["sizes"].values():
        del size["seconds"]
    return copied


def test_results_hold_the_terms_of_photos_models_and_baselines(
    run: Path, held_out: Path, straight: dict[str, Any]
) -> None:
    loss = objective_of(run).loss
    (model,) = load_models([run / "model.safetensors"], CPU)
    files = sorted(held_out.iterdir())
    rows = straight["sizes"]["32"]["photos"]
    assert [row["name"] for row in rows] == [file.name for file in files]
    for row, photo in zip(rows, read_photos(files, 32, CPU), strict=True):
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
    assert seconds["forward_pass"]["tiny"] > 0
    assert min(seconds["evaluation"][variant] for variant in ("box", "clip")) > 0
    json.dumps(straight, allow_nan=False)


def test_results_hold_the_artifacts_of_photos_models_and_baselines(
    straight: dict[str, Any],
) -> None:
    artifacts = straight["sizes"]["32"]["artifacts"]
    of_picture = ["weave_2", "weave_4", "repeats", "halos", "blots", "clipped"]
    steadiness = ["shift", "whole_shift", "zoom", "noise_gain"]
    assert list(artifacts["photos"]) == [*of_picture, *steadiness]
    assert [artifacts["photos"][name] for name in steadiness] == pytest.approx([0, 0, 0, 1])
    assert list(artifacts["models"]["tiny"]) == [*of_picture, "border", *steadiness, "blotches"]
    for variant in ("box", "clip"):
        assert list(artifacts["baselines"][variant]) == [*of_picture, "border"]
    assert all(value >= 0 for value in artifacts["models"]["tiny"].values())


def test_artifacts_are_means_and_medians_of_what_the_measures_say(
    run: Path, held_out: Path, straight: dict[str, Any]
) -> None:
    style = image_to_tensor(read_picture(run / "style.png").rgb)[None].float() / 255
    (model,) = load_models([run / "model.safetensors"], CPU)
    photos = [photo.pixels for photo in read_photos(sorted(held_out.iterdir()), 32, CPU)]
    with torch.no_grad():
        saved = [(model.net(photo).clamp(0, 1) * 255).round() / 255 for photo in photos]
    blots = [blot_share(*pair, style).item() for pair in zip(saved, photos, strict=True)]
    weaves = [weave_strengths(*pair).period_4.item() for pair in zip(saved, photos, strict=True)]
    found = straight["sizes"]["32"]["artifacts"]
    assert found["models"]["tiny"]["blots"] == pytest.approx(fmean(blots))
    assert found["models"]["tiny"]["weave_4"] == pytest.approx(median(weaves))
    assert found["photos"]["blots"] == 0
    assert min(*blots, median(weaves)) > 0


def test_blots_are_measured_against_the_style_picture_that_is_named(
    run: Path, held_out: Path, tmp_path: Path
) -> None:
    found = []
    for color in ("white", "black"):
        style = tmp_path / f"{color}.png"
        picture = Image.new("RGB", (40, 40), color)
        picture.paste(draw_photo(5, (8, 8)))  # a Gram matrix must not be zero
        picture.save(style)
        photo = next(held_out.iterdir())
        results, _ = evaluate_run(
            run, [photo], tmp_path / color, iterations=1, variants=("box",), style=style
        )
        found.append(results["sizes"]["32"]["artifacts"]["models"]["tiny"]["blots"])
    assert found[0] != found[1]


def test_results_say_what_a_model_was_trained_for(
    run: Path, held_out: Path, tmp_path: Path
) -> None:
    style = tmp_path / "wave.png"
    draw_photo(55).save(style)
    results, _ = evaluate_run(
        run, [held_out], tmp_path, iterations=1, variants=("box",), style=style
    )
    (model,) = results["models"]
    assert model["agrees"] == {"style picture": False, "loss network": True, "loss": True}


def test_a_grid_shows_six_photos_evenly(run: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "many", 8)
    _, grid = evaluate_run(run, [photos], tmp_path, iterations=1, variants=("box",))
    assert [row.name[6:8] for row in grid] == ["00", "01", "02", "04", "05", "06"]
    captions = [caption for caption, _ in grid[0].pictures]
    assert captions[:2] == ["photo", "tiny"]
    assert captions[-1] == "L-BFGS, 1 iterations"


def test_a_photo_alone_or_among_others_gives_the_same_numbers(
    run: Path, held_out: Path, straight: dict[str, Any], tmp_path: Path
) -> None:
    together = straight["sizes"]["32"]["photos"]
    for number, file in enumerate(sorted(held_out.iterdir())):
        results, _ = evaluate_run(run, [file], tmp_path / f"alone{number}")
        assert results["sizes"]["32"]["photos"] == [together[number]]


@pytest.mark.parametrize(
    "stop_at",
    [
        3,  # within the first descent
        17,  # within the second photo, after two finished descents
        pytest.param(0, marks=pytest.mark.slow),
        pytest.param(9, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_evaluation_resumed_equals_a_straight_one(
    run: Path, held_out: Path, straight: dict[str, Any], tmp_path: Path, stop_at: int
) -> None:
    num_calls = 0

    def stop(work: int, doing: str) -> None:
        nonlocal num_calls
        num_calls += 1
        if num_calls > stop_at:
            raise Stopped

    with pytest.raises(Stopped):
        evaluate_run(run, [held_out], tmp_path / "stopped", progress=stop)
    resumed, _ = evaluate_run(run, [held_out], tmp_path / "stopped")
    assert without_seconds(resumed) == without_seconds(straight)


def test_finished_descents_are_not_computed_again_and_count_as_work(
    run: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(held_out.iterdir())
    plan = make_plan(files, sizes=[32], counts=None, iterations=4, variants=["box", "clip"])
    told: list[int] = []

    def note(work: int, doing: str) -> None:
        told.append(work)

    evaluate_run(run, [held_out], tmp_path, progress=note)
    assert sum(told) == pixel_iterations(plan)

    def fail(*_arguments: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(baselines, "descend", fail)
    evaluate_run(run, [held_out], tmp_path, progress=note)
    assert sum(told) == 2 * pixel_iterations(plan)
    evaluate_run(run, [held_out], tmp_path, iterations=2)


def test_a_folder_in_place_of_a_descent_is_refused_before_any_lbfgs(
    run: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate_run(run, [held_out], tmp_path, variants=("box",))
    first, *_, last = sorted((tmp_path / "baselines").iterdir())
    first.unlink()
    last.unlink()
    last.mkdir()
    monkeypatch.setattr(baselines, "descend", lambda *_: pytest.fail("ran"))
    with pytest.raises(UserError, match="remove or rename it"):
        evaluate_run(run, [held_out], tmp_path, variants=("box",))
