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
from functools import cache
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
PERCENT = re.compile("%[0-9A-F]{2}")
BY_LETTER = {"\t": "t", "\r": "r", "\f": "f", "\b": "b"}
# What belongs together in a value: line breaks with what is around them, backslashes, a character.
TOKEN = re.compile(r"\s*\n\s*|\\+|.", re.DOTALL)

# Value -> what it looks like in a text, as a regular expression.
_known: dict[str, str] = {}


class Secret:
    """Prints as ***. `name` is what the recipe calls it, and may be shown."""

    __slots__ = ("_value", "name")

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
        _remember(value.strip())

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
        whole = re.compile(_known[self._value.strip()])
        return whole.search(content.decode(errors="surrogateescape")) is not None

    def written(self) -> Iterator[str]:
        """How it may stand on a disk: as it is, in an address, in JSON, by lines, in base64."""
        value = self._value.strip()
        in_address = quote(value, safe="")
        forms = (
            value,
            in_address,
            PERCENT.sub(lambda found: found[0].lower(), in_address),
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
    return _all_of_them().sub(MASK, text) if _known else text


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
    _known.clear()
    _all_of_them.cache_clear()


@cache
def _all_of_them() -> re.Pattern[str]:
    # The longest first: a part of a value must not take its place.
    return re.compile("|".join(_known[one] for one in sorted(_known, key=len, reverse=True)))


def _remember(value: str) -> None:
    # A log has each line of a key by itself, with the time in front; and a step that is given all
    # of a Secrets Manager secret takes what it needs out of it.
    for text in (value, *_texts_in_json(value)):
        for one in (text, *_particular_lines(text)):
            if one not in _known:
                _known[one] = "|".join(_spellings(one))
    _all_of_them.cache_clear()


def _texts_in_json(value: str) -> Iterator[str]:
    """Where the value is an object or a list: the texts in it that could be told from others."""
    try:
        left = [json.loads(value)]
    except (ValueError, RecursionError):
        return
    if not isinstance(left[0], dict | list):
        return
    while left:
        match left.pop():
            case dict() as found:
                left += found.values()
            case list() as found:
                left += found
            case str() as found if len(text := found.strip()) >= LEAST_LENGTH:
                yield text
            case _:
                pass


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
    """Regular expressions for what a value looks like in a text.

    None may look at a text again and again: each repetition that could be followed by what it takes
    itself has an end.
    """
    yield "".join(map(_written, TOKEN.findall(value)))
    yield f"(?i:{re.escape(value.encode().hex())})"
    for text in _in_base64(value.encode()):
        # base64 breaks its lines. The character behind has up to four bits of the last byte. The
        # one in front has as many of the first, and stays: nothing is found fast that may begin
        # with any character.
        yield r"(?:\s|\\[rn]?)*".join(map(re.escape, text)) + "[A-Za-z0-9+/_-]?"


def _written(token: str) -> str:
    """A part of a value as shells, JSON, addresses, mails, XML and YAML may write it.

    Each may be escaped once more where a text stands in another text.
    """
    if "\n" in token:
        return (
            r"(?:\s|\+|\\{1,8}(?:[rnt]|01[125]|040|(?i:x0[ad9]|u000[ad9]))|"
            r"(?i:%(?:25){0,2}(?:0D|0A|20|09)|=0[AD]|&#(?:10|13|x0?[AD]);))+"
        )
    if token[0] == "\\":
        return rf"(?:\\|(?i:%(?:25){{0,2}}5C|\\x5c|=5C|&#92;)){{1,{8 * len(token)}}}"
    return _character(token)


def _character(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    percent = "".join(f"%(?:25){{0,2}}{byte:02X}" for byte in char.encode())
    hexed = "".join(rf"\\{{1,8}}x{byte:02x}" for byte in char.encode())
    quoted = "".join(f"={byte:02X}" for byte in char.encode())
    units = char.encode("utf-16-be")
    escaped = "".join(
        rf"\\{{1,8}}u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2)
    )
    octal = "".join(rf"\\{{1,8}}{byte:03o}" for byte in char.encode())
    return "(?:{})".format(
        "|".join(
            (
                *((r"'\\''", "'\"'\"'", "&apos;") if char == "'" else ()),
                *((rf"\\{{1,8}}{BY_LETTER[char]}",) if char in BY_LETTER else ()),
                *((r"\+",) if char == " " else ()),
                re.escape(html.escape(char)),
                f"&#{ord(char)};",
                octal,
                f"(?i:{percent}|{escaped}|{hexed}|{quoted})",
                rf"\\{{0,8}}{re.escape(char)}",
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
