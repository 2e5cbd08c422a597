"""How commands end: exit codes, signals, and output that nobody reads."""

import errno
import importlib
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest
from command_line import ROOT, Output, errors, photo_at, run, run_in_process
from PIL import Image

from fast_style.cli.process import run_to_the_end
from fast_style.core import free_memory


def test_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def interrupt(*unused: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fast_style.settings.help.help_text", interrupt)
    assert run("train", "--help-config") == 130
    assert errors(capsys) == ["error: interrupted"]


@pytest.mark.skipif(os.name == "nt", reason="signals come otherwise there")
@pytest.mark.parametrize(
    ("words", "exit_code", "errors"),
    [(["--version"], 0, 0), (["styles"], 0, 0), (["stylize", "-m", "m", "a.jpg"], 2, 1)],
)
def test_interrupt_at_the_end_of_the_process_changes_nothing(
    here: Path, words: list[str], exit_code: int, errors: int
) -> None:
    code = (
        "import atexit, signal\n"
        "from fast_style.__main__ import run\n"
        "atexit.register(signal.raise_signal, signal.SIGINT)\n"
        "run()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (ended.returncode, len(ended.stderr.splitlines())) == (exit_code, errors)


@pytest.mark.skipif(os.name == "nt", reason="signals come otherwise there")
@pytest.mark.parametrize("script", ["fast_style/__main__.py", "train.py", "stylize.py"])
def test_interrupt_while_the_commands_are_imported_is_told_in_a_line(script: str) -> None:
    # The first module that the commands import is interrupted, as by a user.
    code = (
        "import runpy, signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'fast_style.cli':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        f"sys.argv = [{script!r}, '--help']\n"
        f"runpy.run_path({script!r}, run_name='__main__')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == "error: interrupted\n"


def test_interrupt_outside_of_the_work_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def command() -> int:
        raise KeyboardInterrupt  # as in a moment that `run_command` no longer catches

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # put back afterwards
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as caught:
            run_to_the_end(command)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.code == 130
    assert errors(capsys) == ["error: interrupted"]


def test_command_inside_of_another_program_leaves_ctrl_c_to_it(here: Path, capsys: Output) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert run("styles") == 0
    assert run("--version") == 0
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(os.name == "nt", reason="signals come otherwise there")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_that_end_a_command_are_named(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    number = signal.Signals[name]
    monkeypatch.setattr(
        "fast_style.settings.help.help_text", lambda *unused: signal.raise_signal(number)
    )
    before = signal.signal(number, signal.SIG_DFL)  # nohup lets SIGHUP be ignored
    try:
        assert run("train", "--help-config") == 128 + number
    finally:
        signal.signal(number, before)
    assert errors(capsys) == [f"error: stopped by {name}"]


def test_lack_of_memory_names_an_option_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def fail(*unused: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fast_style.settings.help.help_text", fail)
    assert run("train", "--help-config") == 1
    assert errors(capsys) == [
        "error: out of memory; set a smaller train.batch_size or data.crop_size"
    ]


@pytest.mark.parametrize(("words", "remedy"), [([], "--sizes"), (["--judge"], "--device")])
def test_lack_of_memory_names_an_option_that_works_with_the_others(
    words: list[str], remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def fail(*unused: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fast_style.cli.evaluate._require_inputs", fail)
    assert run("evaluate", "m.safetensors", "--photos", "p", "-o", "r", *words) == 1
    (line,) = errors(capsys)
    assert [option for option in ("--sizes", "--device", "--judge") if option in line] == [remedy]


def test_lack_of_memory_names_a_limit_that_the_process_has(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def fail(*unused: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fast_style.settings.help.help_text", fail)
    monkeypatch.setattr(free_memory, "_address_space_limit", lambda: 1)
    assert run("train", "--help-config") == 1
    (line,) = errors(capsys)
    for part in ("train.batch_size", "ulimit -v unlimited"):
        assert part in line


UNMAPPED = "libtorch_cuda.so: failed to map segment from shared object"


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (ImportError(UNMAPPED), (UNMAPPED, "ulimit -v", "container")),
        (OSError(UNMAPPED), (UNMAPPED, "ulimit -v", "container")),
        (
            OSError(errno.ENOMEM, "Cannot allocate memory", "torch/a.py"),
            ("torch/a.py", "ulimit -v"),
        ),
        (ImportError(f"\n\nIMPORTANT: READ THIS\n\nOriginal error was: {UNMAPPED}\n"), (UNMAPPED,)),
        (
            RuntimeError("can't start new thread"),
            ("thread", "train.batch_size", "ulimit -v", "ulimit -u", "container"),
        ),
    ],
)
def test_lack_of_memory_outside_of_tensors_names_the_limits(
    error: Exception, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def fail(*unused: object) -> None:
        raise error

    monkeypatch.setattr("fast_style.settings.help.help_text", fail)
    assert run("train", "--help-config") == 1
    (line,) = errors(capsys)
    for part in parts:
        assert part in line


def test_other_errors_of_imports_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*unused: object) -> None:
        raise ImportError("cannot import name 'a' from 'b'")

    monkeypatch.setattr("fast_style.settings.help.help_text", fail)
    with pytest.raises(ImportError, match="cannot import name"):
        run("train", "--help-config")


HIDDEN = "cannot import name 'a' from 'b'"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (f"raise ImportError({HIDDEN!r})", HIDDEN),
        # What follows from an import that found no room, and that the library passed over.
        ("raise RuntimeError('operator a::b does not exist')", "operator a::b does not exist"),
        ("assert False", "AssertionError"),
    ],
)
def test_library_that_cannot_be_imported_under_a_limit_of_memory_lacks_it(
    module: str, reason: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    Path("breaking_library.py").write_text(f"{module}\n")
    monkeypatch.syspath_prepend(here)
    monkeypatch.setattr(
        "fast_style.settings.help.help_text",
        lambda *unused: importlib.import_module("breaking_library"),
    )
    with pytest.raises((ImportError, RuntimeError, AssertionError)):
        run("train", "--help-config")
    monkeypatch.setattr(free_memory, "_address_space_limit", lambda: 1)
    assert run("train", "--help-config") == 1
    (line,) = errors(capsys)
    for part in ("out of memory", f"({reason})", "ulimit -v unlimited"):
        assert part in line


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'a'"), AttributeError("no attribute")]
)
def test_missing_modules_and_mistakes_stay_what_they_are_under_a_limit_of_memory(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*unused: object) -> None:
        raise error

    monkeypatch.setattr("fast_style.settings.help.help_text", fail)
    monkeypatch.setattr(free_memory, "_address_space_limit", lambda: 1)
    with pytest.raises(type(error)):
        run("train", "--help-config")


def test_bar_without_its_thread_is_no_warning(here: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert run("styles") == 0
        warnings.warn("tqdm:disabling monitor support (monitor_interval = 0)", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(warning.message) for warning in told] == ["another"]


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
@pytest.mark.parametrize("arguments", [["train", "--help-config"], ["--help"]])
def test_closed_stdout_leaves_no_traceback(arguments: list[str]) -> None:
    # What `| head -1` does, at once: nobody reads.
    reading, writing = os.pipe()
    os.close(reading)
    result = run_in_process(*arguments, stdout=writing)
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.skipif(os.name == "nt", reason="there, a working directory cannot be removed")
@pytest.mark.parametrize("arguments", [["stylize", "-m", "m", "a.jpg"], ["train", "a.yaml", "a=b"]])
def test_working_directory_that_was_removed_is_an_error(
    here: Path, capsys: Output, arguments: list[str]
) -> None:
    gone = here / "gone"
    gone.mkdir()
    os.chdir(gone)  # `here` changes back
    gone.rmdir()
    assert run(*arguments) == 2
    (line,) = errors(capsys)
    assert line.startswith("error: the working directory does not exist any more; ")
    assert "cd" in line


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sh is needed")
def test_missing_stdout_stops_no_work(model: Path) -> None:
    photo_at("a.png")
    assert ended_without_stdout("stylize -m model.safetensors a.png") == (0, "")
    assert Path("a.tiny.png").exists()
    assert ended_without_stdout("init a.png -o my.yaml") == (0, "")
    assert Path("my.yaml").exists()


@pytest.mark.skipif(os.name == "nt", reason="sh is needed")
@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("info compact", "> FILE"),
        ("styles", "> FILE"),
        ("train --help-config", "> FILE"),
        ("init a.png", "--output"),
    ],
)
def test_missing_stdout_under_what_was_asked_for_is_an_error(
    here: Path, words: str, remedy: str
) -> None:
    photo_at("a.png")
    exit_code, told = ended_without_stdout(words)
    assert (exit_code, told.count("\n")) == (1, 1)
    assert told.startswith("error: stdout is closed")
    assert told.endswith(f"{remedy}\n")


def ended_without_stdout(words: str) -> tuple[int, str]:
    """Exit code and stderr of a command whose stdout is closed."""
    command = f'"{sys.executable}" -m fast_style {words} >&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        ["sh", "-c", command], stderr=subprocess.PIPE, text=True, env=environment
    )
    return ended.returncode, ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sh is needed")
def test_missing_stderr_stops_no_work(model: Path) -> None:
    photo_at("a.png")
    photo_at("b.png")
    command = f'"{sys.executable}" -m fast_style stylize -m model.safetensors {{}} 2>&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ends = {
        photos: subprocess.run(["sh", "-c", command.format(photos)], env=environment).returncode
        for photos in ("a.png b.png", "missing.png")
    }
    assert ends == {"a.png b.png": 0, "missing.png": 2}
    assert sorted(path.name for path in Path().glob("*.tiny.png")) == ["a.tiny.png", "b.tiny.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_under_lines_about_work_does_not_stop_it() -> None:
    code = "from fast_style.cli.process import say; say('a'); say('b'); exit(7)"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (ended.returncode, ended.stderr) == (7, "")


def closed_pipe() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w", buffering=1)


def full_disk() -> TextIO:
    return open("/dev/full", "w", buffering=1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("opened", [closed_pipe, full_disk])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_unwritable_stderr_stops_no_work(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    opened: Callable[[], TextIO],
    is_terminal: bool,
) -> None:
    Path("a.png").write_text("no picture")
    photo_at("b.png")
    Image.new("L", (40, 40)).save(
        "c.gif", save_all=True, append_images=[Image.new("L", (40, 40), 255)]
    )
    with opened() as stderr:
        monkeypatch.setattr(stderr, "isatty", lambda: is_terminal)
        monkeypatch.setattr(sys, "stderr", stderr)
        assert run("stylize", "-m", "model.safetensors", "a.png", "b.png", "c.gif") == 1
        assert run("init", "c.gif", "-o", "c.yaml") == 0
        assert sys.stderr is stderr
    assert Path("b.tiny.png").exists()
    assert Path("c.tiny.png").exists()
    assert Path("c.yaml").exists()


@pytest.mark.slow
def test_letters_that_a_terminal_lacks_are_escaped(here: Path) -> None:
    photo_at("Über.png")
    ended = run_in_process("init", "Über.png", "-o", "Übung.yaml", PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "\\xdcbung.yaml: set data.photos in it, and train it\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "arguments",
    [["train", "--help-config"], ["styles"], ["info", "compact"], ["--version"], ["try", "--help"]],
)
def test_full_disk_under_what_was_asked_for_is_an_error(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = run_in_process(*arguments, stdout=full.fileno())
    assert ended.stderr == "error: the output cannot be written (the disk is full)\n"
    assert ended.returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_under_a_check_of_several_files_is_one_error(config: Path) -> None:
    Path("second.yaml").write_text(config.read_text().replace("name: wave", "name: second"))
    with Path("/dev/full").open("w") as full:
        ended = run_in_process(
            "train", str(config), "second.yaml", "--check", "--device", "cpu", stdout=full.fileno()
        )
    assert ended.stderr == "error: the output cannot be written (the disk is full)\n"
    assert ended.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="sh is needed")
def test_stdout_that_is_open_for_reading_alone_is_an_error() -> None:
    command = f'"{sys.executable}" -m fast_style styles 1</dev/null'
    ended = subprocess.run(["sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert ended.stderr.startswith("error: the output cannot be written (")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)


@pytest.mark.skipif(os.name == "nt", reason="no file can have such a name")
@pytest.mark.parametrize("name", ["n\x1b[31mred.safetensors", "a\nb.safetensors"])
def test_name_of_a_file_cannot_write_to_the_terminal(
    config: Path, name: str, capsys: Output
) -> None:
    Path(name).write_text("xx")
    for words in (
        ["info", name],
        ["stylize", "-m", name, "style.png"],
        ["train", "wave.yaml", "--check", f"train.init_from={name}"],
        ["train", "wave.yaml", "--check", f"loss_network.weights={name}"],
    ):
        assert run(*words) == 2
        told = capsys.readouterr()
        (line,) = told.err.splitlines()
        assert line.isprintable()
        assert all(line.isprintable() for line in told.out.splitlines())
