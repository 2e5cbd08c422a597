"""Which photos are evaluated, at which sizes, against how many iterations of L-BFGS."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from fast_style.core.errors import UserError
from fast_style.pictures.folders import why_unreadable
from fast_style.pictures.pixels import center_crop, image_to_tensor
from fast_style.pictures.profiles import has_unusable_profile, line_about_profiles
from fast_style.pictures.reading import PictureError, ResultError, read_photo
from fast_style.pictures.scanning import LeftOut, keep_silent
from fast_style.pictures.several import line_about_several, num_pictures

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
    say: Callable[[str], None] = keep_silent,
) -> Plan:
    """The plan of an evaluation: the photos of each size, and the L-BFGS baselines.

    Args:
        files: the photos.
        sizes: sides of the squares, in pixels.
        counts: how many photos to choose: one number, or one for each size; None takes all.
        iterations: of L-BFGS.
        variants: of L-BFGS; duplicates are dropped.
        takes_results: as in `choose_photos`.
        say: likewise.

    Raises:
        UserError: a size is out of range, or the number of `counts` is neither one nor that of
            `sizes`; or as `choose_photos`.
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
    chosen = choose_photos(files, counts, takes_results=takes_results, say=say)
    photos = dict(zip(sizes, chosen, strict=True))
    return Plan(photos, iterations, list(dict.fromkeys(variants)))


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


def choose_photos(
    files: Sequence[Path],
    counts: Sequence[int],
    *,
    takes_results: bool = True,
    say: Callable[[str], None] = keep_silent,
) -> list[list[Path]]:
    """For each count, so many photos at even distances; all if there are fewer.

    Files are read when they are chosen. Where one cannot be used, the others are chosen from anew.

    Args:
        files: photos, and what may turn out to be none.
        counts: how many to choose.
        takes_results: whether a result of this software can be used.
        say: prints a line for the user: about each unreadable file, and one about all results.

    Raises:
        UserError: no file can be used.
    """
    problems: dict[Path, PictureError | None] = {}
    chosen = [_choose(files, count, problems, takes_results) for count in counts]
    found = [problem for problem in problems.values() if problem is not None]
    for problem in found:
        if not isinstance(problem, ResultError):
            say(f"skipping {problem}")
    results = [str(file) for file in files if isinstance(problems.get(file), ResultError)]
    summary = LeftOut(Path(), {"result": results}).summary("--include-results") if results else ""
    if not all(chosen):
        if len(results) == len(files):
            raise UserError(f"--photos: no photos; {summary}")
        raise UserError(
            f"--photos: none of the {len(files)} photos can be "
            f"{f'used (reasons above); {summary}' if results else 'read (reasons above)'}",
            exit_code=1,
        )
    if results:
        say(summary)
    used = {file for of_size in chosen for file in of_size}
    for line in (
        line_about_several([(str(file), num_pictures(file)) for file in used]),
        line_about_profiles(str(file) for file in used if has_unusable_profile(file)),
    ):
        if line:
            say(line)
    return chosen


def _choose(
    files: Sequence[Path],
    count: int,
    problems: dict[Path, PictureError | None],
    takes_results: bool,
) -> list[Path]:
    """`count` files that can be used; notes in `problems` what is known of those it has read."""
    while True:
        chosen = spread([file for file in files if problems.get(file) is None], count)
        for file in chosen:
            if file not in problems:
                problems[file] = why_unreadable(file, takes_results=takes_results)
        if all(problems[file] is None for file in chosen):
            return chosen


def read_photos(files: Sequence[Path], size: int, device: torch.device) -> list[Photo]:
    """The center squares of the photos, resized to `size` pixels.

    Raises:
        PictureError: one cannot be read, which `choose_photos` would have left out.
    """
    photos = []
    for file in files:
        image = read_photo(file)
        pixels = image_to_tensor(center_crop(image, size))[None].to(device).float() / 255
        photos.append(Photo(file.name, pixels, min(image.size) < size))
    return photos
