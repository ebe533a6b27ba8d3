"""amibuild.toml and what the command line adds to it -> Recipe. The second step of a bake."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from amibuild.errors import Problem, RecipeError
from amibuild.recipe.document import COMMAND_LINE, Document, read_document
from amibuild.recipe.locate import KeyPath, dotted
from amibuild.recipe.model import Recipe
from amibuild.recipe.toml import parse_toml

# Naming one of these on the command line takes the place of the one in the file.
ALTERNATIVES = {"source": ("ssm", "id", "filter")}


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path`, with `overrides` such as `builder.volume_gib=12` laid over it.

    Raises: RecipeError with every mistake at once.
    """
    document, problems = read_recipe_document(path, overrides)
    recipe, found = document.check(Recipe)
    if recipe is None or problems:
        raise RecipeError([*problems, *found])
    return Recipe.read_from(document.origin, recipe)


def read_recipe_document(
    path: Path, overrides: Sequence[str] = ()
) -> tuple[Document, list[Problem]]:
    """The values of a recipe with the overrides in place, and what is wrong with the overrides.

    Raises: RecipeError when the file can't be read at all.
    """
    document = read_document(path)
    values = copy.deepcopy(dict(document.values))
    problems: list[Problem] = []
    overridden: set[KeyPath] = set()
    for override in overrides:
        try:
            key, value = _parse(override)
            overridden.add(_put(values, key, value))
        except ValueError as error:
            problems.append(Problem(COMMAND_LINE, None, "", str(error)))
    origin = replace(document.origin, overridden=frozenset(overridden))
    return Document(origin, values), problems


def _parse(override: str) -> tuple[tuple[str, ...], Any]:
    """`a.b=value`, the value read as TOML and, when it is none, as plain text."""
    name, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"{override!r} is not KEY=VALUE")
    try:
        key = _only_path(parse_toml(f"{name.strip()} = 0"))
    except ValueError as error:
        raise ValueError(f"{name!r} is not a dotted key, such as builder.volume_gib") from error
    try:
        parsed = parse_toml(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return key, text
    return key, (parsed["value"] if parsed.keys() == {"value"} else text)


def _only_path(nested: Mapping[str, Any]) -> tuple[str, ...]:
    path: list[str] = []
    here: Any = nested
    while isinstance(here, Mapping):
        (name,) = here  # a ValueError for a comment, which is no key
        path.append(name)
        here = here[name]
    return tuple(path)


def _put(values: dict[str, Any], key: tuple[str, ...], value: Any) -> KeyPath:
    """The key path of what is new: of the value, or of the first table that was made for it."""
    here, made = values, key
    for depth, part in enumerate(key):
        for other in ALTERNATIVES.get(dotted(key[:depth]), ()):
            if other != part:
                here.pop(other, None)
        if depth == len(key) - 1:
            break
        if part not in here:
            made = min(made, key[: depth + 1], key=len)
        here = here.setdefault(part, {})
        if not isinstance(here, dict):
            raise ValueError(f"{dotted(key)}: {dotted(key[: depth + 1])} is not a table")
    here[key[-1]] = value
    return made
