"""Claims about the consistency term: what it is for stylizers that anyone can understand."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_networks import make_photos
from small_run import final_state, settings_of, train_once
from torch import Tensor

from fast_style.training import stability
from fast_style.training.stability import EVERY, Changes, copied_in, draw_changes

NOISE = 6 / 255
CPU = torch.device("cpu")


def changes_of(samples: range, side: int = 24, seed: int = 1, noise: float = NOISE) -> Changes:
    found = draw_changes(seed, samples, side, CPU, noise=noise)
    assert found is not None
    return found


# --- Changes --------------------------------------------------------------------------------------


def test_the_last_of_six_samples_has_a_copy() -> None:
    assert [copied_in(range(first, first + 4)) for first in (0, 4, 8)] == [[], [1], [3]]
    assert [copied_in(range(first, first + 2)) for first in (0, 2, 4, 6)] == [[], [], [1], []]
    assert copied_in(range(12)) == [5, 11]


def test_a_batch_without_copies_has_no_changes() -> None:
    assert draw_changes(1, range(3), 24, CPU, noise=NOISE) is None


def test_without_zoom_the_photo_is_shifted_by_whole_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stability, "_ZOOM_SHARE", 0.0)
    photos = make_photos(64, 3, 24, 24)
    changes = changes_of(range(64), noise=0.0)
    moved = changes.copies(photos)
    seen = set()
    for photo, copy in zip(photos[EVERY - 1 :: EVERY], moved, strict=True):
        fits = [
            (down, right)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if torch.equal(
                photo[:, 3 + down : 21 + down, 3 + right : 21 + right], copy[:, 3:21, 3:21]
            )
        ]
        (shift,) = fits
        seen.add(shift)
    assert len(seen) > 8


def test_a_ramp_is_moved_to_a_ramp() -> None:
    weights = torch.from_numpy(stability._interpolation(24, 1, 1.25))
    line = torch.arange(24.0)
    expected = (line - 11.5) / 1.25 + 11.5 + 1
    torch.testing.assert_close(weights @ line, expected.clamp(0, 23))


def test_noise_is_that_of_its_deviation() -> None:
    changes = changes_of(range(12), side=64)
    assert changes.noise.shape == (2, 3, 64, 64)
    assert changes.noise.std().item() == pytest.approx(NOISE, rel=0.05)
    assert changes.noise.mean().item() == pytest.approx(0, abs=1e-3)


def test_changes_depend_on_seed_and_sample_alone() -> None:
    alone, among = changes_of(range(10, 12)), changes_of(range(12))
    for one, all_of_them in zip(alone[1:], among[1:], strict=True):
        assert torch.equal(one[0], all_of_them[1])
    assert not torch.equal(alone.noise, changes_of(range(10, 12), seed=2).noise)
    assert not torch.equal(among.noise[0], among.noise[1])


# --- The term -------------------------------------------------------------------------------------


def instability_of(
    stylize: Callable[[Tensor], Tensor], photos: Tensor, noise: float = 0.0
) -> float:
    changes = changes_of(range(len(photos)), side=photos.shape[-1], noise=noise)
    return float(changes.instability(stylize(photos), stylize(changes.copies(photos))))


def test_a_stylizer_of_single_pixels_is_stable() -> None:
    assert instability_of(lambda pixels: 1 - pixels, make_photos(12, 3, 48, 48)) < 1e-12


def test_a_pattern_that_stays_in_place_is_not() -> None:
    pattern = 0.1 * torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(12)
    found = instability_of(lambda pixels: 0 * pixels + pattern, make_photos(96, 3, 48, 48))
    assert 1 < found < 3  # 2 for a shift by 1 or 3 pixels, 4 for 2, 0 for none


def test_noise_counts_as_a_share_of_the_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "_ZOOM_SHARE", 0.0)  # interpolation would lower the variance
    photos = make_photos(12, 3, 96, 96) * 2  # of noise of variance 1/3
    expected = NOISE**2 * 3
    for contrast in (1, 0.1):
        found = instability_of(lambda pixels, by=contrast: by * pixels, photos, NOISE)
        assert found == pytest.approx(expected, rel=0.2 if contrast == 1 else 0.3)


def test_a_picture_of_one_color_is_stable() -> None:
    assert instability_of(lambda pixels: 0 * pixels + 0.3, make_photos(12, 3, 48, 48)) < 1e-9


def test_copies_weigh_the_same_in_batches_of_every_size() -> None:
    whole = changes_of(range(12)).weight_in(12)
    pairs = [range(first, first + 2) for first in range(0, 12, 2)]
    parts = [draw_changes(1, pair, 24, CPU, noise=NOISE) for pair in pairs]
    assert whole == 1
    assert sum(part.weight_in(2) for part in parts if part is not None) / len(parts) == 1


# --- In training ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_weight_of_zero_trains_as_without_the_term(yaml_file: Path, tmp_path: Path) -> None:
    states = []
    for name, weight in (("zero", 0), ("one", 1)):
        train_once(settings_of(yaml_file, f"loss.stability_weight={weight}"), tmp_path / name)
        states.append(final_state(tmp_path / name / "tiny"))
    assert states[0] != states[1]
    table = (tmp_path / "zero" / "tiny" / "metrics.csv").read_text()
    assert "loss/stability" not in table
    assert "loss/stability" in (tmp_path / "one" / "tiny" / "metrics.csv").read_text()
