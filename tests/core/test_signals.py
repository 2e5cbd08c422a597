"""Claims about `signals`: which of them end work, and in which thread."""

import os
import signal
import sys
import threading
import time

import pytest

from fast_style.core.signals import (
    Terminated,
    clean_end,
    repeat_lost_interrupts,
    stop_signals,
    waiting_signals,
)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_signal_that_was_ignored_before_stays_ignored() -> None:
    # nohup ignores SIGHUP for the command that it starts, so that training outlives a logout.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop_signal:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop_signal() is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop_signal() == signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_second_signal_interrupts(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_signals() as stop_signal:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert stop_signal() == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr().err == "stopping after this step; a second signal stops at once\n"


def test_nothing_is_written_where_stderr_is_missing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with stop_signals() as stop_signal:
        signal.raise_signal(signal.SIGINT)
        assert stop_signal() == signal.SIGINT
    assert capfd.readouterr().err == ""


def test_signals_that_were_not_named_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals(["SIGINT"]) as stop_signal:
        assert signal.getsignal(signal.SIGTERM) is before
        signal.raise_signal(signal.SIGINT)
        assert stop_signal() == signal.SIGINT


def test_other_threads_receive_none() -> None:
    seen: list[object] = []

    def work() -> None:
        with stop_signals() as stop_signal:
            seen.append(stop_signal())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


def test_interrupt_of_an_import_comes_at_its_end() -> None:
    # A shell lets the commands that it starts in the background ignore SIGINT, and so these tests.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []
    try:
        with pytest.raises(KeyboardInterrupt), waiting_signals():  # noqa: PT012
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")
        assert reached == ["the end"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_that_raise_wait_for_the_end_of_an_import(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # nohup lets tests ignore SIGHUP
    reached = []
    try:
        with clean_end():
            with pytest.raises(Terminated) as caught, waiting_signals():  # noqa: PT012
                signal.raise_signal(number)
                reached.append("the end")
            assert reached == ["the end"]
        assert caught.value.number == number
    finally:
        signal.signal(number, before)


def test_signal_that_is_ignored_stays_so_in_an_import() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with waiting_signals():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_import_that_nobody_interrupts_leaves_signals_as_they_were() -> None:
    before = signal.getsignal(signal.SIGINT)
    with waiting_signals():
        pass
    with pytest.raises(ImportError), waiting_signals():
        raise ImportError
    assert signal.getsignal(signal.SIGINT) is before


def test_imports_of_other_threads_are_not_touched() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with waiting_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_clean_end_raises_and_leaves_what_the_caller_has_set(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt) as caught, clean_end():
            os.kill(os.getpid(), number)
        assert isinstance(caught.value, Terminated)
        assert caught.value.number == number
        assert signal.getsignal(number) is signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)
        with clean_end():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_second_signal_keeps_its_number() -> None:
    with pytest.raises(Terminated) as caught, stop_signals():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.number == signal.SIGTERM


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated(signal.SIGTERM)])
def test_interrupt_while_an_object_is_deleted_is_not_lost(
    error: KeyboardInterrupt, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Bar:
        def __del__(self) -> None:
            raise error

    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    repeat_lost_interrupts()
    with pytest.raises(type(error)), clean_end():  # noqa: PT012
        bar = Bar()
        del bar
        time.sleep(10)
    assert capfd.readouterr().err == ""


def test_other_errors_while_an_object_is_deleted_are_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Bar:
        def __del__(self) -> None:
            raise ValueError("of a bar")

    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    repeat_lost_interrupts()
    bar = Bar()
    del bar
    assert "ValueError: of a bar" in capfd.readouterr().err
