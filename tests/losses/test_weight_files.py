"""Claims about `weight_files`: MatConvNet's .mat and Keras's .h5, and what it writes.

State dicts are tested with `loss_network`.
"""

import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from hostile_files import forged_headers
from published_features import assert_published_features
from safetensors import safe_open
from scipy.io import savemat
from scipy.io.matlab import MatlabObject
from scipy.sparse import csc_matrix
from tiny_model import write_tiny_model
from torch import Tensor
from torch.nn import functional as F

from fast_style.core import free_memory
from fast_style.core.errors import UserError
from fast_style.losses import weight_files
from fast_style.losses.loss_network import LossNetwork, Weights, load_weights
from fast_style.losses.weight_files import read_weights_file, write_weights_file

MAT_LAYOUTS = ["present", "beta16", "oldest"]
H5_LAYOUTS = ["release", "nested"]
ROOT = Path(__file__).resolve().parents[2]
CAFFE_MEAN = (123.68, 116.779, 103.939)
MAT_OBJECT = MatlabObject(np.zeros((1, 1), [("name", object), ("type", object)]), "network")

Convolutions = dict[str, tuple[Tensor, Tensor]]


def small_convolutions() -> Convolutions:
    """conv1_1 to conv2_1 with unequal channels, so that no axis can be taken for another."""
    generator = torch.Generator().manual_seed(1)
    channels = {"1_1": (3, 4), "1_2": (4, 5), "2_1": (5, 6)}
    return {
        number: (
            torch.randn(after, before, 3, 3, generator=generator) / 3,
            torch.randn(after, generator=generator) / 10,
        )
        for number, (before, after) in channels.items()
    }


def cell(*items: object) -> np.ndarray:
    """A row of MATLAB's cells."""
    found = np.empty((1, len(items)), dtype=object)
    found[0, :] = items
    return found


def mat_kernel(kernel: Tensor) -> np.ndarray:
    return kernel.permute(2, 3, 1, 0).numpy()  # (height, width, in, out)


def mat_layers(convolutions: Convolutions, layout: str) -> list[dict[str, Any]]:
    """The layers of a network, with a few among them that are no convolutions of VGG's."""
    layers: list[dict[str, Any]] = []
    for number, (kernel, bias) in convolutions.items():
        parts = (mat_kernel(kernel), bias.numpy()[None])
        if layout == "present":
            parts = (parts[0], parts[1].T)
            weights = {"name": f"conv{number}", "type": "conv", "weights": cell(*parts)}
            layers.append(weights | {"pad": np.ones((1, 4)), "opts": cell(), "precious": False})
        elif layout == "beta16":
            weights = {"weights": cell(*parts), "pad": np.ones((1, 4)), "type": "conv"}
            layers.append(weights | {"name": f"conv{number}", "stride": np.ones((1, 2))})
        else:
            layers.append({"type": "conv", "name": f"conv{number}"})
            layers[-1] |= {"filters": parts[0], "biases": parts[1]}
        layers.append({"type": "relu", "name": f"relu{number}"})
    dense = np.zeros((2, 2, 5, 7), "f4")
    layers.append({"weights": cell(dense, dense[0, 0, 0]), "type": "conv", "name": "fc6"})
    return layers


def write_mat(
    path: Path,
    convolutions: Convolutions,
    layout: str = "present",
    mean: tuple[float, ...] = CAFFE_MEAN,
    *,
    compressed: bool = False,
) -> Path:
    average = np.array(mean, "f4").reshape(1, 1, 3)
    if layout != "present":  # a picture, whose pixels differ
        average = np.broadcast_to(average.astype("f8"), (224, 224, 3)).copy()
        average[:112] += 1.5
        average[112:] -= 1.5
    normalization = {"imageSize": np.array([[224.0, 224, 3]]), "averageImage": average}
    classes = {"name": cell("n01440764"), "description": cell("tench, Tinca tinca")}
    variables: dict[str, Any] = {"normalization": normalization, "classes": classes}
    if layout == "present":
        variables = {"meta": variables}
    variables["layers"] = cell(*mat_layers(convolutions, layout))
    savemat(path, variables, do_compression=compressed)
    return path


def write_h5(path: Path, convolutions: Convolutions, layout: str = "release") -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"input_1", b"block1_conv1", b"block1_pool"]
        file.create_group("block1_pool")
        for number, (kernel, bias) in convolutions.items():
            if number == "1_1":
                kernel = kernel.flip(1)  # takes blue first
            name = f"block{number[0]}_conv{number[2]}"
            group = file.create_group(name)
            names = [f"{name}_W_1:0", f"{name}_b_1:0"]
            if layout == "nested":
                names = [f"{name}/kernel:0", f"{name}/bias:0"]
            group[names[0]] = kernel.permute(2, 3, 1, 0).numpy()
            group[names[1]] = bias.numpy()
    return path


def write(path: Path, convolutions: Convolutions, **options: Any) -> Path:
    return (write_mat if path.suffix == ".mat" else write_h5)(path, convolutions, **options)


@pytest.fixture(params=[".mat", ".h5"])
def small_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / f"vgg{request.param}", small_convolutions())


def load(path: Path, deepest: str = "relu2_1", **options: Any) -> Weights:
    return load_weights(str(path), "vgg19", deepest, **options)


def message_of(path: Path, deepest: str = "relu2_1", **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(path, deepest, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same_convolutions(found: Convolutions, expected: Convolutions) -> None:
    assert [*found] == [*expected]
    for number, parts in expected.items():
        for one, other in zip(found[number], parts, strict=True):
            assert torch.equal(one, other), number
            assert one.dtype == torch.float32
            assert one.is_contiguous()


# --- What is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("layout", MAT_LAYOUTS)
def test_every_layout_of_a_mat_gives_the_same_weights(
    layout: str, compressed: bool, tmp_path: Path
) -> None:
    path = write_mat(tmp_path / "vgg.mat", small_convolutions(), layout, compressed=compressed)
    weights = load(path)
    assert_same_convolutions(weights.convolutions, small_convolutions())
    assert weights.mean == pytest.approx(CAFFE_MEAN, rel=1e-7)
    assert (weights.preprocessing, weights.padding) == ("caffe", "zeros")
    assert weights.label == "vgg.mat weights"


@pytest.mark.parametrize("layout", H5_LAYOUTS)
def test_every_layout_of_an_h5_gives_the_same_weights(layout: str, tmp_path: Path) -> None:
    weights = load(write_h5(tmp_path / "vgg.h5", small_convolutions(), layout))
    assert_same_convolutions(weights.convolutions, small_convolutions())
    assert (weights.preprocessing, weights.padding, weights.mean) == ("caffe", "zeros", None)
    assert weights.label == "vgg.h5 weights"


def test_mean_of_the_file_is_subtracted(tmp_path: Path) -> None:
    mean = (129.19, 104.76, 93.59)  # VGG-Face's
    weights = load(write_mat(tmp_path / "face.mat", small_convolutions(), "beta16", mean))
    pixels = torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    kernel, bias = small_convolutions()["1_1"]
    expected = F.conv2d(pixels * 255 - torch.tensor(mean).view(1, 3, 1, 1), kernel, bias, padding=1)
    found = LossNetwork("vgg19", weights)(pixels, ["conv1_1"])["conv1_1"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    usual = LossNetwork("vgg19", weights._replace(mean=None))(pixels, ["conv1_1"])["conv1_1"]
    assert (found - usual).abs().max() > 1


def test_usual_mean_given_as_the_files_own_changes_nothing(tmp_path: Path) -> None:
    weights = load(write_h5(tmp_path / "vgg.h5", small_convolutions()))
    with_mean = LossNetwork("vgg19", weights._replace(mean=CAFFE_MEAN))
    assert torch.equal(LossNetwork("vgg19", weights).mean, with_mean.mean)


def test_only_what_is_needed_is_read(small_file: Path) -> None:
    assert [*load(small_file, "relu1_2").convolutions] == ["1_1", "1_2"]


def test_order_of_the_layers_in_a_mat_is_of_no_account(tmp_path: Path) -> None:
    path = tmp_path / "vgg.mat"
    layers = mat_layers(small_convolutions(), "present")[::-1]
    layers.insert(0, {"type": "pool", "name": "conv1_1"})
    average = {"averageImage": np.array(CAFFE_MEAN)}
    savemat(path, {"meta": {"normalization": average}, "layers": cell(*layers)})
    assert_same_convolutions(load(path).convolutions, small_convolutions())


def test_numbers_of_other_kinds_are_read(tmp_path: Path) -> None:
    double = {
        number: (kernel.double(), bias.double())
        for number, (kernel, bias) in small_convolutions().items()
    }
    for path in (tmp_path / "vgg.mat", tmp_path / "vgg.h5"):
        assert_same_convolutions(load(write(path, double)).convolutions, small_convolutions())
    with h5py.File(tmp_path / "vgg.h5", "r+") as file:
        group = file["block1_conv2"]
        kernel = group.pop("block1_conv2_W_1:0")[()]
        group.create_dataset("block1_conv2_W_1:0", data=kernel.astype(">f4"), compression="gzip")
    weights = load(tmp_path / "vgg.h5")
    assert_same_convolutions(weights.convolutions, small_convolutions())


# --- What the settings and the file say -----------------------------------------------------------


def test_preprocessing_against_the_format_is_refused(small_file: Path) -> None:
    assert load(small_file, preprocessing="caffe").preprocessing == "caffe"
    message = message_of(small_file, preprocessing="torchvision")
    assert "loss_network.preprocessing is torchvision, but these weights need caffe" in message


def test_mat_without_a_mean_must_be_told(tmp_path: Path) -> None:
    path = tmp_path / "vgg.mat"
    savemat(path, {"layers": cell(*mat_layers(small_convolutions(), "present"))})
    assert "set loss_network.preprocessing to caffe" in message_of(path)
    weights = load(path, preprocessing="torchvision")
    assert (weights.preprocessing, weights.mean) == ("torchvision", None)


@pytest.mark.parametrize(
    "average",
    [
        np.zeros((1, 2)),
        np.full((2, 2, 4), 100.0),
        np.zeros((0, 4, 3)),
        np.array([1.0, 2, np.nan]),
        np.array([1.0, 2, 256]),
        np.array([-1.0, 2, 3]),
        "red",
        cell(1.0, 2.0, 3.0),
    ],
    ids=["two", "four channels", "no pixels", "nan", "large", "negative", "text", "cell"],
)
def test_mean_that_is_no_color_is_refused(average: object, tmp_path: Path) -> None:
    path = tmp_path / "vgg.mat"
    layers = cell(*mat_layers(small_convolutions(), "present"))
    savemat(path, {"layers": layers, "normalization": {"averageImage": average}})
    assert message_of(path) == (
        f"{path}: its averageImage is no mean color; it must be (height, width, 3) or 3 numbers "
        "from 0 to 255"
    )


# --- Files that are refused ---------------------------------------------------------------------


def test_missing_deeper_layer_is_named(small_file: Path) -> None:
    name = "conv2_2" if small_file.suffix == ".mat" else "conv2_2 (block2_conv2)"
    message = message_of(small_file, "relu3_4")
    assert message.startswith(f"{small_file}: has no {name} of vgg19")
    assert "it has up to conv2_1" in message


def test_vgg19_is_not_taken_for_a_vgg16(tmp_path: Path) -> None:
    deeper = {"3_4": (torch.ones(2, 2, 3, 3), torch.ones(2))}
    for suffix in (".mat", ".h5"):
        path = write(tmp_path / f"vgg{suffix}", small_convolutions() | deeper)
        with pytest.raises(UserError) as caught:
            load_weights(str(path), "vgg16", "relu2_1")
        assert str(caught.value) == (
            f"{path}: has a conv3_4, so it is a vgg19; set loss_network.architecture to vgg19"
        )
        assert_same_convolutions(load(path).convolutions, small_convolutions())


def test_wrong_shape_is_named(tmp_path: Path) -> None:
    convolutions = small_convolutions()
    kernel, bias = convolutions["1_2"]
    convolutions["1_2"] = (kernel.permute(1, 0, 2, 3), bias)
    for path, name in (
        (tmp_path / "vgg.mat", "conv1_2"),
        (tmp_path / "vgg.h5", "conv1_2 (block1_conv2)"),
    ):
        message = message_of(write(path, convolutions))
        assert message.startswith(f"{path}: {name} has the shape (4, 5, 3, 3), bias (5,);")


def test_kernels_in_the_order_of_theano_are_refused(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "vgg.h5", small_convolutions())
    with h5py.File(path, "r+") as file:
        group = file["block1_conv1"]
        kernel = group.pop("block1_conv1_W_1:0")[()]
        group["block1_conv1_W_1:0"] = kernel.transpose(3, 2, 0, 1)
    message = message_of(path)
    assert message.startswith(f"{path}: conv1_1 (block1_conv1) has the shape (3, 3, 4, 3),")


def test_model_of_a_style_is_told_from_a_loss_network(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match=r"model\.safetensors: is a model .* VGG's weights"
    ) as caught:
        load_weights(str(model), "vgg16", "relu1_2")
    assert "compact" not in str(caught.value)  # which neither a distillation nor the judge takes


@pytest.mark.parametrize("suffix", [".mat", ".h5"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>Quota exceeded</html>", "it is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer: run git lfs pull",
        ),
        (bytes(range(256)), "damaged, or of another format"),
        (bytes(1000), "damaged, or of another format"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI", "damaged, or of another format"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + bytes(9), None),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "damaged, or of another format"),
    ],
    ids=["empty", "html", "lfs", "bytes", "zeros", "big-endian", "zero element", "hdf"],
)
def test_file_that_is_no_weights_file_is_refused(
    suffix: str, content: bytes, reason: str | None, tmp_path: Path
) -> None:
    path = tmp_path / f"vgg{suffix}"
    path.write_bytes(content)
    reason = reason or "damaged, or of another format"
    assert message_of(path) == f"{path}: is not a readable weights file ({reason})"


@pytest.mark.slow
def test_header_that_would_take_much_memory_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(forged_headers()["header of 60 MB"])
    monkeypatch.setattr(weight_files, "safe_open", lambda *_, **__: pytest.fail("parsed"))
    assert message_of(path).startswith(f"{path}: ")


def test_file_of_more_tensors_than_any_vgg_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg.safetensors"
    for number, reason in ((1000, "does not state"), (1001, "is not a readable weights file")):
        safetensors.torch.save_file({f"x{k}": torch.empty(0) for k in range(number)}, path)
        assert reason in message_of(path)


def test_format_7_3_of_matlab_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vgg.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF")
    assert message_of(path) == (
        f"{path}: has MATLAB's format 7.3, which is not supported; load it in MATLAB and save it "
        "again with save(..., '-v7')"
    )


@pytest.mark.parametrize("what", ["nothing", "numbers", "struct array", "object"])
def test_mat_of_something_else_is_named(what: str, tmp_path: Path) -> None:
    path = tmp_path / "vgg.mat"
    layer = np.zeros((1, 2), [("name", object), ("type", object)])  # as in a DagNN
    layers = {
        "numbers": np.eye(3),
        "struct array": layer,
        "object": MAT_OBJECT,
    }
    savemat(path, {"x": np.eye(2)} | ({"layers": layers[what]} if what in layers else {}))
    assert message_of(path) == (
        f"{path}: has no cell array named layers, so it is no network of MatConvNet; choose "
        "another file"
    )


@pytest.mark.parametrize(
    "part",
    ["text", csc_matrix(np.eye(3)), {"x": 1.0}, cell(1.0), MAT_OBJECT],
    ids=["text", "sparse", "struct", "cell", "object"],
)
def test_kernel_that_is_no_array_of_numbers_is_missing(part: object, tmp_path: Path) -> None:
    path = tmp_path / "vgg.mat"
    layers = mat_layers(small_convolutions(), "beta16")
    layers[0]["weights"] = cell(part, np.zeros((1, 4)))
    average = {"averageImage": np.array(CAFFE_MEAN)}
    savemat(path, {"layers": cell(*layers), "normalization": average})
    message = message_of(path)
    assert message.startswith(f"{path}: has no conv1_1 of vgg19")
    assert "it has none of them" in message


def replace_kernel(path: Path, **options: Any) -> None:
    """Put something else in the place of conv1_2's kernel."""
    with h5py.File(path, "r+") as file:
        del file["block1_conv2/block1_conv2_W_1:0"]
        if "link" in options:
            file["block1_conv2/block1_conv2_W_1:0"] = options["link"]
        elif "layout" in options:
            file["block1_conv2"].create_virtual_dataset("block1_conv2_W_1:0", options["layout"])
        else:
            file["block1_conv2"].create_dataset("block1_conv2_W_1:0", **options)


@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_in_an_h5_are_not_followed(kind: str, tmp_path: Path) -> None:
    other = write_h5(tmp_path / "other.h5", small_convolutions())
    path = write_h5(tmp_path / "vgg.h5", small_convolutions())
    target = "/block1_conv2/block1_conv2_W_1:0"
    link = h5py.SoftLink("/elsewhere") if kind == "soft" else h5py.ExternalLink(str(other), target)
    replace_kernel(path, link=link)
    assert message_of(path) == (
        f"{path}: block1_conv2_W_1:0 is a link; choose a file that holds its weights itself"
    )


@pytest.mark.parametrize("kind", ["raw", "virtual"])
def test_numbers_that_an_h5_keeps_in_other_files_are_not_read(kind: str, tmp_path: Path) -> None:
    path = write_h5(tmp_path / "vgg.h5", small_convolutions())
    shape = (3, 3, 4, 5)
    if kind == "raw":
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(4 * 180))
        replace_kernel(path, shape=shape, dtype="f4", external=[(str(secret), 0, 4 * 180)])
    else:
        other = write_h5(tmp_path / "other.h5", small_convolutions())
        layout = h5py.VirtualLayout(shape, "f4")
        layout[...] = h5py.VirtualSource(str(other), "block1_conv2/block1_conv2_W_1:0", shape)
        replace_kernel(path, layout=layout)
    assert message_of(path) == (
        f"{path}: block1_conv2_W_1:0 is stored in another file; choose a file that holds its "
        "weights itself"
    )


def test_h5_that_claims_to_be_huge_is_not_believed(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "vgg.h5", small_convolutions())
    replace_kernel(path, shape=(3, 3, 4, 2**34), dtype="f4", chunks=(3, 3, 4, 64))
    message = message_of(path)
    assert message.startswith(f"{path}: has no conv1_2 (block1_conv2) of vgg19")
    assert "it has up to conv1_1" in message


@pytest.mark.parametrize(
    ("suffix", "module", "message"),
    [
        (".mat", "scipy", "MatConvNet's networks are read with scipy, which is not installed"),
        (".h5", "h5py", "Keras's weights are read with h5py, which is not installed"),
    ],
)
def test_missing_library_is_named(
    suffix: str, module: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / f"vgg{suffix}", small_convolutions())
    for name in [*sys.modules]:
        if name.partition(".")[0] == module:
            monkeypatch.setitem(sys.modules, name, None)
    assert message_of(path) == f"{path}: {message}; pip install 'fast-style[weights]'"


# --- Damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain.mat", "compressed.mat", "plain.h5"])
def test_truncated_file_is_refused(form: str, tmp_path: Path) -> None:
    path = tmp_path / form
    options = {"compressed": True} if form == "compressed.mat" else {}
    data = write(path, small_convolutions(), **options).read_bytes()
    damaged = f"{path}: is not a readable weights file (damaged, or of another format)"
    for end in range(1, len(data), max(1, len(data) // 50)):
        path.write_bytes(data[:end])
        message = message_of(path)
        is_between_variables = message.startswith(f"{path}: has no cell array named layers")
        assert message == damaged or is_between_variables, end


def load_with_flipped_bytes(path: Path, data: bytes, seed: int) -> None:
    """Load, or be refused: anything else is raised."""
    generator = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 4))):
        damaged[generator.randrange(len(data))] = generator.choice((0, 128, 255))
    path.write_bytes(damaged)
    with suppress(UserError):
        assert [*load(path).convolutions] == ["1_1", "1_2", "2_1"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain.mat", "compressed.mat", "plain.h5"])
def test_flipped_bytes_do_no_harm(form: str, tmp_path: Path) -> None:
    """Nothing but a UserError, or, for a few .mat files, a crash of scipy's reader in C."""
    path = tmp_path / form
    options = {"compressed": True} if form == "compressed.mat" else {}
    write(path, small_convolutions(), **options)
    code = (
        "import pathlib, sys, test_weight_files as t\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "for seed in range(int(sys.argv[2]), 300):\n"
        "    print(seed, flush=True)\n"
        "    t.load_with_flipped_bytes(path, pathlib.Path(sys.argv[3]).read_bytes(), seed)\n"
    )
    folders = (ROOT, ROOT / "tests", Path(__file__).parent)
    original = path.rename(tmp_path / "original")
    crashes: list[int] = []
    while True:  # a crash ends the process: on with the next file in a new one
        done = subprocess.run(
            [sys.executable, "-c", code, path, str(crashes[-1] + 1 if crashes else 0), original],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode >= 0:
            break
        crashes.append(int(done.stdout.split()[-1]))
    assert done.returncode == 0, done.stderr
    print(f"{form}: crashed in {len(crashes)} of 300 files: {crashes}")
    assert len(crashes) <= (0 if form == "plain.h5" else 15)


READERS = {
    "vgg.mat": "scipy.io.matlab.loadmat",
    "vgg.h5": "h5py.File",
    "vgg.pth": "torch.load",
    "vgg.safetensors": "fast_style.losses.weight_files.safe_open",
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "error", [MemoryError(), SystemError("unset"), RuntimeError("can't allocate memory")]
)
def test_whole_file_is_not_called_damaged_where_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    path = tmp_path / name
    path.write_bytes(
        {".mat": b"\x00\x01IM".rjust(128), ".h5": b"\x89HDF\r\n\x1a\n"}.get(path.suffix, b"")
    )

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(READERS[name], fail)
    assert "is not a readable weights file" in message_of(path)  # it claims more than there is
    monkeypatch.setattr(free_memory.mmap, "mmap", fail_to_map)
    with pytest.raises(type(error)):
        load(path)


def fail_to_map(*_: object) -> None:
    raise OSError(12, "Cannot allocate memory")


# --- Real weights -------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize("form", [*MAT_LAYOUTS, *H5_LAYOUTS])
def test_real_weights_in_other_formats_give_the_published_features(
    form: str, assets: Path, tmp_path: Path
) -> None:
    original = load_weights(
        str(assets / "weights" / "vgg19_conv3_4.pth"), "vgg19", "relu3_4", preprocessing="caffe"
    )
    # What the published imagenet-vgg-verydeep-19.mat has in conv1_1, as a tutorial prints it: the
    # axes below are its axes, and its first channel is red.
    kernel = mat_kernel(original.convolutions["1_1"][0])
    for place, numbers in {
        (0, 0, 0): [0.39416704, -0.08419707, -0.03631314],
        (0, 0, 1): [0.46418372, 0.03355668, 0.10245045],
        (0, 1, 0): [0.37740308, -0.07876257, -0.04775979],
    }.items():
        assert kernel[place][:3].tolist() == pytest.approx(numbers, abs=1e-8)
    path = tmp_path / ("vgg.mat" if form in MAT_LAYOUTS else "vgg.h5")
    weights = load(write(path, original.convolutions, layout=form), "relu3_4")
    assert_same_convolutions(weights.convolutions, original.convolutions)
    assert_published_features(weights, "vgg19_conv3_4", assets)


# --- What is written ----------------------------------------------------------------------------

SAID = {"preprocessing": "caffe", "padding": "reflect", "card": "any text"}


def small_heads() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    sizes = {"relu1_1": 4, "relu1_2": 5, "relu2_1": 6}
    return {layer: torch.randn(size, size, generator=generator) for layer, size in sizes.items()}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    write_weights_file(path, "vgg19", small_convolutions(), small_heads(), SAID)
    return path


def test_what_is_written_is_read_in_half_precision(written: Path) -> None:
    weights = load(written)
    halved = {
        number: (kernel.half().float(), bias.half().float())
        for number, (kernel, bias) in small_convolutions().items()
    }
    assert_same_convolutions(weights.convolutions, halved)
    assert [*weights.heads] == [*small_heads()]
    for layer, head in small_heads().items():
        assert torch.equal(weights.heads[layer], head.half().float())
    assert (weights.preprocessing, weights.padding, weights.mean) == ("caffe", "reflect", None)
    assert weights.label == "small.safetensors weights"


@pytest.mark.parametrize(("architecture", "index"), [("vgg16", 17), ("vgg19", 19)])
def test_tensors_are_called_as_torchvision_calls_them(
    architecture: Any, index: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    kernel = torch.ones(2, 3, 3, 3)
    write_weights_file(path, architecture, {"4_1": (kernel, kernel[:, 0, 0, 0])}, {}, SAID)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {f"features.{index}.weight", f"features.{index}.bias"}
        assert file.get_tensor(f"features.{index}.weight").dtype == torch.float16
        assert file.metadata() == SAID


def test_same_contents_give_the_same_bytes(written: Path) -> None:
    # Often, since safetensors orders its metadata by chance
    before = written.read_bytes()
    for _ in range(10):
        write_weights_file(written, "vgg19", small_convolutions(), small_heads(), SAID)
        assert written.read_bytes() == before


def test_features_deeper_than_asked_for_need_no_head(written: Path) -> None:
    assert [*load(written, "relu1_2").heads] == ["relu1_1", "relu1_2"]
    assert [*read_weights_file(written, "vgg19", ["1_1"]).heads] == [*small_heads()]


@pytest.mark.parametrize("number", [torch.nan, torch.inf, 7e4])
def test_number_that_is_not_finite_in_half_precision_is_never_written(
    written: Path, number: float
) -> None:
    before = written.read_bytes()
    convolutions = small_convolutions()
    convolutions["1_2"][0][0, 0, 0, 0] = number
    with pytest.raises(ValueError, match=r"^features\.2\.weight has numbers that are not finite"):
        write_weights_file(written, "vgg19", convolutions, small_heads(), SAID)
    heads = small_heads() | {"relu1_2": torch.full((5, 5), number)}
    with pytest.raises(
        ValueError, match=r"^heads\.relu1_2 has numbers that are not finite in half"
    ):
        write_weights_file(written, "vgg19", small_convolutions(), heads, SAID)
    assert written.read_bytes() == before
    assert [path.name for path in written.parent.iterdir()] == ["small.safetensors"]


def test_mean_in_the_metadata_is_used(written: Path) -> None:
    said = SAID | {"mean": "129.1863 104.7624 93.594"}
    write_weights_file(written, "vgg19", small_convolutions(), {}, said)
    assert load(written).mean == (129.1863, 104.7624, 93.594)


@pytest.mark.parametrize("mean", ["", "1 2", "1 2 3 4", "1 2 x", "1 2 256", "-1 2 3", "nan 1 2"])
def test_mean_in_the_metadata_that_is_none_is_refused(written: Path, mean: str) -> None:
    write_weights_file(written, "vgg19", small_convolutions(), {}, SAID | {"mean": mean})
    assert message_of(written) == (
        f"{written}: its metadata has mean {mean!r}; it must be three numbers from 0 to 255"
    )
