"""Which photos are evaluated, at which sizes, against how many iterations of L-BFGS."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from fast_style.core.errors import UserError
from fast_style.pictures.pixels import center_crop, image_to_tensor
from fast_style.pictures.reading import PictureError, ResultError, read_photo

ItemT = TypeVar("ItemT")

Variant = Literal["box", "clip"]
VARIANT_TITLES = {
    "box": "L-BFGS within [0, 1] from the photo",
    "clip": "clipped L-BFGS from white noise",
}

# VGG's four poolings leave 2 x 2 positions of the smallest size; the largest catches typing errors.
_SMALLEST_SIZE, _LARGEST_SIZE = 32, 4096


class Plan(NamedTuple):
    """The photos and the L-BFGS baselines of one evaluation."""

    photos: dict[int, list[Path]]
    """The files evaluated at each size, in pixels."""

    iterations: int
    variants: Sequence[Variant]

    takes_results: bool = True
    """Whether results of this software, which are known when they are read, are photos too."""


class Photo(NamedTuple):
    """The center square of a held-out photo, (1, 3, S, S), float in [0, 1]."""

    name: str
    pixels: Tensor
    is_enlarged: bool
    """Whether the photo was smaller than S and had to be scaled up."""


def make_plan(
    files: Sequence[Path],
    *,
    sizes: Sequence[int],
    counts: Sequence[int] | None,
    iterations: int,
    variants: Sequence[Variant],
    takes_results: bool = True,
) -> Plan:
    """The plan of an evaluation: the photos of each size, and the L-BFGS baselines.

    Args:
        files: the photos.
        sizes: sides of the squares, in pixels.
        counts: how many photos to spread evenly over the files: one number, or one for each size;
            None takes all.
        iterations: of L-BFGS.
        variants: of L-BFGS; duplicates are dropped.
        takes_results: see `Plan`.

    Raises:
        UserError: a size is out of range, or the number of `counts` is neither one nor that of
            `sizes`.
    """
    if counts is not None and len(counts) not in (1, len(sizes)):
        raise UserError(
            f"--count: got {len(counts)} numbers for {len(sizes)} --sizes; give one number, or one "
            "for each size"
        )
    for size in sizes:
        if not _SMALLEST_SIZE <= size <= _LARGEST_SIZE:
            raise UserError(
                f"--sizes: must be {_SMALLEST_SIZE} to {_LARGEST_SIZE} pixels, got {size}"
            )
    counts = counts or [len(files)]
    counts = counts if len(counts) > 1 else list(counts) * len(sizes)
    photos = {size: spread(files, count) for size, count in zip(sizes, counts, strict=True)}
    return Plan(photos, iterations, list(dict.fromkeys(variants)), takes_results)


def pixel_iterations(plan: Plan) -> int:
    """The work of a whole plan: pixels times iterations of L-BFGS, summed over all photos."""
    return sum(
        size * size * plan.iterations * len(files) * len(plan.variants)
        for size, files in plan.photos.items()
    )


def spread(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """`count` items at even distances, in their order; all items if there are fewer."""
    if count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def read_photos(
    files: Sequence[Path],
    size: int,
    device: torch.device,
    say: Callable[[str], None],
    *,
    takes_results: bool = True,
) -> list[Photo]:
    """The center squares of the photos, resized to `size`; what cannot be used is skipped.

    Args:
        files: the photos.
        size: pixels of a square's side.
        device: of the squares.
        say: prints a line for the user.
        takes_results: whether a result of this software can be used.

    Raises:
        UserError: no file can be used (exit code 1).
    """
    photos = []
    for file in files:
        try:
            image = read_photo(file, takes_results=takes_results)
        except PictureError as error:
            remedy = " (--include-results takes it in)" if isinstance(error, ResultError) else ""
            say(f"skipping {error}{remedy}")
            continue
        pixels = image_to_tensor(center_crop(image, size))[None].to(device).float() / 255
        photos.append(Photo(file.name, pixels, min(image.size) < size))
    if not photos:
        raise UserError(
            f"--photos: none of the {len(files)} photos can be read (reasons above)", exit_code=1
        )
    return photos
