"""Where a training begins: seeded weights, a model's, those of the base."""

from pathlib import Path

import pytest
import torch
from small_run import ignore, settings_of
from tiny_model import write_tiny_model

from fast_style.core.errors import UserError
from fast_style.models.checkpoint import load_transform_net
from fast_style.settings.config import Config
from fast_style.styles import shipped
from fast_style.training import start
from fast_style.training.start import BASE_FILE, build_net


@pytest.fixture
def config(yaml_file: Path) -> Config:
    """Of a network of width 2 with one residual block."""
    return settings_of(yaml_file)


def is_same(net: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(theirs[name], tensor) for name, tensor in net.state_dict().items())


def test_weights_follow_from_the_seed(config: Config, yaml_file: Path) -> None:
    assert is_same(build_net(config, None), build_net(config, None))
    assert not is_same(build_net(config, None), build_net(settings_of(yaml_file, "seed=4"), None))


def test_weights_leave_the_random_numbers_of_gpus_alone(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    build_net(config, None)
    assert seeds == []
    torch.manual_seed(torch.initial_seed())
    assert len(seeds) == 1  # as this would seed them


def test_base_gives_its_weights(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_tiny_model(tmp_path / "base.safetensors", width=2)
    monkeypatch.setattr(start, "BASE_FILE", base)
    config = settings_of(yaml_file, "model.tanh_scale=127.5")
    said: list[str] = []
    assert is_same(build_net(config, "base", said.append), load_transform_net(base)[0])
    assert said == []


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("model.width=3", "model.width=2"),
        ("model.residual_blocks=2", "model.residual_blocks=1"),
        ("model.antialiased=false", "model.antialiased=True"),
    ],
)
def test_network_of_another_architecture_starts_from_nothing_and_says_so(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, told: str
) -> None:
    base = write_tiny_model(tmp_path / "base.safetensors", width=2)
    monkeypatch.setattr(start, "BASE_FILE", base)
    config = settings_of(yaml_file, "model.tanh_scale=127.5", word)
    said: list[str] = []
    assert is_same(build_net(config, "base", said.append), build_net(config, None))
    (line,) = said
    assert line.startswith(
        f"train.init_from: the base has {told}; this network starts from nothing"
    )
    assert "train.steps" in line


@pytest.mark.parametrize(
    ("words", "found", "needed"),
    [
        (["model.width=3"], "model.width=3", "model.width=2"),
        (
            ["model.residual_blocks=2", "model.upsampling=transposed"],
            "model.residual_blocks=2, model.upsampling=transposed",
            "model.residual_blocks=1 model.upsampling=resize",
        ),
    ],
)
def test_model_of_another_network_is_told_with_what_to_set(
    yaml_file: Path, tmp_path: Path, words: list[str], found: str, needed: str
) -> None:
    path = str(write_tiny_model(tmp_path / "a.safetensors", width=2))
    with pytest.raises(UserError) as caught:
        build_net(settings_of(yaml_file, *words), path)
    assert str(caught.value) == (
        f"train.init_from: {path} is of another network than {found}; set {needed}, or start from "
        "random weights with train.init_from=null and more train.steps"
    )
    net = build_net(settings_of(yaml_file, *words, *needed.split()), path)
    assert is_same(net, load_transform_net(Path(path))[0])


def test_what_has_no_weights_may_differ_from_the_model(yaml_file: Path, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "a.safetensors", width=2, tanh_scale=127.5)
    words = ["model.tanh_scale=150", "model.antialiased=false"]
    net = build_net(settings_of(yaml_file, *words), str(path))
    assert is_same(net, load_transform_net(path)[0])


def test_missing_model_is_told_with_the_other_starts(config: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        build_net(config, str(tmp_path / "gone.safetensors"), ignore)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'gone.safetensors'}: ")
    assert "train.init_from=base" in message
    assert "train.init_from=null" in message


@pytest.fixture
def wave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model of the only style that comes along, of the configured architecture."""
    (tmp_path / "styles").mkdir()
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "styles")
    return write_tiny_model(tmp_path / "styles" / "great_wave.safetensors", width=2)


def test_style_that_comes_along_is_a_start(yaml_file: Path, wave: Path) -> None:
    config = settings_of(yaml_file, "model.tanh_scale=127.5", "train.init_from=great_wave")
    assert config.train.init_from == "great_wave"  # no path of this machine
    assert is_same(build_net(config, config.train.init_from), load_transform_net(wave)[0])


def test_mistyped_style_is_answered_with_the_one_that_was_meant(
    yaml_file: Path, wave: Path
) -> None:
    config = settings_of(yaml_file, "train.init_from=great_wav")
    with pytest.raises(UserError, match=r"great_wav: .*; did you mean 'great_wave'\? train it"):
        build_net(config, config.train.init_from)


def test_base_is_meant_in_any_case(yaml_file: Path, wave: Path) -> None:
    config = settings_of(yaml_file, "train.init_from=Base")
    with pytest.raises(UserError, match=r"Base: .*; did you mean 'base'\? "):
        build_net(config, config.train.init_from)


def test_base_of_the_package_is_of_the_networks_that_init_trains() -> None:
    net, description = load_transform_net(BASE_FILE)
    assert description["architecture"] == {
        "width": 16,
        "residual_blocks": 5,
        "upsampling": "resize",
        "antialiased": True,
        "tanh_scale": 150,
    }
    photo = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert net(photo).std() > 0.05  # not a single color
