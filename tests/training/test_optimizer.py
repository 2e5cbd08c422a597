"""Claims about Muon: its updates by hand, what it leaves to Adam, and that it resumes exactly."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fast_style.models.checkpoint import load_checkpoint, save_checkpoint
from fast_style.networks.transform_net import TransformNet
from fast_style.settings.config import TrainConfig
from fast_style.training.optimizer import Muon, build_optimizer, is_kernel, orthogonal
from fast_style.training.saving import restore_training, training_tensors

CPU = torch.device("cpu")


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def network() -> TransformNet:
    torch.manual_seed(2)
    return TransformNet(width=4, residual_blocks=2)


def learn(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        net(noise(1, 3, 16, 16)).square().mean().backward()
        optimizer.step()


# --- Orthogonal matrices ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 36), (36, 4), (8, 8)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrices = noise(3, *shape)
    found = orthogonal(matrices)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    seen = u.transpose(1, 2) @ found @ v.transpose(1, 2)
    values = torch.diagonal(seen, dim1=1, dim2=2)
    assert values.min() > 0.6
    assert values.max() < 1.25
    torch.testing.assert_close(seen, torch.diag_embed(values), rtol=0, atol=1e-4)


def test_size_of_a_matrix_does_not_matter() -> None:
    matrices = noise(2, 5, 45)
    torch.testing.assert_close(
        orthogonal(1e-3 * matrices), orthogonal(1e3 * matrices), rtol=0.01, atol=1e-3
    )


def test_zero_gives_zero() -> None:
    assert not orthogonal(torch.zeros(1, 4, 9)).any()


# --- Updates ------------------------------------------------------------------------------------


def test_first_update_of_a_kernel_by_hand() -> None:
    kernel = nn.Parameter(torch.zeros(4, 4, 1, 1))
    bias = nn.Parameter(torch.zeros(4))
    optimizer = Muon([kernel, bias], lr=0.01)
    # Orthogonal itself, so that only its singular values, all of them equal, change.
    swap = torch.eye(4).flip(0).view(4, 4, 1, 1)
    kernel.grad, bias.grad = 7 * swap, torch.ones(4)
    optimizer.step()
    # Its norm is 2, so the values begin at 1/2: five times 3.4445 s - 4.7750 s³ + 2.0315 s⁵.
    value = 0.5
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    torch.testing.assert_close(kernel.detach(), -0.01 * 0.6 * 4**0.5 * value * swap)
    torch.testing.assert_close(bias.detach(), torch.full((4,), -0.01))  # Adam's first step
    torch.testing.assert_close(optimizer.state[kernel]["momentum"], 0.05 * 7 * swap)


def test_updates_of_kernels_of_one_shape_do_not_depend_on_each_other() -> None:
    both = [nn.Parameter(noise(4, 8, 3, 3)), nn.Parameter(noise(4, 8, 3, 3) + 1)]
    alone = nn.Parameter(both[1].detach().clone())
    gradients = noise(2, 4, 8, 3, 3)
    for parameters, grads in ((both, gradients), ([alone], gradients[1:])):
        optimizer = Muon([*parameters, nn.Parameter(torch.zeros(1))], lr=0.1)
        for parameter, gradient in zip(parameters, grads, strict=True):
            parameter.grad = gradient
        optimizer.step()
    torch.testing.assert_close(alone, both[1])


@pytest.mark.parametrize("shape", [(16, 16, 3, 3), (64, 32, 3, 3), (32, 64, 1, 1)])
def test_root_mean_square_of_an_update_does_not_depend_on_the_shape(
    shape: tuple[int, int, int, int],
) -> None:
    kernel = nn.Parameter(torch.zeros(shape))
    optimizer = Muon([kernel, nn.Parameter(torch.zeros(1))], lr=1.0)
    kernel.grad = noise(*shape)
    optimizer.step()
    assert float(kernel.detach().square().mean().sqrt()) == pytest.approx(0.6, rel=0.2)


def test_parameters_without_a_gradient_stay() -> None:
    kernel = nn.Parameter(noise(4, 4, 3, 3))
    before = kernel.detach().clone()
    optimizer = Muon([kernel, nn.Parameter(torch.zeros(1))], lr=1.0)
    optimizer.step()
    assert torch.equal(kernel, before)


def test_kernels_between_feature_maps_are_muons_and_the_rest_adams() -> None:
    net = network()
    optimizer = Muon(net.parameters(), lr=0.1)
    learn(net, optimizer, 1)
    kept = {name: set(optimizer.state[p]) for name, p in net.named_parameters()}
    with_momentum = {name for name, keys in kept.items() if keys == {"momentum"}}
    assert with_momentum == {name for name, p in net.named_parameters() if is_kernel(p)}
    colored = {name for name, p in net.named_parameters() if p.ndim == 4 and 3 in p.shape[:2]}
    assert len(colored) == 2
    assert not with_momentum & colored
    for name in kept.keys() - with_momentum:
        assert kept[name] == {"step", "exp_avg", "exp_avg_sq"}


def test_network_without_such_kernels_is_adams() -> None:
    net = TransformNet(width=1, residual_blocks=0)
    assert not any(map(is_kernel, net.parameters()))
    twin = TransformNet(width=1, residual_blocks=0)
    twin.load_state_dict(net.state_dict())
    learn(net, Muon(net.parameters(), lr=0.1), 2)
    learn(twin, torch.optim.Adam(twin.parameters(), lr=0.1), 2)
    assert all(map(torch.equal, net.parameters(), twin.parameters()))


def test_learning_rate_that_is_loaded_serves_both_parts() -> None:
    net = network()
    optimizer = Muon(net.parameters(), lr=0.1)
    learn(net, optimizer, 1)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = 0.0
    optimizer.load_state_dict(state)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    learn(net, optimizer, 1)
    assert all(map(torch.equal, net.parameters(), before))


def test_one_learning_rate_serves_both_parts() -> None:
    net = network()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = Muon(net.parameters(), lr=0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    learn(net, optimizer, 2)
    assert all(map(torch.equal, net.parameters(), before))


@pytest.mark.parametrize(("name", "kind"), [("muon", Muon), ("adam", torch.optim.Adam)])
def test_settings_name_the_optimizer(name: str, kind: type) -> None:
    settings = TrainConfig.model_validate({"optimizer": name})
    assert type(build_optimizer(network(), settings, CPU)) is kind


# --- Resuming -----------------------------------------------------------------------------------


def test_restored_muon_goes_on_exactly(tmp_path: Path) -> None:
    straight, resumed = network(), network()
    optimizer = Muon(straight.parameters(), lr=0.01)
    learn(straight, optimizer, 2)
    path = tmp_path / "m"
    save_checkpoint(path, training_tensors(straight, optimizer), {})
    again = Muon(resumed.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    restore_training(resumed, again, scaler, load_checkpoint(path), path)
    learn(straight, optimizer, 2)
    learn(resumed, again, 2)
    for ours, theirs in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)
