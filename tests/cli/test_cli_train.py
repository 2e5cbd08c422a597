"""``train``: one style, several styles one after the other, and ``--check``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Output, errors, photo_at, run
from PIL import Image
from small_evaluation import write_narrow_vgg16
from small_run import SETTINGS, draw_photo, train_once, write_small_run

from fast_style.cli import train as train_module
from fast_style.cli.main import train_main
from fast_style.pictures.reading import read_photo
from fast_style.pictures.writing import write_picture
from fast_style.settings.config import load_config
from fast_style.training import build as runs_module
from fast_style.training.run_folder import Run

QUICK = ["train.steps=2", "train.warmup_steps=0", "log.samples=1", "--device", "cpu"]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a small run's YAML file of a name into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs_module, "SMALLEST_SAMPLE", 32)
    write_small_run(tmp_path)

    def write_yaml(name: str, **sections: dict[str, Any]) -> str:
        settings = {**SETTINGS, "name": name}
        for section, changes in sections.items():
            settings[section] = {**settings[section], **changes}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        return f"{name}.yaml"

    return write_yaml


@pytest.mark.slow
def test_several_files_are_trained_in_turn_and_then_skipped(
    write: Callable[..., str], tmp_path: Path, capsys: Output
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


@pytest.mark.slow
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
    write: Callable[..., str], tmp_path: Path, capsys: Output
) -> None:
    good = write("good")
    bad = write("bad", train={"steps": 0})
    worse = write("worse", train={"batch_size": "many"})
    assert train_main([good, bad, worse, "log.evry=2"]) == 2
    # The word is wrong for every file, but reported once.
    word, second, third = capsys.readouterr().err.splitlines()
    assert "'log.evry=2' on the command line" in word
    assert "'log.every'" in word
    assert second.startswith("error: bad.yaml:30: train.steps: ")
    assert third.startswith("error: worse.yaml:29: train.batch_size: ")
    assert not (tmp_path / "runs").exists()


def test_runs_need_folders_of_their_own(
    write: Callable[..., str], tmp_path: Path, capsys: Output
) -> None:
    first, second = write("first"), write("second")
    assert train_main([first, second, "name=both"]) == 2
    assert capsys.readouterr().err == (
        "error: name= on the command line would give 2 runs the same folder; set a name in each "
        "file\n"
    )
    Path("again.yaml").write_text(Path(first).read_text())
    assert train_main([first, second, "again.yaml"]) == 2
    assert capsys.readouterr().err == (
        "error: again.yaml: name: first is also the name in first.yaml; give each run its own, "
        "because it names the run's folder\n"
    )
    assert not (tmp_path / "runs").exists()


def test_run_that_fails_does_not_stop_those_behind_it(
    write: Callable[..., str], tmp_path: Path, capsys: Output
) -> None:
    broken = write("broken", style={"image": "nowhere.png"})
    assert train_main([broken, write("fine"), *QUICK]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {tmp_path}/nowhere.png: ")
    assert "finished: runs/fine/model.safetensors\n" in said.out
    assert said.out.endswith("failed: broken; the other runs are done\n")
    assert not (tmp_path / "runs" / "broken").exists()


def test_signal_stops_those_behind_it_too(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def stop(config: Any, *unused: object, **also_unused: object) -> int:
        begun.append(config.name)
        return 143

    monkeypatch.setattr(train_module, "start_or_resume", stop)
    assert train_main([write("first"), write("second"), "--device", "cpu"]) == 143
    assert begun == ["first"]


def test_check_names_the_style_that_differs_in_case_alone(config: Path, capsys: Output) -> None:
    assert run("train", str(config), "--check", "style.image=Starry_Night") == 2
    assert capsys.readouterr().err.endswith("not found; did you mean 'starry_night'?\n")


@pytest.mark.parametrize(
    ("words", "key", "remedy"),
    [
        (["train.precision=fp16", "--device", "cpu"], "train.precision", "bf16"),
        (["--device", "cuda:99"], "--device cuda:99", "cpu"),
    ],
)
def test_check_says_what_the_training_would_say_of_device_and_precision(
    config: Path, capsys: Output, words: list[str], key: str, remedy: str
) -> None:
    told = []
    for check in (["--check"], []):
        assert run("train", str(config), *words, *check) == 2
        told.append(capsys.readouterr().err)
    assert told[0] == told[1]
    assert told[0].startswith(f"error: {key}: ")
    assert remedy in told[0]


def test_check_looks_at_every_file(write: Callable[..., str], capsys: Output) -> None:
    broken = write("broken", style={"image": "nowhere.png"})
    assert train_main([write("fine"), broken, "--check"]) == 1
    said = capsys.readouterr()
    assert said.out.count("all inputs can be used") == 1
    assert "nowhere.png: " in said.err


def test_all_settings_are_printed_as_one_yaml_stream(
    write: Callable[..., str], capsys: Output
) -> None:
    assert train_main([write("first"), write("second"), "--print-config"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [document["name"] for document in documents] == ["first", "second"]


def test_setting_without_a_value_is_not_taken_for_a_file(
    write: Callable[..., str], capsys: Output
) -> None:
    assert train_main([write("first"), "train.steps"]) == 2
    (line,) = errors(capsys)
    assert "'train.steps' on the command line" in line
    assert "key=value" in line


def test_missing_folder_is_told_by_the_first_process_of_a_machine_alone(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    arguments = [write("one", data={"photos": "nowhere"}), "train.batch_size=2"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    told = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert train_main(arguments) == 2
        told.append("nowhere" in capsys.readouterr().err)
    assert told == [True, False]


# --- A single run, and --check --------------------------------------------------------------------


def test_missing_config_is_named_with_a_remedy(here: Path, capsys: Output) -> None:
    assert run("train", "none.yaml") == 2
    (line,) = errors(capsys)
    assert "none.yaml: not found" in line
    assert "fast-style init STYLE.jpg --output my.yaml" in line


def test_check_finds_everything_there(config: Path, capsys: Output) -> None:
    assert run("train", str(config), "--check") == 0
    assert capsys.readouterr().out.splitlines() == [
        "photos: 2 to train on, 2 held out, 0 of them unreadable",
        f"style: {config.parent / 'style.png'}, resized to 38 x 32 pixels",
        "loss network: vgg16, RANDOM weights, torchvision preprocessing",
        "all inputs can be used",
    ]
    assert not Path("runs").exists()


def test_check_counts_photos_that_are_enlarged(config: Path, capsys: Output) -> None:
    # All photos have 48 x 40 pixels.
    for key in ("data.crop_size", "data.grown_crop_size"):
        assert run("train", str(config), "--check", f"{key}=41") == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "enlarged" in line]
        assert line.startswith("smaller than a crop: 4 of 4 photos, ")
        assert f"{key} is 41 pixels, and the smallest has 40: set {key}=40" in line
        assert run("train", str(config), "--check", f"{key}=40") == 0
        assert "enlarged" not in capsys.readouterr().out


def test_check_names_an_unreadable_photo(config: Path, capsys: Output) -> None:
    bad = config.parent / "photos" / "bad.jpg"
    bad.write_bytes(b"no picture")
    assert run("train", str(config), "--check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"unreadable: {bad}: not a picture")
    assert lines[1].endswith("1 of them unreadable")
    assert lines[-1] == "all inputs can be used"


def test_check_says_what_it_leaves_out(config: Path, capsys: Output) -> None:
    photos = config.parent / "photos"
    photo_at(str(photos / "0.wave.png"))
    (photos / "a.heic").touch()
    write_picture(photos / "made.jpg", read_photo(photos / "1.png"))
    assert run("train", str(config), "--check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"{photos}: 1 file left out: .heic (1); convert .heic with heif-convert (package "
        "libheif-examples; on macOS: sips -s format jpeg); 1 result of fast-style left out: "
        "0.wave.png (data.include_results=true takes them in)",
        f"left out: {photos}/made.jpg: a result of fast-style, not a photo",
        "photos: 3 to train on, 2 held out, 0 of them unreadable, 1 of them results of fast-style "
        "(data.include_results=true takes them in)",
    ]
    assert run("train", str(config), "--check", "data.include_results=true") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "photos: 3 to train on, 3 held out, 0 of them unreadable"


def test_check_of_a_run_that_began_by_the_first_rules_counts_by_them(
    write: Callable[..., str], tmp_path: Path, capsys: Output
) -> None:
    made = tmp_path / "photos" / "photo-00.wave.png"
    photo_at(str(made))
    with pytest.MonkeyPatch.context() as patch:  # as earlier versions were
        patch.setattr(Run, "photo_rules", 1)
        train_once(load_config(write("first")), tmp_path / "runs", stop_at=1)
    made_again = made.with_name("photo-01.wave.png")
    photo_at(str(made_again))
    capsys.readouterr()
    assert run("train", "first.yaml", "--check") == 0
    begun = capsys.readouterr().out
    assert run("train", "first.yaml", "--check", "--resume", "never") == 0
    new = capsys.readouterr().out
    assert "left out" not in begun
    assert "2 results of fast-style left out" in new


def test_check_counts_photos_whose_color_profile_cannot_be_applied(
    config: Path, capsys: Output
) -> None:
    for name in ("x.jpg", "y.jpg"):
        Image.open(photo_at("photos/0.png")).save(f"photos/{name}", icc_profile=b"garbage")
    assert run("train", str(config), "--check", "--device", "cpu") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "profile" in line]
    (line,) = lines
    assert line.startswith("the color profile of 2 files ")
    assert "photos/x.jpg, " in line


@pytest.mark.parametrize("words", [["--check"], ["train.steps=1"]], ids=["check", "training"])
def test_photos_of_several_pictures_are_told(
    config: Path, capsys: Output, words: list[str]
) -> None:
    frames = [Image.open(path) for path in sorted((config.parent / "photos").iterdir())]
    for name in ("a.gif", "b.tif"):
        path = config.parent / "photos" / name
        frames[0].save(path, save_all=True, append_images=frames[1:])
    assert run("train", str(config), *words) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "pictures" in line)
    assert line.startswith("of 2 files with several pictures, one of each is taken: ")
    assert "a.gif (4 pictures), " in line


def test_check_fails_when_nothing_can_be_read(config: Path, capsys: Output) -> None:
    folder = config.parent / "photos"
    for photo in folder.iterdir():
        photo.write_bytes(b"no picture")
    assert run("train", str(config), "--check") == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines()[4] == (
        "photos: 2 to train on, 2 held out, 4 of them unreadable"
    )
    assert captured.err.startswith(f"error: {folder}: ")
    assert "data.max_unreadable_share" in captured.err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.photos=res", "{here}/res: none of 2 photos tried can be used, the first one: "),
        ("data.validation_photos=res", "none of the 4 validation photos can be used, the first "),
    ],
)
def test_check_of_nothing_but_results_says_what_the_training_says(
    config: Path, capsys: Output, setting: str, message: str
) -> None:
    results = config.parent / "res"
    results.mkdir()
    for number in range(4):
        write_picture(results / f"{number}.png", draw_photo(number))
    assert run("train", str(config), "--check", setting) == 2
    (checked,) = capsys.readouterr().err.splitlines()
    assert checked.startswith(f"error: {message.format(here=config.parent)}")
    assert f"{results}/" in checked
    assert checked.endswith("take results in with data.include_results=true")
    assert run("train", str(config), *QUICK, setting) == 2
    assert capsys.readouterr().err.splitlines() == [checked]
    assert run("train", str(config), "--check", setting, "data.include_results=true") == 0


def test_check_counts_validation_photos_apart(config: Path, capsys: Output) -> None:
    for number in range(20):
        Path("held_out").mkdir(exist_ok=True)
        Path(f"held_out/{number}.png").write_bytes(b"")
    check = ("train", str(config), "--check", "data.validation_photos=held_out")
    assert run(*check) == 2
    said, error = capsys.readouterr()
    assert "photos: 4 to train on, 16 held out, 16 of them unreadable\n" in said
    assert error.startswith("error: none of the 16 validation photos can be read, the first one: ")
    assert "max_unreadable_share" not in error
    # One that can be used suffices, as for the training.
    assert run(*check, "data.validation_count=20") == 2
    photo_at("held_out/good.png")
    assert run(*check, "data.validation_count=21") == 0


@pytest.mark.parametrize(
    ("key", "name", "remedy"),
    [
        ("data.photos", "nowhere", "data.photos"),
        ("style.image", "none.png", "check style.image"),
        ("train.init_from", "none.safetensors", "train.init_from=null"),
        ("loss_network.weights", "vgg.pth", "loss_network.weights"),
    ],
)
def test_check_names_what_is_missing(
    config: Path, capsys: Output, key: str, name: str, remedy: str
) -> None:
    assert run("train", str(config), "--check", f"{key}={name}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {config.parent / name}: ")
    assert remedy in line


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "not found"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "git lfs pull"),
        (b"no weights", "damaged, or of another format"),
    ],
)
def test_check_reads_the_weights_of_the_judge(
    config: Path, capsys: Output, content: bytes | None, reason: str
) -> None:
    if content is not None:
        Path("vgg.pth").write_bytes(content)
    assert run("train", str(config), "--check", "log.judge_weights=vgg.pth") == 2
    said, error = capsys.readouterr()
    assert "all inputs can be used" not in said
    assert error.startswith(f"error: {config.parent / 'vgg.pth'}: ")
    assert reason in error
    assert "log.judge_weights" in error


def test_check_names_the_weights_of_the_judge_that_can_be_used(
    config: Path, capsys: Output
) -> None:
    weights = write_narrow_vgg16(config.parent)
    assert run("train", str(config), "--check", f"log.judge_weights={weights}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"judge: {weights}", "all inputs can be used"]


@pytest.mark.parametrize("setting", ["log.judge_weights=vgg.pth", "data.validation_photos=res"])
def test_training_that_cannot_begin_leaves_nothing_behind(
    write: Callable[..., str], capsys: Output, setting: str
) -> None:
    Path("vgg.pth").write_bytes(b"no weights")
    Path("res").mkdir()
    write_picture(Path("res/made.png"), draw_photo(1))
    before = sorted(Path().rglob("*"))
    command = ["train", write("first"), *QUICK, "data.cache=disk", setting]
    assert run(*command) == 2
    assert sorted(path for path in Path().rglob("*") if path.name != "first.yaml") == before
    # A folder that was there stays.
    Path("runs").mkdir()
    assert run(*command) == 2
    assert list(Path("runs").iterdir()) == []


def test_train_refuses_a_missing_device_and_writes_nothing(config: Path, capsys: Output) -> None:
    assert run("train", str(config), "--device", "cuda:99") == 2
    (line,) = errors(capsys)
    assert "--device cuda:99" in line
    assert "auto, cpu" in line
    assert not Path("runs").exists()
