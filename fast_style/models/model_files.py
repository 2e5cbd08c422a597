"""One file format for training states and finished models: safetensors with a digest.

No pickle anywhere, so a model from the internet cannot run code. The header's metadata holds a JSON
description (format version, architecture, settings, step, source of the loss network, license) and
the sha256 of the whole file, computed with zeros for its own 64 characters. Without that, torch and
safetensors would load a file with a flipped byte and give other weights.

This module checks that a file is whole and reads its description, without torch; `checkpoint` reads
its tensors. The descriptions of learned loss networks (`weight_files`) are read here too.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, cast

from safetensors import SafetensorError, safe_open

from fast_style import __version__
from fast_style.core.errors import UserError, printable, shown
from fast_style.core.files import LONGEST_HEADER_BYTES, header_length, what_it_looks_like
from fast_style.styles.shipped import model_hint

FORMAT_VERSION = 1
"""The format of checkpoints, and of the models that training writes."""

NARROW_FORMAT_VERSION = 2
"""The format of models that come with fast-style, whose weights have 8 or 16 bits (`narrow`)."""

NO_DIGEST = "0" * 64
"""Takes the place of the digest in the file while the digest is computed."""

MOST_GRAIN = 32.0
"""Levels of 255, the strongest grain (`networks.grain`); it is seen as spots."""

_LARGEST_BYTES = 1 << 30  # a network of width 128 with Adam's state is a quarter of this
_DIGEST_PLACE = re.compile(rb'"sha256":"([0-9a-f]{64})"')


class CheckpointError(UserError):
    """A file is not a usable model or checkpoint."""


class ModelFile(NamedTuple):
    """The bytes of an undamaged file, and the description in its header."""

    data: bytes
    metadata: dict[str, Any]


def read_model_file(path: Path) -> ModelFile:
    """The bytes and the description of a file, after checking its digest and its format version.

    Raises:
        CheckpointError: it is missing, damaged, of another kind or of a newer format.
    """
    data = _read_bytes(path)
    place = digest_place(data)
    if place is None:
        raise CheckpointError(f"{printable(path)}: is not a fast-style model ({_looks_like(data)})")
    if header_length(data) > LONGEST_HEADER_BYTES:
        raise CheckpointError(
            f"{printable(path)}: is not a fast-style model (its header has "
            f"{header_length(data)} bytes; at "
            f"most {LONGEST_HEADER_BYTES})"
        )
    blank = data[: place.start(1)] + NO_DIGEST.encode() + data[place.end(1) :]
    if hashlib.sha256(blank).hexdigest() != place[1].decode():
        raise CheckpointError(
            f"{printable(path)}: is damaged: its contents do not match the digest it was "
            "written with; use "
            "another copy"
        )
    try:
        header = json.loads(data[8 : 8 + header_length(data)])
        metadata = json.loads(header["__metadata__"]["fast_style"])
        version = metadata["format"]
        if type(version) is not int or version < FORMAT_VERSION:
            raise ValueError(f"format {shown(version)}")
    # RecursionError: JSON nested a thousand levels deep
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{printable(path)}: is not a fast-style model ({error})") from None
    if version > NARROW_FORMAT_VERSION:
        raise CheckpointError(
            f"{printable(path)}: has format {version}, written by fast-style "
            f"{metadata.get('fast_style')}; "
            f"this is {__version__}, which reads formats up to {NARROW_FORMAT_VERSION}. Upgrade "
            "fast-style"
        )
    return ModelFile(data, metadata)


def read_description(path: Path) -> dict[str, Any]:
    """The description of a model or checkpoint, checked as `read_model_file` checks it.

    Raises:
        CheckpointError: see `read_model_file`; also when the description is incomplete.
    """
    metadata = read_model_file(path).metadata
    require_description(metadata, path)
    return metadata


def require_description(metadata: Mapping[str, Any], path: Path) -> None:
    """Check that a description has every entry that `describe` shows.

    Raises:
        CheckpointError: it is incomplete.
    """
    require_step(metadata, path)
    try:
        describe(metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{printable(path)}: its description is incomplete or wrong ({error})"
        ) from None


def require_step(metadata: Mapping[str, Any], path: Path) -> None:
    """Check that a description says after how many steps the file was written.

    Raises:
        CheckpointError: it does not.
    """
    step = metadata.get("step")
    if type(step) is not int or step < 0:
        raise CheckpointError(
            f"{printable(path)}: its description is incomplete or wrong (step must be a number of "
            f"steps, got {shown(step)})"
        )


def grain_of(metadata: Mapping[str, Any]) -> float:
    """The grain, in levels of 255, that the model asks for on photos; 0 in most models."""
    return require_grain(metadata.get("grain", 0))


def require_grain(levels: object) -> float:
    """Levels of grain as a number, after checking that they are one from 0 to `MOST_GRAIN`.

    Raises:
        TypeError: they are no number.
        ValueError: they are outside of this range.
    """
    if isinstance(levels, bool) or not isinstance(levels, Real):
        raise TypeError(f"grain must be a number, got {shown(levels)}")
    if not 0 <= cast("float", levels) <= MOST_GRAIN:
        raise ValueError(f"grain must be from 0 to {MOST_GRAIN:g}, got {shown(levels)}")
    return float(levels)


def describe(metadata: Mapping[str, Any]) -> list[str]:
    """The description as readable lines, for model cards and ``fast-style info``."""
    architecture, loss_network = metadata["architecture"], metadata["loss_network"]
    settings, versions = metadata["settings"], metadata["versions"]
    style_layers = ", ".join(settings["loss"]["style_layers"])
    if settings["loss"].get("style_distance") == "sliced":
        style_layers = f"whole distributions of {style_layers}"
    content_layers = ", ".join(settings["loss"]["content_layers"])
    steps, batch_size = metadata["step"], settings["train"]["batch_size"]
    crops = str(settings["data"]["crop_size"])
    if grown := settings["data"].get("grown_crop_size"):
        crops += f", later {grown},"
    return [
        f"name: {metadata['name']}",
        f"kind: {metadata.get('kind', 'model')}, format {metadata.get('format', FORMAT_VERSION)}",
        f"style: {metadata['style']['file']}, sha256 of its pixels {metadata['style']['digest']}",
        *_describe_shipped(metadata.get("card")),
        f"loss network: {loss_network['architecture']}, {loss_network['label']}, sha256 "
        f"{loss_network['digest']}",
        f"trained: {steps} of {settings['train']['steps']} steps, {steps * batch_size} crops of "
        f"{crops} pixels from {metadata['photos']['count']} photos",
        f"content: {content_layers}, weight {settings['loss']['content_weight']:g}; style: "
        f"{style_layers}, weight {settings['loss']['style_weight']:g}; total variation: weight "
        f"{settings['loss']['tv_weight']:g} ({settings['loss']['normalization']})",
        f"network: width {architecture['width']}, {architecture['residual_blocks']} residual "
        f"blocks, {architecture['upsampling']} up-sampling, "
        f"{'' if architecture.get('antialiased') else 'not '}antialiased, tanh scale "
        f"{architecture['tanh_scale']:g}",
        *_describe_grain(grain_of(metadata)),
        f"license: {metadata['license']}",
        f"made with: fast-style {versions['fast_style']}, torch {versions['torch']}",
    ]


def _describe_grain(levels: float) -> list[str]:
    return [f"grain: {levels:g} of 255 is added to photos"] if levels else []


def _describe_shipped(card: Mapping[str, Any] | None) -> list[str]:
    if card is None:
        return []
    words = [card[key] for key in ("title", "artist", "year", "source")]
    if not all(isinstance(word, str) for word in words):
        raise TypeError(f"card: must be texts, got {words}")
    return [f"picture: {', '.join(words[:-1])}, from {words[-1]}"]


def describe_learned(path: Path) -> list[str] | None:
    """The description, as readable lines, of a loss network that ``fast-style distill`` wrote.

    None for every other file, readable or not.

    Raises:
        UserError: the description is incomplete.
    """
    metadata = metadata_of_learned(path)
    if metadata is None:
        return None
    try:
        return _describe_card(json.loads(metadata["card"]), metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{printable(path)}: its description is incomplete or wrong ({error})"
        ) from None


def metadata_of_learned(path: Path) -> Mapping[str, str] | None:
    """The metadata of a loss network that ``fast-style distill`` wrote, ``card`` among them.

    None for every other file, readable or not.
    """
    try:
        with path.open("rb") as file:
            if header_length(file.read(8)) > LONGEST_HEADER_BYTES:
                return None
        with safe_open(path, framework="numpy") as tensors:
            metadata: dict[str, str] = tensors.metadata() or {}
    except (OSError, SafetensorError):
        return None
    return metadata if "card" in metadata else None


def _describe_card(card: dict[str, Any], metadata: Mapping[str, str]) -> list[str]:
    student, teacher, versions = card["settings"]["student"], card["teacher"], card["versions"]
    data = {kind: card[kind] for kind in ("photos", "paintings")}
    return [
        f"name: {card['name']}",
        "kind: loss network, learned from another one by fast-style distill",
        f"teacher: {teacher['architecture']}, {teacher['source']}, sha256 {teacher['digest']}",
        f"channels: {', '.join(map(str, student['widths']))} in its blocks, up to "
        f"{student['deepest']}",
        f"input: {metadata['preprocessing']}, padding {metadata['padding']}",
        f"trained: {card['step']} of {card['settings']['train']['steps']} steps",
        *(
            f"on {found['count']} {kind}, sha256 of the list {found['digest']}"
            for kind, found in data.items()
        ),
        *(
            f"relative squared error on held-out {name}: {_describe_errors(agreement)}"
            for name, agreement in card.get("held_out", {}).items()
        ),
        f"made with: fast-style {versions['fast_style']}, torch {versions['torch']}",
    ]


def _describe_errors(agreement: Mapping[str, float]) -> str:
    return ", ".join(
        f"{key.removeprefix('error/')} {value:.3f}"
        for key, value in agreement.items()
        if key.startswith("error/")
    )


# --- Bytes --------------------------------------------------------------------------------------


def digest_place(data: bytes) -> re.Match[bytes] | None:
    """The place of the digest in a file, as group 1 of a match; None if the file has no digest."""
    # The JSON description escapes its quotes, so it cannot contain the bare key.
    length = header_length(data)
    if length > len(data) - 8:
        return None
    return _DIGEST_PLACE.search(data, 8, 8 + length)


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise CheckpointError(f"{printable(path)}: not found{model_hint(path)}")
        if not path.is_file():
            raise CheckpointError(f"{printable(path)}: is not a file; give a model.safetensors")
        size = path.stat().st_size
        if size > _LARGEST_BYTES:
            raise CheckpointError(
                f"{printable(path)}: is too large for a model ({size} bytes; at most "
                f"{_LARGEST_BYTES})"
            )
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{printable(path)}: cannot be read ({error.strerror})") from None


def _looks_like(data: bytes) -> str:
    if data.startswith((b"PK\x03\x04", b"\x80")):
        return "it looks like a .pth of another project"
    if data[8:9] == b"{":
        return "it is truncated, or a safetensors file of another project"
    return what_it_looks_like(data[:512])
