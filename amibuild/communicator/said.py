"""What a job that runs has said so far: its log is on its machine until it ends."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amibuild.communicator.base import Communicator, RemoteJob, check
from amibuild.communicator.shell import CUT, ID_PREFIX, WORK, quote
from amibuild.errors import CommandFailed, NotFound, WaitTimeout
from amibuild.wait import Clock, Look, silent, until

# Of text it packs into one answer, mostly.
CHUNK_BYTES = 65_536
ASK_S = 60
# A look is a command on the machine: two seconds each.
AGAIN_S = 3.0
GAP = re.compile(CUT.pattern.encode())


class Withheld(Exception):
    """The job has secrets, and what it says may be one: it comes back closed, at its end."""


class LogLeft:
    """The log that a job leaves here once it has ended. One that was there before is of an earlier
    try of it, which may stay the last: a machine that is lost leaves none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = self._written()

    def _written(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = self._path.stat()
            return found.st_ino, found.st_mtime_ns
        return None

    def rest(self, shown: int) -> bytes:
        """What stands behind so many bytes of it."""
        if self._written() in {None, self._before}:
            return b""
        return rest(self._path.read_bytes(), shown)


@dataclass(frozen=True)
class Said:
    """`text` stands behind `left_out` bytes that the machine keeps no more."""

    text: bytes
    left_out: int = 0

    @property
    def shown(self) -> bytes:
        return (_gap(self.left_out) if self.left_out else b"") + self.text


def said_since(communicator: Communicator, job: str, offset: int) -> Said:
    """What stands behind `offset` in the log of the newest job of that name; at most a chunk.

    Raises: Withheld; CommandFailed.
    """
    at = quote(f"{WORK}/{job}")
    script = f"""\
log=$(ls -t {at}/{ID_PREFIX}*/log 2>/dev/null | head -n 1)
[ -n "$log" ] || exit 0
at=${{log%/log}}
if [ -e "$at/secrets" ] || [ -e "$at/reader.pem" ]; then
    printf withheld
    exit 0
fi
from={offset}
while :; do
    tail -c +$((from + 1)) "$log" | head -c {CHUNK_BYTES} >"$AMIBUILD_RESULT"
    # Asked behind it: what is dropped meanwhile would be zeros.
    read -r first next 2>/dev/null <"$at/cut" || break
    [ "$from" -lt "$next" ] || break
    if [ "$from" -lt "$first" ]; then
        truncate -s "<$((first - from))" "$AMIBUILD_RESULT"
        break
    fi
    from=$next
done
printf 'from %s' "$from"
"""
    # A name of its own: it runs beside the job.
    told = check(f"the log of {job}", communicator.run(_asking(job, script), silent))
    if told.log == "withheld":
        raise Withheld(job)
    word, _, begin = told.log.partition(" ")
    return Said(told.result, int(begin) - offset if word == "from" else 0)


def rest(log: bytes, offset: int) -> bytes:
    """What stands behind `offset` of what was said, in a log that may have come cut."""
    gap = GAP.search(log)
    if gap is None or offset <= gap.start():
        return log[offset:]
    beyond = offset - gap.start() - int(gap.group().split()[1])
    return log[gap.end() + beyond :] if beyond >= 0 else _gap(-beyond) + log[gap.end() :]


def follow(
    communicator: Communicator,
    job: str,
    *,
    over: Callable[[], bool],
    show: Callable[[bytes], bool],
    away: Callable[[str], None],
    clock: Clock | None = None,
) -> int:
    """Shows what the job says as it comes, until it is `over` or nobody reads it; how many bytes.

    A machine that boots again, or is not reached for a while, is asked again: `away` hears of it
    once, and then of the next time. Raises: Withheld.
    """
    shown, is_away = 0, False

    def look() -> Look[bool]:
        nonlocal shown, is_away
        if over():
            return Look("over", True)
        try:
            said = said_since(communicator, job, shown)
        except (CommandFailed, NotFound, WaitTimeout) as error:
            if not is_away:
                away(error.message)
            is_away = True
            return Look("not reached")
        is_away = False
        shown += said.left_out + len(said.text)
        return Look("running", None if show(said.shown) else True)

    until(look, what=job, timeout_s=math.inf, longest_s=AGAIN_S, clock=clock)
    return shown


def _gap(size: int) -> bytes:
    return b"\n... %d bytes left out ...\n" % size


def wait_until_over(job: str, over: Callable[[], bool], clock: Clock | None = None) -> None:
    """For one whose words are withheld until then."""
    until(
        lambda: Look("running", over() or None),
        what=job,
        timeout_s=math.inf,
        longest_s=AGAIN_S,
        clock=clock,
        observer=silent,
    )


def _asking(job: str, script: str) -> RemoteJob:
    return RemoteJob(f"{job}-said", script, timeout_s=ASK_S)
