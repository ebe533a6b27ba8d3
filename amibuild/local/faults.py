"""Failures on order: the second CreateImage is throttled, the first boot runs out of memory.

`CreateImage:2=RequestLimitExceeded` is the call, which of them, and the error code. Which of them
is one number (`2`), a range (`2-4`), all from one on (`2+`), or all (`*`). Words in brackets pick
calls that have them among their values, and only those are counted:
`RunInstances[c7i.large,us-east-1a]:*=InsufficientInstanceCapacity`; a subnet also stands for its
zone, a launch template for what is in it. `:after` behind the code means that the call was carried
out before it failed. Two codes are no errors of AWS: `ConnectionLost` breaks the connection,
`NoAnswer` leaves the client waiting.

`visible:instance=3` is eventual consistency: the first three reads that would show a new instance
do not. KINDS lists what it can be said of.

Four places inside are no calls:
- `boot:1=REASON`: the machine does not start and the instance is terminated with that reason, whose
  code is Server.InternalError unless it begins with another; `never` leaves it pending.
- `agent:1=never`: the machine does not register; a number is the seconds after which its agent
  stops answering.
- `capture:1=REASON`: the image fails with that reason; `invalid` makes it invalid, `never` leaves
  it pending.
- `spot:1=SECONDS`: a spot instance is taken back so long after it began to run.
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from amibuild.errors import UsageError

_FAULT = re.compile(
    r"(?P<what>[A-Za-z0-9]+)(?:\[(?P<words>[^\]]+)\])?"
    r":(?P<which>\d+(?:\+|-\d+)?|\*)=(?P<code>.+?)(?P<after>:after)?"
)
_VISIBLE = re.compile(r"visible:(?P<kind>[a-z-]+)=(?P<reads>\d+)")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]*")
_HINT = (
    "such as CreateImage:2=RequestLimitExceeded, RunInstances[c7i.large]:*=CODE:after, "
    "visible:instance=3 or boot:1=REASON"
)

NEVER = "never"
INVALID = "invalid"
VISIBLE = "visible"
PLACES = ("boot", "agent", "capture", "spot")
KINDS = (
    *("instance", "image", "snapshot", "volume", "security-group", "key-pair"),
    *("parameter", "command"),
)


@dataclass(frozen=True)
class Fault:
    """Hits the calls `first` to `last` of `what` that have all the `words`, counted from 1."""

    what: str
    first: int
    last: int | None
    code: str
    after: bool = False
    words: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Raises: UsageError."""
        lag = _VISIBLE.fullmatch(text)
        if lag is not None:
            if lag["kind"] not in KINDS:
                raise UsageError(f"{text!r}: {lag['kind']!r} is no kind", hint=_one_of(KINDS))
            return cls(VISIBLE, 1, None, lag["reads"], words=frozenset({lag["kind"]}))
        found = _FAULT.fullmatch(text)
        if found is None:
            raise UsageError(f"{text!r} is no fault", hint=_HINT)
        first, last = _range(found["which"])
        if first < 1 or (last is not None and last < first):
            raise UsageError(
                f"{text!r}: {found['which']!r} is no call", hint="calls are counted from 1"
            )
        what, code = found["what"], found["code"]
        _check_code(text, what, code)
        if what in PLACES and (found["words"] or found["after"]):
            raise UsageError(f"{text!r}: {what} is no call, so it has no words and no :after")
        words = frozenset(word.strip() for word in (found["words"] or "").split(",") if word)
        return cls(what, first, last, code, found["after"] is not None, words)

    def hits(self, count: int) -> bool:
        return self.first <= count <= (count if self.last is None else self.last)


def _range(which: str) -> tuple[int, int | None]:
    if which == "*":
        return 1, None
    first, dash, last = which.rstrip("+").partition("-")
    if dash:
        return int(first), int(last)
    return int(first), None if which.endswith("+") else int(first)


def _check_code(text: str, what: str, code: str) -> None:
    number = re.fullmatch(r"\d+(\.\d+)?", code) is not None
    if what == "spot" and not number:
        raise UsageError(f"{text!r}: {code!r} is no number of seconds", hint="spot:1=2.5")
    if what == "agent" and not (number or code == NEVER):
        raise UsageError(
            f"{text!r}: {code!r} is neither {NEVER!r} nor a number of seconds", hint="agent:1=never"
        )
    if what not in PLACES and not _CODE.fullmatch(code):
        raise UsageError(f"{text!r}: {code!r} is no error code", hint=_HINT)


def _one_of(names: Collection[str]) -> str:
    return "one of " + ", ".join(names)


def check_names(faults: Sequence[Fault], operations: Callable[[], Collection[str]]) -> None:
    """Raises: UsageError for a fault that could never hit, as no call has its name."""
    asked = [f.what for f in faults if f.what not in {*PLACES, VISIBLE}]
    known = operations() if asked else ()
    for name in asked:
        if name not in known:
            near = difflib.get_close_matches(name, (*known, *PLACES), n=3)
            raise UsageError(
                f"{name!r} is no operation that a fault could hit",
                hint=f"did you mean {' or '.join(near)}?"
                if near
                else f"an operation of EC2, SSM or S3, such as CreateImage, or {_one_of(PLACES)}",
            )


class Faults:
    """Counts what happens, and says which of it shall fail."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self.lags: dict[str, int] = {}
        """How many reads do not show a new resource, by its kind."""
        self.order(faults)

    def order(self, faults: Sequence[Fault]) -> None:
        """These from now on, counted anew, and none of those before."""
        with self._lock:
            self._faults = tuple(f for f in faults if f.what != VISIBLE)
            self._counts = [0] * len(self._faults)
            self.lags = {kind: int(f.code) for f in faults if f.what == VISIBLE for kind in f.words}

    def next(
        self, what: str, words: Callable[[], Collection[str]] = frozenset[str]
    ) -> Fault | None:
        """The fault that hits this occurrence of `what`, if one does.

        `words` is asked only where a fault picks by them.
        """
        picked: Fault | None = None
        values: Collection[str] | None = None
        with self._lock:
            faults, counts = self._faults, self._counts
        for n, fault in enumerate(faults):
            if fault.what != what:
                continue
            if fault.words:
                values = words() if values is None else values
                if not fault.words <= set(values):
                    continue
            with self._lock:
                counts[n] += 1
                count = counts[n]
            if picked is None and fault.hits(count):
                picked = fault
        return picked
