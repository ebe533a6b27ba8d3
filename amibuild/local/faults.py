"""Failures on order: the second CreateImage is throttled, the first boot runs out of memory.

Written as `CreateImage:2=RequestLimitExceeded`: the call, which one of them (`2`, `2+` for all from
the second on, `*` for all), and the error code. `:after` behind the code means that the call was
carried out before it failed, as when an answer is lost. Besides the API's operations there are
three places inside: `boot`, `agent` and `capture`, where the code is the reason that is told.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from amibuild.errors import UsageError

_FAULT = re.compile(
    r"(?P<what>[A-Za-z0-9]+):(?P<which>\d+\+?|\*)=(?P<code>[^:]+)(?P<after>:after)?"
)


@dataclass(frozen=True)
class Fault:
    """Hits the calls `first` to `last` of `what`, counted from 1."""

    what: str
    first: int
    last: int | None
    code: str
    after: bool = False

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Raises: UsageError."""
        found = _FAULT.fullmatch(text)
        if found is None:
            raise UsageError(
                f"{text!r} is no fault", hint="such as CreateImage:2=RequestLimitExceeded:after"
            )
        which = found["which"]
        first = 1 if which == "*" else int(which.rstrip("+"))
        last = first if which.isdigit() else None
        return cls(found["what"], first, last, found["code"], found["after"] is not None)


class Faults:
    """Counts what happens, and says which of it shall fail."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._faults = tuple(faults)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, what: str) -> Fault | None:
        """The fault that hits this occurrence of `what`, if one does."""
        with self._lock:
            self._counts[what] += 1
            count = self._counts[what]
        for fault in self._faults:
            if fault.what == what and fault.first <= count <= (fault.last or count):
                return fault
        return None
