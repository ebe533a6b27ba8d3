"""A secret is in no text, however it is written there."""

from __future__ import annotations

import base64
import html
import json
import pickle
import quopri
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amibuild import secret
from amibuild.secret import MASK, Secret, all_masked, masked

VALUE = 'pa\'ss "w\\ord"/+?=&%ü-and-more'
PEM = "-----BEGIN A KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nshort\n-----END A KEY-----\n"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    secret.forget_all()


def test_it_prints_as_stars() -> None:
    token = Secret("token", VALUE)
    shown = f"{token} {token!r} {[token]}"
    assert shown == f"{MASK} {MASK} [{MASK}]"
    assert token.reveal() == VALUE
    with pytest.raises(TypeError):
        pickle.dumps(token)


@pytest.mark.parametrize(
    "written",
    [
        lambda v: v,
        lambda v: json.dumps({"key": v}),
        lambda v: json.dumps({"key": v}, ensure_ascii=False),
        lambda v: shlex.quote(v),
        lambda v: quote(v, safe=""),
        lambda v: f"https://host/?a={quote_plus(v)}&b=c",
        lambda v: base64.b64encode(v.encode()).decode(),
        lambda v: base64.b64encode(f"u:{v}".encode()).decode(),
        lambda v: base64.b64encode(f"us:{v}:x".encode()).decode(),
        lambda v: base64.urlsafe_b64encode(f"user:{v}".encode()).decode(),
        lambda v: base64.encodebytes((v * 5).encode()).decode(),
        lambda v: quote(v, safe="").lower(),
        lambda v: v.encode().hex(),
        lambda v: "'" + v.replace("'", "'\\''") + "'",
        lambda v: re.sub(r"([^A-Za-z0-9])", r"\\\1", v),
        lambda v: html.escape(v),
        lambda v: json.dumps(v).replace("&", "\\u0026").replace("/", "\\/"),
        lambda v: json.dumps(json.dumps(v)),
        lambda v: json.dumps({"log": base64.encodebytes((v * 5).encode()).decode()}),
        lambda v: quote(quote(v, safe=""), safe=""),
        lambda v: quopri.encodestring(v.encode(), quotetabs=True).decode().replace("=\n", ""),
        lambda v: "".join(
            rf"\x{byte:02x}" if byte > 126 or chr(byte) in "/+=&" else chr(byte)
            for byte in v.encode()
        ),
    ],
)
def test_it_is_masked_as_it_may_be_written(written: Callable[[str], str]) -> None:
    text = written(VALUE)
    Secret("token", VALUE)
    shown = masked(f"before {text} after")
    assert MASK in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    for part in range(0, len(VALUE) - 8, 4):
        assert VALUE[part : part + 8] not in shown


@pytest.mark.parametrize("before", ["", "u", "us"])
@pytest.mark.parametrize("behind", ["", ":", ":x"])
def test_base64_of_it_shows_nothing_of_its_end(before: str, behind: str) -> None:
    """Two values that differ in their last character look alike."""
    shown = set()
    for last in "am~":
        Secret("token", VALUE + last)
        shown.add(masked(base64.b64encode(f"{before}{VALUE}{last}{behind}".encode()).decode()))
        secret.forget_all()
    assert len(shown) == 1


@settings(deadline=None, max_examples=40)
@given(st.text(min_size=16, max_size=80).filter(lambda v: len(v.strip().encode()) >= 16))
def test_no_value_stays_in_a_text(value: str) -> None:
    secret.forget_all()
    one = Secret("any", value)
    text = f"<<{value}|{json.dumps(value)}|{base64.b64encode(value.encode()).decode()}>>"
    assert one.is_in(text.encode(errors="surrogateescape"))
    assert value.strip() not in masked(text)


def test_a_line_of_a_key_is_masked_by_itself() -> None:
    one, key = Secret("key", PEM), PEM
    assert masked("10:00 MIIEvQIBADANBgkqhkiG9w0BAQ") == f"10:00 {MASK}"
    assert masked("grep -q -- '-----BEGIN A KEY-----'") == "grep -q -- '-----BEGIN A KEY-----'"
    assert masked(f"key: |\n{textwrap.indent(key, '    ')}") == f"key: |\n    {MASK}\n"
    assert masked(json.dumps({"key": key})) == f'{{"key": "{MASK}\\n"}}'
    assert "MIIEvQIBADANBgkqhkiG9w0BAQ" in one.written()
    assert not one.is_in(b"another\n-----BEGIN A KEY-----\n")


@pytest.mark.parametrize("between", ["\n\n\n", "\r\n", "\n \t", " \n\n  "])
@pytest.mark.parametrize(
    "written",
    [
        str,
        lambda v: json.dumps({"key": v}),
        lambda v: json.dumps({"key": json.dumps(v)}),
        lambda v: quote(v, safe=""),
        lambda v: quote_plus(v),
        lambda v: " ".join(v.split()),
        lambda v: textwrap.indent(v, "    "),
    ],
)
def test_its_line_breaks_may_be_written_in_any_way(
    between: str, written: Callable[[str], str]
) -> None:
    value = between.join(["short", "lines", "of a", "key"])
    Secret("key", value)
    shown = masked(f"<{written(value)}>")
    assert MASK in shown
    assert not any(line in shown for line in ("short", "lines", "key>"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('{\n\n\n"a": "correct-horse"}', "{" + "\n" * 100_000),
        ("\\" * 5 + "correct-horse-battery", "\\" * 100_000),
        ("$" * 5 + "correct-horse-battery", "$\\" * 100_000),
        ("c" + "\t" * 9 + "orrect-horse", "c" + " \\t" * 100_000),
        ("c   o   r   r   e   c   t", ("c" + " " * 99) * 1_000),
        ("correct-horse-battery", ("Y2" + "\\" * 99) * 1_000),
    ],
)
def test_no_text_takes_for_ever(value: str, text: str) -> None:
    """What a step prints decides it: the test's own time limit is the judge."""
    Secret("key", value)
    assert masked(text + "x") == text + "x"


def test_what_a_step_takes_out_of_json_is_masked_too() -> None:
    words = {"user": "downloader", "password": "correct-horse-battery", "more": [{"key": PEM}]}
    Secret("all", json.dumps(words, indent=2))
    shown = masked(f"curl -u downloader:correct-horse-battery\n08:00 {PEM.splitlines()[1]}")
    assert shown == f"curl -u downloader:{MASK}\n08:00 {MASK}"


def test_one_that_others_hold_leaves_nothing_of_the_longer() -> None:
    Secret("short", "0123456789abcdef")
    Secret("long", "0123456789abcdef-and-a-tail")
    assert masked("x 0123456789abcdef-and-a-tail y") == f"x {MASK} y"


@pytest.mark.parametrize("value", ["", "short", " " * 40, "x" * 20_000])
def test_what_cannot_be_kept_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(ValueError, match=r"has \d+ bytes"):
        Secret("token", value)
    assert masked("short") == "short"


def test_other_text_is_left_alone() -> None:
    Secret("token", VALUE)
    assert masked("nothing to see") == "nothing to see"


def test_every_text_in_a_structure_is_masked() -> None:
    Secret("token", VALUE)
    told = {"a": [VALUE, 1, None], VALUE: ("x", {"b": f"<{VALUE}>"})}
    assert all_masked(told) == {"a": [MASK, 1, None], MASK: ("x", {"b": f"<{MASK}>"})}


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(ValueError, match="is not UTF-8"):
        Secret("token", "\udcff" * 20)
