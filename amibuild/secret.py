"""A value that only a machine is to see, and how it is kept out of every text.

A secret is known to this module from the moment it exists, and whatever this process writes for a
person passes through `masked`: the story, logs, the journal, the manifest, the runbook. One list
for the whole process: what is secret for one part of it is so for all, and a text that forgot to
ask for the list would give it away.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

MASK = "***"
# A shorter one could be guessed from what is told of it to the machine that looks for it on the
# finished disk, and in a text it could be a word.
LEAST_LENGTH = 16
LONGEST_LENGTH = 8 * 1024
# Of a value that is longer on a disk, so much is looked for.
LOOKED_FOR = 1024
# A line with fewer different characters is a frame or an indentation, which others have too.
LEAST_CHARACTERS = 10

_known: dict[str, re.Pattern[str]] = {}
_pattern: re.Pattern[str] | None = None


class Secret:
    """Prints as ***. `name` is what the recipe calls it, and may be shown."""

    __slots__ = ("_value", "_whole", "name")

    def __init__(self, name: str, value: str) -> None:
        """Raises: ValueError, which does not show the value."""
        try:
            length = len(value.strip().encode())
        except UnicodeEncodeError:
            raise ValueError("is not UTF-8") from None
        if length < LEAST_LENGTH:
            raise ValueError(
                f"has {length} bytes, and less than {LEAST_LENGTH} can't be told from other text"
            )
        if length > LONGEST_LENGTH:
            raise ValueError(f"has {length} bytes, and at most {LONGEST_LENGTH} fit")
        self.name = name
        self._value = value
        self._whole = re.compile("|".join(_spellings(value.strip())))
        _remember(value.strip(), self._whole)

    def reveal(self) -> str:
        """The value, for what carries it to a machine. Never for a text."""
        return self._value

    def fingerprint(self, salt: str) -> str:
        """What tells two values apart and gives away neither: a guess costs 16 MiB and 50 ms."""
        made = hashlib.scrypt(
            self._value.encode(), salt=f"{salt}/{self.name}".encode(), n=1 << 14, r=8, p=1, dklen=16
        )
        return made.hex()

    def is_in(self, content: bytes) -> bool:
        """Whether a file or a text has the whole of it, as it is or encoded."""
        return self._whole.search(content.decode(errors="surrogateescape")) is not None

    def written(self) -> Iterator[str]:
        """How it may stand on a disk: as it is, in an address, in JSON, by lines, in base64."""
        value = self._value.strip()
        forms = (
            value,
            quote(value, safe=""),
            json.dumps(value)[1:-1],
            *_particular_lines(value),
            *_in_base64(value.encode()),
        )
        for form in dict.fromkeys(forms):
            cut = form.encode()[:LOOKED_FOR].decode(errors="ignore")
            if len(cut.encode()) >= LEAST_LENGTH:
                yield cut

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written anywhere")


def masked(text: str) -> str:
    """The text with *** in place of every secret, whatever it is encoded for where it stands."""
    return text if _pattern is None else _pattern.sub(MASK, text)


def longest() -> int:
    """How many characters a known value may take, as it is usually written; 0 without one.

    The most is what a character of four bytes takes, as octal escapes that are escaped once more.
    """
    return max((len(value) * len(r"\\360\\237\\230\\200") for value in _known), default=0)


def all_masked(value: Any) -> Any:
    """The same for each text in what JSON can hold."""
    match value:
        case str():
            shown = masked(value)
            return value if shown == value else shown
        case dict():
            return {all_masked(key): all_masked(one) for key, one in value.items()}
        case list() | tuple():
            return type(value)(map(all_masked, value))
        case _:
            return value


def forget_all() -> None:
    """For tests: a process has its secrets until its end."""
    global _pattern
    _known.clear()
    _pattern = None


def _remember(value: str, whole: re.Pattern[str]) -> None:
    global _pattern
    _known[value] = whole
    # A log has each line of a key by itself, with the time in front.
    for line in _particular_lines(value):
        _known.setdefault(line, re.compile("|".join(_spellings(line))))
    # The longest first: a part of a value must not take its place.
    longest_first = sorted(_known, key=len, reverse=True)
    _pattern = re.compile("|".join(_known[one].pattern for one in longest_first))


def _particular_lines(value: str) -> list[str]:
    lines = [line.strip() for line in value.splitlines()]
    return [
        line
        for line in lines
        if len(lines) > 1
        and len(line) >= LEAST_LENGTH
        and len(set(line)) >= LEAST_CHARACTERS
        and not line.startswith("-----")
    ]


def _spellings(value: str) -> Iterator[str]:
    """Regular expressions for what a value looks like in a text."""
    yield "".join(map(_character, value))
    yield f"(?i:{re.escape(value.encode().hex())})"
    for text in _in_base64(value.encode()):
        # base64 breaks its lines. The character behind has up to four bits of the last byte. The one
        # in front has as many of the first, and stays: nothing is found fast that may begin with
        # any character.
        yield r"[\s\\]*".join(map(re.escape, text)) + "[A-Za-z0-9+/_-]?"


def _character(char: str) -> str:
    """One character of a value, as shells, JSON, addresses, XML and YAML may write it.

    Each may be escaped once more where a text stands in another text.
    """
    if char.isascii() and char.isalnum():
        return char
    if char == "\n":
        return r"(?:\s*\r?\n\s*|(?:\\+r)?\\+n|(?i:(?:%0D)?%0A)|\s)"
    if char == "\\":
        return r"(?:\\+|(?i:%5C))"
    hexed = "".join(f"%{byte:02X}" for byte in char.encode())
    units = char.encode("utf-16-be")
    escaped = "".join(rf"\\+u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))
    octal = "".join(rf"\\+{byte:03o}" for byte in char.encode())
    return "(?:{})".format(
        "|".join(
            (
                *((r"'\\''", "'\"'\"'", "&apos;") if char == "'" else ()),
                *((r"\\+t",) if char == "\t" else ()),
                *((r"\+",) if char == " " else ()),
                re.escape(html.escape(char)),
                f"&#{ord(char)};",
                octal,
                f"(?i:{hexed}|{escaped})",
                rf"\\*{re.escape(char)}",
            )
        )
    )


def _in_base64(value: bytes) -> Iterator[str]:
    """The characters that it alone decides, wherever in three bytes it begins."""
    for before in range(3):
        begin = -(-before * 8 // 6)
        end = (before + len(value)) * 8 // 6
        text = base64.b64encode(bytes(before) + value).decode()[begin:end]
        yield text
        if text != (url_safe := text.replace("+", "-").replace("/", "_")):
            yield url_safe
