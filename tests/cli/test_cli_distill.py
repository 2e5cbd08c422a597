"""`fast-style distill`: what it prints, what it writes, and how it ends."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_distillation import small_painters, write_small_distillation
from torch import Tensor

from fast_style.cli import main as cli
from fast_style.distilling.distiller import Distiller
from fast_style.losses.loss_network import load_weights
from fast_style.settings.config import load_distill_config

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["train.painters=1", "train.steps=4", "log.every=99", "log.validate_every=99"]

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with small_painters():
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with settings, pictures and a teacher."""
    monkeypatch.chdir(tmp_path)
    write_small_distillation(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    """The exit code, whether it is returned or raised."""
    try:
        return cli.main(["distill", *arguments])
    except SystemExit as end:
        return int(end.code or 0)


def learn(*arguments: str) -> int:
    """The same with settings, which the arguments may replace, on the CPU."""
    keys = {argument.partition("=")[0] for argument in arguments}
    words = [word for word in WORDS if word.partition("=")[0] not in keys]
    return run("small.yaml", "--device", "cpu", *words, *arguments)


def errors(capsys: Output) -> list[str]:
    """The lines on stderr; stdout must be empty."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def final_bytes(folder: Path) -> list[bytes]:
    last = folder / "checkpoints" / "step-00000004.safetensors"
    return [path.read_bytes() for path in (last, folder / "loss_network.safetensors")]


def interrupt_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ctrl-C does while the step that follows is computed."""
    original = Distiller.train_step

    def train_step(self: Distiller, photos: Tensor) -> dict[str, Tensor]:
        if self.step == step - 1:
            signal.raise_signal(signal.SIGINT)
        return original(self, photos)

    monkeypatch.setattr(Distiller, "train_step", train_step)


# --- Help and settings --------------------------------------------------------------------------


def test_commands_of_the_examples_are_understood(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--help")
    lines = capsys.readouterr().out.partition("\nexamples:\n")[2].splitlines()
    commands = [line.split()[2:] for line in lines if line.startswith("  fast-style distill ")]
    assert commands == [["configs/distill.yaml"]]
    monkeypatch.chdir(ROOT)
    assert run(*commands[0], "--print-config") == 0


def test_help_config_tells_every_setting(capsys: Output) -> None:
    assert run("--help-config") == 0
    text = capsys.readouterr().out
    assert "\ndata.paintings: (required)  # path\n" in text
    assert "\nstudent.widths: [24, 64, 96, 160]  # a list of whole numbers, " in text
    assert "style_weight" not in text


def test_printed_config_loads_back_equal(here: Path, capsys: Output) -> None:
    words = ["student.widths=[4, 5]", "train.painters=0"]
    # Words may stand anywhere among the options.
    assert run("small.yaml", words[0], "--print-config", "--device", "cpu", words[1]) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    expected = load_distill_config(Path("small.yaml"), words)
    assert load_distill_config(Path("printed.yaml")) == expected
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "CONFIG.yaml is missing; give a YAML file, such as configs/distill.yaml"),
        (
            ["small.yaml", "--resume", "no"],
            "argument --resume: invalid choice: 'no' (choose from 'auto', 'never'); see fast-style "
            "distill --help",
        ),
    ],
)
def test_mistake_of_usage_is_one_line_and_exit_code_2(
    here: Path, arguments: list[str], message: str, capsys: Output
) -> None:
    assert run(*arguments) == 2
    assert errors(capsys) == [f"error: {message}"]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "found", "remedy"),
    [
        (["none.yaml"], "none.yaml: not found", "configs/distill.yaml"),
        (["small.yaml", "photo.jpg"], "'photo.jpg' on the command line", "student.widths="),
    ],
)
def test_settings_that_cannot_be_read_are_named_with_a_remedy(
    here: Path, arguments: list[str], found: str, remedy: str, capsys: Output
) -> None:
    assert run(*arguments) == 2
    (line,) = errors(capsys)
    assert found in line
    assert remedy in line


def test_missing_folder_leaves_no_run_behind(here: Path, capsys: Output) -> None:
    assert learn("data.paintings=nowhere") == 2
    (line,) = errors(capsys)
    assert line.startswith(f"error: {here}/nowhere: ")
    assert line.endswith("data.paintings")
    assert not Path("runs").exists()


# --- Learning -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_says_what_it_does_and_again_that_it_is_finished(here: Path, capsys: Output) -> None:
    assert learn() == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0].startswith("9 photos and 3 paintings to learn on, 3 and 3 held out; ")
    assert lines[1] == "training in runs/small on cpu; watch with: tensorboard --logdir runs"
    assert lines[2].startswith("step 4/4  loss ")
    assert lines[3:] == ["finished: runs/small/loss_network.safetensors"]
    assert len(load_weights(lines[3].removeprefix("finished: "), "vgg16", "relu2_2").heads) == 4
    before = final_bytes(Path("runs/small"))
    assert learn() == 0
    assert capsys.readouterr().out == (
        "runs/small: finished at step 4; the loss network is runs/small/loss_network.safetensors. "
        "Train in a new folder with --resume never (or another name=...)\n"
    )
    assert final_bytes(Path("runs/small")) == before
    assert learn("--resume", "never") == 0
    assert capsys.readouterr().out.endswith("finished: runs/small-2/loss_network.safetensors\n")


def test_interrupted_run_saves_ends_with_130_and_goes_on(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert learn() == 0
    Path("runs").rename("straight")
    capfd.readouterr()
    interrupt_after(3, monkeypatch)
    handler = signal.getsignal(signal.SIGINT)
    assert learn() == 130
    assert signal.getsignal(signal.SIGINT) is handler
    captured = capfd.readouterr()
    assert captured.err == "stopping after this step; a second signal stops at once\n"
    last_line = captured.out.splitlines()[-1]
    assert last_line == "stopped at step 3; the same command resumes from there"
    assert learn() == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[1].startswith("resuming at step 3 in runs/small on cpu; ")
    assert lines[-1] == "finished: runs/small/loss_network.safetensors"
    assert final_bytes(Path("runs/small")) == final_bytes(Path("straight/small"))


def test_interrupted_fresh_run_says_how_to_go_on(
    here: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert learn() == 0
    interrupt_after(1, monkeypatch)
    assert learn("--resume", "never") == 130
    assert capsys.readouterr().out.splitlines()[-1] == (
        "stopped at step 1; --resume auto name=small-2 resumes from there"
    )
    monkeypatch.undo()
    monkeypatch.chdir(here)
    with small_painters():
        assert learn("--resume", "auto", "name=small-2") == 0
    assert "resuming at step 1 in runs/small-2 on cpu" in capsys.readouterr().out


def test_other_settings_are_refused_before_anything_is_read(here: Path, capsys: Output) -> None:
    assert learn() == 0
    (here / "teacher.safetensors").unlink()
    capsys.readouterr()
    assert learn("train.steps=9", "train.learning_rate=0.002") == 2
    captured = capsys.readouterr()
    assert "train.steps: 4 -> 9" in captured.out
    assert "train.learning_rate: 0.001 -> 0.002" in captured.out
    assert captured.err.startswith("error: runs/small: ")
    assert "train.steps, train.learning_rate" in captured.err
    assert "--resume never" in captured.err
