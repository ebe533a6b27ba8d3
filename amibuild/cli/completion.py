"""What a shell offers after TAB. Read from files alone, at once: nobody waits for a completion."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path

import typer

from amibuild.cli.options import DEFAULT_RECIPE


def bake_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Those that the recipe's folder has a journal of, the newest first."""
    journals = (_state(context) / "journals").glob(f"{incomplete}*.jsonl")
    return sorted((path.stem for path in journals), reverse=True)


def steps(context: typer.Context, incomplete: str) -> list[str]:
    """Those that the recipe names, in its order."""
    named: list[str] = []
    with suppress(OSError, ValueError, AttributeError, TypeError):
        provision = tomllib.loads(_recipe(context).read_text())["provision"]
        named = [*provision.get("steps", ("os",)), *provision.get("services", ())]
    return [name for name in (*named, "seal") if name.startswith(incomplete)]


def steps_before_seal(context: typer.Context, incomplete: str) -> list[str]:
    """Those that run on a machine that is not sealed."""
    return [name for name in steps(context, incomplete) if name != "seal"]


def logged_steps(context: typer.Context, incomplete: str) -> list[str]:
    """Those that the bake on the command line has a log of."""
    logs = _state(context) / "logs" / str(context.params.get("bake_id") or "")
    return sorted(path.stem for path in logs.glob(f"{incomplete}*.log"))


def _recipe(context: typer.Context) -> Path:
    return Path(context.params.get("recipe") or DEFAULT_RECIPE)


def _state(context: typer.Context) -> Path:
    return _recipe(context).parent / ".amibuild"
