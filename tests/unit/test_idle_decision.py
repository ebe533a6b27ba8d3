"""Stay or power off: each rule, their order, and that nothing powers off a machine in use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idle_stop.decision import NEWCOMER_LOOKS, Decision, Look, Memory, Reason, Rules, decide
from idle_stop.flows import Traffic
from idle_stop.windows import read_window

MINUTE = 60.0
BOOTED_S = 1000.0
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RULES = Rules(minutes=30)
NOBODY: dict[str, int | None] = {"game": 0, "voice": 0}


def player(heard: int) -> tuple[Traffic, ...]:
    return (Traffic("game", "203.0.113.5:50000>30000", udp=True, heard=heard, said=heard),)


def browser(port: int) -> tuple[Traffic, ...]:
    """One who asks a lot, and comes from another port each time."""
    return (Traffic("game", f"203.0.113.9:{port}>30000", udp=True, heard=40, said=40),)


@dataclass
class Clock:
    """A machine whose looks come when the test says so."""

    rules: Rules = RULES
    now_s: float = BOOTED_S
    utc: datetime = START
    memory: Memory | None = None
    decisions: list[Decision] = field(default_factory=list)

    def look(self, minutes: float = 1, **seen: Any) -> Decision:
        """After so many minutes; nobody is there when nothing else is said."""
        self.now_s += minutes * MINUTE
        self.utc += timedelta(minutes=minutes)
        fields: dict[str, Any] = {"told": NOBODY, "booted_s": BOOTED_S, **seen}
        look = Look(now_s=self.now_s, utc=fields.pop("utc", self.utc), **fields)
        decision, self.memory = decide(self.rules, self.memory, look)
        self.decisions.append(decision)
        return decision

    def idle(self, minutes: int = 40, **seen: Any) -> Decision:
        """Looks each minute for so long; the last decision."""
        for _ in range(minutes):
            self.look(**seen)
        return self.decisions[-1]


def reasons(clock: Clock) -> list[Reason]:
    """Each once, in their order."""
    found: list[Reason] = []
    for decision in clock.decisions:
        if found[-1:] != [decision.reason]:
            found.append(decision.reason)
    return found


def test_nobody_for_the_whole_wait_powers_it_off_and_not_a_minute_earlier() -> None:
    clock = Clock()
    clock.look(0)
    for minute in range(1, 30):
        decision = clock.look()
        assert (decision.power_off, decision.reason) == (False, Reason.BOOTED)
        assert decision.left_s == (30 - minute) * MINUTE
    assert clock.look() == Decision(True, Reason.NOBODY, NOBODY, 0, 30 * MINUTE, 0.0)


def test_after_a_boot_it_stays_on_for_the_whole_wait_whenever_it_looks_first() -> None:
    late = Clock(now_s=BOOTED_S + 20 * MINUTE)
    assert late.look(0).left_s == 30 * MINUTE
    early = Clock(now_s=BOOTED_S - 5)
    early.look(0)
    assert early.idle(29).reason is Reason.BOOTED


def test_a_player_keeps_it_on_and_the_wait_begins_when_they_left() -> None:
    clock = Clock()
    clock.idle(300, told={"game": 2, "voice": 0})
    assert clock.decisions[-1] == Decision(
        False, Reason.PLAYED, {"game": 2, "voice": 0}, 0, 0.0, 30 * MINUTE
    )
    assert clock.idle(29).reason is Reason.IDLE
    assert clock.look().power_off


def test_players_by_traffic_count_like_those_of_a_query() -> None:
    clock = Clock()
    for look in range(1, 60):
        decision = clock.look(traffic=player(look * 100))
    assert (decision.reason, decision.players) == (Reason.PLAYED, {"game": 1, "voice": 0})


def test_a_player_on_one_service_is_enough() -> None:
    clock = Clock()
    told = {f"s{n}": 0 for n in range(8)}
    assert clock.idle(told={**told, "s5": 1}).reason is Reason.PLAYED


def test_a_service_that_cannot_tell_is_occupied_for_the_wait_and_no_longer() -> None:
    clock = Clock()
    told = {"game": None, "voice": 0}
    assert clock.idle(30, told=told).reason is Reason.NOT_TOLD
    assert clock.decisions[-1].players == told
    assert clock.idle(29, told=told).reason is Reason.IDLE
    assert clock.look(told=told).power_off


def test_one_that_could_tell_in_between_is_given_the_whole_wait_again() -> None:
    clock = Clock()
    told = {"game": None, "voice": 0}
    clock.idle(25, told=told)
    clock.look()
    assert clock.idle(29, told=told).reason is Reason.NOT_TOLD


def test_one_that_never_tells_does_not_hide_who_plays_elsewhere() -> None:
    clock = Clock()
    clock.idle(100, told={"game": None, "voice": 0})
    told = {"game": None, "voice": 3}
    assert clock.look(told=told).reason is Reason.PLAYED
    assert clock.idle(29, told={"game": None, "voice": 0}).reason is Reason.IDLE


def test_players_who_are_seen_count_though_others_cannot_be_told() -> None:
    clock = Clock()
    for look in range(1, 200):
        decision = clock.look(told={"game": None}, traffic=player(look * 100))
    assert (decision.reason, decision.players) == (Reason.PLAYED, {"game": 1})


def test_a_file_holds_it_and_once_it_is_gone_it_powers_off() -> None:
    clock = Clock()
    assert clock.idle(kept_awake=True).reason is Reason.KEEP_AWAKE
    assert clock.decisions[-1].left_s == 0
    assert clock.look().power_off


def test_a_maintenance_window_holds_it_until_its_end() -> None:
    clock = Clock(replace(RULES, maintenance=(read_window("Mon 12:30-14:00"),)))
    assert clock.idle(119).reason is Reason.MAINTENANCE
    assert clock.utc == START + timedelta(minutes=119)
    assert clock.look().power_off


def test_a_window_of_another_day_holds_nothing() -> None:
    clock = Clock(replace(RULES, maintenance=(read_window("Tue..Sun 00:00-24:00"),)))
    assert clock.idle().power_off


def test_one_who_just_came_holds_it_for_a_look_and_then_plays_or_is_gone() -> None:
    comes = Clock()
    comes.look(0)
    comes.idle(29)
    assert comes.look(traffic=player(100)).reason is Reason.NEWCOMERS
    assert comes.look(traffic=player(200)).reason is Reason.PLAYED
    goes = Clock()
    goes.look(0)
    goes.idle(29)
    assert goes.look(traffic=browser(1)).reason is Reason.NEWCOMERS
    assert goes.look(traffic=browser(1)).power_off


def test_newcomers_without_end_do_not_hold_it_for_ever() -> None:
    clock = Clock()
    clock.look(0)
    clock.idle(29)
    held = [clock.look(traffic=browser(port)).reason for port in range(NEWCOMER_LOOKS + 1)]
    assert held == [Reason.NEWCOMERS] * NEWCOMER_LOOKS + [Reason.NOBODY]


def test_newcomers_do_not_begin_the_wait_anew() -> None:
    clock = Clock()
    clock.look(0)
    for port in range(1, 30):
        clock.look(traffic=browser(port))
    assert clock.look().power_off


def test_a_jump_of_the_wall_clock_changes_nothing() -> None:
    clock = Clock()
    clock.look(0)
    for minute in range(1, 30):
        utc = START + timedelta(days=-400 if minute % 2 else 9000)
        assert clock.look(utc=utc).left_s == (30 - minute) * MINUTE
    assert clock.look(utc=START - timedelta(days=9000)).power_off


def test_a_lost_memory_begins_the_wait_anew() -> None:
    clock = Clock()
    clock.idle(200, told={"game": 1})
    clock.memory = None
    assert clock.look().left_s == 30 * MINUTE
    assert clock.idle(29).reason is Reason.IDLE
    assert clock.look().power_off


@pytest.mark.parametrize("now_s", [BOOTED_S + 5, 10.0])
def test_the_memory_of_another_boot_is_worth_nothing(now_s: float) -> None:
    """A monotonic clock begins with the boot; one that is the host's goes on."""
    later = Memory(looked_s=50_000.0, busy_s=40_000.0)
    earlier = Memory(looked_s=BOOTED_S - 1, busy_s=0.0)
    for memory in (later, earlier):
        clock = Clock(now_s=now_s, memory=memory)
        assert clock.look(0, booted_s=min(now_s, BOOTED_S)).left_s == 30 * MINUTE


def test_time_without_looks_is_not_idle_time() -> None:
    clock = Clock()
    clock.look(told={"game": 1})
    assert clock.look(1000).idle_s == 2 * MINUTE
    assert clock.idle(27).reason is Reason.IDLE
    assert clock.look().power_off


def test_looks_that_come_a_little_late_do_not_lengthen_the_wait() -> None:
    clock = Clock()
    clock.look(told={"game": 1})
    for _ in range(19):
        assert not clock.look(1.5).power_off
    assert clock.look(1.5).power_off


def test_an_image_without_services_powers_off_too() -> None:
    assert Clock().idle(told={}).power_off


def test_the_reasons_come_in_this_order() -> None:
    clock = Clock(replace(RULES, maintenance=(read_window("Mon 12:00-15:00"),)))
    clock.idle(40, told={"game": 1}, kept_awake=True)
    clock.idle(20, told={"game": None}, kept_awake=True)
    clock.idle(70, kept_awake=True)
    clock.idle(49)
    clock.look(traffic=browser(1))
    clock.look()
    assert reasons(clock) == [
        Reason.PLAYED,
        Reason.NOT_TOLD,
        Reason.IDLE,
        Reason.KEEP_AWAKE,
        Reason.MAINTENANCE,
        Reason.NEWCOMERS,
        Reason.NOBODY,
    ]


LOOKS = st.lists(
    st.fixed_dictionaries(
        {
            "minutes": st.floats(0, 40),
            "told": st.dictionaries(st.sampled_from("ab"), st.sampled_from([0, 0, 0, 1, None])),
            "kept_awake": st.booleans(),
        }
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(LOOKS, st.sampled_from([5.0, 30.0]))
def test_it_never_powers_off_when_somebody_played_within_the_wait(
    looks: list[dict[str, Any]], minutes: float
) -> None:
    clock = Clock(Rules(minutes))
    last_s = BOOTED_S
    for seen in looks:
        decision = clock.look(**seen)
        if any(seen["told"].values()):
            last_s = clock.now_s
        if clock.now_s - last_s < minutes * MINUTE or seen["kept_awake"]:
            assert not decision.power_off
        assert decision.power_off is (decision.reason is Reason.NOBODY)


@settings(max_examples=300)
@given(LOOKS, st.sampled_from([5.0, 30.0]))
def test_whatever_came_before_it_powers_off_when_nobody_comes_any_more(
    looks: list[dict[str, Any]], minutes: float
) -> None:
    clock = Clock(Rules(minutes))
    for seen in looks:
        clock.look(**seen)
    assert clock.idle(1 + int(minutes), told={"a": 0}).power_off
    # Also where one service never tells again.
    for seen in looks:
        clock.look(**seen)
    assert clock.idle(2 + 2 * int(minutes), told={"a": None}).power_off
