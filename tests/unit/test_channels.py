"""Where a channel came from, what is written of a move, and who may say yes to one."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest

from amibuild.aws.ssm import ParameterVersion
from amibuild.channels import (
    DESCRIPTION_LIMIT,
    REASON_LIMIT,
    WHO_LIMIT,
    Entry,
    Note,
    Verb,
    check_reason,
    note_of,
    taken_back,
    trail,
)
from amibuild.cli.asking import require_yes
from amibuild.cli.channels import history_text
from amibuild.errors import UsageError

NOW = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
IMAGE = "ami-0123456789abcdef0"


def note(image: str = IMAGE, verb: Verb = Verb.PROMOTE) -> Note:
    return Note(move="20261122-101500-a1b2c3", image=image, verb=verb, by="me@here")


def entries(*moves: str) -> list[Entry]:
    """`a` is promoted, `<a` rolled back to, `?a` written by something else."""
    verbs = {"<": Verb.ROLLBACK, "?": None}
    found = []
    for number, move in enumerate(moves, 1):
        image, verb = move[-1], verbs.get(move[0], Verb.PROMOTE)
        said = note(image, verb) if verb else None
        found.append(Entry(number, image, NOW, "arn:aws:iam::1:role/r", said))
    return found


@pytest.mark.parametrize(
    ("moves", "way"),
    [
        ((), ""),
        (("a", "b", "c"), "abc"),
        (("a", "b", "b"), "ab"),
        (("a", "b", "<a"), "a"),
        (("a", "b", "c", "<b", "<a"), "a"),
        (("a", "b", "<a", "c"), "ac"),
        (("a", "b", "a"), "aba"),
        (("a", "?b"), "ab"),
        # One that it had twice: c is a place to go back to still.
        (("a", "b", "c", "b", "d", "<b"), "abcb"),
        (("a", "b", "c", "b", "d", "<b", "<c", "<b"), "ab"),
        # The oldest versions are gone from the history.
        (("b", "<a"), "ba"),
    ],
)
def test_a_rollback_takes_back_what_came_since(moves: tuple[str, ...], way: str) -> None:
    assert "".join(trail(entries(*moves))) == way


@pytest.mark.parametrize(
    ("moves", "back"),
    [
        (("a", "b", "c"), {}),
        (("a", "b", "<a"), {"b": 3}),
        (("a", "b", "c", "<a"), {"b": 4, "c": 4}),
        (("a", "b", "c", "<b", "<a"), {"b": 5, "c": 4}),
        # It got it again: by a promotion, by hand, by another rollback.
        (("a", "b", "<a", "b"), {}),
        (("a", "b", "<a", "?b"), {}),
        (("a", "b", "<a", "<b"), {}),
        (("a", "b", "<a", "b", "<a"), {"b": 5}),
        # It had it before, too, and was rolled back from it all the same.
        (("a", "b", "c", "b", "<c"), {"b": 5}),
    ],
)
def test_what_was_rolled_back_is_taken_back_until_it_comes_again(
    moves: tuple[str, ...], back: dict[str, int]
) -> None:
    found = taken_back(entries(*moves))
    assert {image: entry.version for image, entry in found.items()} == back


def version(description: str, value: str = IMAGE) -> ParameterVersion:
    return ParameterVersion("/a", value, 1, NOW, description)


def test_what_is_written_is_read() -> None:
    assert note_of(version(note().model_dump_json())) == note()


@pytest.mark.parametrize("text", ["", "by hand", "{}", "[]", '{"move": 1}'])
def test_others_words_are_no_note(text: str) -> None:
    assert note_of(version(text)) is None


def test_a_description_that_an_overwrite_has_kept_is_no_note() -> None:
    assert note_of(version(note().model_dump_json(), "ami-2")) is None


def test_a_later_versions_note_can_be_read() -> None:
    later = note().model_dump_json().replace("{", '{"approved":"by x",', 1)
    assert note_of(version(later)) == note()


def test_the_longest_note_fits_a_description() -> None:
    worst = Note(
        move="20261122-101500-a1b2c3",
        image=IMAGE,
        verb=Verb.ROLLBACK,
        by="w" * WHO_LIMIT,
        reason='"' * REASON_LIMIT,
        previous=IMAGE,
        name="n" * 128,
    )
    assert len(worst.model_dump_json()) <= DESCRIPTION_LIMIT


@pytest.mark.parametrize("reason", ["x" * (REASON_LIMIT + 1), "a\nb", "\x1b[31m"])
def test_a_reason_that_does_not_fit_is_refused(reason: str) -> None:
    with pytest.raises(UsageError, match="--reason"):
        check_reason(reason)


def test_a_history_says_who_wrote_what_is_not_ours() -> None:
    lines = history_text(entries("a", "?b")).splitlines()
    assert lines[1].split()[-3:] == ["promote", "me@here", "-"]
    assert lines[2].split()[-3:] == ["-", "arn:aws:iam::1:role/r", "-"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ask(monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO, *, as_json: bool = False) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    require_yes("Really?", yes=False, as_json=as_json)


def test_on_a_terminal_one_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, Terminal("y\n"))
    with pytest.raises(UsageError, match="nothing was changed"):
        ask(monkeypatch, Terminal("n\n"))
    said = capsys.readouterr()
    assert "Really? [y/N]" in said.err
    assert said.out == ""


def test_without_a_terminal_a_yes_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin, as_json in ((io.StringIO("y\n"), False), (Terminal("y\n"), True)):
        with pytest.raises(UsageError) as refused:
            ask(monkeypatch, stdin, as_json=as_json)
        assert refused.value.exit_code == 2
        assert refused.value.hint is not None and "--yes" in refused.value.hint
    require_yes("Really?", yes=True, as_json=True)
