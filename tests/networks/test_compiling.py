"""Compiling on request: the whole network or an error, and no result that differs silently."""

import math

import pytest
import torch
from torch import Tensor

from fast_style.core.errors import UserError
from fast_style.networks.compiling import CompileRequest, compile_whole

REQUEST = CompileRequest("train.compile", "set train.compile=false")


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_result_within_rounding_passes(factor: float) -> None:
    REQUEST.require_same(factor * torch.ones(4), torch.ones(4), "gradient", most=0.5)


@pytest.mark.parametrize("plain", [torch.zeros(4), torch.full((4,), math.inf)])
def test_result_without_a_size_to_compare_with_passes(plain: Tensor) -> None:
    REQUEST.require_same(torch.ones(4), plain, "gradient", most=0.5)


@pytest.mark.parametrize(
    ("compiled", "found"),
    [(torch.zeros(4), "100%"), (-torch.ones(4), "200%"), (torch.full((4,), math.nan), "nan%")],
    ids=["zeros", "negative", "nan"],
)
def test_result_beyond_rounding_is_an_error(compiled: Tensor, found: str) -> None:
    with pytest.raises(UserError) as caught:
        REQUEST.require_same(compiled, torch.ones(4), "gradient", most=0.5)
    assert str(caught.value) == (
        f"train.compile: the compiled network's gradient differs by {found} from the eager "
        f"one's, so torch {torch.__version__} compiles it wrongly here; set train.compile=false"
    )


def test_function_that_torch_cannot_compile_as_a_whole_is_an_error() -> None:
    def broken(numbers: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return numbers + 1

    with pytest.raises(UserError) as caught, REQUEST.mistakes():
        compile_whole(broken)(torch.ones(2))
    message = str(caught.value)
    assert message.startswith("train.compile: torch cannot compile here (")
    assert message.endswith("on a GPU also Triton, or set train.compile=false")


def test_other_errors_pass_through_unchanged() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes$"), REQUEST.mistakes():
        raise RuntimeError("shapes")


@pytest.mark.parametrize("option", ["disable", "suppress_errors"])
def test_environment_that_turns_compiling_off_is_an_error(option: str) -> None:
    import torch._dynamo

    with (
        torch._dynamo.config.patch({option: True}),
        pytest.raises(UserError) as caught,
        REQUEST.mistakes(),
    ):
        raise AssertionError("is not reached")
    assert str(caught.value) == (
        "train.compile: TORCH_COMPILE_DISABLE or TORCHDYNAMO_SUPPRESS_ERRORS in the environment "
        "tells torch to continue without compiling; unset it, or set train.compile=false"
    )
