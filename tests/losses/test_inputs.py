"""Claims about `inputs`: what is missing is named, and what is there passes."""

from pathlib import Path

import pytest
from PIL import Image

from fast_style.core.errors import UserError
from fast_style.losses.inputs import require_inputs
from fast_style.settings.config import Config, DistillConfig
from fast_style.styles import shipped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos, a picture and a file of weights that is empty, which is for others to find."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "weights.pth").touch()
    for name in ("style.png", "photos/b.png", "photos/a.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    return tmp_path


def training(folder: Path, **changes: object) -> Config:
    return Config.model_validate(
        {
            "name": "a",
            "style": {"image": folder / changes.get("style", "style.png")},
            "data": {
                "photos": folder / changes.get("photos", "photos"),
                "validation_photos": folder / changes.get("validation_photos", "photos"),
            },
            "loss_network": {"weights": str(folder / changes.get("weights", "weights.pth"))},
        }
    )


def distilling(folder: Path, weights: str) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "name": "a",
            "data": {"photos": folder / "photos", "paintings": folder / "photos"},
            "teacher": {"weights": weights},
        }
    )


def test_what_is_there_passes(folder: Path) -> None:
    require_inputs(training(folder))
    require_inputs(distilling(folder, "random"))


def test_missing_teacher_is_named_with_what_a_distillation_takes(folder: Path) -> None:
    gone = folder / "gone.pth"
    with pytest.raises(UserError) as caught:
        require_inputs(distilling(folder, str(gone)))
    assert str(caught.value) == (
        f"{gone}: loss network weights not found; check teacher.weights (imagenet, "
        "imagenet_features, random, or the path of a .pth, .safetensors, .mat or .h5 file)"
    )


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("photos", "folder not found; check data.photos"),
        ("validation_photos", "folder not found; check data.validation_photos"),
        (
            "style",
            "not found; check style.image (a picture, or the name of one of fast-style styles)",
        ),
        (
            "weights",
            "loss network weights not found; check loss_network.weights (imagenet, "
            "imagenet_features, compact, random, or the path of a .pth, .safetensors, .mat or .h5 "
            "file)",
        ),
    ],
)
def test_what_is_missing_is_named(folder: Path, key: str, text: str) -> None:
    with pytest.raises(UserError) as caught:
        require_inputs(training(folder, **{key: "none"}))
    assert str(caught.value) == f"{folder / 'none'}: {text}"


def test_folder_in_the_place_of_weights_is_told_from_no_file(folder: Path) -> None:
    (folder / "there").mkdir()
    with pytest.raises(UserError, match=r"there: .* are no regular file; check loss_network"):
        require_inputs(training(folder, weights="there"))


def test_teachers_missing_weights_are_named_by_their_own_key(folder: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pth: .* not found; check teacher\.weights \("):
        require_inputs(distilling(folder, str(folder / "none.pth")))


def test_missing_style_picture_is_answered_with_a_style_that_may_be_meant(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "starry_night.safetensors").touch()
    monkeypatch.setattr(shipped, "FOLDER", folder)
    with pytest.raises(UserError) as caught:
        require_inputs(training(folder, style="starry_nigt"))
    path = folder / "starry_nigt"
    assert str(caught.value) == f"{path}: not found; did you mean 'starry_night'?"
    path.write_text("no picture")  # what is there is not mistyped
    with pytest.raises(UserError, match="not a picture of a known format") as caught:
        require_inputs(training(folder, style="starry_nigt"))
    assert "did you mean" not in str(caught.value)
