"""The journal after a crash: what can still be read, and who is alive."""

from __future__ import annotations

from pathlib import Path

import pytest

from amibuild.journal import (
    Created,
    Intended,
    Journal,
    JournalBusy,
    Noted,
    Remains,
    Removed,
    ResourceKind,
    is_live,
    read,
)
from tests.unit.fakes import disk_ends_at

INTENT = Intended(kind=ResourceKind.INSTANCE, name="m", token="t-1", region="us-east-1")
MADE = Created(kind=ResourceKind.INSTANCE, id="i-1", token="t-1", region="us-east-1")
GONE = Removed(kind=ResourceKind.INSTANCE, id="i-1", region="us-east-1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals" / "b.jsonl"


def test_events_come_back_as_they_were_written(path: Path) -> None:
    with Journal(path) as journal:
        for event in (INTENT, MADE, GONE):
            journal.write(event)
    assert list(read(path)) == [INTENT, MADE, GONE]


def test_remains_follow_a_thing_from_intent_to_removal(path: Path) -> None:
    with Journal(path) as journal:
        journal.write(INTENT)
        assert list(Remains(path).intents) == ["t-1"]
        journal.write(MADE)
        assert (list(Remains(path).intents), list(Remains(path).resources)) == ([], ["i-1"])
        journal.write(GONE)
        assert Remains(path).resources == {}


def test_a_journal_cut_at_any_byte_keeps_the_lines_before_the_cut(path: Path) -> None:
    with Journal(path) as journal:
        for event in (INTENT, MADE, GONE):
            journal.write(event)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        events = list(read(path))
        assert events[:lines] == [INTENT, MADE, GONE][:lines]
        assert len(events) <= lines + 1


def test_writing_goes_on_after_a_torn_line(path: Path) -> None:
    with Journal(path) as journal:
        journal.write(INTENT)
    path.write_bytes(path.read_bytes() + b'{"event": "crea')
    with Journal(path) as journal:
        journal.write(MADE)
    assert list(read(path)) == [INTENT, MADE]


@pytest.mark.parametrize("fits", [0, 1, 60])
def test_a_line_that_does_not_fit_on_the_disk_is_an_error_and_hides_no_later_one(
    path: Path, fits: int
) -> None:
    """Of a line that has no room the first part is written, and that is no error of the call."""
    with Journal(path) as journal:
        journal.write(INTENT)
        with disk_ends_at(path.stat().st_size + fits), pytest.raises(OSError):
            journal.write(MADE)
        journal.write(GONE)
    assert list(read(path)) == [INTENT, GONE]


def test_a_journal_with_a_torn_end_is_opened_on_a_full_disk(path: Path) -> None:
    with Journal(path) as journal:
        journal.write(INTENT)
    path.write_bytes(path.read_bytes() + b'{"at": "2026')
    with disk_ends_at(path.stat().st_size):
        journal = Journal(path)
    with journal:
        journal.write(MADE)
    assert list(read(path)) == [INTENT, MADE]


def test_what_is_told_on_a_full_disk_is_shown_and_no_error(path: Path) -> None:
    heard: list[object] = []
    with Journal(path, (heard.append,)) as journal, disk_ends_at(10):
        journal.tell(INTENT)
    assert heard == [INTENT]
    assert list(read(path)) == []


def test_a_journal_is_live_while_it_is_open_and_has_one_writer(path: Path) -> None:
    with Journal(path):
        assert is_live(path)
        with pytest.raises(JournalBusy):
            Journal(path)
    assert not is_live(path)


def test_subscribers_hear_what_is_written_and_what_is_only_shown(path: Path) -> None:
    heard: list[object] = []
    with Journal(path, (heard.append,)) as journal:
        journal.write(INTENT)
        journal.show(Noted(text="only shown"))
    assert len(heard) == 2
    assert list(read(path)) == [INTENT]
