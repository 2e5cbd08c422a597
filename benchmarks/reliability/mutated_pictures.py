"""Damaged pictures of all formats that are read: each is read or refused in one line, and soon.

    python benchmarks/reliability/mutated_pictures.py
    python benchmarks/reliability/mutated_pictures.py --count 2000 --seed 7 --workers 1

The seeds are small pictures in every format of `fast_style/pictures/formats.py` and every mode that
Pillow writes and reads back, with its compressions, with orientation, profile and frames. The first
cases are the seeds themselves, which must be read. The others have bytes flipped, cut out or
inserted, or pieces of other seeds. `read_picture` reads them; it may raise a `PictureError` of one
line, nothing else. The processes are watched: crashes, and cases that never end, are counted.

The limit of pixels is lower than by default: of 178,956,970 pixels, the values alone would take
more than the memory that is allowed here, and a header may promise as many.
"""

import io
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import figures
import program
from cases import Check, add_options, run_cases
from mutations import damaged
from PIL import Image, ImageCms

from fast_style.cli.arguments import positive
from fast_style.pictures.formats import FORMATS
from fast_style.pictures.reading import PictureError, read_picture

MODES = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB"),
    *("HSV", "I", "F", "I;16", "I;16B"),
)
SIZE = 19, 13
_ORIENTATION = 0x0112  # EXIF 2.32


class Seed(NamedTuple):
    """A picture that nothing is wrong with."""

    name: str
    content: bytes


@program.errors_in_one_line()
def main() -> int:
    """Damage, and print the table; returns the exit code."""
    parser = figures.parser_of(__doc__)
    add_options(parser)
    parser.add_argument(
        "--max-pixels", type=positive, default=10_000_000, help="limit (10,000,000)"
    )
    options = parser.parse_args()
    return figures.conclude(
        measure(options.count, options.seed, options.max_pixels, options.workers)
    )


def measure(count: int, seed: int, max_pixels: int, num_workers: int) -> Iterator[figures.Figure]:
    """The figures of the formats, of the pictures and of memory."""
    seeds = make_seeds(seed)
    found = FORMATS.keys() & {picture.name.split()[0] for picture in seeds}
    missing = ", ".join(sorted(FORMATS.keys() - found))
    yield figures.Figure(
        "formats that Pillow here can write",
        len(found),
        len(FORMATS),
        f"not {missing}" if missing else "",
    )
    with tempfile.TemporaryDirectory() as folder:
        tally = run_cases(
            *(build, Path(folder), seed, max_pixels), count=count, num_workers=num_workers
        )
    yield from tally.counted(
        f"mutated pictures, of {len(seeds)}, seed {seed}, limit {max_pixels:,} pixels: "
        "read, or refused in one line"
    )


def build(folder: Path, seed: int, max_pixels: int) -> Check:
    """The check of one case: its file is read or refused."""
    seeds = make_seeds(seed)
    contents = [found.content for found in seeds]
    path = Path(tempfile.mkdtemp(dir=folder)) / "picture"

    def check(case: int) -> str:
        chance = random.Random(f"{seed} {case}")
        is_whole = case < len(seeds)
        name, content = seeds[case] if is_whole else chance.choice(seeds)
        side = None
        if not is_whole:
            content = damaged(content, chance, others=contents)
            side = chance.choice([None, 2])  # JPEGs are then decoded at a fraction of their size
        path.write_bytes(content)
        refusal = ""
        try:
            picture = read_picture(path, max_pixels=max_pixels, shorter_side_at_least=side)
        except PictureError as error:
            refusal = str(error)
        if refusal:
            assert not is_whole, f"{name}: {refusal}"
            assert refusal.startswith(f"{path}: "), refusal
            assert refusal.isprintable(), repr(refusal)
            return "refused"
        assert picture.rgb.mode == "RGB"
        assert picture.alpha is None or picture.alpha.size == picture.rgb.size
        picture.rgb.load()
        return "read"

    return check


def make_seeds(seed: int) -> list[Seed]:
    """A small picture for every format, mode and option that Pillow can write and read together."""
    chance = random.Random(seed)
    found = []
    for kind in FORMATS:
        for mode in MODES:
            image, second = noise(mode, chance), noise(mode, chance)
            for options in variants(kind, second):
                buffer = io.BytesIO()
                try:
                    with warnings.catch_warnings(action="ignore"):
                        image.save(buffer, kind, **options)
                        Image.open(buffer).load()
                except Exception:  # each writer says no in its own way
                    continue
                words = " ".join(key for key in options if options[key])
                found.append(Seed(f"{kind} {mode} {words}", buffer.getvalue()))
    return found


def noise(mode: str, chance: random.Random) -> Image.Image:
    """A picture of random values."""
    num_bytes = len(Image.new(mode, SIZE).tobytes())
    image = Image.frombytes(mode, SIZE, chance.randbytes(num_bytes))
    if mode in ("P", "PA"):
        image.putpalette(chance.randbytes(768))
    return image


def variants(kind: str, second: Image.Image) -> Iterator[dict[str, Any]]:
    """The options with which pictures of a format are written; `second` is a further frame."""
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with_metadata = {"exif": exif, "icc_profile": profile}
    frames = {"save_all": True, "append_images": [second]}
    match kind:
        case "JPEG":
            yield from ({}, {"progressive": True, "subsampling": 2}, with_metadata)
            yield {"restart_marker_rows": 1, "comment": b"a comment"}
        case "MPO":
            yield frames
            yield {**frames, **with_metadata}
        case "PNG":
            yield from ({}, with_metadata, {"transparency": 0}, frames, {"bits": 4})
        case "WEBP" | "AVIF":
            yield from ({}, {"lossless": True}, with_metadata, frames)
        case "GIF":
            yield from ({}, {"interlace": 1, "transparency": 3}, frames, {"comment": b"a comment"})
        case "TIFF":
            yield from (with_metadata, frames, {"big_tiff": True})
            for name in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd"):
                yield {"compression": name}
            # libtiff complains on stderr about other modes.
            if second.mode in ("L", "RGB", "CMYK", "YCbCr"):
                yield {"compression": "jpeg"}
            if second.mode == "1":
                yield {"compression": "group4"}
        case "JPEG2000":
            yield from ({}, {"no_jp2": True}, {"irreversible": True, "tile_size": (8, 8)})
        case _:
            yield {}


if __name__ == "__main__":
    sys.exit(main())
