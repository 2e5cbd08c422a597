"""A run folder: its lock, the checkpoint to resume from, and the record of how it was made."""

import hashlib
import json
import os
import platform
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy
import PIL
import torch
from PIL import Image

from fast_style import __version__
from fast_style.core.distributed import ALONE, Group
from fast_style.core.errors import UserError, capitalized, printable, shown, unwritten
from fast_style.core.files import (
    made_folders,
    remove_stray_temporaries,
    why_unwritable,
    write_text_atomically,
)
from fast_style.core.paths import path_named
from fast_style.losses.build import read_style
from fast_style.models.checkpoint import (
    Checkpoint,
    list_checkpoints,
    newest_valid_checkpoint,
)
from fast_style.models.model_files import CheckpointError, metadata_of_learned, read_model_file
from fast_style.pictures.scanning import RULES
from fast_style.settings.config import MAY_CHANGE_ON_RESUME, Config, DistillConfig, StyleConfig
from fast_style.settings.reading import AnyRoot, checked, kept, parse
from fast_style.settings.sections import is_first_compact
from fast_style.settings.writing import changed_settings, to_yaml
from fast_style.training.run_lock import (
    FRESH,
    RunLock,
    in_another_folder,
    lock_run,
    remove_lock,
    with_another_name,
)
from fast_style.training.saving import MODEL_CARD, RESULTS

_ENVIRONMENT = "environment.json"
"""The first file that a training writes into its folder."""
_WRITTEN = (
    *(MODEL_CARD, "config.yaml", _ENVIRONMENT, "metrics.csv", "style.png"),
    "unreadable_photos.jsonl",
)
"""Files that a training writes beside its result."""


class Run(NamedTuple):
    """A locked run folder, and the checkpoint to resume from; a ``with`` releases it at the end."""

    folder: Path
    lock: RunLock | None
    """None in a process that is not rank zero, which holds the lock for all."""
    resume_from: Checkpoint | None
    """None in a new run."""
    anew: str = FRESH
    """What the caller says for a new folder, for messages; empty if it has no settings."""
    made: Sequence[Path] = ()
    """The folders that were made for it: in it, itself and above it, the deepest first."""

    def settings(self, config: AnyRoot) -> AnyRoot:
        """The settings to train with: `config`, with the run's name and what it keeps.

        The name may be ``<name>-2``; and see `kept`.
        """
        if self.resume_from is not None:
            stored = parse(type(config), self.resume_from.metadata["settings"], str(self.folder))
            config = kept(config, stored)
        return config.model_copy(update={"name": self.folder.name})

    @property
    def start_step(self) -> int:
        """The number of steps that are finished."""
        return self.resume_from.metadata["step"] if self.resume_from else 0

    @property
    def photo_rules(self) -> int:
        """The rules that its folders of photos are scanned by; see `scanning.RULES`."""
        return _rules_of(self.resume_from)

    def require_lock(self) -> None:
        """Check that the run is still this process's.

        Raises:
            UserError: its folder was renamed or deleted, or another process has taken it over.
        """
        if self.lock is not None:
            self.lock.require_held(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock, and remove the folders made for the run if nothing was written."""
        is_ours = self.lock is not None and self.lock.is_of(self.folder)  # or something else's
        if self.lock is None or not self.lock.release() or not is_ours:
            return
        if (self.folder / "config.yaml").exists() or self.resume_from is not None:
            return
        remove_lock(self.folder)
        self.remove_made()

    def remove_made(self) -> None:
        """Remove the folders that were made for the run, if they are empty."""
        for folder in self.made:
            with suppress(OSError):  # it holds somebody's files, and stays
                folder.rmdir()


def photo_rules_of(folder: Path, say: Callable[[str], None]) -> int:
    """The rules that the photos of a run are scanned by when it is resumed; see `scanning.RULES`.

    Args:
        folder: the run folder. The run may not have begun: its photos are scanned by the newest.
        say: called with a line about each checkpoint that does not load.
    """
    found = newest_valid_checkpoint(folder / "checkpoints", say)
    return _rules_of(found and found[1])


def _rules_of(checkpoint: Checkpoint | None) -> int:
    if checkpoint is None:
        return RULES
    return int(checkpoint.metadata["photos"].get("rules", 1))


def open_run(
    config: Config | DistillConfig,
    *,
    root: Path | str,
    fresh: bool,
    say: Callable[[str], None],
    anew: str = FRESH,
    group: Group = ALONE,
) -> Run:
    """The run folder ``root/<name>``, locked, with its newest valid checkpoint.

    Args:
        config: the settings to train with.
        root: the folder of all runs, ``runs``.
        fresh: take a new folder, ``<name>-2`` and so on, if ``root/<name>`` exists.
        say: prints a line for the user.
        anew: what the caller says for a new folder, for messages; empty if it has no settings.
        group: rank zero opens and locks the folder, and shares what it found.

    Raises:
        TypeError: `config` is no settings, or `fresh` neither True nor False.
        UserError: a setting is wrong, another process trains there, the folder cannot be written,
            or the settings differ from the checkpoint's in a way that would change the run.
    """
    config, root = checked(config), path_named(root, "root=")
    if not isinstance(fresh, bool):
        raise TypeError(f"fresh must be True or False, got {shown(fresh)}")
    own = None
    with group.together():
        if group.is_first:
            own = _open_run(config, root, fresh, say, anew)
    found = group.broadcast(own and own._replace(lock=None))
    assert found is not None
    return own or found


def _open_run(
    config: Config | DistillConfig, root: Path, fresh: bool, say: Callable[[str], None], anew: str
) -> Run:
    folder = root / config.name
    number = 2
    while fresh and os.path.lexists(folder):
        folder = root / f"{config.name}-{number}"
        number += 1
    parts = parts_of(folder)
    made = [path for path in (*parts, folder, *folder.parents) if not path.exists()]
    has_begun = _has_begun(folder)
    try:
        with made_folders(folder):
            lock = lock_run(folder, say, anew)
    except OSError as error:
        raise _unusable(folder, error, anew) from None
    run = Run(folder, lock, None, anew, made)
    try:
        # Only the holder of the lock makes what is in the folder, and removes it.
        remove_stray_temporaries(folder)
        for part in parts:
            part.mkdir(exist_ok=True)
            remove_stray_temporaries(part)
        found = newest_valid_checkpoint(folder / "checkpoints", say)
        if found is None:
            _require_nothing_lost(run, has_begun)
            return run
        _require_same_run(*found, config, say, anew)
    except BaseException as error:
        run.release()
        if not has_begun:
            remove_lock(folder)
        run.remove_made()
        if isinstance(error, OSError):
            raise _unusable(folder, error, anew) from None
        raise
    return run._replace(resume_from=found[1])


def parts_of(folder: Path) -> tuple[Path, ...]:
    """The folders in a run folder that every training fills."""
    return folder / "checkpoints", folder / "samples"


def _unusable(folder: Path, error: OSError, anew: str) -> UserError:
    """The error about a folder that cannot be made or locked."""
    parts = (*parts_of(folder), folder)
    for path in (*parts, *folder.parents):
        if os.path.lexists(path) and not path.is_dir():
            return UserError(
                f"{printable(path)}: is a file or a broken link, but runs need a folder of this "
                "name; rename "
                "it, or " + (with_another_name(anew) if path in parts else "train elsewhere")
            )
    file = Path(str(error.filename))
    is_in_it = isinstance(error, PermissionError) and file.parent == folder and folder.is_dir()
    if is_in_it and not why_unwritable(folder):
        return unwritten(file, error, f"ask its owner, or {with_another_name(anew)}", exit_code=2)
    remedy = (
        "set root= to a folder that you may write to"
        if anew == FRESH
        else "runs are written into the working directory, so change to one that you may write to"
    )
    return unwritten(folder, error, remedy, exit_code=2)


def _has_begun(folder: Path) -> bool:
    """Whether a training has written into this folder before.

    A lock alone says nothing: no file is a run's before its environment.
    """
    path = folder / _ENVIRONMENT
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        return path.is_file() and "fast_style" in json.loads(path.read_bytes())["versions"]
    return False


def _require_nothing_lost(run: Run, has_begun: bool) -> None:
    """Check that a training that begins anew replaces nothing but the rest of one cut short.

    Args:
        run: without a checkpoint to resume from.
        has_begun: whether the folder is a run's.

    Raises:
        UserError: it would replace a finished model, files that are no run's, or checkpoints that
            cannot be used.
    """
    kept = list_checkpoints(run.folder / "checkpoints")
    results = [path for path in map(run.folder.joinpath, RESULTS) if not _is_cut_short(path)]
    foreign = [] if has_begun else [run.folder / name for name in _WRITTEN]
    present = [path.name for path in (*results, *foreign, *kept) if os.path.lexists(path)]
    if present:
        there = "none of its checkpoints can be used" if kept else "there is no checkpoint in it"
        raise UserError(
            f"{run.folder}: {there}, so training would begin at step 0 and replace "
            f"{', '.join(dict.fromkeys(present))}. {capitalized(in_another_folder(run.anew))}, or "
            "move these files away first"
        )


def _is_cut_short(path: Path) -> bool:
    """Whether a result is of a training that was killed between it and its first checkpoint."""
    learned = metadata_of_learned(path)
    with suppress(CheckpointError, ValueError, KeyError, TypeError):
        description = json.loads(learned["card"]) if learned else read_model_file(path).metadata
        step, settings = description["step"], description["settings"]
        first = settings["log"]["checkpoint_every"]
        return bool(step <= first and step < settings["train"]["steps"])
    return False


def _require_same_run(
    path: Path,
    checkpoint: Checkpoint,
    config: Config | DistillConfig,
    say: Callable[[str], None],
    anew: str,
) -> None:
    """Print the settings that differ from the checkpoint's; refuse those that change the result.

    Raises:
        UserError: names the refused settings.
        CheckpointError: the checkpoint does not say what it was trained with.
    """
    _require_inputs_described(path, checkpoint.metadata)
    is_distillation = "student" in checkpoint.metadata["settings"]
    if is_distillation != isinstance(config, DistillConfig):
        what = "of a distillation" if is_distillation else "of a training of a style"
        raise UserError(f"{path.parent.parent}: is the run {what}; {with_another_name(anew)}")
    old = parse(type(config), checkpoint.metadata["settings"], str(path))
    refused = []
    for key, before, after in changed_settings(old, kept(config, old)):
        say(f"changed since the checkpoint: {key}: {before} -> {after}")
        # Another name is harmless: the user may have renamed the folder.
        is_harmless = key == "name" or key.startswith(MAY_CHANGE_ON_RESUME)
        is_prolonged = (
            key == "train.steps"
            and config.train.schedule == "constant"
            and after >= checkpoint.metadata["step"]
        )
        if not (is_harmless or is_prolonged):
            refused.append(key)
    if refused:
        raise _other_run(path.parent.parent, old, config, refused, anew)


def _require_inputs_described(path: Path, metadata: Mapping[str, Any]) -> None:
    """Raise CheckpointError if the settings or the photos of a checkpoint cannot be compared."""
    photos = metadata.get("photos")
    if (
        not isinstance(metadata.get("settings"), dict)
        or not isinstance(photos, dict)
        or type(photos.get("rules", 1)) is not int
    ):
        raise CheckpointError(
            f"{printable(path)}: does not say which settings and photos it was trained with; "
            "remove it, and "
            "the run resumes from an earlier checkpoint"
        )


def _other_run(
    folder: Path,
    old: Config | DistillConfig,
    new: Config | DistillConfig,
    refused: Sequence[str],
    anew: str,
) -> UserError:
    """The error about a run folder whose checkpoint has other settings than `refused`'s."""
    if not anew:
        return UserError(
            f"{folder}: these settings differ from those of demo now: {', '.join(refused)}; "
            f"{in_another_folder(anew)}"
        )
    anew = in_another_folder(anew)
    if (
        isinstance(old, Config)
        and is_first_compact(old.loss_network)
        and "loss_network.architecture" in refused
    ):
        return UserError(
            f"{folder}: was trained with compact weights of vgg19 (loss_network), which fast-style "
            f"no longer has: compact is learned from VGG-16 now. {capitalized(anew)}, from "
            f"this run's model with train.init_from={folder / 'model.safetensors'}. It can be "
            "resumed only with those weights, of an earlier version: train "
            f"{folder / 'config.yaml'} loss_network.weights=FILE"
        )
    file = folder / "config.yaml"  # a folder that was made again while its run trained has none
    change = (
        f"{folder}: these settings differ from the checkpoint's and would change the result: "
        f"{', '.join(refused)}. Set them back{f', as they are in {file}' if file.is_file() else ''}"
    )
    is_longer = old.train.schedule == "cosine" and new.train.steps > old.train.steps
    if is_longer and set(refused) <= {"train.steps", "train.schedule"}:
        change = (
            f"{folder}: train.steps: this run began with the schedule cosine, which ends at step "
            f"{old.train.steps}; only a run that begins with train.schedule=constant can be "
            "prolonged. Set train.steps and train.schedule back"
        )
        if isinstance(old, Config):
            return UserError(
                f"{change}, or train further from this model in another run, as with "
                f"name={folder.name}-more train.init_from={folder / 'model.safetensors'}"
            )
    if isinstance(old, DistillConfig):
        return UserError(f"{change}, or {anew}")
    return UserError(f"{change}, {anew}, or start from this model's weights with train.init_from")


def require_same_inputs(
    run: Run, description: Mapping[str, Any], settings: Mapping[str, str]
) -> None:
    """Require that a resumed run has the inputs that it was started with.

    Args:
        run: the run; a new one has nothing to differ from.
        description: of the present inputs, as `Trainer` writes it into files.
        settings: by name of a part of the description that has a digest, the setting it comes from.

    Raises:
        UserError: names the first setting whose digest differs.
    """
    if run.resume_from is None:
        return
    for name, setting in settings.items():
        stored, now = run.resume_from.metadata.get(name), description[name]
        once = stored if isinstance(stored, dict) else {}
        if once.get("digest") == now["digest"]:
            continue
        what = f"the content of {setting} is not what this run was started with"
        found, them = "its digest differs", "it"
        if "count" in now:  # the digest is that of the names, which are not stored
            what = f"the names of the files in {setting} are not those this run was started with"
            found, them = "as many files, but the digest of their names differs", "them"
            if once.get("count") != now["count"]:
                found = f"{once.get('count')} to train on then, and {now['count']} now"
        raise UserError(
            f"{run.folder}: {what} ({found}). Restore {them}, or {in_another_folder(run.anew)}"
        )


def require_same_style(run: Run, style: StyleConfig) -> None:
    """Require that the style picture is that of a run that is resumed, if it can still be read.

    Raises:
        UserError: it is another picture.
    """
    try:
        digest = style_digest(read_style(style.image, style.size))
    except UserError:
        return
    require_same_inputs(run, {"style": {"digest": digest}}, {"style": "style.image"})


def style_digest(style: Image.Image) -> str:
    """The digest by which a style picture, at its size in training, is known."""
    return hashlib.sha256(style.tobytes()).hexdigest()


def is_whole(result: Path) -> bool:
    """Whether a trained file is there, and is what was written."""
    try:
        read_model_file(result)
    except CheckpointError:
        return metadata_of_learned(result) is not None
    return True


def write_run_files(folder: Path, config: Config | DistillConfig, environment: str) -> None:
    """Write environment.json and config.yaml.

    Raises:
        UserError: they cannot be written.
    """
    for name, text in ((_ENVIRONMENT, environment), ("config.yaml", to_yaml(config))):
        try:
            write_text_atomically(folder / name, text)
        except OSError as error:
            remedy = "remove what has this name, or see that its folder can be written to"
            raise unwritten(folder / name, error, remedy, exit_code=2) from None


def versions() -> dict[str, str]:
    """Versions of all software that the result of training depends on."""
    return {
        "fast_style": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
    }


def environment(device: torch.device, command: str, *, num_processes: int = 1) -> str:
    """The device, the software and the command that a run is made with, as JSON."""
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
    """The commit of the git checkout that this code is part of, or None."""
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
