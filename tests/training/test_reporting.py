"""What a run reports, and when."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_evaluation import write_narrow_vgg16
from small_run import (
    checkpoints_of,
    events_of,
    final_state,
    make_trainer,
    open_small_run,
    rows_of,
    settings_of,
    steps_with,
    train_once,
    wait_for_next_second,
    warnings_of,
    write_small_run,
)
from tensorboard.backend.event_processing import plugin_event_accumulator
from torch.utils.tensorboard import SummaryWriter

from fast_style.core.errors import UserError
from fast_style.measures.artifacts import weave_strengths
from fast_style.measures.blots import blot_share
from fast_style.measures.halos import halos
from fast_style.measures.repeats import repeat_strengths
from fast_style.measures.steadiness import noise_gains, shift_errors
from fast_style.pictures.pixels import image_to_tensor, resize_shorter_side
from fast_style.settings.config import TrainConfig
from fast_style.training import reporting
from fast_style.training.run_log import photo_and_result_sheet
from fast_style.training.schedule import learning_rate_at
from fast_style.training.trainer import Trainer

LOSS_TAGS = ["loss/total", "loss/content", "loss/style", "loss/tv", "loss/style/relu1_2"]
LOSS_TAGS += ["loss/style/autocorrelation", "loss/stability"]
TERM_TAGS = ["validation/total", "validation/content", "validation/style"]
FAULT_TAGS = [f"validation/{name}" for name in ("blots", "weave_2", "weave_4", "repeats", "halos")]
STEADINESS_TAGS = ["validation/shift", "validation/noise_gain"]
VALIDATION_TAGS = [*TERM_TAGS, *FAULT_TAGS, *STEADINESS_TAGS]
SHARE_TAGS = ["share/content", "share/style", "share/tv"]
OTHER_TAGS = [
    "lr",
    "grad_norm",
    "output/min",
    "output/max",
    "output/clipped",
    "data/skipped",
    "time/images_per_s",
    "time/data_wait_share",
    "memory/peak_mb",
]


# --- What is written, and when --------------------------------------------------------------------


@pytest.mark.slow
def test_intervals_do_what_they_say(yaml_file: Path, tmp_path: Path) -> None:
    words = [
        "train.steps=13",
        "log.every=4",
        "log.shares_every=6",
        "log.validate_every=5",
        "log.samples_every=7",
        "log.checkpoint_every=3",
        "log.keep_checkpoints=2",
    ]
    train_once(settings_of(yaml_file, *words), tmp_path)
    folder = tmp_path / "tiny"
    assert steps_with(folder, "loss/total") == [4, 8, 12, 13]
    assert steps_with(folder, "share/tv") == [6, 12, 13]
    assert steps_with(folder, "validation/total") == [0, 5, 10, 13]
    assert checkpoints_of(folder) == [12, 13]
    samples = sorted(path.name for path in (folder / "samples").iterdir())
    assert samples == ["latest.png", *(f"step-{step:08}.png" for step in (0, 7, 13))]


def test_validation_is_the_mean_over_the_photos(
    open_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    # Three photos in chunks of two; a bright style picture, so that dark results are blots.
    style = tmp_path / "bright.png"
    Image.new("RGB", (40, 40), (250, 240, 230)).save(style)
    trainer = open_trainer(f"style.image={style}", "data.crop_size=32")
    photos = trainer.validation.photos.float() / 255
    with torch.no_grad():
        results = trainer.net(photos)
        terms = trainer.perceptual_loss(results, photos)
    saved = results.clamp(0, 1)
    with Image.open(style) as picture:
        pixels = image_to_tensor(resize_shorter_side(picture, 32))[None].float() / 255
    blots = blot_share(saved, photos, pixels)
    weave = weave_strengths(saved, photos)
    assert len(photos) == 3
    assert blots.mean() > 0
    assert weave.period_4.mean() > 0
    found = trainer.validation.measure(trainer.fast_net)
    assert list(found) == VALIDATION_TAGS

    def stylize(pixels: torch.Tensor) -> torch.Tensor:
        return trainer.net(pixels).clamp(0, 1)

    patterns = [repeat_strengths(saved), halos(saved, photos)]
    steady = [shift_errors(stylize, photos), noise_gains(stylize, photos, saved)]
    expected = [terms.total, terms.content, terms.style, blots, *weave, *patterns, *steady]
    assert list(found.values()) == pytest.approx(
        [value.mean().item() for value in expected], rel=1e-4, abs=1e-6
    )


def test_logged_rate_is_the_one_that_made_the_step(straight: Path) -> None:
    settings = TrainConfig(steps=6, warmup_steps=0)
    expected = [learning_rate_at(step, settings) for step in range(6)]
    assert [float(row["lr"]) for row in rows_of(straight) if row["lr"]] == expected


def test_sample_sheet_shows_the_asked_number_of_photos(straight: Path) -> None:
    with Image.open(straight / "samples" / "step-00000003.png") as sheet:
        # Not the 16 pixels of a crop, on which one sees little; 4 pixels of white between
        assert sheet.size == (2 * (32 + 4), 32 + 4 + 32)


@pytest.mark.slow
def test_samples_are_drawn_once_at_a_step(
    open_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    words = ["train.steps=6", "log.samples_every=3", "log.checkpoint_every=2"]
    trainer = open_trainer(*words)

    def draw(photos: torch.Tensor, results: torch.Tensor) -> Image.Image:
        drawn.append(trainer.step)
        return photo_and_result_sheet(photos, results)

    monkeypatch.setattr(reporting, "photo_and_result_sheet", draw)
    trainer.train()
    # Samples at 0, 3 and 6; the model card's at 2, 4 and 6.
    assert drawn == [0, 2, 3, 4, 6]


def test_samples_are_the_first_readable_validation_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml_file = write_small_run(tmp_path)
    config = settings_of(yaml_file, "log.samples=1")
    held_out = train_once(config, tmp_path, stop_at=1).photos.crops.photos.validation
    held_out[0].write_bytes(b"")
    said: list[str] = []
    run = open_small_run(config, tmp_path)
    trainer = make_trainer(config, run, say=said.append)
    trainer.run_log.close()
    run.lock.release()
    assert trainer.reporter.sample_photos.shape == (1, 3, 32, 32)
    assert trainer.validation.photos.shape == (2, 3, 16, 16)
    assert said[0] == f"warning: skipping {held_out[0]}: empty file"


def test_tensorboard_shows_one_run_with_all_tags(straight: Path) -> None:
    assert {path.parent for path in straight.rglob("*tfevents*")} == {straight}
    events = events_of(straight)
    tags = events.Tags()
    assert set(tags["scalars"]) == {*LOSS_TAGS, *VALIDATION_TAGS, *SHARE_TAGS, *OTHER_TAGS}
    assert set(tags["images"]) == {"samples/photo_and_result", "style"}
    assert set(tags["tensors"]) == {"settings/text_summary", "command/text_summary"}

    def steps(tag: str) -> list[int]:
        return [event.step for event in events.Scalars(tag)]

    assert steps("loss/total") == [1, 2, 3, 4, 5, 6]
    assert steps("validation/total") == [0, 3, 6]
    assert steps("share/style") == [3, 6]
    samples = [event.step for event in events.Images("samples/photo_and_result")]
    assert samples == [0, 3, 6]
    assert [event.step for event in events.Images("style")] == [0]
    (text,) = events.Tensors("settings/text_summary")
    assert b"style_weight: 1.5" in text.tensor_proto.string_val[0]
    (text,) = events.Tensors("command/text_summary")
    assert b"train.py" in text.tensor_proto.string_val[0]


@pytest.mark.slow
def test_the_judge_logs_its_own_terms_and_changes_nothing(
    yaml_file: Path, tmp_path: Path, straight: Path
) -> None:
    weights = write_narrow_vgg16(tmp_path)
    config = settings_of(yaml_file, f"log.judge_weights={weights}")
    trainer = train_once(config, tmp_path)
    judge = trainer.validation.judge
    assert judge is not None
    assert (judge.loss.style_weight, judge.photos.shape) == (5.0, (3, 3, 256, 256))
    folder = tmp_path / "tiny"
    assert steps_with(folder, "validation/total") == [0, 3, 6]
    events = events_of(folder)
    for tag in ("judge/total", "judge/content", "judge/style"):
        assert [event.step for event in events.Scalars(tag)] == [0, 3, 6]
    with torch.no_grad():
        pixels = judge.photos.float() / 255
        expected = judge.loss(trainer.net(pixels), pixels)
    assert events.Scalars("judge/total")[-1].value == pytest.approx(expected.total.item(), rel=1e-3)
    assert rows_of(folder) == rows_of(straight)


def test_missing_weights_of_the_judge_name_the_setting(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file, f"log.judge_weights={tmp_path / 'none.pth'}")
    with pytest.raises(UserError, match=r"log\.judge_weights"):
        train_once(config, tmp_path)


@pytest.mark.parametrize(
    "stop", [2, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (0, 3))]
)
def test_run_killed_and_resumed_shows_no_doubled_points(
    yaml_file: Path, tmp_path: Path, stop: int
) -> None:
    config = settings_of(yaml_file, f"log.checkpoint_every={stop or 99}", "log.validate_every=1")
    run = open_small_run(config, tmp_path)
    trainer = make_trainer(config, run)

    def kill() -> None:
        if trainer.step == 5:
            raise KeyboardInterrupt  # leaves without saving

    with pytest.raises(KeyboardInterrupt):
        trainer.train(kill)  # type: ignore[arg-type]
    run.lock.release()
    wait_for_next_second()
    train_once(config, tmp_path)
    folder = tmp_path / "tiny"
    assert steps_with(folder, "loss/total") == [1, 2, 3, 4, 5, 6]
    events = events_of(folder)
    for tag, first in (("loss/total", 1), ("validation/total", 0)):
        assert [event.step for event in events.Scalars(tag)] == list(range(first, 7))
    samples = [event.step for event in events.Images("samples/photo_and_result")]
    assert samples == [0, 3, 6]
    assert len(events.Images("style")) == 1
    # This one of TensorBoard's readers, which its web page uses, knows how to purge texts.
    reader = plugin_event_accumulator.EventAccumulator(str(folder), purge_orphaned_data=True)
    reader.Reload()
    assert len(reader.Tensors("settings/text_summary")) == 1


def test_table_and_tensorboard_agree(straight: Path) -> None:
    events = events_of(straight)
    for tag in (*LOSS_TAGS, *VALIDATION_TAGS, *SHARE_TAGS):
        tabled = [float(row[tag]) for row in rows_of(straight) if row[tag]]
        values = [event.value for event in events.Scalars(tag)]
        assert values == pytest.approx(tabled, nan_ok=True)


def test_logged_total_is_the_weighted_sum_of_the_logged_terms(straight: Path) -> None:
    for row in rows_of(straight)[1:]:
        content, style, tv = (float(row[f"loss/{term}"]) for term in ("content", "style", "tv"))
        assert float(row["loss/total"]) == pytest.approx(content + 1.5 * style + tv, rel=1e-5)
        if row["share/tv"]:
            assert sum(float(row[tag]) for tag in SHARE_TAGS) == pytest.approx(1)


@pytest.mark.slow
def test_tensorboard_that_fails_does_not_change_the_run(
    open_trainer: Callable[..., Trainer],
    tmp_path: Path,
    straight: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer = open_trainer()

    def fail(*unused: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    trainer.train()
    assert final_state(tmp_path / "tiny") == final_state(straight)
    out = capsys.readouterr().out
    assert out.count("warning: TensorBoard cannot be written any more") == 1


# --- Warnings -------------------------------------------------------------------------------------


def test_term_that_hardly_counts_is_told_with_its_key(
    yaml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_of(yaml_file, "loss.content_weight=1e-5", "loss.tv_weight=0")
    (warning,) = warnings_of(capsys, config, tmp_path)
    assert warning.startswith("the content term has 0.0% of the gradient, so it hardly counts; ")
    assert warning.endswith("raise loss.content_weight (now 1e-05)")


def test_term_that_is_switched_off_is_not_warned_of(
    yaml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_of(yaml_file, "loss.style_weight=0")
    assert warnings_of(capsys, config, tmp_path) == []


def test_clipped_output_is_told_once_with_its_keys(
    open_trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = open_trainer("train.learning_rate=1e-6")
    with torch.no_grad():
        trainer.net.to_rgb.conv.bias.fill_(60.0)
    trainer.train()
    found = [line for line in capsys.readouterr().out.splitlines() if "pure black" in line]
    assert found == [
        "warning: step 1: 100% of the output is pure black or white; try a lower "
        "loss.style_weight, or a lower train.learning_rate"
    ]
