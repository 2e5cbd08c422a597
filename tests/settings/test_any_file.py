"""Whatever a file or a word says: settings, or a `UserError` that names the place."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import mutated_yaml
from settings_files import ALL_DEFAULTS, ALL_GATYS_DEFAULTS, GATYS_LEAST, LEAST, write

from fast_style.core.errors import UserError
from fast_style.settings.config import Config, load_config, parse_config
from fast_style.settings.gatys_config import GatysConfig, load_gatys_config
from fast_style.settings.reading import require_consistent
from fast_style.settings.structure import iterate_fields
from fast_style.settings.writing import to_dict, to_yaml


def complaints_about_mutations(
    folder: Path, *, seed: int, cases: int, text: str = ALL_DEFAULTS, read=load_config
) -> int:
    refused = 0
    source = random.Random(seed)
    for case in range(cases):
        data = mutated_yaml(text, source)
        try:
            config = read(write(folder, data))
        except UserError as error:
            refused += 1
            lines = str(error).splitlines()
            assert lines
            assert all(line.startswith(str(folder / "x.yaml")) for line in lines), (case, lines)
            assert all(line.isprintable() for line in lines), (case, lines)
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {case}: {data!r}") from error
        else:
            write(folder, to_yaml(config))
            assert read(folder / "x.yaml") == config, (case, data)
    return refused


GATYS_TEXTS = [
    ALL_GATYS_DEFAULTS.replace("blend: []", f"blend: {blend}")
    for blend in (
        "[{image: b.jpg, weight: 1}, {image: ../c.jpg, weight: 0.5}]",
        "{b.jpg: 1, ../c.jpg: 0.5}",  # the form of earlier versions
    )
]


@pytest.mark.slow
def test_a_mutated_file_loads_or_is_a_user_error(tmp_path):
    assert 50 < complaints_about_mutations(tmp_path, seed=1, cases=200) < 200


@pytest.mark.parametrize("text", GATYS_TEXTS, ids=["list", "mapping"])
def test_a_mutated_file_of_an_optimization_loads_or_is_a_user_error(tmp_path, text):
    refused = complaints_about_mutations(
        tmp_path, seed=2, cases=100, text=text, read=load_gatys_config
    )
    assert 25 < refused < 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_thousands_of_mutated_files_load_or_are_user_errors(tmp_path, seed):
    assert 250 < complaints_about_mutations(tmp_path, seed=seed, cases=1000) < 1000
    for text in GATYS_TEXTS:
        complaints_about_mutations(
            tmp_path, seed=seed, cases=300, text=text, read=load_gatys_config
        )


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = (
    [key for key, _ in iterate_fields(Config)]
    + list(Config.model_fields)
    + ["x", "loss.style_layers.x"]
)
GATYS_KEYS = [key for key, _ in iterate_fields(GatysConfig)] + ["style.blend.x", "style", "x"]
ENTRY = st.fixed_dictionaries(
    {}, optional={"image": PLAIN, "weight": PLAIN | st.just(1.0), "x": PLAIN}
)


def require_value_is_taken_or_a_user_error(key, value):
    data = {
        "name": "a",
        "style": {"image": "s"},
        "data": {"photos": "p"},
        "loss": {"style_layers": {}},
    }
    target = data
    *sections, name = key.split(".")
    for section in sections:
        target = target.setdefault(section, {})
    target[name] = value
    try:
        config = parse_config(data, "place")
        require_consistent(config, "place")
    except UserError as error:
        message = str(error)
    else:
        assert parse_config(to_dict(config), "place") == config
        return
    assert all(line.startswith("place: ") for line in message.splitlines())


@settings(max_examples=100, deadline=None)
@given(key=st.sampled_from(KEYS), value=PLAIN)
def test_any_value_of_any_setting_is_taken_or_is_a_user_error(key, value):
    require_value_is_taken_or_a_user_error(key, value)


def require_word_is_taken_or_a_user_error(folder, key, value):
    path = write(folder, LEAST)
    try:
        load_config(path, [f"{key}={value}"])
        message = ""
    except UserError as error:
        message = str(error)
    assert all(line.isprintable() for line in message.split("\n"))


@settings(max_examples=100, deadline=None)
@given(key=st.sampled_from(KEYS) | st.text(max_size=10), value=st.text(max_size=12))
def test_any_word_of_the_command_line_is_taken_or_is_a_user_error(tmp_path_factory, key, value):
    require_word_is_taken_or_a_user_error(tmp_path_factory.getbasetemp(), key, value)


def require_word_of_gatys_is_taken_or_a_user_error(folder, key, value):
    path = write(folder, GATYS_LEAST)
    try:
        config = load_gatys_config(path, [f"{key}={json.dumps(value)}"])
    except UserError as error:
        message = str(error)
    else:
        write(path.parent, to_yaml(config))
        assert load_gatys_config(path) == config
        return
    assert all(line.isprintable() for line in message.split("\n"))


@settings(max_examples=60, deadline=None)
@given(key=st.sampled_from(GATYS_KEYS), value=PLAIN | st.lists(ENTRY, max_size=2))
@example(key="style.blend", value=[{"image": "\ud800", "weight": 1.0}])
@example(key="style.blend", value=[{"image": "a\nb", "weight": 1.0}] * 2)
@example(key="style.blend", value={"\ud800": 1.0})
@example(key="style.blend", value={"a\nb": 1.0, "./a\nb": 1.0})
def test_any_value_in_a_word_for_an_optimization_is_taken_or_is_a_user_error(
    tmp_path_factory, key, value
):
    require_word_of_gatys_is_taken_or_a_user_error(tmp_path_factory.getbasetemp(), key, value)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(
    key=st.sampled_from(KEYS),
    gatys_key=st.sampled_from(GATYS_KEYS),
    value=PLAIN | st.lists(ENTRY, max_size=2),
    text=st.text(max_size=12),
)
def test_many_values_and_words_are_taken_or_are_user_errors(
    tmp_path_factory, key, gatys_key, value, text
):
    folder = tmp_path_factory.getbasetemp()
    require_value_is_taken_or_a_user_error(key, value)
    require_word_is_taken_or_a_user_error(folder, key, text)
    require_word_of_gatys_is_taken_or_a_user_error(folder, gatys_key, value)
