"""Settings as plain data and as YAML, and the differences between two sets of settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fast_style.settings.fields import IsPath
from fast_style.settings.strict_yaml import dump_yaml
from fast_style.settings.structure import Root, iterate_fields, marks_of


def to_dict(settings: Root) -> dict[str, Any]:
    """Plain data: text, numbers, dicts and lists. `reading.parse` restores an equal object."""
    return settings.model_dump(mode="json", by_alias=True)


def to_yaml(settings: Root) -> str:
    """The complete settings as a YAML file, which loads to an equal object."""
    return dump_yaml(to_dict(settings))


def without_folders(settings: Root) -> dict[str, Any]:
    """The plain data with every path cut to its last part, for a file that is given to others."""
    data = to_dict(settings)
    for dotted, info in iterate_fields(type(settings)):
        *sections, key = dotted.split(".")
        section = data
        for name in sections:
            section = section[name]
        value = section[key]
        marks = (mark for mark in marks_of(info) if isinstance(mark, IsPath))
        if isinstance(value, str) and any(mark.means_path(value) for mark in marks):
            section[key] = Path(value).name
    return data


def changed_settings(old: Root, new: Root) -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of every setting that differs; None if absent."""
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    keys = list(dict.fromkeys([*after, *before]))
    return [
        (key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)
    ]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested data by dotted keys: ``{"a.b": 1}`` for ``{"a": {"b": 1}}``."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
