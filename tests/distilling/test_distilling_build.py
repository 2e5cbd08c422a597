"""From settings to a distiller."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_distillation import (
    LAYERS,
    distill_once,
    make_distiller,
    photos_of,
    random_convolutions,
    settings_of,
    write_small_distillation,
    write_teacher,
)
from small_run import draw_photo, open_small_run, opening, train_once, write_small_run

from fast_style.core.errors import Stopped, UserError
from fast_style.distilling import build
from fast_style.distilling.distiller import Distiller
from fast_style.distilling.students import (
    relu_layers,
)
from fast_style.losses.loss_network import load_weights
from fast_style.pictures.folders import find_photos
from fast_style.pictures.reading import read_photo
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import load_config, load_distill_config
from fast_style.settings.layers import torchvision_index


@pytest.mark.parametrize("key", ["teacher.weights", "data.photos", "data.paintings"])
def test_other_inputs_are_refused_by_digest(tmp_path: Path, key: str) -> None:
    yaml_file = write_small_distillation(tmp_path)
    config = settings_of(yaml_file)
    distill_once(config, tmp_path, stop_at=1)
    if key == "teacher.weights":
        write_teacher(tmp_path / "teacher.safetensors", seed=2)
    else:
        draw_photo(300).save(tmp_path / key.removeprefix("data.") / "one more.png")
    run = open_small_run(config, tmp_path)
    with pytest.raises(UserError) as caught:
        make_distiller(config, run)
    run.lock.release()
    assert str(caught.value).startswith(f"{tmp_path}/small: ")
    assert key in str(caught.value)
    assert "fresh=True" in str(caught.value)


def test_changed_settings_are_refused_with_what_a_distillation_can_do(
    yaml_file: Path, tmp_path: Path
) -> None:
    distill_once(settings_of(yaml_file), tmp_path, stop_at=1)
    said: list[str] = []
    changed = settings_of(yaml_file, "student.widths=[5, 8]", "train.painters=1", "log.every=2")
    with pytest.raises(UserError) as caught:
        open_small_run(changed, tmp_path, say=said.append)
    assert "student.widths, train.painters. " in str(caught.value)
    assert "train.init_from" not in str(caught.value)  # which training has, and distilling has not
    assert "changed since the checkpoint: student.widths: [6, 8] -> [5, 8]" in said


@pytest.mark.parametrize("is_distillation", [True, False])
def test_run_of_the_other_kind_is_refused_with_another_name(
    yaml_file: Path, tmp_path: Path, is_distillation: bool
) -> None:
    distillation = settings_of(yaml_file, "name=one")
    training = load_config(write_small_run(tmp_path), ["name=one"])
    if is_distillation:
        distill_once(distillation, tmp_path, stop_at=1)
    else:
        train_once(training, tmp_path, stop_at=1)
    with pytest.raises(UserError) as caught:
        open_small_run(training if is_distillation else distillation, tmp_path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path}/one: ")
    assert ("distillation" in line) == is_distillation
    assert "name=..." in line


def test_paintings_that_changed_between_stop_and_resume_are_told(
    yaml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_of(yaml_file)
    distill_once(config, tmp_path, stop_at=1)
    data = config.data
    found = find_photos(data.paintings, kind="paintings", validation_count=data.validation_count)
    draw_photo(204, (80, 80)).save(found.training[0])
    distill_once(config, tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "sizes" in line]
    assert line.startswith("warning: data.paintings: ")


def test_fresh_run_goes_on_under_the_name_of_its_folder(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    distill_once(config, tmp_path, stop_at=1)
    run = open_small_run(config, tmp_path, fresh=True)
    with pytest.raises(Stopped):
        make_distiller(config, run).train(lambda: 15)
    run.lock.release()
    assert run.folder == tmp_path / "small-2"
    said: list[str] = []
    kept = load_distill_config(tmp_path / "small-2" / "config.yaml")
    again = open_small_run(kept, tmp_path, say=said.append)
    again.lock.release()
    assert again.folder == tmp_path / "small-2"
    assert again.resume_from is not None
    assert said == []


def test_run_folder_has_what_the_design_says(straight: Path, yaml_file: Path) -> None:
    names = {path.name.split(".tfevents")[0] for path in straight.iterdir()}
    assert names == {
        "checkpoints",
        "config.yaml",
        "environment.json",
        "events.out",
        "lock",
        "loss_network.safetensors",
        "metrics.csv",
        "samples",
    }
    assert load_distill_config(straight / "config.yaml") == settings_of(yaml_file)
    assert json.loads((straight / "environment.json").read_text())["command"] == "distill"


def test_run_is_built_without_touching_the_global_random_numbers(
    open_distiller: Callable[..., Distiller],
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    open_distiller()
    assert torch.equal(torch.rand(3), expected)


def test_run_folder_that_cannot_be_written_is_told(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    run = open_small_run(config, tmp_path)
    (run.folder / "config.yaml").mkdir()
    with pytest.raises(UserError) as caught:
        make_distiller(config, run)
    run.lock.release()
    assert str(caught.value) == (
        f"{tmp_path}/small/config.yaml: cannot be written (Is a directory); remove what has this "
        "name, or see that its folder can be written to"
    )


def message_of(yaml_file: Path, root: Path, *words: str) -> str:
    """What a user reads when this distillation cannot begin."""
    config = settings_of(yaml_file, *words)
    run = open_small_run(config, root)
    with pytest.raises(UserError) as caught:
        make_distiller(config, run)
    run.release()
    assert not run.folder.exists()
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_missing_pictures_are_told_with_their_setting(yaml_file: Path, tmp_path: Path) -> None:
    for key in ("photos", "paintings", "validation_photos", "validation_paintings"):
        missing = tmp_path / "nowhere"
        message = message_of(yaml_file, tmp_path, f"data.{key}={missing}")
        assert message.startswith(f"{missing}: ")
        assert f"data.{key}" in message


def test_student_cannot_be_wider_than_its_teacher(yaml_file: Path, tmp_path: Path) -> None:
    assert message_of(yaml_file, tmp_path, "student.widths=[6, 13]") == (
        "student.widths: 13 channels cannot be chosen from conv2_1 of the teacher, which has 12; "
        "lower the width of block 2"
    )


def test_teacher_must_not_be_a_student(yaml_file: Path, tmp_path: Path, straight: Path) -> None:
    network = straight / "loss_network.safetensors"
    assert message_of(yaml_file, tmp_path, f"teacher.weights={network}") == (
        f"teacher.weights: {network} was learned from another network; name that network's "
        "weights instead"
    )


def write_vgg16(path: Path, *, last: int = 7, wrong: bool = False, **metadata: str) -> None:
    """Its first `last` convolutions; `wrong`: of 3 x 1 pixels."""
    channels = dict(
        zip(["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3"], [4] * last, strict=False)
    )
    tensors = {}
    for number, (kernel, bias) in random_convolutions(channels).items():
        index = torchvision_index(f"conv{number}", "vgg16")
        tensors[f"features.{index}.weight"] = kernel[..., :1].clone() if wrong else kernel
        tensors[f"features.{index}.bias"] = bias
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("file", "words", "remedy"),
    [
        ({}, [], "set teacher.preprocessing to caffe"),
        (
            {"preprocessing": "caffe"},
            ["teacher.preprocessing=torchvision"],
            "teacher.preprocessing is torchvision, but these weights need caffe; remove this",
        ),
        (
            {"last": 4, "preprocessing": "caffe"},
            ["student.deepest=relu3_1", "student.widths=[2, 2, 2]"],
            "Choose a shallower layer in student.deepest, or other weights",
        ),
        (
            {"preprocessing": "caffe"},
            [
                "student.deepest=relu3_4",
                "student.widths=[2, 2, 2]",
                "teacher.architecture=vgg19",
            ],
            "If it is a vgg16, set teacher.architecture to vgg16; otherwise choose a shallower "
            "layer in student.deepest, or other weights",
        ),
        ({"wrong": True, "preprocessing": "caffe"}, [], "See teacher.architecture"),
        (None, [], "check teacher.weights (imagenet, imagenet_features, random, or the path"),
    ],
    ids=["unstated", "contradicted", "shallow", "vgg16", "shape", "gone"],
)
def test_teacher_that_does_not_fit_is_told_with_the_settings_of_a_distillation(
    yaml_file: Path, tmp_path: Path, file: dict[str, Any] | None, words: list[str], remedy: str
) -> None:
    path = tmp_path / "vgg.safetensors"
    if file is not None:
        write_vgg16(path, **file)
    message = message_of(yaml_file, tmp_path, f"teacher.weights={path}", *words)
    assert message.startswith(f"{path}: ")
    assert remedy in message
    assert_no_setting_of_a_training(message)


@pytest.mark.parametrize(
    "words", [[], ["teacher.architecture=vgg19"]], ids=["imagenet_features", "imagenet"]
)
def test_teacher_that_cannot_be_downloaded_is_told_with_the_settings_of_a_distillation(
    yaml_file: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    weights = "imagenet" if words else "imagenet_features"
    message = message_of(yaml_file, tmp_path, f"teacher.weights={weights}", *words)
    assert message.endswith("or name a file of yours with teacher.weights=FILE")
    assert_no_setting_of_a_training(message)


def assert_no_setting_of_a_training(message: str) -> None:
    for other in ("loss_network.", "loss.", "compact"):
        assert other not in message


def test_pictures_and_teacher_are_told(
    open_distiller: Callable[..., Distiller],
) -> None:
    said: list[str] = []
    open_distiller(say=said.append)
    assert said == [
        "9 photos and 3 paintings to learn on, 3 and 3 held out; teacher: vgg16, "
        "teacher.safetensors weights"
    ]


def test_results_among_photos_and_paintings_are_left_out_and_told(tmp_path: Path) -> None:
    yaml_file = write_small_distillation(tmp_path)
    paintings = tmp_path / "paintings"
    made = find_photos(paintings, validation_count=3).training[1]
    write_picture(made, read_photo(made))
    for folder in ("photos", "paintings"):
        (tmp_path / folder / "a.heic").touch()
    with opening(tmp_path, partial(settings_of, yaml_file), make_distiller) as open_one:
        said: list[str] = []
        distiller = open_one(say=said.append)
        assert len(distiller.styles.paintings) == 2
    remedy = "convert .heic with heif-convert (package libheif-examples; on macOS: sips -s format"
    for line, folder in zip(said, ("photos", "paintings"), strict=False):
        assert line.startswith(f"{tmp_path / folder}: 1 file left out: .heic (1); {remedy}")
    assert said[-1] == f"warning: skipping {made}: a result of fast-style, not a photo"


def test_painting_that_cannot_be_read_is_left_out_and_told(tmp_path: Path) -> None:
    yaml_file = write_small_distillation(tmp_path)
    paintings = find_photos(tmp_path / "paintings", validation_count=3).training
    paintings[0].write_bytes(b"junk")
    with opening(tmp_path, partial(settings_of, yaml_file), make_distiller) as open_one:
        said: list[str] = []
        assert len(open_one(say=said.append).styles.paintings) == len(paintings) - 1
    assert said[-1].startswith(f"warning: skipping {paintings[0]}: ")


def test_paintings_none_of_which_can_be_used_are_refused(tmp_path: Path) -> None:
    yaml_file = write_small_distillation(tmp_path)
    for path in find_photos(tmp_path / "paintings", validation_count=3).training:
        path.write_bytes(b"junk")
    with (
        opening(tmp_path, partial(settings_of, yaml_file), make_distiller) as open_one,
        pytest.raises(UserError) as caught,
    ):
        open_one(say=lambda line: None)
    assert str(caught.value).startswith(f"{tmp_path / 'paintings'}: ")
    assert "add paintings" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "deepest", "widths"),
    [("vgg16", "relu3_3", [2, 2, 3]), ("vgg19", "relu1_1", [3])],
)
def test_any_depth_can_be_learned(
    yaml_file: Path, tmp_path: Path, architecture: Any, deepest: str, widths: list[int]
) -> None:
    words = [
        "teacher.weights=random",
        f"teacher.architecture={architecture}",
        f"student.deepest={deepest}",
        f"student.widths={widths}",
        "train.steps=1",
    ]
    distill_once(settings_of(yaml_file, *words), tmp_path)
    network = tmp_path / "small" / "loss_network.safetensors"
    weights = load_weights(str(network), architecture, deepest)
    assert list(weights.heads) == relu_layers(architecture, deepest)
    assert len(weights.convolutions[deepest[4:]][1]) == widths[-1]


def test_held_out_pictures_are_never_learned_from(
    open_distiller: Callable[..., Distiller], yaml_file: Path
) -> None:
    distiller = open_distiller()
    photos = distiller.photos.crops.photos
    assert len(photos.training) == 9
    assert not set(photos.training) & set(photos.validation)
    assert distiller.styles.photos == photos.training
    paintings = find_photos(yaml_file.parent / "paintings", validation_count=3)
    assert len(paintings.training) == 3
    for ours, path in zip(distiller.styles.paintings, paintings.training, strict=True):
        with Image.open(path) as painting:
            assert ours.tobytes() == painting.tobytes()
    assert {name: tuple(found.shape) for name, found in distiller.validation.items()} == {
        "photos": (3, 3, 32, 32),
        "paintings": (3, 3, 32, 32),
    }


def test_painters_imitate_style_pictures_as_large_as_the_crops(
    open_distiller: Callable[..., Distiller],
) -> None:
    assert open_distiller("data.crop_size=40").styles.size == 40


def test_usual_energy_is_that_of_the_teachers_features_on_photos(
    open_distiller: Callable[..., Distiller],
) -> None:
    distiller = open_distiller("train.photos=6")
    assert build.NUM_FIRST_PHOTOS == 6
    features = distiller.teacher(photos_of(distiller).float() / 255, LAYERS)
    for layer in LAYERS:
        expected = float(features[layer].square().mean())
        assert distiller.energies[layer] == pytest.approx(expected, rel=1e-5)
