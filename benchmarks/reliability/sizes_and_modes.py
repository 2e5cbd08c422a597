"""Pictures of every small size, mode, bit depth, orientation and profile give what they should.

    python benchmarks/reliability/sizes_and_modes.py
    python benchmarks/reliability/sizes_and_modes.py --largest 8

* Sizes: noise of 1 x 1 to 64 x 64 pixels goes through a transform network by `Stylizer`. The result
  has the photo's size, and the pixels of the network executed plainly (`TransformNet.forward`), up
  to one level of 255.
* Modes and bit depths: a file of one color, which `read_picture` must give, with its alpha.
* Orientations: six pixels, of which each must be at its place.
* Profiles: sRGB changes nothing, one with red and blue exchanged exchanges them, and one that is
  broken or for another mode is ignored.
"""

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import figures
import numpy as np
import program
from example_pictures import corners, png_bytes, swapped_profile
from PIL import Image, ImageCms

from fast_style.cli.arguments import positive
from fast_style.pictures.reading import read_picture

_ORIENTATION = 0x0112  # EXIF 2.32
_LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


class Case(NamedTuple):
    """A file and the pixels that it must give.

    Attributes:
        name: the format, and what is special.
        content: of the file.
        pixels: (H, W, 3), or (H, W, 4) if alpha is expected; levels of 0..255.
        most_off: the largest difference that the format explains.
    """

    name: str
    content: bytes
    pixels: np.ndarray
    most_off: int


@program.errors_in_one_line()
def main() -> int:
    """Compare, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__, is_random=False)
    parser.add_argument("--largest", type=positive, default=64, help="side in pixels (64)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return figures.conclude(measure(Path(folder), options.largest))


def measure(folder: Path, largest: int) -> Iterator[figures.Figure]:
    """The figures of sizes, modes, orientations and profiles."""
    held = sum(are_sizes_right(folder, largest))
    yield figures.Figure(f"sizes 1 to {largest} x 1 to {largest}", held, largest**2)
    for name, cases in (
        ("modes and bit depths", [*png_depths(), *modes()]),
        ("EXIF orientations 1 to 8", list(orientations())),
        ("color profiles", list(profiles())),
    ):
        wrongs = [mistake(folder, case) for case in cases]
        held = sum(wrong is None or figures.told(wrong) for wrong in wrongs)
        yield figures.Figure(name, held, len(cases))


def are_sizes_right(folder: Path, largest: int) -> Iterator[bool]:
    """Whether a result has the photo's size and the right pixels, for each size."""
    import torch
    from noise_photos import noise_photo
    from tiny_model import write_tiny_model

    from fast_style.models.checkpoint import load_transform_net
    from fast_style.pictures.pixels import image_to_tensor
    from fast_style.stylizing.stylizer import Stylizer

    torch.set_num_threads(1)
    path = write_tiny_model(folder / "model.safetensors")
    stylizer, (net, _) = Stylizer(path, device="cpu"), load_transform_net(path)
    for height in range(1, largest + 1):
        for width in range(1, largest + 1):
            photo = noise_photo(width, height)
            try:
                found = np.asarray(stylizer(photo)).astype(int)
            except Exception as error:
                yield figures.told(f"{height} x {width}: {type(error).__name__}: {error}")
                continue
            with torch.no_grad():
                plain = net(image_to_tensor(photo)[None].float() / 255)[0].clamp(0, 1) * 255
            expected = plain.permute(1, 2, 0).numpy()
            is_right = found.shape == (height, width, 3) and np.abs(found - expected).max() <= 1
            yield is_right or figures.told(f"{height} x {width}: got {found.shape}")


def mistake(folder: Path, case: Case) -> str | None:
    """What is wrong with the picture that a case's file gives, in a line; None if nothing is."""
    path = folder / "picture"
    path.write_bytes(case.content)
    try:
        picture = read_picture(path)
    except Exception as error:
        return f"{case.name}: {error}"
    parts = [np.asarray(picture.rgb)]
    if picture.alpha is not None:
        parts.append(np.asarray(picture.alpha)[..., None])
    found = np.concatenate(parts, axis=-1).astype(int)
    if found.shape != case.pixels.shape:
        return f"{case.name}: shape {found.shape} in place of {case.pixels.shape}"
    if np.abs(found - case.pixels).max() > case.most_off:
        return f"{case.name}: {found[0, 0]} in place of {case.pixels[0, 0]}, at the first pixel"
    return None


def content_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of the image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(*color: int) -> np.ndarray:
    """The pixels of a picture of one pixel."""
    return np.array([[color]])


def png_depths() -> Iterator[Case]:
    """PNGs of every color type and bit depth; Pillow writes only some of them."""
    grey, rgb, grey_alpha, rgb_alpha = 0, 2, 4, 6  # color types: PNG 1.2, section 11.2.2
    for bit_depth, color_type, values, color in (
        (1, grey, b"\x80", (255, 255, 255)),
        (2, grey, b"\x80", (170, 170, 170)),
        (4, grey, b"\x90", (153, 153, 153)),
        (8, grey, b"\x4d", (77, 77, 77)),
        (16, grey, b"\x80\x00", (128, 128, 128)),
        (8, rgb, b"\x01\x02\x03", (1, 2, 3)),
        (16, rgb, b"\x12\x34\x80\x00\xff\xff", (0x12, 0x80, 0xFF)),
        (8, grey_alpha, b"\x4d\x32", (77, 77, 77, 50)),
        (16, grey_alpha, b"\x4d\x00\x32\x00", (77, 77, 77, 50)),
        (8, rgb_alpha, b"\x01\x02\x03\x04", (1, 2, 3, 4)),
        (16, rgb_alpha, b"\x01\x00\x02\x00\x03\x00\x04\x00", (1, 2, 3, 4)),
    ):
        content = png_bytes(1, 1, b"\0" + values, bit_depth=bit_depth, color_type=color_type)
        # Pillow drops the low byte of 16-bit color, where 1 more may be right.
        yield Case(f"PNG of {bit_depth} bits, type {color_type}", content, plain(*color), 1)


def modes() -> Iterator[Case]:
    """A pixel in every format and mode of Pillow's."""
    any_color: dict[str, tuple[Any, tuple[int, ...]]] = {
        "1": (1, (255, 255, 255)),
        "L": (77, (77, 77, 77)),
        "LA": ((77, 50), (77, 77, 77, 50)),
        "RGB": ((200, 60, 10), (200, 60, 10)),
        "RGBA": ((200, 60, 10, 70), (200, 60, 10, 70)),
        "I;16": (32_768, (128, 128, 128)),
        "I": (32_768, (128, 128, 128)),
        "F": (0.5, (128, 128, 128)),
        "CMYK": ((0, 255, 255, 0), (255, 0, 0)),
        "YCbCr": ((76, 85, 255), (254, 0, 0)),  # BT.601 of pure red
        "LAB": ((138, 209, 198), (255, 0, 0)),  # pure red under the D50 light of ICC profiles
        "P": (1, (40, 50, 60)),
    }
    for kind, names, options, most_off in (
        ("PNG", "1 L LA RGB RGBA I;16 P", {}, 0),
        ("TIFF", "1 L LA RGB RGBA I;16 I F CMYK YCbCr P", {}, 0),
        ("TIFF", "LAB", {}, 6),  # a step of a or b is 2 to 5 of 255
        ("BMP", "1 L RGB P", {}, 0),
        ("DIB", "1 L RGB P", {}, 0),
        ("GIF", "1 L P", {}, 0),
        ("WEBP", "RGB RGBA", {"lossless": True, "exact": True}, 0),
        ("AVIF", "RGB RGBA", _LOSSLESS["AVIF"], 3),
        ("JPEG2000", "L LA RGB RGBA I;16", {}, 0),
        ("JPEG", "L RGB CMYK YCbCr", {"quality": 100, "subsampling": 0}, 3),
        ("MPO", "L RGB", {"quality": 100, "subsampling": 0}, 3),
    ):
        for mode in names.split():
            value, color = any_color[mode]
            image = Image.new(mode, (1, 1), value)
            if mode == "P":
                image.putpalette([10, 20, 30, 40, 50, 60])
            yield Case(
                f"{kind} {mode}", content_of(image, kind, **options), plain(*color), most_off
            )
    for kind in ("BMP", "DIB"):  # without a mask for alpha, the fourth byte means nothing
        content = content_of(Image.new("RGBA", (1, 1), (200, 60, 10, 70)), kind)
        yield Case(f"{kind} of 32 bits", content, plain(200, 60, 10), 0)


def orientations() -> Iterator[Case]:
    """Six pixels, turned in eight ways, in every format that keeps an orientation."""
    upright = {
        1: ["123", "456"],
        2: ["321", "654"],
        3: ["654", "321"],
        4: ["456", "123"],
        5: ["14", "25", "36"],
        6: ["41", "52", "63"],
        7: ["63", "52", "41"],
        8: ["36", "25", "14"],
    }
    for orientation, digits in upright.items():
        red = 40 * np.array([list(row) for row in digits]).astype(int)
        pixels = np.stack([red, 0 * red, 0 * red], axis=-1)
        for kind, options in (*_LOSSLESS.items(), ("JPEG", {"quality": 100, "subsampling": 0})):
            exif = Image.Exif()
            exif[_ORIENTATION] = orientation
            content = content_of(corners(), kind, exif=exif, **options)
            yield Case(f"{kind}, orientation {orientation}", content, pixels, 8)


def profiles() -> Iterator[Case]:
    """A pixel with profiles that fit, and with those that cannot be applied."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = swapped_profile()
    given, turned = (200, 60, 10), (10, 60, 200)
    for kind, options in (*_LOSSLESS.items(), ("JPEG", {"quality": 100, "subsampling": 0})):
        image = Image.new("RGB", (1, 1), given)
        for name, profile, color in (
            ("sRGB", srgb, given),
            ("red and blue exchanged", swapped, turned),
            ("cut off", swapped[:150], given),
            ("a word", b"x", given),
            ("zeros", bytes(200), given),
        ):
            content = content_of(image, kind, icc_profile=profile, **options)
            yield Case(f"{kind}, profile {name}", content, plain(*color), 4)
    for kind, mode, value, color in (
        ("PNG", "RGBA", (*given, 70), (*turned, 70)),
        ("PNG", "L", 99, (99, 99, 99)),  # the profile is for three channels
        ("TIFF", "CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ):
        content = content_of(Image.new(mode, (1, 1), value), kind, icc_profile=swapped)
        yield Case(f"{kind} {mode} with a profile of RGB", content, plain(*color), 2)


if __name__ == "__main__":
    sys.exit(main())
