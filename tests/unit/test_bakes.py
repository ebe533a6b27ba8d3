"""What the journals tell of bakes: how each ended, what it was, what it left; and one that runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from amibuild.bakes import State, bakes, facts_of, followed
from amibuild.cli.bakes import bakes_text
from amibuild.journal import (
    KEPT_FOR_A_LOOK,
    BakeEnded,
    Created,
    Event,
    Intended,
    Journal,
    Kept,
    Noted,
    Outcome,
    Removed,
    ResourceKind,
    StepEnded,
    StepStarted,
    journal_path,
)
from tests.unit.fakes import STARTED, FakeClock

BEGAN = STARTED.at
FIRST = StepStarted(at=BEGAN + timedelta(seconds=1), step="preflight", what="looks")
BUILDER = Created(kind=ResourceKind.INSTANCE, id="i-1", token="t-1", region="us-east-1")


def journal(tmp_path: Path, *events: Event, name: str = STARTED.bake_id) -> Path:
    path = journal_path(tmp_path, name)
    with Journal(path) as open_one:
        for event in events:
            open_one.write(event)
    return path


@pytest.mark.parametrize("outcome", list(Outcome))
def test_one_that_ended_says_how_and_after_how_long(tmp_path: Path, outcome: Outcome) -> None:
    ended = BakeEnded(outcome=outcome, seconds=61.5)
    facts = facts_of(journal(tmp_path, STARTED, FIRST, ended))
    assert facts.state.value == outcome.value
    assert (facts.seconds, facts.step, facts.flow) == (61.5, "preflight", "bake")


def test_without_an_end_it_runs_or_is_dead(tmp_path: Path) -> None:
    path = journal_path(tmp_path, "b")
    with Journal(path) as running:
        running.write(STARTED)
        running.write(FIRST)
        facts = facts_of(path, BEGAN + timedelta(seconds=90))
        assert (facts.state, facts.seconds) == (State.RUNNING, 90)
    facts = facts_of(path, BEGAN + timedelta(days=9))
    assert (facts.state, facts.seconds) == (State.DEAD, 1)


def test_a_resumed_one_began_when_it_first_did_and_runs_since_it_was_resumed(
    tmp_path: Path,
) -> None:
    path = journal_path(tmp_path, "b")
    with Journal(path) as running:
        running.write(STARTED)
        running.write(BakeEnded(outcome=Outcome.KEPT, seconds=60))
        running.write(STARTED.model_copy(update={"at": BEGAN + timedelta(hours=1)}))
        facts = facts_of(path, BEGAN + timedelta(hours=1, seconds=5))
    assert (facts.state, facts.began, facts.seconds) == (State.RUNNING, BEGAN, 5)


def test_what_is_left_is_what_is_neither_gone_nor_the_result(tmp_path: Path) -> None:
    image = Created(kind=ResourceKind.IMAGE, id="ami-2", token="t-2", region="us-east-1")
    group = Created(kind=ResourceKind.SECURITY_GROUP, id="sg-1", token="t-3", region="us-east-1")
    path = journal(
        tmp_path,
        STARTED,
        Intended(kind=ResourceKind.INSTANCE, name="m", token="t-1", region="us-east-1"),
        BUILDER,
        image,
        group,
        Removed(kind=ResourceKind.SECURITY_GROUP, id="sg-1", region="us-east-1"),
        Kept(kind=ResourceKind.INSTANCE, id="i-1", region="us-east-1", why=KEPT_FOR_A_LOOK),
        Kept(kind=ResourceKind.IMAGE, id="ami-2", region="us-east-1", why="the result"),
        BakeEnded(outcome=Outcome.KEPT, seconds=3),
    )
    assert facts_of(path).left == ((ResourceKind.INSTANCE, "i-1"),)


def test_verifications_and_promotions_are_told_from_bakes(tmp_path: Path) -> None:
    only = StepStarted(step="verify", what="ami-1 on a fresh boot")
    assert facts_of(journal(tmp_path, STARTED, only)).flow == "verify"
    promotion = STARTED.model_copy(update={"flow": "promote"})
    assert facts_of(journal(tmp_path, promotion, FIRST, name="p")).flow == "promote"


def test_the_newest_is_first_and_a_damaged_journal_has_its_line(tmp_path: Path) -> None:
    journal(tmp_path, STARTED, name="20261122-101500-a1b2c3")
    journal_path(tmp_path, "20261123-101500-a1b2c3").write_text("{torn\n")
    found = list(bakes(tmp_path))
    assert [one.id for one in found] == ["20261123-101500-a1b2c3", "20261122-101500-a1b2c3"]
    lines = bakes_text(found).splitlines()
    assert len(lines) == 3
    assert "dead" in lines[1]


class Events(FakeClock):
    """Something happens whenever somebody waits."""

    def __init__(self, *happens: Callable[[], None]) -> None:
        super().__init__()
        self.happens = list(happens)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.happens:
            self.happens.pop(0)()


def test_a_follower_sees_each_event_once_and_the_end(tmp_path: Path) -> None:
    ended = StepEnded(step="preflight", seconds=1)
    over = BakeEnded(outcome=Outcome.DONE, seconds=2)
    with Journal(journal_path(tmp_path, "b")) as running:
        running.write(STARTED)

        def write(*events: Event) -> Callable[[], None]:
            def happens() -> None:
                for event in events:
                    running.write(event)

            return happens

        clock = Events(write(FIRST), lambda: None, write(ended, Noted(text="x")), write(over))
        seen = list(followed(running.path, clock))
    assert [one.event for one in seen] == [
        "bake-started", "step-started", "step-ended", "noted", "bake-ended",
    ]  # fmt: skip


def test_a_follower_ends_with_the_process(tmp_path: Path) -> None:
    running = Journal(journal_path(tmp_path, "b"))
    running.write(STARTED)

    def dies() -> None:
        running.write(FIRST)
        running.__exit__()

    assert list(followed(running.path, Events(dies))) == [STARTED, FIRST]


def test_a_follower_looks_again_soon_however_long_nothing_came(tmp_path: Path) -> None:
    """A wait of `until` gets slower the longer it takes."""
    with Journal(journal_path(tmp_path, "b")) as running:
        running.write(STARTED)
        quiet: list[Callable[[], None]] = [lambda: None] * 2000
        over = BakeEnded(outcome=Outcome.DONE, seconds=2)
        clock = Events(*quiet, lambda: running.write(over))
        list(followed(running.path, clock))
    assert clock.elapsed > 300
    assert max(clock.sleeps) < 1
