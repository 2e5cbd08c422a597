"""Claims about `judge`: one objective for models of any style, and shared L-BFGS results."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_evaluation import CPU, JUDGE_ITERATIONS, JUDGE_SIZE
from small_run import draw_photo, write_photos

from fast_style.core.errors import Stopped, UserError
from fast_style.evaluating import judge as judge_module
from fast_style.evaluating.evaluation import GridRow
from fast_style.evaluating.judge import Judge
from fast_style.evaluating.objective import load_models
from fast_style.losses.judge import load_judge_settings
from fast_style.models.checkpoint import load_checkpoint, save_checkpoint

Results = tuple[dict[str, Any], dict[str, list[GridRow]]]


@pytest.fixture
def judged(small_judge: Path, held_out: Path, tmp_path: Path) -> Callable[..., Results]:
    def judge(*models: Path, **options: Any) -> Results:
        progress = options.pop("progress", lambda work, doing: None)
        given = {"style": None, "second_opinion": "none", "cache": tmp_path / "cache"} | options
        found = Judge(
            load_models(models, CPU),
            sorted(held_out.iterdir()),
            weights=str(small_judge),
            device=CPU,
            **given,
        )
        return found.run(progress)

    return judge


def of_another_style(run: Path, folder: Path) -> Path:
    """A copy of a run's model as if trained on another style picture, which lies beside it."""
    folder.mkdir()
    shutil.copy(run / "model.safetensors", folder)
    tensors, metadata = load_checkpoint(folder / "model.safetensors")
    picture = draw_photo(7, (JUDGE_SIZE + 8, JUDGE_SIZE))
    picture.save(folder / "style.png")
    metadata["style"] |= {"digest": digest_of(picture), "file": "other.jpg"}
    metadata["settings"]["style"]["image"] = str(folder / "nowhere.jpg")
    metadata["name"] = "other"
    save_checkpoint(folder / "model.safetensors", tensors, metadata)
    return folder / "model.safetensors"


def digest_of(picture: Image.Image) -> str:
    import hashlib

    return hashlib.sha256(picture.tobytes()).hexdigest()


# --- The objective ------------------------------------------------------------------------------


def test_the_objective_is_the_one_that_is_documented() -> None:
    config = load_judge_settings(None)
    layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    assert config.loss.content_layers == {"relu3_3": 1.0}
    assert config.loss.style_layers == dict.fromkeys(layers, 0.25)  # a mean
    assert (config.loss.content_weight, config.loss.style_weight, config.loss.tv_weight) == (
        1,
        5,
        1,
    )
    assert config.loss.normalization == "relative"
    network = config.loss_network
    assert (network.architecture, network.weights, network.padding) == (
        "vgg16",
        "imagenet_features",
        "reflect",
    )
    assert (config.style.size, config.optimize.size, config.optimize.iterations) == (256, 256, 100)
    assert (config.optimize.bounds, config.optimize.init) == ("clip", "uniform_noise")


def test_other_weights_are_taken_to_be_of_caffe_origin(small_judge: Path) -> None:
    network = load_judge_settings(str(small_judge)).loss_network
    assert (network.weights, network.preprocessing) == (str(small_judge), "caffe")


@pytest.mark.usefixtures("small_judge")
def test_missing_weights_name_the_option(run: Path, held_out: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"check --weights \(imagenet_features, or"):
        Judge(
            load_models([run / "model.safetensors"], CPU),
            sorted(held_out.iterdir()),
            style=None,
            weights=str(tmp_path / "none.pth"),
            second_opinion="none",
            cache=tmp_path,
            device=CPU,
        )


# --- Results ------------------------------------------------------------------------------------


def test_a_model_equals_the_first_iteration_that_is_no_worse(
    run: Path, judged: Callable[..., Results]
) -> None:
    (style,) = judged(run / "model.safetensors")[0]["styles"]
    assert len(style["photos"]) == 3
    for photo in style["photos"]:
        course, model = photo["objective_of_lbfgs"], photo["models"]["tiny"]
        assert len(course) == JUDGE_ITERATIONS + 1
        reached = [number for number, value in enumerate(course) if value <= model["total"]]
        assert model["equals"] == (reached[0] if reached else None)
        assert photo["lbfgs"][str(JUDGE_ITERATIONS)]["total"] == pytest.approx(course[-1], rel=0.05)


def test_every_picture_has_every_measure(run: Path, judged: Callable[..., Results]) -> None:
    (style,) = judged(run / "model.safetensors")[0]["styles"]
    measures = {"total", "content", "style", "tv", "blots", "weave_2", "weave_4", "border"}
    measures |= {"repeats", "halos"}
    for photo in style["photos"]:
        for found in (photo["photo"], photo["models"]["tiny"], *photo["lbfgs"].values()):
            assert measures <= set(found)


def test_the_second_opinion_stands_beside_the_objective(
    run: Path, judged: Callable[..., Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "load_squeezenet", lambda path: str(path))
    monkeypatch.setattr(
        judge_module, "SecondOpinion", lambda net, style: lambda picture: torch.tensor(len(net))
    )
    (style,) = judged(run / "model.safetensors", second_opinion="1234")[0]["styles"]
    assert style["photos"][0]["photo"]["second_opinion"] == 4
    assert style["photos"][0]["models"]["tiny"]["second_opinion"] == 4


def test_the_grid_shows_photo_models_and_lbfgs(run: Path, judged: Callable[..., Results]) -> None:
    results, grids = judged(run / "model.safetensors")
    name = results["styles"][0]["name"]
    assert [row.name for row in grids[name]] == ["photo-00.jpg", "photo-01.png", "photo-02.jpg"]
    captions = [caption for caption, _ in grids[name][0].pictures]
    assert captions[:2] == ["photo", "tiny"]
    assert captions[-1] == f"L-BFGS, {JUDGE_ITERATIONS} iterations"


# --- Styles -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_model_is_judged_in_its_own_style(
    run: Path, tmp_path: Path, judged: Callable[..., Results]
) -> None:
    other = of_another_style(run, tmp_path / "other")
    results, grids = judged(run / "model.safetensors", other)
    first, second = results["styles"]
    assert (list(first["photos"][0]["models"]), list(second["photos"][0]["models"])) == (
        ["tiny"],
        ["other"],
    )
    assert first["objective_digest"] != second["objective_digest"]
    assert list(grids) == [first["name"], second["name"]] == ["style", "other"]


@pytest.mark.slow
def test_a_given_style_picture_is_for_all_models(
    run: Path, tmp_path: Path, judged: Callable[..., Results]
) -> None:
    other = of_another_style(run, tmp_path / "other")
    (style,) = judged(run / "model.safetensors", other, style=run / "style.png")[0]["styles"]
    assert list(style["photos"][0]["models"]) == ["tiny", "other"]


def test_a_style_picture_that_is_lost_names_the_option(
    run: Path, tmp_path: Path, judged: Callable[..., Results]
) -> None:
    other = of_another_style(run, tmp_path / "other")
    (tmp_path / "other" / "style.png").unlink()
    with pytest.raises(UserError) as caught:
        judged(other)
    for part in (str(other), "other.jpg", "--style PICTURE"):
        assert part in str(caught.value)


def test_a_copy_smaller_than_the_judge_needs_is_not_enlarged(
    run: Path, tmp_path: Path, judged: Callable[..., Results]
) -> None:
    other = of_another_style(run, tmp_path / "other")
    tensors, metadata = load_checkpoint(other)
    small = draw_photo(7, (JUDGE_SIZE - 4, JUDGE_SIZE - 4))
    small.save(tmp_path / "other" / "style.png")
    metadata["style"]["digest"] = digest_of(small)
    save_checkpoint(other, tensors, metadata)
    with pytest.raises(UserError, match=f"{JUDGE_SIZE} pixels"):
        judged(other)


# --- The cache ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_model_of_the_same_style_runs_no_lbfgs(
    run: Path, tmp_path: Path, judged: Callable[..., Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = judged(run / "model.safetensors")

    def fail(*_arguments: object) -> None:
        raise AssertionError("L-BFGS ran")

    monkeypatch.setattr("fast_style.evaluating.baselines.descend", fail)
    copy = tmp_path / "again" / "model.safetensors"
    shutil.copytree(run, copy.parent)
    second, _ = judged(copy)
    assert json.dumps(first["styles"]) == json.dumps(second["styles"])


@pytest.mark.slow
def test_an_interrupted_judgment_resumes_after_the_last_finished_lbfgs(
    run: Path, tmp_path: Path, judged: Callable[..., Results]
) -> None:
    straight, _ = judged(run / "model.safetensors", cache=tmp_path / "straight")

    def stop_in_the_second(work: int, doing: str) -> None:
        if "photo 2" in doing and "iteration 2" in doing:
            raise Stopped(2)

    with pytest.raises(Stopped):
        judged(run / "model.safetensors", progress=stop_in_the_second)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    resumed, _ = judged(run / "model.safetensors")
    assert json.dumps(resumed["styles"]) == json.dumps(straight["styles"])


def test_a_folder_in_place_of_a_result_is_refused_before_any_lbfgs(
    run: Path, tmp_path: Path, judged: Callable[..., Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(run / "model.safetensors")
    first, *_, last = sorted((tmp_path / "cache").iterdir())
    first.unlink()
    last.unlink()
    last.mkdir()
    monkeypatch.setattr("fast_style.evaluating.baselines.descend", lambda *_: pytest.fail("ran"))
    with pytest.raises(UserError, match="remove or rename it"):
        judged(run / "model.safetensors")


def test_the_work_that_is_told_adds_up(run: Path, small_judge: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "two", 2)
    judge = Judge(
        load_models([run / "model.safetensors"], CPU),
        sorted(photos.iterdir()),
        style=None,
        weights=str(small_judge),
        second_opinion="none",
        cache=tmp_path / "cache",
        device=CPU,
    )
    assert judge.work == JUDGE_SIZE * JUDGE_SIZE * JUDGE_ITERATIONS * 2
    for _ in ("computed", "cached"):
        told: list[int] = []
        judge.run(lambda work, doing, told=told: told.append(work))
        assert sum(told) == judge.work
