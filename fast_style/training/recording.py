"""CUDA graphs: the kernels of a step on a GPU, recorded once and then replayed as a whole.

A training step is about a thousand kernels. To start them one by one takes a CPU as long as a large
GPU takes to compute twenty photos of 256 pixels; with smaller batches, the GPU is idle most of the
time.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from fast_style.core.errors import UserError, shortened

# Calls before a recording, in which libraries choose their kernels and allocate memory.
_NUM_WARM_UPS = 3

Results = TypeVar("Results")


class Recorded(Generic[Results]):
    """`compute`, recorded for full batches of one shape, and for each shape of the other inputs.

    Every call overwrites the results of the call before. A full batch of another shape replaces
    the recordings. A batch with fewer photos is computed without a recording.

    Args:
        compute: what to record, from photos and other tensors to tensors; it leaves gradients at
            the weights. Its kernels must not depend on the values of its inputs.
        parameters: where it leaves gradients.
        batch_size: photos of a full batch.
    """

    def __init__(
        self,
        compute: Callable[..., Results],
        parameters: Iterable[nn.Parameter],
        *,
        batch_size: int,
    ) -> None:
        self.compute = compute
        self.parameters = list(parameters)
        self.batch_size = batch_size
        self.shape: torch.Size | None = None
        self.replays: dict[tuple[torch.Size, ...], Callable[..., Results]] = {}

    def __call__(self, photos: Tensor, *others: Tensor) -> Results:
        """The results of `compute`.

        Args:
            photos: (N, 3, S, S) in [0, 1], on the device.
            others: its other inputs, on the device.

        Raises:
            UserError: `compute` cannot be recorded.
        """
        if len(photos) != self.batch_size:
            return self.compute(photos, *others)
        if photos.shape != self.shape:
            self.replays.clear()  # frees the memory of the old recordings
            self.shape = photos.shape
        inputs = (photos, *others)
        shapes = tuple(each.shape for each in inputs)
        if shapes not in self.replays:
            self.replays[shapes] = record(self.compute, inputs, self.parameters)
        return self.replays[shapes](*inputs)


def record(
    compute: Callable[..., Results], inputs: Sequence[Tensor], parameters: list[nn.Parameter]
) -> Callable[..., Results]:
    """A function that replays the kernels of `compute`, for inputs of these shapes.

    Raises:
        UserError: `compute` cannot be recorded.
    """
    given = [each.clone() for each in inputs]  # keeps the memory format
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(side):
            for _ in range(_NUM_WARM_UPS):
                compute(*given)
        torch.cuda.current_stream().wait_stream(side)
        # Record only this thread: others load photos meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = compute(*given)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = shortened(" ".join(str(error).partition("\n")[0].split()))
        raise UserError(
            f"train.cuda_graph: a step cannot be recorded here ({reason}); set "
            "train.cuda_graph=false",
            exit_code=1,
        ) from None
    gradients = [parameter.grad for parameter in parameters]

    def replay(*inputs: Tensor) -> Results:
        for place, each in zip(given, inputs, strict=True):
            place.copy_(each)
        graph.replay()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return results

    return replay
