"""The README names every verb, and its generated part is fresh."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amibuild.cli import docs

README = Path(__file__).parents[2] / "README.md"
PACKAGE = README.parent / "amibuild"


@pytest.mark.parametrize("verb", [" ".join(verb) for verb in docs.verbs()])
def test_every_verb_is_explained(verb: str) -> None:
    prose = README.read_text().partition(docs.BEGIN)[0]
    group, _, name = verb.partition(" ")
    named = f"`{verb}" in prose or (name and f"`{group} " in prose and name in prose)
    assert named, f"README.md does not explain `{verb}`"


def test_the_help_in_it_is_not_stale() -> None:
    text = README.read_text()
    assert docs.refreshed(text) == text, "run `make docs`"


def test_the_help_is_the_golden_one_whatever_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = docs.block()
    monkeypatch.setenv("COLUMNS", "200")
    assert docs.block() == wide


def test_every_verb_that_a_message_names_exists() -> None:
    known = {" ".join(verb) for verb in docs.verbs()}
    groups = {verb.partition(" ")[0] for verb in known if " " in verb}
    for path in PACKAGE.rglob("*.py"):
        for named in re.finditer(r"`amibuild ([a-z]+)(?: ([a-z]+))?", path.read_text()):
            first, second = named.groups()
            verb = f"{first} {second}" if first in groups and second else first
            assert verb in known | groups, f"{path}: {named.group()}"
