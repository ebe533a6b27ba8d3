"""What a job that runs has said so far: its log is on its machine until it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from amibuild.communicator.base import Communicator, RemoteJob, check
from amibuild.communicator.shell import ID_PREFIX, WORK, quote
from amibuild.errors import CommandFailed, NotFound, WaitTimeout
from amibuild.wait import Clock, Look, silent, until

# Of text it packs into one answer, mostly.
CHUNK_BYTES = 65_536
ASK_S = 60
# A look is a command on the machine: two seconds each.
AGAIN_S = 3.0


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
        return b"" if self._written() in {None, self._before} else self._path.read_bytes()[shown:]


def said_since(communicator: Communicator, job: str, offset: int) -> bytes:
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
tail -c +{offset + 1} "$log" | head -c {CHUNK_BYTES} >"$AMIBUILD_RESULT"
"""
    # A name of its own: it runs beside the job.
    told = check(f"the log of {job}", communicator.run(_asking(job, script), silent))
    if told.log == "withheld":
        raise Withheld(job)
    return told.result


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
        shown += len(said)
        return Look("running", None if show(said) else True)

    until(look, what=job, timeout_s=math.inf, longest_s=AGAIN_S, clock=clock)
    return shown


def _asking(job: str, script: str) -> RemoteJob:
    return RemoteJob(f"{job}-said", script, timeout_s=ASK_S)
