"""The commands: what they print, what they write, and how they end."""

import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_model import write_tiny_model

from fast_style import __version__
from fast_style.cli import main as cli
from fast_style.cli.common import num_bytes, stop_signals
from fast_style.pictures.reading import DEFAULT_MAX_PIXELS
from fast_style.settings.config import load_config

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["train", "stylize", "distill", "init", "info", "demo"]

Output = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(here: Path) -> Path:
    return write_tiny_model(here / "model.safetensors")


def photo_at(path: str, seed: int = 0) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return Path(path)


@pytest.fixture
def config(here: Path) -> Path:
    """A YAML file whose style, photos and weights are all there."""
    photo_at("style.png")
    for number in range(4):
        photo_at(f"photos/{number}.png", seed=number)
    settings = {
        "name": "wave",
        "style": {"image": "style.png", "size": 32},
        "data": {"photos": "photos", "crop_size": 32},
        "loss_network": {"weights": "random"},
    }
    path = here / "wave.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def run(*arguments: str) -> int:
    """The exit code, whether it is returned or raised."""
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def run_in_process(
    *arguments: str, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fast_style", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_until_it_writes(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Until a process has a file open in a folder, with a name or without."""
    end = time.monotonic() + 300  # of a busy machine
    while time.monotonic() < end and process.poll() is None:
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(link).startswith(f"{folder}/"):
                    return
        time.sleep(0.02)
    raise AssertionError(f"it has not begun; exit code: {process.poll()}")


def errors(capsys: Output) -> list[str]:
    """The lines on stderr; stdout must be empty."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


# --- Help and mistakes of usage -----------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, capsys: Output) -> None:
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: fast-style {command} ")
    _, _, examples = text.partition("\nexample")
    assert f"  fast-style {command}" in examples


@pytest.mark.parametrize(
    ("main", "script"), [(cli.train_main, "train.py"), (cli.stylize_main, "stylize.py")]
)
def test_help_of_a_script_shows_examples_with_its_name(
    main: object, script: str, capsys: Output
) -> None:
    assert callable(main)
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert f"  python {script} " in capsys.readouterr().out


def test_help_names_all_commands(capsys: Output) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(f"    {command} " in text for command in COMMANDS)


def test_version_is_printed(capsys: Output) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"fast-style {__version__}\n"


@pytest.mark.parametrize(
    "word", ["2", "2g", "0G", "-1G", "2GiB", "2 G", "1,5G", "G", "", "9999999G"]
)
def test_size_of_memory_that_is_none_is_a_mistake_of_usage(word: str, capsys: Output) -> None:
    assert run("stylize", "-m", "m", "a.jpg", f"--memory={word}") == 2
    assert errors(capsys) == [
        f"error: argument --memory: must be a size such as 500M or 2G, got {word!r} (fast-style "
        "stylize --help shows what there is)"
    ]


@pytest.mark.parametrize(
    ("word", "expected"), [("500M", 500_000_000), ("2G", 2_000_000_000), ("1.5G", 1_500_000_000)]
)
def test_size_of_memory_is_in_powers_of_1000(word: str, expected: int) -> None:
    assert num_bytes(word) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "the following arguments are required: COMMAND (fast-style --help shows what there is)",
        ),
        (
            ["stylize", "a.jpg"],
            "the following arguments are required: --model/-m (fast-style stylize --help shows "
            "what there is)",
        ),
        (
            ["stylize", "-m", "m", "a.jpg", "--max-side", "0"],
            "argument --max-side: must be a whole number from 1, got '0' (fast-style stylize "
            "--help shows what there is)",
        ),
        (
            ["stylize", "-m", "m", "a.jpg", "--quality", "101"],
            "argument --quality: must be 1 to 100, got '101' (fast-style stylize --help shows what "
            "there is)",
        ),
        (
            ["stylize", "-m", "m", "a.jpg", "--overwrite", "--skip-existing"],
            "argument --skip-existing: not allowed with argument --overwrite (fast-style stylize "
            "--help shows what there is)",
        ),
        (
            ["stylize", "-m", "m", "a.jpg", "--quiet", "b.jpg"],
            "unrecognized arguments: --quiet b.jpg (fast-style --help shows what there is)",
        ),
        (
            ["info", "a", "b"],
            "unrecognized arguments: b (fast-style --help shows what there is)",
        ),
        (
            ["stylize", "-m", "m", "a.jpg", "--threads", "2000"],
            "argument --threads: must be 1 to 1024, got '2000' (fast-style stylize --help shows "
            "what there is)",
        ),
        (
            ["demo", "--device", "gpu"],
            "argument --device: must be auto, cpu, cuda, cuda:1 (any number) or mps, got 'gpu' "
            "(fast-style demo --help shows what there is)",
        ),
        (["train"], "give a YAML file, such as configs/quickstart.yaml, or see --help"),
    ],
)
def test_mistake_of_usage_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: Output
) -> None:
    assert run(*arguments) == 2
    assert errors(capsys) == [f"error: {message}"]


def test_unknown_command_is_one_line_and_exit_code_2(capsys: Output) -> None:
    assert run("tarin") == 2
    (line,) = errors(capsys)
    assert line.startswith("error: argument COMMAND: invalid choice: 'tarin'")


def test_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def interrupt(*unused: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fast_style.settings.settings.help_text", interrupt)
    assert run("train", "--help-config") == 130
    assert errors(capsys) == ["error: interrupted"]


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
@pytest.mark.parametrize(
    ("arguments", "exit_code"), [(["train", "--help-config"], 1), (["--help"], 0)]
)
def test_closed_stdout_leaves_no_traceback(arguments: list[str], exit_code: int) -> None:
    # What `| head -1` does, at once: nobody reads.
    reading, writing = os.pipe()
    os.close(reading)
    result = run_in_process(*arguments, stdout=writing)
    os.close(writing)
    assert (result.returncode, result.stderr) == (exit_code, "")


def test_module_runs_as_the_command() -> None:
    result = run_in_process("--version")
    assert (result.returncode, result.stdout) == (0, f"fast-style {__version__}\n")


# --- Memory -------------------------------------------------------------------------------------

# A tensor of 80 MB comes and goes; what the process holds, before, with and without it.
TENSOR_COMES_AND_GOES = """
import resource, sys, torch
from pathlib import Path
from fast_style.cli import main as cli
from fast_style.stylizing.stylizer import _give_back_freed_memory
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
if sys.argv[1] == "command":
    assert cli.main(["init", "none.png"]) == 2
before = held()
tensor = torch.ones(20_000_000)
levels = [held()]
del tensor
levels.append(held())
_give_back_freed_memory()
levels.append(held())
print(*(round((level - before) / 80e6) for level in levels))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize(
    ("who", "word", "expected"),
    [("command", "", "1 1 0"), ("command", "system", "1 0 0"), ("library", "", "1 0 0")],
)
def test_commands_keep_freed_memory_until_it_is_wanted(who: str, word: str, expected: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TENSOR_COMES_AND_GOES, who],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FAST_STYLE_MALLOC": word},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == expected


def test_word_that_the_allocator_does_not_know_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("FAST_STYLE_MALLOC", "jemalloc")
    assert run("info", "compact") == 2
    assert errors(capsys) == [
        "error: FAST_STYLE_MALLOC in the environment: must be 'system' (memory is given back at "
        "once) or not set, got 'jemalloc'"
    ]


# --- train --------------------------------------------------------------------------------------


def test_help_config_tells_every_section(capsys: Output) -> None:
    assert run("train", "--help-config") == 0
    text = capsys.readouterr().out
    assert "style.image: (required)" in text
    assert "loss.style_weight: 5.0" in text


def test_printed_config_loads_back_equal(config: Path, capsys: Output) -> None:
    words = ["loss.style_weight=8", "train.steps=300"]
    # Words may stand anywhere among the options.
    arguments = ["train", str(config), words[0], "--print-config", "--device", "cpu", words[1]]
    assert run(*arguments) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    assert load_config(Path("printed.yaml")) == load_config(config, words)


def test_missing_config_is_named_with_a_remedy(here: Path, capsys: Output) -> None:
    assert run("train", "none.yaml") == 2
    assert errors(capsys) == [
        "error: none.yaml: not found; `fast-style init STYLE.jpg > my.yaml` writes a file to start "
        "from"
    ]


def test_train_script_takes_the_same_words(config: Path, capsys: Output) -> None:
    assert cli.train_main([str(config), "--print-config", "seed=7"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 7


def test_check_finds_everything_there(config: Path, capsys: Output) -> None:
    assert run("train", str(config), "--check") == 0
    assert capsys.readouterr().out.splitlines() == [
        "photos: 2 to train on, 2 held out, 0 of them unreadable",
        f"style: {config.parent / 'style.png'}, 38 x 32 as it is used",
        "loss network: vgg19, RANDOM weights, torchvision preprocessing",
        "everything is there",
    ]
    assert not Path("runs").exists()


def test_check_names_an_unreadable_photo(config: Path, capsys: Output) -> None:
    bad = config.parent / "photos" / "bad.jpg"
    bad.write_bytes(b"no picture")
    assert run("train", str(config), "--check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"unreadable: {bad}: not a picture of a known format (JPEG, MPO, PNG, WEBP, BMP, GIF, TIFF)"
    )
    assert lines[1].endswith("1 of them unreadable")
    assert lines[-1] == "everything is there"


def test_check_fails_when_nothing_can_be_read(config: Path, capsys: Output) -> None:
    folder = config.parent / "photos"
    for photo in folder.iterdir():
        photo.write_bytes(b"no picture")
    assert run("train", str(config), "--check") == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines()[4] == (
        "photos: 2 to train on, 2 held out, 4 of them unreadable"
    )
    assert captured.err == (
        f"error: {folder}: too many photos are unreadable; mend the folder, or raise "
        "data.max_unreadable_share\n"
    )


def test_check_names_missing_photos(config: Path, capsys: Output) -> None:
    assert run("train", str(config), "--check", "data.photos=nowhere") == 2
    assert errors(capsys) == [
        f"error: {config.parent / 'nowhere'}: this folder of photos is not there; check data.photos"
    ]


def test_check_names_a_missing_model_to_start_from(config: Path, capsys: Output) -> None:
    assert run("train", str(config), "--check", "train.init_from=none.safetensors") == 2
    assert errors(capsys) == [
        f"error: {config.parent / 'none.safetensors'}: the model of train.init_from is not there; "
        "train it first, or begin from nothing with train.init_from=null and more train.steps"
    ]


def test_check_names_missing_style(config: Path, capsys: Output) -> None:
    assert run("train", str(config), "--check", "style.image=none.png") == 2
    assert capsys.readouterr().err == f"error: {config.parent / 'none.png'}: not found\n"


def test_check_names_missing_weights_with_a_remedy(config: Path, capsys: Output) -> None:
    assert run("train", str(config), "--check", "loss_network.weights=vgg.pth") == 2
    assert capsys.readouterr().err == (
        f"error: {config.parent / 'vgg.pth'}: the loss network's weights are not there; check "
        "loss_network.weights (imagenet, imagenet_features, compact, random, or the path of a "
        ".pth, .safetensors, .mat or .h5 file)\n"
    )


def test_train_refuses_a_missing_device_and_writes_nothing(config: Path, capsys: Output) -> None:
    assert run("train", str(config), "--device", "cuda:99") == 2
    (line,) = errors(capsys)
    assert line.startswith("error: --device cuda:99: is not on this machine; here are: auto, cpu")
    assert not Path("runs").exists()


# --- init and info ------------------------------------------------------------------------------


def test_init_prints_a_file_that_loads(here: Path, capsys: Output) -> None:
    photo_at("Über style.png")
    assert run("init", "Über style.png") == 0
    Path("sub").mkdir()
    Path("sub/my.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    settings = load_config(Path("sub/my.yaml"))
    assert settings.style.image == here / "Über style.png"
    assert settings.name == "Uber-style"


def test_init_refuses_what_is_no_picture(here: Path, capsys: Output) -> None:
    assert run("init", "none.jpg") == 2
    assert errors(capsys) == ["error: none.jpg: not found"]


def test_info_prints_what_a_model_says_of_itself(model: Path, capsys: Output) -> None:
    assert run("info", str(model)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "name: tiny",
        "kind: model, format 1",
        f"style: wave.jpg, sha256 of its pixels {'5' * 64}",
    ]
    assert "license: none" in lines


def test_info_tells_of_the_loss_network_that_comes_with_the_package(capsys: Output) -> None:
    assert run("info", "compact") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name: compact"
    assert any(line.startswith("teacher: vgg19, ") for line in lines)


def test_info_shows_control_characters_as_escapes(here: Path, capsys: Output) -> None:
    write_tiny_model(Path("m.safetensors"), label="\x1b[2Jclean")
    assert run("info", "m.safetensors") == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\\x1b[2Jclean" in text


# --- stylize ------------------------------------------------------------------------------------


def test_result_lies_beside_its_photo_with_the_models_name(model: Path, capsys: Output) -> None:
    photo_at("a.jpg")
    assert run("stylize", "--model", str(model), "a.jpg") == 0
    assert capsys.readouterr() == ("a.tiny.jpg\n", "")
    assert Path("a.tiny.jpg").is_file()


def test_stylize_script_does_the_same(model: Path, capsys: Output) -> None:
    photo_at("a.jpg")
    assert cli.stylize_main(["a.jpg", "-m", str(model), "-o", "b.png"]) == 0
    assert capsys.readouterr() == ("b.png\n", "")


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
    assert capsys.readouterr() == (
        "out/a.png\n1 done, 0 skipped, 1 failed\n",
        "error: b.png: not a picture of a known format (JPEG, MPO, PNG, WEBP, BMP, GIF, TIFF)\n",
    )


def test_existing_result_is_only_replaced_on_request(model: Path, capsys: Output) -> None:
    photo_at("a.png")
    photo_at("b.png", seed=1)
    before = Path("b.png").read_bytes()
    arguments = ["stylize", "-m", str(model), "a.png", "-o", "b.png"]
    assert run(*arguments) == 2
    assert errors(capsys) == [
        "error: b.png: exists already; allow --overwrite, or leave it with --skip-existing"
    ]
    assert run(*arguments, "--skip-existing") == 0
    assert Path("b.png").read_bytes() == before
    assert run(*arguments, "--overwrite") == 0
    assert Path("b.png").read_bytes() != before


def test_options_reach_the_result(model: Path) -> None:
    photo_at("a.png")
    arguments = ["-m", str(model), "a.png", "--max-side", "24", "--format", "jpg", "--suffix"]
    assert run("stylize", *arguments, "-x", "--quality", "10") == 2  # "-x" looks like an option
    assert run("stylize", *arguments, "_x", "--quality", "10") == 0
    assert run("stylize", *arguments, "_y", "--quality", "100") == 0
    with Image.open("a_x.jpg") as result:
        assert result.size == (24, 20)
    assert Path("a_x.jpg").stat().st_size < Path("a_y.jpg").stat().st_size


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
    assert capsys.readouterr().err == (
        "error: a.png: 1,920 pixels, more than the limit of 100; for a photo that you trust, raise "
        "it with --max-pixels 1920\n"
    )
    assert DEFAULT_MAX_PIXELS > 1920
    assert run("stylize", "-m", str(model), "a.png") == 0


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
    assert line.startswith(
        "error: a.png: 600 x 500 pixels are too many for the memory: about 13 MB"
    )
    assert line.endswith("; --max-side 190 fits")
    assert run("stylize", "-m", str(model), "a.png", "--memory", "9M", "--max-side", "190") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_photo_in_bands_that_is_stopped_leaves_nothing_behind(
    model: Path, signal_number: int
) -> None:
    Image.effect_noise((3000, 2000), 64).save("a.png")
    Path("scratch").mkdir()
    # 24 MB for each of photo and result, 18 for a band, 12 between sweeps: on the disk
    command = ["-m", "fast_style", "stylize", "-m", str(model), "a.png", "--memory", "70M"]
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
        "note: this model was trained with RANDOM weights: a try-out\n",
    )


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_name_that_is_no_text_stops_nothing(model: Path) -> None:
    photo_at("a.png")
    os.rename("a.png", b"\xff\xe4.png")
    result = run_in_process("stylize", "-m", str(model), os.fsdecode(b"\xff\xe4.png"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "\\xff\\xe4.tiny.png\n", "")


@pytest.mark.parametrize("suffix", ["a/b", "/"])
def test_suffix_is_no_path(model: Path, capsys: Output, suffix: str) -> None:
    photo_at("a.png")
    assert run("stylize", "-m", str(model), "a.png", "--suffix", suffix) == 2
    assert errors(capsys) == [f"error: --suffix {suffix!r}: must not contain a path separator"]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("none.safetensors", None, "not found; give a model.safetensors of a training run"),
        ("folder", None, "is not a file; give a model.safetensors"),
        (
            "model.pth",
            b"PK\x03\x04 and so on",
            "is not a fast-style model (it looks like a .pth of another project)",
        ),
        ("page.safetensors", b"<!DOCTYPE html>", "is not a fast-style model (it is a web page)"),
        ("empty.safetensors", b"", "is not a fast-style model (it is empty)"),
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
    assert errors(capsys) == [f"error: {name}: {problem}"]


def test_damaged_model_is_one_line(model: Path, capsys: Output) -> None:
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    Path("m.safetensors").write_bytes(data)
    assert run("info", "m.safetensors") == 2
    assert errors(capsys) == [
        "error: m.safetensors: is damaged: its contents do not match the digest it was written "
        "with; use another copy"
    ]


def test_missing_photo_and_unusable_output_are_one_line(model: Path, capsys: Output) -> None:
    photo_at("a.png")
    Path("file").touch()
    assert run("stylize", "-m", str(model), "none.jpg") == 2
    assert errors(capsys) == ["error: none.jpg: not found"]
    assert run("stylize", "-m", str(model), "a.png", "-o", "file/out") == 2
    assert errors(capsys) == ["error: file: is a file, where a folder for results is needed"]


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_under_what_was_asked_for_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        ended = run_in_process("train", "--help-config", stdout=full.fileno())
    assert ended.stderr == "error: the output cannot be written (the disk is full)\n"
    assert ended.returncode == 1


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_signal_that_was_ignored_before_stays_ignored() -> None:
    # nohup ignores SIGHUP for the command that it starts, so that training outlives a logout.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop_signal:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop_signal() is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop_signal() == signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
