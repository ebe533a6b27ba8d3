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
BRACKET = re.compile(rf"{STRING.pattern}|#[^\n]*|[\[\]{{}}]", re.DOTALL)
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
    """The first part of the key path of a table that dotted keys made too deep."""
    waiting: list[tuple[KeyPath, Mapping[str, Any]]] = [((), values)]
    while waiting:
        path, table = waiting.pop()
        if len(path) > DEEPEST:
            return path
        waiting += [((*path, key), v) for key, v in table.items() if isinstance(v, Mapping)]
    return None


def _nested_at(text: str) -> int | None:
    """Where brackets stand too deep in each other; strings and comments hold none."""
    depth = 0
    for found in BRACKET.finditer(text):
        match found.group()[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth = max(depth - 1, 0)
        if depth > DEEPEST:
            return found.start()
    return None


def _where(text: str, at: int) -> str:
    """As tomllib's own errors say it."""
    line = text.count("\n", 0, at) + 1
    return f"(at line {line}, column {at - text.rfind(chr(10), 0, at)})"
