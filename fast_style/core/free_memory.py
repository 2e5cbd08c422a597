"""How much memory this process may still allocate, and how it returns freed memory to the system.

Asks the operating system, the control groups that containers and batch systems set up, and CUDA.
torch is imported only for a GPU. Free space on disks is `files.free_bytes`.
"""

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.core.devices import is_out_of_memory
from fast_style.core.errors import printable

try:  # loaded now: where memory has run out, no module can be loaded
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import torch

# What the loader of glibc says where there is no room for a library in the process's memory.
_UNMAPPED = ("failed to map segment", "cannot map zero-fill pages")

_PACKAGE = os.path.join(Path(__file__).parents[1], "")


def available_bytes(device: "torch.device", *, root: Path = Path("/")) -> int | None:
    """Bytes that this process may still allocate on a device; None if the system reports none.

    On CUDA: free memory plus the freed memory in torch's cache. Elsewhere (``mps`` shares the main
    memory): the least of the memory that the system has available and each control group allows.

    Args:
        device: where to allocate.
        root: the folder that holds ``proc`` and ``sys``; another one only for tests.
    """
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    limits = [
        _available_in_system(root),
        *_available_in_control_groups(root),
        _left_of_address_space(root),
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def limit_remedy() -> str:
    """The words that end a remedy where ``ulimit -v`` limits this process; else nothing."""
    if _address_space_limit() is None:
        return ""
    return ", or raise the limit of memory: ulimit -v unlimited"


def require_room(num_bytes: int) -> None:
    """Check that ``ulimit -v`` leaves this many bytes, for code that would wait for them for ever.

    Raises:
        MemoryError: it leaves less.
    """
    left = _left_of_address_space(Path("/"))
    if left is not None and left < num_bytes:
        raise MemoryError(f"{num_bytes} bytes are needed, and the limit of memory leaves {left}")


def reason_not_loaded(error: Exception) -> str:
    """Why a library could not be loaded, if that was for lack of memory; else empty.

    Under ``ulimit -v``, whatever fails while a library is imported counts: libraries pass over the
    import that found no room, as ``torch._dynamo.utils`` and torchvision do, and fail later, with
    any error. A module that was looked for and is not there is missing all the same.
    """
    lines = str(error).splitlines()
    told = [line for line in lines if any(part in line for part in _UNMAPPED)]  # numpy adds advice
    if not told and isinstance(error, OSError) and error.errno == errno.ENOMEM:
        told = lines  # Python found no room to read a module
    if not told and _address_space_limit() is not None:
        is_missing = isinstance(error, ModuleNotFoundError)
        if not is_missing and (isinstance(error, ImportError) or _is_of_an_import(error)):
            told = [line for line in lines if line.strip()] or [type(error).__name__]
    return printable(told[0]) if told else ""


def _is_of_an_import(error: Exception) -> bool:
    """Whether an error was raised while a module of another package was imported."""
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if code.co_name == "<module>" and not code.co_filename.startswith(_PACKAGE):
            return True
        step = step.tb_next
    return False


def ran_out_of_memory(error: Exception, path: Path) -> bool:
    """Whether the contents of a file could not be read because memory ran out.

    A damaged file may claim an array of any size, whose allocation fails with the same errors. The
    two differ in whether there is room for a whole file of this size.

    Args:
        error: what reading raised; not yet handled, so that what was read still takes its room.
        path: the file.
    """
    # Where memory is short, Python's own functions may fail without an error being set.
    if not (isinstance(error, SystemError) or is_out_of_memory(error)):
        return False
    # Reading takes up to 3 times the file's size: its bytes, its arrays, and these as float64. With
    # the margin, what the heap has free is not taken for room to map files.
    needed = 4 * path.stat().st_size + (64 << 20)
    try:
        mmap.mmap(-1, needed).close()
    except (OSError, ValueError, OverflowError):
        return True
    return False


def return_freed_memory() -> None:
    """Return main memory that this process has freed, but still holds, to the system (glibc only).

    The commands keep freed memory (`cli.allocator`), so the second of two equal photos could seem
    too large. Counting the kept memory as available would be wrong, because it is fragmented: a
    series of photos from 300 to 700 pixels took 1.4 times as much as the largest one alone.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is not None and hasattr(library, "malloc_trim"):  # glibc
        library.malloc_trim(0)


def _available_in_system(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):
        pass
    try:  # macOS reports only the total memory; that is better than no limit
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _address_space_limit() -> int | None:
    """The limit of ``ulimit -v`` in bytes; None without one."""
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def _left_of_address_space(root: Path) -> int | None:
    """Bytes that the limit of ``ulimit -v`` leaves this process; None without one (Linux only)."""
    limit = _address_space_limit()
    if limit is None:
        return None
    try:
        pages = int((root / "proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))


def _available_in_control_groups(root: Path) -> Iterator[int]:
    """Bytes left in each control group (version 2 or 1) of this process that has a limit.

    /proc/meminfo does not include these limits.
    """
    groups = root / "sys/fs/cgroup"
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, group = membership.split(":", 2)
        if controllers == "":
            base, limit, usage = groups, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, usage = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = base / group.lstrip("/")
        # In a container, folders of outer groups do not exist: its own group is the root.
        for folder in (own, *own.parents):
            if folder.is_relative_to(base) and folder.is_dir():
                yield from _left_in(folder, limit, usage)


def _left_in(group: Path, limit: str, usage: str) -> Iterator[int]:
    """The group's limit minus its use; yields nothing without a limit that can be read."""
    try:
        most = (group / limit).read_text().strip()
        if most == "max":
            return
        used = int((group / usage).read_text())
        statistics = (group / "memory.stat").read_text().split()
        # Cached files count as used, but the kernel drops them when memory is needed.
        cached = int(statistics[statistics.index("inactive_file") + 1])
        yield max(0, int(most) - used + cached)
    except (OSError, ValueError):
        return
