"""How a command runs as a process: errors, exit codes, signals, and lines on stdout and stderr."""

import argparse
import errno
import gc
import io
import mmap
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stderr,
    suppress,
)
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from fast_style.cli.allocator import keep_freed_memory
from fast_style.cli.arguments import parse
from fast_style.cli.imports import let_signals_wait_for_torch
from fast_style.cli.openmp import let_waiting_threads_sleep
from fast_style.cli.stdout import UndeliveredError, mute, replace_closed
from fast_style.core.devices import is_out_of_memory
from fast_style.core.distributed import read_launch
from fast_style.core.errors import UserError, printable
from fast_style.core.free_memory import limit_remedy, reason_not_loaded
from fast_style.core.signals import (
    Terminated,
    clean_end,
    ignore_interrupts,
    repeat_lost_interrupts,
)

if TYPE_CHECKING:
    from tqdm import tqdm

# Bytes of address space, which take no memory.
_RESERVE = 16 << 20

# --- Errors and exit codes ----------------------------------------------------------------------


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse the command line, run the command and report its errors; returns the exit code.

    Args:
        parser: sets ``command``, the module of the command, among its defaults.
        arguments: the command line without the program; None for that of this process.
    """
    replace_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name with letters that the terminal lacks is printed with escapes.
        sys.stdout.reconfigure(errors="backslashreplace")
    with redirect_stderr(cast(TextIO, _Tolerated(sys.stderr))):
        return _reported(parser, arguments)


def _reported(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    try:
        try:
            options = parse(parser, arguments)
            _require_working_directory()
            let_waiting_threads_sleep()  # before torch is loaded
            keep_freed_memory()  # before torch allocates anything
            let_signals_wait_for_torch()
            # One bar without the thread that redraws it is as good. Its line comes before errors.
            warnings.filterwarnings("ignore", message="tqdm:disabling monitor support")
            return _run(options)
        finally:
            sys.stdout.flush()
    except UserError as error:
        print_error(error)
        return error.exit_code
    except Terminated as error:
        print(f"error: stopped by {signal.Signals(error.number).name}", file=sys.stderr)
        return 128 + error.number
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except UndeliveredError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError as error:
        mute(sys.stdout, error)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        # Errors of files carry a file name; one without a name comes from stdout.
        mute(sys.stdout, error)
        print("error: the output cannot be written (the disk is full)", file=sys.stderr)
        return 1


def _require_working_directory() -> None:
    """Check that the working directory exists: without it, some libraries end the process.

    Raises:
        UserError: it was removed.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError(
            "the working directory does not exist any more; change (cd) to one that does"
        ) from None


def _clean_end() -> AbstractContextManager[None]:
    # A process of torchrun may wait for the others outside Python, where it would not see the
    # exception: there, the signal ends it as usual.
    return clean_end() if _is_alone() else nullcontext()


def _is_alone() -> bool:
    try:
        return read_launch().is_alone
    except UserError:  # an invalid launch: no group will be started
        return True


@contextmanager
def _limited_pixels(options: argparse.Namespace) -> Iterator[None]:
    """Within the block, --max-pixels holds for all pictures, also in processes that are started."""
    if not hasattr(options, "max_pixels"):
        yield
        return
    from fast_style.pictures.reading import DEFAULT_MAX_PIXELS, MAX_PIXELS_VARIABLE

    before = os.environ.get(MAX_PIXELS_VARIABLE)
    os.environ[MAX_PIXELS_VARIABLE] = str(options.max_pixels or DEFAULT_MAX_PIXELS)
    try:
        yield
    finally:
        del os.environ[MAX_PIXELS_VARIABLE]
        if before is not None:
            os.environ[MAX_PIXELS_VARIABLE] = before


def _reserve() -> AbstractContextManager[object]:
    """Keep room free within the block, so that a lack of memory in it can still be reported."""
    try:
        return mmap.mmap(-1, _RESERVE)
    except OSError:
        return nullcontext()


def _run(options: argparse.Namespace) -> int:
    try:
        with _reserve(), _limited_pixels(options), _clean_end():
            code: int = options.command.run(options)
            return code
    except (UserError, BrokenPipeError):
        raise
    except Exception as error:
        lack = _lack_of_memory(error, options)
        if lack is None:
            raise
        raise lack from None


def _lack_of_memory(error: Exception, options: argparse.Namespace) -> UserError | None:
    """The error that tells of a lack of memory; None if `error` is of another kind."""
    if isinstance(error, (MemoryError, RuntimeError, SystemError)) and is_out_of_memory(error):
        remedy = _less_memory(options)
        if "start new thread" in str(error):
            # A thread lacks memory for its stack, or the system admits no more of them.
            return UserError(
                f"no further thread can be started; {remedy}, or raise the limits of memory and of "
                "processes: ulimit -v unlimited, ulimit -u, or those of the container or job",
                exit_code=1,
            )
        found = f" ({error})" if isinstance(error, MemoryError) and str(error) else ""
        return UserError(f"out of memory{found}; {remedy}{limit_remedy()}", exit_code=1)
    if reason := reason_not_loaded(error):
        return UserError(
            f"out of memory while a library is loaded ({reason}); raise the limit of memory: "
            "ulimit -v unlimited, or that of the container or job",
            exit_code=1,
        )
    return None


def _less_memory(options: argparse.Namespace) -> str:
    """The remedy for a lack of memory, which a command may have as a text or by its options."""
    if hasattr(options.command, "less_memory"):
        return str(options.command.less_memory(options))
    return getattr(options.command, "LESS_MEMORY", "close other programs")


def print_error(error: UserError) -> None:
    """Print each mistake as a line on stderr. An empty message prints nothing."""
    process = ""
    with suppress(UserError):  # an invalid launch, which is the error to report
        launch = read_launch()
        process = "" if launch.is_first else f"process {launch.rank}: "
    for line in str(error).splitlines():
        print(f"error: {process}{printable(line)}", file=sys.stderr)


def run_to_the_end(command: Callable[[], int]) -> NoReturn:
    """Run a command, and exit with its code.

    Args:
        command: reports its errors, and returns the code of `run_command`.
    """
    repeat_lost_interrupts()
    try:
        code = command()
    except KeyboardInterrupt:  # before the command began, or while it reported its end
        ignore_interrupts()
        print("error: interrupted", file=sys.stderr)
        code = 128 + signal.SIGINT
    finally:  # also after --help, which raises SystemExit
        ignore_interrupts()
    leave(code)


def leave(code: int) -> NoReturn:
    """Exit with a code, when all work is done and reported. Ctrl-C is ignored from then on.

    Among several processes of torchrun, the interpreter's own cleanup is skipped: a thread of gloo
    that releases a tensor at that time aborts the process, and its exit code is lost
    (pytorch/pytorch#190489). torch keeps these threads beyond `destroy_process_group`.
    """
    ignore_interrupts()
    if _is_alone():
        raise SystemExit(code)
    gc.collect()  # ends the data workers, which live as long as the objects that refer to them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# --- Output -------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Print a line about work in progress; an unwritable stdout does not stop the work."""
    try:
        print(line, flush=True)
    except OSError as error:  # `... | head`, a closed terminal, a log file on a full disk
        mute(sys.stdout, error)


def lines_beside(bar: "tqdm[Any]") -> Callable[[str], None]:
    """A function that prints lines above a progress bar, or by `say` if the bar is disabled."""

    def write(line: str) -> None:
        try:
            bar.write(line)
        except OSError as error:  # see `say`
            mute(sys.stdout, error)

    return say if bar.disable else write


class _Tolerated:
    """A stream whose writes raise no error: notes, errors and progress bars do not stop the work.

    Everything that writes to stderr is given this one by `run_command`, progress bars as well.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._muting():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._muting():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _muting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # see `say`
            mute(self._stream, error)
