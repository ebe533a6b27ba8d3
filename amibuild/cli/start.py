"""`amibuild init` and `schema`: how a recipe begins, and what may stand in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session


def init(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Folder that gets the recipe.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a starter recipe; an existing one is left alone."""
    with session(context, as_json=as_json) as run:
        from importlib.resources import files

        from amibuild.errors import UsageError
        from amibuild.files import write_atomically

        path = directory / "amibuild.toml"
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists", hint="name another folder: amibuild init FOLDER")
        example = (files("amibuild") / "examples" / "starter.toml").read_text()
        write_atomically(path, example)
        run.story.say("next: `amibuild plan` shows what it makes, `amibuild bake` makes it")
        run.result(str(path), {"recipe": str(path)})


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
