"""SIGINT, SIGTERM and SIGHUP as one exception, held back where an id could be lost.

`catch` is entered once, by the command line. `hold` marks the lines in which a signal must wait:
the creation of a resource until its id is in the journal, and every undo.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from amibuild.errors import Interrupted

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_holding = 0
_waiting: str | None = None
_raised = False


def _arrive(number: int, _: FrameType | None) -> None:
    global _waiting
    if _raised:
        return  # already unwinding: a second Ctrl-C must not leave things half removed
    _waiting = _waiting or signal.Signals(number).name
    if not _holding:
        deliver_now()


def deliver_now() -> None:
    """Raises: Interrupted, for a signal that came while it could not be raised; once."""
    global _raised
    if _waiting is not None and not _raised and not _holding:
        _raised = True
        raise Interrupted(_waiting)


@contextmanager
def catch() -> Iterator[None]:
    """Turns the first signal into Interrupted; later ones are ignored until this ends."""
    global _waiting, _raised
    before = {number: signal.signal(number, _arrive) for number in CAUGHT}
    try:
        yield
    finally:
        _waiting, _raised = None, False
        for number, handler in before.items():
            signal.signal(number, handler)


def arrived() -> bool:
    """Whether this process is to end: from the first signal on, also while it is held back."""
    return _waiting is not None


@contextmanager
def hold(*, deliver: bool = True) -> Iterator[None]:
    """No Interrupted inside; one that arrived is raised at the end.

    With `deliver` off it waits for the next `deliver_now`, such as at the begin of a stage.
    """
    global _holding
    _holding += 1
    try:
        yield
    finally:
        _holding -= 1
    if deliver:
        deliver_now()
