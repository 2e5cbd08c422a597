"""Where a training begins: seeded weights, a model's, those of the base."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import ignore, settings_of
from tiny_model import write_tiny_model

from fast_style.core.errors import UserError
from fast_style.losses.nearest import NearestStyles
from fast_style.models.checkpoint import load_transform_net
from fast_style.networks.transform_net import TransformNet
from fast_style.pictures.colors import colors_of
from fast_style.pictures.folders import Photos
from fast_style.pictures.pixels import tensor_to_image
from fast_style.settings.config import Config
from fast_style.styles import shipped
from fast_style.training import start
from fast_style.training.start import BASE_FILE, build_net, start_from_nearest

PAINTING = Image.fromarray(
    np.random.default_rng(5).integers(30, 200, (64, 80, 3), dtype=np.uint8) // 2
)


@pytest.fixture
def config(yaml_file: Path) -> Config:
    """Of a network of width 2 with one residual block."""
    return settings_of(yaml_file)


def nearest_net(
    config: Config, photos: Sequence[Path] = (), say: Callable[[str], None] = ignore
) -> TransformNet:
    net = build_net(config, "nearest")
    found = Photos(Path(), list(photos), [])
    start_from_nearest(net, config, PAINTING, found, say)
    return net


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
    assert "train.init_from=nearest" in message
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


# --- The nearest style --------------------------------------------------------------------------


@pytest.fixture
def styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three styles of the configured architecture, with other weights."""
    folder = tmp_path / "styles"
    folder.mkdir()
    monkeypatch.setattr(shipped, "FOLDER", folder)
    for seed, name in enumerate(("great_wave", "starry_night", "water_lilies")):
        write_tiny_model(folder / f"{name}.safetensors", width=2, seed=seed)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for number, path in enumerate(paths):
        values = np.random.default_rng(number).integers(0, 256, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(values).save(path)
    return paths


def pixels(photo: Path) -> torch.Tensor:
    with Image.open(photo) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def test_nearest_style_gives_its_network_with_the_colors_of_the_painting(
    yaml_file: Path, styles: Path, photos: list[Path]
) -> None:
    config = settings_of(yaml_file, "model.tanh_scale=127.5", "train.init_from=nearest")
    assert config.train.init_from == "nearest"
    said: list[str] = []
    net = nearest_net(config, photos, said.append)
    chosen = NearestStyles(shipped.shipped_styles(), [PAINTING]).of(
        [Image.open(photo).convert("RGB") for photo in photos[::2][:8]]
    )[0]
    (line,) = said
    assert line.startswith(f"train.init_from: starts from {chosen}, ")
    theirs = load_transform_net(styles / f"{chosen}.safetensors")[0].state_dict()
    changed = {name for name, tensor in net.state_dict().items() if not tensor.equal(theirs[name])}
    assert changed == {"to_rgb.conv.weight", "to_rgb.conv.bias"}
    with torch.no_grad():
        own = colors_of(tensor_to_image(net(pixels(photos[0]))[0]))
    wanted = colors_of(PAINTING)
    assert own.mean == pytest.approx(wanted.mean, abs=0.1)
    assert own.covariance.trace() == pytest.approx(wanted.covariance.trace(), rel=0.6)


def test_photos_that_cannot_be_read_are_passed_over(
    yaml_file: Path, styles: Path, photos: list[Path]
) -> None:
    config = settings_of(yaml_file, "model.tanh_scale=127.5")
    for path in photos[::2]:
        path.write_bytes(b"junk")
    assert is_same(nearest_net(config, photos[::2]), nearest_net(config))


def test_network_that_no_style_fits_starts_from_nothing_and_says_so(
    yaml_file: Path, styles: Path
) -> None:
    config = settings_of(yaml_file, "model.tanh_scale=127.5", "model.width=3")
    said: list[str] = []
    assert is_same(nearest_net(config, say=said.append), build_net(config, None))
    (line,) = said
    assert "model.width=2" in line
    assert "train.steps" in line


def test_installation_without_styles_starts_from_the_base_and_says_so(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    base = write_tiny_model(tmp_path / "elsewhere.st", width=2)
    monkeypatch.setattr(start, "BASE_FILE", base)
    config = settings_of(yaml_file, "model.tanh_scale=127.5")
    said: list[str] = []
    assert is_same(nearest_net(config, say=said.append), load_transform_net(base)[0])
    assert "base" in said[0]


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
