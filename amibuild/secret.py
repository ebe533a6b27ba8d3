"""A value that only a machine is to see, and how it is kept out of every text.

A secret is known to this module from the moment it exists, and whatever this process writes for a
person passes through `masked`: the story, logs, the journal, the manifest, the runbook. One list
for the whole process: what is secret for one part of it is so for all, and a text that forgot to
ask for the list would give it away.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

MASK = "***"
# Four bytes of a value are told to the machine that looks for it on the finished disk, so a shorter
# one could be guessed, and in a text it could be a word.
LEAST_LENGTH = 16
# What is between two of its chunks, of which the disk is read.
LONGEST_LENGTH = 16 * 1024

_forms: set[str] = set()
_pattern: re.Pattern[str] | None = None


class Secret:
    """Prints as ***. `name` is what the recipe calls it, and may be shown."""

    __slots__ = ("_value", "name")

    def __init__(self, name: str, value: str) -> None:
        """Raises: ValueError, which does not show the value."""
        length = len(value.strip().encode())
        if length < LEAST_LENGTH:
            raise ValueError(
                f"has {length} bytes, and less than {LEAST_LENGTH} can't be told from other text"
            )
        if len(value.encode()) > LONGEST_LENGTH:
            raise ValueError(f"has {len(value.encode())} bytes, and at most {LONGEST_LENGTH} fit")
        self.name = name
        self._value = value
        _remember(value)

    def reveal(self) -> str:
        """The value, for what carries it to a machine. Never for a text."""
        return self._value

    def is_in(self, content: bytes) -> bool:
        """Whether a file or a text has it, as it is or encoded."""
        text = content.decode(errors="surrogateescape")
        return any(re.search(form, text) for form in _patterns(self._value))

    def written(self) -> Iterator[str]:
        """As it may stand on a disk: as it is, for an address, and in base64."""
        value = self._value.strip()
        yield from dict.fromkeys(
            (value, quote(value, safe=""), base64.b64encode(value.encode()).decode())
        )

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written anywhere")


def masked(text: str) -> str:
    """The text with *** in place of every secret, also where one is encoded for JSON, an address, a
    shell, or in base64, in whatever it stands there."""
    return text if _pattern is None else _pattern.sub(MASK, text)


def forget_all() -> None:
    """For tests: a process has its secrets until its end."""
    global _pattern
    _forms.clear()
    _pattern = None


def _remember(value: str) -> None:
    global _pattern
    _forms.update(_patterns(value))
    # The longest first: a part of a value must not take its place.
    _pattern = re.compile("|".join(sorted(_forms, key=len, reverse=True)))


def _patterns(value: str) -> set[str]:
    """Regular expressions for what the value looks like in a text."""
    value = value.strip()
    # A log has each line of a key by itself, with the time in front.
    lines = {line for line in map(str.strip, value.splitlines()) if len(line) >= LEAST_LENGTH}
    plain = {
        spelled
        for one in (value, *lines)
        for spelled in (
            one,
            json.dumps(one)[1:-1],
            json.dumps(one, ensure_ascii=False)[1:-1],
            quote(one, safe=""),
            quote(one),
            quote_plus(one),
            shlex.quote(one).strip("'"),
        )
    }
    return {re.escape(form) for form in plain} | set(_in_base64(value.encode()))


def _in_base64(value: bytes) -> Iterator[str]:
    """The characters that it alone decides, wherever in three bytes it begins."""
    for before in range(3):
        begin = -(-before * 8 // 6)
        end = (before + len(value)) * 8 // 6
        text = base64.b64encode(bytes(before) + value).decode()[begin:end]
        for form in {text, text.replace("+", "-").replace("/", "_")}:
            # base64 breaks its lines.
            yield r"\s*".join(map(re.escape, form))
