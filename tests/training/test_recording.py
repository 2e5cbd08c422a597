"""Claims about `recording`: when a step is recorded, and that it stays the same."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from fast_style.core.errors import UserError
from fast_style.losses.perceptual import LossTerms
from fast_style.training import recording
from fast_style.training.recording import Recorded, record


class Brightness:
    """Gradients of the mean of photos, multiplied by a weight; counts how often it is asked."""

    def __init__(self, device: str = "cpu") -> None:
        self.weight = nn.Parameter(torch.tensor(2.0, device=device))
        self.calls: list[int] = []

    def __call__(self, photos: Tensor, *others: Tensor) -> tuple[Tensor, LossTerms]:
        self.calls.append(len(photos))
        self.weight.grad = None
        output = photos * self.weight
        total = output.mean()
        total.backward()
        zero = torch.zeros_like(total)
        return output.detach(), LossTerms(total, total, zero, zero, {}).detached()


@pytest.fixture
def recorded_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stands for a GPU: what would be recorded is called, and its photos' sides are listed."""
    sizes: list[int] = []

    def keep(
        compute: Callable[..., tuple[Tensor, LossTerms]],
        inputs: Sequence[Tensor],
        parameters: object,
    ) -> Callable[..., tuple[Tensor, LossTerms]]:
        sizes.append(inputs[0].shape[-1])
        return lambda *given: compute(*given)

    monkeypatch.setattr(recording, "record", keep)
    return sizes


def test_whole_batches_are_recorded_once_and_again_when_photos_grow(
    recorded_sizes: list[int],
) -> None:
    step = Recorded(brightness := Brightness(), [brightness.weight], batch_size=2)
    for side in (8, 8, 8, 12, 12):
        output, terms = step(torch.full((2, 3, side, side), 0.25))
        assert output.shape[-1] == side
        assert terms.total == pytest.approx(0.5)
        assert float(brightness.weight.grad) == pytest.approx(0.25)
    assert recorded_sizes == [8, 12]


def test_other_inputs_are_recorded_for_each_of_their_shapes(recorded_sizes: list[int]) -> None:
    step = Recorded(brightness := Brightness(), [brightness.weight], batch_size=2)
    photos, change = torch.full((2, 3, 8, 8), 0.25), torch.zeros(1, 8, 8)
    for others in ([], [change], [], [change], [change.repeat(2, 1, 1)], [change]):
        step(photos, *others)
    assert recorded_sizes == [8, 8, 8]
    step(torch.full((2, 3, 12, 12), 0.25))
    assert len(step.replays) == 1  # those of smaller photos are gone


def test_batch_that_lacks_photos_is_computed_without_a_recording(recorded_sizes: list[int]) -> None:
    step = Recorded(brightness := Brightness(), [brightness.weight], batch_size=2)
    for count in (2, 1, 2):
        _, terms = step(torch.full((count, 3, 8, 8), 0.5))
        assert terms.total == pytest.approx(1)
    assert brightness.calls == [2, 1, 2]
    assert recorded_sizes == [8]


@pytest.mark.gpu
def test_recorded_gradients_are_those_of_new_photos_and_new_weights() -> None:
    step = Recorded(brightness := Brightness("cuda"), [brightness.weight], batch_size=2)
    for value in (0.25, 0.5, 0.75):
        _, terms = step(torch.full((2, 3, 8, 8), value, device="cuda"))
        assert terms.total.item() == pytest.approx(2 * value)
        assert brightness.weight.grad is not None
        assert brightness.weight.grad.item() == pytest.approx(value)
    with torch.no_grad():
        brightness.weight.fill_(4)
    _, terms = step(torch.full((2, 3, 8, 8), 0.25, device="cuda"))
    assert terms.total.item() == pytest.approx(1)
    assert len(brightness.calls) == 4  # three times before it was recorded


@pytest.mark.gpu
def test_what_waits_for_the_gpu_cannot_be_recorded() -> None:
    calls: list[float] = []

    def wait(photos: Tensor) -> tuple[Tensor, LossTerms]:
        calls.append(photos.mean().item())
        zero = photos.sum()
        return photos, LossTerms(zero, zero, zero, zero, {})

    with pytest.raises(UserError, match=r"^train\.cuda_graph: a step cannot be recorded here \("):
        record(wait, [torch.zeros(1, device="cuda")], [])
