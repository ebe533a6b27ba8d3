"""`amibuild local`: the EC2 on this machine, kept running for other clients and for a look."""

from __future__ import annotations

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session

app = typer.Typer(
    help="The EC2, SSM and S3 endpoint on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("up")
def up(context: typer.Context, as_json: JsonOption = False) -> None:
    """Start the endpoint and leave it running until `local down`."""
    with session(context, as_json=as_json) as run:
        run.result("", {})
