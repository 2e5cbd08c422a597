"""A run from its settings to its result in one call: opened, trained or resumed, and released.

From a notebook::

    train(load_config("my_style.yaml", ["data.photos=demo/photos"]))
"""

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

import torch

from fast_style.core.devices import resolve_device, restored_torch
from fast_style.core.distributed import ALONE, Group
from fast_style.core.errors import Stopped, UserError, capitalized, printable, unwritten
from fast_style.core.files import make_with_parents
from fast_style.core.folder_lock import Held
from fast_style.core.paths import path_named
from fast_style.core.signals import stop_signals
from fast_style.models.checkpoint import checkpoint_path
from fast_style.settings.config import Config, DistillConfig, load_config
from fast_style.settings.reading import checked
from fast_style.training.build import build_trainer
from fast_style.training.loop import GONE
from fast_style.training.other_trainings import told_of_others
from fast_style.training.run_folder import is_whole, open_run, parts_of, require_same_style
from fast_style.training.run_lock import FRESH, RunLock, in_another_folder
from fast_style.training.run_log import print_line

StopSignal = Callable[[], int | None]


class Trainable(Protocol):
    """What a run trains: a `Trainer` or a `Distiller`."""

    def train(self, stop_signal: StopSignal) -> None:
        """Train to the last step, or until `stop_signal` gives the number of a signal."""


# The thread that trains in this process, by the process's number: a forked child trains nothing.
# torch's default generator and its settings belong to the whole process, as this does.
_training: dict[int, threading.Thread] = {}


def train(
    config: Config | Path | str,
    *,
    device: str | torch.device = "auto",
    root: Path | str = "runs",
    fresh: bool = False,
    say: Callable[[str], None] = print_line,
) -> Path:
    """The model file of a run, which is trained, resumed, or found finished.

    To call it again is safe: after an error or an interruption, it resumes from the last
    checkpoint. A first KeyboardInterrupt (the stop button of a notebook) ends training after the
    present step and saves; a second one ends it at once. torch's settings, such as its number of
    threads, and its random state are the caller's again afterwards. They belong to the whole
    process, so one thread of it trains at a time.

    Args:
        config: the settings, or the path of their YAML file.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or a
            torch.device.
        root: the folder of all runs; this one trains in ``root/<name>``.
        fresh: train in a new folder, ``<name>-2`` and so on, if there is a run of this name.
        say: called with each line about the run; by default it is printed. On a terminal, a
            progress bar on stderr takes the place of the lines about steps.

    Raises:
        TypeError: `config` is neither.
        UserError: the settings or their files cannot be used, another process trains there,
            another thread of this process trains anywhere, or training failed.
        KeyboardInterrupt: training was interrupted, and its state is saved.
    """
    if isinstance(config, str | os.PathLike):
        config = load_config(config)
    elif not isinstance(config, Config):
        raise TypeError(
            "config must be settings that load_config has read, or the path of their YAML file, "
            f"got {type(config).__name__}"
        )
    thread = threading.current_thread()
    if _training.setdefault(os.getpid(), thread) is not thread:
        raise UserError(
            "another thread of this process trains already, and two trainings at once would change "
            "each other's weights; wait for it, or train in a process of its own"
        )
    try:
        return complete_run(
            checked(config),
            build_trainer,
            root=path_named(root, "root="),
            device=resolve_device(device, argument="device="),
            fresh=fresh,
            result="model.safetensors",
            meaning="model",
            anew=FRESH,
            advice=", or start another run from this model with train.init_from",
            resumed_by=lambda name: (
                f"the same call with name={name} and fresh=False" if fresh else "the same call"
            ),
            stopping=lambda: stop_signals(["SIGINT"]),
            say=say,
        )
    except Stopped:
        raise KeyboardInterrupt from None
    finally:
        _training.pop(os.getpid(), None)


def complete_run(
    config: Config | DistillConfig,
    build: Callable[..., Trainable],
    *,
    root: Path,
    device: torch.device,
    fresh: bool,
    result: str,
    meaning: str,
    anew: str,
    advice: str,
    resumed_by: Callable[[str], str],
    stopping: Callable[[], AbstractContextManager[StopSignal]],
    say: Callable[[str], None],
    command: str = "",
    group: Group = ALONE,
) -> Path:
    """The trained file of a new run, or of one that is resumed from its last checkpoint.

    Args:
        config: the settings.
        build: makes the trainer from the settings and the run.
        root: the folder of all runs.
        device: where to train.
        fresh: whether to train in a new folder, even if a run of this name exists.
        result: name of the trained file in the run folder.
        meaning: what that file contains, such as ``model``, for messages.
        anew: what the caller says for a new folder, for messages; empty if it has no settings.
        advice: what else the user can do if the run is already finished.
        resumed_by: what resumes a stopped run, from the name of its folder, for a message.
        stopping: a context whose function tells which signal ends training.
        say: prints a line for the user.
        command: the command line, for environment.json and TensorBoard.
        group: the processes that train together.

    Raises:
        Stopped: a signal ended training; the state is saved.
        UserError: the run cannot be started or resumed, or training failed.
    """
    with ExitStack() as stack:
        stack.enter_context(restored_torch())
        run = stack.enter_context(
            open_run(config, root=root, fresh=fresh, say=say, anew=anew, group=group)
        )
        step, file = run.start_step, run.folder / result
        is_finished = step >= config.train.steps
        if is_finished and is_whole(file):
            if isinstance(config, Config):
                require_same_style(run, config.style)
            say(
                f"{run.folder}: finished at step {step}; the {meaning} is {file}. "
                f"{capitalized(in_another_folder(anew))}{advice}"
            )
            return file
        if group.is_first:
            stack.enter_context(told_of_others(say))
        trainer = group.rank_zero_first(
            lambda: build(config, run, device=device, say=say, command=command)
        )
        if is_finished:
            say(f"{file}: is missing or damaged, and is written again from the last checkpoint")
        action = f"resuming at step {step}" if step else "training"
        place = str(device) if group.is_alone else f"{group.launch.world_size} processes"
        say(f"{action} in {run.folder} on {place}; watch with: tensorboard --logdir {root}")
        with stopping() as received:

            def stop_signal() -> int | None:
                if run.lock is not None and not run.lock.is_of(run.folder):
                    stack.enter_context(_made_again(run.folder, resumed_by(run.folder.name), say))
                    return GONE
                run.require_lock()
                return received()

            try:
                trainer.train(stop_signal)
            except Stopped as stopped:
                again = resumed_by(run.folder.name)
                if stopped.signal_number == GONE:
                    raise _gone(run.folder, stopped.step, again) from None
                say(f"stopped at step {stopped.step}; {again} resumes from there")
                raise
        say(f"finished: {file}")
        return file


def _made_again(folder: Path, again: str, say: Callable[[str], None]) -> RunLock:
    """The lock of a run's folder, which was renamed or deleted and is made again.

    Raises:
        UserError: something else has its name now, or it cannot be made.
    """
    try:
        make_with_parents(folder.parent)
        folder.mkdir()
        lock = RunLock(folder, say)
        for part in parts_of(folder):
            part.mkdir()
    except (FileExistsError, Held):
        raise UserError(
            f"{printable(folder)}: the folder of this run was renamed or deleted while it trained, "
            "and something else has its name now. The steps since its last checkpoint are lost; "
            f"give a renamed folder its name again, and {again} resumes from there",
            exit_code=1,
        ) from None
    except OSError as error:
        raise unwritten(folder, error, "see that this folder can be made") from None
    return lock


def _gone(folder: Path, step: int, again: str) -> UserError:
    """The error that a run's folder is gone, after its state was saved in another of that name."""
    file = checkpoint_path(folder / "checkpoints", step)
    return UserError(
        f"{printable(folder)}: this folder was renamed or deleted while the run trained. It is "
        f"made again with step {step} in it, and {again} resumes from there. To go on in a "
        f"renamed folder, which has the measurements of before, move {printable(file)} into its "
        "checkpoints, remove the new folder, and give the other one its name again",
        exit_code=1,
    )
