"""Claims about `unreadable`: what a run tolerates, and what its list holds."""

import json
import os
from pathlib import Path

import pytest
import torch
from small_run import draw_photo, write_photos, write_small_run

from fast_style.core.errors import UserError
from fast_style.pictures.folders import Photos, find_photos, why_unreadable
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import load_config
from fast_style.training import build as runs
from fast_style.training.data import Batch, Crops, Sample, collate
from fast_style.training.run_folder import open_run
from fast_style.training.unreadable import (
    Unreadable,
    UnreadableList,
    probe_photos,
    too_many_unreadable,
)

ODD_NAMES = [
    "with space.png",
    "ünï—和.png",
    "new\nline.png",
    "-dash.png",
    "quote\"'.png",
    os.fsdecode(b"latin-\xe9.png"),
]


def open_list(path: Path, *, before_sample: int = 0, max_share: float = 0.05) -> UnreadableList:
    """The list of a run of 100 photos."""
    return UnreadableList.open(
        path, num_photos=100, max_share=max_share, before_sample=before_sample
    )


def unreadable(*names: str, sample: int = 0) -> list[Unreadable]:
    return [Unreadable(name, f"{name}: empty file", sample) for name in names]


# --- The list -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_survive_the_worker_the_list_and_the_message(tmp_path: Path, name: str) -> None:
    folder = write_photos(tmp_path / "photos", 4)
    (folder / name).write_bytes(b"broken")
    photos = Photos(folder, [folder / name], [])
    sample = Crops(photos, seed=1, size=16, scale=(1.0, 1.0), flip=False)[0]
    path = tmp_path / "list.jsonl"
    (new,) = open_list(path).add(sample.unreadable)
    assert new.photo == name
    assert "\n" not in new.reason
    new.reason.encode()  # no lone surrogates: printable everywhere
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["photo"] == name
    assert open_list(path, before_sample=1).entries == {name: new}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_readable_photo_with_an_odd_name_is_used(tmp_path: Path, name: str) -> None:
    folder = write_photos(tmp_path / "photos", 4)
    draw_photo(9).save(folder / name)
    photos = find_photos(folder, validation_count=1)
    assert folder / name in [*photos.training, *photos.validation]
    assert len(photos.digest) == 64
    assert why_unreadable(folder / name) is None


def test_each_unreadable_photo_is_listed_once(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    listed = open_list(path)
    assert [entry.photo for entry in listed.add(unreadable("a", "b", "a"))] == ["a", "b"]
    assert [entry.photo for entry in listed.add(unreadable("b", "c", sample=4))] == ["c"]
    assert path.read_text() == (
        '{"photo": "a", "reason": "a: empty file", "sample": 0}\n'
        '{"photo": "b", "reason": "b: empty file", "sample": 0}\n'
        '{"photo": "c", "reason": "c: empty file", "sample": 4}\n'
    )


def test_list_is_cut_back_to_the_samples_of_the_resumed_step(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    listed = open_list(path)
    listed.add(unreadable("a", sample=3))
    listed.add(unreadable("b", sample=7))
    assert list(open_list(path, before_sample=7).entries) == ["a"]
    assert path.read_text() == '{"photo": "a", "reason": "a: empty file", "sample": 3}\n'


@pytest.mark.parametrize("torn", [b'{"photo": "b", "rea', b"\xff\xfe\n", b"[]\n", b'{"x": 1}\n'])
def test_torn_line_of_a_killed_process_is_dropped(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "list.jsonl"
    open_list(path).add(unreadable("a"))
    with path.open("ab") as file:
        file.write(torn)
    assert list(open_list(path, before_sample=9).entries) == ["a"]


def test_list_that_cannot_be_written_is_told_once_and_does_not_stop_the_run(tmp_path: Path) -> None:
    listed = open_list(tmp_path / "list.jsonl")
    listed.path.mkdir()  # root may write any file, but not into a folder
    said: list[str] = []
    for photo in "ab":
        listed.report(unreadable(photo), said.append)
    assert list(listed.entries) == ["a", "b"]
    assert [line for line in said if "skipping" not in line] == [
        f"{listed.path} cannot be written (Is a directory), and lacks unreadable photos; they are "
        "counted all the same"
    ]


def test_list_that_cannot_be_cut_back_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").mkdir()
    with pytest.raises(
        UserError,
        match=r"list\.jsonl: cannot be written \(Is a directory\); rename what is there$",
    ):
        open_list(tmp_path / "list.jsonl")


def test_list_that_another_process_keeps_is_neither_read_nor_written(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    open_list(path).add(unreadable("a"))
    before = path.read_bytes()
    other = UnreadableList.open(
        path, num_photos=100, max_share=0.05, before_sample=9, is_kept=False
    )
    assert other.entries == {}
    assert [entry.photo for entry in other.add(unreadable("b"))] == ["b"]
    assert path.read_bytes() == before


def test_only_ten_new_photos_are_named(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    listed = open_list(path, max_share=1.0)
    said: list[str] = []
    for names in ("abc", "c", "defghi", "jklm", "n"):
        listed.report(unreadable(*names), said.append)
    assert said[:10] == [f"skipping {name}: empty file" for name in "abcdefghij"]
    assert said[10:] == [f"more will only be listed in {path}"]
    assert len(listed.entries) == 14


# --- Too many -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_unreadable", "num_photos", "share", "is_too_many"),
    [
        (10, 20, 0.05, False),  # ten are always tolerated
        (11, 20, 0.05, True),
        (11, 220, 0.05, False),  # 5 % of 220 are 11
        (12, 220, 0.05, True),
        (1000, 1000, 1.0, False),
    ],
)
def test_too_many_means_more_than_ten_and_more_than_the_share(
    num_unreadable: int, num_photos: int, share: float, is_too_many: bool
) -> None:
    assert too_many_unreadable(num_unreadable, num_photos, share) is is_too_many


def test_too_many_unreadable_photos_stop_the_run_with_a_message(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    with pytest.raises(UserError) as caught:
        open_list(path).add(unreadable(*"abcdefghijk"))
    assert str(caught.value) == (
        "11 of 100 photos cannot be read, the first one: a: empty file. They are listed in "
        f"{path}; replace or remove them, or raise data.max_unreadable_share"
    )
    assert caught.value.exit_code == 1
    assert len(path.read_text().splitlines()) == 11


def test_batch_that_could_not_be_filled_stops_the_run(tmp_path: Path) -> None:
    filled = Sample(torch.zeros(3, 4, 4, dtype=torch.uint8), [])
    batch = collate([filled, Sample(None, unreadable("a"))])
    assert batch.is_empty
    assert not Batch(torch.zeros(1), []).is_empty
    with pytest.raises(UserError, match=r"^1 of 100 photos cannot be read"):
        open_list(tmp_path / "list.jsonl").report(batch.unreadable, print, is_fatal=batch.is_empty)


# --- Before a run -------------------------------------------------------------------------------


def test_hopeless_folder_is_found_before_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml_file = write_small_run(tmp_path)
    folder = tmp_path / "photos"
    for path in folder.iterdir():
        path.write_bytes(b"")
    monkeypatch.setattr(runs, "load_loss_weights", lambda *_: pytest.fail("weights were loaded"))
    config = load_config(yaml_file)
    run = open_run(config, root=tmp_path / "runs", fresh=False, say=print)
    with pytest.raises(UserError) as caught:
        runs.build_trainer(config, run, device=torch.device("cpu"), say=print)
    run.lock.release()
    place, _, reason = str(caught.value).partition(": ")
    assert place == str(folder)
    assert reason.startswith(f"9 of 9 photos tried cannot be read, the first one: {place}/photo-")
    assert reason.endswith(
        ": empty file. Replace or remove them, or raise data.max_unreadable_share"
    )
    assert caught.value.exit_code == 2


def test_few_broken_photos_pass_the_probe(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos")
    for path in sorted(folder.iterdir())[:6]:
        path.write_bytes(b"")
    probe_photos(find_photos(folder, validation_count=1), max_unreadable_share=0.05)


# --- Results of this software -------------------------------------------------------------------


def results(*names: str) -> list[Unreadable]:
    return [Unreadable(name, f"{name}: a result", 0, is_result=True) for name in names]


def test_any_number_of_results_is_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    listed = open_list(path)
    listed.add(results(*(f"{number}.png" for number in range(90))))
    with pytest.raises(UserError, match=r"^11 of 100 photos cannot be read, the first one: d0: "):
        listed.add(unreadable(*(f"d{number}" for number in range(11))))
    assert sum(entry.is_result for entry in open_list(path, before_sample=1).entries.values()) == 90


def test_folder_of_nothing_but_results_is_refused_with_the_setting(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        write_picture(folder / f"{number}.png", draw_photo(number))
    photos = find_photos(folder, validation_count=1)
    with pytest.raises(UserError) as caught:
        probe_photos(photos, max_unreadable_share=0.05)
    assert "none of 3 photos tried can be used, the first one: " in str(caught.value)
    assert "a result of fast-style" in str(caught.value)
    assert str(caught.value).endswith("take results in with data.include_results=true")
    taken = find_photos(folder, validation_count=1, takes_results=True)
    probe_photos(taken, max_unreadable_share=0.05)
