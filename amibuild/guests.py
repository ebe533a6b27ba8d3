"""The machines behind the endpoint that runs: which there are, their consoles, a script in one.

What `local shell` and `local logs` ask of the endpoint's control page, in the words of Python.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amibuild import endpoint
from amibuild.control import Announced, announced, request
from amibuild.errors import HostError, UsageError
from amibuild.wait import Look, until

# An emulated machine takes a minute to boot when it is alone.
READY_S = 300.0


@dataclass(frozen=True)
class Guest:
    """One instance as the status page has it. `pids` are its processes here, its keeper first."""

    id: str
    state: str
    driver: str
    ready: bool
    address: str | None
    ssh_port: int | None
    public_key: str | None
    folder: Path
    pids: tuple[int, ...]
    endpoint: Announced


@dataclass(frozen=True)
class Ran:
    exit_code: int
    stdout: bytes
    stderr: bytes


def find(name: str) -> Guest:
    """The instance of this id, or the only one whose id begins so.

    Raises: HostError when no endpoint runs; UsageError, which lists the instances there are.
    """
    if not re.fullmatch(r"i-[0-9a-f]+", name):
        raise UsageError(f"{name!r} is no instance id", hint="amibuild local status lists them")
    facts, known = endpoint.status(), announced(endpoint.data_dir())
    if facts is None or known is None:
        raise HostError("no local endpoint runs", hint="amibuild local up")
    guests = [_guest(one, known) for one in facts["instances"]]
    found = [g for g in guests if g.id == name] or [g for g in guests if g.id.startswith(name)]
    if len(found) != 1:
        problem = "there is no instance" if not found else "more than one instance begins with"
        there = ", ".join(f"{g.id} ({g.state})" for g in guests)
        raise UsageError(f"{problem} {name}", hint=f"there is {there}" if there else "none runs")
    return found[0]


def find_ready(name: str, tell: Callable[[str], None]) -> Guest:
    """The instance, once its agent answers.

    Raises: as `find`; HostError when it is not on its way up; WaitTimeout.
    """
    told = False

    def look() -> Look[Guest]:
        nonlocal told
        guest = find(name)
        if guest.state not in {"pending", "running"}:
            raise HostError(f"{guest.id} is {guest.state}: it has to run for that")
        if not (guest.ready or told):
            told = True
            tell(f"waiting up to {READY_S / 60:.0f} minutes for the agent of {guest.id}")
        return Look("booting", guest if guest.ready else None)

    return until(look, what=f"the agent of {name}", timeout_s=READY_S)


def run(guest: Guest, script: bytes) -> Ran:
    """Runs a script as root in it, to its end. A caller that is interrupted ends the script.

    Raises: HostError.
    """
    with _asked(guest, "POST", "run", body=script) as answer:
        ran = json.loads(answer.read())
    return Ran(ran["exit_code"], base64.b64decode(ran["stdout"]), base64.b64decode(ran["stderr"]))


def console(guest: Guest, *, follow: bool) -> Iterator[bytes]:
    """The last 64 KiB of its console; with `follow` also what comes, until it is terminated.

    Raises: HostError.
    """
    with _asked(guest, "GET", "console", query="?follow" if follow else "") as answer:
        while chunk := answer.read1(1 << 16):
            yield chunk


def _guest(facts: dict[str, Any], known: Announced) -> Guest:
    return Guest(
        id=facts["id"],
        state=facts["state"],
        driver=facts["driver"],
        ready=facts["agent"],
        address=facts["address"],
        ssh_port=facts["ssh_port"],
        public_key=facts["public_key"],
        folder=Path(facts["disk"]).parent,
        pids=tuple(facts["pids"]),
        endpoint=known,
    )


@contextmanager
def _asked(
    guest: Guest, method: str, what: str, *, query: str = "", body: bytes | None = None
) -> Iterator[http.client.HTTPResponse]:
    try:
        path = f"{what}/{guest.id}{query}"
        # A command may be silent for as long as it likes.
        connection, answer = request(guest.endpoint, method, path, timeout_s=math.inf, body=body)
    except (OSError, http.client.HTTPException) as error:
        raise HostError(f"the local endpoint went away: {error}") from error
    try:
        if answer.status != http.client.OK:
            raise HostError(str(json.loads(answer.read()).get("error")))
        yield answer
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise HostError(f"the local endpoint went away: {error}") from error
    finally:
        connection.close()
