"""`amibuild images` and `show`: the registry, which is the account itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.options import (
    DEFAULT_RECIPE,
    ImageArgument,
    JsonOption,
    MachineName,
    MachineOption,
    RecipeOption,
    TargetOption,
)
from amibuild.cli.session import session

if TYPE_CHECKING:
    from amibuild.outputs.manifest import Manifest
    from amibuild.registry import ImageFacts


def images(
    context: typer.Context,
    recipe: RecipeOption = DEFAULT_RECIPE,
    every: Annotated[
        bool, typer.Option("--all", help="Images of all recipes, not of this one alone.")
    ] = False,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    as_json: JsonOption = False,
) -> None:
    """List the images, newest first."""
    with session(context, as_json=as_json) as run:
        from amibuild.cli.target import open_recipe
        from amibuild.registry import list_images

        with open_recipe(recipe, target, machine, run.story) as opened:
            found = list_images(opened.cloud, None if every else opened.recipe.image.name)
        if not found:
            run.story.say("there are no images yet: `amibuild bake` makes the first")
        run.result(images_text(found), {"images": [facts_json(one) for one in found]})


def images_text(found: tuple[ImageFacts, ...]) -> str:
    from amibuild.cli.table import columns

    rows = [("version", "id", "name", "state", "verified", "created", "digest")]
    for one in found:
        rows.append(
            (
                one.version,
                one.id,
                one.name,
                one.state if one.revoked is None else "revoked",
                "yes" if one.verified else "no",
                f"{one.created:%Y-%m-%d %H:%M}",
                one.digest[:12],
            )
        )
    return columns(rows)


def facts_json(one: ImageFacts) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "image": one.image,
        "version": one.version,
        "digest": one.digest,
        "state": one.state,
        "created": one.created.isoformat(),
        "verified": one.verified,
        "revoked": one.revoked,
        "deprecated": one.deprecation.isoformat() if one.deprecation else None,
        "source_ami": one.source_ami,
        "bake_id": one.bake_id,
        "region": one.region,
        "size_gib": one.size_gib,
        "snapshot_ids": list(one.snapshot_ids),
        "tags": dict(one.tags),
    }


def show(
    context: typer.Context,
    image: ImageArgument,
    recipe: RecipeOption = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Show one image, with its manifest where this folder has it."""
    with session(context, as_json=as_json) as run:
        from amibuild.channels import find
        from amibuild.cli.target import open_recipe
        from amibuild.errors import RecipeError
        from amibuild.record import manifest_of

        with open_recipe(recipe, target, machine, run.story) as opened:
            one = find(opened.cloud, opened.recipe, image)
        state_dir = recipe.absolute().parent / ".amibuild"
        manifest = None
        try:
            manifest = manifest_of(state_dir, one.name, one.id)
        except RecipeError as error:
            run.story.say(f"warning: its manifest can't be read, and is left out\n{error}")
        else:
            if manifest is None:
                run.story.say(
                    f"no manifest of {one.id} in {state_dir}: this image was baked elsewhere"
                )
        run.result(
            show_text(one, manifest),
            facts_json(one) | {"manifest": manifest.model_dump(mode="json") if manifest else None},
        )


def show_text(one: ImageFacts, manifest: Manifest | None) -> str:
    from amibuild.cli.table import columns

    rows = [
        ("id", one.id),
        ("name", one.name),
        ("version", one.version),
        ("region", one.region),
        ("state", one.state),
        ("verified", "yes" if one.verified else "no"),
        *([("revoked", one.revoked)] if one.revoked is not None else []),
        *([("deprecated", f"{one.deprecation:%Y-%m-%d %H:%M} UTC")] if one.deprecation else []),
        ("created", f"{one.created:%Y-%m-%d %H:%M:%S} UTC"),
        ("size", f"{one.size_gib} GiB"),
        ("snapshots", " ".join(one.snapshot_ids)),
        ("digest", one.digest),
        ("source", one.source_ami),
        ("bake", one.bake_id),
    ]
    if manifest is None:
        return columns(rows)
    rows += [
        ("packages", str(len(manifest.packages))),
        ("services", " ".join(manifest.services)),
        ("users", " ".join(manifest.users)),
        ("checks", f"{sum(c.outcome == 'passed' for c in manifest.checks)} passed"),
        ("took", f"{manifest.seconds.total:.1f} s"),
    ]
    steps = [("step", "kind", "seconds", "digest", "purpose")]
    for s in manifest.steps:
        steps.append((s.name, s.kind.value, f"{s.seconds:.1f}", s.digest[:12], s.purpose))
    return f"{columns(rows)}\n\n{columns(steps)}"
