"""`amibuild artifacts pin`, `fetch` and `mirror`: files that no Debian package brings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    MachineName,
    RecipeArgument,
    RecipeOption,
    SetOption,
    TargetName,
    TargetOption,
)
from amibuild.cli.session import Session, session

if TYPE_CHECKING:
    from amibuild.artifacts import Held
    from amibuild.aws.session import Cloud
    from amibuild.project import Project
    from amibuild.recipe.model import Recipe
    from amibuild.steps.artifacts import Places

app = typer.Typer(
    help="Files that no Debian package brings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("pin")
def pin(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="https, s3 or file address.")],
    recipe: RecipeOption = DEFAULT_RECIPE,
    target: TargetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a file once and print what to write into service.toml."""
    with session(context, as_json=as_json) as run:
        from pydantic import ValidationError

        from amibuild import artifacts as flow
        from amibuild.errors import UsageError
        from amibuild.library.artifact import NOT_PINNED, Artifact

        try:
            Artifact(url=url, sha256=NOT_PINNED)
        except ValidationError as error:
            raise UsageError(str(error.errors()[0]["ctx"]["error"])) from None
        with _cloud(run, recipe, target, [url]) as cloud:
            found = flow.pin(url, recipe.absolute().parent, cloud, run.story.say)
        body = {"url": found.url, "sha256": found.sha256, "size": found.size}
        run.result(found.toml(), {**body, "unpack": found.unpack, "top": found.top})


@app.command("fetch")
def fetch(
    context: typer.Context,
    recipe: RecipeArgument = DEFAULT_RECIPE,
    into: Annotated[
        Path | None,
        typer.Option("--into", help="Folder; .amibuild/artifacts when left out."),
    ] = None,
    target: TargetOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch and check all artifacts of a recipe; the folder can be its mirror."""
    with session(context, as_json=as_json) as run:
        from amibuild import artifacts as flow

        with _of_recipe(run, recipe, target, overrides) as (project, places, cloud):
            folder = into or project.state_dir / "artifacts"
            held = flow.fetch_all(project.steps, places, folder, cloud, run.story.say)
        run.result(_text(held), _json(held))


@app.command("mirror")
def mirror(
    context: typer.Context,
    recipe: RecipeArgument = DEFAULT_RECIPE,
    target: TargetOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put all artifacts of a recipe into its mirror."""
    with session(context, as_json=as_json) as run:
        from amibuild import artifacts as flow

        with _of_recipe(run, recipe, target, overrides) as (project, places, cloud):
            cache = project.state_dir / "artifacts"
            held = flow.mirror_all(project.steps, places, cache, cloud, run.story.say)
        run.result(_text(held), _json(held))


@contextmanager
def _of_recipe(
    run: Session, recipe: Path, target: TargetName | None, overrides: list[str] | None
) -> Iterator[tuple[Project, Places, Cloud | None]]:
    """Its project, where its artifacts may be, and the target where one of them needs it."""
    from amibuild import artifacts as flow
    from amibuild.project import load_project
    from amibuild.steps.artifacts import Places

    project = load_project(recipe, overrides or ())
    places = Places(project.directory, project.recipe.artifacts.mirror)
    urls = [source.url for _, source in flow.sources_of(project.steps)]
    with _cloud(run, recipe, target, urls, project.recipe) as cloud:
        yield project, places, cloud


@contextmanager
def _cloud(
    run: Session,
    path: Path,
    chosen: TargetName | None,
    urls: Sequence[str],
    recipe: Recipe | None = None,
) -> Iterator[Cloud | None]:
    """The target, when any of it is in S3; what is not needs no account and no endpoint."""
    from amibuild.artifacts import needs_cloud

    if not needs_cloud(urls, recipe.artifacts.mirror if recipe else None):
        yield None
        return
    from amibuild.cli.target import open_target
    from amibuild.recipe.load import load_recipe

    wanted = recipe or load_recipe(path)
    with open_target(wanted, chosen, MachineName.AUTO, run.story, base=False) as opened:
        yield opened.cloud


def _text(held: Sequence[Held]) -> str:
    from amibuild.cli.table import columns

    rows = [(h.step, "fetched" if h.fresh else "was there", h.place, h.url) for h in held]
    return columns([("step", "", "place", "from"), *rows]) if rows else ""


def _json(held: Sequence[Held]) -> dict[str, Any]:
    return {
        "artifacts": [
            {"step": h.step, "url": h.url, "place": h.place, "fresh": h.fresh} for h in held
        ]
    }
