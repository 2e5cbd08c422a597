"""The types of settings: paths, sizes, shares, layers of VGG, names.

A type checks a value, brings it into one canonical form, and describes in words which values it
accepts. No file is opened here: the code that reads a picture checks whether it exists.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    Tag,
)
from pydantic_core import CoreSchema, core_schema

from fast_style.core.paths import usable_path, with_variables
from fast_style.settings.layers import LAYER_PATTERN, canonical_layer
from fast_style.styles.shipped import model_of, style_picture

# --- Marks: annotations that describe a type ----------------------------------------------------


@dataclass(frozen=True)
class InWords:
    """Describes the texts or lists that a type accepts, or the keys of a mapping, for messages."""

    text: str


@dataclass(frozen=True)
class OldForm:
    """Also accepts the form that earlier versions wrote: `convert` turns it into today's form."""

    convert: Callable[[Any], Any]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.convert, handler(source))


@dataclass(frozen=True)
class OnceMeant:
    """What models and runs that earlier versions wrote, without this setting, mean: `value`.

    They keep this meaning whatever the default is or becomes. A settings file without it means the
    default.
    """

    value: Any


@dataclass(frozen=True)
class FollowsSteps:
    """The default follows from train.steps, which may be raised in a run that goes on.

    Such a run keeps the value that it began with, unless another one is set.
    """


@dataclass(frozen=True)
class IsPath:
    """Marks a text that is a path, relative to the folder of the file that contains it."""

    def means_path(self, text: str) -> bool:
        """Whether `text` is a path, and not a word with a meaning of its own."""
        return True

    def path_of(self, text: str, folder: Path) -> Path:
        """The path that `text` means in a file of this folder.

        Raises:
            ValueError: no file can have this path, or it has an unknown variable.
        """
        return folder / usable_path(with_variables(text, folder))


@dataclass(frozen=True)
class IsPhotoFolder:
    """Marks the path of a folder that is searched for photos, also through links to folders."""


@dataclass(frozen=True)
class IsStylePicture(IsPath):
    """Marks the path of a style picture, or the name of a style that comes with its picture."""

    def path_of(self, text: str, folder: Path) -> Path:
        """As `IsPath.path_of`; that of the picture in the package if `text` is such a name."""
        return style_picture(text, super().path_of(text, folder))


@dataclass(frozen=True)
class PathOr(IsPath):
    """Marks and checks a text that is one of `words`, or else a path."""

    words: tuple[str, ...]

    def means_path(self, text: str) -> bool:
        """Whether `text` is none of the words."""
        return text not in self.words

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        checked = core_schema.no_info_after_validator_function(self._checked, handler(source))
        return core_schema.no_info_before_validator_function(raise_if_unusable, checked)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"anyOf": [{"enum": list(self.words)}, {"format": "path"}]}

    def _checked(self, text: str) -> str:
        return str(usable_path(text)) if self.means_path(text) else text


@dataclass(frozen=True)
class PathOrStyle(PathOr):
    """Marks and checks a text that is one of `words`, the name of a shipped style, or a path."""

    def means_path(self, text: str) -> bool:
        """Whether `text` is neither one of the words nor the name of a style in the package."""
        return super().means_path(text) and model_of(text) is None


# --- Paths --------------------------------------------------------------------------------------


def raise_if_unusable(value: object) -> object:
    """Any value but a ValueError, which `reading` puts in the place of a path that it cannot find.

    Raises:
        ValueError: it is one.
    """
    if isinstance(value, ValueError):
        raise value
    return value


def _to_path(value: object) -> object:
    # In strict mode, pydantic does not turn text into a Path.
    return usable_path(value) if isinstance(value, str) else raise_if_unusable(value)


FilePath = Annotated[
    Path, BeforeValidator(_to_path), PlainSerializer(str, return_type=str), IsPath()
]
"""A file or folder, which need not exist."""

PhotoFolder = Annotated[FilePath, IsPhotoFolder()]
"""A folder of photos, which need not exist."""

StylePicture = Annotated[
    Path, BeforeValidator(_to_path), PlainSerializer(str, return_type=str), IsStylePicture()
]
"""A style picture, which need not exist."""


# --- Numbers ------------------------------------------------------------------------------------


def to_tuple(value: object) -> object:
    """A list as a tuple; any other value unchanged."""
    # In strict mode, pydantic does not turn a list into a tuple.
    return tuple(value) if isinstance(value, list) else value


def _require_ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"must be [least, most] in ascending order, got {list(pair)}")
    return pair


def _side_or_pair(value: object) -> str:
    return "pair" if isinstance(value, tuple) else "side"


Share = Annotated[float, Field(gt=0, le=1)]
ShareRange = Annotated[
    tuple[Share, Share], BeforeValidator(to_tuple), AfterValidator(_require_ascending)
]
"""[least, most], each above 0 and at most 1."""

Counts = Annotated[
    tuple[Annotated[int, Field(ge=1, le=4096)], ...],
    Field(min_length=1, max_length=16),
    InWords("a list of whole numbers"),
    BeforeValidator(to_tuple),
]

SMALLEST_SIDE = 16
"""Least height and width, in pixels, of what a network computes on.

The transform network pads smaller photos, because reflection needs more pixels than it repeats: the
first 9x9 kernel repeats 4 at the full size, the 3x3 kernels 1 at a quarter of it. No scale of an
optimization is smaller either.
"""

_Side = Annotated[int, Field(ge=SMALLEST_SIDE, le=8192)]
# With a discriminator, pydantic reports the mistakes of one form and not those of both.
Size = Annotated[
    Annotated[_Side, Tag("side")]
    | Annotated[
        tuple[Annotated[_Side, Field(title="width")], Annotated[_Side, Field(title="height")]],
        Tag("pair"),
    ],
    Discriminator(_side_or_pair),
    BeforeValidator(to_tuple),
]
"""Size of a picture in pixels: the shorter side, or [width, height]."""


# --- Layers and names ---------------------------------------------------------------------------


def _require_layer(name: str) -> str:
    canonical_layer(name)
    return name


def _canonical_layers(weights: Mapping[str, float]) -> Mapping[str, float]:
    names: dict[str, str] = {}
    layers: dict[str, float] = {}
    for name, weight in weights.items():
        canonical = canonical_layer(name)
        if (earlier := names.setdefault(canonical, name)) != name:
            raise ValueError(f"{earlier} and {name} are one layer under its two names; remove one")
        layers[canonical] = weight
    # A frozen pydantic model does not freeze the dicts in it.
    return MappingProxyType(layers)


Layer = Annotated[
    str,
    AfterValidator(canonical_layer),
    Field(json_schema_extra={"pattern": LAYER_PATTERN}),
    InWords("layer"),
]
LayerWeights = Annotated[
    Mapping[Annotated[str, AfterValidator(_require_layer)], Annotated[float, Field(ge=0)]],
    Field(json_schema_extra={"propertyNames": {"pattern": LAYER_PATTERN}}),
    InWords("layer"),
    AfterValidator(_canonical_layers),
    PlainSerializer(dict, return_type=dict),
]
RunName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"),
    InWords("letters, digits, '.', '_' and '-' (at most 100), a letter or digit first"),
]
