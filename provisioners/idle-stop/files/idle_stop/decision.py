"""Rules, what earlier looks left, what this look sees -> stay or power off, and why.

Pure: all times come in. Those that are compared are seconds of the monotonic clock, which no change
of the time moves and which does not count while a machine hibernates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from idle_stop.flows import Followed, Known, Traffic, follow
from idle_stop.windows import Window

# Newcomers hold the machine for one look, and others may come meanwhile. After so many looks in a
# row without one that stayed they are trackers, not players.
NEWCOMER_LOOKS = 5
# Looks are a minute apart. Of a longer time without one nobody knows whether somebody played.
SEEN_S = 120.0


class Reason(StrEnum):
    PLAYED = "played"  # somebody plays
    NOT_TOLD = "not-told"  # a service can't tell, which counts as occupied for `minutes`
    BOOTED = "booted"  # nobody came yet, in the first minutes
    IDLE = "idle"  # nobody plays, and not for long enough yet
    KEEP_AWAKE = "keep-awake"  # a file holds it
    MAINTENANCE = "maintenance"
    NEWCOMERS = "newcomers"  # somebody may have just come
    NOBODY = "nobody"  # for long enough


@dataclass(frozen=True)
class Rules:
    """`minutes` without anybody until it powers off."""

    minutes: float
    maintenance: tuple[Window, ...] = ()
    dry_run: bool = False

    @property
    def wait_s(self) -> float:
        return self.minutes * 60


@dataclass(frozen=True)
class Look:
    """What is seen now.

    Shape: `told` has every service; the number of players by its own query, 0 when it is counted by
    its traffic or does not run, None when that can't be told.
    """

    now_s: float
    booted_s: float
    utc: datetime
    told: Mapping[str, int | None]
    traffic: tuple[Traffic, ...] = ()
    kept_awake: bool = False


@dataclass(frozen=True)
class Memory:
    """What one look leaves for the next. `silent` is since when a service can't tell.

    `busy_s` is when the wait began: at the last look that saw somebody, or later by the time that
    was not looked at.
    """

    looked_s: float
    busy_s: float
    silent: Mapping[str, float] = field(default_factory=dict)
    known: Mapping[str, Known] = field(default_factory=dict)
    newcomer_looks: int = 0


@dataclass(frozen=True)
class Decision:
    """`players` by service, None where that can't be told."""

    power_off: bool
    reason: Reason
    players: Mapping[str, int | None]
    newcomers: int
    idle_s: float
    left_s: float


def decide(rules: Rules, memory: Memory | None, look: Look) -> tuple[Decision, Memory]:
    """Without a memory it counts from now: what was before is not known."""
    if memory is not None and not look.booted_s <= memory.looked_s <= look.now_s:
        memory = None  # of another boot
    before = memory or Memory(look.now_s, look.now_s)
    followed = follow(
        before.known,
        look.traffic,
        elapsed_s=look.now_s - before.looked_s if memory else 60.0,
        silent_s=rules.wait_s,
    )
    players = _players(look, followed)
    silent = {
        name: before.silent.get(name, look.now_s)
        for name, number in players.items()
        if number is None
    }
    played = any(players.values())
    not_told = any(look.now_s - since < rules.wait_s for since in silent.values())
    unseen_s = max(0.0, look.now_s - before.looked_s - SEEN_S)
    busy_s = look.now_s if played or not_told else before.busy_s + unseen_s
    idle_s = look.now_s - max(busy_s, look.booted_s)
    left_s = max(0.0, rules.wait_s - idle_s)

    if played:
        reason = Reason.PLAYED
    elif not_told:
        reason = Reason.NOT_TOLD
    elif left_s > 0:
        reason = Reason.BOOTED if look.now_s - look.booted_s < rules.wait_s else Reason.IDLE
    elif look.kept_awake:
        reason = Reason.KEEP_AWAKE
    elif any(window.contains(look.utc) for window in rules.maintenance):
        reason = Reason.MAINTENANCE
    elif followed.newcomers and before.newcomer_looks < NEWCOMER_LOOKS:
        reason = Reason.NEWCOMERS
    else:
        reason = Reason.NOBODY

    decision = Decision(
        power_off=reason is Reason.NOBODY,
        reason=reason,
        players=players,
        newcomers=followed.newcomers,
        idle_s=idle_s,
        left_s=left_s,
    )
    return decision, Memory(
        looked_s=look.now_s,
        busy_s=busy_s,
        silent=silent,
        known=followed.known,
        newcomer_looks=before.newcomer_looks + 1 if reason is Reason.NEWCOMERS else 0,
    )


def _players(look: Look, followed: Followed) -> dict[str, int | None]:
    """Whoever is seen counts, also where others may be hidden."""
    players: dict[str, int | None] = {}
    for name, told in look.told.items():
        seen = followed.players.get(name, 0)
        players[name] = seen or None if told is None else told + seen
    return players
