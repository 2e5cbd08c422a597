"""The file format without torch: whatever is damaged, or not ours, is refused and never run."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_model import tiny_description, write_tiny_model

from fast_style import __version__
from fast_style.models import model_files
from fast_style.models.checkpoint import save_checkpoint
from fast_style.models.model_files import (
    CheckpointError,
    describe,
    read_description,
    read_model_file,
)

ARCHITECTURE = {"width": 1, "residual_blocks": 1, "upsampling": "resize", "tanh_scale": 127.5}


def write_forged(path: Path, description: str) -> None:
    """A file with a right digest and any description, as a forger could make it."""
    blank = "0" * 64
    data = safetensors.torch.save(
        {"model.x": torch.zeros(1)}, {"fast_style": description, "sha256": blank}
    )
    digest = hashlib.sha256(data).hexdigest()
    path.write_bytes(data.replace(f'"sha256":"{blank}"'.encode(), f'"sha256":"{digest}"'.encode()))


def write_hole(path: Path) -> None:
    """A file one byte longer than allowed, which takes no space."""
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)


def write_with_a_flipped_weight(path: Path) -> None:
    data = bytearray(write_tiny_model(path).read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def containing(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


# --- Messages -----------------------------------------------------------------------------------

OTHER = "is not a fast-style model ({})".format


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "not found; give a model.safetensors of a training run"),
        (Path.mkdir, "is not a file; give a model.safetensors"),
        (write_hole, "is too large for a model (1073741825 bytes; at most 1073741824)"),
        (containing(b""), OTHER("it is empty")),
        (containing(b"  \n<!DOCTYPE html><html>"), OTHER("it is a web page")),
        (containing(b"<html>"), OTHER("it is a web page")),
        (
            containing(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
            OTHER("a Git LFS pointer: run git lfs pull"),
        ),
        (containing(b"PK\x03\x04 and so on"), OTHER("it looks like a .pth of another project")),
        (containing(os.urandom(5)), OTHER("damaged, or of another format")),
        (containing(b"\x01" * 3000), OTHER("damaged, or of another format")),
        (
            containing(safetensors.torch.save({"x": torch.zeros(2)})),
            OTHER("it is truncated, or a safetensors file of another project"),
        ),
        (
            write_with_a_flipped_weight,
            "is damaged: its contents do not match the digest it was written with; use another "
            "copy",
        ),
        (
            lambda path: write_forged(path, '{"format": 3, "fast_style": "9.0"}'),
            f"has format 3, written by fast-style 9.0; this is {__version__}, which reads formats "
            "up to 2. Upgrade fast-style",
        ),
        (
            lambda path: write_forged(path, '{"format": 1, "step": 1}'),
            "its description is incomplete or wrong ('architecture')",
        ),
        (
            lambda path: write_forged(path, '{"format": 1, "step": "ten"}'),
            "its description is incomplete or wrong (step must be a number of steps, got 'ten')",
        ),
        (
            lambda path: write_forged(path, " " * (4 << 20)),
            OTHER("its header has 4194480 bytes; at most 4194304"),
        ),
    ],
    ids=[
        *("missing", "folder", "enormous", "empty", "doctype", "html", "lfs", "zip", "short"),
        *("long", "safetensors", "flipped weight", "newer", "incomplete", "no step", "long header"),
    ],
)
def test_message_about_a_file_that_is_refused(
    tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "m"
    write(path)
    with pytest.raises(CheckpointError) as caught:
        read_description(path)
    assert str(caught.value) == f"{path}: {message}"
    assert caught.value.exit_code == 2


# --- Damage and forgery -------------------------------------------------------------------------


def test_every_flipped_byte_and_every_truncation_is_refused(tmp_path: Path) -> None:
    undamaged, damaged = tmp_path / "undamaged", tmp_path / "damaged"
    save_checkpoint(undamaged, {"model.x": torch.arange(4.0)}, {"step": 1})
    data = undamaged.read_bytes()
    assert read_model_file(undamaged).data == data
    flipped = (
        data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        for place in range(len(data))
    )
    truncated = (data[:length] for length in range(len(data)))
    for contents in (*flipped, *truncated, data + b"\0"):
        damaged.write_bytes(contents)
        with pytest.raises(CheckpointError):
            read_model_file(damaged)


@pytest.mark.parametrize(
    "description",
    ["", "[]", "1", "{}", '{"format": "x"}', '{"format": null}', "[" * 100_000, '{"format": 1}'],
)
def test_forged_description_is_refused(tmp_path: Path, description: str) -> None:
    write_forged(tmp_path / "m", description)
    with pytest.raises(CheckpointError):
        read_description(tmp_path / "m")


def test_description_cannot_move_the_digest(tmp_path: Path) -> None:
    fake = '"sha256":"' + "1" * 64 + '"'
    save_checkpoint(tmp_path / "a", {"x": torch.zeros(1)}, {"a": fake, fake: 1, "sha256": "2" * 64})
    assert read_model_file(tmp_path / "a").metadata[fake] == 1


def test_description_is_read_as_it_was_written(tmp_path: Path) -> None:
    metadata = tiny_description(ARCHITECTURE)
    save_checkpoint(tmp_path / "m", {}, metadata)
    found = read_description(tmp_path / "m")
    assert found == {"format": 1, "fast_style": __version__, **json.loads(json.dumps(metadata))}


def test_format_versions_are_one_and_two() -> None:
    # A change needs a reader for files of the old version, and a fixture that is one.
    assert (model_files.FORMAT_VERSION, model_files.NARROW_FORMAT_VERSION) == (1, 2)


CARD = {"title": "The Wave", "artist": "Hokusai", "year": "1831", "source": "a museum"}


def test_description_of_a_shipped_model_names_its_picture(tmp_path: Path) -> None:
    metadata = tiny_description(ARCHITECTURE)
    save_checkpoint(tmp_path / "m", {}, metadata | {"card": CARD})
    lines = describe(read_description(tmp_path / "m"))
    assert "picture: The Wave, Hokusai, 1831, from a museum" in lines
    assert not any(line.startswith("picture:") for line in describe(metadata))


@pytest.mark.parametrize(
    ("distance", "is_told"), [("sliced", True), ("gram", False), (None, False)]
)
def test_description_says_what_is_compared_with_the_style(
    distance: str | None, is_told: bool
) -> None:
    metadata = tiny_description(ARCHITECTURE)
    loss = dict(metadata["settings"]["loss"])
    loss.pop("style_distance", None)  # as in files of earlier versions
    loss |= {} if distance is None else {"style_distance": distance}
    settings = metadata["settings"] | {"loss": loss}
    (line,) = [line for line in describe(metadata | {"settings": settings}) if "; style: " in line]
    assert ("; style: whole distributions of relu" in line) == is_told


def test_grain_is_told_where_a_model_asks_for_it(tmp_path: Path) -> None:
    description = tiny_description(ARCHITECTURE)
    assert not any("grain" in line for line in describe(description))
    assert "grain: 5 of 255 is added to photos" in describe(description | {"grain": 5.0})


@pytest.mark.parametrize("grain", [-1, 33, "5", None, True, float("nan"), 10**400, [5]])
def test_grain_of_another_kind_is_refused(tmp_path: Path, grain: Any) -> None:
    save_checkpoint(tmp_path / "m", {}, tiny_description(ARCHITECTURE) | {"grain": grain})
    with pytest.raises(
        CheckpointError, match=r"its description is incomplete or wrong \(grain must be"
    ):
        read_description(tmp_path / "m")


@pytest.mark.parametrize("card", [{}, "The Wave", {**CARD, "year": 1831}, 3])
def test_card_of_another_kind_is_refused(tmp_path: Path, card: Any) -> None:
    save_checkpoint(tmp_path / "m", {}, tiny_description(ARCHITECTURE) | {"card": card})
    with pytest.raises(CheckpointError, match="its description is incomplete"):
        read_description(tmp_path / "m")
