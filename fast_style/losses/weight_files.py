"""Files with the weights of a VGG, read into convolutions by number.

Knows torchvision's state dicts (.pth, .safetensors), MatConvNet's networks (.mat) and Keras's
weights (.h5). Whether the convolutions fit together, and what they are used for, is for
`loss_network` to say. Reading runs no code of a file's and follows none of its links. But a .mat
damaged with malice, or with bad luck, can crash scipy's reader, which is in C, and Python with it.
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

from fast_style.core.errors import UserError
from fast_style.core.files import atomic_write, what_it_looks_like, with_sorted_metadata
from fast_style.losses.inputs import require_weights_file
from fast_style.settings.layers import Architecture, torchvision_index


class WeightsFile(NamedTuple):
    """What a file holds, not checked, and what it says about its use.

    Attributes:
        convolutions: ``3_4`` to kernel (out, in, 3, 3) and bias (out,). They may lie in any order
            in memory, or in the file itself.
        places: ``3_4`` to what the file calls it where that is not ``conv3_4``; of all that were
            asked for.
        preprocessing: as `LossNetwork` takes it, or None for a file that does not say.
        padding: the same.
        mean: of RGB in 0..255, to be subtracted in place of the usual one.
        is_bgr: the first convolution takes blue first.
        heads: ``relu3_4`` to a matrix (C, C), of files that `write_weights_file` made.
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
    """Those of the convolutions `numbers` that a file has; its format is told by its suffix.

    Raises:
        UserError: the file is not there, damaged, or of another format.
    """
    require_weights_file(path)
    try:
        with path.open("rb") as opened:
            start = opened.read(512)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix == ".mat":
        return _read_mat(path, start, numbers)
    if path.suffix == ".h5":
        return _read_h5(path, start, numbers)
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
        path: its name.
        architecture: which VGG's layers these are.
        convolutions: as in `WeightsFile`.
        heads: likewise.
        metadata: ``preprocessing`` and ``padding``, ``mean`` (three numbers, as words) if it is
            not the usual one, and whatever people should know.

    Raises:
        OSError: it cannot be written; a file of that name is untouched.
        ValueError: a number is not finite in half precision. Such a file is never written.
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
        f"{path}: is not a readable weights file ({what_it_looks_like(start)})"
    ) from None


def _import_extra(module: str, path: Path, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"{path}: {what} are read with {module.partition('.')[0]}, which is not installed; "
            "pip install 'fast-style[weights]'"
        ) from None


def _as_torch_lays_them(kernel: NDArray[Any], bias: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """A kernel (3, 3, in, out) and its bias, as both MatConvNet and Keras store them.

    A kernel of another number of dimensions stays as it is: its shape will be refused.
    """
    if kernel.ndim == 4:
        kernel = kernel.transpose(3, 2, 0, 1)  # (out, in, 3, 3), a view
    if bias.size == max(bias.shape, default=0):
        bias = bias.reshape(-1)  # MATLAB knows no vectors: (1, out) or (out, 1)
    kernel, bias = (
        part.astype(part.dtype.newbyteorder("="), copy=False) for part in (kernel, bias)
    )
    return torch.from_numpy(kernel), torch.from_numpy(bias)


# --- torchvision's state dicts ------------------------------------------------------------------


def _read_state_dict(
    path: Path, start: bytes, architecture: Architecture, numbers: Collection[str]
) -> WeightsFile:
    tensors, metadata = _read_tensors(path, start)
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
        _said_mean(metadata, path),
        heads=heads,
    )


def _said_mean(metadata: Mapping[str, str], path: Path) -> tuple[float, float, float] | None:
    """The mean color that a file's metadata names, if it does."""
    if "mean" not in metadata:
        return None
    with suppress(ValueError):  # no numbers, or not three of them
        red, green, blue = map(float, metadata["mean"].split())
        if all(0 <= value <= 255 for value in (red, green, blue)):
            return red, green, blue
    raise UserError(
        f"{path}: its metadata says mean {metadata['mean']!r}; three numbers from 0 to 255 are "
        "needed"
    )


def _read_tensors(path: Path, start: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Named tensors of a .safetensors or .pth file, and the metadata of the former."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        is_zip = start.startswith(b"PK\x03\x04")  # what older torch wrote cannot be mapped
        # weights_only: a weights file from the internet must not be able to run code.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception:
        # Damaged pickles raise nearly everything: of 3000 mutilated files, ten kinds of error.
        # torch's own message advises to switch weights_only off: never repeat it.
        _refuse(path, start)
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a dictionary of tensors")
    return {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}, {}


# --- MatConvNet's networks ----------------------------------------------------------------------


def _read_mat(path: Path, start: bytes, numbers: Collection[str]) -> WeightsFile:
    """A SimpleNN network of MatConvNet, in any of the layouts that its models were published in.

    The present layout has `weights` in each layer and the mean color in `meta.normalization`; up to
    beta16, `normalization` stood alone and held a mean picture; before, layers had `filters` and
    `biases` (vl_simplenn_tidy.m). Kernels are (height, width, in, out) and take RGB: MatConvNet's
    import-caffe.py transposed and flipped them. Many readers swap height and width again, after a
    slip in the documentation of vl_nnconv; the numbers of the published file, compared with those
    of Keras, show that they should not.
    """
    version = start[124:128]
    if version == b"\x00\x02IM":
        raise UserError(
            f"{path}: is of MATLAB's format 7.3, which is not read here; load it in MATLAB and "
            "save it again with save(..., '-v7')"
        )
    if version != b"\x00\x01IM":  # another one is big-endian, or no MATLAB file at all
        _refuse(path, start)
    matlab = _import_extra("scipy.io.matlab", path, "MatConvNet's networks")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", matlab.MatReadWarning)  # of variables it cannot read
            variables = matlab.loadmat(
                path,
                appendmat=False,
                mat_dtype=True,  # whole numbers are stored small, whatever their type
                variable_names=["layers", "normalization", "meta"],
            )
    except Exception:  # zlib's, numpy's, scipy's: whatever damage leads to
        _refuse(path, start)
    layers = variables.get("layers")
    if not isinstance(layers, np.ndarray) or layers.dtype != object:
        raise UserError(f"{path}: holds no network of MatConvNet (a cell array named layers)")
    convolutions = _mat_convolutions(layers, numbers)
    mean = _mat_mean(variables, path)
    return WeightsFile(convolutions, {}, "caffe" if mean is not None else None, mean=mean)


def _mat_convolutions(
    layers: NDArray[Any], numbers: Collection[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Found by their names: nothing depends on what stands between them."""
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
    """The mean color of the pictures that the network was trained with, if the file has one."""
    in_meta = _field(variables.get("meta"), "normalization")
    mean = _field(variables.get("normalization", in_meta), "averageImage")
    if mean is None:
        return None
    if _is_numbers(mean) and mean.ndim == 3 and mean.shape[2] == 3 and mean.size > 0:
        mean = mean.mean(axis=(0, 1), dtype=np.float64)  # of a picture
    if not (_is_numbers(mean) and mean.size == 3 and ((mean >= 0) & (mean <= 255)).all()):
        raise UserError(
            f"{path}: its averageImage is no mean color: (height, width, 3) or 3 numbers from 0 to "
            "255 are needed"
        )
    red, green, blue = (float(value) for value in mean.flat)
    return red, green, blue


def _field(struct: Any, name: str) -> Any:
    """What MATLAB's struct.name is, text as str; None where there is none."""
    is_struct = isinstance(struct, np.ndarray) and struct.dtype.names and struct.size == 1
    if not is_struct or name not in struct.dtype.names:
        return None
    value = struct[name].item()
    is_text = isinstance(value, np.ndarray) and value.dtype.kind == "U" and value.size == 1
    return value.item() if is_text else value


def _is_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiu"


# --- Keras's weights ----------------------------------------------------------------------------

# VGG's largest convolution, 512 to 512 channels, has 9.4 MB; its first dense layer, 411 MB.
_LARGEST_ARRAY_BYTES = 2**25


def _read_h5(path: Path, start: bytes, numbers: Collection[str]) -> WeightsFile:
    """Keras's VGG, whose `preprocess_input` is `caffe`'s, with blue first.

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
        raise UserError(f"{path}: {error}") from None
    except Exception:
        _refuse(path, start)
    return WeightsFile(convolutions, places, "caffe", is_bgr=True)


def _h5_arrays(group: Any, name: str, depth: int = 0) -> dict[str, NDArray[Any]]:
    """`kernel` and `bias` of a layer: in its group, or in a group of the same name in there.

    Raises:
        UserError: something in the group is not stored in this file.
    """
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        return {}
    if not isinstance(link, h5py.HardLink):
        raise UserError(f"{name} is a link; weights must be in the file itself")
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
        raise UserError(f"{name} is stored in another file; weights must be in the file itself")
    if found.nbytes > _LARGEST_ARRAY_BYTES:
        return {}
    return {{"W": "kernel", "b": "bias"}.get(match[1], match[1]): found[()]}
