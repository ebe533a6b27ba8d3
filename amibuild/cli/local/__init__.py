"""`amibuild local`: the EC2 on this machine, kept running for other clients and for a look."""

from __future__ import annotations

import typer

from amibuild.cli.local import ending, gc, logs, shell, status, up

app = typer.Typer(
    help="The EC2, SSM and S3 endpoint on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command("up")(up.up)
app.command("status")(status.status)
app.command("shell")(shell.shell)
app.command("logs")(logs.logs)
app.command("down")(ending.down)
app.command("gc")(gc.gc)
app.command("reset")(ending.reset)
