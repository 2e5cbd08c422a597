"""Start or resume the training of a run folder, for the commands ``train`` and ``distill``."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fast_style.cli.process import say, stop_signals
from fast_style.core.errors import Stopped, UserError

if TYPE_CHECKING:
    import torch

    from fast_style.core.distributed import Group
    from fast_style.settings.config import Config, DistillConfig
    from fast_style.training.run_folder import Run

RUNS = Path("runs")
"""The parent of the run folders, in the working directory."""


class Training(Protocol):
    """What trains: a `Trainer`, or a `Distiller`."""

    def train(self, stop_signal: Callable[[], int | None]) -> None:
        """Train to the last step; raises `Stopped` after a signal."""


def require_inputs_of_new(config: "Config | DistillConfig", *, fresh: bool) -> None:
    """Check that the files of a new run exist, before seconds are spent on importing torch.

    An existing run is not checked here: if it is finished, it needs none of them.

    Raises:
        UserError: a file or folder does not exist.
    """
    from fast_style.losses.inputs import require_inputs

    if fresh or not (RUNS / config.name).exists():
        require_inputs(config)


def start_or_resume(
    config: "Config | DistillConfig",
    build: Callable[..., Training],
    *,
    device: "torch.device",
    fresh: bool,
    result: str,
    meaning: str,
    advice: str,
    group: "Group",
) -> int:
    """Train a new run, or resume it from its last checkpoint; returns the exit code.

    SIGINT, SIGTERM and SIGHUP save a checkpoint and stop.

    Args:
        config: the settings.
        build: makes the trainer from the settings and the run.
        device: where to train.
        fresh: whether to train in a new folder, even if a run of this name exists.
        result: name of the trained file in the run folder, for messages.
        meaning: what that file contains, such as ``model``, for messages.
        advice: what the user can do if the run is already finished.
        group: the processes that train together; rank zero prints messages.

    Raises:
        UserError: the run cannot be started or resumed, or training failed.
    """
    from fast_style.training.run_folder import open_run

    tell = say if group.is_first else _keep_silent
    run = open_run(config, root=RUNS, fresh=fresh, say=tell, group=group)
    try:
        step = run.start_step
        if step >= config.train.steps:
            tell(
                f"{run.folder}: finished at step {step}; the {meaning} is {run.folder / result}. "
                f"{advice}"
            )
            return 0
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        try:
            trainer = group.rank_zero_first(
                lambda: build(config, run, device=device, say=tell, command=command)
            )
        except (UserError, KeyboardInterrupt):
            run.abandon()
            raise
        action = f"resuming at step {step}" if step else "training"
        place = str(device) if group.is_alone else f"{group.launch.world_size} processes"
        tell(f"{action} in {run.folder} on {place}; watch with: tensorboard --logdir {RUNS}")
        return _train(trainer, run, result=result, fresh=fresh, tell=tell)
    finally:
        run.release()


def _train(
    trainer: Training,
    run: "Run",
    *,
    result: str,
    fresh: bool,
    tell: Callable[[str], None],
) -> int:
    with stop_signals() as stop_signal:
        try:
            trainer.train(stop_signal)
        except Stopped as stopped:
            again = f"--resume auto name={run.folder.name}" if fresh else "the same command"
            tell(f"stopped at step {stopped.step}; {again} resumes from there")
            return 128 + stopped.signal_number
    tell(f"finished: {run.folder / result}")
    return 0


def _keep_silent(line: str) -> None:
    pass
