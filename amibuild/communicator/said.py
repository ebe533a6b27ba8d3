"""What a job that runs has said so far: its log is on its machine until it ends."""

from __future__ import annotations

from amibuild.communicator.base import Communicator, RemoteJob, check
from amibuild.communicator.shell import ID_PREFIX, WORK, quote
from amibuild.wait import silent

# Of text it packs into one answer, mostly.
CHUNK_BYTES = 65_536
ASK_S = 60


class Withheld(Exception):
    """The job has secrets, and what it says may be one: it comes back closed, at its end."""


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


def _asking(job: str, script: str) -> RemoteJob:
    return RemoteJob(f"{job}-said", script, timeout_s=ASK_S)
