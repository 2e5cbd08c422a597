"""Claims about `find_photos`: which photos are held out, and what makes a folder unusable."""

from pathlib import Path

import pytest
from small_run import draw_photo, write_photos

from fast_style.core.errors import UserError
from fast_style.pictures.folders import find_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def message_of(folder: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        find_photos(folder, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere", "folder not found"),
        ("x" * 300, "folder not found"),
        ("train.zip", "is a file"),
        ("empty", "no photos in this folder or below it"),
    ],
)
@pytest.mark.parametrize("kind", ["photos", "paintings"])
def test_unusable_folder_is_named_with_its_setting(
    tmp_path: Path, folder: Path, name: str, problem: str, kind: str
) -> None:
    (tmp_path / "train.zip").touch()
    (tmp_path / "empty").mkdir()
    path = tmp_path / name
    for message, key in (
        (message_of(path, kind=kind), f"data.{kind}"),
        (message_of(folder, kind=kind, validation_folder=path), f"data.validation_{kind}"),
    ):
        assert message.startswith(f"{path}: ")
        assert problem in message
        assert key in message


@pytest.mark.parametrize("kind", ["photos", "paintings"])
def test_too_few_photos_are_told_with_the_setting_that_helps(tmp_path: Path, kind: str) -> None:
    folder = write_photos(tmp_path / "odd\nname", 1)
    single = message_of(folder, kind=kind)
    assert single.startswith(f"{tmp_path}/odd\\nname: one photo is too few")
    assert f"set data.validation_{kind}" in single
    all_held_out = message_of(folder, kind=kind, validation_folder=folder)
    assert "all photos are held out for validation" in all_held_out
    assert f"set data.validation_{kind} to another folder" in all_held_out


def test_too_few_photos_are_told_with_what_was_left_out(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "phone", 1)
    for number in range(5):
        (folder / f"IMG_{number}.HEIC").touch()
    for message in (message_of(folder), message_of(folder, validation_folder=folder)):
        assert "; 5 files left out: .heic (5)" in message
        assert "heif-convert" in message or "magick" in message


def test_nested_folders_are_searched(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos" / "deep" / "er", 4)
    photos = find_photos(tmp_path / "photos", validation_count=1)
    assert len(photos.training) + len(photos.validation) == 4


def names(photos: list[Path]) -> list[str]:
    return [path.name for path in photos]


def test_held_out_photos_stay_the_same_when_the_folder_moves(tmp_path: Path, folder: Path) -> None:
    before = find_photos(folder, validation_count=4)
    moved = tmp_path / "somewhere else"
    folder.rename(moved)
    after = find_photos(moved, validation_count=4)
    assert names(after.validation) == names(before.validation)
    assert names(after.training) == names(before.training)
    assert after.digest == before.digest


def test_held_out_photos_mostly_stay_when_photos_are_added(folder: Path) -> None:
    before = find_photos(folder, validation_count=4)
    draw_photo(50).save(folder / "new.png")
    after = find_photos(folder, validation_count=4)
    assert len(set(after.validation) & set(before.validation)) >= 3
    assert after.digest != before.digest


@pytest.mark.parametrize("count", range(1, 14))
def test_held_out_photos_are_never_trained_on(folder: Path, count: int) -> None:
    photos = find_photos(folder, validation_count=count)
    assert not set(photos.training) & set(photos.validation)
    assert len(photos.validation) == min(count, 6)
    assert len(photos.training) == 12 - len(photos.validation)


@pytest.mark.parametrize("written", ["photos/held", "photos/../photos/held", "link"])
def test_validation_folder_inside_the_photos_is_not_trained_on(
    tmp_path: Path, folder: Path, written: str
) -> None:
    write_photos(folder / "held", 4)
    (tmp_path / "link").symlink_to(folder / "held")
    photos = find_photos(folder, validation_folder=tmp_path / written, validation_count=16)
    assert len(photos.validation) == 4
    assert {path.parent for path in photos.training} == {folder}
    assert len(photos.training) == 12


def test_validation_folder_may_be_the_training_folder(folder: Path) -> None:
    photos = find_photos(folder, validation_folder=folder, validation_count=5)
    assert not set(photos.training) & set(photos.validation)
    assert (len(photos.training), len(photos.validation)) == (7, 5)


def test_photos_of_a_linked_validation_folder_are_not_trained_on(
    tmp_path: Path, folder: Path
) -> None:
    held = write_photos(tmp_path / "elsewhere", 4)
    (folder / "held").symlink_to(held)
    photos = find_photos(folder, validation_folder=held)
    assert {path.parent for path in photos.training} == {folder}
    assert len(photos.validation) == 4


@pytest.mark.parametrize("is_inside", [True, False])
def test_held_out_links_to_photos_are_not_trained_on(
    tmp_path: Path, folder: Path, is_inside: bool
) -> None:
    held = (folder if is_inside else tmp_path) / "held"
    held.mkdir()
    own = sorted(folder.glob("photo-*"))
    for photo in own[:3]:
        (held / f"link-{photo.name}").symlink_to(photo)
    photos = find_photos(folder, validation_folder=held)
    assert {path.resolve() for path in photos.validation} == set(own[:3])
    assert photos.training == own[3:]
    if not is_inside:  # as runs did that began so
        assert len(find_photos(folder, validation_folder=held, rules=3).training) == 12


def test_links_to_held_out_photos_are_not_trained_on(tmp_path: Path, folder: Path) -> None:
    own = sorted(folder.iterdir())
    held = write_photos(tmp_path / "held", 3)
    far = write_photos(tmp_path / "far", 2)
    (folder / "link.png").symlink_to(held / "photo-01.png")
    for place, name in ((folder, "a.png"), (held, "b.png")):
        (place / name).symlink_to(far / "photo-01.png")
    photos = find_photos(folder, validation_folder=held)
    assert len(photos.validation) == 4
    assert photos.training == own


def test_a_photo_and_its_link_are_not_trained_on_and_held_out(folder: Path) -> None:
    for photo in list(folder.iterdir()):
        (folder / f"link-{photo.name}").symlink_to(photo.name)
    photos = find_photos(folder, validation_count=6)
    assert len({path.resolve() for path in [*photos.training, *photos.validation]}) == 12
    assert (len(photos.training), len(photos.validation)) == (6, 6)
    assert [len(left_out.names["twin"]) for left_out in photos.left_out] == [12]


def test_what_was_left_out_is_told_of_both_folders(tmp_path: Path, folder: Path) -> None:
    held = write_photos(tmp_path / "held", 2)
    for path in (folder / "a.heic", held / "photo-00.wave.jpg"):
        path.touch()
    photos = find_photos(folder, validation_folder=held)
    first, second = (left_out.line("--x") for left_out in photos.left_out)
    assert first.startswith(f"{folder}: 1 file left out: .heic (1); convert .heic with ")
    assert second == (
        f"{held}: 1 result of fast-style left out: photo-00.wave.jpg (--x takes them in)"
    )


def test_digest_and_order_by_the_first_rules_are_those_of_earlier_versions(tmp_path: Path) -> None:
    names = ["b.jpg", "a/z.png", "a b.gif", "thumbs/t.png", "b.wave.jpg", "new.jfif"]
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "c.jpg").touch()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "link")
    photos = find_photos(tmp_path / "photos", validation_count=1, rules=1)
    # Computed by fast-style before it had rules.
    assert photos.validation == [tmp_path / "photos" / "b.wave.jpg"]
    assert photos.digest == "53616cba552cd28562f177ab97e45b3f070c898d336f01a565d52e4f14affb7f"
    assert photos.rules == 1
    assert photos.takes_results
    today = find_photos(tmp_path / "photos", validation_count=1)
    assert {today.name_of(path) for path in [*today.training, *today.validation]} == {
        *("a b.gif", "a/z.png", "b.jpg", "link/c.jpg", "new.jfif"),
    }
    assert not today.takes_results
