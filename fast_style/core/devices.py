"""The device and the precision to compute in, and torch's settings for them.

torch is imported inside the functions, because parsing a command line must not wait for it.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from fast_style.core.errors import UserError, printable

if TYPE_CHECKING:
    import torch

_WORDS_OF_NO_MEMORY = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "could not create a primitive",
    "error return without exception set",
    "without setting an exception",
    "start new thread",
)


def resolve_device(device: "str | torch.device", *, argument: str = "--device ") -> "torch.device":
    """The device that ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` means on this machine.

    ``auto`` is a CUDA GPU if there is one, else ``mps`` if there is one, else the CPU.

    Args:
        device: its name, or the device itself.
        argument: what stands before the name where the user gave it, for messages.

    Raises:
        UserError: this machine has no such device; the message lists those it has.
    """
    import torch

    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    kind, _, index = name.partition(":")
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    devices += ["mps"] if _has_mps() else []
    if index == "0" and kind in devices:  # as tensors name theirs: mps:0
        name = kind
    is_present = name in devices or (name == "cuda" and "cuda:0" in devices)
    if not is_present:
        is_name = kind in ("cpu", "cuda", "mps") and (not index or index.isdigit())
        problem = "not on this machine" if is_name else "not the name of a device"
        raise UserError(
            f"{argument}{printable(name)}: {problem}; choose one of auto, {', '.join(devices)}"
        )
    return torch.device(name)


def _has_mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch or Python means that memory ran out.

    Nothing is imported here: where memory ran out, an import fails, too.
    """
    # torch has an error type for GPUs. On a CPU it raises RuntimeError, which only words identify;
    # so does oneDNN, and Python itself where it could not even make a MemoryError.
    of_a_gpu = getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)
    return isinstance(error, (MemoryError, of_a_gpu)) or any(
        part in str(error) for part in _WORDS_OF_NO_MEMORY
    )


def resolve_precision(precision: str, device: "torch.device") -> "torch.dtype | None":
    """The dtype that autocast uses, or None for float32 throughout.

    Args:
        precision: the setting ``train.precision``: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
            ``auto`` is bfloat16 on GPUs that compute it natively, else float32: emulated, or on
            most CPUs, bfloat16 is slower than float32.
        device: where training computes.

    Raises:
        UserError: fp16 without a CUDA GPU.
    """
    import torch

    if precision == "fp16":
        if device.type != "cuda":
            raise UserError(
                f"train.precision: fp16 needs a CUDA GPU, but the device is {device}; "
                "set it to bf16 or fp32"
            )
        return torch.float16
    if precision == "bf16":
        return torch.bfloat16
    if precision == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return None


@contextmanager
def without_autocast() -> Iterator[None]:
    """Within the block, torch computes in the dtypes of its tensors, in this thread.

    A notebook may be inside a `torch.autocast` of its own, which rounds to 8 bits of mantissa.
    """
    import torch

    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


class _Float32:
    """float32 as the default dtype of the process, while any thread is within the block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._before: torch.dtype | None = None

    def __enter__(self) -> None:
        import torch

        with self._lock:
            if self._num_inside == 0:
                self._before = torch.get_default_dtype()
            self._num_inside += 1
            torch.set_default_dtype(torch.float32)

    def __exit__(self, *unused: object) -> None:
        import torch

        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0 and self._before is not None:
                torch.set_default_dtype(self._before)


_FLOAT32 = _Float32()


@contextmanager
def ordinary_torch() -> Iterator[None]:
    """Within the block, torch's defaults are its own; afterwards they are again the caller's.

    New tensors are float32 and on the CPU, gradients are recorded, and autocast is off. A notebook
    may have called `torch.set_default_dtype`, `torch.set_default_device` or
    `torch.set_grad_enabled`, or be inside a `torch.autocast`. The default dtype belongs to the
    whole process: other threads see float32 while the block lasts. So what may run in many threads,
    such as `Stylizer`, names its dtypes instead.
    """
    import torch

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(without_autocast())
        if torch.get_default_device().type != "cpu":  # it slows every call of torch a little
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_FLOAT32)
        yield


@contextmanager
def restored_torch() -> Iterator[None]:
    """Afterwards, what `set_up_torch` sets is as it was before the block.

    So is torch's random state on the CPU; on GPUs, nothing here changes it.
    """
    import torch

    threads = torch.get_num_threads()
    benchmark = torch.backends.cudnn.benchmark
    convolutions = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    products = torch.backends.cuda.matmul.fp32_precision
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cudnn.conv.fp32_precision = convolutions  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = products
        torch.use_deterministic_algorithms(is_deterministic, warn_only=only_warns)


def set_up_torch(device: "torch.device", *, threads: int | None, deterministic: bool) -> None:
    """Set torch's number of threads, its precision on GPUs and whether it is deterministic.

    Args:
        device: where training computes.
        threads: number of CPU threads; None keeps torch's own choice.
        deterministic: use only operations that give the same bits in every run.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        # TF32 (10 bits of mantissa) makes convolutions several times as fast. Matrix products are
        # Gram matrices, whose differences need the 23 bits of float32.
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it
    torch.use_deterministic_algorithms(deterministic)
