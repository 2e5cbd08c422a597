"""Claims about `Stylizer`: pictures and tensors in memory; whole, in bands and compiled."""

import errno
import math
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from noise_photos import noise_photo
from other_defaults import OTHER_DEFAULTS, other_defaults
from PIL import Image
from tiny_model import write_tiny_model

from fast_style.core.errors import UserError
from fast_style.models.checkpoint import load_checkpoint, save_checkpoint
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.grain import grain_pattern
from fast_style.pictures.pixels import image_to_tensor
from fast_style.pictures.reading import read_picture, to_picture
from fast_style.stylizing import memory
from fast_style.stylizing import stylizer as stylizer_module
from fast_style.stylizing.copies import DEFAULT_STROKES, LEAST_RATIO, copy_sides
from fast_style.stylizing.strokes import BATCHES, IMAGES
from fast_style.stylizing.stylizer import Stylizer

# A photo of 400 x 100 pixels takes 11.72 MB as a whole, 8.68 MB in bands of the lowest height, and
# 0.08 MB for the features between sweeps, which may lie on a disk. With --memory, it takes 0.16 MB
# itself. With alpha, photo and result take 0.04 and 0.16 MB more.
IN_BANDS = 11_000_000
ON_DISK = {"RGB": 8_850_000, "RGBA": 9_050_000}
# The longer side from which a photo gets larger strokes.
LEAST_CHANGED = int(LEAST_RATIO * DEFAULT_STROKES)


def test_model_that_is_no_path_is_an_error_of_type() -> None:
    for wrong in (None, b"model.safetensors"):
        with pytest.raises(TypeError, match=rf"^model must be .*, got {type(wrong).__name__}$"):
            Stylizer(wrong)  # type: ignore[arg-type]


def test_text_is_a_path_as_in_a_settings_file(
    stylizer: Stylizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    noise_photo(9, 7).save(tmp_path / "a.png")
    assert stylizer("~/a.png").size == (9, 7)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "none.safetensors"))):
        Stylizer("~/none.safetensors")
    for use in (Stylizer, stylizer):
        with pytest.raises(UserError, match="/a' is a URL; download it first"):
            use("https://example.org/a")


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (float("nan"), TypeError),
        ("5", TypeError),
        (True, TypeError),
        (0, ValueError),
        (-1, ValueError),
    ],
)
def test_memory_that_is_no_number_of_bytes_is_an_error(
    tmp_path: Path, wrong: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=r"^memory_bytes must be"):
        Stylizer(write_tiny_model(tmp_path / "model.safetensors"), memory_bytes=wrong)


def test_image_that_is_cut_off_is_told_with_its_file(stylizer: Stylizer, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    noise_photo(64, 64).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with Image.open(path) as image, pytest.raises(UserError, match=re.escape(str(path))):
        stylizer(image)


@pytest.mark.parametrize(("mode", "value"), [("P", "bad"), ("L", (1, 2)), ("I", (1, 2, 3))])
def test_image_whose_transparency_does_not_fit_its_mode_is_told(
    stylizer: Stylizer, mode: str, value: object
) -> None:
    image = Image.new(mode, (8, 8))
    image.info["transparency"] = value
    with pytest.raises(UserError, match=r"^the image: cannot be read \("):
        stylizer(image)


def test_array_with_a_mask_is_refused(stylizer: Stylizer) -> None:
    with pytest.raises(ValueError, match="mask"):
        stylizer(np.ma.zeros((8, 8, 3), dtype=np.uint8))


# --- Pictures and tensors -----------------------------------------------------------------------


# Around the 16 pixels to which the network pads, and with every remainder by 4.
@pytest.mark.parametrize("height", [1, 15, 16, 17, 34, 39])
def test_a_picture_keeps_its_size_whatever_it_is(stylizer: Stylizer, height: int) -> None:
    for width in (1, 14, 16, 17, 35, 40):
        assert stylizer(torch.rand(3, height, width)).shape == (3, height, width)
    assert stylizer(noise_photo(41 - height, height)).size == (41 - height, height)


@pytest.mark.slow
@pytest.mark.parametrize("height", range(1, 41))
def test_pictures_of_all_small_sizes_keep_them(stylizer: Stylizer, height: int) -> None:
    for width in range(1, 41):
        assert stylizer(torch.rand(3, height, width)).shape == (3, height, width)
    assert stylizer(noise_photo(41 - height, height)).size == (41 - height, height)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("L", "RGB"),
        ("LA", "RGBA"),
        ("I;16", "RGB"),
        ("P", "RGB"),
        ("1", "RGB"),
        ("CMYK", "RGB"),
    ],
)
def test_any_mode_comes_out_as_rgb_or_rgba(stylizer: Stylizer, mode: str, expected: str) -> None:
    photo = noise_photo(21, 17, mode)
    before = photo.tobytes()
    result = stylizer(photo)
    assert (result.mode, result.size) == (expected, (21, 17))
    assert (photo.mode, photo.tobytes()) == (mode, before)


def test_alpha_stays_exactly_as_it_is(stylizer: Stylizer) -> None:
    photo = noise_photo(21, 17, "RGBA")
    assert stylizer(photo).getchannel("A").tobytes() == photo.getchannel("A").tobytes()


def test_sixteen_bits_are_stylized_like_the_eight_they_round_to(stylizer: Stylizer) -> None:
    eight = np.random.default_rng(1).integers(0, 256, (17, 21), dtype=np.uint8)
    sixteen = Image.fromarray(eight.astype(np.uint16) * 257)
    assert sixteen.mode == "I;16"
    assert stylizer(sixteen).tobytes() == stylizer(Image.fromarray(eight)).tobytes()


def test_picture_and_tensor_give_the_same_result(stylizer: Stylizer) -> None:
    photo = noise_photo(33, 18)
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255
    expected = (stylizer(pixels) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(np.array(stylizer(photo)), expected)


def test_batch_equals_its_photos_one_by_one(stylizer: Stylizer) -> None:
    batch = torch.rand(3, 3, 24, 19, generator=torch.Generator().manual_seed(2))
    together = stylizer(batch)
    assert together.shape == batch.shape
    for photo, result in zip(batch, together, strict=True):
        assert (stylizer(photo) - result).abs().max() <= 1 / 255


def test_same_photo_gives_the_same_bytes(model: Path, stylizer: Stylizer) -> None:
    photo = noise_photo(50, 40)
    assert stylizer(photo).tobytes() == Stylizer(model, device="cpu")(photo).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("memory_bytes", [None, IN_BANDS, ON_DISK["RGB"]])
@pytest.mark.parametrize("name", OTHER_DEFAULTS)
def test_what_the_caller_has_set_in_torch_changes_nothing(
    model: Path, name: str, memory_bytes: int | None
) -> None:
    photo = noise_photo(400, 100)
    pixels = image_to_tensor(photo) / 255
    plain = Stylizer(model, device="cpu", memory_bytes=memory_bytes)(photo)
    expected = Stylizer(model, device="cpu")(pixels)
    with other_defaults(name):
        stylizer = Stylizer(model, device="cpu", memory_bytes=memory_bytes)
        assert stylizer(photo).tobytes() == plain.tobytes()
        assert torch.equal(Stylizer(model, device="cpu")(pixels), expected)


def test_device_may_be_torchs_own_and_a_wrong_one_is_named(model: Path) -> None:
    assert Stylizer(model, device=torch.device("cpu")).device == torch.device("cpu")
    with pytest.raises(UserError, match=r"^device=gpu: not the name of a device; choose one of"):
        Stylizer(model, device="gpu")


def test_result_depends_on_the_photo_and_the_model(tmp_path: Path, stylizer: Stylizer) -> None:
    photo = noise_photo(32, 32)
    other = Stylizer(write_tiny_model(tmp_path / "m.safetensors", width=2), device="cpu")
    assert stylizer(photo).tobytes() != stylizer(noise_photo(32, 32).rotate(90)).tobytes()
    assert stylizer(photo).tobytes() != other(photo).tobytes()


def test_result_is_within_the_legal_range_for_a_larger_tanh_scale(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m.safetensors", tanh_scale=1000.0)
    result = Stylizer(model, device="cpu")(torch.rand(3, 32, 32))
    assert (result.min(), result.max()) == (0, 1)


def test_what_a_tensor_gives_can_be_worked_on(stylizer: Stylizer) -> None:
    result = stylizer(torch.rand(3, 16, 18))
    assert result.mul_(255).requires_grad_().sum().requires_grad


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((3, 8), torch.float32),
        ((1, 8, 8), torch.float32),
        ((8, 8, 3), torch.float32),
        ((1, 1, 3, 8, 8), torch.float32),
        ((3, 8, 8), torch.uint8),
    ],
)
def test_other_tensors_are_refused(
    stylizer: Stylizer, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    with pytest.raises(ValueError, match="photos must be") as caught:
        stylizer(torch.zeros(shape, dtype=dtype))
    assert str(caught.value) == (
        f"photos must be floats of shape (3, H, W) or (N, 3, H, W) in [0, 1], got {dtype} {shape}; "
        "divide pixels of 0..255 by 255"
    )


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0, 255], "0 to 255"),
        ([-1, 1], "-1 to 1"),
        ([0, 2], "0 to 2"),
        ([0, float("nan")], "nan to nan"),
        ([0, float("inf")], "0 to inf"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_values_far_outside_of_the_range_are_refused(
    stylizer: Stylizer, values: list[float], found: str, dtype: torch.dtype
) -> None:
    photo = torch.tensor(values, dtype=dtype).repeat(3, 16, 8)
    for photos in (photo, photo[None]):
        with pytest.raises(ValueError, match="photos must be") as caught:
            stylizer(photos)
        assert str(caught.value) == (
            f"photos must be floats in [0, 1], got values from {found}; divide pixels of 0..255 by "
            "255, and undo a normalization"
        )


def test_values_of_a_resized_photo_are_accepted(stylizer: Stylizer) -> None:
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1
    photo = torch.nn.functional.interpolate(edge, (40, 40), mode="bicubic")
    assert photo.min() < -0.05
    assert photo.max() > 1.05
    assert stylizer(photo).shape == photo.shape
    assert stylizer(torch.tensor([-0.75, 1.75]).repeat(3, 16, 8)).shape == (3, 16, 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_any_floats_give_float32(stylizer: Stylizer, dtype: torch.dtype) -> None:
    photo = torch.rand(3, 16, 18).to(dtype)
    result = stylizer(photo)
    assert result.dtype == torch.float32
    assert torch.equal(result, stylizer(photo.float()))


@pytest.mark.parametrize("shape", [(0, 3, 16, 18), (0, 3, 0, 0)])
def test_no_photos_give_none(stylizer: Stylizer, shape: tuple[int, ...]) -> None:
    result = stylizer(torch.empty(shape, dtype=torch.float64))
    assert (tuple(result.shape), result.dtype) == (shape, torch.float32)


# --- Arrays and files ---------------------------------------------------------------------------


def test_array_gives_the_pixels_of_its_picture(stylizer: Stylizer) -> None:
    photo = noise_photo(21, 17)
    pixels = np.array(photo)
    before = pixels.copy()
    for array in (pixels, np.asfortranarray(pixels), np.asarray(photo)):  # the last is read-only
        result = stylizer(array)
        assert (result.dtype, result.shape) == (np.uint8, (17, 21, 3))
        assert np.array_equal(result, np.asarray(stylizer(photo)))
        result[:] = 0  # it owns its memory
    assert np.array_equal(pixels, before)
    flipped = stylizer(pixels[:, ::-1])
    assert np.array_equal(flipped, stylizer(np.ascontiguousarray(pixels[:, ::-1])))


def test_array_too_large_as_a_whole_is_done_in_bands(model: Path, stylizer: Stylizer) -> None:
    pixels = np.array(noise_photo(400, 100))
    frugal = Stylizer(model, device="cpu", memory_bytes=IN_BANDS)
    difference = frugal(pixels).astype(int) - stylizer(pixels)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((8, 8), np.uint8),
        ((8, 8, 4), np.uint8),
        ((3, 8, 8), np.uint8),
        ((2, 8, 8, 3), np.uint8),
        ((8, 8, 3), np.float32),
        ((8, 8, 3), np.uint16),
        ((8, 8, 3), np.bool_),
    ],
)
def test_other_arrays_are_refused(stylizer: Stylizer, shape: tuple[int, ...], dtype: Any) -> None:
    with pytest.raises(ValueError, match="an array must be") as caught:
        stylizer(np.zeros(shape, dtype))
    assert str(caught.value) == (
        f"an array must be uint8 of shape (H, W, 3), got {np.dtype(dtype)} {shape}; floats in "
        "[0, 1] are taken as a torch tensor (3, H, W), other modes as a Pillow image"
    )


@pytest.mark.parametrize("photo", [None, 3, [1, 2], b"a.png"])
def test_other_types_are_refused(stylizer: Stylizer, photo: Any) -> None:
    with pytest.raises(TypeError, match=rf"a path, a Pillow image.*got {type(photo).__name__}$"):
        stylizer(photo)


def test_path_gives_the_stylized_picture_of_its_file(stylizer: Stylizer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise_photo(21, 17, "RGBA").save(path)
    expected = stylizer(Image.open(path))
    for name in (path, str(path)):
        result = stylizer(name)
        assert (result.mode, result.size) == ("RGBA", (21, 17))
        assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("name", "is_marked"), [("a.jpg", True), ("a.gif", True), ("a.png", False)]
)
def test_saved_picture_is_known_as_a_result_where_the_format_has_comments(
    stylizer: Stylizer, tmp_path: Path, name: str, is_marked: bool
) -> None:
    picture = stylizer(noise_photo(21, 17, "RGB"))
    assert isinstance(picture, Image.Image)
    picture.save(tmp_path / name)
    assert read_picture(tmp_path / name).is_result == is_marked


def test_missing_file_is_named(stylizer: Stylizer) -> None:
    with pytest.raises(UserError, match=r"^none\.png: not found$"):
        stylizer("none.png")


def test_files_are_turned_and_pillow_images_only_if_asked(
    stylizer: Stylizer, tmp_path: Path
) -> None:
    stored = noise_photo(21, 17)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    path = tmp_path / "phone.png"
    stored.save(path, exif=exif)
    upright = stored.transpose(Image.Transpose.ROTATE_270)
    image = Image.open(path)
    turned = image.transpose(Image.Transpose.ROTATE_270)
    assert turned.getexif()[0x0112] == 6  # Pillow keeps it, although it is wrong now
    assert stylizer(path).tobytes() == stylizer(upright).tobytes()
    assert stylizer(turned).tobytes() == stylizer(upright).tobytes()
    assert stylizer(image).tobytes() == stylizer(stored).tobytes()
    assert stylizer(image, upright=True).tobytes() == stylizer(upright).tobytes()
    with pytest.raises(TypeError, match=r"^upright must be True or False, got 'no'$"):
        stylizer(image, upright="no")  # type: ignore[call-overload]
    assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    ("photo", "size"),
    [
        (Image.new("RGB", (0, 5)), "height 5 and width 0"),
        (np.zeros((0, 8, 3), np.uint8), "height 0 and width 8"),
        (np.zeros((8, 0, 3), np.uint8), "height 8 and width 0"),
        (torch.zeros(3, 0, 8), "height 0 and width 8"),
        (torch.zeros(2, 3, 8, 0), "height 8 and width 0"),
    ],
)
def test_picture_without_pixels_is_refused(stylizer: Stylizer, photo: Any, size: str) -> None:
    with pytest.raises(ValueError, match="pixels") as caught:
        stylizer(photo)
    assert str(caught.value) == f"a picture without pixels cannot be stylized, got {size}"


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda photo: photo.to("meta"),
            "photos must be a tensor with values, got one on the device meta, which has none",
        ),
        (
            lambda photo: photo.to_sparse(),
            "photos must be a dense tensor, got layout torch.sparse_coo; use tensor.to_dense()",
        ),
        (
            lambda photo: photo.to_sparse_csr(),
            "photos must be a dense tensor, got layout torch.sparse_csr; use tensor.to_dense()",
        ),
        (
            lambda photo: photo.to_mkldnn(),
            "photos must be a dense tensor, got layout torch._mkldnn; use tensor.to_dense()",
        ),
        (
            lambda photo: torch.nested.nested_tensor([photo, photo]),
            "photos must be a dense tensor, got a nested one; stylize its photos one by one "
            "(tensor.unbind())",
        ),
        (
            lambda photo: torch.nested.nested_tensor([photo, photo], layout=torch.jagged),
            "photos must be a dense tensor, got a nested one; stylize its photos one by one "
            "(tensor.unbind())",
        ),
    ],
)
def test_tensors_that_are_not_dense_are_refused(
    stylizer: Stylizer, make: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match="photos must be") as caught:
        stylizer(make(torch.rand(3, 16, 18)))
    assert str(caught.value) == message


# --- Bands --------------------------------------------------------------------------------------


# --- Grain --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grainy_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network, which asks for grain of 30 / 255."""
    tensors, description = load_checkpoint(model)
    path = tmp_path_factory.mktemp("grainy") / "model.safetensors"
    save_checkpoint(path, tensors, {**description, "grain": 30.0})
    return path


def test_grain_is_added_to_the_photo(model: Path, stylizer: Stylizer) -> None:
    photo = noise_photo(40, 50)
    pixels = image_to_tensor(photo) / 255
    expected = stylizer(pixels + 20 / 255 * grain_pattern(0, 0, 50, 40))
    grainy = Stylizer(model, device="cpu", grain=20)
    before = pixels.clone()
    assert torch.equal(grainy(pixels), expected)
    assert torch.equal(pixels, before)
    both = grainy(pixels[None].expand(2, 3, 50, 40))
    assert (both[1] - expected).abs().max() < 1e-5
    assert not torch.equal(stylizer(pixels), expected)
    drawn = image_to_tensor(grainy(photo)).float() / 255
    assert (drawn - expected).abs().max() <= 0.51 / 255


def test_no_grain_changes_nothing(model: Path, stylizer: Stylizer) -> None:
    photo = noise_photo(20, 30)
    assert Stylizer(model, device="cpu", grain=0)(photo).tobytes() == stylizer(photo).tobytes()


def test_grain_is_what_the_model_asks_for_unless_it_is_given(
    model: Path, grainy_model: Path, stylizer: Stylizer
) -> None:
    photo = noise_photo(20, 30)
    given = Stylizer(model, device="cpu", grain=30)(photo).tobytes()
    assert Stylizer(grainy_model, device="cpu")(photo).tobytes() == given
    assert Stylizer(model, device="cpu", grain=np.float32(30))(photo).tobytes() == given
    without = Stylizer(grainy_model, device="cpu", grain=0)(photo).tobytes()
    assert without == stylizer(photo).tobytes() != given


def test_grain_is_the_same_in_bands(grainy_model: Path) -> None:
    photo = noise_photo(400, 100)
    whole = Stylizer(grainy_model, device="cpu")(photo)
    banded = Stylizer(grainy_model, device="cpu", memory_bytes=IN_BANDS)(photo)
    difference = np.abs(np.array(banded, dtype=np.int16) - np.array(whole, dtype=np.int16))
    assert difference.max() <= 1


@pytest.mark.parametrize(
    ("levels", "error"),
    [(-1, ValueError), (32.5, ValueError), (math.nan, ValueError), ("5", TypeError),
     (True, TypeError)],
)  # fmt: skip
def test_grain_out_of_range_is_refused(model: Path, levels: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="grain must be"):
        Stylizer(model, device="cpu", grain=levels)


# --- Strokes ------------------------------------------------------------------------------------


def test_small_copy_is_painted_before_a_large_photo(model: Path, stylizer: Stylizer) -> None:
    photo = noise_photo(120, 50)
    copy = IMAGES.copy_of(photo, 64)
    expected = stylizer(IMAGES.brought_over(photo, copy, stylizer(copy)))
    large = Stylizer(model, device="cpu", strokes=64)
    assert large(photo).tobytes() == expected.tobytes() != stylizer(photo).tobytes()
    pixels = image_to_tensor(photo)[None] / 255
    shrunk = BATCHES.copy_of(pixels, 64)
    painted = stylizer(BATCHES.brought_over(pixels, shrunk, stylizer(shrunk)))
    assert (large(pixels) - painted).abs().max() < 1e-5
    assert large(pixels.to(torch.float16)).dtype == torch.float32


def test_photo_that_is_hardly_larger_is_painted_once(model: Path, stylizer: Stylizer) -> None:
    photo = noise_photo(95, 95)
    assert Stylizer(model, device="cpu", strokes=64)(photo).tobytes() == stylizer(photo).tobytes()


def test_no_strokes_paint_a_large_photo_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    forward = FastTransform.forward

    def record(self: FastTransform, photos: torch.Tensor) -> torch.Tensor:
        sizes.append(max(photos.shape))
        return forward(self, photos)

    monkeypatch.setattr(FastTransform, "forward", record)
    photo = noise_photo(LEAST_CHANGED, 16)
    for strokes in (0, None):
        Stylizer(model, device="cpu", strokes=strokes)(photo)
    assert sizes == [LEAST_CHANGED, DEFAULT_STROKES, LEAST_CHANGED]


def test_large_strokes_are_the_same_in_bands(model: Path) -> None:
    photo = noise_photo(400, 100, "RGBA")
    whole = Stylizer(model, device="cpu", strokes=128)(photo)
    shares: list[float] = []
    banded = Stylizer(model, device="cpu", strokes=128, memory_bytes=IN_BANDS).stylize_picture(
        to_picture(photo), progress=shares.append
    )
    difference = np.array(banded.rgb, np.int16) - np.array(whole.convert("RGB"), np.int16)
    # What is rounded otherwise in the first pass is painted once more in the second.
    assert np.abs(difference).max() <= 2
    assert banded.alpha is not None
    assert banded.alpha.tobytes() == photo.getchannel("A").tobytes()
    assert shares == sorted(shares)
    # Copies of 128 and 226 pixels were painted by then.
    assert shares[0] > (128**2 + 226**2) / (128**2 + 226**2 + 400**2)
    assert shares[-1] == 1


def test_only_the_first_copy_gets_grain(grainy_model: Path, stylizer: Stylizer) -> None:
    photo = noise_photo(120, 50)
    copy = IMAGES.copy_of(photo, 64)
    grainy = Stylizer(grainy_model, device="cpu", strokes=64)
    painted = Stylizer(grainy_model, device="cpu")(copy)
    expected = stylizer(IMAGES.brought_over(photo, copy, painted))
    assert grainy(photo).tobytes() == expected.tobytes()


def test_memory_limit_counts_the_photo_while_its_copies_are_painted(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = []
    plan = stylizer_module.plan_photo

    def record(size: memory.PhotoSize, *others: Any, **options: Any) -> Any:
        planned.append(size)
        return plan(size, *others, **options)

    monkeypatch.setattr(stylizer_module, "plan_photo", record)
    photo = noise_photo(400, 100)
    sizes = memory.sizes_to_paint(memory.PhotoSize(100, 400), copy_sides(400, 128))
    Stylizer(model, device="cpu", strokes=128, memory_bytes=10**9)(photo)
    assert planned == [sizes[-1], *sizes]
    planned.clear()
    Stylizer(model, device="cpu", strokes=128)(photo)
    assert planned == [sizes[-1], *(size._replace(beside=0) for size in sizes)]


def test_copies_of_a_photo_that_is_too_large_are_not_painted(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*unused: object) -> None:
        raise AssertionError("the network must not run")

    monkeypatch.setattr(FastTransform, "forward", forbid)
    with pytest.raises(UserError, match="4000 x 100 pixels do not fit in memory"):
        Stylizer(model, device="cpu", strokes=64, memory_bytes=5_000_000)(noise_photo(4000, 100))


@pytest.mark.parametrize(
    ("strokes", "error"),
    [(63, ValueError), (-1, ValueError), (512.5, TypeError), (True, TypeError)],
)
def test_strokes_out_of_range_are_refused(
    model: Path, strokes: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="strokes must be"):
        Stylizer(model, device="cpu", strokes=strokes)


@pytest.fixture
def temporary_files(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The folders of temporary files, which go on being made."""
    folders: list[Any] = []
    make = tempfile.TemporaryFile

    def record(*, dir: Path) -> Any:
        folders.append(dir)
        return make(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", record)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("is_on_disk", [False, True])
def test_photo_too_large_as_a_whole_is_done_in_bands(
    model: Path, stylizer: Stylizer, temporary_files: list[Any], mode: str, is_on_disk: bool
) -> None:
    photo = noise_photo(400, 100, mode)
    whole = stylizer(photo)
    frugal = Stylizer(model, device="cpu", memory_bytes=ON_DISK[mode] if is_on_disk else IN_BANDS)
    done = frugal(photo)
    assert temporary_files == ([memory.scratch_folder()] if is_on_disk else [])
    assert (done.mode, done.size) == (mode, photo.size)
    difference = np.abs(np.array(done, dtype=np.int16) - np.array(whole, dtype=np.int16))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    if mode == "RGBA":
        assert done.getchannel("A").tobytes() == photo.getchannel("A").tobytes()


def test_progress_is_reported_in_bands_alone(model: Path) -> None:
    shares: list[float] = []
    picture = to_picture(noise_photo(400, 100))
    # 11.88 MB as a whole, with the photo
    Stylizer(model, device="cpu", memory_bytes=11_880_000).stylize_picture(
        picture, progress=shares.append
    )
    assert shares == []
    Stylizer(model, device="cpu", memory_bytes=11_879_999).stylize_picture(
        picture, progress=shares.append
    )
    assert len(shares) > 10
    assert shares == sorted(shares)
    assert shares[-1] == 1


# --- Memory that is not enough ------------------------------------------------------------------


@pytest.mark.parametrize("photo", [torch.zeros(2, 3, 100, 200), Image.new("RGB", (200, 100))])
def test_photo_that_does_not_fit_is_refused_before_the_network_runs(
    model: Path, monkeypatch: pytest.MonkeyPatch, photo: torch.Tensor | Image.Image
) -> None:
    def forbid(*unused: object) -> None:
        raise AssertionError("the network must not run")

    monkeypatch.setattr(FastTransform, "forward", forbid)
    monkeypatch.setattr(stylizer_module, "stylize_in_bands", forbid)
    with pytest.raises(UserError, match="200 x 100 pixels do not fit in memory") as caught:
        Stylizer(model, device="cpu", memory_bytes=5_000_000)(photo)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("photo", [torch.zeros(3, 18, 20), noise_photo(20, 18)])
def test_freed_memory_is_given_back_before_a_photo_is_refused_or_put_into_bands(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch, photo: torch.Tensor | Image.Image
) -> None:
    available = [1]

    def give_back() -> None:
        available[0] = 10**9

    monkeypatch.setattr(memory, "available_bytes", lambda device: available[0])
    monkeypatch.setattr(stylizer_module, "return_freed_memory", give_back)
    monkeypatch.setattr(stylizer_module, "stylize_in_bands", None)
    stylizer(photo)
    assert available == [10**9]


def test_freed_memory_is_kept_while_there_is_enough(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stylizer_module, "return_freed_memory", None)
    stylizer(noise_photo(20, 18))
    stylizer(torch.zeros(3, 18, 20))


@pytest.mark.parametrize(
    "error",
    [
        # torch 2.15's words on a CPU
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        ),
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
    ],
)
@pytest.mark.parametrize(
    ("photo", "remedy"),
    [
        (torch.zeros(3, 100, 200), "a longer side of 140 pixels"),
        (Image.new("RGB", (200, 100)), "a lower --memory or --max-side 140"),
    ],
)
def test_running_out_of_memory_is_an_error_with_a_remedy(
    stylizer: Stylizer,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    photo: torch.Tensor | Image.Image,
    remedy: str,
) -> None:
    def run_out(*unused: object) -> None:
        raise error

    monkeypatch.setattr(FastTransform, "forward", run_out)
    with pytest.raises(UserError) as caught:
        stylizer(photo)
    assert str(caught.value) == f"200 x 100 pixels: memory ran out; try {remedy}"
    assert caught.value.exit_code == 1


def test_other_errors_of_torch_keep_their_traceback(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*unused: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(FastTransform, "forward", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        stylizer(torch.zeros(3, 20, 20))


def test_disk_that_fills_up_is_named_with_a_remedy(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fill(*unused: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(memory, "scratch_folder", lambda: tmp_path)
    monkeypatch.setattr(tempfile, "TemporaryFile", fill)
    frugal = Stylizer(model, device="cpu", memory_bytes=ON_DISK["RGB"])
    with pytest.raises(UserError) as caught:
        frugal(noise_photo(400, 100))
    assert str(caught.value) == (
        f"{tmp_path}: cannot store the photo's features, 0.1 MB (No space left on device); set the "
        "environment variable TMPDIR to a folder on another disk"
    )
    assert caught.value.exit_code == 1


# --- Compiled -----------------------------------------------------------------------------------


def keep_graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """torch.compile without the minutes of C++: what is traced runs as it stands, and is listed."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    def trace(function: Callable[..., Any], *, any_size: bool) -> Callable[..., Any]:
        return torch.compile(function, fullgraph=True, dynamic=any_size, backend=keep)

    monkeypatch.setattr(stylizer_module, "compile_whole", trace)
    return graphs


@pytest.mark.slow
def test_network_is_compiled_once_for_photos_of_all_sizes(
    model: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = keep_graphs(monkeypatch)
    compiled = Stylizer(model, device="cpu", compile=True)
    assert len(graphs) == 1
    for width, height in ((130, 101), (96, 160), (128, 128)):
        photo = image_to_tensor(noise_photo(width, height)).float() / 255
        assert torch.allclose(compiled(photo), stylizer(photo), rtol=0, atol=1e-4)
        assert len(graphs) == 1


@pytest.mark.parametrize("compile", [False, True])
def test_compiled_network_counts_for_more_memory(
    model: Path, monkeypatch: pytest.MonkeyPatch, compile: bool
) -> None:
    monkeypatch.setattr(stylizer_module, "compile_whole", lambda function, *, any_size: function)
    shares: list[float] = []
    # As a whole, 11.72 MB count as 16.41 when compiled.
    frugal = Stylizer(model, device="cpu", compile=compile, memory_bytes=12_000_000)
    frugal.stylize_picture(to_picture(noise_photo(400, 100)), progress=shares.append)
    assert (shares != []) == compile


@pytest.mark.slow
def test_truly_compiled_network_gives_the_same_pictures(model: Path, stylizer: Stylizer) -> None:
    compiled = Stylizer(model, device="cpu", compile=True)
    for width, height in ((130, 101), (128, 128), (20, 1)):
        photo = image_to_tensor(noise_photo(width, height)).float() / 255
        assert torch.allclose(compiled(photo), stylizer(photo), rtol=0, atol=1e-4)


@pytest.mark.parametrize("wrong", [torch.zeros_like, lambda photos: photos.new_full((), 0.5)])
def test_network_that_is_compiled_wrongly_is_an_error(
    wrong: Callable[[torch.Tensor], torch.Tensor], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_wrongly(function: object, *, any_size: bool) -> Callable[..., torch.Tensor]:
        return lambda photos: wrong(photos).expand_as(photos).clone()

    monkeypatch.setattr(stylizer_module, "compile_whole", compile_wrongly)
    with pytest.raises(UserError) as caught:
        Stylizer(model, device="cpu", compile=True)
    assert str(caught.value).startswith("--compile: the compiled network's picture differs by ")
    assert str(caught.value).endswith("; leave out --compile")
