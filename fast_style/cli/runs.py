"""Start or resume the training of a run folder, for the commands ``train`` and ``distill``."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.cli.process import say
from fast_style.core.errors import Stopped
from fast_style.core.signals import stop_signals

if TYPE_CHECKING:
    import torch

    from fast_style.core.distributed import Group
    from fast_style.settings.config import Config, DistillConfig
    from fast_style.training.running import Trainable

RUNS = Path("runs")
"""The parent of the run folders, in the working directory."""


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
    build: "Callable[..., Trainable]",
    *,
    device: "torch.device",
    fresh: bool,
    result: str,
    meaning: str,
    advice: str,
    group: "Group",
    anew: str = "--resume never",
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
        advice: what else the user can do if the run is already finished.
        group: the processes that train together; rank zero prints messages.
        anew: what the user says for a new folder; empty for a command without settings.

    Raises:
        UserError: the run cannot be started or resumed, or training failed.
    """
    from fast_style.training.running import complete_run

    try:
        complete_run(
            config,
            build,
            root=RUNS,
            device=device,
            fresh=fresh,
            result=result,
            meaning=meaning,
            anew=anew,
            advice=advice,
            resumed_by=lambda name: f"--resume auto name={name}" if fresh else "the same command",
            stopping=stop_signals,
            say=say if group.is_first else _keep_silent,
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            group=group,
        )
    except Stopped as stopped:
        return 128 + stopped.signal_number
    return 0


def _keep_silent(line: str) -> None:
    pass
