"""``stylize``: what it prints, what it writes, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ROOT, Output, errors, photo_at, run, run_in_process
from noise_photos import write_noise_photo
from PIL import Image
from tiny_model import write_tiny_model
from two_processes import start_two

from fast_style.models.checkpoint import load_checkpoint, save_checkpoint
from fast_style.pictures import writing
from fast_style.pictures.reading import DEFAULT_MAX_PIXELS


def wait_until_it_writes(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Until a process has a file without a name open in a folder.

    One with a name is Python's own: `tempfile` tries whether it can write in a folder at all, with
    a file that it removes at once.
    """
    end = time.monotonic() + 300  # of a busy machine
    while time.monotonic() < end and process.poll() is None:
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                place = os.readlink(link)
                if place.startswith(f"{folder}/") and place.endswith(" (deleted)"):
                    return
        time.sleep(0.02)
    raise AssertionError(f"it has not begun; exit code: {process.poll()}")


def test_result_lies_beside_its_photo_with_the_models_name(model: Path, capsys: Output) -> None:
    photo_at("a.jpg")
    assert run("stylize", "--model", str(model), "a.jpg") == 0
    assert capsys.readouterr() == ("a.tiny.jpg\n", "")
    assert Path("a.tiny.jpg").is_file()


def test_model_of_the_first_compact_network_stylizes_as_any_other(
    model: Path, old_model: Path
) -> None:
    photo = photo_at("cat.png")
    results = [Path(f"cat.{name}.png") for name in ("new", "old")]
    for path, result in zip((model, old_model), results, strict=True):
        suffix = result.suffixes[0]
        assert run("stylize", "--model", str(path), "--suffix", suffix, str(photo)) == 0
    assert results[0].read_bytes() == results[1].read_bytes()


def test_grain_is_added_as_far_as_it_is_asked_for(model: Path) -> None:
    photo_at("a.png")
    words = ["stylize", "-m", str(model), "a.png"]
    for levels in ("0", "8.5"):
        assert run(*words, "--grain", levels, "--suffix", f".{levels}") == 0
    assert run(*words) == 0
    assert Path("a.0.png").read_bytes() == Path("a.tiny.png").read_bytes()
    assert Path("a.8.5.png").read_bytes() != Path("a.tiny.png").read_bytes()


@pytest.mark.parametrize("levels", ["-1", "33", "nan", "much"])
def test_other_grain_is_refused(model: Path, capsys: Output, levels: str) -> None:
    assert run("stylize", "-m", str(model), "a.png", f"--grain={levels}") == 2
    (line,) = errors(capsys)
    assert line.startswith(
        f"error: argument --grain: must be a number from 0 to 32, got '{levels}'"
    )


def test_strokes_are_as_large_as_they_are_asked_for(model: Path) -> None:
    write_noise_photo("a.png", width=120)
    words = ["stylize", "-m", str(model), "a.png"]
    for side in ("0", "64", "100"):
        assert run(*words, "--strokes", side, "--suffix", f".{side}") == 0
    assert run(*words) == 0
    plain, large, too_large_a_copy = (Path(f"a.{side}.png").read_bytes() for side in (0, 64, 100))
    assert large != plain == too_large_a_copy == Path("a.tiny.png").read_bytes()


@pytest.mark.parametrize("side", ["63", "-1", "64.5", "much"])
def test_other_strokes_are_refused(model: Path, capsys: Output, side: str) -> None:
    assert run("stylize", "-m", str(model), "a.png", f"--strokes={side}") == 2
    (line,) = errors(capsys)
    assert line.startswith(
        f"error: argument --strokes: must be 0, or a whole number of at least 64, got '{side}'"
    )


def test_several_photos_are_counted(model: Path, capsys: Output) -> None:
    for name in ("a.png", "in/b.png", "c.png", "out/c.png"):
        photo_at(name)
    # Photos may stand before and behind the options.
    arguments = ["-m", str(model), "a.png", "in", "-o", "out", "--skip-existing", "c.png"]
    assert run("stylize", *arguments) == 0
    assert capsys.readouterr() == ("out/a.png\nout/b.png\n2 done, 1 skipped, 0 failed\n", "")


def test_failed_photo_gives_exit_code_1_and_is_counted(model: Path, capsys: Output) -> None:
    photo_at("a.png")
    Path("b.png").write_bytes(b"no picture")
    assert run("stylize", "-m", str(model), "-o", "out", "b.png", "a.png") == 1
    out, err = capsys.readouterr()
    assert out == "out/a.png\n1 done, 0 skipped, 1 failed\n"
    assert err.startswith("error: b.png: not a picture")


@pytest.mark.parametrize(
    ("words", "code", "is_kept", "counts"),
    [
        ([], 1, True, "1 done, 0 skipped, 1 failed"),
        (["--skip-existing"], 0, True, "1 done, 1 skipped, 0 failed"),
        (["--overwrite"], 0, False, "2 done, 0 skipped, 0 failed"),
    ],
)
def test_result_that_appears_meanwhile_is_only_replaced_on_request(
    model: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    is_kept: bool,
    counts: str,
) -> None:
    photo_at("a.png")
    photo_at("b.png")
    encode = writing._encode

    def after_another_command(*arguments: Any) -> memoryview:
        Path("out/b.png").write_bytes(b"another's")
        return encode(*arguments)

    monkeypatch.setattr(writing, "_encode", after_another_command)
    arguments = ["stylize", "-m", str(model), "a.png", "b.png", "-o", "out", *words]
    assert run(*arguments) == code
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == counts
    assert (Path("out/b.png").read_bytes() == b"another's") == is_kept
    assert err.startswith("error: out/b.png: exists already; " if code else "")
    assert ("--overwrite" in err and "--skip-existing" in err) == bool(code)
    assert sorted(os.listdir("out")) == ["a.png", "b.png"]


def test_existing_result_is_only_replaced_on_request(model: Path, capsys: Output) -> None:
    photo_at("a.png")
    photo_at("b.png", seed=1)
    before = Path("b.png").read_bytes()
    arguments = ["stylize", "-m", str(model), "a.png", "-o", "b.png"]
    assert run(*arguments) == 2
    (line,) = errors(capsys)
    assert line.startswith("error: b.png: ")
    assert "--overwrite" in line
    assert "--skip-existing" in line
    assert run(*arguments, "--skip-existing") == 0
    assert Path("b.png").read_bytes() == before
    assert run(*arguments, "--overwrite") == 0
    assert Path("b.png").read_bytes() != before


@pytest.mark.parametrize("end", ["/", os.sep])
def test_output_that_ends_with_a_slash_is_a_folder(model: Path, capsys: Output, end: str) -> None:
    photo_at("a.png")
    assert run("stylize", "-m", str(model), "a.png", "-o", f"results.v2{end}") == 0
    assert capsys.readouterr().out == f"results.v2{os.sep}a.png\n"
    Path("file.png").touch()
    assert run("stylize", "-m", str(model), "a.png", "-o", f"file.png{end}", "--overwrite") == 2
    (line,) = errors(capsys)
    assert line.startswith("error: file.png: is a file, but the results need a folder")


def test_style_that_was_given_as_a_model_is_told(here: Path, capsys: Output) -> None:
    photo_at("a.png")
    for word in ("the_scream", "the_scream.safetensors"):
        assert run("stylize", "--model", word, "a.png") == 2
        (line,) = errors(capsys)
        assert line.startswith(f"error: --model {word}: not found")
        assert "--style the_scream" in line


def test_photos_of_one_name_are_all_done_and_found_again(model: Path, capsys: Output) -> None:
    for suffix in ("gif", "png", "avif"):
        photo_at(f"in/anim.{suffix}")
    command = ["stylize", "-m", str(model), "in", "--skip-existing"]
    names = ["in/anim.avif.tiny.png", "in/anim.gif.tiny.png"]
    note = (
        "note: several results would have one name; so these keep the format of their photo in "
        f"it: {', '.join(names)}"
    )
    assert run(*command) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [*names, "in/anim.tiny.png", "3 done, 0 skipped, 0 failed"]
    assert told.err.splitlines() == [note]
    assert run(*command) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == ["0 done, 3 skipped, 0 failed, 3 results left out"]
    assert note in told.err.splitlines()


def test_options_reach_the_result(model: Path) -> None:
    photo_at("a.png")
    arguments = ["-m", str(model), "a.png", "--max-side", "24", "--format", "jpg", "--suffix"]
    assert run("stylize", *arguments, "-x", "--quality", "10") == 2  # "-x" looks like an option
    assert run("stylize", *arguments, "_x", "--quality", "10") == 0
    assert run("stylize", *arguments, "_y", "--quality", "100") == 0
    with Image.open("a_x.jpg") as result:
        assert result.size == (24, 20)
    assert Path("a_x.jpg").stat().st_size < Path("a_y.jpg").stat().st_size


def test_photos_whose_color_profile_cannot_be_applied_are_told_in_one_line(
    model: Path, capsys: Output
) -> None:
    for name, profile in (("a.jpg", b"garbage"), ("b.jpg", b""), ("c.jpg", b"\0" * 200)):
        Image.open(photo_at(f"{name}.png")).save(name, icc_profile=profile)
    assert run("stylize", "-m", str(model), "a.jpg", "b.jpg", "c.jpg") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: the color profile of 2 files ")
    assert "a.jpg, c.jpg" in line
    assert "sRGB" in line


@pytest.mark.parametrize("format", ["png", "tif", "bmp"])
def test_quality_contradicts_a_format_that_has_none(
    model: Path, capsys: Output, format: str
) -> None:
    photo_at("a.jpg")
    words = ["stylize", "-m", str(model), "a.jpg", "--quality", "50"]
    assert run(*words, "--format", format) == 2
    (line,) = errors(capsys)
    assert line.startswith(f"error: --quality 50: --format {format} ")
    assert "leave one of them out" in line
    assert sorted(Path().glob("a*")) == [Path("a.jpg")]


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["a.png"], "--format jpg"),
        (["a.png", "b.png", "-o", "out"], "--format jpg"),
        (["b.jpg", "-o", "c.png"], "--output c.jpg"),
        (["b.jpg", "-o", "./b.png", "--overwrite"], "--output NAME.jpg, with a name of its own"),
        (["b.jpg"], ""),
        (["a.png", "b.jpg", "--suffix", ".s"], ""),
        (["a.png", "--format", "webp"], ""),
    ],
)
def test_quality_that_changes_nothing_is_noted(
    model: Path, capsys: Output, words: list[str], remedy: str
) -> None:
    for name in ("a.png", "b.png", "b.jpg"):
        photo_at(name)
    assert run("stylize", "-m", str(model), *words, "--quality", "50") == 0
    told = capsys.readouterr().err.splitlines()
    if not remedy:
        assert told == []
        return
    (line,) = told
    assert line.startswith("note: --quality 50: ")
    assert line.endswith(f"give {remedy}")


def test_threads_are_those_of_torch(model: Path) -> None:
    photo_at("a.png")
    before = torch.get_num_threads()
    try:
        assert run("stylize", "-m", str(model), "a.png", "--threads", str(before + 1)) == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_max_pixels_is_the_limit(model: Path, capsys: Output) -> None:
    photo_at("a.png")
    assert run("stylize", "-m", str(model), "a.png", "--max-pixels", "100") == 1
    message = capsys.readouterr().err
    assert message.startswith("error: a.png: 1,920 pixels, ")
    assert "--max-pixels 1920" in message
    assert DEFAULT_MAX_PIXELS > 1920
    assert run("stylize", "-m", str(model), "a.png") == 0


@pytest.mark.slow
def test_memory_is_the_limit(model: Path, capsys: Output) -> None:
    Image.effect_noise((600, 500), 64).save("a.png")
    # 88 MB and the photo as a whole, less than 14 MB in bands
    for size in ("90M", "14M"):
        output = f"{size}.png"
        assert run("stylize", "-m", str(model), "a.png", "-o", output, "--memory", size) == 0
    with Image.open("90M.png") as whole, Image.open("14M.png") as in_bands:
        difference = np.array(whole, np.int16) - np.array(in_bands, np.int16)
    assert np.abs(difference).max() <= 1
    capsys.readouterr()
    assert run("stylize", "-m", str(model), "a.png", "-o", "b.png", "--memory", "9M") == 1
    (line,) = errors(capsys)
    assert line.startswith("error: a.png: 600 x 500 pixels ")
    assert "13.0 MB" in line
    assert "--max-side 190" in line
    assert run("stylize", "-m", str(model), "a.png", "--memory", "9M", "--max-side", "190") == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_photo_in_bands_that_is_stopped_leaves_nothing_behind(
    model: Path, signal_number: int
) -> None:
    Image.effect_noise((3000, 2000), 64).save("a.png")
    Path("scratch").mkdir()
    # 24 MB for each of photo, changed photo and result, 13 for a copy and its picture, 18 for a
    # band, 12 between sweeps: on the disk
    command = ["-m", "fast_style", "stylize", "-m", str(model), "a.png", "--memory", "107M"]
    environment = {"PYTHONPATH": str(ROOT), "TMPDIR": "scratch", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *command],
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
        # Shells have what they start with & ignore SIGINT, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until_it_writes(process, Path("scratch").resolve())
        process.send_signal(signal_number)
        assert process.wait(300) == (130 if signal_number == signal.SIGINT else -signal.SIGKILL)
    finally:
        process.kill()
    assert list(Path("scratch").iterdir()) == []
    assert sorted(path.name for path in Path().iterdir()) == [
        "a.png",
        "model.safetensors",
        "scratch",
    ]


def test_model_of_random_weights_is_noted(here: Path, capsys: Output) -> None:
    write_tiny_model(Path("m.safetensors"), label="RANDOM weights")
    photo_at("a.png")
    assert run("stylize", "-m", "m.safetensors", "a.png") == 0
    assert capsys.readouterr() == (
        "a.tiny.png\n",
        "note: this model is only a test, trained with RANDOM weights\n",
    )


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_name_that_is_no_text_is_shown_with_escapes(model: Path, capsys: Output) -> None:
    photo_at("a.png")
    os.rename("a.png", b"\xff\xe4.png")
    assert run("stylize", "-m", str(model), os.fsdecode(b"\xff\xe4.png")) == 0
    assert capsys.readouterr() == ("\\xff\\xe4.tiny.png\n", "")


@pytest.mark.parametrize("suffix", ["a/b", "/"])
def test_suffix_is_no_path(model: Path, capsys: Output, suffix: str) -> None:
    photo_at("a.png")
    assert run("stylize", "-m", str(model), "a.png", "--suffix", suffix) == 2
    assert errors(capsys) == [f"error: --suffix {suffix!r}: must not contain a path separator"]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("none.safetensors", None, "model.safetensors"),
        ("folder", None, "model.safetensors"),
        ("model.pth", b"PK\x03\x04 and so on", ".pth of another project"),
        ("page.safetensors", b"<!DOCTYPE html>", "web page"),
        ("empty.safetensors", b"", "empty"),
    ],
)
@pytest.mark.parametrize("command", ["stylize", "info"])
def test_what_is_no_model_is_one_line(
    here: Path, capsys: Output, command: str, name: str, data: bytes | None, problem: str
) -> None:
    Path("folder").mkdir()
    if data is not None:
        Path(name).write_bytes(data)
    photo_at("a.png")
    arguments = [name] if command == "info" else ["-m", name, "a.png"]
    assert run(command, *arguments) == 2
    (line,) = errors(capsys)
    assert line.startswith(f"error: {name}: ")
    assert problem in line


def test_missing_photo_and_unusable_output_are_one_line(model: Path, capsys: Output) -> None:
    photo_at("a.png")
    Path("file").touch()
    for arguments, place in ((["none.jpg"], "none.jpg"), (["a.png", "-o", "file/out"], "file")):
        assert run("stylize", "-m", str(model), *arguments) == 2
        (line,) = errors(capsys)
        assert line.startswith(f"error: {place}: ")


@pytest.mark.parametrize(
    "arguments", [["-o", "", "a.jpg"], ["-o", "out", ""], ["-o", "out", "a.jpg", ""]]
)
def test_empty_path_is_not_the_working_directory(
    model: Path, capsys: Output, arguments: list[str]
) -> None:
    photo_at("a.jpg")
    before = sorted(Path().rglob("*"))
    assert run("stylize", "-m", str(model), *arguments) == 2
    assert "empty" in errors(capsys)[0]
    assert sorted(Path().rglob("*")) == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_under_the_output_does_not_stop_stylizing(model: Path) -> None:
    photo_at("a.jpg")
    with Path("/dev/full").open("w") as full:
        ended = run_in_process(
            "stylize", "-m", str(model), "-o", "b.jpg", "a.jpg", stdout=full.fileno()
        )
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 0
    assert Path("b.jpg").exists()


# --- Several processes ----------------------------------------------------------------------------

NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a model and three photos, of which the second is broken."""
    write_tiny_model(tmp_path / "model.safetensors")
    (tmp_path / "photos").mkdir()
    for name in NAMES:
        Image.effect_noise((40, 30), 64).convert("RGB").save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "b.png").write_bytes(b"no picture")
    return tmp_path


def stylize_in_two(photos: Path, *words: str) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of both processes."""
    arguments = ["-m", "fast_style", "stylize", "-m", "model.safetensors", "photos", *words]
    processes = start_two(arguments, photos)
    outputs = [process.communicate(timeout=120) for process in processes]
    return [
        (process.returncode, *output) for process, output in zip(processes, outputs, strict=True)
    ]


@pytest.mark.slow
def test_two_processes_share_the_photos_and_tell_of_all(photos: Path) -> None:
    first, second = stylize_in_two(photos, "-o", "out")
    assert first == (1, "out/a.png\nout/c.png\n2 done, 0 skipped, 1 failed\n", "")
    assert second[:2] == (1, "")
    assert second[2].startswith("error: photos/b.png: not a picture")
    assert sorted(path.name for path in (photos / "out").iterdir()) == ["a.png", "c.png"]


def test_two_processes_refuse_the_same_before_any_work(photos: Path) -> None:
    (photos / "out").mkdir()
    (photos / "out" / "c.png").touch()
    first, second = stylize_in_two(photos, "-o", "out")
    assert first[:2] == second[:2] == (2, "")
    assert first[2].startswith("error: out/c.png: ")
    assert second[2] == first[2].replace("error: ", "error: process 1: ")
    assert [path.name for path in (photos / "out").iterdir()] == ["c.png"]


@pytest.mark.slow
def test_compiling_that_the_environment_forbids_is_told(photos: Path) -> None:
    words = ["-m", "model.safetensors", "photos/a.png", "--device", "cpu", "--compile"]
    ended = subprocess.run(
        [sys.executable, "-m", "fast_style", "stylize", *words],
        cwd=photos,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TORCH_COMPILE_DISABLE": "1"},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    note, error = ended.stderr.splitlines()
    assert note == (
        "note: compiling takes a minute or two the first time; on a CPU, the compiled network is "
        "slower"
    )
    assert error.startswith("error: --compile: TORCH_COMPILE_DISABLE ")


# --- What is left out ---------------------------------------------------------------------------


def test_results_of_any_model_are_left_out_and_told(model: Path, capsys: Output) -> None:
    photo_at("photos/a.jpg")
    photo_at("photos/b.jfif", seed=1)
    for suffix in (".wave", ".ink", ".wave"):
        arguments = ["-m", str(model), "--suffix", suffix, "--overwrite", "photos"]
        assert run("stylize", *arguments) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "2 done, 0 skipped, 0 failed, 4 results left out"
    assert err.splitlines()[-1] == (
        "note: photos: 4 results of fast-style left out: a.ink.jpg, a.wave.jpg, b.ink.jpg, ... "
        "(--include-results takes them in)"
    )
    assert len(os.listdir("photos")) == 6
    assert run("stylize", "-m", str(model), "-o", "all", "--include-results", "photos") == 0
    assert len(os.listdir("all")) == 6


def test_results_are_known_by_their_mark_when_they_are_read(model: Path, capsys: Output) -> None:
    photo_at("photos/a.png")
    assert run("stylize", "-m", str(model), "-o", "photos/made", "photos") == 0
    os.rename("photos/made/a.png", "photos/renamed.png")
    capsys.readouterr()
    assert run("stylize", "-m", str(model), "-o", "out", "photos") == 0
    assert capsys.readouterr() == (
        "out/a.png\n1 done, 0 skipped, 0 failed, 1 result left out\n",
        "note: 1 result of fast-style left out: photos/renamed.png (--include-results takes them "
        "in)\n",
    )
    assert os.listdir("out") == ["a.png"]
    # One that alone is named is meant.
    assert run("stylize", "-m", str(model), "-o", "again.png", "photos/renamed.png") == 0
    assert Path("again.png").exists()


@pytest.mark.parametrize("inputs", [["q"], ["q/a.png", "q/b.png"]])
def test_nothing_but_results_known_by_their_mark_is_an_error(
    model: Path, capsys: Output, inputs: list[str]
) -> None:
    photos = [str(photo_at(f"photos/{name}.png", seed)) for seed, name in enumerate("ab")]
    assert run("stylize", "-m", str(model), "-o", "q", *photos) == 0
    capsys.readouterr()
    command = ["stylize", "-m", str(model), "-o", "out", *inputs]
    assert run(*command) == 2
    assert errors(capsys) == [
        "error: no photos to stylize; 2 results of fast-style left out: q/a.png, q/b.png "
        "(--include-results takes them in)"
    ]
    assert not Path("out").exists()
    assert run(*command, "--include-results") == 0
    assert sorted(os.listdir("out")) == ["a.png", "b.png"]
    # Photos that are done already are no reason for an error.
    photo_at("q/c.png")
    Path("out/c.png").touch()
    for path in ("out/a.png", "out/b.png"):
        os.remove(path)
    assert run("stylize", "-m", str(model), "-o", "out", "q", "--skip-existing") == 0
    assert capsys.readouterr().out.endswith("0 done, 1 skipped, 0 failed, 2 results left out\n")


def test_files_that_are_no_pictures_are_told_with_the_remedy(model: Path, capsys: Output) -> None:
    photo_at("photos/a.png")
    for number in range(4):
        Path(f"photos/{number}.heic").touch()
    assert run("stylize", "-m", str(model), "-o", "out", "photos") == 0
    assert capsys.readouterr().err == (
        "note: photos: 4 files left out: .heic (4); convert .heic with heif-convert (package "
        "libheif-examples; on macOS: sips -s format jpeg)\n"
    )


# --- What is lost ---------------------------------------------------------------------------------


def transparent_at(name: str, level: int = 99) -> None:
    photo = Image.open(photo_at(name)).convert("RGB")
    photo.putalpha(level)
    photo.save(name)


def test_transparency_that_the_format_cannot_store_is_counted(model: Path, capsys: Output) -> None:
    for name in ("in/a.png", "in/b.png"):
        transparent_at(name)
    transparent_at("in/opaque.png", 255)
    photo_at("in/plain.png")
    assert run("stylize", "-m", str(model), "in", "-o", "out", "--format", "jpg") == 0
    assert capsys.readouterr().err == (
        "note: 2 results have white in place of transparency: out/a.jpg, out/b.jpg; "
        "png, webp and tif keep it\n"
    )
    assert run("stylize", "-m", str(model), "in/a.png", "-o", "flat.bmp") == 0
    assert capsys.readouterr().err == (
        "note: 1 result has white in place of transparency: flat.bmp; png, webp and tif keep it\n"
    )
    assert run("stylize", "-m", str(model), "in/a.png", "-o", "kept.webp") == 0
    assert capsys.readouterr().err == ""


def test_pictures_that_are_not_taken_of_a_file_are_counted(model: Path, capsys: Output) -> None:
    first = photo_at("in/still.png")
    frames = [Image.open(photo_at(f"{seed}.png", seed=seed)) for seed in range(3)]
    frames[0].save("in/anim.gif", save_all=True, append_images=frames[1:])
    assert run("stylize", "-m", str(model), "in/anim.gif", str(first), "-o", "out") == 0
    remedy = "magick (package imagemagick) writes each to a file of its own"
    assert capsys.readouterr().err == f"note: 1 of 3 pictures in in/anim.gif is taken; {remedy}\n"
    frames[0].save("in/pages.tif", save_all=True, append_images=frames[1:2])
    assert run("stylize", "-m", str(model), "in", "-o", "new") == 0
    assert capsys.readouterr().err == (
        "note: of 2 files with several pictures, one of each is taken: in/anim.gif (3 pictures), "
        f"in/pages.tif (2 pictures); {remedy}\n"
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
# The signal may come between the opening of a file and its `with`: Python closes it, and warns.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_stopped_command_leaves_whole_results_and_says_how_to_go_on(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, name: str, code: int
) -> None:
    photos = [str(photo_at(f"in/{number}.png", seed=number)) for number in range(5)]
    real = os.fsync
    sent: list[str] = []

    def stop_in_between(descriptor: int) -> None:
        if Path("out/0.png").exists() and not sent:
            sent.append(name)
            signal.raise_signal(getattr(signal, name))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", stop_in_between)
    assert run("stylize", "-m", str(model), *photos, "-o", "out", "--overwrite") == code
    monkeypatch.setattr(os, "fsync", real)
    told = capsys.readouterr().err
    assert "--skip-existing in place of --overwrite" in told
    results = sorted(path.name for path in Path("out").iterdir())
    assert 1 <= len(results) < 5
    assert not [result for result in results if result.startswith(".")]
    assert run("stylize", "-m", str(model), *photos, "-o", "out", "--skip-existing") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [f"{n}.png" for n in range(5)]


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "a\x1b[31mb", "a\nb", "../../evil", ["a"]])
def test_name_of_a_model_that_no_file_should_have_is_refused(
    model: Path, capsys: Output, name: object
) -> None:
    found = load_checkpoint(model)
    save_checkpoint(Path("odd.safetensors"), found.tensors, {**found.metadata, "name": name})
    photo_at("a.png")
    assert run("stylize", "-m", "odd.safetensors", "a.png") == 2
    (line,) = errors(capsys)
    for part in ("--model", "--suffix", "--output"):
        assert part in line
    assert line.isprintable()
    assert run("stylize", "-m", "odd.safetensors", "a.png", "-o", "b.png") == 0
