"""Mistakes in data for a `Root`: keys and messages, translated from pydantic's errors."""

import difflib
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from fast_style.core.errors import shown
from fast_style.core.paths import odd_ends
from fast_style.settings.fields import IsPath, IsPhotoFolder
from fast_style.settings.help import allowed_values, in_words, number_in_words
from fast_style.settings.strict_yaml import Key, dotted_key, space_hint, typography_hint
from fast_style.settings.structure import (
    Mistake,
    Root,
    field_at,
    fields_of,
    iterate_fields,
    marks_of,
    section_at,
    takes_mapping,
)


def mistakes_in(root: type[Root], failure: ValidationError) -> Iterator[Mistake]:
    """All mistakes that pydantic found in data for a root."""
    for error in failure.errors():
        key = _key_at(root, error["loc"])
        match error["type"]:
            case "extra_forbidden":
                yield Mistake(key, _unknown_key(root, key, error["input"]))
            case "missing" if isinstance(key[-1], str):
                for needed in _required_below(root, key):
                    yield Mistake(needed, f"missing; {_meaning(field_at(root, needed))}")
            case "missing":  # an entry of a pair
                yield Mistake(key[:-1], _rule(root, error, key[:-1]))
            case "value_error":
                yield Mistake(key, str(error["ctx"]["error"]))
            case _:
                yield Mistake(key, _rule(root, error, key))


def _key_at(root: type[Root], location: Key) -> Key:
    """The key of an error, from its location in pydantic's schema.

    The location also names the branch of a union that failed ("constrained-int") and marks the keys
    of a mapping ("[key]"); neither belongs to the key.
    """
    key: Key = ()
    for part in location:
        if isinstance(part, int) or section_at(root, key) is not None:
            key = (*key, part)
        elif (info := field_at(root, key)) is not None and takes_mapping(info):
            return (*key, part)
    return key


def _rule(root: type[Root], error: Any, key: Key) -> str:
    """The rule that a value breaks, and the value that was found."""
    found = error["input"]
    info = field_at(root, key)
    if info is not None and _is_choice(info):
        *others, last = allowed_values(root, ".".join(map(str, key))).split(" | ")
        return f"must be {', '.join(others)} or {last}, got {shown(found)}"
    must = _must(root, error, key)
    rule = f"must be {must}, got {shown(found)}" if must else f"{error['msg']}, got {shown(found)}"
    if info is not None and isinstance(found, list) and is_photo_folder(info):
        return f"{rule}; make one folder with links to these"
    if isinstance(found, str) and (odd := odd_ends(found)):
        return f"{rule}, which {odd}"
    return rule + (space_hint(found) if error["type"] == "model_type" else "")


def _must(root: type[Root], error: Any, key: Key) -> str | None:
    """What a value must be, to follow the words "must be"; None for any other kind of error."""
    found, bounds = error["input"], error.get("ctx", {})
    match error["type"]:
        case "int_type":
            whole = isinstance(found, float) and found.is_integer()
            must = f"an integer (write {found:.0f})" if whole else "an integer"
            return f"{must} or [width, height]" if error["loc"][-1] == "side" else must
        case "float_type":
            return "a number"
        case "bool_type":
            return "true or false"
        case "finite_number":
            return "a finite number"
        case "model_type" | "mapping_type" | "dict_type":
            return "a section of key: value lines"
        case "tuple_type" | "missing" | "too_long" | "too_short":
            return in_words(root, key, otherwise="a list of two numbers")
        case "string_type" | "is_instance_of":
            info = field_at(root, key)
            must = "text"
            if info is not None and is_path(info):
                must = "one path" if isinstance(found, list) else "a path"
            return f"{must} (put quotes around it)" if isinstance(found, int | float) else must
        case "greater_than_equal":
            return f"at least {number_in_words(bounds['ge'])}"
        case "greater_than":
            return f"above {number_in_words(bounds['gt'])}"
        case "less_than_equal":
            return f"at most {number_in_words(bounds['le'])}"
        case "less_than":
            return f"below {number_in_words(bounds['lt'])}"
        case "string_pattern_mismatch":
            return in_words(root, key)
    return None


def _unknown_key(root: type[Root], key: Key, found: object) -> str:
    """The message about an unknown key, with the known key that is most similar."""
    name = str(key[-1])
    if hint := typography_hint(f"{name}:"):
        return f"unknown key; {hint}"
    if name == "<<":
        return "unknown key; sections are not merged here: write their keys out"
    *sections, last = name.split(".")
    section = (*key[:-1], *sections)
    if sections and section_at(root, section) is not None:  # written as on the command line
        if field_at(root, (*section, last)) is None:
            return _unknown_key(root, (*section, last), found)
        value = "" if found is None or isinstance(found, dict) else f" {shown(found)}"
        return f"unknown key; write `{last}:{value}` below `{dotted_key(section)}:`"
    if len(key) == 1 and name in root.of_other_files:
        command = root.of_other_files[name]
        return f"unknown key; this section is of a file for fast-style {command}"
    siblings = list(fields_of(section_at(root, key[:-1]) or root))
    everywhere = {dotted.rpartition(".")[2]: dotted for dotted, _ in iterate_fields(root)}
    meant = None
    if name in everywhere:
        meant = everywhere[name]
    elif close := difflib.get_close_matches(name, siblings, n=1):
        meant = dotted_key((*key[:-1], close[0]))
    elif elsewhere := difflib.get_close_matches(name, everywhere, n=1):
        meant = everywhere[elsewhere[0]]
    if meant is not None:
        return f"unknown key; did you mean '{meant}'?"
    return f"unknown key; valid keys here: {', '.join(siblings)}"


def _required_below(root: type[Root], key: Key) -> list[Key]:
    """The keys of the required settings in a section; a single setting's own key."""
    section = section_at(root, key)
    fields = fields_of(section) if section is not None else {}
    return [(*key, name) for name, info in fields.items() if info.is_required()] or [key]


def _meaning(info: FieldInfo | None) -> str:
    """A request to give a value, from the first clause of its field's description."""
    text = " ".join((info.description or "").split()) if info is not None else ""
    text = text.split(";")[0].split(". ")[0].rstrip(".")
    return f"give {text[:1].lower()}{text[1:]}"


def _is_choice(info: FieldInfo) -> bool:
    """Whether a field takes words: a Literal, alone or in a union."""
    return any(
        get_origin(member) is Literal for member in (info.annotation, *get_args(info.annotation))
    )


def is_path(info: FieldInfo) -> bool:
    """Whether a field takes a path."""
    return any(isinstance(mark, IsPath) for mark in marks_of(info))


def is_photo_folder(info: FieldInfo) -> bool:
    """Whether a field takes a folder of photos."""
    return any(isinstance(mark, IsPhotoFolder) for mark in marks_of(info))
