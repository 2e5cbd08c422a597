"""From a YAML file and ``key=value`` words to frozen, validated settings.

This module does not know which settings exist: each kind of file is a `Root` (`config` has those of
this project). All mistakes of a file are reported together, each with its place, its key, the rule
and what was found.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from fast_style.core.errors import UserError, printable, shortened
from fast_style.core.paths import path_named
from fast_style.settings.fields import FollowsSteps, IsPath, OldForm, OnceMeant
from fast_style.settings.layers import is_same_layer
from fast_style.settings.mistakes import is_path, mistakes_in
from fast_style.settings.strict_yaml import MAX_DEPTH, Key, dotted_key, read_text, read_yaml
from fast_style.settings.structure import (
    Mistake,
    Root,
    Section,
    field_at,
    fields_of,
    marks_of,
    section_in,
    takes_mapping,
    with_old_meanings,
)
from fast_style.settings.writing import to_dict

AnyRoot = TypeVar("AnyRoot", bound=Root)
AnySection = TypeVar("AnySection", bound=Section)

_ON_COMMAND_LINE = " on the command line"


def load(root: type[AnyRoot], path: Path | str, overrides: Sequence[str] = ()) -> AnyRoot:
    """Settings from a YAML file, overridden by ``key=value`` words.

    Paths in the file are relative to the file's folder, those in `overrides` to the working
    directory; ``~`` is the home folder, ``$NAME`` or ``%NAME%`` a variable of the environment. An
    empty section means its defaults. A file of the kind `root.also_read` is checked as such, and
    gives the sections that both kinds have.

    Raises:
        TypeError: `path` is no path, or one of `overrides` no text.
        UserError: one line per mistake, ``file:line: key: rule, what was found``.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be that of a YAML file, got {type(path).__name__}")
    if isinstance(overrides, str):
        raise UserError(
            f"{shortened(repr(overrides))}: a list of key=value words is needed, got one text; "
            f"give {shortened(repr([overrides]))}"
        )
    if isinstance(overrides, bytes | Mapping | Set) or not isinstance(overrides, Iterable):
        raise TypeError(
            f"overrides must be a list of key=value words, got {type(overrides).__name__}"
        )
    overrides = tuple(overrides)  # perhaps of an iterator, which is read once
    for word in overrides:
        if not isinstance(word, str):
            raise TypeError(f"overrides must be key=value words, got {shortened(repr(word))}")
    path = path_named(path)
    place = printable(path)
    text = read_text(path, place, if_missing=root.to_start_from, if_binary=root.place_of_others)
    document = read_yaml(text, place)
    other = root.also_read
    if other is not None and _is_of(other, root, document.data):
        # With the words that both kinds know: defaults of the other kind may depend on them.
        known = [word for word in overrides if _names_setting_of(other, word)]
        data = _only_known(root, to_dict(load(other, path, known)))
    else:
        data = _with_absolute_paths(root, document.data, path.absolute().parent)
    lines = {key: line for key, line in document.lines.items() if key[0] in data}
    draft = _Draft(root, data, place, lines)
    for word in overrides:
        draft.override(word)
    settings = draft.validate().fitted()
    if mistakes := list(settings.mistakes()):
        raise draft.error(mistakes)
    return settings


def parse(root: type[AnyRoot], data: Mapping[str, Any], place: str) -> AnyRoot:
    """Settings from plain data, such as a checkpoint's header.

    Each setting is checked, but not the rules between settings, which may have changed since the
    data was written. They do not matter where settings are only compared or shown;
    `require_consistent` checks them where something is computed.

    Args:
        root: the kind of settings.
        data: a result of `writing.to_dict`.
        place: where the data came from, for error messages.

    Raises:
        UserError: one line per mistake, ``place: key: rule, what was found``.
    """
    if not isinstance(data, Mapping):  # a header may hold anything
        raise UserError(f"{place}: settings: must be a section of key: value lines")
    return _Draft(root, with_old_meanings(root, data), place, {}).validate()


def checked(settings: AnyRoot) -> AnyRoot:
    """The settings, checked as those of a file are: `model_copy(update=...)` checks nothing.

    Raises:
        TypeError: these are no settings.
        UserError: one line per mistake, ``config: key: rule, what was found``.
    """
    if not isinstance(settings, Root):
        raise TypeError(
            f"config must be settings that load_config has read, got {type(settings).__name__}"
        )
    draft = _Draft(type(settings), _plain(settings), "config", {})
    found = draft.validate().fitted()
    if mistakes := list(found.mistakes()):
        raise draft.error(mistakes)
    return found


def _plain(value: Any) -> Any:
    """A value of settings as a file would have it, with what was set and no defaults."""
    if isinstance(value, Section):
        return {
            key: _plain(getattr(value, name))
            for name, info in type(value).model_fields.items()
            if name in value.model_fields_set
            for key in [info.alias or name]
        }
    if isinstance(value, Mapping):
        return dict(value)
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def kept(settings: AnySection, stored: AnySection) -> AnySection:
    """Settings of a run that goes on: what has another default by now stays as it was.

    Args:
        settings: those to go on with. A setting that they name is not changed.
        stored: those that the run began with.
    """
    changes: dict[str, Any] = {}
    for name, info in type(settings).model_fields.items():
        value, before = getattr(settings, name), getattr(stored, name)
        if isinstance(value, Section):
            changes[name] = kept(value, before)
        elif name not in settings.model_fields_set and any(
            isinstance(mark, OnceMeant | FollowsSteps) for mark in marks_of(info)
        ):
            changes[name] = before
    return settings.model_copy(update=changes)


def require_consistent(settings: Root, place: str) -> None:
    """Check the rules between settings, which `parse` does not.

    Args:
        settings: of any kind.
        place: where they came from, for error messages.

    Raises:
        UserError: one line per mistake, ``place: key: rule, what was found``.
    """
    if mistakes := list(settings.mistakes()):
        raise _Draft(type(settings), {}, place, {}).error(mistakes)


def _names_setting_of(root: type[Root], word: str) -> bool:
    """Whether the key of a ``key=value`` word is a setting of this kind."""
    return field_at(root, tuple(word.partition("=")[0].split("."))) is not None


def _only_known(section: type[Section], data: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the data that a section, and the sections in it, have fields for."""
    known: dict[str, Any] = {}
    for name, info in fields_of(section).items():
        if name in data:
            inner = section_in(info)
            is_section = inner is not None and isinstance(data[name], Mapping)
            known[name] = _only_known(inner, data[name]) if is_section else data[name]
    return known


def _is_of(other: type[Root], root: type[Root], data: Any) -> bool:
    """Whether data has a section or setting that `other` has and `root` lacks."""
    own = fields_of(other).keys() - fields_of(root).keys()
    return isinstance(data, Mapping) and not own.isdisjoint(data)


class _Place(NamedTuple):
    """Where a key was written; places sort by line, those on the command line last."""

    order: int
    text: str


@dataclass
class _Draft(Generic[AnyRoot]):
    """Plain data on its way to a `root`, with the place of every key."""

    root: type[AnyRoot]
    data: dict[str, Any]
    source: str
    lines: dict[Key, int]
    words: dict[Key, str] = field(default_factory=dict)

    def override(self, word: str) -> None:
        """Override the data by one ``key=value``.

        The value is read as YAML. For a setting that is text or a path, it is used literally unless
        it begins with a quote, since file names may contain YAML's special characters.
        """
        place = f"{shortened(repr(word))}{_ON_COMMAND_LINE}"
        dotted, equals, text = word.partition("=")
        names = dotted.split(".")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", dotted) or len(names) > MAX_DEPTH:
            raise UserError(
                f"{place}: settings are given as key=value, for example {self.root.example}"
            )
        key = tuple(names)
        info = field_at(self.root, key)
        if info is not None and section_in(info) and get_origin(info.annotation) is not tuple:
            # It would replace the section of the file, whose other keys would be lost in silence.
            raise UserError(
                f"{place}: {dotted} is a section; set its keys one by one, as "
                f"{dotted}.{next(iter(fields_of(section_in(info))))}=..."
            )
        takes_text = info is not None and (info.annotation is str or is_path(info))
        value: Any = text
        if not takes_text or text in ("", "~", "null") or text[0] in "\"'":
            value = read_yaml(text, place, any_value=True).data
        if info is not None:
            value = _with_absolute_path(info, value, Path.cwd())
        section = self._section(names[:-1], place)
        whole = key[:-1]
        mapping = field_at(self.root, whole)
        if mapping is not None and takes_mapping(mapping):
            # Of layers, which have two names each: the word replaces the file's, as for other keys.
            for other in [name for name in section if is_same_layer(name, names[-1])]:
                earlier = self.words.get((*whole, other), self.words.get(whole))
                if earlier is not None and other != names[-1]:
                    raise UserError(
                        f"{place}: {names[-1]} is the layer {other} of "
                        f"{earlier.removesuffix(_ON_COMMAND_LINE)}; leave one out"
                    )
                del section[other]
        section[names[-1]] = value
        for known in (self.lines, self.words):  # forget places in the value that is replaced
            for old in [old for old in known if old[: len(key)] == key]:
                del known[old]
        self.words[key] = place

    def _section(self, names: Sequence[str], place: str) -> dict[str, Any]:
        """The section with a key, created if it is missing or empty."""
        section = self.data
        for length, name in enumerate(names, start=1):
            key = tuple(names[:length])
            info = field_at(self.root, key)
            if info is not None and get_origin(info.annotation) is tuple:
                whole = dotted_key(key)
                raise UserError(f"{place}: {whole} is a list; set the whole list, as {whole}=[...]")
            if section.get(name) is None:
                section[name] = {}
            section = section[name]
            if not isinstance(section, dict):
                raise UserError(f"{place}: {dotted_key(key)} is a value, not a section")
        return section

    def validate(self) -> AnyRoot:
        """The settings, each of them checked.

        Raises:
            UserError: all mistakes in single settings.
        """
        for name, info in fields_of(self.root).items():
            if name in self.data and self.data[name] is None and section_in(info) is not None:
                self.data[name] = {}
        try:
            return self.root.model_validate(self.data)
        except ValidationError as failure:
            raise self.error(list(mistakes_in(self.root, failure))) from None

    def error(self, mistakes: Sequence[Mistake]) -> UserError:
        """The error that tells these mistakes, each with its place."""
        lines = {(self._place(key), f"{dotted_key(key)}: {message}") for key, message in mistakes}
        return UserError("\n".join(f"{place.text}: {rule}" for place, rule in sorted(lines)))

    def _place(self, key: Key) -> _Place:
        """Where a key, or else the innermost section around it, was written."""
        on_command_line = sys.maxsize
        for length in range(len(key), 0, -1):
            part = key[:length]
            if part in self.words:
                return _Place(on_command_line, self.words[part])
            if part in self.lines:
                return _Place(self.lines[part], f"{self.source}:{self.lines[part]}")
            if part == key:  # perhaps a section that exists only on the command line
                inside = [word for inner, word in self.words.items() if inner[:length] == key]
                if inside:
                    return _Place(on_command_line, inside[0])
        return _Place(0, self.source)


def _with_absolute_paths(section: type[Section], data: Any, folder: Path) -> Any:
    """Data for a section, or for a list of sections, with paths in it relative to a folder."""
    if isinstance(data, list):
        return [_with_absolute_paths(section, entry, folder) for entry in data]
    if not isinstance(data, dict):  # a mistake, which validation reports
        return data
    fields = fields_of(section)
    return {
        name: _with_absolute_path(fields[name], value, folder) if name in fields else value
        for name, value in data.items()
    }


def _with_absolute_path(info: FieldInfo, value: Any, folder: Path) -> Any:
    """A field's value in today's form, with paths in it relative to a folder."""
    marks = marks_of(info)
    for mark in marks:
        if isinstance(mark, OldForm):
            value = mark.convert(value)
    if (section := section_in(info)) is not None:
        return _with_absolute_paths(section, value, folder)
    for mark in marks:
        if isinstance(mark, IsPath) and isinstance(value, str) and mark.means_path(value):
            try:
                return str(mark.path_of(value, folder))
            except ValueError as error:
                return error  # validation reports it with its key and its place
    return value
