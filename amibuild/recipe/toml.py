"""TOML text -> values, within what Python and whoever reads the values can take.

tomllib recurses over brackets, and int() refuses a number of thousands of digits: both are
mistakes in a file like others, and are told as such.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from amibuild.recipe.locate import STRING, KeyPath

# Nothing that is read here is nested by more than a handful.
DEEPEST = 50
NESTED = f"nested more than {DEEPEST} deep"
MARK = re.compile(rf"{STRING.pattern}|#[^\n]*|[\[\]{{}}.=,\n]", re.DOTALL)
# Beyond this int() raises: sys.int_info.default_max_str_digits.
LONG_NUMBER = re.compile(r"[0-9_]{4301,}")


def parse_toml(text: str) -> dict[str, Any]:
    """Raises: TOMLDecodeError, also for brackets and numbers beyond the limits."""
    nested_at = _nested_at(text)
    if nested_at is not None:
        raise tomllib.TOMLDecodeError(f"{NESTED} {_where(text, nested_at)}")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:
        number = LONG_NUMBER.search(text)
        if number is None:
            raise
        where = _where(text, number.start())
        raise tomllib.TOMLDecodeError(f"a number is too long {where}") from error


def too_deep(values: Mapping[str, Any]) -> KeyPath | None:
    """The first part of the key path of what dotted keys and lists of tables made too deep."""
    waiting: list[tuple[KeyPath, Mapping[str, Any] | list[Any]]] = [((), values)]
    while waiting:
        path, here = waiting.pop()
        if len(path) > DEEPEST:
            return path
        inside = here.items() if isinstance(here, Mapping) else enumerate(here)
        waiting += [((*path, key), v) for key, v in inside if isinstance(v, Mapping | list)]
    return None


def _nested_at(text: str) -> int | None:
    """Where brackets stand too deep in each other, or a key has too many parts, for which tomllib
    and all that follow would take ages; strings and comments hold none."""
    depth, dots, in_key = 0, 0, True
    for found in MARK.finditer(text):
        match found.group()[0]:
            case "[" | "{":
                depth, dots, in_key = depth + 1, 0, True
            case "]" | "}":
                depth = max(depth - 1, 0)
            case "." if in_key:
                dots += 1
            case "=":
                in_key = False
            case "\n":
                dots, in_key = 0, True
            case "," if depth:
                dots, in_key = 0, True
        if max(depth, dots) > DEEPEST:
            return found.start()
    return None


def _where(text: str, at: int) -> str:
    """As tomllib's own errors say it."""
    line = text.count("\n", 0, at) + 1
    return f"(at line {line}, column {at - text.rfind(chr(10), 0, at)})"
