"""A TOML file as it was read: its values, its lines, and how a mistake in it is told.

Recipes, provisioners and services all come in through here, so that their mistakes look alike.
"""

from __future__ import annotations

import codecs
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from amibuild.errors import Problem, RecipeError
from amibuild.recipe.excerpt import excerpt
from amibuild.recipe.locate import KeyPath, Spot, dotted, key_spots, nearest_spot
from amibuild.recipe.syntax import syntax_problem
from amibuild.recipe.toml import NESTED, parse_toml, too_deep

M = TypeVar("M", bound=BaseModel)

COMMAND_LINE = Path("--set")
# A thousand times what a recipe has. More is another file, or one without an end.
LARGEST = 1024 * 1024
# More names than this are no help, but a list to search.
FEW = 14
# Nobody reads more mistakes than this at once, and with a file of another kind there are thousands.
MOST = 50
KINDS = {
    "bool_type": "true or false",
    "date_type": "a date",
    "dict_type": "a table",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a table",
    "string_type": "a string",
    "tuple_type": "a list",
}
LIMITS = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must be at most {max_length} characters long",
    "string_too_short": "must be at least {min_length} characters long",
    "too_short": "needs at least {min_length} item",
}


class Misplaced(ValueError):
    """What a validator raises when the mistake is only a part of the value: `at` leads to it."""

    def __init__(
        self, problem: str, *at: str | int, suggestion: str | None = None, of_key: bool = False
    ) -> None:
        super().__init__(problem)
        self.at: KeyPath = at
        self.suggestion = suggestion
        self.of_key = of_key


@dataclass(frozen=True)
class Origin:
    """Where values came from. Never part of a comparison: two equal recipes may be two files."""

    path: Path = field(default=Path("amibuild.toml"), compare=False)
    text: str = field(default="", compare=False)
    spots: Mapping[KeyPath, Spot] = field(default_factory=dict, compare=False)
    overridden: frozenset[KeyPath] = field(default=frozenset(), compare=False)

    def problem(
        self, key: KeyPath, problem: str, suggestion: str | None = None, *, of_key: bool = False
    ) -> Problem:
        """A mistake at `key`: in the file, or on the command line when `--set` gave the value.

        It is shown at the value or, with `of_key`, at the key itself.
        """
        if any(key[: len(given)] == given for given in self.overridden):
            return Problem(COMMAND_LINE, None, dotted(key), problem, suggestion)
        spot = nearest_spot(self.spots, key)
        if spot is None:
            return Problem(self.path, None, dotted(key), problem, suggestion)
        place = spot.key if of_key or spot.value is None else spot.value
        # Somebody may have written the value of a secret itself there.
        hidden = key[:1] == ("secrets",) and not any(isinstance(part, int) for part in key[1:2])
        shown = None if hidden else excerpt(self.text, place)
        return Problem(self.path, spot.line, dotted(key), problem, suggestion, shown)


@dataclass(frozen=True)
class Document:
    origin: Origin
    values: Mapping[str, Any]

    def check(self, model: type[M]) -> tuple[M | None, list[Problem]]:
        """The model of these values, or every mistake in them."""
        try:
            return model.model_validate(self.values), []
        except ValidationError as error:
            found = _leading(error.errors(include_url=False))
            problems = [self._problem(model, one) for one in found[:MOST]]
            if len(found) > MOST:
                many = f"has {len(found)} mistakes, of which {MOST} are told"
                problems.append(Problem(self.origin.path, None, "", many))
            return None, problems

    def _problem(self, model: type[BaseModel], error: ErrorDetails) -> Problem:
        key = tuple(part for part in error["loc"] if part != "[key]")
        found = error["input"]
        kind = error["type"]
        if kind == "extra_forbidden":
            suggestion = _known_key(model, key)
            return self.origin.problem(key, "is not a known key", suggestion, of_key=True)
        if kind == "missing":
            what = _description(model, key)
            return self.origin.problem(key, f"is missing: {what}" if what else "is missing")
        if kind == "string_too_short" and error["ctx"]["min_length"] == 1:
            return self.origin.problem(key, "is empty")
        if kind in ("enum", "literal_error"):
            expected = re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
            value = repr(found) if isinstance(found, str) else _kind_of(found)
            problem = f"{value} is not one of {', '.join(expected)}"
            return self.origin.problem(key, problem, did_you_mean(str(found), expected))
        if kind in KINDS:
            problem = f"must be {KINDS[kind]}, and is {_kind_of(found)}"
            return self.origin.problem(key, problem)
        if kind in LIMITS:
            return self.origin.problem(key, LIMITS[kind].format(**error["ctx"]))
        if kind == "value_error":
            raised = error["ctx"]["error"]
            if isinstance(raised, Misplaced):
                at = (*key, *raised.at)
                return self.origin.problem(at, str(raised), raised.suggestion, of_key=raised.of_key)
            return self.origin.problem(key, str(raised))
        return self.origin.problem(key, error["msg"][:1].lower() + error["msg"][1:])


@dataclass(frozen=True)
class LayeredOrigin(Origin):
    """Where values came from that several files gave together, the first one's winning."""

    layers: Sequence[Document] = field(default=(), compare=False)

    def problem(
        self, key: KeyPath, problem: str, suggestion: str | None = None, *, of_key: bool = False
    ) -> Problem:
        """A mistake in the file that gave the value, or in the first where none did."""
        depths = [_depth(layer.values, key) for layer in self.layers]
        winner = self.layers[depths.index(max(depths))]
        return winner.origin.problem(key, problem, suggestion, of_key=of_key)


def overlaid_document(layers: Sequence[Document]) -> Document:
    """One document of several: earlier ones win, tables are joined, lists are replaced."""
    first = layers[0]
    if len(layers) == 1:
        return first
    values: Mapping[str, Any] = {}
    for layer in reversed(layers):
        values = _joined(values, layer.values)
    origin = LayeredOrigin(first.origin.path, first.origin.text, first.origin.spots, layers=layers)
    return Document(origin, values)


def _joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(below)
    for key, value in above.items():
        under = joined.get(key)
        both_tables = isinstance(value, dict) and isinstance(under, dict)
        joined[key] = _joined(under, value) if both_tables and under is not None else value
    return joined


def _depth(values: Mapping[str, Any], key: KeyPath) -> int:
    """How many parts of a key path stand here; a list counts as a whole."""
    here: Any = values
    for depth, part in enumerate(key):
        if not isinstance(here, dict) or part not in here:
            return depth
        here = here[part]
    return len(key)


def read_document(path: Path) -> Document:
    """Raises: RecipeError when it can't be read, is not UTF-8 or is not TOML."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except FileNotFoundError as error:
        hint = "amibuild init writes one" if path.name == "amibuild.toml" else None
        raise RecipeError([Problem(path, None, "", "there is no such file", hint)]) from error
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
        raise RecipeError([Problem(path, None, "", problem)]) from error
    if len(raw) > LARGEST:
        problem = f"is larger than {LARGEST} bytes, which nothing that is read here needs"
        raise RecipeError([Problem(path, None, "", problem)])
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise RecipeError([_encoding_problem(path, raw, error.start)]) from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        values = parse_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([syntax_problem(path, text, str(error))]) from error
    origin = Origin(path, text, key_spots(text))
    if deep := too_deep(values):
        # Its whole key path is nothing to read.
        inside = (spot for key, spot in origin.spots.items() if key[: len(deep)] == deep)
        spot = min(inside, key=lambda one: one.line)
        shown = excerpt(text, spot.key)
        raise RecipeError(
            [Problem(path, spot.line, dotted(deep[:1]), f"is {NESTED}", excerpt=shown)]
        )
    return Document(origin, values)


def _encoding_problem(path: Path, raw: bytes, at: int) -> Problem:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Problem(path, None, "", "is UTF-16", "save it as UTF-8")
    line = raw.count(b"\n", 0, at) + 1
    place = len(raw[:at].decode())
    shown = excerpt(raw.decode(errors="replace"), slice(place, place + 1))
    problem = f"is not UTF-8: byte 0x{raw[at]:02x} can't stand here"
    return Problem(path, line, "", problem, "save it as UTF-8", shown)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A suggestion, when one of `known` is close to `word`."""
    candidates = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(word.casefold(), candidates, n=1, cutoff=0.6)
    return f"did you mean {candidates[close[0]]}?" if close else None


def known_are(known: Iterable[str]) -> str | None:
    """All that could have been meant, when they are few enough to read."""
    names = list(known)
    return f"known are {', '.join(names)}" if 0 < len(names) <= FEW else None


def _leading(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """A list that is too short because its items are wrong is no mistake of its own."""
    around = {error["loc"][:length] for error in errors for length in range(len(error["loc"]))}
    return [one for one in errors if one["type"] != "too_short" or one["loc"] not in around]


def _known_key(model: type[BaseModel], key: KeyPath) -> str | None:
    """The sibling that was probably meant, else the same key where it would have been right."""
    wrong = str(key[-1])
    siblings = _fields_at(model, key[:-1])
    suggestion = did_you_mean(wrong, siblings)
    if suggestion is not None:
        return suggestion
    elsewhere = [dotted(k) for k in known_keys(model) if k[-1] == wrong]
    return f"did you mean {elsewhere[0]}?" if elsewhere else known_are(siblings)


def known_keys(model: type[BaseModel], prefix: KeyPath = ()) -> list[KeyPath]:
    """The key paths of all fields, in the order of the model; list items are left out."""
    keys: list[KeyPath] = []
    for name, info in model.model_fields.items():
        keys.append((*prefix, name))
        inner = _model_in(info.annotation)
        if inner is not None:
            keys += known_keys(inner, (*prefix, name))
    return keys


def _fields_at(model: type[BaseModel], key: KeyPath) -> Sequence[str]:
    """As a file names them."""
    found = _model_at(model, key)
    return [info.alias or name for name, info in found.model_fields.items()] if found else []


def _description(model: type[BaseModel], key: KeyPath) -> str | None:
    """What a key is for, in the words that an editor shows."""
    found = _model_at(model, key[:-1])
    info = found.model_fields.get(str(key[-1])) if found else None
    return info.description.rstrip(".") if info and info.description else None


def _model_at(model: type[BaseModel], key: KeyPath) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in key:
        if isinstance(part, int) or current is None:
            continue
        info = current.model_fields.get(part)
        # A part that names no field is a key of the user's own, such as a parameter's name.
        current = _model_in(info.annotation) if info is not None else current
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside `X`, `X | None`, `tuple[X, ...]` or `Mapping[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _model_in(argument)
        if inner is not None:
            return inner
    return None


def _kind_of(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return "a string"
        case int():
            return "a whole number"
        case float():
            return str(value)
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return f"a {type(value).__name__}"
