"""Files with the weights of a VGG, read into convolutions by number.

Formats: torchvision's state dicts (.pth, .safetensors), MatConvNet's networks (.mat) and Keras's
weights (.h5). `loss_network` checks whether the convolutions fit together. Reading runs no code of
a file and follows none of its links. But a .mat that is damaged, by chance or on purpose, can crash
scipy's reader, which is in C, and Python with it.
"""

import importlib
import re
import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from fast_style.core.errors import UserError, printable
from fast_style.core.files import (
    LONGEST_HEADER_BYTES,
    atomic_write,
    header_length,
    pointer_in,
    what_it_looks_like,
    with_sorted_metadata,
)
from fast_style.core.free_memory import ran_out_of_memory
from fast_style.settings.layers import Architecture, torchvision_index


class WeightsFile(NamedTuple):
    """The contents of a file, unchecked, and what it says about their use.

    Attributes:
        convolutions: ``3_4`` to kernel (out, in, 3, 3) and bias (out,). Their memory may have any
            layout, and may be the mapped file.
        places: ``3_4`` to the file's own name of that layer, for all that were asked for; empty if
            the file calls it ``conv3_4``.
        preprocessing: as `loss_network.Weights` has it, or None if the file does not say.
        padding: likewise.
        mean: of RGB in 0..255, subtracted instead of the usual one.
        is_bgr: whether the first convolution takes blue first.
        heads: ``relu3_4`` to a matrix (C, C), in files that `write_weights_file` made.
    """

    convolutions: dict[str, tuple[Tensor, Tensor]]
    places: dict[str, str]
    preprocessing: str | None = None
    padding: str | None = None
    mean: tuple[float, float, float] | None = None
    is_bgr: bool = False
    heads: Mapping[str, Tensor] = MappingProxyType({})


def read_weights_file(
    path: Path, architecture: Architecture, numbers: Collection[str]
) -> WeightsFile:
    """The convolutions among `numbers` (such as ``3_4``) that a file has, and their metadata.

    The file's suffix decides about its format. From .mat and .h5 files, conv3_4 is read in any
    case.

    Raises:
        UserError: the file cannot be read, is damaged, or of another format.
        MemoryError: it does not fit into memory; also RuntimeError or SystemError.
    """
    try:
        with path.open("rb") as opened:
            start = opened.read(512)
    except OSError as error:
        raise UserError(f"{printable(path)}: cannot be read ({error.strerror})") from None
    if pointer_in(start):
        _refuse(path, start)
    # Where layers have names, VGG-19 has those of VGG-16 and others between them: `loss_network`
    # tells the two apart by conv3_4.
    names = dict.fromkeys([*numbers, "3_4"])
    if path.suffix == ".mat":
        return _read_mat(path, start, names)
    if path.suffix == ".h5":
        return _read_h5(path, start, names)
    return _read_state_dict(path, start, architecture, numbers)


def write_weights_file(
    path: Path,
    architecture: Architecture,
    convolutions: Mapping[str, tuple[Tensor, Tensor]],
    heads: Mapping[str, Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a .safetensors file, in half precision, that `read_weights_file` reads.

    Args:
        path: the file.
        architecture: the VGG whose layers these are.
        convolutions: as in `WeightsFile`.
        heads: likewise.
        metadata: ``preprocessing`` and ``padding``; ``mean`` (three numbers with spaces between) if
            it is not the usual one; anything else for people.

    Raises:
        OSError: the file cannot be written; an older one is untouched.
        ValueError: a number is not finite in half precision; nothing is written.
    """
    tensors = {f"heads.{layer}": head for layer, head in heads.items()}
    for number, (kernel, bias) in convolutions.items():
        index = torchvision_index(f"conv{number}", architecture)
        tensors |= {f"features.{index}.weight": kernel, f"features.{index}.bias": bias}
    ready = {name: tensor.detach().cpu().half().contiguous() for name, tensor in tensors.items()}
    for name, tensor in ready.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has numbers that are not finite in half precision")
    with atomic_write(path) as file:
        file.write(with_sorted_metadata(safetensors.torch.save(ready, dict(metadata))))


def _refuse(path: Path, start: bytes) -> NoReturn:
    raise UserError(
        f"{printable(path)}: is not a readable weights file ({what_it_looks_like(start)})"
    ) from None


def _require_memory(error: Exception, path: Path) -> None:
    """Raise an error again if it says nothing about the file, because memory ran out."""
    if ran_out_of_memory(error, path):
        raise error


def _import_extra(module: str, path: Path, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise UserError(
            f"{printable(path)}: {what} are read with {module.partition('.')[0]}, which is not "
            "installed; "
            "pip install 'fast-style[weights]'"
        ) from None


def _as_torch_lays_them(kernel: NDArray[Any], bias: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """A kernel (out, in, 3, 3) and bias (out,), from MatConvNet's or Keras's (3, 3, in, out).

    A kernel with another number of dimensions is not changed: `loss_network` refuses its shape.
    """
    if kernel.ndim == 4:
        kernel = kernel.transpose(3, 2, 0, 1)  # (out, in, 3, 3), a view
    if bias.size == max(bias.shape, default=0):
        bias = bias.reshape(-1)  # MATLAB has no vectors, but (1, out) or (out, 1)
    kernel, bias = (
        part.astype(part.dtype.newbyteorder("="), copy=False) for part in (kernel, bias)
    )
    return torch.from_numpy(kernel), torch.from_numpy(bias)


# VGG-19 with batch norm has 118. A forged header could name millions of empty ones, of a kB each.
_MOST_TENSORS = 1000

# --- torchvision's state dicts ------------------------------------------------------------------


def _read_state_dict(
    path: Path, start: bytes, architecture: Architecture, numbers: Collection[str]
) -> WeightsFile:
    tensors, metadata = _read_tensors(path, start)
    if "fast_style" in metadata:  # the key of `models.model_files`
        raise UserError(
            f"{printable(path)}: is a model that fast-style trained, or a checkpoint of one, and "
            "no loss network; name a file of VGG's weights"
        )
    convolutions, places = {}, {}
    for number in numbers:
        index = torchvision_index(f"conv{number}", architecture)
        places[number] = f"features.{index}"
        kernel, bias = (
            tensors.get(f"features.{index}.{part}", tensors.get(f"{index}.{part}"))
            for part in ("weight", "bias")
        )
        if kernel is not None and bias is not None:
            convolutions[number] = (kernel, bias)
    heads = {
        key.removeprefix("heads."): tensor
        for key, tensor in tensors.items()
        if key.startswith("heads.")
    }
    return WeightsFile(
        convolutions,
        places,
        metadata.get("preprocessing"),
        metadata.get("padding"),
        _mean_in_metadata(metadata, path),
        heads=heads,
    )


def _mean_in_metadata(metadata: Mapping[str, str], path: Path) -> tuple[float, float, float] | None:
    """The mean color in a file's metadata, or None."""
    if "mean" not in metadata:
        return None
    with suppress(ValueError):  # no numbers, or not three of them
        red, green, blue = map(float, metadata["mean"].split())
        if all(0 <= value <= 255 for value in (red, green, blue)):
            return red, green, blue
    raise UserError(
        f"{printable(path)}: its metadata has mean {metadata['mean']!r}; it must be three "
        "numbers from 0 to "
        "255"
    )


def _read_tensors(path: Path, start: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Named tensors of a .safetensors or .pth file, and the metadata of the former."""
    try:
        if path.suffix == ".safetensors":
            if header_length(start) > LONGEST_HEADER_BYTES:
                _refuse(path, start)
            with safe_open(path, framework="pt") as file:
                keys = file.keys()
                if len(keys) > _MOST_TENSORS:
                    _refuse(path, start)
                return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}
        is_zip = start.startswith(b"PK\x03\x04")  # files of older torch cannot be mapped
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of newer pickles, whose tensors it reads
            # weights_only: a weights file from the internet must not run code.
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:
        _require_memory(error, path)
        # Damaged pickles raise nearly any error: 3000 mutilated files raised ten kinds. torch's own
        # message, which advises to switch weights_only off, is not repeated.
        _refuse(path, start)
    if not isinstance(loaded, dict):
        raise UserError(
            f"{printable(path)}: holds a {type(loaded).__name__}, not a dictionary of tensors"
        )
    return {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}, {}


# --- MatConvNet's networks ----------------------------------------------------------------------


def _read_mat(path: Path, start: bytes, numbers: Collection[str]) -> WeightsFile:
    """A SimpleNN network of MatConvNet, in each of the layouts of its published models.

    The present layout has `weights` in each layer and the mean color in `meta.normalization`. Up to
    beta16, `normalization` was a variable of its own and held a mean picture. Before, layers had
    `filters` and `biases` (vl_simplenn_tidy.m). Kernels are (height, width, in, out) and take RGB:
    MatConvNet's import-caffe.py transposed and flipped them. Many readers swap height and width
    again, after a slip in the documentation of vl_nnconv; the published file agrees with Keras's
    without that.
    """
    version = start[124:128]
    if version == b"\x00\x02IM":
        raise UserError(
            f"{printable(path)}: has MATLAB's format 7.3, which is not supported; load it in "
            "MATLAB and save "
            "it again with save(..., '-v7')"
        )
    if version != b"\x00\x01IM":  # big-endian, or no MATLAB file
        _refuse(path, start)
    matlab = _import_extra("scipy.io.matlab", path, "MatConvNet's networks")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", matlab.MatReadWarning)  # a variable cannot be read
            variables = matlab.loadmat(
                path,
                appendmat=False,
                mat_dtype=True,  # else whole numbers keep the small type that stores them
                variable_names=["layers", "normalization", "meta"],
            )
    except Exception as error:  # damage raises errors of zlib, numpy or scipy
        _require_memory(error, path)
        _refuse(path, start)
    layers = variables.get("layers")
    if not isinstance(layers, np.ndarray) or layers.dtype != object:
        raise UserError(
            f"{printable(path)}: has no cell array named layers, so it is no network of "
            "MatConvNet; choose "
            "another file"
        )
    convolutions = _mat_convolutions(layers, numbers)
    mean = _mat_mean(variables, path)
    return WeightsFile(convolutions, {}, "caffe" if mean is not None else None, mean=mean)


def _mat_convolutions(
    layers: NDArray[Any], numbers: Collection[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """The convolutions `numbers`, found by their names; other layers may be anywhere."""
    wanted = {("conv", f"conv{number}"): number for number in numbers}
    convolutions = {}
    for layer in layers.flat:
        number = wanted.get((str(_field(layer, "type")), str(_field(layer, "name"))))
        weights = _field(layer, "weights")
        is_cell = isinstance(weights, np.ndarray) and weights.dtype == object
        parts = [*weights.flat] if is_cell else [_field(layer, "filters"), _field(layer, "biases")]
        if number is not None and len(parts) == 2 and all(map(_is_numbers, parts)):
            convolutions[number] = _as_torch_lays_them(*parts)
    return convolutions


def _mat_mean(variables: dict[str, Any], path: Path) -> tuple[float, float, float] | None:
    """The mean color of the network's training pictures, RGB in 0..255, or None.

    Raises:
        UserError: the file's mean is not a color.
    """
    in_meta = _field(variables.get("meta"), "normalization")
    mean = _field(variables.get("normalization", in_meta), "averageImage")
    if mean is None:
        return None
    if _is_numbers(mean) and mean.ndim == 3 and mean.shape[2] == 3 and mean.size > 0:
        mean = mean.mean(axis=(0, 1), dtype=np.float64)  # of a mean picture
    if not (_is_numbers(mean) and mean.size == 3 and ((mean >= 0) & (mean <= 255)).all()):
        raise UserError(
            f"{printable(path)}: its averageImage is no mean color; it must be (height, width, "
            "3) or 3 "
            "numbers from 0 to 255"
        )
    red, green, blue = (float(value) for value in mean.flat)
    return red, green, blue


def _field(struct: Any, name: str) -> Any:
    """The value of MATLAB's struct.name, text as str; None if there is none."""
    is_struct = isinstance(struct, np.ndarray) and struct.dtype.names and struct.size == 1
    if not is_struct or name not in struct.dtype.names:
        return None
    value = struct[name].item()
    is_text = isinstance(value, np.ndarray) and value.dtype.kind == "U" and value.size == 1
    return value.item() if is_text else value


def _is_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiu"


# --- Keras's weights ----------------------------------------------------------------------------

# Larger arrays are not read: VGG's largest convolution has 9.4 MB, its first dense layer 411 MB.
_LARGEST_ARRAY_BYTES = 2**25


def _read_h5(path: Path, start: bytes, numbers: Collection[str]) -> WeightsFile:
    """Keras's VGG. Its `preprocess_input` is that of ``caffe``, with blue first.

    Kernels are (height, width, in, out).
    """
    if not start.startswith(b"\x89HDF\r\n\x1a\n"):
        _refuse(path, start)
    h5py = _import_extra("h5py", path, "Keras's weights")
    places = {number: f"block{number[0]}_conv{number[2]}" for number in numbers}
    convolutions = {}
    try:
        with h5py.File(path, "r") as file:
            for number, place in places.items():
                parts = _h5_arrays(file, place)
                if {"kernel", "bias"} <= parts.keys():
                    convolutions[number] = _as_torch_lays_them(parts["kernel"], parts["bias"])
    except UserError as error:
        raise UserError(f"{printable(path)}: {error}") from None
    except Exception as error:
        _require_memory(error, path)
        _refuse(path, start)
    return WeightsFile(convolutions, places, "caffe", is_bgr=True)


def _h5_arrays(group: Any, name: str, depth: int = 0) -> dict[str, NDArray[Any]]:
    """`kernel` and `bias` of a layer, from its group and the groups in it, three levels deep.

    Raises:
        UserError: an array in the group is not stored in this file.
    """
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        return {}
    if not isinstance(link, h5py.HardLink):
        raise UserError(f"{name} is a link; choose a file that holds its weights itself")
    found = group[name]
    if isinstance(found, h5py.Group):
        arrays: dict[str, NDArray[Any]] = {}
        for inner in found if depth < 3 else ():
            arrays |= _h5_arrays(found, inner, depth + 1)
        return arrays
    match = re.fullmatch(r"(?:.*_)?(W|b|kernel|bias)(?:_\d+)?(?::0)?", name)
    if match is None or not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
        return {}
    if found.is_virtual or found.external:
        raise UserError(
            f"{name} is stored in another file; choose a file that holds its weights itself"
        )
    if found.nbytes > _LARGEST_ARRAY_BYTES:
        return {}
    return {{"W": "kernel", "b": "bias"}.get(match[1], match[1]): found[()]}
