"""How the commands have memory allocated: freed memory is kept, to be used again at once."""

import ctypes
import os
import sys

from fast_style.core.errors import UserError, shortened

VARIABLE = "FAST_STYLE_MALLOC"

# glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_MOST = 2**31 - 1  # the largest int


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, from now on; gives whether it does.

    By default glibc takes every block of 32 MB or more (and at first, of 128 kB or more) from the
    system and gives it back when it is freed. The tensors between the layers of a network are such
    blocks, so the system clears the same pages again and again, which can take as long as the
    arithmetic. What it costs: memory of the largest photo or step stays with the process until it
    ends, and since it lies in pieces, a process can come to hold half as much again as its largest
    photo needs. `stylizer` gives it back before it calls a photo too large.

    Only for commands, whose process is ours alone; a library must not decide this for others. Does
    nothing where the C library is another one (musl, macOS, Windows), and nothing in processes
    that are started by this one, such as data workers that are spawned.

    Raises:
        UserError: the environment variable FAST_STYLE_MALLOC, which switches this off with the
            word ``system``, holds another word.
    """
    word = os.environ.get(VARIABLE, "")
    if word not in ("", "system"):
        raise UserError(
            f"{VARIABLE} in the environment: must be 'system' (memory is given back at once) or "
            f"not set, got {shortened(word)!r}"
        )
    if word == "system" or sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    # No block by mmap; the heap's free end stays, however long it is.
    done = library.mallopt(_M_MMAP_MAX, 0) and library.mallopt(_M_TRIM_THRESHOLD, _MOST)
    return bool(done)
