"""What a run says, and that saying it can never stop the run."""

import errno
import io
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import wait_for_next_second
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from fast_style.training.run_log import RunLog, photo_and_result_sheet

HEADER = "step,images,loss/total,lr\n"


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)


def open_log(folder: Path, start_step: int = 0) -> RunLog:
    return RunLog(folder, columns=["loss/total", "lr"], start_step=start_step, num_steps=100)


def log_steps(folder: Path, *steps: int, start_step: int = 0, offset: float = 0.0) -> None:
    log = open_log(folder, start_step)
    for step in steps:
        values = {"loss/total": step + offset, "lr": 0.1}
        log.scalars(step, step * 2, values, untabled={"time/images_per_s": 3.0})
    log.close()


def table_of(folder: Path) -> str:
    return (folder / "metrics.csv").read_bytes().decode()


def points_of(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


# --- metrics.csv --------------------------------------------------------------------------------


def test_table_has_a_row_per_step_and_leaves_blank_what_is_not_known(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.scalars(1, 4, {"loss/total": 0.1}, untabled={"time/images_per_s": 9.0})
    log.scalars(2, 8, {"lr": 1 / 3, "loss/total": 2.0}, untabled={})
    log.close()
    assert table_of(tmp_path) == HEADER + "1,4,0.1,\n2,8,2.0,0.3333333333333333\n"


def test_resumed_table_keeps_rows_up_to_its_step(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 2, 3, 4)
    log_steps(tmp_path, 3, start_step=2)
    assert table_of(tmp_path) == HEADER + "1,2,1.0,0.1\n2,4,2.0,0.1\n3,6,3.0,0.1\n"


def test_table_that_is_removed_meanwhile_begins_with_the_names_of_its_columns(
    tmp_path: Path,
) -> None:
    log = RunLog(tmp_path, columns=["loss/total", "lr"], start_step=0, num_steps=4)
    (tmp_path / "metrics.csv").unlink()
    log.scalars(3, 6, {"loss/total": 3.0, "lr": 0.1}, untabled={})
    log.close()
    assert table_of(tmp_path) == HEADER + "3,6,3.0,0.1\n"


def test_resumed_table_of_other_columns_keeps_the_numbers_under_their_names(tmp_path: Path) -> None:
    # An older version may have written fewer columns, or in another order.
    (tmp_path / "metrics.csv").write_text("step,lr,gone,images\n1,0.1,7,2\n2,0.2,,4\n3,0.3,7,6\n")
    log_steps(tmp_path, 3, start_step=2)
    assert table_of(tmp_path) == HEADER + "1,2,,0.1\n2,4,,0.2\n3,6,3.0,0.1\n"


def test_table_that_somebody_changed_is_kept_beside_the_resumed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_steps(tmp_path, 1, 2)
    changed = table_of(tmp_path).replace(",", ";")  # as spreadsheets of some countries save it
    (tmp_path / "metrics.csv").write_text(changed)
    log_steps(tmp_path, 3, start_step=2)
    assert (tmp_path / "metrics-2.csv").read_text() == changed
    assert "kept as metrics-2.csv" in capsys.readouterr().out


def test_table_of_a_killed_process_is_cut_back_without_a_copy(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 2, 3, 4)
    with (tmp_path / "metrics.csv").open("ab") as file:
        file.write(b"5,1")
    log_steps(tmp_path, 3, start_step=2)
    assert not (tmp_path / "metrics-2.csv").exists()


@pytest.mark.parametrize("header", ["", "\n", "\0\0\0\0,lr\n"])
def test_rows_below_a_damaged_header_are_dropped(tmp_path: Path, header: str) -> None:
    (tmp_path / "metrics.csv").write_text(header + "1,2,1.0,0.1\n2,4,2.0,0.1\n")
    open_log(tmp_path, start_step=5).close()
    assert table_of(tmp_path) == HEADER


def test_what_somebody_added_below_the_rows_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_steps(tmp_path, 1, 2, 3)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("# notes of a day\n")
    changed = table_of(tmp_path)
    log_steps(tmp_path, 3, start_step=2)
    assert (tmp_path / "metrics-2.csv").read_text() == changed
    assert "kept as metrics-2.csv" in capsys.readouterr().out


def test_table_of_a_run_that_begins_anew_is_kept_beside_an_empty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_steps(tmp_path, 1, 2)
    before = table_of(tmp_path)
    open_log(tmp_path).close()
    assert table_of(tmp_path) == HEADER
    assert (tmp_path / "metrics-2.csv").read_text() == before
    assert "kept as metrics-2.csv" in capsys.readouterr().out
    open_log(tmp_path).close()  # no row is in it
    assert not (tmp_path / "metrics-3.csv").exists()


@pytest.mark.parametrize(
    "torn", [b"2,4,2.", b"2", b"\n\n", b"\0\0\0\0", b"\xff\xfe,1,2,3\n", b'2,"']
)
def test_torn_rows_are_dropped(tmp_path: Path, torn: bytes) -> None:
    log_steps(tmp_path, 1)
    with (tmp_path / "metrics.csv").open("ab") as file:
        file.write(torn)
    open_log(tmp_path, start_step=5).close()
    assert table_of(tmp_path) == HEADER + "1,2,1.0,0.1\n"


def test_table_that_cannot_be_written_warns_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(tmp_path)
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "metrics.csv").mkdir()
    for step in (1, 2):
        log.scalars(step, step, {"lr": 1.0}, untabled={})
    log.close()
    warnings = capsys.readouterr().out.splitlines()
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: metrics.csv cannot be written any more (")
    assert warnings[0].endswith("); training continues without it")
    assert points_of(tmp_path, "lr") == [(1, 1.0), (2, 1.0)]


# --- TensorBoard --------------------------------------------------------------------------------


def test_tensorboard_has_tabled_and_untabled_numbers(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 2)
    assert points_of(tmp_path, "loss/total") == [(1, 1.0), (2, 2.0)]
    assert points_of(tmp_path, "time/images_per_s") == [(1, 3.0), (2, 3.0)]


@pytest.mark.slow
@pytest.mark.parametrize("start_step", [0, 2])
def test_resumed_curves_have_no_doubled_points(tmp_path: Path, start_step: int) -> None:
    log_steps(tmp_path, 0, 1, 2, 3, 4)
    wait_for_next_second()
    again = range(start_step + 1 if start_step else 0, 4)
    log_steps(tmp_path, *again, start_step=start_step, offset=0.5)
    expected = [(step, step + 0.5 * (step in again)) for step in range(4)]
    assert points_of(tmp_path, "loss/total") == expected


class FailingWriter:
    """TensorBoard's writer on a full disk."""

    def __init__(self, *unused: object, **also_unused: object) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        def fail(*unused: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        return fail


def test_tensorboard_that_fails_warns_once_and_the_table_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", FailingWriter)
    log = open_log(tmp_path)
    log.text("settings", "a: 1")
    log.picture("samples", 0, Image.new("RGB", (4, 4)))
    log.scalars(1, 1, {"lr": 1.0}, untabled={})
    log.close()
    assert capsys.readouterr().out == (
        "warning: TensorBoard cannot be written any more ([Errno 28] No space left on device); "
        "training continues without it\n"
    )
    assert table_of(tmp_path) == HEADER + "1,1,,1.0\n"


def test_full_disk_under_tensorboards_thread_is_told_once_and_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*unused: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    untouched = threading.excepthook
    log = open_log(tmp_path)
    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", fail)
    log.scalars(1, 1, {"lr": 1.0}, untabled={})
    log.scalars(2, 2, {"lr": 1.0}, untabled={})
    log.close()
    out, error = capfd.readouterr()
    assert out.count("warning: TensorBoard cannot be written any more ([Errno 28] ") == 1
    assert error == ""
    assert threading.excepthook == untouched


def test_errors_of_other_threads_are_told_as_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda how: told.append(how.exc_value))
    log = open_log(tmp_path)
    error = OSError("of another thread")

    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    log.close()
    assert told == [error]


def test_tensorboard_that_cannot_be_opened_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*unused: object, **also_unused: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", fail)
    log = open_log(tmp_path)
    log.scalars(1, 1, {"lr": 1.0}, untabled={})
    log.close()
    assert capsys.readouterr().out.count("warning: TensorBoard cannot be written any more") == 1


# --- The console --------------------------------------------------------------------------------


class BrokenStdout(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error
        self.attempts = 0

    def write(self, text: str) -> int:
        self.attempts += 1
        raise self.error


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "gone")]
)
def test_console_that_is_gone_silences_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    log = open_log(tmp_path)
    stdout = BrokenStdout(error)
    monkeypatch.setattr(sys, "stdout", stdout)
    log.say("one")
    log.warn("two")
    log.status(1, loss=1.0, images_per_s=1.0, seconds_left=1.0)
    log.close()
    assert stdout.attempts == 1


def test_console_that_knows_no_accents_gets_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    log = open_log(tmp_path)
    monkeypatch.setattr(sys, "stdout", stdout)
    log.say("é和.jpg")
    log.close()
    stdout.flush()
    assert stdout.buffer.getvalue() == b"\\xe9\\u548c.jpg\n"  # type: ignore[attr-defined]


def test_lines_go_to_the_callers_function(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    log = RunLog(tmp_path, columns=["lr"], start_step=0, num_steps=100, say=said.append)
    log.say("one é")
    log.warn("two")
    log.status(20, loss=1.23456, images_per_s=7.89, seconds_left=3723)
    log.close()
    assert said == [
        "one é",
        "warning: two",
        "step 20/100  loss 1.2346  7.9 images/s  1:02:03 left",
    ]
    assert capsys.readouterr() == ("", "")


def test_callers_function_that_fails_silences_the_log_and_not_stdout(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        raise OSError(errno.ENOSPC, "full")

    log = RunLog(tmp_path, columns=["lr"], start_step=0, num_steps=100, say=say)
    log.say("one")
    log.say("two")
    log.close()
    print("still there", flush=True)
    assert said == ["one"]
    assert capfd.readouterr().out == "still there\n"


def test_status_is_a_line_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(tmp_path)
    log.status(20, loss=1.23456, images_per_s=7.89, seconds_left=3723)
    log.close()
    assert capsys.readouterr().out == "step 20/100  loss 1.2346  7.9 images/s  1:02:03 left\n"


def set_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    # Not a fixture: pytest sets its own stderr between a test's fixtures and the test.
    stderr = io.StringIO()
    stderr.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stderr)
    return stderr


def test_status_is_in_the_bar_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = set_terminal(monkeypatch)
    log = open_log(tmp_path, start_step=10)
    log.progress(11)
    log.status(11, loss=1.5, images_per_s=7.89, seconds_left=1)
    log.close()
    assert "11/100" in terminal.getvalue()
    assert "loss 1.5000, 7.9 images/s" in terminal.getvalue()
    assert "step 11" not in capsys.readouterr().out


def test_terminal_that_is_gone_silences_the_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = set_terminal(monkeypatch)
    log = open_log(tmp_path)

    def fail(text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    terminal.write = fail  # type: ignore[method-assign]
    log.status(1, loss=1.0, images_per_s=1.0, seconds_left=1.0)
    for step in range(2, 50):
        log.progress(step)
    log.close()


# --- The sample sheet ---------------------------------------------------------------------------


def test_sheet_shows_photos_above_results_with_white_between() -> None:
    photos = torch.zeros(3, 3, 10, 10)
    results = torch.full((3, 3, 10, 10), 0.2)
    sheet = np.asarray(photo_and_result_sheet(photos, results))
    assert sheet.shape == (10 + 4 + 10, 3 * (10 + 4), 3)
    assert (sheet[:10, :10] == 0).all()
    assert (sheet[10:14] == 255).all()
    assert (sheet[14:, 28:38] == 51).all()
    assert (sheet[:, 10:14] == 255).all()


def test_events_lie_in_the_run_folder_itself(tmp_path: Path) -> None:
    # A folder of its own for pictures or hyper-parameters would show as a second run.
    log_steps(tmp_path, 1)
    found = [path for path in tmp_path.rglob("events.out.tfevents.*")]
    assert [path.parent for path in found] == [tmp_path]
    assert os.path.getsize(found[0]) > 0


@pytest.mark.parametrize("set_back_s", [0, 1, 120, 86_400])
def test_resumed_run_is_shown_whole_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_back_s: int
) -> None:
    now = time.time()
    for number in range(3):  # a resumed run that is resumed
        clock = SimpleNamespace(time=lambda number=number: now - number * set_back_s)
        monkeypatch.setattr(event_file_writer, "time", clock)
        # Within a second, process numbers decide, which need not grow.
        monkeypatch.setattr(os, "getpid", lambda number=number: 9 - number)
        log_steps(tmp_path, 2 * number + 1, 2 * number + 2, start_step=2 * number)
        assert event_file_writer.time is clock
    assert [step for step, _ in points_of(tmp_path, "loss/total")] == [1, 2, 3, 4, 5, 6]
    names = sorted(path.name for path in tmp_path.glob("events.out.tfevents.*"))
    seconds = [int(name.split(".")[3]) for name in names]
    assert seconds == [int(now), int(now) + 1, int(now) + 2]


# --- Other processes ----------------------------------------------------------------------------


def test_silent_log_says_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(tmp_path, columns=["lr"], start_step=0, num_steps=9, is_silent=True)
    log.scalars(1, 4, {"lr": 0.1}, untabled={})
    log.picture("style", 0, Image.new("RGB", (4, 4)))
    log.text("settings", "a: 1")
    log.progress(1)
    log.status(1, loss=1.0, images_per_s=2.0, seconds_left=3.0)
    log.warn("something")
    log.close()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_program_without_a_console_logs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as under pythonw
    monkeypatch.setattr(sys, "stderr", None)
    log = open_log(tmp_path)
    log.scalars(1, 2, {"loss/total": 1.0, "lr": 0.1}, untabled={})
    log.progress(1)
    log.status(1, loss=1.0, images_per_s=1.0, seconds_left=1.0)
    log.warn("a line")
    log.close()
    assert table_of(tmp_path) == HEADER + "1,2,1.0,0.1\n"
