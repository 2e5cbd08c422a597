"""`fast-style preview`: what it prints, what it writes, and how it ends."""

import argparse
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import photo_at
from PIL import Image

from fast_style.cli import main as cli
from fast_style.cli import preview as command
from fast_style.core.words import count
from fast_style.optimizing import preview
from fast_style.optimizing.preview import choices_near, draw_previews, read_styles
from fast_style.settings.config import Config, load_config

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def config(config: Path) -> Path:
    """Settings whose losses take milliseconds; `photo.png` is a photo."""
    settings = yaml.safe_load(config.read_text())
    settings["loss"] = {"content_layers": {"relu1_2": 1.0}, "style_layers": {"relu1_1": 1.0}}
    config.write_text(yaml.safe_dump(settings))
    photo_at("photo.png", seed=9)
    photo_at("old.png")
    photo_at("other/photo.png")
    return config


def run(*arguments: str) -> int:
    """The exit code, whether it is returned or raised."""
    try:
        return cli.main(["preview", *arguments, "--iterations", "4", "--device", "cpu"])
    except SystemExit as end:
        return int(end.code or 0)


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_sheet_has_a_row_for_each_size_and_a_column_for_each_weight(capsys: Output) -> None:
    values = ["--style-weights", "1", "20", "--style-sizes", "16", "24", "32"]
    assert run("wave.yaml", "--photo", "photo.png", *values) == 0
    width, height = size_of("preview.png")
    assert width == 2 * (32 + 12) + 12
    assert (height - 12) % 4 == 0  # the photo and the style picture, and three rows
    lines = capsys.readouterr().out.splitlines()
    choices = [(size, weight) for size in (16, 24, 32) for weight in (1, 20)]
    for number, (size, weight) in enumerate(choices, start=1):
        words = f"style.size={size} loss.style_weight={weight}"
        assert re.match(rf"{number} of 6: {words}: content \S+, style ", lines[number - 1])
        assert f"  size: {size}, style_weight: {weight}   {words}" in lines
        assert load_config(Path("wave.yaml"), words.split()).style.size == size


@pytest.mark.parametrize("weights", ["random", "compact"])
def test_the_smallest_style_and_crop_are_drawn_at_all_scales(weights: str) -> None:
    """`compact` pads by reflection; half of 16 pixels would be one in block 4, none in block 5."""
    deepest = "relu5_1" if weights == "random" else "relu4_3"
    config = load_config(
        Path("wave.yaml"),
        [
            f"loss_network.weights={weights}",
            f"loss.style_layers={{{deepest}: 1}}",
            "data.crop_size=16",
            "style.size=16",
        ],
    )
    with Image.open("photo.png") as photo:
        (drawn,) = draw_previews(
            config,
            photo.convert("RGB"),
            read_styles(config, [16]),
            style_weights=[1],
            style_sizes=[16],
            iterations=2,
            device=preview.torch.device("cpu"),
        )
    assert drawn.picture.size == (16, 16)
    assert drawn.values.style > 0


def test_values_near_those_of_the_file_are_taken_by_default() -> None:
    config = load_config(Path("wave.yaml"), ["loss.style_weight=5", "style.size=300"])
    assert choices_near(config) == ([2, 5, 12.5], [200, 300, 450])


@pytest.mark.slow
def test_a_larger_style_weight_lowers_style_and_raises_content() -> None:
    config = load_config(Path("wave.yaml"))
    with Image.open("photo.png") as photo:
        weak, strong = draw_previews(
            config,
            photo.convert("RGB"),
            read_styles(config, [32]),
            style_weights=[0.2, 50],
            style_sizes=[32],
            iterations=60,
            device=preview.torch.device("cpu"),
        )
    assert strong.values.style < weak.values.style
    assert strong.values.content > weak.values.content
    assert sum(strong.shares.values()) == pytest.approx(1)
    assert strong.picture.size == (32, 32)


def test_each_photo_gets_its_sheet(capsys: Output) -> None:
    photo_at("other.png", seed=4)
    photos = ["-p", "photo.png", "-p", "other.png"]
    assert run("wave.yaml", *photos, "--style-weights", "1", "-o", "a.png") == 0
    assert Path("a-photo.png").read_bytes() != Path("a-other.png").read_bytes()
    assert not Path("a.png").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["wave.yaml", "-p", "photo.png", "other.png", "style.size=24"],
        ["wave.yaml", "-p", "photo.png", "style.size=24", "--photo", "other.png"],
        ["-p", "photo.png", "other.png", "wave.yaml", "style.size=24"],
        ["-p", "photo.png", "other.png", "style.size=24", "wave.yaml"],
        ["wave.yaml", "seed=2", "-p", "photo.png", "other.png", "style.size=24"],
    ],
)
def test_photos_may_follow_one_another_and_settings_may_follow_photos(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_at("other.png", seed=4)
    found = []

    def look(config: Config, options: argparse.Namespace, outputs: list[Path]) -> int:
        found.append((config.style.size, options.photo))
        return 0

    monkeypatch.setattr(command, "_preview", look)
    assert run(*words) == 0
    assert found == [(24, [Path("photo.png"), Path("other.png")])]


@pytest.mark.parametrize("is_stopped_at", [2, 5, 9])
def test_a_stopped_preview_keeps_what_it_has_and_says_what_is_missing(
    is_stopped_at: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """After 4 iterations the first of three pictures is finished, after 8 the second."""
    calls = []
    original = preview._descend

    def stop(losses, contents, iterations, watch):  # type: ignore[no-untyped-def]
        def until() -> bool:
            calls.append(1)
            if len(calls) == is_stopped_at:
                signal.raise_signal(signal.SIGINT)
            return bool(watch())

        return original(losses, contents, iterations, until)

    monkeypatch.setattr(preview, "_descend", stop)
    values = ["--style-weights", "1", "2", "3", "--style-sizes", "32"]
    assert run("wave.yaml", "-p", "photo.png", "-p", "old.png", *values) == 130
    told = capfd.readouterr()
    num_drawn = is_stopped_at // 4
    is_told = f"preview-photo.png: {num_drawn} preview" in told.out
    assert is_told == Path("preview-photo.png").exists() == (num_drawn > 0)
    assert "stopping after this iteration; " in told.err
    assert f"stopped: {count(6 - num_drawn, 'preview')} left to draw" in told.err
    assert ("--overwrite" in told.err) == (num_drawn > 0)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["--photo"]),
        (["-p", "gone.png"], ["gone.png", "not found"]),
        (["-p", "photo.png", "--style-weights", "0"], ["--style-weights", "above 0", "'0'"]),
        (["-p", "photo.png", "--style-weights", "nan"], ["--style-weights", "above 0", "'nan'"]),
        (["-p", "photo.png", "--style-sizes", "8"], ["--style-sizes", "16", "'8'"]),
        (["-p", "photo.png", "-o", "sheet.xyz"], ["sheet.xyz", "use one of .jpg"]),
        (["-p", "photo.png", "-o", "photo.png"], ["photo.png", "is an input"]),
        (["-p", "photo.png", "-o", "style.png", "--overwrite"], ["style.png", "is an input"]),
        (["-p", "photo.png", "-o", "old.png"], ["old.png", "exists already", "--overwrite"]),
        (["-p", "photo.png", "-p", "other/photo.png"], ["two photos", "--output"]),
        (["-p", "photo.png", "more.yaml"], ["'more.yaml' on the command line", "key=value"]),
        (["-p", "photo.png", "train.stesp=3"], ["train.stesp", "did you mean 'train.steps'"]),
    ],
)
def test_mistakes_are_told_with_their_remedy(
    words: list[str], parts: list[str], capsys: Output
) -> None:
    assert run("wave.yaml", *words) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert all(part in message for part in parts), message
    assert not Path("preview.png").exists()


def test_a_sheet_that_appears_during_the_work_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    real = preview.preview_sheet

    def while_others_write(*words: Any, **options: Any) -> Image.Image:
        Path("preview.png").write_text("theirs")
        return real(*words, **options)

    monkeypatch.setattr(preview, "preview_sheet", while_others_write)
    assert run("wave.yaml", "-p", "photo.png", "--style-weights", "1", "--style-sizes", "16") == 0
    assert Path("preview.png").read_text() == "theirs"
    assert size_of("preview-2.png")[0] > 0
    assert "preview-2.png: 1 preview of photo.png" in capsys.readouterr().out


def test_a_photo_given_twice_is_drawn_once(capsys: Output) -> None:
    Path("link.png").symlink_to("photo.png")
    choice = ["--style-weights", "1", "--style-sizes", "16"]
    assert run("wave.yaml", "-p", "photo.png", "-p", "link.png", *choice) == 0
    assert size_of("preview.png")[0] > 0
    assert "link.png: given twice; it is drawn once" in capsys.readouterr().err


def test_a_style_picture_that_vanishes_meanwhile_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    real = preview._descend

    def while_it_vanishes(*words: Any) -> Any:
        Path("style.png").unlink(missing_ok=True)
        return real(*words)

    monkeypatch.setattr(preview, "_descend", while_it_vanishes)
    choices = ["--style-weights", "1", "--style-sizes", "16", "24"]
    assert run("wave.yaml", "-p", "photo.png", *choices) == 0
    assert "preview.png: 2 previews of photo.png" in capsys.readouterr().out
