"""A distillation so small that a step takes milliseconds: pictures and a teacher made here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from small_run import draw_photo, learn_once, quick_runs, write_photos

from fast_style.distilling import build, painters
from fast_style.distilling.build import build_distiller
from fast_style.distilling.distiller import Distiller
from fast_style.distilling.painters import Painter
from fast_style.distilling.students import best_head, compare
from fast_style.losses.loss_network import LossNetwork, Weights
from fast_style.networks.transform_net import TransformNet
from fast_style.settings.config import DistillConfig, load_distill_config
from fast_style.settings.layers import torchvision_index
from fast_style.training.run_folder import Run

Convolutions = dict[str, tuple[torch.Tensor, torch.Tensor]]

LAYERS = ["relu1_1", "relu1_2", "relu2_1", "relu2_2"]
CHANNELS = {"1_1": 8, "1_2": 8, "2_1": 12, "2_2": 12}
SETTINGS: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "teacher": {"weights": "teacher.safetensors"},
    "student": {"widths": [6, 8], "deepest": "relu2_2"},
    "data": {
        "photos": "photos",
        "paintings": "paintings",
        "validation_count": 3,
        "crop_size": 32,
        "workers": 0,
    },
    "train": {
        "steps": 6,
        "photos": 2,
        "paintings": 1,
        "surfaces": 1,
        "painters": 2,
        "warmup_steps": 0,
        "threads": 1,
    },
    "log": {"every": 1, "validate_every": 3, "checkpoint_every": 2},
}


@contextmanager
def small_painters() -> Iterator[None]:
    """Narrow painters that live two steps, and few pictures to choose channels by."""
    with quick_runs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Painter, "WIDTH", 2)
        patch.setattr(painters, "TransformNet", partial(TransformNet, residual_blocks=1))
        patch.setattr(Painter, "LIFETIME", (2, 3))
        patch.setattr(build, "NUM_FIRST_PHOTOS", 6)
        patch.setattr(build, "NUM_FIRST_PAINTINGS", 3)
        yield


def random_convolutions(channels: dict[str, int], seed: int = 1) -> Convolutions:
    """Kernels that keep the size of activations, for pixels whose deviation is about one."""
    generator = torch.Generator().manual_seed(seed)
    convolutions = {}
    before = 3
    for number, after in channels.items():
        kernel = torch.randn(after, before, 3, 3, generator=generator) * (2 / (9 * before)) ** 0.5
        # With their whole mean, channels that get positive numbers only may be silent always.
        kernel -= 0.8 * kernel.mean(dim=(1, 2, 3), keepdim=True)
        convolutions[number] = (kernel, torch.rand(after, generator=generator) / 4)
        before = after
    return convolutions


def random_weights(channels: dict[str, int], seed: int = 1) -> Weights:
    return Weights(random_convolutions(channels, seed), "torchvision", "reflect", "x", "0")


def write_teacher(path: Path, seed: int = 1) -> Path:
    """A narrow VGG-16 up to relu2_2 that takes pixels as Caffe's networks do, and reflects."""
    tensors = {}
    for number, (kernel, bias) in random_convolutions(CHANNELS, seed).items():
        index = torchvision_index(f"conv{number}", "vgg16")
        tensors[f"features.{index}.weight"] = kernel / 64 if number == "1_1" else kernel
        tensors[f"features.{index}.bias"] = bias
    save_file(tensors, path, {"preprocessing": "caffe", "padding": "reflect"})
    return path


def write_paintings(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    for number in range(count):
        draw_photo(200 + number, (48, 60 + number)).save(folder / f"painting-{number}.png")
    return folder


def write_small_distillation(folder: Path) -> Path:
    """A folder with pictures, a teacher, and the YAML file whose path is given back."""
    write_photos(folder / "photos")
    write_paintings(folder / "paintings")
    write_teacher(folder / "teacher.safetensors")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return path


def settings_of(yaml_file: Path, *words: str) -> DistillConfig:
    """The settings of the file, with ``key=value`` words laid over them."""
    return load_distill_config(yaml_file, words)


def make_distiller(
    config: DistillConfig, run: Run, *, say: Callable[[str], None] = print
) -> Distiller:
    return build_distiller(config, run, device=torch.device("cpu"), say=say, command="distill")


def distill_once(config: DistillConfig, root: Path, *, stop_at: int | None = None) -> Distiller:
    """`learn_once` for a distillation."""
    return learn_once(config, root, make_distiller, stop_at=stop_at)


def random_numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def photos_of(distiller: Distiller, step: int = 0) -> torch.Tensor:
    """The photos of a step, as `train_step` takes them."""
    count = distiller.settings.num_photos
    crops = distiller.photos.crops
    samples = [crops[k].pixels for k in range(step * count, (step + 1) * count)]
    return torch.stack([pixels for pixels in samples if pixels is not None])


def error_at(
    student: LossNetwork, teacher: LossNetwork, pictures: torch.Tensor, layer: str
) -> float:
    """The student's error at a layer, through the best head."""
    comparison = compare(student(pictures, [layer])[layer], teacher(pictures, [layer])[layer], 0.0)
    return float(comparison.feature_error(best_head(comparison.own, comparison.cross)))
