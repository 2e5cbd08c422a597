"""Claims about `reading`: files, words of the command line, and paths."""

import os
from pathlib import Path

import pytest
from settings_files import (
    DISTILL_LEAST,
    GATYS_LEAST,
    LEAST,
    LETTER,
    Letter,
    Pen,
    complaint,
    read,
    write,
)

from fast_style.core.errors import UserError
from fast_style.core.paths import usable_path
from fast_style.settings.config import (
    Config,
    DistillConfig,
    TrainConfig,
    TrainingLossConfig,
    load_config,
    parse_config,
)
from fast_style.settings.gatys_config import GatysConfig
from fast_style.settings.reading import checked, load, parse, require_consistent
from fast_style.settings.structure import Section
from fast_style.styles import shipped


def test_a_root_is_read_from_a_file_with_words_over_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, f"{LETTER}paper: lined\npen: {{color: red}}\n")
    assert load(Letter, path) == Letter(text="hello", paper="lined", pen=Pen(color="red"))
    letter = load(Letter, path, ["text=1: #2", "paper=a.jpg", "pen.width=2"])
    assert letter.text == "1: #2"
    assert letter.paper == str(tmp_path / "a.jpg")
    assert letter.pen == Pen(color="red", width=2.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("pen: {color: Red}", "FILE:2: pen.color: must be small letters, got 'Red'"),
        ("pen: {colour: red}", "FILE:2: pen.colour: unknown key; did you mean 'pen.color'?"),
        ("pen:\n  width: 0", "FILE:3: pen.width: must be above 0, got 0"),
        ("paper: lined\npen: {width: 3}",
         "FILE:3: pen.width: must be at most 1 on lined paper, got 3.0"),
        ("copies: 0", "FILE:2: copies: must be at least 1, got 0"),
        ("pen: {<<: {width: 1}}",
         "FILE:2: pen.<<: unknown key; sections are not merged here: write their keys out"),
        ("num_copies: 2", "FILE:2: num_copies: unknown key; did you mean 'copies'?"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_of_any_root_is_told(tmp_path, lines, message):
    assert complaint(Letter, tmp_path, f"{LETTER}{lines}\n") == message


def test_a_field_is_known_by_its_alias_in_files_and_words(tmp_path):
    assert read(Letter, tmp_path, f"{LETTER}copies: 2\n").num_copies == 2
    assert read(Letter, tmp_path, LETTER, "copies=3").num_copies == 3
    assert parse(Letter, {"text": "hello", "copies": 4}, "x").num_copies == 4


def test_an_empty_section_means_its_defaults(tmp_path):
    least = read(Config, tmp_path, LEAST)
    assert read(Config, tmp_path, f"{LEAST}train:\n#  steps: 3\nlog: ~\n") == least


def test_missing_keys_are_told_with_their_meaning(tmp_path):
    assert complaint(Config, tmp_path, "seed: 3\nstyle: {size: 64}\n") == (
        "FILE: data.photos: missing; give a folder of photos, flat or nested\n"
        "FILE: name: missing; give the run's name\n"
        "FILE:2: style.image: missing; give the style picture"
    )


def test_all_mistakes_of_fields_are_told_at_once_in_the_order_of_the_file(tmp_path):
    text = """\
train:
  steps: -1
  warmup_steps: many
name: a
styel: {}
loss: {content_weight: 0, style_weight: 0, tv_weight: 0}
style:
  image: http://x/y
  size: 1
data: {photos: 3}
"""
    assert complaint(Config, tmp_path, text, "log.every=0", "seed=x") == (
        "FILE:2: train.steps: must be at least 1, got -1\n"
        "FILE:3: train.warmup_steps: must be an integer, got 'many'\n"
        "FILE:5: styel: unknown key; did you mean 'style'?\n"
        "FILE:8: style.image: 'http://x/y' is a URL; download it first (data/README.md has the "
        "commands) and give the path of the file\n"
        "FILE:9: style.size: must be at least 16, got 1\n"
        "FILE:10: data.photos: must be a path (put quotes around it), got 3\n"
        "'log.every=0' on the command line: log.every: must be at least 1, got 0\n"
        "'seed=x' on the command line: seed: must be an integer, got 'x'"
    )


def test_mistakes_between_settings_are_told_together_when_the_fields_are_right(tmp_path):
    weights = "{content_weight: 0, style_weight: 0, tv_weight: 0}"
    text = f"{LEAST}train: {{steps: 5, warmup_steps: 5}}\nloss: {weights}"
    first, second = complaint(Config, tmp_path, text).splitlines()
    assert first.startswith("FILE:4: train.warmup_steps: ")
    assert second.startswith("FILE:5: loss.content_weight: ")


def test_a_missing_file_is_told_with_the_way_to_make_one(tmp_path):
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "none.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/none.yaml: not found; `fast-style init STYLE.jpg --output my.yaml` writes a "
        "file to start from"
    )


def test_words_of_the_command_line_lie_over_the_file_the_last_one_on_top(tmp_path):
    config = read(
        Config,
        tmp_path,
        f"{LEAST}train: {{steps: 300}}\nlog:\n",
        "train.steps=1000",
        "train.learning_rate=1e-4",
        "data.crop_scale=[0.2, 0.3]",
        "log.every=7",
        "train.steps=2000",
        "loss.style_layers={relu1_1: 2}",
        "loss.content_layers.relu2_2=3",
    )
    assert config.train.steps == 2000
    assert config.train.learning_rate == 1e-4
    assert config.data.crop_scale == (0.2, 0.3)
    assert config.log.every == 7
    assert config.loss.style_layers == {"relu1_1": 2.0}
    assert config.loss.content_layers == {"relu2_2": 3.0}


@pytest.mark.parametrize("name", ["relu2_2", "block2_conv2"])
def test_word_replaces_a_layer_of_the_file_under_either_of_its_names(tmp_path, name):
    text = f"{LEAST}loss: {{content_layers: {{relu2_2: 1, block3_conv3: 1}}}}\n"
    words = [f"loss.content_layers.{name}=3", "loss.content_layers.relu3_3=2"]
    config = read(Config, tmp_path, text, *words)
    assert config.loss.content_layers == {"relu2_2": 3.0, "relu3_3": 2.0}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("loss.content_layers.relu2_2=1", "loss.content_layers.block2_conv2=2"),
        ("loss.content_layers.block2_conv2=1", "loss.content_layers.relu2_2=2"),
        ("loss.content_layers={relu2_2: 1}", "loss.content_layers.block2_conv2=2"),
    ],
)
@pytest.mark.parametrize(("root", "text"), [(Config, LEAST), (GatysConfig, GATYS_LEAST)])
def test_two_words_for_one_layer_under_its_two_names_are_refused(
    tmp_path, root, text, first, second
):
    with pytest.raises(UserError) as caught:
        read(root, tmp_path, text, first, second)
    message = str(caught.value)
    assert message.startswith(f"{second!r} on the command line: ")
    for part in ("relu2_2", "block2_conv2", repr(first), "leave one out"):
        assert part in message


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("train.steps", "settings are given as key=value, for example train.steps=2000"),
        ("=3", "settings are given as key=value, for example train.steps=2000"),
        ("--steps=3", "settings are given as key=value, for example train.steps=2000"),
        (".".join("a" * 5000) + "=3",
         "settings are given as key=value, for example train.steps=2000"),
        ("name.x=3", "name is a value, not a section"),
        ("seed=!foo 3", "tags are not allowed, got '!foo'"),
        ("seed=[", "not valid YAML: expected the node content, but found '<stream end>'"),
        ("train.stesp=3", "train.stesp: unknown key; did you mean 'train.steps'?"),
        ("steps=3", "steps: unknown key; did you mean 'train.steps'?"),
        ("train.steps=-3", "train.steps: must be at least 1, got -3"),
        ("train.steps=", "train.steps: must be an integer, got nothing"),
        ("train.steps.x=3", "train.steps: must be an integer, got {'x': 3}"),
        ("train=3", "train is a section; set its keys one by one, as train.steps=..."),
        ("train=", "train is a section; set its keys one by one, as train.steps=..."),
        ("train={}", "train is a section; set its keys one by one, as train.steps=..."),
        ("style={size: 64}", "style is a section; set its keys one by one, as style.image=..."),
        ("train.warmup_steps=50000",
         "train.warmup_steps: must be below train.steps (40000), got 50000"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_names_the_word(tmp_path, word, rule):
    shown = repr(word) if len(repr(word)) <= 100 else repr(word)[:97] + "..."
    text = f"{LEAST}model:\n  width: 8\n"
    assert complaint(Config, tmp_path, text, word) == f"{shown} on the command line: {rule}"


def test_one_text_in_place_of_a_list_of_words_is_told(tmp_path):
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, LEAST), "name=x")
    message = str(caught.value)
    assert message.startswith("'name=x': a list of key=value words is needed")
    assert message.endswith("give ['name=x']")


def test_words_may_come_from_an_iterator(tmp_path):
    words = iter(["name=x", "train.steps=7"])
    assert load_config(write(tmp_path, LEAST), words).train.steps == 7
    with pytest.raises(UserError, match="nope"):
        load_config(write(tmp_path, LEAST), map(str, ["train.nope=1"]))
    for wrong in (None, b"seed=3", {"seed": 3}, {"seed=3"}):
        with pytest.raises(TypeError, match=f"^overrides must be a list.*{type(wrong).__name__}$"):
            load_config(write(tmp_path, LEAST), wrong)


def test_paths_are_taken_from_the_file_s_folder_or_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/someone")
    text = """\
name: a
style: {image: ../styles/s.jpg}
data: {photos: /data/p, validation_photos: ~/v}
loss_network: {weights: w.pth}
"""
    write(tmp_path / "configs", text)
    path = Path("../configs/x.yaml")
    config = load_config(path)
    configs = tmp_path / "here" / ".." / "configs"
    assert config.style.image == configs / "../styles/s.jpg"
    assert config.data.photos == Path("/data/p")
    assert config.data.validation_photos == Path("/home/someone/v")
    assert config.loss_network.weights == str(configs / "w.pth")

    here = tmp_path / "here"
    words = [
        "style.image=s.jpg",
        "data.photos=a #1: [x].d",
        "data.validation_photos=~/w",
        "train.init_from='m: 1'",
        "loss_network.weights=w.pth",
    ]
    config = load_config(path, words)
    assert config.style.image == here / "s.jpg"
    assert config.data.photos == here / "a #1: [x].d"
    assert config.data.validation_photos == Path("/home/someone/w")
    assert config.train.init_from == str(here / "m: 1")
    assert config.loss_network.weights == str(here / "w.pth")
    words = ["data.validation_photos=null", "loss_network.weights=random"]
    config = load_config(path, words)
    assert config.data.validation_photos is None
    assert config.loss_network.weights == "random"


def test_a_name_on_the_command_line_needs_no_quotes(tmp_path):
    assert read(Config, tmp_path, LEAST, "name=010").name == "010"


def test_plain_data_with_mistakes_names_the_place_that_was_given():
    with pytest.raises(UserError) as caught:
        parse_config({"name": "a", "style": {"image": "s", "size": 1}, "data": 3, "x": 1}, "m.st")
    assert str(caught.value) == (
        "m.st: data: must be a section of key: value lines, got 3\n"
        "m.st: style.size: must be at least 16, got 1\n"
        "m.st: x: unknown key; valid keys here: name, seed, style, data, model, loss_network, "
        "loss, train, log"
    )
    for data in (None, [1], "text", 3):
        with pytest.raises(UserError, match=r"^m\.st: settings: must be a section of key"):
            parse_config(data, "m.st")


def test_rules_between_settings_are_checked_in_plain_data_where_they_matter():
    letter = parse(Letter, {"text": "hello", "paper": "lined", "pen": {"width": 3}}, "m.st")
    assert letter.pen.width == 3
    with pytest.raises(UserError) as caught:
        require_consistent(letter, "m.st")
    assert str(caught.value) == "m.st: pen.width: must be at most 1 on lined paper, got 3.0"
    require_consistent(Letter(text="hello"), "m.st")


def test_parsing_leaves_the_given_data_alone():
    data = {"name": "a", "style": {"image": "s"}, "data": {"photos": "p"}, "log": None}
    parse_config(data, "x")
    assert data == {"name": "a", "style": {"image": "s"}, "data": {"photos": "p"}, "log": None}


@pytest.mark.parametrize(
    ("root", "text"),
    [(Config, LEAST), (GatysConfig, GATYS_LEAST), (DistillConfig, DISTILL_LEAST)],
)
def test_the_example_of_each_kind_of_file_is_a_setting_of_it(tmp_path, root, text):
    assert complaint(root, tmp_path, text, "photo.jpg").endswith(f"for example {root.example}")
    assert read(root, tmp_path, text, root.example) != read(root, tmp_path, text)


def test_style_picture_may_be_the_name_of_a_style_that_ships_it(tmp_path, monkeypatch):
    ships = tmp_path / "ships"
    ships.mkdir()
    for name in ("wave.safetensors", "wave.jpg", "ink.safetensors"):
        (ships / name).touch()
    monkeypatch.setattr(shipped, "FOLDER", ships)
    monkeypatch.chdir(tmp_path)
    least = LEAST.replace("s.jpg", "wave")
    assert read(Config, tmp_path, least).style.image == ships / "wave.jpg"
    assert read(Config, tmp_path, LEAST, "style.image=wave").style.image == ships / "wave.jpg"
    blended = read(GatysConfig, tmp_path, GATYS_LEAST, "style.blend=[{image: wave, weight: 1}]")
    assert blended.style.blend[0].image == ships / "wave.jpg"
    # One without a picture, and any other setting that is a path, are paths as ever.
    assert read(Config, tmp_path, LEAST, "style.image=ink").style.image == tmp_path / "ink"
    assert read(Config, tmp_path, LEAST, "data.photos=wave").data.photos == tmp_path / "wave"
    (tmp_path / "wave").touch()
    assert read(Config, tmp_path, least).style.image == tmp_path / "wave"


# --- Variables in paths ---------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["$DATA/photos", "${DATA}/photos", "'$DATA/photos'"])
def test_a_variable_in_a_path_is_replaced_by_its_value(tmp_path, monkeypatch, written):
    monkeypatch.setenv("DATA", "/mnt/data")
    text = LEAST.replace("data: {photos: p}", f"data:\n  photos: {written}")
    assert text != LEAST
    assert read(Config, tmp_path, text).data.photos == Path("/mnt/data/photos")
    words = ["data.photos=${DATA}/p", "loss_network.weights=$DATA/vgg.pth"]
    config = read(Config, tmp_path, LEAST, *words)
    assert config.data.photos == Path("/mnt/data/p")
    assert config.loss_network.weights == "/mnt/data/vgg.pth"
    monkeypatch.setenv("DATA", "relative")
    assert read(Config, tmp_path, text).data.photos == tmp_path / "relative" / "photos"


def test_a_variable_as_windows_writes_it_is_replaced_if_it_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", "/mnt/data")
    monkeypatch.delenv("NO_DATA", raising=False)
    config = read(Config, tmp_path, LEAST, "data.photos=%DATA%/p")
    assert config.data.photos == Path("/mnt/data/p")
    monkeypatch.setenv("SIZE", "512")
    for text, expected in (
        ("50%-%DATA%", "50%-/mnt/data"),
        ("%DATA%%SIZE%", "/mnt/data512"),
        ("100%_${SIZE}_50%", "100%_512_50%"),
        ("%$SIZE%", "%512%"),
    ):
        config = read(Config, tmp_path, LEAST, f"data.photos={text}")
        assert config.data.photos == Path.cwd() / expected
    for text in ("%NO_DATA%", "50%-60%", "a%/b%", "%%"):
        assert read(Config, tmp_path, LEAST, f"data.photos={text}").data.photos == Path.cwd() / text


def test_a_variable_as_powershell_writes_it_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", "/mnt/data")
    for written in ("$env:DATA/p", "$Env:DATA/p"):
        assert read(Config, tmp_path, LEAST, f"data.photos={written}").data.photos == Path(
            "/mnt/data/p"
        )


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("%NO_DATA%/p", ["variable NO_DATA", "set it"]),
        ("$env:NO_DATA/p", ["variable NO_DATA", "set it"]),
        ("\u202aphotos", ["U+202A", "remove"]),
        ("photos\r", ["U+000D", "remove"]),
        ("\u00a0photos", ["U+00A0", "remove"]),
        ("“photos”", ["“", "no straight quote", "none"]),
        ("«photos»", ["«", "no straight quote", "none"]),
        pytest.param(
            ".\\photos",
            ["'./photos'", "write it with /"],
            marks=pytest.mark.skipif(os.sep != "/", reason="the path is right there"),
        ),
    ],
)
def test_a_path_that_pasting_has_changed_is_told_with_its_remedy(
    tmp_path, monkeypatch, written, parts
):
    monkeypatch.delenv("NO_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    path = write(tmp_path, LEAST)
    with pytest.raises(UserError) as caught:
        load(Config, path, [f"data.photos={written}"])
    for part in ["data.photos", *parts]:
        assert part in str(caught.value)


def test_a_percent_sign_that_yaml_does_not_accept_is_answered_with_quotes(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", "/mnt/data")
    text = LEAST.replace("data: {photos: p}", "data:\n  photos: %DATA%/p")
    told = complaint(Config, tmp_path, text)
    for part in (":4: ", "'%'", "single quotes"):
        assert part in told
    quoted = text.replace("%DATA%/p", "'%DATA%/p'")
    assert read(Config, tmp_path, quoted)


def test_a_variable_that_is_not_set_is_named_with_the_key(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_DATA", raising=False)
    words = [
        "data.photos=$NO_DATA/p",
        "loss_network.weights=${NO_DATA}/v.pth",
        "train.init_from=$NO_DATA",
    ]
    lines = complaint(Config, tmp_path, LEAST, *words).splitlines()
    assert len(lines) == 3
    for word in words:
        key, _, path = word.partition("=")
        assert (
            f"{word!r} on the command line: {key}: {path!r}: the environment has no variable "
            "NO_DATA; set it, or write the whole path"
        ) in lines


def test_a_file_whose_name_has_a_dollar_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("b", "other")
    (tmp_path / "a$b").mkdir()
    text = LEAST.replace("data: {photos: p}", "data: {photos: a$b}")
    assert read(Config, tmp_path, text).data.photos == tmp_path / "a$b"
    (tmp_path / "a$b").rmdir()
    assert read(Config, tmp_path, text).data.photos == tmp_path / "aother"


def test_a_file_may_have_letters_that_the_locale_lacks(monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    monkeypatch.setattr(os, "fsdecode", lambda name: name.decode("ascii", "surrogateescape"))
    path = usable_path("Café 日本.png")
    assert str(path).encode("ascii", "surrogateescape").decode() == "Café 日本.png"


# --- Settings made in Python ----------------------------------------------------------------------


def set_keys(section):
    """The names that were set, also in inner sections."""
    inner = {name: getattr(section, name) for name in type(section).model_fields}
    return section.model_fields_set, {
        name: set_keys(value) for name, value in inner.items() if isinstance(value, Section)
    }


@pytest.mark.parametrize(
    ("root", "text"), [(Config, LEAST), (DistillConfig, DISTILL_LEAST), (GatysConfig, GATYS_LEAST)]
)
def test_checked_settings_are_the_same_as_before(tmp_path, root, text):
    words = {
        Config: ["loss.style_layers={relu1_1: 2}", "data.crop_scale=[0.2, 0.3]", "train.steps=50"],
        DistillConfig: ["train.photos=3", "student.widths=[8, 16]"],
        GatysConfig: ["optimize.size=[64, 48]"],
    }
    config = read(root, tmp_path, text, *words[root])
    assert checked(config) == config
    assert set_keys(checked(config)) == set_keys(config)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"name": "../evil"}, "config: name: must be letters"),
        ({"seed": -5}, "config: seed: must be at least 0, got -5"),
        ({"train": {"steps": -5}}, "config: train.steps: must be at least 1, got -5"),
        ({"train": 3}, "config: train: must be a section"),
        (
            {"train": TrainConfig(steps=5, warmup_steps=5)},
            "config: train.warmup_steps: ",
        ),
        (
            {"train": TrainConfig().model_copy(update={"steps": "many"})},
            "config: train.steps: must be an integer, got 'many'",
        ),
        (
            {"loss": TrainingLossConfig().model_copy(update={"style_layers": 3})},
            "config: loss.style_layers: must be a section",
        ),
    ],
)
def test_copies_with_wrong_values_are_refused(tmp_path, update, message):
    config = read(Config, tmp_path, LEAST)
    with pytest.raises(UserError) as caught:
        checked(config.model_copy(update=update))
    assert str(caught.value).startswith(message)


def test_copies_with_plain_sections_are_made_whole(tmp_path):
    config = read(Config, tmp_path, LEAST).model_copy(update={"train": {"steps": 50}})
    assert checked(config).train == read(Config, tmp_path, LEAST, "train.steps=50").train


def test_arguments_of_wrong_types_are_named(tmp_path):
    with pytest.raises(TypeError, match=r"^path must .*got NoneType$"):
        load_config(None)
    with pytest.raises(TypeError, match=r"^overrides must be key=value words, got 5$"):
        load_config(write(tmp_path, LEAST), ["name=x", 5])
    with pytest.raises(TypeError, match=r"^config must .*load_config.*got dict$"):
        checked({"name": "x"})
