"""Model files that nobody should load: foreign, forged, made to run code or to fill memory."""

import gzip
import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tiny_model import tiny_description
from torch import Tensor

from fast_style.models.model_files import NO_DIGEST
from fast_style.networks.transform_net import TransformNet

ARCHITECTURE: dict[str, Any] = {"width": 2, "residual_blocks": 1, "upsampling": "resize",
                                "antialiased": True, "tanh_scale": 127.5}  # fmt: skip


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return Path.touch, (self.sentinel,)


def signed(header: bytes, body: bytes = b"") -> bytes:
    """A file with this header, whose blank digest is filled in, as a forger could."""
    data = len(header).to_bytes(8, "little") + header + body
    blank = f'"sha256":"{NO_DIGEST}"'.encode()
    digest = f'"sha256":"{hashlib.sha256(data).hexdigest()}"'.encode()
    return data.replace(blank, digest, 1)


def forged(entries: Mapping[str, Any], body: bytes, description: Any = None) -> bytes:
    """A signed file with any entries for tensors, and a description that is as it should be."""
    if description is None:
        description = description_of()
    text = description if isinstance(description, str) else json.dumps(description)
    metadata = {"__metadata__": {"fast_style": text, "sha256": NO_DIGEST}}
    return signed(json.dumps({**metadata, **entries}, separators=(",", ":")).encode(), body)


def description_of(**changes: Any) -> dict[str, Any]:
    """What a model says of itself, with changes; a value of None removes an entry."""
    changed = {"format": 1, "fast_style": "0", **tiny_description(ARCHITECTURE), **changes}
    return {name: value for name, value in changed.items() if value is not None}


def weights() -> dict[str, Tensor]:
    """The tensors of a small model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = TransformNet(**ARCHITECTURE)
    return {f"model.{name}": tensor for name, tensor in net.state_dict().items()}


def model(tensors: Mapping[str, Tensor] | None = None, description: Any = None) -> bytes:
    """A signed file with these tensors, by default those of a model."""
    plain = safetensors.torch.save(dict(weights() if tensors is None else tensors))
    length = int.from_bytes(plain[:8], "little")
    return forged(json.loads(plain[8 : 8 + length]), plain[8 + length :], description)


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    """The entry of one tensor in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def torch_saved(value: object, *, as_zip: bool = True) -> bytes:
    """What `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=as_zip)
    return buffer.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    """A compressed archive with one file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def changed(name: str, change: Callable[[Tensor], Tensor]) -> bytes:
    """A signed model in which one tensor is another one."""
    tensors = weights()
    return model({**tensors, name: change(tensors[name]).contiguous()})


def without(name: str) -> bytes:
    """A signed model without one of its tensors."""
    return model({key: tensor for key, tensor in weights().items() if key != name})


BIAS = "model.to_rgb.conv.bias"


def foreign_files(sentinel: Path) -> dict[str, bytes]:
    """Files of other kinds, some of which make the file `sentinel` if they are unpickled."""
    return {
        "empty": b"",
        "web page": b"<!DOCTYPE html><html><body>Sign in to continue</body></html>",
        "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n",
        "text": b"not a model\n" * 1000,
        "zeros": bytes(100_000),
        "pickle": pickle.dumps(Bomb(sentinel)),
        "pickle, protocol 0": pickle.dumps(Bomb(sentinel), protocol=0),
        "torch.save": torch_saved(Bomb(sentinel)),
        "torch.save of before 1.6": torch_saved(Bomb(sentinel), as_zip=False),
        "torch.save of weights and a bomb": torch_saved({**weights(), "x": Bomb(sentinel)}),
        "stride 0": torch_saved({"features.0.weight": torch.zeros(1).expand(1 << 20, 4096)}),
        "zip of a pickle": zipped("archive/data.pkl", pickle.dumps(Bomb(sentinel))),
        "zip bomb": zipped("archive/data/0", bytes(1 << 28)),
        "zip that leaves its folder": zipped("../../escaped", b"x"),
        "gzip bomb": gzip.compress(bytes(1 << 26), 1),
        "Torch7": b"\x04\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00V 1\r\x00\x00\x00nn.Sequential",
        "GGUF": b"GGUF\x03\x00\x00\x00" + b"\xff" * 16,
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(512),
        "ONNX": b"\x08\x07\x12\x07pytorch:\x00",
        "weights of another program": safetensors.torch.save({"x": torch.zeros(2)}),
    }


def forged_headers() -> dict[str, bytes]:
    """Headers that lie about the file, or ask for memory; digests are right."""
    size = {"x": entry([2], 0, 8)}
    plain = model()
    deep = '{"format":1,"x":' + "[" * 100_000 + "]" * 100_000 + "}"
    lists = b'{"__metadata__":{"fast_style":"{}","sha256":"' + NO_DIGEST.encode() + b'"},"x":['
    return {
        "header of 2^63 bytes": (1 << 63).to_bytes(8, "little") + plain[8:],
        "header longer than the file": len(plain).to_bytes(8, "little") + plain[8:],
        "header of 60 MB": signed(lists + b"[]," * 20_000_000 + b"[]]}"),
        "nested header": signed(b'{"x":' * 100_000 + f'"sha256":"{NO_DIGEST}"'.encode()),
        "nested description": forged(size, bytes(8), deep),
        "overlapping tensors": forged({**size, "y": entry([2], 4, 12)}, bytes(12)),
        "tensors in one place": forged({**size, "y": entry([2], 0, 8)}, bytes(8)),
        "hole between tensors": forged({**size, "y": entry([2], 16, 24)}, bytes(24)),
        "tensor beyond the end": forged({"x": entry([1 << 20], 0, 1 << 22)}, bytes(8)),
        "tensor of 2^80 numbers": forged({"x": entry([1 << 40, 1 << 40], 0, 8)}, bytes(8)),
        "tensor that ends before it starts": forged({"x": entry([2], 8, 0)}, bytes(8)),
        "negative offset": forged({"x": entry([2], -8, 0)}, bytes(8)),
        "shape that does not fit": forged({"x": entry([3], 0, 8)}, bytes(8)),
        "unknown dtype": forged({"x": entry([2], 0, 8, "F33")}, bytes(8)),
        "bytes behind the tensors": forged(size, bytes(80)),
        "20,000 empty tensors": forged({f"x{k}": entry([0], 0, 0) for k in range(20_000)}, b""),
    }


def forged_descriptions() -> dict[str, bytes]:
    """Models with right weights, whose description is not that of a model; digests are right."""
    return {
        "no description": model(description=""),
        "description that is a list": model(description="[]"),
        "newer format": model(description=description_of(format=3)),
        "format that is text": model(description=description_of(format="one")),
        "infinite format": model(description='{"format": Infinity}'),
        **{
            f"{key} of {value!r}"[:60]: model(description=description_of(**{key: value}))
            for key, value in {
                "architecture": [],
                "step": "ten",
                "settings": [1],
                "photos": "many",
                "style": 7,
                "loss_network": [],
                "versions": "new",
            }.items()
        },
        **{
            f"no {key}": model(description=description_of(**{key: None}))
            for key in ("architecture", "step", "settings", "photos", "style", "loss_network")
        },
        **{
            f"{key} {value!r}": model(
                description=description_of(architecture={**ARCHITECTURE, key: value})
            )
            for key, value in (
                ("width", -1), ("width", 4), ("width", 10**9), ("residual_blocks", 10**9),
                ("upsampling", "magic"), ("tanh_scale", "loud"), ("depth", 3),
            )
        },
    }  # fmt: skip


def forged_weights() -> dict[str, bytes]:
    """Models with a right description and digest, and other weights than the network's."""
    return {
        "no tensors": model({}),
        "missing tensor": without(BIAS),
        "extra tensor": model({**weights(), "model.extra": torch.zeros(1)}),
        "wrong shape": changed(BIAS, lambda bias: torch.zeros(4)),
        "transposed kernel": changed("model.to_rgb.conv.weight", lambda kernel: kernel.mT[:, :1]),
        "large tensor": changed(BIAS, lambda bias: torch.zeros(1 << 24)),
        "float64": changed(BIAS, Tensor.double),
        "8 bits without scales": changed(BIAS, Tensor.char),
        "not a number": changed(BIAS, lambda bias: bias * torch.nan),
        "infinite": changed(BIAS, lambda bias: torch.full_like(bias, torch.inf)),
    }
