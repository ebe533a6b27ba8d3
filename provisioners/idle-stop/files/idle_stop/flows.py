"""Which peers of a service are players, from their traffic at several looks.

Pure. Looks are a minute apart. What is told apart:

- A port scan sends a packet or two, or connects and leaves; the game sends one answer or none.
- A server browser or a tracker asks a few questions and gets as many answers, from a new port each
  time, so it is not there at the next look. So does a health check of a load balancer, over TCP,
  without a byte.
- A player's program and the game send to each other all the time: at least a sign of life every few
  seconds each way, over UDP for as long as they play, over TCP in one connection.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# UDP packets a minute that a peer sends and gets, at least. A Luanti client that stands still sends
# 12 pings and as many acknowledgements; six questions of a Steam query stay below.
PACKETS_A_MINUTE = 10
# However short the time between two looks is: a question repeated after its loss stays below.
PACKETS_AT_LEAST = 4


@dataclass(frozen=True)
class Traffic:
    """A peer's traffic with a service so far: packets for UDP, bytes of one connection for TCP.

    `silent_s`: since it last sent something; TCP only.
    """

    service: str
    peer: str  # as ADDRESS:PORT>PORT of the service
    udp: bool
    heard: int
    said: int
    silent_s: float = 0.0


@dataclass(frozen=True)
class Known:
    """What the next look must know of a peer.

    UDP: its traffic at this look, and whether it talked since the look before. TCP: its traffic
    when it was first seen.
    """

    heard: int
    said: int
    talked: bool = False


@dataclass(frozen=True)
class Followed:
    """`players` by service. `newcomers` may be players, which the next look will tell."""

    known: Mapping[str, Known]
    players: Mapping[str, int]
    newcomers: int


def follow(
    known: Mapping[str, Known], traffic: Iterable[Traffic], *, elapsed_s: float, silent_s: float
) -> Followed:
    """`elapsed_s` since the look before. A TCP peer that was silent for `silent_s` has gone, and
    could not say so."""
    now: dict[str, Known] = {}
    players: dict[str, int] = {}
    newcomers = 0
    for seen in traffic:
        key = f"{'udp' if seen.udp else 'tcp'} {seen.peer}"
        before = known.get(key)
        if before and (seen.heard < before.heard or seen.said < before.said):
            before = None  # another peer with the same address and port, or a new count
        if seen.udp:
            plays, may_play, now[key] = _udp(seen, before, elapsed_s)
        else:
            plays, may_play, now[key] = _tcp(seen, before, silent_s)
        players[seen.service] = players.get(seen.service, 0) + plays
        newcomers += may_play
    return Followed(now, players, newcomers)


def packets_wanted(elapsed_s: float) -> int:
    """No more than a minute's when looks are further apart: whoever came last also counts."""
    minutes = min(max(elapsed_s, 0.0), 60.0) / 60.0
    return max(PACKETS_AT_LEAST, math.ceil(PACKETS_A_MINUTE * minutes))


def _udp(seen: Traffic, before: Known | None, elapsed_s: float) -> tuple[bool, bool, Known]:
    """A player talked before this look and the one before."""
    heard = seen.heard - (before.heard if before else 0)
    said = seen.said - (before.said if before else 0)
    talks = min(heard, said) >= packets_wanted(elapsed_s)
    plays = talks and before is not None and before.talked
    return plays, talks and not plays, Known(seen.heard, seen.said, talks)


def _tcp(seen: Traffic, before: Known | None, silent_s: float) -> tuple[bool, bool, Known]:
    """A player's connection carried more, both ways, after it was first seen."""
    first = before or Known(seen.heard, seen.said)
    alive = seen.silent_s < silent_s
    plays = alive and seen.heard > first.heard and seen.said > first.said
    may_play = alive and not plays and min(seen.heard, seen.said) > 0
    return plays, may_play, first
