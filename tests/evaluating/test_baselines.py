"""L-BFGS on one photo: what is recorded of it, and how that is cached."""

import math
import os
import zipfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from small_evaluation import CPU, objective_of
from small_run import draw_photo

from fast_style.core.errors import Stopped, UserError
from fast_style.evaluating import baselines
from fast_style.evaluating.baselines import BaselineCache, Descent, descend
from fast_style.evaluating.objective import Objective
from fast_style.evaluating.plan import Photo, Variant, read_photos
from fast_style.optimizing.minimizing import Iterate

pytestmark = pytest.mark.slow


@pytest.fixture
def photo(held_out: Path) -> Photo:
    (photo,) = read_photos(sorted(held_out.iterdir())[:1], 32, CPU)
    return photo


def cache_in(folder: Path, objective: Objective) -> BaselineCache:
    cache = BaselineCache(folder, objective.loss, objective.digest)
    cache.make_folder("--output")
    return cache


def are_equal(first: Descent, second: Descent) -> bool:
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def a_descent(size: int = 2) -> Descent:
    totals = [9.0, 5.0, 5.0, 3.0, 1.0]
    pictures = np.zeros((3, size, size, 3), np.uint8)
    pictures[1] += 1
    pictures[2] += 2
    return Descent(
        np.array([[total, 0, 0, 0] for total in totals]),
        np.array([1, 2, 4, 5, 6]),
        np.array([0, 2, 4]),
        pictures,
    )


def arrays_of(descent: Descent) -> dict[str, Any]:
    """What a file holds of a descent for which 4 iterations were asked."""
    return {
        "asked": np.array(4),
        "values": descent.values,
        "evaluations": descent.evaluations,
        "kept": descent.pictured,
        "pictures": descent.pictures,
    }


@pytest.mark.parametrize(
    ("total", "iterations"),
    [(9.5, 0), (9.0, 0), (8.9, 1), (5.0, 1), (3.5, 3), (1.0, 4), (0.9, None)],
)
def test_an_objective_equals_the_first_iteration_that_is_no_worse(
    total: float, iterations: int | None
) -> None:
    assert a_descent().iterations_to_reach(total) == iterations


def test_the_picture_after_an_iteration_is_the_next_one_stored() -> None:
    found = [a_descent().picture_after(iteration) for iteration in (0, 1, 2, 3, 4, 9)]
    expected = [(0, 0), (2, 1), (2, 1), (4, 2), (4, 2), (4, 2)]
    assert [(iteration, int(picture.max())) for iteration, picture in found] == expected


def test_a_broken_model_equals_nothing_but_the_start() -> None:
    assert [a_descent().iterations_to_reach(total) for total in (math.nan, math.inf)] == [0, 0]


def test_after_converging_a_descent_stays_where_it_was() -> None:
    assert [a_descent().index_of(iteration) for iteration in (0, 4, 500)] == [0, 4, 4]


@pytest.mark.parametrize("variant", get_args(Variant))
def test_a_descent_holds_the_best_so_far_and_counts_evaluations(
    run: Path, photo: Photo, variant: Variant
) -> None:
    seen: list[Iterate] = []
    descent = descend(objective_of(run).loss, photo.pixels, variant, 12, seen.append)
    totals = [iterate.values.total for iterate in seen]
    assert descent.values[:, 0].tolist() == [min(totals[: n + 1]) for n in range(13)]
    assert descent.evaluations.tolist() == [iterate.evaluations for iterate in seen]
    assert descent.pictured.tolist() == [0, 1, 2, 3, 5, 7, 10, 12]
    best = min(seen, key=lambda iterate: iterate.values.total)
    levels = (best.picture[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(descent.pictures[-1], levels)


def test_the_strong_baseline_begins_with_the_photo_and_the_papers_with_noise(
    run: Path, held_out: Path
) -> None:
    loss = objective_of(run).loss
    first, second = read_photos(sorted(held_out.iterdir())[:2], 32, CPU)
    own = loss(first.pixels, first.pixels).total.item()
    strong = descend(loss, first.pixels, "box", 1)
    assert strong.values[0, 0] == pytest.approx(own)
    assert strong.values[0, 1] == 0  # no other content than the photo's
    papers = [descend(loss, photo.pixels, "clip", 1) for photo in (first, second)]
    assert np.array_equal(papers[0].pictures[0], papers[1].pictures[0])
    assert papers[0].pictures[0].std() > 60  # uniform noise: 255 / sqrt(12) = 74


def test_a_cached_descent_serves_fewer_iterations_and_not_more(
    run: Path, photo: Photo, tmp_path: Path
) -> None:
    cache = cache_in(tmp_path / "cache", objective_of(run))
    assert cache.load(photo, "box", 6) is None
    computed = cache.compute(photo, "box", 6, lambda iterate: None)
    again = cache.load(photo, "box", 6)
    assert again is not None
    assert are_equal(again, computed)
    assert cache.load(photo, "box", 4) is None  # no picture after 4 iterations is stored
    fewer = cache.load(photo, "box", 3)
    assert fewer is not None
    assert are_equal(fewer, descend(cache.loss, photo.pixels, "box", 3))
    assert cache.load(photo, "box", 7) is None
    assert cache.load(photo, "clip", 3) is None


def test_files_of_older_versions_are_found_and_read(run: Path, tmp_path: Path) -> None:
    # The name that version 0.1.0 gave to this photo, with the arrays that it stored.
    photo = Photo("my photo.jpg", torch.full((1, 3, 32, 32), 0.5), is_enlarged=False)
    descent = a_descent(32)
    np.savez_compressed(tmp_path / "32-box-my_photo-6dc6ce73d812.npz", **arrays_of(descent))
    found = BaselineCache(tmp_path, objective_of(run).loss, "c" * 64).load(photo, "box", 4)
    assert found is not None
    assert are_equal(found, descent)


@pytest.mark.parametrize("length", [0, 1, 100, 1000])
def test_a_damaged_file_is_told_and_computed_anew(
    run: Path, photo: Photo, tmp_path: Path, length: int
) -> None:
    cache = cache_in(tmp_path / "cache", objective_of(run))
    cache.compute(photo, "box", 2, lambda iterate: None)
    path = cache.path(photo, "box")
    path.write_bytes(path.read_bytes()[:length])
    lines: list[str] = []
    assert cache.load(photo, "box", 2, say=lines.append) is None
    assert lines == [f"{path}: this L-BFGS result is damaged; it is computed again"]


@pytest.mark.parametrize(
    "forged",
    [
        {"kept": np.zeros(0, int), "pictures": np.zeros((0, 32, 32, 3), np.uint8)},
        {"values": np.zeros((0, 4)), "evaluations": np.zeros(0, int)},
        {"values": np.zeros((5, 3))},
        {"values": np.zeros(5)},
        {"values": np.zeros((5, 4), int)},
        {"evaluations": np.zeros(4, int)},
        {"kept": np.array([0, 2, 9])},
        {"kept": np.array([0, 5, 4])},
        {"kept": np.array([1, 2, 4])},
        {"kept": np.array([0, 4])},
        {"pictures": np.zeros((3, 2, 2, 3), np.uint8)},
        {"pictures": np.zeros((3, 32, 32, 3))},
        {"asked": np.array([4])},
        {"asked": np.array(3)},
    ],
)
def test_arrays_that_are_no_descent_are_told_and_computed_anew(
    run: Path, tmp_path: Path, forged: dict[str, Any]
) -> None:
    photo = Photo("a.jpg", torch.full((1, 3, 32, 32), 0.5), is_enlarged=False)
    cache = cache_in(tmp_path, objective_of(run))
    path = cache.path(photo, "box")
    lines: list[str] = []
    for arrays in (arrays_of(a_descent(32)), arrays_of(a_descent(32)) | forged):
        np.savez_compressed(path, **arrays)
        found = cache.load(photo, "box", 4, say=lines.append)
        assert (found is None) == bool(lines)
    assert lines == [f"{path}: this L-BFGS result is damaged; it is computed again"]


def test_file_that_claims_more_than_it_holds_is_damaged(run: Path, tmp_path: Path) -> None:
    photo = Photo("a.jpg", torch.full((1, 3, 32, 32), 0.5), is_enlarged=False)
    cache = cache_in(tmp_path, objective_of(run))
    path = cache.path(photo, "box")
    np.savez(path, **arrays_of(a_descent(32)))
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    shape, larger = b"(3, 32, 32, 3), }", b"(3999999999, 32, 32, 3), }"
    padding = b" " * (len(larger) - len(shape))
    claim = members["pictures.npy"].replace(shape + padding, larger)
    assert claim != members["pictures.npy"]
    with zipfile.ZipFile(path, "w") as forged:
        for name, content in (members | {"pictures.npy": claim}).items():
            forged.writestr(name, content)
    lines: list[str] = []
    assert cache.load(photo, "box", 4, say=lines.append) is None
    assert len(lines) == 1


def test_whole_file_is_not_called_damaged_where_memory_runs_out(
    run: Path, photo: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    cache = cache_in(tmp_path / "cache", objective_of(run))
    cache.compute(photo, "box", 2, lambda iterate: None)
    monkeypatch.setattr(np.lib.format, "read_array", fail)
    monkeypatch.setattr(baselines, "ran_out_of_memory", lambda error, path: True)
    with pytest.raises(MemoryError):
        cache.load(photo, "box", 2)


def test_what_cannot_be_replaced_by_a_file_is_refused_before_lbfgs_runs(
    run: Path, photo: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_in(tmp_path / "cache", objective_of(run))
    cache.require_files([photo], ["box", "clip"])
    path = cache.path(photo, "clip")
    places = {"is a folder": (path.mkdir, path.rmdir)}
    if hasattr(os, "mkfifo"):
        places["is no ordinary file"] = (lambda: os.mkfifo(path), path.unlink)
    for found, (make, remove) in places.items():
        make()
        for check in (
            lambda: cache.require_files([photo], ["box", "clip"]),
            lambda: cache.load(photo, "clip", 2),
        ):
            with pytest.raises(UserError) as caught:
                check()
            assert str(caught.value) == (
                f"{path}: {found}, where an L-BFGS result is kept; remove or rename it"
            )
        remove()
    path.write_bytes(b"")

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # root may read everything
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\), where an L-BFGS"):
        cache.load(photo, "clip", 2)


def test_nothing_is_told_of_a_file_that_is_missing_or_whole(
    run: Path, photo: Photo, tmp_path: Path
) -> None:
    cache = cache_in(tmp_path / "cache", objective_of(run))
    lines: list[str] = []
    assert cache.load(photo, "box", 2, say=lines.append) is None
    cache.compute(photo, "box", 2, lambda iterate: None)
    assert cache.load(photo, "box", 2, say=lines.append) is not None
    assert not lines


def test_nothing_is_stored_of_a_stopped_descent(run: Path, photo: Photo, tmp_path: Path) -> None:
    def stop(iterate: Iterate) -> None:
        if iterate.iteration == 2:
            raise Stopped

    cache = cache_in(tmp_path / "cache", objective_of(run))
    with pytest.raises(Stopped):
        cache.compute(photo, "box", 4, stop)
    assert [*cache.folder.iterdir()] == []


def test_a_file_stands_for_one_objective_one_photo_and_one_size(
    run: Path, held_out: Path, tmp_path: Path
) -> None:
    files = sorted(held_out.iterdir())
    photos = [*read_photos(files, 32, CPU), *read_photos(files[:1], 48, CPU)]
    other_style = tmp_path / "other.png"
    draw_photo(7).save(other_style)
    objectives = [objective_of(run), objective_of(run, style=other_style)]
    paths = {
        cache_in(tmp_path, objective).path(photo, variant)
        for objective in objectives
        for photo in photos
        for variant in get_args(Variant)
    }
    assert len(paths) == 2 * 4 * 2


def test_cache_messages(
    run: Path, photo: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(UserError) as caught:
        cache_in(file / "cache", objective_of(run))
    assert str(caught.value) == (
        f"{file}/cache: cannot create this folder (Not a directory); choose another --output"
    )
    cache = cache_in(tmp_path / "cache", objective_of(run))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(UserError) as caught:
        cache.make_folder("--output")
    assert str(caught.value) == (
        f"{cache.folder}: no permission to write to this folder; choose another --output"
    )

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(baselines, "atomic_write", full)
    with pytest.raises(UserError) as caught:
        cache.compute(photo, "box", 1, lambda iterate: None)
    assert str(caught.value) == (
        f"{cache.folder}: cannot write the L-BFGS baseline of {photo.name} "
        "(No space left on device); free some room on its disk"
    )
    assert caught.value.exit_code == 1
