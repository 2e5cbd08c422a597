"""torch.compile for those who ask for it: all of it or an error, and never a silent mistake."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from fast_style.core.errors import UserError, shortened

F = TypeVar("F", bound=Callable[..., Any])


def compile_whole(function: F, *, any_size: bool = False) -> F:
    """A module or a function compiled as one graph, when it is first called.

    Args:
        function: what to compile.
        any_size: one graph for pictures of all sizes, rather than a faster one for each.
    """
    # By default torch would run as it stands what it cannot compile, and say nothing.
    return cast("F", torch.compile(function, fullgraph=True, dynamic=any_size))


class CompileRequest(NamedTuple):
    """Who asked for compiling, in the words of messages.

    Attributes:
        name: such as ``train.compile``.
        remedy: how to do without, such as ``set train.compile=false``.
    """

    name: str
    remedy: str

    @contextmanager
    def mistakes(self) -> Iterator[None]:
        """Inside, what keeps torch from compiling is told to the user.

        Raises:
            UserError: no compiler, or something that it does not support.
        """
        import torch._dynamo  # has no public name for its errors
        from torch._dynamo.exc import TorchDynamoException

        if torch._dynamo.config.disable or torch._dynamo.config.suppress_errors:
            raise UserError(
                f"{self.name}: TORCH_COMPILE_DISABLE or TORCHDYNAMO_SUPPRESS_ERRORS in the "
                f"environment tells torch to go on without compiling; unset it, or {self.remedy}"
            )
        torch.compiler.reset()  # what an earlier run here has compiled counts against a limit
        try:
            with warnings.catch_warnings():
                # torch itself looks at the .grad of every tensor that a compiled function gets.
                warnings.filterwarnings(
                    "ignore", message="The .grad attribute of a Tensor that is not"
                )
                yield
        except RuntimeError as error:
            # torch says the one where it knows nothing of this Python.
            is_unsupported = str(error).startswith("torch.compile is not supported")
            if not (is_unsupported or isinstance(error, TorchDynamoException)):
                raise
            reason = shortened(" ".join(str(error).partition("\n\n")[0].split()))
            raise UserError(
                f"{self.name}: torch cannot compile here ({reason}). Install a C++ compiler, on a "
                f"GPU also Triton, or {self.remedy}"
            ) from None

    def require_same(self, compiled: Tensor, plain: Tensor, what: str, *, most: float) -> None:
        """A compiler's mistakes may be silent: torch 2.11 made gradients of zero from right code.

        Args:
            compiled: the result to be judged.
            plain: what it should be.
            what: its name in the message, such as ``gradient``.
            most: the norm of the difference that rounding explains, as a share of that of `plain`.

        Raises:
            UserError: they differ by more.
        """
        if not 0 < float(plain.norm()) < math.inf:
            return  # half precision's first scale may be too large; the training step sees to that
        difference = float((compiled - plain).norm() / plain.norm())
        if not difference < most:
            raise UserError(
                f"{self.name}: the compiled network's {what} is {difference:.0%} off the plain "
                f"one's, so torch {torch.__version__} compiles it wrongly here; {self.remedy}"
            )
