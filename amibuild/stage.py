"""One named stretch of a flow: announced, timed, and in the journal however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amibuild.journal import Journal, StepEnded, StepFailed, StepStarted
from amibuild.wait import Clock, SystemClock


class Stages:
    """The stretches of one flow. `seconds` has each that ended well, in order."""

    def __init__(self, journal: Journal, clock: Clock | None = None) -> None:
        self._journal = journal
        self._clock = clock or SystemClock()
        self._began = self._clock.monotonic()
        self.seconds: dict[str, float] = {}

    @property
    def total_s(self) -> float:
        return round(self._clock.monotonic() - self._began, 3)

    @contextmanager
    def run(self, name: str, what: str) -> Iterator[None]:
        began = self._clock.monotonic()
        self._journal.write(StepStarted(step=name, what=what))
        try:
            yield
        except BaseException as error:
            spent = round(self._clock.monotonic() - began, 3)
            self._journal.write(StepFailed(step=name, seconds=spent, error=str(error)))
            raise
        spent = round(self._clock.monotonic() - began, 3)
        self.seconds[name] = spent
        self._journal.write(StepEnded(step=name, seconds=spent))
