"""All commands on unusual hosts: homes, users, limits and languages that programs trip over.

    python benchmarks/reliability/hosts.py                   # as root, or a row is not tried
    python benchmarks/reliability/hosts.py --python /usr/bin/python3
    python benchmarks/reliability/hosts.py --hosts "umask 077" --commands info styles

Every command must end with exit code 0 and without a traceback, on tiny pictures and networks.
The style picture is called ``Café 日本.png``. Where a host cannot be made here, its row says why.
Another user takes root, and a Python that others can read: if that of this environment lies in
root's home, `--python` names another of the same version. tr_TR takes `localedef`.
"""

import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import figures
import program
import yaml
from small_distillation import SETTINGS as DISTILLATION
from small_distillation import write_paintings, write_teacher
from small_run import SETTINGS, command_environment, draw_photo, write_photos

from fast_style.core.errors import UserError, printable

NUM_DESCRIPTORS = 24
_STRANGER = 54_321  # no user and no group has this number
_PATIENCE_S = 1800  # for what takes seconds, on a machine that may be busy
_STYLE = "Café 日本.png"
_MODEL = "runs/tiny/model.safetensors"
_OF_THE_CALLER = ("HOME", "TORCH_HOME", "MPLCONFIGDIR", "LANG", "LANGUAGE", "PYTHONUTF8")

COMMANDS = {
    "init": ["init", _STYLE, "--output", "new.yaml"],
    "check": ["train", "tiny.yaml", "--check", "--device", "cpu"],
    "train": ["train", "tiny.yaml", "--device", "cpu"],
    "finished": ["train", "tiny.yaml", "--device", "cpu"],
    "stylize": ["stylize", "-m", _MODEL, "--output", "out", "--device", "cpu", "photos"],
    "info": ["info", _MODEL],
    "styles": ["styles"],
    "optimize": [
        *("optimize", "tiny.yaml", "--content", "photos/photo-00.jpg", "--device", "cpu"),
        *("--output", "drawn.png", "optimize.size=32", "optimize.iterations=2"),
    ],
    "preview": [
        *("preview", "tiny.yaml", "--photo", "photos/photo-00.jpg", "--device", "cpu"),
        *("--iterations", "2", "--style-weights", "1", "--style-sizes", "32"),
    ],
    "evaluate": [
        *("evaluate", _MODEL, "--photos", "photos", "--output", "report", "--device", "cpu"),
        *("--sizes", "32", "--iterations", "2", "--count", "1"),
    ],
    "distill": ["distill", "small.yaml", "--device", "cpu"],
}
"""By name, the words of each command, in an order in which they build on one another."""


@dataclass
class Host:
    """What is unusual, as arguments of a process; `cannot` says why it cannot be had here."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    is_stranger: bool = False
    python: str = sys.executable
    umask: int = -1
    prepare: Callable[[], None] | None = None
    cannot: Callable[[], str] = str


@program.errors_in_one_line()
def main() -> int:
    """Run the commands, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__, is_random=False)
    parser.add_argument("--hosts", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--python", default=sys.executable, help="of other users (this one)")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    options = parser.parse_args()
    if shutil.which(options.python) is None:
        raise UserError(f"--python {printable(options.python)}: must be a program that is there")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        known = {host.name: host for host in hosts(folder, options.python)}
        names = options.hosts or list(known)
        program.require_names("--hosts", names, known)
        write_files(folder / "files")
        return figures.conclude(measure(known[name], folder, options.commands) for name in names)


def hosts(folder: Path, python: str) -> list[Host]:
    """All hosts; what they need is written into the folder. Other users start `python`."""
    read_only, languages = folder / "home", folder / "languages"
    for made in (read_only, languages):
        made.mkdir()
    read_only.chmod(0o555)
    is_root = os.geteuid() == 0
    no_stranger = partial(why_no_stranger, python)
    stranger = {"python": python, "is_stranger": True}
    descriptors = partial(resource.setrlimit, resource.RLIMIT_NOFILE, 2 * (NUM_DESCRIPTORS,))
    plain_c = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    turkish = {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "LOCPATH": str(languages)}
    return [
        # Modes of files do not stop root.
        Host("read-only home", {"HOME": str(read_only)}, cannot=no_stranger, **stranger)
        if is_root
        else Host("read-only home", {"HOME": str(read_only)}),
        Host("home that is not there", {"HOME": str(folder / "none")}),
        Host("no home, no passwd entry", cannot=no_stranger, **stranger),
        Host("umask 077", {"HOME": str(folder)}, umask=0o077),
        Host(f"{NUM_DESCRIPTORS} descriptors", {"HOME": str(folder)}, prepare=descriptors),
        Host("LANG=C", {"HOME": str(folder), **plain_c}),
        Host("tr_TR", {"HOME": str(folder), **turkish}, cannot=partial(why_no_turkish, languages)),
    ]


def why_no_stranger(python: str) -> str:
    """Why no command can run as a user without passwd entry here; empty if it can."""
    if os.geteuid() != 0:
        return "it takes root"
    try:
        subprocess.run(
            [python, "-c", "import torch"],
            env=environment_of(python),
            capture_output=True,
            check=True,
            **as_stranger(),
        )
    except (OSError, subprocess.CalledProcessError):
        return f"other users cannot start {python}; try --python"
    return ""


def as_stranger() -> dict[str, object]:
    """The arguments of a process of a user without passwd entry."""
    return {"user": _STRANGER, "group": _STRANGER, "extra_groups": []}


def why_no_turkish(folder: Path) -> str:
    """Make the locale in the folder; why that fails, empty if it does not."""
    command = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(folder / "tr_TR.UTF-8")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "localedef is not installed"
    return "" if any(folder.iterdir()) else done.stderr.strip()


def write_files(folder: Path) -> None:
    """Pictures, and the settings of a tiny training and a tiny distillation."""
    write_photos(folder / "photos", 4)
    write_paintings(folder / "paintings", 4)
    write_teacher(folder / "teacher.safetensors")
    draw_photo(100).save(folder / _STYLE)
    data = {"validation_count": 1, "workers": 1}
    files = {
        "tiny": {
            **SETTINGS,
            "style": {"image": _STYLE, "size": 32},
            "data": SETTINGS["data"] | data,
            "train": SETTINGS["train"] | {"steps": 2},
        },
        "small": {
            **DISTILLATION,
            "data": DISTILLATION["data"] | data,
            "train": DISTILLATION["train"] | {"steps": 2},
        },
    }
    for name, settings in files.items():
        text = yaml.safe_dump(settings, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def measure(host: Host, folder: Path, commands: list[str]) -> figures.Figure:
    """The figure of the commands that work on a host."""
    name = f"{host.name}: commands work"
    if reason := host.cannot():
        return figures.Figure(name, 0, None, reason)
    here = folder / host.name.replace(" ", "_")
    shutil.copytree(folder / "files", here)
    if host.is_stranger:
        for path in (here, *here.rglob("*")):
            os.chown(path, _STRANGER, _STRANGER)
    wrongs = [mistake(host, here, COMMANDS[command]) for command in commands]
    held = sum(wrong is None or figures.told(f"{host.name}: {wrong}") for wrong in wrongs)
    return figures.Figure(name, held, len(commands))


def environment_of(python: str) -> dict[str, str]:
    """What a Python is started with, without homes and languages; another finds our packages."""
    found = {
        name: text
        for name, text in command_environment().items()
        if name not in _OF_THE_CALLER and not name.startswith(("XDG_", "LC_"))
    }
    if python != sys.executable:
        found["PYTHONPATH"] += os.pathsep + sysconfig.get_path("purelib")
    return found


def mistake(host: Host, here: Path, words: list[str]) -> str | None:
    """What is wrong with a command on a host, in a line; None if it works."""
    try:
        done = subprocess.run(
            [host.python, "-m", "fast_style", *words],
            cwd=here,
            env=environment_of(host.python) | host.environment,
            capture_output=True,
            umask=host.umask,
            preexec_fn=host.prepare,
            timeout=_PATIENCE_S,
            check=False,
            **(as_stranger() if host.is_stranger else {}),
        )
    except subprocess.TimeoutExpired:
        return f"{words[0]} does not end"
    errors = done.stderr.decode(errors="replace")
    if done.returncode != 0 or "Traceback" in errors:
        return f"{words[0]} ended with {done.returncode}: {errors.strip()[-1500:]}"
    return None


if __name__ == "__main__":
    sys.exit(main())
