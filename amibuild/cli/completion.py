"""What a shell offers after TAB. Read from files alone, at once: nobody waits for a completion."""

from __future__ import annotations

from pathlib import Path

import typer

from amibuild.cli.options import DEFAULT_RECIPE


def bake_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Those that the recipe's folder has a journal of, the newest first."""
    recipe = Path(context.params.get("recipe") or DEFAULT_RECIPE)
    journals = (recipe.parent / ".amibuild" / "journals").glob(f"{incomplete}*.jsonl")
    return sorted((path.stem for path in journals), reverse=True)
