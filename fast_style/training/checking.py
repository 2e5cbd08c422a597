"""``train --check``: check everything that a run needs, and train nothing."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from fast_style.core.devices import resolve_precision
from fast_style.core.errors import printable
from fast_style.losses.build import build_perceptual_loss, load_loss_weights, read_style
from fast_style.losses.inputs import require_style_picture
from fast_style.pictures.folders import INCLUDE_RESULTS, why_unreadable
from fast_style.pictures.profiles import has_unusable_profile, line_about_profiles
from fast_style.pictures.reading import PictureError, ResultError, size_in_header
from fast_style.pictures.scanning import RULES
from fast_style.pictures.several import line_about_several, num_pictures
from fast_style.settings.config import NEAREST, Config
from fast_style.settings.fields import SMALLEST_SIDE
from fast_style.training.build import build_judge_loss, find_photos_of
from fast_style.training.start import build_net, start_from_nearest
from fast_style.training.unreadable import require_held_out, require_usable


def check_inputs(
    config: Config, say: Callable[[str], None], *, device: torch.device, rules: int = RULES
) -> None:
    """Check every photo, the style picture, all weights, the precision and train.init_from's model.

    Args:
        config: the settings of the run.
        say: called with each line of the report.
        device: where it is to train.
        rules: of the scan, as in `find_photos_of`; see `run_folder.photo_rules_of`.

    Raises:
        UserError: something is missing or cannot be used, or too many photos cannot.
    """
    resolve_precision(config.train.precision, device)  # raises UserError if it cannot be had there
    net = build_net(config, config.train.init_from, say)  # a UserError if the model cannot be used
    photos = find_photos_of(config.data, say, rules=rules)
    files = [*photos.training, *photos.validation]
    reasons = _why_unreadable(files, takes_results=photos.takes_results)
    usable = [path for path, reason in zip(files, reasons, strict=True) if reason is None]
    found = [reason for reason in reasons if reason is not None]
    results = [reason for reason in found if isinstance(reason, ResultError)]
    unreadable = [reason for reason in found if not isinstance(reason, ResultError)]
    for reason in unreadable:
        say(f"unreadable: {reason}")
    for reason in results:
        say(f"left out: {reason}")
    in_results = f", {len(results)} of them results of fast-style ({INCLUDE_RESULTS} takes them in)"
    say(
        f"photos: {len(photos.training)} to train on, {len(photos.validation)} held out, "
        f"{len(unreadable)} of them unreadable{in_results if results else ''}"
    )
    pictures = [*usable, config.style.image]
    for line in (
        line_about_several([(str(path), num_pictures(path)) for path in pictures]),
        line_about_profiles(str(path) for path in pictures if has_unusable_profile(path)),
        _about_small_photos(usable, config),
    ):
        if line:
            say(line)
    require_style_picture(config.style.image, "style.image")
    style = read_style(config.style.image, config.style.size)
    say(f"style: {printable(config.style.image)}, resized to {style.width} x {style.height} pixels")
    if config.train.init_from == NEAREST:
        start_from_nearest(net, config, style, photos, say)
    weights = load_loss_weights(config)
    architecture = config.loss_network.architecture
    say(f"loss network: {architecture}, {weights.label}, {weights.preprocessing} preprocessing")
    cpu = torch.device("cpu")
    build_perceptual_loss(config, weights, style, cpu)  # raises UserError if the style is unusable
    if config.log.judge_weights is not None:
        build_judge_loss(config, config.log.judge_weights, cpu)
        say(f"judge: {printable(config.log.judge_weights)}")
    training, held_out = reasons[: len(photos.training)], reasons[len(photos.training) :]
    share = config.data.max_unreadable_share
    require_usable(photos.folder, training, max_unreadable_share=share)
    require_held_out(held_out)
    say("all inputs can be used")


def _about_small_photos(photos: Sequence[Path], config: Config) -> str:
    """A line about the photos that are enlarged because crops are larger; empty if none is."""
    data = config.data
    key = "data.crop_size" if data.grown_crop_size is None else "data.grown_crop_size"
    side = data.grown_crop_size or data.crop_size
    small = [least for path in photos if (least := min(size_in_header(path) or (side,))) < side]
    if not small:
        return ""
    return (
        f"smaller than a crop: {len(small)} of {len(photos)} photos, which are enlarged; {key} is "
        f"{side} pixels, and the smallest has {min(small)}: set "
        f"{key}={max(min(small), SMALLEST_SIDE)}, or take them out of the folder"
    )


def _why_unreadable(photos: Sequence[Path], *, takes_results: bool) -> list[PictureError | None]:
    """For each photo the reason why it cannot be used, or None."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = pool.map(partial(why_unreadable, takes_results=takes_results), photos)
        # disable=None: a bar on a terminal only
        return list(tqdm(reasons, total=len(photos), unit="photo", disable=None))
