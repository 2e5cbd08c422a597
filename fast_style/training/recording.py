"""A step's kernels on a GPU, recorded once and from then on started all together.

A training step is about a thousand kernels. Starting them one by one takes a processor as long as a
large GPU takes for twenty photos of 256 pixels; with fewer in a batch, the GPU waits most of the
time. A recording (a CUDA graph) is started as a whole.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from fast_style.core.errors import UserError, shortened
from fast_style.losses.perceptual import LossTerms

# Of the same computation before it is recorded: libraries choose their kernels, and take memory.
_REHEARSALS = 3

Gradients = Callable[[Tensor], tuple[Tensor, LossTerms]]
"""Photos to the stylized ones and the loss terms; leaves gradients at the weights."""


class Recorded:
    """The same as `compute`, recorded for batches of one size.

    What it gives lies where the next call's results will lie. A batch of another size than the
    first one's is recorded anew, in the place of the old one; a smaller number of photos, as when
    some were unreadable, is computed without a recording.

    Args:
        compute: what to record; decides nothing by the values that it sees.
        parameters: where it leaves gradients.
        batch_size: photos of a whole batch.
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
        """(N, 3, S, S) in [0, 1], on the device.

        Raises:
            UserError: it cannot be recorded.
        """
        if len(photos) != self.batch_size:
            return self.compute(photos)
        if photos.shape != self.shape:
            self.replay = self.compute  # gives the old one's memory back
            self.replay = record(self.compute, photos, self.parameters)
            self.shape = photos.shape
        return self.replay(photos)


def record(compute: Gradients, photos: Tensor, parameters: list[nn.Parameter]) -> Gradients:
    """What starts the kernels of `compute` once more, for photos of the same shape.

    Raises:
        UserError: it cannot be recorded.
    """
    given = photos.clone()  # it keeps channels_last
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(side):
            for _ in range(_REHEARSALS):
                compute(given)
        torch.cuda.current_stream().wait_stream(side)
        # What other threads do meanwhile, as those that load photos, is not recorded.
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
