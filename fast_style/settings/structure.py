"""The structure of a file of settings: a root, its sections and their fields, found by their keys.

A key is the word in the YAML file: a field's alias if it has one, else its name. The attribute
`num_photos`, for example, has the key ``photos``.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from fast_style.settings.fields import OnceMeant
from fast_style.settings.strict_yaml import Key


class Mistake(NamedTuple):
    """A setting, and what is wrong with it."""

    key: Key
    message: str
    """The rule, and what was found instead: ``must be at least 1, got 0``."""


class Section(BaseModel):
    """A frozen group of settings that rejects unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )


class Root(Section):
    """All settings of one file: its sections, and the rules between them."""

    example: ClassVar[str]
    """A ``key=value`` word, for error messages."""

    to_start_from: ClassVar[str]
    """Where to get a first file, for the error about a missing one."""

    place_of_others: ClassVar[str] = ""
    """Where pictures and models are given, for the error about one in place of the file."""

    of_other_files: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Sections that only other kinds of file have, with the command that takes those."""

    also_read: ClassVar["type[Root] | None"] = None
    """Another kind of file that may be given instead: its sections of the same names are taken."""

    def fitted(self) -> Self:
        """The settings with defaults that fit what was set, where the usual ones contradict it."""
        return self

    def mistakes(self) -> Iterator[Mistake]:
        """Combinations of valid settings that cannot work together."""
        yield from ()


def fields_of(section: type[Section]) -> dict[str, FieldInfo]:
    """The fields of a section, by their keys in the file."""
    return {info.alias or name: info for name, info in section.model_fields.items()}


def iterate_fields(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of every setting, those of inner sections included."""
    for name, info in fields_of(section).items():
        if is_section(info.annotation):
            yield from iterate_fields(section_in(info), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def is_section(annotation: object) -> bool:
    """Whether a type is a section."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def section_in(info: FieldInfo) -> Any:
    """The type of the section, or of the list of sections, in a field; None for other fields."""
    for annotation in (info.annotation, *get_args(info.annotation)):
        if is_section(annotation):
            return annotation
    return None


def section_at(root: type[Root], key: Key) -> type[Section] | None:
    """The type of the section, or of the list of sections, at a key; None if there is none."""
    section: type[Section] | None = root
    for part in key:
        if isinstance(part, int):  # an entry of a list of sections
            continue
        info = fields_of(section).get(part) if section is not None else None
        section = section_in(info) if info is not None else None
    return section


def field_at(root: type[Root], key: Key) -> FieldInfo | None:
    """The field at a key; None if there is none."""
    section = section_at(root, key[:-1]) if key else None
    return fields_of(section).get(str(key[-1])) if section is not None else None


def marks_of(info: FieldInfo) -> list[object]:
    """The annotations of a field's type, such as `fields.IsPath`."""
    # The marks of `FilePath | None` belong to the member of the union, those of a plain `FilePath`
    # to the field.
    inner = [mark for member in get_args(info.annotation) for mark in _metadata(member)]
    return [*info.metadata, *inner]


def _metadata(annotation: object) -> tuple[object, ...]:
    return getattr(annotation, "__metadata__", ())


def with_old_meanings(section: type[Section], data: Mapping[str, Any]) -> dict[str, Any]:
    """Data that this software wrote for a section, with the settings that did not exist then."""
    complete = dict(data)
    for name, info in fields_of(section).items():
        inner = section_in(info)
        if inner is not None and isinstance(data.get(name), Mapping):
            complete[name] = with_old_meanings(inner, data[name])
        elif name not in data:
            for mark in marks_of(info):
                if isinstance(mark, OnceMeant):
                    complete[name] = mark.value
    return complete


def takes_mapping(info: FieldInfo) -> bool:
    """Whether a field is a mapping whose keys the user chooses, such as names of layers."""
    origin = get_origin(info.annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)
