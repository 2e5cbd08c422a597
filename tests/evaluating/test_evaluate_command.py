"""The command `fast-style evaluate`, from its words to the report."""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_evaluation import WITH_COMPACT, WITH_FULL, redescribed
from small_run import command_environment, draw_photo

from fast_style.cli import evaluate
from fast_style.cli.main import main
from fast_style.evaluating.pages import without_folders
from fast_style.pictures.writing import write_picture


@pytest.mark.slow
def test_the_command_writes_a_report(
    run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "deep" / "report"
    words = ["evaluate", str(run / "model.safetensors"), "--photos", str(held_out)]
    words += ["--sizes", "32", "--iterations", "3", "--count", "2", "--output", str(report)]
    assert main(words) == 0
    results = json.loads((report / "results.json").read_text())
    assert results["iterations"] == 3
    assert len(results["sizes"]["32"]["photos"]) == 2
    assert results["sizes"]["32"]["seconds"]["forward_pass"]["tiny"] > 0
    assert "tiny" in (report / "report.md").read_text()
    assert str(report / "report.md") in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("full_vgg")
def test_the_command_and_the_report_name_the_loss_network(
    compact_run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report"
    words = ["evaluate", str(compact_run / "model.safetensors"), "--photos", str(held_out)]
    words += ["--output", str(report), "--sizes", "32", "--iterations", "1", "--count", "1"]
    words += ["--baseline", "box"]
    for given, said, caution in (
        ([], WITH_FULL, "here it is measured with imagenet_features weights."),
        (["--weights", "compact"], WITH_COMPACT, f"- T{WITH_COMPACT[1:]}."),
    ):
        assert main([*words, *given, "--overwrite"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == said
        assert caution in (report / "report.md").read_text()


@pytest.mark.slow
def test_model_given_twice_is_measured_once(
    run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(run / "model.safetensors")
    link = tmp_path / "link.safetensors"
    link.symlink_to(model)
    words = ["evaluate", model, str(link), "--photos", str(held_out), "-o", str(tmp_path / "r")]
    words += ["--sizes", "32", "--iterations", "1", "--count", "1", "--baseline", "box"]
    assert main(words) == 0
    assert f"{link}: given twice; it is measured once\n" in capsys.readouterr().err
    results = json.loads((tmp_path / "r" / "results.json").read_text())
    assert list(results["sizes"]["32"]["seconds"]["forward_pass"]) == ["tiny"]


@pytest.mark.slow
def test_model_that_asks_for_grain_is_measured_without(
    run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = redescribed(run, tmp_path / "grainy", lambda metadata: metadata | {"grain": 7.5})
    words = ["evaluate", str(model), "--photos", str(held_out), "-o", str(tmp_path / "r")]
    words += ["--sizes", "32", "--iterations", "1", "--count", "1", "--baseline", "box"]
    assert main(words) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: tiny: is measured without the grain of 7.5 ")
    assert "--grain 0" in line


@pytest.mark.parametrize("words", [["--judge"], []])
def test_a_report_of_another_command_is_only_replaced_on_request(
    run: Path,
    held_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    for name in ("_run_judge", "_run_evaluation"):
        monkeypatch.setattr(evaluate, name, lambda options, photos: 0)
    words = [str(run / "model.safetensors"), "--photos", str(held_out), *words]
    words = ["evaluate", *words, "--output", str(tmp_path / "r")]
    file = tmp_path / "r" / ("judge.json" if "--judge" in words else "results.json")
    file.parent.mkdir()
    for text in ("mine", "[]", "{}", '{"command": "fast-style evaluate other"}'):
        file.write_text(text)
        monkeypatch.setattr(sys, "argv", ["fast-style", *words])
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {file}: exists already")
        assert "--overwrite" in error
        assert main([*words, "--overwrite"]) == 0
    command = without_folders(shlex.join(["fast-style", *words]))
    file.write_text(json.dumps({"command": command}))
    for argv in (words, [*words, "--overwrite"]):
        monkeypatch.setattr(sys, "argv", ["fast-style", *argv])
        assert main(words) == 0


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--sizes", "32", "48"], ["report.md", "grid-32.png", "objective-48.png", "terms-32.png"]),
        (["--judge"], ["judge.md"]),
    ],
)
def test_files_of_no_report_are_only_replaced_on_request(
    run: Path,
    held_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    names: list[str],
) -> None:
    for name in ("_run_judge", "_run_evaluation"):
        monkeypatch.setattr(evaluate, name, lambda options, photos: 0)
    words = ["evaluate", str(run / "model.safetensors"), "--photos", str(held_out), *words]
    for name in names:
        folder = tmp_path / Path(name).stem
        folder.mkdir()
        (folder / name).write_text("mine")
        command = [*words, "--output", str(folder)]
        assert main(command) == 2
        assert capsys.readouterr().err == (
            f"error: {folder / name}: exists already, and is of no report; choose another "
            "--output, or replace it with --overwrite\n"
        )
        assert main([*command, "--overwrite"]) == 0
        # Beside a report of the other kind, they may be replaced as little.
        other = "results.json" if "--judge" in words else "judge.json"
        (folder / other).write_text('{"command": "fast-style evaluate other"}')
        assert main(command) == 2
        capsys.readouterr()
    unrelated = tmp_path / "others"
    unrelated.mkdir()
    for name in ("notes.md", "grid.txt", "judge.txt"):
        (unrelated / name).write_text("mine")
    assert main([*words, "--output", str(unrelated)]) == 0


def test_photos_may_be_named_in_several_options(
    run: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []

    def look(options: argparse.Namespace, photos: object) -> int:
        found.extend(options.photos)
        return 0

    monkeypatch.setattr(evaluate, "_run_evaluation", look)
    names = ["photo-00.jpg", "photo-01.png"]
    words = [word for name in names for word in ("--photos", str(held_out / name))]
    words = ["evaluate", str(run / "model.safetensors"), *words, "-o", str(tmp_path / "r")]
    assert main(words) == 0
    assert [path.name for path in found] == names


def test_of_two_evaluations_into_one_folder_the_second_is_refused(
    run: Path,
    held_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = tmp_path / "r"
    words = ["evaluate", str(run / "model.safetensors"), "--photos", str(held_out)]
    words += ["--output", str(report)]
    codes = []

    def evaluate_once_more(options: object, photos: object) -> int:
        codes.append(main([*words, "--overwrite"]))
        codes.append(main([*words, "--judge"]))
        return 0

    monkeypatch.setattr(evaluate, "_run_evaluation", evaluate_once_more)
    for _ in range(2):
        assert main(words) == 0
        assert codes == [2, 2]
        first, second = capsys.readouterr().err.splitlines()
        assert first == second
        assert first.startswith(f"error: {report}: process {os.getpid()} on ")
        assert first.endswith("; wait for it, or choose another --output")
        assert list(report.iterdir()) == []
        codes.clear()


KILLED = """
import os, signal, sys
from fast_style.cli import evaluate
from fast_style.cli.main import main
evaluate._run_evaluation = lambda options, photos: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_evaluation_does_not_keep_its_folder(
    run: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "r"
    words = ["evaluate", str(run / "model.safetensors"), "--photos", str(held_out)]
    words += ["--output", str(report)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *words], env=command_environment(), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in report.iterdir()] == [".evaluating"]
    monkeypatch.setattr(evaluate, "_run_evaluation", lambda options, photos: 0)
    assert main(words) == 0
    assert list(report.iterdir()) == []


def test_a_mistake_is_one_line(
    run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(run / "model.safetensors")
    file = tmp_path / "file"
    file.write_text("x")
    photos, output = ["--photos", str(held_out)], ["-o", str(tmp_path / "r")]
    for words, message in (
        (["no.safetensors", *photos, *output], "no.safetensors"),
        ([model, "--photos", str(tmp_path / "none"), *output], str(tmp_path / "none")),
        ([model, *photos, "-o", str(file / "r")], "--output"),
        ([model, *photos, *output, "--sizes", "8"], "--sizes"),
    ):
        assert main(["evaluate", *words, "--iterations", "1"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1


def test_report_is_not_written_among_photos_or_into_a_run(
    run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(run / "model.safetensors")
    photo = next(path for path in sorted(held_out.iterdir()) if path.is_file())
    link = tmp_path / "link"
    link.symlink_to(held_out)
    link_into_run = tmp_path / "link_into_run"
    link_into_run.symlink_to(run / "samples")
    (tmp_path / "pictures" / "2024").mkdir(parents=True)
    draw_photo(1).save(tmp_path / "pictures" / "2024" / "a.JPG")
    for photos, output, found in (
        (held_out, held_out, "is an input"),
        (held_out, link, "is an input"),
        (held_out, held_out.parent, "holds an input"),
        (photo, held_out, "holds an input"),
        (held_out, run, "is a folder of a run"),
        (held_out, run / "samples", "is a folder of a run"),
        (held_out, run / "checkpoints", "is a folder of a run"),
        (held_out, link_into_run, "is a folder of a run"),
        (held_out, tmp_path / "pictures", "holds pictures"),
    ):
        before = sorted(output.iterdir())
        words = ["evaluate", model, "--photos", str(photos), "-o", str(output), "--iterations", "1"]
        assert main(words) == 2
        error = capsys.readouterr().err
        for part in (f"error: --output {output}: {found}", "choose another --output"):
            assert part in error
        assert sorted(output.iterdir()) == before


def test_report_may_be_written_again_whatever_else_is_in_its_folder(
    run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(run / "model.safetensors"), "--photos", str(held_out)]
    words += ["--loss", str(run / "none.yaml"), "-o", str(tmp_path)]  # the next mistake
    draw_photo(1).save(tmp_path / "grid-64.png")
    (tmp_path / "notes.txt").touch()
    for name in ("", "results.json", "judge.json"):
        if name:
            (tmp_path / name).write_text('{"command": "fast-style evaluate"}')
            draw_photo(1).save(tmp_path / "photo.jpg")
        assert main(words) == 2
        assert capsys.readouterr().err.startswith(f"error: {run / 'none.yaml'}: ")
        (tmp_path / (name or "notes.txt")).unlink()


def test_report_may_have_a_folder_of_its_own_in_a_run(
    run: Path, held_out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(run / "model.safetensors"), "--photos", str(held_out)]
    words += ["--loss", str(run / "none.yaml"), "-o"]  # the next mistake
    for folder in ("report", "samples/report"):
        assert main([*words, str(run / folder)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {run / 'none.yaml'}: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--judge", "--iterations", "5"], "--iterations"),
        (["--judge", "--sizes", "64"], "--sizes"),
        (["--judge", "--quick"], "--quick"),
        (["--judge", "--loss", "any.yaml"], "--loss"),
        (["--judge", "--baseline", "box"], "--baseline"),
        (["--judge", "--count", "1", "2"], "--count"),
        (["--judge", "--weights", "compact"], "imagenet_features"),
        (["--second-opinion", "none"], "--judge"),
        (["--judge-cache", "here"], "--judge"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    run: Path,
    held_out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    command = ["evaluate", str(run / "model.safetensors"), "--photos", str(held_out)]
    assert main([*command, "-o", str(tmp_path / "r"), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --")
    assert message in error
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_the_judge_writes_its_report_and_shares_its_cache(
    run: Path,
    held_out: Path,
    tmp_path: Path,
    small_judge: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", str(run / "model.safetensors"), "--judge", "--photos", str(held_out)]
    command += ["--weights", str(small_judge), "--second-opinion", "none", "--count", "2"]
    for report in ("first", "second"):
        assert main([*command, "-o", report]) == 0
        said = capsys.readouterr().out
        assert f"{report}/judge.md" in said
        assert ("iterations of clip L-BFGS" in said) == (report == "first")
        results = json.loads(Path(report, "judge.json").read_text())
        assert len(results["styles"][0]["photos"]) == 2
    assert len(list((tmp_path / "judge_cache").iterdir())) == 2


def test_weights_may_lie_in_the_home_folder_or_be_named_by_a_variable(
    run: Path,
    held_out: Path,
    tmp_path: Path,
    small_judge: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(small_judge.parent))
    monkeypatch.setenv("HERE", str(small_judge.parent))
    command = ["evaluate", str(run / "model.safetensors"), "--judge", "--photos", str(held_out)]
    command += ["-o", str(tmp_path / "r"), "--judge-cache", str(tmp_path / "cache")]
    command += [f"--weights=~/{small_judge.name}"]
    # The file is no SqueezeNet, which only a file that was found can be.
    assert main([*command, f"--second-opinion=$HERE/{small_judge.name}"]) == 2
    assert str(small_judge) in capsys.readouterr().err
    assert main([*command, "--second-opinion=~/none.pth"]) == 2
    assert str(small_judge.parent / "none.pth") in capsys.readouterr().err
    assert main([*command, "--second-opinion=none"]) == 0


def test_missing_weights_are_told_with_the_words_that_the_judge_takes(
    run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(run / "model.safetensors"), "--photos", str(held_out)]
    command += ["-o", str(tmp_path / "r"), "--weights", str(tmp_path / "none.pth")]
    for more, words in (
        ([], "imagenet, imagenet_features, "),
        (["--judge"], "imagenet_features, "),
    ):
        assert main([*command, *more]) == 2
        assert f"not found; check --weights ({words}" in capsys.readouterr().err


def test_folders_that_the_judge_cannot_write_to_name_their_option(
    run: Path, held_out: Path, tmp_path: Path, small_judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    command = ["evaluate", str(run / "model.safetensors"), "--judge", "--photos", str(held_out)]
    command += ["--weights", str(small_judge), "--second-opinion", "none"]
    report = ["--output", str(tmp_path / "r")]
    assert main([*command, *report, "--judge-cache", str(file / "cache")]) == 2
    assert "--judge-cache" in capsys.readouterr().err
    assert main([*command, "--output", str(file / "r")]) == 2
    assert str(file / "r") in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_left_out_of_the_photos_is_told_once(
    run: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(held_out, photos)
    first = sorted(photos.iterdir())[0]
    (photos / "a.heic").touch()
    (photos / f"{first.stem}.wave.png").touch()
    words = ["evaluate", str(run / "model.safetensors"), "--photos", str(photos)]
    words += ["--sizes", "32", "--iterations", "2", "--output", str(tmp_path / "report")]
    assert main(words) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert told == [
        f"{photos}: 1 file left out: .heic (1); convert .heic with heif-convert (package "
        "libheif-examples; on macOS: sips -s format jpeg); 1 result of fast-style left out: "
        f"{first.stem}.wave.png (--include-results takes them in)"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--quick", "--judge"])
def test_results_known_by_their_mark_are_told_in_one_line_and_replaced(
    run: Path,
    held_out: Path,
    tmp_path: Path,
    small_judge: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "q"
    results.mkdir()
    for name in ("a.png", "b.png"):
        write_picture(results / name, draw_photo(1))
    photo = sorted(held_out.iterdir())[0]
    command = ["evaluate", str(run / "model.safetensors"), "--photos", str(results), str(photo)]
    command += ["-o", "report", how]
    if how == "--quick":
        command += ["--sizes", "32", "--iterations", "1", "--baseline", "box"]
    else:
        command += ["--count", "2", "--weights", str(small_judge), "--second-opinion", "none"]
    assert main(command) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if str(results) in line]
    assert told == [
        f"2 results of fast-style left out: {results}/a.png, {results}/b.png "
        "(--include-results takes them in)"
    ]
    if how == "--quick":
        measured = json.loads(Path("report/results.json").read_text())["sizes"]["32"]["photos"]
    else:
        measured = json.loads(Path("report/judge.json").read_text())["styles"][0]["photos"]
    assert [row["name"] for row in measured] == [photo.name]
