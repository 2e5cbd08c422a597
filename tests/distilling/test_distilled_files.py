"""What a distillation writes: the student, its card, its table."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import forged_headers
from safetensors import safe_open
from safetensors.torch import save_file
from small_distillation import (
    LAYERS,
    distill_once,
    photos_of,
    random_pictures,
    settings_of,
)
from small_run import checkpoints_of, events_of, rows_of

from fast_style.core.errors import UserError
from fast_style.core.files import sha256_of
from fast_style.distilling.distiller import Distiller
from fast_style.losses.loss_network import LossNetwork, Weights, load_weights
from fast_style.models import model_files
from fast_style.models.model_files import describe_learned
from fast_style.settings.config import load_distill_config
from fast_style.training.schedule import learning_rate_at


def loaded_student(folder: Path) -> Weights:
    return load_weights(str(folder / "loss_network.safetensors"), "vgg16", "relu2_2")


def test_written_network_is_the_judge_within_half_precision(
    open_distiller: Callable[..., Distiller], tmp_path: Path
) -> None:
    distiller = open_distiller()
    distiller.train()
    weights = loaded_student(tmp_path / "small")
    # What its user need not say, since the file does.
    assert (weights.preprocessing, weights.padding, weights.mean) == ("caffe", "reflect", None)
    assert list(weights.heads) == LAYERS
    pictures = random_pictures(2, 3, 32, 32)
    ours = distiller.judge(pictures, LAYERS)
    found = LossNetwork("vgg16", weights)(pictures, LAYERS)
    for layer in LAYERS:
        scale = float(ours[layer].square().mean().sqrt())
        assert 0 < float((found[layer] - ours[layer]).abs().max()) < 5e-3 * scale


def test_written_network_keeps_the_mean_of_its_teacher(
    open_distiller: Callable[..., Distiller], tmp_path: Path
) -> None:
    distiller = open_distiller()
    mean = (129.1863, 104.7624, 93.594)
    distiller.judge = distiller.judge.with_weights(distiller.judge.weights._replace(mean=mean))
    distiller.train_step(photos_of(distiller))
    distiller.save()
    assert loaded_student(tmp_path / "small").mean == mean


def test_written_network_has_a_card(straight: Path, yaml_file: Path) -> None:
    with safe_open(straight / "loss_network.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert {*metadata} == {"preprocessing", "padding", "card"}
    card = json.loads(metadata["card"])
    assert (card["name"], card["step"]) == ("small", 6)
    assert card["settings"]["student"] == {"widths": [6, 8], "deepest": "relu2_2"}
    assert str(yaml_file.parent) not in metadata["card"]  # whose it is, is nobody's business
    assert card["settings"]["data"]["photos"] == "photos"
    assert card["settings"]["teacher"]["weights"] == "teacher.safetensors"
    assert card["photos"]["count"] == 9
    assert card["paintings"]["count"] == 3
    assert card["teacher"]["source"] == "teacher.safetensors"
    assert card["teacher"]["digest"] == sha256_of(yaml_file.parent / "teacher.safetensors")
    last = rows_of(straight)[-1]
    for name, agreement in card["held_out"].items():
        for key, value in agreement.items():
            assert value == pytest.approx(float(last[f"{name}/{key}"]), abs=1e-4)
    assert {*card["held_out"]} == {"photos", "paintings"}


def test_written_network_is_described_for_people(straight: Path) -> None:
    lines = describe_learned(straight / "loss_network.safetensors")
    assert lines is not None
    assert lines[:2] == [
        "name: small",
        "kind: loss network, learned from another one by fast-style distill",
    ]
    assert "channels: 6, 8 in its blocks, up to relu2_2" in lines
    assert "trained: 6 of 6 steps" in lines
    (photos,) = [line for line in lines if "held-out photos" in line]
    for layer, number in re.findall(r"(relu\d_\d) (\d\.\d{3})", photos):
        expected = float(rows_of(straight)[-1][f"photos/error/{layer}"])
        assert float(number) == pytest.approx(expected, abs=1e-3)
    assert all(f" {layer} " in photos for layer in LAYERS)


@pytest.mark.parametrize("card", ["", "{}", "[]", '{"name": 1, "settings": 3}'])
def test_damaged_description_of_a_network_is_told(tmp_path: Path, card: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"card": card})
    with pytest.raises(UserError, match=r"odd\.safetensors: its description is incomplete"):
        describe_learned(path)


def test_other_files_have_no_such_description(tmp_path: Path, straight: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    (tmp_path / "text").write_text("no tensors")
    for name in ("plain.safetensors", "text", "none"):
        assert describe_learned(tmp_path / name) is None
    assert describe_learned(straight / "checkpoints" / "step-00000006.safetensors") is None


@pytest.mark.slow
def test_header_that_would_take_much_memory_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "loss_network.safetensors"
    path.write_bytes(forged_headers()["header of 60 MB"])
    monkeypatch.setattr(model_files, "safe_open", lambda *_, **__: pytest.fail("parsed"))
    assert describe_learned(path) is None


def test_table_has_errors_of_every_layer(straight: Path) -> None:
    header = (straight / "metrics.csv").read_text().splitlines()[0].split(",")
    held_out = [
        f"{pictures}/{kind}/{layer}"
        for pictures in ("photos", "paintings")
        for kind in ("error", "correlation", "gram_error")
        for layer in LAYERS
    ]
    errors = [f"{kind}/{layer}" for kind in ("error", "gram_error") for layer in LAYERS]
    assert header == ["step", "images", "loss", *errors, *held_out, "lr"]
    rows = rows_of(straight)
    assert [(row["step"], row["images"]) for row in rows] == [
        (str(step), str(2 * step)) for step in range(1, 7)
    ]
    assert [int(row["step"]) for row in rows if row[held_out[0]]] == [3, 6]
    settings = load_distill_config(straight / "config.yaml").train
    rates = [learning_rate_at(step, settings) for step in range(6)]
    assert [float(row["lr"]) for row in rows] == rates
    for row in rows:
        assert float(row["loss"]) == pytest.approx(sum(float(row[key]) for key in errors), rel=1e-5)


def test_intervals_do_what_they_say(yaml_file: Path, tmp_path: Path) -> None:
    words = [
        "train.steps=13",
        "train.painters=0",
        "log.every=4",
        "log.validate_every=5",
        "log.checkpoint_every=3",
        "log.keep_checkpoints=2",
    ]
    distill_once(settings_of(yaml_file, *words), tmp_path)
    rows = rows_of(tmp_path / "small")
    assert [int(row["step"]) for row in rows] == [4, 5, 8, 10, 12, 13]
    assert [int(row["step"]) for row in rows if row["photos/error/relu1_1"]] == [5, 10, 13]
    assert checkpoints_of(tmp_path / "small") == [12, 13]


def test_tensorboard_shows_errors_speed_and_painters(straight: Path) -> None:
    events = events_of(straight)
    tags = events.Tags()
    header = (straight / "metrics.csv").read_text().splitlines()[0].split(",")
    others = {"time/images_per_s", "time/data_wait_share", "memory/peak_mb"}
    assert set(tags["scalars"]) == {*header[2:], *others}
    assert [event.step for event in events.Images("painters")] == [3, 6]
    waited = [event.value for event in events.Scalars("time/data_wait_share")]
    assert all(0 < share < 1 for share in waited)


def test_sheet_shows_what_each_painter_makes_of_a_photo(
    open_distiller: Callable[..., Distiller],
) -> None:
    distiller = open_distiller()
    sheet = distiller.painters_sheet()
    assert sheet.size == (2 * (32 + 4), 32 + 4 + 32)
    photo = distiller.validation["photos"][1]
    shown = torch.from_numpy(np.array(sheet)).permute(2, 0, 1)
    assert torch.equal(shown[:, :32, 36:68], photo)
    with torch.no_grad():
        painted = distiller.painters[1].net(photo[None] / 255)[0].clamp(0, 1)
    assert (shown[:, 36:, 36:68] / 255 - painted).abs().max() < 1 / 255
