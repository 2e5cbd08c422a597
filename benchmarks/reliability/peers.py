"""The same faults for fast-style and for a peer: broken photos, a kill, and hostile model files.

    python benchmarks/reliability/peers.py ../examples      # a checkout of pytorch/examples

The peer is fast_neural_style of pytorch/examples, run as it comes (`benchmarks/peer.py`): it gets
photos in a folder inside a folder, as it wants them, VGG-16 with random numbers in place of its
download, and checkpoints after every second batch. What is told of each side is what its process
did: the exit code, a traceback or not, and where it went on. Both sides get the same torch, whose
`torch.load` refuses code in pickles since version 2.6; with older ones, the peer would run it.

This prints a table and judges nobody; the exit code is 1 only if a fault gets the better of ours.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import ROOT, parser_of
from peer import (
    NAME,
    our_command,
    peer_command,
    peer_folder,
    table_head,
    table_row,
    training_command,
    write_models,
)
from program import errors_in_one_line
from small_run import command_environment, write_small_run

_PATIENCE_S = 1800  # for what takes seconds, on a machine that may be busy
_NUM_PHOTOS = 12
_BROKEN = "photo-08.jpg", "photo-09.png"  # not among the first batches
_BATCH_SIZE = 2
_NUM_EPOCHS = 4
_SENTINEL = "code_was_run"


class Code:
    """What a pickle runs when it is loaded without care: it leaves a file behind."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return os.mkdir, (_SENTINEL,)


@errors_in_one_line()
def main() -> None:
    """Try all faults, and print the table."""
    parser = parser_of(__doc__, is_random=False)
    parser.add_argument("peer", type=peer_folder, metavar="PATH", help="the peer's checkout")
    options = parser.parse_args()
    print(table_head("fault", "fast-style", NAME), flush=True)
    holds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, try_out in (
            (f"{len(_BROKEN)} broken photos among {_NUM_PHOTOS}", broken_photos),
            ("SIGKILL after the first checkpoint, the same command again", killed),
        ):
            yaml_file = write_inputs(folder / try_out.__name__, is_broken=try_out is broken_photos)
            ours = try_out(our_training(yaml_file), yaml_file.parent / "ours")
            theirs = try_out(their_training(options.peer, yaml_file), yaml_file.parent / "theirs")
            print(table_row(what, ours, theirs), flush=True)
            holds.append(ours.startswith((f"finished, {len(_BROKEN)} of", "resumed")))
        for what, spoil in HOSTILE.items():
            ours, theirs = hostile_model(folder, spoil, options.peer)
            print(table_row(what, ours, theirs), flush=True)
            holds.append(ours.startswith("refused, exit code"))
    sys.exit(0 if all(holds) else 1)


# --- Training -----------------------------------------------------------------------------------


def write_inputs(folder: Path, *, is_broken: bool) -> Path:
    """Photos in a folder inside a folder, a style picture and our settings; gives their file."""
    import yaml

    folder.mkdir()
    yaml_file = write_small_run(folder, _NUM_PHOTOS)
    inner = folder / "data" / "photos"
    inner.parent.mkdir()
    (folder / "photos").rename(inner)
    if is_broken:
        cut, empty = (inner / name for name in _BROKEN)
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
        empty.write_bytes(b"")
    settings = yaml.safe_load(yaml_file.read_text())
    settings["data"]["photos"] = "data"
    settings["train"]["steps"] = _NUM_EPOCHS * _NUM_PHOTOS // _BATCH_SIZE
    settings["log"] |= dict.fromkeys(("shares_every", "validate_every", "samples_every"), 1000)
    yaml_file.write_text(yaml.safe_dump(settings))
    return yaml_file


def our_training(yaml_file: Path) -> list[str]:
    """Our command."""
    return [sys.executable, str(ROOT / "train.py"), str(yaml_file), "--device", "cpu"]


def their_training(folder: Path, yaml_file: Path) -> list[str]:
    """The peer's command: as many steps, and a checkpoint after every second one."""
    command = training_command(
        folder,
        photos=yaml_file.parent / "data",
        style=yaml_file.parent / "style.png",
        models=Path("models"),
        batch_size=_BATCH_SIZE,
        size=32,
        device="cpu",
        epochs=_NUM_EPOCHS,
    )
    return [
        *command,
        *("--checkpoint-model-dir", "checkpoints", "--checkpoint-interval", "2"),
        *("--log-interval", "1"),
    ]


def broken_photos(command: list[str], folder: Path) -> str:
    """What comes of training on photos of which some are broken."""
    folder.mkdir()
    done = run(command, folder)
    if done.returncode == 0:
        named = sum(name in done.stdout + done.stderr for name in _BROKEN)
        return f"finished, {named} of {len(_BROKEN)} named"
    return failure_of(done)


def killed(command: list[str], folder: Path) -> str:
    """Where the same command goes on after it was killed behind its first checkpoint."""
    folder.mkdir()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=command_environment(), stdout=log, stderr=log
        )
        deadline = time.monotonic() + _PATIENCE_S
        while not list(folder.glob("**/checkpoints/*")):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                return f"no checkpoint: {(folder / 'log').read_text()[-200:]}"
            time.sleep(0.01)
        time.sleep(0.5)  # a checkpoint may still be being written
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = run(command, folder)
    if done.returncode != 0:
        return failure_of(done)
    resumed = re.search(r"resuming at step (\d+)", done.stdout)
    return f"resumed at step {resumed[1]}, finished" if resumed else "began again at step 0"


# --- Model files --------------------------------------------------------------------------------


def code_in_pickle(path: Path) -> None:
    """A file that runs code if it is loaded without care."""
    import torch

    torch.save({"weight": Code()}, path)


def html_page(path: Path) -> None:
    """What a download from behind a login page gives."""
    path.write_text("<!DOCTYPE html><html><body>Please log in</body></html>")


def empty(path: Path) -> None:
    """A file without a byte."""
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    """The first half of the model."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flipped(path: Path) -> None:
    """The model with a byte in the middle of its numbers inverted."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


HOSTILE = {
    "model file with code in a pickle": code_in_pickle,
    "model file that is an HTML page": html_page,
    "model file of 0 bytes": empty,
    "model file cut in half": cut_off,
    "model file with one byte inverted": flipped,
}


def hostile_model(folder: Path, spoil: Callable[[Path], None], checkout: Path) -> list[str]:
    """What each side does with a model file that was spoiled: ours, and the peer's."""
    here = folder / spoil.__name__
    here.mkdir()
    photo = shutil.copy(folder / "killed" / "data" / "photos" / "photo-00.jpg", here)
    models = write_models(here)
    for model in models:
        spoil(model)
    result = here / "result.jpg"
    told = []
    for command in (
        our_command("--model", models[0], "--output", result, "--device", "cpu", photo),
        peer_command(checkout, model=models[1], photo=Path(photo), output=result),
    ):
        done = run(command, here)
        told.append("accepted, a picture written" if done.returncode == 0 else failure_of(done))
        if (here / _SENTINEL).exists():
            (here / _SENTINEL).rmdir()
            told[-1] = f"CODE WAS RUN; {told[-1]}"
        result.unlink(missing_ok=True)
    return told


# --- Processes ----------------------------------------------------------------------------------


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The ended process of a command."""
    return subprocess.run(
        command,
        cwd=folder,
        env=command_environment(),
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )


def failure_of(done: subprocess.CompletedProcess[str]) -> str:
    """How a process failed, in words."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if "Traceback" in done.stderr:
        errors = [line for line in lines if re.match(r"[\w.]*(?:Error|Exception)\b", line)]
        kind = errors[-1].split(":")[0] if errors else "an exception"
        return f"traceback of {kind}, exit code {done.returncode}"
    return f"refused, exit code {done.returncode}, in {len(lines)} line{'s' * (len(lines) != 1)}"


if __name__ == "__main__":
    main()
