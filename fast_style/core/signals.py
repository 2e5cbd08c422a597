"""Signals that end work after its present step or import, or at once, but cleanly."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from fast_style.core.distributed import read_launch

_MOMENT = 0.05  # seconds: longer than Python needs to delete an object


@contextmanager
def stop_signals(
    names: Sequence[str] = ("SIGINT", "SIGTERM", "SIGHUP"), *, unit: str = "step"
) -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the first of these signals that was received, or None.

    Python lets only the main thread handle signals; in other threads, none is received.

    In a single process, a second signal raises KeyboardInterrupt, or `Terminated`. Among several
    processes of torchrun it does not: torchrun passes its own signals on to processes that have
    received them already, and kills those that have not ended after 30 seconds.

    Args:
        names: of the signals.
        unit: what is finished first, for the answer to the user.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received: list[int] = []
    launch = read_launch()
    answer = (
        f"stopping after this {unit}; a second signal stops at once\n".encode()
        if launch.is_alone
        else b"stopping at the next step that is logged\n"
    )

    def handle(number: int, frame: FrameType | None) -> None:
        if received and launch.is_alone:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
        is_first_signal = not received
        received.append(number)
        # Without a stderr, another file may have its number.
        if is_first_signal and launch.is_first and sys.stderr is not None:
            with suppress(OSError):  # the terminal may be gone; print() is not safe in a handler
                os.write(2, answer)

    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        # Under nohup, SIGHUP stays ignored. (Shells make background commands ignore SIGINT too, but
        # a SIGINT that is sent to this process in particular must stop it.)
        if number == signal.SIGINT or handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised like Ctrl-C.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def clean_end() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP raise `Terminated`: temporary files are then removed.

    By default, they end a process where it stands. Signals that the caller handles or ignores stay
    as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def ignore_interrupts() -> None:
    """From now on, SIGINT (Ctrl-C) is ignored: for the end of a process whose work is done.

    There, a handler of Python would raise KeyboardInterrupt where nothing catches it; the default
    of the system would end the process with another exit code. SIGTERM still ends it.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def repeat_lost_interrupts() -> None:
    """From now on, a KeyboardInterrupt that Python drops is raised again a moment later.

    Python drops one that is raised while an object is deleted, as tqdm's bar at the end of a
    function, prints a traceback, and the work goes on.
    """
    usual = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        error = dropped.exc_value
        if not isinstance(error, KeyboardInterrupt):
            usual(dropped)
            return
        # By a thread: here, it would be dropped, too.
        number = error.number if isinstance(error, Terminated) else signal.SIGINT
        timer = threading.Timer(_MOMENT, _interrupt, [number])
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hook


def _interrupt(number: int) -> None:
    """Send a signal to the main thread, which it also wakes from waiting, but not on Windows."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


@contextmanager
def waiting_signals() -> Iterator[None]:
    """Within the block, SIGINT, SIGTERM and SIGHUP wait for its end.

    For what must not be interrupted halfway:

    - Imports. Python forgets a package whose import is interrupted, but not the modules that were
      finished. At the next import they are not among its attributes, and the package stays broken
      until the process ends.
    - The start of a thread. An executor does not wait for a thread whose start was interrupted.

    Signals that end the process at once, or that it ignores, stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # None is the handler of a program that embeds Python, which could not be put back.
    kept = (None, signal.SIG_DFL, signal.SIG_IGN)
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler not in kept}
    received: list[int] = []
    for number in before:
        signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(received):
            signal.raise_signal(number)
