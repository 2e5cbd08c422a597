"""Reads a strict subset of YAML 1.2: no tags, no repeated keys, bounded depth and size.

The result is plain data with the line number of every key. This module does not know which keys
exist.
"""

import codecs
import io
import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from fast_style.core.errors import UserError, printable, shortened, shown
from fast_style.core.files import pointer_in
from fast_style.core.paths import ODD_SPACES

_MAX_BYTES = 1 << 20
MAX_DEPTH = 32
_MAX_NODES = 10_000


Key = tuple[str | int, ...]
"""The place of a value, outermost part first: keys of mappings, and list indices from 0."""


@dataclass(frozen=True)
class Document:
    """Plain data, and the line number (from 1) of every key and every list entry."""

    data: Any
    lines: dict[Key, int]


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema.

    PyYAML follows YAML 1.1, where 1e5 is text, yes is true, 010 is 8 and 12:30 is 750. Dates and
    merging with <<, which only YAML 1.1 has, are ordinary text here.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def fetch_more_tokens(self) -> Any:
        r"""As PyYAML's, which raises a ValueError of ``\U00110000`` or ``%YAML 1...1.1``."""
        try:
            return super().fetch_more_tokens()
        except (ValueError, OverflowError):
            problem = "the number of an escape in double quotes, or of a %YAML line, is too large"
            raise yaml.scanner.ScannerError(None, None, problem, self.get_mark()) from None


class _Dumper(yaml.SafeDumper):
    r"""PyYAML's safe dumper; it quotes text that YAML 1.1 or 1.2 would read as another type.

    A line break in a name is written as ``\x0A``: ``\n`` is refused, see `_BACKSLASH_OF_A_PATH`.
    """

    ESCAPE_REPLACEMENTS = {'"': '"', "\\": "\\"}  # type: ignore[misc] # noqa: RUF012


# Type, pattern and possible first characters of every scalar: YAML 1.2.2, section 10.3.2.
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
    # PyYAML reads some Unicode line breaks (U+0085, U+2028) back as spaces unless they are escaped
    # in double quotes.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


_BACKSLASH_OF_A_PATH = re.compile(
    r'"[A-Za-z]:\\(?![\\/])'  # a drive, and one backslash
    r'|"(?:[^\\]|\\[^0abtnvfer_NLP ])*\\[0abtnvfer_NLP ]',  # the first backslash that makes a blank
    re.DOTALL,
)
"""Double-quoted text whose backslash was hardly meant as YAML's escape: ``"D:\\nice"`` would have a
line break. No setting needs such characters, and ``\\x0A`` gives them."""

_NO_ESCAPES = (
    "in double quotes, a backslash begins an escape; write a path in single quotes, or with /"
)


def dump_yaml(data: object, *, in_one_line: bool = False) -> str:
    """Plain data as YAML text, which both this module and YAML 1.1 readers read back unchanged."""
    return yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=math.inf,
        default_flow_style=in_one_line,
    )


_KINDS = {
    "a picture": (
        *(b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
        *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\xff\x0a", b"\0\0\0\x0cJXL "),
    ),
    "a PDF": (b"%PDF-",),
    "an archive, or a .pth file": (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf"),
}
"""Kinds of files that are no text, by their first bytes."""


def _kind_of(raw: bytes) -> str | None:
    """What a file is that is not text; None if it may be text, or is unknown."""
    if (raw[:1] == b"\0" and raw[4:8] == b"ftyp") or (raw[:4] == b"RIFF" and raw[8:12] == b"WEBP"):
        return "a picture or a video"
    if raw[:2] == b"BM" and b"\0" in raw[:16]:
        return "a picture"
    if raw[8:10] == b'{"' and b"\0" in raw[:8]:  # the length of the header comes first
        return "a model"
    return next((kind for kind, starts in _KINDS.items() if raw.startswith(starts)), None)


def read_text(path: Path, place: str, *, if_missing: str, if_binary: str = "") -> str:
    """The text of a YAML file.

    Args:
        path: the file.
        place: the path as error messages show it.
        if_missing: the remedy that the error for a missing file gives.
        if_binary: what the error for a picture or a model says of their place, before the remedy.

    Raises:
        UserError: the file cannot be read, only points to its content, is no text, is larger than
            1 MiB, or is neither UTF-8 nor UTF-16.
    """
    try:
        if path.is_dir():
            raise UserError(f"{place}: is a folder; give a YAML file")
        if path.exists() and not path.is_file():  # reading a named pipe could wait forever
            raise UserError(f"{place}: is not a regular file; give a YAML file")
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{place}: not found; {if_missing}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{place}: cannot be read ({reason})") from None
    if pointer := pointer_in(raw):
        raise UserError(f"{place}: {pointer}")
    instead = "; ".join(filter(None, (if_binary, if_missing)))
    if kind := _kind_of(raw):
        raise UserError(
            f"{place}: is {kind}, but a YAML file of settings is needed here; {instead}"
        )
    if len(raw) > _MAX_BYTES:
        raise UserError(f"{place}: larger than {_MAX_BYTES} bytes; give a YAML file of settings")
    encoding = _encoding_of(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8-sig" and b"\0" in raw:
            raise UserError(
                f"{place}: is no text, but a YAML file of settings is needed here; {instead}"
            ) from None
        line = raw[: error.start].decode(encoding, "replace").count("\n") + 1
        raise UserError(f"{place}:{line}: not UTF-8 text; save the file as UTF-8") from None


def _encoding_of(raw: bytes) -> str:
    """The encoding of a YAML file: YAML 1.2.2, section 5.2. PowerShell's ``>`` writes UTF-16."""
    # Before UTF-16: that of little-endian UTF-32 begins with its mark.
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Without a mark: the first character of a YAML file is ASCII, and its other byte is zero.
    if len(raw) >= 2 and len(raw) % 2 == 0 and 0 in raw[:2] and any(raw[:2]):
        return "utf-16-le" if raw[1] == 0 else "utf-16-be"
    return "utf-8-sig"


def read_yaml(text: str, place: str, *, any_value: bool = False) -> Document:
    """Plain data of one YAML document, with the line number of every key.

    Args:
        text: the YAML.
        place: the file, or the word of the command line, as error messages show it.
        any_value: accept any value, as for a ``key=value`` word; otherwise only a mapping.

    Raises:
        UserError: the first mistake, ``place:line: rule``.
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
        above = text.splitlines()[: mark.line + 1] if mark is not None else []
        for row, content in enumerate(above, start=1):
            if hint := typography_hint(content):
                fail(row, f"not valid YAML: {shortened(repr(content.strip()))}; {hint}")
        is_no_key = "expected ':'" in problem
        if is_no_key:
            mark = error.context_mark  # where the key begins; the problem is seen behind it
        if is_no_key or "mapping values" in problem:
            number = _line_without_space(text, mark)
            if number is not None:
                written = shortened(repr(text.splitlines()[number].strip()))
                fail(number + 1, f"not valid YAML: {written}; {_SPACE}")
        if r"\t" in problem:
            problem += "; indent with spaces"
        elif "quoted scalar" in str(error.context) and "\\" in _line_of(text, error.context_mark):
            problem += f"; {_NO_ESCAPES}"
        elif "mapping values" in problem:
            problem += "; put double quotes around a text with a colon and a space in it"
        elif "${" in _line_of(text, mark):
            problem += "; put single quotes around a text with a variable in it"
        elif "<scalar>" in problem and (quote := _first_quote_in(_line_of(text, mark))):
            kind = "double" if quote == "'" else "single"
            problem += f"; put {kind} quotes around a text with {quote} in it"
        elif "cannot start" in problem or "alphabetic or numeric" in problem:
            problem += "; put single quotes around the text"
        fail(mark.line + 1 if mark else 1, f"not valid YAML: {problem}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        fail(line, f"not valid YAML: the character {chr(error.character)!r} is not allowed")
    lines: dict[Key, int] = {}
    data = _Converter(text, fail, lines).convert(root, ()) if root is not None else None
    if not any_value and not isinstance(data, dict):
        fail(
            root.start_mark.line + 1 if root is not None else 1,
            f"must be lines of 'key: value', got {shown(data)}{space_hint(data)}",
        )
    return Document(data, lines)


_KEY_WITHOUT_SPACE = re.compile(r"\s*(- )?[A-Za-z_][\w.]*:[^\s:/\\]")
_SPACE = "put a space behind the colon"


def space_hint(found: object) -> str:
    """What to add to the message that a section is needed, if ``key:value`` was found instead."""
    if not isinstance(found, str):
        return ""
    hint = typography_hint(found) or (_SPACE if _KEY_WITHOUT_SPACE.match(found) else "")
    return f"; {hint}" if hint else ""


# Right behind the colon: after an ordinary space, such a character belongs to the value.
_KEY_WITH_TYPOGRAPHY = re.compile(
    rf"[\s{ODD_SPACES}]*(-[\s{ODD_SPACES}]+)?[A-Za-z_][\w.]*[\s{ODD_SPACES}]*[:\uff1a][{ODD_SPACES}]*"
)


def typography_hint(line: str) -> str:
    """The remedy for a character beside a line's key that is no YAML, as web pages have them."""
    key = _KEY_WITH_TYPOGRAPHY.match(line)
    for letter in key[0] if key is not None else "":
        if letter == "\uff1a":
            found = "a full-width colon (U+FF1A)"
            return f"{found} stands behind the key; type an ordinary colon and a space"
        if letter in ODD_SPACES:
            name = unicodedata.name(letter).lower()
            article = "an" if name[0] in "aeiou" else "a"
            found = f"{article} {name} (U+{ord(letter):04X})"
            return f"{found} stands beside the key; type an ordinary space"
    return ""


def _line_without_space(text: str, mark: yaml.Mark | None) -> int | None:
    """The line (from 0) of a mistake's ``key:value``: that of the mark, or the last one before."""
    before = text.splitlines()[: mark.line + 1] if mark is not None else []
    filled = [number for number, line in enumerate(before) if line.strip()]
    found = (number for number in filled[:-3:-1] if _KEY_WITHOUT_SPACE.match(before[number]))
    return next(found, None)


def _line_of(text: str, mark: yaml.Mark | None) -> str:
    lines = text.splitlines()
    # A mistake that only the end of the text shows has its mark behind the last line.
    return lines[mark.line] if mark is not None and mark.line < len(lines) else ""


def _first_quote_in(line: str) -> str | None:
    return next((letter for letter in line if letter in "'\""), None)


def _check_extent(text: str, fail: Callable[[int, str], NoReturn]) -> None:
    """Refuse documents that are too deep or too large, before any value is built."""
    depth = num_nodes = num_documents = 0
    for event in yaml.parse(text, Loader=_StrictLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.DocumentStartEvent):
            num_documents += 1
        if isinstance(event, yaml.NodeEvent):
            num_nodes += 1
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            fail(line, f"tags are not allowed, got {event.tag!r}")
        if depth > MAX_DEPTH:
            fail(line, f"nested deeper than {MAX_DEPTH} levels")
        if num_nodes > _MAX_NODES:
            fail(line, f"more than {_MAX_NODES} values")
        if num_documents > 1:
            fail(line, "a second document begins here; write it into a file of its own")


class _Converter:
    """Turns YAML nodes into plain data; every use of an alias counts towards the limits."""

    def __init__(
        self, text: str, fail: Callable[[int, str], NoReturn], lines: dict[Key, int]
    ) -> None:
        self.text = text
        self.fail = fail
        self.lines = lines
        self.num_nodes = 0

    def convert(self, node: yaml.Node, key: Key) -> Any:
        """The data of a node, whose place is `key`."""
        line = node.start_mark.line + 1
        self.num_nodes += 1
        if self.num_nodes > _MAX_NODES:
            self.fail(line, f"more than {_MAX_NODES} values once aliases are expanded")
        if len(key) > MAX_DEPTH:
            self.fail(line, f"nested deeper than {MAX_DEPTH} levels once aliases are expanded")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        if isinstance(node, yaml.SequenceNode):
            return self._list(node, key)
        return self._mapping(node, key)

    def _list(self, node: yaml.Node, key: Key) -> list[Any]:
        data = []
        for index, item in enumerate(node.value):
            self.lines[(*key, index)] = item.start_mark.line + 1
            data.append(self.convert(item, (*key, index)))
        return data

    def _mapping(self, node: yaml.Node, key: Key) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.fail(line, "a key must be a word, not a list or a section")
            name = key_node.value
            if name in data:
                first = self.lines[(*key, name)]
                self.fail(line, f"{dotted_key((*key, name))}: given twice (first at line {first})")
            self.lines[(*key, name)] = line
            data[name] = self.convert(value_node, (*key, name))
        return data

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        text = node.value
        if node.style == '"':
            written = self.text[node.start_mark.index : node.end_mark.index]
            if _BACKSLASH_OF_A_PATH.match(written):
                self.fail(line, f"{shortened(written)}: {_NO_ESCAPES}")
        match node.tag.rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                if len(text) > 40:  # no setting is as large, and very long ones convert slowly
                    self.fail(line, f"number too long: {text[:20]}...")
                return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
            case "float":
                number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
                # 1e400 is written as a finite number, and overflows to infinity
                if math.isinf(number) and "inf" not in text.lower():
                    self.fail(line, f"number too large: {shortened(text)}")
                return number
            case _:
                return text


def dotted_key(key: Key) -> str:
    """A key for messages: ``train.steps``, ``style.blend[0].weight``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return shortened(printable("".join(parts).removeprefix("."))) or "settings"
