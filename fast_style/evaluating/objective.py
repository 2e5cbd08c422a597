"""The models that are evaluated, and the one objective that all of them are measured with.

By default that is the objective that the first model was trained for. A model that was trained for
another one is refused, unless an option names the objective explicitly.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from fast_style.core.errors import UserError, printable
from fast_style.core.files import sha256_of
from fast_style.evaluating.baselines import digest_of
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.losses.inputs import LOSS_NETWORK_KEYS
from fast_style.losses.loss_network import FULL_NETWORKS, Weights, full_network_is_cached
from fast_style.losses.perceptual import PerceptualLoss
from fast_style.models.checkpoint import load_transform_net
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.transform_net import memory_format_for
from fast_style.pictures.pixels import image_to_tensor, resize_shorter_side
from fast_style.pictures.reading import read_picture
from fast_style.settings.config import TERMS_OF_TRAINING, Config, load_config, parse_config
from fast_style.settings.gatys_config import GatysConfig
from fast_style.settings.reading import require_consistent
from fast_style.settings.sections import NAMED_WEIGHTS, is_first_compact
from fast_style.settings.writing import to_dict

# What a single picture is not measured with. The digests of earlier reports include the other
# terms of training.
_NOT_MEASURED = frozenset({"adversarial_weight"})

COMPACT_APPROXIMATES = (
    "which approximate the full VGG-16; to measure with that one, give --weights FILE, or "
    "--weights imagenet_features, which keeps it in torch's cache (528 MB)"
)
"""The caveat of every objective that is measured with COMPACT weights."""


class Model(NamedTuple):
    """A trained model to evaluate."""

    name: str
    """Unique among the models of one evaluation."""

    path: Path
    digest: str
    """SHA-256 of the file."""

    net: nn.Module
    """Photos (N, 3, H, W) in [0, 1] to pictures of the same shape, not clamped."""

    metadata: dict[str, Any]
    settings: Config


class Objective(NamedTuple):
    """The perceptual loss that pictures are measured with."""

    loss: PerceptualLoss
    style: Tensor
    """The style picture as the loss network sees it, (1, 3, H, W), float in [0, 1]."""

    description: dict[str, Any]
    """Plain data: the style picture, the loss network, the weights of the terms."""

    digest: str
    """Of the description without file names: equal digests, equal objectives."""


def load_models(paths: Sequence[Path], device: torch.device) -> list[Model]:
    """The models of these files; equal names get a number.

    Raises:
        UserError: a file is missing or is not a model.
    """
    models: list[Model] = []
    for path in paths:
        net, metadata = load_transform_net(path)
        name = unique_name(str(metadata["name"]), [model.name for model in models])
        net = net.to(device).to(memory_format=memory_format_for(device))
        settings = parse_config(metadata["settings"], str(path))
        models.append(Model(name, path, sha256_of(path), FastTransform(net), metadata, settings))
    return models


def load_objective(
    models: Sequence[Model],
    *,
    style: Path | None,
    weights: str | None,
    loss: Path | None,
    device: torch.device,
    say: Callable[[str], None] = lambda line: None,
) -> Objective:
    """The objective that the first model was trained for, or the one that the options name.

    Args:
        models: what will be measured.
        style: a style picture; None takes ``style.png`` of the first model's run folder.
        weights: of the loss network; None takes those of the settings, but the full network in
            place of the first model's ``compact`` if torch's cache has it.
        loss: a training YAML, for its `loss`, `loss_network` and `style.size`; None takes the first
            model's settings.
        device: where to compute.
        say: prints a line for the user: the loss network, and warnings about models that were
            trained for another objective.

    Raises:
        UserError: a file is missing, or a model was trained for another objective and no option
            names the one to measure with.
    """
    config = _settings_of_objective(models[0], weights, loss)
    picture, file = _style_picture(config, style, models[0])
    with _naming_options():
        loaded = load_loss_weights(config, LOSS_NETWORK_KEYS._replace(weights="--weights"))
    objective = objective_of(config, loaded, picture, file, device)
    architecture = config.loss_network.architecture
    measured = f"the objective is measured with {architecture}, {printable(loaded.label)}"
    say(f"{measured}, {COMPACT_APPROXIMATES}" if loaded.source == "compact" else measured)
    is_named = {
        "style picture": style is not None or loss is not None,
        "loss network": weights is not None or loss is not None,
        "loss": loss is not None,
    }
    for model in models:
        _require_agreement(model, objective, is_named, say)
    return objective


def objective_of(
    config: Config | GatysConfig,
    weights: Weights,
    picture: Image.Image,
    file: str,
    device: torch.device,
) -> Objective:
    """The objective of these settings for one style picture.

    Args:
        config: the settings; their `style` is not read.
        weights: of the loss network.
        picture: the style picture at its size, RGB.
        file: the name of its file, for people.
        device: where to compute.

    Raises:
        UserError: the loss network sees nothing in the picture.
    """
    with full_float32():
        perceptual_loss = build_perceptual_loss(config, weights, picture, device)
    description = _describe(config, weights, picture, file)
    pixels = image_to_tensor(picture)[None].to(device).float() / 255
    return Objective(perceptual_loss, pixels, description, _digest_of_objective(description))


def agreement(model: Model, objective: Objective) -> dict[str, bool]:
    """Whether the model was trained with the objective's style picture, loss network and loss."""
    trained_with, description = model.settings.loss_network, objective.description
    network = description["loss_network"]
    return {
        "style picture": model.metadata["style"]["digest"] == description["style"]["digest"],
        "loss network": model.metadata["loss_network"]["digest"] == network["digest"]
        and trained_with.pooling == network["pooling"]
        and (trained_with.padding or network["padding"]) == network["padding"],
        "loss": _without(TERMS_OF_TRAINING, to_dict(model.settings)["loss"])
        == _without(TERMS_OF_TRAINING, description["loss"]),
    }


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, GPUs multiply float32 with all 23 bits of mantissa instead of TF32's 10."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    products = torch.backends.cuda.matmul
    before = convolutions.fp32_precision, products.fp32_precision
    convolutions.fp32_precision = products.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision, products.fp32_precision = before


def _settings_of_objective(first: Model, weights: str | None, loss: Path | None) -> Config:
    """The settings to measure with.

    Raises:
        UserError: they contradict each other, or name a network that is no longer there.
    """
    if loss is not None:
        config = load_config(loss, _words_for_weights(weights))
    else:
        config = first.settings
        network = config.loss_network
        # Compact weights stand in for the full network. A --loss that names them means them.
        is_stand_in = weights is None and network.weights == "compact"
        if is_stand_in and full_network_is_cached(network.architecture):
            weights = FULL_NETWORKS[network.architecture]
        if weights is not None:
            changed: dict[str, Any] = {"weights": weights}
            if weights in NAMED_WEIGHTS:
                changed["preprocessing"] = None  # they have their own
            config = config.model_copy(update={"loss_network": network.model_copy(update=changed)})
    place = printable(loss if loss is not None else first.path)
    if is_first_compact(config.loss_network):
        raise UserError(
            f"{place}: cannot be measured with compact weights of vgg19, which fast-style no "
            "longer has: compact is learned from VGG-16 now. Measure with VGG-19 itself, --weights "
            "FILE or --weights imagenet (548 MB, downloaded once), or name another objective, "
            "--loss CONFIG.yaml"
        )
    with _naming_options():
        require_consistent(config, place)
    return config


def _words_for_weights(weights: str | None) -> list[str]:
    """The settings that --weights replaces in those of --loss, before these are checked."""
    if weights is None:
        return []
    words = [f"loss_network.weights={json.dumps(weights, ensure_ascii=False)}"]
    if weights in NAMED_WEIGHTS:
        words.append("loss_network.preprocessing=null")
    return words


@contextmanager
def _naming_options() -> Iterator[None]:
    """Inside, an error about settings says which options of this command set them."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{error} (fast-style evaluate takes the weights from --weights FILE, and the other "
            "settings of loss_network and loss from --loss CONFIG.yaml)"
        ) from None


def _style_picture(config: Config, style: Path | None, first: Model) -> tuple[Image.Image, str]:
    """The style picture as the loss network sees it, and the name of its file."""
    if style is not None:
        return read_style(style, config.style.size), style.name
    trained_on = first.metadata["style"]
    for file in style_copies(first):
        image = read_picture(file).rgb
        if hashlib.sha256(image.tobytes()).hexdigest() != trained_on["digest"]:
            raise UserError(
                f"{printable(file)}: not the style picture that {printable(first.path)} was "
                "trained on (its digest differs); give that picture with --style PICTURE"
            )
        # Its size is style.size already, unless --loss sets another one.
        return resize_shorter_side(image, config.style.size), str(trained_on["file"])
    raise UserError(
        f"{printable(first.path)}: found no style.png in its folder or in the folder above; give "
        "the style picture with --style PICTURE"
    )


def style_copies(model: Model) -> list[Path]:
    """The existing copies of the style picture that a run keeps beside its models."""
    path = model.path.resolve()
    folders = (path.parent, path.parent.parent)  # of a model, and of a checkpoint
    return [file for folder in folders if (file := folder / "style.png").is_file()]


def unique_name(name: str, taken: Collection[str]) -> str:
    """The name, with ``-2`` or a higher number after it if it is taken."""
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique


def _describe(
    config: Config | GatysConfig, weights: Weights, picture: Image.Image, file: str
) -> dict[str, Any]:
    return {
        "style": {
            "file": file,
            "width": picture.width,
            "height": picture.height,
            "digest": hashlib.sha256(picture.tobytes()).hexdigest(),
        },
        "loss_network": {
            "architecture": config.loss_network.architecture,
            "label": weights.label,
            "digest": weights.digest,
            "preprocessing": weights.preprocessing,
            "padding": weights.padding,
            "pooling": config.loss_network.pooling,
        },
        "loss": _without(_NOT_MEASURED, to_dict(config)["loss"]),
    }


def _without(keys: Collection[str], loss: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in loss.items() if key not in keys}


def _digest_of_objective(description: Mapping[str, Any]) -> str:
    """Digest of what the numbers depend on: style picture, loss network without label, loss."""
    network = dict(description["loss_network"])
    del network["label"]
    return digest_of(
        {
            "style": description["style"]["digest"],
            "loss_network": network,
            "loss": description["loss"],
        }
    )


def _require_agreement(
    model: Model,
    objective: Objective,
    is_named: Mapping[str, bool],
    say: Callable[[str], None],
) -> None:
    """Refuse a model of another objective; warn instead where an option names the objective.

    Raises:
        UserError: the model was trained for another objective, and no option names this one.
    """
    differing = [part for part, is_same in agreement(model, objective).items() if not is_same]
    if "loss network" in differing and _is_approximation(model, objective):
        differing.remove("loss network")
        said = f"{printable(model.path)} was trained with COMPACT weights, which approximate these"
        if is_first_compact(model.settings.loss_network):
            say(said)
        else:
            say(f"{said}; to measure with COMPACT weights, give --weights compact")
    unnamed = [part for part in differing if not is_named[part]]
    if unnamed:
        raise UserError(
            f"{printable(model.path)}: trained with another {' and '.join(unnamed)} than the "
            f"objective's; name the objective with {_options_that_name(unnamed)}"
        )
    if differing:
        say(f"warning: {printable(model.path)} was trained with another {' and '.join(differing)}")


def _options_that_name(parts: Collection[str]) -> str:
    """The options that name these parts of the objective; --loss, which names all, is not given."""
    if "loss" in parts:
        return "--loss CONFIG.yaml"
    options = {"style picture": "--style PICTURE", "loss network": "--weights FILE"}
    return f"{' and '.join(options[part] for part in parts)}, or with --loss CONFIG.yaml"


def _is_approximation(model: Model, objective: Objective) -> bool:
    """Whether the model's loss network is the compact stand-in for the objective's."""
    trained_with, network = model.settings.loss_network, objective.description["loss_network"]
    return (
        trained_with.weights == "compact"
        and network["label"] == f"{FULL_NETWORKS[trained_with.architecture]} weights"
        and trained_with.architecture == network["architecture"]
        and trained_with.pooling == network["pooling"]
    )
