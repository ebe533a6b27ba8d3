"""The README names every verb, and its generated part is fresh."""

from __future__ import annotations

from pathlib import Path

import pytest

from amibuild.cli import docs

README = Path(__file__).parents[2] / "README.md"


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
