"""Let OpenMP's threads sleep soon while they wait, so that other programs get the cores."""

import os

# A thread that waits for the others first spins. On a busy machine, it spins against the very
# thread that it waits for, which has no core. Too short a spin costs an idle machine time, since
# waking a thread takes longer than most waits. benchmarks/busy_machine.py measures both sides.
_SETTINGS = {
    # libgomp, in torch's packages for Linux: turns of a loop, 300,000 by default.
    "GOMP_SPINCOUNT": "20000",
    # libomp for macOS and libiomp5 for Windows, and conda's packages: milliseconds, 200 by default.
    # The least that all versions know besides none at all. Not measured.
    "KMP_BLOCKTIME": "1",
}
# Who has set one of these has decided.
_DECISIONS = ("OMP_WAIT_POLICY", "KMP_LIBRARY", *_SETTINGS)


def let_waiting_threads_sleep() -> None:
    """Set how long OpenMP's threads spin, unless the environment says something about it.

    OpenMP reads it when torch is loaded. Like `allocator.keep_freed_memory`, only commands call
    this.
    """
    if not any(name in os.environ for name in _DECISIONS):
        os.environ.update(_SETTINGS)
