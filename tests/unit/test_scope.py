"""Ownership: what is in the journal when, and what is left after each kind of end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from amibuild import signals
from amibuild.errors import AmibuildError, AwsError, Interrupted, LeftoverError
from amibuild.journal import Journal, Kept, Noted, Remains, ResourceKind, Shown, read
from amibuild.names import BakeId
from amibuild.scope import SEARCH_S, OnError, Scope
from amibuild.stage import Stages, told
from amibuild.wait import Observer
from tests.unit.fakes import STARTED, FakeClock, disk_ends_at

BAKE = BakeId("20261122-101500-a1b2c3")
GROUP, MACHINE = ResourceKind.SECURITY_GROUP, ResourceKind.INSTANCE


def refused(code: str) -> AwsError:
    return AwsError(operation="Do", code=code, message="no", region="us-east-1")


class Account:
    """What exists, by id; it is also how things are found and removed."""

    def __init__(self) -> None:
        self.there: dict[str, str] = {}  # id -> token
        self.stuck: set[str] = set()
        self.begun: list[str] = []
        self.not_begun: set[str] = set()
        self.log: list[str] = []
        self.hidden_s: dict[str, float] = {}

    def make(self, id_: str, *, then: Callable[[], None] = lambda: None) -> Callable[[str], str]:
        def create(token: str) -> str:
            self.there[id_] = token
            then()
            return id_

        return create

    def find(self, kind: ResourceKind, bake_id: BakeId, token: str, name: str) -> list[str]:
        return [id_ for id_, made_by in self.there.items() if made_by == token]

    def begin(self, kind: ResourceKind, id_: str) -> None:
        if id_ in self.not_begun:
            raise refused("InvalidInstanceID.NotFound")
        self.begun.append(id_)

    def remove(
        self, kind: ResourceKind, id_: str, token: str, observer: Observer, hidden_s: float = 0.0
    ) -> None:
        self.hidden_s[id_] = hidden_s
        if id_ in self.stuck:
            raise refused("DependencyViolation")
        self.there.pop(id_, None)
        self.log.append(id_)

    def command(self, kind: ResourceKind, id_: str) -> str:
        return f"aws remove {id_}"


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def scope(journal: Journal, account: Account, on_error: OnError = OnError.CLEAN) -> Scope:
    return Scope(journal, account, bake_id=BAKE, region="us-east-1", on_error=on_error)


def test_everything_goes_in_reverse_order_and_the_journal_says_so(
    account: Account, path: Path
) -> None:
    with Journal(path) as journal, scope(journal, account) as owner:
        owner.own(GROUP, "access", "g", account.make("sg-1"))
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
    assert account.log == ["i-1", "sg-1"]
    assert Remains(path).resources == {}


def test_what_was_just_made_and_not_seen_yet_may_be_hidden(account: Account, path: Path) -> None:
    clock = FakeClock()
    with (
        Journal(path) as journal,
        Scope(journal, account, bake_id=BAKE, region="us-east-1", clock=clock) as owner,
    ):
        owner.own(GROUP, "access", "g", account.make("sg-old"))
        clock.sleep(SEARCH_S)
        owner.own(ResourceKind.VOLUME, "disk", "v", account.make("vol-seen"))
        owner.seen("vol-seen")
        owner.own(MACHINE, "builder", "m", account.make("i-new"))
        clock.sleep(10)
    assert account.hidden_s == {"i-new": SEARCH_S - 10, "vol-seen": 0, "sg-old": 0}


def test_a_removal_that_did_not_begin_comes_first(account: Account, path: Path) -> None:
    """A disk is in use until its machine is gone, and the machine's end has not begun."""
    account.not_begun.add("i-1")
    with Journal(path) as journal, scope(journal, account) as owner:
        owner.own(GROUP, "access", "g", account.make("sg-1"))
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        owner.own(ResourceKind.VOLUME, "disk", "v", account.make("vol-1"))
    assert account.log == ["i-1", "vol-1", "sg-1"]


def test_what_is_kept_stays(account: Account, path: Path) -> None:
    with Journal(path) as journal, scope(journal, account) as owner:
        owner.own(GROUP, "access", "g", account.make("sg-1"))
        owner.own(ResourceKind.IMAGE, "image", "n", account.make("ami-1"))
        owner.keep("ami-1", "the result")
    assert list(account.there) == ["ami-1"]
    assert list(Remains(path).kept) == ["ami-1"]


def test_the_intent_is_on_disk_before_the_thing_can_exist(account: Account, path: Path) -> None:
    seen: list[list[str]] = []

    def look() -> None:
        seen.append([event.event for event in read(path)])

    with Journal(path) as journal, scope(journal, account) as owner:
        owner.own(GROUP, "access", "g", account.make("sg-1", then=look))
    assert seen == [["intended"]]


def test_a_reply_that_got_lost_leaves_nothing(account: Account, path: Path) -> None:
    def lose() -> None:
        raise refused("RequestTimeout")

    with (
        Journal(path) as journal,
        pytest.raises(AwsError, match="RequestTimeout"),
        scope(journal, account) as owner,
    ):
        owner.own(MACHINE, "builder", "m", account.make("i-1", then=lose))
    assert account.there == {}
    assert Remains(path).intents == {}
    assert Remains(path).resources == {}


def test_what_shows_up_late_of_a_lost_reply_goes_at_the_end(account: Account, path: Path) -> None:
    clock = FakeClock()

    def lose(_: str) -> str:
        raise AwsError(
            operation="Do", code="Lost", message="no", region="us-east-1", answered=False
        )

    with (
        Journal(path) as journal,
        Scope(journal, account, bake_id=BAKE, region="us-east-1", clock=clock) as owner,
    ):
        with pytest.raises(AwsError, match="Lost"):
            owner.own(ResourceKind.IMAGE, "image", "n", lose)
        (intent,) = Remains(path).intents.values()
        account.there["ami-late"] = intent.token
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
    assert account.log == ["ami-late", "i-1"]
    assert Remains(path).intents == {}
    assert Remains(path).resources == {}


def test_a_refused_creation_closes_its_intent(account: Account, path: Path) -> None:
    def refuse(_: str) -> str:
        raise refused("UnauthorizedOperation")

    with (
        Journal(path) as journal,
        pytest.raises(AwsError),
        scope(journal, account) as owner,
    ):
        owner.own(MACHINE, "builder", "m", refuse)
    assert [event.event for event in read(path)] == ["intended", "abandoned"]


def test_a_removal_that_fails_does_not_stop_the_others(account: Account, path: Path) -> None:
    account.stuck.add("i-1")
    with (
        Journal(path) as journal,
        pytest.raises(LeftoverError) as caught,
        scope(journal, account) as owner,
    ):
        owner.own(GROUP, "access", "g", account.make("sg-1"))
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
    assert list(account.there) == ["i-1"]
    assert [(x.id, x.command) for x in caught.value.leftovers] == [("i-1", "aws remove i-1")]
    assert list(Remains(path).resources) == ["i-1"]


def test_the_first_error_wins_and_carries_the_leftovers(account: Account, path: Path) -> None:
    account.stuck.add("i-1")
    with (
        Journal(path) as journal,
        pytest.raises(AwsError, match="Broken") as caught,
        scope(journal, account) as owner,
    ):
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        raise refused("Broken")
    assert [x.id for x in caught.value.leftovers] == ["i-1"]


@pytest.mark.parametrize("full", [False, True], ids=["first a refusal", "first a full disk"])
def test_what_is_left_is_told_also_where_the_disk_is_full(
    account: Account, path: Path, full: bool
) -> None:
    account.stuck.add("i-1")
    with (
        Journal(path) as journal,
        pytest.raises(AmibuildError) as caught,
        ExitStack() as after_the_bake,
        told(journal, stages := Stages(journal), STARTED),
        scope(journal, account) as owner,
        stages.run("os", "a step"),
    ):
        owner.own(GROUP, "access", "g", account.make("sg-1"))
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        after_the_bake.enter_context(disk_ends_at(path.stat().st_size))
        if full:
            journal.write(Noted(text="no room for this"))
        raise refused("Broken")
    assert ("Broken" in str(caught.value)) is not full
    assert [x.id for x in caught.value.leftovers] == ["i-1"]
    assert list(account.there) == ["i-1"]


def test_a_machine_that_is_kept_on_a_full_disk_is_kept(account: Account, path: Path) -> None:
    heard: list[Shown] = []
    with (
        Journal(path, (heard.append,)) as journal,
        pytest.raises(AwsError),
        ExitStack() as after_the_bake,
        scope(journal, account, OnError.KEEP) as owner,
    ):
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        after_the_bake.enter_context(disk_ends_at(path.stat().st_size))
        raise refused("Broken")
    assert list(account.there) == ["i-1"]
    assert [one.id for one in heard if isinstance(one, Kept)] == ["i-1"]


def test_on_error_keep_keeps_after_a_failure_but_not_after_an_interrupt(
    account: Account, path: Path
) -> None:
    with (
        Journal(path) as journal,
        pytest.raises(AwsError),
        scope(journal, account, OnError.KEEP) as owner,
    ):
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        raise refused("Broken")
    assert list(account.there) == ["i-1"]
    assert list(Remains(path).kept) == ["i-1"]
    with (
        Journal(path) as journal,
        pytest.raises(Interrupted),
        scope(journal, account, OnError.KEEP) as owner,
    ):
        owner.own(MACHINE, "builder", "m", account.make("i-2"))
        raise Interrupted("SIGINT")
    assert list(account.there) == ["i-1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_creating_waits_until_the_id_is_known(
    account: Account, path: Path, number: signal.Signals
) -> None:
    with (
        signals.catch(),
        Journal(path) as journal,
        pytest.raises(Interrupted) as caught,
        scope(journal, account) as owner,
    ):
        owner.own(
            MACHINE, "builder", "m", account.make("i-1", then=lambda: os.kill(os.getpid(), number))
        )
        raise AssertionError("the signal should have arrived")
    assert caught.value.signal_name == number.name
    assert account.log == ["i-1"]
    assert [event.event for event in read(path)] == ["intended", "created", "removed"]


def test_a_second_signal_does_not_stop_the_undo(account: Account, path: Path) -> None:
    class Impatient(Account):
        def remove(
            self,
            kind: ResourceKind,
            id_: str,
            token: str,
            observer: Observer,
            hidden_s: float = 0.0,
        ) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            super().remove(kind, id_, token, observer, hidden_s)

    impatient = Impatient()
    with (
        signals.catch(),
        Journal(path) as journal,
        pytest.raises(Interrupted),
        scope(journal, impatient) as owner,
    ):
        owner.own(GROUP, "access", "g", impatient.make("sg-1"))
        owner.own(MACHINE, "builder", "m", impatient.make("i-1"))
        os.kill(os.getpid(), signal.SIGINT)
    assert impatient.there == {}


def test_what_may_be_kept_is_not_removed_before_the_end(account: Account, path: Path) -> None:
    """A proof that fails comes after the removal of its machine would have begun."""
    with (
        Journal(path) as journal,
        pytest.raises(AwsError),
        scope(journal, account, OnError.KEEP) as owner,
    ):
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        owner.begin_removal("i-1")
        assert account.begun == []
        raise refused("Broken")
    assert list(account.there) == ["i-1"]


def test_begin_removal_starts_what_the_end_waits_for(account: Account, path: Path) -> None:
    with Journal(path) as journal, scope(journal, account) as owner:
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        owner.begin_removal("i-1")
        assert account.begun == ["i-1"]
        assert list(account.there) == ["i-1"]
    assert account.there == {}


def test_what_an_outer_scope_leaves_joins_what_the_inner_one_left(
    account: Account, path: Path
) -> None:
    account.stuck |= {"i-1", "sg-1"}
    with (
        Journal(path) as journal,
        pytest.raises(LeftoverError) as caught,
        scope(journal, account) as outer,
        scope(journal, account) as inner,
    ):
        outer.own(GROUP, "access", "g", account.make("sg-1"))
        inner.own(MACHINE, "builder", "m", account.make("i-1"))
    assert [x.id for x in caught.value.leftovers] == ["i-1", "sg-1"]
