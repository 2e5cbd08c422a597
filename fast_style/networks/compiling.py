"""torch.compile where a user asks for it: the whole network, with checked results, or an error."""

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
    """`function` compiled as one graph at its first call.

    Args:
        function: a module or a function.
        any_size: compile one graph for pictures of all sizes, instead of a faster one for each.
    """
    # Without fullgraph, torch silently runs eagerly what it cannot compile.
    return cast("F", torch.compile(function, fullgraph=True, dynamic=any_size))


class CompileRequest(NamedTuple):
    """The option by which a user asked for compiling, as error messages name it.

    Attributes:
        name: such as ``train.compile``.
        remedy: how to turn it off, such as ``set train.compile=false``.
    """

    name: str
    remedy: str

    @contextmanager
    def mistakes(self) -> Iterator[None]:
        """Within the block, report why torch cannot compile.

        Raises:
            UserError: there is no compiler, it does not support something, or the environment
                turns it off.
        """
        import torch._dynamo  # its errors have no public name
        from torch._dynamo.exc import TorchDynamoException

        if torch._dynamo.config.disable or torch._dynamo.config.suppress_errors:
            raise UserError(
                f"{self.name}: TORCH_COMPILE_DISABLE or TORCHDYNAMO_SUPPRESS_ERRORS in the "
                f"environment tells torch to continue without compiling; unset it, or {self.remedy}"
            )
        torch.compiler.reset()  # graphs of an earlier run in this process count against a limit
        try:
            with warnings.catch_warnings():
                # torch itself reads .grad of every tensor that a compiled function gets.
                warnings.filterwarnings(
                    "ignore", message="The .grad attribute of a Tensor that is not"
                )
                yield
        except RuntimeError as error:
            # On a Python that it does not know, torch raises a plain RuntimeError.
            is_unsupported = str(error).startswith("torch.compile is not supported")
            if not (is_unsupported or isinstance(error, TorchDynamoException)):
                raise
            reason = shortened(" ".join(str(error).partition("\n\n")[0].split()))
            raise UserError(
                f"{self.name}: torch cannot compile here ({reason}). Install a C++ compiler, on a "
                f"GPU also Triton, or {self.remedy}"
            ) from None

    def require_same(self, compiled: Tensor, eager: Tensor, what: str, *, most: float) -> None:
        """Check a compiled result against the eager one. torch 2.11 compiled gradients to zero.

        Nothing is checked if `eager` is zero or not finite. Gradients in half precision are, while
        the loss scale is still too large; the training step handles that.

        Args:
            compiled: the compiled result.
            eager: the same computed without torch.compile.
            what: its name in the message, such as ``gradient``.
            most: the largest relative difference, ||compiled - eager|| / ||eager||, that rounding
                explains.

        Raises:
            UserError: the relative difference is larger.
        """
        if not 0 < float(eager.norm()) < math.inf:
            return
        difference = float((compiled - eager).norm() / eager.norm())
        if not difference < most:
            raise UserError(
                f"{self.name}: the compiled network's {what} differs by {difference:.0%} from the "
                f"eager one's, so torch {torch.__version__} compiles it wrongly here; {self.remedy}"
            )
