"""Make glibc keep freed memory for reuse, which makes the commands faster on a CPU."""

import ctypes
import os
import sys

from fast_style.core.errors import UserError, shortened

VARIABLE = "FAST_STYLE_MALLOC"

# glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1  # bytes of free memory before the heap is trimmed: the largest int


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory from now on; returns whether it does.

    By default glibc takes every block of 32 MB or more (and at first, of 128 kB or more) from the
    system, and returns it when it is freed. Activations of a network are such blocks. So the system
    clears the same pages again and again, which can take as long as the arithmetic.

    The cost: the process holds the memory of its largest photo or step until it ends. Because that
    memory is fragmented, it can be 1.5 times what the largest photo needs. `stylizing.stylizer`
    returns freed memory to the system before it refuses a photo as too large.

    Only commands call this, since their process is their own; a library must not decide it for its
    users. It has no effect with another C library (musl, macOS, Windows), or in spawned processes
    such as data workers.

    Raises:
        UserError: the environment variable FAST_STYLE_MALLOC has a value other than ``system``,
            which switches this off.
    """
    word = os.environ.get(VARIABLE, "")
    if word not in ("", "system"):
        raise UserError(
            f"{VARIABLE} in the environment: must be 'system' (return freed memory at once) or not "
            f"set, got {shortened(word)!r}"
        )
    if word == "system" or sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    # Allocate nothing by mmap, and never trim the free end of the heap.
    done = library.mallopt(_M_MMAP_MAX, 0) and library.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    return bool(done)
