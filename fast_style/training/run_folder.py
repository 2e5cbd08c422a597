"""A run folder: its lock, the checkpoint to resume from, and where and how it was made."""

import json
import os
import platform
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import PIL
import torch
from filelock import FileLock, Timeout

from fast_style import __version__
from fast_style.core.distributed import ALONE, Group
from fast_style.core.errors import UserError
from fast_style.core.files import remove_stray_temporaries, write_text_atomically
from fast_style.models.checkpoint import (
    Checkpoint,
    newest_valid_checkpoint,
)
from fast_style.settings.config import (
    MAY_CHANGE_ON_RESUME,
    Config,
    DistillConfig,
)
from fast_style.settings.settings import changed_settings, parse


class Run(NamedTuple):
    """A run folder that this process has to itself, and where to go on in it."""

    folder: Path
    lock: FileLock | None
    """None where rank zero has it."""
    resume_from: Checkpoint | None

    def release(self) -> None:
        """Let others have the folder."""
        if self.lock is not None:
            self.lock.release()

    def abandon(self) -> None:
        """Give the folder back; it vanishes again if nothing was written into it."""
        if self.lock is None:
            return
        self.release()
        if (self.folder / "config.yaml").exists():
            return
        for name in ("lock", "lock.json"):
            (self.folder / name).unlink(missing_ok=True)
        for part in (self.folder / "checkpoints", self.folder / "samples", self.folder):
            with suppress(OSError):  # not empty: somebody's, so it stays
                part.rmdir()


def open_run(
    config: Config | DistillConfig,
    *,
    root: Path,
    fresh: bool,
    say: Callable[[str], None],
    group: Group = ALONE,
) -> Run:
    """The run folder ``root/<name>``, locked, with the newest checkpoint that fits the settings.

    Args:
        config: the settings of this time.
        root: the folder of all runs, ``runs``.
        fresh: take a new folder, ``<name>-2`` and so on, if there is one already.
        say: takes lines for people.
        group: rank zero opens and locks the folder, and the others get what it found.

    Raises:
        UserError: another process trains there, or the settings would change the run.
    """
    own = None
    with group.together():
        if group.is_first:
            own = _open_run(config, root, fresh, say)
    found = group.broadcast(own and own._replace(lock=None))
    assert found is not None
    return own or found


def _open_run(
    config: Config | DistillConfig, root: Path, fresh: bool, say: Callable[[str], None]
) -> Run:
    folder = root / config.name
    number = 2
    while fresh and folder.exists():
        folder = root / f"{config.name}-{number}"
        number += 1
    try:
        for part in (folder, folder / "checkpoints", folder / "samples"):
            part.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{folder}: {_holder(folder)} trains here already; wait for it, or set another name=..."
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); runs lie in the working directory"
        ) from None
    for part in (folder, folder / "checkpoints", folder / "samples"):
        remove_stray_temporaries(part)
    _sign(folder)
    found = newest_valid_checkpoint(folder / "checkpoints", say)
    if found is None:
        return Run(folder, lock, None)
    path, checkpoint = found
    try:
        _require_same_run(path, checkpoint, config, say)
    except UserError:
        lock.release()
        raise
    return Run(folder, lock, checkpoint)


def _sign(folder: Path) -> None:
    """Say who holds the lock, for `_holder` in another process."""
    with suppress(OSError):
        write_text_atomically(
            folder / "lock.json", json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        )


def _holder(folder: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads((folder / "lock.json").read_text())
        return f"process {holder['pid']} on {holder['host']}"
    return "another process"


def _require_same_run(
    path: Path, checkpoint: Checkpoint, config: Config | DistillConfig, say: Callable[[str], None]
) -> None:
    """Show how the settings differ from the checkpoint's, and refuse what would change the run."""
    old = parse(type(config), checkpoint.metadata.get("settings", {}), str(path))
    refused = []
    for key, before, after in changed_settings(old, config):
        say(f"changed since the checkpoint: {key}: {before} -> {after}")
        prolonged = key == "train.steps" and config.train.schedule == "constant"
        is_harmless = key == "name" or key.startswith(MAY_CHANGE_ON_RESUME)  # folders get renamed
        if not is_harmless and not (prolonged and after >= checkpoint.metadata["step"]):
            refused.append(key)
    if not refused:
        return
    change = (
        f"{path.parent.parent}: these settings would change the run that is there: "
        f"{', '.join(refused)}. Set them back"
    )
    anew = "train in a new folder with --resume never (or another name=...)"
    if isinstance(config, DistillConfig):
        raise UserError(f"{change}, or {anew}")
    raise UserError(f"{change}, {anew}, or start from this model's weights with train.init_from")


def require_same_inputs(
    run: Run, description: Mapping[str, Any], settings: Mapping[str, str]
) -> None:
    """Refuse to go on with other inputs than those the run was begun with.

    Args:
        run: with a checkpoint.
        description: what the files of this time will say of themselves.
        settings: parts of it that have a digest, to the settings that they come from.

    Raises:
        UserError: names the first setting whose digest differs.
    """
    assert run.resume_from is not None
    for name, setting in settings.items():
        if run.resume_from.metadata[name]["digest"] != description[name]["digest"]:
            raise UserError(
                f"{run.folder}: {setting} is not what this run was begun with (its digest "
                "differs). Put it back, or train in a new folder with --resume never"
            )


def versions() -> dict[str, str]:
    """Of everything that may change what training gives."""
    return {
        "fast_style": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
    }


def environment(device: torch.device, command: str, *, num_processes: int = 1) -> str:
    """Where and by which command a run was made, as JSON."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    facts = {
        "versions": versions(),
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
        "processes": num_processes,
        "git": _git_commit(),
        "command": command,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    return json.dumps(facts, indent=2)


def _git_commit() -> str | None:
    """The commit of the checkout that this code lies in, if it lies in one."""
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return found.stdout.strip()
    return None
