"""Claims about `devices`: which device and precision are used, and what else is set up."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from other_defaults import OTHER_DEFAULTS, other_defaults

from fast_style.core.devices import (
    is_out_of_memory,
    ordinary_torch,
    resolve_device,
    resolve_precision,
    restored_torch,
    set_up_torch,
)
from fast_style.core.errors import UserError

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def pretend_devices(monkeypatch: pytest.MonkeyPatch, *, num_gpus: int, has_mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)


@pytest.mark.parametrize(
    ("num_gpus", "has_mps", "expected"),
    [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (2, True, "cuda")],
)
def test_auto_prefers_cuda_then_mps(
    monkeypatch: pytest.MonkeyPatch, num_gpus: int, has_mps: bool, expected: str
) -> None:
    pretend_devices(monkeypatch, num_gpus=num_gpus, has_mps=has_mps)
    assert resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1", "mps"])
def test_device_of_this_machine_is_taken_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pretend_devices(monkeypatch, num_gpus=2, has_mps=True)
    assert resolve_device(name) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cpu", "cpu"), ("cpu:0", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("mps:0", "mps")],
)
def test_device_itself_is_taken_as_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    pretend_devices(monkeypatch, num_gpus=2, has_mps=True)
    assert resolve_device(torch.device(name)) == torch.device(expected)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device=gpu: not the name of a device; choose one of auto, cpu, cuda:0"),
        ("a\nb", "device=a\\nb: not the name of a device; choose one of auto, cpu, cuda:0"),
        ("cuda:0:0", "device=cuda:0:0: not the name of a device; choose one of auto, cpu, cuda:0"),
        (torch.device("cuda:1"), "device=cuda:1: not on this machine; choose one of auto, cpu, "
         "cuda:0"),
        (torch.device("meta"), "device=meta: not the name of a device; choose one of auto, cpu, "
         "cuda:0"),
        (None, "device=None: not the name of a device; choose one of auto, cpu, cuda:0"),
    ],
)  # fmt: skip
def test_message_of_a_library_names_its_argument(
    monkeypatch: pytest.MonkeyPatch, device: Any, message: str
) -> None:
    pretend_devices(monkeypatch, num_gpus=1, has_mps=False)
    with pytest.raises(UserError) as caught:
        resolve_device(device, argument="device=")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "num_gpus", "message"),
    [
        ("cuda", 0, "--device cuda: not on this machine; choose one of auto, cpu"),
        ("cuda:3", 2, "--device cuda:3: not on this machine; choose one of auto, cpu, cuda:0, "
         "cuda:1"),
        ("mps", 0, "--device mps: not on this machine; choose one of auto, cpu"),
        ("gpu", 0, "--device gpu: not the name of a device; choose one of auto, cpu"),
        ("", 0, "--device : not the name of a device; choose one of auto, cpu"),
        ("cuda:x", 1, "--device cuda:x: not the name of a device; choose one of auto, cpu, "
         "cuda:0"),
    ],
)  # fmt: skip
def test_message_of_a_missing_device(
    monkeypatch: pytest.MonkeyPatch, name: str, num_gpus: int, message: str
) -> None:
    pretend_devices(monkeypatch, num_gpus=num_gpus, has_mps=False)
    with pytest.raises(UserError) as caught:
        resolve_device(name)
    assert str(caught.value) == message


# --- Memory that runs out -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        # oneDNN's, of a convolution without room; then Python's, and of a thread without a stack.
        (RuntimeError("could not create a primitive"), True),
        (SystemError("error return without exception set"), True),
        (SystemError("<built-in function f> returned NULL without setting an exception"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (SystemError("bad argument to internal function"), False),
    ],
)
def test_errors_of_too_little_memory_are_told_from_others(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_torchs_own_error_on_a_cpu_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)  # 4 PB: more than any address space has
    assert is_out_of_memory(caught.value)


# --- Precision ----------------------------------------------------------------------------------


def test_precision_of_a_cpu_is_full_unless_asked() -> None:
    assert resolve_precision("auto", CPU) is None
    assert resolve_precision("fp32", CPU) is None
    assert resolve_precision("bf16", CPU) is torch.bfloat16


@pytest.mark.parametrize(("is_native", "expected"), [(True, torch.bfloat16), (False, None)])
def test_auto_is_bfloat16_on_gpus_that_compute_it_natively(
    monkeypatch: pytest.MonkeyPatch, is_native: bool, expected: torch.dtype | None
) -> None:
    # A GPU that emulates bfloat16 says that it supports it, unless asked about emulation.
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: is_native or including_emulation,
    )
    assert resolve_precision("auto", CUDA) is expected


def test_half_precision_is_refused_without_cuda() -> None:
    with pytest.raises(UserError) as caught:
        resolve_precision("fp16", CPU)
    assert str(caught.value) == (
        "train.precision: fp16 needs a CUDA GPU, but the device is cpu; set it to bf16 or fp32"
    )
    assert resolve_precision("fp16", CUDA) is torch.float16


# --- torch's settings ---------------------------------------------------------------------------


@pytest.fixture
def settings_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Afterwards, all that `set_up_torch` sets is as it was."""
    convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = convolutions.fp32_precision, products.fp32_precision, torch.backends.cudnn.benchmark
    threads = torch.get_num_threads()
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "is put back")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    convolutions.fp32_precision, products.fp32_precision = before[:2]
    torch.backends.cudnn.benchmark = before[2]
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(is_deterministic)


@pytest.mark.usefixtures("settings_restored")
def test_convolutions_alone_round_on_a_gpu() -> None:
    convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    convolutions.fp32_precision = "ieee"
    set_up_torch(CPU, threads=None, deterministic=False)
    assert convolutions.fp32_precision == "ieee"
    set_up_torch(CUDA, threads=None, deterministic=False)
    assert (convolutions.fp32_precision, products.fp32_precision) == ("tf32", "ieee")


@pytest.mark.usefixtures("settings_restored")
def test_threads_and_determinism_are_set_as_asked() -> None:
    threads = torch.get_num_threads()
    set_up_torch(CUDA, threads=None, deterministic=False)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    set_up_torch(CUDA, threads=threads + 1, deterministic=True)
    assert torch.get_num_threads() == threads + 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark  # it chooses operations by their time, which varies
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.usefixtures("settings_restored")
def test_what_was_set_up_is_put_back_after_an_error_too() -> None:
    convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    convolutions.fp32_precision, products.fp32_precision = "ieee", "tf32"
    set_up_torch(CPU, threads=3, deterministic=True)
    with pytest.raises(ZeroDivisionError), restored_torch():  # noqa: PT012
        set_up_torch(CUDA, threads=2, deterministic=False)
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert (convolutions.fp32_precision, products.fp32_precision) == ("ieee", "tf32")


@pytest.mark.parametrize("name", OTHER_DEFAULTS)
def test_defaults_of_torch_are_its_own_inside_and_the_callers_again_afterwards(name: str) -> None:
    def state() -> tuple[object, ...]:
        product = torch.ones(1, 1) @ torch.ones(1, 1)  # which autocast rounds
        return (product.dtype, product.device.type, torch.is_grad_enabled())

    with other_defaults(name):
        before = state()
        with ordinary_torch():
            assert state() == (torch.float32, "cpu", True)
            assert not torch.ones(()).is_inference()
        assert state() == before != (torch.float32, "cpu", True)


def test_the_callers_dtype_returns_when_the_last_of_several_blocks_ends() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        first, second = ordinary_torch(), ordinary_torch()
        with first:
            second.__enter__()
        assert torch.get_default_dtype() == torch.float32  # as in another thread, which goes on
        second.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)
