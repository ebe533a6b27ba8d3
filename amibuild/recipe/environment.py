"""The variables that a recipe's secrets come from."""

from __future__ import annotations

import os

from amibuild.recipe.model import Recipe


def withheld(recipe: Recipe) -> dict[str, str]:
    """Takes the recipe's variables out of the environment, which every child process would get."""
    named = {source.env for source in recipe.secrets.values() if source.env is not None}
    return {name: os.environ.pop(name) for name in sorted(named) if name in os.environ}
