"""`amibuild policy`: what IAM has to allow."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from amibuild.cli.options import DEFAULT_RECIPE, JsonOption, RecipeArgument
from amibuild.cli.session import session


class FlowName(StrEnum):
    BAKE = "bake"
    REAP = "reap"


def policy(
    context: typer.Context,
    flow: Annotated[FlowName, typer.Argument(help="What the role is for.", show_default=False)],
    recipe: RecipeArgument = DEFAULT_RECIPE,
    hcl: Annotated[
        bool, typer.Option("--hcl", help="As a data source for Terraform's AWS provider.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the least-privilege IAM policy for a bake of this recipe, or for reap."""
    with session(context, as_json=as_json) as run:
        from amibuild.policy import Flow, as_hcl, document
        from amibuild.recipe.load import load_recipe

        wanted = load_recipe(recipe)
        made = document(wanted, Flow(flow))
        text = as_hcl(wanted, Flow(flow)) if hcl else json.dumps(made, indent=2)
        run.result(text, made)
