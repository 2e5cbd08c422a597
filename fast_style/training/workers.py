"""torch's data workers, which end together with the training however it ends."""

import errno
from typing import Any, TypeVar

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from fast_style.core.errors import UserError

BatchT = TypeVar("BatchT", covariant=True)

# What of a batch is handed over by an open file, or a socket; torch's and Python's words.
_TOO_MANY_FILES = ("Too many open files", "received 0 items of ancdata")


class WorkersLoader(DataLoader[BatchT]):
    """A `DataLoader` whose workers are ended if they cannot all be started."""

    def _get_iterator(self) -> _BaseDataLoaderIter:
        return _Workers(self) if self.num_workers else super()._get_iterator()


class _Workers(_MultiProcessingDataLoaderIter):
    def __init__(self, loader: DataLoader[Any]) -> None:
        # If torch fails in between, its own end would look in vain for these.
        self._workers = []
        self._index_queues = []
        self._workers_status = [True] * loader.num_workers
        self._worker_pids_set = False
        self._shutdown = True
        try:
            super().__init__(loader)
        except BaseException:
            if not self._worker_pids_set:
                self._shutdown = True  # torch would wait until each has imported what it needs
                for worker in self._workers:
                    worker.kill()
            raise


def no_more_photos(error: Exception) -> UserError | None:
    """The error for the user if no batch comes from the workers any more; None for a mistake.

    Args:
        error: what the iterator of a `WorkersLoader` raised. The end of a worker is raised by
            torch's handler of a signal, so anywhere in a training.
    """
    why = _why_no_batch(error)
    if why is None:
        return None
    reason, remedy = why
    return UserError(
        f"no photos arrive any more: {reason} Try data.workers=0, or {remedy}. The same command "
        "resumes from the last checkpoint",
        exit_code=1,
    )


def _why_no_batch(error: Exception) -> tuple[str, str] | None:
    """The reason, with a remedy."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    is_full = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
    if is_full or reason.startswith(_TOO_MANY_FILES):
        return "too many open files.", "a higher limit of open files (ulimit -n)"
    # A worker killed from outside (memory, mostly), or a storage that does not answer; or one that
    # hung up while it handed a batch over.
    is_ended = isinstance(error, EOFError | ConnectionError)
    if is_ended or (isinstance(error, RuntimeError) and reason.startswith("DataLoader")):
        return reason, "a larger --shm-size of the container"
    return None
