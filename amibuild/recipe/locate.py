"""On which line of a TOML text each key and list item stands.

tomllib gives values without positions, and a mistake is mended fastest when its line is named.
This reads text that tomllib has already accepted, so it only has to tell where things begin.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

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


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """The line of each key, counted from 1; list items are numbered from 0.

    Source: the grammar of TOML 1.0.
    """
    return _Scanner(text).scan()


def nearest_line(lines: Mapping[KeyPath, int], key: KeyPath) -> int | None:
    """The line of a key or, where it is missing from the text, of the table it belongs to."""
    for length in range(len(key), 0, -1):
        line = lines.get(key[:length])
        if line is not None:
            return line
    return None


def dotted(key: KeyPath) -> str:
    """`provision.steps[0]`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.array_lengths: dict[KeyPath, int] = {}

    def scan(self) -> Mapping[KeyPath, int]:
        table: KeyPath = ()
        self._skip_blank()
        while self.at < len(self.text):
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                self._assignment(table)
            self._skip_blank()
        return self.lines

    def _header(self) -> KeyPath:
        line = self._line()
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        *parents, last = self._keys()
        self.at = self.text.index("]" * (2 if is_array else 1), self.at) + (2 if is_array else 1)
        table: KeyPath = ()
        for part in parents:
            table = self._newest((*table, part))
        table = (*table, last)
        self.lines.setdefault(table, line)
        if is_array:
            index = self.array_lengths.get(table, 0)
            self.array_lengths[table] = index + 1
            table = (*table, index)
            self.lines[table] = line
        return table

    def _newest(self, key: KeyPath) -> KeyPath:
        """`[a.b]` below `[[a]]` means the last item of `a`."""
        length = self.array_lengths.get(key)
        return key if length is None else (*key, length - 1)

    def _assignment(self, table: KeyPath) -> None:
        line = self._line()
        key = table
        for part in self._keys():
            key = (*key, part)
            self.lines.setdefault(key, line)
        self._skip_blank()
        self.at += 1  # the equals sign
        self._skip_blank()
        self._value(key)

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
                self.lines[(*key, index)] = self._line()
                self._value((*key, index))
                index += 1
            else:
                self._assignment(key)

    def _keys(self) -> list[str]:
        """A dotted key, with quoted parts unquoted."""
        parts: list[str] = []
        while True:
            self._skip_blank()
            found = STRING.match(self.text, self.at)
            if found:
                parts.append(str(tomllib.loads(f"k = {found.group()}")["k"]))
            else:
                found = BARE_KEY.match(self.text, self.at)
                assert found is not None, "tomllib accepted this text, so a key stands here"
                parts.append(found.group())
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
        return self.text.count("\n", 0, self.at) + 1
