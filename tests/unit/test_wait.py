"""The polling loop, on a clock of its own."""

from __future__ import annotations

import pytest

from amibuild.errors import ResourceFailed, WaitTimeout
from amibuild.wait import LONGEST_INTERVAL_S, Look, Waiting, until
from tests.unit.fakes import FakeClock


def after(clock: FakeClock, seconds: float) -> Look[str]:
    return Look("ready", "it") if clock.elapsed >= seconds else Look("pending")


def test_the_value_comes_back_as_soon_as_it_is_there() -> None:
    clock = FakeClock()
    assert until(lambda: after(clock, 0), what="x", timeout_s=1, clock=clock) == "it"
    assert clock.sleeps == []


@pytest.mark.parametrize("seconds", [1, 8, 68, 1500])
def test_a_long_wait_overshoots_little_and_asks_seldom(seconds: int) -> None:
    clock, looks = FakeClock(), []

    def look() -> Look[str]:
        looks.append(clock.elapsed)
        return after(clock, seconds)

    until(look, what="x", timeout_s=3600, clock=clock)
    assert clock.elapsed - seconds <= max(0.1 * seconds, 1.0)
    assert clock.elapsed - seconds <= LONGEST_INTERVAL_S
    assert len(looks) <= 60 + seconds / LONGEST_INTERVAL_S


def test_the_deadline_says_what_was_seen_last() -> None:
    clock = FakeClock()
    with pytest.raises(WaitTimeout) as caught:
        until(lambda: Look[str]("pending 42%"), what="ami-1", timeout_s=30, clock=clock)
    assert caught.value.last_state == "pending 42%"
    assert "ami-1 after 30 s" in caught.value.message
    assert 30 <= clock.elapsed <= 31


def test_a_dead_state_ends_it_at_once() -> None:
    clock = FakeClock()

    def look() -> Look[str]:
        raise ResourceFailed(what="ami-1", state="failed", reason="disk")

    with pytest.raises(ResourceFailed, match="ami-1 is failed: disk"):
        until(look, what="ami-1", timeout_s=30, clock=clock)
    assert clock.sleeps == []


def test_the_observer_hears_every_look() -> None:
    clock, heard = FakeClock(), list[Waiting]()
    until(lambda: after(clock, 1), what="x", timeout_s=9, clock=clock, observer=heard.append)
    assert heard[0].state == "pending"
    assert heard[-1].state == "ready"
    assert all(w.timeout_s == 9 for w in heard)


def test_a_look_that_outlives_the_deadline_is_not_the_last() -> None:
    """The network was away meanwhile: what it shows next has had no time to change."""
    clock, looks = FakeClock(), 0

    def look() -> Look[str]:
        nonlocal looks
        looks += 1
        if looks == 1:
            clock.sleep(600)
        return Look("pending", "it" if looks == 2 else None)

    assert until(look, what="x", timeout_s=300, clock=clock) == "it"
