"""Mistakes in the command lines of benchmarks/ and docs/: one line each, and no file is lost.

They end while the command line is read, so that all run in this process. `test_benchmarks` has what
the programs do.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ROOT / "benchmarks", ROOT / "benchmarks" / "reliability", ROOT / "docs"
PROGRAMS = [
    path.stem
    for folder in FOLDERS
    for path in sorted(folder.glob("*.py"))
    if "if __name__ ==" in path.read_text(encoding="utf-8")
]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="they measure POSIX processes")


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The programs can be imported; a file, a folder and two models are in the working directory.

    The modules are forgotten again: `peers` and the like are no names for all tests.
    """
    for folder in reversed(FOLDERS):
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("file", "a/model.safetensors", "b/udnie.safetensors", "c/udnie.safetensors"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("mine")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if Path(file).parent in FOLDERS:
            del sys.modules[name]


ErrorOf = Callable[..., str]


@pytest.fixture
def error_of(monkeypatch: pytest.MonkeyPatch) -> ErrorOf:
    """A function that runs a program with these words; gives the line with which it ends."""

    def run(name: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(name).main()
        line = end.value.code
        assert isinstance(line, str), line  # which Python prints on stderr, with exit code 1
        assert line.startswith("error: ")
        assert len(line.splitlines()) == 1
        return line.removeprefix("error: ")

    return run


@pytest.fixture
def program() -> ModuleType:
    return importlib.import_module("program")


@pytest.mark.parametrize("name", PROGRAMS)
def test_unknown_option_is_an_error_of_one_line(name: str, error_of: ErrorOf) -> None:
    assert error_of(name, "--nope").endswith(f"; see {name}.py --help")


HAS_ROUNDS = ("folder", "inference", "loader", "start_up", "scanning", "training")
HAS_ROUNDS += "convolutions", "huge_photo"
PAN = "pan file --models a/model.safetensors"
GALLERY = "draw_gallery file -o new.png"
ABLATIONS = (
    "ablations style_weight --styles file --photos photos --held-out file --images 2 "
    "--judge-weights file --second-opinion file --output new"
)
LOSS_NETWORKS = "loss_networks file --judge seed=1 --minutes 1"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        *((f"{name} --rounds 0", "--rounds: must be a whole number from 1") for name in HAS_ROUNDS),
        (f"{PAN} --frames 0", "--frames: must be a whole number from 1, got '0'"),
        (f"{PAN} --frames -9", "--frames: must be a whole number from 1, got '-9'"),
        (f"{PAN} --side 36", "--side: must be a whole number from 37, got '36'"),
        (f"{PAN} --side -20", "--side: must be a whole number from 37, got '-20'"),
        (f"{PAN} --frames-to file", "file: is no folder"),
        ("pan none --models file", "photo: must be a file that is there, got 'none'"),
        ("inference --sides 0", "--sides: must be a whole number from 1"),
        ("inference --threads 0", "--threads: must be a whole number from 1"),
        ("inference --rrmina nope", "nope: no checkout of rrmina/"),
        ("inference --peer nope", "nope: no fast_neural_style"),
        ("training --work 0x0", "--work: must be a whole number from 1, got '0'"),
        ("training --work 4", "--work: must be numbers as in 4x256, got '4'"),
        ("training --threads -1", "--threads: must be a whole number from 1"),
        ("busy_machine --spins -1", "--spins: must be a whole number from 0"),
        ("convolutions --layers 1x2", "--layers: must be numbers as in 4x128x64"),
        ("folder --photos nope", "--photos: must be a folder that is there, got 'nope'"),
        ("folder --photos file", "--photos: must be a folder that is there, got 'file'"),
        ("folder --scale -1", "--scale: must be a number above 0"),
        ("loader --photos nope", "--photos: must be a folder that is there"),
        ("loader --images 0", "--images: must be a whole number from 1"),
        ("scanning --count 0", "--count: must be a whole number from 1"),
        ("start_up --side 0", "--side: must be a whole number from 1"),
        ("memory --sides 0", "--sides: must be a whole number from 1"),
        ("memory --widths 0", "--widths: must be a whole number from 1"),
        ("memory --widths 513", "--widths: must be less than or equal to 512, got '513'"),
        ("huge_photo --sides 0", "--sides: must be a whole number from 1"),
        ("operations --size 7", "--size: must be a whole number from 8"),
        ("operations --widths 0", "--widths: must be a whole number from 1"),
        ("end_to_end --photos nope --held-out photos --style file", "--photos: must be a folder"),
        ("end_to_end --photos photos --held-out photos --style x", "--style: must be a file"),
        ("loss_networks none.yaml --judge a=1 --minutes 1 --network a", "config: must be a file"),
        (f"{LOSS_NETWORKS} --network seed=1", "--network: must be a name, then settings"),
        (f"{LOSS_NETWORKS} --network '", "--network: must have both quotes of each pair"),
        (f"{LOSS_NETWORKS} --network a --network a", "--network a: is given twice"),
        (f"{LOSS_NETWORKS} --network a --mixture a b", "--mixture b: must be one of 'a'"),
        ("ablations nope", "'nope' (choose from 'relu4_3', 'content', 'style_weight'"),
        (f"{ABLATIONS} --variants nope", "--variants nope: must be one of '1', '1.5', '2.5', '5'"),
        (f"{ABLATIONS} --styles none", "--styles: must be a file that is there"),
        (f"{ABLATIONS} --judge-weights none", "--judge-weights: must be a file that is there"),
        ("corruption --width 0", "--width: must be a whole number from 1"),
        ("corruption --width 513", "--width: must be less than or equal to 512"),
        ("endurance --steps 0", "--steps: must be a whole number from 1"),
        ("mutated_settings --workers 0", "--workers: must be a whole number from 1"),
        ("hosts --hosts nope", "--hosts nope: must be one of 'read-only home', "),
        ("hosts --python nope", "--python nope: must be a program that is there"),
        ("resume --steps 1 --workers --no-ranks", "leave nothing to resume"),
        (f"{GALLERY} --columns 0", "--columns: must be a whole number from 1"),
        (f"{GALLERY} --width 0", "--width: must be a whole number from 1"),
        (f"{GALLERY} --width 9 --styles udnie", "cells would have -1 x -1 pixels"),
        (f"{GALLERY} --ratio 0", "--ratio: must be a number above 0"),
        (f"{GALLERY} --ratio nan", "--ratio: must be a number above 0"),
        (f"{GALLERY} --gap -9", "--gap: must be a whole number from 0"),
        ("draw_demo_style nofolder/x.png", "nofolder/x.png: there is no folder nofolder"),
        ("draw_demo_style x.nope", "x.nope: its name must end in .png"),
    ],
)
def test_mistake_is_told_with_its_rule(words: str, expected: str, error_of: ErrorOf) -> None:
    before = sorted(os.listdir())
    assert expected in error_of(*words.split())
    assert sorted(os.listdir()) == before


def test_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, error_of: ErrorOf) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("folder", "inference", "training"):
        assert "torch finds no CUDA GPU here; choose cpu" in error_of(name, "--device", "cuda")


# --- Files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "draw_demo_style mine.png",
        "draw_gallery file --output mine.png",
        "previews photos --photos file --output mine.png",
    ],
)
def test_existing_picture_is_kept_without_overwrite(words: str, error_of: ErrorOf) -> None:
    Path("mine.png").write_text("mine")
    assert error_of(*words.split()) == "mine.png: exists already; replace it with --overwrite"
    assert Path("mine.png").read_text() == "mine"


def test_photo_is_never_replaced(error_of: ErrorOf) -> None:
    Path("photo.png").write_text("mine")
    words = ["--output", "photo.png", "--overwrite"]
    assert "photo.png: is an input" in error_of("draw_gallery", "photo.png", *words)
    assert "photo.png: is an input" in error_of("previews", "a", "--photos", "photo.png", *words)


def test_overwrite_replaces_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = importlib.import_module("draw_demo_style")
    monkeypatch.setattr(demo, "draw_picture", lambda: Image.new("RGB", (3, 2)))
    Path("mine.png").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["draw_demo_style.py", "mine.png", "--overwrite"])
    demo.main()
    with Image.open("mine.png") as picture:
        assert picture.size == (3, 2)


def test_frames_of_models_go_to_folders_of_their_own(
    monkeypatch: pytest.MonkeyPatch, error_of: ErrorOf
) -> None:
    pan = importlib.import_module("pan")
    monkeypatch.setattr(pan, "read_photo", lambda path: Image.new("RGB", (9, 9)))
    monkeypatch.setattr(pan, "Stylizer", lambda model, grain: model)
    monkeypatch.setattr(pan, "stylized", lambda *arguments: [])
    monkeypatch.setattr(pan, "mean_change", lambda *arguments: 0.0)
    written: list[Path] = []
    monkeypatch.setattr(pan, "write_frames", lambda folder, pictures: written.append(folder))
    words = ["file", "--frames-to", "f", "--models"]
    pan.main([*words, "a/model.safetensors", "b/udnie.safetensors"])
    assert written == [Path("f/a"), Path("f/udnie")]
    same = error_of("pan", *words, "b/udnie.safetensors", "c/udnie.safetensors")
    assert "their outputs would both be called udnie" in same
    Path("f/udnie").mkdir(parents=True)
    Path("f/udnie/frame-000.png").write_text("mine")
    assert "f/udnie: is there and not empty" in error_of("pan", *words, "c/udnie.safetensors")
    pan.main([*words, "c/udnie.safetensors", "--overwrite"])
    assert len(written) == 3


def test_first_looks_replace_no_pictures(error_of: ErrorOf) -> None:
    words = ["--judge-weights", "none", "--paintings", "file", "--photos"]
    twice = error_of("first_look", *words, "file", "./file", "--pictures-to", "new")
    assert "--photos file and file: their outputs would both be called file" in twice
    filled = error_of("first_look", *words, "file", "--pictures-to", "a")
    assert filled.startswith("a: is there and not empty")


# --- What they share ----------------------------------------------------------------------------


def test_error_of_the_system_is_one_line(program: ModuleType) -> None:
    with pytest.raises(SystemExit) as end, program.errors_in_one_line():
        Path("none\n.txt").read_text()
    assert end.value.code == r"error: none\n.txt: No such file or directory"


def test_bug_keeps_its_traceback(program: ModuleType) -> None:
    with pytest.raises(ZeroDivisionError), program.errors_in_one_line():
        _ = 1 / 0


def test_failed_child_is_told_with_its_last_line(program: ModuleType) -> None:
    child = [sys.executable, "-c", "raise SystemExit('a warning\\nerror: no room')"]
    with pytest.raises(SystemExit) as end, program.errors_in_one_line():
        program.output_of(child)
    assert str(end.value.code).endswith(": ended with exit code 1: no room")
    assert sys.executable not in str(end.value.code)


def test_mistake_that_a_measured_process_finds_is_told(program: ModuleType) -> None:
    peer = importlib.import_module("peer")
    sent: list[object] = []
    connection = type("Pipe", (), {"send": staticmethod(sent.append)})

    def build() -> None:
        raise peer.UserError("loss.nope: unknown key")

    peer._serve(connection, build, ())
    assert sent == ["loss.nope: unknown key"]


def test_table_without_figures_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module("figures").conclude([]) == 1
    assert capsys.readouterr().out.endswith("| --- | --- | --- |\n")


def test_more_than_there_is_is_refused() -> None:
    figures = importlib.import_module("figures")
    figures.require_at_most("--calls", 7, 7)
    figures.require_at_most("--calls", None, 7)
    with pytest.raises(figures.UserError, match=r"^--calls 8: must be at most 7"):
        figures.require_at_most("--calls", 8, 7)
