"""Claims about `fast_transform`: in each execution, the pictures and gradients of the plain net."""

from collections.abc import Sequence
from copy import deepcopy

import pytest
import torch
from small_networks import FORMATS, KINDS, make_net, make_photos
from torch import Tensor

from fast_style.networks import fast_kernels, fast_transform
from fast_style.networks.fast_transform import (
    COMPILED,
    ELSEWHERE,
    ON_CPU,
    ON_CPU_WITHOUT_AVX512,
    ON_GPU,
    Execution,
    FastTransform,
    choose_execution,
)
from fast_style.networks.transform_net import TransformNet

# Kernels for a GPU and for a compiler compute the same on a CPU.
EXECUTIONS = {
    "CPU": ON_CPU,
    "CPU without AVX-512": ON_CPU_WITHOUT_AVX512,
    "CPU, many channels": ON_CPU,
    "GPU": ON_GPU,
    "compiled": COMPILED,
    "elsewhere": ELSEWHERE,
}
each_format = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)


@pytest.fixture(params=EXECUTIONS)
def execution(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Execution:
    if request.param == "CPU, many channels":
        request.getfixturevalue("winograd_everywhere")
    chosen = EXECUTIONS[request.param]
    monkeypatch.setattr(fast_transform, "choose_execution", lambda device: chosen)
    return chosen


each_execution = pytest.mark.usefixtures("execution")


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    # Several per picture, the last one smaller.
    monkeypatch.setattr(fast_kernels, "NUMBERS_PER_PIECE", 500)


def gradients(module: torch.nn.Module, net: TransformNet, photos: Tensor) -> list[Tensor]:
    """Gradients of a sum that weighs every pixel differently: at the photos, then the weights."""
    photos = photos.clone().requires_grad_()
    output = module(photos)
    grad = make_photos(*output.shape).flip(0, 1).to(output.dtype)
    return list(torch.autograd.grad((output * grad).sum(), [photos, *net.parameters()]))


# --- The network --------------------------------------------------------------------------------


@each_execution
@each_format
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "sides",
    [(1, 5, 17, 35), pytest.param(range(1, 71), marks=pytest.mark.slow)],
    ids=["some sides", "all sides"],
)
def test_fast_network_draws_the_same_picture(
    memory_format: torch.memory_format, count: int, sides: Sequence[int]
) -> None:
    # In float64: norms of tiny photos, whose pixels are nearly equal, magnify what rounding does.
    net = make_net().double().to(memory_format=memory_format)
    fast = FastTransform(net)
    with torch.no_grad():
        for side in sides:
            for shape in ((count, 3, side, side), (count, 3, side, 71 - side)):
                photos = make_photos(*shape).double().contiguous(memory_format=memory_format)
                torch.testing.assert_close(fast(photos), net(photos), rtol=0, atol=1e-9)


@each_execution
@each_format
def test_fast_network_draws_the_same_picture_in_single_precision(
    memory_format: torch.memory_format,
) -> None:
    net = make_net(width=4, residual_blocks=2).to(memory_format=memory_format)
    photos = make_photos(2, 3, 33, 46).contiguous(memory_format=memory_format)
    with torch.no_grad():
        torch.testing.assert_close(FastTransform(net)(photos), net(photos), rtol=0, atol=1e-4)


@pytest.mark.slow
@each_execution
@each_format
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "height", "width"), [(1, 16, 16), (3, 35, 30), (1, 5, 18)])
def test_fast_network_has_the_same_gradients(
    memory_format: torch.memory_format, kind: str, count: int, height: int, width: int
) -> None:
    # In float64, where nothing but rounding of 1e-16 can differ.
    net = make_net(width=4, **KINDS[kind]).double().to(memory_format=memory_format)
    photos = make_photos(count, 3, height, width).double().contiguous(memory_format=memory_format)
    expected = gradients(net, net, photos)
    for ours, theirs in zip(gradients(FastTransform(net), net, photos), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@each_execution
def test_fast_network_has_the_same_gradients_in_single_precision() -> None:
    net = make_net(width=4, residual_blocks=2).to(memory_format=torch.channels_last)
    photos = make_photos(2, 3, 24, 20).contiguous(memory_format=torch.channels_last)
    expected = gradients(net, net, photos)
    for ours, theirs in zip(gradients(FastTransform(net), net, photos), expected, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-4


@each_execution
@pytest.mark.parametrize("width", [1, 3])
def test_network_with_as_few_channels_as_a_photo_draws_the_same_picture(width: int) -> None:
    # Its later convolutions have three channels, too, one of them with a stride.
    net, photos = make_net(width=width), make_photos(1, 3, 20, 26)
    with torch.no_grad():
        torch.testing.assert_close(FastTransform(net)(photos), net(photos), rtol=0, atol=1e-4)


@each_execution
@pytest.mark.parametrize("with_gradient", [False, True])
def test_photo_of_one_color_gets_no_pattern(with_gradient: bool) -> None:
    # Each of its norms magnifies three hundred times what rounding does to pixels that are equal.
    # At its borders, some of that is in torch's own convolutions.
    net = make_net(width=8, residual_blocks=5).to(memory_format=torch.channels_last)
    photo = torch.tensor([0.2, 0.5, 0.7]).view(1, 3, 1, 1).expand(1, 3, 48, 80)
    with torch.set_grad_enabled(with_gradient):
        picture = FastTransform(net)(photo.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(picture, picture[..., :1, :1].expand_as(picture), rtol=0, atol=0.01)


@each_execution
def test_fast_network_runs_under_autocast() -> None:
    net = make_net(width=8).to(memory_format=torch.channels_last)
    photos = make_photos(1, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, result = net(photos), FastTransform(net)(photos)
        assert all(
            torch.isfinite(grad).all() for grad in gradients(FastTransform(net), net, photos)
        )
    assert result.dtype == torch.float32
    # bfloat16 keeps 8 bits, and the two round at different places.
    assert (result - expected).abs().mean() < 0.02


def test_fast_network_leaves_the_photos_and_the_weights_names_alone() -> None:
    net, photos = make_net(), make_photos(1, 3, 20, 20)
    before, names = photos.clone(), list(net.state_dict())
    with torch.no_grad():
        FastTransform(net)(photos)
    assert torch.equal(photos, before)
    assert list(net.state_dict()) == names


def test_copies_of_the_fast_network_are_independent() -> None:
    fast = FastTransform(make_net())
    other = deepcopy(fast)
    with torch.no_grad():
        other.net.to_rgb.conv.bias.add_(1)  # type: ignore[union-attr]
    assert not torch.equal(fast.net.to_rgb.conv.bias, other.net.to_rgb.conv.bias)  # type: ignore[arg-type]


# --- The choice of kernels ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [
        ("cpu", "AVX512", ON_CPU),
        ("cpu", "AVX2", ON_CPU_WITHOUT_AVX512),
        ("cpu", "DEFAULT", ON_CPU_WITHOUT_AVX512),
        ("cuda", "AVX2", ON_GPU),
        ("mps", "AVX2", ELSEWHERE),
    ],
)
def test_execution_follows_the_device(
    device: str, capability: str, expected: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert choose_execution(torch.device(device)) is expected


@pytest.mark.slow
def test_compiled_network_is_one_graph_of_the_kernels_for_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("a compiler is to trace neither of them")

    net, photos = make_net(width=1, residual_blocks=0), make_photos(1, 3, 20, 20)
    expected = net(photos)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", fail)
    monkeypatch.setattr(fast_kernels, "moments", fail)
    compiled = torch.compile(FastTransform(net), backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(photos), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("execution", "is_own"), [(ON_CPU_WITHOUT_AVX512, True), (ON_CPU, False)])
def test_weight_gradients_are_matrix_products_without_avx512(
    execution: Execution, is_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    def weight_gradient(padded: Tensor, grad: Tensor, shape: torch.Size, *, stride: int) -> Tensor:
        shapes.append(shape)
        return original(padded, grad, shape, stride=stride)

    original = fast_kernels.weight_gradient
    monkeypatch.setattr(fast_kernels, "weight_gradient", weight_gradient)
    padded = make_photos(1, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    kernel = make_photos(2, 4, 3, 3).requires_grad_()
    execution.convolve(padded, kernel, 1).sum().backward()
    assert shapes == ([kernel.shape] if is_own else [])
