"""Claims about `folder_lock`: who gets a folder, with locks of the file system and without."""

import errno
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fast_style.core import folder_lock
from fast_style.core.errors import UserError
from fast_style.core.folder_lock import FolderLock, Held, has_locks

fcntl = pytest.importorskip("fcntl", reason="Windows has locks everywhere")

ROOT = Path(__file__).resolve().parents[2]
BEAT_S, PATIENCE_S = 0.05, 0.8


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "_BEAT_S", BEAT_S)
    monkeypatch.setattr(folder_lock, "_LOOK_S", BEAT_S / 2)
    monkeypatch.setattr(folder_lock, "_PATIENCE_S", PATIENCE_S)


def fail_with(number: int) -> Callable[..., Any]:
    """A function that fails with this errno."""

    def fail(*unused: object, **settings: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system on which flock fails."""
    monkeypatch.setattr(fcntl, "flock", fail_with(errno.ENOLCK))


# A process that locks the folder as if there were no locks, says so, and then hangs.
HOLD = f"""
import sys, time, fcntl
from pathlib import Path
def fail(*unused):
    raise OSError({errno.ENOLCK}, "no locks")
fcntl.flock = fail
from fast_style.core import folder_lock
folder_lock._BEAT_S, folder_lock._LOOK_S = {BEAT_S}, {BEAT_S / 2}
folder_lock._PATIENCE_S = {PATIENCE_S}
lock = folder_lock.FolderLock(Path(sys.argv[1]), print)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Within the block, a process that has locked the folder; it ends when its stdin does."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def file_of_another_host(folder: Path, **fields: Any) -> Path:
    """What a process of another machine has left in the folder."""
    record = {"token": "t", "pid": os.getpid(), "host": "far", "processes": "p", "count": 7}
    path = folder / "lock.held"
    path.write_text(json.dumps(record | fields))
    return path


def refused(folder: Path, say: Callable[[str], None] = print) -> str | None:
    """Who has the folder, as told to the one who wants it."""
    with pytest.raises(Held) as caught:
        FolderLock(folder, say)
    return caught.value.holder


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_errors_of_flock_say_that_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert has_locks(tmp_path)
    monkeypatch.setattr(fcntl, "flock", fail_with(number))
    assert not has_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_locks_of_the_file_system_are_used_where_there_are_any(tmp_path: Path) -> None:
    with FolderLock(tmp_path, print) as lock:
        begun_at = time.monotonic()
        assert (refused(tmp_path) or "").startswith(f"process {os.getpid()} on ")
        assert time.monotonic() - begun_at < PATIENCE_S  # nothing was watched
        assert not lock.is_lost
    assert FolderLock(tmp_path, print).release()


@pytest.mark.parametrize("is_copied", [False, True])
def test_folder_that_is_gone_is_noticed(tmp_path: Path, is_copied: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with FolderLock(folder, print) as lock:
        assert lock.is_of(folder)
        shutil.copytree(folder, tmp_path / "copy")
        folder.rename(tmp_path / "renamed")
        assert not lock.is_of(folder)
        if is_copied:
            (tmp_path / "copy").rename(folder)
        else:
            folder.mkdir()
        assert not lock.is_of(folder)
        assert (folder / "lock.held").exists() is is_copied
        assert lock.is_of(tmp_path / "renamed")


def test_file_that_holds_a_folder_is_made_again_if_it_alone_was_removed(tmp_path: Path) -> None:
    with FolderLock(tmp_path, print) as lock:
        (tmp_path / "lock.held").unlink()
        assert lock.is_of(tmp_path)
        assert (refused(tmp_path) or "").startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / "lock.held").exists()


def test_folder_whose_locked_file_was_removed_is_not_taken_from_a_process_that_runs(
    tmp_path: Path,
) -> None:
    with FolderLock(tmp_path, print) as lock:
        (tmp_path / "lock").unlink()
        assert (refused(tmp_path) or "").startswith(f"process {os.getpid()} on ")
        assert not lock.is_lost


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_killed_process_that_nobody_has_waited_for_holds_nothing(tmp_path: Path) -> None:
    program = "import os; os._exit(1)"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with FolderLock(tmp_path, print):
            record = json.loads((tmp_path / "lock.held").read_text())
        file_of_another_host(tmp_path, **{**record, "pid": process.pid})
        said: list[str] = []
        assert FolderLock(tmp_path, said.append).release()
    assert said == []


@pytest.mark.usefixtures("without_locks")
def test_folder_that_is_gone_is_noticed_without_locks(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with FolderLock(folder, print) as lock:
        assert lock.is_of(folder)
        folder.rename(tmp_path / "renamed")
        folder.mkdir()
        assert not lock.is_of(folder)
        file_of_another_host(folder)
        assert not lock.is_of(folder)


def test_file_that_this_process_has_left_behind_is_taken_over_at_once(tmp_path: Path) -> None:
    with FolderLock(tmp_path, print):
        record = json.loads((tmp_path / "lock.held").read_text())
    file_of_another_host(tmp_path, **record)
    begun_at = time.monotonic()
    with FolderLock(tmp_path, print):
        assert time.monotonic() - begun_at < PATIENCE_S


class TestMixedHosts:
    """Hosts with and without locks, or with locks that each host sees alone, on one folder."""

    def test_host_with_locks_sees_one_without(self, tmp_path: Path) -> None:
        with another_process(tmp_path) as process:
            assert (refused(tmp_path) or "").startswith(f"process {process.pid} on ")
            process.communicate()
        assert FolderLock(tmp_path, print).release()  # the refused one has left nothing locked

    def test_host_without_locks_sees_one_with(self, tmp_path: Path) -> None:
        with FolderLock(tmp_path, print) as lock:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(fcntl, "flock", fail_with(errno.ENOLCK))
                assert (refused(tmp_path) or "").startswith(f"process {os.getpid()} on ")
            assert not lock.is_lost

    def test_locks_that_other_hosts_do_not_see_are_not_enough(self, tmp_path: Path) -> None:
        path = file_of_another_host(tmp_path, machine="far 1")
        said: list[str] = []
        FolderLock(tmp_path, said.append).release()
        assert said[-1].endswith("has shown no sign of life for 1 s; taking it over")
        assert not path.exists()

    def test_killed_run_of_this_machine_is_followed_at_once_and_without_a_word(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As after a restart of the machine, when its processes are others.
        file_of_another_host(tmp_path, machine=folder_lock._own_machine())
        monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
        said: list[str] = []
        assert FolderLock(tmp_path, said.append).release()
        assert said == []

    def test_lock_of_the_file_system_is_released_if_the_file_cannot_be_written(
        self, tmp_path: Path
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folder_lock, "_encoded", fail_with(errno.ENOSPC))
            with pytest.raises(OSError, match="No space left"):
                FolderLock(tmp_path, print)
        assert FolderLock(tmp_path, print).release()


# --- What others may have put there ---------------------------------------------------------------


def put(path: Path, kind: str) -> None:
    """Something else than a plain file."""
    match kind:
        case "dangling link":
            path.symlink_to("nowhere")
        case "link to a record":
            (path.parent / "elsewhere").mkdir()
            path.symlink_to(file_of_another_host(path.parent / "elsewhere"))
        case "link to an endless file":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)


ODD_KINDS = ["dangling link", "link to a record", "link to an endless file", "folder", "pipe"]


@pytest.mark.parametrize("kind", ODD_KINDS)
@pytest.mark.parametrize(
    ("name", "has_flock"), [("lock.held", True), ("lock.held", False), ("lock", True)]
)
def test_what_is_no_plain_file_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, has_flock: bool
) -> None:
    path = tmp_path / name
    put(path, kind)
    if not has_flock:
        monkeypatch.setattr(fcntl, "flock", fail_with(errno.ENOLCK))
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    with pytest.raises(UserError) as caught:
        FolderLock(tmp_path, print)
    assert str(caught.value) == (
        f"{path}: not a plain file, as the lock of its folder must be; remove it"
    )
    monkeypatch.undo()
    path.rmdir() if kind == "folder" else path.unlink()
    assert FolderLock(tmp_path, print).release()  # nothing stayed locked


def test_odd_kind_beside_a_lock_that_is_held_does_not_hide_the_holder(tmp_path: Path) -> None:
    put(tmp_path / "lock.held", "dangling link")
    with FileLock(tmp_path / "lock"):
        assert refused(tmp_path) is None


@pytest.mark.parametrize("kind", ODD_KINDS)
def test_process_whose_file_became_something_else_knows_that_it_lost_the_folder(
    tmp_path: Path, kind: str
) -> None:
    lock = FolderLock(tmp_path, print)
    (tmp_path / "lock.held").unlink()
    put(tmp_path / "lock.held", kind)
    while not lock.is_lost:
        time.sleep(BEAT_S)
    assert not lock.release()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"host": "a\x1b[2Jb\nc\udc9b"}, "process 7 on a\\x1b[2Jb\\nc\\x9b"),
        ({"host": "x" * 3000}, f"process 7 on {'x' * 97}..."),
        ({"pid": [1]}, None),
        ({"pid": True}, None),
        ({"pid": 0}, None),
        ({"pid": -1}, None),
        ({"pid": 1.5}, None),
        ({"pid": 10**900}, None),
        ({"host": 3}, None),
        ({"host": None}, None),
        ({"token": {}}, None),
        ({"processes": []}, None),
    ],
)
def test_holder_is_named_in_one_printable_line_or_not_at_all(
    tmp_path: Path, fields: dict[str, Any], expected: str | None
) -> None:
    file_of_another_host(tmp_path, **{"pid": 7, **fields})
    with FileLock(tmp_path / "lock"):
        assert refused(tmp_path) == expected


def test_file_holds_the_folder_and_is_removed_at_the_end(
    tmp_path: Path, without_locks: None
) -> None:
    said: list[str] = []
    lock = FolderLock(tmp_path, said.append)
    assert [path.name for path in tmp_path.iterdir()] == ["lock.held"]
    assert lock.release()
    assert not lock.release()
    assert list(tmp_path.iterdir()) == []
    assert said == []


@pytest.mark.usefixtures("without_locks")
class TestWithoutLocks:
    def test_lock_that_nothing_refers_to_is_free(self, tmp_path: Path) -> None:
        FolderLock(tmp_path, print)
        gc.collect()
        assert list(tmp_path.iterdir()) == []

    def test_living_process_is_named_at_its_next_beat(self, tmp_path: Path) -> None:
        with another_process(tmp_path) as process:
            begun_at = time.monotonic()
            holder = refused(tmp_path)
            assert time.monotonic() - begun_at < PATIENCE_S
            assert holder is not None
            assert holder.startswith(f"process {process.pid} on ")
            process.communicate()
        assert list(tmp_path.iterdir()) == []  # it has removed its file

    def test_file_of_a_killed_process_of_this_host_is_taken_over_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with another_process(tmp_path) as process:
            process.kill()
        monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
        said: list[str] = []
        with FolderLock(tmp_path, said.append):
            assert len(said) == 1
            assert said[0].startswith(f"{tmp_path}: process {process.pid} on ")
            assert said[0].endswith(
                ", which had locked it, has ended without releasing it; taking it over"
            )
        assert list(tmp_path.iterdir()) == []

    def test_number_of_a_dead_process_means_nothing_on_another_host(self, tmp_path: Path) -> None:
        with another_process(tmp_path) as process:
            process.kill()
        file_of_another_host(tmp_path, pid=process.pid)
        begun_at = time.monotonic()
        said: list[str] = []
        FolderLock(tmp_path, said.append).release()
        assert time.monotonic() - begun_at >= PATIENCE_S
        assert said == [
            f"{tmp_path}: process {process.pid} on far has locked it; watching for 1 s whether it "
            "still runs",
            f"{tmp_path}: process {process.pid} on far, which had locked it, has shown no sign of "
            "life for 1 s; taking it over",
        ]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "content",
        [
            "", "{", "[]", "{}", "\x00\x00", '{"pid": 1}', "[" * 100_000, "9" * 100_000,
            '{"token": "t", "pid": [1], "host": "far", "processes": "p"}',
            f'{{"token": "t", "pid": {10**90}, "host": "far", "processes": "p"}}',
        ],
    )  # fmt: skip
    def test_torn_file_is_watched_and_taken_over(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "lock.held").write_text(content)
        said: list[str] = []
        with FolderLock(tmp_path, said.append):
            assert said[-1] == (
                f"{tmp_path}: another process, which had locked it, has shown no sign of life for "
                "1 s; taking it over"
            )

    def test_clocks_do_not_matter(self, tmp_path: Path) -> None:
        with another_process(tmp_path) as process:
            os.utime(tmp_path / "lock.held", (0, 0))
            assert (refused(tmp_path) or "").startswith(f"process {process.pid} ")
            process.communicate()
        path = file_of_another_host(tmp_path)
        os.utime(path, (time.time() + 1e6,) * 2)
        FolderLock(tmp_path, print).release()

    def test_process_that_wakes_up_knows_that_it_lost_the_folder(self, tmp_path: Path) -> None:
        first = FolderLock(tmp_path, print)
        path = file_of_another_host(tmp_path)
        others = path.read_bytes()
        while not first.is_lost:
            time.sleep(BEAT_S)
        assert not first.release()
        assert path.read_bytes() == others

    def test_stopped_process_is_taken_over_and_ends_without_the_file(self, tmp_path: Path) -> None:
        with another_process(tmp_path) as process:
            process.send_signal(signal.SIGSTOP)
            lock = FolderLock(tmp_path, print)
            mine = json.loads((tmp_path / "lock.held").read_bytes())["token"]
            process.send_signal(signal.SIGCONT)
            process.communicate()
            assert json.loads((tmp_path / "lock.held").read_bytes())["token"] == mine
        assert not lock.is_lost
        assert lock.release()

    def test_one_of_several_that_watched_gets_the_folder(self, tmp_path: Path) -> None:
        file_of_another_host(tmp_path)
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", HOLD, tmp_path],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )
            for _ in range(4)
        ]  # fmt: skip
        deadline = time.monotonic() + 60
        while sum(process.poll() is None for process in processes) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        said = [process.communicate()[0] for process in processes]
        assert sorted("held\n" in text for text in said) == [False, False, False, True]
        assert list(tmp_path.iterdir()) == []

    @staticmethod
    def leave_heir(folder: Path) -> None:
        """Be killed between two system calls of a takeover."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", fail_with(errno.EIO))
            patch.setattr(Path, "unlink", fail_with(errno.EIO))
            with pytest.raises(OSError, match="Input/output"):
                FolderLock(folder, print)
        assert len(list(folder.glob("lock.heir-*"))) == 1

    @pytest.mark.slow
    def test_heir_of_a_process_that_was_killed_is_watched_together_with_its_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file_of_another_host(tmp_path, pid=7)
        self.leave_heir(tmp_path)
        watched: list[Path] = []
        watch = folder_lock._watched
        monkeypatch.setattr(
            folder_lock,
            "_watched",
            lambda path, *rest: (watched.append(path), watch(path, *rest))[1],
        )
        said: list[str] = []
        with FolderLock(tmp_path, said.append):
            assert watched == [tmp_path / "lock.held"]
            assert [path.name for path in tmp_path.iterdir()] == ["lock.held"]
        assert said == [
            f"{tmp_path}: process 7 on far has locked it; watching for 1 s whether it still runs",
            f"{tmp_path}: process 7 on far, which had locked it, has shown no sign of life for 1 "
            "s; taking it over",
        ]

    def test_heir_of_a_killed_process_of_this_host_is_watched_under_its_own_name(
        self, tmp_path: Path
    ) -> None:
        with another_process(tmp_path) as process:
            process.kill()
        self.leave_heir(tmp_path)
        said: list[str] = []
        with FolderLock(tmp_path, said.append):
            assert [path.name for path in tmp_path.iterdir()] == ["lock.held"]
        assert said[0].startswith(f"{tmp_path}: process {os.getpid()} on ")
        assert said[1].startswith(f"{tmp_path}: process {process.pid} on ")
        assert said[1].endswith("has ended without releasing it; taking it over")
        assert len(said) == 2

    def test_heir_that_is_no_plain_file_is_named(self, tmp_path: Path) -> None:
        file_of_another_host(tmp_path)
        self.leave_heir(tmp_path)
        (heir,) = tmp_path.glob("lock.heir-*")
        heir.unlink()
        heir.symlink_to("nowhere")
        with pytest.raises(UserError) as caught:
            FolderLock(tmp_path, print)
        assert str(caught.value).startswith(f"{heir}: not a plain file, ")

    def test_failing_takeover_leaves_nothing_of_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        others = file_of_another_host(tmp_path).read_bytes()
        monkeypatch.setattr(os, "replace", fail_with(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            FolderLock(tmp_path, print)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [others]

    def test_full_disk_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder_lock, "_encoded", fail_with(errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            FolderLock(tmp_path, print)
        assert list(tmp_path.iterdir()) == []
