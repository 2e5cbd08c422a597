"""What a notebook may have set in torch before it uses the library."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

# These touch the same lines as the first.
_SLOW = ("bfloat16", "meta", "no gradients", "inference mode")
OTHER_DEFAULTS = [
    "float64",
    "autocast",
    *(pytest.param(name, marks=pytest.mark.slow) for name in _SLOW),
]


@contextmanager
def other_defaults(name: str) -> Iterator[None]:
    """Within the block, torch has another default dtype, device or grad mode, or autocast."""
    before = torch.get_default_dtype()
    try:
        if name in ("float64", "bfloat16"):
            torch.set_default_dtype(getattr(torch, name))
            yield
        elif name == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                yield
        elif name == "meta":
            with torch.device("meta"):
                yield
        else:
            with torch.no_grad() if name == "no gradients" else torch.inference_mode():
                yield
    finally:
        torch.set_default_dtype(before)
