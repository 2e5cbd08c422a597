"""Descriptions of all settings: the text of --help-config, commented YAML files, JSON Schemas.

All of it is generated from the fields of a `Root`, so a new field needs no change here.
"""

import functools
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fast_style.settings.fields import InWords
from fast_style.settings.strict_yaml import Key, dump_yaml
from fast_style.settings.structure import Root, field_at, fields_of, iterate_fields, marks_of


def help_text(root: type[Root]) -> str:
    """All keys with defaults, allowed values and meanings, for ``--help-config``."""
    lines = ["Every setting as key: default  # allowed values, and its meaning."]
    section = ""
    for key, info in iterate_fields(root):
        before, _, _ = key.rpartition(".")
        if before != section:
            annotation: Any = fields_of(root)[before].annotation
            lines += ["", f"{before}: {annotation.__doc__}"]
            section = before
        lines += ["", f"{key}: {default_of(info)}  # {allowed_values(root, key)}"]
        lines += _wrapped(info.description, indent="    ")
    return "\n".join(lines)


def commented_yaml(root: type[Root], keys: Sequence[str], values: Mapping[str, object]) -> str:
    """A YAML file of some settings, each one below its meaning.

    Args:
        root: the kind of file.
        keys: the settings to write, in the order of the file; those of one section are neighbors.
        values: by key, the values to write instead of the defaults.
    """
    fields = dict(iterate_fields(root))
    lines: list[str] = []
    section = ""
    for key in keys:
        before, _, name = key.rpartition(".")
        if before != section:
            lines += ["", f"{before}:"]
            section = before
        indent = "  " if before else ""
        value = _in_one_line(values[key]) if key in values else default_of(fields[key])
        lines += _wrapped(fields[key].description, indent=f"{indent}# ")
        lines += [f"{indent}{name}: {value}"]
    return "\n".join(lines) + "\n"


def json_schema(root: type[Root]) -> str:
    """The JSON Schema of a kind of file, with which editors check and complete it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _schema(root)
    return json.dumps(schema, indent=2) + "\n"


def default_of(info: FieldInfo) -> str:
    """A field's default as one would write it in YAML, ``(required)`` or ``(unset)``."""
    if info.is_required():
        return "(required)"
    default = info.get_default(call_default_factory=True)
    if default is None:
        return "(unset)"
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json", by_alias=True)
    if isinstance(default, tuple):
        default = list(default)
    return _in_one_line(dict(default) if isinstance(default, Mapping) else default)


def allowed_values(root: type[Root], key: str) -> str:
    """The values that a setting accepts: ``auto | fp32 | bf16``, ``at least 0``, ``path``."""
    *sections, name = parts = key.split(".")
    schema = _schema(root)
    properties = schema["properties"]
    for section in sections:
        reference = properties[section]["$ref"]
        properties = schema["$defs"][reference.rpartition("/")[2]]["properties"]
    return _allowed(properties[name], text=in_words(root, tuple(parts)))


def in_words(root: type[Root], key: Key, *, otherwise: str = "text") -> str:
    """A setting's description (`InWords`) of its texts, lists or keys, or else `otherwise`."""
    info = field_at(root, key)
    marks = marks_of(info) if info is not None else []
    words = [mark.text for mark in marks if isinstance(mark, InWords)]
    return words[0] if words else otherwise


def number_in_words(value: float) -> str:
    """A bound without a needless ``.0``."""
    return str(int(value)) if float(value).is_integer() else str(value)


@functools.cache
def _schema(root: type[Root]) -> dict[str, Any]:
    return root.model_json_schema()


def _allowed(schema: Mapping[str, Any], *, text: str) -> str:
    """The values that a part of a schema allows; `text` describes its texts, lists or keys."""
    if union := schema.get("anyOf", schema.get("oneOf")):
        # Null means that a setting is unset; it is not a value to recommend.
        branches = [branch for branch in union if branch.get("type") != "null"]
        return " | ".join(_allowed(branch, text=text) for branch in branches)
    if "enum" in schema:
        return " | ".join(schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    match schema.get("type"):
        case "boolean":
            return "true | false"
        case "integer" | "number":
            return _range(schema)
        case "array":
            return _allowed_list(schema, text=text)
        case "object":
            weight = _allowed(schema["additionalProperties"], text=text)
            return f"{{{text}: weight, ...}}, each weight {weight}"
        case _:
            return "path" if schema.get("format") == "path" else text


def _allowed_list(schema: Mapping[str, Any], *, text: str) -> str:
    if "prefixItems" in schema:
        items = schema["prefixItems"]
        names = [item["title"] for item in items if "title" in item]
        what = f"[{', '.join(names)}]" if names else "two numbers"
        return f"{what}, each {_allowed(items[0], text=text)}"
    if "$ref" in schema["items"]:  # of sections, which `text` describes
        return text
    return f"{text}, each {_allowed(schema['items'], text=text)}"


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{number_in_words(low)} to {number_in_words(high)}"
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    return ", ".join(
        f"{words} {number_in_words(schema[bound])}"
        for bound, words in bounds.items()
        if bound in schema
    )


def _in_one_line(value: object) -> str:
    return dump_yaml(value, in_one_line=True).removesuffix("...\n").strip("\n")


def _wrapped(text: str | None, *, indent: str) -> list[str]:
    return textwrap.wrap(
        " ".join((text or "").split()), 96, initial_indent=indent, subsequent_indent=indent
    )
