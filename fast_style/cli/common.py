"""What the commands share: how errors are told, signals handled, and words turned into values."""

import argparse
import errno
import gc
import io
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from fast_style.cli.allocator import keep_freed_memory
from fast_style.core.distributed import read_launch
from fast_style.core.errors import UserError, shortened

if TYPE_CHECKING:
    import torch
    from tqdm import tqdm

    from fast_style.core.distributed import Group
    from fast_style.distilling.distillation import Distiller
    from fast_style.settings.config import Config, DistillConfig
    from fast_style.settings.settings import AnyRoot
    from fast_style.training.trainer import Trainer

RUNS = Path("runs")
"""Where runs lie, in the working directory."""


class Parser(argparse.ArgumentParser):
    """argparse with our form of errors: one line, ``error:`` first."""

    def error(self, message: str) -> NoReturn:
        """Print it, and leave with 2."""
        print(f"error: {message} ({self.prog} --help shows what there is)", file=sys.stderr)
        raise SystemExit(2)


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse, run, and tell what went wrong; gives the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal has no letters for is shown with escapes, and stops nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            options = _parse(parser, arguments)
            keep_freed_memory()  # before torch allocates anything
            code: int = options.run(options)
            return code
        finally:
            sys.stdout.flush()
    except UserError as error:
        print_error(error)
        return error.exit_code
    except (MemoryError, RuntimeError) as error:
        from fast_style.core.devices import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        print("error: out of memory; a smaller size or batch needs less", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        stop_talking()
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        # Files name themselves in their errors; a full disk without a name is under our stdout.
        stop_talking()
        print("error: the output cannot be written (the disk is full)", file=sys.stderr)
        return 1


def leave(code: int) -> NoReturn:
    """End this process, all of whose work is done, with the exit code of `run_command`.

    Where torchrun started several, Python's own tidying up is left out: a thread of gloo that
    still lets go of a tensor meanwhile aborts the process, and its exit code is lost
    (pytorch/pytorch#190489). torch keeps these threads beyond `destroy_process_group`.
    """
    is_alone = True
    with suppress(UserError):  # numbers that make no sense: there is no group
        is_alone = read_launch().is_alone
    if is_alone:
        raise SystemExit(code)
    gc.collect()  # processes that load photos end with what refers to them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    options, rest = parser.parse_known_args(arguments)
    # argparse fills a list once: words behind an option that follows it are left over.
    if rest and hasattr(options, "words") and not any(word.startswith("-") for word in rest):
        options.words += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def print_error(error: UserError) -> None:
    """One line for each mistake; nothing where another process tells it."""
    process = ""
    with suppress(UserError):  # which is the one to be told
        launch = read_launch()
        process = "" if launch.is_first else f"process {launch.rank}: "
    for line in str(error).splitlines():
        print(f"error: {process}{line}", file=sys.stderr)


@contextmanager
def stop_signals() -> Iterator[Callable[[], int | None]]:
    """Inside, the first SIGINT, SIGTERM or SIGHUP is only noted; the second one leaves at once.

    Not where torchrun started several processes: it hands on what they have received themselves,
    and kills those that have not left half a minute later.
    """
    received: list[int] = []
    launch = read_launch()
    promise = (
        b"stopping after this step; once more to leave at once\n"
        if launch.is_alone
        else b"stopping when all processes have written down their losses next time\n"
    )

    def handle(number: int, frame: FrameType | None) -> None:
        if received and launch.is_alone:
            raise KeyboardInterrupt
        is_news = not received
        received.append(number)
        if is_news and launch.is_first:
            with suppress(OSError):  # the terminal may be gone; print() is not safe in a handler
                os.write(2, promise)

    numbers = [
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    ]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        # nohup ignores SIGHUP for us. (Shells ignore SIGINT for what they start with &, but a
        # SIGINT that reaches us all the same was meant.)
        if number == signal.SIGINT or handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- Runs ---------------------------------------------------------------------------------------


def require_inputs_of_new(config: "Config | DistillConfig", *, fresh: bool) -> None:
    """See that what a run begins with is there, before the seconds that torch takes.

    Not of a run that has begun: it may be finished.

    Raises:
        UserError: something is not.
    """
    from fast_style.losses.inputs import require_inputs

    if fresh or not (RUNS / config.name).exists():
        require_inputs(config)


def carry_out(
    config: "Config | DistillConfig",
    build: "Callable[..., Trainer | Distiller]",
    *,
    device: "torch.device",
    fresh: bool,
    result: str,
    meaning: str,
    advice: str,
    group: "Group",
) -> int:
    """Begin a run, or go on with it, with signals handled; gives the exit code.

    Args:
        config: the settings.
        build: makes what trains, from the settings and the run.
        device: where.
        fresh: in a new folder, whatever there is.
        result: the file in the run folder that people want.
        meaning: what that is, in words.
        advice: what to do instead when the run is finished already.
        group: the processes that do it together; rank zero tells of it.
    """
    from fast_style.core.errors import Stopped
    from fast_style.training.run_folder import open_run

    tell = say if group.is_first else _keep_silent
    run = open_run(config, root=RUNS, fresh=fresh, say=tell, group=group)
    try:
        step = run.resume_from.metadata["step"] if run.resume_from else 0
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
        action = f"going on at step {step}" if step else "training"
        place = str(device) if group.is_alone else f"{group.launch.world_size} processes"
        tell(f"{action} in {run.folder} on {place}; watch with: tensorboard --logdir {RUNS}")
        with stop_signals() as stop_signal:
            try:
                trainer.train(stop_signal)
            except Stopped as stopped:
                again = f"--resume auto name={run.folder.name}" if fresh else "the same command"
                tell(f"stopped at step {stopped.step}; {again} goes on from there")
                return 128 + stopped.signal_number
        tell(f"finished: {run.folder / result}")
        return 0
    finally:
        run.release()


def _keep_silent(line: str) -> None:
    pass


# --- Arguments that several commands take --------------------------------------------------------


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        help="auto, cpu, cuda, cuda:1, mps (default: auto)",
    )


def add_settings(
    parser: argparse.ArgumentParser, *, instead_of: str, several: bool = False
) -> None:
    """A YAML file with words laid over it, and the ways to look at settings instead of a run."""
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG.yaml", help="the settings")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="MORE.yaml key=value" if several else "key=value",
        help="further files, and settings that replace those of every file"
        if several
        else "settings that replace the file's",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help=f"print the complete settings; {instead_of} nothing",
    )
    parser.add_argument(
        "--help-config", action="store_true", help="print all settings with defaults and meanings"
    )


def read_settings(
    options: argparse.Namespace, root: "type[AnyRoot]", *, example: str, first: Sequence[str] = ()
) -> "AnyRoot | None":
    """The settings that `add_settings` asked for; None if only to look at them was asked.

    Args:
        options: the command line.
        root: what kind of settings.
        example: a file of theirs, for whoever gives none.
        first: ``key=value`` words that go before those of the command line.
    """
    found = _settings_of([options.config], [*first, *options.words], options, root, example)
    return found[0] if found else None


def read_several_settings(
    options: argparse.Namespace, root: "type[AnyRoot]", *, example: str
) -> "list[AnyRoot]":
    """The settings of each YAML file on the command line; none if only to look at them was asked.

    All files are read before anything is done, and all their mistakes told at once.
    """
    words: list[str] = options.words
    more = [word for word in words if _is_yaml_file(word)]
    settings = [word for word in words if not _is_yaml_file(word)]
    files = [options.config, *map(Path, more)]
    if more and any(word.startswith("name=") for word in settings):
        raise UserError(
            f"name= on the command line would give the runs of {len(files)} files one folder; set "
            "it in the files"
        )
    found = _settings_of(files, settings, options, root, example)
    names: dict[str, Path] = {}
    for file, config in zip(files, found, strict=False):
        name = config.model_dump()["name"]
        if name in names:
            raise UserError(
                f"{file}: name: {name} is also that of {names[name]}; each run needs a folder of "
                "its own"
            )
        names[name] = file
    return found


def _is_yaml_file(word: str) -> bool:
    is_setting = re.match(r"[A-Za-z_][\w.]*=", word) is not None
    return word.lower().endswith((".yaml", ".yml")) and not is_setting


def _settings_of(
    files: Sequence[Path | None],
    words: Sequence[str],
    options: argparse.Namespace,
    root: "type[AnyRoot]",
    example: str,
) -> "list[AnyRoot]":
    from fast_style.settings.settings import help_text, load, to_yaml

    if options.help_config:
        print(help_text(root))
        return []
    found = []
    mistakes: dict[str, None] = {}  # a word on the command line is wrong for every file; said once
    for file in files:
        if file is None:
            raise UserError(f"give a YAML file, such as {example}, or see --help")
        try:
            found.append(load(root, file, words))
        except UserError as error:
            mistakes |= dict.fromkeys(str(error).splitlines())
    if mistakes:
        raise UserError("\n".join(mistakes))
    if options.print_config:
        print("---\n".join(map(to_yaml, found)), end="")
        return []
    return found


def add_resume(parser: argparse.ArgumentParser) -> None:
    """``--resume``."""
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: go on with an unfinished run of this name; never: begin a new run folder",
    )


# --- Types of arguments -------------------------------------------------------------------------


def nonempty_path(text: str) -> Path:
    """A path that is not empty."""
    if not text:  # an unset variable, which Path would take for the working directory
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def device_name(text: str) -> str:
    """A word that means a device; whether it is on this machine, only torch knows."""
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,4})?", text, re.ASCII) is None:
        raise argparse.ArgumentTypeError(
            f"must be auto, cpu, cuda, cuda:1 (any number) or mps, got {shortened(text)!r}"
        )
    return text


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or len(text) > 15 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {shortened(text)!r}")
    return int(text)


def percent(text: str) -> int:
    """A whole number from 1 to 100."""
    number = positive(text)
    if number > 100:
        raise argparse.ArgumentTypeError(f"must be 1 to 100, got {text!r}")
    return number


def thread_count(text: str) -> int:
    """A whole number from 1 to 1024, as ``train.threads`` takes it."""
    number = positive(text)
    if number > 1024:
        raise argparse.ArgumentTypeError(f"must be 1 to 1024, got {shortened(text)!r}")
    return number


def num_bytes(text: str) -> int:
    """A size in memory such as ``500M`` or ``1.5G``, in powers of 1000."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([MG])", text, re.ASCII)
    size = int(float(found[1]) * (1e6 if found[2] == "M" else 1e9)) if found else 0
    if size < 1:
        raise argparse.ArgumentTypeError(
            f"must be a size such as 500M or 2G, got {shortened(text)!r}"
        )
    return size


# --- Output -------------------------------------------------------------------------------------


def say(line: str) -> None:
    """A line about work that goes on, whether or not anybody still listens."""
    try:
        print(line, flush=True)
    except OSError:  # `... | head`, a closed terminal, a log file on a full disk
        stop_talking()


def lines_beside(bar: "tqdm[Any]") -> Callable[[str], None]:
    """What takes lines for people: above the bar, or as they are where no terminal shows one."""

    def write(line: str) -> None:
        try:
            bar.write(line)
        except OSError:  # see `say`
            stop_talking()

    return say if bar.disable else write


def stop_talking() -> None:
    """Send what is still printed nowhere."""
    # `... | head` has seen enough. Python would complain once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
