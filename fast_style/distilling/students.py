"""A small loss network beside a large one: which channels it begins with, and how far it is.

The student has the teacher's layers with a fraction of its channels. At every layer a linear map, a
head, gives the teacher's features from the student's, as well as a linear map can. Through heads,
the student's content and style distances are the teacher's, up to what it does not know.

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

# Added to the diagonal of a least-squares problem, as a share of its mean: features of a channel
# that is always silent cannot make it singular.
_RIDGE = 1e-4
# A channel with less than this share of the strongest one's energy counts as if it had so much:
# what divides by a channel's energy stays finite.
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

    Layer by layer: a head gives the teacher's features from the student's, as well as a linear map
    can; folded into the teacher's next kernels, it gives them inputs that they know; of the
    channels that come out, those are taken, one after the other, from which most of the teacher's
    features can be predicted. Each is scaled to a mean square of one.

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
        chosen = _most_telling_rows(flat @ flat.T, flat @ target.T, widths[int(block) - 1])
        energy = flat[chosen].square().mean(dim=1)  # (C,)
        # A channel that is silent here need not be so everywhere; it keeps a finite scale.
        scale = energy.clamp(min=_SMALLEST_SHARE * energy.max()).rsqrt()
        convolutions[number] = (kernel[chosen] * scale.view(-1, 1, 1, 1), bias[chosen] * scale)
        inputs = candidates[:, chosen] * scale.view(1, -1, 1, 1)
        flat = flat[chosen] * scale.view(-1, 1)
        head = best_head(flat @ flat.T, flat @ target.T)
    return convolutions


def _most_telling_rows(own: Tensor, cross: Tensor, count: int) -> list[int]:
    """Rows of a matrix from which another one can be predicted best, chosen one after the other.

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
        # What the chosen row says is taken out of all others (one step of Gram and Schmidt's).
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
    """A head (C, C') as a square matrix (C', C') that gives the same distances.

    With head = QR and Q's columns orthonormal, ‖head v‖ = ‖Rv‖ for any features v, and
    ‖head G headᵀ‖ = ‖R G Rᵀ‖ for any Gram matrix. The factor makes up for content distances and
    Gram matrices being divided by the number of channels.
    """
    channels, own_channels = head.shape
    folded: Tensor = torch.linalg.qr(head).R * (own_channels / channels) ** 0.5
    return folded


# --- How far a student is from its teacher ------------------------------------------------------


class Comparison(NamedTuple):
    """One layer of a student beside its teacher's, on some pictures.

    `own` (C', C') and `cross` (C', C) are products of channels, summed over positions and pictures,
    each picture with its weight; `whole` () is the sum of the teacher's squares, weighted likewise.
    `gram` (N, C', C') and `target_gram` (N, C, C) are the products of single pictures, divided by
    CP, P positions each.
    """

    own: Tensor
    cross: Tensor
    whole: Tensor
    gram: Tensor
    target_gram: Tensor

    def feature_error(self, head: Tensor) -> Tensor:
        """Σ‖head f − t‖² / Σ‖t‖², weighted; computed from the products alone, as f is large."""
        predicted = ((head @ self.own) * head).sum()
        return (predicted - 2 * (head * self.cross.T).sum() + self.whole) / self.whole

    def gram_error(self, head: Tensor) -> Tensor:
        """‖G(head f) − G(t)‖² / ‖G(t)‖², mean over the pictures; flat ones count less."""
        squares = self.target_gram.square().sum(dim=(1, 2))
        difference = (head @ self.gram @ head.T - self.target_gram).square().sum(dim=(1, 2))
        return (difference / (squares + _GRAM_FLOOR * squares.mean())).mean()


# Pictures with less than these shares of the usual energy count less than others: of a flat one,
# every error is large in proportion.
_ENERGY_FLOOR = 0.3
_GRAM_FLOOR = 0.1


def compare(features: Tensor, target: Tensor, typical_energy: float) -> Comparison:
    """Put a student's features beside its teacher's.

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
    """Squared error, the target's square; products and squares around the means; Gram error.

    Args:
        found: (N, C, P), what a head makes of a student's features.
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
