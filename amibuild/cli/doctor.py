"""`amibuild doctor`: what this host can do, and the one command that installs what it lacks."""

from __future__ import annotations

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session


def doctor(context: typer.Context, as_json: JsonOption = False) -> None:
    """Say what this host can do, what is missing, and how to install it."""
    with session(context, as_json=as_json) as run:
        run.result("", {})
