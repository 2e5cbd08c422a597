"""Claims about `run_lock`: whose lock is refused, and whose is taken over."""

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from small_run import command_environment, ignore

from fast_style.core.errors import UserError
from fast_style.training.run_lock import RunLock, lock_run


def message_of_locking(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        lock_run(folder, ignore)
    return str(caught.value)


@contextmanager
def in_another_thread(work: Callable[[], object]) -> Iterator[None]:
    """Within the block, a thread that has done the work goes on living."""
    is_done, may_end = threading.Event(), threading.Event()

    def live() -> None:
        work()
        is_done.set()
        may_end.wait()

    thread = threading.Thread(target=live)
    thread.start()
    is_done.wait()
    yield
    may_end.set()
    thread.join()


def is_free_for_others(folder: Path) -> bool:
    """Whether another process could lock the folder now."""
    code = "import sys, filelock; filelock.FileLock(sys.argv[1]).acquire(timeout=0)"
    done = subprocess.run(
        [sys.executable, "-c", code, folder / "lock"], env=command_environment(), check=False,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode == 0


def test_lock_of_another_process_is_refused_with_its_number_and_host(tmp_path: Path) -> None:
    # A lock that is not in this process's table is, to it, another process's.
    holder = {"token": "", "pid": 4242, "host": "Büro", "processes": ""}
    (tmp_path / "lock.held").write_text(json.dumps(holder), encoding="utf-8")
    with FileLock(tmp_path / "lock"):
        assert message_of_locking(tmp_path) == (
            f"{tmp_path}: process 4242 on Büro trains here already; wait for it, or set another "
            "name=..."
        )
        (tmp_path / "lock.held").write_text("damaged")
        assert message_of_locking(tmp_path).startswith(f"{tmp_path}: another process trains here")


def test_lock_that_this_thread_left_behind_is_taken_over_and_told(tmp_path: Path) -> None:
    said: list[str] = []
    first = lock_run(tmp_path, said.append)
    assert said == []
    second = lock_run(tmp_path, said.append)
    assert said == [
        f"{tmp_path}: was left open by an earlier call in this process; going on with it"
    ]
    assert not first.release()  # what is taken over cannot be released by its former owner
    assert not is_free_for_others(tmp_path)
    assert second.release()
    assert is_free_for_others(tmp_path)


def test_lock_is_recognized_by_its_folder_however_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    kept = lock_run(tmp_path / "run", ignore)
    monkeypatch.chdir(tmp_path)
    for path in (Path("run"), Path("link"), Path("run/../run")):
        kept = lock_run(path, ignore)
    assert kept.release()


def test_lock_of_a_living_thread_is_refused(tmp_path: Path) -> None:
    locks: list[RunLock] = []
    with in_another_thread(lambda: locks.append(lock_run(tmp_path, ignore))):
        assert message_of_locking(tmp_path) == (
            f"{tmp_path}: another thread of this process has opened this run, and not closed it; "
            "wait until it has trained, close the run there (run.release()), or set another "
            "name=..."
        )
        locks[0].release()  # from another thread than the one that locked
        assert lock_run(tmp_path, ignore).release()


def test_lock_of_a_thread_that_ended_is_taken_over(tmp_path: Path) -> None:
    locks: list[RunLock] = []
    with in_another_thread(lambda: locks.append(lock_run(tmp_path, ignore))):
        pass
    assert not is_free_for_others(tmp_path)
    assert lock_run(tmp_path, ignore).release()


def test_lock_that_nothing_refers_to_is_free(tmp_path: Path) -> None:
    lock_run(tmp_path, ignore)
    gc.collect()
    assert is_free_for_others(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_forked_child_does_not_take_over_the_lock_of_its_parent(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from fast_style.core.errors import UserError
from fast_style.training.run_lock import lock_run
folder = Path({str(tmp_path)!r})
lock = lock_run(folder, print)
if child := os.fork():
    _, status = os.waitpid(child, 0)
    raise SystemExit(os.waitstatus_to_exitcode(status))
try:
    lock_run(folder, print)
except UserError as error:
    print(error)
    os._exit(3)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code.replace("    print(error)\n", "")],
        capture_output=True, text=True, env=command_environment(), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
