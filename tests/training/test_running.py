"""Claims about `running`: one call trains, goes on after an interruption, and changes nothing else.

The call is that of a notebook, where a cell is run again after any end.
"""

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import checkpoints_of, command_environment, final_state, ignore, settings_of

import fast_style
from fast_style.core.errors import UserError
from fast_style.training.loop import Interval
from fast_style.training.reporting import StepResult
from fast_style.training.run_lock import RunLock
from fast_style.training.step import TrainingStep
from fast_style.training.trainer import Trainer

Result = tuple[Path, list[str]]


@pytest.fixture
def train(yaml_file: Path, tmp_path: Path) -> Callable[..., Result]:
    """Trains in `tmp_path`; gives the model file and what was said."""

    def train_small(*words: str, fresh: bool = False) -> Result:
        said: list[str] = []
        file = fast_style.train(
            settings_of(yaml_file, *words),
            device="cpu",
            root=tmp_path,
            fresh=fresh,
            say=said.append,
        )
        return file, said

    return train_small


def fail_at(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Do something at a step of the next training, and nothing at those that follow."""
    compute = TrainingStep.__call__
    steps = iter(range(1, 100))

    def compute_or_fail(self: TrainingStep, *inputs: object) -> object:
        if next(steps) == step:
            act()
        return compute(self, *inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingStep, "__call__", compute_or_fail)


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


@pytest.mark.slow
def test_model_is_that_of_the_commands(
    train: Callable[..., Result], straight: Path, tmp_path: Path
) -> None:
    file, said = train()
    assert file == tmp_path / "tiny" / "model.safetensors"
    assert final_state(tmp_path / "tiny") == final_state(straight)
    assert said[-1] == f"finished: {file}"


def test_every_line_goes_to_the_callers_function(
    train: Callable[..., Result], capsys: pytest.CaptureFixture[str]
) -> None:
    _, said = train()
    assert capsys.readouterr().out == ""
    assert [line.split()[1] for line in said if line.startswith("step ")] == [
        f"{step}/6" for step in range(1, 7)
    ]


def test_copy_of_settings_is_checked_before_anything_is_written(
    yaml_file: Path, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    config = settings_of(yaml_file)
    evil = config.model_copy(update={"name": "../evil"})
    backward = config.model_copy(update={"train": config.train.model_copy(update={"steps": -5})})
    for wrong, key in ((evil, "name"), (backward, r"train\.steps")):
        for call in (
            lambda config: fast_style.train(config, root=root, device="cpu", say=ignore),
            lambda config: fast_style.open_run(config, root=root, fresh=False, say=ignore),
        ):
            with pytest.raises(UserError, match=rf"^config: {key}: must be "):
                call(wrong)
    assert not root.exists()
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("wrong", [None, {"name": "x"}])
def test_what_is_no_settings_is_an_error_of_type(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"^config must be .*, got {type(wrong).__name__}$"):
        fast_style.train(wrong, root=tmp_path, device="cpu")
    with pytest.raises(TypeError, match=rf"^config must be .*, got {type(wrong).__name__}$"):
        fast_style.open_run(wrong, root=tmp_path, fresh=False, say=ignore)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"root": "s3://bucket/runs"}, UserError, "^root=: .* is a URL"),
        ({"root": ""}, UserError, "^root=: must be a path"),
        (
            {"root": "runs", "fresh": "never"},
            TypeError,
            "^fresh must be True or False, got 'never'",
        ),
    ],
)
def test_what_names_no_folder_is_refused(
    yaml_file: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    config = settings_of(yaml_file)
    with pytest.raises(error, match=message):
        fast_style.train(config, device="cpu", **options)
    with pytest.raises(error, match=message):
        fast_style.open_run(config, say=ignore, **{"fresh": False, **options})


def test_text_names_the_folder_of_runs(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = settings_of(yaml_file)
    with fast_style.open_run(config, root="~/mine", fresh=False, say=ignore) as run:
        assert run.folder == tmp_path / "mine" / "tiny"


def test_second_call_says_that_it_is_finished(train: Callable[..., Result], tmp_path: Path) -> None:
    file, _ = train()
    before = final_state(tmp_path / "tiny")
    again, said = train()
    assert again == file
    assert said == [
        f"{tmp_path}/tiny: finished at step 6; the model is {file}. Train in a new folder with "
        "fresh=True (or another name=...), or start another run from this model with "
        "train.init_from"
    ]
    assert final_state(tmp_path / "tiny") == before


@pytest.mark.slow
@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt(), UserError("no")])
def test_call_after_an_error_goes_on(
    train: Callable[..., Result],
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    fail_at(monkeypatch, 4, raising(error))
    with pytest.raises(type(error)):
        train()
    _, said = train()
    (resuming,) = (line for line in said if line.startswith("resuming"))
    assert resuming.startswith(f"resuming at step 2 in {tmp_path}/tiny on cpu")
    assert final_state(tmp_path / "tiny") == final_state(straight)


@pytest.mark.slow
def test_stop_button_saves_after_the_step_and_the_same_call_resumes(
    train: Callable[..., Result],
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    fail_at(monkeypatch, 3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train()
    assert signal.getsignal(signal.SIGINT) is before
    assert max(checkpoints_of(tmp_path / "tiny")) == 3
    train()
    assert final_state(tmp_path / "tiny") == final_state(straight)


def test_stopped_call_says_how_to_resume(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    for fresh, again in ((False, "the same call"), (True, "the same call with name=tiny-2 and "
                                                          "fresh=False")):  # fmt: skip
        said: list[str] = []
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
            fail_at(patch, 1, lambda: signal.raise_signal(signal.SIGINT))
            fast_style.train(
                settings_of(yaml_file), device="cpu", root=tmp_path, fresh=fresh, say=said.append
            )
        assert said[-1] == f"stopped at step 1; {again} resumes from there"


def test_settings_may_be_the_path_of_their_file(yaml_file: Path, tmp_path: Path) -> None:
    for file in (yaml_file, str(yaml_file)):
        model = fast_style.train(file, device="cpu", root=str(tmp_path), say=ignore)
        assert model == tmp_path / "tiny" / "model.safetensors"


def test_device_may_be_torchs_own_and_a_wrong_one_is_named(yaml_file: Path, tmp_path: Path) -> None:
    model = fast_style.train(yaml_file, device=torch.device("cpu"), root=tmp_path, say=ignore)
    assert model.is_file()
    with pytest.raises(UserError, match=r"^device=gpu: not the name of a device; choose one of"):
        fast_style.train(yaml_file, device="gpu", root=tmp_path, say=ignore)


def test_parts_of_a_training_take_the_name_of_a_device(yaml_file: Path, tmp_path: Path) -> None:
    config = settings_of(yaml_file)
    with fast_style.open_run(config, root=tmp_path, fresh=False, say=ignore) as run:
        with pytest.raises(UserError, match=r"^device=gpu: not the name"):
            fast_style.build_trainer(config, run, device="gpu", say=ignore)
        trainer = fast_style.build_trainer(config, run, device="cpu", say=ignore)
        trainer.run_log.close()
    assert trainer.device == torch.device("cpu")


def test_mistake_leaves_no_folder_and_no_lock(train: Callable[..., Result], tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"nowhere.*data\.photos"):
            train("data.photos=nowhere")
        assert list(tmp_path.iterdir()) == []


def test_settings_of_torch_are_the_callers_again(train: Callable[..., Result]) -> None:
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(False)
    train("train.threads=3", "train.deterministic=true", "train.steps=1")
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_random_numbers_of_the_caller_go_on_as_without_training(
    train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(8)
    expected = torch.rand(6)
    torch.manual_seed(8)
    found = [torch.rand(2)]
    train()  # DataLoader draws a seed
    found.append(torch.rand(2))
    fail_at(monkeypatch, 2, raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        train("name=other")
    found.append(torch.rand(2))
    assert torch.equal(torch.cat(found), expected)


def test_training_in_another_thread_is_refused_until_it_has_ended(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_go_on = threading.Event(), threading.Event()
    fail_at(monkeypatch, 1, lambda: (has_begun.set(), may_go_on.wait()))
    thread = threading.Thread(target=train)
    thread.start()
    has_begun.wait()
    try:
        for name in ("tiny", "other"):
            with pytest.raises(UserError, match=r"^another thread .* trains already.* of its own$"):
                train(f"name={name}")
    finally:
        may_go_on.set()
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    _, said = train()
    assert said[0].startswith(f"{tmp_path}/tiny: finished at step 6")


def test_run_left_open_is_trained_from_another_thread_once_it_is_closed_as_told(
    train: Callable[..., Result], yaml_file: Path, tmp_path: Path
) -> None:
    run = fast_style.open_run(settings_of(yaml_file), root=tmp_path, fresh=False, say=ignore)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(UserError, match=r"close the run there \(run\.release\(\)\)"):
            pool.submit(train).result()
        run.release()
        file, _ = pool.submit(train).result()
    assert file.is_file()


def test_run_that_another_process_took_over_stops_after_the_step(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(
        monkeypatch,
        3,
        lambda: monkeypatch.setattr(RunLock, "is_lost", property(lambda lock: True)),
    )
    with pytest.raises(UserError, match="another process has taken this run over"):
        train()
    assert checkpoints_of(tmp_path / "tiny") == [2]


@pytest.mark.parametrize("is_deleted", [False, True])
def test_run_whose_folder_is_gone_saves_and_stops_and_the_same_call_goes_on(
    train: Callable[..., Result],
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_deleted: bool,
) -> None:
    folder, elsewhere = tmp_path / "tiny", tmp_path / "renamed"
    fail_at(
        monkeypatch, 3, lambda: shutil.rmtree(folder) if is_deleted else folder.rename(elsewhere)
    )
    with pytest.raises(UserError) as caught:
        train()
    message = str(caught.value)
    assert message.startswith(f"{folder}: this folder was renamed or deleted while the run trained")
    assert f"move {folder}/checkpoints/step-00000003.safetensors into its checkpoints" in message
    assert checkpoints_of(folder) == [3]
    train()
    now, expected = final_state(folder), final_state(straight)
    del now["metrics.csv"], expected["metrics.csv"]  # the new one begins later
    assert now == expected
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "style.png", "environment.json", "samples", "lock"} <= names
    assert (folder / "metrics.csv").read_text().startswith("step,images,")


@pytest.mark.slow
def test_run_whose_folder_was_renamed_goes_on_there_as_told(
    train: Callable[..., Result], straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "tiny", tmp_path / "renamed"
    fail_at(monkeypatch, 3, lambda: folder.rename(elsewhere))
    with pytest.raises(UserError):
        train()
    file = Path("checkpoints", "step-00000003.safetensors")
    (folder / file).rename(elsewhere / file)
    shutil.rmtree(folder)
    elsewhere.rename(folder)
    train()
    now, expected = final_state(folder), final_state(straight)
    rows = expected["metrics.csv"].splitlines()
    del rows[1 + 3]  # what was measured at step 3 stands in the folder that was removed
    assert now.pop("metrics.csv").splitlines() == rows
    del expected["metrics.csv"]
    assert now == expected


def test_what_has_the_name_of_a_run_whose_folder_is_gone_is_left_alone(
    train: Callable[..., Result], straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "tiny", tmp_path / "renamed"

    def replace() -> None:
        folder.rename(elsewhere)
        shutil.copytree(straight, folder)

    fail_at(monkeypatch, 3, replace)
    with pytest.raises(UserError, match="something else has its name now") as caught:
        train()
    assert "give a renamed folder its name again, and the same call resumes" in str(caught.value)
    for path in straight.rglob("*"):
        if path.is_file():
            assert (folder / path.relative_to(straight)).read_bytes() == path.read_bytes()
    shutil.rmtree(folder)
    elsewhere.rename(folder)
    train()
    assert final_state(folder) == final_state(straight)


def test_folders_of_another_run_that_begins_under_the_name_are_left_alone(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiny"

    def replace() -> None:
        folder.rename(tmp_path / "renamed")
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "lock").touch()

    fail_at(monkeypatch, 1, replace)
    with pytest.raises(UserError, match="something else has its name now"):
        train()
    assert {path.name for path in folder.iterdir()} == {"checkpoints", "lock"}


def test_folder_is_looked_for_again_after_a_report(
    train: Callable[..., Result], straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = tmp_path / "tiny", Trainer.report

    def report(self: Trainer, interval: Interval, result: StepResult) -> None:
        real(self, interval, result)
        if self.step == 4:  # of the second checkpoint
            folder.rename(tmp_path / "renamed")
            shutil.copytree(straight, folder)

    monkeypatch.setattr(Trainer, "report", report)
    with pytest.raises(UserError, match="something else has its name now"):
        train()
    assert final_state(folder) == final_state(straight)
    assert checkpoints_of(tmp_path / "renamed") == [2]


def test_working_directory_may_be_renamed_while_a_run_trains_in_it(
    yaml_file: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    monkeypatch.chdir(before)
    fail_at(monkeypatch, 3, lambda: before.rename(after))
    fast_style.train(settings_of(yaml_file), device="cpu", root="runs", say=ignore)
    assert final_state(after / "runs" / "tiny") == final_state(straight)
    assert not before.exists()


def test_files_of_the_lock_that_are_removed_do_not_stop_the_run(
    train: Callable[..., Result], straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove() -> None:
        (tmp_path / "tiny" / "lock").unlink()
        (tmp_path / "tiny" / "lock.held").unlink()

    fail_at(monkeypatch, 3, remove)
    train()
    assert final_state(tmp_path / "tiny") == final_state(straight)


@pytest.mark.slow
def test_lines_are_printed_in_any_encoding(yaml_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, fast_style\n"
        "fast_style.train(sys.argv[1], device='cpu', root='日本')\n",
        encoding="utf-8",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, script, yaml_file],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=command_environment() | {"PYTHONIOENCODING": "cp1252"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "finished: \\u65e5\\u672c/tiny/model.safetensors\n" in done.stdout
    assert (tmp_path / "日本" / "tiny" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["auto", "2"])
def test_script_without_a_main_guard_trains(yaml_file: Path, tmp_path: Path, workers: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, fast_style\n"
        "print('the script runs')\n"
        f"config = fast_style.load_config(sys.argv[1], ['data.workers={workers}'])\n"
        "fast_style.train(config, device='cpu')\n"
    )
    done = subprocess.run(
        [sys.executable, script, yaml_file],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=command_environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("the script runs") == 1
    assert done.stdout.endswith("finished: runs/tiny/model.safetensors\n")


# Interrupts an import, as if the stop button was pressed then.
INTERRUPTED = """
import signal, sys
class Interrupt:
    def __init__(self, name):
        self.name = name
    def find_spec(self, name, *unused):
        if name == self.name:
            sys.meta_path.remove(self)
            print("interrupted in", name)
            signal.raise_signal(signal.SIGINT)
import fast_style
for name in ("torch.nn.functional", "sympy.logic"):
    sys.meta_path.insert(0, Interrupt(name))
    try:
        fast_style.train(sys.argv[1], device="cpu", say=lambda line: None)
    except KeyboardInterrupt:
        print("stopped")
fast_style.train(sys.argv[1], device="cpu")
"""


@pytest.mark.slow
def test_interrupted_import_breaks_nothing(yaml_file: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, yaml_file],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=command_environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "interrupted in torch.nn.functional",
        "stopped",
        "interrupted in sympy.logic",
        "stopped",
    ]
    assert lines[-1] == "finished: runs/tiny/model.safetensors"
