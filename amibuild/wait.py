"""The only polling loop, and the only place that sleeps.

Everything that takes time goes through `until`: one deadline, a clear error that says what was
last seen, dead states that end it at once, and an observer that lets the live view say what is
waited for. The clock is injected, so that tests of hours take milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from amibuild.errors import WaitTimeout

T = TypeVar("T")

FIRST_INTERVAL_S = 0.1
# What takes over a second takes several: the looks may be further apart.
LATER_INTERVAL_S = 0.3
LONGEST_INTERVAL_S = 15.0
# A wait may overshoot by about this share of its own length: 68 s of snapshot cost at most 6 s,
# where a fixed interval costs either calls (short) or time (long).
SHARE_OF_ELAPSED = 0.08


class Clock(Protocol):
    def now(self) -> datetime:
        """The time of day, in UTC, which goes on while this machine sleeps."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Waiting:
    """What an observer hears at each look; both times are since the wait began."""

    what: str
    state: str
    elapsed_s: float
    timeout_s: float


Observer = Callable[[Waiting], None]


def silent(_: Waiting) -> None:
    """The observer for waits that nobody watches."""


@dataclass(frozen=True)
class Look(Generic[T]):
    """One look at a resource: its state as a word, and the value once it is what we wait for."""

    state: str
    value: T | None = None


def until(
    look: Callable[[], Look[T]],
    *,
    what: str,
    timeout_s: float,
    clock: Clock | None = None,
    observer: Observer = silent,
    hint: str | None = None,
    longest_s: float = LONGEST_INTERVAL_S,
) -> T:
    """The value of the first look that has one. `longest_s` is the most between two looks.

    A dead state is the look's own business: it raises ResourceFailed, which passes through.
    The last look begins at the deadline, not before: one that takes long, as when the network is
    away, does not end the wait with what it found out late.
    Raises: WaitTimeout at the deadline, with the state seen last.
    """
    clock = clock or SystemClock()
    started = clock.monotonic()
    while True:
        began = clock.monotonic() - started
        seen = look()
        elapsed = clock.monotonic() - started
        observer(Waiting(what, seen.state, elapsed, timeout_s))
        if seen.value is not None:
            return seen.value
        if began >= timeout_s:
            raise WaitTimeout(what=what, waited_s=elapsed, last_state=seen.state, hint=hint)
        clock.sleep(min(_pause(elapsed), longest_s, max(timeout_s - elapsed, FIRST_INTERVAL_S)))


def _pause(elapsed_s: float) -> float:
    least = FIRST_INTERVAL_S if elapsed_s < 1 else LATER_INTERVAL_S
    return min(max(least, SHARE_OF_ELAPSED * elapsed_s), LONGEST_INTERVAL_S)
