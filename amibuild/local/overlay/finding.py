"""Describing many things: those that pass every filter.

Sources: EC2 API reference, Filter (`*` and `?` are wildcards, a backslash makes them plain; values
are case-sensitive and one of them is enough), DescribeImages and DescribeSnapshots, Filters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from amibuild.local.overlay.desk import Refusal

Thing = TypeVar("Thing")
MOST_VALUES = 200


def filtered(
    things: Iterable[Thing],
    asked: list[dict[str, Any]],
    known: Mapping[str, Callable[[Thing], Any]],
    tags: Callable[[Thing], Mapping[str, str]],
) -> list[Thing]:
    """The things that pass every filter. `known` is a filter's name -> the value it looks at.

    A value may be a list, of which one has to match, or None, which nothing matches.
    """
    if sum(len(one.get("Values", [])) for one in asked) > MOST_VALUES:
        raise Refusal(
            "FilterLimitExceeded",
            f"The maximum number of filter values specified on a single call is {MOST_VALUES}",
        )
    tests = [_test(one, known, tags) for one in asked]
    return [thing for thing in things if all(test(thing) for test in tests)]


def _test(
    one: dict[str, Any],
    known: Mapping[str, Callable[[Thing], Any]],
    tags: Callable[[Thing], Mapping[str, str]],
) -> Callable[[Thing], bool]:
    name = one.get("Name", "null")
    patterns = [_pattern(value) for value in one.get("Values", [])]

    def value(thing: Thing) -> Any:
        if name.startswith("tag:"):
            return tags(thing).get(name.removeprefix("tag:"))
        if name == "tag-key":
            return list(tags(thing))
        return known[name](thing)

    if not name.startswith("tag:") and name != "tag-key" and name not in known:
        raise Refusal("InvalidParameterValue", f"The filter '{name}' is invalid")
    return lambda thing: any(p.fullmatch(text) for p in patterns for text in _texts(value(thing)))


def _pattern(value: str) -> re.Pattern[str]:
    """Not fnmatch: an image's name may have brackets, which mean themselves."""
    parts = re.findall(r"\\[*?\\]|.", value, re.DOTALL)
    wild = {"*": ".*", "?": "."}
    written = "".join(wild.get(p) or re.escape(p[1:] if len(p) == 2 else p) for p in parts)
    return re.compile(written, re.DOTALL)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [str(value)]
