"""What is wrong with a text that is not TOML, in words for who wrote it, and where.

tomllib stops at the first character that it can't take and says what it expected. Which mistake
leads there is mostly clear, and then that is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amibuild.errors import Problem
from amibuild.recipe.excerpt import excerpt, harmless
from amibuild.recipe.locate import STRING

AT = re.compile(
    r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of .*)\)$", re.DOTALL
)
TOKEN = re.compile(rf"{STRING.pattern}|#[^\n]*|[\"'\[\]{{}}]", re.DOTALL)
WORD = re.compile(r"\[[^\n]*\]|[^\s,\]}#]*")
WORDS = re.compile(r"[^,\]}#\n]*")
SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}
NOTHING = frozenset({"nil", "none", "null", "undefined"})
TABLE = re.compile(r"^[ \t]*\[+([^\]\n]+)\]", re.MULTILINE)
ASSIGNMENT = re.compile(r"[A-Za-z0-9_.-]+[ \t]*=")
ONE_A_LINE = "each line is KEY = VALUE, or [TABLE]"


@dataclass(frozen=True)
class _Told:
    """The problem and what to do; `at` is an offset, where tomllib's own is not the place."""

    problem: str
    suggestion: str | None = None
    at: int | None = None


Teller = Callable[[str, int, re.Match[str]], _Told]


def syntax_problem(path: Path, text: str, message: str) -> Problem:
    """`message` is that of a TOMLDecodeError."""
    found = AT.match(message)
    if found is None:
        return Problem(path, None, "", f"is not TOML: {message}")
    if found["line"]:
        at = _offset(text, int(found["line"]), int(found["column"]))
    else:
        at = len(text.rstrip("\n"))
    told = _told(text, at, found["what"])
    at = at if told.at is None else told.at
    line = text.count("\n", 0, at) + 1
    # Somebody may have written the value of a secret itself there.
    tables = TABLE.findall(text, 0, at)
    hidden = bool(tables) and tables[-1].split(".")[0].strip() == "secrets"
    if hidden:
        return Problem(path, line, "", "is not TOML: this line can't be read", ONE_A_LINE)
    shown = excerpt(text, slice(at, max(_word_end(text, at), at + 1)))
    return Problem(path, line, "", f"is not TOML: {told.problem}", told.suggestion, shown)


def _told(text: str, at: int, what: str) -> _Told:
    for pattern, teller in TELLERS:
        known = pattern.match(what)
        if known is not None:
            return teller(text, at, known)
    return _Told(what[:1].lower() + what[1:])


def _offset(text: str, line: int, column: int) -> int:
    begin = 0
    for _ in range(line - 1):
        begin = text.index("\n", begin) + 1
    return begin + column - 1


def _word_end(text: str, at: int) -> int:
    found = WORD.match(text, at)
    return found.end() if found else at


def _line_start(text: str, at: int) -> int:
    """Where the line's first word begins."""
    begin = text.rfind("\n", 0, at) + 1
    return begin + len(text[begin:at]) - len(text[begin:at].lstrip())


def _open_at(text: str, at: int) -> int | None:
    """Where the string or the innermost bracket begins that is open before `at`."""
    brackets: list[int] = []
    for found in TOKEN.finditer(text, 0, at):
        match found.group():
            case '"' | "'" as quote:
                # Of three quotes, two were read as an empty string.
                return len(text[: found.end()].rstrip(quote))
            case "[" | "{":
                brackets.append(found.start())
            case "]" | "}" if brackets:
                brackets.pop()
    return brackets[-1] if brackets else None


def _value(text: str, at: int, _: re.Match[str]) -> _Told:
    word = text[at : _word_end(text, at)]
    if ASSIGNMENT.match(text, at) and _open_at(text, at) is not None:
        # The list above was left open, and this is the next key.
        return _unclosed(text, at)
    if not word:
        return _Told("a value is missing")
    if word.lower() in ("true", "false"):
        return _Told(f"{word} is no value", f"write {word.lower()}")
    if word.lower() in SWITCHES:
        return _Told(f"{word} is no value", f'write {SWITCHES[word.lower()]}, or "{word}"')
    if word.lower() in NOTHING:
        return _Told(f"{word} is no value", "leave the key out")
    if word[0].isalpha() or word[0] in "/~$":
        words = harmless(text[at : WORDS.match(text, at).end()].strip())  # type: ignore[union-attr]
        return _Told("a string needs quotes", f'write "{words}"')
    return _Told(f"{word} is no value")


def _given_already(text: str, at: int, _: re.Match[str]) -> _Told:
    begin = _line_start(text, at)
    what = "a table" if text.startswith("[", begin) else "a key"
    return _Told(f"{what} stands here that has been given already", "leave one out", begin)


def _table_twice(text: str, at: int, found: re.Match[str]) -> _Told:
    name = ".".join(re.findall(r"'([^']*)'", found["key"]))
    problem = f"the table {name} stands here for the second time"
    return _Told(problem, "put its keys together under one", _line_start(text, at))


def _inline_twice(_: str, __: int, found: re.Match[str]) -> _Told:
    return _Told(f"the key {found['key']} stands in this table twice", "leave one out")


def _no_equals(text: str, at: int, _: re.Match[str]) -> _Told:
    if text.startswith(":", at):
        return _Told("a key is followed by :", "write = for :")
    begin = _line_start(text, at)
    return _Told("a key needs = and a value", ONE_A_LINE, begin)


def _behind(text: str, at: int, _: re.Match[str]) -> _Told:
    if text.startswith("\r", at):
        problem = "a carriage return stands alone"
        return _Told(problem, "save the file with line ends as Linux or Windows has them")
    if text[at - 1 : at] == "0" and text[at : at + 1].isdigit():
        return _Told("a number can't begin with 0", None, at - 1)
    return _Told("the line should end here", ONE_A_LINE)


def _unclosed(text: str, at: int, _: re.Match[str] | None = None) -> _Told:
    begin = _open_at(text, at) or 0
    what, closing = ("a table in braces", "}") if text[begin] == "{" else ("a list", "]")
    line, here = (text.count("\n", 0, offset) + 1 for offset in (begin, at))
    since = f", which begins on line {line}," if line != here else ""
    return _Told(f"{what}{since} is not closed", f"a comma or {closing} is missing before this")


def _endless(text: str, at: int, _: re.Match[str]) -> _Told:
    return _Told("a string has no end", "close it with the same quotes", _open_at(text, at))


def _character(text: str, at: int, _: re.Match[str]) -> _Told:
    if at >= len(text) or text.startswith("\n", at):
        return _endless(text, at, _)
    return _Told(f"the character U+{ord(text[at]):04X} can't stand here", "remove it")


def _backslash(text: str, at: int, _: re.Match[str]) -> _Told:
    problem = f"{text[at - 2 : at]} stands for nothing"
    return _Told(problem, r"write \\ for a backslash, or put the string in '…'", at - 2)


def _no_key(text: str, at: int, _: re.Match[str]) -> _Told:
    if text.startswith("}", at):
        return _Told("a comma stands before }", "leave it out")
    if at >= len(text) or text[at] in "]=.\n":
        return _Told("a key is missing")
    return _Told("no key begins so", "put it in quotes")


def _header(_: str, __: int, found: re.Match[str]) -> _Told:
    return _Told(f"{found['closing']} is missing behind a table's name")


def _no_date(_: str, __: int, ___: re.Match[str]) -> _Told:
    return _Told("there is no such date")


def _no_statement(_: str, __: int, ___: re.Match[str]) -> _Told:
    return _Told("no key and no table begins so", ONE_A_LINE)


TELLERS: tuple[tuple[re.Pattern[str], Teller], ...] = (
    (re.compile("Invalid value"), _value),
    (re.compile("Cannot overwrite a value"), _given_already),
    (re.compile(r"Cannot declare \((?P<key>.*)\) twice"), _table_twice),
    (re.compile(r"Cannot mutate immutable namespace \((?P<key>.*)\)"), _given_already),
    (re.compile("Duplicate inline table key '(?P<key>.*)'"), _inline_twice),
    (re.compile("Expected '=' after a key"), _no_equals),
    (re.compile("Expected newline or end of document"), _behind),
    (re.compile("Unclosed"), _unclosed),
    (re.compile('Unterminated string|Expected (?:"\'+")'), _endless),
    (re.compile("Illegal character|Found invalid character"), _character),
    (re.compile("Unescaped"), _backslash),
    (re.compile("Invalid initial character"), _no_key),
    (re.compile("Invalid statement"), _no_statement),
    (re.compile("Invalid date"), _no_date),
    (re.compile(r"Expected '(?P<closing>\]+)'"), _header),
)
