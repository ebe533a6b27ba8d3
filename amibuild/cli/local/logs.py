"""`amibuild local logs`: what a machine wrote to its console."""

from __future__ import annotations

from typing import Annotated

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session

InstanceArgument = Annotated[
    str, typer.Argument(metavar="INSTANCE", help="Its id, or how the id begins.")
]


def logs(
    context: typer.Context,
    instance: InstanceArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, until it is terminated.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print a machine's console, its last 64 KiB; says where the driver's own log is."""
    with session(context, as_json=as_json) as run:
        from amibuild import guests
        from amibuild.errors import UsageError
        from amibuild.ui import write_bytes

        if follow and as_json:
            raise UsageError("--follow has no end that one JSON object could be printed at")
        guest = guests.find(instance)
        log = f"{guest.folder}/run/supervisor.log"
        run.story.say(f"{guest.id}: {guest.driver}, {guest.state}; the driver's log is {log}")
        if as_json:
            text = b"".join(guests.console(guest, follow=False)).decode(errors="replace")
            run.result("", {"instance": guest.id, "console": text, "log": log})
            return
        for chunk in guests.console(guest, follow=follow):
            if not write_bytes(chunk):
                return
