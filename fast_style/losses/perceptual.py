"""The perceptual loss: content, style and total variation (Johnson et al. 2016, section 3.2).

In the formulas, φ is the loss network, y the result, x the photo and s the style picture.
Everything here is computed in float32, also under autocast: a Gram entry sums over all pixels, and
the style term subtracts nearly equal numbers, of which bfloat16 keeps 8 bits.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fast_style.losses.autocorrelation import (
    SMALLEST_WINDOW,
    autocorrelation_distance,
    far_autocorrelations,
)
from fast_style.losses.halo import SMALLEST_SIDE, halo_strengths, halo_targets
from fast_style.losses.sliced import directions_of, sliced_distance, sorted_projections, thinned

AUTOCORRELATION = "autocorrelation"
"""The name of this part of the style term, beside the names of layers."""

# So that a style weight leaves about as much of the photo with either distance (docs/ablations.md).
_SLICED_SCALE = 3.0

_HALO = "halo"  # the name of this part of the content term, likewise

# `relative` divides a photo's content term by the energy of its features, but at least by this
# share of the style picture's energy: a blank photo (fog, a wall) has nearly none.
_SMALLEST_RELATIVE_ENERGY = 0.01


class LossValues(NamedTuple):
    """`LossTerms` as plain numbers; `total` is weighted, the others are not."""

    total: float
    content: float
    style: float
    tv: float


class LossTerms(NamedTuple):
    """The objective and its parts, averaged over the photos of a batch.

    `total` is weighted; `content`, `style` and `tv` are not, and neither is `style_by_layer`, whose
    values are each layer's distance before its weight. Its last entry is ``autocorrelation``, if
    that has a weight. `features` are the output's at `PerceptualLoss.kept_layers`, with gradient.
    """

    total: Tensor
    content: Tensor
    style: Tensor
    tv: Tensor
    style_by_layer: dict[str, Tensor]
    features: Mapping[str, Tensor] = MappingProxyType({})

    def detached(self) -> "LossTerms":
        """The same numbers, detached from the graph of their gradients; without features."""
        by_layer = {layer: term.detach() for layer, term in self.style_by_layer.items()}
        terms = (self.total, self.content, self.style, self.tv)
        total, content, style, tv = (term.detach() for term in terms)
        return LossTerms(total, content, style, tv, by_layer)

    def values(self) -> LossValues:
        """The terms as numbers, fetched from the device in one transfer."""
        terms = torch.stack([self.total, self.content, self.style, self.tv])
        return LossValues(*terms.detach().cpu().double().tolist())


def gram_matrix(features: Tensor) -> Tensor:
    """G = ψψᵀ / (CHW), ψ being φ as (C, HW): Johnson et al. 2016, equation 3.

    Args:
        features: (N, C, H, W).

    Returns:
        (N, C, C), float32.
    """
    num_values = features[0].numel()
    with torch.autocast(features.device.type, enabled=False):
        if features.device.type == "cuda" and features.dtype == torch.bfloat16:
            products: Tensor = _ProductsOfRounded.apply(features)
            return products / num_values
        pixels = _pixels_in_parts(features.float())  # (N, parts, HW / parts, C)
        return (pixels.transpose(2, 3) @ pixels).sum(dim=1) / num_values


def _pixels_in_parts(features: Tensor) -> Tensor:
    """(N, C, H, W) as (N, parts, HW / parts, C), without a copy if it is in channels_last."""
    pixels = features.flatten(2).transpose(1, 2)
    parts = 1
    while parts < _most_parts(features.device) and pixels.shape[1] % (2048 * parts) == 0:
        parts *= 2
    return pixels.reshape(len(pixels), parts, -1, pixels.shape[2])


def _most_parts(device: torch.device) -> int:
    # A GPU has more than a hundred multiprocessors, and its libraries use only one of them for each
    # matrix product.
    return 32 if device.type == "cuda" else 1


class _ProductsOfRounded(torch.autograd.Function):
    """ψψᵀ of bfloat16 features: products of 8-bit mantissas are exact in float32, and summed so."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        pixels = _pixels_in_parts(features)
        flat = pixels.flatten(0, 1)
        products = torch.bmm(flat.transpose(1, 2), flat, out_dtype=torch.float32)
        return products.view(*pixels.shape[:2], *products.shape[1:]).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        # Rounding costs nothing here: the difference was taken in float32, and the gradient of
        # bfloat16 features is bfloat16 in any case.
        both_factors = (grad + grad.transpose(1, 2)).to(features.dtype)
        pixels_grad = features.flatten(2).transpose(1, 2) @ both_factors
        return pixels_grad.transpose(1, 2).reshape(features.shape)


def content_distance(features: Tensor, target: Tensor) -> Tensor:
    """‖φ(y) − φ(x)‖² / (CHW) of each photo, (N,): Johnson et al. 2016, equation 2.

    Args:
        features: φ(y), (N, C, H, W).
        target: φ(x), likewise.
    """
    return (features.float() - target.float()).square().mean(dim=(1, 2, 3))


def style_distance(gram: Tensor, target: Tensor) -> Tensor:
    """‖G(y) − G(s)‖² (Frobenius norm) of each photo, (N,): Johnson et al. 2016, equation 4.

    Args:
        gram: G(y), (N, C, C).
        target: G(s), (C, C).
    """
    return (gram - target).square().sum(dim=(1, 2))


def total_variation(pixels: Tensor, exponent: float = 2.0) -> Tensor:
    """Mean of (dx² + dy²)^(β / 2) over all pixels that have a right and a lower neighbor.

    The regularizer of Mahendran and Vedaldi 2015, which Johnson et al. take. They sum; the mean
    makes weights independent of the size. β = 2 gives squared differences; 2.5 is the exponent
    1.25 = β / 2 of the Keras examples.

    Args:
        pixels: (N, 3, H, W), float in [0, 1]. The result is 0 if a side is one pixel.
        exponent: β, at least 2: below, the gradient is infinite where neighbors are equal.
    """
    pixels = pixels.float()
    dx = pixels[..., :-1, 1:] - pixels[..., :-1, :-1]
    dy = pixels[..., 1:, :-1] - pixels[..., :-1, :-1]
    if dx.numel() == 0:
        return pixels.sum() * 0.0
    energy = dx.square() + dy.square()
    return energy.mean() if exponent == 2 else energy.pow(exponent / 2).mean()


class PerceptualLoss(nn.Module):
    """The weighted sum of content, style and total variation: Johnson et al. 2016, equation 5.

    Args:
        loss_network: φ; ``loss_network(pixels, layers)`` gives a dict of features.
        style_picture: s, (1, 3, H, W), float in [0, 1], any size.
        content_layers: layer names and their weights; may be empty.
        style_layers: likewise.
        content_weight: weight of the whole term; 0 switches it off.
        style_weight: likewise.
        tv_weight: likewise.
        tv_exponent: β of `total_variation`.
        autocorrelation_weight: weight, beside those of `style_layers`, of the mean squared
            difference between the `far_autocorrelations` of y and s. It forbids patterns that
            return at equal distances where the style picture has none, which Gram matrices hardly
            see. Without effect on pictures below 32 pixels.
        halo_weight: weight, beside those of `content_layers`, of the `halo_strengths` of y on x,
            which forbid glows and patches where the photo is flat. Likewise without effect on
            pictures below 32 pixels.
        style_distance: what is compared at `style_layers`. ``gram``: the Gram matrices. ``sliced``:
            the distributions of the features, by their sliced Wasserstein distance (Heitz et al.
            2021), which ``relative`` divides by ‖φ(s)‖² / (CHW).
        blend: further style pictures, each with its weight beside the 1 of `style_picture`. The
            style term is the weighted mean of the distances to all of them.
        kept_layers: those of the layers whose features are given back with the terms.
        normalization: ``paper`` takes equations 2 to 4 unchanged. ``relative`` divides each photo's
            content term by ‖φ(x)‖² / (CHW) and each style layer by ‖G(s)‖², so that weights mean
            about the same for any loss network and size.
    """

    def __init__(
        self,
        loss_network: Callable[[Tensor, list[str]], dict[str, Tensor]],
        style_picture: Tensor,
        *,
        content_layers: Mapping[str, float],
        style_layers: Mapping[str, float],
        content_weight: float = 1.0,
        style_weight: float = 5.0,
        tv_weight: float = 1.0,
        tv_exponent: float = 2.0,
        autocorrelation_weight: float = 0.0,
        halo_weight: float = 0.0,
        style_distance: Literal["gram", "sliced"] = "gram",
        blend: Sequence[tuple[Tensor, float]] = (),
        kept_layers: Sequence[str] = (),
        normalization: Literal["relative", "paper"] = "relative",
    ) -> None:
        super().__init__()
        self.loss_network = loss_network
        self.content_layers = dict(content_layers)
        self.style_layers = dict(style_layers)
        self.content_weight = content_weight
        self.style_weight = style_weight
        self.tv_weight = tv_weight
        self.tv_exponent = tv_exponent
        self.style_parts = dict(style_layers)
        """The weights of the parts of the style term, by the names in `style_by_layer`."""
        self.content_parts = dict(content_layers) | ({_HALO: halo_weight} if halo_weight else {})
        """Likewise of the content term, by layers and ``halo``."""
        self.normalization = normalization
        self.style_distance = style_distance
        self.kept_layers = list(kept_layers)
        self._layers = list(dict.fromkeys([*self.content_layers, *self.style_layers]))
        styles = [(style_picture, 1.0), *blend]
        whole = sum(weight for _, weight in styles)
        self.style_shares = [weight / whole for _, weight in styles]
        with torch.no_grad():
            features_of = [loss_network(picture, self._layers) for picture, _ in styles]
            for layer in self.style_layers:  # (S, C, C)
                grams = torch.cat([gram_matrix(features[layer]) for features in features_of])
                self.register_buffer(f"gram_{layer}", grams)
                if style_distance == "sliced":
                    self._register_projections(layer, [features[layer] for features in features_of])
            for layer in self.content_layers:  # ()
                floor = _SMALLEST_RELATIVE_ENERGY * features_of[0][layer].float().square().mean()
                self.register_buffer(f"floor_{layer}", floor)
            smallest = min(min(picture.shape[-2:]) for picture, _ in styles)
            if autocorrelation_weight > 0 and smallest >= SMALLEST_WINDOW:
                self.style_parts[AUTOCORRELATION] = autocorrelation_weight
                found = torch.cat([far_autocorrelations(picture) for picture, _ in styles])
                self.register_buffer("autocorrelations", found)  # (S, 35, 35)

    def style_grams(self, layer: str) -> Tensor:
        """G(s) at a style layer of `style_picture` and of each picture in `blend`: (S, C, C)."""
        return self.get_buffer(f"gram_{layer}")

    def _register_projections(self, layer: str, features_of: Sequence[Tensor]) -> None:
        directions = directions_of(features_of[0].shape[1]).to(features_of[0].device)
        self.register_buffer(f"directions_{layer}", directions)
        for number, features in enumerate(features_of):  # of other sizes
            projections = sorted_projections(thinned(features), directions)
            self.register_buffer(f"projections_{layer}_{number}", projections)

    def forward(self, output: Tensor, photos: Tensor) -> LossTerms:
        """The terms of `output` as a stylized version of `photos`.

        Args:
            output: y, (N, 3, H, W), about [0, 1], with gradient.
            photos: x, (N, 3, H, W), float in [0, 1].
        """
        return self.terms(output, self.content_targets(photos))

    def content_targets(self, photos: Tensor) -> dict[str, Tensor]:
        """φ(x) at the content layers, for `terms`; deeper layers are not computed.

        With `halo_weight`, the entry ``halo`` are the `halo_targets` of x.
        """
        with torch.no_grad():
            targets = self.loss_network(photos, list(self.content_layers))
            if _HALO in self.content_parts and min(photos.shape[-2:]) >= SMALLEST_SIDE:
                targets = {**targets, _HALO: halo_targets(photos)}
        return targets

    def terms(self, output: Tensor, targets: dict[str, Tensor]) -> LossTerms:
        """The terms of `output` against the `content_targets` of its photos, computed before."""
        features = self.loss_network(output, self._layers)
        with torch.autocast(output.device.type, enabled=False):
            content = self._content(features, targets, output)
            style_by_layer = {
                layer: self._style_of_layer(layer, features[layer]) for layer in self.style_layers
            }
            if AUTOCORRELATION in self.style_parts:
                style_by_layer[AUTOCORRELATION] = self._autocorrelation(output)
            style = _weighted_sum(style_by_layer, self.style_parts, output)
            tv = total_variation(output, self.tv_exponent)
            total = self.content_weight * content + self.style_weight * style + self.tv_weight * tv
        kept = {layer: features[layer] for layer in self.kept_layers}
        return LossTerms(total, content, style, tv, style_by_layer, kept)

    def gradient_shares(
        self,
        output: Tensor,
        photos: Tensor,
        *,
        sum_over_processes: Callable[[list[float]], list[float]] = lambda squares: squares,
    ) -> dict[str, float]:
        """Each term's share of the gradient at the output picture, which measures its influence.

        The norm of each weighted term's gradient, divided by the sum of the three norms; zeros if
        all of them are zero.

        Args:
            output: (N, 3, H, W), about [0, 1].
            photos: (N, 3, H, W), float in [0, 1].
            sum_over_processes: sums squared norms over processes that have other photos.
        """
        output = output.detach().requires_grad_()
        terms = self(output, photos)
        weighted = {
            "content": self.content_weight * terms.content,
            "style": self.style_weight * terms.style,
            "tv": self.tv_weight * terms.tv,
        }
        squares = []
        for term in weighted.values():
            (gradient,) = torch.autograd.grad(term, output, retain_graph=True)
            squares.append(float(gradient.norm()) ** 2)
        norms = [math.sqrt(square) for square in sum_over_processes(squares)]
        whole = sum(norms) or 1.0
        return {name: norm / whole for name, norm in zip(weighted, norms, strict=True)}

    def _content(
        self, features: dict[str, Tensor], targets: dict[str, Tensor], output: Tensor
    ) -> Tensor:
        by_layer = {}
        for layer in self.content_layers:
            distance = content_distance(features[layer], targets[layer])  # (N,)
            if self.normalization == "relative":
                energy = targets[layer].float().square().mean(dim=(1, 2, 3))
                distance = distance / torch.maximum(energy, self.get_buffer(f"floor_{layer}"))
            by_layer[layer] = distance.mean()
        if _HALO in targets:
            by_layer[_HALO] = halo_strengths(output, targets[_HALO]).mean()
        return _weighted_sum(by_layer, self.content_parts, output)

    def _autocorrelation(self, output: Tensor) -> Tensor:
        if min(output.shape[-2:]) < SMALLEST_WINDOW:
            return output.float().sum() * 0.0
        found = far_autocorrelations(output)
        distances = [
            share * autocorrelation_distance(found, target).mean()
            for share, target in zip(
                self.style_shares, self.get_buffer("autocorrelations"), strict=True
            )
        ]
        return torch.stack(distances).sum()

    def _style_of_layer(self, layer: str, features: Tensor) -> Tensor:
        if self.style_distance == "gram":
            distances = self._gram_distances(layer, features)
        else:
            distances = self._sliced_distances(layer, features)
        shares = zip(self.style_shares, distances, strict=True)
        return torch.stack([share * distance.mean() for share, distance in shares]).sum()

    def _gram_distances(self, layer: str, features: Tensor) -> list[Tensor]:
        """The distances from each style picture, (N,)."""
        gram, targets = gram_matrix(features), self.style_grams(layer)
        distances = [style_distance(gram, target) for target in targets]
        if self.normalization == "paper":
            return distances
        return [
            distance / target.square().sum()
            for distance, target in zip(distances, targets, strict=True)
        ]

    def _sliced_distances(self, layer: str, features: Tensor) -> list[Tensor]:
        """Likewise."""
        found = sorted_projections(thinned(features), self.get_buffer(f"directions_{layer}"))
        targets = [
            self.get_buffer(f"projections_{layer}_{number}")
            for number in range(len(self.style_shares))
        ]
        distances = [sliced_distance(found, target) for target in targets]
        if self.normalization == "paper":
            return distances
        return [
            _SLICED_SCALE * distance / target.square().mean()
            for distance, target in zip(distances, targets, strict=True)
        ]


def _weighted_sum(terms: dict[str, Tensor], weights: Mapping[str, float], output: Tensor) -> Tensor:
    # A term without layers is zero, with a zero gradient rather than none.
    zero = output.float().sum() * 0.0
    return sum((weights[layer] * term for layer, term in terms.items()), start=zero)
