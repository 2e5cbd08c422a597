"""Claims about `fast_transform`: the same as the plain network, and its parts alone."""

from collections.abc import Callable
from copy import deepcopy
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fast_style.networks import fast_transform
from fast_style.networks.fast_transform import (
    FastTransform,
    convolve_column_by_column,
    convolve_in_phases,
    convolve_padded,
    convolve_row_by_row,
    moments,
    norm_relu_,
    phase_kernels,
    weight_gradient,
    with_border,
)
from fast_style.networks.transform_net import (
    Convolution,
    InstanceNorm,
    ResizeConvolution,
    TransformNet,
    channel_statistics,
    instance_norm,
)

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
each_format = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)


@pytest.fixture(params=["AVX2", "AVX512", "GPU", "many channels"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each takes other ways to the same; what is done on a GPU is done here on the CPU."""
    kind: str = request.param
    if kind == "GPU":
        monkeypatch.setattr(fast_transform, "_is_on_gpu", lambda features: True)
    elif kind == "many channels":
        request.getfixturevalue("winograd_everywhere")
    else:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kind)
    return kind


each_processor = pytest.mark.usefixtures("processor")


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_transform, "_PIECE", 500)  # several per picture, the last one smaller


def make_net(**settings: object) -> TransformNet:
    """A small network whose norms have no special values, as after training."""
    torch.manual_seed(0)
    net = TransformNet(**{"width": 4, "residual_blocks": 2} | settings)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, InstanceNorm):
                module.weight.uniform_(-1.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return net


def make_photos(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def gradients(module: torch.nn.Module, net: TransformNet, photos: Tensor) -> list[Tensor]:
    """Of something that every pixel has a different share in: at the photos, then the weights."""
    photos = photos.clone().requires_grad_()
    output = module(photos)
    pull = make_photos(*output.shape).flip(0, 1).to(output.dtype)
    return list(torch.autograd.grad((output * pull).sum(), [photos, *net.parameters()]))


# --- The whole network --------------------------------------------------------------------------


@pytest.mark.parametrize("processor", ["AVX2", "GPU", "many channels"], indirect=True)
@each_format
@pytest.mark.parametrize("count", [1, 3])
@each_processor
def test_fast_network_draws_the_same_picture_at_all_sizes(
    memory_format: torch.memory_format, count: int
) -> None:
    net = make_net(width=2, residual_blocks=1).to(memory_format=memory_format)
    fast = FastTransform(net)
    with torch.no_grad():
        for side in range(1, 71):
            for shape in ((count, 3, side, side), (count, 3, side, 71 - side)):
                photos = make_photos(*shape).contiguous(memory_format=memory_format)
                torch.testing.assert_close(fast(photos), net(photos), rtol=0, atol=1e-4)


@each_processor
@each_format
@pytest.mark.parametrize("upsampling", ["resize", "transposed"])
@pytest.mark.parametrize(("count", "height", "width"), [(1, 16, 16), (3, 35, 30), (1, 5, 18)])
def test_fast_network_has_the_same_gradients(
    memory_format: torch.memory_format, upsampling: str, count: int, height: int, width: int
) -> None:
    # In float64, where nothing but rounding of 1e-16 can differ.
    net = make_net(upsampling=upsampling).double().to(memory_format=memory_format)
    photos = make_photos(count, 3, height, width).double().contiguous(memory_format=memory_format)
    expected = gradients(net, net, photos)
    for ours, theirs in zip(gradients(FastTransform(net), net, photos), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@each_processor
def test_fast_network_has_the_same_gradients_in_single_precision() -> None:
    net = make_net().to(memory_format=torch.channels_last)
    photos = make_photos(2, 3, 24, 20).contiguous(memory_format=torch.channels_last)
    expected = gradients(net, net, photos)
    for ours, theirs in zip(gradients(FastTransform(net), net, photos), expected, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-4


@each_processor
@pytest.mark.parametrize("with_gradient", [False, True])
def test_photo_of_one_color_gets_no_pattern(with_gradient: bool) -> None:
    # Each of its norms magnifies three hundred times what rounding does to pixels that are equal.
    # At its borders, some of that is in torch's own convolutions.
    net = make_net(width=8, residual_blocks=5).to(memory_format=torch.channels_last)
    photo = torch.tensor([0.2, 0.5, 0.7]).view(1, 3, 1, 1).expand(1, 3, 48, 80)
    with torch.set_grad_enabled(with_gradient):
        picture = FastTransform(net)(photo.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(picture, picture[..., :1, :1].expand_as(picture), rtol=0, atol=0.01)


@each_processor
def test_fast_network_runs_under_autocast() -> None:
    net = make_net(width=8).to(memory_format=torch.channels_last)
    photos = make_photos(1, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, result = net(photos), FastTransform(net)(photos)
        assert all(
            torch.isfinite(pull).all() for pull in gradients(FastTransform(net), net, photos)
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


# --- Norm and ReLU ------------------------------------------------------------------------------


@each_format
def test_moments_are_the_channel_statistics(memory_format: torch.memory_format) -> None:
    features = make_photos(2, 3, 41, 17).contiguous(memory_format=memory_format)
    for ours, theirs in zip(moments(features), channel_statistics(features), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_moments_of_a_large_mean_keep_the_variance() -> None:
    # As the difference of two means of squares it would be anything from 0 to 16.
    features = 10_000 + torch.tensor([-1.0, 1.0]).repeat(32, 16)[None, None]
    mean, variance = moments(features)
    assert mean.item() == 10_000
    assert variance.item() == 1


@pytest.mark.parametrize("relu", [True, False])
def test_norm_overwrites_its_argument_only_without_gradient(relu: bool) -> None:
    norm, features = InstanceNorm(3), make_photos(1, 3, 9, 9)
    expected = instance_norm(features, norm.weight, norm.bias).detach()
    expected = expected.relu() if relu else expected
    kept = features.clone()
    result = norm_relu_(kept, norm, relu=relu)
    assert torch.equal(kept, features)
    torch.testing.assert_close(result.detach(), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        result = norm_relu_(kept, norm, relu=relu)
    assert result.data_ptr() == kept.data_ptr()
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_norm_of_a_part_with_the_wholes_statistics_is_part_of_the_wholes_result() -> None:
    norm, features = InstanceNorm(3), make_photos(1, 3, 12, 10)
    statistics, part = moments(features), features[..., 2:7, 3:9].clone()
    with torch.no_grad():
        given = norm_relu_(part, norm, statistics=statistics)
        whole = norm_relu_(features, norm)
    torch.testing.assert_close(given, whole[..., 2:7, 3:9], rtol=0, atol=1e-6)


def test_norm_with_a_scale_of_zero_has_a_gradient() -> None:
    norm, features = InstanceNorm(2), make_photos(1, 2, 6, 6).requires_grad_()
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.fill_(1)
    pulls = torch.autograd.grad(norm_relu_(features, norm).square().sum(), [features, norm.weight])
    assert pulls[0].abs().max() == 0
    assert torch.isfinite(pulls[1]).all()


# --- Convolutions -------------------------------------------------------------------------------


def test_phases_of_a_kernel_of_ones_count_how_often_an_old_pixel_is_seen() -> None:
    phases = phase_kernels(torch.ones(1, 1, 3, 3))
    assert phases[:, 0].tolist() == [
        [[1, 2], [2, 4]],
        [[2, 1], [4, 2]],
        [[2, 4], [1, 2]],
        [[4, 2], [2, 1]],
    ]


@each_format
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 8), (1, 3)])
def test_phases_are_nearest_neighbour_and_a_convolution(
    memory_format: torch.memory_format, height: int, width: int
) -> None:
    torch.manual_seed(0)
    plain = ResizeConvolution(3, 2).double()
    features = make_photos(2, 3, height, width).double().contiguous(memory_format=memory_format)
    padded = F.pad(features, (1, 1, 1, 1), mode="replicate")
    result = convolve_in_phases(padded, plain.conv.conv.weight)
    torch.testing.assert_close(result, plain(features), rtol=0, atol=1e-12)
    assert result.is_contiguous(memory_format=memory_format)


@each_format
def test_row_by_row_is_a_convolution_with_bias(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain = Convolution(4, 3, 9, bias=True).double()
    features = make_photos(2, 4, 11, 14).double().contiguous(memory_format=memory_format)
    padded = F.pad(features, (4, 4, 4, 4), mode="reflect")
    result = convolve_row_by_row(padded, plain.conv)
    torch.testing.assert_close(result, plain(features), rtol=0, atol=1e-12)


@each_processor
@each_format
def test_column_by_column_is_a_convolution(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain = Convolution(3, 5, 9).double()
    pictures = make_photos(2, 3, 11, 14).double().contiguous(memory_format=memory_format)
    padded = F.pad(pictures, (4, 4, 4, 4), mode="reflect")
    result = convolve_column_by_column(padded, plain.conv.weight)
    torch.testing.assert_close(result, plain(pictures), rtol=0, atol=1e-12)


@each_processor
@each_format
@pytest.mark.parametrize(("padding", "mode"), [(4, "reflect"), (1, "reflect"), (1, "replicate")])
def test_border_is_that_of_torch_and_keeps_the_format(
    memory_format: torch.memory_format, padding: int, mode: Literal["reflect", "replicate"]
) -> None:
    features = make_photos(2, 3, 5, 7).double().contiguous(memory_format=memory_format)
    result = require_torchs_border(with_border, features, padding, mode)
    assert result.is_contiguous(memory_format=memory_format)


@each_format
@pytest.mark.parametrize(("padding", "mode"), [(4, "reflect"), (1, "reflect"), (1, "replicate")])
def test_compiled_border_is_that_of_torch_too(
    memory_format: torch.memory_format, padding: int, mode: Literal["reflect", "replicate"]
) -> None:
    # Traced, with what torch makes of it: the border has another way there.
    compiled = torch.compile(with_border, backend="aot_eager", fullgraph=True, dynamic=False)
    features = make_photos(2, 3, 5, 7).double().contiguous(memory_format=memory_format)
    require_torchs_border(compiled, features, padding, mode)


@pytest.mark.parametrize("padding", [1, 2])
@pytest.mark.parametrize("height", [3, 4, 5, 6])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_border_of_small_pictures_is_that_of_torch(
    height: int, padding: int, on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_transform, "_is_on_gpu", lambda features: on_gpu)
    require_torchs_border(with_border, make_photos(1, 2, height, 3).double(), padding, "reflect")


def require_torchs_border(
    border: Callable[..., Tensor],
    features: Tensor,
    padding: int,
    mode: Literal["reflect", "replicate"],
) -> Tensor:
    """The features with the border, after a look at values and gradients."""
    features.requires_grad_()
    expected = F.pad(features, (padding,) * 4, mode=mode)
    result = border(features, padding, mode=mode)
    assert torch.equal(result, expected)
    pull = make_photos(*expected.shape).double()
    (ours,) = torch.autograd.grad(result, features, pull)
    (theirs,) = torch.autograd.grad(expected, features, pull)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    return result


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_of_half_precision_loses_nothing_but_in_its_gradients(stride: int) -> None:
    padded, kernel = make_photos(2, 4, 12, 12).bfloat16(), make_photos(3, 4, 1, 9)
    padded.requires_grad_()
    kernel.requires_grad_()
    expected = F.conv2d(padded.float(), kernel, stride=stride)
    result = convolve_padded(padded, kernel, stride=stride)
    assert torch.equal(result, expected)
    pull = make_photos(*result.shape)
    ours = torch.autograd.grad(result, [padded, kernel], pull)
    theirs = torch.autograd.grad(expected, [padded, kernel], pull)
    for own, known in zip(ours, theirs, strict=True):
        assert own.dtype == known.dtype
        assert (own - known).norm() < 0.01 * known.norm()  # 8 bits of each number


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(3, 3), (2, 2), (1, 9)])
@pytest.mark.parametrize("sides", [(9, 9), (10, 13)])
def test_weight_gradient_is_that_of_the_convolution(
    stride: int, size: tuple[int, int], sides: tuple[int, int]
) -> None:
    padded = make_photos(2, 5, *sides).double().contiguous(memory_format=torch.channels_last)
    kernel = make_photos(4, 5, *size).double().requires_grad_()
    output = F.conv2d(padded, kernel, stride=stride)
    pull = make_photos(*output.shape).double().contiguous(memory_format=torch.channels_last)
    (expected,) = torch.autograd.grad(output, kernel, pull)
    result = weight_gradient(padded, pull, kernel.shape, stride=stride)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("capability", "is_own"), [("DEFAULT", True), ("AVX2", True), ("AVX512", False)]
)
def test_weight_gradients_are_our_own_without_avx512(
    capability: str, is_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    padded = make_photos(1, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    output = convolve_padded(padded, make_photos(2, 4, 3, 3).requires_grad_())
    assert (type(output.grad_fn).__name__ == "_ConvolutionBackward") == is_own


def test_copies_of_the_fast_network_are_independent() -> None:
    fast = FastTransform(make_net())
    other = deepcopy(fast)
    with torch.no_grad():
        other.net.to_rgb.conv.bias.add_(1)
    assert not torch.equal(fast.net.to_rgb.conv.bias, other.net.to_rgb.conv.bias)
