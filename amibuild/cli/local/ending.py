"""`amibuild local down` and `reset`: the endpoint's end, and that of what it keeps."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session

ForceOption = Annotated[
    bool, typer.Option("--force", help="Also while a bake uses it, which then fails.")
]


def down(context: typer.Context, force: ForceOption = False, as_json: JsonOption = False) -> None:
    """End it with all its machines; images, snapshots and parameters stay."""
    with session(context, as_json=as_json) as run:
        from amibuild import endpoint, shutdown

        machines = shutdown.bake_machines()
        stopped = shutdown.stop(force=force)
        run.story.say("it has ended" if stopped else "it was not running")
        for one in machines if stopped else ():
            run.story.say(
                f"with it {one.id} has ended, the {one.purpose} machine of bake {one.bake_id}"
            )
        removed = endpoint.tidy(progress=run.story.say)
        ended = [dataclasses.asdict(one) for one in machines] if stopped else []
        run.result("", {"stopped": stopped, "ended": ended, "removed": list(removed)})


def reset(
    context: typer.Context,
    base: Annotated[
        bool, typer.Option("--base", help="Forget the cached base image too: it is made anew.")
    ] = False,
    force: ForceOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End it and forget its images, snapshots and parameters."""
    with session(context, as_json=as_json) as run:
        from amibuild import endpoint, shutdown
        from amibuild.errors import UsageError

        folder = endpoint.data_dir() / "local"
        asked = sys.stdin.isatty() and not as_json
        if not yes and not (asked and typer.confirm(f"Remove every image in {folder}?", err=True)):
            raise UsageError("nothing was removed", hint="amibuild local reset --yes")
        shutdown.stop(force=force)
        removed = forget(folder, base=base)
        for path in removed:
            run.story.say(f"removed {path}")
        run.result("", {"removed": [str(path) for path in removed]})


def forget(folder: Path, *, base: bool) -> list[Path]:
    """Removes the stores, and the cached base image where asked for; what that was.

    Raises: StoreBusy while another amibuild has a store open; HostError while one makes a base
    image that shall go, and nothing is removed then.
    """
    from amibuild.local.base import at_rest, remove_cached
    from amibuild.local.removal import remove_store

    stores, cached = (folder / "store", folder / "none" / "store"), folder / "base"
    with at_rest(cached) if base else nullcontext():
        removed = [path for path in stores if remove_store(path)]
        if base and remove_cached(cached):
            removed.append(cached)
    return removed
