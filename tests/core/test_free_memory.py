"""Claims about `free_memory`: the lowest limit counts, and freed memory goes back."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fast_style.core import free_memory
from fast_style.core.free_memory import available_bytes, ran_out_of_memory, return_freed_memory

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with 4000 kB of available memory, and a process in no control group."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    return tmp_path


def write_group(root: Path, group: str, *, limit: str, usage: int = 700, version: int = 2) -> None:
    folder = root / "sys/fs/cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    names = "memory.max memory.current" if version == 2 else None
    limit_name, usage_name = (names or "memory.limit_in_bytes memory.usage_in_bytes").split()
    (folder / limit_name).write_text(limit)
    (folder / usage_name).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")


def test_what_the_system_calls_available_is_available(root: Path) -> None:
    assert available_bytes(CPU, root=root) == 4000 * 1024


def test_this_system_has_some_memory_left() -> None:
    available = available_bytes(CPU)
    assert available is None or available > 10_000_000


def test_limit_of_a_control_group_counts_with_cached_files_as_free(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/job/step\n")
    write_group(root, "job/step", limit="1000\n")
    assert available_bytes(CPU, root=root) == 450  # 1000 - 700 + 150


@pytest.mark.parametrize(("outer", "expected"), [("900\n", 350), ("2000\n", 450)])
def test_limits_of_outer_control_groups_count_too(root: Path, outer: str, expected: int) -> None:
    (root / "proc/self/cgroup").write_text("0::/job/step\n")
    write_group(root, "job/step", limit="1000\n")
    write_group(root, "job", limit=outer)
    assert available_bytes(CPU, root=root) == expected


def test_group_that_a_container_does_not_show_is_its_root(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/outside/of/the/container\n")
    write_group(root, ".", limit="1000\n")
    assert available_bytes(CPU, root=root) == 450


def test_version_1_has_a_folder_and_names_of_its_own(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("5:cpu,cpuacct:/job\n4:memory:/job\n")
    write_group(root, "memory/job", limit="1000\n", version=1)
    assert available_bytes(CPU, root=root) == 450


def test_a_group_over_its_limit_leaves_nothing(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/\n")
    write_group(root, ".", limit="300\n")
    assert available_bytes(CPU, root=root) == 0


@pytest.mark.parametrize("limit", ["max\n", "", "unreadable"])
def test_control_group_without_a_limit_leaves_the_systems(root: Path, limit: str) -> None:
    (root / "proc/self/cgroup").write_text("0::/\n")
    write_group(root, ".", limit=limit)
    assert available_bytes(CPU, root=root) == 4000 * 1024


@pytest.mark.parametrize(("limit", "expected"), [(1_000_000, 1_000_000 - 7 * 4096), (9000, 0)])
def test_what_a_limit_of_the_address_space_leaves_is_available(
    root: Path, monkeypatch: pytest.MonkeyPatch, limit: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 4096)
    monkeypatch.setattr(free_memory, "_address_space_limit", lambda: limit)
    (root / "proc/self/statm").write_text("7 3 1 1 0 2 0\n")
    assert available_bytes(CPU, root=root) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells no use of address space")
def test_limit_of_the_address_space_is_that_of_the_shell() -> None:
    code = (
        "from fast_style.core.free_memory import limit_remedy, require_room\n"
        "require_room(1 << 20)\n"
        "print(limit_remedy())\n"
        "try:\n    require_room(1 << 40)\nexcept MemoryError:\n    print('no room')\n"
    )
    for limit, expected in (("unlimited", "\n"), ("4000000", "ulimit -v unlimited\nno room\n")):
        shell = f"ulimit -v {limit}; exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
        result = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
        assert result.stdout.endswith(expected)


def test_free_and_cached_memory_of_a_gpu_are_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert available_bytes(torch.device("cuda")) == 1300


def test_giving_back_freed_memory_keeps_what_is_in_use() -> None:
    tensor = torch.arange(100_000)
    return_freed_memory()
    assert torch.equal(tensor, torch.arange(100_000))


def refuse_room(*_: object) -> None:
    raise OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        SystemError("<built-in function exec> returned NULL without setting an exception"),
        RuntimeError("unable to mmap 9 bytes from file <w.pth>: Cannot allocate memory (12)"),
    ],
)
def test_memory_ran_out_where_a_file_of_that_size_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"claims to be huge")
    assert not ran_out_of_memory(error, file)
    monkeypatch.setattr(free_memory.mmap, "mmap", refuse_room)
    assert ran_out_of_memory(error, file)
    assert not ran_out_of_memory(ValueError("damaged"), file)
