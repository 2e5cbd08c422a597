"""Which files of a folder are its photos, and what is said of the others."""

import errno
import hashlib
import itertools
import os
import socket
from pathlib import Path

import pytest
from example_pictures import must_not_block

from fast_style.pictures import formats, scanning
from fast_style.pictures.formats import EXTENSIONS, SUFFIXES_OF_RULES_3
from fast_style.pictures.reading import PictureError
from fast_style.pictures.scanning import (
    LeftOut,
    lines_about,
    names_of_results,
    scan_folder,
)
from fast_style.pictures.writing import WRITABLE

OPTION = "--include-results"


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def left_out_of(folder: Path, **options) -> str:
    return scan_folder(folder, **options).left_out.summary(OPTION)


# --- Photos -------------------------------------------------------------------------------------


def test_pictures_are_found_recursively_in_order_of_names(tmp_path):
    names = ["b.jpg", "a/z.JPEG", "a/b/c.Png", "a.jpg", "B.TIFF", "é.webp", "-x.bmp", "a b.gif"]
    touch(*(tmp_path / name for name in names))
    scan = scan_folder(tmp_path)
    assert scan.names == [
        "-x.bmp",
        "B.TIFF",
        "a/b/c.Png",
        "a/z.JPEG",
        "a b.gif",
        "a.jpg",
        "b.jpg",
        "é.webp",
    ]
    assert scan.pictures == [tmp_path / name for name in scan.names]
    assert scan.left_out.summary(OPTION) == ""


def test_order_does_not_depend_on_the_order_of_creation(tmp_path):
    names = [f"{letter}/{number}.png" for letter in "cab" for number in (10, 9, 1)]
    for root, order in ((tmp_path / "1", names), (tmp_path / "2", sorted(names))):
        touch(*(root / name for name in order))
    assert scan_folder(tmp_path / "1").names == scan_folder(tmp_path / "2").names


def test_formats_are_taken_under_all_their_usual_suffixes(tmp_path):
    usual = "jpg jpeg jpe jfif mpo png apng webp bmp dib gif tif tiff avif jp2 j2k"
    names = [f"a{number}.{suffix}" for number, suffix in enumerate(usual.split())]
    touch(*(tmp_path / name for name in names))
    assert set(scan_folder(tmp_path).names) == set(names)
    assert set(WRITABLE) < EXTENSIONS


def test_paths_of_the_working_directory_have_no_dot_in_front(tmp_path, monkeypatch):
    touch(tmp_path / "sub" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in scan_folder(Path()).pictures] == ["sub/a.jpg"]


def test_folder_that_was_asked_for_may_be_of_any_kind(tmp_path):
    for name in (".hidden", "@eaDir", "thumbs", "lost+found"):
        touch(tmp_path / name / "a.jpg")
        assert scan_folder(tmp_path / name).names == ["a.jpg"]
    (tmp_path / "link").symlink_to(".hidden")
    assert scan_folder(tmp_path / "link").pictures == [tmp_path / "link" / "a.jpg"]


def test_folders_that_cannot_be_listed_are_named(tmp_path):
    touch(tmp_path / "a.jpg")
    for name, problem in [("a.jpg", "not a folder"), ("nowhere", "not found")]:
        with pytest.raises(PictureError) as caught:
            scan_folder(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {problem}"


# --- Links --------------------------------------------------------------------------------------


def test_linked_folders_are_followed(tmp_path):
    touch(tmp_path / "elsewhere" / "train2017" / "a.jpg", tmp_path / "elsewhere" / "single.jpg")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "train2017").symlink_to(tmp_path / "elsewhere" / "train2017")
    (photos / "file.jpg").symlink_to(tmp_path / "elsewhere" / "single.jpg")
    assert scan_folder(photos).names == ["file.jpg", "train2017/a.jpg"]
    assert left_out_of(photos) == ""


def test_a_folder_is_taken_once_and_by_its_own_path(tmp_path):
    touch(tmp_path / "z" / "a.jpg", tmp_path / "outside" / "b.jpg")
    photos = tmp_path
    (photos / "a_link").symlink_to("z")
    (photos / "self").symlink_to(".")
    (photos / "z" / "up").symlink_to("..")
    scan = scan_folder(photos)
    assert scan.names == ["outside/b.jpg", "z/a.jpg"]
    assert scan.left_out.summary(OPTION) == (
        "3 links to folders that are taken already left out: a_link, self, z/up"
    )


def test_of_two_links_to_one_folder_the_first_by_name_counts(tmp_path):
    touch(tmp_path / "elsewhere" / "a.jpg")
    for order in itertools.permutations("xyz"):
        photos = tmp_path / "".join(order)
        photos.mkdir()
        for name in order:
            (photos / name).symlink_to(tmp_path / "elsewhere")
        assert scan_folder(photos).names == ["x/a.jpg"]


def test_a_photo_is_taken_once_and_by_its_own_path(tmp_path):
    touch(tmp_path / "z" / "a.jpg", tmp_path / "z" / "b.jpg")
    (tmp_path / "first.jpg").symlink_to("z/a.jpg")
    (tmp_path / "chain.JPG").symlink_to(tmp_path / "first.jpg")
    (tmp_path / "y").symlink_to("z")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "a.jpg").symlink_to("../y/a.jpg")
    scan = scan_folder(tmp_path)
    assert scan.names == ["z/a.jpg", "z/b.jpg"]
    assert scan.left_out.summary(OPTION) == (
        "1 link to a folder that is taken already left out: y; "
        "3 links to photos that are taken already left out: chain.JPG, first.jpg, val/a.jpg"
    )
    assert scan_folder(tmp_path, rules=3).names == [
        *("chain.JPG", "first.jpg", "val/a.jpg", "z/a.jpg", "z/b.jpg")
    ]


def test_of_links_to_one_photo_outside_the_first_by_name_counts(tmp_path):
    real = tmp_path / "far" / "objects" / "photo"  # as git-annex stores it
    touch(real, tmp_path / "far" / "other.jpg")
    for order in itertools.permutations("xyz"):
        photos = tmp_path / "".join(order)
        photos.mkdir()
        for name in order:
            (photos / f"{name}.jpg").symlink_to(real)
        (photos / "other.jpg").symlink_to("../far/other.jpg")
        scan = scan_folder(photos)
        assert scan.names == ["other.jpg", "x.jpg"]
        assert scan.links == {"other.jpg": str(tmp_path / "far/other.jpg"), "x.jpg": str(real)}
        assert scan.left_out.names == {"twin": ["y.jpg", "z.jpg"]}


def test_links_to_what_is_left_out_are_taken(tmp_path):
    touch(tmp_path / ".hidden.jpg", tmp_path / "b.jpg")
    (tmp_path / "a.jpg").symlink_to(".hidden.jpg")
    assert scan_folder(tmp_path).names == ["a.jpg", "b.jpg"]


def test_hard_links_are_photos_of_their_own(tmp_path):
    touch(tmp_path / "a.jpg")
    os.link(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert scan_folder(tmp_path).names == ["a.jpg", "b.jpg"]
    assert left_out_of(tmp_path) == ""


def test_links_in_linked_folders_are_followed_too(tmp_path):
    touch(tmp_path / "far" / "a.jpg")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "near").symlink_to(tmp_path / "near")
    assert scan_folder(tmp_path / "photos").names == ["near/far/a.jpg"]


def test_file_systems_without_inodes_are_searched(tmp_path, monkeypatch):
    touch(tmp_path / "a" / "x.jpg", tmp_path / "b" / "y.jpg")
    (tmp_path / "c").symlink_to("a")
    stat = os.stat

    def without_inode(path, **options):
        fields = list(stat(path, **options))
        fields[1] = 0
        return os.stat_result(fields)

    monkeypatch.setattr(os, "stat", without_inode)
    assert scan_folder(tmp_path).names == ["a/x.jpg", "b/y.jpg"]


def test_broken_links_are_counted_and_named(tmp_path):
    touch(tmp_path / "a.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "train2017").symlink_to("/no/such/folder")
    assert scan_folder(tmp_path).names == ["a.jpg"]
    assert left_out_of(tmp_path) == "3 broken links left out: gone.jpg, loop.jpg, train2017"


# --- What is left out ---------------------------------------------------------------------------


def test_files_of_other_formats_are_counted_by_suffix_with_a_remedy(tmp_path):
    touch(*(tmp_path / f"IMG_{number}.HEIC" for number in range(4)), tmp_path / "a.jfif")
    assert scan_folder(tmp_path).names == ["a.jfif"]
    assert left_out_of(tmp_path) == (
        "4 files left out: .heic (4); convert .heic with heif-convert (package libheif-examples; "
        "on macOS: sips -s format jpeg)"
    )


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("a.jxl", "convert .jxl with djxl (package libjxl-tools)"),
        ("a.CR3", "develop .cr3 with darktable-cli (package darktable)"),
        ("a.nef", "develop .nef with darktable-cli (package darktable)"),
        ("a.dng", "develop .dng with darktable-cli (package darktable)"),
        ("a.gpr", "develop .gpr with darktable-cli (package darktable)"),
        (
            "a.rwz",
            "unpack .rwz with rawzor, and develop that with darktable-cli (package darktable)",
        ),
        ("a.jxr", "convert .jxr with JxrDecApp (package libjxr-tools)"),
        ("a.wdp", "convert .wdp with JxrDecApp (package libjxr-tools)"),
        ("a.hdp", "convert .hdp with JxrDecApp (package libjxr-tools)"),
        ("a.bpg", "convert .bpg with bpgdec (https://bellard.org/bpg)"),
        ("a.jph", "convert .jph with opj_decompress (package libopenjp2-tools)"),
        ("a.jpm", "convert .jpm with magick (package imagemagick)"),
        ("a.mj2", "take pictures out of .mj2 with ffmpeg (package ffmpeg)"),
        ("a.psd", "convert .psd with magick (package imagemagick)"),
        ("a.ppm", "convert .ppm with magick (package imagemagick)"),
        ("a.mov", "take pictures out of .mov with ffmpeg (package ffmpeg)"),
        ("train.zip", "unpack .zip"),
        (".IMG_1.JPG.icloud", "download .icloud first (in Finder: Download Now)"),
        ("k.jpg.iCloud", "download .icloud first (in Finder: Download Now)"),
        (".a.heic.icloud", "download .icloud first (in Finder: Download Now)"),
        *(
            (
                f"a.jpg{suffix}",
                f"download {suffix} first, with the program that synchronizes the folder",
            )
            for suffix in (".nextcloud", ".owncloud", ".cloud", ".rsls")
        ),
        ("a", "add a suffix such as .jpg to pictures that have none"),
    ],
)
def test_each_kind_of_file_has_its_remedy(tmp_path, name, remedy):
    touch(tmp_path / name)
    suffix = Path(name).suffix.lower() or "no suffix"
    assert left_out_of(tmp_path) == f"1 file left out: {suffix} (1); {remedy}"


def test_placeholders_are_told_with_files_of_other_suffixes(tmp_path):
    touch(*(tmp_path / f".{number}.jpg.icloud" for number in range(3)), tmp_path / "b.bpg")
    # Of what was no picture, a hidden placeholder is not worth a word either.
    touch(tmp_path / ".notes.txt.icloud", tmp_path / ".icloud", tmp_path / ".x.icloud")
    assert scan_folder(tmp_path).names == []
    assert left_out_of(tmp_path) == (
        "4 files left out: .icloud (3), .bpg (1); convert .bpg with bpgdec "
        "(https://bellard.org/bpg); download .icloud first (in Finder: Download Now)"
    )


def test_services_may_be_names_of_models():
    assert names_of_results(["a.jpg", "a.cloud.jpg", "a.icloud.jpg"]) == {
        *("a.cloud.jpg", "a.icloud.jpg"),
    }


def test_the_commonest_suffixes_are_named_and_the_others_counted(tmp_path):
    for number in range(12):
        touch(*(tmp_path / f"{copy}.x{number:02}" for copy in range(1 + (number == 5))))
    assert left_out_of(tmp_path) == (
        "13 files left out: .x05 (2), .x00 (1), .x01 (1), .x02 (1), .x03 (1), .x04 (1), .x06 (1), "
        ".x07 (1), 4 other suffixes"
    )


def test_a_suffix_cannot_move_the_cursor(tmp_path):
    touch(tmp_path / "a.\x1b[31m")
    assert left_out_of(tmp_path) == "1 file left out: .\\x1b[31m (1)"


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir/p00.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/a.jpg",
        "@Recycle/a.jpg",
        "$RECYCLE.BIN/S-1-5-21/$RABCDEF.jpg",
        "System Volume Information/a.jpg",
        "lost+found/a.jpg",
        "LOST.DIR/a.jpg",
        "found.000/a.jpg",
        "__MACOSX/a.jpg",
        "Thumbnails/a.jpg",
        "thumbs/a.jpg",
        "Trash/a.jpg",
        "Catalog Previews.lrdata/a.jpg",
        "Catalog.lrcat-data/a.jpg",
        "files_trashbin/files/a.jpg.d1700000000",
        "files_trashbin/a.jpg",
        "files_versions/a.jpg",
        "appdata_oc1a2b3c4d5e/preview/0/a.jpg",
        "@SynoResource/a.jpg",
        "@SynoEAStream/a.jpg",
        "@sharesnap/a.jpg",
        "@img_bkp_cache/a.jpg",
        "@S2S/a.jpg",
        "@DownloadStation/a.jpg",
        "@GMT-2024.01.02-03.04.05/a.jpg",
        "thumbnails-digikam/a.jpg",
        "Recycle Bin/a.jpg",
        "TheVolumeSettingsFolder/a.jpg",
    ],
)
def test_folders_of_thumbnails_trash_and_systems_are_left_out_and_counted(tmp_path, name):
    touch(tmp_path / "sub" / name, tmp_path / "sub" / "a.jpg")
    assert scan_folder(tmp_path).names == ["sub/a.jpg"]
    assert left_out_of(tmp_path) == (
        f"1 folder of thumbnails, trash or a system left out: sub/{name.split('/')[0]}"
    )


def test_folders_of_people_may_resemble_those_of_systems(tmp_path):
    names = ["@home", "@nasa", "#1 holiday", "files", "appdata", "recycle", "lrdata", "previews"]
    touch(*(tmp_path / name / "a.jpg" for name in names))
    assert len(scan_folder(tmp_path).names) == len(names)
    assert left_out_of(tmp_path) == ""


@pytest.mark.parametrize(
    "real",
    [
        "@eaDir",
        "thumbs",
        ".thumbnails",
        ".Trashes",
        ".Trash-1000",
        "Previews.lrdata",
        "X.photoslibrary/resources",
        "X.photoslibrary/resources/derivatives",
    ],
)
def test_folders_of_thumbnails_are_known_behind_links_of_other_names(tmp_path, real):
    touch(tmp_path / "far" / real / "d.jpg", tmp_path / "photos" / "a.jpg")
    link = tmp_path / "photos" / "link"
    link.symlink_to(tmp_path / "far" / real)
    (tmp_path / "photos" / "chain").symlink_to("link")
    assert scan_folder(tmp_path / "photos").names == ["a.jpg"]
    assert left_out_of(tmp_path / "photos") == (
        "2 folders of thumbnails, trash or systems left out: chain, link"
    )
    # One that alone is named is meant.
    assert scan_folder(link).names == ["d.jpg"]
    assert scan_folder(tmp_path / "photos", rules=2).names == ["a.jpg", "chain/d.jpg"]


def test_of_a_library_behind_a_link_the_originals_are_taken(tmp_path):
    library = tmp_path / "far" / "X.photoslibrary"
    touch(library / "originals" / "0" / "a.jpg", library / "resources" / "derivatives" / "d.jpg")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "lib").symlink_to(library)
    assert scan_folder(photos).names == ["lib/originals/0/a.jpg"]
    said = "1 folder of thumbnails, trash or a system left out: "
    assert left_out_of(photos) == f"{said}lib/resources"
    assert scan_folder(photos / "lib").names == ["originals/0/a.jpg"]
    assert left_out_of(photos / "lib") == f"{said}resources"
    (photos / "lib").unlink()
    (photos / "mine").symlink_to(library / "originals" / "0")
    assert scan_folder(photos).names == ["mine/a.jpg"]


def test_links_to_ordinary_hidden_folders_are_followed(tmp_path):
    touch(tmp_path / ".cache" / ".photos" / "a.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / ".cache" / ".photos")
    assert scan_folder(tmp_path / "photos").names == ["link/a.jpg"]


def test_of_a_library_of_macos_the_originals_are_taken(tmp_path):
    library = tmp_path / "Photos Library.photoslibrary"
    names = ["originals/0/a.jpeg", "resources/derivatives/0/a.jpeg", "database/x.jpg"]
    touch(*(library / name for name in names))
    assert scan_folder(tmp_path).names == [f"{library.name}/originals/0/a.jpeg"]
    assert scan_folder(library).names == ["originals/0/a.jpeg"]
    assert left_out_of(library) == (
        "2 folders of thumbnails, trash or systems left out: database, resources"
    )


def test_hidden_photos_and_folders_are_counted(tmp_path):
    touch(
        *(
            tmp_path / name
            for name in (
                ".x.jpg",
                "._a.jpg",
                ".git/a.jpg",
                "a.jpg",
                ".DS_Store",
                ".gitignore",
                ".JPG",
            )
        )
    )
    assert scan_folder(tmp_path).names == ["a.jpg"]
    assert left_out_of(tmp_path) == (
        "4 hidden files and folders left out: .JPG, ._a.jpg, .git, ..."
    )


def test_what_is_hidden_is_counted_unless_it_is_a_file_of_no_pictures_suffix(tmp_path):
    touch(*(tmp_path / name for name in ("a.jpg", ".b.heic", ".c.JXL", ".d.nef", ".e.mov")))
    (tmp_path / ".f").symlink_to("nowhere")  # may have been a folder of photos
    (tmp_path / ".g.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / ".h")
    # Nearly every folder of macOS has .DS_Store, and every clone .gitignore: a word about them
    # each time would hide the words that matter.
    touch(*(tmp_path / name for name in (".DS_Store", ".gitignore", ".nomedia", ".x", ".x.txt")))
    scan = scan_folder(tmp_path)
    assert scan.names == ["a.jpg"]
    assert sorted(scan.left_out.names["hidden"]) == [
        *(".b.heic", ".c.JXL", ".d.nef", ".e.mov", ".f", ".g.jpg", ".h")
    ]
    assert list(scan.left_out.names) == ["hidden"]


def test_only_regular_files_are_found_and_none_is_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "null.jpg").symlink_to(os.devnull)
    touch(tmp_path / "folder.jpg" / "a.jpg")
    with socket.socket(socket.AF_UNIX) as server, must_not_block():
        server.bind(os.path.relpath(tmp_path / "s.png"))
        assert scan_folder(tmp_path).names == ["folder.jpg/a.jpg"]
        assert left_out_of(tmp_path) == (
            "3 pipes, sockets and devices left out: fifo.jpg, null.jpg, s.png"
        )


def test_unreadable_folder_inside_is_left_out_and_named(tmp_path, monkeypatch):
    touch(tmp_path / "a" / "private" / "x.jpg", tmp_path / "a" / "y.jpg")
    scandir = os.scandir

    # Root may list everything, so the refusal of the system is imitated.
    def refuse(path):
        if Path(path).name == "private":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert scan_folder(tmp_path).names == ["a/y.jpg"]
    assert left_out_of(tmp_path) == (
        "1 folder that cannot be read left out: a/private (permission denied)"
    )


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list everything"
)
def test_folder_without_permission_is_left_out(tmp_path):
    touch(tmp_path / "a.jpg")
    (tmp_path / "private").mkdir(mode=0)
    assert scan_folder(tmp_path).names == ["a.jpg"]
    assert "private (permission denied)" in left_out_of(tmp_path)


def test_every_reason_is_in_the_one_line(tmp_path):
    touch(
        *(tmp_path / name for name in ("a.jpg", "a.wave.jpg", "b.heic", ".c.jpg", "thumbs/a.jpg"))
    )
    (tmp_path / "gone").symlink_to("nowhere")
    (line,) = lines_about([scan_folder(tmp_path).left_out], OPTION)
    assert line == (
        f"{tmp_path}: 1 file left out: .heic (1); convert .heic with heif-convert (package "
        "libheif-examples; on macOS: sips -s format jpeg); 1 result of fast-style left out: "
        "a.wave.jpg (--include-results takes them in); 1 folder of thumbnails, trash or a system "
        "left out: thumbs; 1 broken link left out: gone; 1 hidden file or folder left out: .c.jpg"
    )
    assert lines_about([LeftOut(tmp_path)], OPTION) == []


def test_long_lists_are_cut(tmp_path):
    touch(*(tmp_path / f".{number}.jpg" for number in range(5)))
    assert left_out_of(tmp_path) == (
        "5 hidden files and folders left out: .0.jpg, .1.jpg, .2.jpg, ..."
    )


# --- Results of this software -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "results"),
    [
        (["a.jpg", "a.wave.jpg", "a.ink.png"], {"a.wave.jpg", "a.ink.png"}),
        (["a.jpg", "a.wave.ink.jpg"], {"a.wave.ink.jpg"}),  # a result of a result
        (["a.b.jpg", "a.b.wave.jpg"], {"a.b.wave.jpg"}),
        (["a.tiff", "a.wave-2.tiff"], {"a.wave-2.tiff"}),
        (["a.wave.jpg"], set()),  # no photo of which it could be the result
        (["a.jpg", "a.2.jpg", "a.2024.01.02.jpg"], set()),  # numbers, dates
        (["a.jpg", "a.png.jpg", "a.nef.jpg"], set()),  # converted files
        (["a.jpg", "a-wave.jpg", "a b.jpg", "a.wéve.jpg"], set()),
        (["a.jpg", "b.jpg"], set()),
    ],
)
def test_results_are_known_by_the_names_of_their_photos(names, results):
    assert names_of_results(names) == results


def test_results_of_every_model_are_left_out_and_counted(tmp_path):
    names = ["a.jpg", "a.wave.jpg", "a.ink.jpg", "b/c.png", "b/c.wave.png"]
    touch(*(tmp_path / name for name in names))
    assert scan_folder(tmp_path).names == ["a.jpg", "b/c.png"]
    assert left_out_of(tmp_path) == (
        "3 results of fast-style left out: a.ink.jpg, a.wave.jpg, b/c.wave.png "
        "(--include-results takes them in)"
    )
    scan = scan_folder(tmp_path, takes_results=True)
    assert set(scan.names) == set(names)
    assert scan.left_out.summary(OPTION) == ""


def test_runs_among_the_photos_are_left_out_whole(tmp_path):
    names = ["config.yaml", "checkpoints/step-00000002.safetensors", "samples/latest.png"]
    touch(tmp_path / "a.jpg", *(tmp_path / "runs" / "wave" / name for name in names))
    assert scan_folder(tmp_path).names == ["a.jpg"]
    assert left_out_of(tmp_path) == (
        "1 result of fast-style left out: runs/wave/ (--include-results takes them in)"
    )
    assert len(scan_folder(tmp_path / "runs" / "wave").names) == 1


OF_A_REPORT = ["report.md", "results.json", "grid-256.png", "objective-256.png", "terms-256.png"]


def test_of_a_report_among_the_photos_only_its_own_pictures_are_left_out(tmp_path):
    touch(*(tmp_path / "mine" / name for name in (*OF_A_REPORT, "b.jpg", "2024/c.jpg", "grid.png")))
    touch(tmp_path / "a.jpg", tmp_path / "other" / "grid-256.png")
    assert scan_folder(tmp_path).names == [
        "a.jpg",
        "mine/2024/c.jpg",
        "mine/b.jpg",
        "mine/grid.png",
        "other/grid-256.png",
    ]
    assert left_out_of(tmp_path) == (
        "3 results of fast-style left out: mine/grid-256.png, mine/objective-256.png, "
        "mine/terms-256.png (--include-results takes them in)"
    )
    assert len(scan_folder(tmp_path, takes_results=True).names) == 8


def test_fourth_rules_leave_the_folder_of_a_report_out_whole(tmp_path):
    touch(*(tmp_path / "mine" / name for name in (*OF_A_REPORT, "b.jpg", "2024/c.jpg")))
    touch(tmp_path / "a.jpg")
    for rules in (2, 3, 4):
        assert scan_folder(tmp_path, rules=rules).names == ["a.jpg"]
        assert "1 result of fast-style left out: mine/ " in left_out_of(tmp_path, rules=rules)


# --- The rules of runs that have begun ----------------------------------------------------------


def test_first_rules_find_what_earlier_versions_found(tmp_path):
    names = ["a.jpg", "a.wave.jpg", "b.jfif", "@eaDir/x.jpg", "thumbs/y.png", "c.TIFF"]
    touch(*(tmp_path / "photos" / name for name in names), tmp_path / "elsewhere" / "d.jpg")
    touch(tmp_path / "photos" / ".hidden" / "e.jpg", tmp_path / "photos" / ".f.jpg")
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "g.jpg").symlink_to(tmp_path / "elsewhere" / "d.jpg")
    (tmp_path / "photos" / "gone.jpg").symlink_to("nowhere")
    assert scan_folder(tmp_path / "photos", rules=1).names == [
        "@eaDir/x.jpg",
        "a.jpg",
        "a.wave.jpg",
        "c.TIFF",
        "g.jpg",
        "thumbs/y.png",
    ]
    assert left_out_of(tmp_path / "photos", rules=1) == ""


def test_second_rules_find_what_they_found(tmp_path):
    photos = tmp_path / "photos"
    taken = ["@SynoResource/a.jpg", "Recycle Bin/b.jpg", "appdata_oc1/c.jpg", "d.jpg"]
    touch(*(photos / name for name in taken), photos / "d.wave.jpg", photos / "@eaDir" / "t.jpg")
    touch(tmp_path / "X.photoslibrary" / "resources" / "e.jpg", tmp_path / "thumbs" / "f.jpg")
    (photos / "lib").symlink_to(tmp_path / "X.photoslibrary")
    (photos / "th").symlink_to(tmp_path / "thumbs")
    assert scan_folder(photos, rules=2).names == [*taken, "lib/resources/e.jpg", "th/f.jpg"]
    assert left_out_of(photos, rules=2) == (
        "1 result of fast-style left out: d.wave.jpg (--include-results takes them in); 1 folder "
        "of thumbnails, trash or a system left out: @eaDir"
    )
    assert scan_folder(photos).names == ["d.jpg"]


def test_suffixes_of_the_third_rules_are_names_of_models_by_the_second(tmp_path):
    for number, suffix in enumerate(sorted(SUFFIXES_OF_RULES_3)):
        touch(tmp_path / f"{number}.jpg", tmp_path / f"{number}{suffix}.jpg")
    touch(tmp_path / "a.jpg", tmp_path / "a.nef.jpg", tmp_path / "a.wave.jpg")
    found = scan_folder(tmp_path)
    assert found.left_out.names == {"result": ["a.wave.jpg"]}
    left_out = scan_folder(tmp_path, rules=2).left_out.names["result"]
    assert len(left_out) == 1 + len(SUFFIXES_OF_RULES_3)
    assert "a.nef.jpg" not in left_out


def test_suffixes_that_the_second_rules_know_stay_the_same():
    # A new one belongs into formats.SUFFIXES_OF_RULES_3, or into a set of its own, with new rules.
    known = {suffix for kind in formats._OTHER_KINDS for suffix in kind.suffixes} | EXTENSIONS
    text = " ".join(sorted(known - SUFFIXES_OF_RULES_3))
    assert known > SUFFIXES_OF_RULES_3
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "49681dbfd96d9bae3b504f97923ea24306fa1a0966fc1c3fe03e23adef04fad4"
    )


# --- Speed --------------------------------------------------------------------------------------


def test_scan_says_how_far_it_is_after_a_second_and_then_less_and_less_often(tmp_path, monkeypatch):
    touch(*(tmp_path / f"{number:02}.jpg" for number in range(20)))
    seconds = itertools.count(0, 0.5)
    monkeypatch.setattr(scanning.time, "monotonic", lambda: next(seconds))
    said = []
    scan_folder(tmp_path, tell=said.append)
    assert said[0] == f"{tmp_path}: looking for photos, 3 files and folders so far"
    assert [int(line.split(", ")[1].split()[0]) for line in said] == [3, 8, 17]


def test_short_scan_is_silent(tmp_path):
    touch(tmp_path / "a.jpg")
    said = []
    scan_folder(tmp_path, tell=said.append)
    assert said == []


def test_no_file_is_asked_for_its_status(tmp_path, monkeypatch):
    touch(*(tmp_path / f"{number}.jpg" for number in range(9)), tmp_path / "sub" / "a.jpg")
    asked = {"stat": [], "lstat": [], "readlink": []}

    def counted(name, original):
        def count(path, *arguments, **options):
            asked[name].append(os.path.relpath(path, tmp_path))
            return original(path, *arguments, **options)

        return count

    for name in asked:
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    assert len(scan_folder(tmp_path).names) == 10
    assert sorted(asked["stat"]) == [".", "sub"]
    # Only of the folder itself, its real path is looked up.
    assert {path.strip("./") for path in asked["lstat"]} == {""}
    assert asked["readlink"] == []


def test_of_many_links_only_the_links_are_read_and_folders_once(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    touch(*(photos / f"{number}.jpg" for number in range(9)))
    (photos / "links").mkdir()
    for number in range(9):
        (photos / "links" / f"{number}.jpg").symlink_to(f"../{number}.jpg")
    (photos / "link.jpg").symlink_to("links/0.jpg")
    read, looked_up = [], []
    readlink, realpath = os.readlink, os.path.realpath
    monkeypatch.setattr(os, "readlink", lambda path: (read.append(path), readlink(path))[1])
    monkeypatch.setattr(
        os.path, "realpath", lambda path, **_: (looked_up.append(path), realpath(path))[1]
    )
    assert len(scan_folder(photos).names) == 9
    # Each link once more to learn that what it names is none, and link.jpg's chain.
    assert len([path for path in read if Path(path).is_symlink()]) == 9 + 2
    assert len(looked_up) <= 8


@pytest.mark.real_data
def test_every_awkward_file_is_found(assets):
    assert len(scan_folder(assets / "awkward").names) == 17
