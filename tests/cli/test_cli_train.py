"""``train.py A.yaml B.yaml``: several styles, one after the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import SETTINGS, train_once, write_small_run

from fast_style.cli import train as train_module
from fast_style.cli.main import train_main
from fast_style.settings.config import load_config
from fast_style.training import build as runs_module

QUICK = ["train.steps=2", "train.warmup_steps=0", "log.samples=1", "--device", "cpu"]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a small run's YAML file of a name into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs_module, "_SMALLEST_SAMPLE", 32)
    write_small_run(tmp_path)

    def write_yaml(name: str, **sections: dict[str, Any]) -> str:
        settings = {**SETTINGS, "name": name}
        for section, changes in sections.items():
            settings[section] = {**settings[section], **changes}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        return f"{name}.yaml"

    return write_yaml


def test_several_files_are_trained_in_turn_and_then_skipped(
    write: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [write("first"), *QUICK, write("second")]
    assert train_main(arguments) == 0
    said = capsys.readouterr().out
    places = [
        said.index(line)
        for line in (
            "first (1 of 2)\n",
            "finished: runs/first/model.safetensors\n",
            "second (2 of 2)\n",
            "finished: runs/second/model.safetensors\n",
        )
    ]
    assert places == sorted(places)
    assert load_config(tmp_path / "runs" / "second" / "config.yaml").train.steps == 2
    assert train_main(arguments) == 0
    again = capsys.readouterr().out.splitlines()
    assert [line.partition(";")[0] for line in again] == [
        "first (1 of 2)",
        "runs/first: finished at step 2",
        "second (2 of 2)",
        "runs/second: finished at step 2",
    ]


def test_second_run_is_what_it_is_alone(write: Callable[..., str], tmp_path: Path) -> None:
    first = write("first", train={"deterministic": True, "threads": 2})
    second = write("second")
    assert train_main([first, second, *QUICK]) == 0
    train_once(load_config(tmp_path / second, QUICK[:-2]), tmp_path / "alone")
    models = [
        (folder / "second" / "model.safetensors").read_bytes()
        for folder in (tmp_path / "runs", tmp_path / "alone")
    ]
    assert models[0] == models[1]


def test_mistakes_of_all_files_are_told_before_anything_begins(
    write: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write("good")
    bad = write("bad", train={"steps": 0})
    worse = write("worse", train={"batch_size": "many"})
    assert train_main([good, bad, worse, "log.evry=2"]) == 2
    # The word is wrong in the same way for every file, and told once.
    assert capsys.readouterr().err == (
        "error: 'log.evry=2' on the command line: unknown key 'log.evry'; did you mean "
        "'log.every'?\n"
        "error: bad.yaml:30: train.steps: must be at least 1, got 0\n"
        "error: worse.yaml:29: train.batch_size: must be an integer, got 'many'\n"
    )
    assert not (tmp_path / "runs").exists()


def test_runs_need_folders_of_their_own(
    write: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write("first"), write("second")
    assert train_main([first, second, "name=both"]) == 2
    assert capsys.readouterr().err == (
        "error: name= on the command line would give the runs of 2 files one folder; set it in the "
        "files\n"
    )
    Path("again.yaml").write_text(Path(first).read_text())
    assert train_main([first, second, "again.yaml"]) == 2
    assert capsys.readouterr().err == (
        "error: again.yaml: name: first is also that of first.yaml; each run needs a folder of its "
        "own\n"
    )
    assert not (tmp_path / "runs").exists()


def test_run_that_fails_does_not_stop_those_behind_it(
    write: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write("broken", style={"image": "nowhere.png"})
    assert train_main([broken, write("fine"), *QUICK]) == 1
    said = capsys.readouterr()
    assert said.err == f"error: {tmp_path}/nowhere.png: not found\n"
    assert "finished: runs/fine/model.safetensors\n" in said.out
    assert said.out.endswith("failed: broken; the others are done\n")
    assert not (tmp_path / "runs" / "broken").exists()


def test_signal_stops_those_behind_it_too(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def stop(config: Any, *unused: object, **also_unused: object) -> int:
        begun.append(config.name)
        return 143

    monkeypatch.setattr(train_module, "carry_out", stop)
    assert train_main([write("first"), write("second"), "--device", "cpu"]) == 143
    assert begun == ["first"]


def test_check_looks_at_every_file(
    write: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write("broken", style={"image": "nowhere.png"})
    assert train_main([write("fine"), broken, "--check"]) == 1
    said = capsys.readouterr()
    assert said.out.count("everything is there") == 1
    assert said.err.endswith("nowhere.png: not found\n")


def test_all_settings_are_printed_as_one_yaml_stream(
    write: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main([write("first"), write("second"), "--print-config"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [document["name"] for document in documents] == ["first", "second"]


def test_setting_without_a_value_is_not_taken_for_a_file(
    write: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main([write("first"), "train.steps"]) == 2
    assert capsys.readouterr().err == (
        "error: 'train.steps' on the command line: settings are given as key=value, for example "
        "train.steps=2000\n"
    )


def test_missing_folder_is_told_by_the_first_process_of_a_machine_alone(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [write("one", data={"photos": "nowhere"}), "train.batch_size=2"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    told = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert train_main(arguments) == 2
        told.append("this folder of photos is not there" in capsys.readouterr().err)
    assert told == [True, False]
