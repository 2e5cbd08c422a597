"""Gradients, however they are computed: in half precision, compiled, recorded."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import (
    checkpoints_of,
    final_state,
    ignore,
    make_trainer,
    open_small_run,
    opening,
    rows_of,
    settings_of,
    steps_with,
    train_once,
)

from fast_style.core.errors import UserError
from fast_style.models.checkpoint import (
    load_checkpoint,
)
from fast_style.networks import fast_transform
from fast_style.networks.compiling import CompileRequest
from fast_style.networks.fast_transform import FastTransform
from fast_style.training import build as runs_module
from fast_style.training.photo_stream import to_pixels
from fast_style.training.stability import draw_changes
from fast_style.training.step import TrainingStep
from fast_style.training.trainer import Trainer

# What takes little time to compile.
SHALLOW = (
    "model.residual_blocks=0",
    "loss.content_layers={relu1_1: 1}",
    "loss.style_layers={relu1_1: 1}",
)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """torch.compile without the minutes of C++: what is traced runs as it stands, and is listed."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    return graphs


def step_of(trainer: Trainer, **options: Any) -> TrainingStep:
    """A step of the plain network: the fast execution rounds differently where it is compiled."""
    return TrainingStep(
        trainer.net,
        trainer.perceptual_loss,
        stability_weight=100.0,
        scaler=trainer.scaler,
        precision=None,
        batch_size=2,
        **options,
    )


@pytest.mark.slow
def test_compiled_gradient_is_the_eager_one_to_the_bit(
    open_trainer: Callable[..., Trainer], traced: list[torch.fx.GraphModule]
) -> None:
    trainer = open_trainer(*SHALLOW)
    noise = torch.randint(256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(5))
    photos = to_pixels(noise.byte(), trainer.device)
    results = []
    changes = draw_changes(1, range(4, 6), 16, trainer.device, noise=0.02)
    for batches in ((), ((2, 16), (3, 16))):
        step = step_of(trainer, compile_for=batches)
        assert step.is_compiled == bool(batches)
        found = []
        for given in (None, changes):
            output = step(photos, given)
            found += [output.stylized, output.instability]
            found += [parameter.grad for parameter in trainer.net.parameters()]
        results.append(found)
    assert len(traced) == 3  # the loss, and the network with a copy and without: once each
    for eager, compiled in zip(*results, strict=True):
        assert eager is not None
        assert torch.equal(eager, compiled)


@pytest.mark.slow
def test_compiled_run_resumes_to_the_same_bytes_and_keeps_the_names_of_weights(
    yaml_file: Path, tmp_path: Path, straight: Path, traced: list[torch.fx.GraphModule]
) -> None:
    config = settings_of(yaml_file, "train.compile=true")
    train_once(config, tmp_path / "straight")
    train_once(config, tmp_path / "stopped", stop_at=2)
    train_once(config, tmp_path / "stopped")
    # The loss, and the network with a copy and without: once in each process.
    assert len(traced) == 9
    ours, other = (tmp_path / name / "tiny" for name in ("straight", "stopped"))
    assert final_state(ours) == final_state(other)
    saved, eager = (
        load_checkpoint(folder / "checkpoints" / "step-00000006.safetensors").tensors
        for folder in (ours, straight)
    )
    assert saved.keys() == eager.keys()


@pytest.mark.slow
def test_grown_crops_are_compiled_for_before_the_first_step(
    open_trainer: Callable[..., Trainer], traced: list[torch.fx.GraphModule]
) -> None:
    trainer = open_trainer("train.compile=true", "data.grown_crop_size=24")
    trainer.prepare()
    assert len(traced) == 6
    sides = set()
    for photos in trainer.photos.batches(0, trainer.settings.steps, ignore):
        trainer.train_step(photos)
        sides.add(photos.shape[-1])
    assert len(sides) == 2
    assert len(traced) == 6  # nothing in the steps


def test_compiling_may_be_given_up_by_saying_so(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file, "train.compile=true")
    with opening(tmp_path, lambda: config, make_trainer) as open_one:
        open_one().save()
    said: list[str] = []
    open_small_run(settings_of(yaml_file), tmp_path, say=said.append).release()
    assert said == ["changed since the checkpoint: train.compile: True -> False"]


@pytest.mark.slow
def test_network_that_cannot_be_compiled_is_an_error_and_trains_nothing(
    open_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(graph: object, inputs: object) -> Any:
        raise RuntimeError("no compiler today")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=fail))
    trainer = open_trainer("train.compile=true", *SHALLOW)
    with pytest.raises(UserError) as caught:
        trainer.train()
    assert str(caught.value).startswith("train.compile: ")
    assert "RuntimeError: no compiler today" in str(caught.value)
    assert str(caught.value).endswith("or set train.compile=false")
    assert checkpoints_of(tmp_path / "tiny") == []
    assert steps_with(tmp_path / "tiny", "step") == []


def test_long_run_on_a_gpu_is_told_of_compiling(
    open_trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    line = (
        "train.compile=true makes steps twice as fast on a GPU, after a minute or two of "
        "compiling\n"
    )
    for steps, device, is_told in ((5001, "cuda", True), (5000, "cuda", False), (5001, "cpu", 0)):
        trainer = open_trainer(f"train.steps={steps}", f"name={steps}{device}")
        trainer.device = torch.device(device)
        trainer.prepare()
        assert (line in capsys.readouterr().out) == is_told


def test_network_that_is_compiled_wrongly_is_an_error(
    open_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(torch.nn.Module):
        """The same values, and no gradient."""

        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.net(photos)
            return output.detach() + 0 * output

    def compile_wrongly(module: torch.nn.Module, **options: object) -> torch.nn.Module:
        return Wrong(module) if isinstance(module, FastTransform) else module

    monkeypatch.setattr(torch, "compile", compile_wrongly)
    with pytest.raises(UserError) as caught:
        open_trainer("train.compile=true").train()
    assert str(caught.value).startswith("train.compile: ")
    assert "gradient" in str(caught.value)
    assert "100%" in str(caught.value)
    assert str(caught.value).endswith("set train.compile=false")


def test_gradients_are_compared_where_there_is_one() -> None:
    request, ones = CompileRequest("train.compile", "set train.compile=false"), torch.ones(4)
    request.require_same(1.1 * ones, ones, "gradient", most=0.5)
    infinite = torch.full((4,), math.inf)
    request.require_same(infinite, infinite, "gradient", most=0.5)
    for wrong in (torch.zeros(4), -ones, torch.full((4,), math.nan)):
        with pytest.raises(UserError, match=r"^train\.compile: .* set train\.compile=false$"):
            request.require_same(wrong, ones, "gradient", most=0.5)


@pytest.mark.slow
def test_network_that_would_be_compiled_in_pieces_is_an_error(
    open_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = open_trainer("train.compile=true")
    original = fast_transform.to_picture_range

    def look(rgb: torch.Tensor, tanh_scale: float) -> torch.Tensor:
        torch._dynamo.graph_break()
        return original(rgb, tanh_scale)

    monkeypatch.setattr(fast_transform, "to_picture_range", look)
    with pytest.raises(UserError, match=r"^train\.compile: .* or set train\.compile=false$"):
        trainer.train()


def test_environment_that_forbids_compiling_is_told(
    open_trainer: Callable[..., Trainer],
) -> None:
    import torch._dynamo

    trainer = open_trainer("train.compile=true")
    # Not by monkeypatch: what this module has by default is gone when it is set back.
    with torch._dynamo.config.patch(disable=True), pytest.raises(UserError) as caught:
        trainer.train()
    assert str(caught.value).startswith("train.compile: TORCH_COMPILE_DISABLE or ")
    assert str(caught.value).endswith("unset it, or set train.compile=false")


@pytest.mark.slow
def test_truly_compiled_run_is_nearly_the_same_and_goes_on_to_the_same_bytes(
    yaml_file: Path, tmp_path: Path
) -> None:
    words = [*SHALLOW, "train.steps=4"]
    plain = settings_of(yaml_file, *words)
    config = settings_of(yaml_file, *words, "train.compile=true")
    train_once(plain, tmp_path / "plain")
    train_once(config, tmp_path / "straight")
    train_once(config, tmp_path / "stopped", stop_at=2)
    train_once(config, tmp_path / "stopped")
    folders = [tmp_path / name / "tiny" for name in ("straight", "stopped", "plain")]
    assert final_state(folders[0]) == final_state(folders[1])
    losses = [[float(row["loss/total"] or 0) for row in rows_of(folder)] for folder in folders]
    assert losses[0] == pytest.approx(losses[2], rel=1e-3)


@pytest.mark.gpu
def test_recorded_run_is_the_same_to_the_bit(yaml_file: Path, tmp_path: Path) -> None:
    weights = []
    for recorded in ("true", "false"):
        config = settings_of(
            yaml_file,
            *("train.deterministic=true", "train.steps=6", "data.grown_crop_size=24"),
            f"train.cuda_graph={recorded}",
        )
        run = open_small_run(config, tmp_path / recorded)
        trainer = runs_module.build_trainer(config, run, device=torch.device("cuda"), say=ignore)
        trainer.train()
        run.release()
        assert trainer.compute_gradients.is_recorded == (recorded == "true")
        weights.append(trainer.net.state_dict())
    for name, ours in weights[0].items():
        assert torch.equal(ours, weights[1][name]), name


def test_nothing_is_recorded_on_a_cpu(open_trainer: Callable[..., Trainer]) -> None:
    trainer = open_trainer("train.cuda_graph=true")
    trainer.prepare()
    assert not trainer.compute_gradients.is_recorded


@pytest.mark.parametrize(
    ("words", "is_told"),
    [(["train.cuda_graph=true"], True), (["train.cuda_graph=false"], False), ([], False)],
)
def test_recording_that_was_asked_for_and_is_not_done_is_told(
    open_trainer: Callable[..., Trainer], words: list[str], is_told: bool
) -> None:
    lines = list[str]()
    open_trainer(*words, say=lines.append).prepare()
    told = [line for line in lines if line.startswith("train.cuda_graph: ")]
    assert [line.endswith("the device is cpu") for line in told] == [True] * is_told
