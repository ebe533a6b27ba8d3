"""The frame of a flow that costs something: its journal, its stages, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from amibuild import signals
from amibuild.errors import AmibuildError, Interrupted
from amibuild.journal import (
    BakeEnded,
    BakeStarted,
    Journal,
    Outcome,
    StepEnded,
    StepFailed,
    StepStarted,
)
from amibuild.scope import OnError
from amibuild.wait import Clock, SystemClock


class Stages:
    """The stretches of one flow. `seconds` has each that ended well, in order, and begins with
    those of the `earlier` runs of a resumed bake; the time between runs counts for nothing.

    `before_each` is called with its name before a stretch begins.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock | None = None,
        earlier: Mapping[str, float] | None = None,
    ) -> None:
        self._journal = journal
        self._clock = clock or SystemClock()
        self.before_each: Callable[[str], None] = lambda _: None
        self._began = self._clock.monotonic()
        self.seconds = dict(earlier or {})
        self._earlier_s = sum(self.seconds.values())

    @property
    def total_s(self) -> float:
        return round(self._earlier_s + self._clock.monotonic() - self._began, 3)

    @contextmanager
    def run(self, name: str, what: str) -> Iterator[None]:
        signals.deliver_now()
        self.before_each(name)
        began = self._clock.monotonic()
        self._journal.write(StepStarted(step=name, what=what))
        try:
            yield
        except BaseException as error:
            spent = round(self._clock.monotonic() - began, 3)
            self._journal.tell(StepFailed(step=name, seconds=spent, error=str(error)))
            raise
        spent = round(self._clock.monotonic() - began, 3)
        self.seconds[name] = spent
        self._journal.write(StepEnded(step=name, seconds=spent))


@contextmanager
def told(
    journal: Journal,
    stages: Stages,
    started: BakeStarted,
    on_error: Callable[[], OnError] = lambda: OnError.CLEAN,
) -> Iterator[None]:
    """Around a whole flow, its scope included: the journal's first line and its last. What was
    done `on_error` may be known at its end only."""
    journal.write(started)
    try:
        yield
    except BaseException as error:
        journal.tell(BakeEnded(outcome=_outcome(error, on_error()), seconds=stages.total_s))
        raise
    journal.write(BakeEnded(outcome=Outcome.DONE, seconds=stages.total_s))


def _outcome(error: BaseException, on_error: OnError) -> Outcome:
    if isinstance(error, Interrupted):
        return Outcome.INTERRUPTED
    if on_error is OnError.KEEP and isinstance(error, AmibuildError):
        return Outcome.KEPT
    return Outcome.FAILED
