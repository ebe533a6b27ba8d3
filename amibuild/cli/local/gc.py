"""`amibuild local gc`: gives back the disk space that nothing needs any longer."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session

MIB = 1 << 20


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

        freed = endpoint.collect(dry_run=dry_run)
        for problem in freed["damaged"]:
            run.story.say(problem)
        for reason in freed["refused"]:
            run.story.say(f"no block is freed while {reason}; delete that snapshot to go on")
        run.result(freed_text(freed), freed)


def freed_text(freed: dict[str, Any]) -> str:
    verb = "would free" if freed["dry_run"] else "freed"
    lines = [f"{verb} {freed['block_bytes'] / MIB:.1f} MiB in {freed['blocks']} blocks"]
    if freed["left_files"]:
        lines.append(
            f"{verb} {freed['left_bytes'] / MIB:.1f} MiB in {freed['left_files']} files of "
            "endpoints that were killed"
        )
    return "\n".join(lines)
