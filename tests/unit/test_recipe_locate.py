"""Lines are found for every way that TOML has to write a key."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amibuild.recipe.locate import KeyPath, dotted, key_spots, nearest_spot

EVERYTHING = '''\
# a comment with [brackets] and "quotes"
top = 1

[table]            # 4
plain = "x # y ]"
"quoted key" = 'literal [x]'
dotted.inner = 3
list = [ 1,
  2, # two ]
  [3, "]"],
]
inline = { a = 1, b = { c = [10,
  20] } }
text = """
[not.a.table]
no = 1
quote: \\""" and ""x"""
raw = \'\'\'
also = no \\ key\'\'\'
when = 2026-11-22 10:00:00

[[many]]           # 22
x = 1
[[many]]
x = 2
[many.sub]
y = 3
[ spaced . "out" ]
z = 4
'''

EXPECTED: dict[KeyPath, int] = {
    ("top",): 2,
    ("table",): 4,
    ("table", "plain"): 5,
    ("table", "quoted key"): 6,
    ("table", "dotted"): 7,
    ("table", "dotted", "inner"): 7,
    ("table", "list"): 8,
    ("table", "list", 0): 8,
    ("table", "list", 1): 9,
    ("table", "list", 2): 10,
    ("table", "list", 2, 1): 10,
    ("table", "inline"): 12,
    ("table", "inline", "a"): 12,
    ("table", "inline", "b", "c"): 12,
    ("table", "inline", "b", "c", 1): 13,
    ("table", "text"): 14,
    ("table", "raw"): 18,
    ("table", "when"): 20,
    ("many", 0): 22,
    ("many", 0, "x"): 23,
    ("many", 1): 24,
    ("many", 1, "x"): 25,
    ("many", 1, "sub"): 26,
    ("many", 1, "sub", "y"): 27,
    ("spaced", "out"): 28,
    ("spaced", "out", "z"): 29,
}


def paths(value: Any, prefix: KeyPath = ()) -> set[KeyPath]:
    """Every key path of a parsed document."""
    found: set[KeyPath] = {prefix} if prefix else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= paths(inner, (*prefix, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= paths(inner, (*prefix, index))
    return found


@pytest.mark.parametrize(("key", "line"), EXPECTED.items())
def test_a_key_is_found_on_its_line(key: KeyPath, line: int) -> None:
    assert key_spots(EVERYTHING)[key].line == line


def test_every_key_that_tomllib_reads_has_a_line_and_no_other_has() -> None:
    found = set(key_spots(EVERYTHING))
    implied = {("spaced",)}  # only ever named as part of [ spaced . "out" ]
    assert found | implied == paths(tomllib.loads(EVERYTHING)) | {("many",)}


keys = st.one_of(
    st.from_regex(r"[a-z0-9_-]{1,4}", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=4).map(
        lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    ),
)
scalars = st.sampled_from(
    ['"a]"', "'}'", "1", "-2.5e3", "true", "1979-05-27T07:32:00Z", '"""x\n[y]\n"""', "'''\n#'''"]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[\n" + " ,\n".join(items) + "]"),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(keys, values, max_size=4))
def test_any_document_is_scanned_to_its_end(entries: dict[str, str]) -> None:
    text = "".join(f"{key} = {value} # end\n" for key, value in entries.items())
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # two spellings of one key
        return
    assert set(key_spots(text)) == paths(document)


def test_a_missing_key_is_told_at_the_table_that_lacks_it() -> None:
    text = "[a]\nb = 1\n[a.c]\n"
    found = [nearest_spot(key_spots(text), key) for key in (("a", "c", "d", "e"), ("a", "x"))]
    assert [text[spot.key] for spot in found if spot] == ["[a.c]", "[a]"]
    assert nearest_spot(key_spots(text), ("z",)) is None


@pytest.mark.parametrize(
    ("key", "its_text", "value"),
    [
        (("table", "quoted key"), '"quoted key"', "'literal [x]'"),
        (("table", "dotted"), "dotted", None),
        (("table", "dotted", "inner"), "inner", "3"),
        (("table", "list", 2, 1), '"]"', '"]"'),
        (("table", "inline", "b"), "b", "{ c = [10,\n  20] }"),
        (("table", "when"), "when", "2026-11-22 10:00:00"),
        (("many", 1, "sub"), "[many.sub]", None),
        (("spaced", "out"), '[ spaced . "out" ]', None),
    ],
)
def test_a_key_and_its_value_are_known_to_the_letter(
    key: KeyPath, its_text: str, value: str | None
) -> None:
    spot = key_spots(EVERYTHING)[key]
    assert EVERYTHING[spot.key] == its_text
    assert (EVERYTHING[spot.value] if spot.value else None) == value


def test_a_path_is_written_as_a_person_would() -> None:
    assert dotted(("provision", "steps", 0)) == "provision.steps[0]"
    assert dotted(("a", 1, "b")) == "a[1].b"
    assert dotted(()) == ""
