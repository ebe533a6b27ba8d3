"""Where in a TOML text each key, list item and value stands.

tomllib gives values without positions, and a mistake is mended fastest when its place is shown.
This reads text that tomllib has already accepted, so it only has to tell where things begin.
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace

KeyPath = tuple[str | int, ...]

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
SCALAR = re.compile(r"[^,\]}\s#]+(?: [0-9:.+Z-]+)?")  # the space: `2026-11-22 10:00:00`
STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")


@dataclass(frozen=True)
class Spot:
    """The line of a key, counted from 1, and from where to where it and its value stand.

    A list item is its own value; a table's header has none.
    """

    line: int
    key: slice
    value: slice | None = None


def key_spots(text: str) -> Mapping[KeyPath, Spot]:
    """Each key; list items are numbered from 0.

    Source: the grammar of TOML 1.0.
    """
    return _Scanner(text).scan()


def nearest_spot(spots: Mapping[KeyPath, Spot], key: KeyPath) -> Spot | None:
    """Where a key stands or, where it is missing from the text, the table it belongs to."""
    for length in range(len(key), 0, -1):
        spot = spots.get(key[:length])
        if spot is not None:
            return spot if length == len(key) else replace(spot, value=None)
    return None


def dotted(key: KeyPath) -> str:
    """`provision.steps[0]`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            # Quoted as TOML has it, which also keeps a terminal from obeying it.
            name = part if BARE_KEY.fullmatch(part) else json.dumps(part)
            text += f".{name}" if text else name
    return text


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line_ends = [found.start() for found in re.finditer("\n", text)]
        self.spots: dict[KeyPath, Spot] = {}
        self.array_lengths: dict[KeyPath, int] = {}

    def scan(self) -> Mapping[KeyPath, Spot]:
        table: KeyPath = ()
        self._skip_blank()
        while self.at < len(self.text):
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                self._assignment(table)
            self._skip_blank()
        return self.spots

    def _header(self) -> KeyPath:
        line, start = self._line(), self.at
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        *parents, last = (name for name, _ in self._keys())
        self.at = self.text.index("]" * (2 if is_array else 1), self.at) + (2 if is_array else 1)
        table: KeyPath = ()
        for part in parents:
            table = self._newest((*table, part))
        table = (*table, last)
        spot = Spot(line, slice(start, self.at))
        self.spots.setdefault(table, spot)
        if is_array:
            index = self.array_lengths.get(table, 0)
            self.array_lengths[table] = index + 1
            table = (*table, index)
            self.spots[table] = spot
        return table

    def _newest(self, key: KeyPath) -> KeyPath:
        """`[a.b]` below `[[a]]` means the last item of `a`."""
        length = self.array_lengths.get(key)
        return key if length is None else (*key, length - 1)

    def _assignment(self, table: KeyPath) -> None:
        line = self._line()
        key = table
        where = slice(self.at, self.at)
        for part, where in self._keys():
            key = (*key, part)
            self.spots.setdefault(key, Spot(line, where))
        self._skip_blank()
        self.at += 1  # the equals sign
        self._skip_blank()
        start = self.at
        self._value(key)
        self.spots[key] = Spot(line, where, slice(start, self.at))

    def _value(self, key: KeyPath) -> None:
        first = self.text[self.at]
        if first == "[":
            self._items(key, closing="]")
        elif first == "{":
            self._items(key, closing="}")
        else:
            found = STRING.match(self.text, self.at) or SCALAR.match(self.text, self.at)
            self.at = found.end() if found else self.at + 1

    def _items(self, key: KeyPath, *, closing: str) -> None:
        """What stands inside an array or an inline table."""
        self.at += 1
        index = 0
        while True:
            self._skip_blank()
            if self.text.startswith(closing, self.at):
                self.at += 1
                return
            if self.text.startswith(",", self.at):
                self.at += 1
            elif closing == "]":
                line, start = self._line(), self.at
                self._value((*key, index))
                item = slice(start, self.at)
                self.spots[(*key, index)] = Spot(line, item, item)
                index += 1
            else:
                self._assignment(key)

    def _keys(self) -> list[tuple[str, slice]]:
        """A dotted key, with quoted parts unquoted, and where each part stands."""
        parts: list[tuple[str, slice]] = []
        while True:
            self._skip_blank()
            found = STRING.match(self.text, self.at)
            if found:
                name = str(tomllib.loads(f"k = {found.group()}")["k"])
            else:
                found = BARE_KEY.match(self.text, self.at)
                assert found is not None, "tomllib accepted this text, so a key stands here"
                name = found.group()
            parts.append((name, slice(*found.span())))
            self.at = found.end()
            self._skip_blank()
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def _skip_blank(self) -> None:
        found = BLANK.match(self.text, self.at)
        if found:
            self.at = found.end()

    def _line(self) -> int:
        return bisect_left(self.line_ends, self.at) + 1
