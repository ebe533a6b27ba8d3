"""Ends the EC2 on this machine: when nobody uses it any longer, or by force."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amibuild import proc
from amibuild.control import Announced, Silent, announced, ask
from amibuild.endpoint import END_S, data_dir, holder_of, named, status
from amibuild.errors import HostError, UsageError, WaitTimeout
from amibuild.names import Tag
from amibuild.wait import Look, until

LETTING_GO_S = 2.0
# For one that is ended by force, before it is killed.
FORCED_S = 15.0
ALIVE = frozenset({"pending", "running", "stopping", "stopped"})


@dataclass(frozen=True)
class BakesMachine:
    """One that a bake has made. `purpose` is `build`, or `verify` for the fresh machine."""

    id: str
    bake_id: str
    purpose: str


def bake_machines(data: Path | None = None) -> tuple[BakesMachine, ...]:
    """Those that end with the endpoint: kept for a look or for --resume, where no bake runs.

    Where it does not tell, there are none known, and it can be ended all the same.
    """
    try:
        facts = status(data)
    except (HostError, WaitTimeout):
        return ()
    return tuple(
        BakesMachine(one["id"], one["tags"][Tag.BAKE_ID], one["tags"].get(Tag.PURPOSE, "unknown"))
        for one in (facts["instances"] if facts else ())
        if Tag.BAKE_ID in one["tags"] and one["state"] in ALIVE
    )


def stop(data: Path | None = None, *, force: bool = False) -> bool:
    """Ends the running endpoint with its machines: `local down`. False when none runs.

    `force` ends it under those who use it, too, while it starts, and when it does not answer.
    Raises: UsageError when a bake or another verb uses it; Silent; WaitTimeout.
    """
    folder = data or data_dir()
    known = announced(folder)
    if known is None:
        return _stop_starting(folder, force=force)
    if not force:
        _await_unused(known)
    try:
        ask(known, "POST", "stop")
    except Silent:
        if not force:
            raise
        _end_by_force(known.pid, known.began)
    try:
        _await_end(known.pid, known.began, END_S)
    except WaitTimeout:
        # It answers, and yet it does not get to its end.
        if not force:
            raise
        _end_by_force(known.pid, known.began)
        _await_end(known.pid, known.began, FORCED_S)
    return True


def _await_end(pid: int, began: int | None, timeout_s: float) -> None:
    def look() -> Look[bool]:
        ended = proc.has_ended(pid, began)
        return Look("ended" if ended else "still there", ended or None)

    until(look, what=named(pid), timeout_s=timeout_s)


def _end_by_force(pid: int, began: int | None) -> None:
    """Its machines die with it, however it ends."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        with suppress(WaitTimeout):
            _await_end(pid, began, FORCED_S)
            return


def _await_unused(known: Announced) -> None:
    """Raises: UsageError; Silent. One that has just ended is noticed a moment later."""

    def look() -> Look[bool]:
        said = ask(known, "GET", "lifetime")
        used = said is not None and bool(said["owned"] or said["joined"])
        return Look("in use" if used else "unused", None if used else True)

    try:
        until(look, what="the endpoint's users to end", timeout_s=LETTING_GO_S)
    except WaitTimeout:
        raise UsageError(
            "a bake or another amibuild uses the endpoint",
            hint="wait for it, end it with Ctrl-C, or add --force to end the machines under it",
        ) from None


def _stop_starting(data: Path, *, force: bool) -> bool:
    """One that has the store open and serves nothing yet; it may be making the base image.

    Raises: UsageError without `force`.
    """
    from amibuild.local.machines.processes import command_line

    for root in (data / "local", data / "local" / "none"):
        pid = holder_of(root)
        if pid is None or "amibuild.local.endpoint" not in command_line(pid):
            continue
        if not force:
            raise UsageError(
                f"an endpoint starts or ends just now (process {pid})",
                hint="wait for it, or add --force to end it",
            )
        began = proc.began(pid)
        _end_by_force(pid, began)
        _await_end(pid, began, FORCED_S)
        return True
    return False
