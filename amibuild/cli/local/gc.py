"""`amibuild local gc`: gives back the disk space that nothing needs any longer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session

log = logging.getLogger(__name__)

MIB = 1 << 20
# A running endpoint waits for its captures to be done.
COLLECT_S = 600.0
# One that starts may be making the base image.
BUSY_S = 90.0


def gc(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be freed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Free the disk space of deleted images, and of what killed endpoints left.

    May be called at any time: while an endpoint runs, it does so itself.
    """
    with session(context, as_json=as_json) as run:
        from amibuild import endpoint

        freed = collect(endpoint.data_dir(), dry_run=dry_run, progress=run.story.say)
        for problem in freed["damaged"]:
            run.story.say(problem)
        for reason in freed["refused"]:
            run.story.say(f"no block is freed while {reason}; delete that snapshot to go on")
        run.result(freed_text(freed), freed)


def collect(
    data: Path, *, dry_run: bool, progress: Callable[[str], None] = log.info
) -> dict[str, Any]:
    """Frees what nothing needs, through the running endpoint or without one.

    Shape: the fields of local.garbage.Freed, and `dry_run`.
    Raises: HostError; WaitTimeout, when another process keeps the store and serves nothing.
    """
    from dataclasses import asdict

    from amibuild import endpoint
    from amibuild.control import announced, ask
    from amibuild.local import garbage
    from amibuild.local.store import StoreBusy
    from amibuild.wait import Look, until

    name = "gc?dry-run" if dry_run else "gc"
    told = False

    def look() -> Look[dict[str, Any]]:
        nonlocal told
        known = announced(data) if endpoint.status(data) else None
        said = ask(known, "POST", name, timeout_s=COLLECT_S) if known else None
        if said is not None:
            return Look("done", said)
        try:
            freed = garbage.collect(data / "local", dry_run=dry_run)
        except StoreBusy as busy:
            # An endpoint that starts, or ends.
            if not told:
                progress(f"waiting for process {busy.pid}, which has the store open")
            told = True
            return Look(f"held by process {busy.pid}")
        return Look("done", {"dry_run": dry_run, **asdict(freed)})

    return until(look, what="the local target's store", timeout_s=BUSY_S)


def freed_text(freed: dict[str, Any]) -> str:
    verb = "would free" if freed["dry_run"] else "freed"
    lines = [f"{verb} {freed['block_bytes'] / MIB:.1f} MiB in {freed['blocks']} blocks"]
    if freed["left_files"]:
        lines.append(
            f"{verb} {freed['left_bytes'] / MIB:.1f} MiB in {freed['left_files']} files of "
            "endpoints that were killed"
        )
    return "\n".join(lines)
