"""From a YAML file and ``key=value`` words to frozen, validated settings. Knows no torch.

Which settings there are is not said here: each kind of file is a `Root` with its `Section`s, and
everything below takes any of them (`config` has those of this project). From its fields come what
is accepted, what errors and help say, and the JSON Schema.

Every mistake is answered with its place (file and line), its dotted key, the rule and what was
found; all mistakes of one kind are told at once. Files are not opened here, except the YAML
itself: whether a picture exists is checked by the code that opens it.
"""

import difflib
import functools
import itertools
import json
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    get_args,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from fast_style.core.errors import UserError, printable, shortened, shown
from fast_style.settings.strict_yaml import MAX_DEPTH, dotted_key, dump_yaml, read_text, read_yaml

# --- What a setting may be ----------------------------------------------------------------------


@dataclass(frozen=True)
class InWords:
    """Says what a text with a pattern or a list must be, or a mapping's keys are, to people."""

    text: str


@dataclass(frozen=True)
class _IsPath:
    """Marks a field whose text is resolved against the folder of the file that says it."""

    def means_path(self, text: str) -> bool:
        """Whether `text` is a path, and not one of the words that stand for something else."""
        return True


@dataclass(frozen=True)
class PathOr(_IsPath):
    """Marks and checks a text that is one of some words, otherwise a path."""

    words: tuple[str, ...]

    def means_path(self, text: str) -> bool:
        """Whether `text` is none of the words."""
        return text not in self.words

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"anyOf": [{"enum": list(self.words)}, {"format": "path"}]}

    def _checked(self, text: str) -> str:
        return str(_usable_path(text)) if self.means_path(text) else text


class _HasPathsAsKeys:
    """Marks a mapping whose keys are resolved against the folder of the file that says them."""


def _usable_path(text: str) -> Path:
    if "://" in text:
        raise ValueError(
            f"{text!r} is a URL; download it first (data/README.md has the commands) and give the "
            "path of the file"
        )
    if not text or "\0" in text:
        raise ValueError(f"must be a path, got {text!r}")
    try:
        os.fsencode(text)
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise ValueError(f"no file can be called {text!r}") from None
    except RuntimeError:
        raise ValueError(f"the home folder in {text!r} is not known; write it out") from None


def _to_path(value: object) -> object:
    # pydantic's strict mode takes no text for a Path when it validates Python objects.
    return _usable_path(value) if isinstance(value, str) else value


def _path_as_written(value: object) -> str:
    """A usable path, still as text: so that errors behind it name it as its file does."""
    if not isinstance(value, str | Path):
        raise ValueError(f"must be a path, got {shown(value)}")
    _usable_path(str(value))
    return str(value)


def _to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _least_first(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"must be [least, most], got {list(pair)}")
    return pair


def _resolved_keys(weights: Mapping[str, float], info: ValidationInfo) -> Mapping[Path, float]:
    """The paths resolved; `info.context` says where those that a file or a word gave begin."""
    folders: Mapping[str, Path] = info.context or {}
    resolved: dict[Path, float] = {}
    seen = set()
    for name, weight in weights.items():
        path = folders.get(name, Path()) / _usable_path(name)
        if os.path.realpath(path) in seen:
            raise ValueError(f"{name!r} is given twice, once under another name")
        seen.add(os.path.realpath(path))
        resolved[path] = weight
    # A frozen pydantic model freezes its fields, not what a dict holds.
    return MappingProxyType(resolved)


def _side_or_pair(value: object) -> str:
    return "pair" if isinstance(value, tuple) else "side"


# A file or folder. Whether it exists is not checked.
FilePath = Annotated[
    Path, BeforeValidator(_to_path), PlainSerializer(str, return_type=str), _IsPath()
]
# Files, each given once, with a weight.
PathWeights = Annotated[
    Mapping[
        Annotated[Path, PlainValidator(_path_as_written, json_schema_input_type=str)],
        Annotated[float, Field(gt=0)],
    ],
    Field(json_schema_extra={"propertyNames": {"format": "path"}}),
    AfterValidator(_resolved_keys),
    PlainSerializer(
        lambda weights: {str(path): weight for path, weight in weights.items()}, return_type=dict
    ),
    _HasPathsAsKeys(),
]
Share = Annotated[float, Field(gt=0, le=1)]
# [least, most].
ShareRange = Annotated[
    tuple[Share, Share],
    BeforeValidator(_to_tuple),
    AfterValidator(_least_first),
    PlainSerializer(list, return_type=list),
]
Counts = Annotated[
    tuple[Annotated[int, Field(ge=1, le=4096)], ...],
    Field(min_length=1, max_length=16),
    InWords("a list of whole numbers"),
    BeforeValidator(_to_tuple),
    PlainSerializer(list, return_type=list),
]
LEAST_SIDE = 16  # pixels
_Side = Annotated[int, Field(ge=LEAST_SIDE, le=8192)]
# Of a picture, in pixels: one side, or [width, height].
# With a discriminator, pydantic tells the mistakes of the form that was meant, not those of both.
Size = Annotated[
    Annotated[_Side, Tag("side")]
    | Annotated[
        tuple[Annotated[_Side, Field(title="width")], Annotated[_Side, Field(title="height")]],
        PlainSerializer(list, return_type=list),
        Tag("pair"),
    ],
    Discriminator(_side_or_pair),
    BeforeValidator(_to_tuple),
]


# --- What a file is made of ---------------------------------------------------------------------


class Section(BaseModel):
    """A frozen group of settings that accepts nothing it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )


class Root(Section):
    """All that one file says: sections, and rules between them (a subclass's `_mistakes`)."""

    example: ClassVar[str]
    """A ``key=value`` word, as an error shows one."""

    to_start_from: ClassVar[str]
    """Where to find a first file, as the error about one that is not there says it."""

    def _mistakes(self) -> Iterator[str]:
        """One line per combination that cannot work, beginning with the key to change."""
        yield from ()

    @model_validator(mode="after")
    def _check_across_sections(self) -> Self:
        mistakes = list(self._mistakes())
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self


AnyRoot = TypeVar("AnyRoot", bound=Root)


# --- Reading ------------------------------------------------------------------------------------


def load(root: type[AnyRoot], path: Path, overrides: Sequence[str] = ()) -> AnyRoot:
    """Read a YAML file, with ``key=value`` words laid over it.

    Paths in the file are relative to the file's folder, those in `overrides` to the working
    directory; ``~`` is the home folder. A section with nothing in it means its defaults.

    Raises:
        UserError: one line per mistake, ``file:line: key: rule, what was found``.
    """
    place = printable(str(path))
    document = read_yaml(read_text(path, place, if_missing=root.to_start_from), place)
    settings = _Settings(root, document.data, place, document.lines)
    settings.resolve_paths(settings.data, (), path.absolute().parent)
    for word in overrides:
        settings.override(word)
    return settings.validate()


def parse(root: type[AnyRoot], data: Mapping[str, Any], place: str) -> AnyRoot:
    """Settings from plain data, such as a checkpoint's header; errors name `place`.

    Raises:
        UserError: one line per mistake, ``place: key: rule, what was found``.
    """
    if not isinstance(data, Mapping):  # a file's header holds whatever somebody wrote into it
        raise UserError(f"{place}: settings: must be a section of key: value lines")
    return _Settings(root, dict(data), place, {}).validate()


def to_dict(settings: Root) -> dict[str, Any]:
    """Plain data: text, numbers, dicts, lists. `parse` makes an equal object from it."""
    # Every type serializes itself to plain data: pydantic's mode "json" takes no key that is a path
    # with undecodable bytes.
    return settings.model_dump()


def to_yaml(settings: Root) -> str:
    """The complete settings as a YAML file that loads to an equal object."""
    return dump_yaml(to_dict(settings))


def changed_settings(old: Root, new: Root) -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of every setting that differs; None: absent."""
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    keys = list(dict.fromkeys([*after, *before]))
    return [
        (key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)
    ]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class _Place(NamedTuple):
    """Where a key stands; tuples sort as a reader meets them, the command line last."""

    order: int
    text: str


_COMMAND_LINE = sys.maxsize


@dataclass
class _Settings(Generic[AnyRoot]):
    """Plain data on its way to a `root`, with the place that every key came from."""

    root: type[AnyRoot]
    data: dict[str, Any]
    source: str
    lines: dict[tuple[str, ...], int]
    words: dict[tuple[str, ...], str] = field(default_factory=dict)
    # Where each path begins that is a key: keys stay as written, so that errors can name them.
    folders: dict[str, Path] = field(default_factory=dict)

    def override(self, word: str) -> None:
        """Lay one ``key=value`` over the data.

        The value is read as YAML, but where text or a path is asked for, it is taken as it stands
        unless it begins with a quote: names of files may hold what YAML gives a meaning.
        """
        place = f"{shortened(repr(word))} on the command line"
        dotted, equals, text = word.partition("=")
        key = tuple(dotted.split("."))
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", dotted) or len(key) > MAX_DEPTH:
            raise UserError(
                f"{place}: settings are given as key=value, for example {self.root.example}"
            )
        if _takes_text(self.root, key) and text not in ("", "~", "null") and text[0] not in "\"'":
            value: Any = text
        else:
            value = read_yaml(text, place, any_value=True).data
        section = self.data
        for length, part in enumerate(key[:-1], start=1):
            if section.get(part) is None:
                section[part] = {}
            section = section[part]
            if not isinstance(section, dict):
                raise UserError(f"{place}: {dotted_key(key[:length])} is a value, not a section")
        section[key[-1]] = value
        for known in (self.lines, self.words):  # what stood there, and inside it, is gone
            for old in [old for old in known if old[: len(key)] == key]:
                del known[old]
        self.words[key] = place
        self.resolve_paths(section, key[:-1], Path.cwd(), only=key[-1])

    def resolve_paths(
        self, section: dict[str, Any], key: tuple[str, ...], base: Path, *, only: str | None = None
    ) -> None:
        """Make the paths in a section absolute, or that of one entry of it."""
        for name, value in section.items():
            if only is not None and name != only:
                continue
            if _has_mark(self.root, key, _HasPathsAsKeys):
                self.folders[name] = base
            elif isinstance(value, dict):
                self.resolve_paths(value, (*key, name), base)
            elif isinstance(value, str):
                section[name] = _resolved(value, base, _marks(self.root, (*key, name)))

    def validate(self) -> AnyRoot:
        for name, value in self.data.items():
            if value is None and _fields_of(self.root, (name,)):
                self.data[name] = {}
        try:
            return self.root.model_validate(self.data, context=self.folders)
        except ValidationError as failure:
            mistakes = {mistake for error in failure.errors() for mistake in self._describe(error)}
        raise UserError("\n".join(f"{place.text}: {rule}" for place, rule in sorted(mistakes)))

    def place(self, key: tuple[str, ...], *, missing: bool = False) -> _Place:
        """Where a key, or the innermost section around it that was written, stands."""
        for length in range(len(key), 0, -1):
            part = key[:length]
            if part in self.words:
                return _Place(_COMMAND_LINE, self.words[part])
            if part in self.lines:
                return _Place(self.lines[part], f"{self.source}:{self.lines[part]}")
            if length == len(key) and not missing:  # a section that only words made
                for inner, word in self.words.items():
                    if inner[:length] == part:
                        return _Place(_COMMAND_LINE, word)
        return _Place(0, self.source)

    def _describe(self, error: Any) -> Iterator[tuple[_Place, str]]:
        """The places and texts of one of pydantic's errors."""
        key, within = _split_location(self.root, error["loc"])
        dotted = dotted_key(key)
        if error["type"] == "value_error":
            for line in str(error["ctx"]["error"]).splitlines():
                named = re.match(r"([a-z_]+(?:\.[a-z_]+)+): ", line)
                if not key and named:  # a cross-field rule, which says itself which key to change
                    yield self.place(tuple(named[1].split("."))), line
                else:
                    yield self.place(key), f"{dotted}{within}: {line}"
        elif error["type"] == "extra_forbidden":
            yield self.place(key), _unknown_key(self.root, key)
        elif error["type"] == "missing" and not within:
            for needed in _required_in(self.root, key):
                meaning = _meaning(_field(self.root, needed))
                yield (
                    self.place(needed, missing=True),
                    f"missing key '{dotted_key(needed)}': {meaning}",
                )
        else:
            yield self.place(key), f"{dotted}{within}: {_rule(self.root, error, key)}"


def _split_location(
    root: type[Root], location: tuple[str | int, ...]
) -> tuple[tuple[str, ...], str]:
    """A key, and the place within its list, from where pydantic says that an error is.

    pydantic goes on behind the key with the branch of a union that failed ("constrained-int") and
    with a mark on the keys of a mapping ("[key]").
    """
    key: list[str] = []
    for part in location:
        info = _field(root, tuple(key))
        if info is not None and not _is_section(info.annotation):
            if isinstance(part, int):
                return tuple(key), f"[{part}]"
            if _takes_mapping(info):
                key.append(part)
                break
            continue
        key.append(str(part))
    return tuple(key), ""


def _rule(root: type[Root], error: Any, key: tuple[str, ...]) -> str:
    """What must hold, and what was found instead, without pydantic's vocabulary."""
    context, found = error.get("ctx", {}), error["input"]
    info = _field(root, key)
    if info is not None and _is_choice(info):
        must = allowed_values(root, ".".join(key)).replace(" | ", ", ")
        return f"must be one of {must}, got {shown(found)}"
    match error["type"]:
        case "int_type":
            must = "an integer"
            if isinstance(found, float) and found.is_integer():
                must += f" (write {found:.0f})"
            if error["loc"][-1] == "side":  # of a `Size`
                must += " or [width, height]"
        case "float_type":
            must = "a number"
        case "bool_type":
            must = "true or false"
        case "finite_number":
            must = "a finite number"
        case "model_type" | "mapping_type" | "dict_type":
            must = "a section of key: value lines"
        case "tuple_type" | "missing" | "too_long" | "too_short":
            must = _in_words(root, key, otherwise="a list of two numbers")
        case "string_type" | "is_instance_of":
            must = "a path" if _has_mark(root, key, _IsPath) else "text"
            if isinstance(found, int | float):
                must += " (put quotes around it)"
        case "greater_than_equal":
            must = f"at least {_number(context['ge'])}"
        case "greater_than":
            must = f"above {_number(context['gt'])}"
        case "less_than_equal":
            must = f"at most {_number(context['le'])}"
        case "less_than":
            must = f"below {_number(context['lt'])}"
        case "string_pattern_mismatch":
            must = _in_words(root, key)
        case _:
            return f"{error['msg']}, got {shown(found)}"
    return f"must be {must}, got {shown(found)}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _unknown_key(root: type[Root], key: tuple[str, ...]) -> str:
    siblings = list(_fields_of(root, key[:-1]))
    message = f"unknown key '{dotted_key(key)}'"
    everywhere = {dotted.rpartition(".")[2]: dotted for dotted, _ in iterate_fields(root)}
    if key[-1] in everywhere:
        return f"{message}; did you mean '{everywhere[key[-1]]}'?"
    if close := difflib.get_close_matches(key[-1], siblings, n=1):
        return f"{message}; did you mean '{dotted_key((*key[:-1], close[0]))}'?"
    if elsewhere := difflib.get_close_matches(key[-1], everywhere, n=1):
        return f"{message}; did you mean '{everywhere[elsewhere[0]]}'?"
    return f"{message}; valid keys here: {', '.join(siblings)}"


def _required_in(root: type[Root], key: tuple[str, ...]) -> list[tuple[str, ...]]:
    """A required setting's own key, or those in a section."""
    fields = _fields_of(root, key)
    return [(*key, name) for name, info in fields.items() if info.is_required()] or [key]


def _meaning(info: FieldInfo | None) -> str:
    text = info.description if info is not None and info.description else ""
    return " ".join(text.split()).split(";")[0].rstrip(".")


def _field(root: type[Root], key: tuple[str, ...]) -> FieldInfo | None:
    return _fields_of(root, key[:-1]).get(key[-1]) if key else None


def _fields_of(root: type[Root], section: tuple[str, ...]) -> dict[str, FieldInfo]:
    """The fields of the section with this key; none where there is no such section."""
    model: type[BaseModel] = root
    for part in section:
        info = model.model_fields.get(part)
        annotation: Any = info.annotation if info is not None else None
        if not _is_section(annotation):
            return {}
        model = annotation
    return dict(model.model_fields)


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _takes_mapping(info: FieldInfo) -> bool:
    return getattr(info.annotation, "__origin__", None) is Mapping


def _is_choice(info: FieldInfo) -> bool:
    """Whether words are among the values: a Literal, alone or in a union."""
    members = [info.annotation, *get_args(info.annotation)]
    return any(getattr(member, "__origin__", None) is Literal for member in members)


def _marks(root: type[Root], key: tuple[str, ...]) -> list[object]:
    """What the type of a setting is annotated with."""
    info = _field(root, key)
    if info is None:
        return []
    # `FilePath | None` keeps the marker inside the union's member, a plain `FilePath` on the field.
    inner = [getattr(member, "__metadata__", ()) for member in get_args(info.annotation)]
    return [*info.metadata, *itertools.chain(*inner)]


def _has_mark(root: type[Root], key: tuple[str, ...], mark: type) -> bool:
    return any(isinstance(found, mark) for found in _marks(root, key))


def _in_words(root: type[Root], key: tuple[str, ...], *, otherwise: str = "text") -> str:
    """What a text or a list must be, or what a key of a mapping is called."""
    said = [mark.text for mark in _marks(root, key) if isinstance(mark, InWords)]
    return said[0] if said else otherwise


def _takes_text(root: type[Root], key: tuple[str, ...]) -> bool:
    info = _field(root, key)
    return info is not None and (info.annotation is str or _has_mark(root, key, _IsPath))


def _resolved(text: str, base: Path, marks: Sequence[object]) -> str:
    """A text as an absolute path, if the marks of its setting say that it is one."""
    if not any(isinstance(mark, _IsPath) and mark.means_path(text) for mark in marks):
        return text
    try:
        return str(base / _usable_path(text))
    except ValueError:  # told as it was written, with all other mistakes
        return text


# --- Help, comments and the schema --------------------------------------------------------------


def iterate_fields(model: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of every setting, sections opened."""
    for name, info in model.model_fields.items():
        annotation: Any = info.annotation
        if _is_section(annotation):
            yield from iterate_fields(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def default_of(info: FieldInfo) -> str:
    """A field's default as one would write it in YAML, ``(required)`` or ``(unset)``."""
    if info.is_required():
        return "(required)"
    default = info.get_default(call_default_factory=True)
    if default is None:
        return "(unset)"
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    if isinstance(default, tuple):
        default = list(default)
    return _in_one_line(dict(default) if isinstance(default, Mapping) else default)


def allowed_values(root: type[Root], key: str) -> str:
    """What a setting may be: ``auto | fp32 | bf16``, ``at least 0``, ``path``."""
    *sections, name = parts = key.split(".")
    schema = _schema(root)
    properties = schema["properties"]
    for section in sections:
        reference = properties[section]["$ref"]
        properties = schema["$defs"][reference.rpartition("/")[2]]["properties"]
    return _allowed(properties[name], text=_in_words(root, tuple(parts)))


@functools.cache
def _schema(root: type[Root]) -> dict[str, Any]:
    return root.model_json_schema()


def _allowed(schema: Mapping[str, Any], *, text: str) -> str:
    """What this part of a schema allows; `text` says what a text must be that is no path."""
    if union := schema.get("anyOf", schema.get("oneOf")):
        # None is how a setting is unset, not a value to write
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
            if "prefixItems" not in schema:
                return f"{text}, each {_allowed(schema['items'], text=text)}"
            items = schema["prefixItems"]
            names = [item["title"] for item in items if "title" in item]
            what = f"[{', '.join(names)}]" if names else "two numbers"
            return f"{what}, each {_allowed(items[0], text=text)}"
        case "object":
            name = _allowed(schema["propertyNames"], text=text)
            weight = _allowed(schema["additionalProperties"], text=text)
            return f"{{{name}: weight, ...}}, each weight {weight}"
        case _:
            return "path" if schema.get("format") == "path" else text


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    return ", ".join(
        f"{words} {_number(schema[bound])}" for bound, words in bounds.items() if bound in schema
    )


def help_text(root: type[Root]) -> str:
    """All keys with defaults, allowed values and meanings, for ``--help-config``."""
    lines = ["Every setting as key: default  # allowed values, and what it means."]
    section = ""
    for key, info in iterate_fields(root):
        before, _, _ = key.rpartition(".")
        if before != section:
            annotation: Any = root.model_fields[before].annotation
            lines += ["", f"{before}: {annotation.__doc__}"]
            section = before
        lines += ["", f"{key}: {default_of(info)}  # {allowed_values(root, key)}"]
        lines += _wrapped(info.description, indent="    ")
    return "\n".join(lines)


def json_schema(root: type[Root]) -> str:
    """The JSON Schema of a file of settings, for editors; kept beside the files in ``configs/``."""
    schema = _schema(root)
    return (
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema, indent=2)
        + "\n"
    )


def commented_yaml(root: type[Root], keys: Sequence[str], values: Mapping[str, object]) -> str:
    """A YAML file of some settings, each one below its meaning.

    Args:
        root: the kind of file.
        keys: which settings, in the order of the file; those of one section stand together.
        values: what is written for some of them, by key; for the others, the default.
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


def _in_one_line(value: object) -> str:
    return dump_yaml(value, in_one_line=True).removesuffix("...\n").strip("\n")


def _wrapped(text: str | None, *, indent: str) -> list[str]:
    return textwrap.wrap(
        " ".join((text or "").split()), 96, initial_indent=indent, subsequent_indent=indent
    )
