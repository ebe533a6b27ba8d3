"""A TOML file as it was read: its values, its lines, and how a mistake in it is told.

Recipes, provisioners and services all come in through here, so that their mistakes look alike.
"""

from __future__ import annotations

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
from amibuild.recipe.locate import KeyPath, dotted, key_lines, nearest_line
from amibuild.recipe.toml import NESTED, parse_toml, too_deep

M = TypeVar("M", bound=BaseModel)

SYNTAX_ERROR_AT = re.compile(r"^(?P<what>.*) \((?:at line (?P<line>\d+)|at end of document).*\)$")
COMMAND_LINE = Path("--set")
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


@dataclass(frozen=True)
class Origin:
    """Where values came from. Never part of a comparison: two equal recipes may be two files."""

    path: Path = field(default=Path("amibuild.toml"), compare=False)
    lines: Mapping[KeyPath, int] = field(default_factory=dict, compare=False)
    overridden: frozenset[KeyPath] = field(default=frozenset(), compare=False)

    def problem(self, key: KeyPath, problem: str, suggestion: str | None = None) -> Problem:
        """A mistake at `key`: in the file, or on the command line when `--set` gave the value."""
        if any(key[: len(given)] == given for given in self.overridden):
            return Problem(COMMAND_LINE, None, dotted(key), problem, suggestion)
        line = nearest_line(self.lines, key)
        return Problem(self.path, line, dotted(key), problem, suggestion)


@dataclass(frozen=True)
class Document:
    origin: Origin
    values: Mapping[str, Any]

    def check(self, model: type[M]) -> tuple[M | None, list[Problem]]:
        """The model of these values, or every mistake in them."""
        try:
            return model.model_validate(self.values), []
        except ValidationError as error:
            found = error.errors(include_url=False)
            return None, [self._problem(model, e) for e in found if not _follows(e, found)]

    def _problem(self, model: type[BaseModel], error: ErrorDetails) -> Problem:
        key = tuple(part for part in error["loc"] if part != "[key]")
        found = error["input"]
        kind = error["type"]
        if kind == "extra_forbidden":
            return self.origin.problem(key, "is not a known key", _known_key(model, key))
        if kind == "missing":
            return self.origin.problem(key, "is missing")
        if kind in ("enum", "literal_error"):
            expected = re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
            problem = f"{found!r} is not one of {', '.join(expected)}"
            return self.origin.problem(key, problem, did_you_mean(str(found), expected))
        if kind in KINDS:
            problem = f"must be {KINDS[kind]}, and is {_kind_of(found)}"
            return self.origin.problem(key, problem)
        if kind in LIMITS:
            return self.origin.problem(key, LIMITS[kind].format(**error["ctx"]))
        if kind == "value_error":
            return self.origin.problem(key, str(error["ctx"]["error"]))
        return self.origin.problem(key, error["msg"][:1].lower() + error["msg"][1:])


@dataclass(frozen=True)
class LayeredOrigin(Origin):
    """Where values came from that several files gave together, the first one's winning."""

    layers: Sequence[Document] = field(default=(), compare=False)

    def problem(self, key: KeyPath, problem: str, suggestion: str | None = None) -> Problem:
        """A mistake in the file that gave the value, or in the first where none did."""
        depths = [_depth(layer.values, key) for layer in self.layers]
        winner = self.layers[depths.index(max(depths))]
        return winner.origin.problem(key, problem, suggestion)


def overlaid_document(layers: Sequence[Document]) -> Document:
    """One document of several: earlier ones win, tables are joined, lists are replaced."""
    first = layers[0]
    if len(layers) == 1:
        return first
    values: Mapping[str, Any] = {}
    for layer in reversed(layers):
        values = _joined(values, layer.values)
    origin = LayeredOrigin(first.origin.path, first.origin.lines, layers=layers)
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
        raw = path.read_bytes()
    except FileNotFoundError as error:
        hint = "amibuild init writes one" if path.name == "amibuild.toml" else None
        raise RecipeError([Problem(path, None, "", "there is no such file", hint)]) from error
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
        raise RecipeError([Problem(path, None, "", problem)]) from error
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8: byte 0x{raw[error.start]:02x} can't stand here"
        raise RecipeError([Problem(path, line, "", problem)]) from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        values = parse_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([_syntax_problem(path, text, str(error))]) from error
    origin = Origin(path, key_lines(text))
    if deep := too_deep(values):
        # Its whole key path is nothing to read.
        line = min(at for key, at in origin.lines.items() if key[: len(deep)] == deep)
        raise RecipeError([Problem(path, line, dotted(deep[:1]), f"is {NESTED}")])
    return Document(origin, values)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A suggestion, when one of `known` is close to `word`."""
    candidates = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(word.casefold(), candidates, n=1, cutoff=0.6)
    return f"did you mean {candidates[close[0]]}?" if close else None


def _follows(error: ErrorDetails, all_errors: Sequence[ErrorDetails]) -> bool:
    """A list that is too short because its items are wrong is no mistake of its own."""
    at = error["loc"]
    inside = (e for e in all_errors if len(e["loc"]) > len(at) and e["loc"][: len(at)] == at)
    return error["type"] == "too_short" and any(inside)


def _syntax_problem(path: Path, text: str, message: str) -> Problem:
    found = SYNTAX_ERROR_AT.match(message)
    if found is None:
        return Problem(path, None, "", f"is not TOML: {message}")
    line = int(found["line"]) if found["line"] else text.rstrip("\n").count("\n") + 1
    what = found["what"][:1].lower() + found["what"][1:]
    return Problem(path, line, "", f"is not TOML: {what}")


def _known_key(model: type[BaseModel], key: KeyPath) -> str | None:
    """The sibling that was probably meant, else the same key where it would have been right."""
    wrong = str(key[-1])
    siblings = _fields_at(model, key[:-1])
    suggestion = did_you_mean(wrong, siblings)
    if suggestion is not None:
        return suggestion
    elsewhere = [dotted(k) for k in known_keys(model) if k[-1] == wrong]
    return f"did you mean {elsewhere[0]}?" if elsewhere else None


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
    current: type[BaseModel] | None = model
    for part in key:
        if isinstance(part, int) or current is None:
            continue
        info = current.model_fields.get(part)
        # A part that names no field is a key of the user's own, such as a parameter's name.
        current = _model_in(info.annotation) if info is not None else current
    return list(current.model_fields) if current is not None else []


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
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return f"a {type(value).__name__}"
