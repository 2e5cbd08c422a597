"""Claims about `workers`: how data workers end, and what is told of them."""

import errno
import gc
import multiprocessing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from small_run import write_photos

from fast_style.core.errors import UserError
from fast_style.core.spawning import ScriptlessSpawn
from fast_style.pictures.folders import find_photos
from fast_style.training.data import Crops, StepSampler, load_batches, stream_photos
from fast_style.training.workers import no_more_photos


@pytest.fixture
def crops(tmp_path: Path) -> Crops:
    photos = find_photos(write_photos(tmp_path / "photos"), validation_count=3)
    return Crops(photos, seed=1, size=16, scale=(0.5, 1.0), flip=True)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread")],
)
def test_workers_that_were_started_end_if_the_next_cannot_be(
    error: Exception, crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[BaseProcess] = []
    start = ScriptlessSpawn.Process.start

    def start_one(process: BaseProcess) -> None:
        if started:
            raise error
        start(process)
        started.append(process)

    monkeypatch.setattr(ScriptlessSpawn.Process, "start", start_one)
    with pytest.raises(UserError, match=r"data\.workers=0.*ulimit -n") as caught:
        load_batches(crops, StepSampler(0, 8, 3), workers=3, pin_memory=False)
    assert str(error.args[-1]) in str(caught.value)
    assert caught.value.exit_code == 1
    (worker,) = started
    worker.join(20)
    assert worker.exitcode is not None
    del caught
    gc.collect()  # an error of a destructor would be a warning, which fails the test
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("error", "found", "remedy"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "too many open files", "ulimit -n"),
        (
            RuntimeError("Too many open files. Communication with the workers is no longer"),
            "too many open files",
            "ulimit -n",
        ),
        (RuntimeError("received 0 items of ancdata"), "too many open files", "ulimit -n"),
        (RuntimeError("DataLoader timed out after 300 s"), "timed out", "--shm-size"),
        (EOFError(), "EOFError", "--shm-size"),
        (ConnectionResetError(104, "Connection reset by peer"), "reset by peer", "--shm-size"),
    ],
)
def test_workers_that_send_nothing_any_more_are_an_error_with_its_remedy(
    error: Exception, found: str, remedy: str, crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(k: int, attempt: int = 0) -> None:
        raise error

    monkeypatch.setattr(crops, "photo_of", fail)
    stream = stream_photos(
        crops, StepSampler(0, 1, 1), lambda batch: None, workers=0, pin_memory=False
    )
    with pytest.raises(UserError) as caught:
        next(stream)
    for part in (found, remedy, "data.workers=0", "resumes from the last checkpoint"):
        assert part in str(caught.value)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), RuntimeError("shape mismatch")])
def test_mistakes_of_the_program_stay_what_they_are(error: Exception) -> None:
    assert no_more_photos(error) is None
