"""YAML as one expects it: the numbers of YAML 1.2, no key twice, no tags, nothing that blows up.

Reads plain data with the line of every key. What the keys mean is the business of `settings`.
"""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from fast_style.core.errors import UserError, printable, shortened, shown

_MAX_BYTES = 1 << 20
MAX_DEPTH = 32
_MAX_NODES = 10_000


@dataclass(frozen=True)
class Document:
    """Plain data, and the line of every key, counted from 1."""

    data: Any
    lines: dict[tuple[str, ...], int]


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema.

    PyYAML follows YAML 1.1, where 1e5 is text, yes is true, 010 is 8 and 12:30 is 750. What 1.1
    alone knows, such as dates and merging with <<, is ordinary text here.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that YAML 1.1 or 1.2 would take for something else."""


# Kind of scalar, what it looks like, and the characters that it can begin with: YAML 1.2.2,
# section 10.3.2.
for _kind, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        list("-+.0123456789"),
    ),
):
    for _class in (_StrictLoader, _Dumper):
        # \Z, because $ would also match before a line break at the end.
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}", re.compile(_pattern + r"\Z"), _first
        )


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes some line breaks of Unicode (U+0085, U+2028) so that it reads them as spaces,
    # unless they stand escaped in double quotes.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(data: object, *, in_one_line: bool = False) -> str:
    """Plain data as YAML that this module, and YAML 1.1 readers too, read back to the same."""
    return yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=math.inf,
        default_flow_style=in_one_line,
    )


def read_text(path: Path, place: str, *, if_missing: str) -> str:
    """The text of a YAML file.

    Args:
        path: the file.
        place: the path as errors name it.
        if_missing: what to do if it is not there, as the error says it.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        if path.is_dir():
            raise UserError(f"{place}: is a folder; give a YAML file")
        if path.exists() and not path.is_file():  # a named pipe would wait for ever
            raise UserError(f"{place}: is not a regular file; give a YAML file")
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{place}: not found; {if_missing}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{place}: cannot be read ({reason})") from None
    if len(raw) > _MAX_BYTES:
        raise UserError(f"{place}: larger than {_MAX_BYTES} bytes; is this really a YAML file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{place}:{line}: not UTF-8 text; save the file as UTF-8") from None


def read_yaml(text: str, place: str, *, any_value: bool = False) -> Document:
    """Plain data of one YAML document, with the line of every key.

    Args:
        text: the YAML.
        place: what errors name, before the line.
        any_value: take any value (of a ``key=value`` word) instead of a mapping.
    """

    def fail(line: int, message: str) -> NoReturn:
        raise UserError(f"{place}: {message}" if any_value else f"{place}:{line}: {message}")

    try:
        _check_extent(text, fail)
        loader = _StrictLoader(io.StringIO(text))
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = printable(error.problem or error.context or "unreadable")
        if r"\t" in problem:
            problem += "; indent with spaces"
        fail(mark.line + 1 if mark else 1, f"not valid YAML: {problem}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        fail(line, f"not valid YAML: the character {chr(error.character)!r} is not allowed")
    lines: dict[tuple[str, ...], int] = {}
    data = _Converter(fail, lines).convert(root, ()) if root is not None else None
    if not any_value and not isinstance(data, dict):
        fail(1, f"must be a list of 'key: value' lines, got {shown(data)}")
    return Document(data, lines)


def _check_extent(text: str, fail: Callable[[int, str], NoReturn]) -> None:
    """Refuse what would take long or blow up, before anything is built."""
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=_StrictLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            fail(line, f"tags are not allowed, got {event.tag!r}")
        if depth > MAX_DEPTH:
            fail(line, f"nested deeper than {MAX_DEPTH} levels")
        if nodes > _MAX_NODES:
            fail(line, f"more than {_MAX_NODES} values")
        if documents > 1:
            fail(line, "a second document begins here; one file holds one configuration")


class _Converter:
    """Turns YAML nodes into plain data; aliases count every time they are used."""

    def __init__(
        self, fail: Callable[[int, str], NoReturn], lines: dict[tuple[str, ...], int]
    ) -> None:
        self.fail = fail
        self.lines = lines
        self.nodes = 0

    def convert(self, node: yaml.Node, key: tuple[str, ...]) -> Any:
        line = node.start_mark.line + 1
        self.nodes += 1
        if self.nodes > _MAX_NODES:
            self.fail(line, f"more than {_MAX_NODES} values once aliases are expanded")
        if len(key) > MAX_DEPTH:
            self.fail(line, f"nested deeper than {MAX_DEPTH} levels once aliases are expanded")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(item, (*key, str(i))) for i, item in enumerate(node.value)]
        return self._mapping(node, key)

    def _mapping(self, node: yaml.Node, key: tuple[str, ...]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.fail(line, "a key must be a plain word")
            name = key_node.value
            if name in data:
                first = self.lines[(*key, name)]
                self.fail(
                    line, f"key '{dotted_key((*key, name))}' is given twice (first at line {first})"
                )
            self.lines[(*key, name)] = line
            data[name] = self.convert(value_node, (*key, name))
        return data

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        text = node.value
        match node.tag.rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                if len(text) > 40:  # beyond any setting, and slow to convert when absurdly long
                    self.fail(line, f"number too long: {text[:20]}...")
                return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
            case "float":
                number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
                # 1e400 is not infinite as written, and becomes so only by overflow
                if math.isinf(number) and "inf" not in text.lower():
                    self.fail(line, f"number too large: {shortened(text)}")
                return number
            case _:
                return text


def dotted_key(key: tuple[str, ...]) -> str:
    """``a.b`` for messages."""
    return shortened(printable(".".join(key))) or "settings"
