"""CUDA graphs: the kernels of a step on a GPU, recorded once and then replayed as a whole.

A training step is about a thousand kernels. To start them one by one takes a CPU as long as a large
GPU takes to compute twenty photos of 256 pixels; with smaller batches, the GPU is idle most of the
time.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from fast_style.core.errors import UserError, shortened
from fast_style.losses.perceptual import LossTerms

# Calls before a recording, in which libraries choose their kernels and allocate memory.
_NUM_WARM_UPS = 3

Gradients = Callable[[Tensor], tuple[Tensor, LossTerms]]
"""From photos to stylized photos and loss terms; leaves gradients at the weights."""


class Recorded:
    """`compute`, recorded for full batches of one shape.

    Every call overwrites the results of the call before. A full batch of another shape replaces
    the recording. A batch with fewer photos is computed without a recording.

    Args:
        compute: what to record; its kernels must not depend on the values of the photos.
        parameters: where it leaves gradients.
        batch_size: photos of a full batch.
    """

    def __init__(
        self, compute: Gradients, parameters: Iterable[nn.Parameter], *, batch_size: int
    ) -> None:
        self.compute = compute
        self.parameters = list(parameters)
        self.batch_size = batch_size
        self.shape: torch.Size | None = None
        self.replay: Gradients = compute

    def __call__(self, photos: Tensor) -> tuple[Tensor, LossTerms]:
        """The results of `compute`.

        Args:
            photos: (N, 3, S, S) in [0, 1], on the device.

        Raises:
            UserError: `compute` cannot be recorded.
        """
        if len(photos) != self.batch_size:
            return self.compute(photos)
        if photos.shape != self.shape:
            self.replay = self.compute  # frees the memory of the old recording
            self.replay = record(self.compute, photos, self.parameters)
            self.shape = photos.shape
        return self.replay(photos)


def record(compute: Gradients, photos: Tensor, parameters: list[nn.Parameter]) -> Gradients:
    """A function that replays the kernels of `compute`, for photos of this shape.

    Raises:
        UserError: `compute` cannot be recorded.
    """
    given = photos.clone()  # keeps the memory format
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(side):
            for _ in range(_NUM_WARM_UPS):
                compute(given)
        torch.cuda.current_stream().wait_stream(side)
        # Record only this thread: others load photos meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = compute(given)
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

    def replay(photos: Tensor) -> tuple[Tensor, LossTerms]:
        given.copy_(photos)
        graph.replay()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return results

    return replay
