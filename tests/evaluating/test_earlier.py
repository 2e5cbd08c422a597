"""Claims about `earlier`: of the reports and files in a folder, none is lost."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from small_evaluation import CPU, redescribed
from small_run import draw_photo

from fast_style.cli.main import main
from fast_style.core.errors import UserError
from fast_style.evaluating.earlier import (
    Kind,
    inputs_digest,
    names_of_judgment,
    names_of_report,
    require_nothing_lost,
)
from fast_style.evaluating.objective import load_models

OF_SIZE_32 = names_of_report([32])
OF_STYLE_32 = names_of_judgment(["32"])


def write_report(folder: Path, kind: Kind) -> None:
    """The files of an evaluation at 32 px, or of a judgment in the style of 32.jpg."""
    numbers = {"results": {"sizes": {"32": {}}}, "judge": {"styles": [{"name": "32"}]}}[kind]
    (folder / f"{kind}.json").write_text(json.dumps(numbers))
    for name in OF_SIZE_32 if kind == "results" else OF_STYLE_32:
        (folder / name).write_text(kind)


def test_names_are_those_of_the_page_and_the_pictures() -> None:
    assert OF_SIZE_32 == ["report.md", "grid-32.png", "objective-32.png", "terms-32.png"]
    assert names_of_judgment(["a b", "c"]) == ["judge.md", "grid-a b.png", "grid-c.png"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_picture_of_the_other_report_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    reports: list[tuple[Kind, Kind, list[str], str]] = [
        ("results", "judge", OF_STYLE_32, "report.md"),
        ("judge", "results", OF_SIZE_32, "judge.md"),
    ]
    for kind, new, names, page in reports:
        folder = tmp_path / kind
        folder.mkdir()
        write_report(folder, kind)
        with pytest.raises(UserError) as caught:
            require_nothing_lost(folder, new, names, overwrite=overwrite)
        assert str(caught.value) == (
            f"{folder}/grid-32.png: exists already, and is of the report {page}; choose another "
            "--output"
        )
        others = names_of_judgment(["wave"]) if new == "judge" else names_of_report([48])
        require_nothing_lost(folder, new, others, overwrite=overwrite)


@pytest.mark.parametrize("kind", ["results", "judge"])
def test_report_replaces_its_own_files_and_no_others(tmp_path: Path, kind: Kind) -> None:
    write_report(tmp_path, kind)
    names = OF_SIZE_32 if kind == "results" else OF_STYLE_32
    require_nothing_lost(tmp_path, kind, names, overwrite=False)
    more = names_of_report([32, 48]) if kind == "results" else names_of_judgment(["32", "48"])
    require_nothing_lost(tmp_path, kind, more, overwrite=False)
    (tmp_path / "grid-48.png").write_text("mine")
    with pytest.raises(UserError) as caught:
        require_nothing_lost(tmp_path, kind, more, overwrite=False)
    assert str(caught.value) == (
        f"{tmp_path}/grid-48.png: exists already, and is of no report; choose another --output, or "
        "replace it with --overwrite"
    )
    require_nothing_lost(tmp_path, kind, more, overwrite=True)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sizes": 3, "styles": {}}', '{"styles": [3, {"name": []}]}']
)
def test_files_beside_unknown_numbers_are_of_no_report(tmp_path: Path, text: str) -> None:
    for name in ("results.json", "judge.json", "grid-32.png"):
        (tmp_path / name).write_text(text)
    for kind, names in (("results", OF_SIZE_32), ("judge", OF_STYLE_32)):
        with pytest.raises(UserError, match="is of no report"):
            require_nothing_lost(tmp_path, kind, names, overwrite=False)


def test_digest_of_inputs_is_of_contents_and_not_of_names(run: Path, tmp_path: Path) -> None:
    models = load_models([run / "model.safetensors"], CPU)
    photos = [tmp_path / name for name in ("a.png", "b.png", "a-again.png")]
    for seed, photo in zip((1, 2, 1), photos, strict=True):
        draw_photo(seed).save(photo)
    a, b, again = photos
    found = inputs_digest(models, "x", [a])
    assert inputs_digest(models, "x", [again]) == found
    others = [
        inputs_digest(models, "x", [b]),
        inputs_digest(models, "x", [a, b]),
        inputs_digest(models, "y", [a]),
        inputs_digest([*models, *models], "x", [a]),
    ]
    assert len({found, *others}) == 5
    b.unlink()
    with pytest.raises(UserError, match=r"b\.png: cannot be read any more \(No such file"):
        inputs_digest(models, "x", [b])


# --- The command ------------------------------------------------------------------------------


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("is_judge", [False, True])
def test_a_report_of_other_files_of_the_same_names_is_only_replaced_on_request(
    run: Path,
    tmp_path: Path,
    small_judge: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_judge: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fast_style.evaluating.report.draw_plots", lambda *_: iter(()))
    monkeypatch.setattr("fast_style.evaluating.report.summarize", lambda _: {"sizes": {}})
    first = run / "model.safetensors"
    retrained = redescribed(run, tmp_path / "again", lambda metadata: metadata | {"name": "more"})
    photos = [tmp_path / name / "val" for name in ("a", "b")]
    styles = [tmp_path / name / "wave.png" for name in ("a", "b")]
    for seed, (folder, style) in enumerate(zip(photos, styles, strict=True)):
        folder.mkdir(parents=True)
        draw_photo(seed).save(folder / "photo.png")
        draw_photo(10 + seed).save(style)
    file = tmp_path / "r" / ("judge.json" if is_judge else "results.json")
    more = ["--sizes", "32", "--iterations", "1", "--baseline", "box"]
    if is_judge:
        more = ["--judge", "--weights", str(small_judge), "--second-opinion", "none"]

    def evaluate_into_folder(model: Path, val: Path, style: Path, *others: str) -> int:
        words = ["evaluate", str(model), "--photos", str(val), "--style", str(style)]
        words += ["-o", str(file.parent), *more, *others]
        monkeypatch.setattr(sys, "argv", ["fast-style", *words])
        return main(words)

    assert evaluate_into_folder(first, photos[0], styles[0]) == 0
    written = file.read_text()
    assert str(tmp_path) not in written
    for model, val, style, found in (
        (retrained, photos[0], styles[0], "other models of the same names"),
        (first, photos[1], styles[0], "other photos, or of another objective"),
        (first, photos[0], styles[1], "other photos, or of another objective"),
    ):
        capsys.readouterr()
        assert evaluate_into_folder(model, val, style) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {file}: exists already, and is of {found}")
        assert error.endswith("; choose another --output, or replace it with --overwrite\n")
        assert file.read_text() == written
    assert evaluate_into_folder(first, photos[0], styles[0]) == 0  # made again
    # Earlier versions wrote no digest.
    earlier = json.loads(file.read_text())
    del earlier["inputs_digest"]
    file.write_text(json.dumps(earlier))
    assert evaluate_into_folder(retrained, photos[0], styles[0]) == 2
    assert evaluate_into_folder(first, photos[1], styles[0]) == 0
    assert evaluate_into_folder(retrained, photos[0], styles[0], "--overwrite") == 0


def test_the_judge_replaces_no_grid_but_its_own(
    run: Path,
    held_out: Path,
    tmp_path: Path,
    small_judge: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(run / "style.png", "32.png")
    grid = tmp_path / "r" / "grid-32.png"
    grid.parent.mkdir()
    grid.write_text("mine")
    (tmp_path / "r" / "grid-other.png").write_text("mine")
    command = ["evaluate", str(run / "model.safetensors"), "--judge", "--photos", str(held_out)]
    command += ["--weights", str(small_judge), "--second-opinion", "none", "--count", "1"]
    command += ["--style", "32.png", "-o", "r"]
    for numbers, found in ((None, "is of no report"), ({"32": {}}, "is of the report report.md")):
        if numbers is not None:
            (tmp_path / "r" / "results.json").write_text(json.dumps({"sizes": numbers}))
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(
            f"error: r/grid-32.png: exists already, and {found}; choose another --output"
        )
    assert main([*command, "--overwrite"]) == 2
    (tmp_path / "r" / "results.json").unlink()
    assert not Path("judge_cache").exists()  # no L-BFGS has run
    assert main([*command, "--overwrite"]) == 0
    assert grid.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "r" / "grid-other.png").read_text() == "mine"
