"""Processes that start without importing the caller's script."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

# Held while the script is hidden: two threads would put back each other's empty module.
_hiding = threading.Lock()


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - multiprocessing's name
        with _hidden_main():
            process = SpawnProcess._Popen(process_obj)
        # A child may ignore SIGTERM, which a service manager sends to the whole group. At its end
        # Python terminates the children and waits for them: without this, for ever.
        process.terminate = process.kill  # type: ignore[method-assign]
        return process


class ScriptlessSpawn(SpawnContext):
    """multiprocessing's ``spawn``, but a child does not import the script of its parent.

    And it is killed where it would be terminated, whatever signals it ignores.

    ``spawn`` imports it for the functions that it may define. Ours are all in this package. A
    script without ``if __name__ == "__main__":`` would be run again by every child, and would fail
    there.
    """

    Process = _Process


def end_with_parent() -> None:
    """Let this child process end when its parent has ended, by SIGKILL too, or has already."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Within the block, an empty module takes the place of the script, which a child would import.

    `multiprocessing.spawn.get_preparation_data` looks at it, and offers no other way. The block
    lasts while a process is started: 2 to 70 ms on a busy machine with two cores.
    """
    with _hiding:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
