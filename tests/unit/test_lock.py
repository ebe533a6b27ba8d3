"""When a lock is free, whose it is, and which generation comes next; by an injected clock."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.cli.bake import duration_s
from amibuild.errors import ResourceFailed, UsageError
from amibuild.journal import Journal, journal_path
from amibuild.lock import (
    CLOCKS_DIFFER,
    RELEASED,
    Holder,
    Owner,
    here,
    holder,
    is_of,
    parameter,
    standing,
)
from amibuild.names import BakeId

BAKE, OTHER = BakeId("20261122-101500-a1b2c3"), BakeId("20261122-101501-d4e5f6")
SINCE = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
LEASE = timedelta(hours=3)


def held(owner: Owner | None = None) -> Holder:
    return holder(BAKE, owner or here(), SINCE, LEASE)


@pytest.fixture
def ended() -> tuple[int, int | None]:
    """The number and the beginning of a process that is no more."""
    process = proc.start(["cat"], stdin=proc.PIPE)
    began = proc.began(process.pid)
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
    return process.pid, began


def test_a_lock_is_over_when_its_date_is_past_by_more_than_clocks_differ() -> None:
    end = SINCE + LEASE
    assert not held().is_over(end)
    assert not held().is_over(end + CLOCKS_DIFFER)
    assert held().is_over(end + CLOCKS_DIFFER + timedelta(seconds=1))


def test_a_released_lock_is_over_at_once() -> None:
    assert Holder.model_validate_json(RELEASED).is_over(SINCE)
    assert held().model_copy(update={"released": True}).is_over(SINCE)


def test_what_is_written_is_read() -> None:
    assert Holder.model_validate_json(held().model_dump_json()) == held()


def test_a_value_fits_a_standard_parameter() -> None:
    """4 KB (PutParameter); a host's name has up to 64 characters on Linux, a user's 32."""
    owner = replace(here(), host="h" * 253, user="u" * 253)
    assert len(held(owner).model_dump_json()) < 4096


def test_a_later_versions_value_can_be_read() -> None:
    later = held().model_dump_json().replace("{", '{"purpose":"unknown here",', 1)
    assert Holder.model_validate_json(later) == held()


def test_the_owners_process_decides_on_this_machine(
    tmp_path: Path, ended: tuple[int, int | None]
) -> None:
    me = here()
    pid, began = ended
    dead = replace(me, pid=pid, began=began)
    assert not held(me).is_dead(me, tmp_path)
    assert held(dead).is_dead(me, tmp_path)
    recycled = replace(me, began=(me.began or 0) - 1)
    assert held(recycled).is_dead(me, tmp_path), "the number is another's by now"


@pytest.mark.parametrize(
    ("field", "value"),
    [("host", "elsewhere"), ("place", "another boot"), ("place", ""), ("user", "somebody")],
)
def test_who_can_not_be_looked_at_may_live(
    tmp_path: Path, ended: tuple[int, int | None], field: str, value: str
) -> None:
    me = here()
    pid, began = ended
    dead = held(replace(me, pid=pid, began=began))
    assert not dead.model_copy(update={field: value}).is_dead(me, tmp_path)


def test_without_a_place_of_ones_own_nobody_is_dead(
    tmp_path: Path, ended: tuple[int, int | None]
) -> None:
    nowhere = replace(here(), place="")
    gone = replace(nowhere, pid=ended[0], began=ended[1])
    assert not held(gone).is_dead(nowhere, tmp_path)


def test_the_bakes_journal_decides_where_it_is(tmp_path: Path) -> None:
    """Also after a restart of the machine, when process ids mean nothing any more."""
    me = here()
    before = replace(me, place="the last boot")
    path = journal_path(tmp_path, BAKE)
    with Journal(path):
        assert not held(before).is_dead(me, tmp_path)
    assert held(before).is_dead(me, tmp_path)
    assert not held(replace(before, host="elsewhere")).is_dead(me, tmp_path)


def test_a_living_journal_counts_more_than_a_process_that_is_not_seen(
    tmp_path: Path, ended: tuple[int, int | None]
) -> None:
    dead = replace(here(), pid=ended[0], began=ended[1])
    with Journal(journal_path(tmp_path, BAKE)):
        assert not held(dead).is_dead(here(), tmp_path)


def test_a_bake_id_is_no_path() -> None:
    found = standing("web", {parameter("web", 1): '{"bake_id":"../../etc/shadow"}'})
    with pytest.raises(ResourceFailed):
        _ = found.holder


def test_the_highest_generation_counts() -> None:
    values = {parameter("web", n): f'{{"bake_id":"bake-{n}"}}' for n in (9, 10, 11)}
    found = standing("web", values)
    assert (found.generation, found.holder.bake_id) == (11, "bake-11")
    assert found.next == "/amibuild/web/lock/0000000012"
    assert found.below(11) == ["/amibuild/web/lock/0000000009", "/amibuild/web/lock/0000000010"]


def test_an_image_that_was_never_baked_has_a_free_lock() -> None:
    found = standing("web", {})
    assert found.holder.is_over(SINCE)
    assert found.next == "/amibuild/web/lock/0000000001"


def test_a_channel_named_lock_is_no_lock() -> None:
    found = standing("web", {"/amibuild/web/lock/ami-id": "ami-1", parameter("web", 2): RELEASED})
    assert found.generation == 2


@pytest.mark.parametrize("value", ["", "ami-1", "[]", '{"expires":"soon"}', '{"expires":7e99}'])
def test_a_value_of_somebody_else_is_told_and_not_taken_for_free(value: str) -> None:
    with pytest.raises(ResourceFailed, match="/amibuild/web/lock/0000000003 is unreadable") as told:
        _ = standing("web", {parameter("web", 3): value}).holder
    assert told.value.hint is not None and RELEASED in told.value.hint


def test_a_value_says_whose_it_is() -> None:
    value = held().model_dump_json()
    assert is_of(value, BAKE)
    assert not is_of(value, OTHER)
    assert not is_of(RELEASED, BAKE)
    assert not is_of("", BAKE)


def test_this_process_is_told_apart() -> None:
    me = here()
    assert (me.pid, me.began) == (os.getpid(), proc.began(os.getpid()))
    assert me.place, "Linux tells it"


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2h0m5s", 7205)]
)
def test_a_duration_is_written_as_for_terraform(text: str, seconds: float) -> None:
    assert duration_s("--lock-timeout", text) == seconds


@pytest.mark.parametrize("text", ["", "30", "-5m", "5m1h", "1.5h", "soon", "5 m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--lock-timeout") as refused:
        duration_s("--lock-timeout", text)
    assert refused.value.hint is not None
