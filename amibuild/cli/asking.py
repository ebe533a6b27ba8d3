"""The question before something changes, and the word for it where nobody can be asked."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

YesOption = Annotated[bool, typer.Option("--yes", help="Don't ask. Needed without a terminal.")]


def require_yes(question: str, *, yes: bool, as_json: bool) -> None:
    """Raises: UsageError without a yes."""
    from amibuild.errors import UsageError

    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            "nothing was changed: nobody can be asked here",
            hint="look at what would change, and call it again with --yes",
        )
    # typer's own question writes a blank to stdout, where only the result belongs.
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was changed")
