"""`amibuild init` and `schema`: how a recipe begins, and what may stand in it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session

RECIPE = "amibuild.toml"


class Example(StrEnum):
    """The folders in amibuild/examples, each a recipe with services of its own."""

    GAME_TITLES = "game-titles"


def init(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Folder that gets the recipe.")] = Path(),
    example: Annotated[
        Example | None,
        typer.Option(
            "--example",
            help="A recipe with services of its own; game-titles: five game servers that are no "
            "Debian packages.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a starter recipe; an existing one is left alone."""
    with session(context, as_json=as_json) as run:
        from amibuild.errors import UsageError
        from amibuild.files import write_atomically

        texts = _texts(example)
        for name in texts:
            path = directory / name
            if path.exists() or path.is_symlink():
                raise UsageError(f"{path} exists", hint="name another folder: amibuild init FOLDER")
        for name, text in texts.items():
            write_atomically(directory / name, text)
        path = directory / RECIPE
        run.story.say("next: `amibuild plan` shows what it makes, `amibuild bake` makes it")
        run.result(str(path), {"recipe": str(path)})


def _texts(example: Example | None) -> dict[str, str]:
    """Path below the user's folder -> text; the recipe last, for with it a project is complete."""
    from importlib.resources import as_file, files

    examples = files("amibuild") / "examples"
    if example is None:
        return {RECIPE: (examples / "starter.toml").read_text()}
    with as_file(examples / example.value) as folder:
        paths = sorted(
            (p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.name == RECIPE
        )
        return {str(path.relative_to(folder)): path.read_text() for path in paths}


def schema(
    context: typer.Context,
    manifest: Annotated[
        bool, typer.Option("--manifest", help="The manifest's schema, not the recipe's.")
    ] = False,
    _as_json: JsonOption = True,
) -> None:
    """Print the JSON Schema of the recipe, or of the manifest."""
    with session(context, as_json=True) as run:
        if manifest:
            from amibuild.outputs.manifest import schema as manifest_schema

            run.result("", manifest_schema())
        else:
            from amibuild.recipe.model import recipe_schema

            run.result("", recipe_schema())
