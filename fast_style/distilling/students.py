"""A small loss network, the student: its first channels, and its errors against its teacher.

The student has the teacher's layers with a fraction of its channels. At every layer a head, the
best linear map from the features of the student to those of the teacher, makes up for the missing
channels. Through heads, its content and style distances approximate the teacher's.

Related: channel selection by least squares (He, Zhang, Sun 2017, "Channel Pruning for Accelerating
Very Deep Neural Networks"), linear maps between the features of two networks (Wang et al. 2020,
"Collaborative Distillation for Ultra-Resolution Universal Style Transfer").
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_style.losses.loss_network import LossNetwork
from fast_style.settings.layers import Architecture, convolution_of, layer_names

# --- Channels and heads --------------------------------------------------------------------------

# Added to the diagonal of a least-squares problem, as a share of its mean, so that a channel that
# is always zero does not make it singular.
_RIDGE = 1e-4
# Lower bound of a channel's energy, as a share of the largest, where energies are divided by.
_SMALLEST_SHARE = 1e-6


def relu_layers(architecture: Architecture, deepest: str) -> list[str]:
    """The layers at which a student is compared with its teacher, up to `deepest`."""
    names = layer_names(architecture)
    return [name for name in names[: names.index(deepest) + 1] if name.startswith("relu")]


@torch.no_grad()
def choose_channels(
    teacher: LossNetwork, pictures: Tensor, layers: Sequence[str], widths: Sequence[int]
) -> dict[str, tuple[Tensor, Tensor]]:
    """A student made of the teacher's own channels, before any training.

    Layer by layer: the head of the layer before is folded into the teacher's kernels, so that these
    accept the student's features. Of their output channels, those are chosen one by one from which
    the teacher's features can be predicted best. Each is scaled to a mean square of one.

    Args:
        teacher: the large network.
        pictures: (N, 3, S, S) in [0, 1], to choose by.
        layers: from `relu_layers`.
        widths: channels in each block.

    Returns:
        ``3_4`` to kernel (C, C', 3, 3) and bias (C,).
    """
    targets = teacher(pictures, layers)
    convolutions: dict[str, tuple[Tensor, Tensor]] = {}
    inputs = (pictures - teacher.mean) / teacher.std
    head, block = None, "1"
    for layer in layers:
        number = convolution_of(layer)
        kernel, bias = teacher.get_buffer(f"kernel_{number}"), teacher.get_buffer(f"bias_{number}")
        if head is not None:
            kernel = torch.einsum("oiyx,ij->ojyx", kernel, head)
        if number[0] != block:
            inputs, block = teacher.pool(inputs, 2), number[0]
        padded = F.pad(inputs, (1, 1, 1, 1), mode=teacher.padding_mode)
        candidates = F.relu(F.conv2d(padded, kernel, bias))
        flat, target = (part.transpose(0, 1).flatten(1) for part in (candidates, targets[layer]))
        chosen = most_telling_rows(flat @ flat.T, flat @ target.T, widths[int(block) - 1])
        energy = flat[chosen].square().mean(dim=1)  # (C,)
        # A channel that is zero on these pictures may not be on others, and keeps a finite scale.
        scale = energy.clamp(min=_SMALLEST_SHARE * energy.max()).rsqrt()
        convolutions[number] = (kernel[chosen] * scale.view(-1, 1, 1, 1), bias[chosen] * scale)
        inputs = candidates[:, chosen] * scale.view(1, -1, 1, 1)
        flat = flat[chosen] * scale.view(-1, 1)
        head = best_head(flat @ flat.T, flat @ target.T)
    return convolutions


def most_telling_rows(own: Tensor, cross: Tensor, count: int) -> list[int]:
    """Rows of a matrix from which another matrix can be predicted best, chosen one by one.

    Args:
        own: the rows' products with each other, (R, R).
        cross: their products with the rows to predict, (R, T).
        count: how many to choose.
    """
    own, cross = own.clone(), cross.clone()
    smallest = _SMALLEST_SHARE * own.diagonal().max()
    chosen: list[int] = []
    for _ in range(count):
        gains = cross.square().sum(dim=1) / own.diagonal().clamp(min=smallest)
        gains[chosen] = -1
        best = int(gains.argmax())
        chosen.append(best)
        # Remove the chosen row's direction from all others (a step of Gram-Schmidt).
        share = own[:, best] / own[best, best].clamp(min=smallest)
        cross -= share.outer(cross[best])
        own -= share.outer(own[best])
    return chosen


def best_head(own: Tensor, cross: Tensor) -> Tensor:
    """The linear map from a student's to a teacher's features with the least squared error.

    Args:
        own: products of the student's channels, summed over positions, (C', C').
        cross: products of the student's channels with the teacher's, (C', C).

    Returns:
        (C, C').
    """
    ridge = _RIDGE * own.diagonal().mean() * torch.eye(len(own), device=own.device)
    return torch.linalg.solve(own + ridge, cross).T


def folded_head(head: Tensor) -> Tensor:
    """A square matrix (C', C') that gives the same distances as the head (C, C').

    With head = QR and Q's columns orthonormal, ‖head v‖ = ‖Rv‖ for any features v, and
    ‖head G headᵀ‖ = ‖R G Rᵀ‖ for any Gram matrix. The factor corrects for content distances and
    Gram matrices being divided by the number of channels, here C' instead of C.
    """
    channels, own_channels = head.shape
    folded: Tensor = torch.linalg.qr(head).R * (own_channels / channels) ** 0.5
    return folded


# --- Errors of a student against its teacher ----------------------------------------------------


# Added to a picture's energy, as shares of the typical one, so that flat pictures, whose relative
# errors are always large, count less than others.
_ENERGY_FLOOR = 0.3
_GRAM_FLOOR = 0.1


class Comparison(NamedTuple):
    """Products of a student's and its teacher's features at one layer, on N pictures.

    `own` (C', C'): the student's channels with each other, summed over positions and pictures, each
    picture with its weight. `cross` (C', C): the student's with the teacher's, likewise. `whole`
    (): the sum of the teacher's squares, likewise. `gram` (N, C', C') and `target_gram` (N, C, C):
    for single pictures, divided by C and by the number of positions.
    """

    own: Tensor
    cross: Tensor
    whole: Tensor
    gram: Tensor
    target_gram: Tensor

    def feature_error(self, head: Tensor) -> Tensor:
        """Σ‖head f − t‖² / Σ‖t‖², weighted; from the products, which are smaller than f."""
        predicted = ((head @ self.own) * head).sum()
        return (predicted - 2 * (head * self.cross.T).sum() + self.whole) / self.whole

    def gram_error(self, head: Tensor) -> Tensor:
        """‖G(head f) − G(t)‖² / ‖G(t)‖², mean over the pictures; flat pictures count less."""
        squares = self.target_gram.square().sum(dim=(1, 2))
        difference = (head @ self.gram @ head.T - self.target_gram).square().sum(dim=(1, 2))
        return (difference / (squares + _GRAM_FLOOR * squares.mean())).mean()


def compare(features: Tensor, target: Tensor, typical_energy: float) -> Comparison:
    """The products from which a student's errors are computed.

    Args:
        features: (N, C', H, W).
        target: (N, C, H, W).
        typical_energy: mean square of the teacher's features at this layer, on photos.
    """
    channels, positions = target.shape[1], target[0, 0].numel()
    flat, target = features.flatten(2), target.flatten(2)
    energy = target.square().mean(dim=(1, 2))
    weights = 1 / ((energy + _ENERGY_FLOOR * typical_energy) * channels * positions)
    weights = weights.view(-1, 1, 1)
    own, target_own = (part @ part.transpose(1, 2) for part in (flat, target))
    cross = flat @ target.transpose(1, 2)
    return Comparison(
        own=(weights * own).sum(dim=0),
        cross=(weights * cross).sum(dim=0),
        whole=(weights.flatten() * energy).sum() * channels * positions,
        gram=own / (channels * positions),
        target_gram=target_own / (channels * positions),
    )


def agreement_sums(found: Tensor, target: Tensor) -> Tensor:
    """Six sums over N pictures, from which error, correlation and Gram error are computed.

    Squared error; the target's squares; with each channel's mean subtracted, the product of both,
    the squares of `found` and those of `target`; the relative errors of Gram matrices.

    Args:
        found: (N, C, P), the student's features through a head.
        target: (N, C, P), the teacher's.
    """
    around = [part - part.mean(dim=2, keepdim=True) for part in (found, target)]
    grams = [part @ part.transpose(1, 2) for part in (found, target)]
    gram_errors = (grams[0] - grams[1]).square().sum(dim=(1, 2)) / grams[1].square().sum(dim=(1, 2))
    return torch.stack(
        [
            (found - target).square().sum(),
            target.square().sum(),
            (around[0] * around[1]).sum(),
            around[0].square().sum(),
            around[1].square().sum(),
            gram_errors.sum(),
        ]
    )
