"""`amibuild policy`: what IAM has to allow."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from amibuild.cli import completion
from amibuild.cli.options import DEFAULT_RECIPE, JsonOption, RecipeArgument
from amibuild.cli.session import session

# Of a managed policy, white space not counted (IAM user guide, "IAM and AWS STS quotas").
MANAGED_LIMIT = 6144


class FlowName(StrEnum):
    BAKE = "bake"
    PROMOTE = "promote"
    LOOK = "look"
    PRUNE = "prune"
    REAP = "reap"


def policy(
    context: typer.Context,
    flow: Annotated[FlowName, typer.Argument(help="What the role is for.", show_default=False)],
    recipe: RecipeArgument = DEFAULT_RECIPE,
    hcl: Annotated[
        bool, typer.Option("--hcl", help="As a data source for Terraform's AWS provider.")
    ] = False,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            "--channel",
            metavar="CHANNEL",
            help="Of promote: this channel alone, and no revoking. Repeatable.",
            show_default=False,
            autocompletion=completion.channels,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the least-privilege IAM policy for a bake of this recipe, for moving its channels,
    for looking at a move before somebody approves it, for prune or for reap."""
    with session(context, as_json=as_json) as run:
        from amibuild.errors import UsageError
        from amibuild.project import load_project

        if hcl and as_json:
            raise UsageError(
                "--hcl and --json are two ways to print it: give one of them",
                hint="without either it is JSON",
            )
        if channel and flow is not FlowName.PROMOTE:
            raise UsageError(f"--channel is of `policy promote`, and {flow} moves none")
        project = load_project(recipe)
        from amibuild.aws.partition import partition_of
        from amibuild.channels import parameter_of
        from amibuild.outputs.policy_hcl import as_hcl
        from amibuild.permission import Wanted
        from amibuild.policy import Flow, document
        from amibuild.steps.preflight import refuse

        refuse(project.recipe)
        for one in channel or ():
            parameter_of(project.recipe, one)
        region = project.recipe.aws.region
        wanted = Wanted(project.recipe, project.steps, partition_of(region))
        role = (wanted, Flow(flow), channel or ())
        made = document(*role)
        size = len("".join(json.dumps(made).split()))
        if size > MANAGED_LIMIT:
            run.story.say(
                f"note: it has {size} characters without white space, and a managed policy may "
                f"have {MANAGED_LIMIT}: let it be the role's own (inline), which may have 10,240"
            )
        text = as_hcl(*role) if hcl else json.dumps(made, indent=2)
        run.result(text, made)
