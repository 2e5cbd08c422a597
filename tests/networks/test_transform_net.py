"""Claims about `transform_net`, known answers first."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from small_networks import FORMATS, KINDS, make_net, make_photos
from torch import Tensor, nn
from torch.nn import functional as F

from fast_style.networks.transform_net import (
    AnyConvolution,
    Convolution,
    InstanceNorm,
    ResizeConvolution,
    TransformNet,
    TransposedConvolution,
    channel_statistics,
    instance_norm,
)

each_format = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)


# --- The whole network against one written in NumPy ---------------------------------------------


def numpy_convolution(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """x: (C, H, W); kernel: (C', C, k, k). Reflection padding."""
    size = kernel.shape[-1]
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows[:, ::stride, ::stride], kernel)


def numpy_binomial(x: np.ndarray) -> np.ndarray:
    """x: (C, H, W), filtered by (1 2 1) / 4 along both axes. Reflection padding."""
    for axis in (1, 2):
        padded = np.pad(x, [(1, 1) if axis == other else (0, 0) for other in range(3)], "reflect")
        before, behind = (padded.take(range(i, i + x.shape[axis]), axis) for i in (0, 2))
        x = (before + 2 * x + behind) / 4
    return x


def numpy_enlarged(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """x: (C, H, W); kernel: (C', C, 3, 3). Linear between pixels at 2n, then the convolution."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    for axis in (1, 2):
        size = x.shape[axis]
        places = np.arange(0, size - 1 + 0.5, 0.5)
        low, high = np.floor(places).astype(int), np.ceil(places).astype(int)
        x = (x.take(low, axis) + x.take(high, axis)) / 2
    x = x[:, 1:, 1:]  # (C, 2H + 2, 2W + 2), from -1 on
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows, kernel)


def numpy_transposed(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """x: (C, H, W); kernel: (C, C', 3, 3). Input pixel (i, j) stamps its kernel at (2i, 2j)."""
    height, width = x.shape[1:]
    canvas = np.zeros((kernel.shape[1], 2 * height + 2, 2 * width + 2))
    for i in range(height):
        for j in range(width):
            stamp = np.einsum("c,coij->oij", x[:, i, j], kernel)
            canvas[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += stamp
    return canvas[:, 1:-1, 1:-1]


def numpy_transform(net: TransformNet, photo: np.ndarray, *, antialiased: bool) -> np.ndarray:
    """f_W of one photo (3, H, W) in float64, from the names of the saved weights alone."""
    weights = {name: value.double().numpy() for name, value in net.state_dict().items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        mean = x.mean(axis=(1, 2), keepdims=True)
        deviation = np.sqrt(x.var(axis=(1, 2), keepdims=True) + 1e-5)
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return (x - mean) / deviation * scale[:, None, None] + shift[:, None, None]

    height, width = photo.shape[1:]
    below, right = max(0, 16 - height), max(0, 16 - width)
    x = np.pad(photo, ((0, 0), (0, below), (0, right)), mode="edge")
    for number, stride in enumerate((1, 2, 2)):
        if stride == 2 and antialiased:
            x = numpy_binomial(x)
        x = numpy_convolution(x, weights[f"down.{number}.convolution.conv.weight"], stride)
        x = np.maximum(norm(x, f"down.{number}.norm"), 0)
    for number in range(len(net.residual)):
        block = f"residual.{number}"
        y = numpy_convolution(x, weights[f"{block}.first.convolution.conv.weight"])
        y = np.maximum(norm(y, f"{block}.first.norm"), 0)
        y = numpy_convolution(y, weights[f"{block}.second.conv.weight"])
        x = x + norm(y, f"{block}.norm")
    for number in range(2):
        name = f"up.{number}.convolution.conv"
        if f"{name}.weight" in weights:
            x = numpy_transposed(x, weights[f"{name}.weight"])
        elif antialiased:
            x = numpy_enlarged(x, weights[f"{name}.conv.weight"])
        else:
            larger = x.repeat(2, axis=1).repeat(2, axis=2)
            x = numpy_convolution(larger, weights[f"{name}.conv.weight"])
        x = np.maximum(norm(x, f"up.{number}.norm"), 0)
    rgb = numpy_convolution(x, weights["to_rgb.conv.weight"])
    rgb += weights["to_rgb.conv.bias"][:, None, None]
    return (0.5 + net.tanh_scale / 255 * np.tanh(rgb))[:, :height, :width]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 22), (35, 30), (5, 18), (1, 1)])
def test_network_computes_what_numpy_computes(kind: str, height: int, width: int) -> None:
    net = make_net(**KINDS[kind], width=3, residual_blocks=2, tanh_scale=150.0)
    photo = make_photos(1, 3, height, width)
    with torch.inference_mode():
        output = net(photo)[0].numpy()
    pixels = photo[0].double().numpy()
    expected = numpy_transform(net, pixels, antialiased=KINDS[kind]["antialiased"])
    np.testing.assert_allclose(output, expected, atol=1e-4)  # a fortieth of a grey level


def test_default_network_has_the_papers_number_of_parameters() -> None:
    # Convolutions, kernel^2 * in * out, bias in the last one only, since norms have their own:
    down = 81 * 3 * 32 + 9 * 32 * 64 + 9 * 64 * 128
    blocks = 5 * 2 * 9 * 128 * 128
    up = 9 * 128 * 64 + 9 * 64 * 32
    to_rgb = 81 * 32 * 3 + 3
    # A scale and a shift per channel:
    norms = 2 * (32 + 64 + 128 + 64 + 32) + 5 * 2 * 2 * 128
    assert down + blocks + up + to_rgb + norms == 1_677_635
    for kind in KINDS.values():
        net = TransformNet(**kind)
        assert sum(weights.numel() for weights in net.parameters()) == 1_677_635


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_saved_weights_stay(kind: str) -> None:
    # Models that people have trained are found under these names.
    up = "conv.conv" if KINDS[kind]["upsampling"] == "resize" else "conv"
    stages = ["down.0", "down.1", "down.2", "residual.0.first", "up.0", "up.1"]
    names = {f"{stage}.norm.{part}" for stage in stages for part in ("weight", "bias")}
    names |= {f"{stage}.convolution.conv.weight" for stage in stages if not stage.startswith("up")}
    names |= {f"up.{number}.convolution.{up}.weight" for number in (0, 1)}
    names |= {"residual.0.second.conv.weight", "residual.0.norm.weight", "residual.0.norm.bias"}
    names |= {"to_rgb.conv.weight", "to_rgb.conv.bias"}
    assert set(make_net(**KINDS[kind]).state_dict()) == names


# --- Sizes, formats, range ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sides",
    [(1, 2, 15, 16, 17, 18, 19, 34), pytest.param(range(1, 25), marks=pytest.mark.slow)],
    ids=["some sides", "many sides"],
)
def test_result_has_the_size_of_the_photo(kind: str, sides: Sequence[int]) -> None:
    net = make_net(**KINDS[kind], width=1)
    photo = make_photos(1, 3, 64, 64)
    with torch.inference_mode():
        for height in sides:
            for width in sides:
                assert net(photo[..., :height, :width]).shape == (1, 3, height, width)


@pytest.mark.parametrize("kind", KINDS)
@each_format
def test_result_has_the_size_of_a_batch(kind: str, memory_format: torch.memory_format) -> None:
    net = make_net(**KINDS[kind], width=1).to(memory_format=memory_format)
    photos = make_photos(3, 3, 21, 34).contiguous(memory_format=memory_format)
    with torch.inference_mode():
        assert net(photos).shape == (3, 3, 21, 34)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_format_does_not_change_the_result(kind: str) -> None:
    net, photos = make_net(**KINDS[kind]), make_photos(3, 3, 21, 34)
    with torch.inference_mode():
        expected = net(photos)
        net = net.to(memory_format=torch.channels_last)
        result = net(photos.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tanh_scale", [100.0, 127.5, 150.0])
def test_result_spans_half_plus_minus_the_tanh_scale(tanh_scale: float) -> None:
    net = make_net(tanh_scale=tanh_scale)
    with torch.inference_mode():
        net.to_rgb.conv.weight *= 1e4  # saturates the tanh
        output = net(make_photos(1, 3, 32, 32))
    assert output.min().item() == pytest.approx(0.5 - tanh_scale / 255, abs=1e-6)
    assert output.max().item() == pytest.approx(0.5 + tanh_scale / 255, abs=1e-6)


def test_result_of_scale_127_5_never_leaves_the_pixel_range() -> None:
    net = make_net(tanh_scale=127.5)
    with torch.inference_mode():
        net.to_rgb.conv.weight *= 1e4
        output = net(make_photos(1, 3, 32, 32))
    assert (output >= 0).all()
    assert (output <= 1).all()


def test_photos_of_a_batch_do_not_influence_each_other() -> None:
    net, photos = make_net(), make_photos(3, 3, 24, 20)
    photos[1] *= 100
    with torch.inference_mode():
        together = net(photos)
        one_by_one = torch.cat([net(photo[None]) for photo in photos])
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=1e-5)


def test_small_photo_gives_the_corner_of_its_edge_padded_copy() -> None:
    net, photo = make_net(), make_photos(1, 3, 7, 30)
    with torch.inference_mode():
        padded = F.pad(photo, (0, 0, 0, 9), mode="replicate")
        assert torch.equal(net(photo), net(padded)[..., :7, :])


# --- Settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"width": 3},
        {"residual_blocks": 2},
        {"upsampling": "transposed"},
        {"antialiased": False},
        {"tanh_scale": 127.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_changes_the_result(change: dict[str, object]) -> None:
    photo = make_photos(1, 3, 20, 20)
    with torch.inference_mode():
        difference = make_net(**change)(photo) - make_net()(photo)
    assert difference.abs().max() > 0.01


def test_width_scales_the_channels_of_every_stage() -> None:
    net = TransformNet(width=5, residual_blocks=1)
    channels = [stage.norm.weight.numel() for stage in (*net.down, net.residual[0].first, *net.up)]
    assert channels == [5, 10, 20, 20, 10, 5]


def test_network_without_residual_blocks_works() -> None:
    net = make_net(residual_blocks=0)
    assert len(net.residual) == 0
    assert net(make_photos(1, 3, 18, 18)).shape == (1, 3, 18, 18)


def test_residual_block_with_a_silent_branch_is_the_identity() -> None:
    block = make_net().residual[0]
    features = make_photos(2, 8, 6, 6) - 0.5  # negative ones too: no ReLU after the addition
    with torch.inference_mode():
        block.norm.weight.zero_()
        block.norm.bias.zero_()
        assert torch.equal(block(features), features)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    net = make_net(**KINDS[kind])
    # Squares, since a plain sum would be blind to what instance norm subtracts.
    net(make_photos(2, 3, 20, 24)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_autocast_leaves_the_last_layer_in_float32() -> None:
    net = make_net()
    seen: dict[str, torch.dtype] = {}
    net.down[0].convolution.register_forward_hook(
        lambda _module, _inputs, output: seen.update(first=output.dtype)
    )
    net.up[1].register_forward_hook(
        lambda _module, _inputs, output: seen.update(before_last=output.dtype)
    )
    net.to_rgb.register_forward_hook(
        lambda _module, _inputs, output: seen.update(last=output.dtype)
    )
    photo = make_photos(1, 3, 20, 20)
    with torch.inference_mode():
        expected = net(photo)
        with torch.autocast("cpu", torch.bfloat16):
            output = net(photo)
    assert seen == {"first": torch.bfloat16, "before_last": torch.bfloat16, "last": torch.float32}
    assert output.dtype == torch.float32
    assert (output - expected).abs().max() < 0.1
    assert not torch.equal(output, expected)


# --- Instance norm ------------------------------------------------------------------------------


@each_format
def test_instance_norm_is_that_of_torch(memory_format: torch.memory_format) -> None:
    features = (make_photos(2, 3, 5, 7) * 9 - 4).contiguous(memory_format=memory_format)
    weight, bias = torch.tensor([0.5, 1.0, -2.0]), torch.tensor([0.0, -1.0, 3.0])
    grad = make_photos(2, 3, 5, 7, seed=1)
    results = []
    for norm in (instance_norm, F.instance_norm):
        leaves = [tensor.clone().requires_grad_() for tensor in (features, weight, bias)]
        x, w, b = leaves
        output = norm(x, w, b) if norm is instance_norm else norm(x, weight=w, bias=b)
        results.append([output, *torch.autograd.grad((output * grad).sum(), leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_instance_norm_of_constant_features_is_the_bias() -> None:
    features = torch.full((1, 2, 4, 4), 7.0)
    result = instance_norm(features, torch.tensor([1.0, 3.0]), torch.tensor([0.25, -1.0]))
    # 7 * 3 / sqrt(1e-5) = 6641 is added and subtracted, of which float32 keeps 0.0005.
    assert result[0, 0].unique().tolist() == pytest.approx([0.25], abs=1e-3)
    assert result[0, 1].unique().tolist() == pytest.approx([-1.0], abs=1e-3)


def test_channel_statistics_divide_by_the_number_of_pixels() -> None:
    mean, variance = channel_statistics(torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]]))
    assert mean.tolist() == [[[[3.0]]]]
    assert variance.tolist() == [[[[5.0]]]]  # (9 + 1 + 1 + 9) / 4


def test_instance_norm_of_a_part_with_the_wholes_statistics_is_part_of_the_wholes_result() -> None:
    features = make_photos(2, 3, 8, 10)
    weight, bias = torch.tensor([0.5, 1.0, -2.0]), torch.tensor([0.0, -1.0, 3.0])
    part = features[..., 2:5, 3:9]
    given = instance_norm(part, weight, bias, statistics=channel_statistics(features))
    whole = instance_norm(features, weight, bias)
    torch.testing.assert_close(given, whole[..., 2:5, 3:9], rtol=0, atol=1e-6)
    assert (instance_norm(part, weight, bias) - given).abs().max() > 0.01


@pytest.mark.parametrize("batch", [1, 3])
def test_instance_norm_keeps_channels_last(batch: int) -> None:
    features = make_photos(batch, 4, 6, 5).contiguous(memory_format=torch.channels_last)
    result = InstanceNorm(4)(features)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert InstanceNorm(4)(features.contiguous()).is_contiguous()


def test_instance_norm_of_bfloat16_takes_its_statistics_in_float32() -> None:
    # Large mean, small differences: bfloat16 statistics would lose them all.
    features = (100 + make_photos(1, 2, 16, 16)).bfloat16()
    result = InstanceNorm(2)(features)
    assert result.dtype == torch.bfloat16
    expected = InstanceNorm(2)(features.float())
    torch.testing.assert_close(result.float(), expected, rtol=2**-8, atol=1e-3)


# --- Geometry -----------------------------------------------------------------------------------


def test_resize_convolution_covers_all_pixels_equally_and_transposed_does_not() -> None:
    # The checkerboard of Odena et al. 2016, in one picture.
    torch.manual_seed(0)
    constant = torch.ones(1, 2, 6, 6)
    with torch.inference_mode():
        assert ResizeConvolution(2, 3)(constant).std(dim=(2, 3)).max() < 1e-6
        assert TransposedConvolution(2, 3)(constant).std(dim=(2, 3)).min() > 0.01


def test_constant_photo_gives_a_constant_picture() -> None:
    with torch.inference_mode():
        output = make_net()(torch.full((1, 3, 33, 26), 0.3))
    assert output.std(dim=(2, 3)).max() < 1e-4


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_rounds_the_size_up(stride: int) -> None:
    for side in range(2, 9):
        output = Convolution(1, 1, 3, stride=stride)(torch.zeros(1, 1, side, side))
        assert output.shape[-2:] == (-(-side // stride),) * 2


@pytest.mark.parametrize(
    "convolution",
    [
        Convolution(1, 1, 9),
        Convolution(1, 1, 3),
        Convolution(1, 1, 3, stride=2),
        ResizeConvolution(1, 1),
        TransposedConvolution(1, 1),
    ],
    ids=["9x9", "3x3", "3x3 with stride 2", "resize", "transposed"],
)
def test_source_rows_are_those_that_rows_of_the_result_depend_on(
    convolution: AnyConvolution,
) -> None:
    torch.nn.init.ones_(convolution.layer.weight)
    features = torch.rand(1, 1, 24, 12).requires_grad_()
    result = convolution(features)
    assert result.shape[2] == convolution.output_side(24)
    assert result.shape[3] == convolution.output_side(12)
    for first, stop in ((8, 10), (6, 12)):
        (grad,) = torch.autograd.grad(result[:, :, first:stop].sum(), features, retain_graph=True)
        begin, end = convolution.source_rows(first, stop)
        assert grad.sum(dim=(0, 1, 3)).nonzero().flatten().tolist() == [*range(begin, end)]


def centre_of_influence(net: TransformNet, photo: Tensor, row: int, column: int) -> np.ndarray:
    """Where the input pixels are that one output pixel depends on, on average."""
    photo = photo.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(photo)[0, :, row, column].sum(), photo)
    influence = gradient[0].sum(dim=0).double().numpy()
    assert (influence >= 0).all()
    rows, columns = np.indices(influence.shape)
    return np.array([(rows * influence).sum(), (columns * influence).sum()]) / influence.sum()


@pytest.mark.parametrize(
    ("kind", "shift"), [("transposed", 0.0), ("resize", -1.5), ("antialiased", 0.0)]
)
def test_output_pixels_look_at_their_own_place(kind: str, shift: float) -> None:
    # With averaging kernels instead of learned ones, only the geometry is left. A strided
    # convolution's pixel k is centred at 4k. A transposed convolution puts it back there; nearest
    # neighbour makes the pixels 4k to 4k + 3 of it, whose distances to 4k are 1.5 on average. The
    # learned kernels reach further than that, and make up for it. The antialiased one interpolates
    # linearly between pixels at 4k.
    net = TransformNet(width=1, residual_blocks=1, **KINDS[kind])
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    for name, _ in [*net.named_modules()]:
        if name.endswith("norm"):
            net.set_submodule(name, nn.Identity())
    photo = make_photos(1, 3, 96, 96)  # large enough for the borders to play no part
    shifts = [
        centre_of_influence(net, photo, 48 + i, 48 + j) - (48 + i, 48 + j)
        for i in range(4)
        for j in range(4)
    ]
    np.testing.assert_allclose(np.mean(shifts, axis=0), [shift, shift], atol=1e-4)
