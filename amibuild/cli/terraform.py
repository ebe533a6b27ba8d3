"""`amibuild terraform`: the files that Terraform reads."""

from __future__ import annotations

from typing import Annotated

import typer

from amibuild.cli import completion
from amibuild.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    MachineName,
    MachineOption,
    RecipeArgument,
    SetOption,
    TargetOption,
)
from amibuild.cli.session import session


def terraform(
    context: typer.Context,
    recipe: RecipeArgument = DEFAULT_RECIPE,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="IMAGE",
            help="AMI id, AMI name, version, or @CHANNEL; else the newest that is verified.",
            show_default=False,
            autocompletion=completion.images,
        ),
    ] = None,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write Terraform's files: the image's pinned id, a module, a host to begin from."""
    with session(context, as_json=as_json) as run:
        from amibuild.project import load_project

        project = load_project(recipe, overrides or ())
        from amibuild.cli.target import open_target

        with open_target(
            project.recipe, target, machine, run.story, flow="amibuild.handoff"
        ) as opened:
            from amibuild.handoff import hand_image_over

            handed = hand_image_over(project, opened.cloud, image)
        one = handed.image
        run.story.say(f"{one.id}  {one.name}")
        for path in handed.kept:
            run.story.say(f"{path} is yours and stays as it is")
        run.result(
            "\n".join(map(str, handed.written)),
            {
                "image": {
                    "id": one.id,
                    "name": one.name,
                    "version": one.version,
                    "digest": one.digest,
                    "region": one.region,
                },
                "written": list(map(str, handed.written)),
                "kept": list(map(str, handed.kept)),
            },
        )
