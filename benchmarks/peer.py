"""Shared by the benchmarks: the peer, pytorch/examples' fast_neural_style; timing; tables.

``--peer PATH`` names a checkout of the peer, the repository or its folder fast_neural_style;
nothing of it is copied here. It gets our network's weights, so that both sides do the same work.
Its pictures differ all the same: its convolutions have biases (zeros here), its last layer has no
tanh, and its pixels are 0..255.

This module imports no torch: child processes do, and the parent need not wait for it.
"""

import argparse
import importlib.util
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import program

from fast_style.core.errors import UserError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from torch import Tensor

    from fast_style.networks.transform_net import TransformNet

ROOT = Path(__file__).resolve().parent.parent
NAME = "pytorch/examples"

# --- The peer -----------------------------------------------------------------------------------


def add_peer(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--peer``; its value is the folder of the peer's modules, or None."""
    parser.add_argument(
        "--peer",
        type=peer_folder,
        metavar="PATH",
        help="a checkout of pytorch/examples, or of its folder fast_neural_style",
    )


def peer_folder(text: str) -> Path:
    """The folder of the peer's modules in a checkout."""
    path = Path(text).absolute()
    for folder in (path, path / "neural_style", path / "fast_neural_style" / "neural_style"):
        if (folder / "neural_style.py").is_file():
            return folder
    raise argparse.ArgumentTypeError(f"{text}: no fast_neural_style of pytorch/examples")


def peer_module(folder: Path, name: str) -> ModuleType:
    """One of the peer's modules, such as ``transformer_net``, imported from its checkout."""
    spec = importlib.util.spec_from_file_location(f"peer_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peer_command(
    folder: Path, *, model: Path, photo: Path, output: Path, device: str = "cpu"
) -> list[str]:
    """The peer's command for one photo; the device is cpu or cuda."""
    return [
        sys.executable,
        str(folder / "neural_style.py"),
        "eval",
        *("--content-image", str(photo)),
        *("--model", str(model)),
        *("--output-image", str(output)),
        *(["--accel"] if device == "cuda" else []),
    ]


# The peer's training without its download: VGG-16 with the numbers of a file, or with random ones.
_TRAIN = """
import runpy, sys
import torch, torchvision.models
weights, folder = sys.argv.pop(1), sys.argv.pop(1)
plain_vgg16 = torchvision.models.vgg16
def vgg16(**settings):
    net = plain_vgg16()
    if weights:
        net.load_state_dict(torch.load(weights), strict=False)
    return net
torchvision.models.vgg16 = vgg16
sys.path.insert(0, folder)
runpy.run_path(folder + "/neural_style.py", run_name="__main__")
"""


def training_command(
    folder: Path,
    *,
    photos: Path,
    style: Path,
    models: Path,
    batch_size: int,
    size: int,
    device: str,
    epochs: int = 1,
    weights: Path | None = None,
) -> list[str]:
    """The peer's training command.

    Args:
        folder: of the peer's modules.
        photos: a folder with a folder of photos in it.
        style: the style picture.
        models: the folder for its model.
        batch_size: photos per step.
        size: pixels of their sides.
        device: cpu or cuda.
        epochs: passes over the photos.
        weights: a file of VGG-16's convolutions, by torchvision's names; None: random weights.
    """
    return [
        *(sys.executable, "-c", _TRAIN, str(weights or ""), str(folder)),
        *("train", "--epochs", str(epochs), "--batch-size", str(batch_size)),
        *("--dataset", str(photos), "--image-size", str(size)),
        *("--style-image", str(style), "--save-model-dir", str(models)),
        *(["--accel"] if device == "cuda" else []),
    ]


def peer_weights(net: "TransformNet") -> "dict[str, Tensor]":
    """The weights of our network (width 32, five blocks, resize) under the peer's names."""
    import torch

    ours = net.state_dict()
    theirs: dict[str, Tensor] = {}

    def convolution(source: str, target: str) -> None:
        weight = ours[f"{source}.conv.weight"]
        bias = ours.get(f"{source}.conv.bias", torch.zeros(weight.shape[0]))
        theirs[f"{target}.conv2d.weight"], theirs[f"{target}.conv2d.bias"] = weight, bias

    def norm(source: str, target: str) -> None:
        for part in ("weight", "bias"):
            theirs[f"{target}.{part}"] = ours[f"{source}.{part}"]

    for i in range(3):
        convolution(f"down.{i}.convolution", f"conv{i + 1}")
        norm(f"down.{i}.norm", f"in{i + 1}")
    for i in range(5):
        convolution(f"residual.{i}.first.convolution", f"res{i + 1}.conv1")
        norm(f"residual.{i}.first.norm", f"res{i + 1}.in1")
        convolution(f"residual.{i}.second", f"res{i + 1}.conv2")
        norm(f"residual.{i}.norm", f"res{i + 1}.in2")
    for i in range(2):
        convolution(f"up.{i}.convolution.conv", f"deconv{i + 1}")
        norm(f"up.{i}.norm", f"in{i + 4}")
    convolution("to_rgb", "deconv3")
    return theirs


# --- Ours ---------------------------------------------------------------------------------------


def write_models(folder: Path) -> tuple[Path, Path]:
    """Write one seeded network twice: as our model file, and as the peer's weights file."""
    import torch

    ours, theirs = folder / "model.safetensors", folder / "peer.pth"
    torch.save(peer_weights(write_model(ours)), theirs)
    return ours, theirs


def write_model(path: Path, **model: object) -> "TransformNet":
    """Write a model file of a seeded network; `model` is as in a settings file."""
    import torch

    from fast_style import __version__
    from fast_style.models.checkpoint import save_checkpoint
    from fast_style.networks.transform_net import TransformNet
    from fast_style.settings.config import parse_config
    from fast_style.settings.writing import to_dict

    settings = parse_config(
        {
            "name": "benchmark",
            "style": {"image": "none"},
            "data": {"photos": "none"},
            "model": model,
        },
        __file__,
    )
    architecture = settings.model.model_dump()
    torch.manual_seed(0)
    net = TransformNet(**architecture)
    description = {
        "name": settings.name,
        "step": 0,
        "architecture": architecture,
        "settings": to_dict(settings),
        "style": {"file": "none", "digest": "none"},
        "photos": {"count": 0},
        "loss_network": {"architecture": "none", "label": "no weights", "digest": "none"},
        "license": "none",
        "versions": {"fast_style": __version__, "torch": version("torch")},
    }
    save_checkpoint(path, {f"model.{k}": v for k, v in net.state_dict().items()}, description)
    return net


def our_command(*words: str | Path) -> list[str]:
    """``stylize.py`` with these words."""
    return [sys.executable, str(ROOT / "stylize.py"), *map(str, words)]


# --- Timing -------------------------------------------------------------------------------------


def time_command(
    command: Sequence[str], *, exit_code: int = 0, folder: Path | None = None
) -> float:
    """Seconds that a command takes, from its start to its end, in a working directory.

    Raises:
        UserError: the exit code is not `exit_code`.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun_at = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - begun_at
    if done.returncode != exit_code:
        raise program.failure(command, done.returncode, done.stderr)
    return seconds


def interleave(
    sides: Mapping[str, Callable[[], float]], *, rounds: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each side in every round; the sides take turns, in alternating order.

    The load of a shared machine drifts, so only times of the same round are comparable.

    Args:
        sides: by name, a function that measures once and returns seconds.
        rounds: how often.
        warm_up: measure each side once before, and discard it.
    """
    if warm_up:
        for measure in sides.values():
            measure()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            seconds[name].append(sides[name]())
    return seconds


class Worker:
    """A process that builds a function once, and calls it for every measurement.

    Args:
        build: called in the process with the `arguments`; returns the function to measure. It
            must be importable, since the process is spawned: it shares no allocator with others.

    Raises:
        UserError: `build` raises it, or the process dies; its traceback is on stderr.
    """

    def __init__(self, build: Callable[..., Callable[[], object]], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, arguments), daemon=True)
        self._process.start()
        theirs.close()
        mistake = self._receive()
        if mistake is not None:
            raise UserError(mistake)

    def measure(self) -> float:
        """Seconds of one call.

        Raises:
            UserError: the process has died; its traceback is on stderr.
        """
        self._connection.send(None)
        seconds: float = self._receive()
        return seconds

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            raise UserError(
                f"the process that is measured ended with exit code {self._process.exitcode}; "
                "the lines above may say why",
                exit_code=1,
            ) from None

    def close(self) -> None:
        """Let the process end."""
        self._connection.close()
        self._process.join()


def _serve(
    connection: "Connection",
    build: Callable[..., Callable[[], object]],
    arguments: Sequence[object],
) -> None:
    try:
        work = build(*arguments)
    except UserError as error:
        connection.send(str(error))
        return
    connection.send(None)
    while True:
        try:
            connection.recv()
        except EOFError:  # the other end is closed
            return
        begun_at = time.perf_counter()
        work()
        connection.send(time.perf_counter() - begun_at)


class Ratio(NamedTuple):
    """One side's time divided by another's: the median over the rounds, and the extremes."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"x{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def ratio_of(slower: Sequence[float], faster: Sequence[float]) -> Ratio:
    """The ratios of seconds measured in the same round."""
    ratios = [ours / theirs for ours, theirs in zip(slower, faster, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


# --- The table ----------------------------------------------------------------------------------


def machine(*, threads: int | None = None, device: str = "cpu") -> str:
    """The line above a table: the machine and the versions that its figures hold for."""
    if device == "cuda":
        return f"{_gpu()}; {_software()}"
    threads = threads or int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return f"{_processor()}, {os.cpu_count()} cores, {threads} threads; {_software()}"


def table_head(*columns: str) -> str:
    """The first two lines of a Markdown table."""
    return f"{table_row(*columns)}\n{table_row(*('---' for _ in columns))}"


def table_row(*cells: str) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def shown_seconds(seconds: Sequence[float]) -> str:
    """The median and the extremes of seconds, as text."""
    return f"{statistics.median(seconds):.3g} s ({min(seconds):.3g} to {max(seconds):.3g})"


def _software() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pillow"))
    return f"Python {platform.python_version()}, {versions}"


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
