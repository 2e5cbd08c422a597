"""From settings to a trainer."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_run import (
    draw_photo,
    ignore,
    make_trainer,
    open_small_run,
    settings_of,
    train_once,
)

from fast_style.core.errors import UserError
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.models.checkpoint import (
    load_checkpoint,
)
from fast_style.models.model_files import describe
from fast_style.styles import shipped
from fast_style.training import build as runs_module
from fast_style.training import data
from fast_style.training.trainer import Trainer


def test_run_folder_has_what_the_design_says(straight: Path) -> None:
    names = {path.name.split(".tfevents")[0] for path in straight.iterdir()}
    assert names == {
        "README.md",
        "checkpoints",
        "config.yaml",
        "environment.json",
        "events.out",
        "lock",
        "metrics.csv",
        "model.safetensors",
        "samples",
        "style.png",
    }


def test_style_picture_is_kept_as_it_was_used(straight: Path) -> None:
    with Image.open(straight / "style.png") as style:
        assert style.size == (32, 32)
        assert draw_photo(100).size == (40, 40)


def test_init_from_starts_from_those_weights(
    open_trainer: Callable[..., Trainer], straight: Path
) -> None:
    trainer = open_trainer(f"train.init_from={straight / 'model.safetensors'}")
    trainer.run_log.close()
    weights = load_checkpoint(straight / "model.safetensors").part("model")
    assert all(torch.equal(weights[n], t) for n, t in trainer.net.state_dict().items())
    assert trainer.step == 0


def test_init_from_another_architecture_is_refused(
    yaml_file: Path, tmp_path: Path, straight: Path
) -> None:
    model = straight / "model.safetensors"
    config = settings_of(yaml_file, f"train.init_from={model}", "model.width=3")
    run = open_small_run(config, tmp_path)
    with pytest.raises(UserError) as caught:
        make_trainer(config, run)
    run.lock.release()
    assert str(caught.value).startswith(f"train.init_from: {model} ")
    assert "model.width=3; set model.width=2, " in str(caught.value)


def test_run_goes_on_though_the_model_it_began_with_is_gone(
    yaml_file: Path, tmp_path: Path, straight: Path
) -> None:
    model = tmp_path / "start.safetensors"
    model.write_bytes((straight / "model.safetensors").read_bytes())
    config = settings_of(yaml_file, f"train.init_from={model}")
    train_once(config, tmp_path, stop_at=2)
    model.unlink()
    assert train_once(config, tmp_path).step == 6


def test_run_that_began_with_the_nearest_style_resumes_as_if_it_had_not_stopped(
    yaml_file: Path, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ships = tmp_path / "ships"
    ships.mkdir()
    (ships / "great_wave.safetensors").write_bytes((straight / "model.safetensors").read_bytes())
    monkeypatch.setattr(shipped, "FOLDER", ships)
    config = settings_of(yaml_file, "train.init_from=nearest")
    whole = train_once(config, tmp_path / "whole").net.state_dict()
    train_once(config, tmp_path / "stopped", stop_at=2)
    (ships / "great_wave.safetensors").unlink()  # a later version may lack the style
    resumed = train_once(config, tmp_path / "stopped").net.state_dict()
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())


def test_animation_as_a_style_is_said_to_be_one_of_its_pictures(
    yaml_file: Path, tmp_path: Path
) -> None:
    frames = [Image.effect_noise((48, 48), sigma).convert("RGB") for sigma in (50, 90)]
    frames[0].save(tmp_path / "style.gif", save_all=True, append_images=frames[1:])
    config = settings_of(yaml_file, f"style.image={tmp_path}/style.gif")
    said: list[str] = []
    with open_small_run(config, tmp_path) as run:
        make_trainer(config, run, say=said.append).run_log.close()
    (line,) = [line for line in said if "style.gif" in line]
    assert line.startswith("1 of 2 pictures in ")


def test_blank_style_is_told(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    run = open_small_run(config, tmp_path)
    weights = load_loss_weights(config)
    dead = {
        number: (kernel * 0, bias * 0) for number, (kernel, bias) in weights.convolutions.items()
    }
    with pytest.raises(UserError, match=r"the loss network sees nothing in this style picture"):
        build_perceptual_loss(
            config,
            weights._replace(convolutions=dead),
            read_style(config.style.image, config.style.size),
            torch.device("cpu"),
        )
    run.lock.release()


def test_full_network_is_announced_with_what_needs_no_download(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: object) -> None:
        raise UserError("no weights here")

    monkeypatch.setattr(runs_module, "load_loss_weights", refuse)
    expected_lines = {"imagenet_features": 1, "imagenet": 1, "random": 0, "compact": 0}
    for weights, expected in expected_lines.items():
        said: list[str] = []
        config = settings_of(yaml_file, f"name={weights}", f"loss_network.weights={weights}")
        run = open_small_run(config, tmp_path)
        with pytest.raises(UserError, match="no weights here"):
            make_trainer(config, run, say=said.append)
        run.lock.release()
        found = [line for line in said if "loss_network.weights=compact needs neither" in line]
        assert len(found) == expected


def test_crops_grow_after_their_share_of_the_steps(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file, "data.grown_crop_size=24", "data.grow_after=0.6")
    run = open_small_run(config, tmp_path / "runs")
    trainer = make_trainer(config, run)
    sides = [photos.shape[-1] for photos in trainer.photos.batches(0, 6, ignore)]
    trainer.run_log.close()
    run.lock.release()
    assert sides == [16, 16, 16, 16, 24, 24]  # 0.6 of 6 is 3.6
    assert trainer.validation.photos.shape[-1] == 24
    card = "\n".join(describe({**trainer.description, "step": 6}))
    assert "12 crops of 16, later 24, pixels from 9 photos" in card


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
def test_workers_are_those_whose_largest_batches_fit_into_shared_memory(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings_of(yaml_file, "data.workers=2", "data.grown_crop_size=24")
    batch_bytes = 2 * 3 * 24 * 24
    for free, workers in ((10 * batch_bytes, 2), (10 * batch_bytes - 1, 1)):
        monkeypatch.setattr(data, "_free_shared_bytes", lambda free=free: free)
        said: list[str] = []
        with open_small_run(config, tmp_path / "runs") as run:
            trainer = make_trainer(config, run, say=said.append)
            trainer.run_log.close()
        assert trainer.photos.workers == workers
        told = [line for line in said if line.startswith("data.workers: 1 in place of 2: ")]
        assert len(told) == 2 - workers


def test_run_is_built_without_touching_the_global_random_numbers(
    yaml_file: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run = open_small_run(settings_of(yaml_file), tmp_path)
    make_trainer(settings_of(yaml_file), run).run_log.close()
    run.lock.release()
    assert torch.equal(torch.rand(3), expected)
