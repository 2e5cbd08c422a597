"""Which device to compute on, in which precision, and torch's settings for it.

torch is imported when a function is called: who only parses a command line does not wait for it.
"""

import os
from typing import TYPE_CHECKING

from fast_style.core.errors import UserError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> "torch.device":
    """The device that ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` means on this machine.

    Raises:
        UserError: there is no such device; says which there are.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    kind, _, index = name.partition(":")
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    there += ["mps"] if _has_mps() else []
    is_there = name in there or (name == "cuda" and "cuda:0" in there)
    if not is_there:
        known = kind in ("cpu", "cuda", "mps") and (not index or index.isdigit())
        problem = "is not on this machine" if known else "is no device"
        raise UserError(f"--device {name}: {problem}; here are: auto, {', '.join(there)}")
    return torch.device(name)


def _has_mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch or Python says that memory was not enough."""
    import torch

    # torch has a type for it on GPUs; on a CPU it is any RuntimeError, told by its words.
    words = ("allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        part in str(error) for part in words
    )


def resolve_precision(precision: str, device: "torch.device") -> "torch.dtype | None":
    """The dtype that autocast uses, or None for float32 throughout.

    ``auto`` takes bfloat16 only where a GPU computes it natively: emulated, or on most CPUs, it is
    slower than float32.

    Raises:
        UserError: half precision is asked for where there is no CUDA.
    """
    import torch

    if precision == "fp16":
        if device.type != "cuda":
            raise UserError(
                f"train.precision: fp16 is for CUDA GPUs, and this is {device}; say bf16 or fp32"
            )
        return torch.float16
    if precision == "bf16":
        return torch.bfloat16
    if precision == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return None


def set_up_torch(device: "torch.device", *, threads: int | None, deterministic: bool) -> None:
    """Set torch's number of threads, its precision of products and its determinism.

    Args:
        device: where training will compute.
        threads: of the CPU; None leaves torch's own number.
        deterministic: take only operations that give the same bits each time.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        # Convolutions are several times as fast with 10 bits of mantissa. The only products of
        # matrices are Gram matrices, whose differences need all 23.
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(deterministic)
