"""Players are told from scans, server browsers and trackers by their traffic at several looks."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from idle_stop.flows import (
    PACKETS_A_MINUTE,
    PACKETS_AT_LEAST,
    Followed,
    Known,
    Traffic,
    follow,
    packets_wanted,
)

PEER = "203.0.113.5:50000>30000"
WAIT_S = 1800.0


def udp(heard: int, said: int, *, peer: str = PEER) -> Traffic:
    return Traffic("game", peer, udp=True, heard=heard, said=said)


def tcp(heard: int, said: int, *, silent_s: float = 1.0) -> Traffic:
    return Traffic("game", PEER, udp=False, heard=heard, said=said, silent_s=silent_s)


def looks(*each: list[Traffic], elapsed_s: float = 60) -> list[Followed]:
    """One after the other, a minute apart."""
    known: Mapping[str, Known] = {}
    followed = []
    for traffic in each:
        followed.append(follow(known, traffic, elapsed_s=elapsed_s, silent_s=WAIT_S))
        known = followed[-1].known
    return followed


def seen(followed: list[Followed]) -> list[tuple[int, int]]:
    """Players and newcomers at each look."""
    return [(f.players.get("game", 0), f.newcomers) for f in followed]


# UDP


def test_a_udp_peer_that_talks_at_two_looks_is_a_player_and_at_the_first_may_be_one() -> None:
    assert seen(looks([udp(600, 900)], [udp(1200, 1800)], [udp(1800, 2700)])) == [
        (0, 1),
        (1, 0),
        (1, 0),
    ]


def test_one_who_stands_still_is_a_player() -> None:
    """Luanti's client sends a ping every 5 s, and acknowledges the server's."""
    each = [[udp(24 * minute, 24 * minute)] for minute in range(1, 5)]
    assert seen(looks(*each))[1:] == [(1, 0)] * 3


def test_one_who_left_is_no_player_at_the_next_look() -> None:
    """The kernel's list has the peer for some minutes more, with counts that stand still."""
    assert seen(looks([udp(600, 600)], [udp(1200, 1200)], [udp(1203, 1300)], [udp(1203, 1300)]))[
        2:
    ] == [(0, 0), (0, 0)]


@pytest.mark.parametrize(("heard", "said"), [(0, 1), (1, 1), (5, 6), (0, 5000), (5000, 0)])
def test_what_is_not_answered_or_asks_but_a_few_times_is_nobody(heard: int, said: int) -> None:
    """A scan, a query with all its questions, a flood from a forged address."""
    each = [[udp(heard * look, said * look)] for look in range(1, 6)]
    assert seen(looks(*each)) == [(0, 0)] * 5


def test_a_scan_from_ever_new_ports_is_nobody() -> None:
    each = [
        [udp(1, 2, peer=f"203.0.113.5:{look * 100 + n}>30000") for n in range(90)]
        for look in range(5)
    ]
    assert seen(looks(*each)) == [(0, 0)] * 5


def test_a_tracker_that_asks_much_but_rarely_is_a_newcomer_at_most() -> None:
    each = [[udp(20, 20)], [udp(20, 20)], [udp(40, 40)], [udp(40, 40)]]
    assert seen(looks(*each)) == [(0, 1), (0, 0), (0, 1), (0, 0)]


def test_a_count_that_began_anew_is_taken_as_a_new_peer() -> None:
    assert seen(looks([udp(600, 600)], [udp(1200, 1200)], [udp(300, 300)], [udp(900, 900)])) == [
        (0, 1),
        (1, 0),
        (0, 1),
        (1, 0),
    ]


@pytest.mark.parametrize(
    ("elapsed_s", "wanted"),
    [(0, 4), (-5, 4), (1, 4), (24, 4), (30, 5), (60, 10), (61, 10), (3600, 10)],
)
def test_packets_wanted_follow_the_time_between_looks(elapsed_s: float, wanted: int) -> None:
    assert packets_wanted(elapsed_s) == wanted


def test_just_enough_packets_each_way_make_a_player_and_one_less_does_not() -> None:
    much, less = PACKETS_A_MINUTE, PACKETS_A_MINUTE - 1
    assert seen(looks([udp(much, much)], [udp(2 * much, 2 * much)]))[1] == (1, 0)
    assert seen(looks([udp(much, much)], [udp(much + less, 2 * much)]))[1] == (0, 0)
    assert seen(looks([udp(much, much)], [udp(2 * much, much + less)]))[1] == (0, 0)
    few = PACKETS_AT_LEAST - 1
    assert seen(looks([udp(few, few)], [udp(2 * few, 2 * few)], elapsed_s=1)) == [(0, 0), (0, 0)]


# TCP


def test_a_connection_that_carries_more_both_ways_is_a_player() -> None:
    assert seen(looks([tcp(500, 900)], [tcp(600, 950)], [tcp(700, 990)])) == [
        (0, 1),
        (1, 0),
        (1, 0),
    ]


def test_a_player_may_be_silent_for_some_looks() -> None:
    each = [[tcp(500, 900)], [tcp(600, 950)], [tcp(600, 950, silent_s=300)]]
    assert seen(looks(*each))[2] == (1, 0)


def test_traffic_each_way_may_come_at_different_looks() -> None:
    assert seen(looks([tcp(500, 900)], [tcp(500, 950)], [tcp(600, 950)]))[1:] == [(0, 1), (1, 0)]


def test_a_peer_that_was_silent_for_the_whole_wait_has_gone() -> None:
    each = [[tcp(500, 900)], [tcp(600, 950)], [tcp(600, 950, silent_s=WAIT_S)]]
    assert seen(looks(*each))[2] == (0, 0)


@pytest.mark.parametrize(("heard", "said"), [(0, 0), (0, 80), (80, 0)])
def test_a_connection_that_says_nothing_or_gets_nothing_is_nobody(heard: int, said: int) -> None:
    """A connect scan, a health check, a scan for banners."""
    assert seen(looks(*[[tcp(heard, said)]] * 4)) == [(0, 0)] * 4


def test_a_connection_that_asked_once_and_stays_open_is_no_player() -> None:
    assert seen(looks(*[[tcp(40, 200)]] * 4)) == [(0, 1)] * 4


def test_another_connection_from_the_same_port_begins_anew() -> None:
    assert seen(looks([tcp(500, 900)], [tcp(600, 950)], [tcp(50, 60)])) == [(0, 1), (1, 0), (0, 1)]


def test_udp_and_tcp_of_one_address_and_port_are_two_peers() -> None:
    first, second = looks([udp(60, 60), tcp(5, 5)], [udp(120, 120), tcp(9, 9)])
    assert (first.newcomers, second.players) == (2, {"game": 2})


def test_who_is_gone_is_forgotten() -> None:
    assert looks([udp(60, 60), tcp(5, 5)], [])[1] == Followed({}, {}, 0)


COUNTS = st.integers(min_value=0, max_value=3)


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=8), st.floats(0, 1e6))
def test_less_than_a_few_packets_between_looks_never_make_a_player(
    steps: list[tuple[int, int]], elapsed_s: float
) -> None:
    heard = said = 0
    each = []
    for more_heard, more_said in steps:
        heard, said = heard + more_heard, said + more_said
        each.append([udp(heard, said)])
    assert set(seen(looks(*each, elapsed_s=elapsed_s))) == {(0, 0)}


@given(
    st.lists(st.tuples(*[st.integers(10, 10**6)] * 2), min_size=2, max_size=8),
    st.floats(0, 1e6),
)
def test_ten_packets_each_way_at_each_look_always_make_one(
    steps: list[tuple[int, int]], elapsed_s: float
) -> None:
    heard = said = 0
    each = []
    for more_heard, more_said in steps:
        heard, said = heard + more_heard, said + more_said
        each.append([udp(heard, said)])
    assert seen(looks(*each, elapsed_s=elapsed_s)) == [(0, 1)] + [(1, 0)] * (len(steps) - 1)
