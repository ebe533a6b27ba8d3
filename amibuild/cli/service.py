"""`amibuild service`: begin a service, and look at all that one compiles to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.options import DEFAULT_RECIPE, JsonOption, RecipeOption
from amibuild.cli.session import session

if TYPE_CHECKING:
    from amibuild.library.step import BuildStep

app = typer.Typer(
    help="Services: server programs described as data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ServiceName = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name, which is that of its folder.")
]


@app.command("new")
def new(
    context: typer.Context,
    name: ServiceName,
    recipe: RecipeOption = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """Write a commented service.toml beside the recipe; an existing one is left alone."""
    with session(context, as_json=as_json) as run:
        from importlib.resources import files

        from amibuild.errors import UsageError
        from amibuild.files import write_atomically
        from amibuild.library.load import service_folders
        from amibuild.recipe.values import STEP_NAME

        if STEP_NAME.fullmatch(name) is None:
            raise UsageError(
                f"{name!r} can't be the name of a service",
                hint="lower-case words joined by -, such as my-game",
            )
        folder = recipe.parent / "provisioners" / "services" / name
        if folder.exists() or folder.is_symlink():
            raise UsageError(f"{folder} exists", hint="choose another name")
        example = (files("amibuild") / "examples" / "service.toml").read_text()
        bundled = name in service_folders(recipe.parent)
        folder.mkdir(parents=True)
        path = folder / "service.toml"
        own = example.replace("NAME-server", f"{name}-server").replace('"NAME:', f'"{name}:')
        write_atomically(path, own)
        if bundled:
            run.story.say(
                f"warning: {name} is bundled too: from now on this recipe takes {folder}; "
                f'for a second one beside it, choose another name and based_on = "{name}"'
            )
        run.story.say(f"next: edit it, then `amibuild service show {name}`")
        run.result(str(path), {"service": name, "file": str(path)})


@app.command("show")
def show(
    context: typer.Context,
    name: ServiceName,
    recipe: RecipeOption = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """Print all that a service compiles to: units, firewall, logs, facts, checks."""
    with session(context, as_json=as_json) as run:
        from amibuild.errors import RecipeError, UsageError
        from amibuild.library.compile import compile_service
        from amibuild.library.folder import read_service
        from amibuild.library.load import service_folders
        from amibuild.recipe.document import did_you_mean
        from amibuild.recipe.load import load_recipe

        # A service can be looked at before there is a recipe that names it.
        image = load_recipe(recipe).image.name if recipe.exists() else "IMAGE"
        folders = service_folders(recipe.parent)
        if name not in folders:
            known = f"known are {', '.join(folders)}"
            hint = did_you_mean(name, folders) or known
            raise UsageError(f"there is no service {name}", hint=hint)
        found = read_service(folders[name], folders)
        if found.value is None or found.problems:
            raise RecipeError(found.problems)
        step = compile_service(found.value, image)
        run.result(step_text(step), step_json(step))


def step_text(step: BuildStep) -> str:
    """Each file under its name, as it comes to the machine. The programs are the same for all."""
    listed = [f for f in step.files if not f.path.startswith("bin/")]
    parts = [
        f"# {step.name}: {step.purpose}",
        f"# digest {step.digest}",
        f"# packages: {step.environment['SERVICE_PACKAGES'] or 'none'}",
        f"# checks: {', '.join(_checks(step))}",
    ]
    for file in listed:
        content = file.content.decode(errors="replace").rstrip("\n")
        parts += ["", f"==> {file.path}", content]
    return "\n".join(parts)


def step_json(step: BuildStep) -> dict[str, Any]:
    return {
        "name": step.name,
        "purpose": step.purpose,
        "digest": step.digest,
        "facts": dict(step.facts),
        "environment": dict(step.environment),
        "files": {f.path: f.content.decode(errors="replace") for f in step.files},
        "checks": _checks(step),
    }


def _checks(step: BuildStep) -> list[str]:
    """Not with the programs that they run."""
    return [check.path for check in step.checks if check.path.startswith("test_")]
